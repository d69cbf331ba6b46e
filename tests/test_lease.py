"""Leases: one driver at a time, told apart by processes and counts, never by clocks."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from lightmill.catalogs.lease import LeaseError, lease, read_holder


def hold(path: str, ready: object, patience: float) -> None:
    with lease(Path(path), patience=patience):
        ready.set()  # type: ignore[attr-defined]
        time.sleep(60)


def other_holder(path: Path, patience: float = 0.6) -> multiprocessing.Process:
    """A process that holds the lease."""
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=hold, args=(str(path), ready, patience), daemon=True)
    process.start()
    assert ready.wait(30)
    return process  # type: ignore[return-value]


def test_free_again_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    for _ in range(2):
        with lease(path) as lost:
            holder = read_holder(path)
            assert holder is not None
            assert holder.pid == os.getpid()
            assert not lost.is_set()
        assert not path.exists()


def test_a_living_holder_is_not_disturbed(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    process = other_holder(path)
    told: list[str] = []
    with (
        pytest.raises(LeaseError, match=rf"executed by process {process.pid} on .*, which lives"),
        lease(path, patience=1.0, waiting=lambda holder: told.append(str(holder))),
    ):
        pass
    assert len(told) == 1
    process.kill()
    process.join()


def test_a_killed_holder_of_this_host_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    process = other_holder(path)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    start = time.monotonic()
    with lease(path, patience=60):
        assert time.monotonic() - start < 5


def test_a_holder_elsewhere_that_no_longer_counts_is_taken_for_dead(tmp_path: Path) -> None:
    """Whatever its clock said: only that it counts matters."""
    path = tmp_path / "lease.json"
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "started": 4e9, "token": "x", "beat": 7}))
    with lease(path, patience=0.5):
        holder = read_holder(path)
        assert holder is not None
        assert holder.pid == os.getpid()


def test_who_is_taken_over_is_told(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    with lease(path, patience=0.6) as lost:
        path.write_text(
            json.dumps({"host": "elsewhere", "pid": 1, "started": 0.0, "token": "other", "beat": 0})
        )
        assert lost.wait(5)
    holder = read_holder(path)  # it is not taken away from the other one
    assert holder is not None
    assert holder.token == "other"


def test_of_many_at_once_one_wins(tmp_path: Path) -> None:
    path, won, refused = tmp_path / "lease.json", [], []
    gate = threading.Barrier(6)

    def contend(i: int) -> None:
        gate.wait()
        try:
            with lease(path, patience=1.0):
                won.append(i)
                time.sleep(3)
        except LeaseError:
            refused.append(i)

    threads = [threading.Thread(target=contend, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert len(refused) == 5


def test_a_damaged_file_is_nobodys(tmp_path: Path) -> None:
    path = tmp_path / "lease.json"
    path.write_text('{"host": ')
    with lease(path, patience=0.5):
        assert read_holder(path) is not None
