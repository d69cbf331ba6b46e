"""dm-dt pairs counted on a GPU (numba.cuda): the counts of `dmdt.dmdt_counts`, bit by bit.

The work is a list of *tiles*: at most TILE pairs of one light curve. A warp counts a tile in a histogram of its own in
shared memory, and adds that to the light curve's counts. So a light curve of ten epochs costs one tile, one of ten
thousand is counted by six thousand warps, and nothing is padded.

Pairs are numbered as steps around a ring: pair q of n points is i and i + s (mod n), with i = q mod n and s = q div n
+ 1, which for q < n(n − 1)/2 is each pair once. Any range of numbers is a tile, every lane has a pair, and neighbouring
lanes read neighbouring points.

A pair's cell is found as `dmdt_kernel` does for few epochs: two tables, and one comparison each with the true edge, in
float64; by bisection in grids that have no tables. Points that are not finite are dropped, and the rest sorted, on the
host, by the code of the CPU's kernel. There is no sum of floats, and the order of integer sums does not matter: that is
why the counts are identical.

This module needs numba.cuda: Numba's own, or the package numba-cuda, which replaces it. Nothing else imports it.
"""

# mypy: disable-error-code="operator, call-overload, call-arg"
# (Numba writes the types of threadIdx and of shared arrays for its compiler, not for mypy)

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import cuda, uint32

from lightmill.pipeline import dmdt_kernel
from lightmill.pipeline.dmdt import Search, check_threads, search, side_by_side
from lightmill.pipeline.ragged import ragged

__all__ = ["LightCurves", "available", "count", "dmdt_counts_cuda", "upload", "upload_grid"]

LANES = 32  #: threads that count a tile together: a warp
WARPS = 8  #: of a block, at most
TILE = 8192  #: pairs, at most: so many that the histogram's way in and out is a small part of it
SHARED = 48 * 1024  #: bytes of shared memory that every device gives a block without being asked
LONGEST = 92_682  #: epochs whose pairs a cell of 32 bits can count
IMAGES = 2**28  #: bytes of counts on the device at once
SHIFT, PADDING = np.int64(52 - dmdt_kernel.MANTISSA), dmdt_kernel.PADDING

NO_DEVICE = (
    "no CUDA device: numba.cuda finds no driver or no GPU. Install NVIDIA's driver and `pip install numba-cuda[cu13]` "
    "([cu12] for CUDA 12), or count on the CPU with dmdt_counts; NUMBA_ENABLE_CUDASIM=1, set before Python starts, "
    "simulates a device, slowly"
)


def available() -> bool:
    """Whether there is a CUDA device, or numba.cuda's simulator stands in for one."""
    return bool(cuda.is_available())


def dmdt_counts_cuda(
    t: np.ndarray,
    mag: np.ndarray,
    offsets: np.ndarray,
    dt_edges: Sequence[float] | np.ndarray,
    dm_edges: Sequence[float] | np.ndarray,
    *,
    threads: int = 1,
) -> np.ndarray:
    """Count pairs in the cells of a dm-dt grid on the current CUDA device.

    Parameters, result and errors are those of `dmdt.dmdt_counts`; `threads` of the host sort and drop points. The
    device holds the batch's epochs once, 16 bytes each, and 256 MiB of counts at a time. Light curves of more than
    LONGEST epochs, where counts may end at 2³² − 1, are left to the CPU.

    Raises
    ------
    ValueError
        as `dmdt_counts`.
    RuntimeError
        if there is no CUDA device.
    """
    offsets, t, mag = ragged(offsets, t=t, mag=mag)
    grid = search(dt_edges, dm_edges)
    check_threads(threads)
    if not available():
        raise RuntimeError(NO_DEVICE)
    n, cells = len(offsets) - 1, grid.shape[0] * grid.shape[1]
    out, on_host, grid = np.empty((n, cells), np.uint32), grid, upload_grid(grid)
    at_once = max(1, IMAGES // (4 * cells))
    for a in range(0, n, at_once):
        b = min(a + at_once, n)
        curves = upload(t, mag, offsets[a : b + 1], threads=threads)
        count(curves, grid).copy_to_host(out[a:b])
    images = out.reshape(n, *grid.shape)
    for i in np.flatnonzero(np.diff(offsets) > LONGEST):
        dmdt_kernel.count(t, mag, offsets[i : i + 2], *on_host, images[i : i + 1])
    return images


@dataclass(frozen=True)
class LightCurves:
    """A ragged batch on the device, and the tiles that its pairs are cut into. All fields are device arrays."""

    t: Any  #: (N,) float64 [d], finite and sorted within a light curve
    mag: Any  #: (N,) float64 [mag]
    starts: Any  #: (n,) int64, where each light curve begins
    lengths: Any  #: (n,) int64, how many epochs of it are left; 0 if they are more than LONGEST
    tile_curve: Any  #: (n_tiles,) int32, the light curve of a tile
    tile_rank: Any  #: (n_tiles,) int32, which one of the light curve's tiles it is


def upload(t: np.ndarray, mag: np.ndarray, offsets: np.ndarray, *, threads: int = 1) -> LightCurves:
    """Drop and sort points on the host, cut the pairs into tiles, and move all to the device.

    t, mag, offsets : as `ragged` returns them
    """
    first = offsets[0]
    t, mag, offsets = t[first : offsets[-1]], mag[first : offsets[-1]], offsets - first
    ts, ms, lengths = np.empty_like(t), np.empty_like(mag), np.empty(len(offsets) - 1, np.int64)

    def pack(a: int, b: int) -> None:
        dmdt_kernel.pack(t, mag, offsets[a : b + 1], ts, ms, lengths[a:b])

    side_by_side(pack, offsets, threads)
    lengths[lengths > LONGEST] = 0
    tile_curve, tile_rank = _tiles(lengths)
    return LightCurves(*map(cuda.to_device, (ts, ms, offsets[:-1], lengths, tile_curve, tile_rank)))


def upload_grid(grid: Search) -> Search:
    """The same with its arrays on the device."""
    names = "dt", "dm", "dt_table", "dm_table"
    return grid._replace(**{name: cuda.to_device(getattr(grid, name)) for name in names})


def _tiles(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(light curve, number within it) of each tile, longest light curves first: a block's warps get tiles alike."""
    order = np.argsort(-lengths, kind="stable")
    tiles = (lengths * (lengths - 1) // 2 + TILE - 1)[order] // TILE
    before = np.cumsum(tiles) - tiles
    rank = np.arange(tiles.sum()) - np.repeat(before, tiles)
    return np.repeat(order, tiles).astype(np.int32), rank.astype(np.int32)


def count(curves: LightCurves, grid: Search) -> Any:
    """The counts of light curves on the device, in a grid on the device: a device array, (n, n_dm · n_dt) uint32.

    The device may still be at work when this returns.
    """
    n, n_tiles, cells = len(curves.lengths), len(curves.tile_curve), grid.shape[0] * grid.shape[1]
    out = cuda.device_array((n, cells), np.uint32)
    if n > 0:
        _clear[n, LANES * WARPS](out)
    if n_tiles == 0:
        return out
    warps = min(WARPS, SHARED // (4 * cells))
    private = warps > 0  # else a histogram is too large, and pairs are added to the counts one by one
    block = (LANES, warps if private else WARPS)
    blocks = (n_tiles + block[1] - 1) // block[1]
    _count_tiles[blocks, block, 0, 4 * cells * warps](
        curves.t, curves.mag, curves.starts, curves.lengths, curves.tile_curve, curves.tile_rank, TILE,
        grid.dt, grid.dm, grid.few > 0, grid.dt_table, grid.dt_first, grid.dm_table, grid.dm_scale, private, out,
    )  # fmt: skip
    return out


@cuda.jit
def _clear(counts):
    """A row of zeros a block."""
    for c in range(cuda.threadIdx.x, counts.shape[1], cuda.blockDim.x):
        counts[cuda.blockIdx.x, c] = np.uint32(0)


@cuda.jit
def _count_tiles(
    ts, ms, starts, lengths, tile_curve, tile_rank, tile_pairs,
    dt, dm, tables, dt_table, dt_first, dm_table, dm_scale, private, out,
):  # fmt: skip
    """One tile a warp. threadIdx.x is the lane, threadIdx.y the warp."""
    lane, lanes, cells = cuda.threadIdx.x, cuda.blockDim.x, out.shape[1]
    tile, own = cuda.blockIdx.x * cuda.blockDim.y + cuda.threadIdx.y, cuda.threadIdx.y * cells
    histograms = cuda.shared.array(0, uint32)
    if private:
        for c in range(lane, cells, lanes):
            histograms[own + c] = np.uint32(0)
    cuda.syncthreads()  # of the warp would do: the simulator has none
    if tile < tile_curve.size:
        curve = tile_curve[tile]
        a, n = starts[curve], lengths[curve]
        t, m = ts[a : a + n], ms[a : a + n]
        first = np.int64(tile_rank[tile]) * tile_pairs
        size = np.int32(min(tile_pairs, n * (n - 1) // 2 - first))
        i, step, n = np.uint32((first + lane) % n), np.uint32((first + lane) // n + 1), np.uint32(n)
        dm_low, n_dt, n_dm = dm[0], np.int32(dt.size - 1 - PADDING), np.int32(dm.size - 2)
        for _ in range(lane, size, lanes):
            j = np.uint32(i + step)
            earlier, later = (i, j) if j < n else (np.uint32(j - n), i)
            d, x = t[later] - t[earlier], m[later] - m[earlier]
            if tables:
                k, e = _look_up(d, x, dt, dm, dt_table, dt_first, dm_table, dm_low, dm_scale)
            else:
                k, e = _at_or_below(dt, d), _at_or_below(dm, x)
            if 0 < k <= n_dt and 0 < e <= n_dm:
                cell = np.uint32((e - 1) * n_dt + k - 1)
                if private:
                    cuda.atomic.add(histograms, np.uint32(own + cell), np.uint32(1))
                else:
                    cuda.atomic.add(out, (curve, cell), np.uint32(1))
            i = np.uint32(i + lanes)
            while i >= n:
                i, step = np.uint32(i - n), np.uint32(step + 1)
    cuda.syncthreads()
    if private and tile < tile_curve.size:
        for c in range(lane, cells, lanes):
            pairs = histograms[own + c]
            if pairs > 0:
                cuda.atomic.add(out, (curve, c), pairs)


@cuda.jit(device=True)
def _look_up(d, x, dt, dm, dt_table, dt_first, dm_table, dm_low, dm_scale):
    """How many edges of dt and dm lie at or below d and x, by the tables of `dmdt.search`."""
    key = np.int32(d.view(np.int64) >> SHIFT) - np.int32(dt_first)
    k = np.uint32(dt_table[np.uint32(min(max(key, np.int32(0)), np.int32(dt_table.size - 1)))])
    step = min(max((x - dm_low) * dm_scale, 0.0), np.float64(dm_table.size - 1))
    e = np.uint32(dm_table[np.uint32(step)])
    return np.int32(k + (d >= dt[k])), np.int32(e + (x >= dm[e]))


@cuda.jit(device=True)
def _at_or_below(edges, value):
    """How many of the edges lie at or below a value, by bisection."""
    low, high = 0, edges.size
    while low < high:
        middle = (low + high) // 2
        if edges[middle] <= value:
            low = middle + 1
        else:
            high = middle
    return low
