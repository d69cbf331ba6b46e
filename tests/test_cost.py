"""`pipeline/cost.py`: what tasks should cost, from footers or from what the same partitions cost before."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from lightmill.catalogs.receipts import Receipt, write_json, write_receipt
from lightmill.catalogs.release import open_release
from lightmill.catalogs.runfolder import CatalogueFolder
from lightmill.pipeline.cost import BASE, estimate, refuse_what_does_not_fit
from lightmill.pipeline.plan import RunError, Task
from lightmill.pipeline.recipe import load_recipe

RECIPE = load_recipe("ztf-dr")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Where rates are remembered."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def release(tiny_release):
    return open_release(str(tiny_release))


@pytest.fixture
def tasks(release):
    return [Task(partition, "f", "new") for partition in release.table.partitions()]


def past(tmp_path, *receipts) -> CatalogueFolder:
    """A catalogue with a run of these receipts."""
    catalogue = CatalogueFolder(tmp_path / "catalogue")
    folder = catalogue.run("20260101T000000-abcdef")
    write_json(folder.record, {"run_id": folder.run_id})
    for receipt in receipts:
        write_receipt(folder.receipts, receipt)
    return catalogue


def receipt(task, **fields) -> Receipt:
    known = {"rows_in": 1000, "classified": 0, "rejected": {}, "bytes": 0, "seconds": 2.0, "epochs": 7000}
    return Receipt(*task.key, "f", **known | {"input_bytes": task.partition.bytes} | fields)


def test_from_footers(release, tasks):
    found = estimate(tasks, release, RECIPE, None)
    assert [task.key for task in found] == [task.key for task in tasks]
    assert sum(task.rows for task in found) == pytest.approx(40, abs=3)
    for task in found:
        assert task.epochs > task.rows
        assert task.seconds > 0.1
        assert task.memory > BASE
        assert replace(task, rows=0, epochs=0, seconds=0.0, memory=0) in tasks


def test_footers_are_read_once(release, tasks, cache, monkeypatch):
    first = estimate(tasks, release, RECIPE, None)
    assert len(list(cache.rglob("*.json"))) == 1
    monkeypatch.setattr("lightmill.pipeline.cost.count_epochs", lambda *given: pytest.fail("read again"))
    assert estimate(tasks, release, RECIPE, None) == first


def test_a_damaged_file_is_for_the_run_to_tell(release, tasks):
    Path(tasks[0].partition.files[0].path).write_bytes(b"not Parquet")
    assert sum(task.rows for task in estimate(tasks, release, RECIPE, None)) > 0


def test_as_the_same_partition_cost(tmp_path, release, tasks):
    catalogue = past(tmp_path, receipt(tasks[0]))
    found = estimate(tasks, release, RECIPE, catalogue)
    assert (found[0].rows, found[0].epochs, found[0].seconds) == (1000, 7000, 2.0)
    # the others as a byte of that one
    scale = tasks[1].partition.bytes / tasks[0].partition.bytes
    assert found[1].rows == pytest.approx(1000 * scale, abs=1)
    assert found[1].seconds == pytest.approx(0.1 + 2.0 * scale, rel=0.01)


def test_it_grows_with_the_input(tmp_path, release, tasks):
    catalogue = past(tmp_path, receipt(tasks[0], input_bytes=tasks[0].partition.bytes // 2))
    assert estimate(tasks[:1], release, RECIPE, catalogue)[0].rows == pytest.approx(2000, abs=5)


def test_a_run_of_empty_partitions_tells_nothing(tmp_path, release, tasks):
    catalogue = past(tmp_path, receipt(tasks[0], rows_in=0, epochs=0))
    assert sum(task.rows for task in estimate(tasks[1:], release, RECIPE, catalogue)) > 0


def test_memory_follows_the_batch(tmp_path, release, tasks):
    catalogue = past(tmp_path, receipt(tasks[0], epochs=10**9))
    operational = RECIPE.operational.model_copy(update={"batch_epochs": 100_000})
    small = RECIPE.model_copy(update={"operational": operational})
    (one,), (two,) = (estimate(tasks[:1], release, recipe, catalogue) for recipe in (RECIPE, small))
    assert one.memory > two.memory > BASE


def test_nothing_to_do(release):
    assert estimate([], release, RECIPE, None) == ()
    refuse_what_does_not_fit([], RECIPE, memory=1)


def test_what_does_not_fit(tasks):
    large = [replace(tasks[0], memory=3 << 30), replace(tasks[1], memory=1 << 30)]
    refuse_what_does_not_fit(large, RECIPE, memory=3 << 30)
    with pytest.raises(RunError) as caught:
        refuse_what_does_not_fit(large, RECIPE, memory=2 << 30)
    for part in (str(tasks[0].partition), "3.0 GiB", "2.0 GiB", "fewer workers", "batch_epochs"):
        assert part in str(caught.value)


def test_workers_share_the_memory(tasks, monkeypatch):
    monkeypatch.setattr(
        "lightmill.pipeline.cost.psutil.virtual_memory", lambda: type("Memory", (), {"total": 10 << 30})()
    )
    large = [replace(task, memory=4 << 30) for task in tasks]
    refuse_what_does_not_fit(large, RECIPE, workers=2)
    with pytest.raises(RunError, match=r"a worker has 3\.0 GiB"):
        refuse_what_does_not_fit(large, RECIPE, workers=3)
    refuse_what_does_not_fit(large[:1], RECIPE, workers=3)  # there are no more workers than tasks
    assert asdict(large[0])["memory"] == 4 << 30
