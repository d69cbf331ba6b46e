"""Fitting: the losses are what they are said to be, several outputs are learnt at once, and a seed decides all."""

from __future__ import annotations

import numpy as np
import pytest

from lightmill.models.calibration import softmax
from lightmill.models.fitting import fit_network, one_cycle
from lightmill.models.networks import BATCH, FEATURES, Network, keras

SHAPE = (5, 6)
PLAIN = {"dropout": (0.0, 0.0), "scale": 0.05}
CURVE = {"folded": (16, 6), "scalars": (4,)}


def fresh(architecture: str, shapes: dict, outputs: dict, parameters: dict) -> Network:
    keras().utils.set_random_seed(4)
    return Network(architecture, shapes, outputs, parameters)


def images(n: int, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 40, (n, *SHAPE)).astype(np.float32)


def waves(n: int, seed: int = 1) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Curves of three shapes at random phases; the class is the shape, the number is in the scalars and the depth."""
    rng = np.random.default_rng(seed)
    y, z = rng.integers(0, 3, n), rng.uniform(-1, 1, n)
    phase = 2 * np.pi * (np.arange(16) / 16 + rng.random((n, 1)))
    shape = np.stack([np.sin(phase), np.sign(np.sin(phase)), np.exp(-8 * (np.cos(phase) - 1) ** 2)])
    folded = 0.1 * rng.normal(size=(n, 16, 6))
    folded[:, :, 0] += shape[y, np.arange(n)]
    scalars = 0.1 * rng.normal(size=(n, 4))
    scalars[:, 1] += z
    return {"folded": folded.astype(np.float32), "scalars": scalars.astype(np.float32)}, y, z


def test_the_learning_rate_rises_and_falls():
    rates = [one_cycle(step, 100, 1.0) for step in range(100)]
    assert np.argmax(rates) == 25
    assert rates[0] == pytest.approx(0.1)
    assert rates[25] == pytest.approx(1.0)
    assert rates[-1] < 0.002
    assert (np.diff(rates[:26]) > 0).all()
    assert (np.diff(rates[25:]) < 0).all()
    assert one_cycle(0, 1, 1.0) == pytest.approx(0.1)  # a single step is one of the rise


def test_training_learns_and_is_seeded():
    x = images(300)
    y = (x[:, 0, 0] > 20).astype(np.int64)
    x[:, 0, :3] += 60 * y[:, None]
    answers = []
    for seed in (1, 1, 2):
        network = fresh("mahabal2017", {"image": SHAPE}, {"class": 2}, {"scale": 0.05})
        losses: list[float] = []
        fit_network(
            network, lambda epoch: {"image": x}, {"class": y}, np.ones(300), epochs=6, batch_size=50,
            learning_rate=3e-3, seed=seed, progress=lambda epoch, loss, seen=losses: seen.append(loss),
        )  # fmt: skip
        answers.append(network.logits({"image": x}))
        assert len(losses) == 6
        assert losses[-1] < 0.5 * losses[0]
        assert (answers[-1].argmax(axis=1) == y).mean() > 0.95
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-4)
    assert np.abs(answers[0] - answers[2]).max() > 0.01


def test_a_class_and_a_number_are_learnt_at_once():
    """Two inputs, two outputs; the number is known for every other row alone."""
    x, y, z = waves(600)
    known = np.where(np.arange(600) % 2 == 0, z, np.nan)
    network = fresh("folded", CURVE, {"class": 3, "redshift": 1}, {"dense": 32, "dropout": 0.1})
    losses: list[float] = []
    fit_network(
        network, lambda epoch: x, {"class": y, "redshift": known}, np.ones(600), epochs=15, batch_size=20,
        learning_rate=4e-3, seed=1, progress=lambda epoch, loss: losses.append(loss),
    )  # fmt: skip
    # 450 steps: the moving means of the normalisations forget their start with 0.99 a step
    assert np.isfinite(losses).all()
    fresh_x, true_y, true_z = waves(300, seed=9)
    found = network.apply(fresh_x)
    assert (found["class"].argmax(axis=1) == true_y).mean() > 0.95
    # the noise of the scalars is 0.1, the spread of the number 0.58
    assert np.sqrt(np.mean((found["redshift"][:, 0] - true_z) ** 2)) < 0.25
    assert found[FEATURES].shape == (300, 32)


def first_loss(
    targets: dict, weight: np.ndarray, x: np.ndarray, smoothing: float = 0.0
) -> tuple[float, dict]:
    """What is told of an epoch that changes nothing, and the answers."""
    outputs = {"class": 3, "redshift": 1}
    network = fresh("mahabal2017", {"image": SHAPE}, {name: outputs[name] for name in targets}, PLAIN)
    told: list[float] = []
    fit_network(
        network, lambda epoch: {"image": x}, targets, weight, epochs=1, batch_size=len(x), learning_rate=0.0, seed=0,
        smoothing=smoothing, progress=lambda epoch, loss: told.append(loss),
    )  # fmt: skip
    return told[0], network.apply({"image": x})


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_what_it_is_said_to_be(smoothing: float):
    rng, x = np.random.default_rng(2), images(40)
    y, z, weight = rng.integers(0, 3, 40), rng.normal(size=40), rng.uniform(0.1, 3, 40)
    z[::3] = np.nan
    told, found = first_loss({"class": y, "redshift": z}, weight, x, smoothing)
    wanted = np.eye(3)[y] * (1 - smoothing) + smoothing / 3
    entropy = -(wanted * np.log(softmax(found["class"]))).sum(axis=1)
    known = np.isfinite(z)
    squares = (found["redshift"][known, 0] - z[known]) ** 2
    assert told == pytest.approx(
        np.average(entropy, weights=weight) + np.average(squares, weights=weight[known]), rel=1e-5
    )


def test_numbers_that_are_not_known_do_not_count():
    x, y = images(30), np.arange(30) % 3
    alone, _ = first_loss({"class": y}, np.ones(30), x)
    network = fresh("mahabal2017", {"image": SHAPE}, {"class": 3, "redshift": 1}, PLAIN)
    before = network.weights()
    fit_network(
        network, lambda epoch: {"image": x}, {"class": y, "redshift": np.full(30, np.nan)}, np.ones(30), epochs=2,
        batch_size=10, learning_rate=1e-3, seed=0,
    )  # fmt: skip
    after = network.weights()
    assert all(np.isfinite(values).all() for values in after.values())
    assert np.abs(after["class/kernel"] - before["class/kernel"]).max() > 1e-4
    # a bias starts at 0, so that only a gradient could move it
    np.testing.assert_array_equal(after["redshift/bias"], 0)
    assert np.isfinite(alone)


def test_rows_without_weight_do_not_count():
    """What is there in their place makes no difference; without dropout and normalisation rows are their own."""
    x, y = images(60), np.arange(60) % 3
    weight = (np.arange(60) % 2).astype(float)
    answers = []
    for seed in (1, 2):
        rng = np.random.default_rng(seed)
        one, truth = x.copy(), y.copy()
        one[weight == 0], truth[weight == 0] = rng.uniform(0, 40, (30, *SHAPE)), rng.integers(0, 3, 30)
        network = fresh("mahabal2017", {"image": SHAPE}, {"class": 3}, PLAIN)
        fit_network(
            network, lambda epoch, given=one: {"image": given}, {"class": truth}, weight, epochs=3, batch_size=20,
            learning_rate=1e-3, seed=0,
        )  # fmt: skip
        answers.append(network.logits({"image": x}))
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-4)


def test_inputs_are_asked_for_once_an_epoch_and_more_of_them_may_come():
    asked: list[int] = []
    x, y = images(30), np.arange(30) % 3

    def inputs(epoch: int) -> dict[str, np.ndarray]:
        asked.append(epoch)
        x.flags.writeable = False
        return {"image": x, "scalars": np.zeros((3, 3))}

    network = fresh("mahabal2017", {"image": SHAPE}, {"class": 3}, PLAIN)
    fit_network(
        network, inputs, {"class": y}, np.ones(30), epochs=3, batch_size=100, learning_rate=1e-3, seed=0
    )
    assert asked == [0, 1, 2]


def test_what_goes_through_is_shown():
    x, y = {"image": images(BATCH + 9)}, np.arange(BATCH + 9) % 3
    seen: list[tuple[int, float, dict]] = []
    told: list[float] = []
    network = fresh("mahabal2017", {"image": SHAPE}, {"class": 3}, PLAIN)
    fit_network(
        network, lambda epoch: x, {"class": y}, np.ones(len(y)), epochs=2, batch_size=200, learning_rate=1e-3, seed=0,
        progress=lambda epoch, loss: told.append(loss), watch=lambda *one: seen.append(one),
    )  # fmt: skip
    assert [(epoch, loss) for epoch, loss, _ in seen] == list(enumerate(told))
    inside = seen[-1][2]
    np.testing.assert_array_equal(inside["input/image"], x["image"][:BATCH])
    np.testing.assert_allclose(inside["output/class"], network.logits(x)[:BATCH], atol=1e-5)


def test_other_targets_are_refused():
    network = fresh("mahabal2017", {"image": SHAPE}, {"class": 3, "redshift": 1}, PLAIN)
    with pytest.raises(ValueError, match="given for class, the network's outputs are class, redshift"):
        fit_network(
            network, lambda epoch: {}, {"class": np.zeros(3, int)}, np.ones(3), epochs=1, batch_size=3,
            learning_rate=1e-3, seed=0,
        )  # fmt: skip
