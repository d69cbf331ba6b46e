"""Calibration: known parameters are found again, and order is never changed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lightmill.models.calibration import fit_platt, fit_temperature, platt, scale_by_temperature, softmax

LOGITS = arrays(np.float64, (5, 4), elements=st.floats(-50, 50))


@given(LOGITS)
def test_softmax_is_the_definition(logits: np.ndarray):
    powers = np.exp(logits)
    np.testing.assert_allclose(softmax(logits), powers / powers.sum(axis=1, keepdims=True), atol=1e-15)


def test_softmax_of_large_numbers():
    np.testing.assert_array_equal(softmax(np.array([[1e4, 0.0], [-1e4, 0.0]])), [[1, 0], [0, 1]])


@given(LOGITS, st.floats(0.1, 10))
def test_temperature_keeps_the_order(logits: np.ndarray, temperature: float):
    p = scale_by_temperature(logits, temperature)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-12)
    top = logits[np.arange(5), p.argmax(axis=1)]
    np.testing.assert_allclose(top, logits.max(axis=1), atol=1e-9)


def test_the_temperature_is_found_again():
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (20_000, 5))
    y = (scale_by_temperature(logits, 1.7).cumsum(axis=1) > rng.random((20_000, 1))).argmax(axis=1)
    # the error of a fit to 20,000 draws is about 0.02
    assert fit_temperature(logits, y) == pytest.approx(1.7, abs=0.08)


def test_the_sigmoid_is_found_again():
    rng = np.random.default_rng(2)
    margin = rng.normal(0, 2, 40_000)
    y = rng.random(40_000) < platt(margin, 0.6, -1.2)
    slope, intercept = fit_platt(margin, y)
    assert slope == pytest.approx(0.6, abs=0.04)
    assert intercept == pytest.approx(-1.2, abs=0.06)


def test_weights_shift_the_prior():
    rng = np.random.default_rng(3)
    margin = np.concatenate([rng.normal(1, 1, 20_000), rng.normal(-1, 1, 20_000)])
    y = np.repeat([True, False], 20_000)
    slope, intercept = fit_platt(margin, y, np.where(y, 0.05, 0.95))
    # two unit normals at ±1: log-odds are 2 · margin + log(prior odds)
    assert slope == pytest.approx(2.0, abs=0.1)
    assert intercept == pytest.approx(np.log(0.05 / 0.95), abs=0.1)


def test_platt_stays_within_bounds():
    p = platt(np.array([-1e6, -1.0, 0.0, 1.0, 1e6]), 1.0, 0.0)
    assert p[0] == 0
    assert p[-1] == 1
    assert (np.diff(p) > 0).all()
    assert p[2] == 0.5
