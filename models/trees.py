"""Trees: gradient-boosted decision trees (XGBoost, Chen & Guestrin 2016), kept in XGBoost's own JSON.

`fit` tells two classes apart, `fit_classes` several. XGBoost splits on single values, so that each row's answer is its
own, whatever it is batched with.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lightmill.models.extras import need

__all__ = ["Trees", "TreesError", "fit", "fit_classes"]


class TreesError(ValueError):
    """A file does not hold the trees that it should."""


class Trees:
    """Boosted trees that tell classes apart."""

    def __init__(self, booster: Any) -> None:
        # one thread: a worker process has one core, and the sum over trees must not depend on the number of threads
        booster.set_param({"nthread": 1})
        self._booster = booster

    @classmethod
    def from_json(cls, content: bytes, n_columns: int, n_classes: int = 2) -> Trees:
        """Read what `to_json` wrote. The caller has checked the digest of `content`.

        Raises
        ------
        TreesError
            if it cannot be read, takes another number of columns, or tells another number of classes apart.
        """
        xgboost = need("xgboost")
        if not content:  # which makes XGBoost abort the process
            raise TreesError("XGBoost cannot read the trees: there is nothing")
        try:
            booster = xgboost.Booster(model_file=bytearray(content))
        # its message quotes the content, whatever that is
        except (xgboost.core.XGBoostError, UnicodeDecodeError) as error:
            raise TreesError(
                f"XGBoost cannot read the trees: {str(error).strip().splitlines()[0]}"
            ) from error
        if booster.num_features() != n_columns:
            raise TreesError(
                f"the trees take {booster.num_features()} columns, {n_columns} statistics are named"
            )
        trees = cls(booster)
        found = np.shape(trees.margin(np.zeros((1, n_columns))))
        if (wanted := (1,) if n_classes == 2 else (1, n_classes)) != found:
            raise TreesError(f"the trees give {found[1:] or 1} values a row, {wanted[1:] or 1} are needed")
        return trees

    def to_json(self) -> bytes:
        """The trees in XGBoost's JSON."""
        return bytes(self._booster.save_raw("json"))

    def margin(self, table: np.ndarray) -> np.ndarray:
        """Log-odds of the second class, (n,) float32; of several classes one each, (n, n_classes).

        Raises
        ------
        ValueError
            if the table has another number of columns.
        """
        rows = self._rows(table)
        if len(rows) == 0:
            return self.margin(np.zeros((1, rows.shape[1])))[:0]
        return np.asarray(self._booster.inplace_predict(rows, predict_type="margin"), np.float32)

    def contributions(self, table: np.ndarray) -> np.ndarray:
        """What each column adds to each margin (SHAP values; Lundberg & Lee 2017): (n, n_classes, n_columns + 1).

        The last is what the trees say of nothing in particular; the sum over all is `margin`. Of two classes there is
        one margin: (n, 1, n_columns + 1).

        Raises
        ------
        ValueError
            if the table has another number of columns.
        """
        rows = self._rows(table)
        if len(rows) == 0:
            return self.contributions(np.zeros((1, rows.shape[1])))[:0]
        data = need("xgboost").DMatrix(rows, nthread=1)
        found = np.asarray(self._booster.predict(data, pred_contribs=True), np.float32)
        return found if found.ndim == 3 else found[:, None, :]

    def _rows(self, table: np.ndarray) -> np.ndarray:
        expected = self._booster.num_features()
        if table.ndim != 2 or table.shape[1] != expected:
            raise ValueError(f"the table has shape {table.shape}, the trees take (n, {expected})")
        return np.ascontiguousarray(table, np.float32)

    def gain(self) -> np.ndarray:
        """Share of each column in the total gain: (n_columns,) float64, sum 1 (0 if there is no split)."""
        scores = self._booster.get_score(importance_type="total_gain")
        values = np.array([scores.get(f"f{i}", 0.0) for i in range(self._booster.num_features())])
        return values / values.sum() if values.sum() > 0 else values


def fit(
    table: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    rounds: int = 300,
    depth: int = 5,
    learning_rate: float = 0.08,
    columns_per_tree: float = 0.6,
    least_weight: float = 5.0,
    shrinkage: float = 1.0,
    threads: int = 1,
    seed: int = 0,
) -> Trees:
    """Train trees that tell y = 1 from y = 0.

    Parameters
    ----------
    table : (n, n_columns) float
    y : (n,) bool
    weight : (n,) float, or None: all alike
    rounds, depth, learning_rate : number of trees, levels of each, and the share of each that is added
    columns_per_tree : share of the columns that a tree may split on, drawn anew for each
    least_weight : of a leaf: the sum of p (1 − p) of its rows
    shrinkage : of a leaf's value (XGBoost's lambda)
    threads : the last bits of sums, and so the trees, may depend on it
    """
    xgboost = need("xgboost")
    data = xgboost.DMatrix(
        np.ascontiguousarray(table, np.float32), np.asarray(y, np.float32), weight=weight, nthread=threads
    )
    parameters = {
        "objective": "binary:logistic",
        "base_score": 0.5,
        "tree_method": "hist",
        "max_depth": depth,
        "eta": learning_rate,
        "subsample": 0.8,
        "colsample_bytree": columns_per_tree,
        "min_child_weight": least_weight,
        "lambda": shrinkage,
        "nthread": threads,
        "seed": seed,
        "verbosity": 0,
    }
    return Trees(xgboost.train(parameters, data, num_boost_round=rounds))


def fit_classes(
    table: np.ndarray,
    y: np.ndarray,
    n_classes: int,
    weight: np.ndarray | None = None,
    *,
    rounds: int = 350,
    leaves: int = 20,
    learning_rate: float = 0.05,
    columns_per_tree: float = 0.25,
    least_weight: float = 2.0,
    shrinkage: float = 2.0,
    threads: int = 1,
    seed: int = 0,
) -> Trees:
    """Train trees that tell several classes apart; each round adds a tree a class, or one tree for two classes.

    Parameters
    ----------
    table : (n, n_columns) float, NaN where not known
    y : (n,) integer class
    leaves : of a tree at most, the best split first
    weight, rounds, learning_rate, columns_per_tree, least_weight, shrinkage, threads : see `fit`
    """
    xgboost = need("xgboost")
    data = xgboost.DMatrix(
        np.ascontiguousarray(table, np.float32), np.asarray(y, np.float32), weight=weight, nthread=threads
    )
    parameters = {
        # two classes have one margin: see `Trees.margin`
        **(
            {"objective": "multi:softprob", "num_class": n_classes}
            if n_classes > 2
            else {"objective": "binary:logistic", "base_score": 0.5}
        ),
        "tree_method": "hist",
        "max_bin": 128,
        "grow_policy": "lossguide",
        "max_leaves": leaves,
        "max_depth": 0,
        "eta": learning_rate,
        "subsample": 0.8,
        "colsample_bytree": columns_per_tree,
        "min_child_weight": least_weight,
        "lambda": shrinkage,
        "nthread": threads,
        "seed": seed,
        "verbosity": 0,
    }
    return Trees(xgboost.train(parameters, data, num_boost_round=rounds))
