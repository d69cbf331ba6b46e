"""Driving tasks through a real Dask cluster: the window, errors, and who is blamed for a dead worker."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import pytest
from distributed import Client, wait
from distributed.scheduler import KilledWorker

from lightmill.cluster.local import local_cluster
from lightmill.cluster.worker import Prepare
from lightmill.pipeline.drive import _outcome, drive

# workers cannot import a test module: what is sent from here travels by value
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with local_cluster(2) as client:
        yield client


def work(task: tuple[str, str, str]) -> str:
    """Leave a mark in a folder, then do what the task's kind says."""
    name, kind, folder = task
    with (Path(folder) / name).open("a") as handle:
        handle.write("x")
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "raise":
        raise ValueError(f"{name} is bad")
    time.sleep(0.05)
    return name


def test_outcomes(client: Client, tmp_path: Path) -> None:
    """Each task runs exactly once and gives its outcome; one that raises is not tried again."""
    tasks = [(f"t{i}", "raise" if i == 7 else "good", str(tmp_path)) for i in range(20)]
    outcomes = list(drive(client, work, tasks, name=lambda task: task[0], window=4))
    assert {outcome.result for outcome in outcomes if outcome.error is None} == {
        f"t{i}" for i in range(20)
    } - {"t7"}
    (bad,) = [outcome for outcome in outcomes if outcome.error is not None]
    assert bad.task[0] == "t7"
    assert str(bad.error) == "t7 is bad"
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {f"t{i}": "x" for i in range(20)}


def test_only_the_killer_is_blamed(client: Client, tmp_path: Path) -> None:
    """Tasks that were with a worker when it died finish; the one that kills alone is the one that fails."""
    tasks = [(f"t{i}", "kill" if i == 3 else "good", str(tmp_path)) for i in range(12)]
    outcomes = list(drive(client, work, tasks, name=lambda task: f"kill-{task[0]}", window=6))
    failed = [outcome.task[0] for outcome in outcomes if outcome.error is not None]
    assert failed == ["t3"]
    assert isinstance(outcomes[-1].error, KilledWorker) or any(
        isinstance(outcome.error, KilledWorker) for outcome in outcomes
    )
    assert sorted(outcome.task[0] for outcome in outcomes) == sorted(task[0] for task in tasks)
    assert (tmp_path / "t3").read_text() == "xx"  # once in company, once alone


def test_a_result_lost_with_its_worker_is_an_outcome(client: Client, tmp_path: Path) -> None:
    """A task is finished, and its worker dies before the result is fetched."""
    task = ("lost", "good", str(tmp_path))
    future = client.submit(work, task, pure=False, retries=0)
    wait(future)
    (holder,) = client.who_has(future)[future.key]
    os.kill(client.run(os.getpid, workers=[holder])[holder], signal.SIGKILL)
    outcome = _outcome(task, future)
    assert outcome.task == task
    assert outcome.result == "lost" or isinstance(outcome.error, KilledWorker)


def test_window(client: Client) -> None:
    """Tasks are taken from the source only as others finish: the scheduler never holds more than the window."""
    taken = 0

    def source() -> Iterator[int]:
        nonlocal taken
        for i in range(30):
            taken += 1
            yield i

    finished = 0
    for _ in drive(client, abs, source(), name=lambda i: f"window-{i}", window=3):
        finished += 1
        assert taken - finished <= 3
    assert finished == taken == 30


def test_prepare_runs_in_each_worker(client: Client, tmp_path: Path) -> None:
    def mark(folder: str) -> None:
        (Path(folder) / str(os.getpid())).touch()

    client.register_plugin(Prepare(mark, str(tmp_path)), name="mark")
    pids = set(client.run(os.getpid).values())
    assert {int(path.name) for path in tmp_path.iterdir()} == pids
    assert os.getpid() not in pids
