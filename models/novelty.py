"""Novelty: how far a light curve lies from all that a network was trained on.

The Mahalanobis distance of the network's last features to the nearest class mean, with one covariance for all classes
(Lee+2018, arXiv:1807.03888), told as the share of known light curves, held out of the fit, that lie nearer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["Novelty", "fit_novelty"]

RIDGE = 1e-2  #: added to the covariance, of its mean variance: features that never fire have none
KNOTS = np.concatenate([np.linspace(0, 0.98, 50), 1 - np.geomspace(0.02, 1e-4, 15)[1:], [1.0]])
"""Shares at which the distances of known light curves are kept: finer towards the far end."""


@dataclass(frozen=True)
class Novelty:
    """Where known light curves lie among d features."""

    means: np.ndarray  #: (k, d) float32, of each class, whitened
    whiten: np.ndarray  #: (d, d) float32: features @ whiten have unit covariance within the classes
    distances: np.ndarray  #: (len(KNOTS),) float32, quantiles of known light curves' distances at KNOTS

    def distance(self, features: np.ndarray) -> np.ndarray:
        """To the nearest class mean: (n, d) → (n,) float32."""
        # float64: a difference of large squares must not depend on how many rows are multiplied at a time
        x, means = np.asarray(features, np.float64) @ self.whiten, self.means.astype(np.float64)
        squares = (x**2).sum(axis=1, keepdims=True) - 2 * x @ means.T + (means**2).sum(axis=1)
        return np.sqrt(np.maximum(squares, 0).min(axis=1, initial=np.inf)).astype(np.float32)

    def score(self, features: np.ndarray) -> np.ndarray:
        """Share of known light curves that lie nearer: (n, d) → (n,) float32 in [0, 1]."""
        return np.interp(self.distance(features), self.distances, KNOTS).astype(np.float32)

    def tensors(self) -> dict[str, np.ndarray]:
        """Its arrays by name, to be kept in a file."""
        return {"means": self.means, "whiten": self.whiten, "distances": self.distances}

    @classmethod
    def of(cls, tensors: Mapping[str, np.ndarray]) -> Novelty:
        """From its arrays.

        Raises
        ------
        ValueError
            if one is missing, or they do not fit one another.
        """
        missing = {"means", "whiten", "distances"} - tensors.keys()
        if missing:
            raise ValueError(f"arrays missing: {', '.join(sorted(missing))}")
        own = cls(tensors["means"], tensors["whiten"], tensors["distances"])
        d = own.means.shape[-1:]
        if own.means.ndim != 2 or own.whiten.shape != (*d, *d) or own.distances.shape != KNOTS.shape:
            raise ValueError(
                f"means {own.means.shape}, whiten {own.whiten.shape}, distances {own.distances.shape}: expected "
                f"(k, d), (d, d), {KNOTS.shape}"
            )
        return own


def fit_novelty(features: np.ndarray, y: np.ndarray, distances: np.ndarray | None = None) -> Novelty:
    """Fit to known light curves.

    Parameters
    ----------
    features : (n, d) float
    y : (n,) integer class
    distances : of known light curves that were held out of a fit; None: of those that it is fitted to
    """
    features = np.asarray(features, np.float64)
    present, which = np.unique(y, return_inverse=True)
    means = np.stack([features[which == k].mean(axis=0) for k in range(len(present))])
    rest = features - means[which]
    covariance = rest.T @ rest / max(len(rest) - len(present), 1)
    covariance += RIDGE * max(float(np.trace(covariance)) / len(covariance), 1e-12) * np.eye(len(covariance))
    values, vectors = np.linalg.eigh(covariance)
    whiten = vectors / np.sqrt(values)
    bare = Novelty(
        (means @ whiten).astype(np.float32), whiten.astype(np.float32), np.zeros(len(KNOTS), np.float32)
    )
    known = bare.distance(features) if distances is None else np.asarray(distances)
    return Novelty(bare.means, bare.whiten, np.quantile(known, KNOTS).astype(np.float32))
