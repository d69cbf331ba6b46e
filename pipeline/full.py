"""The full features of what passes the gate: statistics, shape at the period, second period, candidates, colour.

Which of them a model takes is its own choice, by name: brightness, number of epochs and baseline are a survey's
fingerprint, and are no features of a model that must transfer.
"""

from __future__ import annotations

import numpy as np

from lightmill.pipeline.choose import KEPT, Chosen
from lightmill.pipeline.colour import COLOURS
from lightmill.pipeline.features import STATISTICS
from lightmill.pipeline.period import search
from lightmill.pipeline.shape import SHAPE, shape
from lightmill.pipeline.shape_second import SECOND, prewhitened, second_period

__all__ = ["FULL", "full"]

SLOWEST = 0.03  #: of a second period [1/d]: below, what the first has left is the survey's seasons
CANDIDATES = 3  #: of the second search

FULL: tuple[str, ...] = (
    *STATISTICS,
    *SHAPE,
    "period_score",  #: −log10 of the first candidate's false-alarm probability
    *(f"candidate_{k}_log_frequency" for k in range(KEPT)),  #: log10 [1/d], the one to be believed first
    *(f"candidate_{k}_probability" for k in range(KEPT)),  #: that it is the period
    *(f"candidate_{k}_explained" for k in range(KEPT)),  #: R² of four harmonics
    *SECOND,
    "second_score",  #: as period_score, of what the first period left
    *COLOURS,
)


def full(
    t: np.ndarray,
    mag: np.ndarray,
    magerr: np.ndarray,
    offsets: np.ndarray,
    statistics: np.ndarray,
    chosen: Chosen,
    colours: np.ndarray | None = None,
) -> np.ndarray:
    """Compute `FULL` for each light curve of a clean, ragged batch.

    Parameters
    ----------
    t, mag, magerr : (N,) float64 [d, mag, mag], as for `features.statistics`
    offsets : (n + 1,) integer
    statistics : (n, len(STATISTICS)) float64, of these light curves
    chosen : their candidate periods
    colours : (n, len(COLOURS)) float64 [mag], of `colour.colours`; None: not known

    Returns
    -------
    (n, len(FULL)) float64; NaN where there is no period, no second one, or no other band

    Raises
    ------
    ValueError
        if lengths differ, or offsets decrease or leave the arrays.
    """
    n = len(statistics)
    if colours is None:
        colours = np.full((n, len(COLOURS)), np.nan)
    if not len(offsets) - 1 == n == len(chosen.frequency) == len(colours):
        raise ValueError(
            f"{len(offsets) - 1} light curves, statistics of {n}, periods of {len(chosen.frequency)}, colours of "
            f"{len(colours)}: must be equal"
        )
    first = chosen.frequency[:, 0]
    rest = prewhitened(t, mag, magerr, offsets, first)
    again = search(t, rest, magerr, offsets, fmin=SLOWEST, candidates=CANDIDATES)
    return np.hstack(
        [
            statistics,
            shape(t, mag, magerr, offsets, first),
            chosen.score[:, :1],
            np.log10(chosen.frequency),
            chosen.probability,
            chosen.explained,
            second_period(t, mag, magerr, offsets, first, again.frequency),
            again.score[:, :1],
            colours,
        ]
    )
