"""What there is to report of a run: its units by state, time, memory, rate, failures, and what it was made of.

All is read from the files of the run: no ledger and no driver is asked.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from lightmill.catalogs import storage
from lightmill.catalogs.receipts import FailedAttempt, Receipt
from lightmill.catalogs.runfolder import RunFolder
from lightmill.pipeline.plan import Plan
from lightmill.pipeline.planfile import load_plan
from lightmill.pipeline.report_attempts import Blame, attempts, by_class

__all__ = ["STATES", "RunAccount", "Unit", "account", "is_run", "run_folder"]

STATES = ("done", "failed", "quarantined", "to do", "current", "kept out", "left")
"""Of a unit: computed by this run; given up; given up and kept out of later runs; not tried, or being tried; and of
what was asked for but is no task: up to date before; in quarantine before; not of the plan's policy."""

PERCENTILES = (1, 16, 50, 84, 99)
SLOWEST = 15
BINS = 60  #: of time over the whole run at most; fewer where less than UNITS would end in one
UNITS = 5

Key = tuple[int, int]


@dataclass(frozen=True)
class Unit:
    """A partition that was asked for."""

    order: int
    pixel: int
    state: str  #: of STATES
    seconds: float | None = None  #: that it took, where this run has done it
    peak_rss_bytes: int | None = None  #: highest memory of its worker so far, likewise


@dataclass(frozen=True)
class RunAccount:
    """A run as its files tell it; plain JSON values."""

    run_id: str
    catalogue: str
    state: str  #: "complete", "partial", or "not ended": under way, stopped or killed
    created: str  #: UTC, ISO 8601
    ended: str  #: likewise; empty if it has not
    counts: dict[str, int]  #: units by state
    totals: dict[str, float]  #: light curves, epochs, bytes and worker seconds of what is done
    rejected: dict[str, int]  #: light curves by reason
    seconds: dict[str, float]  #: of a unit: percentiles, mean, largest
    memory: dict[str, float]  #: of a worker at the end of a unit [bytes], likewise
    stages: dict[str, float]  #: worker seconds by stage
    timeline: list[
        dict[str, float]
    ]  #: by bin of time: start and end [s since the first], units, light curves, busy
    slowest: list[dict[str, Any]]  #: units that took longest
    failures: list[Blame]  #: by error class
    attempts: list[dict[str, Any]]  #: every try that failed
    plan: dict[str, Any]  #: reasons, estimates, what was left alone
    environment: dict[str, Any]  #: what it was made of, code, software and hosts
    units: list[Unit]


def is_run(place: str | Path) -> bool:
    """Whether a folder, or URL, is that of a run."""
    return run_folder(place).record.exists()


def run_folder(place: str | Path) -> RunFolder:
    """The run in a folder or behind a URL."""
    return RunFolder(storage.place(str(place).rstrip("/")))


def account(folder: RunFolder) -> RunAccount:
    """Read a run: one under way too, as far as it is.

    Raises
    ------
    NotAnOutput
        if there is no run.
    PlanError
        if its plan cannot be read.
    """
    facts, plan, end = folder.facts(), load_plan(folder.plan), _end(folder)
    wanted = _wanted(plan)
    done = {key: receipt for key, receipt in folder.done().items() if receipt.fingerprint == wanted.get(key)}
    receipts = [done[key] for key in sorted(done)]
    failed = folder.failures()
    units = _units(folder, plan, done, failed)
    rejected: Counter[str] = Counter()
    for receipt in receipts:
        rejected.update(receipt.rejected)
    counts = Counter(unit.state for unit in units)
    return RunAccount(
        run_id=folder.run_id,
        catalogue=str(folder.catalogue.root),
        state=str(end.get("state", "not ended")),
        created=str(facts.get("created", "")),
        ended=str(end.get("ended", "")),
        counts={state: counts[state] for state in STATES if counts[state]},
        totals=_totals(receipts),
        rejected=dict(rejected.most_common()),
        seconds=_spread([r.seconds for r in receipts]),
        memory=_spread([r.peak_rss_bytes for r in receipts if r.peak_rss_bytes]),
        stages=_stages(receipts),
        timeline=_timeline(receipts),
        slowest=[_short(r) for r in sorted(receipts, key=lambda r: (-r.seconds, r.key))[:SLOWEST]],
        failures=by_class(failed, set(done)),
        attempts=attempts(failed, set(done)),
        plan=_plan(plan, receipts),
        environment=_environment(facts, receipts),
        units=units,
    )


def _end(folder: RunFolder) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(folder.end.read_bytes())
    except (OSError, ValueError):
        return {}
    return found


def _wanted(plan: Plan) -> dict[Key, str]:
    return {task.key: task.fingerprint for task in plan.tasks}


def _units(
    folder: RunFolder, plan: Plan, done: Mapping[Key, Receipt], failed: Sequence[FailedAttempt]
) -> list[Unit]:
    """The state of every partition that was asked for, by order and pixel."""
    held = {key: record.fingerprint for key, record in folder.catalogue.quarantined().items()}
    last = {failure.key: failure.decision for failure in failed}  # by attempt: the last one wins
    found: dict[Key, str] = dict.fromkeys(plan.left, "left")
    found |= dict.fromkeys(plan.quarantined, "kept out")
    found |= {unit.key: "current" for unit in plan.current}
    for key, fingerprint in _wanted(plan).items():
        if key in done:
            found[key] = "done"
        elif held.get(key) == fingerprint:
            found[key] = "quarantined"
        else:
            found[key] = "failed" if last.get(key) in ("failed", "quarantine") else "to do"
    return [
        Unit(*key, found[key], done[key].seconds, done[key].peak_rss_bytes)
        if key in done
        else Unit(*key, found[key])
        for key in sorted(found)
    ]


def _totals(receipts: Sequence[Receipt]) -> dict[str, float]:
    names = {
        "light_curves": "rows_in", "classified": "classified", "epochs": "epochs", "bytes_read": "input_bytes",
        "bytes_written": "bytes", "worker_seconds": "seconds",
    }  # fmt: skip
    found: dict[str, float] = {name: sum(getattr(r, key) for r in receipts) for name, key in names.items()}
    found["worker_seconds"] = round(found["worker_seconds"], 3)
    if found["worker_seconds"]:
        found["light_curves_per_worker_second"] = round(found["light_curves"] / found["worker_seconds"], 1)
    times = _times(receipts)
    if len(times):
        found["wall_seconds"] = round(float(times[:, 1].max() - times[:, 0].min()), 3)
    return found


def _spread(values: Sequence[float]) -> dict[str, float]:
    """Percentiles, mean and largest; empty without values."""
    if not values:
        return {}
    found = {f"p{q}": float(v) for q, v in zip(PERCENTILES, np.percentile(values, PERCENTILES), strict=True)}
    return found | {"mean": float(np.mean(values)), "max": float(max(values))}


def _stages(receipts: Sequence[Receipt]) -> dict[str, float]:
    total: Counter[str] = Counter()
    for receipt in receipts:
        total.update(receipt.stages)
    return {name: round(seconds, 3) for name, seconds in total.most_common()}


def _times(receipts: Sequence[Receipt]) -> np.ndarray:
    """(n, 3) start and end [s since 1970] and light curves of those units that tell."""
    found = []
    for receipt in receipts:
        try:
            end = datetime.fromisoformat(receipt.finished).timestamp()
        except ValueError:
            continue
        found.append((end - receipt.seconds, end, receipt.rows_in))
    return np.array(found, float).reshape(-1, 3)


def _timeline(receipts: Sequence[Receipt]) -> list[dict[str, float]]:
    """What was finished in each bin of time, and how many units were being computed on average."""
    times = _times(receipts)
    if not len(times) or times[:, 1].max() <= times[:, 0].min():
        return []
    start, end, rows = times[:, 0] - times[:, 0].min(), times[:, 1] - times[:, 0].min(), times[:, 2]
    edges = np.linspace(0, end.max(), int(np.clip(len(end) // UNITS, 4, BINS)) + 1)
    units, light_curves = np.histogram(end, edges)[0], np.histogram(end, edges, weights=rows)[0]
    # seconds of all units up to each edge, by what has begun and what has ended before it
    spent = _spent(start, edges) - _spent(end, edges)
    return [
        {"start": round(float(a), 3), "end": round(float(b), 3), "units": int(n), "light_curves": int(m),
         "busy": round(float(s / (b - a)), 3)}
        for a, b, n, m, s in zip(edges[:-1], edges[1:], units, light_curves, np.diff(spent), strict=True)
    ]  # fmt: skip


def _spent(since: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Sum of max(edge − since, 0) at each edge, without a table of all by all."""
    ordered = np.sort(since)
    n = np.searchsorted(ordered, edges)
    total: np.ndarray = n * edges - np.concatenate([[0.0], np.cumsum(ordered)])[n]
    return total


def _short(receipt: Receipt) -> dict[str, Any]:
    longest = max(receipt.stages.items(), key=lambda item: item[1], default=("", 0.0))
    return {
        "order": receipt.order, "pixel": receipt.pixel, "seconds": receipt.seconds, "light_curves": receipt.rows_in,
        "epochs": receipt.epochs, "input_bytes": receipt.input_bytes, "longest_stage": longest[0],
        "peak_rss_bytes": receipt.peak_rss_bytes, "attempt": receipt.attempt, "host": receipt.host,
    }  # fmt: skip


def _plan(plan: Plan, receipts: Sequence[Receipt]) -> dict[str, Any]:
    done = {receipt.key for receipt in receipts}
    tasks = plan.tasks
    return {
        "tasks": len(tasks),
        "reasons": dict(Counter(task.reason for task in tasks).most_common()),
        "current": len(plan.current),
        "quarantined": len(plan.quarantined),
        "left": len(plan.left),
        "orphans": len(plan.orphans),
        "bytes": sum(task.partition.bytes for task in tasks),
        "rows_estimated": sum(task.rows for task in tasks),
        "epochs_estimated": sum(task.epochs for task in tasks),
        "seconds_estimated": round(sum(task.seconds for task in tasks), 3),
        "seconds_estimated_of_done": round(sum(task.seconds for task in tasks if task.key in done), 3),
        "memory_estimated": max((task.memory for task in tasks), default=0),
    }


def _environment(facts: Mapping[str, Any], receipts: Sequence[Receipt]) -> dict[str, Any]:
    recipe = facts.get("recipe") or {}
    software = Counter(
        f"{name} {number}" for receipt in receipts for name, number in receipt.versions.items()
    )
    return {
        "release": facts.get("release", ""),
        "recipe": recipe.get("name", "") if isinstance(recipe, dict) else "",
        "models": facts.get("models", {}),
        "versions": facts.get("versions", {}),
        "code": facts.get("code", ""),
        "planned_on": facts.get("environment", {}),
        "plan_sha256": facts.get("plan_sha256", ""),
        "software": dict(sorted(software.items())),
        "hosts": dict(Counter(receipt.host or "unknown" for receipt in receipts).most_common()),
    }
