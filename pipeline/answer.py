"""What models say of clean light curves: statistics → gate → period → dm-dt images → network → probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lightmill.models import cascade
from lightmill.pipeline.choose import Chosen, Finder
from lightmill.pipeline.clean import Cleaned
from lightmill.pipeline.dmdt import dmdt_images
from lightmill.pipeline.features import index_of, statistics
from lightmill.pipeline.stages import Stages

if TYPE_CHECKING:  # loading it takes TensorFlow's types along
    from lightmill.models.bundle import Bundle

__all__ = ["Answers", "answer"]

AT_ONCE = 8192  #: light curves that pass the gate: 17 MB of images, 60 MB of candidate periods


@dataclass(frozen=True)
class Answers:
    """About n light curves, in their order."""

    statistics: np.ndarray  #: (n, len(features.STATISTICS)) float64
    p_variable: np.ndarray | None  #: (n,) float32; None: no gate was asked
    passed: np.ndarray  #: (n,) bool, went on to the period search and the network
    probabilities: (
        np.ndarray
    )  #: (n, n_leaves) float32, rows sum to 1; over the classes alone if no gate was asked
    chosen: Chosen | None = None  #: candidate periods of those that passed; None: none was searched


def answer(
    good: Cleaned,
    bundle: Bundle,
    *,
    gate: bool = True,
    threshold: float | None = None,
    finder: Finder | None = None,
    stage: Stages | None = None,
) -> Answers:
    """Ask a bundle about the accepted light curves of `clean`.

    Parameters
    ----------
    gate : whether to ask the bundle's gate, if it has one
    threshold : p_variable from which a light curve passes it (None: the bundle's own)
    finder : searches the periods of what passes (None: none is searched)
    stage : stopwatch for "statistics", "gate", "period", "images" and "network"
    """
    stage = stage or Stages()
    with stage("statistics"):
        table = statistics(good.t, good.mag, good.magerr, good.offsets)
    p_variable, passed = None, np.ones(len(table), bool)
    if gate and bundle.has_gate:
        with stage("gate"):
            p_variable = bundle.gate(table[:, [index_of(name) for name in bundle.statistics]])
            passed = p_variable >= (bundle.threshold if threshold is None else threshold)
    p_class = [np.empty((0, len(bundle.classes)), np.float32)]
    chosen = []
    index = np.flatnonzero(passed)
    for start in range(0, len(index), AT_ONCE):
        some = index[start : start + AT_ONCE]
        t, mag, magerr, offsets = _take(good, some)
        if finder is not None:
            with stage("period"):
                chosen.append(finder(t, mag, magerr, offsets, table[some]))
        with stage("images"):
            images = dmdt_images(
                t, mag, offsets, bundle.dt_edges, bundle.dm_edges, normalisation=bundle.normalisation
            )
        with stage("network"):
            p_class.append(bundle.network(images))
    probabilities = cascade.leaf_probabilities(p_variable, np.concatenate(p_class), passed, bundle.priors)
    found = Chosen.joined(chosen) if finder is not None else None
    return Answers(table, p_variable, passed, probabilities, found)


def _take(good: Cleaned, index: np.ndarray) -> tuple[np.ndarray, ...]:
    """Times, magnitudes, errors and offsets of some of the light curves."""
    lengths = np.diff(good.offsets)[index]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    at = np.repeat(good.offsets[index] - offsets[:-1], lengths) + np.arange(offsets[-1])
    return good.t[at], good.mag[at], good.magerr[at], offsets
