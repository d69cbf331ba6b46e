"""Training the choice among candidate periods on stars whose periods are known, out of fold by star."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightmill.models import bundle as bundles
from lightmill.models import choice as choices
from lightmill.models import trees
from lightmill.pipeline import candidates
from lightmill.pipeline.clean import Cleaned, clean
from lightmill.pipeline.features import index_of, statistics
from lightmill.pipeline.folds import grouped_folds
from lightmill.pipeline.labelled import LabelledError, read_labelled, source_of
from lightmill.pipeline.period import Periods, search
from lightmill.pipeline.recipe import Recipe

__all__ = ["choices_by_fold", "fit_choice", "judged"]

RIGHT = 0.01  #: of the period, or of its half or double
CONSIDERED = 24  #: candidates asked about; more of them bring no more right periods, only more wrong ones
FOLDS = 5
COPIES = 2  #: of each star with fewer epochs, to train on besides
THINNEST, SHORTEST = 0.3, 30  #: share of the epochs that a copy keeps at least, and their number
PARAMETERS: dict[str, Any] = {
    "rounds": 200,
    "depth": 8,
    "learning_rate": 0.05,
    "columns_per_tree": 0.3,
    "least_weight": 20.0,
    "shrinkage": 5.0,
}
GOLDEN = 64  #: rows kept to check the trees by


@dataclass(frozen=True)
class _Stars:
    """Rows of candidates of n stars."""

    rows: np.ndarray  #: (k, len(candidates.COLUMNS)) float32
    known: np.ndarray  #: (n, CONSIDERED) bool
    frequency: np.ndarray  #: (n, CONSIDERED) float64 [1/d]
    baseline: np.ndarray  #: (n,) float64 [d]

    @property
    def star(self) -> np.ndarray:
        """(k,) int64: whose rows they are."""
        return np.nonzero(self.known)[0]

    def exact(self, period: np.ndarray) -> np.ndarray:
        """(k,) bool: which rows are of the star's period."""
        return (np.abs(self.frequency * period[:, None] - 1) < RIGHT)[self.known]


def fit_choice(
    labels: str | Path,
    recipe: Recipe,
    out: str | Path,
    *,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Train the choice on labelled light curves with a column `period`, and write it to the folder `out`.

    Returns
    -------
    What was found out of fold: shares of stars whose first candidate is right (`exact`: within 1 % of the period;
    `factor`: of it, its half or its double), by the rule and by the choice, altogether and by class.

    Raises
    ------
    LabelledError
        if no star has a period.
    BundleError
        if `out` holds something.
    """
    say = progress or (lambda line: None)
    choices.check_free(out)
    cleaned, label, group, period = _read(labels, recipe)
    say(f"{len(period)} stars with a period; searching them {COPIES + 1} times")
    stars = _stars(cleaned, recipe)
    copies = [_stars(_thinned(cleaned, seed + 1 + copy), recipe) for copy in range(COPIES)]
    classes, y = np.unique(label, return_inverse=True)
    fold = grouped_folds(y, group, FOLDS, seed)
    probability = np.full(stars.known.shape, np.nan)
    for k in range(FOLDS):
        say(f"fold {k + 1} of {FOLDS}")
        own = fold[stars.star] == k
        answer = np.full(len(stars.rows), np.nan)
        answer[own] = 1 / (
            1 + np.exp(-_fit([stars, *copies], period, fold != k, seed).margin(stars.rows[own]))
        )
        probability[fold == k] = _spread(answer, stars)[fold == k]
    order = candidates.ordered(stars.frequency, probability, stars.baseline)
    metrics = {
        "n": len(period),
        "rule": judged(stars.frequency, period, label),
        "choice": judged(np.take_along_axis(stars.frequency, order, axis=1), period, label),
    }
    say("fitting to all stars")
    manifest = choices.ChoiceManifest(
        name=Path(recipe.period.choice).name,
        columns=candidates.COLUMNS,
        considered=CONSIDERED,
        training={
            "labels": source_of(Path(labels)),
            "clean": recipe.clean.model_dump(mode="json"),
            "period": recipe.period.model_dump(mode="json", exclude={"mode", "choice"}),
            "classes": {str(name): int(count) for name, count in zip(classes, np.bincount(y), strict=True)},
            "parameters": PARAMETERS,
            "copies": COPIES,
            "folds": FOLDS,
            "seed": seed,
            "versions": bundles.versions(),
        },
        metrics=metrics,
    )
    golden = stars.rows[np.linspace(0, len(stars.rows) - 1, GOLDEN).astype(int)]
    choices.save(out, manifest, _fit([stars, *copies], period, np.full(len(period), True), seed), golden)
    return metrics


def choices_by_fold(
    good: Cleaned, period: np.ndarray, fold: np.ndarray, recipe: Recipe, seed: int, say: Callable[[str], None]
) -> list[choices.Choice]:
    """For each fold the choice that is trained on the stars of all others.

    Parameters
    ----------
    good : n stars
    period : (n,) float [d], true
    fold : (n,) integer in 0…folds − 1
    """
    stars = _stars(good, recipe)
    copies = [_stars(_thinned(good, seed + 1 + copy), recipe) for copy in range(COPIES)]
    manifest = choices.ChoiceManifest(name="of a fold", columns=candidates.COLUMNS, considered=CONSIDERED)
    found = []
    for k in range(int(fold.max()) + 1):
        say(f"choice of periods, fold {k + 1} of {int(fold.max()) + 1}")
        found.append(choices.Choice(manifest, _fit([stars, *copies], period, fold != k, seed)))
    return found


def judged(frequency: np.ndarray, period: np.ndarray, label: np.ndarray) -> dict[str, Any]:
    """How often the candidates are right, the first first: shares of n stars, altogether and by class.

    frequency : (n, c) float64 [1/d]; period : (n,) [d]; label : (n,)
    """
    ratio = frequency * period[:, None]
    exact = np.abs(ratio - 1) < RIGHT
    factor = exact | (np.abs(ratio / 2 - 1) < RIGHT) | (np.abs(ratio * 2 - 1) < RIGHT)
    found = {"exact": exact[:, 0], "factor": factor[:, 0]}
    for first in (3, 10):
        found |= {
            f"exact_{first}": exact[:, :first].any(axis=1),
            f"factor_{first}": factor[:, :first].any(axis=1),
        }
    shares: dict[str, Any] = {name: float(right.mean()) for name, right in found.items()}
    shares["by_class"] = {
        str(one): {"n": int((label == one).sum())}
        | {name: float(found[name][label == one].mean()) for name in ("exact", "factor")}
        for one in np.unique(label)
    }
    return shares


def _read(labels: str | Path, recipe: Recipe) -> tuple[Cleaned, np.ndarray, np.ndarray, np.ndarray]:
    data = read_labelled(labels, recipe.layout.choices())
    data = data.take(np.flatnonzero(np.isfinite(data.period) & (data.period > 0)))
    if len(data) == 0:
        raise LabelledError(
            f"{labels}: no star has a period [d] > 0: a column `period` is what the choice learns from"
        )
    good = clean(*data.curves.epochs, **recipe.clean.limits())
    some = good.accepted
    return good, data.label[some], data.group[some], data.period[some]


def _stars(good: Cleaned, recipe: Recipe) -> _Stars:
    found: Periods = search(good.t, good.mag, good.magerr, good.offsets, **recipe.period.limits())
    known = statistics(good.t, good.mag, good.magerr, good.offsets)
    rows, listed = candidates.table(found, known, CONSIDERED)
    return _Stars(rows, listed, found.candidates[:, :CONSIDERED], known[:, index_of("baseline")])


def _thinned(good: Cleaned, seed: int) -> Cleaned:
    """The same stars with a random share of their epochs."""
    rng = np.random.default_rng(seed)
    n = np.diff(good.offsets)
    star = np.repeat(np.arange(len(n)), n)
    # the epochs of a star in random order; so many of the first are kept
    shuffled = np.lexsort((rng.random(len(star)), star))
    place = np.empty(len(star), np.int64)
    place[shuffled] = np.arange(len(star)) - good.offsets[star]
    wanted = np.maximum(np.round(rng.uniform(THINNEST, 1, len(n)) * n), np.minimum(SHORTEST, n))
    kept = place < wanted[star]
    offsets = np.concatenate([[0], np.cumsum(wanted)]).astype(np.int64)
    t = good.t[kept] - np.repeat(good.t[kept][offsets[:-1]], np.diff(offsets))
    return Cleaned(t, good.mag[kept], good.magerr[kept], offsets, good.accepted, good.n_good, good.reason)


def _fit(sets: list[_Stars], period: np.ndarray, allowed: np.ndarray, seed: int) -> trees.Trees:
    """Trees for the stars `allowed`, (n,) bool."""
    rows = np.concatenate([stars.rows[allowed[stars.star]] for stars in sets])
    right = np.concatenate([stars.exact(period)[allowed[stars.star]] for stars in sets])
    return trees.fit(rows, right, seed=seed, **PARAMETERS)


def _spread(values: np.ndarray, stars: _Stars) -> np.ndarray:
    """(k,) values of rows as (n, CONSIDERED), NaN where there is no candidate."""
    table = np.full(stars.known.shape, np.nan)
    table[stars.known] = values
    return table
