"""Metrics of a classifier, in NumPy: accuracy, F1, confusion, calibration error (Guo+2017, arXiv:1706.04599)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["area_under_curve", "confusion", "expected_calibration_error", "per_class", "summary"]


def confusion(truth: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """Counts of (true class, predicted class): (n_classes, n_classes) int64, rows are the truth.

    Raises
    ------
    ValueError
        if the lengths differ or a class is out of range.
    """
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    if truth.shape != predicted.shape:
        raise ValueError(f"truth has shape {truth.shape}, predicted {predicted.shape}: they must be equal")
    for name, values in (("truth", truth), ("predicted", predicted)):
        if len(values) and not (values.min() >= 0 and values.max() < n_classes):
            raise ValueError(
                f"{name} has classes {values.min()}…{values.max()}, allowed are 0…{n_classes - 1}"
            )
    flat = truth.astype(np.int64) * n_classes + predicted
    return np.bincount(flat, minlength=n_classes**2).reshape(n_classes, n_classes)


def per_class(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall, F1 (n_classes,) float64 and support (n_classes,) int64 of a confusion matrix.

    What would be 0/0 is 0: a class that is never predicted has precision 0.
    """
    hits = np.diag(matrix).astype(np.float64)
    precision = _share(hits, matrix.sum(axis=0))
    recall = _share(hits, matrix.sum(axis=1))
    f1 = _share(2.0 * precision * recall, precision + recall)
    return {"precision": precision, "recall": recall, "f1": f1, "support": matrix.sum(axis=1)}


def expected_calibration_error(probabilities: np.ndarray, truth: np.ndarray, bins: int = 15) -> float:
    """Mean |confidence − accuracy| over equal bins of the highest probability, weighted by their counts.

    Parameters
    ----------
    probabilities : (n, k) float, rows sum to 1
    truth : (n,) integer class
    """
    if len(truth) == 0:
        return 0.0
    confidence = probabilities.max(axis=1).astype(np.float64)
    hit = (probabilities.argmax(axis=1) == truth).astype(np.float64)
    # bins are (a, b], as Guo+2017 define them; 0 belongs to the first
    which = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gap = np.bincount(which, weights=confidence - hit, minlength=bins)
    return float(np.abs(gap).sum() / len(truth))


def area_under_curve(score: np.ndarray, positive: np.ndarray) -> float:
    """Probability that a positive has a higher score than a negative, ties counted half (Mann & Whitney 1947).

    Parameters
    ----------
    score : (n,) float
    positive : (n,) bool; both kinds must occur
    """
    positive = np.asarray(positive, bool)
    _, which, counts = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - 0.5 * (counts - 1))[which]
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    return float((rank[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def summary(probabilities: np.ndarray, truth: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """All of the above as plain JSON values.

    Parameters
    ----------
    probabilities : (n, k) float, rows sum to 1
    truth : (n,) integer class
    classes : k names, in the order of the columns

    Returns
    -------
    dict of `n, accuracy, macro_f1, ece, per_class: {class: {precision, recall, f1, support}}` and `confusion:
    {labels, matrix}` (rows are the truth). `macro_f1` is the mean over the classes that occur in `truth`: a class
    that cannot be found is no reason to call a model bad, and its false alarms lower the precision of the others.
    """
    if probabilities.shape != (len(truth), len(classes)):
        raise ValueError(
            f"probabilities have shape {probabilities.shape}, expected ({len(truth)}, {len(classes)}): one row "
            "for each true class, one column for each class"
        )
    matrix = confusion(truth, probabilities.argmax(axis=1), len(classes))
    table = per_class(matrix)
    present = table["support"] > 0
    return {
        "n": len(truth),
        "accuracy": float(np.diag(matrix).sum() / max(len(truth), 1)),
        "macro_f1": float(table["f1"][present].mean()) if present.any() else 0.0,
        "ece": expected_calibration_error(probabilities, truth),
        "per_class": {
            name: {
                "precision": float(table["precision"][i]),
                "recall": float(table["recall"][i]),
                "f1": float(table["f1"][i]),
                "support": int(table["support"][i]),
            }
            for i, name in enumerate(classes)
        },
        "confusion": {"labels": list(classes), "matrix": matrix.tolist()},
    }


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)
