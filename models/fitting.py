"""Fitting a network: AdamW with a one-cycle learning rate (Loshchilov & Hutter 2019; Smith 2018), seeded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lightmill.models.extras import need
from lightmill.models.networks import BATCH, Network, keras

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
    inputs: Callable[[int], Mapping[str, np.ndarray]],
    targets: Mapping[str, np.ndarray],
    weight: np.ndarray,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    smoothing: float = 0.0,
    progress: Callable[[int, float], None] | None = None,
    watch: Callable[[int, float, Mapping[str, np.ndarray]], None] | None = None,
) -> None:
    """Train a network in place; on TensorFlow alone.

    Parameters
    ----------
    inputs : epoch → rows of each input by name; called once an epoch, so that augmented ones may differ each time
    targets : (n,) of each output by name: integers are classes (cross-entropy), floats are numbers to regress (squared
        error; NaN where not known). The losses are added.
    weight : (n,) float, of each row in the losses
    learning_rate : the peak of the cycle
    smoothing : share of each class's target that is spread over all classes (Szegedy+2016, arXiv:1512.00567)
    progress : called after each epoch with its number and mean loss
    watch : likewise, and with what went through the network for some rows (see `Network.inside`)

    Raises
    ------
    ValueError
        if the targets are not those of the network's outputs.
    RuntimeError
        if Keras runs on something else.
    """
    if (backend := keras().backend.backend()) != "tensorflow":
        raise RuntimeError(f"networks are trained on TensorFlow, KERAS_BACKEND is {backend!r}: unset it")
    if set(targets) != set(network.outputs):
        raise ValueError(
            f"targets are given for {', '.join(targets)}, the network's outputs are {', '.join(network.outputs)}"
        )
    tf = need("tensorflow")
    model = network.model
    optimizer = keras().optimizers.AdamW(learning_rate, weight_decay=WEIGHT_DECAY)
    optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(seed)
    keras().utils.set_random_seed(seed)  # dropout
    n, batches = len(weight), max(1, len(weight) // batch_size)
    truth = {name: _target(values) for name, values in targets.items()}

    @tf.function(reduce_retracing=True)
    def step(x, target, w):
        with tf.GradientTape() as tape:
            answers = model(x, training=True)
            loss = sum(_loss(tf, answers[name], target[name], w, smoothing) for name in target)
        variables = model.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    for epoch in range(epochs):
        given, losses = inputs(epoch), []
        own = {name: given[name] for name in network.shapes}
        # equal pieces of a permutation: no tail of a few rows with a wild gradient
        for k, rows in enumerate(np.array_split(rng.permutation(n), batches)):
            optimizer.learning_rate.assign(one_cycle(epoch * batches + k, epochs * batches, learning_rate))
            piece = {name: tf.constant(np.asarray(values[rows], np.float32)) for name, values in own.items()}
            some = {name: tf.constant(values[rows]) for name, values in truth.items()}
            losses.append(step(piece, some, tf.constant(weight[rows].astype(np.float32))))
        mean = float(np.mean([loss.numpy() for loss in losses]))
        if progress is not None:
            progress(epoch, mean)
        if watch is not None:
            watch(epoch, mean, network.inside({name: values[:BATCH] for name, values in own.items()}))


def _target(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values)
    return values.astype(np.int64 if values.dtype.kind in "iu" else np.float32)


def _loss(tf: Any, answer: Any, target: Any, weight: Any, smoothing: float) -> Any:
    """Weighted mean loss of one output; rows whose number is not known do not count."""
    if target.dtype == tf.int64:
        k = answer.shape[-1]
        wanted = tf.one_hot(target, k) * (1 - smoothing) + smoothing / k
        each = tf.nn.softmax_cross_entropy_with_logits(wanted, answer)
    else:
        known = tf.math.is_finite(target)
        weight = tf.where(known, weight, 0.0)
        each = tf.square(answer[:, 0] - tf.where(known, target, 0.0))
    return tf.reduce_sum(weight * each) / tf.maximum(tf.reduce_sum(weight), 1e-9)
