"""What a period search has to do: which light curves, which frequencies, and how each is folded.

The same for every device: `period` and `period_cuda` both begin here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lightmill.pipeline import period_fit, period_fold, radix
from lightmill.pipeline.ragged import cleaned

__all__ = ["FEWEST", "Epochs", "Looked", "Plan", "plan"]

FEWEST = 10  #: epochs that a period needs: three parameters of one harmonic, and as many again that could refute it
CYCLES = 1.0  #: that the epochs must span, at least
LARGEST = 2**26  #: cells of one grid (a quarter of a gigabyte): two thousand years, or times that are wrong
LEAST, MOST = 1e-30, 1e30  #: mag², of the weighted variance: float32 holds its sums, squared too


@dataclass(frozen=True)
class Epochs:
    """The epochs of n light curves, weighed once for all stages (`period_fit.weigh`)."""

    t: np.ndarray  #: (N,) float64 [d], from the light curve's first
    time: np.ndarray  #: (N,) float64 [d], from its middle
    weight: np.ndarray  #: (N,) float32, sums to 1
    product: np.ndarray  #: (N,) float32 [mag]
    offsets: np.ndarray  #: (n + 1,) int64
    variance: np.ndarray  #: (n,) float64 [mag²]
    baseline: np.ndarray  #: (n,) float64 [d]

    @property
    def longest(self) -> int:
        """Epochs of the longest light curve, at least 1."""
        return int(np.diff(self.offsets).max(initial=1))


@dataclass(frozen=True)
class Looked:
    """Which frequencies are looked at in n light curves."""

    step: np.ndarray  #: (n,) float64 [1/d]
    lowest: np.ndarray  #: (n,) float64 [1/d]
    highest: np.ndarray  #: (n,) float64 [1/d]
    first: np.ndarray  #: (n,) int64, in steps
    last: np.ndarray  #: (n,) int64, in steps
    number: np.ndarray  #: (n,) float64, of independent ones


@dataclass(frozen=True)
class Plan:
    """A search that can begin."""

    epochs: Epochs
    night: period_fold.Night
    days: np.ndarray  #: (n,) int64, in the transform; 0: is not searched
    looked: Looked

    def alike(self) -> Iterator[np.ndarray]:
        """The light curves that are searched, in groups whose grids have one shape."""
        rows, days = self.night.rows, self.days
        chosen = np.flatnonzero(days)
        order = chosen[np.lexsort((chosen, days[chosen], rows[chosen]))]
        other = (np.diff(rows[order]) != 0) | (np.diff(days[order]) != 0)
        borders = [0, *(np.flatnonzero(other) + 1).tolist(), len(order)]
        return (order[a:b] for a, b in itertools.pairwise(borders) if a < b)


def plan(
    t: np.ndarray,
    mag: np.ndarray,
    magerr: np.ndarray,
    offsets: np.ndarray,
    *,
    fmin: float,
    fmax: float,
    oversampling: float,
    candidates: int,
) -> Plan:
    """Check the arguments of `period.search` and prepare it."""
    offsets, t, mag, magerr = cleaned(t, mag, magerr, offsets)
    if not isinstance(candidates, int | np.integer) or isinstance(candidates, bool):
        raise ValueError(f"candidates must be a whole number, got {candidates!r}")
    if not (0 < fmin < fmax < np.inf and 1 <= oversampling < np.inf and candidates >= 1):
        raise ValueError(
            f"0 < fmin < fmax, oversampling ≥ 1 and candidates ≥ 1 must hold, got fmin {fmin}, fmax {fmax}, "
            f"oversampling {oversampling}, candidates {candidates}"
        )
    epochs = _weighed(t, mag, magerr, offsets)
    night = period_fold.plan(epochs.t, offsets, fmax)
    fits = oversampling * epochs.baseline * night.rows < LARGEST
    chosen = np.flatnonzero(
        (np.diff(offsets) >= FEWEST)
        & (epochs.variance > LEAST)
        & (epochs.variance < MOST)
        & (epochs.baseline * fmax >= CYCLES)
        & fits
    )
    days = np.zeros(len(epochs.variance), np.int64)
    days[chosen] = period_fold.days_needed(epochs.baseline[chosen] / night.day[chosen], oversampling)
    return Plan(epochs, night, days, _looked(fmin, fmax, epochs.baseline, days * night.day))


def _weighed(t: np.ndarray, mag: np.ndarray, magerr: np.ndarray, offsets: np.ndarray) -> Epochs:
    n = len(offsets) - 1
    since, time = np.zeros((2, len(t)))
    weight, product = np.zeros((2, len(t)), np.float32)
    variance, baseline = np.zeros((2, n))
    longest = int(np.diff(offsets).max(initial=1))
    scratch = np.empty(longest), np.empty(longest, np.int64), *radix.workspace(longest)
    period_fit.weigh(t, mag, magerr, offsets, scratch, since, time, weight, product, variance, baseline)
    return Epochs(since, time, weight, product, offsets, variance, baseline)


def _looked(fmin: float, fmax: float, baseline: np.ndarray, length: np.ndarray) -> Looked:
    """length : (n,) float64 [d], of the transforms."""
    step = 1 / np.maximum(length, 1.0)
    lowest = np.maximum(fmin, CYCLES / np.maximum(baseline, CYCLES / fmax))
    first, last = np.ceil(lowest / step).astype(np.int64), np.floor(fmax / step).astype(np.int64)
    highest = np.full(len(baseline), fmax)
    return Looked(step, lowest, highest, first, last, np.maximum((fmax - lowest) * baseline, 1.0))
