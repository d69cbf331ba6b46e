"""What a bundle says of clean light curves: statistics → gate → dm-dt images → network → probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lightmill.models import cascade
from lightmill.pipeline.clean import Cleaned
from lightmill.pipeline.dmdt import dmdt_counts, normalise
from lightmill.pipeline.features import index_of, statistics
from lightmill.pipeline.stages import Stages

if TYPE_CHECKING:  # loading it takes TensorFlow's types along
    from lightmill.models.bundle import Bundle

__all__ = ["Answers", "answer"]

IMAGES_AT_ONCE = 8192  #: 30 MB of images and counts


@dataclass(frozen=True)
class Answers:
    """About n light curves, in their order."""

    statistics: np.ndarray  #: (n, len(features.STATISTICS)) float64
    p_variable: np.ndarray | None  #: (n,) float32; None: no gate was asked
    passed: np.ndarray  #: (n,) bool, went on to the network
    probabilities: (
        np.ndarray
    )  #: (n, n_leaves) float32, rows sum to 1; over the classes alone if no gate was asked


def answer(
    good: Cleaned,
    bundle: Bundle,
    *,
    gate: bool = True,
    threshold: float | None = None,
    stage: Stages | None = None,
) -> Answers:
    """Ask a bundle about the accepted light curves of `clean`.

    Parameters
    ----------
    gate : whether to ask the bundle's gate, if it has one
    threshold : p_variable from which a light curve passes it (None: the bundle's own)
    stage : stopwatch for "statistics", "gate", "images" and "network"
    """
    stage = stage or Stages()
    with stage("statistics"):
        table = statistics(good.t, good.mag, good.magerr, good.offsets)
    p_variable, passed = None, np.ones(len(table), bool)
    if gate and bundle.has_gate:
        with stage("gate"):
            p_variable = bundle.gate(table[:, [index_of(name) for name in bundle.statistics]])
            passed = p_variable >= (bundle.threshold if threshold is None else threshold)
    p_class = _network(good, np.flatnonzero(passed), bundle, stage)
    probabilities = cascade.leaf_probabilities(p_variable, p_class, passed, bundle.priors)
    return Answers(table, p_variable, passed, probabilities)


def _network(good: Cleaned, chosen: np.ndarray, bundle: Bundle, stage: Stages) -> np.ndarray:
    """Class probabilities of the chosen light curves, some images at a time; (k, n_classes) float32."""
    parts = [np.empty((0, len(bundle.classes)), np.float32)]
    for start in range(0, len(chosen), IMAGES_AT_ONCE):
        with stage("images"):
            images = _images(good, chosen[start : start + IMAGES_AT_ONCE], bundle)
        with stage("network"):
            parts.append(bundle.network(images))
    return np.concatenate(parts)


def _images(good: Cleaned, index: np.ndarray, bundle: Bundle) -> np.ndarray:
    """Normalised dm-dt images of some of the light curves; (len(index), n_dm, n_dt) float32."""
    lengths = np.diff(good.offsets)[index]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    at = np.repeat(good.offsets[index] - offsets[:-1], lengths) + np.arange(offsets[-1])
    counts = dmdt_counts(good.t[at], good.mag[at], offsets, bundle.dt_edges, bundle.dm_edges)
    return normalise(counts, bundle.normalisation)
