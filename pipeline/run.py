"""Runs: a release through a recipe on a cluster, one partition one task, and publish what came out."""

from __future__ import annotations

import errno
import json
import os
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from distributed import Client, Future, as_completed
from distributed.scheduler import KilledWorker

from lightmill.catalogs.finish import partition_path
from lightmill.catalogs.partitions import Region
from lightmill.catalogs.publish import CATALOG, publish
from lightmill.catalogs.receipts import Receipt, read_receipts, write_json
from lightmill.catalogs.release import Release, open_release
from lightmill.catalogs.rows import SCHEMA_VERSION
from lightmill.cluster.local import available_cores, local_cluster
from lightmill.cluster.worker import Prepare
from lightmill.models import bundle as bundles
from lightmill.models.manifest import Manifest
from lightmill.pipeline.classify import ALGORITHM_VERSION, Unit, classify_unit, prepare, warm_up
from lightmill.pipeline.plan import Plan, Task, fingerprint, plan
from lightmill.pipeline.recipe import Recipe

__all__ = ["Failure", "RunError", "Summary", "run"]

WINDOW = 2  #: tasks under way per worker: Dask must never hold a queue of a hundred thousand


class RunError(RuntimeError):
    """A run cannot start or go on."""


@dataclass(frozen=True)
class Failure:
    """A partition that could not be classified."""

    order: int
    pixel: int
    error: str  #: class and message
    trace: str = ""


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
"""Called with an event ("planned", "done", "failed", "publishing") and its facts: the runner itself prints nothing."""


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
    RunError
        if `out` holds something else, was made from another release, recipe or bundle, the disk is full, or every
        partition failed.
    """
    start = time.perf_counter()
    release = open_release(url, recipe.layout.choices())
    bundle = bundles.verify(recipe.model.bundle)
    _check_grid(recipe, bundle)
    partitions = release.table.partitions(region)
    if not partitions:
        raise RunError(f"no partition of {url} overlaps the region asked for: nothing to do")
    versions = {"algorithm": ALGORITHM_VERSION, "schema": SCHEMA_VERSION}
    identity = {
        "release": str(Path(url).resolve()) if "://" not in url else url,
        "science": recipe.science(),
        "bundle": bundle.digest,
        "versions": versions,
    }
    folder = out / "run"
    run_id = _open_run(out, folder, identity, recipe)
    wanted = [(p, fingerprint(p, recipe.science(), bundle.digest, versions)) for p in partitions]
    todo = _plan(out, folder, wanted)
    watch(
        "planned",
        {
            "partitions": len(partitions),
            "todo": len(todo.tasks),
            "bytes": sum(task.partition.bytes for task in todo.tasks),
            "reasons": dict(Counter(task.reason for task in todo.tasks)),
        },
    )
    receipts = {receipt.key: receipt for receipt in todo.current}
    failures: list[Failure] = []
    if todo.tasks:
        make = _unit_maker(release, recipe, bundle.digest, run_id, out, folder)
        count = min(workers or recipe.operational.workers or available_cores(), len(todo.tasks))
        done, failures = _compute(todo.tasks, make, count, watch)
        receipts |= {receipt.key: receipt for receipt in done}
        write_json(folder / "failures.json", [asdict(failure) for failure in failures])
    watch("publishing", {"partitions": len(receipts)})
    published = publish(
        out,
        name=recipe.name,
        receipts=list(read_receipts(folder / "receipts")),
        provenance={
            "lightmill_release": identity["release"],
            "lightmill_recipe": recipe.name,
            "lightmill_bundle": f"{bundle.name}-{bundle.digest[:8]}",
            "lightmill_run_id": run_id,
            "lightmill_missing_partitions": str(len(failures)),
        },
    )
    return _summary(
        receipts.values(), failures, todo, time.perf_counter() - start, out if published else None
    )


def _check_grid(recipe: Recipe, bundle: Manifest) -> None:
    grid = recipe.dmdt.edges()
    if (bundle.dt_edges, bundle.dm_edges) != (grid.dt_edges, grid.dm_edges):
        raise RunError(
            f"recipe {recipe.name!r} asks for dm-dt images of {grid.shape} bins, the bundle {bundle.name!r} was "
            f"trained on another grid of {bundle.shape}: use the same [dmdt]"
        )
    if recipe.dmdt.normalisation != bundle.normalisation:
        raise RunError(
            f"recipe {recipe.name!r} normalises images by {recipe.dmdt.normalisation!r}, the bundle {bundle.name!r} "
            f"was trained with {bundle.normalisation!r}: use the same [dmdt] normalisation"
        )


def _open_run(out: Path, folder: Path, identity: dict[str, Any], recipe: Recipe) -> str:
    """Start a run in an empty folder, or go on with the one that is there; returns its name."""
    record = folder / "run.json"
    if not record.exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise RunError(f"{out} exists and is not a catalogue of ours: give another --out, or remove it")
        run_id = datetime.now(UTC).strftime("%Y%m%dT%H%M%S") + f"-{os.urandom(3).hex()}"
        write_json(record, {**identity, "run_id": run_id, "recipe": recipe.model_dump(mode="json")})
        return run_id
    before = json.loads(record.read_text())
    for key in ("release", "bundle", "versions", "science"):
        if before[key] != identity[key]:
            raise RunError(
                f"{out} was made with {key} {_difference(before[key], identity[key])}: rows of both would be "
                "mixed. Give another --out"
            )
    return str(before["run_id"])


def _difference(before: Any, now: Any) -> str:
    """The fields in which two records differ, both values."""
    if not isinstance(before, dict):
        return f"{before}, now it is {now}"
    parts = []
    for key in before.keys() | now.keys():
        if before.get(key) != now.get(key):
            inner = isinstance(before.get(key), dict) and isinstance(now.get(key), dict)
            parts.append(f"{key}: {_difference(before.get(key), now.get(key))}" if inner else
                         f"{key} {before.get(key)}, now it is {now.get(key)}")  # fmt: skip
    return "; ".join(sorted(parts))


def _plan(out: Path, folder: Path, wanted: list[Any]) -> Plan:
    receipts = {receipt.key: receipt for receipt in read_receipts(folder / "receipts")}
    sizes = {}
    for key, receipt in receipts.items():
        path = partition_path(out / CATALOG, *key)
        sizes[key] = path.stat().st_size if receipt.bytes and path.exists() else 0
    return plan(wanted, receipts, sizes)


def _unit_maker(
    release: Release, recipe: Recipe, digest: str, run_id: str, out: Path, folder: Path
) -> Callable[[Task], Unit]:
    given = Path(recipe.model.bundle)
    bundle = str(given.absolute()) if given.is_dir() else recipe.model.bundle

    def make(task: Task) -> Unit:
        return Unit(
            partition=task.partition,
            layout=release.layout,
            recipe=recipe,
            bundle=bundle,
            digest=digest,
            fingerprint=task.fingerprint,
            run_id=run_id,
            catalog=(out / CATALOG).absolute(),
            run=folder.absolute(),
        )

    return make


def _compute(
    tasks: Iterable[Task], make: Callable[[Task], Unit], workers: int, watch: Watch
) -> tuple[list[Receipt], list[Failure]]:
    """Run the tasks on a local cluster, a bounded number at a time, the largest first."""
    # the largest first: the last to finish should not be the longest
    queue = iter(sorted(tasks, key=lambda task: -task.partition.bytes))
    receipts: list[Receipt] = []
    failures: list[Failure] = []
    watch("starting", {"workers": workers})
    warm_up()
    with local_cluster(workers) as client:
        first = next(queue)
        unit = make(first)
        client.register_plugin(Prepare(prepare, unit.bundle, unit.digest))
        under_way: dict[Future, tuple[Task, int]] = {}
        finished = as_completed()

        def submit(task: Task, attempt: int) -> None:
            key = f"classify-{task.partition.order}-{task.partition.pixel}-{attempt}"
            future = client.submit(classify_unit, make(task), key=key, pure=False, retries=0)
            under_way[future] = (task, attempt)
            finished.add(future)

        submit(first, 1)
        for _ in range(WINDOW * workers - 1):
            if task := next(queue, None):
                submit(task, 1)
        watch("started", {"workers": workers})
        for future in finished:
            task, attempt = under_way.pop(future)
            error = future.exception()
            if error is None:
                receipts.append(future.result())
                watch("done", {"receipt": receipts[-1], "bytes": task.partition.bytes})
            elif attempt == 1 and isinstance(error, KilledWorker):
                submit(task, 2)  # its worker died: perhaps of another's doing
                continue
            else:
                _stop_if_hopeless(error, client)
                failures.append(_failure(task, error, future))
                watch("failed", {"failure": failures[-1], "bytes": task.partition.bytes})
            if task := next(queue, None):
                submit(task, 1)
    return receipts, failures


def _stop_if_hopeless(error: BaseException, client: Client) -> None:
    """A full disk fails every other partition too."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG):
        client.cancel(list(client.futures))
        raise RunError(
            f"cannot write: {error}. Nothing half-written was left under a final name; make room and run the same "
            "command again, which does only what is missing"
        ) from error


def _failure(task: Task, error: BaseException, future: Future) -> Failure:
    trace = (
        "".join(traceback.format_exception(type(error), error, future.traceback()))
        if future.traceback()
        else ""
    )
    text = " ".join(str(error).split()) or "no message"
    return Failure(task.partition.order, task.partition.pixel, f"{type(error).__name__}: {text}", trace)


def _summary(
    receipts: Iterable[Receipt], failures: list[Failure], todo: Plan, seconds: float, out: Path | None
) -> Summary:
    receipts = list(receipts)
    before = {receipt.key for receipt in todo.current}
    fresh = [receipt for receipt in receipts if receipt.key not in before]
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
        catalogue=str(out) if out else None,
        partitions=len(receipts) + len(failures),
        computed=len(fresh),
        failed=failures,
    )
