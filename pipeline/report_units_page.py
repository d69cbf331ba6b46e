"""The page of a run: one self-contained HTML file, beside the run and not in it, for its outputs never change."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from lightmill.catalogs import storage
from lightmill.catalogs.runfolder import RunFolder
from lightmill.pipeline import report_units_charts as charts
from lightmill.pipeline.report_attempts import IN_WORDS
from lightmill.pipeline.report_map import Pixels, category_map
from lightmill.pipeline.report_page import render
from lightmill.pipeline.report_style import BLUE, GREEN, PALE, PURPLE, VERMILION
from lightmill.pipeline.report_units import STATES, RunAccount, account

__all__ = ["STATES_IN_WORDS", "page_of", "report_run"]

SHOWN = 500  #: failed tries of a class that the page lists
COLOURS = {
    "done": BLUE, "failed": VERMILION, "quarantined": PURPLE, "to do": "#e6b800", "current": GREEN,
    "kept out": "#7a4d9e", "left": PALE,
}  # fmt: skip
STATES_IN_WORDS = {
    "done": "computed by this run",
    "failed": "given up; a later run tries again",
    "quarantined": "given up, and kept out of later runs until it changes or is released",
    "to do": "not done yet",
    "current": "up to date before: computed by an earlier run",
    "kept out": "in quarantine when the run was planned",
    "left": "not up to date, but not of what was planned for",
}
"""States of a unit, for people."""


def page_of(folder: RunFolder) -> Path:
    """Where the page of a run lies unless told."""
    return folder.catalogue.root / "reports" / f"{folder.run_id}.html"


def report_run(folder: RunFolder, out: Path | None = None) -> Path:
    """Write one self-contained HTML page about a run, under way or ended; the path of it.

    Parameters
    ----------
    out : file to write (default: reports/RUN_ID.html in the catalogue)

    Raises
    ------
    NotAnOutput
        if there is no run.
    PlanError
        if its plan cannot be read.
    IsADirectoryError
        if `out` is a folder.
    """
    target = page_of(folder) if out is None else out.absolute()
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder: give the name of an HTML file")
    storage.replace(target, render("units.html", _facts(account(folder))).encode())
    return target


def _facts(it: RunAccount) -> dict[str, Any]:
    seconds = np.array([unit.seconds for unit in it.units if unit.seconds is not None])
    memory = np.array([unit.peak_rss_bytes for unit in it.units if unit.peak_rss_bytes], float)
    return {
        "it": it,
        "cards": _cards(it),
        "states": [
            (state, it.counts[state], STATES_IN_WORDS[state]) for state in STATES if state in it.counts
        ],
        "map_picture": _map(it),
        "distribution_picture": charts.distributions(seconds, memory) if len(seconds) else None,
        "stages_picture": charts.stages(it.stages) if any(it.stages.values()) else None,
        "rate_picture": charts.rate(it.timeline) if it.timeline else None,
        "spreads": _spreads(it),
        "groups": [
            (blame, IN_WORDS.get(blame.error_class, ""), list(rows)[:SHOWN])
            for blame, (_, rows) in zip(
                it.failures, groupby(it.attempts, key=lambda row: row["error_class"]), strict=True
            )
        ],
        "shown": SHOWN,
        "plan": _plan(it),
        "environment": _environment(it),
        "size": size,
        "time": duration,
        "made": f"lightmill {version('lightmill')}, {datetime.now(UTC).isoformat(timespec='seconds')}",
    }


def _cards(it: RunAccount) -> dict[str, str]:
    tasks = it.plan["tasks"]
    found = {"units": f"{tasks:,}"}
    found |= {
        state: f"{it.counts[state]:,}"
        for state in ("done", "failed", "quarantined", "to do")
        if state in it.counts
    }
    found["failed tries"] = f"{len(it.attempts):,}"
    found["light curves"] = f"{it.totals['light_curves']:,}"
    if "wall_seconds" in it.totals:
        wall = it.totals["wall_seconds"]
        found["first to last"] = duration(wall)
        found["light curves/s"] = f"{it.totals['light_curves'] / max(wall, 1e-3):,.0f}"
        found["in a worker"] = f"{it.totals['light_curves_per_worker_second']:,.0f}/s"
    return found


def _map(it: RunAccount) -> str | None:
    if not it.units:
        return None
    number = {state: i for i, state in enumerate(STATES)}
    order, pixel, state = np.array([(u.order, u.pixel, number[u.state]) for u in it.units], np.int64).T
    return category_map(Pixels(order, pixel, state.astype(float)), COLOURS)


def _spreads(it: RunAccount) -> dict[str, Mapping[str, str]]:
    """Rows of the table of distributions."""
    found: dict[str, Mapping[str, str]] = {}
    if it.seconds:
        found["time of a unit"] = {name: duration(value) for name, value in it.seconds.items()}
    if it.memory:
        found["memory of its worker"] = {name: size(value) for name, value in it.memory.items()}
    return found


def _plan(it: RunAccount) -> dict[str, str]:
    plan = it.plan
    facts = {f"tasks, {reason}": f"{n:,}" for reason, n in plan["reasons"].items()}
    facts |= {
        "up to date before": f"{plan['current']:,}",
        "in quarantine before": f"{plan['quarantined']:,}",
        "left alone": f"{plan['left']:,}",
        "orphans": f"{plan['orphans']:,}",
        "input": size(plan["bytes"]),
        "light curves, estimated": f"{plan['rows_estimated']:,}",
        "epochs, estimated": f"{plan['epochs_estimated']:,}",
        "worker time, estimated": duration(plan["seconds_estimated"]),
        "memory of a worker, estimated": size(plan["memory_estimated"]),
    }
    if plan["seconds_estimated_of_done"]:
        ratio = it.totals["worker_seconds"] / plan["seconds_estimated_of_done"]
        facts["worker time of what is done"] = (
            f"{duration(it.totals['worker_seconds'])}, {ratio:.2g} times what was estimated for it"
        )
    return {name: text for name, text in facts.items() if text not in ("0", "")}


def _environment(it: RunAccount) -> dict[str, str]:
    said, many = it.environment, list(it.environment["hosts"].items())
    hosts = ", ".join(f"{host} ({n:,} units)" for host, n in many[:20])
    facts = {
        "run": it.run_id,
        "catalogue": it.catalogue,
        "planned": it.created,
        "ended": it.ended or "not yet",
        "release": said["release"],
        "recipe": said["recipe"],
        **{f"{name}, sha256": str(sha256) for name, sha256 in said["models"].items()},
        "our versions": _words(said["versions"]),
        "code": said["code"],
        "planned on": _words(said["planned_on"]),
        "software of the workers": ", ".join(said["software"]),
        "hosts": hosts + (f", and {len(many) - 20:,} more" if len(many) > 20 else ""),
        "plan, sha256": said["plan_sha256"],
    }
    return {name: text for name, text in facts.items() if text}


def _words(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def duration(seconds: float) -> str:
    """A time for people: 0.25 s, 3 min 20 s, 5 h 12 min."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60:,} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def size(count: float) -> str:
    """An amount of bytes for people."""
    for unit, sign in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= unit:
            return f"{count / unit:,.3g} {sign}" if count < 1000 * unit else f"{count / unit:,.0f} {sign}"
    return f"{count:.0f} B"
