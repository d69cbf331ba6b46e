"""Random numbers of a simulation: a stream for each purpose (NumPy's SeedSequence, spawn keys) and what is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What a stream is for; the rest of its key is the field or the pixel."""

    SKY = 0
    WEATHER = 1
    FIELD = 2
    PARTITION = 3


def stream(seed: int, purpose: Purpose, *key: int) -> np.random.Generator:
    """An own random stream for each purpose, so that no result depends on who ran before."""
    sequence = np.random.SeedSequence(seed, spawn_key=(int(purpose), *key))
    return np.random.Generator(np.random.PCG64(sequence))


def at_share(quantiles: Sequence[float], share: np.ndarray) -> np.ndarray:
    """The value below which this share (0 … 1) of a distribution lies, given equidistant quantiles of it.

    >>> at_share([10.0, 20.0, 40.0], np.array([0.0, 0.25, 1.0])).tolist()
    [10.0, 15.0, 40.0]
    """
    return np.interp(share, np.linspace(0, 1, len(quantiles)), quantiles)


def from_quantiles(rng: np.random.Generator, quantiles: Sequence[float], n: int) -> np.ndarray:
    """`n` values of the distribution with these equidistant quantiles."""
    return at_share(quantiles, rng.random(n))


def log_uniform(rng: np.random.Generator, low: float, high: float, n: int) -> np.ndarray:
    """`n` values with a uniform logarithm."""
    return np.exp(rng.uniform(math.log(low), math.log(high), n))


def near(rng: np.random.Generator, mean: float, sd: float, low: float, high: float, n: int) -> np.ndarray:
    """`n` normal values, those outside the interval moved to its ends."""
    return np.clip(rng.normal(mean, sd, n), low, high)


def choose(rng: np.random.Generator, weights: Sequence[float], n: int) -> np.ndarray:
    """`n` indices into the weights, each as often as its weight says."""
    share = np.array(weights)
    return rng.choice(len(share), size=n, p=share / share.sum())
