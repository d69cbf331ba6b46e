"""The period of each star: candidates of the search, told apart by the learned choice.

The kernel (`period`) lists candidates, `candidates` puts each into a row of numbers, the trees of `models/choice` say
how probable each is, and `candidates.ordered` takes the most probable family.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from lightmill.pipeline import candidates
from lightmill.pipeline.period import Periods, search

if TYPE_CHECKING:
    from lightmill.models.choice import Choice

__all__ = ["KEPT", "Chosen", "Finder", "choose"]

KEPT = 10  #: candidates that go on to the features
AT_ONCE = 2048  #: light curves whose rows are made at a time: 16 MB


@dataclass(frozen=True)
class Chosen:
    """The best candidates of n light curves, the one to be believed first; NaN where there are fewer."""

    frequency: np.ndarray  #: (n, KEPT) float64 [1/d]
    probability: np.ndarray  #: (n, KEPT) float64, that it is the period
    score: np.ndarray  #: (n, KEPT) float64, −log10 of its false-alarm probability
    explained: np.ndarray  #: (n, KEPT) float64, R² of four harmonics

    @classmethod
    def joined(cls, parts: Sequence[Chosen]) -> Chosen:
        """One after the other."""
        empty = np.empty((0, KEPT))
        return cls(*(np.concatenate([empty, *(getattr(p, f.name) for p in parts)]) for f in fields(cls)))


@dataclass(frozen=True)
class Finder:
    """Searches periods and chooses among them."""

    limits: dict[str, Any]  #: keyword arguments of `period.search`
    choice: Choice

    def __call__(
        self, t: np.ndarray, mag: np.ndarray, magerr: np.ndarray, offsets: np.ndarray, statistics: np.ndarray
    ) -> Chosen:
        """See `period.search` and `choose`."""
        return choose(search(t, mag, magerr, offsets, **self.limits), statistics, self.choice)


def choose(found: Periods, statistics: np.ndarray, choice: Choice) -> Chosen:
    """Order the candidates of `period.search` by the learned choice.

    Parameters
    ----------
    statistics : (n, len(features.STATISTICS)) float64, of the same light curves
    """
    considered = min(choice.manifest.considered, found.candidates.shape[1])
    probability = np.full((len(found.candidates), considered), np.nan)
    for start in range(0, len(probability), AT_ONCE):
        some = slice(start, start + AT_ONCE)
        rows, known = candidates.table(found.take(some), statistics[some], considered)
        probability[some][known] = choice.probability(rows)
    baseline = statistics[:, candidates.index_of("baseline")]
    order = candidates.ordered(found.candidates[:, :considered], probability, baseline)[:, :KEPT]

    def best(values: np.ndarray) -> np.ndarray:
        taken = np.take_along_axis(values[:, :considered], order, axis=1)
        return np.pad(taken, ((0, 0), (0, KEPT - taken.shape[1])), constant_values=np.nan)

    return Chosen(
        best(found.candidates), best(probability), best(found.score), best(found.explained[:, :, 3])
    )
