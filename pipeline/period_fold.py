"""The night fold: all power-spectrum peaks of a light curve from a few short transforms instead of one long one.

A telescope observes at night: t = d + τ with a whole day d and a τ that fills only a part of it. So for a frequency
f = m + k/N, with a whole number m of cycles a day,

    F(f) = Σ w y exp(−2πi f t) = Σ_τ exp(−2πi f τ) · Σ_d w y exp(−2πi d k/N),

for exp(−2πi d m) = 1. The inner sums are, for every row τ of a grid of the night, one real transform over the days;
the outer sum over the rows is a small matrix product that gives all aliases f0 ± m of a base frequency f0 = k/N at
once. Only τ is gridded: an epoch is spread over WIDTH rows by the "exponential of semicircle" kernel of
Barnett+2019 (SIAM J. Sci. Comput. 41, C479), whose Fourier transform the power is divided by. Against one transform
over the whole grid of times this saves the daylight (two thirds of the grid) and the last stages of the transform.

The day is solar or sidereal, whichever leaves the larger gap; epochs at all hours are right too, and only dearer.

In a block of BLOCK base frequencies the twiddle exp(−2πi f0 τ) is that of its middle: with N ≥ 1024 it is off by at
most 0.1 rad at the edge of a whole day, 0.03 of a night.

    plan (how to fold)  →  spread  →  scipy.fft.rfft over the days (by the caller)  →  peaks
"""

# mypy: ignore-errors
# (kernels are written in Numba's language, which mypy does not know)

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import njit
from scipy.fft import next_fast_len

__all__ = [
    "Night",
    "Tables",
    "clear",
    "days_needed",
    "density",
    "peaks",
    "plan",
    "spread",
    "sums_workspace",
    "tables",
]

DAYS = np.array([1.0, 0.9972695663])  #: solar and sidereal [d]
WIDTH = 4  #: rows that an epoch is spread over
UPSAMPLING = 1.25  #: rows a cycle of the highest frequency, over the two that it needs
SHAPE = (
    0.98 * np.pi * WIDTH * (1 - 0.5 / UPSAMPLING)
)  #: the kernel's β: nearly the best for width and upsampling
FINE = 1024  #: places between two rows at which the kernel is tabulated
BLOCK = 64  #: base frequencies handled together
QUARTER = 4  #: rows of the product summed in registers
BINS = 128  #: of the day, in which the gap is looked for
ONE, TWO = np.uint64(1), np.uint64(2)
(ROW1, ROW2, ROW3, ROW4, ROW5, ROW6, ROW7, ROW8, ROW9, ROW10, ROW11, ROW12, ROW13, ROW14, ROW15) = (
    np.uint64(i * BLOCK) for i in range(1, 16)
)
SHORTEST = 1024  #: days in a transform, at least: or the twiddle of a block would be too coarse

# nogil: threads may search side by side. fastmath: sums in any order, and no care for NaN, which `clean` has removed;
# a peak's power is off by the gridding's 1e-3 anyway. A loop either stores or sums (see `features`).
_jit = njit(nogil=True, cache=True, error_model="numpy", fastmath=True, boundscheck=False)
# what a kernel calls becomes part of it (see `features`)
_inline = njit(
    nogil=True, cache=True, error_model="numpy", fastmath=True, boundscheck=False, forceinline=True
)


# ---- how to fold ---------------------------------------------------------------------------------------------------


class Night(NamedTuple):
    """How each of n light curves is folded."""

    day: np.ndarray  #: (n,) float64 [d]
    dusk: np.ndarray  #: (n,) float64, place in the day at which the night begins, 0…1
    rows: np.ndarray  #: (n,) int64, of the grid over the night; multiples of 8


def plan(t: np.ndarray, offsets: np.ndarray, fmax: float) -> Night:
    """The shortest night, solar or sidereal, that holds all epochs of a light curve, and the rows that it takes."""
    n = len(offsets) - 1
    day, dusk, night = np.empty(n), np.empty(n), np.empty(n)
    _nights(t, offsets, DAYS, np.empty(BINS, np.bool_), day, dusk, night)
    rows = np.ceil(night * day * density(fmax)).astype(np.int64) + WIDTH + 1
    return Night(day, dusk, -(-rows // (2 * QUARTER)) * 2 * QUARTER)


def density(fmax: float) -> float:
    """Rows a day that frequencies up to `fmax` [1/d] need."""
    return 2 * fmax * UPSAMPLING


def days_needed(baseline: np.ndarray, oversampling: float) -> np.ndarray:
    """Days in a transform: `oversampling` baselines (in days of the fold), up to a length that is quickly done."""
    blocks = np.ceil(np.maximum(oversampling * baseline + 4, SHORTEST) / (2 * BLOCK)).astype(np.int64)
    return 2 * BLOCK * np.array([next_fast_len(int(b), real=True) for b in blocks], np.int64)


@_jit
def _nights(t, offsets, days, seen, day, dusk, night):
    for i in range(offsets.size - 1):
        night[i] = 2.0
        for k in range(days.size):
            start, length = _night(t[offsets[i] : offsets[i + 1]], days[k], seen)
            if length < night[i]:
                day[i], dusk[i], night[i] = days[k], start, length


@_inline
def _night(t, day, seen):
    """Start and length, in days, of the shortest part of the day that holds all epochs (in whole bins)."""
    seen[:] = False
    for i in range(t.size):
        x = t[i] / day
        seen[int((x - np.floor(x)) * BINS) % BINS] = True
    gap, longest, end = 0, 0, 0
    for i in range(2 * BINS):
        gap = 0 if seen[i % BINS] else gap + 1
        if longest < gap <= BINS:
            longest, end = gap, i + 1
    return (end % BINS) / BINS, (BINS - longest) / BINS


# ---- the tables that light curves of one plan share -----------------------------------------------------------------


class Tables(NamedTuple):
    """What the light curves of one plan share."""

    waves: (
        np.ndarray
    )  #: (cycles, 2, rows / 2) float32: cos and sin of each whole number of cycles, rows after the middle
    twiddles: np.ndarray  #: (blocks, 2, rows / 2) float32: cos and sin of each block's middle
    correction: (
        np.ndarray
    )  #: (blocks, cycles, 2) float32: factors of the power at cycles + middle and cycles − middle


@lru_cache(maxsize=256)
def tables(rows: int, days: int, fmax: float) -> Tables:
    """The tables for `rows` rows, `days` days to the transform and frequencies up to `fmax`; made once a process."""
    step = 1 / density(fmax)  # of the rows [d]
    tau = (np.arange(rows // 2) + 0.5) * step
    cycles = np.arange(-(-(int(np.ceil(fmax)) + 1) // 2) * 2)
    middle = (np.arange(days // 2 // BLOCK) * BLOCK + (BLOCK - 1) / 2) / days
    frequency = np.stack([cycles + middle[:, None], np.abs(cycles - middle[:, None])], -1)
    places = np.linspace(0, frequency.max() * step, 1024)
    factor = np.interp(frequency * step, places, 1 / _transform(places) ** 2)
    return Tables(_waves(cycles, tau), _waves(middle, tau), factor.astype(np.float32))


def _waves(frequency: np.ndarray, tau: np.ndarray) -> np.ndarray:
    angle = 2 * np.pi * frequency[:, None] * tau
    return np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)


def sums_workspace(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Scratch for `peaks`."""
    return np.empty(rows // 2 * 4 * BLOCK, np.float32), np.empty(8 * BLOCK, np.float32)


def _kernel(x: np.ndarray) -> np.ndarray:
    """Exponential of semicircle: exp(β (√(1 − x²) − 1)) within ±1."""
    inside = np.maximum(0.0, 1 - x * x)
    return np.where(np.abs(x) < 1, np.exp(SHAPE * (np.sqrt(inside) - 1)), 0.0)


def _transform(cycles: np.ndarray) -> np.ndarray:
    """The kernel's Fourier transform at frequencies in cycles a row, by quadrature; same shape."""
    nodes, weights = np.polynomial.legendre.leggauss(32)
    wave = np.cos(2 * np.pi * cycles[..., None] * nodes * WIDTH / 2)
    return WIDTH / 2 * (wave * _kernel(nodes) * weights).sum(-1)


_PLACES = (np.arange(FINE) + 0.5) / FINE
SPREAD = _kernel((np.arange(WIDTH) - (WIDTH // 2 - 1) - _PLACES[:, None]) / (WIDTH / 2)).astype(np.float32)
"""(FINE, WIDTH): shares of the rows around an epoch, by its place between two rows."""


# ---- kernels --------------------------------------------------------------------------------------------------------


@_jit
def spread(t, product, offsets, some, day, dusk, density, grids):
    """Add the epochs' w y of some light curves to their `grids`, (k, rows, days) float32; density: rows a day."""
    for j in range(some.size):
        i = some[j]
        for epoch in range(offsets[i], offsets[i + 1]):
            row, place, column = _cell(t[epoch], day[i], dusk[i], density)
            for k in range(WIDTH):
                grids[j, row + np.uint64(k), column] += product[epoch] * SPREAD[place, k]


@_jit
def clear(t, offsets, some, day, dusk, density, grids):
    """Make zero again what `spread` has touched: a hundredth of the grids."""
    for j in range(some.size):
        i = some[j]
        for epoch in range(offsets[i], offsets[i + 1]):
            row, _, column = _cell(t[epoch], day[i], dusk[i], density)
            for k in range(WIDTH):
                grids[j, row + np.uint64(k), column] = np.float32(0)


@_inline
def _cell(t, day, dusk, density):
    """The first row that an epoch is spread over, its place between two rows in steps of 1/FINE, and its day."""
    x = t / day - dusk
    d = np.floor(x)
    row = (x - d) * day * density
    k = int(row)
    return np.uint64(k), np.uint64((row - k) * FINE), np.uint64(d + 1.0)


@_jit
def peaks(spectra, days, waves, twiddles, correction, parts, sums, first, last, frequency, power, counts):
    """The highest local maxima of the power of k light curves, in units of 1/`days` cycles a day.

    spectra : (k, rows, ≥ days + 2) float32, real and imaginary parts of the rows' transforms side by side
    waves, twiddles, correction : of `Tables`
    parts, sums : of `sums_workspace`: (rows / 2, 4, BLOCK), real and imaginary parts of the rows' sums and of their
    differences; (2, 4, BLOCK), those of U and V for two numbers of cycles. Flat, for only constant strides vectorise
    first, last : (k,) int64, of the frequencies wanted
    frequency, power : (k, K) int64 and float32, filled from the highest down; a maximum at the edge of a block counts
    as one. counts : (k,) int64, filled: how many there are
    """
    for i in range(counts.size):
        counts[i] = _peaks(
            spectra[i],
            days,
            waves,
            twiddles,
            correction,
            parts,
            sums,
            first[i],
            last[i],
            frequency[i],
            power[i],
        )


@_inline
def _peaks(spectra, days, waves, twiddles, correction, parts, sums, first, last, frequency, power):
    count, least = 0, np.float32(0)
    half, cycles = waves.shape[2], waves.shape[0]
    for block in range(days // 2 // BLOCK):
        start = block * BLOCK
        _halves(spectra, start, twiddles[block], half, parts)
        for m in range(0, cycles, 2):
            _product(parts, waves[m], waves[m + 1], half, sums)
            for j in range(2):
                if not _powers(sums[4 * BLOCK * j :], correction[block, m + j], least):
                    continue
                for sign in range(1 if m + j == 0 else 2):
                    row = sums[(4 * j + sign) * BLOCK :]
                    for k in range(BLOCK):
                        v = row[k]
                        if v > least and (k == 0 or v >= row[k - 1]) and (k == BLOCK - 1 or v > row[k + 1]):
                            at = (m + j) * days + (start + k if sign == 0 else -start - k)
                            if first <= at <= last:
                                count = _insert(at, v, count, frequency, power)
                                if count == frequency.size:
                                    least = power[count - 1]
    return count


@_inline
def _insert(at, value, count, frequency, power):
    """Put a peak into its place in the list, whose last one falls out when it is full; how many there are now."""
    i = min(count, frequency.size - 1)
    while i > 0 and power[i - 1] < value:
        power[i], frequency[i] = power[i - 1], frequency[i - 1]
        i -= 1
    power[i], frequency[i] = value, at
    return min(count + 1, frequency.size)


@_inline
def _halves(spectra, start, twiddle, half, parts):
    """Sums and differences of the rows τ and −τ of a block, each turned by its twiddle."""
    for s in range(half):
        c, d = twiddle[0, s], twiddle[1, s]
        late, early = spectra[half + s, 2 * start :], spectra[half - 1 - s, 2 * start :]
        at = np.uint64(4 * BLOCK * s)
        for j in range(BLOCK):
            k = np.uint64(j)
            x, y, u, v = late[TWO * k], late[TWO * k + ONE], early[TWO * k], early[TWO * k + ONE]
            # late · (c − i d), early · (c + i d)
            p, q, r, z = x * c + y * d, y * c - x * d, u * c - v * d, v * c + u * d
            parts[at + k] = p + r
            parts[at + k + ROW1] = q + z
            parts[at + k + ROW2] = p - r
            parts[at + k + ROW3] = q - z


@_inline
def _product(parts, wave, other, half, sums):
    """U = Σ cos · even and V = Σ sin · odd over the rows, for two numbers of cycles."""
    for k in range(8 * BLOCK):
        sums[k] = 0
    for s in range(0, half, QUARTER):
        c0, c1, c2, c3 = wave[0, s], wave[0, s + 1], wave[0, s + 2], wave[0, s + 3]
        s0, s1, s2, s3 = wave[1, s], wave[1, s + 1], wave[1, s + 2], wave[1, s + 3]
        d0, d1, d2, d3 = other[0, s], other[0, s + 1], other[0, s + 2], other[0, s + 3]
        z0, z1, z2, z3 = other[1, s], other[1, s + 1], other[1, s + 2], other[1, s + 3]
        at = np.uint64(4 * BLOCK * s)
        for j in range(BLOCK):
            k = np.uint64(j)
            i = at + k
            a0, a1, a2, a3 = parts[i], parts[i + ROW4], parts[i + ROW8], parts[i + ROW12]
            sums[k] += c0 * a0 + c1 * a1 + c2 * a2 + c3 * a3
            sums[k + ROW4] += d0 * a0 + d1 * a1 + d2 * a2 + d3 * a3
            a0, a1, a2, a3 = parts[i + ROW1], parts[i + ROW5], parts[i + ROW9], parts[i + ROW13]
            sums[k + ROW1] += c0 * a0 + c1 * a1 + c2 * a2 + c3 * a3
            sums[k + ROW5] += d0 * a0 + d1 * a1 + d2 * a2 + d3 * a3
            a0, a1, a2, a3 = parts[i + ROW2], parts[i + ROW6], parts[i + ROW10], parts[i + ROW14]
            sums[k + ROW2] += s0 * a0 + s1 * a1 + s2 * a2 + s3 * a3
            sums[k + ROW6] += z0 * a0 + z1 * a1 + z2 * a2 + z3 * a3
            a0, a1, a2, a3 = parts[i + ROW3], parts[i + ROW7], parts[i + ROW11], parts[i + ROW15]
            sums[k + ROW3] += s0 * a0 + s1 * a1 + s2 * a2 + s3 * a3
            sums[k + ROW7] += z0 * a0 + z1 * a1 + z2 * a2 + z3 * a3


@_inline
def _powers(sums, correction, least):
    """|U − iV|² and |U + iV|², corrected, in place of U; returns how many exceed `least`.

    (Counting is done in vector lanes, looking for the highest float is not.)
    """
    up, down = correction[0], correction[1]
    for j in range(BLOCK):
        k = np.uint64(j)
        a, b, c, d = sums[k], sums[k + ROW1], sums[k + ROW2], sums[k + ROW3]
        total, cross = a * a + b * b + c * c + d * d, np.float32(2) * (a * d - b * c)
        sums[k] = up * (total + cross)
        sums[k + ROW1] = down * (total - cross)
    count = 0
    for k in range(2 * BLOCK):
        count += sums[k] > least
    return count
