"""The cascade: the gate's and the experts' answers put together into one probability for each leaf."""

from __future__ import annotations

import numpy as np

__all__ = ["leaf_probabilities"]


def leaf_probabilities(
    p_variable: np.ndarray | None, p_class: np.ndarray, passed: np.ndarray, priors: np.ndarray
) -> np.ndarray:
    """Probabilities over the leaves: nonvar is 1 − p_variable, the classes share p_variable among them.

    A light curve that the gate held back was never shown to the experts: its p_variable is shared out by `priors`.

    Parameters
    ----------
    p_variable : (n,) float in [0, 1], or None: there is no gate, and no leaf "nonvar"
    p_class : (k, n_classes) float, rows sum to 1; of the light curves that passed, in their order
    passed : (n,) bool, with k True
    priors : (n_classes,) float, sum 1

    Returns
    -------
    (n, 1 + n_classes) float32, or (n, n_classes) without a gate; each row sums to 1 to 1e-6

    Raises
    ------
    ValueError
        if the shapes do not fit one another.

    Examples
    --------
    >>> p_class, priors = np.array([[0.75, 0.25]]), np.array([0.5, 0.5])
    >>> leaf_probabilities(np.array([0.8, 0.1]), p_class, np.array([True, False]), priors)
    array([[0.2 , 0.6 , 0.2 ],
           [0.9 , 0.05, 0.05]], dtype=float32)
    """
    p_class, passed = np.asarray(p_class, np.float64), np.asarray(passed, bool)
    priors = np.asarray(priors, np.float64)
    n, k = len(passed), int(passed.sum())
    if p_class.shape != (k, len(priors)):
        raise ValueError(
            f"p_class has shape {p_class.shape}, expected ({k}, {len(priors)}): a row for each light curve that "
            "passed, a column for each prior"
        )
    if p_variable is not None and np.shape(p_variable) != (n,):
        raise ValueError(
            f"p_variable has shape {np.shape(p_variable)}, passed has {passed.shape}: must be equal"
        )
    shares = np.tile(priors / priors.sum(), (n, 1))
    shares[passed] = p_class / p_class.sum(axis=1, keepdims=True)
    if p_variable is None:
        return shares.astype(np.float32)
    p = np.clip(np.asarray(p_variable, np.float64), 0.0, 1.0)[:, None]
    return np.concatenate([1.0 - p, p * shares], axis=1).astype(np.float32)
