"""Folds: a grouped, stratified split, so that no star is in training and test at once."""

from __future__ import annotations

import numpy as np

__all__ = ["grouped_folds"]


def grouped_folds(y: np.ndarray, group: np.ndarray, folds: int, seed: int = 0) -> np.ndarray:
    """Number of the fold of each row: groups stay whole, and classes are spread as evenly as that allows.

    Groups are taken in random order, the large ones first, and each goes to the fold that has the fewest rows of the
    group's first class so far (of equal ones, the fewest rows at all).

    Parameters
    ----------
    y : (n,) integer class ≥ 0
    group : (n,) integer

    Returns
    -------
    (n,) int64 in 0…folds − 1; the same for the same input and seed

    Raises
    ------
    ValueError
        if the lengths differ, or there are fewer groups than folds.
    """
    y, group = np.asarray(y), np.asarray(group)
    if y.shape != group.shape:
        raise ValueError(f"y has shape {y.shape}, group {group.shape}: they must be equal")
    _, first, which, size = np.unique(group, return_index=True, return_inverse=True, return_counts=True)
    if len(first) < folds:
        raise ValueError(
            f"{len(first)} groups cannot be split into {folds} folds: use fewer folds or more stars"
        )
    order = np.random.default_rng(seed).permutation(len(first))
    order = order[np.argsort(-size[order], kind="stable")]
    of_class = np.zeros((folds, int(y.max(initial=0)) + 1), np.int64)
    of_group = np.empty(len(first), np.int64)
    for g in order:
        own = y[first[g]]
        fold = np.lexsort((of_class.sum(axis=1), of_class[:, own]))[0]
        of_group[g] = fold
        of_class[fold, own] += size[g]
    return of_group[which]
