"""What every worker does once, before its first task."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable

from distributed import Worker, WorkerPlugin

__all__ = ["Prepare"]


class Prepare(WorkerPlugin):
    """Call a function once in each worker process, late comers too: a model is loaded there, never sent."""

    name = "lightmill-prepare"

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.function = function
        self.arguments = arguments

    def setup(self, worker: Worker) -> None:
        """Dask calls this when the plugin, or the worker, is new."""
        del worker
        with contextlib.suppress(ValueError):  # not the main thread
            # Ctrl-C is for the driver, which ends the workers in good order
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.function(*self.arguments)
