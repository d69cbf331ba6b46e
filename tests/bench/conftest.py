"""Benchmarks are ratios: ours and its peers side by side in one run, each on the same input.

Within the tests each runs once, so that it never rots. To measure: `pytest tests/bench --benchmark-only`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np
import pytest


@pytest.fixture
def beside(benchmark, request) -> Callable[..., dict[str, float]]:
    """Time `ours` with pytest-benchmark and the peers between its rounds; medians and ratios go to extra_info."""
    rounds = 15 if request.config.getoption("benchmark_only") else 1

    def measure(
        ours: Callable[[], object], peers: Mapping[str, Callable[[], object]], **per: float
    ) -> dict[str, float]:
        """`per`: how many of a thing one call works through, for example pairs=…; ns of each are noted too."""
        seconds: dict[str, list[float]] = {name: [] for name in peers}

        def others() -> None:
            for name, peer in peers.items():
                start = time.perf_counter()
                peer()
                seconds[name].append(time.perf_counter() - start)

        ours()  # compiles
        # the peers run before each round: what the machine does meanwhile falls on all alike
        benchmark.pedantic(ours, setup=others, rounds=rounds, iterations=1)
        own = benchmark.stats.stats.median
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        found = {f"times_faster_than_{name}": round(value / own, 2) for name, value in medians.items()}
        found |= {f"ns_per_{name}": round(own / n * 1e9, 3) for name, n in per.items()}
        benchmark.extra_info.update(found)
        return found

    return measure


@pytest.fixture(scope="session")
def cadence() -> Callable[[int, int], tuple[np.ndarray, ...]]:
    """`cadence(n, curves)`: t, mag, magerr, offsets of ZTF-like light curves of n points in five seasons."""

    def make(n: int, curves: int) -> tuple[np.ndarray, ...]:
        rng = np.random.default_rng(n)
        season = rng.integers(0, 5, (curves, n)) * 365.25
        t = np.sort(season + rng.integers(0, 210, (curves, n)) + rng.uniform(0, 0.35, (curves, n)), axis=1)
        period = rng.uniform(0.2, 10, (curves, 1))
        magerr = rng.uniform(0.01, 0.08, (curves, n))
        mag = 17 + 0.3 * np.sin(2 * np.pi * t / period) + magerr * rng.standard_normal((curves, n))
        return t.ravel(), mag.ravel(), magerr.ravel(), np.arange(curves + 1) * n

    return make
