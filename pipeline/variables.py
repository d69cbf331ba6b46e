"""The classes of simulated stars: how common each is, and the parameters of its light curves.

Fourier ratios of RR Lyrae stars are as in Simon & Lee 1981 (ApJ 248, 291), period ratios of RRd stars as in Petersen
1973 (A&A 27, 89), cosine series of contact binaries as in Ruciński 1993 (PASP 105, 1433). The shares are chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from lightmill.pipeline import observe
from lightmill.pipeline.draws import choose, log_uniform, near
from lightmill.pipeline.observe import HARMONICS, PARAMETERS
from lightmill.pipeline.survey import NIGHTS

# The share of each class among variables: between that of Chen+2020 (ApJS 249, 18), where nine tenths are
# eclipsing, spotted or long-period, and an even one, which would give rare classes too much.
CLASSES = {
    "EW": 0.36,
    "RS_CVn": 0.14,
    "EA": 0.12,
    "RRab": 0.10,
    "LPV": 0.10,
    "RRc": 0.06,
    "HADS": 0.04,
    "ELL": 0.03,
    "RRd": 0.02,
    "CEP": 0.02,
    "SN_Ia": 0.01,
}
LABELS = ("nonvar", *CLASSES)

# Amplitude in r and i over that in g: pulsation and spots are a matter of temperature, eclipses less so.
REDDER = {
    "EW": (0.95, 0.92),
    "EA": (0.97, 0.95),
    "ELL": (0.95, 0.92),
    "RRab": (0.72, 0.57),
    "RRc": (0.72, 0.57),
    "RRd": (0.72, 0.57),
    "HADS": (0.70, 0.55),
    "CEP": (0.66, 0.52),
    "LPV": (0.75, 0.50),
    "RS_CVn": (0.85, 0.70),
    "SN_Ia": (1.0, 1.0),
    "nonvar": (1.0, 1.0),
}


class Variables(NamedTuple):
    """What makes `n` stars of one class vary."""

    shape: int
    period: np.ndarray  # d; NaN where there is none
    amplitude: np.ndarray  # peak to peak in g, mag
    rest: np.ndarray  # the columns of `params` from REST on, n × 2 HARMONICS


def draw_variables(
    rng: np.random.Generator, fraction: float, n: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Label (index into LABELS), shape and parameters of `n` stars, of which about `fraction` vary."""
    varies = rng.random(n) < fraction
    label = np.where(varies, 1 + choose(rng, list(CLASSES.values()), n), 0)
    shape, params = np.zeros(n, np.int64), np.zeros((n, PARAMETERS))
    params[:, observe.PERIOD] = np.nan
    for number, name in enumerate(LABELS[1:], start=1):
        mine = np.flatnonzero(label == number)
        drawn = DRAW[name](rng, len(mine))
        shape[mine] = drawn.shape
        params[mine, observe.PERIOD], params[mine, observe.AMPLITUDE] = drawn.period, drawn.amplitude
        params[mine, observe.EPOCH] = rng.uniform(0, NIGHTS, len(mine))
        params[mine, observe.REST :] = drawn.rest
    return label, shape, params


def amplitude_scale(label: np.ndarray, filterid: np.ndarray) -> np.ndarray:
    """What multiplies the amplitude of each row in its filter."""
    return np.array([(1.0, *REDDER[name]) for name in LABELS])[label, filterid - 1]


def _fourier(rng: np.random.Generator, ratios: Any, phases: Any, spread: float, n: int) -> np.ndarray:
    """n × 2 HARMONICS: A_k/A_1 and φ_k of Σ A_k sin(2πk·phase + φ_k), scaled to peak to peak 1.

    `phases` are φ_k1 = φ_k − k φ_1 (radians); both scatter from star to star, the ratios by `spread` of
    themselves.
    """
    rest = np.zeros((n, 2 * HARMONICS))
    rest[:, 0] = 1
    for k, (ratio, phase) in enumerate(zip(ratios, phases, strict=True), start=1):
        rest[:, k] = ratio * np.clip(rng.normal(1, spread, n), 0, 2)
        rest[:, HARMONICS + k] = rng.normal(phase, 0.12 * k**0.5, n)
    return _unit_range(rest)


def _unit_range(rest: np.ndarray) -> np.ndarray:
    """Scale the amplitudes of Fourier series so that each spans 1 from crest to trough."""
    phase = 2 * np.pi * np.arange(64) / 64
    k = np.arange(1, HARMONICS + 1)[:, None]
    sines = np.sin(k * phase + rest[:, HARMONICS:, None])
    curve = np.einsum("nk,nkp->np", rest[:, :HARMONICS], sines)
    rest[:, :HARMONICS] /= np.ptp(curve, axis=1)[:, None]
    return rest


def _binary(rng: np.random.Generator, ellipsoidal: Any, unequal: Any, n: int) -> np.ndarray:
    """Two waves an orbit: cos 2θ, sharper minima by cos 4θ, unequal ones by cos θ, O'Connell's by sin θ."""
    rest = np.zeros((n, 2 * HARMONICS))
    rest[:, HARMONICS : HARMONICS + 4] = np.pi / 2
    rest[:, 0], rest[:, 1], rest[:, 3] = unequal, 1, ellipsoidal
    rest[:, 2], rest[:, HARMONICS] = 0.3 * unequal, np.pi / 2 + rng.normal(0, 0.4, n)
    return _unit_range(rest)


def _rrab(rng: np.random.Generator, n: int) -> Variables:
    period = near(rng, 0.56, 0.07, 0.38, 0.9, n)
    # Bailey's diagram: the longer the period, the smaller the amplitude.
    amplitude = np.clip(1.05 - 3.2 * (period - 0.55) + rng.normal(0, 0.15, n), 0.25, 1.6)
    rest = _fourier(rng, (0.47, 0.34, 0.22, 0.14, 0.09), (2.4, 5.0, 1.4, 4.0, 0.4), 0.12, n)
    return Variables(observe.FOURIER, period, amplitude, rest)


def _rrc(rng: np.random.Generator, n: int) -> Variables:
    rest = _fourier(rng, (0.14, 0.06, 0.04), (3.0, 3.6, 2.0), 0.35, n)
    return Variables(observe.FOURIER, near(rng, 0.32, 0.04, 0.22, 0.44, n), rng.uniform(0.25, 0.6, n), rest)


def _hads(rng: np.random.Generator, n: int) -> Variables:
    rest = _fourier(rng, (0.37, 0.16, 0.08), (2.5, 5.1, 1.5), 0.25, n)
    return Variables(observe.FOURIER, log_uniform(rng, 0.045, 0.2, n), rng.uniform(0.2, 0.8, n), rest)


def _cep(rng: np.random.Generator, n: int) -> Variables:
    rest = _fourier(rng, (0.36, 0.2, 0.1), (2.7, 5.3, 1.8), 0.3, n)
    return Variables(observe.FOURIER, log_uniform(rng, 1.5, 40, n), rng.uniform(0.35, 1.2, n), rest)


def _ew(rng: np.random.Generator, n: int) -> Variables:
    amplitude = rng.uniform(0.1, 0.8, n)
    rest = _binary(rng, 0.05 + 0.25 * amplitude, np.abs(rng.normal(0, 0.06, n)), n)
    return Variables(observe.FOURIER, np.clip(np.exp(rng.normal(-1.03, 0.2, n)), 0.21, 0.9), amplitude, rest)


def _ell(rng: np.random.Generator, n: int) -> Variables:
    rest = _binary(rng, 0.02, np.abs(rng.normal(0, 0.15, n)), n)
    return Variables(observe.FOURIER, log_uniform(rng, 0.3, 20, n), rng.uniform(0.03, 0.25, n), rest)


def _ea(rng: np.random.Generator, n: int) -> Variables:
    """Columns: second over first depth, two half widths (cycles), phase of the second, slope, wave."""
    period = np.clip(np.exp(rng.normal(0.75, 0.75, n)), 0.4, 40)
    # Stars of a size fill less of a wider orbit: Kepler's third law gives width ∝ P^(−2/3).
    half_width = np.clip(0.075 * period ** (-2 / 3) * np.exp(rng.normal(0, 0.25, n)), 0.012, 0.11)
    rest = np.zeros((n, 2 * HARMONICS))
    rest[:, 0] = rng.beta(1.6, 1.8, n)
    rest[:, 1] = half_width
    rest[:, 2] = half_width * np.exp(rng.normal(0, 0.1, n))
    rest[:, 3] = np.where(rng.random(n) < 0.75, 0.5, rng.uniform(0.35, 0.65, n))
    rest[:, 4] = rng.uniform(0.4, 1.0, n)
    rest[:, 5] = 0.04 * rng.random(n)
    return Variables(observe.ECLIPSES, period, np.clip(rng.lognormal(-0.9, 0.55, n), 0.1, 2.5), rest)


def _rrd(rng: np.random.Generator, n: int) -> Variables:
    """Columns: fundamental period, its amplitude and phase, and the share of the overtone's harmonic.

    P1/P0 runs from 0.742 to 0.748 with P0 (Petersen 1973); the first overtone P1 has the larger amplitude.
    """
    fundamental = rng.uniform(0.46, 0.57, n)
    ratio = 0.7440 + 0.025 * (fundamental - 0.46) + rng.normal(0, 0.0004, n)
    rest = np.zeros((n, 2 * HARMONICS))
    rest[:, 0] = fundamental
    rest[:, 1] = rng.uniform(0.25, 0.8, n)
    rest[:, 2] = rng.uniform(0, 2 * np.pi, n)
    rest[:, 3] = rng.uniform(0.1, 0.2, n)
    return Variables(observe.TWO_MODES, ratio * fundamental, rng.uniform(0.35, 0.7, n), rest)


def _lpv(rng: np.random.Generator, n: int) -> Variables:
    """Columns: harmonic, change of the amplitude over cycles and its period and phase, slow wave the same."""
    mira = rng.random(n) < 0.3
    period = np.where(mira, log_uniform(rng, 130, 500, n), log_uniform(rng, 35, 300, n))
    rest = np.zeros((n, 2 * HARMONICS))
    rest[:, 0] = np.where(mira, 0.15, 0.05) * rng.random(n)
    rest[:, 1] = np.where(mira, 0.15, 0.5) * rng.uniform(0.3, 1, n)
    rest[:, 2] = period * rng.uniform(2.5, 9, n)
    rest[:, 3] = rng.uniform(0, 2 * np.pi, n)
    rest[:, 4] = np.where(mira, 0.1, 0.4) * rng.random(n)
    rest[:, 5] = period * rng.uniform(5, 12, n)
    rest[:, 6] = rng.uniform(0, 2 * np.pi, n)
    amplitude = np.where(mira, rng.uniform(2.5, 5.5, n), log_uniform(rng, 0.15, 1.5, n))
    return Variables(observe.LONG_PERIOD, period, amplitude, rest)


def _rs_cvn(rng: np.random.Generator, n: int) -> Variables:
    """Columns: harmonic, its phase, drift of the spots (radians); the cycle (d), its phase, its effects."""
    rest = np.zeros((n, 2 * HARMONICS))
    rest[:, 0] = rng.uniform(0, 0.45, n)
    rest[:, 1] = rng.uniform(0, 2 * np.pi, n)
    rest[:, 2] = rng.uniform(0.2, 1.3, n)
    rest[:, 3] = rng.uniform(300, 3000, n)
    rest[:, 4] = rng.uniform(0, 2 * np.pi, n)
    rest[:, 5] = rng.uniform(0.1, 0.6, n)
    rest[:, 6] = rng.uniform(0, 0.5, n)
    period = np.clip(np.exp(rng.normal(1.3, 1.0, n)), 0.4, 60)
    return Variables(observe.SPOTS, period, log_uniform(rng, 0.06, 0.45, n), rest)


def _sn_ia(rng: np.random.Generator, n: int) -> Variables:
    """Columns: how much brighter than its host at peak (mag), and the stretch of time s (1 + z)."""
    peak = rng.uniform(-0.5, 3.0, n)
    rest = np.zeros((n, 2 * HARMONICS))
    rest[:, 0] = peak
    rest[:, 1] = near(rng, 1.0, 0.1, 0.7, 1.25, n) * (1 + rng.uniform(0.01, 0.12, n))
    brightening = 2.5 * np.log10(1 + 10 ** (0.4 * peak))
    return Variables(observe.SUPERNOVA, np.full(n, np.nan), brightening, rest)


DRAW: dict[str, Callable[[np.random.Generator, int], Variables]] = {
    "EW": _ew,
    "RS_CVn": _rs_cvn,
    "EA": _ea,
    "RRab": _rrab,
    "LPV": _lpv,
    "RRc": _rrc,
    "HADS": _hads,
    "ELL": _ell,
    "RRd": _rrd,
    "CEP": _cep,
    "SN_Ia": _sn_ia,
}
