"""`models/explain.py`: slopes against weights and changes, class maps against NumPy, SHAP values against logits."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightmill.models import architectures, trees
from lightmill.models.experts import NetworkExpert, TreesExpert
from lightmill.models.explain import attributions, class_map, gradients, saliency
from lightmill.models.manifest import NetworkPart, TreesPart

SHAPE, K = (8, 9), 3


def network(
    architecture: str, seed: int, shape: tuple[int, int] = SHAPE, **parameters: object
) -> NetworkExpert:
    """An expert with random weights, biases and batch statistics, so that nothing is 0 or 1 by chance."""
    inputs = {"image": "image:count"}
    shapes: dict[str, tuple[int, ...]] = {"image": shape}
    if architecture == "folded":
        inputs, shapes = {"folded": "folded", "scalars": "scalars"}, {"folded": (64, 6), "scalars": (4,)}
    part = NetworkPart(
        name="tried", architecture=architecture, parameters=parameters, inputs=inputs, shapes=shapes
    )
    expert, rng = NetworkExpert.fresh(part, K), np.random.default_rng(seed)
    weights = expert.network.weights()
    for name, value in weights.items():
        if name.endswith("kernel"):
            weights[name] = rng.normal(0, 1.4 / np.sqrt(value[..., 0].size), value.shape).astype(np.float32)
        elif name.endswith(("gamma", "moving_variance")):
            weights[name] = rng.uniform(0.5, 1.5, value.shape).astype(np.float32)
        else:
            weights[name] = rng.normal(0, 0.2, value.shape).astype(np.float32)
    expert.network.set_weights(weights)
    return expert


def images(n: int, seed: int = 0, shape: tuple[int, int] = SHAPE) -> dict[str, np.ndarray]:
    return {"image:count": np.random.default_rng(seed).integers(0, 60, (n, *shape)).astype(np.float32)}


def curves(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "folded": rng.normal(size=(n, 64, 6)).astype(np.float32),
        "scalars": rng.normal(size=(n, 4)).astype(np.float32),
    }


@pytest.fixture
def linear(monkeypatch):
    """A network without anything but a linear layer: its slopes are its weights."""
    flat = architectures.Architecture(
        ("image",), lambda keras, x: keras.layers.Flatten(name="flat")(x["image"])
    )
    monkeypatch.setitem(architectures.ARCHITECTURES, "linear", flat)
    return network("linear", 1)


def kernel_of(expert: NetworkExpert) -> np.ndarray:
    """(k, n_dm, n_dt)"""
    return expert.network.weights()["class/kernel"].T.reshape(K, *SHAPE)


def test_slopes_of_a_linear_network_are_its_weights(linear):
    given, target, rival = images(5), np.array([0, 1, 2, 1, 0]), np.array([1, 0, 0, 2, 2])
    kernel = kernel_of(linear)
    np.testing.assert_array_equal(gradients(linear, given, target)["image:count"], kernel[target])
    np.testing.assert_array_equal(
        gradients(linear, given, target, rival)["image:count"], kernel[target] - kernel[rival]
    )


def test_saliency_of_a_linear_network_is_input_times_weight_and_noise_averages_out(linear):
    given, target = images(4), np.array([0, 1, 2, 0])
    wanted = given["image:count"] * kernel_of(linear)[target]
    np.testing.assert_allclose(saliency(linear, given, target, samples=0)["image:count"], wanted, rtol=1e-6)
    noisy = saliency(linear, given, target, samples=400, spread=0.1)["image:count"]
    # the mean of 400 factors 1 ± 0.1 is 1 ± 0.005
    np.testing.assert_allclose(noisy, wanted, rtol=0.03, atol=1e-12)
    assert (noisy[given["image:count"] == 0] == 0).all()


def test_the_same_seed_gives_the_same_map():
    expert, given, target = network("dmdt", 3), images(2), np.array([0, 2])
    one, two, other = (saliency(expert, given, target, samples=3, seed=s)["image:count"] for s in (5, 5, 6))
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()


@pytest.mark.parametrize("architecture", ["mahabal2017", "dmdt", "folded"])
def test_slopes_along_a_line_sum_to_the_change(architecture):
    expert, points, length = network(architecture, 2), 256, 0.2
    given = curves(3) if architecture == "folded" else {name: x + 5 for name, x in images(3).items()}
    target, rival, rows = np.array([0, 1, 2]), np.array([1, 2, 0]), np.arange(3)
    rng = np.random.default_rng(7)
    way = {
        name: length * (x if "image" in name else 1) * rng.normal(size=x.shape) for name, x in given.items()
    }
    way = {name: np.maximum(x, -given[name] / 2) if "image" in name else x for name, x in way.items()}
    logits = [expert.answers({name: x + on * way[name] for name, x in given.items()})[0] for on in (0, 1)]
    change = logits[1] - logits[0]
    wanted = change[rows, target] - change[rows, rival]
    on = (np.arange(points) + 0.5)[:, None] / points
    # all points of a line one after the other: (points · 3, …)
    at = {
        name: np.concatenate([x + step * way[name] for step in on.ravel()]).astype(np.float32)
        for name, x in given.items()
    }
    slopes = gradients(expert, at, np.tile(target, points), np.tile(rival, points))
    found = sum(
        (slopes[name].reshape(points, 3, -1).mean(axis=0) * way[name].reshape(3, -1)).sum(axis=1)
        for name in given
    )
    assert np.abs(wanted).max() > 0.05
    # the slope jumps where a ReLU opens or another cell becomes the largest of a pool, within 1/256 of the line
    np.testing.assert_allclose(found, wanted, rtol=0.02, atol=1e-3)


def test_empty_cells_break_nothing():
    expert, given = network("dmdt", 4), images(3)
    given["image:count"][0] = 0
    given["image:count"][1, :, 2:] = 0
    target = np.array([0, 1, 2])
    for values in (gradients(expert, given, target), saliency(expert, given, target)):
        assert np.isfinite(values["image:count"]).all()
    assert np.isfinite(class_map(expert, given, target)).all()


def test_class_map_against_numpy():
    expert = network("mahabal2017", 12, filters=4, dense=6, scale=0.02)
    given, target = images(3), np.array([2, 0, 1])
    w = expert.network.weights()
    x = given["image:count"].astype(np.float64) * 0.02
    seen = np.zeros((3, 6, 7, 4))
    for i in range(6):
        for j in range(7):
            seen[:, i, j] = np.einsum("nab,abf->nf", x[:, i : i + 3, j : j + 3], w["conv/kernel"][:, :, 0])
    seen = np.maximum(seen + w["conv/bias"], 0)
    first = seen.reshape(3, -1) @ w["dense_1/kernel"] + w["dense_1/bias"]
    second = np.maximum(first, 0) @ w["dense_2/kernel"] + w["dense_2/bias"]
    slope = w["class/kernel"].T[target] * (second > 0)
    slope = (slope @ w["dense_2/kernel"].T) * (first > 0)
    slope = (slope @ w["dense_1/kernel"].T).reshape(seen.shape)
    alpha = slope.mean(axis=(1, 2))
    raw = np.maximum(np.einsum("nf,nijf->nij", alpha, seen), 0)
    # a cell of a 3 × 3 convolution sees the input's cell one further in each direction
    wanted = raw[:, np.clip(np.arange(8) - 1, 0, 5)][:, :, np.clip(np.arange(9) - 1, 0, 6)]
    assert wanted.max() > 0
    np.testing.assert_allclose(class_map(expert, given, target), wanted, rtol=1e-4, atol=1e-6)


def test_class_map_goes_round_with_the_phase():
    expert, given, target = network("folded", 6), curves(4), np.array([0, 1, 2, 0])
    turned = given | {"folded": np.roll(given["folded"], 8, axis=1)}
    one, two = class_map(expert, given, target), class_map(expert, turned, target)
    assert one.shape == (4, 64)
    assert one.max() > 0
    np.testing.assert_allclose(np.roll(one, 8, axis=1), two, rtol=1e-3, atol=1e-5)


def test_class_map_lies_where_the_network_looked():
    # one filter that sums 3 × 3 cells, and a head that takes all of it: the map is highest where the counts are
    expert = network("mahabal2017", 0, shape=(12, 12), filters=1, dense=1, scale=1.0)
    weights = {name: np.ones_like(value) for name, value in expert.network.weights().items()}
    weights |= {name: np.zeros_like(value) for name, value in weights.items() if name.endswith("bias")}
    expert.network.set_weights(weights)
    given = {"image:count": np.zeros((1, 12, 12), np.float32)}
    given["image:count"][0, 3, 8] = 9
    assert np.unravel_index(class_map(expert, given, np.array([0]))[0].argmax(), (12, 12)) in [
        (i, j) for i in (2, 3, 4) for j in (7, 8, 9)
    ]


@lru_cache
def some_trees(k: int, seed: int = 0) -> TreesExpert:
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(300, 5)).astype(np.float32)
    table[:, 4] = 1.0  # says nothing
    score = table[:, 0] + table[:, 1] * table[:, 2]
    y = np.digitize(score, np.quantile(score, np.arange(1, k) / k))
    if k == 2:
        return TreesExpert(TreesPart(name="trees"), trees.fit(table, y == 1, rounds=15, depth=3))
    return TreesExpert(TreesPart(name="trees"), trees.fit_classes(table, y, k, rounds=15))


@given(
    st.lists(st.lists(st.floats(-3, 3, width=32), min_size=5, max_size=5), min_size=1, max_size=6),
    st.integers(0, 2),
    st.integers(0, 2),
)
def test_attributions_sum_to_the_logit(rows, target, rival):
    table = np.array(rows, np.float32)
    logits, n = some_trees(3).answers({"features": table})[0], len(table)
    adds = attributions(some_trees(3), {"features": table}, np.full(n, target))
    # float32 sums over 15 trees
    np.testing.assert_allclose(adds.sum(axis=1), logits[:, target], atol=1e-4)
    rather = attributions(some_trees(3), {"features": table}, np.full(n, target), np.full(n, rival))
    np.testing.assert_allclose(rather.sum(axis=1), logits[:, target] - logits[:, rival], atol=1e-4)
    assert (adds[:, 4] == 0).all()


def test_two_classes_share_the_log_odds():
    table = np.random.default_rng(3).normal(size=(7, 5)).astype(np.float32)
    odds = some_trees(2).trees.margin(table)
    one, none = np.ones(7, int), np.zeros(7, int)
    rather = attributions(some_trees(2), {"features": table}, one, none)
    np.testing.assert_allclose(rather.sum(axis=1), odds, atol=1e-4)
    np.testing.assert_allclose(
        attributions(some_trees(2), {"features": table}, none).sum(axis=1), -odds / 2, atol=1e-4
    )


def test_what_cannot_be_asked():
    expert, given = network("dmdt", 1), images(2)
    with pytest.raises(ValueError, match=r"\[0, 3\].* 2 rows.* 0…2"):
        gradients(expert, given, np.array([0, 3]))
    with pytest.raises(ValueError, match=r"\[0\] of 2 rows"):
        class_map(expert, given, np.array([0]))
    with pytest.raises(ValueError, match=r"takes image:count, given are features"):
        saliency(expert, {"features": np.zeros((2, 3))}, np.array([0, 1]))
    with pytest.raises(ValueError, match=r"of 1 rows"):
        attributions(some_trees(3), {"features": np.zeros((1, 5))}, np.array([3]))


def test_no_light_curve_is_no_trouble():
    expert, given, none = network("dmdt", 1), images(0), np.empty(0, int)
    assert gradients(expert, given, none)["image:count"].shape == (0, *SHAPE)
    assert class_map(expert, given, none).shape == (0, *SHAPE)


def test_rows_are_explained_one_by_one():
    # more rows than go into one call
    expert, given = network("dmdt", 9), images(300)
    target = np.arange(300) % K
    whole = gradients(expert, given, target)["image:count"]
    some = gradients(expert, {"image:count": given["image:count"][250:262]}, target[250:262])["image:count"]
    np.testing.assert_allclose(whole[250:262], some, rtol=1e-4, atol=1e-6)
