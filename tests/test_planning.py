"""`pipeline/planning.py` on real releases: what is looked at to plan, and what has moved since."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightmill.catalogs.partitions import Cone, HatsTable
from lightmill.catalogs.receipts import FailedAttempt, Quarantined, Receipt, write_json, write_receipt
from lightmill.catalogs.runfolder import CatalogueFolder, NotAnOutput, write_index
from lightmill.pipeline.plan import RunError
from lightmill.pipeline.planfile import load_plan, save_plan
from lightmill.pipeline.planning import catalogue_state, check_world, make_plan
from lightmill.pipeline.run import run_plan


@pytest.fixture(autouse=True)
def no_memory_of_rates(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def catalogue(tmp_path) -> CatalogueFolder:
    return CatalogueFolder(tmp_path / "catalogue")


def pretend(plan, catalogue, *, sealed=True, leave_out=()):
    """What a run leaves when all its units have ended without a row; its folder."""
    folder = catalogue.run(plan.run_id)
    save_plan(plan, folder.plan)
    write_json(folder.record, asdict(plan.identity) | {"run_id": plan.run_id})
    receipts = [
        Receipt(
            *task.key, task.fingerprint, 1, 0, {"too_few_epochs": 1}, 0, 0.5, run_id=plan.run_id,
            input=task.partition.identity(), input_bytes=task.partition.bytes, epochs=5,
        )
        for task in plan.tasks
        if task.key not in leave_out
    ]  # fmt: skip
    if sealed:
        write_index(folder.index, receipts)
    else:
        for receipt in receipts:
            write_receipt(folder.receipts, receipt)
    return folder


def touch(path: Path) -> None:
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))


def first_file(release: Path) -> Path:
    return sorted(release.rglob("*.parquet"))[0]


def reasons(plan) -> list[str]:
    return [task.reason for task in plan.tasks]


def test_a_release_without_a_catalogue_is_new(tiny_release, tiny_ztf):
    plan = make_plan(str(tiny_release), tiny_ztf)
    assert reasons(plan) == ["new"] * 4
    assert all(task.rows > 0 and task.epochs > 0 and task.seconds > 0 for task in plan.tasks)
    assert sum(task.rows for task in plan.tasks) == pytest.approx(40, abs=4)
    assert plan.identity.release == str(tiny_release)
    check_world(plan)


@pytest.mark.parametrize("sealed", [True, False])
def test_a_second_plan_has_nothing_to_do(tiny_release, tiny_ztf, catalogue, sealed):
    plan = make_plan(str(tiny_release), tiny_ztf, catalogue=catalogue)
    pretend(plan, catalogue, sealed=sealed)
    again = make_plan(str(tiny_release), tiny_ztf, catalogue=catalogue)
    assert again.tasks == ()
    assert [unit.key for unit in again.current] == [task.key for task in plan.tasks]


def test_rows_that_are_gone_are_computed_again(tiny_release, tiny_ztf, catalogue):
    """A receipt alone proves nothing."""
    plan = make_plan(str(tiny_release), tiny_ztf, catalogue=catalogue)
    folder = pretend(plan, catalogue)
    write_index(folder.index, [replace(receipt, bytes=10) for receipt in folder.read_receipts()])
    assert reasons(make_plan(str(tiny_release), tiny_ztf, catalogue=catalogue)) == ["new"] * 4


def test_a_changed_file_and_a_changed_recipe(tiny_release, tiny_ztf, catalogue):
    pretend(make_plan(str(tiny_release), tiny_ztf, catalogue=catalogue), catalogue)
    touch(first_file(tiny_release))
    assert reasons(make_plan(str(tiny_release), tiny_ztf, catalogue=catalogue)) == ["input changed"]
    clean = tiny_ztf.clean.model_copy(update={"min_epochs": tiny_ztf.clean.min_epochs + 1})
    stricter = tiny_ztf.model_copy(update={"clean": clean})
    made = make_plan(str(tiny_release), stricter, catalogue=catalogue)
    assert sorted(reasons(made)) == ["input, recipe changed", *["recipe changed"] * 3]
    operational = tiny_ztf.operational.model_copy(update={"batch_epochs": 12_345})
    other = tiny_ztf.model_copy(update={"operational": operational})
    assert len(make_plan(str(tiny_release), other, catalogue=catalogue).tasks) == 1


def test_failures_and_quarantine(tiny_release, tiny_ztf, catalogue):
    plan = make_plan(str(tiny_release), tiny_ztf, catalogue=catalogue)
    bad, worse = plan.tasks[0], plan.tasks[1]
    folder = pretend(plan, catalogue, leave_out={bad.key, worse.key})
    for task, decision in ((bad, "failed"), (worse, "quarantine")):
        failure = FailedAttempt(*task.key, 1, "BUG", "why", decision, task.fingerprint, folder.run_id)
        write_json(folder.failure(*task.key, 1), asdict(failure))
    catalogue.put_in_quarantine(Quarantined(*worse.key, worse.fingerprint, "BUG", "why", folder.run_id, 1))
    state = catalogue_state(catalogue)
    assert state.failed == {bad.key: bad.fingerprint, worse.key: worse.fingerprint}
    again = make_plan(str(tiny_release), tiny_ztf, catalogue=catalogue, policy="failed")
    assert [(task.key, task.reason) for task in again.tasks] == [(bad.key, "failed")]
    assert again.quarantined == (worse.key,)


def test_a_record_of_a_run_that_lacks_something(tiny_release, tiny_ztf, catalogue):
    folder = pretend(make_plan(str(tiny_release), tiny_ztf, catalogue=catalogue), catalogue)
    facts = {name: value for name, value in folder.facts().items() if name not in ("release", "versions")}
    write_json(folder.record, facts)
    with pytest.raises(NotAnOutput, match=r"run\.json lacks release, versions: .*move .* away"):
        make_plan(str(tiny_release), tiny_ztf, catalogue=catalogue)


def test_a_region_and_pixels(tiny_release, tiny_ztf):
    everything = make_plan(str(tiny_release), tiny_ztf)
    keys = [task.key for task in everything.tasks]
    some = make_plan(str(tiny_release), tiny_ztf, pixels=[keys[2], keys[0]])
    assert [task.key for task in some.tasks] == [keys[0], keys[2]]
    with pytest.raises(
        RunError, match=r"2 of the 3 partitions asked for are none of .*first Norder=9/Npix=1"
    ):
        make_plan(str(tiny_release), tiny_ztf, pixels=[keys[0], (9, 1), (9, 2)])
    with pytest.raises(RunError, match=r"no partition of .* overlaps the region"):
        make_plan(str(tiny_release), tiny_ztf, region=Cone(180, 0, 1))


def test_what_does_not_fit_in_memory(tiny_release, tiny_ztf):
    with pytest.raises(
        RunError, match=r"expected to need 0\.9 GiB, a worker has 0\.1 GiB: use fewer workers"
    ):
        make_plan(str(tiny_release), tiny_ztf, memory=100 << 20)


def test_a_file_has_changed_since(tiny_release, tiny_ztf):
    plan = make_plan(str(tiny_release), tiny_ztf)
    touch(first_file(tiny_release))
    with pytest.raises(RunError, match=r"Npix=\d+ has changed since it was planned: .* now .*: plan again"):
        check_world(plan)


def test_what_was_up_to_date_has_changed_since(tiny_release, tiny_ztf, catalogue, tmp_path):
    """Also where the plan has nothing to do: nobody should be told that all is well."""
    pretend(make_plan(str(tiny_release), tiny_ztf, catalogue=catalogue), catalogue)
    plan = make_plan(str(tiny_release), tiny_ztf, catalogue=catalogue)
    save_plan(plan, tmp_path / "week.plan")
    plan = load_plan(tmp_path / "week.plan")
    assert (len(plan.tasks), len(plan.current)) == (0, 4)
    assert run_plan(plan, catalogue.root, recipe=tiny_ztf).state == "complete"
    touch(first_file(tiny_release))
    with pytest.raises(RunError, match=r"Npix=\d+ was up to date .* has changed since: .*: plan again"):
        run_plan(plan, catalogue.root, recipe=tiny_ztf)


def test_a_partition_is_gone(tiny_release, tiny_ztf):
    plan = make_plan(str(tiny_release), tiny_ztf)
    info = tiny_release / "partition_info.csv"
    info.write_text("".join(info.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(RunError, match=r"is no partition of .* any more: plan again"):
        check_world(plan)


def test_a_model_and_a_version_have_changed(tiny_release, tiny_ztf):
    plan = make_plan(str(tiny_release), tiny_ztf)
    other = replace(plan.identity, models=plan.identity.models | {"bundle": "0123456789"})
    with pytest.raises(RunError, match=r"bundle was 01234567 when this was planned, now it is [0-9a-f]{8}"):
        check_world(replace(plan, identity=other))
    with pytest.raises(RunError, match=r"planned for .*'algorithm': 0.* this Lightmill has"):
        check_world(replace(plan, identity=replace(plan.identity, versions={"algorithm": 0, "schema": 1})))


def test_only_what_the_plan_names_is_looked_at(tiny_release, tiny_ztf, monkeypatch):
    plan = make_plan(str(tiny_release), tiny_ztf)
    asked = []
    original = HatsTable.partitions_of

    def spy(self, pixels):
        asked.extend(keys := list(pixels))
        return original(self, keys)

    monkeypatch.setattr(HatsTable, "partitions_of", spy)
    check_world(replace(plan, tasks=plan.tasks[1:2]))
    assert asked == [plan.tasks[1].key]


def many(root: Path, units: int) -> Path:
    """A release of so many partitions, which are one file under many names."""
    lists = {"hmjd": pa.float64(), "mag": pa.float32(), "magerr": pa.float32(), "catflags": pa.int32()}
    table = pa.table(
        {"objectid": pa.array([1], pa.int64()), "filterid": pa.array([1], pa.int8()),
         "objra": pa.array([10.0], pa.float32()), "objdec": pa.array([1.0], pa.float32())}
        | {name: pa.array([[1] * 5], pa.list_(dtype)) for name, dtype in lists.items()}
    )  # fmt: skip
    folder = root / "dataset" / "Norder=4" / "Dir=0"
    folder.mkdir(parents=True)
    pq.write_table(table, root / "first")
    for pixel in range(units):
        os.link(root / "first", folder / f"Npix={pixel}.parquet")
    (root / "first").unlink()
    (root / "hats.properties").write_text(
        f"obs_collection=many\ndataproduct_type=object\nhats_nrows={units}\nhats_col_ra=objra\n"
        "hats_col_dec=objdec\nhats_npix_suffix=.parquet\nhats_order=4\nhats_version=v1.0\n"
    )
    (root / "partition_info.csv").write_text("Norder,Npix\n" + "".join(f"4,{p}\n" for p in range(units)))
    return root


def test_two_thousand_partitions(tmp_path, tiny_ztf, catalogue, monkeypatch):
    """A few footers tell what the first plan should cost; the second opens no data file and looks at one folder."""
    url = str(many(tmp_path / "many", 2000))
    opened = []
    original = pq.ParquetFile.__init__

    def spy(self, source, *arguments, **options):
        opened.append(str(source))
        original(self, source, *arguments, **options)

    monkeypatch.setattr(pq.ParquetFile, "__init__", spy)

    def data_files() -> int:
        found = sum(name.startswith(url) for name in opened)
        opened.clear()
        return found

    plan = make_plan(url, tiny_ztf, catalogue=catalogue)
    assert len(plan.tasks) == 2000
    assert data_files() <= 40
    pretend(plan, catalogue)
    again = make_plan(url, tiny_ztf, catalogue=catalogue)
    assert (len(again.tasks), len(again.current)) == (0, 2000)
    assert data_files() == 0
