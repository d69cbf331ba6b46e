"""The shape of light curves at a period: one Numba pass over the flat arrays.

What a fit of harmonics explains at the period, its half and its double, the form of the fitted curve, the folded light
curve, what the fit leaves; and how a light curve changes with the lag, period or no.

Fourier terms follow Simon & Lee 1981 (ApJ 248, 291) with cosines, m = c₀ + Σ A_k cos(2πkft + φ_k); the structure
function follows Simonetti+1985 (ApJ 296, 46), in absolute values. `light-curve` has none of them at a period that is
given; asked about a folded light curve, its `LaflerKinmanStringLength` is our `string_length`.

`shape_fit` has the fit, `shape_fold` the rest of the kernels, `shape_second` what a second period needs.
"""

from __future__ import annotations

import math

import numpy as np

from lightmill.pipeline import radix
from lightmill.pipeline import shape_fit as fit
from lightmill.pipeline import shape_fold as fold
from lightmill.pipeline.ragged import cleaned, frequencies
from lightmill.pipeline.shape_fit import inline, jit

__all__ = ["BINS", "BLOCKS", "LAGS", "SHAPE", "shape"]

BINS = 8  #: of phase
LAGS = (0.0, 0.01, 0.03, 0.3, 1.5, 5.0, 20.0, 60.0, 300.0, 1000.0)  #: [d], edges
EVEN = 6  #: harmonics of the period
ODD = 4  #: odd harmonics of twice the period, beside them

BLOCKS: dict[str, tuple[str, ...]] = {
    "explained": (
        "log_period",  #: log10 of the period [d]
        "explained_1",  #: share of Σwy² that 1 harmonic explains
        "explained_2",  #: 2 harmonics
        "explained_4",  #: 4 harmonics
        "explained_6",  #: 6 harmonics
        "half_3",  #: 3 harmonics of half the period
        "odd_4",  #: share of what 6 harmonics leave that harmonics 1, 3, 5 and 7 of twice the period explain
        "fit_scatter",  #: log10(1 + weighted rms of what 6 harmonics leave / mean error)
    ),
    "fourier": (
        "amplitude_1",  #: A₁ [mag]
        "amplitude_noise",  #: σ(A₁) / (A₁ + σ(A₁))
        "ratio_21",  #: A₂ / (A₁ + A₂): the usual ratio, kept finite where A₁ vanishes
        "ratio_31",  #: A₃ / (A₁ + A₃)
        "ratio_41",  #: A₄ / (A₁ + A₄)
        "cos_21",  #: cosine of φ₂ − 2φ₁, 0 where A₂ = 0
        "sin_21",  #: sine of it
        "cos_31",  #: of φ₃ − 3φ₁
        "sin_31",
        "cos_41",  #: of φ₄ − 4φ₁
        "sin_41",
    ),
    "curve": (
        "extent",  #: faintest minus brightest of the fitted curve [mag]
        "extent_over_std",  #: extent / standard deviation
        "rise",  #: phase from the faintest to the brightest, 0…1
        "level",  #: mean of the curve, 0 at its brightest, 1 at its faintest
        "above_half",  #: share of phases fainter than half way between them
        "curve_skew",  #: skewness over all phases
        "steepest",  #: largest slope [extent per period]
        "second_depth",  #: depth of the faintest minus that of the faintest 0.3…0.7 later, over extent
    ),
    "double": (
        "odd_even",  #: √(Σ odd / Σ all) of the squared amplitudes at twice the period
        "odd_1_even",  #: its A₁ / (A₁ + A₂)
        "depth_difference",  #: `second_depth` at twice the period: eclipses of unequal depth
        "double_above_half",  #: `above_half` at twice the period
        "double_amplitude_1",  #: A₁ of twice the period [mag]
        "double_cos_21",  #: cosine of its φ₂ − 2φ₁
        "double_sin_21",
        "double_ratio_31",  #: A₃ / (A₁ + A₃)
        "double_cos_31",  #: of φ₃ − 3φ₁
        "double_sin_31",
    ),
    "folded": (
        *(f"folded_{k}" for k in range(BINS)),
        *(f"folded_scatter_{k}" for k in range(BINS)),
    ),
    #: medians less the mean in bins of phase, over the standard deviation; the first is centred on the faintest phase.
    #: Interquartile ranges / 1.349 there, over the standard deviation; 0 where there are fewer than two epochs
    "string": (
        "string_length",  #: Σ(m_{k+1} − m_k)² / (2 (n − 1) std²) in the order of phase, round the circle: 1 for noise
        "string_length_double",  #: in the order of phase at twice the period
    ),
    "residual": (
        "res_over_err",  #: residuals' interquartile range / 1.349 over the mean error
        "res_over_std",  #: the same over the standard deviation
        "res_skew",  #: mean cube of the residuals over that scatter, clipped at ± 6
        "res_auto",  #: autocorrelation of successive residuals
        "res_bright",  #: mean of |residual| over their scatter (clipped at 6), quarter of extent from the brightest
        "res_faint",  #: quarter of extent from the faintest
    ),
    "structure": tuple(f"structure_{k}" for k in range(len(LAGS) - 1)),
    #: mean |Δm| / std of pairs whose lag lies between LAGS[k] and LAGS[k + 1], 0 where there is none
    "half": (
        "half_amplitude_1",  #: A₁ of half the period, of three harmonics [mag]
        "half_ratio_21",  #: A₂ / (A₁ + A₂)
        "half_cos_21",  #: of φ₂ − 2φ₁
        "half_sin_21",
        "half_ratio_31",  #: A₃ / (A₁ + A₃)
        "half_cos_31",  #: of φ₃ − 3φ₁
        "half_sin_31",
    ),
}
"""Columns, by what they are made from."""

SHAPE: tuple[str, ...] = tuple(name for block in BLOCKS.values() for name in block)

_ENDS = np.cumsum([0, *map(len, BLOCKS.values())])
_ORDERS = np.array(
    [2 * k for k in range(1, EVEN + 1)] + [2 * k - 1 for k in range(1, ODD + 1)]
)  # of twice the period
_WHOLE = np.arange(1, EVEN + 1)
_HALF = np.array([4, 8, 12])
_TRIPLE, _SINGLE, _DOUBLE = 1 + 2 * _HALF.size, 1 + 2 * EVEN, 1 + 2 * (EVEN + ODD)  # terms of a fit
_EDGES = np.array(LAGS)
NEGLIGIBLE = 1e-9  #: extent over std: below, a fitted curve is rounding


def shape(
    t: np.ndarray, mag: np.ndarray, magerr: np.ndarray, offsets: np.ndarray, frequency: np.ndarray
) -> np.ndarray:
    """Compute `SHAPE` for each light curve of a clean, ragged batch, at one frequency each.

    Parameters
    ----------
    t, mag, magerr : (N,) float64 [d, mag, mag]; finite, times increasing within a light curve, errors positive
    offsets : (n + 1,) integer
    frequency : (n,) float [1/d]; NaN or ≤ 0: no period

    Returns
    -------
    (n, len(SHAPE)) float64. A row without a period is NaN; any other is finite. A light curve of fewer than 3 epochs,
    or of equal magnitudes, has its log_period; the rest is 0.

    Raises
    ------
    ValueError
        if lengths differ, offsets decrease or leave the arrays, an epoch is not what it must be, or a frequency is
        infinite.

    Examples
    --------
    >>> t = np.arange(50) * 0.37
    >>> wave = 15 + 0.3 * np.cos(2 * np.pi * t / 1.7)
    >>> row = shape(t, wave, np.full(50, 0.01), np.array([0, 50]), np.array([1 / 1.7]))[0]
    >>> [round(float(row[SHAPE.index(name)]), 2) for name in ("amplitude_1", "ratio_21", "rise")]
    [0.3, 0.0, 0.5]
    """
    offsets, t, mag, magerr = cleaned(t, mag, magerr, offsets)
    frequency = frequencies("frequency", frequency, len(offsets) - 1)
    out = np.zeros((len(offsets) - 1, len(SHAPE)))
    longest = int(np.diff(offsets).max(initial=1))
    small = tuple(np.zeros(size) for size in (_DOUBLE, _SINGLE, _DOUBLE, fold.GRID, fold.GRID, _TRIPLE))
    square = tuple(np.zeros(size) for size in ((10, longest), (2, 25), (2, 13), (_DOUBLE, _DOUBLE)))
    sort = (np.empty(longest), np.empty(longest, np.int64), *radix.workspace(longest))
    _shapes(t, mag, magerr, offsets, frequency, out, small, square, sort)
    return out


@jit
def _shapes(t, mag, magerr, offsets, frequency, out, small, square, sort):
    for i in range(offsets.size - 1):
        f, row, a, b = frequency[i], out[i], offsets[i], offsets[i + 1]
        if not f > 0.0:
            row[:] = np.nan
            continue
        row[0] = -math.log10(f)
        if b - a >= 3:
            _shape(t[a:b], mag[a:b], magerr[a:b], f, row, small, square, sort)


@inline
def _shape(t, m, e, f, row, small, square, sort):
    n = t.size
    _, single, double, curve, twice, triple = small
    flat = square[0]
    weight, y, phase, cosine, sine = flat[0, :n], flat[1, :n], flat[2, :n], flat[3, :n], flat[4, :n]
    u, v, values = flat[5, :n], flat[6, :n], flat[7, :n]
    total, chi2, std, err = fit.weigh(m, e, weight, y)
    if not (chi2 > 0.0 and std > 0.0):
        return
    # phases in turns of twice the period: its orders hold those of the period and of its half
    fit.phasors(t, 0.5 * f, phase, cosine, sine)
    left = _fits(weight, y, chi2, cosine, sine, u, v, small, square, row[_ENDS[0] : _ENDS[1]])
    rms = math.sqrt(left / total)
    row[_ENDS[1] - 1] = math.log10(1.0 + rms / err)
    fold.fourier(single, rms * math.sqrt(2.0 / n), row[_ENDS[1] : _ENDS[2]])
    extent, faint = fold.turned(single, _WHOLE, curve)
    extent = extent if extent > NEGLIGIBLE * std else 0.0
    fold.single_wave(curve, extent, faint, std, row[_ENDS[2] : _ENDS[3]])
    span, dark = fold.turned(double, _ORDERS, twice)
    span = span if span > NEGLIGIBLE * std else 0.0
    fold.double_wave(double, EVEN, twice, span, dark, row[_ENDS[3] : _ENDS[4]])
    _folds(y, phase, std, curve, faint, u, v, sort, row[_ENDS[4] : _ENDS[6]])
    for i in range(n):
        u[i], v[i] = cosine[i] * cosine[i] - sine[i] * sine[i], 2.0 * cosine[i] * sine[i]
    fit.evaluate(single, EVEN, u, v, flat[8, :n], flat[9, :n], values)
    fold.residuals(y, values, err, std, extent, u, sort, row[_ENDS[6] : _ENDS[7]])
    fold.structure(t, y, _EDGES, std, row[_ENDS[7] : _ENDS[8]])
    fold.half_wave(triple, row[_ENDS[8] : _ENDS[9]])


@inline
def _fits(weight, y, chi2, cosine, sine, u, v, small, square, out):
    """The block "explained" less its last, and the coefficients; returns the Σwr² that the period leaves."""
    right, single, double, triple = small[0], small[1], small[2], small[5]
    of_weight, of_data, matrix = square[1], square[2], square[3]
    fit.sums(cosine, sine, weight, y, u, v, of_weight, of_data)
    fit.normal_equations(_HALF, 4, of_weight, of_data, matrix, right)
    fit.factorise(matrix, right, _TRIPLE)
    fit.solve(matrix, right, _TRIPLE, triple)
    out[5] = fit.explained(right, _HALF.size) / chi2
    fit.normal_equations(_ORDERS, 2, of_weight, of_data, matrix, right)
    fit.factorise(matrix, right, _DOUBLE)
    fit.solve(matrix, right, _SINGLE, single)
    fit.solve(matrix, right, _DOUBLE, double)
    out[1], out[2] = fit.explained(right, 1) / chi2, fit.explained(right, 2) / chi2
    whole = fit.explained(right, EVEN)
    out[3], out[4] = fit.explained(right, 4) / chi2, whole / chi2
    left = max(chi2 - whole, 0.0)
    out[6] = fold.ratio(fit.explained(right, EVEN + ODD) - whole, left)
    return left


@inline
def _folds(y, phase, std, curve, faint, turn, buffer, sort, out):
    """The blocks "folded" and "string"; `phase` is of twice the period."""
    ordered, order, keys, first, counters = sort
    n = y.size
    for i in range(n):
        x = 2.0 * phase[i] - faint / fold.GRID + 0.5 / BINS
        turn[i] = x - math.floor(x)
    radix.sort_into(turn, ordered, order, keys, first, counters)
    fold.folded(y, ordered[:n], order, curve, faint, std, buffer, out[: 2 * BINS])
    out[2 * BINS] = fold.string_length(y, order, std)
    radix.sort_into(phase, ordered, order, keys, first, counters)
    out[2 * BINS + 1] = fold.string_length(y, order, std)
