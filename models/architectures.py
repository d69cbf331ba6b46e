"""Architectures: networks by name, built by this code; files hold their weights only.

An architecture takes one or several named inputs and ends in one layer of features; `networks.Network` puts the
outputs on it, one linear layer each (classes, or numbers to regress). Plain Keras 3 layers and operations, so that
nothing in a file is ever run and every backend of Keras computes the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

__all__ = ["ARCHITECTURES", "BINS", "CHANNELS", "SCALARS", "Architecture"]

BINS, CHANNELS, SCALARS = 64, 6, 4  #: of the folded light curve that `folded` takes

Tensors = Mapping[str, Any]


class Architecture(NamedTuple):
    """A network up to its last layer of features."""

    inputs: tuple[str, ...]  #: names
    build: Callable[..., Any]  #: (keras, inputs by name, **parameters) → (n, features)
    circles: Mapping[
        str, int
    ] = {}  #: inputs that are round along their first axis → bins that are pooled together


def _mahabal2017(
    keras: Any,
    inputs: Tensors,
    *,
    scale: float = 1 / 255,
    filters: int = 32,
    kernel: int = 3,
    dense: int = 128,
    dropout: tuple[float, float] = (0.1, 0.25),
) -> Any:
    """Mahabal+2017 (arXiv:1709.06257, section 4): a convolution of 32 filters 3 × 3, dropout 0.1, two dense layers.

    The scale of the input is 1/255 for the normalisation "paper".
    """
    layers = keras.layers
    x = layers.Rescaling(scale, name="scale")(inputs["image"][..., None])
    x = layers.Conv2D(filters, kernel, activation="relu", name="conv")(x)
    x = layers.Dropout(dropout[0], name="dropout_1")(x)
    x = layers.Dense(dense, activation="relu", name="dense_1")(layers.Flatten(name="flat")(x))
    x = layers.Dropout(dropout[1], name="dropout_2")(x)
    return layers.Dense(dense, activation="relu", name="dense_2")(x)


def _dmdt(
    keras: Any,
    inputs: Tensors,
    *,
    filters: tuple[int, int, int] = (16, 32, 48),
    dense: int = 96,
    dropout: tuple[float, float] = (0.3, 0.4),
) -> Any:
    """Counts as two channels: how many of all pairs are in a cell, and how many of those with its time difference.

    The first, in logarithms, shows the cadence and the rare large differences; the second does not depend on the
    cadence. Then pairs of convolutions with batch normalisation.
    """
    ops, layers = keras.ops, keras.layers
    counts = inputs["image"]
    pairs = ops.maximum(ops.sum(counts, axis=(1, 2), keepdims=True), 1.0)
    column = ops.maximum(ops.sum(counts, axis=1, keepdims=True), 1.0)
    x = ops.stack([ops.log1p(3e4 * counts / pairs) / 5, 2 * ops.sqrt(counts / column)], axis=-1)
    first, second, third = filters
    for k, (size, pool) in enumerate(((first, 0), (first, 1), (second, 0), (second, 1), (third, 0))):
        x = layers.Conv2D(size, 3, padding="same", use_bias=False, name=f"conv_{k}")(x)
        x = layers.ReLU(name=f"relu_{k}")(layers.BatchNormalization(name=f"norm_{k}")(x))
        if pool:
            x = layers.MaxPooling2D(2, name=f"pool_{k}")(x)
    x = layers.Dropout(dropout[0], name="dropout_1")(layers.Flatten(name="flat")(x))
    x = layers.Dense(dense, activation="relu", name="dense")(x)
    return layers.Dropout(dropout[1], name="dropout_2")(x)


def _folded(keras: Any, inputs: Tensors, *, dense: int = 64, dropout: float = 0.3) -> Any:
    """The folded light curve, (BINS, CHANNELS), by convolutions round the circle; period and depth by a small branch.

    Means and maxima over all phases, so that where the circle is cut open hardly matters.
    """
    ops, layers = keras.ops, keras.layers
    x = inputs["folded"]
    for k, (size, pool) in enumerate(((32, 0), (32, 1), (48, 0), (48, 1), (64, 0))):
        x = ops.concatenate([x[:, -2:], x, x[:, :2]], axis=1)
        x = layers.Conv1D(size, 5, use_bias=False, name=f"conv_{k}")(x)
        x = layers.ReLU(name=f"relu_{k}")(layers.BatchNormalization(name=f"norm_{k}")(x))
        if pool:
            x = layers.MaxPooling1D(2, name=f"pool_{k}")(x)
    s = layers.BatchNormalization(name="norm_scalars")(inputs["scalars"])
    s = layers.Dense(32, activation="relu", name="scalars_1")(s)
    s = layers.Dense(8, activation="relu", name="scalars_2")(s)
    x = ops.concatenate([ops.mean(x, axis=1), ops.max(x, axis=1), s], axis=1)
    return layers.Dropout(dropout, name="dropout")(layers.Dense(dense, activation="relu", name="dense")(x))


ARCHITECTURES: dict[str, Architecture] = {
    "mahabal2017": Architecture(("image",), _mahabal2017),
    "dmdt": Architecture(("image",), _dmdt),
    "folded": Architecture(("folded", "scalars"), _folded, {"folded": 4}),
}
"""Architectures by name."""
