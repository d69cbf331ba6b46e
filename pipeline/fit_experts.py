"""Training experts: each on all folds but one, then on everything; and what they said out of fold, put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from lightmill.models import trees
from lightmill.models.architectures import ARCHITECTURES
from lightmill.models.combine import at_temperatures, fit_pool, fit_temperatures, pool
from lightmill.models.experts import Expert, NetworkExpert, TreesExpert
from lightmill.models.fitting import fit_network
from lightmill.models.manifest import CombinerPart, NetworkPart, TreesPart, pool_name
from lightmill.models.networks import keras
from lightmill.models.novelty import Novelty, fit_novelty
from lightmill.models.summaries import Summaries
from lightmill.pipeline.folded import BINS
from lightmill.pipeline.recipe import NetworkTable, Recipe, TrainTable
from lightmill.pipeline.represent import shape_of
from lightmill.pipeline.tasks import Task

__all__ = ["OutOfFold", "combine", "final_novelty", "fit_expert", "out_of_fold", "parts_of", "pooled"]

Number = Callable[..., int]
Say = Callable[[str], None]
ExpertPart = NetworkPart | TreesPart


@dataclass(frozen=True)
class OutOfFold:
    """What experts that had not seen them said of n examples."""

    logits: dict[str, np.ndarray]  #: expert → (n, n_classes) float32
    novelty: np.ndarray | None  #: (n,) float32, distances from the known ones; None: no network
    constant: dict[str, np.ndarray] | None = None  #: as `logits`, of the same hosts without the examples


def parts_of(recipe: Recipe, table: TrainTable) -> tuple[ExpertPart, ...]:
    """The experts that a recipe trains, references among them."""
    n_dm, n_dt = recipe.dmdt.edges().shape
    found: list[ExpertPart] = [TreesPart(name=name) for name in table.trees]
    for name, spec in table.networks.items():
        views = {
            one: f"image:{spec.normalisation}" if one == "image" else one
            for one in ARCHITECTURES[spec.architecture].inputs
        }
        found.append(
            NetworkPart(
                name=name,
                architecture=spec.architecture,
                parameters=dict(spec.parameters),
                inputs=views,
                turns=spec.turns,
                shapes={one: shape_of(view, n_dm, n_dt) for one, view in views.items()},
            )
        )
    return tuple(found)


def fit_expert(
    part: ExpertPart,
    task: Task,
    held: int | None,
    table: TrainTable,
    number: Number,
    say: Say,
    log: Path | None = None,
) -> Expert:
    """An expert trained on all folds but one, or on everything.

    log : folder for event files of the training of networks
    """
    place = table.folds if held is None else held
    where = "final fit" if held is None else f"fold {held + 1} of {table.folds}"
    y = task.y[task.rows(held)]
    counts = np.bincount(y, minlength=len(table.classes))
    weight = 1.0 / np.sqrt(counts[y])  # between the classes as they come and all alike
    weight /= weight.mean()
    if isinstance(part, TreesPart):
        say(f"{part.name}, {where}")
        views = [task.training(held, which).views(["features"])["features"] for which in range(task.of_trees)]
        fitted = trees.fit_classes(
            np.concatenate(views), np.tile(y, task.of_trees), len(table.classes), np.tile(weight, task.of_trees),
            seed=number(8, place), **table.trees[part.name].model_dump(),
        )  # fmt: skip
        return TreesExpert(part, fitted)
    spec: NetworkTable = table.networks[part.name]
    keras().utils.set_random_seed(number(5, place))  # initial weights
    expert = NetworkExpert.fresh(part, len(table.classes))
    rng = np.random.default_rng(number(9, place))

    def inputs(epoch: int) -> Mapping[str, np.ndarray]:
        views = task.training(held, epoch % task.draws).views(part.needs)
        given = {name: views[view] for name, view in part.inputs.items()}
        if "folded" in given:
            given["folded"] = _turned(given["folded"], rng)
        return given

    fit_network(
        expert.network, inputs, {"class": y}, weight,
        epochs=spec.epochs, batch_size=spec.batch_size, learning_rate=spec.learning_rate, smoothing=spec.smoothing,
        seed=number(6, place),
        progress=lambda epoch, loss: say(f"{part.name}, {where}: epoch {epoch + 1} of {spec.epochs}, loss {loss:.3f}"),
        watch=Summaries(log / part.name).epoch if log else None,
    )  # fmt: skip
    return expert


def out_of_fold(
    parts: Sequence[ExpertPart],
    telling: Sequence[str],
    task: Task,
    table: TrainTable,
    number: Number,
    say: Say,
) -> OutOfFold:
    """Train each expert without each fold, and ask it about that fold.

    Parameters
    ----------
    telling : networks by whose last features novelty is told
    """
    n = len(task.y)
    logits = {part.name: np.empty((n, len(table.classes)), np.float32) for part in parts}
    constant = {part.name: np.empty_like(logits[part.name]) for part in parts} if task.constants else None
    distance = np.full(n, np.nan, np.float32) if telling else None
    for k in range(table.folds):
        own, features = task.fold == k, []
        for part in parts:
            expert = fit_expert(part, task, k, table, number, say)
            answer, last = expert.answers(task.tests.views(part.needs))
            logits[part.name][own] = answer[own]
            if constant is not None and task.constants is not None:
                views = task.constants.take(np.flatnonzero(own)).views(part.needs)
                constant[part.name][own] = expert.answers(views)[0]
            if part.name in telling and last is not None:
                features.append(last)
        if distance is not None:
            seen = np.concatenate(features, axis=1)
            distance[own] = fit_novelty(seen[~own], task.y[~own]).distance(seen[own])
    return OutOfFold(logits, distance, constant)


def final_novelty(
    experts: Sequence[Expert], telling: Sequence[str], task: Task, found: OutOfFold
) -> Novelty | None:
    """Where known light curves lie for the experts that ship, with the distances of those held out."""
    if found.novelty is None:
        return None
    own = {expert.part.name: expert for expert in experts}
    last = [own[name].answers(task.tests.views(own[name].part.needs))[1] for name in telling]
    return fit_novelty(
        np.concatenate([one for one in last if one is not None], axis=1), task.y, found.novelty
    )


def combine(
    logits: Mapping[str, np.ndarray], y: np.ndarray, classes: Sequence[str], order: Sequence[str]
) -> dict[str, CombinerPart]:
    """A combiner for every set of experts, fitted to what they said out of fold.

    Parameters
    ----------
    order : of the experts in the bundle
    """
    found = {}
    for size in range(1, len(order) + 1):
        for names in combinations(order, size):
            said = [logits[name] for name in names]
            weights = fit_pool(said, y)
            temperatures = fit_temperatures(pool(said, weights), y, classes)
            found[pool_name(names)] = CombinerPart(weights=weights, temperatures=temperatures)
    return found


def pooled(
    logits: Mapping[str, np.ndarray],
    y: np.ndarray,
    fold: np.ndarray,
    classes: Sequence[str],
    names: Sequence[str],
    asked: Mapping[str, np.ndarray] | None = None,
) -> np.ndarray:
    """Probabilities of some experts together, (n, k), each fold by a combiner that was fitted to the others.

    asked : (n, k) logits of other light curves of the same folds, to be combined instead
    """
    asked = asked or logits
    p = np.empty((len(y), len(classes)))
    for k in range(int(fold.max()) + 1):
        own, rest = fold == k, fold != k
        weights = fit_pool([logits[name][rest] for name in names], y[rest])
        there = pool([logits[name][rest] for name in names], weights)
        here = pool([asked[name][own] for name in names], weights)
        p[own] = at_temperatures(here, classes, fit_temperatures(there, y[rest], classes))
    return p


def _turned(curves: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Folded light curves begun at a random phase each: (n, BINS, channels)."""
    at = (np.arange(BINS) + rng.integers(0, BINS, (len(curves), 1))) % BINS
    return np.take_along_axis(curves, at[:, :, None], axis=1)
