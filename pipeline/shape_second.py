"""A second period: light curves less their first one, to search again, and what the two periods have in common.

After Lomb-Scargle and a fit of harmonics (prewhitening) a second pulsation shows, as in RRd stars (P₁/P₀ ≈ 0.745) or
beside a Blazhko star's main frequency. The caller searches the residuals as it searched the magnitudes.
"""

from __future__ import annotations

import math

import numpy as np

from lightmill.pipeline import shape_fit as fit
from lightmill.pipeline import shape_fold as fold
from lightmill.pipeline.ragged import cleaned, frequencies
from lightmill.pipeline.shape_fit import inline, jit

__all__ = ["SECOND", "prewhitened", "second_period"]

SECOND: tuple[str, ...] = (
    "second_log_period",  #: log10 of the second period [d]
    "second_ratio",  #: the shorter of the two periods over the longer
    "second_log_ratio",  #: log10 of the second period over the first
    "second_beat",  #: log10(0.01 + |f₁ − f₂| · baseline): below 0 the two are one frequency
    "second_day",  #: distance of f₂ from a whole number of cycles a day
    "second_alias",  #: distance of f₂ − f₁ from a whole number of cycles a day
    "second_explained_1",  #: share of Σwr², left by the first, that one harmonic of the second explains
    "second_explained_2",  #: the same for two harmonics
    "second_amplitude",  #: amplitude at f₂ over the sum of both
)

HARMONICS = 4  #: of the first period
NEGLIGIBLE = 1e-20  #: of the variance: what is left of a curve without noise


def prewhitened(
    t: np.ndarray,
    mag: np.ndarray,
    magerr: np.ndarray,
    offsets: np.ndarray,
    frequency: np.ndarray,
    harmonics: int = HARMONICS,
) -> np.ndarray:
    """Subtract the weighted mean and a fit of `harmonics` harmonics of one frequency from each light curve.

    Parameters
    ----------
    t, mag, magerr : (N,) float64 [d, mag, mag], as for `shape`
    offsets : (n + 1,) integer
    frequency : (n,) float [1/d]; NaN or ≤ 0: only the mean is subtracted

    Returns
    -------
    (N,) float64 [mag]; 0 outside of the offsets

    Raises
    ------
    ValueError
        as `shape`, or if there is not at least one harmonic.
    """
    offsets, t, mag, magerr = cleaned(t, mag, magerr, offsets)
    frequency = frequencies("frequency", frequency, len(offsets) - 1)
    if harmonics < 1:
        raise ValueError(f"harmonics must be at least 1, got {harmonics}")
    out = np.zeros(len(mag))
    scratch = np.empty((8, int(np.diff(offsets).max(initial=1))))
    _prewhitened(t, mag, magerr, offsets, frequency, harmonics, out, scratch)
    return out


def second_period(
    t: np.ndarray,
    mag: np.ndarray,
    magerr: np.ndarray,
    offsets: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
) -> np.ndarray:
    """Compute `SECOND` for each light curve of a clean, ragged batch.

    Parameters
    ----------
    t, mag, magerr : (N,) float64 [d, mag, mag], as for `shape`
    offsets : (n + 1,) integer
    first, second : (n,) float [1/d]; `second` as found in the residuals of `prewhitened`

    Returns
    -------
    (n, len(SECOND)) float64; a row is NaN where either frequency is NaN or ≤ 0, finite otherwise

    Raises
    ------
    ValueError
        as `shape`.
    """
    offsets, t, mag, magerr = cleaned(t, mag, magerr, offsets)
    first = frequencies("first", first, len(offsets) - 1)
    second = frequencies("second", second, len(offsets) - 1)
    out = np.zeros((len(offsets) - 1, len(SECOND)))
    scratch = np.empty((8, int(np.diff(offsets).max(initial=1))))
    _second_period(t, mag, magerr, offsets, first, second, out, scratch)
    return out


@jit
def _prewhitened(t, mag, magerr, offsets, frequency, harmonics, out, scratch):
    for i in range(offsets.size - 1):
        a, b = offsets[i], offsets[i + 1]
        n = b - a
        if n == 0:
            continue
        weight, y, values = scratch[0, :n], scratch[1, :n], scratch[2, :n]
        fit.weigh(mag[a:b], magerr[a:b], weight, y)
        if frequency[i] > 0.0:
            _subtract(t[a:b], frequency[i], harmonics, weight, y, values, scratch)
        for k in range(n):
            out[a + k] = y[k]


@inline
def _subtract(t, frequency, harmonics, weight, y, values, scratch):
    """Take a fit at one frequency off `y`; what it explains of Σwy², and the amplitude of the first harmonic."""
    n = t.size
    phase, cosine, sine, u, v = scratch[3, :n], scratch[4, :n], scratch[5, :n], scratch[6, :n], scratch[7, :n]
    fit.phasors(t, frequency, phase, cosine, sine)
    found = fit.model(cosine, sine, weight, y, harmonics, u, v, values)
    for k in range(n):
        y[k] -= values[k]
    return found


@jit
def _second_period(t, mag, magerr, offsets, first, second, out, scratch):
    for i in range(offsets.size - 1):
        f, g, row, a, b = first[i], second[i], out[i], offsets[i], offsets[i + 1]
        if not (f > 0.0 and g > 0.0):
            row[:] = np.nan
            continue
        row[0] = -math.log10(g)
        row[1] = min(f / g, g / f)
        row[2] = math.log10(f) - math.log10(g)
        row[4] = abs(g - math.floor(g + 0.5))
        row[5] = abs((g - f) - math.floor(g - f + 0.5))
        if b - a >= 3:
            row[3] = math.log10(0.01 + abs(f - g) * (t[b - 1] - t[a]))
            _remaining(t[a:b], mag[a:b], magerr[a:b], f, g, row, scratch)


@inline
def _remaining(t, m, e, f, g, row, scratch):
    """What the second period does to what the first leaves."""
    n = t.size
    weight, y, values = scratch[0, :n], scratch[1, :n], scratch[2, :n]
    _, chi2, _, _ = fit.weigh(m, e, weight, y)
    _, first = _subtract(t, f, HARMONICS, weight, y, values, scratch)
    left = 0.0
    for k in range(n):
        left += weight[k] * y[k] * y[k]
    if not left > NEGLIGIBLE * chi2:
        return
    explained, second = _subtract(t, g, 1, weight, y, values, scratch)
    row[6] = explained / left
    row[8] = fold.ratio(second, first + second)
    for k in range(n):
        y[k] += values[k]
    explained, _ = _subtract(t, g, 2, weight, y, values, scratch)
    row[7] = explained / left
