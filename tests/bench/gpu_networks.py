"""The bundles' networks on a GPU: golden answers, light curves a second, and the share of the card's matrix rate.

    KERAS_BACKEND=jax python tests/bench/gpu_networks.py                  a Markdown table
    KERAS_BACKEND=torch python tests/bench/gpu_networks.py --format json  the same figures for programs

Exit code 1 if the backend has no GPU, if a bundle does not give its golden answers there, or if an answer depends on
how rows are split. Nothing of this needs more than `pip install --no-deps` of Lightmill beside numpy, scipy, pydantic,
Keras, its backend, XGBoost and safetensors.

*device*: batches that lie on the device already. *whole*: `Network.apply`, from arrays of the host to arrays of the
host. *rate*: two operations a multiplication, by the weights of the layers, over what a product of two large matrices
reaches in the same run, in float32 as the backend multiplies it (TensorFloat-32 where it chooses so) and in bfloat16.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lightmill.models import networks
from lightmill.models.bundle import load
from lightmill.models.experts import NetworkExpert
from lightmill.models.networks import Network, keras

ROUNDS = 5
SIDE = 8192  #: of the matrices
CURVES = 2**17
ROWS = (512, 2**12, 2**14, 2**16)  #: of a call
SPLIT_TOLERANCE = 1e-6  #: in logits, relative to the largest
NO_GPU = "no GPU: Keras's backend {} finds no device here\n"


@dataclass(frozen=True)
class Row:
    """One network with so many rows a call."""

    network: str
    rows: int
    multiplications: int  #: a light curve
    device_curves_per_s: float
    whole_curves_per_s: float
    share_float32: float  #: of the card's measured rate
    share_bfloat16: float


def seconds(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Median time of `work`; the first call, which compiles, is not timed."""
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def card() -> str:
    backend = keras().backend.backend()
    if backend == "jax":
        import jax

        return str(jax.devices()[0].device_kind)
    if backend == "torch":
        import torch

        return str(torch.cuda.get_device_name())
    import tensorflow as tf

    return str(
        tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])["device_name"]
    )


def jitted(function: Callable[..., Any]) -> Callable[..., Any]:
    if keras().backend.backend() == "jax":
        import jax

        return jax.jit(function)
    return function


def matrix_rate(dtype: str) -> float:
    """Operations a second of a product of two matrices."""
    ops = keras().ops
    rng = np.random.default_rng(0)
    a, b = (
        ops.cast(ops.convert_to_tensor(rng.standard_normal((SIDE, SIDE)).astype(np.float32)), dtype)
        for _ in "ab"
    )
    product, times = jitted(lambda x, y: ops.matmul(x, y)), 10

    def work() -> None:
        for _ in range(times):
            c = product(a, b)
        ops.convert_to_numpy(c[:1, :1])  # waits for all

    return times * 2.0 * SIDE**3 / seconds(work)


def multiplications(network: Network) -> int:
    """Of the layers with a kernel, for one light curve."""
    total = 0
    for layer in network.model.layers:
        kernel = getattr(layer, "kernel", None)
        if kernel is not None:
            places = int(np.prod(layer.output.shape[1:-1])) if len(kernel.shape) > 2 else 1
            total += places * int(np.prod(kernel.shape))
    return total


def batch(network: Network, n: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        name: rng.integers(0, 9, (n, *shape), np.uint8).astype(np.float32)
        for name, shape in network.shapes.items()
    }


def check_split(name: str, network: Network, inputs: dict[str, np.ndarray]) -> float:
    """How far logits depend on the split, relative to the largest. RuntimeError if they do."""
    n = 3000
    whole = network.logits({key: value[:n] for key, value in inputs.items()})
    pieces = [
        network.logits({key: value[a:b] for key, value in inputs.items()})
        for a, b in ((0, 1), (1, 700), (700, 2999), (2999, n))
    ]
    worst = float(np.abs(np.concatenate(pieces) - whole).max() / np.abs(whole).max())
    if worst > SPLIT_TOLERANCE:
        raise RuntimeError(f"{name}: logits change by {worst:.2g} with the split, at most {SPLIT_TOLERANCE}")
    return worst


def measure(
    name: str, network: Network, inputs: dict[str, np.ndarray], rows: int, rates: dict[str, float]
) -> Row:
    """Check and time one network. RuntimeError if its answers depend on the split."""
    networks.ON_GPU = rows
    network.set_weights(network.weights())  # compiles anew
    check_split(name, network, inputs)
    call, ops = network._compiled(), keras().ops
    pieces = [
        {key: ops.convert_to_tensor(value[a : a + rows]) for key, value in inputs.items()}
        for a in range(0, CURVES, rows)
    ]

    def device() -> None:
        for piece in pieces:
            answers = call(piece)
        ops.convert_to_numpy(answers["class"])

    resident = len(pieces) * rows / seconds(device)
    whole = CURVES / seconds(lambda: network.apply(inputs))
    work = 2 * multiplications(network) * resident
    return Row(
        name, rows, multiplications(network), resident, whole, work / rates["float32"], work / rates["bfloat16"]
    )  # fmt: skip


def shipped() -> dict[str, Network]:
    """The networks of both bundles, whose golden answers `load` checks on this device."""
    return {
        f"{bundle} {expert.part.name}": expert.network
        for bundle in ("ztf-dr", "crts-7")
        for expert in load(bundle).parts.experts
        if isinstance(expert, NetworkExpert)
    }


def table(title: str, rows: list[Row]) -> str:
    """Markdown."""
    lines = [
        title,
        "",
        "| network | rows a call | multiplications | device, curves/s | whole, curves/s | of float32 | of bfloat16 |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.network} | {r.rows} | {r.multiplications:.3g} | {r.device_curves_per_s:.3g} | "
        f"{r.whole_curves_per_s:.3g} | {r.share_float32:.1%} | {r.share_bfloat16:.1%} |"
        for r in rows
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--format", choices=["table", "json"], default="table")
    options = parser.parse_args(arguments)
    backend = keras().backend.backend()
    if not networks.has_gpu():
        sys.stderr.write(NO_GPU.format(backend))
        return 1
    rates = {dtype: matrix_rate(dtype) for dtype in ("float32", "bfloat16")}
    rows = []
    for name, network in shipped().items():
        inputs = batch(network, CURVES)
        rows += [measure(name, network, inputs, n, rates) for n in ROWS]
    if options.format == "json":
        figures = {"card": card(), "backend": backend, "rates": rates, "rows": [asdict(row) for row in rows]}
        sys.stdout.write(json.dumps(figures, indent=1) + "\n")
    else:
        title = (
            f"{card()}, Keras on {backend}: golden answers hold; {rates['float32'] / 1e12:.0f} TFLOP/s in float32, "
            f"{rates['bfloat16'] / 1e12:.0f} in bfloat16."
        )
        sys.stdout.write(table(title, rows) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
