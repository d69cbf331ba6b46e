"""A run's status as a terminal shows it."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from lightmill.pipeline.status import Status

__all__ = ["page"]

LONGEST = 10  #: units under way that are shown, the longest first
COLOURS = {"complete": "green", "partial": "yellow", "killed": "red", "silent": "red", "stopped": "yellow"}


def page(status: Status) -> RenderableType:
    """All that a status tells, as rich renders it: facts, and below them units and failures side by side."""
    lists = []
    if status.running:
        longest = sorted(status.running, key=lambda unit: -unit["since"])[:LONGEST]
        rows = [(f"{_name(unit)}, attempt {unit['attempt']}", duration(unit["since"])) for unit in longest]
        lists.append(_table("under way, longest", rows))
    if status.slowest:
        lists.append(_table("slowest", [(_name(unit), duration(unit["seconds"])) for unit in status.slowest]))
    if status.failures_by_class:
        failures = sorted(status.failures_by_class.items(), key=lambda item: -item[1])
        lists.append(_table("failed tries", [(name, f"{count:,}") for name, count in failures]))
    below = Table.grid(padding=(0, 2))
    below.add_row(*lists)
    return Group(_facts(status), *([below] if lists else []))


def duration(seconds: float) -> str:
    """Seconds as people read them.

    >>> [duration(s) for s in (0.25, 75, 4000, 200_000)]
    ['0.2 s', '1 min 15 s', '1 h 6 min', '2 d 7 h']
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    for unit, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part} {smaller}"
    return f"{whole} s"


def _facts(status: Status) -> Table:
    table = Table(show_header=False, box=None)
    units = {
        "done": status.done,
        "under way": len(status.running),
        "waiting": status.waiting,
        "failed": status.failed,
        "in quarantine": status.quarantined,
    }
    shown = [f"{count:,} {name}" for name, count in units.items() if count or name == "done"]
    rows: dict[str, RenderableType] = {
        "run": f"{status.run_id} of {status.catalogue}",
        "made of": f"{status.release}, recipe {status.recipe}, bundle {status.bundle[:8]}, lightmill {status.code}",
        "state": Text(_state(status), style=COLOURS.get(status.state, "")),
        "units": f"{status.units:,}: {', '.join(shown)}",
    }
    if status.seconds:
        total = f" of {size(status.bytes_total)}" if status.bytes_total else ""
        rows["read"] = f"{status.light_curves:,} light curves, {size(status.bytes_done)}{total}"
        rows["time"] = f"{duration(status.seconds)}, {status.rate:,.0f} light curves/s" + (
            "" if status.left_seconds is None else f", {duration(status.left_seconds)} left"
        )
    if status.peak_rss_bytes:
        rows["peak memory"] = f"{size(status.peak_rss_bytes)} in a worker"
    if status.is_under_way and status.units:
        done = status.done + status.failed + status.quarantined
        progress = Table.grid(padding=(0, 1))
        progress.add_row(
            ProgressBar(total=status.units, completed=done, width=50), f"{done / status.units:.1%}"
        )
        rows["progress"] = progress
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _state(status: Status) -> str:
    driver = f"process {status.pid} on {status.host}, {status.workers} workers"
    heard = "" if status.heard_seconds is None else f", heard {duration(max(status.heard_seconds, 0))} ago"
    if status.state == "killed":
        return f"killed: {driver}, is gone{heard}; the same command goes on"
    if status.state == "stopped":
        return "stopped; the same command goes on"
    if status.is_under_way and status.host:
        return f"{status.state}: {driver}{heard}"
    return f"{status.state}{f', {status.ended}' if status.ended else ''}"


def size(n: float) -> str:
    """Bytes as people read them.

    >>> [size(n) for n in (512, 7_700_000_000)]
    ['512 B', '7.17 GiB']
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024:
            return f"{n:.3g} {unit}"
        n /= 1024
    return f"{n:.3g} TiB"


def _name(unit: dict[str, int]) -> str:
    return f"{unit['order']}/{unit['pixel']}"


def _table(title: str, rows: list[tuple[str, str]]) -> Table:
    table = Table(Column(title, no_wrap=True), Column(justify="right", no_wrap=True), box=None)
    for row in rows:
        table.add_row(*row)
    return table
