"""Metrics against cases worked by hand and against slow definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightmill.models.metrics import (
    area_under_curve,
    confusion,
    expected_calibration_error,
    per_class,
    summary,
)

# truth A A A B B C, answers A A B B A A
TRUTH = np.array([0, 0, 0, 1, 1, 2])
ANSWER = np.array([0, 0, 1, 1, 0, 0])


def test_confusion_by_hand():
    assert confusion(TRUTH, ANSWER, 3).tolist() == [[2, 1, 0], [1, 1, 0], [1, 0, 0]]


def test_per_class_by_hand():
    table = per_class(confusion(TRUTH, ANSWER, 3))
    np.testing.assert_allclose(table["precision"], [2 / 4, 1 / 2, 0])
    np.testing.assert_allclose(table["recall"], [2 / 3, 1 / 2, 0])
    np.testing.assert_allclose(table["f1"], [4 / 7, 1 / 2, 0])
    assert table["support"].tolist() == [3, 2, 1]


def test_summary_by_hand():
    p = np.full((6, 4), 0.1)
    p[np.arange(6), ANSWER] = 0.7
    found = summary(p, TRUTH, ["A", "B", "C", "D"])
    assert list(found) == ["n", "accuracy", "macro_f1", "ece", "per_class", "confusion"]
    assert found["n"] == 6
    assert found["accuracy"] == pytest.approx(0.5)
    assert found["macro_f1"] == pytest.approx((4 / 7 + 1 / 2 + 0) / 3)  # D does not occur
    assert found["ece"] == pytest.approx(0.2)  # always sure to 0.7, right in one half
    assert found["per_class"]["A"] == {
        "precision": 0.5,
        "recall": 2 / 3,
        "f1": pytest.approx(4 / 7),
        "support": 3,
    }
    assert found["confusion"] == {
        "labels": ["A", "B", "C", "D"],
        "matrix": [[2, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]],
    }


def test_calibration_error_by_hand():
    # two bins are used: 0.65 (2 rows, 1 right) and 0.95 (2 rows, both right)
    p = np.array([[0.65, 0.35], [0.35, 0.65], [0.95, 0.05], [0.05, 0.95]])
    assert expected_calibration_error(p, np.array([0, 0, 0, 1])) == pytest.approx(0.5 * 0.15 + 0.5 * 0.05)


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0.25, 1.0)), min_size=1, max_size=60))
def test_calibration_error_is_the_definition(rows):
    truth = np.array([row[0] for row in rows])
    top = np.array([row[1] for row in rows])
    p = np.column_stack([top, *[(1 - top) / 3] * 3])
    slow = 0.0
    for k in range(15):
        inside = (top > k / 15) & (top <= (k + 1) / 15)
        if inside.any():
            hit = (p.argmax(axis=1) == truth)[inside].mean()
            slow += inside.mean() * abs(hit - top[inside].mean())
    assert expected_calibration_error(p, truth) == pytest.approx(slow, abs=1e-9)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=80))
def test_totals_of_the_confusion_matrix(rows):
    truth, answer = np.array(rows).T
    matrix = confusion(truth, answer, 5)
    assert matrix.sum() == len(rows)
    assert matrix.sum(axis=1).tolist() == np.bincount(truth, minlength=5).tolist()
    assert matrix.sum(axis=0).tolist() == np.bincount(answer, minlength=5).tolist()


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40))
def test_area_is_the_share_of_pairs(rows):
    score, positive = np.array([r[0] for r in rows], float), np.array([r[1] for r in rows])
    if positive.all() or not positive.any():
        return
    pairs = score[positive][:, None] - score[~positive][None, :]
    assert area_under_curve(score, positive) == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())


def test_nothing_to_judge():
    found = summary(np.empty((0, 2)), np.empty(0, int), ["A", "B"])
    assert (found["n"], found["accuracy"], found["macro_f1"], found["ece"]) == (0, 0.0, 0.0, 0.0)


def test_bad_shapes_are_named():
    with pytest.raises(ValueError, match=r"shape \(3, 2\), expected \(4, 2\)"):
        summary(np.ones((3, 2)), np.zeros(4, int), ["A", "B"])
    with pytest.raises(ValueError, match=r"truth has shape \(2,\), predicted \(3,\)"):
        confusion(np.zeros(2, int), np.zeros(3, int), 2)
    with pytest.raises(ValueError, match="predicted has classes 0…5, allowed are 0…2"):
        confusion(np.zeros(2, int), np.array([0, 5]), 3)
