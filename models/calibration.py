"""Calibration: probabilities that mean what they say (Platt 1999; Guo+2017, arXiv:1706.04599).

Both maps have one or two parameters, are monotonic, and are fitted on predictions that were made out of fold.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize, minimize_scalar

__all__ = ["fit_platt", "fit_temperature", "platt", "scale_by_temperature", "softmax"]

SMALLEST = 1e-12


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities from logits over the last axis, in float64: (…, k) → (…, k)."""
    shifted = np.asarray(logits, np.float64)
    shifted = shifted - shifted.max(axis=-1, keepdims=True)
    powers = np.exp(shifted)
    return powers / powers.sum(axis=-1, keepdims=True)


def scale_by_temperature(logits: np.ndarray, temperature: float) -> np.ndarray:
    """softmax(logits / temperature): above 1 it softens, below 1 it sharpens; the order stays."""
    return softmax(np.asarray(logits, np.float64) / temperature)


def fit_temperature(logits: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> float:
    """The temperature in [0.05, 20] with the smallest negative log-likelihood.

    Parameters
    ----------
    logits : (n, k) float
    y : (n,) integer class
    weight : (n,) float, or None: all alike
    """
    rows = np.arange(len(y))

    def loss(log_t: float) -> float:
        p = scale_by_temperature(logits, float(np.exp(log_t)))[rows, y]
        return float(np.average(-np.log(np.maximum(p, SMALLEST)), weights=weight))

    best = minimize_scalar(loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded")
    return float(np.exp(best.x))


def platt(margin: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    """Sigmoid of slope · margin + intercept, in float64."""
    z = slope * np.asarray(margin, np.float64) + intercept
    return 0.5 * (1.0 + np.tanh(0.5 * z))


def fit_platt(margin: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> tuple[float, float]:
    """Slope (> 0) and intercept of the sigmoid with the smallest negative log-likelihood.

    Parameters
    ----------
    margin : (n,) float, log-odds as a classifier gives them
    y : (n,) bool
    weight : (n,) float, or None: all alike
    """
    margin = np.asarray(margin, np.float64)
    sign = np.where(np.asarray(y, bool), 1.0, -1.0)

    def loss(x: np.ndarray) -> float:
        z = np.exp(x[0]) * margin + x[1]
        return float(np.average(np.logaddexp(0.0, -sign * z), weights=weight))

    best = minimize(loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-10})
    return float(np.exp(best.x[0])), float(best.x[1])
