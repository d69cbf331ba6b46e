"""`pipeline/bands.py`: colours of a whole partition, whatever its batches; what is trained on them runs on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightmill.catalogs.lightcurves import LAYOUTS, LightCurves, from_arrow
from lightmill.catalogs.release import Release, open_release, read_batches
from lightmill.catalogs.runfolder import RunFolder
from lightmill.models import choice as choices
from lightmill.models import trees
from lightmill.models.bundle import load
from lightmill.pipeline import classify
from lightmill.pipeline.bands import KnownColours, colours_of, looks_at_colours
from lightmill.pipeline.classify import Model, Unit, classify_unit
from lightmill.pipeline.colour import COLOURS, colours
from lightmill.pipeline.evaluate import evaluate, judge
from lightmill.pipeline.explain import explain
from lightmill.pipeline.plan import RunError
from lightmill.pipeline.planning import make_plan
from lightmill.pipeline.recipe import (
    CleanTable,
    GateTable,
    LayoutTable,
    ModelTable,
    NetworkTable,
    Recipe,
    TreesTable,
    load_recipe,
)
from lightmill.pipeline.train import train

CLASSES = ("EW", "RRab")
G_MINUS_R = {"EW": 1.1, "RRab": 0.3}  #: and nothing else tells them apart
N = 60  #: stars, each in g and r

STEP = 0.2 / 3600  #: between the light curves of a star [deg]


def field(make_stars: Callable, n: int = N, seed: int = 3) -> Any:
    """n stars of one partition, in g and r: first all light curves in g, then all in r; of the last five only one."""
    rng = np.random.default_rng(seed)
    ra, dec = rng.uniform(10, 14, n), rng.uniform(1, 4, n)
    stars = make_stars(
        seed=seed, ra=np.concatenate([ra, ra]), dec=np.concatenate([dec, dec + STEP]), n_epochs=80
    )
    mag = []
    for i in range(2 * n):
        t = np.array(stars.t[i])
        level = 15 + (i % n) % 7 * 0.5 - (i >= n) * G_MINUS_R[CLASSES[i % n % 2]]
        wave = 0.3 * np.sin(2 * np.pi * t / 0.57 + i % n) + rng.normal(0, 0.02, len(t))
        mag.append((level + wave).astype(np.float32).tolist())
    stars = replace(
        stars, mag=mag, magerr=[[0.02] * 80] * (2 * n), filterid=np.repeat([1, 2], n),
        objectid=100 + np.arange(2 * n),
    )  # fmt: skip
    return stars.take(np.flatnonzero(np.arange(2 * n) < 2 * n - 5))


@pytest.fixture(scope="module")
def stars(make_stars: Callable) -> Any:
    return field(make_stars)


@pytest.fixture(scope="module")
def batch(stars: Any, stars_table: Callable) -> LightCurves:
    return from_arrow(stars_table(stars, "list", pa.float64()), LAYOUTS["list"])


def expected(stars: Any) -> np.ndarray:
    """g − r of each light curve by plain NumPy: the errors of a light curve are all alike."""
    mean = np.array([np.mean(m) for m in stars.mag])
    found = np.full(len(stars), np.nan)
    both = np.arange(N - 5)
    found[both] = found[both + N] = mean[both] - mean[both + N]
    return found


# Colours of batches


def found_in(batches: Iterable[LightCurves], **rules: int) -> np.ndarray:
    return colours_of(batches, CleanTable(**rules)).colours


def test_each_light_curve_by_hand(batch: LightCurves, stars: Any):
    found = found_in([batch])
    np.testing.assert_allclose(found[:, 0], expected(stars), atol=1e-6)
    assert np.isnan(found[:, 0]).sum() == 5
    assert np.isnan(found[:, 1]).all()


@given(st.lists(st.integers(0, 2 * N - 5), max_size=6))
def test_batches_do_not_matter(batch: LightCurves, cuts: list[int]):
    ends = [0, *sorted(cuts), len(batch)]
    parts = [batch.select(a, b) for a, b in pairwise(ends)]
    np.testing.assert_array_equal(found_in(iter(parts)), found_in([batch]))


def test_what_is_rejected_or_nowhere_is_nobodys_partner(batch: LightCurves, stars: Any):
    plain = expected(stars)
    lost = batch.healpix_29.copy()
    lost[N] = -1  # the first star in r
    flags = batch.flags.copy()
    flags[batch.offsets[1] : batch.offsets[2]] = 32768  # the second in g
    found = found_in([replace(batch, healpix_29=lost, flags=flags)])[:, 0]
    alone = [0, 1, N, N + 1]
    assert np.isnan(found[alone]).all()
    np.testing.assert_allclose(np.delete(found, alone), np.delete(plain, alone), atol=1e-6)
    assert np.isnan(found_in([batch], min_epochs=81)).all()


def test_only_good_epochs_count(batch: LightCurves):
    mag, flags = batch.mag.copy(), batch.flags.copy()
    mag[::9], flags[::9] = 3, 32768
    found = found_in([replace(batch, mag=mag, flags=flags)])
    np.testing.assert_allclose(found, found_in([batch]), atol=0.1)
    other = found_in([replace(batch, mag=mag, flags=flags)], bad_flags=1)
    assert np.nanmax(np.abs(found - other)) > 0.1


def test_no_batch_at_all():
    assert found_in([]).shape == (0, len(COLOURS))


# Trained on, and run


def recipe(**tables: object) -> Recipe:
    plain = load_recipe("crts-7")
    assert plain.train is not None
    few = {
        "classes": CLASSES, "folds": 3, "draws": 2, "aliases": {}, "leave_out": (),
        "trees": {"trees": TreesTable(rounds=60, leaves=6, columns_per_tree=1.0)}, "networks": {},
    }  # fmt: skip
    known = {"train": plain.train.model_copy(update=few), "layout": LayoutTable()}
    return plain.model_copy(update=known | tables)


def write_labels(path: Path, table: pa.Table, **columns: object) -> Path:
    """The release's light curves with labels and groups; what is labelled "" has none."""
    number = (table["objectid"].to_numpy() - 100) % N
    labels = {"label": np.array(CLASSES)[number % 2], "group": number} | columns
    for name, values in labels.items():
        if values is not None:
            table = table.append_column(name, pa.array(values))
    pq.write_table(table, path)
    return path


@pytest.fixture(scope="module")
def labels(make_stars: Callable, stars_table: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    table = stars_table(field(make_stars), "list", pa.float64())
    return write_labels(tmp_path_factory.mktemp("labels") / "labels.parquet", table)


@pytest.fixture(scope="module")
def trained(labels: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict, list[str]]:
    """A bundle that was trained with colours, its metrics, and what was said meanwhile."""
    out, said = tmp_path_factory.mktemp("trained") / "bundle", list[str]()
    return out, train(labels, recipe(), out, progress=said.append), said


def test_training_learns_what_only_colours_tell(trained):
    folder, metrics, said = trained
    manifest = load(folder).manifest
    assert manifest.features[-1] == "g_minus_r"
    assert "r_minus_i" not in manifest.features
    assert looks_at_colours(manifest)
    assert metrics["n"] == 2 * N - 5
    # the five that have none are told by nothing
    assert metrics["accuracy"] >= 110 / 115
    assert (
        f"g_minus_r is known of 110 of {2 * N - 5} light curves, and of 95% of RRab: trees look at it" in said
    )
    assert not [line for line in said if "another star" in line]
    by = metrics["by_colour"]
    assert by["known"] == {"n": 110, "accuracy": pytest.approx(1, abs=0.02)}
    assert by["unknown"]["n"] == 5
    card = (folder / "card.md").read_text()
    assert (
        "Among the features is g_minus_r: differences of the mean magnitudes of light curves within 1.5″"
        in card
    )
    assert (
        f"Where one is known (110), the class of {by['known']['accuracy']:.1%} is right; where none is (5), of"
        in card
    )
    # trees alone, of labels that are not those of the shipped bundles
    assert "AdamW" not in card
    assert "Catalina" not in card
    assert "count as another star" not in card


def test_without_bands_nothing_tells_them_apart(stars: Any, stars_table: Callable, tmp_path: Path):
    table = stars_table(stars, "list", pa.float64())
    alike = table.set_column(1, "filterid", pa.array(np.ones(len(table), np.int8)))
    said, path = list[str](), write_labels(tmp_path / "l.parquet", alike)
    metrics = train(path, recipe(), tmp_path / "b", progress=said.append)
    assert metrics["by_colour"] == {}
    assert evaluate(tmp_path / "b", path)["with_colour"] is None
    assert metrics["accuracy"] < 0.75
    assert not looks_at_colours(load(tmp_path / "b").manifest)
    assert [line for line in said if "colours" in line] == [
        "no colours: the labels have no passbands (numbers in filterid), or none has another's within 1.5″"
    ]


def test_too_few_with_a_colour(stars: Any, stars_table: Callable, tmp_path: Path):
    band = stars.filterid.copy()
    band[N + 5 :] = 1
    table = stars_table(stars, "list", pa.float64()).set_column(1, "filterid", pa.array(band.astype(np.int8)))
    said = list[str]()
    train(write_labels(tmp_path / "l.parquet", table), recipe(), tmp_path / "b", progress=said.append)
    assert [
        line
        for line in said
        if line.startswith("g_minus_r is known of 10 of 115 light curves, and of 7% of RRab: ")
    ]
    assert not looks_at_colours(load(tmp_path / "b").manifest)


def test_a_star_on_both_sides_is_said(stars: Any, stars_table: Callable, tmp_path: Path):
    said = list[str]()
    table = stars_table(stars, "list", pa.float64())
    train(
        write_labels(tmp_path / "l.parquet", table, group=None),
        recipe(),
        tmp_path / "b",
        progress=said.append,
    )
    (line,) = [line for line in said if "another star" in line]
    assert line.startswith("110 light curves lie within 1.5″ of one that counts as another star")
    card = (tmp_path / "b" / "card.md").read_text()
    assert "\n- 110 light curves lie within 1.5″ of one that counts as another star" in card


def test_a_partner_needs_no_label(trained, make_stars: Callable, stars_table: Callable, tmp_path: Path):
    """Evaluation as a run: what is not asked for gives its magnitude all the same."""
    stars = field(make_stars, seed=9)
    table = stars_table(stars, "list", pa.float64())
    label = np.array(CLASSES)[(stars.objectid - 100) % N % 2].astype(object)
    label[stars.filterid == 2] = None
    path = write_labels(tmp_path / "l.parquet", table, label=label)
    with pytest.raises(ValueError, match=r"unknown labels missing \(55\)"):
        evaluate(trained[0], path)
    found = evaluate(trained[0], path, only=CLASSES)
    assert found["rejected"] == {"not_asked_for": 55}
    assert (found["n"], found["with_colour"]) == (N, N - 5)
    assert found["accuracy"] >= 55 / N
    alone = tmp_path / "alone.parquet"
    pq.write_table(pq.read_table(path).filter(pa.array(stars.filterid == 1)), alone)
    found = evaluate(trained[0], alone, only=CLASSES)
    assert found["with_colour"] == 0
    assert found["accuracy"] < 0.75


@pytest.fixture(scope="module")
def release(make_stars: Callable, write_hats: Callable, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """Other stars of the same kinds, in one partition of two files."""
    root = tmp_path_factory.mktemp("release") / "release"
    write_hats(root, field(make_stars, seed=8), order=2, positions=pa.float64(), parts=2)
    return open_release(str(root))


def run(release: Release, used: Recipe, folder: Path, out: Path, batch_epochs: int = 0) -> pa.Table:
    """The rows of the release's partition, in the order of identifiers."""
    bundle = load(folder)
    choice = Model(used.period.choice, choices.read_manifest(used.period.choice).digest)
    (partition,) = release.table.partitions()
    run_folder = RunFolder(out / "runs" / "run-1")
    unit = Unit(
        partition, release.layout, used, Model(str(folder), bundle.digest), "f" * 64, run_folder,
        choice=choice, batch_epochs=batch_epochs,
    )  # fmt: skip
    receipt = classify_unit(unit)
    assert receipt.classified == 2 * N - 5
    assert ("colours" in receipt.stages) is looks_at_colours(bundle.manifest, used.classes.experts)
    rows = pq.read_table(run_folder.rows(partition.order, partition.pixel), partitioning=None)
    return rows.sort_by("objectid")


def test_a_run_looks_at_them_whatever_its_batches(release: Release, trained, tmp_path: Path):
    whole = run(release, recipe(), trained[0], tmp_path / "whole")
    number = (whole["objectid"].to_numpy() - 100) % N
    right = np.array(whole["best_class"].to_pylist()) == np.array(CLASSES)[number % 2]
    both = number < N - 5
    assert right[both].all()
    assert both.sum() == 110
    for epochs in (1, 80 * 7, 80 * N):  # a light curve; some; all of g, then all of r
        batches = list(read_batches(release.table.partitions()[0], release.layout, epochs))
        assert len(batches) > 1
        again = run(release, recipe(), trained[0], tmp_path / f"by-{epochs}", batch_epochs=epochs)
        assert again.equals(whole)


def test_they_are_those_of_the_catalogue(release: Release, trained, tmp_path: Path, monkeypatch):
    given: list[np.ndarray] = []
    plain = classify.answer

    def listen(*args: Any, colours: np.ndarray, **more: Any) -> Any:
        given.append(colours)
        return plain(*args, colours=colours, **more)

    monkeypatch.setattr(classify, "answer", listen)
    rows = run(release, recipe(), trained[0], tmp_path / "out", batch_epochs=80 * 9)
    found = np.concatenate(given)
    order = np.argsort(
        np.concatenate(
            [b.objectid for b in read_batches(release.table.partitions()[0], release.layout, 80 * 9)]
        )
    )
    columns = (rows[name].to_numpy() for name in ("ra", "dec", "filterid", "mag_mean"))
    np.testing.assert_allclose(found[order], colours(*columns), atol=3e-6)
    assert np.isfinite(found[:, 0]).sum() == 110


def test_no_pass_where_nobody_looks(release: Release, tiny_bundle: Path, tmp_path: Path, monkeypatch):
    """Neither the shipped bundles nor networks alone pay for it."""
    monkeypatch.setattr(classify, "colours_of", None)
    run(
        release,
        load_recipe("crts-7").model_copy(update={"layout": LayoutTable()}),
        tiny_bundle,
        tmp_path / "out",
    )


def test_who_looks_is_known_by_the_experts_asked(tmp_path: Path, labels: Path):
    used = recipe()
    assert used.train is not None
    network = NetworkTable(architecture="dmdt", epochs=1, batch_size=64, parameters={"dense": 8})
    both = used.train.model_copy(update={"networks": {"dmdt": network}, "folds": 2})
    train(labels, used.model_copy(update={"train": both}), tmp_path / "bundle")
    manifest = load(tmp_path / "bundle").manifest
    assert looks_at_colours(manifest)
    assert looks_at_colours(manifest, ["trees"])
    assert not looks_at_colours(manifest, ["dmdt"])


def test_explained_as_in_a_run(release: Release, trained, tmp_path: Path):
    rows = {row["objectid"]: row for row in run(release, recipe(), trained[0], tmp_path / "out").to_pylist()}
    some = (103, 104 + N, 100 + N - 1)
    (partition,) = release.table.partitions()
    root = partition.files[0].path.split("/dataset/")[0]
    used = recipe(operational=recipe().operational.model_copy(update={"batch_epochs": 80 * 9}))
    found = explain(trained[0], root, [str(i) for i in some], recipe=used).found
    for i, one in zip(some, found, strict=True):
        p = {leaf: rows[i][f"p_{leaf}"] for leaf in CLASSES}
        assert one.probabilities == pytest.approx(p, abs=1e-6)
        features = dict(zip(load(trained[0]).manifest.features, one.looks[0].given["features"], strict=True))
        want = G_MINUS_R[CLASSES[(i - 100) % 2]] if i != 100 + N - 1 else np.nan
        np.testing.assert_allclose(features["g_minus_r"], want, atol=0.15)


def test_audited_with_them(trained, labels: Path):
    found = judge(trained[0], labels)
    assert (found.probabilities.argmax(axis=1) == found.truth).mean() >= 110 / 115


# Behind a gate


def write_survey(folder: Path, bands: bool) -> list[Path]:
    """Constant stars in g, and supernovae, each in g and r if `bands`: as blue as an RRab is not."""
    rng, n, epochs = np.random.default_rng(4), 24, 90
    t = np.sort(rng.uniform(58200, 58600, (n, epochs)), axis=1)
    mag = rng.uniform(15, 18, n)[:, None] + rng.normal(0, 0.03, t.shape)
    stars = {
        "objectid": np.arange(n), "filterid": np.ones(n, int), "objra": np.zeros(n), "objdec": np.zeros(n),
        "hmjd": list(t), "mag": list(mag), "magerr": [[0.03] * epochs] * n, "catflags": [[0] * epochs] * n,
    }  # fmt: skip
    pq.write_table(pa.table(stars), folder / "stars.parquet")
    m = 12  # light curves of six supernovae
    number = np.repeat(np.arange(m), 60)
    hjd = 2458200.5 + np.sort(rng.uniform(0, 200, (m, 60)), axis=1).ravel()
    flash = -2.5 * np.exp(-(((hjd - 2458300.5) / 20) ** 2))
    rows = {
        "oid": number, "hjd": hjd, "mag": 19 + flash + rng.normal(0, 0.05, len(hjd)) + 0.4 * (number % 2),
        "magerr": np.full(len(hjd), 0.05), "catflags": np.zeros(len(hjd), int),
        "ZTFID": [f"ZTF{i // 2}" for i in number], "bts_type": ["SN Ia"] * len(hjd),
        "bts_peakt_jd": np.full(len(hjd), 2458300.5), "ra": 50.0 + number // 2, "dec": np.zeros(len(hjd)),
    }  # fmt: skip
    if bands:
        rows["filtercode"] = np.array(["zg", "zr"])[number % 2]
    pq.write_table(pa.table(rows), folder / "transients.parquet")
    return [folder / "stars.parquet", folder / "transients.parquet"]


def gated() -> Recipe:
    plain, few = load_recipe("ztf-dr"), recipe().train
    assert few is not None
    classes = {"classes": (*CLASSES, "SN_Ia"), "aliases": {"SN Ia": "SN_Ia"}}
    return plain.model_copy(update={"train": few.model_copy(update=classes), "layout": LayoutTable()})


@pytest.fixture(scope="module")
def with_periods(labels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    table = pq.read_table(labels)
    path = tmp_path_factory.mktemp("periods") / "labels.parquet"
    pq.write_table(table.append_column("period", pa.array(np.full(len(table), 0.57))), path)
    return path


def test_behind_a_gate_transients_have_their_own(
    with_periods: Path, release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    said, seen, plain = list[str](), [], trees.fit_classes

    def listen(table: np.ndarray, y: np.ndarray, *given: Any, **more: Any) -> trees.Trees:
        seen.append((table[:, -1], y))
        return plain(table, y, *given, **more)

    monkeypatch.setattr(trees, "fit_classes", listen)
    survey = write_survey(tmp_path, bands=True)
    metrics = train(with_periods, gated(), tmp_path / "bundle", survey=survey, progress=said.append)
    assert "g_minus_r is known of 122 of 127 light curves, and of 95% of RRab: trees look at it" in said
    assert metrics["by_colour"]["known"] == {"n": 122, "accuracy": pytest.approx(1, abs=0.05)}
    g_minus_r, y = seen[-1]  # the final fit: draws of all examples
    told = np.isfinite(g_minus_r)
    shares = [told[y == k].mean() for k in range(3)]
    assert 0.6 < min(shares) <= max(shares) < 0.8
    np.testing.assert_allclose(np.median(g_minus_r[told & (y == 2)]), -0.4, atol=0.3)
    bundle = load(tmp_path / "bundle")
    assert bundle.has_gate
    assert looks_at_colours(bundle.manifest)
    # all pass, so that all are told apart
    used = gated().model_copy(update={"gate": GateTable(mode="on", threshold=0.0)})
    rows = [run(release, used, tmp_path / "bundle", tmp_path / f"by-{n}", n) for n in (0, 80 * 9)]
    assert rows[0].equals(rows[1])
    number = (rows[0]["objectid"].to_numpy() - 100) % N
    p = np.stack([rows[0][f"p_{name}"].to_numpy() for name in CLASSES], axis=1)
    right = p.argmax(axis=1) == number % 2
    assert right[number < N - 5].mean() > 0.95


def test_behind_a_gate_without_the_transients_bands(with_periods: Path, tmp_path: Path):
    """A colour would tell what is no transient."""
    said = list[str]()
    survey = write_survey(tmp_path, bands=False)
    metrics = train(with_periods, gated(), tmp_path / "bundle", survey=survey, progress=said.append)
    assert [line for line in said if "of 0% of SN_Ia: trees do not look at it" in line]
    assert metrics["by_colour"] == {}
    assert not looks_at_colours(load(tmp_path / "bundle").manifest)


# Without bands, and while it is changed


def test_a_layout_without_bands_is_refused(trained, make_stars, write_hats, tmp_path: Path):
    write_hats(tmp_path / "bare", field(make_stars), shape="labelled", order=2)
    used = recipe(model=ModelTable(bundle=str(trained[0])))
    with pytest.raises(
        RunError, match=r"was trained with colours, and the layout 'labelled' .* says nothing of passbands"
    ):
        make_plan(str(tmp_path / "bare"), used)
    assert make_plan(str(tmp_path / "bare"), load_recipe("crts-7")).tasks


def test_a_layout_of_ones_own_has_the_bands_that_are_there(trained, release: Release):
    """`filterid` as in training, also where the recipe does not name it."""
    mine = LayoutTable(
        name="mine", nested="lightcurve", t="hmjd", mag="mag", magerr="magerr", flags="catflags", objectid="objectid",
        ra="objra", dec="objdec",
    )  # fmt: skip
    layout = open_release(release.table.url, mine.choices()).layout
    assert (layout.name, layout.filterid) == ("mine", "filterid")


@pytest.mark.parametrize("more", [-7, 7, 0])
def test_a_release_that_changes_meanwhile_gives_no_rows(
    release: Release, trained, tmp_path: Path, monkeypatch, more
):
    def before(*given: Any) -> KnownColours:
        known = colours_of(*given)
        ids = np.roll(known.objectid, 1) if more == 0 else np.resize(known.objectid, 2 * N - 5 + more)
        return KnownColours(ids, known.colours)

    monkeypatch.setattr(classify, "colours_of", before)
    with pytest.raises(
        OSError, match=r"others than when they were read|115 light curves, 122 when they were read before"
    ):
        run(release, recipe(), trained[0], tmp_path / "out", batch_epochs=80 * 9)
    assert not list((tmp_path / "out").rglob("*.parquet"))
