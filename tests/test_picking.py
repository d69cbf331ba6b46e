"""What to label next: against an oracle that sees the whole catalogue and looks at each row in turn."""

from __future__ import annotations

from collections import Counter
from itertools import cycle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from hats.pixel_math.spatial_index import compute_spatial_index

from lightmill.catalogs.lightcurves import objectid_of
from lightmill.catalogs.publish import publish
from lightmill.catalogs.query import QueryError
from lightmill.catalogs.receipts import Receipt, write_json, write_receipt
from lightmill.catalogs.rows import FLAGS, commit, row_schema, rows_table
from lightmill.catalogs.runfolder import CatalogueFolder
from lightmill.pipeline import picking
from lightmill.pipeline.ballots import VotesError
from lightmill.pipeline.picking import CRITERIA, pick

LEAVES = ("nonvar", "EA", "EW", "LPV", "RRab")
SHARES = (0.3, 0.05, 0.35, 0.01, 0.29)


def make(out: Path, n: int = 600, seed: int = 1, *, novelty: bool = True, **changes: np.ndarray) -> dict:
    """A published catalogue of n light curves, and its columns; two of five are of a star that another is of too."""
    rng = np.random.default_rng(seed)
    ra, dec = rng.uniform(-3, 3, n) % 360, rng.uniform(-80, -75, n)
    twins = n // 5
    # a second filter, up to 1.4 arcsec away in declination alone: right ascension would shrink with it
    ra[-twins:], dec[-twins:] = ra[:twins], dec[:twins] + rng.uniform(-1.4, 1.4, twins) / 3600
    margin = rng.uniform(0, 1, n)
    columns = {
        "_healpix_29": compute_spatial_index(ra, dec),
        "objectid": 10**17 + rng.permutation(n),
        "ra": ra,
        "dec": dec,
        "filterid": np.repeat([1, 2], [n - twins, twins]),
        "n_good": rng.integers(20, 900, n),
        "best_class": rng.choice(np.array(LEAVES, object), n, p=SHARES),
        "best_prob": 0.5 + margin / 2,
        "margin": margin,
        "flags": FLAGS["gated_out"] * rng.integers(0, 2, n) + FLAGS["moved_index"] * rng.integers(0, 2, n),
    } | changes
    if novelty:
        columns["novelty"] = rng.exponential(1, n)
    leaves = {f"p_{leaf}": np.full(n, 1 / len(LEAVES)) for leaf in LEAVES}
    table = rows_table(columns | leaves, row_schema(LEAVES))
    folder = CatalogueFolder(out).run("run")
    write_json(folder.record, {"run_id": "run"})
    pixels = table["_healpix_29"].to_numpy() >> (2 * (29 - 3))
    for pixel in np.unique(pixels).tolist():
        mine = table.filter(pa.array(pixels == pixel))
        size, _ = commit(mine, folder.rows(3, pixel), folder.scratch)
        write_receipt(folder.receipts, Receipt(3, pixel, "f" * 64, len(mine), len(mine), {}, size, 0.1))
    publish(folder.catalogue, [folder], catalogue_name="tiny", provenance={}, margin=0)
    return {name: np.asarray(table[name].to_pylist()) for name in table.column_names}


def oracle(rows: dict, n: int, by: str, labelled: tuple[int, ...] = ()) -> list[int]:
    """Identifiers, by going through the rows one by one."""
    places = SkyCoord(rows["ra"], rows["dec"], unit="deg")
    passed = np.flatnonzero((rows["flags"] & FLAGS["gated_out"]) == 0)
    hardest = passed[np.argsort(rows["margin"][passed])].tolist()
    lines = {
        "uncertainty": [hardest],
        "novelty": [np.argsort(-rows["novelty"]).tolist()],
        "balance": [[i for i in hardest if rows["best_class"][i] == leaf] for leaf in sorted(LEAVES)],
    }
    taken = [int(i) for i in np.flatnonzero(np.isin(rows["objectid"], labelled))]
    chosen: list[int] = []

    def free(i: int) -> bool:
        return not taken or bool((places[i].separation(places[taken]) > 1.5 * u.arcsec).all())

    def first(queues: list[list[int]]) -> int | None:
        while queues:
            queue = queues.pop(0)
            while queue:
                i = queue.pop(0)
                if free(i):
                    queues.append(queue)
                    return i
        return None

    names = [name for name in CRITERIA if by in (name, "mixed")]
    empty = set()
    for name in cycle(names):
        i = first(lines[name]) if name not in empty else None
        if i is None:
            empty.add(name)
        else:
            taken.append(i)
            chosen.append(i)
        if len(chosen) == n or len(empty) == len(names):
            return rows["objectid"][chosen].tolist()
    raise AssertionError


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory) -> tuple[str, dict]:
    out = tmp_path_factory.mktemp("picking") / "catalogue"
    return str(out), make(out)


@pytest.mark.parametrize("by", [*CRITERIA, "mixed"])
@pytest.mark.parametrize("n", [1, 10, 100, 1000])
def test_picks_are_those_of_the_oracle(catalogue: tuple[str, dict], by: str, n: int):
    url, rows = catalogue
    found = pick(url, n, by=by)
    assert found.rows["objectid"].to_pylist() == oracle(rows, n, by)
    assert found.rows["rank"].to_pylist() == list(range(1, len(found.rows) + 1))
    assert bool(found.notes) == (len(found.rows) < n)


def test_looking_deeper_changes_nothing(catalogue: tuple[str, dict], monkeypatch: pytest.MonkeyPatch):
    """Three rows at first: what is cut off must be looked for, not taken for missing."""
    url, _ = catalogue
    whole = {by: pick(url, 40, by=by).rows for by in (*CRITERIA, "mixed")}
    monkeypatch.setattr(picking, "_depth", lambda n: 3)
    for by, rows in whole.items():
        assert pick(url, 40, by=by).rows.equals(rows), by


def test_no_star_twice_and_nothing_that_is_labelled(catalogue: tuple[str, dict], tmp_path: Path):
    url, rows = catalogue
    before = pick(url, 50).rows
    labelled = before["objectid"].to_pylist()[:30]
    pq.write_table(pa.table({"id": pa.array(labelled), "label": ["EW"] * 30}), tmp_path / "done.parquet")
    (tmp_path / "done.csv").write_text("id,label\n" + "".join(f"{i},EW\n" for i in labelled))
    found = pick(url, 50, exclude=tmp_path / "done.parquet").rows
    assert found["objectid"].to_pylist() == oracle(rows, 50, "mixed", tuple(labelled))
    assert found.equals(pick(url, 50, exclude=tmp_path / "done.csv").rows)
    everything = pick(url, 10_000).rows
    places = SkyCoord(everything["ra"].to_numpy(), everything["dec"].to_numpy(), unit="deg")
    assert places.match_to_catalog_sky(places, nthneighbor=2)[1].arcsec.min() > 1.5


def test_text_identifiers_are_excluded_by_their_hash(tmp_path: Path):
    names = [f"ZTF{i:05d}" for i in range(20)]
    ids = np.array([objectid_of(name) for name in names])
    make(tmp_path / "c", 20, objectid=ids, flags=np.zeros(20, int))
    (tmp_path / "done.csv").write_text("id\n" + "\n".join(names[:15]))
    found = pick(str(tmp_path / "c"), 20, by="uncertainty", exclude=tmp_path / "done.csv").rows
    assert set(found["objectid"].to_pylist()) <= set(ids[15:].tolist())


def test_classes_come_evenly_and_the_hardest_first(catalogue: tuple[str, dict]):
    url, rows = catalogue
    found = pick(url, 50, by="balance").rows.to_pylist()
    counts = Counter(row["best_class"] for row in found)
    passed = (rows["flags"] & 1) == 0
    # only what there is not enough of may have fewer
    enough = [leaf for leaf in LEAVES if (passed & (rows["best_class"] == leaf)).sum() > 30]
    assert len(enough) >= 3
    assert max(counts.values()) - min(counts[leaf] for leaf in enough) <= 1
    for leaf in LEAVES:
        margins = [row["margin"] for row in found if row["best_class"] == leaf]
        assert margins == sorted(margins)


def test_each_row_says_why(catalogue: tuple[str, dict]):
    found = pick(catalogue[0], 9).rows.to_pylist()
    assert [row["picked_by"] for row in found] == list(CRITERIA) * 3
    for row in found:
        number = {"novelty": f"{row['novelty']:.4g}"}.get(row["picked_by"], f"{row['margin']:.3g}")
        assert number in row["why"]
        if row["picked_by"] == "balance":
            assert row["best_class"] in row["why"]


def test_seed_breaks_ties_alone(tmp_path: Path):
    make(tmp_path / "c", 300, margin=np.repeat([0.1, 0.2], 150), flags=np.zeros(300, int))
    url = str(tmp_path / "c")
    one, two, again = (pick(url, 30, by="uncertainty", seed=seed).rows for seed in (1, 2, 1))
    assert one.equals(again)
    ids = [set(rows["objectid"].to_pylist()) for rows in (one, two)]
    assert len(ids[0] & ids[1]) < 15  # by chance 6 are in both
    assert set(one["margin"].to_pylist()) == {np.float32(0.1)}


def test_a_catalogue_without_novelty_says_so(tmp_path: Path):
    make(tmp_path / "c", 100, novelty=False)
    with pytest.raises(QueryError, match="has no novelty"):
        pick(str(tmp_path / "c"), 10, by="novelty")
    found = pick(str(tmp_path / "c"), 10)
    assert "has no novelty" in found.notes[0]
    # its share goes to the others
    assert found.rows["picked_by"].to_pylist() == ["uncertainty", "balance"] * 5


def test_what_cannot_be_picked_from(tmp_path: Path, catalogue: tuple[str, dict]):
    make(tmp_path / "c", 20, flags=np.ones(20, int))
    with pytest.raises(QueryError, match="no light curve passed the gate"):
        pick(str(tmp_path / "c"), 10, by="uncertainty")
    with pytest.raises(QueryError, match="by 'luck' cannot be picked"):
        pick(catalogue[0], 10, by="luck")
    with pytest.raises(QueryError, match="0 light curves"):
        pick(catalogue[0], 0)
    (tmp_path / "x.csv").write_text("star-name\nx\n")
    with pytest.raises(VotesError, match="which column names the object"):
        pick(catalogue[0], 1, exclude=tmp_path / "x.csv")


def test_rows_without_a_margin_are_passed_over(tmp_path: Path):
    margin = np.linspace(0.1, 0.9, 30)
    margin[3] = np.nan
    make(tmp_path / "c", 30, margin=margin, flags=np.zeros(30, int))
    for by in ("uncertainty", "balance"):
        found = pick(str(tmp_path / "c"), 100, by=by).rows
        assert np.isfinite(found["margin"].to_numpy()).all()
        assert len(found) in (
            23,
            24,
        )  # six are of a star that is there already, one of them perhaps of this one
