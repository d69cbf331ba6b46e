"""The combiner: pools and temperatures against slow, obvious versions, and what was put in is found again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightmill.models.calibration import softmax
from lightmill.models.combine import at_temperatures, fit_pool, fit_temperatures, pool, to_mix
from lightmill.models.taxonomy import LEAVES, nodes

FIVE = ("EW", "EA", "RRab", "SN_Ia", "SN_CC")
classes = st.lists(st.sampled_from(LEAVES), min_size=2, max_size=8, unique=True)
seeds = st.integers(0, 2**32 - 1)


def drawn(p: np.ndarray, seed: int) -> np.ndarray:
    """A class for each row, as often as the row says."""
    u = np.random.default_rng(seed).random((len(p), 1))
    return (u > p.cumsum(axis=1)[:, :-1]).sum(axis=1)


def heated(p: np.ndarray, names: tuple[str, ...] | list[str], temperatures: dict[str, float]) -> np.ndarray:
    """`at_temperatures` one row at a time, down the tree from the top."""
    tree = nodes(names)
    out = np.ones(p.shape)
    for i, row in enumerate(p):
        for node, children in tree.items():
            shares = np.array([row[of].sum() for of in children.values()])
            powers = shares ** (1 / temperatures.get(node, 1.0))
            for share, of in zip(powers / powers.sum(), children.values(), strict=True):
                out[i, of] *= share
    return out


def negative_log_likelihood(p: np.ndarray, y: np.ndarray) -> float:
    return float(-np.log(p[np.arange(len(y)), y]).mean())


@given(st.integers(1, 4), st.integers(0, 20), st.integers(2, 9), seeds)
def test_pooled_rows_sum_to_one(experts: int, n: int, k: int, seed: int):
    rng = np.random.default_rng(seed)
    logits = [rng.normal(scale=20, size=(n, k)).astype(np.float32) for _ in range(experts)]
    p = pool(logits, rng.uniform(0, 5, experts))
    assert p.shape == (n, k)
    assert ((p >= 0) & (p <= 1)).all()
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-12)


@given(st.integers(2, 9), seeds)
def test_one_expert_with_weight_one_is_softmax(k: int, seed: int):
    logits = np.random.default_rng(seed).normal(scale=3, size=(10, k))
    np.testing.assert_allclose(pool([logits], [1.0]), softmax(logits), atol=1e-12)
    # a constant added to a row's logits says nothing
    np.testing.assert_allclose(pool([logits + 7], [1.0]), softmax(logits), atol=1e-12)


@given(seeds)
def test_pooling_is_the_weighted_product(seed: int):
    rng = np.random.default_rng(seed)
    p, weights = rng.dirichlet(np.ones(4), (3, 6)), rng.uniform(0, 2, 3)
    product = np.prod(p ** weights[:, None, None], axis=0)
    wanted = product / product.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(pool(list(np.log(p)), weights), wanted, atol=1e-9)
    order = [2, 0, 1]
    np.testing.assert_allclose(pool([np.log(p[e]) for e in order], weights[order]), wanted, atol=1e-9)


def test_an_expert_without_weight_is_not_heard():
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 5, 3))
    np.testing.assert_allclose(pool([one, 100 * other], [1.0, 0.0]), softmax(one), atol=1e-9)
    np.testing.assert_allclose(pool([one], [0.0]), 1 / 3)


def test_a_weight_is_the_inverse_of_a_temperature():
    logits = np.random.default_rng(0).normal(size=(5, 3))
    np.testing.assert_allclose(pool([logits], [0.5]), softmax(logits / 2), atol=1e-12)


def test_each_expert_has_a_weight():
    with pytest.raises(ValueError, match="1 experts, 2 weights: must be equal"):
        pool([np.zeros((1, 2))], [1.0, 1.0])


def test_the_pools_weights_are_found_again():
    """Classes drawn from a pool of two experts that see different things."""
    rng = np.random.default_rng(1)
    logits = list(rng.normal(scale=1.5, size=(2, 20_000, 4)))
    y = drawn(pool(logits, [0.7, 1.6]), 2)
    # one standard error is about 0.015
    np.testing.assert_allclose(fit_pool(logits, y), [0.7, 1.6], atol=0.06)


def test_an_expert_that_guesses_gets_no_weight():
    rng = np.random.default_rng(3)
    good, random, wrong = rng.normal(scale=2, size=(3, 5000, 3))
    y = drawn(softmax(good), 4)
    wrong = -good + 0.1 * wrong
    weights = fit_pool([good, random], y)
    assert weights[0] == pytest.approx(1, abs=0.1)
    assert abs(weights[1]) < 0.05
    # one that is always wrong would get a weight below zero, which is not allowed
    assert fit_pool([wrong], y) == (0.0,)


@given(seeds)
def test_no_weights_nearby_are_better(seed: int):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, 200)
    logits = [rng.normal(size=(200, 3)) + rng.uniform(0, 2) * np.eye(3)[y] for _ in range(2)]
    weights = np.array(fit_pool(logits, y))
    assert (weights >= 0).all()
    best = negative_log_likelihood(pool(logits, weights), y)
    for step in ([0.05, 0], [-0.05, 0], [0, 0.05], [0, -0.05]):
        near = np.maximum(weights + step, 0)
        assert negative_log_likelihood(pool(logits, near), y) >= best - 1e-6


@given(classes, st.integers(0, 20), seeds)
def test_temperature_one_keeps_the_answers(names: list[str], n: int, seed: int):
    p = np.random.default_rng(seed).dirichlet(np.full(len(names), 0.2), n)
    for temperatures in ({}, dict.fromkeys(nodes(names), 1.0)):
        # probabilities below 1e-12 are lifted to it
        np.testing.assert_allclose(at_temperatures(p, names, temperatures), p, atol=1e-10)


@given(classes, seeds, st.floats(0.2, 5))
def test_heated_rows_are_what_the_tree_says(names: list[str], seed: int, t: float):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(len(names), 2.0), 8)
    temperatures = {node: t * rng.uniform(0.8, 1.2) for node in nodes(names)}
    found = at_temperatures(p, names, temperatures)
    np.testing.assert_allclose(found, heated(p, names, temperatures), atol=1e-9)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-12)
    # within a node the order stays
    for children in nodes(names).values():
        shares = [np.stack([q[:, of].sum(axis=1) for of in children.values()], axis=1) for q in (p, found)]
        np.testing.assert_array_equal(shares[0].argmax(axis=1), shares[1].argmax(axis=1))


def test_a_node_is_heated_alone():
    p = np.random.default_rng(0).dirichlet(np.ones(5), 30)
    found = at_temperatures(p, FIVE, {"transient": 2.0})
    np.testing.assert_allclose(found[:, :3], p[:, :3], atol=1e-12)
    np.testing.assert_allclose(found[:, 3:].sum(axis=1), p[:, 3:].sum(axis=1), atol=1e-12)
    ratio = np.log(found[:, 3] / found[:, 4])
    np.testing.assert_allclose(ratio, np.log(p[:, 3] / p[:, 4]) / 2, atol=1e-9)


def test_float32_in_and_certain_answers():
    p = np.array([[1, 0, 0, 0, 0], [0, 0, 0, 0.5, 0.5]], np.float32)
    found = at_temperatures(p, FIVE, {"variable": 1.5, "periodic": 0.7, "transient": 3.0})
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, p, atol=1e-6)


def test_the_temperatures_are_found_again():
    """Classes drawn from heated probabilities; of each node there are some thousand, so that 5 % is 3 errors."""
    p = np.random.default_rng(5).dirichlet(np.ones(5), 40_000)
    wanted = {"variable": 0.6, "periodic": 1.8, "transient": 1.2}
    y = drawn(at_temperatures(p, FIVE, wanted), 6)
    found = fit_temperatures(p, y, FIVE)
    assert found.keys() == wanted.keys()
    for node, t in wanted.items():
        assert found[node] == pytest.approx(t, rel=0.08)
    assert fit_temperatures(at_temperatures(p, FIVE, wanted), y, FIVE) == pytest.approx(
        dict.fromkeys(wanted, 1.0), rel=0.08
    )


def test_temperatures_have_ends():
    rng = np.random.default_rng(0)
    p, y = rng.dirichlet(np.ones(2), 500), rng.integers(0, 2, 500)
    assert fit_temperatures(p, y, ["EW", "EA"])["periodic"] == pytest.approx(5, rel=1e-3)  # it knows nothing
    assert fit_temperatures(p, p.argmax(axis=1), ["EW", "EA"])["periodic"] == pytest.approx(0.2, rel=1e-3)


def test_a_node_without_examples_keeps_its_answers():
    p = np.random.default_rng(0).dirichlet(np.ones(5), 300)
    y = np.random.default_rng(1).integers(0, 4, 300)  # no SN_CC
    assert fit_temperatures(p, y, FIVE)["transient"] == 1.0
    assert fit_temperatures(p, y % 3, FIVE)["variable"] == 1.0


@given(st.integers(2, 8), seeds)
def test_another_mix(k: int, seed: int):
    rng = np.random.default_rng(seed)
    p, old, new = rng.dirichlet(np.ones(k), 10), rng.uniform(0.05, 1, k), rng.uniform(0.05, 1, k)
    found = to_mix(p, old, new)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-12)
    # Bayes: odds change by the ratio of the shares, whatever these sum to
    np.testing.assert_allclose(
        found[:, 0] * p[:, 1] * old[0] * new[1], found[:, 1] * p[:, 0] * old[1] * new[0], atol=1e-9
    )
    np.testing.assert_allclose(to_mix(p, old, 7 * new), found, atol=1e-12)
    np.testing.assert_allclose(to_mix(p, old, old), p, atol=1e-12)
    np.testing.assert_allclose(to_mix(found, new, old), p, atol=1e-12)


def test_a_mix_is_what_bayes_says():
    """One measurement of two Gaussians: the answer of one mixture, moved, is that of the other."""
    x = np.linspace(-3, 3, 9)
    likelihood = np.stack([np.exp(-0.5 * (x - m) ** 2) for m in (-1, 1)], axis=1)

    def answers(shares: np.ndarray) -> np.ndarray:
        joint = likelihood * shares
        return joint / joint.sum(axis=1, keepdims=True)

    old, new = np.array([0.5, 0.5]), np.array([0.9, 0.1])
    np.testing.assert_allclose(to_mix(answers(old), old, new), answers(new), atol=1e-12)
