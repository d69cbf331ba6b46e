"""Networks: built from code, weights by name, answers that do not depend on how they are batched."""

from __future__ import annotations

import numpy as np
import pytest

from lightmill.models.fitting import fit_network, one_cycle
from lightmill.models.networks import BATCH, Network, WeightsError

SHAPE = (5, 6)


@pytest.fixture(scope="module")
def network() -> Network:
    return Network("mahabal2017", SHAPE, 3)


def images(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 40, (n, *SHAPE)).astype(np.float32)


def oracle(weights: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """The paper's network in NumPy, one image at a time."""
    out = []
    for image in x / 255:
        rows, columns = SHAPE[0] - 2, SHAPE[1] - 2
        maps = np.zeros((rows, columns, 32))
        for i in range(rows):
            for j in range(columns):
                patch = image[i : i + 3, j : j + 3, None, None]
                maps[i, j] = (patch * weights["conv/kernel"]).sum(axis=(0, 1, 2))
        h = np.maximum(maps + weights["conv/bias"], 0).ravel()
        h = np.maximum(h @ weights["dense_1/kernel"] + weights["dense_1/bias"], 0)
        h = np.maximum(h @ weights["dense_2/kernel"] + weights["dense_2/bias"], 0)
        out.append(h @ weights["logits/kernel"] + weights["logits/bias"])
    return np.array(out)


def test_it_is_the_network_of_the_paper(network: Network):
    shapes = {name: value.shape for name, value in network.weights().items()}
    assert shapes == {
        "conv/kernel": (3, 3, 1, 32), "conv/bias": (32,),
        "dense_1/kernel": (3 * 4 * 32, 128), "dense_1/bias": (128,),
        "dense_2/kernel": (128, 128), "dense_2/bias": (128,),
        "logits/kernel": (128, 3), "logits/bias": (3,),
    }  # fmt: skip
    rates = [layer.rate for layer in network.model.layers if layer.name.startswith("dropout")]
    assert rates == [0.1, 0.25]


def test_it_computes_what_the_paper_says(network: Network):
    x = images(7)
    # float32 sums of some hundred terms
    np.testing.assert_allclose(network.logits(x), oracle(network.weights(), x.astype(np.float64)), atol=1e-5)


@pytest.mark.parametrize("pieces", [[0, 1], [0, 3, 500], [0, BATCH], [0, 511, 513], [0, 600]])
def test_answers_do_not_depend_on_batches(network: Network, pieces: list[int]):
    x = images(700)
    whole = network.logits(x)
    split = np.concatenate([network.logits(piece) for piece in np.split(x, pieces[1:])])
    np.testing.assert_allclose(split, whole, atol=1e-6)
    order = np.random.default_rng(3).permutation(len(x))
    np.testing.assert_allclose(network.logits(x[order]), whole[order], atol=1e-6)


def test_read_only_and_empty_input(network: Network):
    x = images(4)
    x.flags.writeable = False
    assert network.logits(x).shape == (4, 3)
    assert network.logits(x[:0]).shape == (0, 3)


def test_weights_go_from_one_network_to_another(network: Network):
    other = Network("mahabal2017", SHAPE, 3)
    x = images(5)
    before = other.logits(x)
    other.set_weights(network.weights())
    np.testing.assert_array_equal(other.logits(x), network.logits(x))
    assert np.abs(before - other.logits(x)).max() > 0


def test_weights_that_do_not_fit_are_named(network: Network):
    own = network.weights()
    with pytest.raises(WeightsError, match="weights missing: conv/bias; not of this network: more"):
        network.set_weights(
            {name: w for name, w in own.items() if name != "conv/bias"} | {"more": np.ones(1)}
        )
    with pytest.raises(WeightsError, match=r"'logits/bias' has shape \(4,\), the network's has \(3,\)"):
        network.set_weights(own | {"logits/bias": np.zeros(4)})
    with pytest.raises(WeightsError, match="'logits/bias' has values that are not finite"):
        network.set_weights(own | {"logits/bias": np.array([0, np.nan, 0])})


def test_unknown_architecture_and_parameter():
    with pytest.raises(WeightsError, match="unknown architecture 'resnet'; known are mahabal2017"):
        Network("resnet", SHAPE, 3)
    with pytest.raises(WeightsError, match="unexpected keyword argument 'depth'"):
        Network("mahabal2017", SHAPE, 3, {"depth": 4})


def test_images_of_another_grid_are_refused(network: Network):
    with pytest.raises(ValueError, match=r"shape \(2, 6, 5\), the network takes \(n, 5, 6\)"):
        network.logits(np.zeros((2, 6, 5)))


def test_the_learning_rate_rises_and_falls():
    rates = [one_cycle(step, 100, 1.0) for step in range(100)]
    assert np.argmax(rates) == 25
    assert rates[0] == pytest.approx(0.1)
    assert rates[25] == pytest.approx(1.0)
    assert rates[-1] < 0.002


def test_training_learns_and_is_seeded():
    x = images(300, seed=5)
    y = (x[:, 0, 0] > 20).astype(np.int64)
    x[:, 0, :3] += 60 * y[:, None]
    answers = []
    for _ in range(2):
        from lightmill.models.networks import keras

        keras().utils.set_random_seed(4)
        network = Network("mahabal2017", SHAPE, 2, {"scale": 0.05})
        losses: list[float] = []
        fit_network(
            network, lambda epoch: x, y, np.ones(300), epochs=6, batch_size=50, learning_rate=3e-3, seed=1,
            progress=lambda epoch, loss, seen=losses: seen.append(loss),
        )  # fmt: skip
        answers.append(network.logits(x))
        assert len(losses) == 6
        assert losses[-1] < 0.5 * losses[0]
    assert (answers[0].argmax(axis=1) == y).mean() > 0.95
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-4)
