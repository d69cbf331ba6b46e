"""Tasks: what experts are trained on and tested with, fold by fold, from light curves as they are or re-observed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from lightmill.models import choice as choices
from lightmill.models.choice import Choice
from lightmill.models.manifest import PeriodPart
from lightmill.pipeline.candidates import COLUMNS
from lightmill.pipeline.choose import Chosen, choose
from lightmill.pipeline.clean import Cleaned
from lightmill.pipeline.colour import COLOURS
from lightmill.pipeline.colour import colours as colours_between
from lightmill.pipeline.colours_told import choose_colours
from lightmill.pipeline.conditions import Conditions
from lightmill.pipeline.curves import Curves
from lightmill.pipeline.examples import Drawn, Reobserved
from lightmill.pipeline.features import index_of, statistics
from lightmill.pipeline.fit_choice import choices_by_fold
from lightmill.pipeline.fit_gate import GateFit, fit_gate
from lightmill.pipeline.folds import grouped_folds
from lightmill.pipeline.full import FULL
from lightmill.pipeline.hosts import Hosts
from lightmill.pipeline.labelled import Labelled, LabelledError, source_of
from lightmill.pipeline.period import search
from lightmill.pipeline.recipe import Recipe, TrainTable
from lightmill.pipeline.reobserve import fit_error_curve, fit_star
from lightmill.pipeline.samples import Part, Sample

__all__ = ["COLUMNS_OF_TREES", "GOLDEN", "Periods", "Task", "check_counts", "direct", "reobserved"]

GOLDEN = 16
"""Examples kept in the bundle to check it at each load."""

FINGERPRINT = ("n", "baseline", "mean", "median", "magerr_median")
"""Statistics that say how a star was observed or how bright it is: a model that must transfer does not see them."""

COLUMNS_OF_TREES: tuple[str, ...] = tuple(
    name for name in FULL if name not in FINGERPRINT and name not in COLOURS
)
"""Features that trees take; besides, the colours that the bands of the labels allow."""

MOST_DROPPED = 0.4
"""Largest share of epochs that augmentation leaves out."""

DRAWS_OF_TREES = 3
"""Re-observations of each star that trees are trained on."""

Say = Callable[[str], None]
Number = Callable[..., int]


@dataclass(frozen=True)
class Periods:
    """The period search of the recipe, with a choice for the stars of each fold that has not seen them."""

    recipe: Recipe
    by_fold: Sequence[Choice]  #: one for each fold, or one for all
    part: PeriodPart  #: what a bundle remembers of it

    def __call__(self, curves: Curves, statistics: np.ndarray, fold: np.ndarray) -> Chosen:
        """The candidates of n light curves, chosen among by fold."""
        found = search(curves.t, curves.mag, curves.magerr, curves.offsets, **self.recipe.period.limits())
        parts = [(np.arange(len(fold)), self.by_fold[0])]
        if len(self.by_fold) > 1:
            parts = [(np.flatnonzero(fold == k), choice) for k, choice in enumerate(self.by_fold)]
        chosen = [choose(found.take(rows), statistics[rows], choice) for rows, choice in parts]
        back = np.argsort(np.concatenate([rows for rows, _ in parts]), kind="stable")
        joined = Chosen.joined(chosen)
        return Chosen(*(getattr(joined, f.name)[back] for f in fields(Chosen)))


@dataclass(frozen=True)
class Task:
    """What experts are trained on and tested with."""

    y: np.ndarray  #: (n,) class
    fold: np.ndarray  #: (n,)
    group: np.ndarray  #: (n,) light curves of one star or host
    period: PeriodPart | None  #: how periods were searched; None: they were not
    draws: int  #: different samples of the training examples
    of_trees: int  #: how many of them trees are trained on
    training: Callable[[int | None, int], Sample | Part]
    #: (fold held back, or None; number of the draw) → the examples of the other folds, in order
    tests: Sample  #: all n examples, each as it is tested
    conditions: Conditions  #: under which the tests were observed
    constants: Sample | None = None  #: the same hosts and epochs without them; None: light curves as they are
    true_period: np.ndarray | None = None  #: (n,) [d] of the tests, NaN where not known; no expert sees it
    strangers: tuple[np.ndarray, Sample] | None = (
        None  #: labels and light curves of classes that are not asked for
    )

    def rows(self, held: int | None) -> np.ndarray:
        """The examples that `training` gives."""
        return np.flatnonzero(self.fold != held) if held is not None else np.arange(len(self.y))


def searcher(
    cleaned: Cleaned,
    period: np.ndarray,
    fold: np.ndarray,
    labels: Path,
    recipe: Recipe,
    number: Number,
    say: Say,
) -> Periods | None:
    """How periods are searched in training; None if the recipe searches none.

    If the recipe's choice was trained on these very labels, it has seen the stars that experts are tested with: then
    a choice is trained anew for each fold, without its stars.
    """
    if recipe.period.mode == "off":
        return None
    shipped = choices.load(recipe.period.choice, COLUMNS)
    part = PeriodPart(choice=shipped.digest, limits=recipe.period.limits())
    if shipped.manifest.training.get("labels", {}).get("sha256") != source_of(labels)["sha256"]:
        return Periods(recipe, [shipped], part)
    if not np.isfinite(period).all():
        raise LabelledError(
            f"{labels}: {int((~np.isfinite(period)).sum())} stars have no period, the choice had them"
        )
    return Periods(recipe, choices_by_fold(cleaned, period, fold, recipe, number(7), say), part)


def direct(
    cleaned: Cleaned, y: np.ndarray, data: Labelled, labels: Path, recipe: Recipe, table: TrainTable,
    number: Number, say: Say, others: tuple[np.ndarray, Curves] | None = None,
) -> Task:  # fmt: skip
    """Light curves as they are; the draws but the first are augmented, with the period of the whole light curve.

    others : labels and light curves of classes that are not asked for, on which novelty is tried
    """
    fold = grouped_folds(y, data.group, table.folds, number(0))
    periods = searcher(cleaned, data.period, fold, labels, recipe, number, say)
    whole = Curves(cleaned.t, cleaned.mag, cleaned.magerr, cleaned.offsets)
    known = whole.statistics()
    chosen = periods(whole, known, fold) if periods else None
    told = choose_colours(_known_colours(data), y, data.group, table.classes, number(10), say)
    columns = COLUMNS_OF_TREES + told.names
    tests = Sample(whole, known, chosen, recipe.dmdt.edges(), columns, told.known)
    drawn = {0: tests}  # the same for each fold: a star's augmentation knows nothing of the others

    def training(held: int | None, which: int) -> Part:
        if which not in drawn:
            curves = whole.augmented(number(1, which), MOST_DROPPED)
            drawn[which] = Sample(curves, known, chosen, recipe.dmdt.edges(), columns, told.known)
        rows = np.flatnonzero(fold != held) if held is not None else None
        return drawn[which].take(rows, told.hidden)

    strangers = None
    if others is not None:
        label, curves = others
        seen = curves.statistics()
        found = periods(curves, seen, np.zeros(len(seen), np.int64)) if periods else None
        strangers = label, Sample(curves, seen, found, recipe.dmdt.edges(), columns)
    part = periods.part if periods else None
    return Task(
        y,
        fold,
        data.group,
        part,
        table.draws,
        1,
        training,
        tests,
        Conditions(known, data.curves.ra, data.curves.dec, data.curves.filterid),
        true_period=data.period,
        strangers=strangers,
    )


def reobserved(
    cleaned: Cleaned, y: np.ndarray, data: Labelled, labels: Path, hosts: Hosts, recipe: Recipe, table: TrainTable,
    number: Number, say: Say,
) -> tuple[Task, GateFit, np.ndarray]:  # fmt: skip
    """Stars on hosts and the survey's transients: the experts' task, the gate, and golden rows for it."""
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
    of_hosts = _colours_of_hosts(hosts)
    both = np.concatenate([_known_colours(data), of_hosts[transients]])
    told = choose_colours(both, everything, group, table.classes, number(10), say)
    columns = COLUMNS_OF_TREES + told.names
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
    star_fold = grouped_folds(y, data.group, table.folds, number(1))
    fold = np.concatenate([star_fold, host_fold[transients]])
    tests = [
        examples.draw(np.flatnonzero(fold == k), np.flatnonzero(host_fold == k), number(2, k))
        for k in range(table.folds)
    ]
    label = np.array(table.classes)[everything]
    gate = fit_gate(
        examples, label, fold, host_fold, tests,
        recall=table.gate_recall, seed=lambda *where: number(3, *where), progress=say,
    )  # fmt: skip
    periods = searcher(cleaned, data.period, star_fold, labels, recipe, number, say)

    def sample(curves: Curves, folds: np.ndarray, colours: np.ndarray) -> Sample:
        known = curves.statistics()
        chosen = periods(curves, known, folds) if periods else None
        return Sample(curves, known, chosen, recipe.dmdt.edges(), columns, colours)

    kept: dict[tuple[int | None, int], Sample] = {}

    def training(held: int | None, which: int) -> Part:
        rows = np.flatnonzero(fold != held) if held is not None else np.arange(len(fold))
        if (held, which) not in kept:
            for other in [key for key in kept if key[0] != held]:
                del kept[other]  # folds are trained one after the other
            allowed = np.flatnonzero(host_fold != held) if held is not None else np.arange(len(hosts))
            seed = number(4, table.folds if held is None else held, which)
            kept[held, which] = sample(
                examples.draw(rows, allowed, seed).variable, fold[rows], told.known[rows]
            )
        return kept[held, which].take(None, told.hidden[rows])

    order = np.argsort(np.concatenate([np.flatnonzero(fold == k) for k in range(table.folds)]), kind="stable")
    host = np.concatenate([test.host for test in tests])[order]
    variable, constant = (
        sample(Curves.joined([getattr(test, kind) for test in tests]).take(order), fold, colours)
        for kind, colours in (("variable", told.known), ("constant", of_hosts[host]))
    )
    part = periods.part if periods else None
    of_trees = min(DRAWS_OF_TREES, table.draws)
    conditions = Conditions(variable.statistics, hosts.ra[host], hosts.dec[host], hosts.filterid[host])
    task = Task(
        everything, fold, group, part, table.draws, of_trees, training, variable, conditions, constant
    )
    return task, gate, _golden_rows(tests[0], gate)


def _known_colours(data: Labelled) -> np.ndarray:
    return np.full((len(data), len(COLOURS)), np.nan) if data.colours is None else data.colours


def _colours_of_hosts(hosts: Hosts) -> np.ndarray:
    """(n, len(COLOURS)) [mag] of the survey's own stars and transients."""
    mean = statistics(hosts.t, hosts.mag, hosts.magerr, hosts.offsets)[:, index_of("mean")]
    return colours_between(hosts.ra, hosts.dec, hosts.filterid, mean)


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
