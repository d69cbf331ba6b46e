"""dm-dt images: 2-D histograms of all pairwise time and magnitude differences (Mahabal+2017, arXiv:1709.06257).

For a light curve with epochs sorted in time, every pair i < j gives dt = t_j − t_i ≥ 0 and dm = m_j − m_i. The image
counts the pairs in the cells of a grid, exactly as `numpy.histogram2d` on float64 differences does: bins are half
open, the last one is closed.

`counts_reference` says it slowly; `dmdt_kernel` tells how it is done fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lightmill.pipeline import dmdt_kernel
from lightmill.pipeline.ragged import ragged

__all__ = ["GRIDS", "NORMALISATIONS", "Grid", "counts_reference", "dmdt_counts", "normalise"]

TABLE_CELLS = 4096  #: of the dm table: fits the first-level cache
NO_TABLES = (np.zeros(1, np.uint8), np.int64(0), np.zeros(1, np.uint8), 0.0)
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
    dt, dm = _closed(dt), _closed(dm)
    tables = _tables(dt, dm)
    few = dmdt_kernel.FEW if tables else 0
    dt_table, dt_first, dm_table, dm_scale = tables or NO_TABLES
    behind = np.full(dmdt_kernel.PADDING, np.inf)
    dt, dm = np.append(dt, behind), np.append(dm, np.inf)
    dmdt_kernel.count(t, mag, offsets, dt, dm, few, dt_table, dt_first, dm_table, dm_scale, out)
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


def _tables(dt: np.ndarray, dm: np.ndarray) -> tuple[np.ndarray, np.int64, np.ndarray, float] | None:
    """The look-up tables of the kernel for few epochs; None where two edges would share a cell.

    The dt table is indexed by the leading bits of the float (less the returned first one), the dm table by equal
    steps (of which there are the returned number a magnitude); both hold how many edges lie at or below.
    """
    positive = dt[dt > 0]
    if len(positive) == 0:
        return None
    shift = 52 - dmdt_kernel.MANTISSA
    first = (positive[0].view(np.int64) >> shift) - 1
    last = (dt[-1].view(np.int64) >> shift) + 1
    dt_table = np.searchsorted(dt, (np.arange(first, last + 1) << shift).view(np.float64), side="right")
    dt_table[0] = np.searchsorted(dt, 0.0, side="right")
    scale = TABLE_CELLS / (dm[-1] - dm[0])
    if (np.diff(dt_table) > 1).any() or np.diff(dm).min() * scale < 3 or max(len(dt), len(dm)) > 255:
        return None
    # shifted by a cell: rounding can then only make the bin too low, which the comparison puts right
    borders = dm[0] + (np.arange(TABLE_CELLS + 3) - 1) / scale
    dm_table = np.searchsorted(dm, borders, side="right")
    return dt_table.astype(np.uint8), first, dm_table.astype(np.uint8), float(scale)
