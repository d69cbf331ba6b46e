"""dm-dt images: 2-D histograms of all pairwise time and magnitude differences (Mahabal+2017, arXiv:1709.06257).

For a light curve with epochs sorted in time, every pair i < j gives dt = t_j − t_i ≥ 0 and dm = m_j − m_i. The image
counts the pairs in the cells of a grid, exactly as `numpy.histogram2d` on float64 differences does: bins are half
open, the last one is closed.

How it is fast: in time order dt only grows with j, so its bin is found by a pointer that moves forward. dm is looked
up: a fine uniform table gives the bin of the cell's left border and a comparison or two with the true edges
corrects it, so that the result never depends on the table's rounding. `counts_reference` is the same, said slowly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from lightmill.pipeline.ragged import ragged

__all__ = ["GRIDS", "NORMALISATIONS", "Grid", "counts_reference", "dmdt_counts", "normalise"]

TABLE_CELLS = 4096
NORMALISATIONS = ("count", "max", "l2", "paper")


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
) -> np.ndarray:
    """Count pairs in the cells of a dm-dt grid, for every light curve of a ragged batch.

    Points whose time or magnitude is not finite are left out; unsorted light curves are sorted by time (stable).

    Parameters
    ----------
    t, mag : (N,) float32 or float64 [d, mag]; read-only and strided views are accepted
    offsets : (n + 1,) integer; light curve i owns the epochs offsets[i]:offsets[i + 1]
    dt_edges, dm_edges : increasing bin edges [d], [mag]

    Returns
    -------
    (n, n_dm, n_dt) uint32

    Raises
    ------
    ValueError
        if lengths differ, offsets decrease or leave the arrays, or edges are not finite and increasing.

    Examples
    --------
    >>> dmdt_counts(np.array([0.0, 1.0, 3.0]), np.array([15.0, 15.5, 15.2]), np.array([0, 3]), [0, 2, 4], [-1, 0, 1])
    array([[[0, 1],
            [1, 1]]], dtype=uint32)
    """
    offsets, t, mag = ragged(offsets, t=t, mag=mag)
    dt, dm = _edges("dt_edges", dt_edges), _edges("dm_edges", dm_edges)
    out = np.zeros((len(offsets) - 1, len(dm) - 1, len(dt) - 1), np.uint32)
    table, scale = _table(dm)
    _counts(t, mag, offsets, _closed(dt), _closed(dm), table, scale, out)
    return out


def normalise(counts: np.ndarray, how: str) -> np.ndarray:
    """Scale images of counts: (…, n_dm, n_dt) integer → float32, same shape.

    `count`: as they are. `max`: the largest cell is 1. `l2`: the Frobenius norm is 1 (SCoPe).
    `paper`: floor(255·N/N_pairs + 0.99999), 0…255, with N_pairs the pairs that fall into the grid
    (Mahabal+2017, equation 1). An image without pairs stays 0.
    """
    if how not in NORMALISATIONS:
        raise ValueError(f"unknown normalisation {how!r}; known are {', '.join(NORMALISATIONS)}")
    if how == "count":
        return counts.astype(np.float32)
    if how == "max":
        scale = counts.max(axis=(-2, -1), keepdims=True).astype(np.float64)
    elif how == "l2":
        scale = np.sqrt((counts.astype(np.float64) ** 2).sum(axis=(-2, -1), keepdims=True))
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
    return np.histogram2d(mag[j] - mag[i], t[j] - t[i], bins=bins)[0].astype(np.uint32)


def _edges(name: str, edges: Sequence[float] | np.ndarray) -> np.ndarray:
    array = np.asarray(edges, np.float64)
    if array.ndim != 1 or len(array) < 2 or not np.isfinite(array).all() or (np.diff(array) <= 0).any():
        raise ValueError(f"{name} must be at least two finite, increasing numbers, got {array.tolist()}")
    return array


def _closed(edges: np.ndarray) -> np.ndarray:
    """The last edge one ulp up: the closed last bin becomes half open like the others."""
    return np.append(edges[:-1], np.nextafter(edges[-1], np.inf))


def _table(edges: np.ndarray) -> tuple[np.ndarray, float]:
    """Bin of the left border of each uniform cell over the edges' range, and cells per unit."""
    scale = TABLE_CELLS / (edges[-1] - edges[0])
    borders = edges[0] + np.arange(TABLE_CELLS + 1) / scale
    bins = np.searchsorted(edges, borders, side="right") - 1
    return np.clip(bins, 0, len(edges) - 2).astype(np.int32), scale


# nogil: threads of one process may count side by side; error_model: no division traps; bounds are checked above
@njit(nogil=True, cache=True, error_model="numpy")
def _counts(t, mag, offsets, dt, dm, table, scale, out):
    longest = 0
    for i in range(offsets.size - 1):
        longest = max(longest, offsets[i + 1] - offsets[i])
    ts, ms = np.empty(longest), np.empty(longest)
    for i in range(offsets.size - 1):
        n = _finite_sorted(t, mag, offsets[i], offsets[i + 1], ts, ms)
        _count_one(ts, ms, n, dt, dm, table, scale, out[i])


@njit(nogil=True, cache=True, error_model="numpy")
def _finite_sorted(t, mag, a, b, ts, ms):
    """Copy the finite points of a:b in time order into ts, ms; returns how many there are."""
    n, ordered = 0, True
    for j in range(a, b):
        x, m = t[j], mag[j]
        if np.isfinite(x) and np.isfinite(m):
            ordered = ordered and (n == 0 or x >= ts[n - 1])
            ts[n], ms[n] = x, m
            n += 1
    if not ordered:
        order = np.argsort(ts[:n], kind="mergesort")
        ts[:n], ms[:n] = ts[:n][order], ms[:n][order]
    return n


@njit(nogil=True, cache=True, error_model="numpy")
def _count_one(ts, ms, n, dt, dm, table, scale, image):
    n_dt, low, high = dt.size - 1, dm[0], dm[dm.size - 1]
    for i in range(n - 1):
        k = -1  # the dt bin of the pair (i, j); −1: below the first edge
        for j in range(i + 1, n):
            d = ts[j] - ts[i]
            while k < n_dt and d >= dt[k + 1]:
                k += 1
                if k == n_dt:
                    break
            if k < 0:
                continue
            if k == n_dt:
                break
            x = ms[j] - ms[i]
            if low <= x < high:
                e = table[np.int64((x - low) * scale)]
                while x >= dm[e + 1]:
                    e += 1
                while x < dm[e]:
                    e -= 1
                image[e, k] += np.uint32(1)
