"""The cascade: leaf probabilities are probabilities, and the gate and the experts have each their say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightmill.models.cascade import leaf_probabilities


@given(st.integers(0, 30), st.integers(2, 12), st.integers(0, 2**32 - 1), st.booleans())
def test_rows_are_probabilities(n: int, n_classes: int, seed: int, gate: bool):
    rng = np.random.default_rng(seed)
    passed = rng.random(n) < 0.5
    p_class = rng.dirichlet(np.full(n_classes, 0.2), passed.sum()).astype(np.float32)
    p_variable = rng.random(n).astype(np.float32) if gate else None
    priors = rng.dirichlet(np.ones(n_classes))
    p = leaf_probabilities(p_variable, p_class, passed, priors)
    assert p.dtype == np.float32
    assert p.shape == (n, n_classes + gate)
    assert ((p >= 0) & (p <= 1)).all()
    np.testing.assert_allclose(p.sum(axis=1, dtype=np.float64), 1, atol=1e-6)
    if p_variable is not None:
        np.testing.assert_allclose(p[:, 0], 1 - p_variable, atol=1e-6)
        np.testing.assert_allclose(p[~passed, 1:], p_variable[~passed, None] * priors, atol=1e-6)


def test_without_a_gate_the_experts_alone_speak():
    p_class = np.array([[0.2, 0.8], [0.6, 0.4]], np.float32)
    np.testing.assert_array_equal(
        leaf_probabilities(None, p_class, np.array([True, True]), np.array([0.5, 0.5])), p_class
    )


def test_rows_that_sum_to_one_in_float32_only_are_made_whole():
    p_class = np.random.default_rng(0).dirichlet(np.full(7, 0.3), 500).astype(np.float32)
    p = leaf_probabilities(None, p_class * (1 + 3e-7), np.full(500, True), np.full(7, 1 / 7))
    np.testing.assert_allclose(p, p_class, atol=1e-6)
    np.testing.assert_allclose(p.sum(axis=1, dtype=np.float64), 1, atol=2e-7)


def test_the_ends_of_p_variable():
    p = leaf_probabilities(
        np.array([0.0, 1.0]), np.array([[0.3, 0.7]]), np.array([False, True]), np.array([0.5, 0.5])
    )
    np.testing.assert_allclose(p, [[1, 0, 0], [0, 0.3, 0.7]], atol=1e-7)


def test_shapes_that_do_not_fit_are_named():
    passed = np.array([True, False])
    with pytest.raises(ValueError, match=r"p_class has shape \(2, 2\), expected \(1, 2\)"):
        leaf_probabilities(None, np.ones((2, 2)), passed, np.array([0.5, 0.5]))
    with pytest.raises(ValueError, match=r"p_variable has shape \(3,\), passed has \(2,\)"):
        leaf_probabilities(np.ones(3), np.ones((1, 2)), passed, np.array([0.5, 0.5]))
