"""Training: from a table of labelled light curves to a bundle, tested by cross-validation on the way.

Folds are grouped (a star or a host is never on both sides) and stratified. Calibration, combiner, threshold and all
figures come from what was predicted out of fold; the bundle's own experts are then fitted to everything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lightmill.models import bundle as bundles
from lightmill.models.bundle import Parts
from lightmill.models.experts import NetworkExpert
from lightmill.models.manifest import GatePart, Manifest, NetworkPart
from lightmill.models.taxonomy import check_classes, nearest
from lightmill.pipeline.bands import colours_of
from lightmill.pipeline.card import write_card
from lightmill.pipeline.clean import Cleaned, clean
from lightmill.pipeline.colour import RADIUS, near_others
from lightmill.pipeline.curves import Curves
from lightmill.pipeline.fit_experts import combine, final_novelty, fit_expert, out_of_fold, parts_of
from lightmill.pipeline.fit_gate import GateFit
from lightmill.pipeline.hosts import read_hosts
from lightmill.pipeline.labelled import Labelled, LabelledError, read_labelled, rename, source_of
from lightmill.pipeline.measure import measured, strangeness
from lightmill.pipeline.recipe import Recipe, TrainTable
from lightmill.pipeline.represent import REPRESENTATION
from lightmill.pipeline.tasks import GOLDEN, check_counts, direct, reobserved

__all__ = ["train"]


def train(
    labels: str | Path,
    recipe: Recipe,
    out: str | Path,
    *,
    survey: Sequence[str | Path] = (),
    seed: int | None = None,
    log: str | Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Train a bundle.

    Parameters
    ----------
    labels : Parquet file of labelled light curves
    recipe : with a table [train]; with [gate] mode "on", stars are re-observed on the survey and a gate is trained too
    out : folder of the bundle; must not exist, or be empty
    survey : Parquet files of real light curves of the survey (see `hosts`)
    seed : in place of the recipe's
    log : folder for event files (TensorBoard) of the training of the networks that ship
    progress : called with a line of text as the work goes on

    Returns
    -------
    The metrics that also stand in the bundle: `n, accuracy, macro_f1, ece, per_class, confusion` out of fold, and more
    (see `measure`).

    Raises
    ------
    LabelledError, ValueError
        before any work, if something needed is missing or cannot be used.
    """
    say = progress or (lambda line: None)
    table = _checked_table(recipe, out, survey)
    parts = parts_of(recipe, table)
    for part in parts:
        if isinstance(part, NetworkPart):
            NetworkExpert.fresh(part, len(table.classes))  # wrong parameters are refused before any work
    start = time.perf_counter()
    root = table.seed if seed is None else seed
    number = _numbers(root)
    path = Path(labels)
    data, y, cleaned, left_out, others = _read(path, recipe, table)
    if left_out:
        say(
            "left out of the labels: "
            + ", ".join(f"{count} × {reason}" for reason, count in left_out.items())
        )
    near = _near_other_stars(data, say)
    gate: GateFit | None = None
    golden_statistics = None
    if recipe.gate.mode == "off":
        check_counts(y, data.group, table)
        task = direct(cleaned, y, data, path, recipe, table, number, say, others)
    else:
        hosts = read_hosts(survey, recipe)
        say(f"{len(hosts)} hosts, fitting {len(y)} stars")
        task, gate, golden_statistics = reobserved(cleaned, y, data, path, hosts, recipe, table, number, say)
    used = [part for part in parts if part.name in table.trees or not table.networks[part.name].reference]
    telling = tuple(part.name for part in used if isinstance(part, NetworkPart))
    found = out_of_fold(parts, telling, task, table, number, say)
    experts = tuple(
        fit_expert(part, task, None, table, number, say, Path(log) if log else None) for part in used
    )
    names = [part.name for part in used]
    novelty = final_novelty(experts, telling, task, found)
    metrics = measured(found, task, table, names, gate) | strangeness(novelty, experts, telling, task)
    counts = np.bincount(task.y, minlength=len(table.classes))
    manifest = Manifest(
        name=Path(recipe.model.bundle).name,
        classes=table.classes,
        dt_edges=recipe.dmdt.edges().dt_edges,
        dm_edges=recipe.dmdt.edges().dm_edges,
        representation=REPRESENTATION,
        features=task.tests.columns if table.trees else (),
        period=task.period,
        experts=tuple(used),
        combiners=combine(found.logits, task.y, table.classes, names),
        novelty=telling,
        gate=GatePart(
            statistics=tuple(gate.report["statistics"]),
            slope=gate.slope, intercept=gate.intercept, threshold=gate.threshold,
            few=gate.few,
        ) if gate else None,
        priors=tuple(float(share) for share in counts / counts.sum()),
        training={
            "recipe": recipe.name,
            "recipe_digest": recipe.digest(),
            "science": recipe.science(),
            "train": table.model_dump(mode="json"),
            "seed": root,
            "labels": source_of(path),
            "survey": [source_of(Path(one)) for one in survey],
            "left_out": left_out,
            **({"near_other_stars": near} if near else {}),
            "seconds": round(time.perf_counter() - start),
        },
        metrics=metrics,
        versions=bundles.versions(),
    )  # fmt: skip
    some = np.linspace(0, len(task.y) - 1, GOLDEN).astype(int)
    bundles.save(
        out, manifest, Parts(experts, gate.trees if gate else None, novelty),
        card=write_card(manifest, counts),
        golden_inputs={name: view[some] for name, view in task.tests.views(manifest.needs()).items()},
        golden_statistics=golden_statistics,
    )  # fmt: skip
    say(f"bundle {manifest.name} written to {out} in {time.perf_counter() - start:.0f} s")
    return metrics


def _checked_table(recipe: Recipe, out: str | Path, survey: Sequence[str | Path]) -> TrainTable:
    """The recipe's [train], after everything was checked that can be checked without reading data."""
    table, folder = recipe.train, Path(out)
    if table is None:
        raise ValueError(f"recipe {recipe.name!r} has no table [train]: add one with the classes to train")
    check_classes(table.classes)
    if len(table.classes) < 2:
        raise ValueError(
            f"recipe {recipe.name!r} trains {len(table.classes)} class: experts tell at least two apart"
        )
    for label, leaf in table.aliases.items():
        if leaf not in table.classes:
            raise ValueError(
                f"recipe {recipe.name!r}: alias {label!r} = {leaf!r}, which is none of the classes "
                f"{', '.join(table.classes)}"
            )
    if recipe.period.mode == "off" and (
        table.trees or any(network.architecture == "folded" for network in table.networks.values())
    ):
        raise ValueError(
            f'recipe {recipe.name!r} has [period] mode = "off", but trains trees or folded curves, which need a '
            'period: set mode = "on", or train networks on images alone'
        )
    if recipe.gate.mode == "on" and not survey:
        raise ValueError(
            f'recipe {recipe.name!r} has [gate] mode = "on": a gate is trained on real light curves of the survey. '
            'Give them with --survey FILE, or set mode = "off"'
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is not an empty folder: choose another, or remove it")
    return table


def _read(
    path: Path, recipe: Recipe, table: TrainTable
) -> tuple[Labelled, np.ndarray, Cleaned, dict[str, int], tuple[np.ndarray, Curves] | None]:
    """The light curves to train on, their classes, their good epochs, what was left out and why, and the strangers."""
    data = read_labelled(path, recipe.layout.choices())
    label = rename(data.label, table.aliases)
    known = np.isin(label, table.classes)
    _check_labels(path, label[~known], table)
    names, counts = np.unique(label[~known], return_counts=True)
    left_out = {f"label {name or 'missing'}": int(count) for name, count in zip(names, counts, strict=True)}
    if len(np.unique(label[known])) < 2:
        raise LabelledError(
            f"{path}: labels are {', '.join(sorted(set(data.label.tolist())))}, of which "
            f"{len(np.unique(label[known]))} belong to the recipe's classes {', '.join(table.classes)}; training needs "
            "two at least: rename labels in [train] aliases"
        )
    strange = np.isin(label, table.leave_out)
    others = _strangers(data.take(np.flatnonzero(strange)), label[strange], recipe) if strange.any() else None
    # of all rows: a star's light curve in another band may have no label
    data = replace(data, colours=colours_of([data.curves], recipe.clean).colours)
    data, label = data.take(np.flatnonzero(known)), label[known]
    cleaned = _cleaned(data, recipe)
    left_out |= cleaned.rejected()
    y = np.array([table.classes.index(name) for name in label])[cleaned.accepted]
    return data.take(cleaned.accepted), y, cleaned, left_out, others


def _near_other_stars(data: Labelled, say: Callable[[str], None]) -> int:
    """How many light curves may be of one star, though the table has them as several."""
    split = int(near_others(data.curves.ra, data.curves.dec, data.group).sum())
    if split:
        say(
            f"{split} light curves lie within {RADIUS:g}″ of one that counts as another star: where they are one, "
            "training and test share it, and the figures flatter; give them one value in a column `group`"
        )
    return split


def _cleaned(data: Labelled, recipe: Recipe) -> Cleaned:
    return clean(*data.curves.epochs, **recipe.clean.limits())


def _strangers(data: Labelled, label: np.ndarray, recipe: Recipe) -> tuple[np.ndarray, Curves]:
    """Labels and good epochs of what is left out by name: on it novelty is tried."""
    good = _cleaned(data, recipe)
    return label[good.accepted], Curves(good.t, good.mag, good.magerr, good.offsets)


def _check_labels(path: Path, others: np.ndarray, table: TrainTable) -> None:
    """Refuse labels that the recipe says nothing about: they may be one of its classes under another name."""
    unknown = others[(others != "") & ~np.isin(others, table.leave_out)]
    if len(unknown) == 0:
        return
    names, counts = np.unique(unknown, return_counts=True)
    listed = ", ".join(
        f"{name} ({n}){nearest(str(name), table.classes)}" for name, n in zip(names, counts, strict=True)
    )
    raise LabelledError(
        f"{path}: unknown labels {listed}. The recipe's classes are {', '.join(table.classes)}: rename labels "
        "in [train] aliases, or list them in leave_out"
    )


def _numbers(root: int) -> Callable[..., int]:
    """Seeds that depend on the root and on the place in the work, and on nothing else."""
    return lambda *where: int(np.random.SeedSequence([root, *where]).generate_state(1)[0])
