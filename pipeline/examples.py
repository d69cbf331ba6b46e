"""Examples: what experts and gates are trained on and tested with, drawn anew as often as asked, by seed.

`Reobserved` are labelled stars on a survey's hosts, with
the survey's own transients, and to each the same host without the star.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lightmill.pipeline.curves import Curves
from lightmill.pipeline.hosts import Hosts
from lightmill.pipeline.reobserve import ErrorCurve, Observer, Star, inject

__all__ = ["Drawn", "Reobserved"]

SIZE_SCATTER = 0.1
"""Scatter (natural logarithm) of the factor on a star's variability at each draw."""

FREQUENCY_SCATTER = 0.02
"""Largest relative change of a star's frequency at each draw: breaks coincidences of periods with cadences."""

TRIES = 50
"""Hosts that are tried for a star before it is given up."""


@dataclass(frozen=True)
class Drawn:
    """One draw of n examples."""

    variable: Curves  #: the examples
    constant: Curves  #: the same hosts and epochs without them
    amplitude: (
        np.ndarray
    )  #: (n,) float64 [mag], half of the range of the noiseless change; of transients, of the data
    level: np.ndarray  #: (n,) float64 [mag], median magnitude without the variability
    excess: (
        np.ndarray
    )  #: (n,) float64, what the change adds to χ², in the standard deviations √(2n) of a constant's
    host: np.ndarray  #: (n,) int64, whose epochs and errors an example has; of transients, their own


class Reobserved:
    """Labelled stars on a survey's hosts, followed by the survey's own transients.

    Example i < len(stars) is a star, example len(stars) + j is the transient `transients[j]`.
    """

    def __init__(
        self, stars: Sequence[Star], transients: np.ndarray, hosts: Hosts, curve: ErrorCurve, min_epochs: int
    ):
        self.stars, self.transients = stars, transients
        self.hosts, self.curve, self.min_epochs = hosts, curve, min_epochs

    def __len__(self) -> int:
        return len(self.stars) + len(self.transients)

    def draw(self, rows: np.ndarray, allowed: np.ndarray, seed: int) -> Drawn:
        """Re-observe the examples `rows` on the hosts `allowed`.

        Parameters
        ----------
        rows : (n,) integer, examples
        allowed : (k,) integer, hosts; of a fold's training or test side
        """
        rng = np.random.default_rng(seed)
        observer = Observer(self.hosts, allowed, self.curve, min_epochs=self.min_epochs)
        parts = [self._one(int(row), observer, rng) for row in rows]
        return Drawn(
            variable=Curves.of([part[0] for part in parts]),
            constant=Curves.of([part[1] for part in parts]),
            amplitude=np.array([part[2] for part in parts]),
            level=np.array([float(np.median(part[1][1])) for part in parts]),
            excess=np.array([part[3] for part in parts]),
            host=np.array([part[4] for part in parts], np.int64),
        )

    def _one(self, row: int, observer: Observer, rng: np.random.Generator):
        if row < len(self.stars):
            return self._star(self.stars[row], observer, rng)
        return self._transient(int(self.transients[row - len(self.stars)]), observer, rng)

    def _star(self, star: Star, observer: Observer, rng: np.random.Generator):
        factor = float(np.exp(SIZE_SCATTER * rng.standard_normal()))
        stretch, phase, start = (
            rng.uniform(1 - FREQUENCY_SCATTER, 1 + FREQUENCY_SCATTER),
            rng.random(),
            rng.random(),
        )
        for _ in range(TRIES):
            host = observer.draw_host(rng)
            t, mag, magerr, limit = observer.observe(host, observer.thin(host, rng), rng)
            change = factor * star.at(stretch * t, phase, start * star.slack(t[-1]))
            new, error, seen = inject(mag, magerr, change, limit, self.curve)
            if seen.sum() >= self.min_epochs:
                return (
                    (t[seen] - t[seen][0], new[seen], error[seen]),
                    (t, mag, magerr),
                    0.5 * np.ptp(change[seen]),
                    _excess(change[seen], error[seen]),
                    host,
                )
        raise ValueError(
            f"a star of range {np.ptp(change):.2g} mag leaves fewer than {self.min_epochs} epochs on each of {TRIES} "
            "hosts: the survey is too faint or too short for it; add survey files with longer or brighter light curves"
        )

    def _transient(self, host: int, observer: Observer, rng: np.random.Generator):
        t, mag, magerr = self.hosts.one(host)
        # no windows: one without the outburst would not be an example of it
        rows = observer.thin(host, rng, windows=False)
        own = t[rows] - t[rows][0], mag[rows], magerr[rows]
        # the data stand for the change: their noise adds 1 to each epoch's χ²
        excess = max(0.0, _excess(own[1], own[2]) - np.sqrt(len(rows) / 2))
        constant = observer.observe(host, rows, rng, float(np.median(mag)))[:3]
        return own, constant, 0.5 * np.ptp(own[1]), excess, host


def _excess(change: np.ndarray, error: np.ndarray) -> float:
    """Σ (change / error)² from its weighted mean, over √(2n)."""
    size = (change - np.average(change, weights=error**-2)) / error
    return float(size @ size / np.sqrt(2 * len(change)))
