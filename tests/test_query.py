"""`catalogs/query.py`: each condition against the rows that were written, cones against astropy on the whole sky."""

from __future__ import annotations

from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord

from lightmill.catalogs import query as module
from lightmill.catalogs.formats import encode
from lightmill.catalogs.partitions import Cone, NotHats, open_hats
from lightmill.catalogs.query import QueryError, Question, leaves_of, query, why_rejected
from lightmill.catalogs.receipts import receipt_path
from lightmill.catalogs.rows import commit, rejected_schema, row_schema, rows_table
from lightmill.catalogs.runfolder import CatalogueFolder

LEAVES = ("nonvar", "EW", "RRab", "SN_Ia")


@pytest.fixture(scope="module")
def sky(tmp_path_factory, write_catalogue) -> tuple[str, pa.Table]:
    """Rows everywhere, dense at the poles and on both sides of ra = 0."""
    rng = np.random.default_rng(21)
    ra = [
        rng.uniform(0, 360, 400),
        rng.uniform(0, 360, 200),
        rng.uniform(0, 360, 200),
        rng.uniform(-2, 2, 300) % 360,
    ]
    dec = [
        np.degrees(np.arcsin(rng.uniform(-1, 1, 400))),
        90 - rng.exponential(1, 200),
        rng.exponential(1, 200) - 90,
    ]
    dec.append(rng.uniform(-2, 2, 300))
    ra.append(np.array([0.0, 0.0, 0.0]))
    dec.append(np.array([90.0, -90.0, 0.0]))
    out = tmp_path_factory.mktemp("catalogue") / "sky"
    table = write_catalogue(out, np.concatenate(ra), np.concatenate(dec), order=1)
    return str(out), table


def ids(table: pa.Table) -> list[int]:
    return table["objectid"].to_pylist()


def column(table: pa.Table, name: str) -> np.ndarray:
    return np.asarray(table[name].to_pylist())


# Each condition


def test_without_conditions_everything_most_probable_first(sky):
    url, table = sky
    found = query(url, Question())
    assert sorted(ids(found)) == ids(table)
    keys = list(zip(-column(found, "best_prob"), ids(found), strict=True))
    assert keys == sorted(keys)
    again = found.sort_by("objectid")
    for name in table.schema.names:
        assert again[name].to_pylist() == table[name].to_pylist(), name


CONES = [
    Cone(0, 90, 1.5), Cone(123, 90, 0.5), Cone(200, 89.3, 1.2), Cone(45, -89.9, 2), Cone(300, -90, 0.01),
    Cone(0, 0, 1), Cone(359.5, 0.5, 1.1), Cone(360, 0, 1), Cone(-0.5, 0, 1), Cone(0.5, -0.7, 0.6), Cone(180, 0, 30),
    Cone(77, 40, 90), Cone(10, 10, 179.9), Cone(0, 0, 1e-4), Cone(250, -30, 119.5),
]  # fmt: skip


@pytest.mark.parametrize("cone", CONES, ids=str)
def test_cones_are_astropys(sky, cone):
    url, table = sky
    places = SkyCoord(column(table, "ra"), column(table, "dec"), unit="deg")
    distance = SkyCoord(cone.ra, cone.dec, unit="deg").separation(places).deg
    # both compute in doubles: only what lies within 1e-11 deg (36 nano-arcsec) of the rim may fall either way
    assert not (np.abs(distance - cone.radius) < 1e-11).any()
    found = query(url, Question(cone=cone))
    assert sorted(ids(found)) == np.flatnonzero(distance <= cone.radius).tolist()


def test_only_the_partitions_of_a_cone_are_read(sky, tmp_path, monkeypatch):
    url, _ = sky
    asked = []
    original = module.open_hats

    def spy(where):
        table = original(where)
        real = type(table).partitions
        monkeypatch.setattr(
            type(table), "partitions", lambda self, region=None: asked.append(region) or real(self, region)
        )
        return table

    monkeypatch.setattr(module, "open_hats", spy)
    query(url, Question(cone=Cone(0, 90, 1)))
    assert asked == [Cone(0, 90, 1)]
    monkeypatch.undo()
    assert len(open_hats(url).partitions(Cone(45, 60, 1))) < len(open_hats(url).partitions())


def test_a_cone_without_partitions_gives_no_rows_but_the_columns(tmp_path, write_catalogue):
    write_catalogue(tmp_path / "c", np.array([10.0]), np.array([10.0]), order=4)
    found = query(str(tmp_path / "c"), Question(cone=Cone(190, -10, 1)))
    assert found.num_rows == 0
    assert found.schema.names == row_schema(LEAVES).names


@pytest.mark.parametrize("name", LEAVES)
def test_class(sky, name):
    url, table = sky
    found = query(url, Question(best_class=name))
    assert sorted(ids(found)) == np.flatnonzero(column(table, "best_class") == name).tolist()
    assert (np.diff(column(found, f"p_{name}")) <= 0).all()


@pytest.mark.parametrize("least", [0.0, 0.5, 0.9, 0.999, 1.0])
def test_least_probability(sky, least):
    url, table = sky
    # what is stored is float32: 0.9 is 0.89999998
    found = query(url, Question(min_prob=least))
    assert (
        sorted(ids(found)) == np.flatnonzero(column(table, "best_prob") >= np.float32(least) - 3e-8).tolist()
    )
    found = query(url, Question(min_prob=least, best_class="EW"))
    mine = (column(table, "best_class") == "EW") & (column(table, "p_EW") >= np.float32(least) - 3e-8)
    assert sorted(ids(found)) == np.flatnonzero(mine).tolist()


@pytest.mark.parametrize("objectid", [0, 17, 1102])
def test_identifier(sky, objectid):
    assert ids(query(sky[0], Question(objectid=objectid))) == [objectid]
    assert ids(query(sky[0], Question(objectid=10**17))) == []


@pytest.mark.parametrize("limit", [0, 1, 5, 10**6])
def test_limit(sky, limit):
    url, table = sky
    found = query(url, Question(limit=limit))
    assert ids(found) == ids(query(url, Question()))[:limit]
    assert len(found) == min(limit, len(table))


def test_all_conditions_must_hold(sky):
    url, table = sky
    cone = Cone(0, 0, 1.5)
    found = query(url, Question(cone=cone, best_class="RRab", min_prob=0.6, limit=3))
    everything = query(url, Question(cone=cone, best_class="RRab", min_prob=0.6))
    assert ids(found) == ids(everything)[:3]
    assert set(column(everything, "best_class")) == {"RRab"}
    assert (column(everything, "p_RRab") >= 0.6).all()
    assert 0 < len(everything) < (column(table, "best_class") == "RRab").sum()


# SQL


def test_sql_over_the_rows_that_meet_the_rest(sky):
    url, table = sky
    sql = "SELECT best_class, count(*) AS n FROM catalogue GROUP BY best_class ORDER BY n DESC;"
    found = query(url, Question(sql=sql)).to_pylist()
    names, counts = np.unique(column(table, "best_class"), return_counts=True)
    assert {row["best_class"]: row["n"] for row in found} == dict(
        zip(names.tolist(), counts.tolist(), strict=True)
    )
    (row,) = query(url, Question(sql="SELECT count(*) AS n FROM catalogue", objectid=3)).to_pylist()
    assert row == {"n": 1}
    assert len(query(url, Question(sql="SELECT * FROM catalogue", limit=4))) == 4


def test_sql_keeps_its_order_under_a_limit(sky):
    found = query(sky[0], Question(sql="SELECT objectid FROM catalogue ORDER BY objectid DESC", limit=3))
    assert ids(found) == [1102, 1101, 1100]


@pytest.mark.parametrize("sql", ["SELEC 1", "SELECT nothing FROM catalogue", "SELECT * FROM elsewhere"])
def test_sql_that_is_refused(sky, sql):
    with pytest.raises(QueryError, match=r"DuckDB refuses the query: .*view `catalogue`.*p_EW"):
        query(sky[0], Question(sql=sql))


@pytest.mark.parametrize("sql", ["", ";", " ;\n"])
def test_empty_sql_is_none(sky, sql):
    assert ids(query(sky[0], Question(sql=sql, limit=3))) == ids(query(sky[0], Question(limit=3)))


def test_columns_that_go_through_keep_units_and_descriptions(sky):
    known = row_schema(LEAVES)
    for question in (Question(), Question(sql="SELECT ra, mag_mean, best_class FROM catalogue")):
        for field in query(sky[0], question).schema:
            assert field.metadata == known.field(field.name).metadata
    assert query(sky[0], Question(sql="SELECT 1 AS one FROM catalogue")).schema.field("one").metadata is None


@pytest.mark.parametrize("form", ["json", "csv", "parquet", "votable", "fits"])
def test_what_is_found_can_be_written(sky, form):
    assert encode(query(sky[0], Question(limit=5)), form)
    sums = "SELECT best_class, sum(n_good) AS epochs, avg(ra) AS ra, p_EW > 0.5 AS yes FROM catalogue GROUP BY ALL"
    assert encode(query(sky[0], Question(sql=sums)), form)


def test_units_in_the_votable_of_an_answer(sky):
    import io

    from astropy.table import Table

    data = encode(query(sky[0], Question(best_class="EW")), "votable")
    found = Table.read(io.BytesIO(data), format="votable")
    assert (found["ra"].unit, found["mag_mean"].unit) == (u.deg, u.mag)


# Where the catalogue lies, and what is none


def test_a_catalogue_behind_fsspec(tmp_path, write_catalogue):
    memory = fsspec.filesystem("memory")
    table = write_catalogue(tmp_path / "c", np.linspace(0, 350, 20), np.linspace(-80, 80, 20), order=1)
    memory.put(str(tmp_path / "c"), "/published/c", recursive=True)
    try:
        assert sorted(ids(query("memory://published/c", Question()))) == ids(table)
        near = Cone(table["ra"][3].as_py(), table["dec"][3].as_py(), 0.01)
        assert ids(query("memory://published/c", Question(cone=near))) == [3]
    finally:
        memory.rm("/published", recursive=True)


def test_a_path_with_signs_that_sql_or_globs_would_read(tmp_path, write_catalogue):
    out = tmp_path / "it's [a] Norder=9 * folder"
    table = write_catalogue(out, np.array([1.0, 2.0]), np.array([1.0, 2.0]))
    found = query(str(out), Question())
    assert sorted(ids(found)) == ids(table)
    assert "Norder" not in found.schema.names


def test_an_unknown_class_gets_the_nearest_name(sky):
    with pytest.raises(
        QueryError, match=r"unknown class 'RRAB'\. Did you mean 'RRab'\? The catalogue has nonvar, EW"
    ):
        query(sky[0], Question(best_class="RRAB"))
    with pytest.raises(QueryError, match=r"unknown class 'zzz'\. The catalogue has"):
        query(sky[0], Question(best_class="zzz"))
    with pytest.raises(QueryError, match="unknown class"):
        query(sky[0], Question(best_class="EW' OR '1'='1"))


def test_not_a_catalogue(tmp_path, tiny_release):
    with pytest.raises(NotHats):
        query(str(tmp_path / "nothing"), Question())
    with pytest.raises(QueryError, match="is not a classification catalogue"):
        query(str(tiny_release), Question())


def test_leaves():
    assert leaves_of(row_schema(LEAVES)) == LEAVES
    assert leaves_of(rejected_schema()) == ()


def test_why_rejected(tmp_path, write_catalogue):
    out = tmp_path / "c"
    write_catalogue(out, np.array([1.0]), np.array([1.0]))
    assert why_rejected(str(out), 77) is None
    folder = CatalogueFolder(out).version("v1")
    given = {
        "_healpix_29": [5],
        "objectid": [77],
        "ra": [1.0],
        "dec": [1.0],
        "n_good": [3],
        "reason": ["flagged"],
    }
    path = receipt_path(folder / "rejected", 2, 0).with_suffix(".parquet")
    commit(rows_table(given, rejected_schema()), path, tmp_path)
    assert why_rejected(str(out), 77) == "flagged (3 good epochs)"
    assert why_rejected(str(out), 78) is None


def test_a_partition_that_cannot_be_read(tmp_path, write_catalogue):
    out = tmp_path / "c"
    write_catalogue(out, np.array([1.0]), np.array([1.0]))
    (path,) = (out / "versions" / "v1" / "objects" / "dataset").rglob("Npix=*.parquet")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises((QueryError, OSError)) as caught:
        query(str(out), Question())
    assert Path(path).name in str(caught.value)


def test_the_files_on_disk_are_what_hats_lists(sky):
    url, table = sky
    rows = sum(pq.read_metadata(file).num_rows for p in open_hats(url).partitions() for file in p.urls)
    assert rows == len(table)
