"""Period search: every frequency of every light curve of a ragged batch, in a fraction of a millisecond each.

Lomb-Scargle's peaks with errors (`period_fold`: the night fold), then harmonic fits with a floating mean that refine
and rank them and their halves (`period_fit`). Light curves whose folds have one shape are transformed together, a few
at a time: the transforms are scipy's, everything else is compiled.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
from scipy.fft import rfft

from lightmill.pipeline import period_fit, period_fold, radix
from lightmill.pipeline.ragged import ragged

__all__ = ["HARMONICS", "Periods", "search"]

HARMONICS = 6  #: of the fits that judge a candidate
FITTED = 4  #: harmonics whose coefficients are told
FEWEST = 10  #: epochs that a period needs: three parameters of one harmonic, and as many again that could refute it
CYCLES = 1.0  #: that the epochs must span, at least
POLISHED = 10  #: candidates that are refined by their own fits
AT_ONCE = (
    2**19
)  #: cells of the grids that are transformed together: they and their spectra stay near the core
LARGEST = 2**26  #: cells of one grid (a quarter of a gigabyte): two thousand years, or times that are wrong


@dataclass(frozen=True)
class Periods:
    """What was found for n light curves; candidates from the highest rank down, NaN behind the last.

    Nothing is searched, and all is NaN, in light curves of fewer than FEWEST epochs, of equal magnitudes, or of a
    baseline that no grid can hold.
    """

    candidates: (
        np.ndarray
    )  #: (n, 2 · candidates) float64 [1/d], the first POLISHED moved to where they fit best
    rank: np.ndarray  #: (n, 2 · candidates) float64, see `period_fit`
    score: (
        np.ndarray
    )  #: (n, 2 · candidates) float64, −log10 of the chance that white noise does as well anywhere
    explained: np.ndarray  #: (n, 2 · candidates, HARMONICS) float64, R² of 1…HARMONICS harmonics
    power: np.ndarray  #: (n, 2 · candidates) float64, Lomb-Scargle's, of the peak that it, or twice it, is
    wave: (
        np.ndarray
    )  #: (n, 2 · candidates, 2 · FITTED) float64 [mag], cos and sin of each harmonic, from mid-time

    @property
    def frequency(self) -> np.ndarray:
        """(n,) float64 [1/d] of the highest rank."""
        return self.candidates[:, 0]

    def take(self, some: slice | np.ndarray) -> Periods:
        """Those of some of the light curves."""
        return Periods(*(getattr(self, field.name)[some] for field in fields(self)))


def search(
    t: np.ndarray,
    mag: np.ndarray,
    magerr: np.ndarray,
    offsets: np.ndarray,
    *,
    fmin: float = 0.0005,
    fmax: float = 25.0,
    oversampling: float = 1.5,
    candidates: int = 30,
) -> Periods:
    """Search the periods of every light curve of a clean, ragged batch. One thread, no GIL.

    Parameters
    ----------
    t, mag, magerr : (N,) float32 or float64 [d, mag, mag]; finite, times increasing within a light curve, errors
        positive, as `clean` leaves them
    offsets : (n + 1,) integer; light curve i owns the epochs offsets[i]:offsets[i + 1]
    fmin, fmax : frequencies looked at [1/d]; nothing below one cycle over the baseline
    oversampling : frequencies to a resolution element 1/T, at least 1
    candidates : peaks that are judged, each with half its frequency

    Raises
    ------
    ValueError
        if lengths differ, offsets decrease or leave the arrays, or 0 < fmin < fmax, oversampling ≥ 1 and
        candidates ≥ 1 do not hold.

    Examples
    --------
    >>> t = np.arange(200) * 1.37 % 100 + np.arange(200) // 2
    >>> t.sort()
    >>> found = search(t, 15 + 0.3 * np.sin(2 * np.pi * t / 0.8), np.full(200, 0.02), np.array([0, 200]))
    >>> round(float(1 / found.frequency[0]), 4)
    0.8
    """
    offsets, t, mag, magerr = ragged(offsets, t=t, mag=mag, magerr=magerr)
    if not (0 < fmin < fmax < np.inf and 1 <= oversampling < np.inf and candidates >= 1):
        raise ValueError(
            f"0 < fmin < fmax, oversampling ≥ 1 and candidates ≥ 1 must hold, got fmin {fmin}, fmax {fmax}, "
            f"oversampling {oversampling}, candidates {candidates}"
        )
    epochs = _weighed(t, mag, magerr, offsets)
    night = period_fold.plan(t, offsets, fmax)
    fits = oversampling * epochs.baseline * night.rows < LARGEST
    chosen = np.flatnonzero((np.diff(offsets) >= FEWEST) & (epochs.variance > 0) & fits)
    days = np.zeros(len(epochs.variance), np.int64)
    days[chosen] = period_fold.days_needed(epochs.baseline[chosen] / night.day[chosen], oversampling)
    found = _nothing(len(days), 2 * candidates)
    looked = _Looked.at(fmin, fmax, epochs.baseline, days, night.day)
    work = period_fit.workspace(_longest(offsets), candidates, HARMONICS, FITTED)
    for some, frequency, count in _peaks(epochs, night, days, chosen, looked, fmax, candidates):
        period_fit.judge(
            epochs.time, epochs.weight, epochs.product, offsets, epochs.variance, some, frequency, count,
            looked.step, looked.lowest, looked.number, POLISHED, work,
            found.candidates, found.rank, found.score, found.explained, found.power, found.wave,
        )  # fmt: skip
    return found


@dataclass(frozen=True)
class _Epochs:
    """The epochs of n light curves, weighed once for all stages (`period_fit.weigh`)."""

    t: np.ndarray  #: (N,) float64 [d]
    time: np.ndarray  #: (N,) float64 [d], from the middle
    weight: np.ndarray  #: (N,) float32, sums to 1
    product: np.ndarray  #: (N,) float32 [mag]
    offsets: np.ndarray  #: (n + 1,) int64
    variance: np.ndarray  #: (n,) float64 [mag²]
    baseline: np.ndarray  #: (n,) float64 [d]


@dataclass(frozen=True)
class _Looked:
    """Which frequencies are looked at in n light curves."""

    step: np.ndarray  #: (n,) float64 [1/d]
    lowest: np.ndarray  #: (n,) float64 [1/d]
    first: np.ndarray  #: (n,) int64, in steps
    last: np.ndarray  #: (n,) int64, in steps
    number: np.ndarray  #: (n,) float64, of independent ones

    @classmethod
    def at(cls, fmin: float, fmax: float, baseline: np.ndarray, days: np.ndarray, day: np.ndarray) -> _Looked:
        step = 1 / np.maximum(days * day, 1.0)
        lowest = np.maximum(fmin, CYCLES / np.maximum(baseline, CYCLES / fmax))
        first, last = np.ceil(lowest / step).astype(np.int64), np.floor(fmax / step).astype(np.int64)
        return cls(step, lowest, first, last, np.maximum((fmax - lowest) * baseline, 1.0))


def _weighed(t: np.ndarray, mag: np.ndarray, magerr: np.ndarray, offsets: np.ndarray) -> _Epochs:
    n, total = len(offsets) - 1, len(t)
    time, variance = np.empty(total), np.empty(n)
    weight, product = np.empty(total, np.float32), np.empty(total, np.float32)
    longest = _longest(offsets)
    scratch = np.empty(longest), np.empty(longest, np.int64), *radix.workspace(longest)
    period_fit.weigh(t, mag, magerr, offsets, scratch, time, weight, product, variance)
    padded = np.append(t, 0.0)  # what an empty light curve at the end points to
    baseline = np.where(np.diff(offsets) > 0, padded[offsets[1:] - 1] - padded[offsets[:-1]], 0.0)
    return _Epochs(t, time, weight, product, offsets, variance, baseline)


def _longest(offsets: np.ndarray) -> int:
    return int(np.diff(offsets).max(initial=1))


def _nothing(n: int, candidates: int) -> Periods:
    listed, rank, score, power = np.full((4, n, candidates), np.nan)
    explained, wave = (np.full((n, candidates, k), np.nan) for k in (HARMONICS, 2 * FITTED))
    return Periods(listed, rank, score, explained, power, wave)


def _peaks(
    epochs: _Epochs,
    night: period_fold.Night,
    days: np.ndarray,
    chosen: np.ndarray,
    looked: _Looked,
    fmax: float,
    most: int,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The highest peaks of the chosen light curves: which, frequencies in steps (k, most), and how many (k,)."""
    density = period_fold.density(fmax)
    cells = np.zeros(0, np.float32)
    for alike in _alike(chosen, night.rows, days):
        rows, length = int(night.rows[alike[0]]), int(days[alike[0]])
        tables, scratch = period_fold.tables(rows, length, fmax), period_fold.sums_workspace(rows)
        at_once = min(max(1, AT_ONCE // (rows * length)), len(alike))
        if cells.size < at_once * rows * length:
            cells = np.zeros(at_once * rows * length, np.float32)
        for start in range(0, len(alike), at_once):
            some = alike[start : start + at_once]
            grids = cells[: len(some) * rows * length].reshape(len(some), rows, length)
            period_fold.spread(
                epochs.t, epochs.product, epochs.offsets, some, night.day, night.dusk, density, grids
            )
            spectra = rfft(grids).view(np.float32)
            period_fold.clear(epochs.t, epochs.offsets, some, night.day, night.dusk, density, grids)
            frequency, count = np.empty((len(some), most), np.int64), np.empty(len(some), np.int64)
            power = np.empty(frequency.shape, np.float32)
            period_fold.peaks(
                spectra,
                length,
                *tables,
                *scratch,
                looked.first[some],
                looked.last[some],
                frequency,
                power,
                count,
            )
            yield some, frequency, count


def _alike(chosen: np.ndarray, rows: np.ndarray, days: np.ndarray) -> Iterator[np.ndarray]:
    """The chosen light curves in groups of equal rows and days."""
    order = chosen[np.lexsort((chosen, days[chosen], rows[chosen]))]
    other = (np.diff(rows[order]) != 0) | (np.diff(days[order]) != 0)
    borders = [0, *(np.flatnonzero(other) + 1).tolist(), len(order)]
    return (order[a:b] for a, b in itertools.pairwise(borders) if a < b)
