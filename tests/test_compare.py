"""Comparing two versions: every figure against the same counted in plain Python."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import typer
from hats.catalog.dataset.collection_properties import CollectionProperties
from hats.pixel_math.spatial_index import compute_spatial_index
from typer.testing import CliRunner

from lightmill.catalogs.finish import finish_catalog
from lightmill.catalogs.partitions import NotHats
from lightmill.catalogs.receipts import receipt_path
from lightmill.catalogs.rows import commit, probability_columns, rejected_schema, row_schema, rows_table
from lightmill.catalogs.runfolder import CatalogueFolder
from lightmill.pipeline import cli_compare
from lightmill.pipeline.compare import BARS, Comparison, Shift, compare
from lightmill.pipeline.compare_side import CompareError

LEAVES = ("nonvar", "EW", "RRab", "LPV")
ORDER = 2
APP = typer.Typer()
cli_compare.register(APP)


@dataclass
class Rows:
    """Rows of a version, one a star."""

    objectid: np.ndarray
    ra: np.ndarray
    dec: np.ndarray
    p: np.ndarray  #: (n, k)
    period: np.ndarray  #: NaN where none was searched
    leaves: tuple[str, ...] = LEAVES
    run_id: str = "run-1"
    bundle: str = "0123abcd"
    unclassified: set[int] = field(default_factory=set)

    @property
    def best(self) -> list[str]:
        """Best class of each."""
        names = [self.leaves[k] for k in self.p.argmax(axis=1)]
        pairs = zip(self.objectid.tolist(), names, strict=True)
        return ["unclassified" if one in self.unclassified else name for one, name in pairs]

    def only(self, chosen: np.ndarray) -> Rows:
        """Some of them."""
        arrays = (array[chosen] for array in (self.objectid, self.ra, self.dec, self.p, self.period))
        return Rows(*arrays, self.leaves, self.run_id, self.bundle, self.unclassified)


def stars(n: int, leaves: tuple[str, ...] = LEAVES, seed: int = 1) -> Rows:
    """n stars within a few degrees, half of them with a period."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(len(leaves), 0.4), n).astype(np.float32)
    period = np.where(rng.random(n) < 0.5, rng.uniform(0.1, 100, n), np.nan)
    return Rows(
        rng.permutation(n) * 7 + 10**15, rng.uniform(100, 112, n), rng.uniform(-6, 6, n), p, period, leaves
    )


def write(catalogue: Path, name: str, rows: Rows, rejected: dict[int, str] | None = None) -> Path:
    """A published version, by hand; its folder."""
    folder = CatalogueFolder.at(catalogue).version(name)
    n, ordered = len(rows.objectid), np.sort(rows.p, axis=1)
    columns: dict[str, Any] = {
        "_healpix_29": compute_spatial_index(rows.ra, rows.dec) if n else np.empty(0, int),
        "objectid": rows.objectid,
        "ra": rows.ra,
        "dec": rows.dec,
        "filterid": np.ones(n, int),
        "n_good": np.full(n, 50),
        "baseline": np.ones(n),
        "mag_mean": np.full(n, 17.0),
        "amplitude": np.full(n, 0.1),
        "best_class": rows.best,
        "best_prob": ordered[:, -1],
        "margin": ordered[:, -1] - ordered[:, -2],
        "period": pa.array(rows.period, from_pandas=True),
        "flags": np.zeros(n, int),
        "bundle": [rows.bundle] * n,
        "run_id": [rows.run_id] * n,
    } | dict(zip(probability_columns(rows.leaves), rows.p.T, strict=True))
    table = rows_table(columns, row_schema(rows.leaves))
    pixels = table["_healpix_29"].to_numpy() >> (2 * (29 - ORDER))
    partitions = {}
    for pixel in np.unique(pixels).tolist() or [0]:
        mine = table.filter(pa.array(pixels == pixel))
        path = receipt_path(folder / "objects" / "dataset", ORDER, pixel).with_suffix(".parquet")
        commit(mine, path, folder / "scratch")
        partitions[ORDER, pixel] = len(mine)
    finish_catalog(
        folder / "objects", name=name, partitions=partitions, ra_column="ra", dec_column="dec",
        properties={"lightmill_recipe": "ztf-dr"},
    )  # fmt: skip
    for where, url in ((folder, "objects"), (catalogue, f"versions/{name}/objects")):
        facts = {"obs_collection": name, "hats_primary_table_url": url}
        CollectionProperties.model_validate(facts).to_properties_file(where)
    if rejected:
        listed = {
            "_healpix_29": np.zeros(len(rejected), int),
            "objectid": np.array(list(rejected)),
            "ra": np.zeros(len(rejected)),
            "dec": np.zeros(len(rejected)),
            "filterid": np.ones(len(rejected), int),
            "n_good": np.zeros(len(rejected), int),
            "reason": list(rejected.values()),
            "run_id": [rows.run_id] * len(rejected),
        }
        path = receipt_path(folder / "rejected", ORDER, 0).with_suffix(".parquet")
        commit(rows_table(listed, rejected_schema()), path, folder / "scratch")
    return folder


def shifted(before: Rows, seed: int = 2) -> Rows:
    """The same stars, looked at again: other probabilities, some other periods."""
    rng, n = np.random.default_rng(seed), len(before.objectid)
    p = before.p + rng.exponential(0.15, before.p.shape) * (rng.random((n, 1)) < 0.6)
    factor = rng.choice([1, 1.004, 2, 0.5, 1.3], n)
    period = np.where(rng.random(n) < 0.1, np.nan, before.period * factor)
    period = np.where(np.isnan(before.period) & (rng.random(n) < 0.1), 1.0, period)
    p = (p / p.sum(axis=1, keepdims=True)).astype(np.float32)
    chosen = set(before.objectid[rng.random(n) < 0.03].tolist())
    return Rows(before.objectid, before.ra, before.dec, p, period, before.leaves, "run-2", "feedbeef", chosen)


@dataclass
class Pair:
    """Two versions, and what was written into them."""

    a: Path
    b: Path
    first: Rows
    second: Rows
    rejected: dict[int, str]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """3,000 stars of which 2,500 are in both."""
    catalogue, every = tmp_path_factory.mktemp("pair") / "catalogue", stars(3000)
    at = np.arange(3000)
    first, second = every.only(at < 2800), shifted(every).only(at >= 300)
    rejected = {one: "flagged" if one % 3 else "too_few_epochs" for one in every.objectid[:200].tolist()}
    return Pair(
        write(catalogue, "v1", first), write(catalogue, "v2", second, rejected), first, second, rejected
    )


def expected_periods(first: dict[int, float], second: dict[int, float], both: list[int]) -> Counter[str]:
    """Which periods are the same, in plain Python."""
    found: Counter[str] = Counter()
    for one in both:
        p, q = first[one], second[one]
        if np.isnan(p) or np.isnan(q):
            found[
                "neither" if np.isnan(p) and np.isnan(q) else "only_second" if np.isnan(p) else "only_first"
            ] += 1
        elif abs(q / p - 1) <= 0.01:
            found["same"] += 1
        elif abs(q / p / 2 - 1) <= 0.01 or abs(q / p * 2 - 1) <= 0.01:
            found["factor_2"] += 1
        else:
            found["other"] += 1
    return found


def test_every_figure_is_what_plain_python_counts(pair: Pair) -> None:
    first, second = pair.first, pair.second
    found = compare(str(pair.a), str(pair.b))
    one, two = (dict(zip(r.objectid.tolist(), r.best, strict=True)) for r in (first, second))
    both = sorted(one.keys() & two.keys())
    assert (found.both, found.new, found.lost) == (2500, 200, 300)
    assert found.first["rows"] == 2800
    assert found.second["rows"] == 2700

    assert found.new_reasons == {"not read": 200}
    assert found.lost_reasons == Counter(pair.rejected.values()) | {"not read": 100}

    pairs = Counter((one[key], two[key]) for key in both)
    assert found.classes == [*LEAVES, "unclassified"]
    matrix = {
        (a, b): n
        for a, row in zip(found.classes, found.migration, strict=True)
        for b, n in zip(found.classes, row, strict=True)
        if n
    }
    assert matrix == pairs
    off = {key: n for key, n in pairs.items() if key[0] != key[1]}
    assert found.changed == sum(off.values())
    assert found.share_changed == pytest.approx(sum(off.values()) / 2500)
    assert [move.rows for move in found.moves] == sorted(off.values(), reverse=True)[:20]
    for move in found.moves:
        assert off[move.first, move.second] == move.rows
        mine = [key for key in both if (one[key], two[key]) == (move.first, move.second)]
        assert move.examples == mine[:5]

    periods = [dict(zip(r.objectid.tolist(), r.period.tolist(), strict=True)) for r in (first, second)]
    counted = expected_periods(periods[0], periods[1], both)
    assert found.periods == counted
    assert all(found.periods[name] > 0 for name in found.periods)


def test_shifts_are_those_of_numpy(pair: Pair) -> None:
    found = compare(str(pair.a), str(pair.b))
    at = {key: i for i, key in enumerate(pair.second.objectid.tolist())}
    mine = [(i, at[key]) for i, key in enumerate(pair.first.objectid.tolist()) if key in at]
    i, j = np.array(mine).T
    delta = pair.second.p[j].astype(float) - pair.first.p[i].astype(float)
    assert list(found.shifts) == list(LEAVES)
    for shift, d in zip(found.shifts.values(), delta.T, strict=True):
        assert shift.rows == 2500
        assert shift.mean == pytest.approx(d.mean(), abs=1e-7)
        assert shift.std == pytest.approx(d.std(), abs=1e-7)
        assert shift.large == pytest.approx((np.abs(d) > 0.1).mean())
        exact = np.percentile(d, [1, 16, 50, 84, 99], method="inverted_cdf")
        # percentiles are found in bins of 1/10,000
        assert list(shift.percentiles.values()) == pytest.approx(exact, abs=1e-4)
        assert sum(shift.bars) == 2500
        # what lies within half a fine bin of an edge may be on either side of it
        near = sum(int((np.abs(d - edge) < 1e-4).sum()) for edge in BARS)
        assert np.abs(np.array(shift.bars) - np.histogram(d, BARS)[0]).sum() <= 2 * near


def test_the_map_counts_rows_by_pixel(pair: Pair) -> None:
    found = compare(str(pair.a), str(pair.b))
    one, two = (dict(zip(r.objectid.tolist(), r.best, strict=True)) for r in (pair.first, pair.second))
    where = dict(
        zip(
            pair.second.objectid.tolist(), compute_spatial_index(pair.second.ra, pair.second.dec), strict=True
        )
    )
    assert found.map_order == 5
    rows, changed = Counter[int](), Counter[int]()
    for key in one.keys() & two.keys():
        pixel = int(where[key]) >> (2 * (29 - 5))
        rows[pixel] += 1
        changed[pixel] += one[key] != two[key]
    assert {cell["pixel"]: cell["rows"] for cell in found.map} == rows
    assert {cell["pixel"]: cell["changed"] for cell in found.map} == changed


def test_the_map_of_a_large_part_of_the_sky_is_coarser(tmp_path: Path) -> None:
    rng, rows = np.random.default_rng(3), stars(9000)
    rows.ra, rows.dec = rng.uniform(0, 360, 9000), np.degrees(np.arcsin(rng.uniform(-1, 1, 9000)))
    place = str(write(tmp_path / "whole", "v1", rows))
    found = compare(place, place)
    assert found.map_order == 4
    assert sum(cell["rows"] for cell in found.map) == 9000
    assert len(found.map) <= 3072


def test_identical_versions_have_not_changed(pair: Pair) -> None:
    found = compare(str(pair.a), str(pair.a))
    assert (found.both, found.new, found.lost, found.changed, found.share_changed) == (2800, 0, 0, 0, 0.0)
    assert (found.moves, found.lost_reasons, found.new_reasons) == ([], {}, {})
    for shift in found.shifts.values():
        assert (shift.mean, shift.std, shift.large) == (0.0, 0.0, 0.0)
        assert set(shift.percentiles.values()) == {0.0}
    assert {name for name, n in found.periods.items() if n} == {"same", "neither"}
    assert all(cell["changed"] == 0 for cell in found.map)


def test_versions_without_a_star_in_common(tmp_path: Path) -> None:
    every = stars(200)
    at = np.arange(200)
    a = write(tmp_path / "c", "a", every.only(at < 90))
    b = write(tmp_path / "c", "b", every.only(at >= 90))
    found = compare(str(a), str(b))
    assert (found.both, found.new, found.lost, found.changed) == (0, 110, 90, 0)
    assert found.share_changed is None
    assert found.lost_reasons == {"not read": 90}
    assert found.shifts["EW"] == Shift(0, None, None, {}, None, [0] * 101)
    assert found.map == []
    json.dumps(asdict(found), allow_nan=False)


def test_other_classes_are_named(tmp_path: Path) -> None:
    before, after = stars(300), stars(300, ("nonvar", "EW", "RRab", "SN_Ia", "SN_II"))
    a, b = write(tmp_path / "one", "a", before), write(tmp_path / "two", "b", after)
    found = compare(str(a), str(b))
    assert (found.only_first, found.only_second) == (["LPV"], ["SN_Ia", "SN_II"])
    assert list(found.shifts) == ["nonvar", "EW", "RRab"]
    assert found.classes == ["nonvar", "EW", "RRab", "LPV", "SN_Ia", "SN_II"]
    assert sum(map(sum, found.migration)) == 300


def test_a_version_without_rows(tmp_path: Path) -> None:
    every = stars(50)
    a = write(tmp_path / "c", "a", every.only(np.zeros(50, bool)))
    b = write(tmp_path / "c", "b", every)
    found = compare(str(a), str(b))
    assert (found.both, found.new, found.lost) == (0, 50, 0)
    found = compare(str(a), str(a))
    assert (found.both, found.new, found.lost, found.map) == (0, 0, 0, [])


def test_a_version_is_named_by_folder_by_catalogue_and_by_name(pair: Pair) -> None:
    catalogue = pair.a.parent.parent
    with pytest.raises(NotHats, match=r"no version 'v1'; it has none"):  # half made
        compare(f"{catalogue}@v1", str(catalogue))
    for side in (pair.a, pair.b):
        (side / "version.json").write_text(json.dumps({"name": side.name, "records": {}}))
    exact = compare(str(pair.a), str(pair.b))
    # the catalogue's current version is the one written last
    by_name = compare(f"{catalogue}@v1", str(catalogue))
    assert by_name.migration == exact.migration
    assert by_name.second["name"] == "v2"
    with pytest.raises(NotHats, match=r"no version 'v9'; it has v1, v2"):
        compare(f"{catalogue}@v9", str(catalogue))
    for side in (pair.a, pair.b):
        (side / "version.json").unlink()
    with pytest.raises(NotHats, match=r"nowhere is not a HATS catalogue"):
        compare(str(catalogue / "nowhere"), str(catalogue))


def test_what_is_known_of_both_sides(pair: Pair) -> None:
    run = CatalogueFolder.at(pair.a.parent.parent).run("run-2")
    run.root.mkdir(parents=True, exist_ok=True)
    run.record.write_text(json.dumps({"recipe": {"name": "ztf-dr"}, "created": "2026-11-28T10:00:00+00:00"}))
    (pair.b / "version.json").write_text(json.dumps({"name": "v2", "note": "second", "records": {}}))
    found = compare(str(pair.a), str(pair.b))
    assert found.first["bundles"] == {"0123abcd": 2800}
    assert found.first["runs"] == {"run-1": {"rows": 2800}}
    assert found.first["version"] == {}
    assert found.first["properties"]["lightmill_recipe"] == "ztf-dr"
    assert found.second["version"] == {"name": "v2", "note": "second"}
    created = "2026-11-28T10:00:00+00:00"
    assert found.second["runs"] == {"run-2": {"rows": 2700, "created": created, "recipe": "ztf-dr"}}
    # a version that was copied elsewhere has the records of its runs with it
    facts = {"name": "v2", "records": {"run-2": {"code": "0.2.0"}}}
    (pair.b / "version.json").write_text(json.dumps(facts))
    found = compare(str(pair.a), str(pair.b))
    assert found.second["version"] == {"name": "v2"}
    assert found.second["runs"]["run-2"] == {"rows": 2700, "code": "0.2.0"}


def test_a_light_curve_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    every = stars(50)
    twice = every.only(np.r_[np.arange(50), 7])
    a, b = write(tmp_path / "c", "a", every), write(tmp_path / "c", "b", twice)
    with pytest.raises(CompareError, match=r"has 50 rows, 51 once they are joined .* more than once"):
        compare(str(a), str(b))


def test_an_object_store_gives_the_same(pair: Pair) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(str(pair.b.parent.parent), "/diff-catalogue", recursive=True)
    memory.pipe("/diff-catalogue/versions/v2/version.json", b'{"name": "v2", "records": {}}')
    try:
        found = compare(str(pair.a), "memory://diff-catalogue@v2")
    finally:
        memory.rm("/diff-catalogue", recursive=True)
    exact = compare(str(pair.a), str(pair.b))
    assert found.migration == exact.migration
    assert found.lost_reasons == exact.lost_reasons


def test_memory_is_an_amount(pair: Pair) -> None:
    with pytest.raises(CompareError, match="is not an amount such as 1GB"):
        compare(str(pair.a), str(pair.b), memory="much")


def test_the_command_prints_json_a_table_and_writes_a_page(pair: Pair, tmp_path: Path) -> None:
    page = tmp_path / "diff.html"
    done = CliRunner().invoke(APP, [str(pair.a), str(pair.b), "--format", "json", "--html", str(page)])
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert facts == json.loads(json.dumps(asdict(compare(str(pair.a), str(pair.b)))))
    assert set(facts) == set(Comparison.__dataclass_fields__)
    html = page.read_text()
    assert "not read" in html
    assert "http" not in html.replace('content="width', "").split("</style>")[1].replace("http-equiv", "")
    done = CliRunner().invoke(APP, [str(pair.a), str(pair.b)])
    assert done.exit_code == 0, done.output
    assert "2,500" in done.stdout
    assert "too_few_epochs" in done.stdout


def test_pages_of_versions_with_little_to_show(tmp_path: Path) -> None:
    every = stars(60)
    at = np.arange(60)
    empty = write(tmp_path / "c", "empty", every.only(at < 0))
    a = write(tmp_path / "c", "a", every.only(at < 30))
    b = write(tmp_path / "c", "b", every.only(at >= 30))
    for one, other in ((empty, empty), (a, b), (a, a), (a, empty)):
        page = tmp_path / "page.html"
        done = CliRunner().invoke(APP, [str(one), str(other), "--html", str(page)])
        assert done.exit_code == 0, done.output
        assert page.read_text().rstrip().endswith("</html>")
