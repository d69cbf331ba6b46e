"""Simulated stars as a survey sees them: the shapes of their light, detection, noise, outliers and flags.

The forms are those of the literature: Fourier series of pulsating stars (Simon & Lee 1981, ApJ 248, 291) and contact
binaries (Ruciński 1993, PASP 105, 1433), two modes of RRd stars (Petersen 1973, A&A 27, 89), and rough templates of
a type Ia supernova. Which parameters a class has, says `variables`. All compiled functions stand in this one file:
Numba's cache looks at the file of the function that is called, not at those of what it calls.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numba
import numpy as np

from lightmill.pipeline.survey import BAD, FILTERS, SATURATION, START, survey

# nogil: a caller may run threads; cache: compiled once a machine; numpy error model: no branch at a division.
_jit = numba.njit(nogil=True, cache=True, error_model="numpy")

# The shapes, and the columns of `params` that all have. Times in d since START.
CONSTANT, FOURIER, ECLIPSES, TWO_MODES, LONG_PERIOD, SPOTS, SUPERNOVA = range(7)
PERIOD, EPOCH, AMPLITUDE, REST = 0, 1, 2, 3
HARMONICS = 6
PARAMETERS = REST + 2 * HARMONICS

# Magnitudes below peak of a type Ia supernova on days −20 … 100 in steps of 5, in g, r and i.
FADING_FIRST, FADING_STEP = -20.0, 5.0
# fmt: off
FADING = np.array([
    [9, 3.2, 1.1, 0.3, 0, 0.2, 0.6, 1.1, 1.6, 2.1, 2.4, 2.6, 2.8, 2.9, 3.0, 3.1, 3.2, 3.3, 3.4, 3.5, 3.6, 3.6,
     3.7, 3.8, 3.9],
    [9, 3.0, 1.0, 0.3, 0, 0.1, 0.4, 0.7, 0.8, 0.9, 1.1, 1.5, 1.8, 2.0, 2.2, 2.4, 2.6, 2.7, 2.9, 3.0, 3.2, 3.3,
     3.5, 3.6, 3.8],
    [9, 3.0, 1.0, 0.3, 0, 0.2, 0.6, 0.7, 0.6, 0.5, 0.7, 1.1, 1.4, 1.7, 1.9, 2.1, 2.3, 2.5, 2.7, 2.9, 3.1, 3.2,
     3.4, 3.6, 3.8],
])
# fmt: on


class Targets(NamedTuple):
    """Stars to observe, one row a star and filter."""

    shape: np.ndarray  # int64
    params: np.ndarray  # n × PARAMETERS
    mag: np.ndarray  # mean in its filter, mag
    scale: np.ndarray  # of the amplitude, in its filter
    filterid: np.ndarray
    quota: np.ndarray  # −1: each exposure that is deep enough; else that many, at random
    first: np.ndarray  # index of its first exposure
    end: np.ndarray  # and one beyond its last


class Epochs(NamedTuple):
    """What has been measured, flat; named as in ZTF's light-curve files."""

    hmjd: np.ndarray  # d, float64
    mag: np.ndarray  # float32
    magerr: np.ndarray  # mag, float32
    clrcoeff: np.ndarray  # float32
    catflags: np.ndarray  # int32

    @classmethod
    def empty(cls, n: int) -> Epochs:
        """Room for `n` epochs."""
        return cls(*(np.empty(n, kind) for kind in ("f8", "f4", "f4", "f4", "i4")))


class Noise(NamedTuple):
    """The fitted numbers of `survey()`; tables by magnitude start at `knot` and go in steps of `step`."""

    knot: float  # mag
    step: float  # mag
    log_error: np.ndarray  # ln of the error (mag), 3 filters × knots
    scatter: np.ndarray  # true scatter over the error
    width: float  # of the detection, mag
    flagged_scatter: float  # what a flagged exposure multiplies the scatter by
    spread: float  # of ln of the error, from epoch to epoch
    outlier_rate: float
    outlier_bright: float  # share of them on the bright side
    outliers: np.ndarray  # quantiles of their size over the scatter
    flags: np.ndarray  # values of catflags in good exposures, int32
    flags_below: np.ndarray  # a uniform number below this gets the flag, cumulative


@lru_cache(maxsize=1)
def noise() -> Noise:
    """The fitted numbers as the kernel takes them."""
    errors, exposures = survey()["errors"], survey()["exposures"]
    knots = errors["mag_knots"]
    return Noise(
        knot=float(knots[0]),
        step=float(knots[1] - knots[0]),
        log_error=np.array([errors["log_error_by_mag"][name] for name in FILTERS]),
        scatter=np.array(errors["scatter_by_mag"]),
        width=exposures["detection_width"],
        flagged_scatter=exposures["flagged_scatter"],
        spread=errors["spread_epoch"],
        outlier_rate=errors["outlier_rate"],
        outlier_bright=errors["outlier_bright"],
        outliers=np.array(errors["outlier_quantiles"]),
        flags=np.array(exposures["other_flags"], dtype=np.int32),
        flags_below=np.cumsum(exposures["other_flags_rate"]),
    )


@_jit
def signal(shape, p, t, band):
    """Magnitudes fainter than the mean at time `t` (d since START) of a star with the parameters `p`;
    `band`: 0 g, 1 r, 2 i."""
    if shape == CONSTANT:
        return 0.0
    if shape == SUPERNOVA:
        return _supernova(p, t, band)
    cycle = (t - p[EPOCH]) / p[PERIOD]
    angle = 2 * math.pi * (cycle - math.floor(cycle))
    if shape == FOURIER:
        return p[AMPLITUDE] * _series(p, angle)
    if shape == ECLIPSES:
        return p[AMPLITUDE] * _eclipses(p, angle)
    if shape == TWO_MODES:
        return 0.5 * p[AMPLITUDE] * _two_modes(p, t, angle) / (1 + p[REST + 1])
    if shape == LONG_PERIOD:
        return 0.5 * p[AMPLITUDE] * _long_period(p, t, angle)
    return 0.5 * p[AMPLITUDE] * _spots(p, t, angle)


@_jit
def _series(p, angle):
    """Σ A_k sin(kθ + φ_k), with the A_k from REST on and the φ_k behind them."""
    value = 0.0
    for k in range(HARMONICS):
        if p[REST + k] != 0.0:
            value += p[REST + k] * math.sin((k + 1) * angle + p[REST + HARMONICS + k])
    return value


@_jit
def _eclipses(p, angle):
    """Two eclipses and the wave of the distorted stars between them; the deeper one has depth 1."""
    second, width, second_width = p[REST], p[REST + 1], p[REST + 2]
    second_phase, slope, wave = p[REST + 3], p[REST + 4], p[REST + 5]
    phase = angle / (2 * math.pi)
    value = 0.5 * wave * math.cos(2 * angle)
    for centre, half_width, depth in ((0.0, width, 1.0), (second_phase, second_width, second)):
        away = abs(phase - centre)
        away = min(away, 1 - away) / half_width
        if away < 1:
            value += depth * min(1.0, (1 - away) / slope)
    return value


@_jit
def _two_modes(p, t, angle):
    """The first overtone, whose period is PERIOD, with its harmonic, and the fundamental mode."""
    period, size, phase, harmonic = p[REST], p[REST + 1], p[REST + 2], p[REST + 3]
    overtone = math.sin(angle) + harmonic * math.sin(2 * angle + 3.0)
    fundamental = size * math.sin(2 * math.pi * t / period + phase)
    return overtone + fundamental


@_jit
def _long_period(p, t, angle):
    """A wave whose amplitude changes over cycles, on a slower one."""
    harmonic, change, change_period, change_phase = p[REST], p[REST + 1], p[REST + 2], p[REST + 3]
    slow, slow_period, slow_phase = p[REST + 4], p[REST + 5], p[REST + 6]
    size = 1 + change * math.sin(2 * math.pi * t / change_period + change_phase)
    wave = math.sin(angle) + harmonic * math.sin(2 * angle + 1.0)
    return size * wave + slow * math.sin(2 * math.pi * t / slow_period + slow_phase)


@_jit
def _spots(p, t, angle):
    """A wave that drifts and grows with the cycle of activity, which also dims the star."""
    harmonic, phase, drift = p[REST], p[REST + 1], p[REST + 2]
    period, period_phase, growth, dimming = p[REST + 3], p[REST + 4], p[REST + 5], p[REST + 6]
    activity = math.sin(2 * math.pi * t / period + period_phase)
    drifted = angle + drift * activity
    wave = math.sin(drifted) + harmonic * math.sin(2 * drifted + phase)
    return (1 + growth * activity) * wave + dimming * activity


@_jit
def _supernova(p, t, band):
    """The light of a supernova that peaks at EPOCH, added to that of its host."""
    brighter, stretch = p[REST], p[REST + 1]
    day = ((t - p[EPOCH]) / stretch - FADING_FIRST) / FADING_STEP
    if day < 0:
        return 0.0
    step = min(int(day), FADING.shape[1] - 2)
    before, after = FADING[band, step], FADING[band, step + 1]
    # Beyond the table the last slope goes on: the radioactive tail.
    fading = before + (day - step) * (after - before)
    return -2.5 * math.log10(1 + 10 ** (0.4 * (brighter - fading)))


@_jit
def _between(x, values):
    """Linear interpolation at the fractional index `x`, constant beyond the ends."""
    x = min(max(x, 0.0), len(values) - 1.000001)
    k = int(x)
    return values[k] + (x - k) * (values[k + 1] - values[k])


@_jit
def _detection(true, depth, width):
    """The chance to find a star of magnitude `true`."""
    return 1 / (1 + math.exp((true - depth) / width)) if true > SATURATION else 0.0


@_jit
def _other_flags(draw, noise):
    """catflags of a good exposure's epoch, by a uniform number."""
    for b in range(len(noise.flags)):
        if draw < noise.flags_below[b]:
            return noise.flags[b]
    return 0


@_jit
def observe(rng, stars, exposures, noise, out):
    """Observe each of `stars` (Targets) with its `exposures`; returns the number of epochs of each (int64).

    `out` (Epochs) is filled from 0 on, and needs room for an epoch of each star in each of its exposures.
    """
    counts = np.zeros(len(stars.shape), np.int64)
    k = 0
    for i in range(len(stars.shape)):
        begin, left, end, band = k, stars.quota[i], stars.end[i], stars.filterid[i] - 1
        whole, params, log_error = left < 0, stars.params[i], noise.log_error[band]
        for e in range(stars.first[i], end):
            if not whole and rng.random() * (end - e) >= left:
                continue
            t, depth, flagged = exposures.t[e], exposures.depth[e], exposures.flagged[e]
            true = stars.mag[i] + stars.scale[i] * signal(stars.shape[i], params, t - START, band)
            # A light curve has an epoch: the last exposure counts where no other has found the star.
            may_miss = whole and (k > begin or e < end - 1)
            if may_miss and rng.random() >= _detection(true, depth, noise.width):
                continue
            left -= 1
            x = (true - noise.knot) / noise.step
            sigma = math.exp(_between(x, log_error)) * _between(x, noise.scatter)
            sigma *= noise.flagged_scatter if flagged else 1.0
            seen = true + sigma * rng.standard_normal()
            if rng.random() < noise.outlier_rate:
                size = sigma * _between(rng.random() * (len(noise.outliers) - 1), noise.outliers)
                # Fainter than the exposure reaches cannot be: such an outlier is a bright one.
                bright = rng.random() < noise.outlier_bright or true + size > depth + 0.5
                seen = true - size if bright else true + size
            out.catflags[k] = (BAD if flagged else 0) | _other_flags(rng.random(), noise)
            # The error that is written follows the measured magnitude, as in the real files.
            error = _between((seen - noise.knot) / noise.step, log_error) + exposures.log_error[e]
            out.magerr[k] = math.exp(error + noise.spread * rng.standard_normal())
            out.hmjd[k], out.mag[k], out.clrcoeff[k] = t, seen, exposures.clrcoeff[e]
            k += 1
        counts[i] = k - begin
    return counts
