"""Evaluation: what a bundle says of light curves whose class is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lightmill.catalogs.lightcurves import LightCurves
from lightmill.models import choice as choices
from lightmill.models.bundle import load, read_manifest
from lightmill.models.manifest import Manifest
from lightmill.models.metrics import summary
from lightmill.models.taxonomy import LEAVES, nearest
from lightmill.pipeline.answer import answer
from lightmill.pipeline.asking import asking_of, check_recipe, finder_of
from lightmill.pipeline.bands import colours_of, looks_at_colours
from lightmill.pipeline.clean import clean
from lightmill.pipeline.colour import COLOURS
from lightmill.pipeline.labelled import LabelledError, read_labelled, rename, source_of
from lightmill.pipeline.recipe import Recipe, load_recipe

__all__ = ["Judged", "evaluate", "judge", "recipe_of"]

NOT_ASKED = "not_asked_for"
"""Reason of rows whose label is not among `only`."""

NOT_KNOWN = "not_in_bundle"
"""Reason of rows whose label is a class of the taxonomy, but none that the bundle can give."""


@dataclass(frozen=True)
class Judged:
    """What a bundle says of the n light curves that could be asked about, and what they are."""

    probabilities: np.ndarray  #: (n, k) float64, rows sum to 1
    truth: np.ndarray  #: (n,) int64, column of the true class
    classes: tuple[str, ...]  #: k leaves, the columns
    curves: LightCurves  #: the n light curves, as the file has them
    statistics: np.ndarray  #: (n, len(features.STATISTICS)) float64, of their good epochs
    rejected: dict[str, int]  #: rows of the file that were left out, by reason
    trained_on_these: bool  #: whether the bundle was trained on this very file
    with_colour: int | None  #: of how many light curves trees know a colour; None: they look at none


def evaluate(
    bundle: str | Path,
    labels: str | Path,
    *,
    aliases: Mapping[str, str] | None = None,
    only: Sequence[str] | None = None,
    recipe: Recipe | str | None = None,
) -> dict[str, Any]:
    """Apply a bundle to labelled light curves and compare; parameters and errors are those of `judge`.

    Returns
    -------
    dict of `n, accuracy, macro_f1, ece, per_class: {class: {precision, recall, f1, support}}, confusion:
    {labels, matrix}` (see `models.metrics.summary`), `rejected: {reason: n}` (n and the rejected add up to the
    rows of the file), `trained_on_these`, whether the bundle was trained on this very file: then the
    figures flatter, and `with_colour`, of how many light curves trees know a colour (None: they look at none)
    """
    found = judge(bundle, labels, aliases=aliases, only=only, recipe=recipe)
    return summary(found.probabilities, found.truth, found.classes) | {
        "rejected": found.rejected,
        "trained_on_these": found.trained_on_these,
        "with_colour": found.with_colour,
    }


def judge(
    bundle: str | Path,
    labels: str | Path,
    *,
    aliases: Mapping[str, str] | None = None,
    only: Sequence[str] | None = None,
    recipe: Recipe | str | None = None,
) -> Judged:
    """Apply a bundle to labelled light curves.

    Without `only`, the whole cascade answers, over all leaves: with a gate, what it holds back is shared
    out by the priors, as in a catalogue. With `only`, rows with other labels are left out, and
    probabilities are taken for these classes alone and renormalised over them: the question is then which
    of these it is. If nonvar is not among them, the gate is not asked, and the network sees every light
    curve.

    Parameters
    ----------
    bundle : name or folder
    labels : Parquet file of labelled light curves
    aliases : label in the file → leaf of the bundle
    only : leaves of the bundle, two at least
    recipe : for layout and cleaning, or its name; None: the one that the bundle was trained with

    Raises
    ------
    LabelledError
        before any work, for labels that are no class of the taxonomy, naming those that the bundle can give. (With
        `only` they are left out like all others.)
    """
    manifest = read_manifest(bundle)
    columns = _columns(manifest, only)
    for label, leaf in (aliases or {}).items():
        _check_leaf(manifest, leaf, f"label {label!r} is mapped to")
    used = load_recipe(recipe) if isinstance(recipe, str) else recipe or recipe_of(manifest)
    searching = used.period.mode == "on"
    check_recipe(used, manifest, choices.read_manifest(used.period.choice) if searching else None)
    data = read_labelled(labels, used.layout.choices())
    names = rename(data.label, aliases or {})
    if only is None:
        _check_labels(manifest, Path(labels), names)
    asked = np.isin(names, columns)
    if not asked.any():
        raise LabelledError(
            f"{labels}: no light curve has one of the labels {', '.join(columns)}; the file has "
            f"{', '.join(sorted(set(names.tolist())))}: rename labels with --map LABEL=CLASS"
        )
    rejected = {} if asked.all() else {NOT_ASKED if only else NOT_KNOWN: int((~asked).sum())}
    curves, names = data.curves.take(np.flatnonzero(asked)), names[asked]
    good = clean(*curves.epochs, **used.clean.limits())
    rejected |= good.rejected()
    if len(good.accepted) == 0:
        raise LabelledError(f"{labels}: no light curve can be used: {rejected}; see [clean] in the recipe")
    loaded = load(bundle)
    ask_gate = loaded.has_gate and "nonvar" in columns
    colours, looked = None, [k for k, name in enumerate(COLOURS) if name in manifest.features]
    if looks_at_colours(manifest, used.classes.experts):  # a partner may have another label, or none
        colours = colours_of([data.curves], used.clean).colours[asked][good.accepted]
    answers = answer(
        good, loaded, replace(asking_of(used), gate=ask_gate), finder=finder_of(used), colours=colours
    )
    given = loaded.leaves if ask_gate else loaded.classes
    p = answers.probabilities[:, [given.index(name) for name in columns]]
    return Judged(
        probabilities=_renormalised(p),
        truth=np.array([columns.index(name) for name in names[good.accepted]]),
        classes=columns,
        curves=curves.take(good.accepted),
        statistics=answers.statistics,
        rejected=rejected,
        trained_on_these=manifest.training.get("labels", {}).get("sha256")
        == source_of(Path(labels))["sha256"],
        with_colour=None if colours is None else int(np.isfinite(colours[:, looked]).any(axis=1).sum()),
    )


def _renormalised(p: np.ndarray) -> np.ndarray:
    """Rows that sum to 1; one without any probability is shared out evenly."""
    p = p.astype(np.float64)
    total = p.sum(axis=1, keepdims=True)
    return np.divide(p, total, out=np.full_like(p, 1 / p.shape[1]), where=total > 0)


def _columns(manifest: Manifest, only: Sequence[str] | None) -> tuple[str, ...]:
    if only is None:
        return manifest.leaves
    for name in only:
        _check_leaf(manifest, name, "asked for is")
    if len(set(only)) < 2:
        raise LabelledError(f"only {list(only)}: at least two classes are needed to tell them apart")
    return tuple(leaf for leaf in manifest.leaves if leaf in set(only))


def _check_leaf(manifest: Manifest, name: str, what: str) -> None:
    if name in manifest.leaves:
        return
    hint = nearest(name, manifest.leaves)
    raise LabelledError(
        f"{what} {name!r}, which the bundle {manifest.name!r} cannot give.{hint} It gives {', '.join(manifest.leaves)}"
    )


def _check_labels(manifest: Manifest, path: Path, names: np.ndarray) -> None:
    """Refuse labels that are no class at all: they may be a known class under another name."""
    unknown, counts = np.unique(names[~np.isin(names, LEAVES)], return_counts=True)
    if len(unknown) == 0:
        return
    listed = ", ".join(f"{name or 'missing'} ({n})" for name, n in zip(unknown, counts, strict=True))
    trained = manifest.training.get("train", {}).get("aliases", {})
    used = " ".join(f"--map {label}={leaf}" for label, leaf in trained.items() if label in unknown.tolist())
    raise LabelledError(
        f"{path}: unknown labels {listed}. The bundle {manifest.name!r} gives {', '.join(manifest.leaves)}: "
        f"rename labels with --map LABEL=CLASS{f' (it was trained with {used})' if used else ''}, or leave them "
        "out with --only CLASS …"
    )


def recipe_of(manifest: Manifest) -> Recipe:
    """The recipe that a bundle was trained with, as far as it decides the results."""
    facts = manifest.training
    science = facts.get("science", {})
    return Recipe.model_validate(
        {"name": facts.get("recipe", manifest.name), "model": {"bundle": manifest.name}} | science
    )
