"""What a plan comes to: partitions, light curves, bytes, core-hours and memory by reason, as lines of a table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from lightmill.pipeline.plan import Plan, Task

__all__ = ["Line", "lines_of", "plan_facts", "total_of"]

STATES = ("current", "quarantined", "left", "orphan")
"""Of what a plan does not compute: up to date, kept out, not of the policy, no partition of the release any more."""


@dataclass(frozen=True)
class Line:
    """Partitions that are planned, or left alone, for one reason."""

    what: str  #: reason of tasks ("new", "input changed", …), or one of STATES
    todo: bool  #: whether they are computed
    partitions: int
    rows: int | None = None  #: light curves, estimated; None of what is not computed
    epochs: int | None = None  #: estimated
    bytes: int | None = None  #: of input
    core_hours: float | None = None  #: estimated
    memory: int | None = None  #: that a worker needs for the largest of them [bytes], estimated


def lines_of(plan: Plan) -> tuple[Line, ...]:
    """One line a reason, the most partitions first; then one a state of what is not computed, where there is any."""
    by_reason: dict[str, list[Task]] = {}
    for task in plan.tasks:
        by_reason.setdefault(task.reason, []).append(task)
    todo = [_line(reason, tasks) for reason, tasks in by_reason.items()]
    todo.sort(key=lambda line: (-line.partitions, line.what))
    counts = [len(plan.current), len(plan.quarantined), len(plan.left), len(plan.orphans)]
    rest = [Line(what, False, n) for what, n in zip(STATES, counts, strict=True) if n]
    return (*todo, *rest)


def total_of(plan: Plan) -> Line:
    """All that is computed, in one line."""
    return _line("to do", plan.tasks)


def plan_facts(plan: Plan) -> dict[str, Any]:
    """What a plan is made of and comes to, as plain JSON values."""
    return {
        "run_id": plan.run_id,
        "release": plan.identity.release,
        "recipe": plan.identity.recipe.get("name"),
        "models": dict(plan.identity.models),
        "total": asdict(total_of(plan)),
        "lines": [asdict(line) for line in lines_of(plan)],
    }


def _line(what: str, tasks: Iterable[Task]) -> Line:
    chosen = list(tasks)
    return Line(
        what,
        todo=True,
        partitions=len(chosen),
        rows=sum(task.rows for task in chosen),
        epochs=sum(task.epochs for task in chosen),
        bytes=sum(task.partition.bytes for task in chosen),
        core_hours=round(sum(task.seconds for task in chosen) / 3600, 6),
        memory=max((task.memory for task in chosen), default=0),
    )
