"""`pipeline/fit_experts.py`: what is trained on what, what is said out of fold, and how it is put together."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest

from lightmill.models.calibration import softmax
from lightmill.models.combine import at_temperatures, fit_pool, fit_temperatures, pool
from lightmill.models.experts import NetworkExpert, TreesExpert
from lightmill.models.manifest import pool_name
from lightmill.models.novelty import fit_novelty
from lightmill.pipeline import fit_experts as module
from lightmill.pipeline.conditions import Conditions
from lightmill.pipeline.fit_experts import combine, final_novelty, fit_expert, out_of_fold, parts_of, pooled
from lightmill.pipeline.recipe import Recipe
from lightmill.pipeline.represent import shape_of
from lightmill.pipeline.samples import Sample
from lightmill.pipeline.tasks import Task

CLASSES = ("EW", "EA", "RRab")
NETWORK = {"epochs": 2, "batch_size": 16, "parameters": {"dense": 8}}
GRID = {"dt_edges": [0, 1, 3, 10, 30, 400], "dm_edges": [-3, -0.3, 0, 0.3, 3]}


def recipe(**experts: object) -> Recipe:
    train = {"classes": CLASSES, "folds": 2, "draws": 2} | experts
    return Recipe.model_validate({"name": "mine", "model": {"bundle": "mine"}, "dmdt": GRID, "train": train})


IMAGE = recipe(networks={"dmdt": {"architecture": "dmdt", **NETWORK}})


def number(*where: int) -> int:
    return sum((k + 1) * 101**i for i, k in enumerate(where))


NOWHERE = Conditions(*np.empty((4, 0)))  #: experts are fitted whatever the conditions


def quiet(line: str) -> None:
    """Say nothing."""


@pytest.fixture(scope="module")
def task(waves: Callable) -> Task:
    curves, y = waves(48, CLASSES)
    fold = np.arange(48) // 3 % 2
    sample = Sample(curves, curves.statistics(), None, IMAGE.dmdt.edges(), ())
    asked: list[tuple[int | None, int]] = []

    def training(held: int | None, which: int):
        asked.append((held, which))
        return sample.take(np.flatnonzero(fold != held)) if held is not None else sample

    made = Task(y, fold, np.arange(48), None, 2, 1, training, sample, NOWHERE)
    object.__setattr__(made, "asked", asked)
    return made


def test_parts_are_those_of_the_recipe():
    used = recipe(
        trees={"forest": {}},
        networks={
            "folded": {"architecture": "folded", **NETWORK},
            "picture": {"architecture": "dmdt", "normalisation": "l2", **NETWORK},
            "paper": {"architecture": "mahabal2017", "normalisation": "paper", "reference": True},
        },
    )
    assert used.train is not None
    forest, folded, picture, paper = parts_of(used, used.train)
    assert [part.name for part in (forest, folded, picture, paper)] == [
        "forest",
        "folded",
        "picture",
        "paper",
    ]
    assert forest.needs == ("features",)
    assert folded.inputs == {"folded": "folded", "scalars": "scalars"}
    assert folded.shapes == {"folded": shape_of("folded", 4, 5), "scalars": shape_of("scalars", 4, 5)}
    assert picture.inputs == {"image": "image:l2"}
    assert paper.inputs == {"image": "image:paper"}
    assert picture.shapes == paper.shapes == {"image": (4, 5)}
    assert picture.parameters == {"dense": 8}
    # what a recipe says can be built
    for part in (folded, picture, paper):
        NetworkExpert.fresh(part, 3)


def test_a_network_is_asked_for_its_draws_in_turn(task: Task):
    used = recipe(networks={"dmdt": {"architecture": "dmdt", **NETWORK, "epochs": 3}})
    (part,), lines = parts_of(used, used.train), []
    task.asked.clear()
    expert = fit_expert(part, task, 1, used.train, number, lines.append)
    assert task.asked == [(1, 0), (1, 1), (1, 0)]
    assert [line.split(", loss")[0] for line in lines] == [
        f"dmdt, fold 2 of 2: epoch {k} of 3" for k in (1, 2, 3)
    ]
    logits, features = expert.answers(task.tests.views(part.needs))
    assert logits.shape == (48, 3)
    assert features.shape == (48, 8)


def test_the_same_numbers_give_the_same_expert(task: Task):
    (part,) = parts_of(IMAGE, IMAGE.train)
    views = task.tests.views(part.needs)

    def said(held: int | None, seeds: Callable[..., int] = number) -> np.ndarray:
        return fit_expert(part, task, held, IMAGE.train, seeds, quiet).answers(views)[0]

    np.testing.assert_array_equal(said(0), said(0))
    assert np.abs(said(0) - said(1)).max() > 1e-3
    assert np.abs(said(0) - said(0, lambda *where: number(*where) + 1)).max() > 1e-3


@pytest.fixture
def by_rows(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int | None, object]]:
    """Experts that cost nothing and say which fold they were trained without."""
    made: list[tuple[str, int | None, object]] = []

    class Marked:
        def __init__(self, part, held):
            self.part, self.held = part, held

        def answers(self, views):
            n = len(next(iter(views.values())))
            held = -1 if self.held is None else self.held
            rng = np.random.default_rng(held + 2)
            return np.full((n, 3), held, np.float32), rng.normal(size=(n, 4)).astype(np.float32)

    def fit(part, task, held, *rest):
        made.append((part.name, held, Marked(part, held)))
        return made[-1][2]

    monkeypatch.setattr(module, "fit_expert", fit)
    return made


def test_each_row_is_answered_by_who_has_not_seen_it(task: Task, by_rows: list):
    used = recipe(networks={name: {"architecture": "dmdt", **NETWORK} for name in ("a", "b", "c")})
    found = out_of_fold(parts_of(used, used.train), ("a", "c"), task, used.train, number, quiet)
    assert [(name, held) for name, held, _ in by_rows] == [(name, k) for k in (0, 1) for name in "abc"]
    for name in "abc":
        np.testing.assert_array_equal(found.logits[name], np.repeat(task.fold[:, None], 3, axis=1))
    # novelty: of the features of those that tell it, fitted to the other folds
    assert found.novelty is not None
    for k in range(2):
        own = task.fold == k
        seen = np.concatenate(
            [np.random.default_rng(k + 2).normal(size=(48, 4)).astype(np.float32)] * 2, axis=1
        )
        np.testing.assert_allclose(
            found.novelty[own], fit_novelty(seen[~own], task.y[~own]).distance(seen[own]), rtol=1e-5
        )


def test_without_networks_novelty_is_not_told(task: Task, by_rows: list):
    used = recipe(networks={"a": {"architecture": "dmdt", **NETWORK}})
    found = out_of_fold(parts_of(used, used.train), (), task, used.train, number, quiet)
    assert found.novelty is None
    assert final_novelty([], (), task, found) is None


def test_novelty_of_the_bundle_has_the_distances_of_those_held_out(task: Task):
    (part,) = parts_of(IMAGE, IMAGE.train)
    expert = fit_expert(part, task, None, IMAGE.train, number, quiet)
    found = out_of_fold([part], ("dmdt",), task, IMAGE.train, number, quiet)
    novelty = final_novelty([expert], ("dmdt",), task, found)
    assert novelty is not None
    assert novelty.distances[-1] == pytest.approx(found.novelty.max())
    assert novelty.distances[0] == pytest.approx(found.novelty.min())
    last = expert.answers(task.tests.views(part.needs))[1]
    np.testing.assert_array_equal(novelty.means, fit_novelty(last, task.y).means)


# Combining


def sayings(n: int = 400, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Logits of three experts, of which the last knows nothing; the truth; folds."""
    rng = np.random.default_rng(seed)
    y, fold = rng.integers(0, 3, n), np.arange(n) % 4
    truth = np.eye(3)[y]
    logits = {
        "a": 2 * truth + rng.normal(size=(n, 3)),
        "b": 3 * truth + 2 * rng.normal(size=(n, 3)),
        "c": rng.normal(size=(n, 3)),
    }
    return {name: x.astype(np.float32) for name, x in logits.items()}, y, fold


def test_there_is_a_combiner_for_each_set():
    logits, y, _ = sayings()
    order = ("b", "a", "c")
    found = combine(logits, y, CLASSES, order)
    sets = [names for size in (1, 2, 3) for names in combinations(order, size)]
    assert set(found) == {pool_name(names) for names in sets}
    for names in sets:
        part = found[pool_name(names)]
        # weights are in the order of the bundle
        weights = fit_pool([logits[name] for name in names], y)
        assert part.weights == weights
        assert part.temperatures == fit_temperatures(
            pool([logits[name] for name in names], weights), y, CLASSES
        )
    b, a, c = found["a+b+c"].weights
    assert c < 0.25 * min(a, b)


def test_each_fold_is_pooled_by_the_others():
    logits, y, fold = sayings()
    p = pooled(logits, y, fold, CLASSES, ["a", "b"])
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-12)
    for k in range(4):
        rest, own = fold != k, fold == k
        part = combine({name: x[rest] for name, x in logits.items()}, y[rest], CLASSES, ["a", "b"])["a+b"]
        here = pool([logits["a"][own], logits["b"][own]], part.weights)
        np.testing.assert_allclose(p[own], at_temperatures(here, CLASSES, part.temperatures), atol=1e-12)
    # its own truth has no say
    other = y.copy()
    other[fold == 2] = (other[fold == 2] + 1) % 3
    np.testing.assert_array_equal(pooled(logits, other, fold, CLASSES, ["a", "b"])[fold == 2], p[fold == 2])


def test_pooling_does_not_do_worse_than_the_best():
    logits, y, fold = sayings(3000)

    def loss(p: np.ndarray) -> float:
        return float(-np.log(p[np.arange(len(y)), y]).mean())

    alone = [loss(pooled(logits, y, fold, CLASSES, [name])) for name in "ab"]
    together = loss(pooled(logits, y, fold, CLASSES, ["a", "b", "c"]))
    assert together < min(alone) - 0.02
    assert (
        loss(softmax(logits["b"].astype(float))) > alone[1]
    )  # a temperature helps what is too sure of itself


def test_folded_curves_begin_anywhere():
    rng = np.random.default_rng(1)
    curves = rng.normal(size=(50, 64, 6)).astype(np.float32)
    turned = module._turned(curves, np.random.default_rng(2))
    shifts = []
    for one, other in zip(curves, turned, strict=True):
        at = [k for k in range(64) if (np.roll(one, -k, axis=0) == other).all()]
        assert len(at) == 1
        shifts += at
    assert len(set(shifts)) > 20


def test_trees_are_trained_on_several_draws(monkeypatch: pytest.MonkeyPatch, task: Task):
    """Re-observed stars: the draws one after the other, each with the classes and weights."""
    used = recipe(trees={"forest": {"rounds": 3}})
    (part,), seen = parts_of(used, used.train), []

    class Few:
        def views(self, needs):
            return {"features": np.arange(24.0)[:, None]}

    several = Task(task.y, task.fold, task.group, None, 4, 3, lambda held, which: Few(), task.tests, NOWHERE)

    def fit(table, y, k, weight, **more):
        seen.append((table, y, k, weight, more))
        return "trees"

    monkeypatch.setattr(module.trees, "fit_classes", fit)
    expert = fit_expert(part, several, 0, used.train, number, quiet)
    assert isinstance(expert, TreesExpert)
    ((table, y, k, weight, more),) = seen
    assert table.shape == (72, 1)
    np.testing.assert_array_equal(y, np.tile(task.y[task.fold != 0], 3))
    assert (k, more["rounds"]) == (3, 3)
    counts = np.bincount(y)
    expected = 1 / np.sqrt(counts[y])
    np.testing.assert_allclose(weight, expected / expected.mean())
