"""Kernels give the same bits in the process that compiles them and in those that load them from Numba's cache."""

from __future__ import annotations

import importlib
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from numba.core.registry import CPUDispatcher

from lightmill import pipeline


def kernels() -> dict[str, CPUDispatcher]:
    """All compiled functions for the CPU, by module and name."""
    found = {}
    for module in pkgutil.iter_modules(pipeline.__path__):
        if "cuda" not in module.name:
            own = vars(importlib.import_module(f"lightmill.pipeline.{module.name}"))
            found |= {
                f"{one.py_func.__module__}.{one.py_func.__name__}": one
                for one in own.values()
                if isinstance(one, CPUDispatcher)
            }
    return found


def called_by(kernel: CPUDispatcher) -> Iterator[CPUDispatcher]:
    """Compiled functions that it names, also as `module.function`."""
    names, known = set(kernel.py_func.__code__.co_names), kernel.py_func.__globals__
    for name in names & set(known):
        one = known[name]
        owned = [getattr(one, other, None) for other in names] if isinstance(one, ModuleType) else [one]
        yield from (other for other in owned if isinstance(other, CPUDispatcher))


def test_sums_in_any_order_are_part_of_the_kernel_that_asks_for_them():
    """A call would be answered by the callee's own copy where it was compiled, and by the kernel's where it was not."""
    every = kernels()
    names = {one: name for name, one in every.items()}
    assert {"features._statistics", "period_fit.judge", "shape._shapes", "radix.sort_into"} <= {
        name.removeprefix("lightmill.pipeline.") for name in every
    }
    asked = {(names[kernel], one) for kernel in every.values() for one in called_by(kernel)}
    loose = [(one, kernel) for kernel, one in asked if one.targetoptions.get("fastmath")]
    assert len(loose) > 60
    assert [(names[one], kernel) for one, kernel in loose if not one.targetoptions.get("forceinline")] == []


STATISTICS = """
import hashlib
import numpy as np
from lightmill.pipeline.features import statistics

rng = np.random.default_rng(0)
offsets = np.concatenate([[0], np.cumsum(rng.integers(20, 400, 50))])
t, mag = np.sort(rng.uniform(0, 900, offsets[-1])), rng.normal(17, 0.2, offsets[-1])
for a, b in zip(offsets, offsets[1:]):
    t[a:b] -= t[a]
found = statistics(t, mag, rng.uniform(0.01, 0.1, offsets[-1]), offsets)
print(hashlib.sha256(found.tobytes()).hexdigest())
"""


def test_compiled_and_from_the_cache(tmp_path: Path):
    def told() -> bytes:
        given = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
        return subprocess.run(
            [sys.executable, "-c", STATISTICS], env=given, check=True, capture_output=True
        ).stdout

    compiled = told()
    assert list(tmp_path.rglob("features._statistics*.nbc"))
    assert told() == compiled
