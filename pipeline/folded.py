"""The folded light curve as a network takes it: what lies in each bin of phase, at the period and at its double.

In each of BINS bins the mean of the normalised magnitudes, their scatter, and how well the bin is filled; and four
numbers that folding takes away. Magnitudes are normalised by the weighted mean and scatter of the light curve and
clipped at ± CLIP, so that neither brightness nor depth nor a single outlier is to be seen.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from lightmill.pipeline.ragged import cleaned, frequencies

__all__ = ["BINS", "CHANNELS", "SCALARS", "folded"]

BINS = 64
CHANNELS = ("mean", "scatter", "filled", "mean_double", "scatter_double", "filled_double")
SCALARS: tuple[str, ...] = (
    "log_period",  #: log10 [d]
    "log_scatter",  #: log10 of the weighted standard deviation [mag]
    "log_error",  #: log10 of the mean error over it
    "log_epochs",  #: log10(n / 300)
)
CLIP = 6.0  #: [standard deviations]
HALF_FILLED = 2.0  #: epochs in a bin at which it counts as half filled
FLOOR, LEAST_ERROR = (
    0.02,
    0.01,
)  #: [mag] added to each error in quadrature, and the least error, in the weights
LEAST_SCATTER = 1e-3  #: [mag]


def folded(
    t: np.ndarray, mag: np.ndarray, magerr: np.ndarray, offsets: np.ndarray, frequency: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Fold each light curve of a clean, ragged batch.

    Parameters
    ----------
    t, mag, magerr : (N,) float64 [d, mag, mag], as for `features.statistics`
    offsets : (n + 1,) integer
    frequency : (n,) float [1/d]; NaN or ≤ 0 where there is none

    Returns
    -------
    curves : (n, BINS, len(CHANNELS)) float32; empty bins, and light curves without a period, are 0
    scalars : (n, len(SCALARS)) float32; 0 for light curves without a period

    Raises
    ------
    ValueError
        if lengths differ, offsets decrease or leave the arrays, an epoch is not what it must be, or a frequency is
        infinite.
    """
    offsets, t, mag, magerr = cleaned(t, mag, magerr, offsets)
    n = len(offsets) - 1
    frequency = frequencies("frequency", frequency, n)
    curves = np.zeros((n, BINS, len(CHANNELS)), np.float32)
    scalars = np.zeros((n, len(SCALARS)), np.float32)
    _folded(t, mag, magerr, offsets, frequency, curves, scalars)
    return curves, scalars


@njit(nogil=True, cache=True, error_model="numpy")
def _folded(t, mag, magerr, offsets, frequency, curves, scalars):
    count, total, squares = np.empty(BINS), np.empty(BINS), np.empty(BINS)
    for i in range(offsets.size - 1):
        a, b, f = offsets[i], offsets[i + 1], frequency[i]
        if b == a or not f > 0.0:
            continue
        weight = mean = variance = error = 0.0
        for j in range(a, b):
            w = 1.0 / (max(magerr[j], LEAST_ERROR) ** 2 + FLOOR**2)
            weight += w
            mean += w * mag[j]
            error += magerr[j]
        mean /= weight
        for j in range(a, b):
            variance += (mag[j] - mean) ** 2 / (max(magerr[j], LEAST_ERROR) ** 2 + FLOOR**2)
        scatter = math.sqrt(variance / weight) + LEAST_SCATTER
        for which in range(2):
            count[:], total[:], squares[:] = 0.0, 0.0, 0.0
            g = f if which == 0 else 0.5 * f
            for j in range(a, b):
                phase = g * t[j]
                k = min(int((phase - math.floor(phase)) * BINS), BINS - 1)
                z = min(max((mag[j] - mean) / scatter, -CLIP), CLIP)
                count[k] += 1.0
                total[k] += z
                squares[k] += z * z
            for k in range(BINS):
                if count[k] > 0.0:
                    z = total[k] / count[k]
                    curves[i, k, 3 * which] = z
                    curves[i, k, 3 * which + 1] = math.sqrt(max(squares[k] / count[k] - z * z, 0.0))
                    curves[i, k, 3 * which + 2] = count[k] / (count[k] + HALF_FILLED)
        scalars[i, 0] = -math.log10(f)
        scalars[i, 1] = math.log10(scatter)
        scalars[i, 2] = math.log10(error / (b - a) / scatter)
        scalars[i, 3] = math.log10((b - a) / 300.0)
