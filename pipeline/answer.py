"""What models say of clean light curves: statistics → gate → period → represent → experts → probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lightmill.models import cascade
from lightmill.models.combine import to_mix
from lightmill.pipeline.asking import Asking, mix_of
from lightmill.pipeline.choose import Chosen, Finder
from lightmill.pipeline.clean import Cleaned
from lightmill.pipeline.curves import Curves
from lightmill.pipeline.features import index_of, statistics
from lightmill.pipeline.represent import represent
from lightmill.pipeline.stages import Stages

if TYPE_CHECKING:  # loading it takes TensorFlow's types along
    from lightmill.models.bundle import Bundle

__all__ = ["Answers", "answer"]

AT_ONCE = 8192  #: light curves that pass the gate: 17 MB of images, 92 MB of candidate periods


@dataclass(frozen=True)
class Answers:
    """About n light curves, in their order."""

    statistics: np.ndarray  #: (n, len(features.STATISTICS)) float64
    p_variable: np.ndarray | None  #: (n,) float32; None: no gate was asked
    passed: np.ndarray  #: (n,) bool, went on to the period search and the experts
    probabilities: (
        np.ndarray
    )  #: (n, n_leaves) float32, rows sum to 1; over the classes alone if no gate was asked
    chosen: Chosen | None = None  #: candidate periods of those that passed; None: none was searched
    novelty: np.ndarray | None = None  #: (k,) float32 of those that passed; None: it is not told


def answer(
    good: Cleaned,
    bundle: Bundle,
    asking: Asking | None = None,
    *,
    finder: Finder | None = None,
    colours: np.ndarray | None = None,
    stage: Stages | None = None,
) -> Answers:
    """Ask a bundle about the accepted light curves of `clean`.

    Parameters
    ----------
    asking : None: all of it
    finder : searches the periods of what passes (None: none is searched)
    colours : (n, len(COLOURS)) float64 [mag] of the accepted light curves, of `bands.colours_of`; None: not known
    stage : stopwatch for "statistics", "gate", "period", "images", "fold", "features" and "experts"

    Raises
    ------
    ValueError
        if an expert needs periods and none are searched, or the mix lacks a class.
    """
    asking, stage = asking or Asking(), stage or Stages()
    with stage("statistics"):
        table = statistics(good.t, good.mag, good.magerr, good.offsets)
    p_variable, passed = None, np.ones(len(table), bool)
    if asking.gate and bundle.has_gate:
        with stage("gate"):
            p_variable = bundle.gate(table[:, [index_of(name) for name in bundle.statistics]])
            least = bundle.thresholds(table[:, index_of("n")])
            passed = p_variable >= (least if asking.threshold is None else asking.threshold)
    needs = bundle.manifest.needs(asking.experts)
    p_class = [np.empty((0, len(bundle.classes)), np.float32)]
    chosen, novelty = [], []
    curves, index = Curves(good.t, good.mag, good.magerr, good.offsets), np.flatnonzero(passed)
    for start in range(0, len(index), AT_ONCE):
        some = index[start : start + AT_ONCE]
        own = curves.take(some)
        periods = None
        if finder is not None:
            with stage("period"):
                periods = finder(own.t, own.mag, own.magerr, own.offsets, table[some])
                chosen.append(periods)
        views = represent(
            own.t, own.mag, own.magerr, own.offsets,
            needs=needs, dt_edges=bundle.dt_edges, dm_edges=bundle.dm_edges,
            statistics=table[some], chosen=periods, colours=None if colours is None else colours[some],
            features=bundle.manifest.features, stage=stage,
        )  # fmt: skip
        with stage("experts"):
            p, strange = bundle.judge(views, asking.experts)
        p_class.append(p)
        if strange is not None:
            novelty.append(strange)
    p_of_class, priors = np.concatenate(p_class), bundle.priors
    if asking.mix:
        mix = mix_of(asking.mix, bundle.classes)
        p_of_class, priors = to_mix(p_of_class, priors, mix), mix
    probabilities = cascade.leaf_probabilities(p_variable, p_of_class, passed, priors)
    found = Chosen.joined(chosen) if finder is not None else None
    told = np.concatenate(novelty) if novelty else None
    return Answers(table, p_variable, passed, probabilities, found, told)
