"""`pipeline/dmdt_cuda.py`: the counts of the CPU's kernel, bit by bit, in numba.cuda's simulator.

The simulator must be chosen before Numba is imported: run as a program, this file runs its cases on the device that
numba.cuda finds and prints what went wrong in each. The tests do that once, simulated; `bench/gpu_dmdt.py` on a GPU.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numba.core import config

from lightmill.pipeline import dmdt_cuda
from lightmill.pipeline.dmdt import GRIDS, Grid, dmdt_counts
from lightmill.pipeline.dmdt_cuda import dmdt_counts_cuda

MAHABAL, SCOPE = GRIDS["mahabal2017"], GRIDS["scope"]
# no tables, and a histogram that shared memory cannot hold
LINEAR = Grid(tuple(np.linspace(0, 50, 101)), tuple(np.linspace(-2, 2, 201)))
# no tables
UNEQUAL = Grid((0.0, 1e-9, 1e-6, 1e3), (-1e6, -1e-6, 0.0, 1e-6, 2e-6, 1e6))
ONE_SIDED = Grid((0.5, 1.0, 100.0), (0.25, 0.5, 4.0))

Batch = tuple[np.ndarray, np.ndarray, np.ndarray]
CASES: dict[str, Callable[[], None]] = {}


def case(function: Callable[[], None]) -> Callable[[], None]:
    CASES[function.__name__] = function
    return function


def check(t: np.ndarray, mag: np.ndarray, offsets: np.ndarray, *grids: Grid, threads: int = 1) -> None:
    for grid in grids or (MAHABAL, LINEAR, UNEQUAL, ONE_SIDED):
        expected = dmdt_counts(t, mag, offsets, grid.dt_edges, grid.dm_edges)
        found = dmdt_counts_cuda(t, mag, offsets, grid.dt_edges, grid.dm_edges, threads=threads)
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(found, expected)


def batch(curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> Batch:
    """A list of (t, mag) as one read-only ragged batch."""
    t = np.concatenate([np.empty(0), *(np.asarray(c[0], float) for c in curves)])
    mag = np.concatenate([np.empty(0), *(np.asarray(c[1], float) for c in curves)])
    offsets = np.concatenate([[0], np.cumsum([len(c[0]) for c in curves])]).astype(np.int64)
    for array in (t, mag, offsets):
        array.flags.writeable = False
    return t, mag, offsets


def curve(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A ZTF-like cadence: nights of one to a few points over five seasons."""
    rng = np.random.default_rng(seed)
    nights = rng.choice(1800, max(n // 2, 1))
    return np.sort(58000 + rng.choice(nights, n) + rng.uniform(0, 0.4, n)), rng.normal(17, 0.5, n)


# The cases of test_dmdt.py, smaller: a pair takes the simulator a tenth of a millisecond


@case
def no_light_curves() -> None:
    check(*batch([]))


@case
def hardly_any_points() -> None:
    check(*batch([curve(n, seed=n) for n in (0, 1, 2, 0, 3, 4, 5)]))
    check(*batch([curve(1)]))


@case
def word_borders() -> None:
    check(*batch([curve(n, seed=n) for n in (31, 32, 33, 63, 64, 65)]), MAHABAL, SCOPE)


@case
def around_what_a_tile_holds() -> None:
    """31·33/… points have 496, 528 and 561 pairs: less than a tile of 512, and more."""
    check(*batch([curve(n, seed=n) for n in (32, 33, 34)]), MAHABAL, LINEAR)


@case
def pairs_exactly_on_every_edge() -> None:
    """From a point at (0, 0) to crossings of edges, to one ulp below and to one above."""
    for grid in (MAHABAL, SCOPE, ONE_SIDED, UNEQUAL):
        dt, dm = (
            np.concatenate([edges, np.nextafter(edges, -np.inf), np.nextafter(edges, np.inf)])
            for edges in map(np.array, (grid.dt_edges, grid.dm_edges))
        )
        n = max(len(dt), len(dm))
        for shift in (0, 1):
            t = np.concatenate([[0.0], np.abs(np.resize(dt, n))])
            mag = np.concatenate([[0.0], np.roll(np.resize(dm, n), shift)])
            check(t, mag, np.array([0, n + 1]), grid)


@case
def edges_hit_by_rounded_differences() -> None:
    rng = np.random.default_rng(1)
    check(*batch([(58000 + rng.integers(0, 400, 40) / 145, rng.integers(1500, 1700, 40) / 100)]))


@case
def ties_in_time() -> None:
    rng = np.random.default_rng(2)
    nights = np.repeat(np.arange(8.0), 4), rng.normal(15, 1, 32)
    check(*batch([nights, (rng.integers(0, 5, 25), rng.normal(15, 1, 25))]))


@case
def all_times_equal() -> None:
    check(*batch([(np.full(33, 58000.1), np.random.default_rng(3).normal(15, 1, 33))]))


@case
def constant_magnitudes() -> None:
    check(*batch([(curve(33)[0], np.full(33, 16.1))]))


@case
def what_is_no_number() -> None:
    t, mag = curve(40)
    curves = [(np.full(5, np.nan), np.ones(5))]
    for bad in (np.nan, np.inf, -np.inf):
        holes = t.copy(), mag.copy()
        for array in holes:
            array[[0, 7, 8, 39]] = bad
        holes[1][20:23] = bad
        curves.append(holes)
    check(*batch(curves), MAHABAL, LINEAR)


@case
def unsorted() -> None:
    t, mag = curve(40)
    order = np.random.default_rng(4).permutation(40)
    ties = np.array([3.0, 1.0, 3.0, 1.0, 2.0] * 6), np.random.default_rng(5).normal(15, 1, 30)
    check(*batch([(t[order], mag[order]), (t[::-1], mag[::-1]), ties]), MAHABAL, UNEQUAL)


@case
def views_and_widths() -> None:
    t, mag = curve(40, seed=6)
    offsets = np.array([0, 15, 40])
    wide = np.empty((40, 3))
    wide[:, 0], wide[:, 2] = t, mag
    check(wide[:, 0], wide[:, 2], offsets, MAHABAL)
    check(t[::-1][::-1], mag, offsets.astype(np.uint16), MAHABAL)
    check(t.astype(">f8"), mag.astype(">f8"), offsets, MAHABAL)
    check((t - t[0]).astype(np.float32), mag.astype(np.float32), offsets, MAHABAL, LINEAR)
    around = np.concatenate([[np.nan] * 5, t, [np.nan] * 3]), np.concatenate([[9.0] * 5, mag, [9.0] * 3])
    check(*around, offsets + 5, MAHABAL)


@case
def one_long_among_short_ones() -> None:
    short = [curve(k % 7, seed=k) for k in range(30)]
    check(*batch([*short[:15], curve(150, seed=8), *short[15:]]), MAHABAL, LINEAR)


@case
def more_images_than_are_kept_at_once() -> None:
    kept, dmdt_cuda.IMAGES = dmdt_cuda.IMAGES, 3 * 4 * MAHABAL.shape[0] * MAHABAL.shape[1]
    try:
        check(*batch([curve(k, seed=k) for k in range(8)]), MAHABAL)
    finally:
        dmdt_cuda.IMAGES = kept


@case
def longer_than_a_cell_can_count() -> None:
    kept, dmdt_cuda.LONGEST = dmdt_cuda.LONGEST, 20
    try:
        check(*batch([curve(k, seed=k) for k in (19, 20, 21, 5, 40)]), MAHABAL)
    finally:
        dmdt_cuda.LONGEST = kept


@case
def threads_of_the_host() -> None:
    check(*batch([curve(k, seed=k) for k in (5, 0, 21, 9)]), MAHABAL, threads=3)


def failures() -> dict[str, str]:
    """What went wrong in each case on the device that numba.cuda finds; "" if nothing."""
    if config.ENABLE_CUDASIM:
        # a simulated thread is one of the operating system, and few tiles would test little
        dmdt_cuda.LANES, dmdt_cuda.WARPS, dmdt_cuda.TILE = 8, 2, 512
    found = {}
    for name, run in CASES.items():
        try:
            run()
        except Exception:
            found[name] = traceback.format_exc()
        else:
            found[name] = ""
    return found


# The tests


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)


@pytest.fixture(scope="module")
def simulated() -> dict[str, str]:
    done = python(__file__, NUMBA_ENABLE_CUDASIM="1")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", CASES)
def test_counts_are_those_of_the_cpu(simulated, name):
    assert simulated[name] == ""


def test_tiles_cover_every_pair_once():
    lengths = np.array([0, 1, 2, 10_000, 128, 129, 3])
    curves, ranks = dmdt_cuda._tiles(lengths)
    pairs = lengths * (lengths - 1) // 2
    assert curves[0] == 3  # the longest first
    for i, n_pairs in enumerate(pairs):
        own = ranks[curves == i]
        assert own.tolist() == list(range(-(-n_pairs // dmdt_cuda.TILE)))


def test_no_device(monkeypatch):
    monkeypatch.setattr(dmdt_cuda, "available", lambda: False)
    with pytest.raises(RuntimeError, match=r"no CUDA device.*pip install numba-cuda"):
        dmdt_counts_cuda(np.arange(4.0), np.arange(4.0), np.array([0, 4]), [0, 1], [0, 1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mag": np.arange(3.0)}, "mag has 3 epochs, t has 4"),
        ({"dt_edges": [1, 0]}, "dt_edges must increase, got 1.0 before 0.0 at 0"),
        ({"threads": 0}, "threads must be a whole number from 1, got 0"),
    ],
)
def test_what_is_refused_is_what_the_cpu_refuses(arguments, message):
    given = {"t": np.arange(4.0), "mag": np.arange(4.0), "offsets": np.array([0, 4])}
    given |= {"dt_edges": [0, 1], "dm_edges": [0, 1]} | arguments
    for function in (dmdt_counts, dmdt_counts_cuda):
        with pytest.raises(ValueError, match=message):
            function(**given)


def test_the_cpus_module_does_not_load_cuda():
    code = "import sys, lightmill.pipeline.dmdt; print([name for name in sys.modules if name[:10] == 'numba.cuda'])"
    assert python("-c", code).stdout.strip() == "[]"


BENCH = Path(__file__).parent / "bench" / "gpu_dmdt.py"
SMALLEST = """
import runpy
from lightmill.pipeline import dmdt_cuda
dmdt_cuda.LANES, dmdt_cuda.WARPS = 4, 1
bench = runpy.run_path({bench!r})
bench["seconds"].__globals__["ROUNDS"] = 1
limit = bench["atomics_per_s"](1e-4)
print(bench["table"]("simulator", limit, [bench["measure"]("30", 5e-6, limit)]))
"""


def test_the_bench_runs():
    """Once, on one light curve, so that it never rots; its figures mean nothing here."""
    done = python("-c", SMALLEST.format(bench=str(BENCH)), NUMBA_ENABLE_CUDASIM="1")
    assert done.returncode == 0, done.stderr
    assert "| 30 | 1 |" in done.stdout


def test_the_bench_says_where_there_is_no_gpu():
    done = python(str(BENCH), NUMBA_ENABLE_CUDASIM="0", CUDA_VISIBLE_DEVICES="-1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("no GPU: numba.cuda finds no CUDA device here")


if __name__ == "__main__":
    json.dump(failures(), sys.stdout)
