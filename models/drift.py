"""How far two sets of numbers or classes lie apart, and percentiles that describe one.

The population stability index: Siddiqi (2006, Credit Risk Scorecards, Wiley), who gives its usual limits; it is the
symmetric divergence of Jeffreys (1946, Proc. R. Soc. A 186, 453). Its spread by chance: Yurdakul & Naranjo (2020,
J. Risk Model Validation 14). Effect sizes: Cohen (1988, Statistical Power Analysis, 2nd ed.), chapters 2 and 7; Cramér
(1946, Mathematical Methods of Statistics).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import chi2

__all__ = [
    "D_LIMITS",
    "PERCENTILES",
    "PSI_LIMITS",
    "V_LIMITS",
    "bin_edges",
    "cohens_d",
    "count",
    "cramers_v",
    "name_of",
    "percentiles",
    "psi",
    "psi_by_chance",
    "psi_of_counts",
]

PERCENTILES: tuple[int, ...] = (100, 93, 84, 69, 50, 31, 16, 7, 0)
"""TensorBoard's: of a normal distribution the ends, 1.5, 1 and 0.5 σ to either side, and the middle."""

PSI_LIMITS = (0.1, 0.25)
"""Below the first nothing has changed, above the second much has."""

D_LIMITS = (0.2, 0.5, 0.8)
"""Cohen's d: small, medium, large."""

V_LIMITS = (0.1, 0.3, 0.5)
"""Cramér's V of a table with two rows, which is Cohen's w: small, medium, large."""


def percentiles(values: np.ndarray) -> dict[str, float]:
    """What a set of numbers looks like, for a log of training (inputs, activations, outputs).

    Parameters
    ----------
    values : any shape, float or integer

    Returns
    -------
    dict of `max, p93, p84, p69, p50, p31, p16, p7, min`, each one of the values (nothing is interpolated, so that an
    infinity shows as what it is), and `n` and `nan`: how many values there are, and how many more are NaN. Without a
    number the percentiles are NaN.

    Examples
    --------
    >>> found = percentiles(np.array([3.0, 1.0, 2.0, np.nan]))
    >>> found["max"], found["p50"], found["min"], found["n"], found["nan"]
    (3.0, 2.0, 1.0, 3.0, 1.0)
    """
    flat = np.asarray(values, np.float64).ravel()
    numbers = flat[~np.isnan(flat)]
    names = [name_of(percent) for percent in PERCENTILES]
    at = np.full(len(names), np.nan)
    if len(numbers):
        at = _quantiles(numbers, np.array(PERCENTILES), 100)
    found = dict(zip(names, at.tolist(), strict=True))
    return found | {"n": float(len(numbers)), "nan": float(len(flat) - len(numbers))}


def name_of(percent: int) -> str:
    """Name of a percentile: max, p93, …, min."""
    return {100: "max", 0: "min"}.get(percent, f"p{percent}")


def psi(a: np.ndarray, b: np.ndarray, bins: int = 10) -> float:
    """Population stability index of numbers b against a, in bins of equally many of a.

    What is not finite is a bin of its own. 0: the same shares; see PSI_LIMITS, and `psi_by_chance` for few numbers.

    Parameters
    ----------
    a, b : (n,), (m,) float, one number at least each
    bins : 2 at least

    Examples
    --------
    >>> a = np.arange(1000.0)
    >>> round(psi(a, a), 3), round(psi(a, a + 300), 3)
    (0.0, 1.996)
    """
    if bins < 2:
        raise ValueError(f"bins is {bins}: at least 2 are needed to compare")
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    finite = a[np.isfinite(a)]
    if len(finite) == 0:
        finite = b[np.isfinite(b)]
    edges = np.empty(0)
    if len(finite):
        edges = bin_edges(_quantiles(finite, np.arange(bins + 1), bins))
    return psi_of_counts(count(a, edges), count(b, edges))


def bin_edges(quantiles: Sequence[float] | np.ndarray) -> np.ndarray:
    """Edges of bins (a, b] between quantiles: (m,) float64, increasing; m + 1 bins, the outermost open.

    A value that is more than one of the quantiles (many rows have it, 0 perhaps) gets a bin of its own.

    Parameters
    ----------
    quantiles : finite, from the least to the largest

    Examples
    --------
    >>> bin_edges([1, 2, 3, 4]).tolist()
    [2.0, 3.0]
    """
    values = np.asarray(quantiles, np.float64)
    different, times = np.unique(values, return_counts=True)
    heaps = different[times > 1]
    inner = different[(different > values.min()) & (different < values.max())]
    return np.unique(np.concatenate([inner, heaps, np.nextafter(heaps, -np.inf)]))


def count(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Values in each bin (a, b], and at the end what is not finite: (len(edges) + 2,) int64."""
    values = np.asarray(values, np.float64)
    finite = values[np.isfinite(values)]
    inside = np.bincount(np.searchsorted(edges, finite, side="left"), minlength=len(edges) + 1)
    return np.append(inside, len(values) - len(finite)).astype(np.int64)


def psi_of_counts(a: np.ndarray, b: np.ndarray) -> float:
    """Population stability index of counts: Σ (p_b − p_a) ln(p_b / p_a) over the shares.

    Half a row is added to every bin that either has, so that an empty one does not make it infinite; bins without rows
    of both count for nothing.

    Parameters
    ----------
    a, b : (k,) counts in the same bins

    Raises
    ------
    ValueError
        if the lengths differ, or one has no rows.
    """
    p, q = (_shares(x) for x in _both(a, b, add=0.5))
    return float(((q - p) * np.log(q / p)).sum())


def psi_by_chance(a: np.ndarray, b: np.ndarray, level: float = 0.05) -> float:
    """The index that two samples of one population exceed with probability `level` (Yurdakul & Naranjo 2020).

    Parameters
    ----------
    a, b : (k,) counts in the same bins
    """
    x, y = _both(a, b)
    return float((1 / x.sum() + 1 / y.sum()) * chi2.isf(level, max(len(x) - 1, 1)))


def cohens_d(
    n_a: int, mean_a: float, std_a: float, n_b: int, mean_b: float, std_b: float
) -> float | None:  # fmt: skip
    """(mean of b − mean of a) / pooled standard deviation; see D_LIMITS.

    `std` is that of a sample (n − 1). None where there is no spread, or fewer than 2 numbers in either.
    """
    if min(n_a, n_b) < 2:
        return None
    pooled = np.sqrt(((n_a - 1) * std_a**2 + (n_b - 1) * std_b**2) / (n_a + n_b - 2))
    return float((mean_b - mean_a) / pooled) if pooled > 0 else None


def cramers_v(a: np.ndarray, b: np.ndarray) -> float:
    """Cramér's V of two mixtures of classes: 0 the same shares, 1 no class in common; see V_LIMITS.

    It is that of the table of shares, so that a set of few rows weighs as much as one of many: of the counts, V would
    go to 0 as one set outgrows the other.

    Parameters
    ----------
    a, b : (k,) counts of the same classes

    Examples
    --------
    >>> cramers_v([10, 10], [500, 500]), cramers_v([10, 0], [0, 10])
    (0.0, 1.0)
    """
    p, q = (_shares(x) for x in _both(a, b))
    return float(np.sqrt(((p - q) ** 2 / (p + q)).sum() / 2))


def _quantiles(numbers: np.ndarray, part: np.ndarray, whole: int) -> np.ndarray:
    """The least of the numbers (not NaN) that `part` of `whole` of them do not exceed, for each `part`.

    In integers: 0.07 · 700 is more than 49 in floating point, and `np.quantile` takes the 50th.
    """
    at = np.maximum(-(-part * len(numbers) // whole) - 1, 0)
    return np.partition(numbers, np.unique(at))[at]


def _both(a: np.ndarray, b: np.ndarray, add: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Counts as float, without the bins that neither has."""
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if x.shape != y.shape:
        raise ValueError(f"counts of {x.shape} and {y.shape} bins: they must be of the same bins")
    if x.sum() <= 0 or y.sum() <= 0:
        raise ValueError(f"counts add up to {x.sum():g} and {y.sum():g}: both need at least one row")
    filled = (x > 0) | (y > 0)
    return x[filled] + add, y[filled] + add


def _shares(counts: np.ndarray) -> np.ndarray:
    return counts / counts.sum()
