"""Statistics of light curves for the gate: one Numba pass over the flat arrays, everything that is cheap.

Definitions follow Richards+2011 (ApJ 733, 10), Sokolovsky+2017 (MNRAS 464, 274) and, where they have the
thing, the package `light-curve`. Which of them a gate looks at is the bundle's choice: `mean`, `n` and `baseline` are a
survey's fingerprint, and are here for the catalogue's rows.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from lightmill.pipeline.ragged import ragged

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
)


def index_of(name: str) -> int:
    """Column of a statistic in the table that `statistics` returns."""
    return STATISTICS.index(name)


def statistics(t: np.ndarray, mag: np.ndarray, magerr: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Compute `STATISTICS` for each light curve of a clean, ragged batch.

    Parameters
    ----------
    t, mag, magerr : (N,) float64 [d, mag, mag]; finite, times increasing within a light curve, errors positive
    offsets : (n + 1,) int64

    Returns
    -------
    (n, len(STATISTICS)) float64; finite. A light curve of fewer than 3 epochs has n, baseline and mean; the rest is 0.
    """
    offsets, t, mag, magerr = ragged(offsets, t=t, mag=mag, magerr=magerr)
    out = np.zeros((len(offsets) - 1, len(STATISTICS)))
    _statistics(t, mag, magerr, offsets, out)
    return out


# nogil: threads of one process may work side by side; fastmath stays off: sums must not depend on the host
@njit(nogil=True, cache=True, error_model="numpy")
def _statistics(t, mag, magerr, offsets, out):
    longest = 1
    for i in range(offsets.size - 1):
        longest = max(longest, offsets[i + 1] - offsets[i])
    work = np.empty(longest)
    for i in range(offsets.size - 1):
        a, b = offsets[i], offsets[i + 1]
        _one(t[a:b], mag[a:b], magerr[a:b], work[: b - a], out[i])


@njit(nogil=True, cache=True, error_model="numpy")
def _quantile(ordered, q):
    """Linear interpolation between order statistics, as `numpy.quantile`."""
    x = q * (ordered.size - 1)
    k = min(int(x), ordered.size - 2)
    return ordered[k] + (x - k) * (ordered[k + 1] - ordered[k])


@njit(nogil=True, cache=True, error_model="numpy")
def _one(t, m, e, work, out):
    n = t.size
    if n == 0:
        return
    out[0], out[1] = n, t[n - 1] - t[0]
    w_sum, wm_sum, plain, err2 = 0.0, 0.0, 0.0, 0.0
    for i in range(n):
        w = 1.0 / (e[i] * e[i])
        w_sum += w
        wm_sum += w * m[i]
        plain += m[i]
        err2 += e[i] * e[i]
    mean, flat = wm_sum / w_sum, plain / n
    out[2] = mean
    if n < 3:
        return

    for i in range(n):
        work[i] = m[i]
    work.sort()
    # rounding may put a mean outside the range: equal magnitudes must have no variance at all
    mean, flat = min(max(mean, work[0]), work[n - 1]), min(max(flat, work[0]), work[n - 1])
    out[2] = mean
    median = 0.5 * (work[(n - 1) // 2] + work[n // 2])
    q05, q10, q25, q40 = (
        _quantile(work, 0.05),
        _quantile(work, 0.10),
        _quantile(work, 0.25),
        _quantile(work, 0.40),
    )
    q60, q75, q90, q95 = (
        _quantile(work, 0.60),
        _quantile(work, 0.75),
        _quantile(work, 0.90),
        _quantile(work, 0.95),
    )
    for i in range(n):
        work[i] = abs(m[i] - median)
    work.sort()
    mad = 0.5 * (work[(n - 1) // 2] + work[n // 2])
    largest = work[n - 1]
    for i in range(n):
        work[i] = e[i]
    work.sort()
    err = 0.5 * (work[(n - 1) // 2] + work[n // 2])

    m2 = m3 = m4 = chi2 = abs_delta = sum_delta2 = 0.0
    bias = np.sqrt(n / (n - 1.0))
    run = best_run = side = 0
    n_out = n_bright = n_faint = 0
    t_mean = 0.0
    for i in range(n):
        t_mean += t[i] / (e[i] * e[i])
    t_mean /= w_sum
    st2 = stm = 0.0
    for i in range(n):
        d = m[i] - flat
        m2 += d * d
        m3 += d * d * d
        m4 += d * d * d * d
        r = (m[i] - mean) / e[i]
        chi2 += r * r
        delta = bias * r
        abs_delta += abs(delta)
        sum_delta2 += delta * delta
        s = 1 if m[i] > mean else -1
        run = run + 1 if s == side else 1
        side = s
        best_run = max(best_run, run)
        x = m[i] - median
        n_out += abs(x) > 5.0 * 1.4826 * mad
        n_bright += x < -3.0 * e[i]
        n_faint += x > 3.0 * e[i]
        w = 1.0 / (e[i] * e[i])
        st2 += w * (t[i] - t_mean) ** 2
        stm += w * (t[i] - t_mean) * (m[i] - mean)
    var = m2 / (n - 1)
    reduced = chi2 / (n - 1)

    steps = wsteps = slope = j_sum = near_sum = near_norm = 0.0
    near = 0
    for i in range(n - 1):
        dm, dt = m[i + 1] - m[i], t[i + 1] - t[i]
        pair = e[i] * e[i] + e[i + 1] * e[i + 1]
        steps += dm * dm
        wsteps += dm * dm / pair
        if dm * dm > 9.0 * pair and dt > 0.0:
            slope = max(slope, abs(dm) / dt)
        if dt < 1.0:
            r0, r1 = bias * (m[i] - mean) / e[i], bias * (m[i + 1] - mean) / e[i + 1]
            p = r0 * r1
            j_sum += np.sqrt(p) if p > 0.0 else -np.sqrt(-p)
            near_sum += p
            near_norm += 0.5 * (r0 * r0 + r1 * r1)
            near += 1

    wide = q95 - q05
    out[3] = mean - median
    out[4] = np.sqrt(var)
    out[5] = mad
    out[6] = q75 - q25
    out[7] = 0.5 * wide
    out[8] = err
    out[9] = 1.4826 * mad / err
    out[10] = (q75 - q25) / 1.349 / err
    out[11] = reduced
    out[12] = (var - err2 / n) / var if var > 0.0 else 0.0
    out[13] = steps / ((n - 1) * var) if var > 0.0 else 0.0
    out[14] = wsteps / (n - 1) / reduced if reduced > 0.0 else 0.0
    out[15] = j_sum / near if near > 0 else 0.0
    out[16] = abs_delta / np.sqrt(n * sum_delta2) if sum_delta2 > 0.0 else 0.0
    sd = np.sqrt(m2 / n)
    if sd > 0.0:
        # bias-corrected sample moments, as `light-curve` and scipy.stats (bias=False) define them
        g1, g2 = m3 / n / sd**3, m4 / n / sd**4 - 3.0
        out[17] = g1 * np.sqrt(n * (n - 1.0)) / (n - 2.0)
        out[18] = ((n + 1.0) * g2 + 6.0) * (n - 1.0) / ((n - 2.0) * (n - 3.0)) if n > 3 else 0.0
    if wide > 0.0:
        out[19] = (q60 - q40) / wide
        out[20] = (q75 - q25) / wide
        out[21] = (q90 - q10) / wide
        out[22] = (median - q05) / wide
    out[23] = np.log10(1.0 + slope)
    out[24] = best_run / n
    out[25] = stm / np.sqrt(st2) if st2 > 0.0 else 0.0
    out[26] = n_out / n
    out[27] = largest / (1.4826 * mad) if mad > 0.0 else 0.0
    out[28] = n_bright / n
    out[29] = n_faint / n
    out[30] = near_sum / near_norm if near_norm > 0.0 else 0.0
