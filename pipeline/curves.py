"""Clean light curves, a ragged batch of them: what everything after cleaning takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lightmill.pipeline.features import statistics

__all__ = ["Curves"]

MOST_NOISE = 0.5
"""Largest noise that augmentation adds, in errors of each epoch."""


@dataclass(frozen=True)
class Curves:
    """A ragged batch of n clean light curves."""

    t: np.ndarray  #: (N,) float64 [d]
    mag: np.ndarray  #: (N,) float64 [mag]
    magerr: np.ndarray  #: (N,) float64 [mag]
    offsets: np.ndarray  #: (n + 1,) int64

    @classmethod
    def of(cls, parts: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Curves:
        """Light curves given one by one as (t, mag, magerr)."""
        offsets = np.concatenate([[0], np.cumsum([len(t) for t, _, _ in parts])]).astype(np.int64)
        t, mag, magerr = (np.concatenate([part[i] for part in parts] or [np.empty(0)]) for i in range(3))
        return cls(t, mag, magerr, offsets)

    @classmethod
    def joined(cls, parts: Sequence[Curves]) -> Curves:
        """One batch after the other."""
        lengths = np.concatenate([np.diff(part.offsets) for part in parts])
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        t, mag, magerr = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("t", "mag", "magerr")
        )
        return cls(t, mag, magerr, offsets)

    def augmented(self, seed: int, most_dropped: float) -> Curves:
        """The same with up to `most_dropped` of its epochs missing and up to half an error of noise more, by seed."""
        rng, n = np.random.default_rng(seed), np.diff(self.offsets)
        kept = rng.random(len(self.t)) < np.repeat(rng.uniform(1 - most_dropped, 1, len(n)), n)
        noise = np.repeat(rng.uniform(0, MOST_NOISE, len(n)), n) * rng.standard_normal(len(self.t))
        offsets = np.concatenate([[0], np.cumsum(kept)])[self.offsets].astype(np.int64)
        mag = self.mag + self.magerr * noise
        return Curves(self.t[kept], mag[kept], self.magerr[kept], offsets)

    def take(self, rows: np.ndarray) -> Curves:
        """Some of the light curves, in that order."""
        lengths = np.diff(self.offsets)[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        at = np.repeat(self.offsets[rows] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Curves(self.t[at], self.mag[at], self.magerr[at], offsets)

    def statistics(self) -> np.ndarray:
        """(n, len(STATISTICS)) float64."""
        return statistics(self.t, self.mag, self.magerr, self.offsets)
