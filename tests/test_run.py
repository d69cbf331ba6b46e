"""Runs end to end: real Dask processes, a real bundle, real files, and what goes wrong."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lsdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hats.io.validation import is_valid_catalog

from lightmill.catalogs.partitions import Cone
from lightmill.catalogs.rows import FLAGS, UNCLASSIFIED
from lightmill.catalogs.runfolder import CatalogueFolder, NotAnOutput, RunFolder
from lightmill.models.bundle import BundleError
from lightmill.pipeline.recipe import Recipe, load_recipe
from lightmill.pipeline.run import RunError, Summary, run
from lightmill.pipeline.simulate import simulate

pytestmark = pytest.mark.slow


def current(out: Path) -> Path:
    """The folder of the version that is current."""
    lines = (out / "collection.properties").read_text().splitlines()
    (table,) = [line.partition("=")[2] for line in lines if line.startswith("hats_primary_table_url=")]
    return (out / table).parent


def rows_of(out: Path) -> pa.Table:
    """All rows of a catalogue, in the order of their files."""
    files = sorted(current(out).glob("objects/dataset/Norder=*/Dir=*/Npix=*.parquet"))
    return pa.concat_tables(pq.ParquetFile(file).read() for file in files)


def rejected_of(out: Path) -> pa.Table:
    files = sorted((current(out) / "rejected").rglob("*.parquet"))
    return pa.concat_tables(pq.ParquetFile(file).read() for file in files)


def stamps(out: Path) -> dict[Path, int]:
    """When each file of rows of each run was written."""
    return {path: path.stat().st_mtime_ns for path in out.glob("runs/*/objects/dataset/*/*/*.parquet")}


def newest(out: Path) -> RunFolder:
    return CatalogueFolder(out).runs()[0]


def with_science(recipe: Recipe, **clean: Any) -> Recipe:
    return recipe.model_copy(update={"clean": recipe.clean.model_copy(update=clean)})


@pytest.fixture(scope="module")
def recipe(tiny_ztf: Recipe) -> Recipe:
    return tiny_ztf


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("simulated") / "release"
    simulate(path, 2500, seed=3, variable_fraction=0.3)
    return path


@pytest.fixture(scope="module")
def finished(
    simulated: Path, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Summary]:
    out = tmp_path_factory.mktemp("finished") / "catalogue"
    return out, run(str(simulated), recipe, out, workers=2)


class TestGoodRelease:
    def test_every_light_curve_is_accounted_for(
        self, finished: tuple[Path, Summary], simulated: Path
    ) -> None:
        out, summary = finished
        truth = set(pq.read_table(simulated / "truth.parquet", columns=["objectid"]).column(0).to_pylist())
        classified = rows_of(out).column("objectid").to_pylist()
        rejected = rejected_of(out).column("objectid").to_pylist()
        assert len(classified) == summary.classified
        assert sorted(classified + rejected) == sorted(truth)
        assert summary.light_curves == 2500 == summary.classified + sum(summary.rejected.values())
        assert not summary.failed
        assert summary.peak_rss_bytes > 0
        assert summary.light_curves_per_second > 0

    def test_rows_are_sane(self, finished: tuple[Path, Summary]) -> None:
        rows = rows_of(finished[0])
        leaves = [name for name in rows.column_names if name.startswith("p_") and name != "p_variable"]
        table = np.column_stack([rows.column(name).to_numpy() for name in leaves])
        assert np.abs(table.sum(axis=1) - 1).max() < 1e-5
        best = np.array([name[2:] for name in leaves])[table.argmax(axis=1)]
        assert best.tolist() == rows.column("best_class").cast(pa.string()).to_pylist()
        assert rows.column("n_good").to_numpy().min() >= 20
        ordered = np.sort(table, axis=1)
        np.testing.assert_allclose(
            rows.column("margin").to_numpy(), ordered[:, -1] - ordered[:, -2], atol=1e-6
        )
        period, score = (rows.column(name).to_numpy() for name in ("period", "period_score"))
        gated_out = (rows.column("flags").to_numpy() & FLAGS["gated_out"]) != 0
        # a period was searched in all that passed the gate, and in nothing else
        assert (np.isnan(period) == gated_out).all()
        assert (np.isnan(score) == gated_out).all()
        assert (period[~gated_out] > 1 / 25).all()
        assert (score[~gated_out] >= 0).all()
        # novelty, too, is told of these alone
        novelty = rows.column("novelty").to_numpy()
        assert (np.isnan(novelty) == gated_out).all()
        assert ((novelty[~gated_out] >= 0) & (novelty[~gated_out] <= 1)).all()
        # some pass the gate and some do not: neither stage is idle
        assert set(rows.column("flags").to_pylist()) == {0, 1}

    def test_lsdb_opens_searches_crossmatches_and_writes(
        self, finished: tuple[Path, Summary], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        out, summary = finished
        with caplog.at_level(logging.CRITICAL):  # hats logs what it validates
            assert is_valid_catalog(out, strict=True)
        catalog = lsdb.open_catalog(out)
        frame = catalog.compute()
        assert len(frame) == summary.classified
        star = frame.iloc[0]
        cone = catalog.cone_search(star.ra, star.dec, 10).compute()
        assert star.objectid in cone.objectid.tolist()
        found = catalog.id_search(values={"objectid": int(star.objectid)}).compute()
        assert found.objectid.tolist() == [star.objectid]
        matched = catalog.crossmatch(catalog, n_neighbors=1, radius_arcsec=0.1, suffix_method="all_columns",
                                     suffixes=("_a", "_b")).compute()  # fmt: skip
        assert len(matched) == summary.classified
        catalog.cone_search(star.ra, star.dec, 36_000).write_catalog(tmp_path / "part", catalog_name="part")
        assert len(lsdb.open_catalog(tmp_path / "part").compute()) >= 1

    def test_again_does_only_what_is_missing(
        self, finished: tuple[Path, Summary], simulated: Path, recipe: Recipe, tmp_path: Path
    ) -> None:
        out = tmp_path / "catalogue"
        shutil.copytree(finished[0], out)
        events: list[tuple[str, dict[str, Any]]] = []
        again = run(str(simulated), recipe, out, watch=lambda event, facts: events.append((event, facts)))
        assert again.computed == 0
        assert (again.light_curves, again.classified, again.rejected) == (
            2500, finished[1].classified, finished[1].rejected,
        )  # fmt: skip
        assert "starting" not in [event for event, _ in events]  # not even workers were started

        # operational settings may change between two invocations; one output is lost, one was never proven
        folder = newest(out)
        for path in (folder.index, folder.end):
            path.unlink()
        before = stamps(out)
        lost, unproven = sorted(before)[0], sorted(before)[-1]
        lost.unlink()
        below = unproven.relative_to(folder.objects / "dataset").with_suffix(".json")
        (folder.receipts / below).unlink()
        faster = recipe.model_copy(
            update={"operational": recipe.operational.model_copy(update={"batch_epochs": 5000})}
        )
        third = run(str(simulated), faster, out, workers=1)
        assert third.computed == 2
        assert third.run_id == finished[1].run_id  # it went on with the run that has no end
        after = stamps(out)
        assert {path for path in before if before[path] != after[path]} == {lost, unproven}
        # smaller batches gave the same rows, and the same bytes
        assert {path.name: path.read_bytes() for path in after} == {
            path.name: path.read_bytes() for path in stamps(finished[0])
        }

    def test_another_recipe_computes_everything_anew(
        self, finished: tuple[Path, Summary], simulated: Path, recipe: Recipe, tmp_path: Path
    ) -> None:
        """In a run of its own; what was there stays as it is, and nothing is mixed."""
        out = tmp_path / "catalogue"
        shutil.copytree(finished[0], out)
        before = stamps(out)
        summary = run(str(simulated), with_science(recipe, min_epochs=30), out, workers=1)
        assert summary.computed == summary.partitions == finished[1].partitions
        assert summary.run_id != finished[1].run_id
        assert before.items() < stamps(out).items()
        rows = rows_of(out)
        assert set(rows.column("run_id").to_pylist()) == {summary.run_id}
        assert rows.column("n_good").to_numpy().min() >= 30
        # back to the first recipe: nothing has to be computed again
        again = run(str(simulated), recipe, out, workers=1)
        assert again.computed == 0
        assert set(rows_of(out).column("run_id").to_pylist()) == {finished[1].run_id}


class TestRefusals:
    def test_region_without_partitions(self, tiny_release: Path, recipe: Recipe, tmp_path: Path) -> None:
        with pytest.raises(RunError, match="no partition"):
            run(str(tiny_release), recipe, tmp_path / "out", region=Cone(180.0, 60.0, 0.01))

    def test_unknown_bundle_names_the_nearest(
        self, tiny_release: Path, recipe: Recipe, tmp_path: Path
    ) -> None:
        wrong = recipe.model_copy(update={"model": recipe.model.model_copy(update={"bundle": "ztf-rd"})})
        with pytest.raises(BundleError, match="Did you mean 'ztf-dr'"):
            run(str(tiny_release), wrong, tmp_path / "out")

    def test_grid_of_the_recipe_is_not_the_bundles(
        self, tiny_release: Path, recipe: Recipe, tmp_path: Path
    ) -> None:
        other = recipe.model_copy(update={"dmdt": recipe.dmdt.model_copy(update={"grid": "scope"})})
        with pytest.raises(BundleError, match=r"has 24 dt_edges .*, the recipe has 27"):
            run(str(tiny_release), other, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_experts_that_need_periods_get_them_or_the_run_is_refused(
        self, tiny_release: Path, recipe: Recipe, tmp_path: Path
    ) -> None:
        off = recipe.model_copy(update={"period": recipe.period.model_copy(update={"mode": "off"})})
        with pytest.raises(BundleError, match=r"needs periods: set \[period\] mode = \"on\""):
            run(str(tiny_release), off, tmp_path / "out")
        mixed = recipe.model_copy(update={"classes": recipe.classes.model_copy(update={"mix": {"EW": 1.0}})})
        with pytest.raises(ValueError, match=r"\[classes\] mix gives shares of EW 1"):
            run(str(tiny_release), mixed, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_out_is_something_else(self, tiny_release: Path, recipe: Recipe, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "notes.txt").write_text("mine")
        with pytest.raises(NotAnOutput, match="another --out"):
            run(str(tiny_release), recipe, tmp_path / "out")


@pytest.fixture(scope="module")
def hard(
    make_stars: Callable[..., Any],
    write_hats: Callable[..., dict[int, np.ndarray]],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, int]:
    """IRSA's per-pixel folders by plain pyarrow: good stars at awkward places, bad values, bad partitions."""
    ra = [0.0, 359.9999999, 360.0, 1e-9, 123.4, 310.0, 45.0, 200.0, 100.0, 101.0, 220.0, 140.0]
    dec = [0.0, 1e-9, -1e-9, 0.0, 90.0, -90.0, 89.9999, -89.9999, 41.0, 41.0, 41.0, -41.0]
    stars = make_stars(ra=ra, dec=dec, n_epochs=60)
    # values that are no numbers, negative errors, unsorted and duplicate times: still 40 good epochs
    for i in (0, 1, 2):
        stars.mag[i][:5] = [float("nan"), float("inf"), float("-inf"), float("nan"), float("nan")]
        stars.magerr[i][5:10] = [-0.1, 0.0, float("nan"), float("inf"), -1.0]
        stars.t[i][10] = float("nan")
        stars.t[i][20:40] = stars.t[i][20:40][::-1]
        stars.t[i][45] = stars.t[i][44]
    stars.flags[9][:50] = [32768] * 50  # 10 good ones are left
    root = tmp_path_factory.mktemp("hard") / "ztf_hard"
    write_hats(root, stars, order=1)
    return root, len(ra)


@pytest.fixture(scope="module")
def bad_partitions(hard: tuple[Path, int]) -> tuple[Path, dict[str, Path], dict[str, bytes]]:
    """The same release with four partitions damaged: truncated, a foreign schema, empty, light curves too short.

    Gives the release, the damaged files by name, and what they held.
    """
    root, _ = hard
    folders = sorted((root / "dataset").glob("Norder=*/Dir=*/Npix=*"), key=lambda path: path.name)
    counts = {path: sum(pq.read_metadata(file).num_rows for file in path.iterdir()) for path in folders}
    single = [path for path, n in counts.items() if n == 1]
    names = dict(zip(("truncated", "foreign", "empty", "short"), single, strict=False))
    assert len(names) == 4
    kept = {name: (path / "part0.snappy.parquet").read_bytes() for name, path in names.items()}
    files = {name: path / "part0.snappy.parquet" for name, path in names.items()}
    files["truncated"].write_bytes(kept["truncated"][:-100])
    table = pq.ParquetFile(files["foreign"]).read()
    pq.write_table(table.drop_columns(["objdec"]), files["foreign"])
    table = pq.ParquetFile(files["empty"]).read()
    pq.write_table(table.slice(0, 0), files["empty"])
    table = pq.ParquetFile(files["short"]).read()
    curve = table.column("lightcurve").combine_chunks()
    cut = pa.StructArray.from_arrays(
        [pa.array([values[:3] for values in curve.field(i).to_pylist()], curve.type.field(i).type)
         for i in range(curve.type.num_fields)],
        fields=list(curve.type),
    )  # fmt: skip
    pq.write_table(
        table.set_column(table.schema.get_field_index("lightcurve"), "lightcurve", cut), files["short"]
    )
    return root, files, kept


def test_bad_partitions_cost_nobody_else(
    bad_partitions: tuple[Path, dict[str, Path], dict[str, bytes]], recipe: Recipe, tmp_path: Path
) -> None:
    root, files, whole = bad_partitions
    out = tmp_path / "catalogue"
    summary = run(str(root), recipe, out, workers=1)
    pixels = {name: int(path.parent.name.removeprefix("Npix=")) for name, path in files.items()}
    failed = {failure.pixel: failure.error for failure in summary.failed}
    assert set(failed) == {pixels["truncated"], pixels["foreign"]}
    assert "objdec" in failed[pixels["foreign"]]
    assert "[layout]" in failed[pixels["foreign"]]
    assert {f.pixel: f.error_class for f in newest(out).failures()} == {
        pixels["truncated"]: "INPUT_CORRUPT", pixels["foreign"]: "SCHEMA",
    }  # fmt: skip
    assert set(CatalogueFolder(out).quarantined()) == {(1, pixels["truncated"]), (1, pixels["foreign"])}
    # 12 stars: one each in the truncated, the foreign and the emptied partition; one too short; one all but flagged
    assert summary.light_curves == 9
    assert summary.rejected == {"too_few_epochs": 1, "flagged": 1}
    assert summary.classified == 7
    assert is_valid_catalog(out, strict=True)
    rows = rows_of(out)
    assert len(rows) == 7
    assert len(set(rows.column("objectid").to_pylist())) == 7
    assert np.isfinite(rows.column("mag_mean").to_numpy()).all()
    found = dict(zip(rows.column("ra").to_pylist(), rows.column("n_good").to_pylist(), strict=True))
    assert found[0.0] == 60 - 5 - 5 - 1 - 1  # no numbers, bad errors, no time, same time

    # the operator puts back one file and runs again: only what failed is computed
    stamps_before = stamps(out)
    assert run(str(root), recipe, out, workers=1).computed == 0  # what is in quarantine is left alone
    files["truncated"].write_bytes(whole["truncated"])
    again = run(str(root), recipe, out, workers=1)
    assert again.computed == 1
    assert [failure.pixel for failure in again.failed] == [pixels["foreign"]]
    assert again.classified == 8
    assert stamps_before.items() < stamps(out).items()


def test_the_image_alone_and_only_what_is_sure(tiny_release: Path, recipe: Recipe, tmp_path: Path) -> None:
    """Without a period search, and with a class only for what is known well enough."""
    fast = recipe.model_copy(
        update={
            "period": recipe.period.model_copy(update={"mode": "off"}),
            "classes": recipe.classes.model_copy(update={"experts": ("dmdt",), "least_margin": 0.05}),
        }
    )
    summary = run(str(tiny_release), fast, tmp_path / "out", workers=1)
    rows = rows_of(tmp_path / "out")
    assert summary.classified == len(rows) == 40
    assert rows.column("period").null_count == rows.column("novelty").null_count == 40
    unsure = rows.column("margin").to_numpy() < 0.05
    best = np.array(rows.column("best_class").cast(pa.string()).to_pylist())
    assert unsure.any()
    assert not unsure.all()
    np.testing.assert_array_equal(best == UNCLASSIFIED, unsure)
    assert is_valid_catalog(tmp_path / "out", strict=True)


def test_the_recipe_that_ships(tiny_release: Path, tmp_path: Path) -> None:
    summary = run(str(tiny_release), load_recipe("ztf-dr"), tmp_path / "out", workers=1)
    assert summary.classified == 40
    assert not summary.failed


def test_all_too_short(
    make_stars: Callable[..., Any], write_hats: Callable[..., Any], recipe: Recipe, tmp_path: Path
) -> None:
    """Nothing to classify is a success, without a catalogue."""
    write_hats(tmp_path / "short", make_stars(8, n_epochs=5))
    summary = run(str(tmp_path / "short"), recipe, tmp_path / "out", workers=1)
    assert summary.catalogue is None
    assert summary.rejected == {"too_few_epochs": 8}
    assert not summary.failed


def test_repartitioned_release_leaves_no_orphans(
    make_stars: Callable[..., Any], write_hats: Callable[..., Any], recipe: Recipe, tmp_path: Path
) -> None:
    """The same release split finer in place: old rows go, each star is there once."""
    stars = make_stars(30)
    root, out = tmp_path / "release", tmp_path / "out"
    write_hats(root, stars, order=1)
    first = run(str(root), recipe, out, workers=1)
    shutil.rmtree(root)
    write_hats(root, stars, order=5)
    second = run(str(root), recipe, out, workers=1)
    assert second.computed == second.partitions > first.partitions
    assert sorted(rows_of(out).column("objectid").to_pylist()) == sorted(stars.objectid.tolist())
    assert is_valid_catalog(out, strict=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 150 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("mounting a small file system needs root")
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=150k", "tmpfs", str(folder)], capture_output=True
    )
    if done.returncode != 0:
        pytest.skip(f"no tmpfs here: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_disk_full(small_disk: Path, simulated: Path, recipe: Recipe) -> None:
    """The run stops with a clear error; what is there is whole; with room it goes on."""
    out = small_disk / "catalogue"
    with pytest.raises(RunError, match=r"No space left.*run the same command again"):
        run(str(simulated), recipe, out, workers=1)
    whole = list(stamps(out))
    for path in whole:
        assert pq.ParquetFile(path).read().num_rows > 0
    assert not list(out.rglob("*.part"))
    proven = newest(out).done()
    subprocess.run(["mount", "-o", "remount,size=50m", str(small_disk)], check=True)
    summary = run(str(simulated), recipe, out, workers=1)
    assert summary.light_curves == 2500
    assert summary.computed == summary.partitions - len(proven)
    assert is_valid_catalog(out, strict=True)
