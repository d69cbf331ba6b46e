"""Activation maximisation: the image that each class of a network likes best (Simonyan+2014, arXiv:1312.6034).

What is climbed is the logarithm of the class's probability, not its logit alone, which of a few classes says little: a
softmax does not change when all logits rise alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lightmill.models.experts import NetworkExpert
from lightmill.models.explain import FLOOR, tensorflow
from lightmill.models.networks import keras

__all__ = ["Maximised", "maximised"]

STEPS, RATE = 200, 0.1  #: of the ascent (Adam; Kingma & Ba 2015)
PENALTY, ROUGHNESS = 0.02, 0.1  #: see `maximised`


@dataclass(frozen=True)
class Maximised:
    """The image that each of k classes likes best."""

    images: np.ndarray  #: (k, n_dm, n_dt) float32 ≥ 0; its columns have the sums of those of the start
    before: np.ndarray  #: (k,) float32, the network's own probability of the class at the start
    after: np.ndarray  #: (k,) float32, of the image


def maximised(
    expert: NetworkExpert,
    start: np.ndarray,
    *,
    steps: int = STEPS,
    rate: float = RATE,
    penalty: float = PENALTY,
    roughness: float = ROUGHNESS,
) -> Maximised:
    """The image that each class likes best, by gradient ascent of the logarithm of its probability.

    The cadence of a survey decides how many pairs have which time difference, and no class can change that: each column
    keeps the sum that it has at the start, and is shared out among its cells by a softmax of free numbers z, so that
    images stay bounded and ≥ 0. z is held back by penalties: `penalty` times its mean squared distance from the start,
    and `roughness` times its mean squared step from cell to cell. Nothing is drawn at random.

    Parameters
    ----------
    expert : a network that takes an image and nothing else
    start : (n_dm, n_dt) float ≥ 0, a typical image, in the expert's normalisation
    steps, rate : of Adam; the rate falls to 0 along half a cosine

    Raises
    ------
    ValueError
        if the expert takes other inputs, or the start is not an image of its shape ≥ 0 with something in it.
    """
    tf = tensorflow()
    (name, *others), shapes = expert.network.shapes, expert.network.shapes
    if name != "image" or others:
        raise ValueError(
            f"expert {expert.part.name!r} takes {', '.join(shapes)}: images alone can be climbed to"
        )
    start = np.asarray(start, np.float64)
    if start.shape != shapes[name] or not (start >= 0).all() or not start.any():
        raise ValueError(
            f"start has shape {start.shape} and values from {start.min(initial=0)} to {start.max(initial=0)}: an image "
            f"of shape {shapes[name]} ≥ 0 with something in it is needed"
        )
    k, columns = expert.network.outputs["class"], start.sum(axis=0)
    # a tenth of each column evenly: a cell that is empty in the typical image may still be wanted by a class
    share = 0.9 * start / np.where(columns > 0, columns, 1.0) + 0.1 / len(start)
    origin = tf.constant(np.log(share)[None], tf.float32)
    sums, one_hot = tf.constant(columns, tf.float32), tf.eye(k)
    z = tf.Variable(tf.repeat(origin, k, axis=0))
    optimizer = keras().optimizers.Adam(rate)
    optimizer.build([z])

    def image(numbers: Any) -> Any:
        return sums * tf.nn.softmax(numbers, axis=1) + FLOOR

    def log_probability(numbers: Any) -> Any:
        logits = expert.network.model({"image": image(numbers)}, training=False)["class"]
        return tf.reduce_sum(one_hot * tf.nn.log_softmax(logits), axis=1)

    @tf.function(autograph=False)
    def step() -> None:
        with tf.GradientTape() as tape:
            far = tf.reduce_mean(tf.square(z - origin), axis=(1, 2))
            rough = sum(
                tf.reduce_mean(tf.square(pairs), axis=(1, 2))
                for pairs in (z[:, 1:] - z[:, :-1], z[:, :, 1:] - z[:, :, :-1])
            )
            loss = tf.reduce_sum(penalty * far + roughness * rough - log_probability(z))
        optimizer.apply([tape.gradient(loss, z)], [z])

    before = np.exp(log_probability(z).numpy())
    for i in range(steps):
        optimizer.learning_rate.assign(0.5 * rate * (1 + np.cos(np.pi * i / steps)))
        step()
    return Maximised(image(z).numpy(), before, np.exp(log_probability(z).numpy()))
