"""How a run is asked to stop: the first SIGINT or SIGTERM lets what is under way finish, a second one does not wait."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Stop", "stoppable"]


class Stop(threading.Event):
    """Set when the run is to end early; `signal` says what asked for it."""

    signal: int = 0


@contextmanager
def stoppable(say: Callable[[int], None] = lambda number: None) -> Iterator[Stop]:
    """An event that the first SIGINT or SIGTERM sets; a second one raises KeyboardInterrupt.

    Parameters
    ----------
    say : called with the number of the first signal

    In another thread than the main one signals are not touched.
    """
    stop = Stop()

    def handle(number: int, frame: FrameType | None) -> None:
        del frame
        if stop.is_set():
            raise KeyboardInterrupt
        stop.signal = number
        stop.set()
        say(number)

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
