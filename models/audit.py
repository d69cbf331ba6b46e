"""Bias audit: how good answers are in each part of the data, with intervals, and where they differ from the rest.

A cell is what lies between two edges of a number (magnitude, latitude), or one value of a category (passband).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from lightmill.models.metrics import confusion, expected_calibration_error
from lightmill.models.proportions import holm, stratified_test, wilson

__all__ = ["LEVEL", "METHOD", "MISSING", "audit"]

LEVEL = 0.05
"""Chance of any false mark among the tests of one kind."""

CONFIDENCE = 0.95

BINS = 15
"""Of the calibration error, as in `metrics`."""

DRAWS = 2000
"""For the interval of the calibration error: its ends are good to a twentieth of its width."""

LEAST_FOR_ECE = 5
"""Rows below which the spread of the calibration error cannot be told from the rows themselves."""

MISSING = "missing"
"""Name of the cell of rows that have no value."""

METHOD = (
    "Each cell is compared with all other rows (a bad cell makes others better than the rest). Accuracy: "
    "Mantel–Haenszel test within true classes, so that a cell's class mix is no difference; recall: Fisher's exact "
    "test; the normal approximation of both where the variance of the hits is 25 or more. Marked where p, adjusted by "
    f"Holm for the number of tests of its kind, is below {LEVEL}. Intervals of "
    "shares: Wilson, 95 %. Of the ECE: resampled, 95 %, low end conservative; the ECE of few rows is large by chance "
    "alone, and tells of bad calibration only where its low end is above 0."
)


def audit(
    probabilities: np.ndarray,
    truth: np.ndarray,
    classes: Sequence[str],
    by: Mapping[str, np.ndarray],
    edges: Mapping[str, Sequence[float]] | None = None,
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure answers cell by cell along each axis.

    Parameters
    ----------
    probabilities : (n, k) float, rows sum to 1; the answer is the most probable class
    truth : (n,) integer class
    classes : k names, in the order of the columns
    by : axis → (n,) numbers or strings, a value for each row; NaN and None are missing
    edges : axis → increasing numbers, m of them for m + 1 cells [a, b): the first and the last are open, so that every
        row has a cell. An axis without edges is one of categories: a cell for each value that occurs
    seed : of the draws for the interval of the ECE

    Returns
    -------
    dict of plain values: `n, classes, level, method, whole, smallest: {axis, cell, n}` and `axes: {axis: {smallest:
    {cell, n}, cells: […]}}`. The smallest cells are those with the fewest rows, but one at least; cells without rows
    are listed all the same. `whole` and every cell have

    - `cell` (its name), `low` and `high` (edges; None: open, or a category), `n`
    - `accuracy`: `{value, low, high, n, expected, p, differs}`; expected is what the recalls of the whole give for
      the true classes of the cell
    - `ece`: `{value, low, high}`
    - `per_class`: class → `precision` and `recall` `{value, low, high, n}` (recall with `p` and `differs`),
      `share_predicted` and `share_true`

    Shares of nothing have value None and the interval 0…1. `p` is adjusted by Holm for all cells of all axes; None
    where there is nothing to compare.

    Raises
    ------
    ValueError
        if lengths differ, an axis of `edges` is not in `by`, or edges do not increase.
    """
    n, k = len(truth), len(classes)
    if probabilities.shape != (n, k):
        raise ValueError(
            f"probabilities have shape {probabilities.shape}, expected ({n}, {k}): one row for each true class, one "
            "column for each class"
        )
    edges = edges or {}
    for name in edges:
        if name not in by:
            raise ValueError(f"edges are given for {name!r}, which is no axis: axes are {', '.join(by)}")
    for name, values in by.items():
        if len(values) != n:
            raise ValueError(f"axis {name!r} has {len(values)} values for {n} rows: one for each row")
    truth = np.asarray(truth, np.int64)
    answer = probabilities.argmax(axis=1)
    whole = confusion(truth, answer, k)

    def measure(rows: np.ndarray, cell: dict[str, Any]) -> dict[str, Any]:
        matrix = confusion(truth[rows], answer[rows], k)
        figures = _figures(matrix, whole, classes)
        figures["ece"] = _calibration(probabilities[rows], truth[rows], np.random.default_rng(seed))
        return cell | figures

    axes: dict[str, Any] = {}
    for name, values in by.items():
        cells = [measure(rows, cell) for cell, rows in _cells(name, values, edges.get(name))]
        axes[name] = {"smallest": _smallest(cells), "cells": cells}
    tested = [cell for axis in axes.values() for cell in axis["cells"]]
    _adjust([cell["accuracy"] for cell in tested])
    _adjust([row["recall"] for cell in tested for row in cell["per_class"].values()])
    everything = measure(np.ones(n, bool), {"cell": "all", "low": None, "high": None})
    _adjust([everything["accuracy"], *(row["recall"] for row in everything["per_class"].values())])
    smallest = [{"axis": name} | axis["smallest"] for name, axis in axes.items() if axis["smallest"]]
    return {
        "n": n,
        "classes": list(classes),
        "level": LEVEL,
        "method": METHOD,
        "whole": everything,
        "smallest": min(smallest, key=lambda found: found["n"], default=None),
        "axes": axes,
    }


def _cells(
    name: str, values: np.ndarray, edges: Sequence[float] | None
) -> list[tuple[dict[str, Any], np.ndarray]]:
    """Each cell of an axis with (n,) bool, its rows; together they hold every row once."""
    values = np.asarray(values)
    if edges is None:
        return _categories(values)
    bounds = np.asarray(edges, np.float64)
    if not (len(bounds) and np.isfinite(bounds).all() and (np.diff(bounds) > 0).all()):
        raise ValueError(f"edges of {name!r} are {list(edges)}: one or more numbers that increase")
    numbers = values.astype(np.float64)
    unknown = np.isnan(numbers)
    which = np.where(unknown, -1, np.searchsorted(bounds, numbers, side="right"))
    ends = [None, *bounds.tolist(), None]
    found = [
        ({"cell": _between(low, high), "low": low, "high": high}, which == i)
        for i, (low, high) in enumerate(pairwise(ends))
    ]
    return found + _missing(unknown)


def _categories(values: np.ndarray) -> list[tuple[dict[str, Any], np.ndarray]]:
    unknown = np.array([value is None or value != value for value in values.tolist()], bool)
    return [
        ({"cell": _named(value), "low": None, "high": None}, ~unknown & (values == value))
        for value in sorted(set(values[~unknown].tolist()))
    ] + _missing(unknown)


def _missing(unknown: np.ndarray) -> list[tuple[dict[str, Any], np.ndarray]]:
    return [({"cell": MISSING, "low": None, "high": None}, unknown)] if unknown.any() else []


def _named(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _between(low: float | None, high: float | None) -> str:
    if low is None:
        return f"< {high:g}"
    return f"≥ {low:g}" if high is None else f"{low:g} – {high:g}"


def _figures(matrix: np.ndarray, whole: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """What a cell's confusion matrix says, beside that of all rows; p not yet adjusted."""
    n = int(matrix.sum())
    hits, support, answers = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    all_hits, all_support = np.diag(whole), whole.sum(axis=1)
    others = (all_hits - hits, all_support - support)
    recall = all_hits / np.maximum(all_support, 1)
    accuracy = _share(hits.sum(), n) | {
        "expected": float((recall * support).sum() / n) if n else None,
        "p": stratified_test(hits, support, *others),
    }
    per_class = {
        name: {
            "precision": _share(hits[i], answers[i]),
            "recall": _share(hits[i], support[i])
            | {"p": stratified_test(hits[i], support[i], others[0][i], others[1][i])},
            "share_predicted": _share(answers[i], n),
            "share_true": _share(support[i], n),
        }
        for i, name in enumerate(classes)
    }
    return {"n": n, "accuracy": accuracy, "ece": None, "per_class": per_class}


def _share(hits: int, n: int) -> dict[str, Any]:
    low, high = wilson(hits, n, CONFIDENCE)
    return {"value": float(hits / n) if n else None, "low": float(low), "high": float(high), "n": int(n)}


def _calibration(probabilities: np.ndarray, truth: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
    """Expected calibration error and its interval.

    The error is Σ|S| / n, with S of a bin its sum of confidence − hit. A resampled S is very nearly normal with the
    covariance of the multinomial, so it is drawn as that. As noise alone makes Σ|S| grow, the low end is the value
    less the 97.5 % point of Σ|noise|: it errs on the low side. The high end is the basic bootstrap's (Davison &
    Hinkley 1997, section 5.2), but not below the value.
    """
    n = len(truth)
    if n < LEAST_FOR_ECE:
        value = expected_calibration_error(probabilities, truth, BINS) if n else None
        return {"value": value, "low": 0.0, "high": 1.0}
    value = expected_calibration_error(probabilities, truth, BINS)
    confidence = probabilities.max(axis=1).astype(np.float64)
    gap = confidence - (probabilities.argmax(axis=1) == truth)
    which = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    total = np.bincount(which, weights=gap, minlength=BINS)
    squares = np.bincount(which, weights=gap * gap, minlength=BINS)
    covariance = np.diag(squares) - np.outer(total, total) / n
    # eigenvalues of a bin without rows, or of rows all alike, are 0 but for rounding
    noise = rng.multivariate_normal(
        np.zeros(BINS), covariance, size=DRAWS, method="eigh", check_valid="ignore"
    )
    tail = (1 - CONFIDENCE) / 2
    widest = np.quantile(np.abs(noise).sum(axis=1) / n, 1 - tail)
    least = np.quantile(np.abs(total + noise).sum(axis=1) / n, tail)
    return {
        "value": value,
        "low": float(max(value - widest, 0.0)),
        "high": float(min(max(2 * value - least, value), 1.0)),
    }


def _smallest(cells: list[dict[str, Any]]) -> dict[str, Any] | None:
    filled = [cell for cell in cells if cell["n"]]
    least = min(filled, key=lambda cell: cell["n"], default=None)
    return {"cell": least["cell"], "n": least["n"]} if least else None


def _adjust(tests: list[dict[str, Any]]) -> None:
    """Put adjusted p-values in place, and mark those below the level."""
    made = [test for test in tests if test["p"] is not None]
    for test, p in zip(made, holm(np.array([test["p"] for test in made])), strict=True):
        test["p"] = float(p)
    for test in tests:
        test["differs"] = test["p"] is not None and test["p"] < LEVEL
