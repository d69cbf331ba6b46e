"""The history of what went wrong in a run: every failed try, whose fault it was, and what was decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from lightmill.catalogs.receipts import FailedAttempt
from lightmill.pipeline.failures import ErrorClass

__all__ = ["IN_WORDS", "Blame", "attempts", "by_class", "to_blame"]

IN_WORDS: dict[str, str] = {
    ErrorClass.INPUT_CORRUPT: "the input cannot be read",
    ErrorClass.SCHEMA: "the input has other columns",
    ErrorClass.OOM: "more memory needed than a worker has",
    ErrorClass.WORKER_LOST: "the worker died",
    ErrorClass.IO_TRANSIENT: "a file system or network did not answer as it should",
    ErrorClass.MODEL: "a bundle is not what was planned",
    ErrorClass.BUG: "an error of the program",
    ErrorClass.TIMEOUT: "not done in the time allowed",
}
"""Error classes, for people."""


@dataclass(frozen=True)
class Blame:
    """What became of the tries that failed with one class of errors."""

    error_class: str
    tries: int
    not_blamed: int  #: of them, in company of others when the worker died
    units: int  #: that had such a try
    done_later: int  #: of them, that succeeded in the end
    given_up: int  #: of them, whose last try failed for this and was the last allowed
    decided: dict[str, int]  #: tries by what was decided
    hosts: dict[str, int]  #: tries by host, where it is known
    seconds: float  #: that the tries took in all [s]


def to_blame(failure: FailedAttempt) -> bool:
    """Whether the unit was taken to be at fault: who was with others when a worker died is not."""
    return failure.alone or failure.error_class != ErrorClass.WORKER_LOST


def by_class(failed: Sequence[FailedAttempt], done: Collection[tuple[int, int]]) -> list[Blame]:
    """One entry an error class, the most frequent first.

    Parameters
    ----------
    failed : by unit and attempt
    done : units that succeeded
    """
    last = {failure.key: failure for failure in failed}
    found = []
    for name, n in Counter(failure.error_class for failure in failed).most_common():
        mine = [failure for failure in failed if failure.error_class == name]
        units = {failure.key for failure in mine}
        given_up = [
            key
            for key in units
            if key not in done
            and last[key].error_class == name
            and last[key].decision in ("failed", "quarantine")
        ]
        found.append(
            Blame(
                error_class=name,
                tries=n,
                not_blamed=sum(not to_blame(failure) for failure in mine),
                units=len(units),
                done_later=len(units & set(done)),
                given_up=len(given_up),
                decided=dict(Counter(failure.decision for failure in mine).most_common()),
                hosts=dict(Counter(failure.host for failure in mine if failure.host).most_common()),
                seconds=round(sum(failure.seconds for failure in mine), 3),
            )
        )
    return found


def attempts(failed: Sequence[FailedAttempt], done: Collection[tuple[int, int]]) -> list[dict[str, Any]]:
    """Every failed try, grouped by error class, the most frequent first; within one by unit and attempt."""
    rank = {name: i for i, (name, _) in enumerate(Counter(f.error_class for f in failed).most_common())}
    ordered = sorted(failed, key=lambda f: (rank[f.error_class], *f.key, f.attempt))
    return [
        {
            "order": f.order, "pixel": f.pixel, "attempt": f.attempt, "error_class": f.error_class, "error": f.error,
            "host": f.host, "alone": f.alone, "to_blame": to_blame(f), "decision": f.decision, "seconds": f.seconds,
            "batch_epochs": f.batch_epochs, "peak_rss_bytes": f.peak_rss_bytes, "finished": f.finished,
            "trace": f.trace, "done_later": f.key in done,
        }
        for f in ordered
    ]  # fmt: skip
