"""Tasks: what a network is trained on and tested with, fold by fold, from light curves as they are or re-observed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lightmill.pipeline.clean import Cleaned
from lightmill.pipeline.examples import Curves, Direct, Drawn, Reobserved
from lightmill.pipeline.features import index_of
from lightmill.pipeline.fit_gate import GateFit, fit_gate
from lightmill.pipeline.folds import grouped_folds
from lightmill.pipeline.hosts import Hosts
from lightmill.pipeline.labelled import Labelled, LabelledError
from lightmill.pipeline.recipe import Recipe, TrainTable
from lightmill.pipeline.reobserve import fit_error_curve, fit_star

__all__ = ["GOLDEN", "Images", "Task", "check_counts", "direct", "reobserved"]

GOLDEN = 16
"""Examples kept in the bundle to check it at each load."""

Images = Callable[[int], np.ndarray]
"""Epoch → images of the training examples."""


@dataclass(frozen=True)
class Task:
    """What a network is trained on and tested with."""

    y: np.ndarray  #: (n,) class
    fold: np.ndarray  #: (n,)
    training: Callable[[int | None], Images]  #: fold held back, or None → epoch → images of the others
    testing: Callable[[int], np.ndarray]  #: fold → images of it


def direct(
    cleaned: Cleaned,
    y: np.ndarray,
    group: np.ndarray,
    recipe: Recipe,
    table: TrainTable,
    number: Callable[..., int],
) -> Task:
    """Light curves as they are."""
    examples = Direct(
        Curves(cleaned.t, cleaned.mag, cleaned.magerr, cleaned.offsets),
        recipe.dmdt.edges(),
        recipe.dmdt.normalisation,
    )
    fold = grouped_folds(y, group, table.folds, number(0))
    plain = examples.test_images()
    sets: dict[
        int, np.ndarray
    ] = {}  # the same for each fold: a star's augmentation knows nothing of the others

    def training(held: int | None) -> Images:
        rows = np.flatnonzero(fold != held) if held is not None else np.arange(len(y))

        def images(epoch: int) -> np.ndarray:
            which = epoch % table.draws
            if which not in sets:
                sets[which] = examples.augmented_images(number(1, which))
            return sets[which][rows]

        return images

    return Task(y, fold, training, lambda k: plain[fold == k])


def reobserved(
    data: Labelled,
    cleaned: Cleaned,
    y: np.ndarray,
    hosts: Hosts,
    recipe: Recipe,
    table: TrainTable,
    number: Callable[..., int],
    say: Callable[[str], None],
) -> tuple[Task, GateFit, np.ndarray]:
    """Stars on hosts and the survey's transients: the network's task, the gate, and golden rows for it."""
    if np.isnan(data.period).any():
        raise LabelledError(
            f"{int(np.isnan(data.period).sum())} of {len(data)} stars have no period: re-observing needs a "
            "column `period` [d]"
        )
    leaf = _leaf_of(hosts, table)
    transients = np.flatnonzero((leaf >= 0) & hosts.at_peak)
    group = np.concatenate([data.group, data.group.max() + 1 + hosts.group[transients]])
    everything = np.concatenate([y, leaf[transients]])
    check_counts(everything, group, table)
    pieces = [slice(*cleaned.offsets[i : i + 2]) for i in range(len(y))]
    stars = [
        fit_star(cleaned.t[s], cleaned.mag[s], cleaned.magerr[s], float(period))
        for s, period in zip(pieces, data.period, strict=True)
    ]
    of_stars = np.repeat(hosts.constant, np.diff(hosts.offsets))
    curve = fit_error_curve(hosts.mag[of_stars], hosts.magerr[of_stars])
    examples = Reobserved(stars, transients, hosts, curve, recipe.clean.min_epochs)
    # transients of a class are spread over the folds as hosts are; a transient's fold is its host's
    host_fold = grouped_folds(
        leaf + 1 + (hosts.kind != "") * len(table.classes), hosts.group, table.folds, number(0)
    )
    fold = np.concatenate([grouped_folds(y, data.group, table.folds, number(1)), host_fold[transients]])
    tests = [
        examples.draw(np.flatnonzero(fold == k), np.flatnonzero(host_fold == k), number(2, k))
        for k in range(table.folds)
    ]
    label = np.array(table.classes)[everything]
    gate = fit_gate(
        examples, label, fold, host_fold, tests,
        recall=table.gate_recall, seed=lambda *where: number(3, *where), progress=say,
    )  # fmt: skip
    grid, how = recipe.dmdt.edges(), recipe.dmdt.normalisation

    def training(held: int | None) -> Images:
        rows = np.flatnonzero(fold != held) if held is not None else np.arange(len(fold))
        allowed = np.flatnonzero(host_fold != held) if held is not None else np.arange(len(hosts))
        sets: dict[int, np.ndarray] = {}

        def images(epoch: int) -> np.ndarray:
            which = epoch % table.draws
            if which not in sets:
                seed = number(4, table.folds if held is None else held, which)
                sets[which] = examples.draw(rows, allowed, seed).variable.images(grid, how)
            return sets[which]

        return images

    task = Task(everything, fold, training, lambda k: tests[k].variable.images(grid, how))
    return task, gate, _golden_rows(tests[0], gate)


def _leaf_of(hosts: Hosts, table: TrainTable) -> np.ndarray:
    """Class of each transient, −1 for none: a type by its alias, with its subtypes ("SN Ia-91T" is an "SN Ia")."""
    names = {**{name: name for name in table.classes}, **table.aliases}
    leaves = [names.get(kind) or names.get(kind.split("-")[0]) for kind in hosts.kind.tolist()]
    return np.array([table.classes.index(name) if name else -1 for name in leaves])


def _golden_rows(test: Drawn, gate: GateFit) -> np.ndarray:
    """Statistics of some examples and some constants, as the gate takes them."""
    columns = [index_of(name) for name in gate.report["statistics"]]
    rows = np.concatenate([test.variable.statistics()[:GOLDEN:2], test.constant.statistics()[: GOLDEN // 2]])
    return rows[:, columns]


def check_counts(y: np.ndarray, group: np.ndarray, table: TrainTable) -> None:
    """Every class must be there in every fold."""
    stars = np.array([len(np.unique(group[y == i])) for i in range(len(table.classes))])
    for name, n in zip(table.classes, stars, strict=True):
        if n < table.folds:
            raise LabelledError(
                f"class {name!r} has {n} stars that can be used, {table.folds} folds need as many at least: add stars, "
                "or take the class out of the recipe's [train] classes, or lower folds"
            )
