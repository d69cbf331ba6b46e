"""Networks: built by this code from a name and a few numbers; files hold their weights only.

`mahabal2017` is the network of Mahabal+2017 (arXiv:1709.06257, section 4): one convolution of 32 filters 3 × 3, dropout
0.1, two dense layers of 128 with dropout 0.25 between them, softmax. Plain Keras 3 layers, so that nothing in a
file is ever run. The scale of the input (1/255 for the normalisation "paper") is the first layer's, and so part of the
network.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from lightmill.models.extras import need

__all__ = ["ARCHITECTURES", "BATCH", "Network", "WeightsError", "configure_threads", "keras"]

BATCH = 512
"""Images in one call: every call has this shape, the last one padded, so that TensorFlow plans it only once."""


class WeightsError(ValueError):
    """Weights do not belong to a network."""


def keras() -> ModuleType:
    """Keras on TensorFlow, imported at first use and quietly.

    Raises
    ------
    MissingExtra
        if it is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if "tensorflow" not in sys.modules:
        with _quiet_stderr():
            need("tensorflow")
    module = need("keras")
    if module.backend.backend() != "tensorflow":
        raise RuntimeError(
            f"Keras runs on {module.backend.backend()!r}, Lightmill applies networks with 'tensorflow': "
            "unset KERAS_BACKEND"
        )
    return module


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Hold back what C++ writes to stderr; show it only if the body fails.

    TensorFlow reports CPU features, and CUDA libraries that it did not find, before its log level counts.
    """
    with tempfile.TemporaryFile() as held:
        sys.stderr.flush()
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)
        failed = True
        try:
            yield
            failed = False
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            if failed:
                held.seek(0)
                sys.stderr.write(held.read().decode(errors="replace"))


def configure_threads(n: int) -> None:
    """Let TensorFlow use n threads in this process; call it before the first network is built.

    A worker process for each core with one thread each is faster than one process with many threads.

    Raises
    ------
    RuntimeError
        if TensorFlow has already started with another number.
    """
    keras()
    threading = need("tensorflow").config.threading
    if threading.get_intra_op_parallelism_threads() == threading.get_inter_op_parallelism_threads() == n:
        return
    try:
        threading.set_intra_op_parallelism_threads(n)
        threading.set_inter_op_parallelism_threads(n)
    except RuntimeError as error:
        now = threading.get_intra_op_parallelism_threads()
        raise RuntimeError(
            f"TensorFlow already runs with {now or 'its own choice of'} threads, {n} asked for: call "
            "configure_threads before the first network is built"
        ) from error


def _mahabal2017(
    shape: tuple[int, int],
    n_classes: int,
    *,
    scale: float = 1 / 255,
    filters: int = 32,
    kernel: int = 3,
    dense: int = 128,
    dropout: tuple[float, float] = (0.1, 0.25),
) -> Any:
    """The paper's network up to the logits; calibration and softmax follow outside."""
    layers = keras().layers
    return keras().Sequential(
        [
            keras().Input((*shape, 1), name="image"),
            layers.Rescaling(scale, name="scale"),
            layers.Conv2D(filters, kernel, activation="relu", name="conv"),
            layers.Dropout(dropout[0], name="dropout_1"),
            layers.Flatten(name="flat"),
            layers.Dense(dense, activation="relu", name="dense_1"),
            layers.Dropout(dropout[1], name="dropout_2"),
            layers.Dense(dense, activation="relu", name="dense_2"),
            layers.Dense(n_classes, name="logits"),
        ],
        name="mahabal2017",
    )


ARCHITECTURES: dict[str, Callable[..., Any]] = {"mahabal2017": _mahabal2017}
"""Builders by name: (image shape, number of classes, **parameters) → Keras model from (n, n_dm, n_dt, 1) to logits."""


class Network:
    """A network of a known architecture, applied in batches of one fixed shape."""

    def __init__(
        self,
        architecture: str,
        shape: tuple[int, int],
        n_classes: int,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        """Build it with fresh random weights.

        Parameters
        ----------
        architecture : name in ARCHITECTURES
        shape : (n_dm, n_dt)
        parameters : keyword arguments of the builder

        Raises
        ------
        WeightsError
            if there is no such architecture, or it has no such parameter.
        """
        if architecture not in ARCHITECTURES:
            raise WeightsError(f"unknown architecture {architecture!r}; known are {', '.join(ARCHITECTURES)}")
        try:
            self.model = ARCHITECTURES[architecture](shape, n_classes, **(parameters or {}))
        except TypeError as error:
            raise WeightsError(f"architecture {architecture!r}: {error}") from error
        self.shape, self.n_classes = tuple(shape), n_classes
        self._call: Any = None

    def weights(self) -> dict[str, np.ndarray]:
        """Copies of the weights, float32, by name (`layer/kernel`)."""
        return {name: np.array(weight.numpy(), np.float32) for name, weight in self._named().items()}

    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Take over weights by name.

        Raises
        ------
        WeightsError
            if one is missing, is not the network's, has another shape, or is not finite.
        """
        own = {name: tuple(weight.shape) for name, weight in self._named().items()}
        missing, extra = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
        if missing or extra:
            raise WeightsError(
                f"weights missing: {', '.join(missing) or 'none'}; not of this network: {', '.join(extra) or 'none'}"
            )
        for name, shape in own.items():
            if weights[name].shape != shape:
                raise WeightsError(
                    f"weight {name!r} has shape {weights[name].shape}, the network's has {shape}"
                )
            if not np.isfinite(weights[name]).all():
                raise WeightsError(f"weight {name!r} has values that are not finite")
        for name, weight in self._named().items():
            weight.assign(np.asarray(weights[name], np.float32))

    def _named(self) -> dict[str, Any]:
        return {
            f"{layer.name}/{weight.name}": weight for layer in self.model.layers for weight in layer.weights
        }

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Apply the network: (n, n_dm, n_dt) → (n, n_classes) float32; the same for any split into batches.

        Raises
        ------
        ValueError
            if the images have another shape.
        """
        if images.ndim != 3 or images.shape[1:] != self.shape:
            raise ValueError(
                f"images have shape {images.shape}, the network takes (n, {self.shape[0]}, {self.shape[1]})"
            )
        out = np.empty((len(images), self.n_classes), np.float32)
        for start in range(0, len(images), BATCH):
            piece = np.asarray(images[start : start + BATCH], np.float32)
            padded = piece if len(piece) == BATCH else np.zeros((BATCH, *self.shape), np.float32)
            padded[: len(piece)] = piece
            out[start : start + BATCH] = self._compiled()(need("tensorflow").constant(padded)).numpy()[
                : len(piece)
            ]
        return out

    def _compiled(self) -> Any:
        if self._call is None:
            tf = need("tensorflow")
            function = tf.function(lambda x: self.model(x[..., None], training=False), autograph=False)
            self._call = function.get_concrete_function(tf.TensorSpec((BATCH, *self.shape), tf.float32))
        return self._call
