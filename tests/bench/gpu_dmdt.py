"""dm-dt pairs on a GPU: checked against the CPU's counts, and timed beside one core and the card's shared memory.

    python tests/bench/gpu_dmdt.py                  a Markdown table
    python tests/bench/gpu_dmdt.py --format json    the same figures for programs

Exit code 1 if there is no GPU, or if a count differs. Nothing of this needs more than `pip install --no-deps` of
Lightmill beside numpy, numba, numba-cuda and what tests/test_dmdt_cuda.py imports.

*kernel*: light curves and counts stay on the device. *whole*: `dmdt_counts_cuda`, with the sort on the host and both
copies. *limit*: what shared memory alone would allow, a conflict-free atomic addition a pair, measured in the same run.
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

import numpy as np
from numba import cuda, uint32

from lightmill.pipeline import dmdt_cuda
from lightmill.pipeline.dmdt import GRIDS, dmdt_counts, search
from lightmill.pipeline.ragged import ragged

GRID = GRIDS["mahabal2017"]
#: name → (epochs, light curves) of each kind in the batch
BATCHES = {
    "30": [(30, 200_000)],
    "100": [(100, 50_000)],
    "300": [(300, 10_000)],
    "1000": [(1000, 2000)],
    "3000": [(3000, 300)],
    "one of 10000 among 30": [(30, 25_000), (10_000, 1), (30, 25_000)],
}
ROUNDS = 7
THREADS = 256  #: of a block that measures atomics
CELLS = 512  #: a warp's: as many as an image has
BLOCK_CELLS = THREADS // 32 * CELLS
NO_GPU = (
    "no GPU: numba.cuda finds no CUDA device here; run this where there is one, with numba-cuda installed\n"
)


@dataclass(frozen=True)
class Row:
    """One batch on the device and on one core."""

    epochs: str
    light_curves: int
    pairs: int
    kernel_pairs_per_s: float
    kernel_curves_per_s: float
    whole_curves_per_s: float
    kernel_times_one_core: float
    whole_times_one_core: float
    share_of_limit: float  #: kernel_pairs_per_s over atomic additions/s


def seconds(work: Callable[[], object]) -> float:
    """Median time of `work`, with all that it started on the device; the first call, which compiles, is not timed."""
    times = []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        work()
        cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def cadence(kinds: list[tuple[int, int]], scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """t, mag, offsets of ZTF-like light curves in five seasons."""
    rng = np.random.default_rng(1)
    t, lengths = [], []
    for epochs, curves in kinds:
        shape = max(1, int(curves * scale)), epochs
        season = rng.integers(0, 5, shape) * 365.25
        nights = season + rng.integers(0, 210, shape) + rng.uniform(0, 0.35, shape)
        t.append(np.sort(nights, axis=1).ravel())
        lengths += [epochs] * shape[0]
    times = np.concatenate(t)
    return times, 17 + 0.3 * rng.standard_normal(len(times)), np.concatenate([[0], np.cumsum(lengths)])


@cuda.jit
def _add(rounds, out):
    """Every thread adds `rounds` times to its column of its warp's cells, no two lanes in one bank."""
    cells = cuda.shared.array(BLOCK_CELLS, uint32)
    for c in range(cuda.threadIdx.x, BLOCK_CELLS, THREADS):
        cells[c] = uint32(0)
    cuda.syncthreads()
    at = np.uint32(cuda.threadIdx.x // 32 * CELLS + cuda.threadIdx.x % 32)
    for _ in range(rounds):
        for c in range(0, CELLS, 32):  # unrolled: nothing but additions
            cuda.atomic.add(cells, np.uint32(at + c), uint32(1))
    cuda.syncthreads()
    out[cuda.blockIdx.x] = cells[at]


def atomics_per_s(scale: float) -> float:
    """Conflict-free additions a second to shared memory, on all multiprocessors together."""
    blocks, rounds = max(1, int(8192 * scale)), max(1, int(512 * scale))
    out = cuda.device_array(blocks, np.uint32)
    additions = blocks * THREADS * rounds * (CELLS // 32)
    return additions / seconds(lambda: _add[blocks, THREADS](rounds, out))


def measure(epochs: str, scale: float, limit: float) -> Row:
    """Check and time one batch. RuntimeError if a count differs."""
    t, mag, offsets = cadence(BATCHES[epochs], scale)
    grid, edges = search(GRID.dt_edges, GRID.dm_edges), (GRID.dt_edges, GRID.dm_edges)
    expected = dmdt_counts(t, mag, offsets, *edges)
    if (dmdt_cuda.dmdt_counts_cuda(t, mag, offsets, *edges) != expected).any():
        raise RuntimeError(f"counts of light curves of {epochs} epochs differ from the CPU's")
    start = time.perf_counter()
    dmdt_counts(t, mag, offsets, *edges)
    core = time.perf_counter() - start
    checked, t, mag = ragged(offsets, t=t, mag=mag)
    curves, grid = dmdt_cuda.upload(t, mag, checked), dmdt_cuda.upload_grid(grid)
    kernel = seconds(lambda: dmdt_cuda.count(curves, grid))
    whole = seconds(lambda: dmdt_cuda.dmdt_counts_cuda(t, mag, offsets, *edges))
    lengths = np.diff(offsets)
    n, pairs = len(lengths), int((lengths * (lengths - 1) // 2).sum())
    return Row(
        epochs, n, pairs, pairs / kernel, n / kernel, n / whole, core / kernel, core / whole, pairs / kernel / limit
    )  # fmt: skip


def checks() -> str:
    """Run the cases of tests/test_dmdt_cuda.py on the device; what went wrong, or ""."""
    cases = runpy.run_path(str(Path(__file__).parents[1] / "test_dmdt_cuda.py"))
    return "\n".join(f"{name}:\n{trace}" for name, trace in cases["failures"]().items() if trace)


def table(card: str, limit: float, rows: list[Row]) -> str:
    """Markdown."""
    lines = [
        f"{card}: {limit:.3g} conflict-free shared atomic additions/s; all counts are the CPU's.",
        "",
        "| epochs | light curves | kernel, pairs/s | kernel, curves/s | whole, curves/s | kernel ÷ core | whole ÷ core "
        "| of the limit |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.epochs} | {r.light_curves} | {r.kernel_pairs_per_s:.3g} | {r.kernel_curves_per_s:.3g} | "
        f"{r.whole_curves_per_s:.3g} | {r.kernel_times_one_core:.1f} | {r.whole_times_one_core:.1f} | "
        f"{r.share_of_limit:.0%} |"
        for r in rows
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--format", choices=["table", "json"], default="table")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="share of the light curves (for the simulator)"
    )
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
    limit = atomics_per_s(options.scale)
    rows = [measure(epochs, options.scale, limit) for epochs in options.only]
    if options.format == "json":
        figures = {"card": card, "atomics_per_s": limit, "rows": [asdict(row) for row in rows]}
        sys.stdout.write(json.dumps(figures, indent=1) + "\n")
    else:
        sys.stdout.write(table(card, limit, rows) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
