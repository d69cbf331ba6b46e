"""Trees: learnt, kept as JSON, explained; and a file with other trees is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lightmill.models import trees
from lightmill.models.calibration import softmax
from lightmill.models.trees import Trees, TreesError

COLUMNS = 4


def problem(n: int, k: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A table whose first column tells k classes, here and there not known."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % k
    x = rng.normal(size=(n, COLUMNS))
    x[:, 0] = y + rng.uniform(-0.4, 0.4, n)
    x[rng.random(x.shape) < 0.02] = np.nan
    return x, y


@pytest.fixture(scope="module", params=[2, 3, 5])
def fitted(request: pytest.FixtureRequest) -> tuple[int, Trees]:
    k = request.param
    return k, trees.fit_classes(
        *problem(300, k), k, rounds=20, leaves=5, columns_per_tree=1.0, learning_rate=0.3
    )


def test_classes_are_learnt(fitted: tuple[int, Trees]):
    k, model = fitted
    x, y = problem(300, k, seed=7)
    margin = model.margin(x)
    assert margin.dtype == np.float32
    assert margin.shape == ((300, k) if k > 2 else (300,))  # two classes: log-odds of the second
    best = margin.argmax(axis=1) if k > 2 else (margin > 0).astype(int)
    assert (best == y)[np.isfinite(x[:, 0])].mean() > 0.97
    assert model.margin(x[:0]).shape == margin[:0].shape


def test_a_row_is_its_own(fitted: tuple[int, Trees]):
    _, model = fitted
    x, _ = problem(60, 3, seed=2)
    x.flags.writeable = False
    whole = model.margin(x)
    np.testing.assert_array_equal(
        np.concatenate([model.margin(x[i : i + 7]) for i in range(0, 60, 7)]), whole
    )
    np.testing.assert_array_equal(model.margin(x[::-1]), whole[::-1])


def test_contributions_sum_to_the_margin(fitted: tuple[int, Trees]):
    k, model = fitted
    x, _ = problem(50, k, seed=3)
    found, margin = model.contributions(x), model.margin(x)
    assert found.shape == (50, k if k > 2 else 1, COLUMNS + 1)
    np.testing.assert_allclose(found.sum(axis=2), margin.reshape(50, -1), atol=1e-5)
    # the column that tells the classes says the most
    assert np.abs(found[:, :, :-1]).mean(axis=(0, 1)).argmax() == 0
    assert model.contributions(x[:0]).shape == (0, *found.shape[1:])


def test_what_is_read_is_what_was_written(fitted: tuple[int, Trees]):
    k, model = fitted
    x, _ = problem(40, k, seed=4)
    content = model.to_json()
    again = Trees.from_json(content, COLUMNS, k)
    np.testing.assert_array_equal(again.margin(x), model.margin(x))
    np.testing.assert_array_equal(again.contributions(x), model.contributions(x))
    assert again.to_json() == content
    assert json.loads(content)["learner"]["learner_model_param"]["num_feature"] == str(COLUMNS)


def test_the_probabilities_are_the_shares_where_nothing_can_be_told():
    """One leaf holds all: its softmax is near the shares of the classes."""
    y = np.repeat([0, 1, 2], [50, 30, 20])
    model = trees.fit_classes(np.zeros((100, 1)), y, 3, rounds=300, columns_per_tree=1.0, shrinkage=0.0)
    np.testing.assert_allclose(softmax(model.margin(np.zeros((1, 1))))[0], [0.5, 0.3, 0.2], atol=0.03)


def test_weights_count():
    """Twice the weight is twice the rows."""
    x, y = problem(200, 2)
    y = np.random.default_rng(0).permutation(y)
    once = trees.fit_classes(x, y, 2, np.where(y == 1, 20.0, 1.0), rounds=10, leaves=4)
    assert once.margin(x).mean() > trees.fit_classes(x, y, 2, rounds=10, leaves=4).margin(x).mean() + 0.5


def test_a_seed_decides(fitted: tuple[int, Trees]):
    x, y = problem(200, 3)
    one, same, other = (trees.fit_classes(x, y, 3, rounds=5, seed=seed).to_json() for seed in (1, 1, 2))
    assert one == same
    assert one != other


@pytest.mark.parametrize("ask", ["margin", "contributions"])
@pytest.mark.parametrize("shape", [(3, COLUMNS + 1), (3, COLUMNS - 1), (0, 1), (COLUMNS,)])
def test_other_columns_are_refused(fitted: tuple[int, Trees], ask: str, shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"the table has shape \(.*\), the trees take \(n, 4\)"):
        getattr(fitted[1], ask)(np.zeros(shape))


def test_files_with_other_trees_are_refused(fitted: tuple[int, Trees]):
    k, model = fitted
    content = model.to_json()
    with pytest.raises(TreesError, match="the trees take 4 columns, 3 statistics are named"):
        Trees.from_json(content, 3, k)
    for wrong in {2, 3, 4, 5} - {k}:
        with pytest.raises(TreesError, match=r"the trees give .* values a row, .* are needed"):
            Trees.from_json(content, COLUMNS, wrong)


@pytest.mark.parametrize("content", [b"", b"rubbish", b"{}", b'{"learner": 3}', b"\xff\xfe{"])
def test_rubbish_is_refused(content: bytes):
    with pytest.raises(TreesError, match="XGBoost cannot read the trees: "):
        Trees.from_json(content, COLUMNS, 3)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_trees_that_were_cut_are_refused(fitted: tuple[int, Trees], kept: float):
    content = fitted[1].to_json()
    with pytest.raises(TreesError, match="XGBoost cannot read the trees: "):
        Trees.from_json(content[: int(kept * len(content))], COLUMNS, fitted[0])


def test_two_classes_with_two_margins_are_refused():
    """As XGBoost's multi:softprob makes them: everything here takes two classes to have one."""
    import xgboost

    x, y = problem(50, 2)
    data = xgboost.DMatrix(x.astype(np.float32), y)
    booster = xgboost.train({"objective": "multi:softprob", "num_class": 2, "verbosity": 0}, data, 2)
    with pytest.raises(TreesError, match=r"give \(2,\) values a row, 1 are needed"):
        Trees.from_json(bytes(booster.save_raw("json")), COLUMNS, 2)


def test_the_gain_is_shared_out(fitted: tuple[int, Trees]):
    gain = fitted[1].gain()
    assert gain.shape == (COLUMNS,)
    assert gain.sum() == pytest.approx(1)
    assert gain[0] > 0.5
    nothing = trees.fit(np.zeros((20, 2)), np.arange(20) % 2 == 0, rounds=1)
    np.testing.assert_array_equal(nothing.gain(), [0, 0])
