"""Fitting a network: AdamW with a one-cycle learning rate (Loshchilov & Hutter 2019; Smith 2018), seeded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lightmill.models.extras import need
from lightmill.models.networks import Network, keras

__all__ = ["fit_network", "one_cycle"]

WARM_UP = 0.25
"""Share of the steps in which the learning rate rises."""

WEIGHT_DECAY = 1e-3


def one_cycle(step: int, steps: int, peak: float) -> float:
    """Learning rate: a straight line up from peak/10 over the first quarter of the steps, then half a cosine to 0."""
    rise = max(1, int(WARM_UP * steps))
    if step < rise:
        return peak * (0.1 + 0.9 * step / rise)
    return 0.5 * peak * (1.0 + float(np.cos(np.pi * (step - rise) / max(1, steps - rise))))


def fit_network(
    network: Network,
    images: Callable[[int], np.ndarray],
    y: np.ndarray,
    weight: np.ndarray,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    progress: Callable[[int, float], None] | None = None,
) -> None:
    """Train a network in place.

    Parameters
    ----------
    images : epoch → (n, n_dm, n_dt) float32; called once an epoch, so that augmented images may differ each time
    y : (n,) integer class
    weight : (n,) float, of each row in the loss
    learning_rate : the peak of the cycle
    progress : called after each epoch with its number and mean loss
    """
    tf = need("tensorflow")
    optimizer = keras().optimizers.AdamW(learning_rate, weight_decay=WEIGHT_DECAY)
    model = network.model
    optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(seed)
    keras().utils.set_random_seed(seed)  # dropout

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, *network.shape), tf.float32),
            tf.TensorSpec((None,), tf.int64),
            tf.TensorSpec((None,), tf.float32),
        ]
    )
    def step(x, target, w):
        with tf.GradientTape() as tape:
            each = tf.nn.sparse_softmax_cross_entropy_with_logits(target, model(x[..., None], training=True))
            loss = tf.reduce_sum(w * each) / tf.reduce_sum(w)
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    n = len(y)
    batches = max(1, n // batch_size)
    for epoch in range(epochs):
        x, losses = images(epoch), []
        # equal pieces of a permutation: no tail of a few rows with a wild gradient
        for k, rows in enumerate(np.array_split(rng.permutation(n), batches)):
            optimizer.learning_rate.assign(one_cycle(epoch * batches + k, epochs * batches, learning_rate))
            losses.append(step(x[rows], y[rows].astype(np.int64), weight[rows].astype(np.float32)))
        if progress is not None:
            progress(epoch, float(np.mean([loss.numpy() for loss in losses])))
