"""The kernels of this host, compiled into Numba's cache: once, and by two processes where there are two cores."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from lightmill.pipeline.candidates import ordered, table
from lightmill.pipeline.choose import KEPT, Chosen
from lightmill.pipeline.clean import Cleaned, clean
from lightmill.pipeline.features import statistics
from lightmill.pipeline.folded import folded
from lightmill.pipeline.period import search
from lightmill.pipeline.represent import represent
from lightmill.pipeline.shape import shape
from lightmill.pipeline.shape_second import prewhitened, second_period

__all__ = ["warm_up"]

COMPILING = 1.0  #: seconds: what takes longer to be there is not in the cache
LOCK = "lightmill-warmup-{}.lock"  #: in the folder of temporary files, which hosts do not share
ELSEWHERE = "from lightmill.pipeline import warmup; warmup.warm_shapes()"


def warm_up() -> float:
    """Compile the kernels into Numba's cache on this host, or load them from it; seconds taken.

    The driver calls it before workers start, so that they need not compile, and each worker when it is set up, on a
    host where the driver does not run: there one of them compiles, and the others wait for it.
    """
    start = time.perf_counter()
    with _one_at_a_time() as lock:
        _warm_all(lock)
    return time.perf_counter() - start


def _warm_all(lock: tuple[int, ...]) -> None:
    start = time.perf_counter()
    good = _cleaned()
    epochs = good.t, good.mag, good.magerr, good.offsets
    with _shapes_elsewhere(time.perf_counter() - start > COMPILING, lock):
        found = search(*epochs, fmax=1.0)
        represent(*epochs, needs=("image:count",), dt_edges=[0, 1, 8], dm_edges=[-8, 0, 8])
    # but for the choice's, the other process has compiled these
    known = statistics(*epochs)
    _, listed = table(found, known, 4)
    ordered(found.candidates[:, :4], np.where(listed, 0.5, np.nan), good.t[-1:])
    one = np.full((1, KEPT), 0.3)
    represent(*epochs, needs=("folded", "features"), statistics=known, chosen=Chosen(one, one, one, one))


def warm_shapes() -> None:
    """The kernels of the statistics, and of what is computed at a period."""
    good = _cleaned()
    epochs = good.t, good.mag, good.magerr, good.offsets
    first, second = np.array([[0.3], [0.2]])
    statistics(*epochs)
    shape(*epochs, first)
    prewhitened(*epochs, first)
    second_period(*epochs, first, second)
    folded(*epochs, first)


def _cleaned() -> Cleaned:
    t = np.arange(16.0)
    return clean(t, t % 3, t + 1, np.zeros(16, np.int32), np.array([0, 16]), min_epochs=3)


@contextmanager
def _one_at_a_time() -> Iterator[tuple[int, ...]]:
    """Only one process of this user on this host at a time: the lock's descriptor. Where there can be none, without."""
    try:
        lock = (Path(tempfile.gettempdir()) / LOCK.format(os.getuid())).open("a")
    except OSError:
        yield ()
        return
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield (lock.fileno(),)  # whoever dies lets go of it


@contextmanager
def _shapes_elsewhere(needed: bool, lock: tuple[int, ...]) -> Iterator[None]:
    """Let another process compile its half. Where it fails nothing is lost: what is missing is compiled after.

    It holds the lock too, so that nobody compiles beside it if this process dies, and imports nothing from the folder
    that it is started in.
    """
    if not needed or len(os.sched_getaffinity(0)) < 2:
        yield
        return
    quiet, command = subprocess.DEVNULL, [sys.executable, "-P", "-c", ELSEWHERE]
    with subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, pass_fds=lock):
        yield
