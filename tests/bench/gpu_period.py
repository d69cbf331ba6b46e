"""The period search on a GPU: checked against the CPU's candidates, and timed beside one core.

    python tests/bench/gpu_period.py                  a Markdown table
    python tests/bench/gpu_period.py --format json    the same figures for programs

Exit code 1 if there is no GPU, or if candidates differ. Nothing of this needs more than `pip install --no-deps` of
Lightmill beside numpy, scipy, numba, numba-cuda, CuPy or PyTorch, and what tests/test_period_cuda.py imports.

*whole*: `search(…, device="cuda")`, from arrays of the host to arrays of the host. *stages*: of one more run, the
device waited for after each; *host* is what remains: weighing, the plan of the folds, all copies but the last one's.
"""

from __future__ import annotations

import argparse
import json
import runpy
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numba import cuda

from lightmill.pipeline import dmdt_cuda, period_cuda, period_cuda_fold
from lightmill.pipeline.period import search

CASES = runpy.run_path(str(Path(__file__).parents[1] / "test_period_cuda.py"))
#: name → (epochs, light curves) of each kind in the batch
BATCHES = {
    "30": [(30, 50_000)],
    "100": [(100, 50_000)],
    "300": [(300, 20_000)],
    "1000": [(1000, 5000)],
    "3000": [(3000, 1000)],
    "one of 10000 among 100": [(100, 10_000), (10_000, 1), (100, 10_000)],
}
STAGES = {
    "spread": (period_cuda_fold, "spread"),
    "transform": (period_cuda, "_transform"),
    "peaks": (period_cuda_fold, "peaks"),
    "judge": (period_cuda, "judge"),
    "upload": (period_cuda.Curves, "upload"),
    "write": (period_cuda, "_write"),
}
LIMITS: dict[str, Any] = {}  #: of the search: its own
ROUNDS = 3
COMPARED = 200  #: light curves of a batch that one core searches, for the time and to compare with
AGREE = 0.99  #: share of candidates found by both, at least: a peak in 30 may be as high as the next
NO_GPU = (
    "no GPU: numba.cuda finds no CUDA device here; run this where there is one, with numba-cuda installed\n"
)


@dataclass(frozen=True)
class Row:
    """One batch on the device and on one core."""

    epochs: str
    light_curves: int
    curves_per_s: float
    times_one_core: float
    agreement: float  #: share of the CPU's candidates with the same frequency and about the same rank
    best_agreement: float  #: share of light curves with the same frequency of the highest rank
    stages_us: dict[str, float]  #: microseconds a light curve


def cadence(kinds: list[tuple[int, int]], scale: float) -> tuple[np.ndarray, ...]:
    """ZTF-like light curves in five seasons, half of them periodic: t, mag, magerr, offsets."""
    rng = np.random.default_rng(1)
    t, lengths = [], []
    for epochs, curves in kinds:
        shape = max(1, int(curves * scale)), epochs
        season = rng.integers(0, 5, shape) * 365.25
        nights = np.sort(season + rng.integers(0, 210, shape) + rng.uniform(0, 0.35, shape), axis=1)
        t.append((nights - nights[:, :1]).ravel())
        lengths += [epochs] * shape[0]
    times, offsets = np.concatenate(t), np.concatenate([[0], np.cumsum(lengths)])
    curve = np.repeat(np.arange(len(lengths)), lengths)
    frequency, amplitude = 10 ** rng.uniform(-1.5, 1, len(lengths)), 0.3 * (np.arange(len(lengths)) % 2)
    wave = amplitude[curve] * np.sin(2 * np.pi * frequency[curve] * times)
    return times, 17 + wave + 0.05 * rng.standard_normal(len(times)), np.full(len(times), 0.05), offsets


def seconds(work: Callable[[], object]) -> float:
    """Median time of `work`; the first call, which compiles, is not timed."""
    times = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def stages(work: Callable[[], object]) -> dict[str, float]:
    """Seconds that `work` spends in each stage."""
    spent = dict.fromkeys(STAGES, 0.0)

    def timed(name: str, stage: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **keywords: Any) -> Any:
            start = time.perf_counter()
            result = stage(*arguments, **keywords)
            cuda.synchronize()
            spent[name] += time.perf_counter() - start
            return result

        return run

    patches = [
        mock.patch.object(owner, attribute, timed(name, getattr(owner, attribute)))
        for name, (owner, attribute) in STAGES.items()
    ]
    for patch in patches:
        patch.start()
    start = time.perf_counter()
    work()
    whole = time.perf_counter() - start
    for patch in patches:
        patch.stop()
    return {"host": whole - sum(spent.values())} | spent


def measure(epochs: str, scale: float) -> Row:
    """Check and time one batch. RuntimeError if candidates differ."""
    t, mag, magerr, offsets = curves = cadence(BATCHES[epochs], scale)
    n = len(offsets) - 1
    compared = min(n, COMPARED)
    first = *(values[: offsets[compared]] for values in (t, mag, magerr)), offsets[: compared + 1]
    search(*(values[: offsets[1]] for values in (t, mag, magerr)), offsets[:2], **LIMITS)  # compiles
    start = time.perf_counter()
    expected = search(*first, **LIMITS)
    core = (time.perf_counter() - start) / compared
    baseline = t[offsets[1 : compared + 1] - 1] - t[offsets[:compared]]
    found = search(*first, **LIMITS, device="cuda")
    share = float(np.nanmean(CASES["agreement"](found, expected, baseline)))
    best = float((np.abs(found.frequency - expected.frequency) < 1e-3 / baseline).mean())
    if min(share, best) < AGREE:
        raise RuntimeError(
            f"light curves of {epochs} epochs: {share:.2%} of the CPU's candidates were found, and {best:.2%} of its "
            f"best frequencies; both must be {AGREE:.0%}"
        )

    def whole() -> None:
        search(*curves, **LIMITS, device="cuda")

    took = seconds(whole) / n
    parts = {name: spent / n * 1e6 for name, spent in stages(whole).items()}
    return Row(epochs, n, 1 / took, core / took, share, best, parts)


def checks() -> str:
    """Run the cases of tests/test_period_cuda.py on the device; what went wrong, or ""."""
    return "\n".join(f"{name}:\n{trace}" for name, trace in CASES["failures"]().items() if trace)


def table(card: str, rows: list[Row]) -> str:
    """Markdown."""
    names = ["host", *STAGES]
    heads = ["epochs", "light curves", "curves/s", "÷ one core", "candidates alike", "best alike"]
    lines = [
        f"{card}: the whole search, and its stages in µs a light curve.",
        "",
        f"| {' | '.join([*heads, *names])} |",
        "|---" * (len(heads) + len(names)) + "|",
    ]
    lines += [
        f"| {r.epochs} | {r.light_curves} | {r.curves_per_s:.3g} | {r.times_one_core:.1f} | {r.agreement:.2%} "
        f"| {r.best_agreement:.2%} | {' | '.join(f'{r.stages_us[name]:.2f}' for name in names)} |"
        for r in rows
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--format", choices=["table", "json"], default="table")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the light curves")
    parser.add_argument("--only", choices=BATCHES, nargs="*", default=list(BATCHES), metavar="EPOCHS")
    options = parser.parse_args(arguments)
    if not dmdt_cuda.available():
        sys.stderr.write(NO_GPU)
        return 1
    # the checks' batches are far too small for a GPU, and numba.cuda says so each time
    warnings.filterwarnings("ignore", ".*Grid size")
    wrong = checks()
    if wrong:
        sys.stderr.write(f"{wrong}\n")
        return 1
    card = getattr(cuda.current_context().device, "name", "simulator")
    card = card.decode() if isinstance(card, bytes) else card
    rows = [measure(epochs, options.scale) for epochs in options.only]
    if options.format == "json":
        sys.stdout.write(json.dumps({"card": card, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    else:
        sys.stdout.write(table(card, rows) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
