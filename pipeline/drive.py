"""Drive units through a Dask cluster: a bounded number at a time, and nobody blamed for a neighbour's crash.

Canaries first; then as many as the window holds, each tried as often as the policy of its errors says; at the end, one
at a time and with nothing else under way, those that were with a worker when it died. Nothing here writes or prints.
"""

from __future__ import annotations

import heapq
import itertools
import queue
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Any, Protocol

from distributed import Client, Future
from distributed.scheduler import KilledWorker

from lightmill.pipeline.failures import Decision, ErrorClass, Fault, decide

__all__ = ["BREAKER", "CircuitBroken", "Outcome", "SchedulerLost", "drive"]

BREAKER = 5  #: units that fail alike before one succeeds: the run is stopped, there is no point in going on
TICK = 0.2  #: longest wait between two looks at the clock and at who asks to stop [s]
PATIENCE = 60.0  #: without a scheduler, before it is taken for lost [s]
CANCELLATIONS = 5  #: times that a unit is handed in again because the scheduler forgot it


class Unit(Protocol):
    """What is driven: a frozen dataclass with these fields."""

    attempt: int
    batch_epochs: int

    @property
    def key(self) -> tuple[int, int]:
        """(order, pixel)"""


class CircuitBroken(RuntimeError):
    """The first units all failed alike."""


class SchedulerLost(RuntimeError):
    """The cluster's scheduler does not answer any more."""


@dataclass(frozen=True)
class Outcome:
    """How one try at a unit ended."""

    unit: Any
    result: Any = None  #: where it succeeded
    fault: Fault | None = None  #: where it failed
    decision: Decision | None = None  #: what is done about that
    alone: bool = False  #: nothing else was under way
    seconds: float = 0.0  #: since it was handed to the scheduler


@dataclass
class _Try:
    """A try that is under way."""

    unit: Any
    future: Future
    alone: bool
    since: float = field(default_factory=time.monotonic)


@dataclass
class _Pending:
    """What is still to be tried."""

    fresh: Iterator[Any]
    later: list[tuple[float, int, Any]] = field(default_factory=list)  #: heap of (not before, tie, unit)
    suspects: deque[Any] = field(default_factory=deque)
    count: Iterator[int] = field(default_factory=itertools.count)

    def next(self) -> Any:
        """The next unit that may run in company now, or None."""
        if self.later and self.later[0][0] <= time.monotonic():
            return heapq.heappop(self.later)[2]
        return next(self.fresh, None)

    def again(self, unit: Any, decision: Decision) -> None:
        """Put back a unit that is to be tried again."""
        if decision.alone:
            self.suspects.append(unit)
        else:
            heapq.heappush(self.later, (time.monotonic() + decision.wait, next(self.count), unit))


def drive(
    client: Client,
    function: Callable[[Any], Any],
    units: Iterator[Any],
    *,
    name: Callable[[Any], str],
    window: Callable[[], int],
    canaries: int = 0,
    mark: Callable[[Any], Fault | None] = lambda unit: None,
    stop: Event | None = None,
    idle: Callable[[Mapping[str, _Try]], object] = lambda under_way: None,
) -> Iterator[Outcome]:
    """Run `function(unit)` for each unit on the cluster and give the outcome of each try as it comes.

    Parameters
    ----------
    function : gives a result, or a `Fault`
    name : Dask key of a try, unique
    window : tries that may be with the scheduler at a time; asked again and again, because workers come and go
    canaries : units that are tried before any other; the window opens when one of them succeeds
    mark : what a worker that ended itself left behind about this try
    stop : set from outside: nothing new is begun, what is under way is waited for
    idle : called at least every `TICK` seconds, with what is under way by key

    Raises
    ------
    CircuitBroken
        if the first `BREAKER` units that fail do so alike, and none has succeeded.
    SchedulerLost
        if the scheduler is gone.
    """
    pending, finished = _Pending(units), queue.SimpleQueue[Future]()
    under_way: dict[str, _Try] = {}
    blamed: Counter[tuple[tuple[int, int], ErrorClass]] = Counter()
    forgotten: Counter[tuple[int, int]] = Counter()
    breaker = _Breaker()
    opened = canaries == 0
    gone_since: float | None = None

    def submit(unit: Any, alone: bool) -> None:
        # not pure: the same key must run again in another run; no retries: the policies decide
        future = client.submit(function, unit, key=name(unit), pure=False, retries=0)
        under_way[str(future.key)] = _Try(unit, future, alone)
        future.add_done_callback(finished.put)

    def refill() -> None:
        if stop is not None and stop.is_set():
            return
        room = (window() if opened else min(canaries, window())) - len(under_way)
        if any(one.alone for one in under_way.values()):
            return
        while room > 0 and (unit := pending.next()) is not None:
            submit(unit, alone=False)
            room -= 1
        if not under_way and not pending.later and pending.suspects:
            submit(pending.suspects.popleft(), alone=True)

    while True:
        refill()
        stopping = stop is not None and stop.is_set()
        if not under_way and (stopping or not (pending.later or pending.suspects)):
            return
        idle(under_way)
        try:
            future = finished.get(timeout=TICK)
        except queue.Empty:
            gone_since = _gone_since(client, gone_since)
            continue
        tried = under_way.pop(str(future.key), None)
        if tried is None or tried.future is not future:
            continue
        outcome = _outcome(tried, mark)
        future.release()
        if outcome is None:  # the scheduler forgot it: nobody's fault
            forgotten[tried.unit.key] += 1
            if forgotten[tried.unit.key] > CANCELLATIONS:
                raise SchedulerLost(f"the scheduler dropped {tried.unit} {CANCELLATIONS} times")
            pending.again(replace(tried.unit, attempt=tried.unit.attempt + 1), Decision("retry", wait=1.0))
            gone_since = _gone_since(client, gone_since)
            continue
        if outcome.fault is None:
            opened = True
            breaker.success()
            yield outcome
            continue
        outcome = _decided(outcome, blamed, tried.alone)
        assert outcome.decision is not None
        assert outcome.fault is not None
        if outcome.decision.again:
            again = replace(
                tried.unit, attempt=tried.unit.attempt + 1, batch_epochs=outcome.decision.batch_epochs
            )
            pending.again(again, outcome.decision)
        yield outcome
        breaker.failure(tried.unit, outcome)
        opened = opened or not outcome.decision.again  # a canary that is no use as one


def _outcome(tried: _Try, mark: Callable[[Any], Fault | None]) -> Outcome | None:
    """How a try ended; None if the scheduler forgot it."""
    seconds = time.monotonic() - tried.since
    try:
        result = tried.future.result(timeout=60)
    except KilledWorker as error:
        fault = mark(tried.unit) or Fault(ErrorClass.WORKER_LOST, f"KilledWorker: {error}")
        return Outcome(tried.unit, fault=fault, alone=tried.alone, seconds=seconds)
    except (CancelledError, TimeoutError):
        return None
    except Exception as error:  # Dask's own: a unit too large to send, a result that cannot be read
        fault = Fault(ErrorClass.BUG, f"{type(error).__name__}: {' '.join(str(error).split())}")
        return Outcome(tried.unit, fault=fault, alone=tried.alone, seconds=seconds)
    if isinstance(result, Fault):
        return Outcome(tried.unit, fault=result, alone=tried.alone, seconds=seconds)
    return Outcome(tried.unit, result=result, alone=tried.alone, seconds=seconds)


def _decided(outcome: Outcome, blamed: Counter[tuple[tuple[int, int], ErrorClass]], alone: bool) -> Outcome:
    """The outcome with what is done about it."""
    assert outcome.fault is not None
    kind = outcome.fault.error_class
    to_blame = alone or kind is not ErrorClass.WORKER_LOST
    blamed[outcome.unit.key, kind] += to_blame
    count = blamed[outcome.unit.key, kind]
    return replace(outcome, decision=decide(kind, count, outcome.unit.batch_epochs, to_blame=to_blame))


@dataclass
class _Breaker:
    """Stops a run whose first units all fail alike."""

    alike: Counter[ErrorClass] = field(default_factory=Counter)
    closed: bool = True

    def success(self) -> None:
        self.closed = False

    def failure(self, unit: Any, outcome: Outcome) -> None:
        fault, decision = outcome.fault, outcome.decision
        assert fault is not None
        assert decision is not None
        if not self.closed or decision.again:
            return
        self.alike[fault.error_class] += 1
        if len(self.alike) == 1 and self.alike[fault.error_class] >= BREAKER:
            raise CircuitBroken(
                f"the first {BREAKER} partitions all failed with {fault.error_class}, the last, {unit}, with "
                f"{fault.error}: the run was stopped before it tries the others. Mend that and run the same command "
                "again"
            )


def _gone_since(client: Client, before: float | None) -> float | None:
    """Since when the scheduler has not been there [s]; None while it is.

    Raises
    ------
    SchedulerLost
        after `PATIENCE`.
    """
    if client.status == "running":
        return None
    now = time.monotonic()
    since = before if before is not None else now
    if client.status == "closed" or now - since > PATIENCE:
        raise SchedulerLost(
            f"the scheduler at {client.scheduler.address if client.scheduler else '?'} is gone"
        )
    return since
