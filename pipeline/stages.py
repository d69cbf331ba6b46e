"""Wall time by stage of the work."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

__all__ = ["Stages"]

Item = TypeVar("Item")


@dataclass
class Stages:
    """A stopwatch a stage: `with stage("read"): …` adds to its seconds."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start

    def over(self, stage: str, items: Iterator[Item]) -> Iterator[Item]:
        """The items of an iterator, the time that it takes to make them booked on a stage."""
        while True:
            with self(stage):
                item = next(items, None)
            if item is None:
                return
            yield item
