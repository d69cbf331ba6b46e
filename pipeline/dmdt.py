"""dm-dt images: 2-D histograms of all pairwise time and magnitude differences (Mahabal+2017, arXiv:1709.06257).

For a light curve with epochs sorted in time, every pair i < j gives dt = t_j − t_i ≥ 0 and dm = m_j − m_i. The image
counts the pairs in the cells of a grid, exactly as `numpy.histogram2d` on float64 differences does: bins are half
open, the last one is closed.

`counts_reference` says it slowly; `dmdt_kernel` tells how it is done fast, `dmdt_cuda` how on a GPU. `dmdt_images` is
what a network is given: the same counts, normalised, in a buffer of the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from lightmill.pipeline import dmdt_kernel
from lightmill.pipeline.ragged import ragged, real

__all__ = [
    "GRIDS",
    "NORMALISATIONS",
    "Grid",
    "Search",
    "check_threads",
    "counts_reference",
    "dmdt_counts",
    "dmdt_images",
    "normalise",
    "search",
    "side_by_side",
]

TABLE_CELLS = 8192  #: of the dm table: what most pairs use of it fits the first-level cache
NORMALISATIONS = ("count", "max", "l2", "paper")
SCRATCH = 2**18  #: bytes of counts that a thread keeps before it scales them: fits the second-level cache
RUNS = 8  #: a thread: enough that the last ones to finish leave little to wait for


@dataclass(frozen=True)
class Grid:
    """The edges of a dm-dt image."""

    dt_edges: tuple[float, ...]  #: (n_dt + 1,) [d], increasing, ≥ 0
    dm_edges: tuple[float, ...]  #: (n_dm + 1,) [mag], increasing

    @property
    def shape(self) -> tuple[int, int]:
        """(n_dm, n_dt), the shape of an image."""
        return len(self.dm_edges) - 1, len(self.dt_edges) - 1


def _symmetric(*positive: float) -> tuple[float, ...]:
    return (*(-x for x in reversed(positive)), 0.0, *positive)


GRIDS: dict[str, Grid] = {
    "mahabal2017": Grid(
        dt_edges=(
            1 / 145, 2 / 145, 3 / 145, 4 / 145, 1 / 25, 2 / 25, 3 / 25, 1.5, 2.5, 3.5, 4.5, 5.5, 7.0, 10.0, 20.0, 30.0,
            60.0, 90.0, 120.0, 240.0, 600.0, 960.0, 2000.0, 4000.0,
        ),
        dm_edges=_symmetric(0.1, 0.2, 0.3, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 5.0, 8.0),
    ),
    "scope": Grid(
        dt_edges=(
            0.0, 4 / 145, 1 / 25, 2 / 25, 3 / 25, 0.3, 0.75, 1.0, 1.5, 2.5, 3.5, 4.5, 5.5, 7.0, 10.0, 20.0, 30.0, 45.0,
            60.0, 90.0, 120.0, 180.0, 240.0, 360.0, 500.0, 650.0, 2000.0,
        ),
        dm_edges=_symmetric(0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.25, 1.5, 2.0, 2.5, 3.0, 4.5, 8.0),
    ),
}  # fmt: skip
"""Published grids: Mahabal+2017, section 3, and SCoPe (Healy+2024)."""


def dmdt_counts(
    t: np.ndarray,
    mag: np.ndarray,
    offsets: np.ndarray,
    dt_edges: Sequence[float] | np.ndarray,
    dm_edges: Sequence[float] | np.ndarray,
    *,
    threads: int = 1,
) -> np.ndarray:
    """Count pairs in the cells of a dm-dt grid, for every light curve of a ragged batch.

    Points whose time or magnitude is not finite are left out; unsorted light curves are sorted by time (stable). A cell
    counts 2³² − 1 pairs at most: nothing is lost in light curves of up to 92,682 epochs.

    Parameters
    ----------
    t, mag : (N,) float32 or float64 [d, mag]; read-only and strided views are accepted
    offsets : (n + 1,) integer; light curve i owns the epochs offsets[i]:offsets[i + 1]
    dt_edges, dm_edges : increasing bin edges [d], [mag]
    threads : how many count side by side; the counts are the same whatever it is. One light curve is not divided

    Returns
    -------
    (n, n_dm, n_dt) uint32

    Raises
    ------
    ValueError
        if lengths differ, offsets decrease or leave the arrays, edges are not finite and increasing, or threads < 1.

    Examples
    --------
    >>> dmdt_counts(np.array([0.0, 1.0, 3.0]), np.array([15.0, 15.5, 15.2]), np.array([0, 3]), [0, 2, 4], [-1, 0, 1])
    array([[[0, 1],
            [1, 1]]], dtype=uint32)
    """
    offsets, t, mag = ragged(offsets, t=t, mag=mag)
    bins = search(dt_edges, dm_edges)
    check_threads(threads)
    out = np.empty((len(offsets) - 1, *bins.shape), np.uint32)

    def count(a: int, b: int) -> None:
        dmdt_kernel.count(t, mag, offsets[a : b + 1], *bins, out[a:b])

    side_by_side(count, offsets, threads)
    return out


def dmdt_images(
    t: np.ndarray,
    mag: np.ndarray,
    offsets: np.ndarray,
    dt_edges: Sequence[float] | np.ndarray,
    dm_edges: Sequence[float] | np.ndarray,
    *,
    normalisation: str = "paper",
    out: np.ndarray | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Normalised dm-dt images of every light curve of a ragged batch, straight into a buffer of the caller's.

    Bit by bit what `normalise(dmdt_counts(...), normalisation)` gives, without the counts of the whole batch: they are
    made some light curves at a time, in SCRATCH bytes a thread, and scaled while they are in the cache.

    Parameters
    ----------
    t, mag, offsets, dt_edges, dm_edges, threads : as for `dmdt_counts`
    normalisation : one of NORMALISATIONS, see `normalise`
    out : (n, n_dm, n_dt) float32, or uint8 for `paper`, C-contiguous, overwritten; None: a new float32 array

    Returns
    -------
    `out`

    Raises
    ------
    ValueError
        as `dmdt_counts`; if the normalisation is unknown, or `out` is not such a buffer.

    Examples
    --------
    >>> batch = np.array([0.0, 1.0, 3.0]), np.array([15.0, 15.5, 15.2]), np.array([0, 3])
    >>> dmdt_images(*batch, [0, 2, 4], [-1, 0, 1], out=np.empty((1, 2, 2), np.uint8))
    array([[[ 0, 85],
            [85, 85]]], dtype=uint8)
    """
    offsets, t, mag = ragged(offsets, t=t, mag=mag)
    bins = search(dt_edges, dm_edges)
    shape = (len(offsets) - 1, *bins.shape)
    _known(normalisation)
    check_threads(threads)
    images = np.empty(shape, np.float32) if out is None else _buffer(out, shape, normalisation)
    how, block = NORMALISATIONS.index(normalisation), max(1, SCRATCH // (4 * bins.shape[0] * bins.shape[1]))

    def fill(first: int, last: int) -> None:
        scratch = np.empty((min(block, last - first), *bins.shape), np.uint32)
        for a in range(first, last, block):
            b = min(a + block, last)
            counts = scratch[: b - a]
            dmdt_kernel.count(t, mag, offsets[a : b + 1], *bins, counts)
            dmdt_kernel.scale(counts, how, images[a:b])

    side_by_side(fill, offsets, threads)
    return images


def normalise(counts: np.ndarray, how: str) -> np.ndarray:
    """Scale images of counts: (…, n_dm, n_dt) integer → float32, same shape.

    `count`: as they are. `max`: the largest cell is 1. `l2`: the Frobenius norm is 1 (SCoPe).
    `paper`: floor(255·N/N_pairs + 0.99999), 0…255, with N_pairs the pairs that fall into the grid
    (Mahabal+2017, equation 1). An image without pairs stays 0.
    """
    _known(how)
    if how == "count":
        return counts.astype(np.float32)
    if how == "max":
        scale = counts.max(axis=(-2, -1), keepdims=True).astype(np.float64)
    elif how == "l2":
        cells = counts.shape[-2] * counts.shape[-1]
        squares = counts.astype(np.float64).reshape(*counts.shape[:-2], cells) ** 2
        # in order, as `dmdt_kernel.scale` adds them: `sum` adds in pairs, which past 2⁵³ may differ in the last bit
        scale = np.sqrt(np.cumsum(squares, axis=-1)[..., -1])[..., None, None]
    else:
        scale = counts.sum(axis=(-2, -1), keepdims=True, dtype=np.float64)
    share = counts / np.where(scale > 0, scale, 1.0)
    if how == "paper":
        share = np.floor(255.0 * share + 0.99999)
    return share.astype(np.float32)


def counts_reference(
    t: np.ndarray, mag: np.ndarray, dt_edges: Sequence[float], dm_edges: Sequence[float]
) -> np.ndarray:
    """The image of one light curve by `numpy.histogram2d` on all pairs: the definition. (n_dm, n_dt) uint32."""
    t, mag = np.asarray(t, np.float64), np.asarray(mag, np.float64)
    good = np.isfinite(t) & np.isfinite(mag)
    order = np.argsort(t[good], kind="stable")
    t, mag = t[good][order], mag[good][order]
    i, j = np.triu_indices(len(t), 1)
    if len(i) == 0:
        return np.zeros((len(dm_edges) - 1, len(dt_edges) - 1), np.uint32)
    bins = [np.asarray(dm_edges, np.float64), np.asarray(dt_edges, np.float64)]
    counts = np.histogram2d(mag[j] - mag[i], t[j] - t[i], bins=bins)[0]
    return np.minimum(counts, dmdt_kernel.MOST).astype(np.uint32)


class Search(NamedTuple):
    """A grid as the kernels search it: the arguments of `dmdt_kernel.count` between the batch and `out`."""

    dt: np.ndarray  #: (n_dt + 1 + PADDING,) float64 [d]: the edges, the last one an ulp up, then +inf
    dm: np.ndarray  #: (n_dm + 2,) float64 [mag]: the edges, the last one an ulp up, then +inf
    few: int  #: epochs below which all pairs are looked up in the tables; 0: there are none
    dt_table: np.ndarray  #: uint8, edges at or below a dt, by its leading bits
    dt_first: np.int64  #: the leading bits of the table's first cell
    dm_table: np.ndarray  #: uint8, edges at or below a dm, by equal steps
    dm_scale: float  #: steps a magnitude
    dt_cells: np.ndarray  #: uint32, a dt's part of a cell's index, by place as `dt_table`; see `_table`
    dm_cells: np.ndarray  #: uint32, a dm's part; their sum is the index

    @property
    def shape(self) -> tuple[int, int]:
        """(n_dm, n_dt), the shape of an image."""
        return len(self.dm) - 2, len(self.dt) - 1 - dmdt_kernel.PADDING


def search(dt_edges: Sequence[float] | np.ndarray, dm_edges: Sequence[float] | np.ndarray) -> Search:
    """Check the edges of a grid, and lay out what the kernels need to find a pair's cell.

    Raises ValueError if edges are not finite and increasing.
    """
    dt, dm = _edges("dt_edges", dt_edges), _edges("dm_edges", dm_edges)
    return _search(dt.tobytes(), dm.tobytes(), dmdt_kernel.FEW)


@lru_cache(maxsize=32)
def _search(dt_edges: bytes, dm_edges: bytes, few: int) -> Search:
    """Of edges that are as they must be. It takes longer than counting a hundred light curves of thirty epochs."""
    dt, dm = _closed(np.frombuffer(dt_edges)), _closed(np.frombuffer(dm_edges))
    tables = _tables(dt, dm)
    if not tables:
        few, none = 0, np.zeros(1, np.uint8)
        tables = none, np.int64(0), none, 0.0, *np.zeros((2, 1), np.uint32)
    found = Search(np.append(dt, np.full(dmdt_kernel.PADDING, np.inf)), np.append(dm, np.inf), few, *tables)
    for array in found:
        if isinstance(array, np.ndarray):
            array.flags.writeable = False  # whoever asks for this grid is given the same arrays
    return found


def check_threads(threads: int) -> None:
    """Raise ValueError if so many threads cannot be."""
    if not isinstance(threads, int | np.integer) or threads < 1:
        raise ValueError(f"threads must be a whole number from 1, got {threads!r}")


def side_by_side(work: Callable[[int, int], None], offsets: np.ndarray, threads: int) -> None:
    """Call work(a, b) so that the runs a:b of light curves cover the batch, on so many threads.

    A pool of threads, as the kernels hold no GIL, and not Numba's `prange`: for two threads both take 5–9 % more
    processor time than one, but `prange` is a second version of all kernels to compile (6–8 s), and its threading
    layers forbid what a library cannot promise, forks (OpenMP) or calls from two threads (workqueue).
    """
    n = len(offsets) - 1
    if threads == 1 or n < 2:
        return work(0, n)
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work, a, b) for a, b in _runs(offsets, RUNS * threads)]:
            done.result()


def _runs(offsets: np.ndarray, pieces: int) -> list[tuple[int, int]]:
    """Cut a batch into at most so many runs of light curves, each with about as many pairs; the one with most first."""
    lengths = np.diff(offsets)
    pairs = np.concatenate([[0], np.cumsum(lengths * (lengths + 1) // 2 + 1)])  # +: what no pair costs
    cuts = np.unique(np.searchsorted(pairs, np.linspace(0, pairs[-1], pieces + 1)))
    order = np.argsort(-np.diff(pairs[cuts]), kind="stable")
    return [(int(cuts[k]), int(cuts[k + 1])) for k in order]


def _known(normalisation: str) -> None:
    if normalisation not in NORMALISATIONS:
        raise ValueError(f"unknown normalisation {normalisation!r}; known are {', '.join(NORMALISATIONS)}")


def _buffer(out: np.ndarray, shape: tuple[int, ...], normalisation: str) -> np.ndarray:
    """`out`, if images of this shape and normalisation can be written into it."""
    if not isinstance(out, np.ndarray):
        raise ValueError(f"out must be a numpy array, got {type(out).__name__}")
    if out.shape != shape:
        raise ValueError(f"out must have shape {shape} for this batch and grid, got {out.shape}")
    if out.dtype not in (np.float32, np.uint8):
        raise ValueError(f"out must be float32 or uint8, got {out.dtype}")
    if out.dtype == np.uint8 and normalisation != "paper":
        raise ValueError(
            f"out must be float32 for normalisation {normalisation!r}, got uint8 (that is for 'paper')"
        )
    if not out.flags.c_contiguous:
        raise ValueError(f"out must be C-contiguous, got strides {out.strides} for shape {out.shape}")
    if not out.flags.writeable:
        raise ValueError("out must be writeable, got a read-only array")
    return out


def _edges(name: str, edges: Sequence[float] | np.ndarray) -> np.ndarray:
    array = real(name, edges).astype(np.float64)
    if array.ndim != 1 or len(array) < 2:
        raise ValueError(f"{name} must be a vector of at least two edges, got shape {array.shape}")
    if not np.isfinite(array).all():
        at = int(np.flatnonzero(~np.isfinite(array))[0])
        raise ValueError(f"{name} must be finite, got {array[at]} at {at}")
    if (array[1:] <= array[:-1]).any():
        at = int(np.flatnonzero(array[1:] <= array[:-1])[0])
        raise ValueError(f"{name} must increase, got {array[at]} before {array[at + 1]} at {at}")
    return array


def _closed(edges: np.ndarray) -> np.ndarray:
    """The last edge one ulp up: the closed last bin becomes half open like the others."""
    with np.errstate(over="ignore"):  # of the largest float
        return np.append(edges[:-1], np.nextafter(edges[-1], np.inf))


def _tables(dt: np.ndarray, dm: np.ndarray) -> tuple[Any, ...] | None:
    """The fields of `Search` from `dt_table` on; None where two edges would share a place.

    A dt's place is its leading bits less those of the returned number, a dm's the whole steps above the first edge, of
    which there are the returned number a magnitude. Rounded or not, neither falls as its argument grows: a value in a
    lower place than an edge is below it, one in a higher place above. Only in the edge's own place it may be either.
    """
    positive = dt[dt > 0]
    n_dt, n_dm = len(dt) - 1, len(dm) - 1
    with np.errstate(over="ignore", divide="ignore"):
        scale = TABLE_CELLS / (dm[-1] - dm[0])
    if len(positive) == 0 or not 0 < scale < np.inf or max(len(dt), len(dm)) > 255:
        return None
    shift = 52 - dmdt_kernel.MANTISSA
    first = (positive[0].view(np.int64) >> shift) - 1
    dt_places = np.maximum((dt.view(np.int64) >> shift) - first, 0)
    dm_places = ((dm - dm[0]) * scale).astype(np.int64)
    if (np.diff(dt_places) == 0).any() or (np.diff(dm_places) == 0).any():
        return None
    dt_table, dt_cells = _table(dt_places, 1, n_dt * n_dm)
    dm_table, dm_cells = _table(dm_places, n_dt, n_dt * n_dm)
    return dt_table, first, dm_table, float(scale), dt_cells, dm_cells


def _table(edges: np.ndarray, step: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """By place, from the places of edges: how many edges are below, and the part of a cell's index.

    The index counts bins in steps of `step`. Outside the grid it is `cells`, which no sum of two parts that are inside
    reaches; in the place of an edge more than twice that, which no sum of others reaches: a comparison tells the bin.
    """
    below = np.searchsorted(edges, np.arange(edges[-1] + 2))
    index = np.where((below > 0) & (below < len(edges)), (below - 1) * step, cells)
    index[edges] = 2 * cells + 1
    return below.astype(np.uint8), index.astype(np.uint32)
