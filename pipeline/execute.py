"""Execute a plan: exactly that, by one driver at a time, from where an earlier invocation was stopped or killed."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

from distributed import Client

from lightmill.catalogs import storage
from lightmill.catalogs.lease import PATIENCE, Holder, lease
from lightmill.catalogs.ledger import Ledger, open_ledger
from lightmill.catalogs.ledger_rebuild import catch_up
from lightmill.catalogs.receipts import FailedAttempt, Receipt, encode, write_json
from lightmill.catalogs.release import open_release
from lightmill.catalogs.runfolder import CatalogueFolder, NotAnOutput, RunFolder
from lightmill.cluster.connect import cluster
from lightmill.cluster.local import available_cores
from lightmill.cluster.worker import Prepare
from lightmill.models import store
from lightmill.pipeline.classify import Model, Unit, attempt_unit, prepare
from lightmill.pipeline.drive import drive
from lightmill.pipeline.failures import ErrorClass, Fault, fault_of
from lightmill.pipeline.journal import Journal
from lightmill.pipeline.plan import Plan, RunError, Task
from lightmill.pipeline.planfile import digest, load_plan, save_plan
from lightmill.pipeline.planning import check_world
from lightmill.pipeline.recipe import OperationalTable, Recipe
from lightmill.pipeline.warmup import warm_up

__all__ = ["Ending", "Machine", "Seen", "execute"]

CANNOT_WRITE = (
    "cannot write: {}. Nothing half-written was left under a final name; make room, or give back the permission, and "
    "run the same command again, which does only what is missing"
)
GIVEN_UP = ("failed", "quarantine")  #: decisions after which a unit is not tried again in this run
IMPORTS = ("lightmill.pipeline.execute", "lightmill.models.ready")  #: what workers need
WINDOW = 2  #: tries with the scheduler per worker: Dask must never hold a queue of a hundred thousand
SLOWER = 20.0  #: times the time planned, after which a unit is given up
LEAST_TIMEOUT = 1800.0  #: but never before [s]

Watch = Callable[[str, dict[str, Any]], None]
"""Called with an event ("planned", "waiting", "starting", "started", "done", "failed", "stopping", "publishing") and
its facts: the runner itself prints nothing."""


@dataclass(frozen=True)
class Machine:
    """Where and how a plan is executed: none of it changes a row."""

    workers: int | None = None  #: processes; None: as the recipe says, or one a core
    memory: int | None = None  #: of each process [bytes]; None: its share of this machine's
    scheduler: str | None = None  #: address or file of a Dask scheduler; None: processes of this machine
    ledger: str | None = None  #: URL; None: $LIGHTMILL_LEDGER, or a file beside the catalogue
    patience: float = PATIENCE  #: for another driver that may be dead [s]
    alone: float = 300.0  #: without any worker, before the run is stopped [s]
    function: Callable[[Unit], Receipt | Fault] = attempt_unit  #: that classifies a unit
    setup: Callable[[Unit], object] | None = prepare  #: that each worker does once


@dataclass(frozen=True)
class Ending:
    """How an execution ended."""

    folder: RunFolder
    state: str  #: "complete", "partial" (some units failed), "stopped" (asked to; the same command goes on)
    failed: list[FailedAttempt] = field(default_factory=list)
    peak_rss_bytes: int = 0
    light_curves: int = 0  #: read by this invocation
    units: int = 0  #: computed by this invocation


def execute(
    plan: Plan,
    catalogue: CatalogueFolder,
    machine: Machine = Machine(),
    *,
    operational: OperationalTable | None = None,
    watch: Watch = lambda event, facts: None,
    stop: Event | None = None,
) -> Ending:
    """Compute what the plan says and has no receipt yet.

    Parameters
    ----------
    operational : fields that take the place of the planned recipe's
    stop : set from outside to let what is under way finish, and no more

    Raises
    ------
    RunError
        if the world has moved since the plan was made, if there is no room to write, or if the first units all fail.
    LeaseError
        if another driver executes this run.
    NotAnOutput
        if the folder holds something else, or another plan under the same name.
    """
    catalogue.check()
    folder = catalogue.run(plan.run_id)
    check_world(plan)

    def waiting(holder: Holder) -> None:
        watch("waiting", {"holder": str(holder), "seconds": machine.patience})

    with _one_message(), lease(folder.lease, patience=machine.patience, waiting=waiting) as lost:
        _begin(plan, folder)
        if folder.end.exists():
            return _ended(folder)
        todo, done = _resume(plan, folder)
        watch("resuming", {"todo": len(todo), "bytes": sum(task.partition.bytes for task in todo)})
        return _execute(plan, todo, done, folder, machine, operational, watch, stop or Event(), lost)


def _begin(plan: Plan, folder: RunFolder) -> None:
    """Write the plan and the record of the run, or see that they are those of this plan."""
    if not folder.plan.exists():
        save_plan(plan, folder.plan)
    sha256 = digest(folder.plan)
    facts = asdict(plan.identity) | {
        "run_id": plan.run_id,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "plan_sha256": sha256,
        "units": len(plan.tasks),
    }
    if storage.create(folder.record, encode(facts)):
        return
    if {task.key: task.fingerprint for task in load_plan(folder.plan).tasks} != {
        task.key: task.fingerprint for task in plan.tasks
    }:
        raise NotAnOutput(f"{folder.root} executes another plan, sha256 {sha256[:8]}: plan again")


def _resume(plan: Plan, folder: RunFolder) -> tuple[list[Task], list[Receipt]]:
    """What is still to be done, after what was half done is removed, and the receipts of what is done."""
    folder.clear_scratch()
    done = folder.done()
    wanted = {task.key: task.fingerprint for task in plan.tasks}
    good = {key: receipt for key, receipt in done.items() if receipt.fingerprint == wanted.get(key)}
    there = storage.sizes(folder.objects / "dataset", ".parquet").keys()
    proven = {(r.order, r.pixel) for r in folder.read_receipts()}
    for key in (there | proven) - good.keys():
        folder.discard(*key)
    kept_out = {k for k, q in folder.catalogue.quarantined().items() if q.fingerprint == wanted.get(k)}
    todo = [task for task in plan.tasks if task.key not in good and task.key not in kept_out]
    return todo, list(good.values())


def _ended(folder: RunFolder) -> Ending:
    state = json.loads(folder.end.read_bytes())["state"]
    given_up = [failure for failure in folder.failures() if failure.decision in GIVEN_UP]
    proven = {receipt.key for receipt in folder.read_receipts()}
    last = {failure.key: failure for failure in given_up if failure.key not in proven}
    return Ending(folder, state, failed=list(last.values()))


def _execute(
    plan: Plan,
    todo: list[Task],
    done: list[Receipt],
    folder: RunFolder,
    machine: Machine,
    operational: OperationalTable | None,
    watch: Watch,
    stop: Event,
    lost: Event,
) -> Ending:
    journal = Journal(folder, len(plan.tasks), sum(task.partition.bytes for task in plan.tasks))
    journal.resume(done)
    tries = Counter[tuple[int, int]]()
    for failure in folder.failures():
        tries[failure.key] = max(tries[failure.key], failure.attempt)
    ledger = open_ledger(machine.ledger, folder.catalogue)
    journal.ledger = ledger
    with contextlib.closing(ledger):
        ledger.start_run(folder.facts(), str(folder.catalogue.root), len(plan.tasks))
        catch_up(ledger, folder)  # what a driver that was killed could not tell it
        try:
            if todo:
                _drive(plan, todo, tries, journal, machine, operational, watch, stop, lost)
        finally:
            journal.state = "ended" if journal.done + len(journal.failed) >= journal.units else "stopped"
            with contextlib.suppress(OSError):  # a full disk: what stopped the run is told already
                journal.tick(now=True)
        return _finish(folder, journal, ledger, stopped=stop.is_set())


def _finish(folder: RunFolder, journal: Journal, ledger: Ledger, stopped: bool) -> Ending:
    journal.let_quarantine()
    with contextlib.suppress(OSError):
        journal.tick(now=True)
    state = "stopped" if stopped else "partial" if journal.done < journal.units else "complete"
    counts = {"units": journal.units, "done": journal.done, "failed": journal.units - journal.done}
    if not stopped:
        folder.clear_scratch()
        folder.seal()
        write_json(
            folder.end,
            {"state": state, "ended": datetime.now(UTC).isoformat(timespec="seconds"), "counts": counts},
        )
    ledger.end_run(folder.run_id, state, counts)
    return Ending(
        folder,
        state,
        failed=list(journal.failed.values()),
        peak_rss_bytes=journal.peak_rss_bytes,
        light_curves=journal.light_curves,
        units=journal.computed,
    )


def _drive(
    plan: Plan,
    todo: list[Task],
    tries: Counter[tuple[int, int]],
    journal: Journal,
    machine: Machine,
    operational: OperationalTable | None,
    watch: Watch,
    stop: Event,
    lost: Event,
) -> None:
    recipe = Recipe.model_validate(plan.identity.recipe)
    if operational is not None:
        recipe = recipe.model_copy(update={"operational": operational})
    workers = min(machine.workers or recipe.operational.workers or available_cores(), len(todo))
    journal.workers = workers
    folder, make = journal.folder, _unit_maker(plan, recipe, journal.folder, tries)
    watch("starting", {"workers": workers, "scheduler": machine.scheduler})
    journal.tick(now=True)
    if machine.function is attempt_unit:
        warm_up()
    ordered = _ordered(todo, workers)
    with cluster(workers, machine.scheduler, machine.memory, IMPORTS) as client:
        if machine.setup is not None:
            client.register_plugin(Prepare(machine.setup, make(ordered[0])))
        journal.state = "running"
        watch("started", {"workers": workers})
        seen = Seen(machine.alone)

        def idle(under_way: Any) -> None:
            seen.workers(_workers(client))
            _look(journal, under_way, lost, stop)

        outcomes = drive(
            client,
            machine.function,
            map(make, ordered),
            name=lambda unit: f"classify-{folder.run_id}-{unit.key[0]}-{unit.key[1]}-{unit.attempt}",
            window=lambda: WINDOW * max(_workers(client), 1),
            canaries=workers,
            mark=lambda unit: _mark(folder, unit),
            stop=stop,
            idle=idle,
        )
        for outcome in outcomes:
            size = outcome.unit.partition.bytes
            if outcome.fault is None:
                journal.succeeded(outcome.result)
                watch("done", {"receipt": outcome.result, "bytes": size})
                continue
            _stop_if_no_room(outcome.fault)
            failure = journal.failed_try(outcome)
            watch("failed", {"failure": failure, "bytes": size, "final": failure.decision in GIVEN_UP})


def _look(journal: Journal, under_way: Any, lost: Event, stop: Event) -> None:
    """What the driver does between outcomes."""
    if lost.is_set():
        raise RunError(f"another driver has taken over {journal.folder.root}: this one stops")
    if stop.is_set():
        journal.state = "draining"
    journal.tick(under_way)


class Seen:
    """When a worker was there last: where none comes back nothing will ever end."""

    def __init__(self, patience: float) -> None:
        self.patience, self.last = patience, time.monotonic()

    def workers(self, count: int) -> None:
        """So many are there now; RunError where there has been none for too long."""
        if count:
            self.last = time.monotonic()
        elif time.monotonic() - self.last > self.patience:
            raise RunError(
                f"no worker has been there for {self.patience:.0f} s: they die as they start, or their "
                "scheduler starts none; look at their logs, then run the same command again"
            )


def _workers(client: Client) -> int:
    return len(client.scheduler_info(n_workers=-1)["workers"])


def _ordered(todo: Sequence[Task], workers: int) -> list[Task]:
    """Small ones first, one a worker, to see whether it works at all; then the largest first: the last to finish
    should not be the longest."""
    by_size = sorted(todo, key=lambda task: (task.partition.bytes, task.key))
    return by_size[:workers] + by_size[workers:][::-1]


def _mark(folder: RunFolder, unit: Unit) -> Fault | None:
    """What a worker left that ended itself in this try."""
    try:
        facts = json.loads(folder.mark(*unit.key, unit.attempt).read_bytes())
        return Fault(**facts | {"error_class": ErrorClass(facts["error_class"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _unit_maker(
    plan: Plan, recipe: Recipe, folder: RunFolder, tries: Counter[tuple[int, int]]
) -> Callable[[Task], Unit]:
    layout = open_release(plan.identity.release, recipe.layout.choices()).layout
    bundle = Model(_anywhere(recipe.model.bundle), plan.identity.models["bundle"])
    choice = None
    if "period_choice" in plan.identity.models:
        choice = Model(_anywhere(recipe.period.choice), plan.identity.models["period_choice"])
    allowed = recipe.operational.timeout

    def make(task: Task) -> Unit:
        return Unit(
            partition=task.partition,
            layout=layout,
            recipe=recipe,
            bundle=bundle,
            choice=choice,
            fingerprint=task.fingerprint,
            folder=folder,
            attempt=tries[task.key] + 1,
            batch_epochs=recipe.operational.batch_epochs,
            timeout=allowed or max(LEAST_TIMEOUT, SLOWER * task.seconds),
        )

    return make


def _anywhere(name: str) -> str:
    """The name of a model that ships, or the path of what it means now, for workers elsewhere or started later."""
    path = store.resolve(name) or Path(name)
    return str(path.absolute()) if path.is_dir() else name


def _stop_if_no_room(fault: Fault) -> None:
    """A full disk fails every other partition too."""
    if fault.stops:
        raise RunError(CANNOT_WRITE.format(fault.error))


@contextmanager
def _one_message() -> Iterator[None]:
    """What the driver itself cannot write stops the run as what a worker cannot."""
    try:
        yield
    except OSError as error:
        if fault_of(error).stops:
            raise RunError(CANNOT_WRITE.format(f"{type(error).__name__}: {error}")) from error
        raise
