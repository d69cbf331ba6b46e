"""Period search: every frequency of every light curve of a ragged batch, in a fraction of a millisecond each.

Peaks of the power of the weighted magnitudes less their mean (`period_fold`: the night fold), then harmonic fits with
a floating mean that refine and rank them, their halves, and doubles and day aliases of the highest (`period_fit`);
those of one harmonic are Lomb-Scargle's.
Light curves whose folds have one shape are transformed together, a few at a time: the transforms are scipy's,
everything else is compiled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from scipy.fft import rfft

from lightmill.pipeline import period_fit, period_fold
from lightmill.pipeline.period_plan import Plan, plan

__all__ = ["FITTED", "HARMONICS", "POLISHED", "Periods", "nothing", "search"]

HARMONICS = 6  #: of the fits that judge a candidate
FITTED = 4  #: harmonics whose coefficients are told
POLISHED = 10  #: candidates that are refined by their own fits
AT_ONCE = (
    2**19
)  #: cells of the grids that are transformed together, with their spectra 4 MB: they stay near the core


@dataclass(frozen=True)
class Periods:
    """What was found for n light curves; candidates from the highest rank down, NaN behind the last.

    Nothing is searched, and all is NaN, in light curves of fewer than FEWEST epochs, of magnitudes that are equal but
    for a few outliers, of a baseline that holds no cycle of `fmax` or that no grid can hold, or of a variance that is
    too far from 1 for float32 (outside 1e-30…1e30 mag²: no magnitudes have one). With
    c = 2 · `period_fit.with_relatives(candidates)`, float64; no two are nearer than 0.2/T, but where several of the
    first POLISHED fit best at one place:
    """

    candidates: np.ndarray  #: (n, c) [1/d], within what was asked; the first POLISHED where they fit best
    rank: np.ndarray  #: (n, c), see `period_fit`
    score: np.ndarray  #: (n, c), −log10 of the chance that white noise of these errors does as well anywhere
    explained: np.ndarray  #: (n, c, HARMONICS), R² of 1…HARMONICS harmonics
    power: (
        np.ndarray
    )  #: (n, c), 2|Σ w y exp(−2πift)|² / Σ w y², of the peak or relative that it, or twice it, is
    wave: np.ndarray  #: (n, c, 2 · FITTED) [mag], cos and sin of each harmonic, from mid-time

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
    device: Literal["cpu", "cuda"] = "cpu",
) -> Periods:
    """Search the periods of every light curve of a clean, ragged batch. On the CPU one thread, its kernels without GIL.

    Parameters
    ----------
    t, mag, magerr : (N,) float32 or float64 [d, mag, mag]; finite, times not decreasing within a light curve, errors
        positive, as `clean` leaves them
    offsets : (n + 1,) integer; light curve i owns the epochs offsets[i]:offsets[i + 1]
    fmin, fmax : frequencies looked at [1/d]; nothing below one cycle over the baseline
    oversampling : frequencies to a resolution element 1/T, at least 1
    candidates : peaks that are judged. So are the double and the day aliases (a cycle a day more, and less) of the
        three highest, and half the frequency of each of all these
    device : "cuda": the current CUDA device; the same candidates, sums of float32 taken in another order

    Raises
    ------
    ValueError
        if lengths differ, offsets decrease or leave the arrays, an epoch is not what it must be, or
        0 < fmin < fmax, oversampling ≥ 1 and candidates ≥ 1 do not hold.
    RuntimeError
        if there is no CUDA device, or nothing that transforms on it.

    Examples
    --------
    >>> t = np.arange(200) * 1.37 % 100 + np.arange(200) // 2
    >>> t.sort()
    >>> found = search(t, 15 + 0.3 * np.sin(2 * np.pi * t / 0.8), np.full(200, 0.02), np.array([0, 200]))
    >>> round(float(1 / found.frequency[0]), 4)
    0.8
    """
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu or cuda, got {device!r}")
    asked = plan(
        t, mag, magerr, offsets, fmin=fmin, fmax=fmax, oversampling=oversampling, candidates=candidates
    )
    found = nothing(len(asked.days), 2 * period_fit.with_relatives(candidates))
    if device == "cuda":
        from lightmill.pipeline.period_cuda import search_on_device  # needs numba.cuda, which few have

        search_on_device(asked, fmax, candidates, found)
        return found
    epochs, looked = asked.epochs, asked.looked
    work = period_fit.workspace(epochs.longest, candidates, HARMONICS, FITTED)
    for some, frequency, count in _peaks(asked, fmax, candidates):
        period_fit.judge(
            epochs.time, epochs.weight, epochs.product, epochs.offsets, epochs.variance, some, frequency, count,
            looked.step, looked.lowest, looked.highest, looked.number, POLISHED, work,
            found.candidates, found.rank, found.score, found.explained, found.power, found.wave,
        )  # fmt: skip
    return found


def nothing(n: int, candidates: int) -> Periods:
    """Room for what is found in n light curves, all NaN."""
    listed, rank, score, power = np.full((4, n, candidates), np.nan)
    explained, wave = (np.full((n, candidates, k), np.nan) for k in (HARMONICS, 2 * FITTED))
    return Periods(listed, rank, score, explained, power, wave)


def _peaks(asked: Plan, fmax: float, most: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The highest peaks of the light curves: which, frequencies in steps (k, most), and how many (k,)."""
    epochs, night, looked = asked.epochs, asked.night, asked.looked
    density = period_fold.density(fmax)
    cells = np.zeros(0, np.float32)
    for alike in asked.alike():
        rows, length = int(night.rows[alike[0]]), int(asked.days[alike[0]])
        tables, scratch = period_fold.tables(rows, length, fmax), period_fold.sums_workspace(rows)
        at_once = min(max(1, AT_ONCE // (rows * length)), len(alike))
        if cells.size < at_once * rows * length:
            cells = np.zeros(at_once * rows * length, np.float32)
        for start in range(0, len(alike), at_once):
            some = alike[start : start + at_once]
            grids = cells[: len(some) * rows * length].reshape(len(some), rows, length)
            fold = epochs.offsets, some, night.day, night.dusk, density, grids
            period_fold.spread(epochs.t, epochs.product, *fold)
            spectra = rfft(grids).view(np.float32)
            period_fold.clear(epochs.t, *fold)
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
