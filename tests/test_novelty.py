"""Novelty: a share of known light curves, whatever the features are, and near 1 for what is far from all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightmill.models.novelty import KNOTS, RIDGE, Novelty, fit_novelty

CENTRES = np.array([[0, 0, 0, 0], [9, 0, 0, 0], [0, 7, 0, 0]], float)
SHAPE = np.array([[2, 0, 0, 0], [1, 1, 0, 0], [0, 0.5, 0.3, 0], [0, 0, 0, 0.01]])


def known(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of three classes with one covariance."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    return CENTRES[y] + rng.normal(size=(n, 4)) @ SHAPE, y


@pytest.fixture(scope="module")
def fitted() -> Novelty:
    return fit_novelty(*known(3000, 1))


def test_the_score_of_known_light_curves_is_uniform(fitted: Novelty):
    score = fitted.score(known(3000, 2)[0])
    assert score.dtype == np.float32
    assert ((score >= 0) & (score <= 1)).all()
    # a Kolmogorov-Smirnov distance: two samples of 3000 differ by 0.035 once in twenty times
    distance = np.abs(np.sort(score) - (np.arange(3000) + 0.5) / 3000).max()
    assert distance < 0.04


def test_held_out_distances_make_the_score_honest():
    """Few examples of many features: their own distances are too small, those of others are not."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(120, 40)), np.arange(120) % 3
    held, later = rng.normal(size=(2, 2000, 40))
    own = fit_novelty(x, y)
    honest = fit_novelty(x, y, own.distance(held))
    assert own.score(later).mean() > 0.75
    assert honest.score(later).mean() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("away", [30.0, 1e3, 1e6])
def test_far_away_is_novel(fitted: Novelty, away: float):
    rng = np.random.default_rng(4)
    directions = rng.normal(size=(100, 4))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    assert (fitted.score(away * directions) >= 0.999).all()
    assert (fitted.score(CENTRES + 1e-3) < 0.02).all()


def test_it_is_the_nearest_class_that_counts(fitted: Novelty):
    """Between two classes is nearer to none than the middle of one."""
    between = CENTRES[[0, 1]].mean(axis=0, keepdims=True)
    assert fitted.score(between)[0] > 0.8
    assert fitted.distance(CENTRES).max() < fitted.distance(between)[0]


def test_the_distance_is_mahalanobis():
    x, y = known(500, 5)
    model = fit_novelty(x, y)
    means = np.stack([x[y == k].mean(axis=0) for k in range(3)])
    rest = x - means[y]
    covariance = rest.T @ rest / (500 - 3)
    covariance += RIDGE * np.trace(covariance) / 4 * np.eye(4)
    inverse = np.linalg.inv(covariance)
    new, _ = known(50, 6)
    wanted = [min(np.sqrt((row - m) @ inverse @ (row - m)) for m in means) for row in new]
    np.testing.assert_allclose(model.distance(new), wanted, rtol=1e-3)


@given(st.integers(0, 2**32 - 1))
def test_more_distance_is_never_less_novel(seed: int):
    x, y = known(90, seed % 1000)
    model = fit_novelty(x, y)
    new = np.random.default_rng(seed).normal(scale=5, size=(40, 4))
    order = np.argsort(model.distance(new))
    assert (np.diff(model.score(new)[order]) >= 0).all()


def test_rows_are_their_own(fitted: Novelty):
    x, _ = known(40, 7)
    x.flags.writeable = False
    np.testing.assert_allclose(
        np.concatenate([fitted.score(x[i : i + 7]) for i in range(0, 40, 7)]), fitted.score(x), atol=1e-5
    )
    assert fitted.score(x[:0]).shape == (0,)


def test_features_that_never_fire_and_classes_that_are_missing():
    x, y = known(200, 8)
    x[:, 2] = 0.5
    model = fit_novelty(x, np.where(y == 1, 6, y))  # numbers of classes may have gaps
    assert model.means.shape == (3, 4)
    assert np.isfinite(model.score(x)).all()
    assert model.score(x + np.array([0, 0, 3, 0])).min() > 0.9  # it fires for once
    same = fit_novelty(np.ones((5, 2)), np.zeros(5, int))
    assert np.isfinite(same.score(np.array([[1, 1], [2, 2]]))).all()
    assert same.score(np.array([[2.0, 2.0]]))[0] == 1


def test_there_and_back(fitted: Novelty):
    x, _ = known(30, 9)
    tensors = fitted.tensors()
    assert {name: value.dtype for name, value in tensors.items()} == dict.fromkeys(
        tensors, np.dtype(np.float32)
    )
    np.testing.assert_array_equal(Novelty.of(tensors).score(x), fitted.score(x))


@pytest.mark.parametrize("name", ["means", "whiten", "distances"])
def test_arrays_that_do_not_fit_are_refused(fitted: Novelty, name: str):
    own = fitted.tensors()
    with pytest.raises(ValueError, match=f"arrays missing: {name}"):
        Novelty.of({key: value for key, value in own.items() if key != name})
    for wrong in (own[name][..., :-1], own[name][None], np.float32(3)):
        with pytest.raises(
            ValueError, match=r"means .* whiten .* distances .*: expected \(k, d\), \(d, d\), "
        ):
            Novelty.of(own | {name: wrong})


def test_the_knots_are_shares():
    assert KNOTS[0] == 0
    assert KNOTS[-1] == 1
    assert (np.diff(KNOTS) > 0).all()
    assert 1 - KNOTS[-2] < 2e-4  # the far end is told to one in ten thousand
