"""Runs in one go: plan what is missing in a catalogue, execute that, and publish what came out as its next version."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from lightmill.catalogs.partitions import Region
from lightmill.catalogs.publish import publish
from lightmill.catalogs.receipts import Quarantined, Receipt
from lightmill.catalogs.runfolder import CatalogueFolder, RunFolder
from lightmill.pipeline.execute import Ending, Machine, Watch, execute
from lightmill.pipeline.plan import Plan, RunError
from lightmill.pipeline.planfile import load_plan
from lightmill.pipeline.planning import check_world, make_plan
from lightmill.pipeline.publishing import tell_ledger
from lightmill.pipeline.recipe import Recipe

__all__ = ["Failure", "RunError", "Summary", "run", "run_plan"]


@dataclass(frozen=True)
class Failure:
    """A partition that could not be classified."""

    order: int
    pixel: int
    error: str  #: class of the error, and its message
    quarantined: bool = False  #: it is not tried again until it changes or is released

    def __str__(self) -> str:
        what = "in quarantine" if self.quarantined else "failed"
        return f"{what}: Norder={self.order}/Npix={self.pixel}: {self.error}"


@dataclass(frozen=True)
class Summary:
    """What a run did, over all partitions asked for, those done before included."""

    run_id: str | None  #: None where there was nothing to compute
    state: (
        str  #: "complete", "partial" (some partitions failed), "stopped" (asked to: the same command goes on)
    )
    light_curves: int
    classified: int
    rejected: dict[str, int]  #: by reason
    seconds: float  #: wall time of this invocation
    light_curves_per_second: float  #: of the light curves read by this invocation
    peak_rss_bytes: int  #: highest of any worker
    catalogue: str | None  #: None where there was nothing to publish
    version: str | None  #: that is current now
    partitions: int
    computed: int  #: partitions computed by this invocation
    failed: list[Failure] = field(default_factory=list)


def run(
    url: str,
    recipe: Recipe,
    out: str | Path,
    *,
    workers: int | None = None,
    region: Region | None = None,
    machine: Machine | None = None,
    watch: Watch = lambda event, facts: None,
    stop: Event | None = None,
) -> Summary:
    """Classify a release, or the partitions of it that a region touches, into a catalogue at `out`.

    What is complete and up to date in `out` is left alone; what is missing is computed; then the catalogue's next
    version is published, if anything has changed. Whole partitions are classified, also where a region covers only a
    part of one. A run that was stopped or killed goes on where it was.

    Raises
    ------
    NotHats, LayoutError
        if the release cannot be read.
    NotAnOutput
        if `out` holds something else.
    BundleError
        if the bundle is damaged, or was trained on other images than the recipe asks for.
    LeaseError
        if another driver is at work on the same run.
    RunError
        if there is nothing to do, the disk is full, or everything fails alike.
    """
    start = time.perf_counter()
    catalogue = CatalogueFolder.at(out)
    catalogue.check()
    machine = machine or Machine(workers=workers)
    plan = make_plan(url, recipe, catalogue=catalogue, region=region)
    plan = _unfinished(catalogue, plan) or plan
    watch("planned", _planned(plan))
    ending = None
    if plan.tasks:
        ending = execute(plan, catalogue, machine, operational=recipe.operational, watch=watch, stop=stop)
    return _conclude(catalogue, plan, ending, recipe, machine, start, watch)


def run_plan(
    plan: Plan,
    out: str | Path,
    *,
    machine: Machine = Machine(),
    recipe: Recipe,
    watch: Watch = lambda event, facts: None,
    stop: Event | None = None,
) -> Summary:
    """Execute exactly a plan that was made before, without publishing.

    Raises
    ------
    RunError
        besides the reasons of `run`: if the release, a bundle or the catalogue is not as it was planned for.
    """
    start = time.perf_counter()
    catalogue = CatalogueFolder.at(out)
    watch("planned", _planned(plan))
    ending = None
    if plan.tasks:
        ending = execute(plan, catalogue, machine, operational=recipe.operational, watch=watch, stop=stop)
    else:
        catalogue.check()
        check_world(plan)
    return _summary(catalogue, plan, ending, None, start)


def _unfinished(catalogue: CatalogueFolder, plan: Plan) -> Plan | None:
    """The plan of a run that was stopped or killed, if what is left of it is what is to be done."""
    wanted = {task.key: task.fingerprint for task in plan.tasks}
    for folder in catalogue.runs():
        if folder.end.exists() or not folder.plan.exists():
            continue
        before = load_plan(folder.plan)
        planned = {task.key: task.fingerprint for task in before.tasks}
        if wanted.items() <= planned.items():
            done = folder.done()
            if all(k in wanted or k in done or k in plan.quarantined for k in planned):
                return before
    return None


def _planned(plan: Plan) -> dict[str, object]:
    return {
        "partitions": len(plan.tasks) + len(plan.current) + len(plan.quarantined) + len(plan.left),
        "todo": len(plan.tasks),
        "bytes": sum(task.partition.bytes for task in plan.tasks),
        "reasons": dict(Counter(task.reason for task in plan.tasks)),
        "orphans": len(plan.orphans),
        "quarantined": len(plan.quarantined),
    }


def _conclude(
    catalogue: CatalogueFolder,
    plan: Plan,
    ending: Ending | None,
    recipe: Recipe,
    machine: Machine,
    start: float,
    watch: Watch,
) -> Summary:
    """Publish, unless the run was stopped before its end."""
    if ending is not None and ending.state == "stopped":
        return _summary(catalogue, plan, ending, None, start)
    accept = {task.key: task.fingerprint for task in plan.tasks} | {
        unit.key: unit.fingerprint for unit in plan.current
    }
    for key in (*plan.orphans, *plan.quarantined):
        accept.setdefault(key, "")
    chain = _chain(catalogue, plan)
    watch("publishing", {"partitions": len(accept)})
    version = publish(
        catalogue,
        chain,
        None,
        wanted=[key for key in accept if key not in plan.orphans],
        accept=accept,
        min_complete=0.0,
        catalogue_name=recipe.name,
        provenance={
            "lightmill_release": plan.identity.release,
            "lightmill_recipe": recipe.name,
            "lightmill_bundle": f"{recipe.model.bundle}-{plan.identity.models['bundle'][:8]}",
        },
    )
    if version is not None and (trouble := tell_ledger(catalogue, machine.ledger)):
        watch("warning", {"text": f"the ledger was not told: {trouble}"})
    return _summary(catalogue, plan, ending, version.name if version else None, start)


def _chain(catalogue: CatalogueFolder, plan: Plan) -> list[RunFolder]:
    """The runs that a version may be made of, the newest first: of the same release, recipe, models and versions."""
    named = {unit.run_id for unit in plan.current} | {plan.run_id}
    found = []
    for folder in catalogue.runs():
        facts = folder.facts()
        same = all(
            facts.get(key) == getattr(plan.identity, key)
            for key in ("release", "science", "models", "versions")
        )
        if same or folder.run_id in named:
            found.append(folder)
    return found


def _summary(
    catalogue: CatalogueFolder, plan: Plan, ending: Ending | None, version: str | None, start: float
) -> Summary:
    receipts = list(_receipts(catalogue, plan))
    rejected: Counter[str] = Counter()
    for receipt in receipts:
        rejected.update(receipt.rejected)
    seconds = time.perf_counter() - start
    failures = {
        key: _kept_out(quarantined)
        for key, quarantined in catalogue.quarantined().items()
        if key in plan.quarantined
    }
    for failure in ending.failed if ending else ():
        failures[failure.key] = Failure(
            failure.order,
            failure.pixel,
            f"{failure.error_class}: {failure.error}",
            failure.decision == "quarantine",
        )
    light_curves = ending.light_curves if ending else 0
    return Summary(
        run_id=plan.run_id if ending else None,
        state=ending.state if ending else "partial" if failures else "complete",
        light_curves=sum(receipt.rows_in for receipt in receipts),
        classified=sum(receipt.classified for receipt in receipts),
        rejected=dict(rejected),
        seconds=round(seconds, 3),
        light_curves_per_second=round(light_curves / seconds, 1),
        peak_rss_bytes=max((receipt.peak_rss_bytes for receipt in receipts), default=0),
        catalogue=str(catalogue.root) if version else None,
        version=version,
        partitions=len(receipts) + len(failures),
        computed=ending.units if ending else 0,
        failed=[failures[key] for key in sorted(failures)],
    )


def _kept_out(record: Quarantined) -> Failure:
    return Failure(record.order, record.pixel, f"{record.error_class}: {record.error}", quarantined=True)


def _receipts(catalogue: CatalogueFolder, plan: Plan) -> Iterable[Receipt]:
    """The receipts of what was planned and of what was done before, of the partitions asked for."""
    wanted: dict[str, set[tuple[int, int]]] = {plan.run_id: {task.key for task in plan.tasks}}
    for unit in plan.current:
        wanted.setdefault(unit.run_id, set()).add(unit.key)
    for run_id, keys in wanted.items():
        if not keys:
            continue
        yield from (r for r in catalogue.run(run_id).read_receipts() if r.key in keys)
