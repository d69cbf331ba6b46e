"""A watch over one task within its worker: what takes too long or too much memory ends the process, and says so.

Dask only sees that a worker is gone. The mark that is left here tells which task was to blame, and for what, so that
nobody else is suspected.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from distributed import get_worker

__all__ = ["EXIT_CODE", "watched"]

EXIT_CODE = 86  #: of a worker that ended itself
INTERVAL = 0.05  #: between two looks [s]
SHARE = 0.9  #: of the worker's memory limit that a task may bring it to: Dask's nanny kills at 0.95


@contextmanager
def watched(mark: Path, timeout: float) -> Iterator[None]:
    """Watch what runs within, from a thread of this process.

    Parameters
    ----------
    mark : JSON file to leave: {"error_class": "TIMEOUT" or "OOM", "error", "host", "peak_rss_bytes"}
    timeout : wall time [s] allowed; 0: any
    """
    over = threading.Event()
    limit = _memory_limit()
    thread = threading.Thread(target=_watch, args=(mark, timeout, limit, over), daemon=True, name="watchdog")
    thread.start()
    try:
        yield
    finally:
        over.set()


def _watch(mark: Path, timeout: float, limit: int, over: threading.Event) -> None:
    process, start = psutil.Process(), time.monotonic()
    while not over.wait(INTERVAL):
        used, taken = process.memory_info().rss, time.monotonic() - start
        if limit and used > limit:
            _end(mark, "OOM", f"{used / 2**20:,.0f} MiB in use, {limit / 2**20:,.0f} MiB allowed", used, over)
        if timeout and taken > timeout:
            _end(mark, "TIMEOUT", f"not done after {taken:,.0f} s, {timeout:,.0f} s allowed", used, over)


def _end(mark: Path, error_class: str, error: str, used: int, over: threading.Event) -> None:
    if over.is_set():
        return
    facts = {"error_class": error_class, "error": error, "host": socket.gethostname(), "peak_rss_bytes": used}
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.write_text(json.dumps(facts))
    finally:
        os._exit(EXIT_CODE)


def _memory_limit() -> int:
    """What this worker may use [bytes]; 0 where there is no limit, or no worker."""
    try:
        limit = get_worker().memory_manager.memory_limit
    except (ValueError, AttributeError):
        return 0
    return int(limit * SHARE) if limit else 0
