"""Benchmarks are ratios: ours and its peers side by side in one run, each on the same input.

Within the tests each runs once, so that it never rots. To measure: `make bench`, which renders what is noted here
(`table.py`).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

SHORT = 0.1  #: [s]
VISIBLE = np.add.outer(365 * np.arange(5), np.arange(210)).ravel()  #: nights of five seasons


@pytest.fixture
def measured(request) -> bool:
    """Whether figures are wanted, and not only that the benchmark still runs and both sides agree."""
    return request.config.getoption("benchmark_only")


@pytest.fixture
def beside(benchmark, measured) -> Callable[..., None]:
    """Time `ours` and its peers in turns; pytest-benchmark carries a row for each peer to `table.py`."""

    def measure(
        what: str,
        n: int,
        curves: int,
        ours: Callable[[], object],
        peers: Mapping[str, Callable[[], object]],
        *,
        bars: Mapping[str, float] | None = None,
        rounds: int = 15,
        clock: Callable[[], float] = time.process_time,
    ) -> None:
        """`curves` light curves of `n` epochs are one call. `bars`: times faster than that peer that we mean to be.

        A call of less than SHORT is timed when it is made again: the first one after others finds caches and pages as
        they have left them, which costs some milliseconds whatever is called, and a worker counts for minutes.
        The clock is the process's CPU time: the machine may be shared, and nobody uses more than one thread. Where
        threads are what is measured it must be the wall's.
        """
        seconds: dict[str, list[float]] = {"": [], **{name: [] for name in peers}}

        def timed(name: str, call: Callable[[], object]) -> None:
            for _ in range(2):
                start = clock()
                call()
                took = clock() - start
                if took > SHORT:
                    break
            seconds[name].append(took)

        def others() -> None:
            for name, peer in peers.items():
                timed(name, peer)

        ours()  # compiles
        # the peers run before each round: what the machine does meanwhile falls on all alike
        benchmark.pedantic(
            timed, args=("", ours), setup=others, rounds=rounds if measured else 1, iterations=1
        )
        each = {name: statistics.median(values) / curves for name, values in seconds.items()}
        benchmark.extra_info["rows"] = [
            {
                "what": what,
                "n": n,
                "ours_s": each[""],
                "peer": name,
                "peer_s": each[name],
                "times_faster": each[name] / each[""],
                "bar": (bars or {}).get(name),
                "clock": clock.__name__,
            }
            for name in peers
        ]

    return measure


@pytest.fixture
def note(benchmark) -> Callable[[list[dict[str, Any]]], None]:
    """`note(records)`: shares of stars whose period was found, for the second table (`table.py`)."""
    return lambda records: benchmark.extra_info.update(recovered=records)


@pytest.fixture(scope="session")
def cadence() -> Callable[[int, int], tuple[np.ndarray, ...]]:
    """`cadence(n, curves)`: t, mag, magerr, offsets of ZTF-like light curves of n points.

    Five seasons at one site; a star is visited once or more in a night, half of the further visits within minutes.
    """

    def times(rng: np.random.Generator, n: int) -> np.ndarray:
        nights = int(np.ceil(n / max(1.3, n / 700)))
        first = rng.choice(VISIBLE, nights, replace=False) + rng.uniform(0.1, 0.35, nights)
        visits = np.concatenate([first, rng.choice(first, n - nights)])
        return np.sort(visits + rng.choice([0.02, 0.12], n) * rng.uniform(0, 1, n))

    def make(n: int, curves: int) -> tuple[np.ndarray, ...]:
        rng = np.random.default_rng(n)
        t = np.array([times(rng, n) for _ in range(curves)])
        period = rng.uniform(0.2, 10, (curves, 1))
        magerr = rng.uniform(0.01, 0.08, (curves, n))
        mag = 17 + 0.3 * np.sin(2 * np.pi * t / period) + magerr * rng.standard_normal((curves, n))
        return t.ravel(), mag.ravel(), magerr.ravel(), np.arange(curves + 1) * n

    return make
