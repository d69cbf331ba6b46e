"""Networks: an architecture with its outputs and weights, applied in batches of one fixed shape."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from lightmill.models.architectures import ARCHITECTURES
from lightmill.models.extras import need

__all__ = [
    "BATCH",
    "ENGINES",
    "FEATURES",
    "ON_GPU",
    "PRECISIONS",
    "Network",
    "WeightsError",
    "configure",
    "configure_threads",
    "has_gpu",
    "keras",
    "precision",
]

FEATURES = "features"  #: name of the last layer before the outputs, in what `apply` returns

BACKENDS = {"tensorflow": "cpu", "jax": "jax", "torch": "torch"}  #: of Keras, and the extra that has each

ENGINES, PRECISIONS = ("keras", "openvino"), ("float32", "bfloat16")
_chosen = {"engine": "keras", "precision": "float32"}

BATCH, ON_GPU = 512, 2**14
"""Rows in one call, on CPUs and where the backend has a GPU, which would wait for the host with fewer.

Every call has this shape, the last one padded, so that TensorFlow plans it only once.
"""


class WeightsError(ValueError):
    """Weights do not belong to a network."""


def keras() -> ModuleType:
    """Keras, imported at first use and quietly: on TensorFlow, or on what KERAS_BACKEND says (jax, torch).

    Raises
    ------
    MissingExtra
        if it or its backend is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    backend = os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if backend not in BACKENDS:
        raise RuntimeError(f"KERAS_BACKEND is {backend!r}, networks run on {', '.join(BACKENDS)}")
    if backend not in sys.modules:
        with _quiet_stderr():
            need(backend, extra=BACKENDS[backend])
    return need("keras")


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
    """Let the backend use n threads in this process; call it before the first network is built.

    A worker process for each core with one thread each is faster than one process with many threads.

    Raises
    ------
    RuntimeError
        if TensorFlow has already started with another number.
    """
    backend = keras().backend.backend()
    if backend == "torch":
        need("torch", extra="torch").set_num_threads(n)
    if backend != "tensorflow":
        return  # JAX takes its number from XLA_FLAGS, before it starts
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


class Network:
    """A network of a known architecture: named arrays in, named arrays out."""

    def __init__(
        self,
        architecture: str,
        shapes: Mapping[str, tuple[int, ...]],
        outputs: Mapping[str, int],
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        """Build it with fresh random weights.

        Parameters
        ----------
        architecture : name in ARCHITECTURES
        shapes : of one row of each input, by name
        outputs : number of values by name: {"class": 7}, or with numbers to regress {"class": 7, "redshift": 1}
        parameters : keyword arguments of the architecture's builder

        Raises
        ------
        WeightsError
            if there is no such architecture, or it has no such input or parameter.
        """
        if architecture not in ARCHITECTURES:
            raise WeightsError(f"unknown architecture {architecture!r}; known are {', '.join(ARCHITECTURES)}")
        known = ARCHITECTURES[architecture]
        if set(shapes) != set(known.inputs):
            raise WeightsError(
                f"architecture {architecture!r} takes {', '.join(known.inputs)}, shapes are of {', '.join(shapes)}"
            )
        module = keras()
        tensors = {
            name: module.Input(tuple(shapes[name]), name=name, dtype="float32") for name in known.inputs
        }
        try:
            features = known.build(module, tensors, **(parameters or {}))
        except TypeError as error:
            raise WeightsError(f"architecture {architecture!r}: {error}") from error
        except ValueError as error:
            raise WeightsError(
                f"architecture {architecture!r} cannot take {dict(shapes)}: {str(error).splitlines()[0]}"
            ) from error
        heads = {name: module.layers.Dense(size, name=name)(features) for name, size in outputs.items()}
        self.model = module.Model(tensors, heads | {FEATURES: features}, name=architecture)
        self.shapes = {name: tuple(shapes[name]) for name in known.inputs}
        self.outputs = dict(outputs)
        self._call: Any = None
        self._rows = BATCH

    def weights(self) -> dict[str, np.ndarray]:
        """Copies of the weights, float32, by name (`layer/kernel`)."""
        ops = keras().ops
        # a copy is a plain tensor; of TensorFlow's variables NumPy 2 warns
        return {
            name: np.array(ops.convert_to_numpy(ops.copy(weight)), np.float32)
            for name, weight in self._named().items()
        }

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
        self._call = None

    def _named(self) -> dict[str, Any]:
        return {
            f"{layer.name}/{weight.name}": weight for layer in self.model.layers for weight in layer.weights
        }

    def apply(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Apply the network; the same answers for any split into batches.

        Parameters
        ----------
        inputs : (n, *shape) float by name; others than the network's are not looked at

        Returns
        -------
        (n, size) float32 of each output by name (logits of classes), and of the last layer before them, `FEATURES`

        Raises
        ------
        ValueError
            if an input is missing, has another shape, or another number of rows.
        """
        for name, shape in self.shapes.items():
            if name not in inputs:
                raise ValueError(f"input {name!r} is missing, given are {', '.join(inputs)}")
            found = np.shape(inputs[name])
            if found[1:] != shape or len(found) != 1 + len(shape):
                raise ValueError(f"input {name!r} has shape {found}, the network takes (n, {_sizes(shape)})")
        rows = {name: len(inputs[name]) for name in self.shapes}
        if len(set(rows.values())) != 1:
            raise ValueError(f"inputs have {rows} rows: must be equal")
        n = next(iter(rows.values()))
        names = [*self.outputs, FEATURES]
        sizes = {FEATURES: int(self.model.output[FEATURES].shape[-1]), **self.outputs}
        out = {name: np.empty((n, sizes[name]), np.float32) for name in names}

        def write(start: int, answers: Mapping[str, Any]) -> None:
            kept = min(self._rows, n - start)
            for name in names:
                out[name][start : start + kept] = keras().ops.convert_to_numpy(answers[name])[:kept]

        call, begun = self._compiled(), []
        for start in range(0, n, self._rows):
            piece = {
                name: _padded(inputs[name][start : start + self._rows], shape, self._rows)
                for name, shape in self.shapes.items()
            }
            begun.append((start, call(piece)))
            if len(begun) > 1:  # a GPU computes this piece while the host takes the one before
                write(*begun.pop(0))
        for one in begun:
            write(*one)
        return out

    def inside(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What goes through the network: `input/<name>`, `activation/<layer>` in order, `output/<name>`."""
        module = keras()
        layers = [
            layer
            for layer in self.model.layers
            if isinstance(
                layer, (module.layers.ReLU, module.layers.Dense, module.layers.Conv2D, module.layers.Conv1D)
            )
            and layer.name not in self.outputs
        ]
        probe = module.Model(
            self.model.input,
            {f"activation/{layer.name}": layer.output for layer in layers}
            | {f"output/{name}": self.model.output[name] for name in self.outputs},
        )
        given = {name: np.asarray(inputs[name], np.float32) for name in self.shapes}
        found = probe(given, training=False)
        return {f"input/{name}": value for name, value in given.items()} | {
            name: module.ops.convert_to_numpy(value) for name, value in found.items()
        }

    def logits(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """The output "class" alone: (n, n_classes) float32."""
        return self.apply(inputs)["class"]

    def _compiled(self) -> Any:
        if self._call is None:
            self._rows = ON_GPU if has_gpu() else BATCH
            self._call = _compile(self.model, self.shapes, self._rows)
        return self._call


def configure(*, engine: str = "keras", precision: str = "float32") -> None:
    """Choose what applies networks from now on in this process.

    Parameters
    ----------
    engine : "keras" (the backend's own compiler) or "openvino" (Intel's, for CPUs; the extra `openvino`)
    precision : of the products inside, "float32" or "bfloat16". The latter has 8 bits of mantissa: probabilities change
        by some thousandths, and a host without such instructions is refused, so that no host answers differently.

    Raises
    ------
    ValueError
        if there is no such engine or precision, or the host cannot.
    MissingExtra
        if OpenVINO is not installed.
    """
    if engine not in ENGINES or precision not in PRECISIONS:
        raise ValueError(
            f"engine {engine!r}, precision {precision!r}: known are {', '.join(ENGINES)} and {', '.join(PRECISIONS)}"
        )
    if engine == "openvino":
        need("openvino", extra="openvino")
    if precision == "bfloat16" and not _has_bfloat16():
        raise ValueError(
            'this host has no instructions for bfloat16 (avx512_bf16 or amx_bf16): set precision = "float32" in the '
            "recipe's [classes], or run on hosts that have"
        )
    if precision == "bfloat16" and engine == "keras" and keras().backend.backend() != "tensorflow":
        raise ValueError(
            "bfloat16 is known to TensorFlow and to OpenVINO alone: unset KERAS_BACKEND, or use float32"
        )
    if engine == "keras" and keras().backend.backend() == "tensorflow":
        # TensorFlow has this for the whole process, also for functions that are compiled already
        half = {"auto_mixed_precision_onednn_bfloat16": precision == "bfloat16"}
        need("tensorflow").config.optimizer.set_experimental_options(half)
    _chosen.update(engine=engine, precision=precision)


def precision() -> str:
    """The precision that is chosen in this process."""
    return _chosen["precision"]


def _has_bfloat16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def has_gpu() -> bool:
    """Whether the engine runs on a GPU."""
    if _chosen["engine"] == "openvino":
        return False
    backend = keras().backend.backend()
    if backend == "tensorflow":
        return bool(need("tensorflow").config.list_physical_devices("GPU"))
    if backend == "jax":
        return str(need("jax", extra="jax").default_backend()) == "gpu"
    return bool(need("torch", extra="torch").cuda.is_available())


def _compile(model: Any, shapes: Mapping[str, tuple[int, ...]], rows: int) -> Any:
    """A function of one batch, as fast as the engine has it."""
    if _chosen["engine"] == "openvino":
        return _openvino(model, shapes, rows)
    backend = keras().backend.backend()
    if backend == "tensorflow":
        tf = need("tensorflow")
        function = tf.function(lambda x: model(x, training=False), autograph=False)
        return function.get_concrete_function(
            {name: tf.TensorSpec((rows, *shape), tf.float32, name=name) for name, shape in shapes.items()}
        )
    if backend == "jax":
        jax = need("jax", extra="jax")
        trained = [v.value for v in model.trainable_variables]
        fixed = [v.value for v in model.non_trainable_variables]
        call = jax.jit(lambda a, b, x: model.stateless_call(a, b, x, training=False)[0])
        return lambda x: call(trained, fixed, x)
    torch, convert = need("torch", extra="torch"), keras().ops.convert_to_tensor
    example = {name: convert(np.zeros((rows, *shape), np.float32)) for name, shape in shapes.items()}
    with torch.no_grad():
        # the operations alone: Keras's layers take 10 ms of Python a call
        exported = torch.export.export(model, (example,), strict=False).module()

    def apply(x: Mapping[str, np.ndarray]) -> Any:
        with torch.no_grad():
            return exported({name: convert(x[name]) for name in shapes})

    return apply


def _openvino(model: Any, shapes: Mapping[str, tuple[int, ...]], rows: int) -> Any:
    """OpenVINO's function of one batch, on as many threads as TensorFlow was told to use."""
    openvino = need("openvino", extra="openvino")
    names = [*shapes]
    converted = openvino.convert_model(model, input=[(name, [rows, *shapes[name]]) for name in names])
    threads = need("tensorflow").config.threading.get_intra_op_parallelism_threads() or 1
    compiled = openvino.Core().compile_model(
        converted,
        "CPU",
        {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "bf16" if _chosen["precision"] == "bfloat16" else "f32",
        },
    )
    request = compiled.create_infer_request()
    outputs = {name: compiled.output(name) for name in model.output}
    ports = {name: compiled.input(name) for name in names}

    def apply(x: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = request.infer({ports[name]: x[name] for name in names})
        return {name: found[port] for name, port in outputs.items()}

    return apply


def _padded(piece: np.ndarray, shape: tuple[int, ...], rows: int) -> np.ndarray:
    """So many rows float32, zeros behind those given."""
    given = np.asarray(piece, np.float32)
    if len(given) == rows:
        return np.ascontiguousarray(given)
    padded = np.zeros((rows, *shape), np.float32)
    padded[: len(given)] = given
    return padded


def _sizes(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
