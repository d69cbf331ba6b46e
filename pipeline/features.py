"""Statistics of light curves for the gate: one Numba pass over the flat arrays, everything that is cheap.

Definitions follow Richards+2011 (ApJ 733, 10), Sokolovsky+2017 (MNRAS 464, 274) and, where they have the
thing, the package `light-curve`; tests/test_peers.py says where we part from it. Which of them a gate looks at is the
bundle's choice: `mean`, `median`, `n` and `baseline` are a survey's fingerprint, and are here for the catalogue's rows.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from lightmill.pipeline import radix
from lightmill.pipeline.ragged import cleaned

__all__ = ["STATISTICS", "index_of", "statistics"]

STATISTICS: tuple[str, ...] = (
    "n",  #: epochs
    "baseline",  #: last minus first time [d]
    "mean",  #: weighted mean [mag]
    "mean_minus_median",  #: [mag]
    "std",  #: sample standard deviation [mag]
    "mad",  #: median absolute deviation from the median [mag]
    "iqr",  #: 75 % − 25 % quantile [mag]
    "amplitude",  #: half of the 95 % − 5 % quantile range [mag]
    "magerr_median",  #: [mag]
    "mad_over_err",  #: 1.4826 mad / magerr_median
    "iqr_over_err",  #: iqr / 1.349 / magerr_median
    "reduced_chi2",  #: of a constant: Σ((m − mean)/σ)² / (n − 1)
    "excess_variance",  #: (std² − mean σ²) / std², 0 for std = 0
    "eta",  #: von Neumann: Σ(m_{i+1} − m_i)² / ((n − 1) std²)
    "eta_weighted",  #: Σ((m_{i+1} − m_i)² / (σ_i² + σ_{i+1}²)) / (n − 1), over reduced_chi2
    "stetson_j",  #: Σ sgn(P) √|P| over successive pairs closer than 1 d, over their number
    "stetson_k",  #: Σ|δ| / √(n Σδ²)
    "skew",  #: sample skewness
    "kurtosis",  #: sample excess kurtosis
    "range_20",  #: (60 % − 40 %) / (95 % − 5 %)
    "range_50",  #: (75 % − 25 %) / (95 % − 5 %)
    "range_80",  #: (90 % − 10 %) / (95 % − 5 %)
    "bright_skew",  #: (median − 5 %) / (95 % − 5 %): below ½ for eclipses, above for flares
    "max_slope",  #: largest |Δm/Δt| over |Δm| > 3σ, in log10(1 + mag/d)
    "longest_run",  #: longest run of epochs on one side of the mean, over n
    "trend_sigma",  #: slope of the weighted straight line over its error
    "outliers",  #: fraction farther than 5 · 1.4826 mad from the median
    "outlier_size",  #: largest |m − median| / (1.4826 mad)
    "brighter_3sigma",  #: fraction brighter than the median by more than 3σ
    "fainter_3sigma",  #: fraction fainter than the median by more than 3σ
    "nightly",  #: weighted autocorrelation at lags below 1 d: Σ δ_i δ_{i+1} / Σ (δ_i² + δ_{i+1}²)/2 over such pairs
    "median",  #: [mag]
    "inverse_eta",  #: 1 / eta, 0 for eta = 0: large for what changes slowly
    "weighted_std_over_err",  #: standard deviation with weights 1/σ² (unbiased), over magerr_median
)


def index_of(name: str) -> int:
    """Column of a statistic in the table that `statistics` returns."""
    return STATISTICS.index(name)


def statistics(t: np.ndarray, mag: np.ndarray, magerr: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Compute `STATISTICS` for each light curve of a clean, ragged batch.

    Parameters
    ----------
    t, mag, magerr : (N,) float32 or float64 [d, mag, mag]; finite, times not decreasing within a light curve, errors
        positive
    offsets : (n + 1,) integer

    Returns
    -------
    (n, len(STATISTICS)) float64; finite, for magnitudes and errors whose squares float32 holds. A light curve of fewer
    than 3 epochs has n, baseline and mean; the rest is 0.

    Raises
    ------
    ValueError
        if lengths differ, offsets decrease or leave the arrays, or an epoch is not what it must be.

    Examples
    --------
    >>> t, mag, magerr = np.arange(4.0), np.array([17.0, 17.5, 17.0, 18.0]), np.full(4, 0.5)
    >>> row = statistics(t, mag, magerr, np.array([0, 4]))[0]
    >>> [float(row[index_of(name)]) for name in ("n", "mean", "median", "mad")]
    [4.0, 17.375, 17.25, 0.25]
    """
    offsets, t, mag, magerr = cleaned(t, mag, magerr, offsets)
    out = np.zeros((len(offsets) - 1, len(STATISTICS)))
    longest = int(np.diff(offsets).max(initial=1))
    scratch = tuple(np.empty(longest) for _ in range(4))
    _statistics(t, mag, magerr, offsets, out, scratch, np.empty(longest, np.int64), *radix.workspace(longest))
    return out


# nogil: threads of one process may work side by side. reassoc and contract let sums run in vector lanes: they change
# the last bits of a sum, which no statistic resolves; NaN and infinities keep their meaning. A loop either stores or
# sums: one that does both is compiled twice, for arrays that may overlap and for others, and then the last bits of a
# sum would depend on where in memory a light curve lies.
_jit = njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"})
# What a kernel calls becomes part of it. Left as a call, the process that compiles would run another copy (the callee's
# own) than those that load the kernel from the cache (the one within), with other last bits.
_inline = njit(
    nogil=True, cache=True, error_model="numpy", forceinline=True, fastmath={"reassoc", "contract", "nsz"}
)


@_jit
def _statistics(t, mag, magerr, offsets, out, scratch, order, keys, first, counters):
    for i in range(offsets.size - 1):
        a, b = offsets[i], offsets[i + 1]
        n, row = b - a, out[i]
        if n == 0:
            continue
        x, m, e = t[a:b], mag[a:b], magerr[a:b]
        ordered, inverse, residual = scratch[0][:n], scratch[1][:n], scratch[2][:n]
        row[0], row[1] = n, x[n - 1] - x[0]
        mean, flat, err2 = _means(m, e, inverse)
        row[2] = mean
        if n < 3:
            continue
        row[8] = radix.median_of_positive(e)
        radix.sort_into(m, ordered, order, keys, first, counters)
        # rounding may put a mean outside the range: equal magnitudes must have no variance at all
        mean, flat = min(max(mean, ordered[0]), ordered[n - 1]), min(max(flat, ordered[0]), ordered[n - 1])
        row[2] = mean
        median = _order_statistics(ordered, row)
        row[3], row[31] = mean - median, median
        _moments(m, flat, err2 / n, row)
        _scatter(m, inverse, mean, residual, row)
        _trend(x, m, mean, inverse, row)
        _counts(m, e, mean, median, row)
        _successive(x, m, e, residual, row)
        _steepest(x, m, e, scratch[3][: n - 1], row)


@_inline
def _means(m, e, inverse):
    """Weighted mean, plain mean and Σσ²; 1/σ goes into `inverse`."""
    weights, weighted, plain, err2 = 0.0, 0.0, 0.0, 0.0
    for i in range(m.size):
        inverse[i] = 1.0 / e[i]
    for i in range(m.size):
        weight = inverse[i] * inverse[i]
        weights += weight
        weighted += weight * m[i]
        plain += m[i]
        err2 += e[i] * e[i]
    return weighted / weights, plain / m.size, err2


@_inline
def _median(ordered):
    return 0.5 * (ordered[(ordered.size - 1) // 2] + ordered[ordered.size // 2])


@_inline
def _quantile(ordered, q):
    """Linear interpolation between order statistics, as `numpy.quantile`."""
    x = q * (ordered.size - 1)
    k = min(int(x), ordered.size - 2)
    return ordered[k] + (x - k) * (ordered[k + 1] - ordered[k])


@_inline
def _mad(ordered, median):
    """Median of |x − median|."""
    n = ordered.size
    upper = _distance(ordered, median, n // 2)
    return upper if n % 2 else 0.5 * (_distance(ordered, median, n // 2 - 1) + upper)


@_inline
def _distance(ordered, center, k):
    """Distance of the k-th nearest to the center, counted from 0.

    The k + 1 nearest are neighbours: of all windows of so many, the one whose farther end is nearest. The right end
    is the farther one from the window `start` on, which halving finds.
    """
    start, stop = 0, ordered.size - 1 - k
    while start < stop:
        half = (start + stop) // 2
        if center - ordered[half] <= ordered[half + k] - center:
            stop = half
        else:
            start = half + 1
    distance = max(center - ordered[start], ordered[start + k] - center)
    return min(distance, center - ordered[start - 1]) if start > 0 else distance


@_inline
def _order_statistics(ordered, row):
    """What the ordered magnitudes tell; returns the median."""
    n = ordered.size
    median = _median(ordered)
    mad = _mad(ordered, median)
    low, high = _quantile(ordered, 0.05), _quantile(ordered, 0.95)
    iqr, wide = _quantile(ordered, 0.75) - _quantile(ordered, 0.25), high - low
    row[5] = mad
    row[6] = iqr
    row[7] = 0.5 * wide
    row[9] = 1.4826 * mad / row[8]
    row[10] = iqr / 1.349 / row[8]
    if wide > 0.0:
        row[19] = (_quantile(ordered, 0.60) - _quantile(ordered, 0.40)) / wide
        row[20] = iqr / wide
        row[21] = (_quantile(ordered, 0.90) - _quantile(ordered, 0.10)) / wide
        row[22] = (median - low) / wide
    if mad > 0.0:
        row[27] = max(ordered[n - 1] - median, median - ordered[0]) / (1.4826 * mad)
    return median


@_inline
def _moments(m, flat, mean_err2, row):
    """Standard deviation, excess variance, and bias-corrected skewness and kurtosis (scipy.stats, bias=False)."""
    n = m.size
    m2, m3, m4 = 0.0, 0.0, 0.0
    for i in range(n):
        d = m[i] - flat
        d2 = d * d
        m2 += d2
        m3 += d2 * d
        m4 += d2 * d2
    if m2 == 0.0:
        return
    variance, sd = m2 / (n - 1), np.sqrt(m2 / n)
    row[4] = np.sqrt(variance)
    row[12] = (variance - mean_err2) / variance
    row[17] = m3 / n / sd**3 * np.sqrt(n * (n - 1.0)) / (n - 2.0)
    if n > 3:
        g2 = m4 / n / sd**4 - 3.0
        row[18] = ((n + 1.0) * g2 + 6.0) * (n - 1.0) / ((n - 2.0) * (n - 3.0))


@_inline
def _scatter(m, inverse, mean, residual, row):
    """Scatter in units of the errors; (m − mean)/σ goes into `residual`."""
    n = m.size
    weights, weights2, chi2, size = 0.0, 0.0, 0.0, 0.0
    for i in range(n):
        residual[i] = (m[i] - mean) * inverse[i]
    for i in range(n):
        weight = inverse[i] * inverse[i]
        chi2 += residual[i] * residual[i]
        size += abs(residual[i])
        weights += weight
        weights2 += weight * weight
    row[11] = chi2 / (n - 1)
    row[16] = size / np.sqrt(n * chi2) if chi2 > 0.0 else 0.0
    # 0 where one epoch has all the weight that a float can tell
    freedom = weights - weights2 / weights
    row[33] = np.sqrt(chi2 / freedom) / row[8] if freedom > 0.0 else 0.0


@_inline
def _trend(t, m, mean, inverse, row):
    """Slope of the weighted straight line over its error."""
    weights, weighted, t2, tm = 0.0, 0.0, 0.0, 0.0
    for i in range(m.size):
        weight = inverse[i] * inverse[i]
        weights += weight
        weighted += weight * t[i]
    t_mean = weighted / weights
    for i in range(m.size):
        weight, dt = inverse[i] * inverse[i], t[i] - t_mean
        t2 += weight * dt * dt
        tm += weight * dt * (m[i] - mean)
    row[25] = tm / np.sqrt(t2) if t2 > 0.0 else 0.0


@_inline
def _counts(m, e, mean, median, row):
    """Outliers, and the longest run on one side of the mean."""
    n = m.size
    far = 5.0 * 1.4826 * row[5]
    outliers, brighter, fainter = 0, 0, 0
    for i in range(n):
        x = m[i] - median
        outliers += abs(x) > far
        brighter += x < -3.0 * e[i]
        fainter += x > 3.0 * e[i]
    run, longest, side = 0, 0, False
    for i in range(n):
        above = m[i] > mean
        run = run * (above == side) + 1
        side = above
        longest = max(longest, run)
    row[24] = longest / n
    row[26], row[28], row[29] = outliers / n, brighter / n, fainter / n


@_inline
def _successive(t, m, e, residual, row):
    """What successive epochs tell: von Neumann's η, Stetson's J, the correlation within a night."""
    n = m.size
    steps, weighted, near = 0.0, 0.0, 0
    root, product, square = 0.0, 0.0, 0.0
    for i in range(n - 1):
        dm = m[i + 1] - m[i]
        steps += dm * dm
        weighted += dm * dm / (e[i] * e[i] + e[i + 1] * e[i + 1])
        p = residual[i] * residual[i + 1]
        within = t[i + 1] - t[i] < 1.0
        near += within
        root += np.copysign(np.sqrt(abs(p)), p) if within else 0.0
        product += p if within else 0.0
        square += 0.5 * (residual[i] * residual[i] + residual[i + 1] * residual[i + 1]) if within else 0.0
    variance = row[4] * row[4]
    row[13] = steps / ((n - 1) * variance) if variance > 0.0 else 0.0
    row[32] = (n - 1) * variance / steps if steps > 0.0 else 0.0
    row[14] = weighted / (n - 1) / row[11] if row[11] > 0.0 else 0.0
    # Stetson's δ is √(n/(n−1)) times the residual
    row[15] = np.sqrt(n / (n - 1.0)) * root / near if near > 0 else 0.0
    row[30] = product / square if square > 0.0 else 0.0


@_inline
def _steepest(t, m, e, slope, row):
    """The steepest step; the slopes go into `slope`."""
    for i in range(slope.size):
        dm, dt = m[i + 1] - m[i], t[i + 1] - t[i]
        certain = dm * dm > 9.0 * (e[i] * e[i] + e[i + 1] * e[i + 1]) and dt > 0.0
        slope[i] = abs(dm) / dt if certain else 0.0
    row[23] = np.log10(1.0 + radix.extremes(slope)[1])
