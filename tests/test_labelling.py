"""From votes to a labelled table: every object accounted for, and the light curves as they were."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightmill.catalogs.lightcurves import LAYOUTS, LayoutError
from lightmill.pipeline import labelling
from lightmill.pipeline.ballots import VotesError
from lightmill.pipeline.labelled import read_labelled
from lightmill.pipeline.labelling import label

NAMES = ("EW", "RRab", "EA")


def poll(path: Path, ids: list[str], seed: int = 5) -> tuple[Path, dict[str, Counter[str]]]:
    """Up to six votes on each object, and what was said of it."""
    rng = np.random.default_rng(seed)
    rows, said = ["objectid,annotator,label"], {}
    for star in ids:
        names = [NAMES[min(int(x), 2)] for x in rng.exponential(0.8, rng.integers(1, 7))]
        said[star] = Counter(names)
        rows += [f"{star},user{i},{name}" for i, name in enumerate(names)]
    order = rng.permutation(np.arange(1, len(rows)))
    path.write_text("\n".join([rows[0], *(rows[i] for i in order)]) + "\n")
    return path, said


def expected(said: Counter[str], least: int, share: float) -> str:
    """The label, or why there is none; by hand."""
    best = said.most_common()
    if said.total() < least:
        return "too_few_votes"
    if len(best) > 1 and best[0][1] == best[1][1]:
        return "tie"
    return best[0][0] if best[0][1] / said.total() >= share else "no_agreement"


def test_each_layout_in_row_groups(tmp_path: Path, make_stars, stars_table, shape: str, monkeypatch):
    stars = make_stars(60, seed=9)
    table = stars_table(stars, shape)
    ids = [f"star-{i}" for i in stars.objectid] if shape == "labelled" else list(map(str, stars.objectid))
    pq.write_table(table, tmp_path / "curves.parquet", row_group_size=7)
    votes, said = poll(tmp_path / "votes.csv", [*ids[:50], "nobody-1", "nobody-2"])
    monkeypatch.setattr(labelling, "BATCH", 3)  # several in a row group
    done = label([votes], tmp_path / "curves.parquet", tmp_path / "out.parquet", min_votes=2)

    verdicts = {star: expected(counts, 2, 0.6) for star, counts in said.items()}
    for star in ("nobody-1", "nobody-2"):
        if verdicts[star] in NAMES:
            verdicts[star] = "no_light_curve"
    tallied = Counter(verdicts.values())
    assert done.objects == 52 == done.labelled + sum(done.left_out.values())
    assert done.classes == {name: n for name, n in tallied.items() if name in NAMES}
    assert done.left_out == {name: n for name, n in tallied.items() if name not in NAMES}
    assert done.votes == sum(counts.total() for counts in said.values())

    data = read_labelled(tmp_path / "out.parquet", LAYOUTS)
    written = pq.read_table(tmp_path / "out.parquet").to_pylist()
    for i, row in enumerate(written):
        star = str(row["id"])
        at = ids.index(star)
        assert row["label"] == verdicts[star] == data.label[i]
        assert row["votes"] == said[star].total()
        assert row["agreement"] == np.float32(said[star][row["label"]] / said[star].total())
        assert row["mjd"] == stars.t[at]
        assert row["mag"] == stars.mag[at]
        assert row["magerr"] == stars.magerr[at]
        assert row["ra"] == pytest.approx(stars.ra[at], abs=1e-4)  # float32 in a release
        if shape != "labelled":
            assert row["filterid"] == stars.filterid[at]
    assert len({row["id"] for row in written}) == done.labelled == len(data)
    if shape == "labelled":
        assert [row["group"] for row in written] == [stars.objectid[ids.index(row["id"])] for row in written]


def test_annotators_and_kappa(tmp_path: Path, make_stars, stars_table):
    pq.write_table(stars_table(make_stars(2), "labelled"), tmp_path / "c.parquet")
    a, b = pq.read_table(tmp_path / "c.parquet").column("id").to_pylist()
    rows = [f"{a},{who},EW" for who in "xyz"] + [f"{b},x,EA", f"{b},y,EA", f"{b},z,EW", f"{b},x,EA"]
    votes = tmp_path / "v.csv"
    votes.write_text("\n".join(["id,user,label", *rows]))
    done = label([votes], tmp_path / "c.parquet", tmp_path / "out.parquet")
    assert done.repeated == 1
    assert [(one["annotator"], one["votes"], one["agreed"]) for one in done.annotators] == [
        ("x", 2, 2),
        ("y", 2, 2),
        ("z", 2, 1),
    ]
    # by hand: P is 1 and 1/3, shares are 4/6 and 2/6
    assert done.fleiss_kappa == pytest.approx((2 / 3 - 5 / 9) / (1 - 5 / 9))


def test_flagged_epochs_are_left_out(tmp_path: Path, make_stars, stars_table):
    stars = make_stars(3, n_epochs=4)
    for star, flags in enumerate(([0, 32768, 1, 0], [32768] * 4, [0] * 4)):
        stars.flags[star][:] = flags
    pq.write_table(stars_table(stars, "struct<list>"), tmp_path / "c.parquet")
    votes = tmp_path / "v.csv"
    votes.write_text("objectid,EW\n" + "".join(f"{i},5\n" for i in stars.objectid))
    done = label([votes], tmp_path / "c.parquet", tmp_path / "out.parquet")
    assert (done.labelled, done.left_out) == (2, {"no_light_curve": 1})
    first, last = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert first["mjd"] == [stars.t[0][i] for i in (0, 2, 3)]
    assert (last["id"], last["mag"]) == (stars.objectid[2], stars.mag[2])
    assert done.annotators == []


def test_epochs_are_read_only_where_an_object_is_labelled(
    tmp_path: Path, make_stars, stars_table, monkeypatch
):
    stars = make_stars(40)
    pq.write_table(stars_table(stars, "list"), tmp_path / "c.parquet", row_group_size=10)
    votes = tmp_path / "v.csv"
    votes.write_text(f"objectid,EW\n{stars.objectid[25]},3\n")
    real, asked = pq.ParquetFile.iter_batches, []

    def watched(self, size, row_groups, **options):
        asked.extend(row_groups)
        return real(self, size, row_groups=row_groups, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", watched)
    label([votes], tmp_path / "c.parquet", tmp_path / "out.parquet")
    assert asked == [2]


class TestRefused:
    @pytest.fixture
    def curves(self, tmp_path: Path, make_stars, stars_table) -> Path:
        pq.write_table(stars_table(make_stars(4), "list"), tmp_path / "c.parquet")
        return tmp_path / "c.parquet"

    def refuse(self, tmp_path: Path, curves: Path, text: str, message: str, error: type = VotesError) -> None:
        (tmp_path / "v.csv").write_text(text)
        with pytest.raises(error, match=message):
            label([tmp_path / "v.csv"], curves, tmp_path / "out.parquet")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["c.parquet", "v.csv"]

    def test_nothing_to_label(self, tmp_path: Path, curves: Path):
        self.refuse(tmp_path, curves, "id,EW\n1,2\n", "none of 1 objects can be labelled: 1 too_few_votes")

    def test_identifiers_of_something_else(self, tmp_path: Path, curves: Path):
        self.refuse(tmp_path, curves, "id,EW\nx,3\n", "has a light curve in the table, for example x")

    def test_an_object_with_two_light_curves(self, tmp_path: Path, curves: Path):
        table = pq.ParquetFile(curves).read()
        pq.write_table(pa.concat_tables([table, table]), curves, row_group_size=4)
        self.refuse(tmp_path, curves, f"id,EW\n{10**15},3\n", "several light curves")

    def test_no_light_curves(self, tmp_path: Path, curves: Path):
        pq.write_table(pa.table({"objectid": [1], "mag": [[1.0]]}), curves)
        self.refuse(tmp_path, curves, "id,EW\n1,3\n", "no column", LayoutError)
        curves.write_bytes(b"PAR1 no")
        self.refuse(tmp_path, curves, "id,EW\n1,3\n", "not a Parquet file")

    def test_an_output_that_is_there(self, tmp_path: Path, curves: Path):
        with pytest.raises(VotesError, match="exists"):
            label([tmp_path / "v.csv"], curves, curves)


def test_real_light_curves_and_training_reads_them(tmp_path: Path, data_dir: Path):
    """Three annotators who read the catalogue's label: the table must come back as it was."""
    source = data_dir / "crts_css_labelled.parquet"
    truth = pq.read_table(source, columns=["id", "label"]).slice(0, 200)
    keep = [row for row in truth.to_pylist() if row["label"] in NAMES]
    pq.write_table(
        pa.table(
            {
                "id": [row["id"] for row in keep for _ in range(3)],
                "annotator": ["a", "b", "c"] * len(keep),
                "label": [row["label"] for row in keep for _ in range(3)],
            }
        ),
        tmp_path / "votes.parquet",
    )
    done = label([tmp_path / "votes.parquet"], source, tmp_path / "out.parquet")
    assert done.labelled == done.objects == len(keep)
    assert done.fleiss_kappa == 1
    wanted = pq.read_table(source).slice(0, 200)
    wanted = wanted.filter(pa.compute.is_in(wanted["label"], pa.array(NAMES, wanted["label"].type)))
    found = pq.read_table(tmp_path / "out.parquet")
    for name in ("id", "label", "ra", "dec", "group", "period", "mjd", "mag", "magerr"):
        assert found.column(name).to_pylist() == wanted.column(name).to_pylist(), name
    assert len(read_labelled(tmp_path / "out.parquet", LAYOUTS)) == len(keep)
