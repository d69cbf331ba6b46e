"""`pipeline/classify.py`: from light curves to rows, with a bundle that is arithmetic and needs no TensorFlow."""

from __future__ import annotations

import errno
import json
import math
import pickle
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hats.pixel_math.spatial_index import compute_spatial_index

from lightmill.catalogs import rows as rows_module
from lightmill.catalogs.lightcurves import LightCurves
from lightmill.catalogs.partitions import Partition
from lightmill.catalogs.receipts import receipt_path
from lightmill.catalogs.release import open_release, read_batches
from lightmill.catalogs.rows import FLAGS, UNCLASSIFIED, RowsError, rejected_schema, row_schema
from lightmill.catalogs.runfolder import RunFolder
from lightmill.models import cascade
from lightmill.pipeline import classify as module
from lightmill.pipeline.classify import Model, Unit, classify_batch, classify_unit
from lightmill.pipeline.clean import REASONS
from lightmill.pipeline.dmdt import GRIDS, counts_reference, normalise
from lightmill.pipeline.recipe import Recipe

ORDER = 3


@dataclass(frozen=True)
class FakeBundle:
    """What `classify` asks of a bundle, by formulas that can be repeated for each light curve on its own."""

    has_gate: bool = True
    tells_novelty: bool = True
    threshold: float = 0.5
    digest: str = "0123abcd" * 8
    classes: tuple[str, ...] = ("EW", "RRab", "SN_Ia")
    statistics: tuple[str, ...] = ("mad_over_err", "stetson_k")
    dt_edges: tuple[float, ...] = GRIDS["mahabal2017"].dt_edges
    dm_edges: tuple[float, ...] = GRIDS["mahabal2017"].dm_edges

    @property
    def leaves(self) -> tuple[str, ...]:
        return ("nonvar", *self.classes) if self.has_gate else self.classes

    @property
    def priors(self) -> np.ndarray:
        return np.array([0.5, 0.3, 0.2])

    def thresholds(self, epochs: np.ndarray) -> np.ndarray:
        return np.full(len(epochs), self.threshold)

    def gate(self, statistics: np.ndarray) -> np.ndarray:
        assert self.has_gate
        assert statistics.shape[1] == len(self.statistics)
        return (1 - np.exp(-statistics[:, 0] / 4)).astype(np.float32)

    @property
    def manifest(self) -> FakeBundle:
        return self

    @property
    def features(self) -> tuple[str, ...]:
        return ()

    def needs(self, experts: tuple[str, ...] = ()) -> tuple[str, ...]:
        return ("image:l2",)

    def judge(self, views: dict[str, np.ndarray], experts: tuple[str, ...] = ()) -> tuple:
        images = views["image:l2"]
        assert images.shape[1:] == (22, 23)
        assert images.dtype == np.float32
        # exact sums: the answer for an image must not depend on those beside it
        weights = np.arange(22 * 23).reshape(22, 23) % 7
        logits = [[math.fsum((image * (weights == k)).ravel()) for k in range(3)] for image in images]
        powers = np.exp(np.array(logits).reshape(-1, 3))
        novelty = np.array([math.fsum(image[:, :12].ravel()) % 1 for image in images], np.float32)
        p = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
        return p, novelty if self.tells_novelty else None


BUNDLE = FakeBundle()
FAKE = Model("fake", BUNDLE.digest)
RECIPE = Recipe.model_validate({"name": "fake", "model": {"bundle": "fake"}})


def recipe(**tables) -> Recipe:
    return Recipe.model_validate({"name": "fake", "model": {"bundle": "fake"}} | tables)


@pytest.fixture
def messy(make_stars):
    """Good light curves of all kinds, and one for each reason to reject."""
    stars = make_stars(60, seed=5)
    flags = [list(f) for f in stars.flags]
    t, mag, magerr = ([list(x) for x in getattr(stars, name)] for name in ("t", "mag", "magerr"))
    flags[0] = [32768] * len(flags[0])
    mag[1] = [math.nan] * len(mag[1])
    magerr[2] = [-1.0] * len(magerr[2])
    t[3], mag[3], magerr[3], flags[3] = [], [], [], []
    t[4], mag[4], magerr[4], flags[4] = t[4][:5], mag[4][:5], magerr[4][:5], flags[4][:5]
    t[5] = [t[5][0]] * len(t[5])
    t[6], mag[6], magerr[6] = t[6][::-1], mag[6][::-1], magerr[6][::-1]  # unsorted: good all the same
    return replace(stars, t=t, mag=mag, magerr=magerr, flags=flags)


BAD = {
    0: "flagged",
    1: "bad_values",
    2: "bad_values",
    3: "no_epochs",
    4: "too_few_epochs",
    5: "too_few_epochs",
}


@pytest.fixture
def release(tmp_path, messy, write_hats):
    write_hats(tmp_path / "release", messy, order=ORDER, positions=pa.float64())
    return open_release(str(tmp_path / "release"))


@pytest.fixture
def unit(release, tmp_path, monkeypatch):
    """Make the unit of a partition, and let every worker find the fake bundle."""
    monkeypatch.setattr(module, "prepare", lambda unit: (BUNDLE, None))

    def make(partition, used: Recipe = RECIPE, out: str = "out") -> Unit:
        folder = RunFolder(tmp_path / out / "runs" / "run-1")
        return Unit(partition, release.layout, used, FAKE, "f" * 64, folder)

    return make


def whole(release) -> tuple[Partition, LightCurves]:
    """The partition with the most light curves, as one batch."""
    partition = max(release.table.partitions(), key=lambda p: p.bytes)
    (batch,) = read_batches(partition, release.layout, 10**9)
    return partition, batch


def written(folder: RunFolder, partition) -> tuple[pa.Table, pa.Table]:
    key = partition.order, partition.pixel
    tables = []
    for path, schema in (
        (folder.rows(*key), row_schema(BUNDLE.leaves)),
        (folder.rejected(*key), rejected_schema()),
    ):
        tables.append(pq.read_table(path, partitioning=None) if path.exists() else schema.empty_table())
    return tuple(tables)


def same_rows(one: pa.Table, two: pa.Table) -> None:
    assert one.schema.names == two.schema.names
    for name in one.schema.names:
        assert one[name].to_pylist() == two[name].to_pylist(), name


# One batch


def test_every_light_curve_is_in_exactly_one_table(release, messy):
    partition, batch = whole(release)
    rows, rejected = classify_batch(batch, RECIPE, BUNDLE, partition, "run-1")
    found = rows["objectid"].to_pylist() + rejected["objectid"].to_pylist()
    assert sorted(found) == sorted(batch.objectid.tolist())
    assert len(set(found)) == len(batch)


def test_reasons(release, messy):
    reasons = {}
    for partition in release.table.partitions():
        for batch in read_batches(partition, release.layout, 10**9):
            _, rejected = classify_batch(batch, RECIPE, BUNDLE, partition, "run-1")
            reasons |= dict(
                zip(rejected["objectid"].to_pylist(), rejected["reason"].to_pylist(), strict=True)
            )
    assert reasons == {int(messy.objectid[i]): reason for i, reason in BAD.items()}
    assert set(reasons.values()) <= set(REASONS)


def test_each_row_by_hand(release, messy):
    """The images by `numpy.histogram2d`, the statistics by NumPy, the cascade in words."""
    partition, batch = whole(release)
    rows, _ = classify_batch(batch, RECIPE, BUNDLE, partition, "run-1")
    stars = {int(objectid): i for i, objectid in enumerate(messy.objectid)}
    assert rows.num_rows > 10
    for row in rows.to_pylist():
        i = stars[row["objectid"]]
        order = np.argsort(messy.t[i], kind="stable")
        t, m, e = (np.array(getattr(messy, name)[i])[order] for name in ("t", "mag", "magerr"))
        t = t - t[0]
        mad = np.median(np.abs(m - np.median(m)))
        p_variable = np.float32(1 - np.exp(-1.4826 * mad / np.median(e) / 4))
        if p_variable >= 0.5:
            image = normalise(counts_reference(t, m, BUNDLE.dt_edges, BUNDLE.dm_edges), "l2")
            (shares,), (novelty,) = BUNDLE.judge({"image:l2": image[None]})
            assert row["novelty"] == pytest.approx(novelty, abs=1e-6)
        else:
            shares = BUNDLE.priors
            assert row["novelty"] is None
        assert row["flags"] == (0 if p_variable >= 0.5 else FLAGS["gated_out"])
        p = np.array([1 - p_variable, *(p_variable * shares)])
        # float32 probabilities of float32 factors: a few ulps of 6e-8
        np.testing.assert_allclose([row[f"p_{leaf}"] for leaf in BUNDLE.leaves], p, atol=3e-7)
        assert row["p_variable"] == pytest.approx(p_variable, abs=1e-7)
        assert row["best_class"] == BUNDLE.leaves[int(np.argmax(p))]
        assert row["best_prob"] == pytest.approx(p.max(), abs=3e-7)
        assert row["margin"] == pytest.approx(np.diff(np.sort(p))[-1], abs=6e-7)
        assert row["n_good"] == len(t)
        assert row["baseline"] == pytest.approx(t[-1], rel=1e-7)
        assert row["mag_mean"] == pytest.approx(np.average(m, weights=e**-2.0), rel=1e-7)
        assert row["amplitude"] == pytest.approx((np.quantile(m, 0.95) - np.quantile(m, 0.05)) / 2, rel=1e-6)
        assert (row["ra"], row["dec"]) == (messy.ra[i], messy.dec[i])
        assert row["filterid"] == messy.filterid[i]
        assert row["_healpix_29"] == compute_spatial_index(row["ra"], row["dec"])
        assert (row["bundle"], row["run_id"]) == ("0123abcd", "run-1")
        assert row["period"] is row["period_score"] is None


@pytest.mark.parametrize("has_gate", [True, False])
def test_dtypes_and_sums(release, has_gate):
    partition, batch = whole(release)
    bundle = replace(BUNDLE, has_gate=has_gate)
    rows, rejected = classify_batch(batch, RECIPE, bundle, partition, "run-1")
    assert rows.schema.equals(row_schema(bundle.leaves), check_metadata=True)
    assert rejected.schema.equals(rejected_schema(), check_metadata=True)
    p = np.stack([rows[f"p_{leaf}"].to_numpy() for leaf in bundle.leaves])
    np.testing.assert_allclose(p.sum(axis=0), 1, atol=1e-6)
    assert ((p >= 0) & (p <= 1)).all()
    assert (rows["p_variable"].null_count == len(rows)) is not has_gate


def test_a_batch_is_its_light_curves(release):
    """What stands beside a light curve changes nothing in its row."""
    partition, batch = whole(release)
    rows, rejected = classify_batch(batch, RECIPE, BUNDLE, partition, "run-1")
    alone = [
        classify_batch(batch.select(i, i + 1), RECIPE, BUNDLE, partition, "run-1") for i in range(len(batch))
    ]
    one = pa.concat_tables([a for a, _ in alone]).sort_by("objectid")
    same_rows(one, rows.sort_by("objectid"))
    same_rows(pa.concat_tables([b for _, b in alone]).sort_by("objectid"), rejected.sort_by("objectid"))


def test_gate_off_and_threshold(release):
    partition, batch = whole(release)

    def gated(used: Recipe, bundle=BUNDLE) -> np.ndarray:
        rows, _ = classify_batch(batch, used, bundle, partition, "run-1")
        p = np.asarray(rows["p_variable"].to_pylist(), float)
        return p, np.asarray(rows["flags"]) & FLAGS["gated_out"] != 0

    p, out = gated(RECIPE)
    assert out.any()
    assert not out.all()
    np.testing.assert_array_equal(out, p < 0.5)
    assert not gated(recipe(gate={"mode": "off"}))[1].any()
    assert gated(recipe(gate={"threshold": 1.0}))[1].all()
    assert not gated(recipe(gate={"threshold": 0.0}))[1].any()  # zero is a threshold, not "none given"
    np.testing.assert_array_equal(gated(recipe(gate={"threshold": 0.3}))[1], p < 0.3)
    assert not gated(RECIPE, replace(BUNDLE, has_gate=False))[1].any()


# What is too uncertain or too strange for a class


def told(release, used: Recipe = RECIPE, bundle: FakeBundle = BUNDLE) -> list[dict]:
    partition, batch = whole(release)
    rows, _ = classify_batch(batch, used, bundle, partition, "run-1")
    return rows.to_pylist()


def test_novelty_is_of_what_passed_and_null_elsewhere(release):
    plain = told(release)
    assert {row["novelty"] is None for row in plain} == {True, False}
    assert all((row["novelty"] is None) == bool(row["flags"] & FLAGS["gated_out"]) for row in plain)
    assert all(row["novelty"] is None for row in told(release, bundle=replace(BUNDLE, tells_novelty=False)))


@pytest.mark.parametrize("least", [0.0, 0.05, 0.3, 1.0])
def test_below_the_least_margin_there_is_no_class(release, least):
    plain, found = told(release), told(release, recipe(classes={"least_margin": least}))
    unsure = [row["margin"] < least for row in plain]
    for one, row, no_class in zip(plain, found, unsure, strict=True):
        assert row["best_class"] == (UNCLASSIFIED if no_class else one["best_class"])
        # all else stands: what it might be can still be asked
        assert {**row, "best_class": None} == {**one, "best_class": None}
    assert any(unsure) is (least > 0)
    assert all(unsure) is (least == 1)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_above_the_most_novelty_there_is_no_class(release, share):
    plain = told(release)
    most = float(np.quantile([row["novelty"] for row in plain if row["novelty"] is not None], share))
    found = told(release, recipe(classes={"most_novelty": most}))
    strange = [row["novelty"] is not None and row["novelty"] > most for row in plain]
    assert any(strange) is (share < 1)
    for one, row, no_class in zip(plain, found, strange, strict=True):
        assert row["best_class"] == (UNCLASSIFIED if no_class else one["best_class"])
        assert {**row, "best_class": None} == {**one, "best_class": None}
    # what no expert saw, and what has no novelty, is not strange
    assert not strange[[bool(row["flags"]) for row in plain].index(True)]
    without = told(release, recipe(classes={"most_novelty": most}), replace(BUNDLE, tells_novelty=False))
    assert UNCLASSIFIED not in {row["best_class"] for row in without}


def test_a_mix_is_that_of_the_survey(release):
    mix = {"EW": 0.1, "RRab": 0.1, "SN_Ia": 0.8}
    for one, row in zip(told(release), told(release, recipe(classes={"mix": mix})), strict=True):
        was = np.array([one[f"p_{name}"] for name in BUNDLE.classes])
        now = was * np.array(list(mix.values())) / BUNDLE.priors
        now *= was.sum() / now.sum()
        np.testing.assert_allclose([row[f"p_{name}"] for name in BUNDLE.classes], now, atol=3e-7)
        assert row["p_nonvar"] == one["p_nonvar"]


def test_positions_that_are_none(release):
    partition, batch = whole(release)
    healpix = batch.healpix_29.copy()
    rows, _ = classify_batch(batch, RECIPE, BUNDLE, partition, "run-1")
    lost = [int(np.flatnonzero(batch.objectid == rows["objectid"][k].as_py())[0]) for k in (0, 3)]
    healpix[lost] = -1
    found, more = classify_batch(replace(batch, healpix_29=healpix), RECIPE, BUNDLE, partition, "run-1")
    assert len(found) == len(rows) - 2
    refused = {row["objectid"]: row for row in more.to_pylist()}
    for i in lost:
        row = refused[batch.objectid[i]]
        assert row["reason"] == "bad_position"
        assert row["n_good"] == np.diff(batch.offsets)[i]
        assert row["_healpix_29"] == -1
    # the others are what they were
    others = pa.array([objectid not in refused for objectid in rows["objectid"].to_pylist()])
    same_rows(found, rows.filter(others))


def test_an_empty_batch(release):
    partition, batch = whole(release)
    rows, rejected = classify_batch(batch.select(0, 0), RECIPE, BUNDLE, partition, "run-1")
    assert len(rows) == len(rejected) == 0
    assert rows.schema.equals(row_schema(BUNDLE.leaves))


def test_recipes_cuts_are_used(release):
    partition, batch = whole(release)
    rows, rejected = classify_batch(batch, recipe(clean={"min_epochs": 1000}), BUNDLE, partition, "run-1")
    assert len(rows) == 0
    assert len(rejected) == len(batch)
    some, _ = classify_batch(batch, recipe(clean={"min_epochs": 40}), BUNDLE, partition, "run-1")
    assert 0 < len(some) < len(batch)
    assert min(some["n_good"].to_pylist()) >= 40


# Positions at the border of a partition


def at_border(order: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions within 1e-9 deg of the border of two pixels, where float32 steps are 1e-5 deg."""
    shift = 2 * (29 - order)
    ra, dec = [], []
    for d in np.linspace(1, 8, 40):
        west, east = 10.0, 30.0
        first = compute_spatial_index(west, d) >> shift
        while east - west > 1e-9:
            middle = (west + east) / 2
            if compute_spatial_index(middle, d) >> shift == first:
                west = middle
            else:
                east = middle
        ra += [west, east]
        dec += [d, d]
    return np.array(ra), np.array(dec)


def test_rows_at_the_border_are_moved_into_their_partition(tmp_path, make_stars, write_hats, monkeypatch):
    monkeypatch.setattr(module, "prepare", lambda unit: (BUNDLE, None))
    ra, dec = at_border(ORDER)
    stars = make_stars(ra=ra, dec=dec)
    inside = write_hats(tmp_path / "release", stars, order=ORDER, positions=pa.float32())
    release, folder, moved = (
        open_release(str(tmp_path / "release")),
        RunFolder(tmp_path / "out" / "runs" / "run-1"),
        0,
    )
    for partition in release.table.partitions():
        unit = Unit(partition, release.layout, RECIPE, FAKE, "f", folder)
        assert classify_unit(unit).classified == len(inside[partition.pixel])
        rows, _ = written(folder, partition)
        index, flags = rows["_healpix_29"].to_numpy(), rows["flags"].to_numpy()
        assert (index >> (2 * (29 - ORDER)) == partition.pixel).all()
        assert (np.diff(index) >= 0).all()
        honest = compute_spatial_index(rows["ra"].to_numpy(), rows["dec"].to_numpy())
        np.testing.assert_array_equal(flags & FLAGS["moved_index"] != 0, honest != index)
        # the positions are those of the release, not moved
        mine = inside[partition.pixel]
        expected = dict(zip(stars.objectid[mine].tolist(), ra[mine].astype(np.float32).tolist(), strict=True))
        assert dict(zip(rows["objectid"].to_pylist(), rows["ra"].to_pylist(), strict=True)) == expected
        moved += np.count_nonzero(honest != index)
    assert moved > 10


# One partition, committed


def test_a_unit_is_committed_with_its_receipt(release, unit, messy):
    total = 0
    for partition in release.table.partitions():
        one = unit(partition)
        receipt = classify_unit(one)
        rows, rejected = written(one.folder, partition)
        assert receipt.rows_in == len(rows) + len(rejected)
        assert (receipt.classified, sum(receipt.rejected.values())) == (len(rows), len(rejected))
        assert receipt.key == (partition.order, partition.pixel)
        assert receipt.fingerprint == "f" * 64
        path = one.folder.rows(*receipt.key)
        assert receipt.bytes == (path.stat().st_size if path.exists() else 0)
        assert set(receipt.stages) >= {
            "read", "clean", "statistics", "gate", "images", "experts", "rows", "commit",
        }  # fmt: skip
        total += receipt.rows_in
        json.dumps(receipt.rejected)
    assert total == len(messy)
    assert len(one.folder.read_receipts()) == len(release.table.partitions())
    assert len(one.folder.done()) == len(release.table.partitions())
    assert sum(r.epochs for r in one.folder.read_receipts()) == sum(map(len, messy.t))
    assert list(one.folder.scratch.iterdir()) == []


@pytest.mark.parametrize("batch_epochs", [1, 50, 333])
def test_the_size_of_batches_changes_nothing(release, unit, batch_epochs):
    for partition in release.table.partitions()[:2]:
        large = unit(partition, out="large")
        small = unit(partition, recipe(operational={"batch_epochs": batch_epochs}), out="small")
        classify_unit(large)
        classify_unit(small)
        for one, two in zip(written(large.folder, partition), written(small.folder, partition), strict=True):
            same_rows(one, two)


def test_twice_gives_the_same_rows(release, unit):
    partition = release.table.partitions()[0]
    one, two = unit(partition, out="a"), unit(partition, out="b")
    classify_unit(one)
    classify_unit(one)
    classify_unit(two)
    key = (partition.order, partition.pixel)
    assert one.folder.rows(*key).read_bytes() == two.folder.rows(*key).read_bytes()


def test_a_late_duplicate_loses(release, unit):
    """Another try was quicker: what is proven is not touched, and its receipt is the one that counts."""
    one = unit(release.table.partitions()[0])
    first = classify_unit(one)
    path, before = one.folder.rows(*first.key), one.folder.rows(*first.key).stat()
    assert classify_unit(replace(one, attempt=2)) == first
    rows, refused = written(one.folder, one.partition)
    again = module._commit(replace(one, attempt=3), rows.slice(0, 1), refused, replace(first, attempt=3))
    assert (again.bytes, again.sha256) == (first.bytes, first.sha256)
    assert path.stat() == before
    assert one.folder.read_receipts() == [first]


def test_a_partition_where_all_are_too_short(release, unit):
    """No file of rows, nor one that was there before; a receipt all the same."""
    partition = release.table.partitions()[0]
    first = classify_unit(unit(partition))
    folder = unit(partition).folder
    receipt_path(folder.receipts, *first.key).unlink()
    receipt = classify_unit(unit(partition, recipe(clean={"min_epochs": 1000})))
    assert (receipt.classified, receipt.bytes) == (0, 0)
    assert not folder.rows(*receipt.key).exists()
    assert sum(receipt.rejected.values()) == receipt.rows_in
    assert receipt.key in folder.done()


def test_an_empty_partition(release, unit):
    partition = release.table.partitions()[0]
    path = Path(partition.urls[0])
    pq.write_table(pq.read_table(path, partitioning=None).slice(0, 0), path)
    receipt = classify_unit(unit(partition))
    assert (receipt.rows_in, receipt.classified, receipt.rejected) == (0, 0, {})


def test_nothing_is_committed_of_a_bundle_that_does_not_add_up(release, unit, monkeypatch):
    real = cascade.leaf_probabilities
    monkeypatch.setattr(cascade, "leaf_probabilities", lambda *args: real(*args) * np.float32(1.5))
    one = unit(release.table.partitions()[0])
    with pytest.raises(RowsError, match="the bundle is at fault"):
        classify_unit(one)
    assert not list(one.folder.objects.rglob("*.parquet"))
    assert one.folder.read_receipts() == []
    assert list(one.folder.scratch.iterdir()) == []


def test_a_light_curve_that_gets_lost_stops_the_commit(release, unit, monkeypatch):
    real = module.classify_batch
    monkeypatch.setattr(
        module,
        "classify_batch",
        lambda *args, **more: (real(*args, **more)[0].slice(1), real(*args, **more)[1]),
    )
    one = unit(release.table.partitions()[0])
    with pytest.raises(RuntimeError, match="rows were lost; nothing was committed"):
        classify_unit(one)
    assert not one.folder.root.exists()


@pytest.mark.parametrize("file", ["rows", "rejected"])
def test_a_full_disk_leaves_no_receipt(release, unit, monkeypatch, messy, file):
    bad = [partition for partition in release.table.partitions() if partition.pixel in holds_a_bad_one(messy)]
    one, write = unit(bad[0]), pq.write_table

    def full(table, path, **options):
        if ("margin" in table.schema.names) == (file == "rows"):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(table, path, **options)

    monkeypatch.setattr(rows_module.pq, "write_table", full)
    with pytest.raises(OSError, match="No space left"):
        classify_unit(one)
    assert one.folder.done() == {}
    assert not list(one.folder.objects.rglob("*.parquet"))
    assert list(one.folder.scratch.iterdir()) == []
    monkeypatch.undo()
    # the next attempt goes on as if nothing had been
    monkeypatch.setattr(module, "prepare", lambda unit: (BUNDLE, None))
    assert classify_unit(one).rows_in > 0


def holds_a_bad_one(stars) -> set[int]:
    pixels = compute_spatial_index(stars.ra, stars.dec) >> (2 * (29 - ORDER))
    return {int(pixels[i]) for i in BAD}


def test_a_unit_is_small_and_can_be_sent(release, unit):
    one = unit(release.table.partitions()[0])
    data = pickle.dumps(one)
    assert pickle.loads(data) == one
    assert len(data) < 10_000
    assert str(one) == str(one.partition)


def test_a_bundle_that_was_changed_is_refused(monkeypatch):
    from lightmill.models import bundle as bundles

    monkeypatch.setattr(bundles, "load", lambda name: BUNDLE)
    module._load_bundle.cache_clear()
    try:
        assert module._load_bundle(FAKE, "keras", "float32") is BUNDLE
        with pytest.raises(
            bundles.BundleError, match="has sha256 0123abcd, the run was planned with ffffffff"
        ):
            module._load_bundle(Model("fake", "f" * 64), "keras", "float32")
    finally:
        module._load_bundle.cache_clear()


def test_a_choice_that_was_changed_is_refused():
    with pytest.raises(
        module.BundleError, match=r"choice of periods period-choice has sha256 .*, the run was planned"
    ):
        module._load_choice(Model("period-choice", "f" * 64))


# A real bundle


def test_with_periods_and_every_expert(release, tmp_path, tiny_ztf):
    from lightmill.models import choice as choices
    from lightmill.models.folder import read_manifest

    manifest = read_manifest(tiny_ztf.model.bundle)
    model = Model(tiny_ztf.model.bundle, manifest.digest)
    choice = Model("period-choice", choices.read_manifest("period-choice").digest)
    folder, partition = RunFolder(tmp_path / "out" / "runs" / "run-1"), whole(release)[0]
    unit = Unit(partition, release.layout, tiny_ztf, model, "f" * 64, folder, choice)
    receipt = classify_unit(unit)
    assert set(receipt.stages) >= {"period", "images", "fold", "features", "experts"}
    rows = pq.read_table(folder.rows(*receipt.key), partitioning=None).to_pylist()
    assert len(rows) == receipt.classified > 10
    for row in rows:
        p = [row[f"p_{leaf}"] for leaf in manifest.leaves]
        assert sum(p) == pytest.approx(1, abs=1e-6)
        assert row["best_class"] == manifest.leaves[int(np.argmax(p))]
        passed = not row["flags"] & FLAGS["gated_out"]
        assert [row[name] is not None for name in ("novelty", "period", "period_score")] == [passed] * 3
        assert row["bundle"] == manifest.digest[:8]
    assert {row["flags"] for row in rows} == {0, 1}
    # the image alone, without a search
    fast = tiny_ztf.model_copy(
        update={
            "period": tiny_ztf.period.model_copy(update={"mode": "off"}),
            "classes": tiny_ztf.classes.model_copy(update={"experts": ("dmdt",)}),
        }
    )
    other = RunFolder(tmp_path / "fast" / "runs" / "run-1")
    receipt = classify_unit(Unit(partition, release.layout, fast, model, "f" * 64, other))
    assert not {"period", "fold", "features"} & set(receipt.stages)
    found = pq.read_table(other.rows(*receipt.key), partitioning=None).to_pylist()
    assert [row["objectid"] for row in found] == [row["objectid"] for row in rows]
    assert all(row["period"] is None and row["novelty"] is None for row in found)
    assert {row["p_variable"] for row in found} == {row["p_variable"] for row in rows}
