"""The combiner: several experts' answers put into one, and made to mean what they say.

The answers are pooled in logarithms, Σ w_e log p_e (Genest & Zidek 1986, Statist. Sci. 1, 114): one weight an expert,
so that little can be over-fitted, and one expert alone is the temperature scaling of Guo+2017. Then each inner node of
the taxonomy gets a temperature of its own, because telling periodic from transient is easier than telling RRc from RRd.
Both are fitted to answers that were made out of fold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import minimize, minimize_scalar

from lightmill.models.calibration import SMALLEST, softmax
from lightmill.models.taxonomy import nodes

__all__ = ["at_temperatures", "fit_pool", "fit_temperatures", "pool", "to_mix"]


def pool(logits: Sequence[np.ndarray], weights: Sequence[float]) -> np.ndarray:
    """Pooled probabilities: (n, k) logits of each expert → (n, k) float64, rows sum to 1.

    Raises
    ------
    ValueError
        if there is another number of weights.

    Examples
    --------
    >>> pool([np.log([[0.8, 0.2]]), np.log([[0.5, 0.5]])], [1.0, 1.0])
    array([[0.8, 0.2]])
    """
    if len(logits) != len(weights):
        raise ValueError(f"{len(logits)} experts, {len(weights)} weights: must be equal")
    logs = np.stack([_log_softmax(x) for x in logits])
    return softmax(np.tensordot(np.asarray(weights, np.float64), logs, axes=1))


def fit_pool(logits: Sequence[np.ndarray], y: np.ndarray) -> tuple[float, ...]:
    """The weights ≥ 0 with the smallest negative log-likelihood.

    Parameters
    ----------
    logits : (n, k) of each expert, out of fold
    y : (n,) integer class
    """
    logs = np.stack([_log_softmax(x) for x in logits])
    rows = np.arange(len(y))

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        mixed = np.tensordot(weights, logs, axes=1)
        p = softmax(mixed)
        slope = logs[:, rows, y] - (logs * p).sum(axis=2)
        return float(-np.log(np.maximum(p[rows, y], SMALLEST)).mean()), -slope.mean(axis=1)

    start = np.full(len(logs), 1 / len(logs))
    best = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0.0, 10.0)] * len(logs))
    return tuple(float(w) for w in best.x)


def at_temperatures(p: np.ndarray, classes: Sequence[str], temperatures: Mapping[str, float]) -> np.ndarray:
    """Probabilities with each inner node's answer softened (above 1) or sharpened (below 1) by its temperature.

    Parameters
    ----------
    p : (n, k) float, rows sum to 1
    classes : k leaves of the taxonomy
    temperatures : by name of the node; a node that is not named keeps its answers

    Returns
    -------
    (n, k) float64, rows sum to 1
    """
    out = np.ones_like(p, dtype=np.float64)
    for name, children in nodes(classes).items():
        shares = np.stack([p[:, of].sum(axis=1) for of in children.values()], axis=1).astype(np.float64)
        heated = softmax(np.log(np.maximum(shares, SMALLEST)) / temperatures.get(name, 1.0))
        for column, of in enumerate(children.values()):
            out[:, of] *= heated[:, [column]]
    return out


def fit_temperatures(p: np.ndarray, y: np.ndarray, classes: Sequence[str]) -> dict[str, float]:
    """The temperature in [0.2, 5] of each inner node with the smallest negative log-likelihood.

    Parameters
    ----------
    p : (n, k) float, out of fold
    y : (n,) integer class
    """
    found = {}
    for name, children in nodes(classes).items():
        below = [np.isin(y, of) for of in children.values()]
        here = np.any(below, axis=0)
        truth = np.argmax(below, axis=0)[here]
        shares = np.stack([p[here][:, of].sum(axis=1) for of in children.values()], axis=1).astype(np.float64)
        logs, rows = np.log(np.maximum(shares, SMALLEST)), np.arange(len(truth))
        if len(np.unique(truth)) < 2:
            found[name] = 1.0  # nothing to be learnt
            continue

        def loss(
            log_t: float, logs: np.ndarray = logs, rows: np.ndarray = rows, truth: np.ndarray = truth
        ) -> float:
            heated = softmax(logs / np.exp(log_t))[rows, truth]
            return float(-np.log(np.maximum(heated, SMALLEST)).mean())

        best = minimize_scalar(loss, bounds=(np.log(0.2), np.log(5.0)), method="bounded")
        found[name] = float(np.exp(best.x))
    return found


def to_mix(p: np.ndarray, of_training: np.ndarray, of_survey: np.ndarray) -> np.ndarray:
    """Probabilities for a survey with another mixture of classes (Saerens+2002, Neural Comput. 14, 21, eq. 2.4).

    Parameters
    ----------
    p : (n, k) float
    of_training, of_survey : (k,) float ≥ 0, shares of the classes
    """
    shifted = np.asarray(p, np.float64) * (of_survey / of_survey.sum()) / (of_training / of_training.sum())
    return shifted / shifted.sum(axis=1, keepdims=True)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(softmax(logits), SMALLEST))
