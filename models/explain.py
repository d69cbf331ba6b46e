"""What an expert looked at: which parts of its input speak for a class, of a network and of boosted trees.

`saliency` multiplies the input by the gradient of a class's logit (Simonyan+2014, arXiv:1312.6034), averaged over
noisy copies (SmoothGrad, Smilkov+2017, arXiv:1706.03825); `class_map` is Grad-CAM (Selvaraju+2017, arXiv:1610.02391)
on the last convolution; `attributions` are the SHAP values of trees (Lundberg & Lee 2017, arXiv:1705.07874).

A softmax does not change when all logits rise alike, so that one logit alone says little where classes are much alike:
with a rival, the difference of the two logits is explained, which is what decides between them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from lightmill.models.experts import NetworkExpert, TreesExpert
from lightmill.models.extras import need
from lightmill.models.networks import keras

__all__ = ["FLOOR", "attributions", "class_map", "gradients", "saliency", "tensorflow"]

Inputs = Mapping[str, np.ndarray]

FLOOR = 1e-6
"""Counts that an empty cell is taken to have: the square root of a count has no gradient at 0."""

SAMPLES, SPREAD = (
    32,
    0.15,
)  #: noisy copies, and their noise as a share of what it is added to: Smilkov+2017, figure 3

AT_ONCE = 256  #: rows in one call


def gradients(
    expert: NetworkExpert, inputs: Inputs, target: np.ndarray, rival: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Slope of the logit of a class in every number of the input; on TensorFlow alone.

    Parameters
    ----------
    inputs : representations that the expert takes, each (n, …)
    target : (n,) integer class of each row
    rival : (n,) integer: the slope of the target's logit less the rival's; None: of the target's alone

    Returns
    -------
    (n, …) float32 by representation, as the inputs. That of an empty cell of an image is taken at FLOOR counts.

    Raises
    ------
    ValueError
        if a representation is missing, or there is not one class a row, or no such class.
    """
    tf = tensorflow()
    rows, weights = _rows(expert, inputs), _weights(expert, inputs, target, rival)
    # an array without rows first: there may be no other
    found = {source: [np.empty_like(rows[name][:0])] for name, source in expert.part.inputs.items()}
    for some in _pieces(len(weights)):
        given = {name: tf.constant(values[some]) for name, values in rows.items()}
        with tf.GradientTape() as tape:
            tape.watch(given)
            logits = expert.network.model(given, training=False)["class"]
            value = tf.reduce_sum(logits * weights[some])
        for name, slope in tape.gradient(value, given).items():
            found[expert.part.inputs[name]].append(slope.numpy())
    return {source: np.concatenate(parts) for source, parts in found.items()}


def saliency(
    expert: NetworkExpert,
    inputs: Inputs,
    target: np.ndarray,
    rival: np.ndarray | None = None,
    *,
    samples: int = SAMPLES,
    spread: float = SPREAD,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Input × gradient, averaged over noisy copies: the rise of a logit if a part of the input grew by its own size.

    The noise of an image is relative, because counts span decades and an empty cell must stay empty; that of a folded
    light curve is a share of the range of each channel; the few numbers of other inputs get none.

    Parameters
    ----------
    inputs, target, rival : as for `gradients`
    samples : noisy copies; 0: the input itself
    spread : the noise's standard deviation, as a share
    seed : of the noise: same seed, same map

    Returns
    -------
    (n, …) float32 by representation; positive speaks for the target. Exactly 0 in empty cells.
    """
    given = {source: np.asarray(inputs[source], np.float32) for source in _sources(expert, inputs)}
    rng, total = np.random.default_rng(seed), {source: np.zeros_like(x) for source, x in given.items()}
    copies = max(samples, 1)
    # several copies in one call: to begin one takes longer than to compute
    together = max(1, AT_ONCE // max(len(target), 1))

    def copy() -> dict[str, np.ndarray]:
        if not samples:
            return given
        return {source: _noisy(x, _is_image(expert, source), spread, rng) for source, x in given.items()}

    for start in range(0, copies, together):
        listed = [copy() for _ in range(min(together, copies - start))]
        noisy = {source: np.concatenate([one[source] for one in listed]) for source in given}
        classes, other = np.tile(target, len(listed)), None if rival is None else np.tile(rival, len(listed))
        for source, slope in gradients(expert, noisy, classes, other).items():
            total[source] += (noisy[source] * slope).reshape(len(listed), *total[source].shape).sum(axis=0)
    return {source: values / copies for source, values in total.items()}


def class_map(
    expert: NetworkExpert, inputs: Inputs, target: np.ndarray, rival: np.ndarray | None = None
) -> np.ndarray:
    """Grad-CAM on the last convolution: where it saw what speaks for a class.

    Each feature map of the layer is weighted by the mean slope of the logit in it; what is positive of the sum is kept,
    and interpolated linearly from the middles of the layer's fields of view to the cells of the input. Outside of the
    outermost middles it is constant; along the phase it goes round the circle.

    Parameters
    ----------
    inputs, target, rival : as for `gradients`

    Returns
    -------
    (n, n_dm, n_dt) or (n, n_phase) float32 ≥ 0
    """
    tf = tensorflow()
    rows, weights = _rows(expert, inputs), _weights(expert, inputs, target, rival)
    model = expert.network.model
    last = _last_map(model)
    both = keras().Model(model.input, {"map": last.output, "class": model.output["class"]})
    maps = [np.empty((0, *last.output.shape[1:-1]), np.float32)]
    for some in _pieces(len(weights)):
        given = {name: tf.constant(values[some]) for name, values in rows.items()}
        with tf.GradientTape() as tape:
            tape.watch(given)
            out = both(given, training=False)
            value = tf.reduce_sum(out["class"] * weights[some])
        slope, seen = tape.gradient(value, out["map"]).numpy(), out["map"].numpy()
        alpha = slope.mean(axis=tuple(range(1, slope.ndim - 1)), keepdims=True)
        maps.append(np.maximum((alpha * seen).sum(axis=-1), 0))
    return _to_input(np.concatenate(maps), expert, last)


def attributions(
    expert: TreesExpert, inputs: Inputs, target: np.ndarray, rival: np.ndarray | None = None
) -> np.ndarray:
    """What each feature adds to a class's logit (SHAP values).

    Parameters
    ----------
    inputs : "features", (n, n_columns) float, NaN where not known
    target, rival : (n,) integer class, as for `gradients`

    Returns
    -------
    (n, n_columns + 1) float32: the last is what the trees say of nothing in particular, the sum the logit, or with a
    rival the difference of two. Two classes have one logit: each counts half of the log-odds.

    Raises
    ------
    ValueError
        if there is not one class a row, or no such class.
    """
    found = expert.trees.contributions(inputs["features"])
    if found.shape[1] == 1:
        found = np.concatenate([-found / 2, found / 2], axis=1)
    weights = _one_hot(target, rival, found.shape[0], found.shape[1])
    return np.asarray(np.einsum("nk,nkc->nc", weights, found), np.float32)


def tensorflow() -> Any:
    """TensorFlow, which makes the gradients.

    Raises
    ------
    RuntimeError
        if Keras runs on another backend.
    """
    backend = keras().backend.backend()
    if backend != "tensorflow":
        raise RuntimeError(f"gradients are made on TensorFlow, KERAS_BACKEND is {backend!r}: unset it")
    return need("tensorflow")


def _pieces(n: int) -> Iterator[slice]:
    """Rows of each call."""
    for start in range(0, n, AT_ONCE):
        yield slice(start, start + AT_ONCE)


def _sources(expert: NetworkExpert, inputs: Inputs) -> tuple[str, ...]:
    missing = [source for source in expert.part.needs if source not in inputs]
    if missing:
        raise ValueError(
            f"expert {expert.part.name!r} takes {', '.join(expert.part.needs)}, given are {', '.join(inputs)}"
        )
    return expert.part.needs


def _is_image(expert: NetworkExpert, source: str) -> bool:
    return expert.part.inputs.get("image") == source


def _rows(expert: NetworkExpert, inputs: Inputs) -> dict[str, np.ndarray]:
    """What the network takes, by the names of its inputs; no cell of an image is quite empty."""
    _sources(expert, inputs)
    rows = {name: np.asarray(inputs[source], np.float32) for name, source in expert.part.inputs.items()}
    return {name: np.maximum(x, np.float32(FLOOR)) if name == "image" else x for name, x in rows.items()}


def _weights(
    expert: NetworkExpert, inputs: Inputs, target: np.ndarray, rival: np.ndarray | None
) -> np.ndarray:
    n = len(inputs[expert.part.needs[0]])
    return _one_hot(target, rival, n, expert.network.outputs["class"])


def _one_hot(target: np.ndarray, rival: np.ndarray | None, n: int, k: int) -> np.ndarray:
    """(n, k) float32: 1 for the target, −1 for the rival."""
    out = np.zeros((n, k), np.float32)
    for sign, given in ((1, target), (-1, rival)):
        if given is None:
            continue
        which = np.asarray(given)
        if which.shape != (n,) or (n and not (which.min() >= 0 and which.max() < k)):
            raise ValueError(f"classes {which.tolist()} of {n} rows: one in 0…{k - 1} for each is needed")
        out[np.arange(n), which] += sign
    return out


def _noisy(x: np.ndarray, is_image: bool, spread: float, rng: np.random.Generator) -> np.ndarray:
    noise = np.float32(spread) * rng.standard_normal(x.shape, np.float32)
    if is_image:
        return x * np.maximum(1 + noise, 0)
    if x.ndim < 3:
        return x
    return x + noise * np.ptp(x, axis=1, keepdims=True)


def _last_map(model: Any) -> Any:
    """The last convolution of a network, after its activation."""
    layers = keras().layers
    maps = [
        layer
        for layer in model.layers
        if isinstance(layer, layers.Conv1D | layers.Conv2D | layers.ReLU) and len(layer.output.shape) > 2
    ]
    if not maps:
        raise ValueError(f"network {model.name!r} has no convolution: there is no map to be shown")
    return maps[-1]


def _to_input(maps: np.ndarray, expert: NetworkExpert, last: Any) -> np.ndarray:
    """Maps of a layer (n, …) interpolated to the cells of the input."""
    rank = maps.ndim - 1
    shape = max(expert.network.shapes.values(), key=len)[:rank]
    for axis, (length, middles) in enumerate(zip(shape, _middles(expert, last, shape), strict=True)):
        # a phase goes round; a time or magnitude difference does not
        period = length if rank == 1 else None
        to_cell = np.stack(
            [np.interp(np.arange(length), middles, one, period=period) for one in np.eye(len(middles))],
            axis=1,
        )
        maps = np.moveaxis(np.tensordot(to_cell, maps, axes=(1, axis + 1)), 0, axis + 1)
    return maps.astype(np.float32)


def _middles(expert: NetworkExpert, last: Any, shape: tuple[int, ...]) -> list[np.ndarray]:
    """Where the fields of view of a layer's cells have their middles, in cells of the input, along each axis.

    A convolution that makes a map shorter moves the first middle inwards; one padded with zeros, or round a circle,
    does not. A pooling moves it by half of what it pools.
    """
    layers = keras().layers
    length, first, stride = np.array(shape), np.zeros(len(shape)), np.ones(len(shape))
    for layer in expert.network.model.layers:
        if isinstance(layer, layers.Conv1D | layers.Conv2D):
            now = np.array(layer.output.shape[1:-1])
            first += stride * (length - now) / 2
            length = now
        elif isinstance(layer, layers.MaxPooling1D | layers.MaxPooling2D):
            pool = np.array(layer.pool_size)
            first += stride * (pool - 1) / 2
            stride *= pool
            length = np.array(layer.output.shape[1:-1])
        if layer is last:
            break
    return [a + b * np.arange(n) for a, b, n in zip(first, stride, length, strict=True)]
