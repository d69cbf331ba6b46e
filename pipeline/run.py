"""Runs: a release through a recipe on a cluster, one partition one task, and publish what came out."""

from __future__ import annotations

import errno
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightmill.catalogs.partitions import Region
from lightmill.catalogs.publish import publish
from lightmill.catalogs.receipts import Receipt, write_json
from lightmill.catalogs.release import Release, open_release
from lightmill.catalogs.rows import SCHEMA_VERSION
from lightmill.catalogs.runfolder import RunFolder
from lightmill.cluster.local import available_cores, local_cluster
from lightmill.cluster.worker import Prepare
from lightmill.models import bundle as bundles
from lightmill.models import choice as choices
from lightmill.models import extras, store
from lightmill.models.choice import ChoiceManifest
from lightmill.models.manifest import Manifest
from lightmill.pipeline.asking import check_recipe
from lightmill.pipeline.classify import ALGORITHM_VERSION, Model, Unit, classify_unit, prepare, warm_up
from lightmill.pipeline.drive import drive
from lightmill.pipeline.plan import Plan, Task, fingerprint, plan
from lightmill.pipeline.recipe import Recipe

__all__ = ["Failure", "RunError", "Summary", "run"]

WINDOW = 2  #: tasks under way per worker: Dask must never hold a queue of a hundred thousand
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


class RunError(RuntimeError):
    """A run cannot start or go on."""


@dataclass(frozen=True)
class Failure:
    """A partition that could not be classified."""

    order: int
    pixel: int
    error: str  #: class and message

    def __str__(self) -> str:
        return f"failed: Norder={self.order}/Npix={self.pixel}: {self.error}"


@dataclass(frozen=True)
class Summary:
    """What a run did, over all partitions asked for, those done before included."""

    light_curves: int
    classified: int
    rejected: dict[str, int]  #: by reason
    seconds: float  #: wall time of this invocation
    light_curves_per_second: float  #: of the light curves read by this invocation
    peak_rss_bytes: int  #: highest of any worker
    catalogue: str | None  #: None where there was nothing to publish
    partitions: int
    computed: int  #: partitions computed by this invocation
    failed: list[Failure] = field(default_factory=list)


Watch = Callable[[str, dict[str, Any]], None]
"""Called with an event ("planned", "starting", "started", "done", "failed", "publishing") and its facts: the runner
itself prints nothing."""


def run(
    url: str,
    recipe: Recipe,
    out: Path,
    *,
    workers: int | None = None,
    region: Region | None = None,
    watch: Watch = lambda event, facts: None,
) -> Summary:
    """Classify a release, or the partitions of it that a region touches, into a catalogue at `out`.

    What is complete and up to date in `out` is left alone; what is missing is computed; then the catalogue is
    published. Whole partitions are classified, also where a region covers only a part of one.

    Raises
    ------
    NotHats, LayoutError
        if the release cannot be read.
    NotAnOutput
        if `out` holds something else, or was made from another release, recipe or bundle.
    BundleError
        if the bundle is damaged, or was trained on other images than the recipe asks for.
    RunError
        if there is nothing to do, or the disk is full.
    """
    start = time.perf_counter()
    release = open_release(url, recipe.layout.choices())
    bundle = bundles.verify(recipe.model.bundle)
    searching = recipe.period.mode == "on"
    grown = bundle.gate or searching or any(expert.kind == "trees" for expert in bundle.experts)
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    extras.check("keras", backend, "safetensors", *(["xgboost"] if grown else []))
    folder = RunFolder(out.absolute())
    choice = choices.read_manifest(recipe.period.choice) if searching else None
    check_recipe(recipe, bundle, choice)
    identity, record = _identify(url, recipe, bundle, choice, folder)
    todo = _plan(release, recipe, region, identity, folder)
    watch("planned", _planned(todo))
    failures: list[Failure] = []
    receipts = list(todo.current)
    if todo.tasks:
        make = _unit_maker(release, recipe, identity, record["run_id"], folder)
        count = min(workers or recipe.operational.workers or available_cores(), len(todo.tasks))
        computed, failures = _compute(todo.tasks, make, count, watch)
        receipts += computed
        write_json(folder.failures, [asdict(failure) for failure in failures])
    watch("publishing", {"partitions": len(folder.done())})
    published = publish(
        folder,
        name=recipe.name,
        provenance={
            "lightmill_release": identity["release"],
            "lightmill_recipe": recipe.name,
            "lightmill_bundle": f"{bundle.name}-{bundle.digest[:8]}",
            "lightmill_run_id": record["run_id"],
        },
    )
    return _summary(receipts, failures, todo, time.perf_counter() - start, str(out) if published else None)


def _identify(
    url: str, recipe: Recipe, bundle: Manifest, choice: ChoiceManifest | None, folder: RunFolder
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What may not change while a folder is filled, and the record of the run in it."""
    identity = {
        "release": url if "://" in url else str(Path(url).resolve()),
        "science": recipe.science(),
        "bundle": bundle.digest,
        "versions": {"algorithm": ALGORITHM_VERSION, "schema": SCHEMA_VERSION},
    } | ({"period_choice": choice.digest} if choice else {})
    further = {
        "run_id": f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.urandom(3).hex()}",
        "recipe": recipe.model_dump(mode="json"),
    }
    return identity, folder.start_or_resume(identity, further)


def _plan(
    release: Release, recipe: Recipe, region: Region | None, identity: dict[str, Any], folder: RunFolder
) -> Plan:
    """What is to be done; what stands in its way of an earlier state of the release is removed."""
    partitions = release.table.partitions(region)
    if not partitions:
        raise RunError(f"no partition of {release.table.url} overlaps the region asked for: nothing to do")
    versions = identity["versions"]
    models: dict[str, str] = {
        kind: identity[kind] for kind in ("bundle", "period_choice") if kind in identity
    }
    wanted = [(p, fingerprint(p, recipe.science(), models, versions)) for p in partitions]
    todo = plan(wanted, folder.done(), release.table.pixels())
    folder.clear_scratch()
    stale = {(task.partition.order, task.partition.pixel) for task in todo.tasks}
    for key in stale | set(todo.orphans) | folder.unproven():
        folder.discard(*key)
    return todo


def _planned(todo: Plan) -> dict[str, Any]:
    return {
        "partitions": len(todo.tasks) + len(todo.current),
        "todo": len(todo.tasks),
        "bytes": sum(task.partition.bytes for task in todo.tasks),
        "reasons": dict(Counter(task.reason for task in todo.tasks)),
        "orphans": len(todo.orphans),
    }


def _unit_maker(
    release: Release, recipe: Recipe, identity: dict[str, Any], run_id: str, folder: RunFolder
) -> Callable[[Task], Unit]:
    bundle = Model(_anywhere(recipe.model.bundle), identity["bundle"])
    choice = None
    if "period_choice" in identity:
        choice = Model(_anywhere(recipe.period.choice), identity["period_choice"])

    def make(task: Task) -> Unit:
        return Unit(
            partition=task.partition,
            layout=release.layout,
            recipe=recipe,
            bundle=bundle,
            choice=choice,
            fingerprint=task.fingerprint,
            run_id=run_id,
            folder=folder,
        )

    return make


def _anywhere(name: str) -> str:
    """The name of a model that ships, or the path of what it means now, for workers elsewhere or started later."""
    path = store.resolve(name) or Path(name)
    return str(path.absolute()) if path.is_dir() else name


def _compute(
    tasks: Iterable[Task], make: Callable[[Task], Unit], workers: int, watch: Watch
) -> tuple[list[Receipt], list[Failure]]:
    """Classify the partitions on a local cluster, the largest first: the last to finish should not be the longest."""
    units = [make(task) for task in sorted(tasks, key=lambda task: -task.partition.bytes)]
    receipts: list[Receipt] = []
    failures: list[Failure] = []
    watch("starting", {"workers": workers})
    warm_up()
    with local_cluster(workers) as client:
        client.register_plugin(Prepare(prepare, units[0]))
        watch("started", {"workers": workers})
        for outcome in drive(client, classify_unit, units, name=_key, window=WINDOW * workers):
            unit: Unit = outcome.task
            if outcome.error is None:
                receipts.append(outcome.result)
                watch("done", {"receipt": outcome.result, "bytes": unit.partition.bytes})
                continue
            _stop_if_no_room(outcome.error)
            failures.append(_failure(unit, outcome.error))
            watch("failed", {"failure": failures[-1], "bytes": unit.partition.bytes})
    return receipts, failures


def _key(unit: Unit) -> str:
    return f"classify-{unit.run_id}-{unit.partition.order}-{unit.partition.pixel}"


def _stop_if_no_room(error: BaseException) -> None:
    """A full disk fails every other partition too."""
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        raise RunError(
            f"cannot write: {error}. Nothing half-written was left under a final name; make room and run the same "
            "command again, which does only what is missing"
        ) from error


def _failure(unit: Unit, error: BaseException) -> Failure:
    text = " ".join(str(error).split()) or "no message"
    return Failure(unit.partition.order, unit.partition.pixel, f"{type(error).__name__}: {text}")


def _summary(
    receipts: list[Receipt], failures: list[Failure], todo: Plan, seconds: float, catalogue: str | None
) -> Summary:
    fresh = receipts[len(todo.current) :]
    rejected: Counter[str] = Counter()
    for receipt in receipts:
        rejected.update(receipt.rejected)
    return Summary(
        light_curves=sum(receipt.rows_in for receipt in receipts),
        classified=sum(receipt.classified for receipt in receipts),
        rejected=dict(rejected),
        seconds=round(seconds, 3),
        light_curves_per_second=round(sum(receipt.rows_in for receipt in fresh) / seconds, 1),
        peak_rss_bytes=max((receipt.peak_rss_bytes for receipt in receipts), default=0),
        catalogue=catalogue,
        partitions=len(receipts) + len(failures),
        computed=len(fresh),
        failed=failures,
    )
