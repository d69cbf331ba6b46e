"""Driving units through a real Dask cluster: window, canaries, policies, and who is blamed for a dead worker."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from distributed import Client

from lightmill.cluster.local import local_cluster
from lightmill.cluster.watchdog import watched
from lightmill.cluster.worker import Prepare
from lightmill.pipeline.drive import BREAKER, CircuitBroken, Outcome, drive
from lightmill.pipeline.failures import ErrorClass, Fault, fault_of

# workers cannot import a test module: what is sent from here travels by value
cloudpickle.register_pickle_by_value(sys.modules[__name__])
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Work:
    """What is driven: a number, and what happens to it."""

    number: int
    kind: str
    folder: str
    attempt: int = 1
    batch_epochs: int = 64

    @property
    def key(self) -> tuple[int, int]:
        return 0, self.number


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with local_cluster(2) as client:
        yield client


def work(unit: Work) -> int | Fault:
    """Leave a mark in a folder, then do what the unit's kind says."""
    with (Path(unit.folder) / str(unit.number)).open("a") as handle:
        handle.write(f"{unit.batch_epochs} ")
    try:
        if unit.kind == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        if unit.kind == "bug":
            raise ValueError(f"{unit.number} is bad")
        if unit.kind == "flaky" and unit.attempt < 3:
            raise ConnectionResetError(104, "reset by peer")
        if unit.kind == "memory":
            raise MemoryError("too much")
        if unit.kind == "slow":
            with watched(Path(unit.folder) / f"mark-{unit.number}-{unit.attempt}.json", 0.3):
                time.sleep(20)
    except Exception as error:
        return fault_of(error)
    time.sleep(0.02)
    return unit.number


def mark(unit: Work) -> Fault | None:
    import json

    path = Path(unit.folder) / f"mark-{unit.number}-{unit.attempt}.json"
    if not path.exists():
        return None
    facts = json.loads(path.read_text())
    return Fault(**facts | {"error_class": ErrorClass(facts["error_class"])})


def all_of(client: Client, units: Sequence[Work], **options: Any) -> list[Outcome]:
    prefix = f"{time.time_ns()}"
    return list(
        drive(
            client, work, iter(units), name=lambda unit: f"{prefix}-{unit.number}-{unit.attempt}",
            **{"window": lambda: 4, "mark": mark} | options,
        )
    )  # fmt: skip


def units(folder: Path, n: int, **kinds: str) -> list[Work]:
    """n units; those named `u7="bug"` are of that kind."""
    return [Work(i, kinds.get(f"u{i}", "good"), str(folder)) for i in range(n)]


def tries(folder: Path) -> dict[int, int]:
    return {int(path.name): len(path.read_text().split()) for path in folder.iterdir() if path.name.isdigit()}


def test_each_unit_runs_once_and_a_bug_twice(client: Client, tmp_path: Path) -> None:
    outcomes = all_of(client, units(tmp_path, 20, u7="bug"))
    assert {outcome.result for outcome in outcomes if outcome.fault is None} == set(range(20)) - {7}
    first, second = [outcome for outcome in outcomes if outcome.fault is not None]
    assert first.fault.error == second.fault.error == "ValueError: 7 is bad"
    assert (first.decision.name, second.decision.name) == ("retry", "quarantine")
    assert tries(tmp_path) == {i: 2 if i == 7 else 1 for i in range(20)}


def test_what_passes_is_waited_for(client: Client, tmp_path: Path) -> None:
    outcomes = all_of(client, units(tmp_path, 6, u2="flaky"))
    assert [o.decision.name for o in outcomes if o.fault is not None] == ["retry", "retry"]
    assert {o.result for o in outcomes if o.fault is None} == set(range(6))
    assert tries(tmp_path)[2] == 3


def test_memory_is_halved_and_tried_alone(client: Client, tmp_path: Path) -> None:
    outcomes = all_of(client, units(tmp_path, 5, u1="memory"))
    mine = [o for o in outcomes if o.fault is not None]
    assert [o.decision.name for o in mine] == ["halve", "halve", "quarantine"]
    assert [o.alone for o in mine] == [False, True, True]
    assert (tmp_path / "1").read_text() == "64 32 16 "


def test_only_the_killer_is_blamed(client: Client, tmp_path: Path) -> None:
    """Units that were with a worker when it died finish; the one that kills alone is the one that is given up."""
    outcomes = all_of(client, units(tmp_path, 12, u3="segfault"), window=lambda: 6)
    given_up = [o for o in outcomes if o.decision is not None and not o.decision.again]
    assert [(o.unit.number, o.fault.error_class, o.alone) for o in given_up] == [(3, "WORKER_LOST", True)]
    assert {o.result for o in outcomes if o.fault is None} == set(range(12)) - {3}
    assert tries(tmp_path)[3] == 4  # once in company, three times alone


def test_what_takes_too_long_is_ended_and_named(client: Client, tmp_path: Path) -> None:
    outcomes = all_of(client, units(tmp_path, 6, u4="slow"))
    mine = [o for o in outcomes if o.unit.number == 4]
    assert {o.fault.error_class for o in mine} == {"TIMEOUT"}
    assert [o.decision.name for o in mine] == ["alone", "quarantine"]
    assert {o.result for o in outcomes if o.fault is None} == set(range(6)) - {4}


def test_the_breaker_stops_a_run_that_only_fails(client: Client, tmp_path: Path) -> None:
    many = [Work(i, "bug", str(tmp_path)) for i in range(100)]
    with pytest.raises(CircuitBroken, match=r"first 5 partitions all failed with BUG.*is bad"):
        all_of(client, many)
    assert len(tries(tmp_path)) < BREAKER + 8


def test_no_breaker_once_a_unit_has_succeeded(client: Client, tmp_path: Path) -> None:
    many = [Work(i, "good" if i == 0 else "bug", str(tmp_path)) for i in range(12)]
    outcomes = all_of(client, many, canaries=1)
    assert sum(o.decision is not None and o.decision.name == "quarantine" for o in outcomes) == 11


def test_canaries_come_first(client: Client, tmp_path: Path) -> None:
    """Until one succeeds no more are under way than there are canaries."""
    seen: list[int] = []
    all_of(client, units(tmp_path, 10), canaries=1, idle=lambda under_way: seen.append(len(under_way)))
    assert seen[0] == 1
    assert max(seen) == 4


def test_window(client: Client, tmp_path: Path) -> None:
    """Units are taken from the source only as others finish: the scheduler never holds more than the window."""
    taken = finished = 0

    def source() -> Iterator[Work]:
        nonlocal taken
        for unit in units(tmp_path, 30):
            taken += 1
            yield unit

    for _ in drive(client, work, source(), name=lambda u: f"window-{u.number}-{u.attempt}", window=lambda: 3):
        finished += 1
        assert taken - finished <= 3
    assert finished == taken == 30


def test_asked_to_stop_it_finishes_what_is_under_way(client: Client, tmp_path: Path) -> None:
    stop, outcomes = threading.Event(), []
    driven = drive(
        client,
        work,
        iter(units(tmp_path, 40)),
        name=lambda u: f"stop-{u.number}",
        window=lambda: 4,
        stop=stop,
    )
    for outcome in driven:
        outcomes.append(outcome)
        stop.set()
    assert 1 <= len(outcomes) <= 5
    assert sorted(o.result for o in outcomes) == sorted(tries(tmp_path))


def test_prepare_runs_in_each_worker(client: Client, tmp_path: Path) -> None:
    def mark_process(folder: str) -> None:
        (Path(folder) / str(os.getpid())).touch()

    client.register_plugin(Prepare(mark_process, str(tmp_path)), name="mark")
    pids = set(client.run(os.getpid).values())
    assert {int(path.name) for path in tmp_path.iterdir()} == pids
    assert os.getpid() not in pids
