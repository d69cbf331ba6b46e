"""Folds: groups stay whole, classes are spread evenly, and the seed decides."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightmill.pipeline.folds import grouped_folds


@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(10, 60))
def test_groups_stay_whole_and_every_fold_is_used(seed: int, folds: int, stars: int):
    rng = np.random.default_rng(seed)
    group = rng.integers(0, stars, 3 * stars)
    group[:folds] = stars + np.arange(folds)  # as many groups as folds, at least
    y = rng.integers(0, 3, 3 * stars)
    fold = grouped_folds(y, group, folds, seed)
    assert set(fold) == set(range(folds))
    for g in np.unique(group):
        assert len(set(fold[group == g])) == 1


def test_classes_are_spread_evenly():
    y = np.repeat([0, 1, 2], [103, 41, 7])
    fold = grouped_folds(y, np.arange(len(y)), 5, 3)
    for i in range(3):
        counts = np.bincount(fold[y == i], minlength=5)
        assert counts.max() - counts.min() <= 1


def test_the_seed_decides():
    y, group = np.zeros(50, int), np.arange(50)
    assert grouped_folds(y, group, 5, 1).tolist() == grouped_folds(y, group, 5, 1).tolist()
    assert grouped_folds(y, group, 5, 1).tolist() != grouped_folds(y, group, 5, 2).tolist()


def test_too_few_groups_are_named():
    with pytest.raises(ValueError, match="3 groups cannot be split into 5 folds"):
        grouped_folds(np.zeros(9, int), np.repeat([1, 2, 3], 3), 5)
