"""Drive tasks through a Dask cluster: a bounded number at a time, and nobody blamed for a neighbour's crash."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from distributed import Client, Future, as_completed
from distributed.scheduler import KilledWorker

__all__ = ["Outcome", "drive"]


@dataclass(frozen=True)
class Outcome:
    """How a task ended."""

    task: Any
    result: Any = None
    error: BaseException | None = None


def drive(
    client: Client,
    function: Callable[[Any], Any],
    tasks: Iterable[Any],
    *,
    name: Callable[[Any], Hashable],
    window: int,
) -> Iterator[Outcome]:
    """Run `function(task)` for each task on the cluster and give the outcomes as they come.

    At most `window` tasks are with the scheduler at a time. When a worker dies, every task it held is a suspect:
    suspects are run again at the end, one at a time, so that only the one that kills again is to blame. A task that
    raises is not tried again: what to do about its error is the caller's to decide.

    Parameters
    ----------
    name : of a task, unique; part of its Dask key
    """
    suspects: list[Any] = []
    for outcome in _wave(client, function, iter(tasks), name, window, attempt=1):
        if isinstance(outcome.error, KilledWorker):
            suspects.append(outcome.task)
        else:
            yield outcome
    for task in suspects:
        yield from _wave(client, function, iter([task]), name, 1, attempt=2)


def _wave(
    client: Client,
    function: Callable[[Any], Any],
    tasks: Iterator[Any],
    name: Callable[[Any], Hashable],
    window: int,
    attempt: int,
) -> Iterator[Outcome]:
    under_way: dict[str, Any] = {}
    finished = as_completed()

    def submit_next() -> None:
        for task in tasks:
            key = f"{name(task)}-{attempt}"
            # not pure: the same key must run again in another run; no retries: the caller decides
            under_way[key] = task
            finished.add(client.submit(function, task, key=key, pure=False, retries=0))
            return

    for _ in range(window):
        submit_next()
    for future in finished:
        outcome = _outcome(under_way.pop(future.key), future)
        future.release()
        submit_next()
        yield outcome


def _outcome(task: Any, future: Future) -> Outcome:
    try:
        return Outcome(task, result=future.result())
    except Exception as error:  # whatever a task, or Dask on the loss of its worker, may raise
        return Outcome(task, error=error)
