"""Shares that were counted: their intervals, and whether two of them differ by more than chance.

Intervals: Wilson (1927, JASA 22, 209). Test: Mantel & Haenszel (1959, JNCI 22, 719), exact where counts are small, as
Mehta, Patel & Gray (1985, JASA 80, 969) have it. Many tests: Holm (1979, Scand. J. Statist. 6, 65).
"""

from __future__ import annotations

import numpy as np
from scipy.stats import hypergeom, norm

__all__ = ["holm", "stratified_test", "wilson"]

NORMAL_FROM = 25.0
"""Variance of the count from which the normal distribution stands for the exact one."""

REACH = 60
"""How far from its mean a count of variance below `NORMAL_FROM` is followed: beyond it lies less than 1e-16."""


def wilson(
    hits: np.ndarray | int, n: np.ndarray | int, confidence: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's interval of a share hits / n.

    Parameters
    ----------
    hits, n : integers or arrays of them, 0 ≤ hits ≤ n

    Returns
    -------
    (low, high), float64 in 0…1; nothing is known of a share of nothing: (0, 1) where n is 0

    Examples
    --------
    >>> low, high = wilson(9, 10)
    >>> round(float(low), 3), round(float(high), 3)
    (0.596, 0.982)
    """
    hits, n = np.asarray(hits, np.float64), np.asarray(n, np.float64)
    z = norm.isf((1 - confidence) / 2)
    one = np.maximum(n, 1)
    share = hits / one
    middle = (share + z * z / (2 * one)) / (1 + z * z / one)
    half = z / (1 + z * z / one) * np.sqrt(share * (1 - share) / one + z * z / (4 * one * one))
    # at 0 and n the formula gives 0 and 1, but for rounding
    low = np.where((n == 0) | (hits == 0), 0.0, np.maximum(middle - half, 0.0))
    high = np.where((n == 0) | (hits == n), 1.0, np.minimum(middle + half, 1.0))
    return low, high


def stratified_test(
    hits: np.ndarray, n: np.ndarray, other_hits: np.ndarray, other_n: np.ndarray
) -> float | None:
    """Two-sided p that two groups of rows have the same share of hits within each stratum.

    The strata may differ in their shares, and the groups in how many rows they have of each: with the true classes as
    strata, a group is not blamed for holding more of a difficult class.

    Parameters
    ----------
    hits, n, other_hits, other_n : (k,) integers, hits and rows in each stratum of the one group and of the other

    Returns
    -------
    p by the exact conditional distribution (of one stratum: Fisher's exact test); where the variance of the hits is 25
    or more by Mantel and Haenszel's normal approximation with continuity correction. None where nothing can be told:
    no stratum has rows of both groups.

    Raises
    ------
    ValueError
        if the lengths differ, or there are more hits than rows.
    """
    a, n1, b, n2 = (np.atleast_1d(np.asarray(x, np.int64)) for x in (hits, n, other_hits, other_n))
    if not (a.shape == n1.shape == b.shape == n2.shape):
        raise ValueError(f"hits and rows have lengths {[len(x) for x in (a, n1, b, n2)]}: they must be equal")
    if (a > n1).any() or (b > n2).any() or min(x.min(initial=0) for x in (a, n1, b, n2)) < 0:
        raise ValueError(
            f"hits {a.tolist()} of {n1.tolist()}, {b.tolist()} of {n2.tolist()}: 0 ≤ hits ≤ rows"
        )
    both = (n1 > 0) & (n2 > 0)
    if not both.any():
        return None
    a, n1, n2, m = a[both], n1[both], n2[both], (a + b)[both]
    total = n1 + n2
    mean = n1 * (m / total)
    variance = float((mean * (n2 / total) * ((total - m) / (total - 1))).sum())
    if variance >= NORMAL_FROM:
        off = max(abs(float(a.sum() - mean.sum())) - 0.5, 0.0)
        return float(min(2 * norm.sf(off / np.sqrt(variance)), 1.0))
    return _exact(int(a.sum()), n1, m, total, mean)


def _exact(hits: int, n1: np.ndarray, m: np.ndarray, total: np.ndarray, mean: np.ndarray) -> float:
    """Probability of all sums of hits that are no more probable than this one, given the margins."""
    pmf, first = np.ones(1), 0
    for rows, whole_hits, whole, middle in zip(n1, m, total, mean, strict=True):
        low = max(0, whole_hits - (whole - rows), int(middle) - REACH)
        high = min(rows, whole_hits, int(middle) + REACH)
        pmf = np.convolve(pmf, hypergeom.pmf(np.arange(low, high + 1), whole, whole_hits, rows))
        first += low
    here = pmf[min(max(hits - first, 0), len(pmf) - 1)]
    # sums of equal probability may differ in their last digits
    return float(min(pmf[pmf <= here * (1 + 1e-7)].sum(), 1.0))


def holm(p: np.ndarray) -> np.ndarray:
    """p-values adjusted for their number: with those below α called significant, the chance of any false call is α.

    Examples
    --------
    >>> holm(np.array([0.01, 0.04, 0.03])).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p, np.float64)
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)) if len(p) else p
    out = np.empty(len(p))
    out[order] = np.minimum(steps, 1.0)
    return out
