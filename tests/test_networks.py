"""Networks: built from code, weights by name, answers that do not depend on how they are batched or on the backend."""

from __future__ import annotations

import importlib.util
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from lightmill.models import networks
from lightmill.models.extras import MissingExtra
from lightmill.models.networks import BATCH, FEATURES, Network, WeightsError, configure, precision

BENCH = runpy.run_path(str(Path(__file__).parent / "bench" / "gpu_networks.py"))
SHAPE = (5, 6)
FOLDED = {"folded": (16, 6), "scalars": (4,)}


@pytest.fixture(scope="module")
def network() -> Network:
    return Network("mahabal2017", {"image": SHAPE}, {"class": 3})


@pytest.fixture(scope="module")
def several() -> Network:
    """Two inputs, two outputs."""
    return Network("folded", FOLDED, {"class": 3, "redshift": 1})


def images(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    return {"image": np.random.default_rng(seed).integers(0, 40, (n, *SHAPE)).astype(np.float32)}


def curves(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(n, *shape)).astype(np.float32) for name, shape in FOLDED.items()}


def rows(inputs: dict[str, np.ndarray], some: object) -> dict[str, np.ndarray]:
    return {name: values[some] for name, values in inputs.items()}


def oracle(weights: dict[str, np.ndarray], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The paper's network in NumPy, one image at a time: logits and last features."""
    out, last = [], []
    for image in x / 255:
        m, n = SHAPE[0] - 2, SHAPE[1] - 2
        maps = np.zeros((m, n, 32))
        for i in range(m):
            for j in range(n):
                patch = image[i : i + 3, j : j + 3, None, None]
                maps[i, j] = (patch * weights["conv/kernel"]).sum(axis=(0, 1, 2))
        h = np.maximum(maps + weights["conv/bias"], 0).ravel()
        h = np.maximum(h @ weights["dense_1/kernel"] + weights["dense_1/bias"], 0)
        h = np.maximum(h @ weights["dense_2/kernel"] + weights["dense_2/bias"], 0)
        last.append(h)
        out.append(h @ weights["class/kernel"] + weights["class/bias"])
    return np.array(out), np.array(last)


def test_it_is_the_network_of_the_paper(network: Network):
    shapes = {name: value.shape for name, value in network.weights().items()}
    assert shapes == {
        "conv/kernel": (3, 3, 1, 32), "conv/bias": (32,),
        "dense_1/kernel": (3 * 4 * 32, 128), "dense_1/bias": (128,),
        "dense_2/kernel": (128, 128), "dense_2/bias": (128,),
        "class/kernel": (128, 3), "class/bias": (3,),
    }  # fmt: skip
    rates = [layer.rate for layer in network.model.layers if layer.name.startswith("dropout")]
    assert rates == [0.1, 0.25]


def test_it_computes_what_the_paper_says(network: Network):
    x = images(7)
    logits, last = oracle(network.weights(), x["image"].astype(np.float64))
    found = network.apply(x)
    # float32 sums of some hundred terms
    np.testing.assert_allclose(found["class"], logits, atol=1e-5)
    np.testing.assert_allclose(found[FEATURES], last, atol=1e-5)
    np.testing.assert_array_equal(network.logits(x), found["class"])


@pytest.mark.parametrize("pieces", [[1], [3, 500], [BATCH], [511, 513], [600]])
def test_answers_do_not_depend_on_batches(network: Network, several: Network, pieces: list[int]):
    for net, x in ((network, images(700)), (several, curves(700))):
        whole = net.apply(x)
        edges = [0, *pieces, 700]
        split = [net.apply(rows(x, slice(a, b))) for a, b in pairwise(edges)]
        order = np.random.default_rng(3).permutation(700)
        shuffled = net.apply(rows(x, order))
        assert set(whole) == {*net.outputs, FEATURES}
        for name, values in whole.items():
            assert values.dtype == np.float32
            np.testing.assert_allclose(np.concatenate([part[name] for part in split]), values, atol=1e-6)
            np.testing.assert_allclose(shuffled[name], values[order], atol=1e-6)


def test_a_gpu_gets_larger_batches_and_gives_the_same_answers(
    network: Network, monkeypatch: pytest.MonkeyPatch
):
    x = images(700)
    here = network.apply(x)
    monkeypatch.setattr(networks, "has_gpu", lambda: True)
    monkeypatch.setattr(networks, "ON_GPU", 300)
    network.set_weights(network.weights())  # compiles anew
    seen: list[int] = []
    call = network._compiled()
    network._call = lambda piece: seen.append(len(piece["image"])) or call(piece)
    there = network.apply(x)
    network._call = None  # for the tests to come
    assert seen == [300, 300, 300]
    for name, values in here.items():
        np.testing.assert_allclose(there[name], values, atol=1e-6)


def test_the_benchmark_of_a_gpu_needs_one(capsys: pytest.CaptureFixture[str]):
    assert BENCH["main"]([]) == 1
    assert "no GPU: Keras's backend tensorflow finds no device" in capsys.readouterr().err


def test_the_benchmark_of_a_gpu_counts_multiplications(several: Network, network: Network):
    # the paper's: 3 × 3 × 32 at each cell's window, then dense layers of 128
    height, width = (size - 2 for size in network.shapes["image"])
    flat, last = height * width * 32, network.outputs["class"]
    assert BENCH["multiplications"](network) == height * width * 9 * 32 + flat * 128 + 128 * 128 + 128 * last
    rows = BENCH["Row"]("dmdt", 512, 1000, 1e6, 2e5, 0.5, 0.25)
    assert "| dmdt | 512 | 1e+03 | 1e+06 | 2e+05 | 50.0% | 25.0% |" in BENCH["table"]("card", [rows])
    assert BENCH["check_split"]("several", several, curves(3000)) <= 1e-6


def test_read_only_and_empty_input(network: Network, several: Network):
    for net, x in ((network, images(4)), (several, curves(4))):
        for values in x.values():
            values.flags.writeable = False
        before = {name: values.copy() for name, values in x.items()}
        assert net.apply(x)["class"].shape == (4, 3)
        assert net.apply(rows(x, slice(0)))["class"].shape == (0, 3)
        for name, values in before.items():
            np.testing.assert_array_equal(x[name], values)


def test_other_inputs_are_not_looked_at(several: Network):
    x = curves(3)
    with_more = several.apply(x | {"features": np.full((7, 2), np.nan)})
    np.testing.assert_array_equal(with_more["class"], several.apply(x)["class"])


def test_outputs_have_their_sizes_and_one_layer_of_features(several: Network):
    found = several.apply(curves(5))
    assert {name: values.shape for name, values in found.items()} == {
        "class": (5, 3), "redshift": (5, 1), FEATURES: (5, 64),
    }  # fmt: skip
    own = several.weights()
    for name in several.outputs:  # a linear layer each, on the same features
        linear = found[FEATURES] @ own[f"{name}/kernel"] + own[f"{name}/bias"]
        np.testing.assert_allclose(found[name], linear, atol=1e-5)


def test_inputs_that_do_not_fit_are_named(network: Network, several: Network):
    x = curves(2)
    with pytest.raises(ValueError, match="input 'scalars' is missing, given are folded"):
        several.apply({"folded": x["folded"]})
    with pytest.raises(ValueError, match=r"input 'scalars' has shape \(2, 3\), the network takes \(n, 4\)"):
        several.apply(x | {"scalars": np.zeros((2, 3))})
    with pytest.raises(ValueError, match=r"inputs have \{'folded': 2, 'scalars': 3\} rows: must be equal"):
        several.apply(x | {"scalars": np.zeros((3, 4))})
    with pytest.raises(
        ValueError, match=r"input 'image' has shape \(2, 6, 5\), the network takes \(n, 5, 6\)"
    ):
        network.apply({"image": np.zeros((2, 6, 5))})
    for wrong in (np.float32(1), np.zeros(SHAPE), np.zeros((2, *SHAPE, 1))):
        with pytest.raises(ValueError, match=r"the network takes \(n, 5, 6\)"):
            network.apply({"image": wrong})


def test_weights_go_from_one_network_to_another(network: Network):
    other = Network("mahabal2017", {"image": SHAPE}, {"class": 3})
    x = images(5)
    before = other.logits(x)
    other.set_weights(network.weights())
    np.testing.assert_array_equal(other.logits(x), network.logits(x))
    assert np.abs(before - other.logits(x)).max() > 0


def test_weights_are_copies(network: Network):
    x, own = images(2), network.weights()
    before = network.logits(x)
    for values in own.values():
        values[:] = 7
    np.testing.assert_array_equal(network.logits(x), before)


def test_weights_that_do_not_fit_are_named(network: Network):
    own = network.weights()
    with pytest.raises(WeightsError, match="weights missing: conv/bias; not of this network: more"):
        network.set_weights(
            {name: w for name, w in own.items() if name != "conv/bias"} | {"more": np.ones(1)}
        )
    with pytest.raises(WeightsError, match=r"'class/bias' has shape \(4,\), the network's has \(3,\)"):
        network.set_weights(own | {"class/bias": np.zeros(4)})
    with pytest.raises(WeightsError, match="'class/bias' has values that are not finite"):
        network.set_weights(own | {"class/bias": np.array([0, np.nan, 0])})
    for name, values in network.weights().items():  # refused as a whole
        np.testing.assert_array_equal(values, own[name])


def test_what_cannot_be_built_is_refused():
    with pytest.raises(
        WeightsError, match="unknown architecture 'resnet'; known are mahabal2017, dmdt, folded"
    ):
        Network("resnet", {"image": SHAPE}, {"class": 3})
    with pytest.raises(WeightsError, match="unexpected keyword argument 'depth'"):
        Network("mahabal2017", {"image": SHAPE}, {"class": 3}, {"depth": 4})
    with pytest.raises(WeightsError, match="'folded' takes folded, scalars, shapes are of folded"):
        Network("folded", {"folded": (16, 6)}, {"class": 3})
    with pytest.raises(WeightsError, match=r"'mahabal2017' cannot take \{'image': \(2, 2\)\}"):
        Network("mahabal2017", {"image": (2, 2)}, {"class": 3})


def test_what_is_inside(several: Network):
    x = curves(3)
    found, answers = several.inside(x), several.apply(x)
    np.testing.assert_array_equal(found["input/folded"], x["folded"])
    for name in several.outputs:
        np.testing.assert_allclose(found[f"output/{name}"], answers[name], atol=1e-6)
    np.testing.assert_allclose(found["activation/dense"], answers[FEATURES], atol=1e-6)
    assert "activation/class" not in found


NETWORKS = {
    "mahabal2017": {"image": (6, 7)},
    "dmdt": {"image": (8, 9)},
    "folded": FOLDED,
}

ELSEWHERE = """
import json, sys
import numpy as np
from lightmill.models.fitting import fit_network
from lightmill.models.networks import Network, keras

given, asked, out = np.load(sys.argv[1]), json.loads(sys.argv[2]), {}
for name, shapes in asked.items():
    network = Network(name, shapes, {"class": 3, "redshift": 1})
    network.apply({one: np.zeros((1, *shape)) for one, shape in shapes.items()})  # compiled with other weights
    network.set_weights({key: given[f"{name}|{key}"] for key in network.weights()})
    found = network.apply({one: given[f"{name}|input|{one}"] for one in shapes})
    out |= {f"{name}|{key}": values for key, values in found.items()}
try:
    fit_network(network, lambda epoch: {}, {"class": np.zeros(2), "redshift": np.zeros(2)}, np.ones(2), epochs=1,
                batch_size=2, learning_rate=1.0, seed=0)
except RuntimeError as error:
    assert "networks are trained on TensorFlow, KERAS_BACKEND is" in str(error), error
else:
    raise AssertionError("it was trained")
assert "tensorflow" not in sys.modules, "TensorFlow was imported"
np.savez(sys.argv[3], backend=keras().backend.backend(), **out)
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_the_same_weights_answer_alike_on_other_backends(backend: str, tmp_path: Path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed: pip install 'lightmill[{backend}]'")
    rng, given, wanted = np.random.default_rng(8), {}, {}
    for name, shapes in NETWORKS.items():
        network = Network(name, shapes, {"class": 3, "redshift": 1})
        # also the moving means and variances of normalisations away from their starts of 0 and 1
        own = {
            key: (w + 0.2 * rng.random(w.shape)).astype(np.float32) for key, w in network.weights().items()
        }
        network.set_weights(own)
        inputs = {
            one: rng.poisson(3, (BATCH + 5, *shape)).astype(np.float32) for one, shape in shapes.items()
        }
        given |= {f"{name}|{key}": w for key, w in own.items()}
        given |= {f"{name}|input|{one}": values for one, values in inputs.items()}
        wanted |= {f"{name}|{key}": values for key, values in network.apply(inputs).items()}
    np.savez(tmp_path / "given.npz", **given)
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, tmp_path / "given.npz", json.dumps(NETWORKS), tmp_path / "out.npz"],
        env=os.environ | {"KERAS_BACKEND": backend}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "out.npz")
    assert str(found["backend"]) == backend
    for key, values in wanted.items():
        # of the largest value: sums of some hundred float32 terms, in another order
        np.testing.assert_allclose(found[key], values, atol=1e-5 * max(1, np.abs(values).max()), err_msg=key)


def test_unknown_backends_are_refused():
    code = "from lightmill.models.networks import keras; keras()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"KERAS_BACKEND": "abacus"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "KERAS_BACKEND is 'abacus', networks run on tensorflow, jax, torch" in done.stderr


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_missing_backend_names_its_extra(backend: str):
    code = f"""
import sys
class AsIfNotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name == {backend!r}:
            raise ModuleNotFoundError("not here", name=name)
sys.meta_path.insert(0, AsIfNotInstalled())
from lightmill.models.networks import keras
keras()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"KERAS_BACKEND": backend}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert f"this needs the extra '{backend}': pip install 'lightmill[{backend}]'" in done.stderr


@pytest.fixture
def as_before() -> Iterator[None]:
    """The engine and the precision are of the whole process."""
    yield
    configure()


def test_unknown_engines_and_precisions_are_refused(as_before: None):
    for wrong in ({"engine": "abacus"}, {"precision": "float16"}):
        with pytest.raises(ValueError, match="known are keras, openvino and float32, bfloat16"):
            configure(**wrong)
    assert precision() == "float32"


@pytest.mark.parametrize(("shapes", "name"), [(shapes, name) for name, shapes in NETWORKS.items()])
def test_openvino_answers_alike(as_before: None, name: str, shapes: dict[str, tuple[int, ...]]):
    if importlib.util.find_spec("openvino") is None:
        pytest.skip("openvino is not installed: pip install 'lightmill[openvino]'")
    network, rng = Network(name, shapes, {"class": 3, "redshift": 1}), np.random.default_rng(8)
    network.set_weights({key: w + 0.2 * rng.random(w.shape) for key, w in network.weights().items()})
    x = {one: rng.poisson(3, (BATCH + 5, *shape)).astype(np.float32) for one, shape in shapes.items()}
    wanted = network.apply(x)
    configure(engine="openvino")
    other = Network(name, shapes, {"class": 3, "redshift": 1})
    other.set_weights(network.weights())
    found = other.apply(x)
    for key, values in wanted.items():
        np.testing.assert_allclose(found[key], values, atol=1e-5 * max(1, np.abs(values).max()), err_msg=key)


def test_a_missing_engine_names_its_extra(as_before: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "openvino", None)  # as if it were not installed
    with pytest.raises(
        MissingExtra, match=r"needs the extra 'openvino': pip install 'lightmill\[openvino\]'"
    ):
        configure(engine="openvino")
