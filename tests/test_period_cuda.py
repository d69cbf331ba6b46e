"""`pipeline/period_cuda.py`: the candidates of the CPU's search, in numba.cuda's simulator.

The simulator must be chosen before Numba is imported: run as a program, this file runs its cases on the device that
numba.cuda finds and prints what went wrong in each. The tests do that once, simulated; `bench/gpu_period.py` on a GPU.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numba.core import config

from lightmill.pipeline import period_cuda, period_cuda_fit, period_cuda_fold, period_fit
from lightmill.pipeline.period import Periods, search
from lightmill.pipeline.period_fold import Night
from lightmill.pipeline.period_plan import FEWEST, Plan

COLUMNS = "candidates", "rank", "score", "power", "explained", "wave"
LIMITS = {"fmax": 3.0, "candidates": 3}  # a light curve takes the simulator two seconds so
CASES: dict[str, Callable[[], None]] = {}

Star = tuple[np.ndarray, np.ndarray, np.ndarray]


def search_cuda(*curves: np.ndarray, **limits: float) -> Periods:
    return search(*curves, **limits, device="cuda")


def case(function: Callable[[], None]) -> Callable[[], None]:
    CASES[function.__name__] = function
    return function


def star(t: np.ndarray, frequency: float, seed: int = 0, overtone: float = 0.0) -> Star:
    """A sine of 0.3 mag with an overtone; t from the first, mag, magerr."""
    rng, t = np.random.default_rng(seed), np.sort(t) - t.min()
    phase = 2 * np.pi * frequency * t + rng.uniform()
    magerr = 0.03 * rng.uniform(0.5, 2, len(t))
    mag = 16 + 0.3 * np.sin(phase) + overtone * np.sin(2 * phase) + magerr * rng.standard_normal(len(t))
    return t, mag, magerr


def nights(n: int, days: int = 60, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, days, n) + rng.uniform(0.2, 0.5, n)


def batch(*stars: Star) -> tuple[np.ndarray, ...]:
    """Light curves as one read-only ragged batch."""
    t, mag, magerr = (np.concatenate(arrays) for arrays in zip(*stars, strict=True))
    offsets = np.concatenate([[0], np.cumsum([len(s[0]) for s in stars])])
    for array in (t, mag, magerr, offsets):
        array.flags.writeable = False
    return t, mag, magerr, offsets


def agreement(found: Periods, expected: Periods, baseline: np.ndarray) -> np.ndarray:
    """(n,) share of each light curve's expected candidates that were found too, with about their rank.

    Float32 sums in another order move a frequency by far less than 1e-3/T, and a rank where nearly all is explained
    by n times 1e-6 over what is left. NaN where nothing is expected.
    """
    near = np.abs(found.candidates[:, None] - expected.candidates[..., None]) < 1e-3 / baseline[:, None, None]
    close = np.abs(found.rank[:, None] - expected.rank[..., None]) < 0.02 + 1e-2 * np.abs(
        expected.rank[..., None]
    )
    some = np.isfinite(expected.candidates).sum(1)
    return (near & close).any(2).sum(1) / np.where(some > 0, some, np.nan)


def check(*stars: Star, **limits: float) -> Periods:
    """The same candidates with the same numbers, from the highest rank down.

    The twelve parameters of six harmonics to hardly more epochs amplify the rounding of sums to 1e-3.
    """
    curves, limits = batch(*stars), LIMITS | limits
    expected, found = search(*curves, **limits), search_cuda(*curves, **limits)
    baseline = np.array([np.ptp(s[0]) if len(s[0]) else 0.0 for s in stars])
    for name in COLUMNS:
        a, b = getattr(found, name), getattr(expected, name)
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
    assert not (np.diff(found.rank, axis=1) > 0).any()
    for i in np.flatnonzero(np.isfinite(expected.frequency)):
        a, b = (one(periods, i) for periods in (found, expected))
        np.testing.assert_allclose(a["candidates"], b["candidates"], rtol=0, atol=1e-3 / baseline[i])
        for name in ("rank", "score"):
            np.testing.assert_allclose(a[name], b[name], rtol=1e-2, atol=0.02)
        for name in ("explained", "power", "wave"):
            np.testing.assert_allclose(a[name], b[name], rtol=0, atol=2e-3)
    return found


def one(periods: Periods, i: int) -> dict[str, np.ndarray]:
    """The candidates of one light curve by frequency: equal ranks may change places."""
    order = np.argsort(periods.candidates[i])
    order = order[np.isfinite(periods.candidates[i][order])]
    return {name: getattr(periods, name)[i][order] for name in COLUMNS}


@case
def observed_at_night() -> None:
    found = check(star(nights(25), 0.731), star(nights(20, seed=1), 2.317, overtone=0.2))
    np.testing.assert_allclose(found.frequency, [0.731, 2.317], atol=2e-3)


@case
def observed_at_all_hours() -> None:
    check(star(np.random.default_rng(0).uniform(0, 40, 20), 1.37), fmax=2.0, candidates=3)


@case
def observed_in_one_night() -> None:
    """Every epoch in one column of the grid: one thread adds them."""
    check(star(np.random.default_rng(1).uniform(0, 0.4, 25), 9.3), fmax=12.0, candidates=2)


@case
def ragged_and_what_cannot_be_searched() -> None:
    t, mag, magerr = star(nights(20), 1.0)
    far = t.copy()
    far[-1] = 1e12
    empty, short = (tuple(array[:n] for array in (t, mag, magerr)) for n in (0, FEWEST - 1))
    found = check(
        empty, (t, np.full(20, 15.25), magerr), star(nights(16), 0.4), short,
        star(nights(33, seed=3), 1.9, overtone=0.15), (far, mag, magerr), empty,
        candidates=2,
    )  # fmt: skip
    assert np.isfinite(found.frequency).tolist() == [False, False, True, False, True, False, False]


@case
def folds_of_several_shapes_and_long_ones() -> None:
    """More days than the shortest transform has, and half the grid: three loads."""
    long = nights(20, 900, seed=4)
    check(star(long, 0.6), star(nights(15, 50), 0.6), star(long, 1.2, seed=5), fmax=1.5, candidates=2)


@case
def loads_and_neighbours_change_nothing() -> None:
    stars = [star(nights(12 + k, seed=k), 0.5 + k) for k in range(2)]
    whole = search_cuda(*batch(*stars), fmax=1.5, candidates=2)
    kept = period_cuda.AT_ONCE, period_cuda.JUDGED
    period_cuda.AT_ONCE = period_cuda.JUDGED = 1
    try:
        again = search_cuda(*batch(*stars[::-1]), fmax=1.5, candidates=2)
    finally:
        period_cuda.AT_ONCE, period_cuda.JUDGED = kept
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(again, name)[::-1], getattr(whole, name))


@case
def views_and_widths() -> None:
    t, mag, magerr = star(nights(15), 0.731)
    mag = mag.astype(np.float32)
    limits = {"fmax": 1.5, "candidates": 1}
    around = (
        np.append(-1.0, t)[:, None] * np.ones(2),
        np.append(0, mag).astype(np.float32),
        np.append(1, magerr),
    )
    found = search_cuda(around[0][:, 1], *around[1:], np.array([1, 16], np.uint16), **limits)
    expected = search(t, mag, magerr, np.array([0, 15]), **limits)
    np.testing.assert_allclose(found.candidates, expected.candidates, atol=1e-5)


@case
def no_light_curves() -> None:
    empty = np.empty(0)
    found = search_cuda(empty, empty, empty, np.array([0]))
    assert found.candidates.shape == (0, 2 * period_fit.with_relatives(30))
    assert np.isnan(search_cuda(empty, empty, empty, np.array([0, 0])).candidates).all()


def failures() -> dict[str, str]:
    """What went wrong in each case on the device that numba.cuda finds; "" if nothing."""
    if config.ENABLE_CUDASIM:
        simulate()
    found = {}
    for name, run in CASES.items():
        try:
            run()
        except Exception:
            found[name] = traceback.format_exc()
        else:
            found[name] = ""
    return found


def simulate() -> None:
    """A simulated thread is one of the operating system: few of them, and lists of few blocks to be gathered.

    It asks them in a loop whether they wait, and keeps the interpreter from them for a switch interval each time.
    """
    sys.setswitchinterval(1e-4)
    period_cuda_fit.LANES = period_cuda_fold.COLUMNS = 2
    period_cuda_fold.THREADS, period_cuda_fold.SHARE = 4, 3


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
def test_candidates_are_those_of_the_cpu(simulated, name):
    assert simulated[name] == ""


def test_loads_hold_each_light_curve_once_and_fit(monkeypatch):
    monkeypatch.setattr(period_cuda, "AT_ONCE", 40_000)
    rng = np.random.default_rng(0)
    rows, days = 8 * rng.integers(1, 4, 50), 1024 * rng.integers(1, 3, 50)
    days[1::2] = 0
    loads = list(period_cuda._loads(Plan(None, Night(None, None, rows), days, None)))
    assert sorted(np.concatenate(loads)) == list(range(0, 50, 2))
    for some in loads:
        assert len({*zip(rows[some], days[some], strict=True)}) == 1
        assert len(some) == 1 or len(some) * rows[some[0]] * days[some[0]] <= 40_000


def test_no_device(monkeypatch):
    monkeypatch.setattr(period_cuda, "available", lambda: False)
    with pytest.raises(RuntimeError, match=r"no CUDA device.*pip install numba-cuda"):
        search_cuda(*batch(star(nights(20), 1.0)))


def test_no_transform(monkeypatch):
    monkeypatch.setattr(period_cuda, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"no Fourier transform.*cupy.*torch"):
        period_cuda._rfft()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mag": np.zeros(3)}, r"mag has 3 epochs, t has 20"),
        ({"offsets": np.array([0, 21])}, r"offsets must lie in 0…20"),
        ({"fmin": 0.0}, r"0 < fmin < fmax.*got fmin 0\.0"),
        ({"fmax": float("nan")}, r"fmax nan"),
        ({"oversampling": 0.5}, r"oversampling 0\.5"),
        ({"candidates": 0}, r"candidates 0"),
    ],
)
def test_what_is_refused_is_what_the_cpu_refuses(change, message):
    arguments = (
        dict(zip(("t", "mag", "magerr", "offsets"), batch(star(nights(20), 1.0)), strict=True)) | change
    )
    for function in (search, search_cuda):
        with pytest.raises(ValueError, match=message):
            function(**arguments)


def test_more_candidates_than_lists_hold_are_refused():
    with pytest.raises(ValueError, match="candidates must be at most 2048 on a CUDA device, got 2049"):
        search_cuda(*batch(star(nights(20), 1.0)), candidates=2049)


def test_the_cpus_module_does_not_load_cuda():
    code = "import sys, lightmill.pipeline.period; print([name for name in sys.modules if name[:10] == 'numba.cuda'])"
    assert python("-c", code).stdout.strip() == "[]"


BENCH = Path(__file__).parent / "bench" / "gpu_period.py"
SMALLEST = """
import runpy
cases = runpy.run_path({cases!r})
cases["simulate"]()
bench = runpy.run_path({bench!r})
bench["measure"].__globals__.update(ROUNDS=1, LIMITS={{"fmax": 0.5, "candidates": 1}})
print(bench["table"]("simulator", [bench["measure"]("30", 5e-6)]))
"""


def test_the_bench_runs():
    """Once, on one light curve, so that it never rots; its figures mean nothing here."""
    done = python("-c", SMALLEST.format(cases=__file__, bench=str(BENCH)), NUMBA_ENABLE_CUDASIM="1")
    assert done.returncode == 0, done.stderr
    assert "| 30 | 1 |" in done.stdout


def test_the_bench_says_where_there_is_no_gpu():
    done = python(str(BENCH), NUMBA_ENABLE_CUDASIM="0", CUDA_VISIBLE_DEVICES="-1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("no GPU: numba.cuda finds no CUDA device here")


if __name__ == "__main__":
    json.dump(failures(), sys.stdout)
