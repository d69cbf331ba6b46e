"""`pipeline/tasks.py`: folds keep stars whole, periods come from a choice that has not seen them, draws from seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightmill.models import choice as choices
from lightmill.models.manifest import PeriodPart
from lightmill.models.trees import Trees, fit_classes
from lightmill.pipeline import tasks
from lightmill.pipeline.candidates import COLUMNS
from lightmill.pipeline.choose import Chosen, choose
from lightmill.pipeline.clean import Cleaned
from lightmill.pipeline.colour import COLOURS
from lightmill.pipeline.colours_told import choose_colours
from lightmill.pipeline.curves import Curves
from lightmill.pipeline.full import FULL
from lightmill.pipeline.labelled import Labelled, LabelledError, read_labelled
from lightmill.pipeline.period import search
from lightmill.pipeline.recipe import Recipe
from lightmill.pipeline.tasks import COLUMNS_OF_TREES, Periods, check_counts, direct, searcher

CLASSES = ("EW", "EA", "RRab")
N = 36


def recipe(**tables: object) -> Recipe:
    train = {"classes": CLASSES, "folds": 3, "draws": 3, "trees": {"trees": {}}}
    given = {
        "name": "mine", "model": {"bundle": "mine"}, "layout": {"name": "labelled"}, "period": {"mode": "on"},
        "dmdt": {"dt_edges": [0, 1, 30, 400], "dm_edges": [-3, 0, 3]}, "train": train,
    }  # fmt: skip
    return Recipe.model_validate(given | tables)


def number(*where: int) -> int:
    return sum((k + 1) * 101**i for i, k in enumerate(where))


def quiet(line: str) -> None:
    """Say nothing."""


@pytest.fixture(scope="module")
def stars(waves: Callable) -> tuple[Cleaned, np.ndarray]:
    """36 light curves of 18 stars."""
    curves, y = waves(N, CLASSES)
    cleaned = Cleaned(
        curves.t, curves.mag, curves.magerr, curves.offsets, np.arange(N), np.diff(curves.offsets).astype(np.int32),
        np.zeros(N, np.int8),
    )  # fmt: skip
    return cleaned, y


@pytest.fixture(scope="module")
def table(
    stars: tuple[Cleaned, np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Labelled]:
    cleaned, y = stars
    lists = {
        name: pa.LargeListArray.from_arrays(cleaned.offsets, pa.array(values))
        for name, values in (("mjd", cleaned.t), ("mag", cleaned.mag), ("magerr", cleaned.magerr))
    }
    plain = {
        "id": np.arange(N), "label": [CLASSES[k] for k in y], "ra": np.zeros(N), "dec": np.zeros(N),
        "group": np.arange(N) // 6 * 3 + np.arange(N) % 3, "period": np.full(N, 0.5),
    }  # fmt: skip
    path = tmp_path_factory.mktemp("tasks") / "labels.parquet"
    pq.write_table(pa.table(plain | lists), path)
    return path, read_labelled(path, recipe().layout.choices())


def made(stars: tuple[Cleaned, np.ndarray], table: tuple[Path, Labelled], used: Recipe, **more: object):
    cleaned, y = stars
    assert used.train is not None
    return direct(cleaned, y, table[1], table[0], used, used.train, number, quiet, **more)


def test_trees_do_not_see_how_a_star_was_observed():
    left_out = set(FULL) - set(COLUMNS_OF_TREES)
    assert left_out == {"n", "baseline", "mean", "median", "magerr_median", *COLOURS}
    assert list(COLUMNS_OF_TREES) == [name for name in FULL if name not in left_out]


def test_a_star_is_on_one_side(stars, table):
    task = made(stars, table, recipe())
    assert np.unique(task.fold).tolist() == [0, 1, 2]
    for star in np.unique(task.group):
        assert len(np.unique(task.fold[task.group == star])) == 1
    for k in range(3):
        assert set(task.y[task.fold == k]) == {0, 1, 2}
        np.testing.assert_array_equal(task.rows(k), np.flatnonzero(task.fold != k))
    np.testing.assert_array_equal(task.rows(None), np.arange(N))


def test_training_is_the_other_folds_in_order(stars, table):
    task = made(stars, table, recipe())
    whole = task.tests.views(["image:count", "folded"])
    for name, view in whole.items():
        for k in range(3):
            first = task.training(k, 0).views([name])[name]
            np.testing.assert_array_equal(first, view[task.rows(k)])
        np.testing.assert_array_equal(task.training(None, 0).views([name])[name], view)
    assert len(task.tests) == N


def test_the_other_draws_are_augmented_and_the_same_for_each_fold(stars, table):
    task = made(stars, table, recipe())
    assert task.draws == 3
    assert task.of_trees == 1  # features of what was left out of a light curve would be of another
    first, second, third = (task.training(None, k).views(["image:count"])["image:count"] for k in range(3))
    pairs = [x.sum(axis=(1, 2)) for x in (first, second, third)]
    assert (pairs[1] <= pairs[0]).all()
    assert (pairs[1] < pairs[0]).any()
    assert (second != third).any()
    for k in range(3):
        np.testing.assert_array_equal(
            task.training(k, 1).views(["image:count"])["image:count"], second[task.rows(k)]
        )
    again = made(stars, table, recipe())
    np.testing.assert_array_equal(again.training(None, 2).views(["image:count"])["image:count"], third)


def test_without_periods(stars, table):
    task = made(stars, table, recipe(period={"mode": "off"}))
    assert task.period is None
    assert task.tests.chosen is None


def test_strangers_have_periods_too(stars, table, waves: Callable):
    curves, _ = waves(4, ("RRc", "RRd"), seed=5)
    label = np.array(["RRc", "RRd"] * 2)
    task = made(stars, table, recipe(), others=(label, curves))
    assert task.strangers is not None
    found, sample = task.strangers
    assert found.tolist() == label.tolist()
    assert sample.views(["folded"])["folded"].shape == (4, 64, 6)
    assert sample.views(["folded"])["folded"].any(axis=(1, 2)).all()


def with_colours(stars, table, known: np.ndarray) -> tuple[tasks.Task, list[str]]:
    """The task where those have g − r, two light curves a star of one class."""
    cleaned, y = stars
    group = np.arange(N) // 6 * 3 + np.arange(N) % 3
    colours = np.stack([np.where(known, np.linspace(0, 1, N), np.nan), np.full(N, np.nan)], axis=1)
    data, said, used = replace(table[1], colours=colours, group=group), list[str](), recipe()
    assert used.train is not None
    return direct(cleaned, y, data, table[0], used, used.train, number, said.append), said


def test_some_stars_are_trained_on_without_colours(stars, table):
    """All light curves of a star, in each draw and fold the same; tests have them all."""
    task, said = with_colours(stars, table, np.full(N, True))
    assert task.tests.columns == (*COLUMNS_OF_TREES, "g_minus_r")
    assert "g_minus_r is known of 36 of 36 light curves, and of 100% of EW: trees look at it" in said
    told = np.linspace(0, 1, N).astype("f4")
    np.testing.assert_array_equal(task.tests.views(["features"])["features"][:, -1], told)
    seen = [task.training(None, k).views(["features"])["features"] for k in range(2)]
    hidden = np.isnan(seen[0][:, -1])
    assert 0.1 < hidden.mean() < 0.4
    for star in np.unique(task.group):
        assert len(np.unique(hidden[task.group == star])) == 1
    np.testing.assert_array_equal(np.isnan(seen[1][:, -1]), hidden)
    np.testing.assert_array_equal(seen[0][~hidden, -1], told[~hidden])
    for k in range(3):
        part = task.training(k, 0).views(["features"])["features"]
        np.testing.assert_array_equal(part, seen[0][task.rows(k)])


def test_that_a_colour_is_known_tells_nothing_of_the_class():
    """Nor which of them: each set of known colours is of the same share of each class, however they were."""
    rng, n = np.random.default_rng(1), 9000
    y, chance = np.arange(n) % 3, np.array([[1.0, 0.5], [0.6, 0.6], [0.3, 0.15]])
    given = rng.random((n, 2)) < chance[y]
    # of the second class only r − i that have g − r too
    given[y == 1, 1] &= given[y == 1, 0]
    told = choose_colours(np.where(given, 0.5, np.nan), y, np.arange(n), CLASSES, 5, quiet)
    assert told.names == COLOURS
    left = given & ~told.hidden
    sets = [np.bincount(left[y == k] @ [1, 2], minlength=4) / (y == k).sum() for k in range(3)]
    np.testing.assert_allclose(sets[1], sets[0], atol=1e-3)  # quotas are whole light curves
    np.testing.assert_allclose(sets[2], sets[0], atol=1e-3)
    assert sets[0][0] >= 0.25
    # both; g − r alone, from what the last class has of it; r − i alone, from what the second class has left of both
    assert sets[0][3] == pytest.approx(0.75 * 0.75 * 0.045, abs=0.01)
    assert sets[0][1] == pytest.approx(0.75 * 0.3 - sets[0][3], abs=0.02)


def test_where_a_class_has_one_colour_only_with_the_other(stars, table):
    """Noise for colours, known in other sets of each class, must not tell classes apart out of fold."""
    rng, n = np.random.default_rng(2), 6000
    y = np.arange(n) % 2
    given = np.stack([(y == 0) | (rng.random(n) < 0.5), rng.random(n) < 0.5], axis=1)
    given[y == 1, 0] = given[y == 1, 1]
    noise = np.where(given, rng.normal(size=(n, 2)), np.nan)
    told = choose_colours(noise, y, np.arange(n), CLASSES[:2], 5, quiet)
    half = np.arange(n) < n // 2
    fitted = fit_classes(np.where(told.hidden, np.nan, noise)[half], y[half], 2, rounds=60, leaves=8)
    right = (fitted.margin(noise[~half]).ravel() > 0) == (y[~half] == 1)
    assert right.mean() < 0.55
    naive = fit_classes(noise[half], y[half], 2, rounds=60, leaves=8)
    assert ((naive.margin(noise[~half]).ravel() > 0) == (y[~half] == 1)).mean() > 0.7


def test_a_class_without_colours_is_enough_to_leave_them_out(stars, table):
    _, y = stars
    task, said = with_colours(stars, table, y != 1)
    assert task.tests.columns == COLUMNS_OF_TREES
    assert (
        "g_minus_r is known of 24 of 36 light curves, and of 0% of EA: trees do not look at it; 10% of each class are "
        "needed"
    ) in said
    _, said = with_colours(stars, table, np.full(N, False))
    assert (
        "no colours: the labels have no passbands (numbers in filterid), or none has another's within 1.5″"
        in said
    )


# Periods


def test_the_shipped_choice_if_it_has_not_seen_the_labels(stars, table):
    cleaned, _ = stars
    fold = np.arange(N) % 3
    found = searcher(cleaned, table[1].period, fold, table[0], recipe(), number, quiet)
    shipped = choices.load("period-choice", COLUMNS)
    assert found is not None
    assert len(found.by_fold) == 1
    assert found.part.choice == shipped.digest
    assert found.part.limits == recipe().period.limits()
    curves = Curves(cleaned.t, cleaned.mag, cleaned.magerr, cleaned.offsets)
    known = curves.statistics()
    expected = choose(search(curves.t, curves.mag, curves.magerr, curves.offsets), known, shipped)
    same(found(curves, known, fold), expected)


def same(one: Chosen, two: Chosen) -> None:
    for field in fields(Chosen):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(two, field.name), err_msg=field.name)


class Fixed:
    """A choice that believes frequencies near 10^wanted, so that it can be seen who chose."""

    def __init__(self, wanted: float):
        self.wanted, self.manifest = wanted, choices.read_manifest("period-choice")

    def probability(self, rows: np.ndarray) -> np.ndarray:
        return np.exp(-np.abs(rows[:, COLUMNS.index("log_frequency")] - self.wanted))


def test_each_fold_is_chosen_for_by_its_own(stars):
    """With a choice a fold, light curve i gets what the choice of its fold says, in its own place."""
    cleaned, _ = stars
    curves = Curves(cleaned.t, cleaned.mag, cleaned.magerr, cleaned.offsets)
    known, fold = curves.statistics(), np.random.default_rng(2).integers(0, 3, N)
    by_fold = [Fixed(k) for k in (-1.0, 0.3, 1.3)]
    part = choices.read_manifest("period-choice")
    periods = Periods(recipe(), by_fold, PeriodPart(choice=part.digest, limits=recipe().period.limits()))
    found = periods(curves, known, fold)
    for k in range(3):
        alone = Periods(recipe(), [by_fold[k]], periods.part)
        own = np.flatnonzero(fold == k)
        some = curves.take(own)
        expected = alone(some, known[own], fold[own])
        for field in fields(Chosen):
            np.testing.assert_array_equal(getattr(found, field.name)[own], getattr(expected, field.name))
    # the choices do differ
    whole = [Periods(recipe(), [one], periods.part)(curves, known, fold).frequency[:, 0] for one in by_fold]
    assert (whole[0] < whole[1]).any()
    assert (whole[1] < whole[2]).any()


def test_labels_that_the_choice_has_seen_get_choices_of_their_own(stars, table, tmp_path, monkeypatch):
    """One for each fold, trained without its stars; the bundle still remembers the one that ships."""
    cleaned, _ = stars
    shipped = choices.load("period-choice", COLUMNS)
    seen = shipped.manifest.model_copy(update={"training": {"labels": tasks.source_of(table[0])}})
    monkeypatch.setattr(choices, "load", lambda name, columns: choices.Choice(seen, shipped._trees))
    fold, lines = np.arange(N) // 6 % 3, []
    found = searcher(cleaned, table[1].period, fold, table[0], recipe(), number, lines.append)
    assert found is not None
    assert len(found.by_fold) == 3
    assert found.part.choice == seen.digest
    assert [line for line in lines if "fold" in line]
    assert all(isinstance(one._trees, Trees) and one._trees is not shipped._trees for one in found.by_fold)
    unknown = np.where(np.arange(N) == 3, np.nan, table[1].period)
    with pytest.raises(LabelledError, match="1 stars have no period, the choice had them"):
        searcher(cleaned, unknown, fold, table[0], recipe(), number, quiet)


# Refusals


@pytest.mark.parametrize(("group", "n"), [(range(9), 3), ([0, 1, 2, 3, 4, 5, 6, 6, 6], 1)])
def test_every_class_is_in_every_fold(group, n):
    y, used = np.repeat([0, 1, 2], 3), recipe().train
    assert used is not None
    if n == 3:
        check_counts(y, np.array(group), used)
        return
    with pytest.raises(LabelledError, match=rf"class 'RRab' has {n} stars that can be used, 3 folds need"):
        check_counts(y, np.array(group), used)
    with pytest.raises(LabelledError, match=r"class 'EW' has 0 stars"):
        check_counts(y[3:], np.array(group)[3:], used)
