"""Executing plans: real Dask processes, real commits, and partitions that bring each kind of misfortune."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torture

from lightmill.catalogs import storage
from lightmill.catalogs.lease import LeaseError, lease
from lightmill.catalogs.ledger import open_ledger
from lightmill.catalogs.receipts import Receipt
from lightmill.catalogs.runfolder import CatalogueFolder
from lightmill.pipeline.classify import Unit, attempt_unit
from lightmill.pipeline.drive import CircuitBroken
from lightmill.pipeline.execute import Ending, Machine, Seen, execute
from lightmill.pipeline.failures import Fault
from lightmill.pipeline.plan import Plan, RunError
from lightmill.pipeline.planning import make_plan
from lightmill.pipeline.recipe import Recipe
from lightmill.pipeline.status import read_status

cloudpickle.register_pickle_by_value(sys.modules[__name__])
pytestmark = pytest.mark.slow

ORDER = 5


@dataclass(frozen=True)
class Faulty:
    """`attempt_unit`, but for some pixels that do something else; each call leaves a line in a folder."""

    folder: str
    segfault: frozenset[int] = frozenset()
    bug: frozenset[int] = frozenset()
    everything: bool = False  #: is a bug

    def __call__(self, unit: Unit) -> Receipt | Fault:
        pixel = unit.partition.pixel
        with (Path(self.folder) / str(pixel)).open("a") as handle:
            handle.write(f"{unit.batch_epochs}\n")
        if pixel in self.segfault:
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.everything or pixel in self.bug:
            from lightmill.pipeline.failures import fault_of

            return fault_of(ZeroDivisionError("division by zero"))
        torture.without_models()
        return attempt_unit(unit)


class Unknown:
    """What no worker can unpickle: they close."""

    def __call__(self, unit: Unit) -> None: ...

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, ("import nowhere_to_be_found",)


FAST: dict[str, Any] = {"setup": None}


def calls(folder: Path) -> dict[int, int]:
    return {int(path.name): len(path.read_text().splitlines()) for path in folder.iterdir()}


@pytest.fixture(scope="module")
def release(
    make_stars: Callable[..., Any], write_hats: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    root = tmp_path_factory.mktemp("execute") / "release"
    write_hats(root, make_stars(60), order=ORDER)
    return root


@pytest.fixture
def own(release: Path, tmp_path: Path) -> Path:
    """The release, to be damaged."""
    return Path(shutil.copytree(release, tmp_path / "release"))


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    (tmp_path / "marks").mkdir()
    return tmp_path / "marks"


def files_of(root: Path) -> dict[int, Path]:
    """The one file of each pixel."""
    return {
        int(path.parent.name.removeprefix("Npix=")): path
        for path in sorted(root.glob("dataset/*/*/Npix=*/part0.snappy.parquet"))
    }


def go(plan: Plan, out: Path, marks: Path, **options: Any) -> Ending:
    machine = options.pop("machine", {})
    function = Faulty(str(marks), **options)
    return execute(
        plan, CatalogueFolder(out), Machine(**{"workers": 2, "function": function} | FAST | machine)
    )


def giant(path: Path, epochs: int) -> None:
    """In the place of a partition, one light curve of so many epochs, which takes no room while it is not read."""
    table = pq.ParquetFile(path).read().slice(0, 1)
    curve = table.column("lightcurve").combine_chunks()
    offsets = pa.array([0, epochs], pa.int32())
    lists = [
        pa.ListArray.from_arrays(offsets, pa.array(np.full(epochs, 1.0)).cast(field.type.value_type))
        for field in curve.type
    ]
    table = table.set_column(
        table.schema.get_field_index("lightcurve"), "lightcurve",
        pa.StructArray.from_arrays(lists, fields=list(curve.type)),
    )  # fmt: skip
    pq.write_table(table, path, compression="zstd")


def test_each_misfortune_is_blamed_on_whom_it_belongs_to(
    own: Path, tiny_ztf: Recipe, tmp_path: Path, marks: Path
) -> None:
    """A segfault, a memory eater, a truncated file, a foreign schema and a bug among good partitions."""
    files = files_of(own)
    pixels = list(files)
    segfault, memory, truncated, foreign, bug = pixels[3:8]
    giant(files[memory], 60_000_000)
    files[truncated].write_bytes(files[truncated].read_bytes()[:-100])
    pq.write_table(pq.ParquetFile(files[foreign]).read().drop_columns(["objdec"]), files[foreign])
    plan = make_plan(str(own), tiny_ztf, memory=1 << 50)
    out = tmp_path / "out"
    ending = go(
        plan,
        out,
        marks,
        segfault=frozenset([segfault]),
        bug=frozenset([bug]),
        machine={"memory": 1_700 << 20},
    )
    assert ending.state == "partial"
    expected = {
        segfault: "WORKER_LOST", memory: "OOM", truncated: "INPUT_CORRUPT", foreign: "SCHEMA", bug: "BUG",
    }  # fmt: skip
    catalogue = CatalogueFolder(out)
    assert {q.pixel: q.error_class for q in catalogue.quarantined().values()} == expected
    assert {f.pixel: f.error_class for f in ending.failed} == expected
    assert set(ending.folder.done()) == {(ORDER, pixel) for pixel in set(pixels) - expected.keys()}
    # nobody else failed to its own account, and who was in company of the killer was only tried again
    for failure in ending.folder.failures():
        assert failure.pixel in expected or (failure.error_class, failure.decision) == (
            "WORKER_LOST",
            "alone",
        )
    assert calls(marks)[memory] == 3
    assert len({line for line in (marks / str(memory)).read_text().split()}) == 3  # half the batch each time

    # what is in quarantine is left alone, in this run and in plans, until it is released or changes
    assert execute(plan, catalogue, Machine(workers=1)).units == 0
    again = make_plan(str(own), tiny_ztf, catalogue=catalogue, memory=1 << 50)
    assert {key[1] for key in again.quarantined} == set(expected)
    assert not again.tasks
    assert catalogue.release(ORDER, bug)
    shutil.copy(files_of(own)[pixels[0]], files[truncated])
    third = make_plan(str(own), tiny_ztf, catalogue=catalogue, memory=1 << 50)
    assert {task.key[1]: task.reason for task in third.tasks} == {bug: "failed", truncated: "new"}


def test_a_run_that_only_fails_is_stopped(
    release: Path, tiny_ztf: Recipe, tmp_path: Path, marks: Path
) -> None:
    """Nobody is put into quarantine for it, and with the fault mended the same plan goes on."""
    plan, out = make_plan(str(release), tiny_ztf), tmp_path / "out"
    with pytest.raises(CircuitBroken, match=r"BUG.*division by zero"):
        go(plan, out, marks, everything=True)
    catalogue = CatalogueFolder(out)
    assert not catalogue.quarantined()
    assert len(calls(marks)) < len(plan.tasks)
    ending = go(plan, out, marks)
    assert ending.state == "complete"
    assert ending.units == len(plan.tasks)


def test_resume_computes_only_what_is_missing(
    release: Path, tiny_ztf: Recipe, tmp_path: Path, marks: Path
) -> None:
    """Asked to stop in the middle, begun again with other operational settings, and once more when it has ended."""
    plan, out, stop = make_plan(str(release), tiny_ztf), tmp_path / "out", threading.Event()
    done: list[Receipt] = []

    def watch(event: str, facts: dict[str, Any]) -> None:
        if event == "done":
            done.append(facts["receipt"])
            stop.set()

    catalogue, function = CatalogueFolder(out), Faulty(str(marks))
    first = execute(plan, catalogue, Machine(workers=2, function=function, **FAST), watch=watch, stop=stop)
    assert first.state == "stopped"
    assert 0 < first.units < len(plan.tasks)
    assert not first.folder.end.exists()
    smaller = tiny_ztf.operational.model_copy(update={"batch_epochs": 300})
    second = execute(plan, catalogue, Machine(workers=1, function=function, **FAST), operational=smaller)
    assert second.state == "complete"
    assert first.units + second.units == len(plan.tasks)
    assert set(calls(marks).values()) == {1}
    assert json.loads(second.folder.end.read_text())["state"] == "complete"
    assert second.folder.is_sealed()
    assert execute(plan, catalogue, Machine()).units == 0
    now = read_status(second.folder)  # what the first driver has done counts too
    assert (now.done, now.light_curves) == (
        len(plan.tasks),
        sum(r.rows_in for r in second.folder.read_receipts()),
    )
    assert now.bytes_done == now.bytes_total > 0
    with open_ledger(None, catalogue) as ledger:
        from sqlalchemy import func, select

        from lightmill.catalogs.ledger_tables import units

        with ledger.engine.connect() as connection:
            assert connection.execute(select(func.count()).select_from(units)).scalar() == len(plan.tasks)


def test_a_second_driver_is_refused(release: Path, tiny_ztf: Recipe, tmp_path: Path) -> None:
    plan, catalogue = make_plan(str(release), tiny_ztf), CatalogueFolder(tmp_path / "out")
    folder = catalogue.run(plan.run_id)
    folder.root.mkdir(parents=True)
    with lease(folder.lease, patience=0.6), pytest.raises(LeaseError, match="one driver executes a run"):
        execute(plan, catalogue, Machine(patience=1.0))


def test_a_world_that_has_moved_is_refused(own: Path, tiny_ztf: Recipe, tmp_path: Path) -> None:
    plan, catalogue = make_plan(str(own), tiny_ztf), CatalogueFolder(tmp_path / "out")
    files = list(files_of(own).values())
    shutil.copy(files[0], files[1])
    with pytest.raises(RunError, match=r"has changed since it was planned: .* now .*: plan again"):
        execute(plan, catalogue)
    assert not catalogue.runs()


def test_without_permission_it_stops(release: Path, tiny_ztf: Recipe, tmp_path: Path, marks: Path) -> None:
    """A folder that can no longer be written fails everyone alike: one message, and it goes on when it can."""
    plan, out = make_plan(str(release), tiny_ztf), tmp_path / "out"
    objects = CatalogueFolder(out).run(plan.run_id).objects
    objects.parent.mkdir(parents=True)
    if os.geteuid() == 0:  # root may write everywhere, but not into what is immutable
        objects.mkdir()
        done = subprocess.run(["chattr", "+i", str(objects)], capture_output=True)
        if done.returncode:
            pytest.skip(f"no immutable folders here: {done.stderr.decode().strip()}")
    else:
        objects.mkdir(mode=0o500)
    try:
        with pytest.raises(RunError, match=r"cannot write: PermissionError.*give back the permission"):
            go(plan, out, marks)
    finally:
        subprocess.run(["chattr", "-i", str(objects)], capture_output=True)
        objects.chmod(0o755)
    assert go(plan, out, marks).state == "complete"


def test_into_an_object_store(
    release: Path, tiny_ztf: Recipe, tmp_path: Path, marks: Path, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same rows as on a file system, receipts and all, through a real S3 protocol server; and it resumes."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    plan = make_plan(str(release), tiny_ztf)
    local = go(plan, tmp_path / "out", marks)
    catalogue, stop = CatalogueFolder.at(f"{bucket}/catalogue"), threading.Event()
    machine = Machine(workers=1, function=Faulty(str(marks)), **FAST)
    first = execute(
        plan, catalogue, machine, stop=stop,
        watch=lambda event, facts: stop.set() if event == "done" else None,
    )  # fmt: skip
    assert first.state == "stopped"
    second = execute(plan, catalogue, machine)
    assert second.state == "complete"
    assert first.units + second.units == len(plan.tasks)
    found = {key: receipt.sha256 for key, receipt in second.folder.done().items()}
    assert found == {key: receipt.sha256 for key, receipt in local.folder.done().items()}
    key = next(iter(found))
    assert second.folder.rows(*key).read_bytes() == local.folder.rows(*key).read_bytes()
    assert not [path for path, _ in storage.files(second.folder.root, ".part")]


def test_without_workers_it_stops() -> None:
    """Workers that die as they start: it does not wait for ever."""
    seen = Seen(patience=0.2)
    seen.workers(0)
    time.sleep(0.3)
    seen.workers(1)
    seen.workers(0)
    time.sleep(0.3)
    with pytest.raises(RunError, match=r"no worker has been there for 0 s"):
        seen.workers(0)


def test_what_no_worker_can_unpickle_stops_the_run(release: Path, tiny_ztf: Recipe, tmp_path: Path) -> None:
    plan = make_plan(str(release), tiny_ztf)
    with pytest.raises(CircuitBroken, match="deserialization"):
        execute(plan, CatalogueFolder(tmp_path / "out"), Machine(workers=1, function=Unknown(), setup=None))


def test_a_plan_of_nothing(release: Path, tiny_ztf: Recipe, tmp_path: Path) -> None:
    plan = replace(make_plan(str(release), tiny_ztf), tasks=())
    ending = execute(plan, CatalogueFolder(tmp_path / "out"))
    assert (ending.state, ending.units) == ("complete", 0)


def test_failures_are_counted_by_class(release: Path, tiny_ztf: Recipe, tmp_path: Path, marks: Path) -> None:
    plan, out = make_plan(str(release), tiny_ztf), tmp_path / "out"
    bad = frozenset(key.pixel for key in (task.partition for task in plan.tasks[-3:]))
    ending = go(plan, out, marks, bug=bad)
    progress = json.loads(ending.folder.progress.read_text())
    assert progress["failures_by_class"] == {"BUG": 6}
    assert progress["quarantined"] == 3
    assert progress["done"] == len(plan.tasks) - 3
    assert Counter(f.decision for f in ending.folder.failures()) == {"retry": 3, "quarantine": 3}
