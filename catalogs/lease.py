"""Leases: one driver executes a run at a time.

The holder counts its file up; who finds it held watches whether it is still counted, by its own clock alone: what
clocks say on two hosts need not agree. A holder whose process is gone on the same host is not waited for.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from lightmill.catalogs import storage
from lightmill.catalogs.receipts import encode

__all__ = ["Holder", "LeaseError", "lease", "read_holder"]

PATIENCE = 30.0  #: seconds without a count after which a holder is taken for dead
BEATS = 6  #: counts in that time
SETTLE = 0.3  #: seconds after which of two who took over the later one is seen by both


class LeaseError(RuntimeError):
    """Another driver executes the run."""


@dataclass(frozen=True)
class Holder:
    """The driver that holds a lease."""

    host: str
    pid: int
    started: float  #: of the process, as its host counts [s]
    token: str  #: drawn anew each time
    beat: int = 0  #: counted up while it lives

    def is_gone(self) -> bool:
        """Whether it is known to be dead: it was a process of this host, and is none any more."""
        if self.host != socket.gethostname():
            return False
        try:
            return abs(psutil.Process(self.pid).create_time() - self.started) > 1
        except psutil.NoSuchProcess:
            return True

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def read_holder(path: Path) -> Holder | None:
    """Who holds the lease; None if nobody does, or the file cannot be read."""
    try:
        return Holder(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


@contextmanager
def lease(
    path: Path, *, patience: float = PATIENCE, waiting: Callable[[Holder], None] = lambda holder: None
) -> Iterator[threading.Event]:
    """Hold the lease of a run; gives an event that is set if another driver takes it over.

    Parameters
    ----------
    patience : seconds without a count after which a holder is taken for dead
    waiting : called once, if a holder has to be watched

    Raises
    ------
    LeaseError
        if it is held by a driver that lives: which.
    """
    me = _acquire(path, patience, waiting)
    lost, over = threading.Event(), threading.Event()
    thread = threading.Thread(
        target=_beat, args=(path, me, patience / BEATS, lost, over), daemon=True, name="lease"
    )
    thread.start()
    try:
        yield lost
    finally:
        over.set()
        thread.join()
        holder = read_holder(path)
        if holder is not None and holder.token == me.token:
            path.unlink(missing_ok=True)


def _acquire(path: Path, patience: float, waiting: Callable[[Holder], None]) -> Holder:
    me = Holder(socket.gethostname(), os.getpid(), psutil.Process().create_time(), uuid.uuid4().hex)
    data = encode(asdict(me))
    if storage.create(path, data):
        return me
    holder = read_holder(path)
    if holder is not None and not holder.is_gone():
        waiting(holder)
        _watch(path, holder, patience)
    storage.replace(path, data)
    time.sleep(SETTLE)
    winner = read_holder(path)
    if winner is None or winner.token != me.token:
        raise LeaseError(
            f"{path.parent} was just taken over by {winner}: one driver executes a run at a time"
        )
    return me


def _watch(path: Path, holder: Holder, patience: float) -> None:
    """Return when the holder has not counted for as long as it takes to be taken for dead."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        time.sleep(patience / BEATS / 4)
        now = read_holder(path)
        if now is None or now.is_gone():
            return
        if (now.token, now.beat) != (holder.token, holder.beat):
            raise LeaseError(
                f"{path.parent} is executed by {now}, which lives: one driver executes a run at a time. Wait for it, "
                "or stop it with SIGTERM"
            )


def _beat(path: Path, me: Holder, interval: float, lost: threading.Event, over: threading.Event) -> None:
    beat = 0
    while not over.wait(interval):
        holder = read_holder(path)
        if holder is not None and holder.token != me.token:
            lost.set()
            return
        beat += 1
        try:
            storage.replace(path, encode(asdict(me) | {"beat": beat}))
        except OSError:  # a full disk is told by who writes rows
            continue
