"""Training: from a table of labelled light curves to a bundle, tested by cross-validation on the way.

Folds are grouped (a star or a host is never on both sides) and stratified. Calibration, threshold and all
figures come from what was predicted out of fold; the bundle's own network and trees are then fitted to
everything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightmill.models import bundle as bundles
from lightmill.models.calibration import fit_temperature, scale_by_temperature
from lightmill.models.fitting import fit_network
from lightmill.models.manifest import GatePart, Manifest, NetworkPart
from lightmill.models.metrics import summary
from lightmill.models.networks import Network, keras
from lightmill.models.taxonomy import check_classes
from lightmill.pipeline.card import write_card
from lightmill.pipeline.clean import Cleaned, clean
from lightmill.pipeline.fit_gate import GateFit
from lightmill.pipeline.hosts import read_hosts
from lightmill.pipeline.labelled import Labelled, LabelledError, read_labelled, rename, source_of
from lightmill.pipeline.recipe import Recipe, TrainTable
from lightmill.pipeline.tasks import GOLDEN, Task, check_counts, direct, reobserved

__all__ = ["train"]


def train(
    labels: str | Path,
    recipe: Recipe,
    out: str | Path,
    *,
    survey: Sequence[str | Path] = (),
    seed: int | None = None,
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
    progress : called with a line of text as the work goes on

    Returns
    -------
    The metrics that also stand in the bundle: `n, accuracy, macro_f1, ece, per_class, confusion` out of fold, and more.

    Raises
    ------
    LabelledError, ValueError
        before any work, if something needed is missing or cannot be used.
    """
    say = progress or (lambda line: None)
    table = _checked_table(recipe, out, survey)
    start = time.perf_counter()
    root = table.seed if seed is None else seed
    number = _numbers(root)
    data, y, cleaned, left_out = _read(Path(labels), recipe, table)
    if left_out:
        say(
            "left out of the labels: "
            + ", ".join(f"{count} × {reason}" for reason, count in left_out.items())
        )
    training: dict[str, Any] = {
        "recipe": recipe.name,
        "recipe_digest": recipe.digest(),
        "train": table.model_dump(mode="json"),
        "seed": root,
        "labels": source_of(Path(labels)),
        "survey": [source_of(Path(path)) for path in survey],
        "left_out": left_out,
    }
    if recipe.gate.mode == "off":
        check_counts(y, data.group, table)
        task = direct(cleaned, y, data.group, recipe, table, number)
        gate, golden_statistics = None, None
    else:
        hosts = read_hosts(survey, recipe)
        say(f"{len(hosts)} hosts, fitting {len(y)} stars")
        task, gate, golden_statistics = reobserved(data, cleaned, y, hosts, recipe, table, number, say)
    logits = _out_of_fold(task, recipe, table, number, say)
    temperature = fit_temperature(logits, task.y)
    metrics = _metrics(logits, temperature, task, table, gate)
    network = _fitted(task, None, recipe, table, number, say)
    counts = np.bincount(task.y, minlength=len(table.classes))
    manifest = Manifest(
        name=Path(recipe.model.bundle).name,
        classes=table.classes,
        dt_edges=recipe.dmdt.edges().dt_edges,
        dm_edges=recipe.dmdt.edges().dm_edges,
        normalisation=recipe.dmdt.normalisation,
        network=NetworkPart(
            architecture=table.architecture, parameters=dict(table.parameters), temperature=temperature
        ),
        gate=GatePart(
            statistics=tuple(gate.report["statistics"]),
            slope=gate.slope, intercept=gate.intercept, threshold=gate.threshold,
        ) if gate else None,
        priors=tuple(float(share) for share in counts / counts.sum()),
        training=training,
        metrics=metrics,
        versions=bundles.versions(),
    )  # fmt: skip
    golden = task.testing(0)
    bundles.save(
        out, manifest, network, gate.trees if gate else None,
        card=write_card(manifest, counts),
        golden_images=golden[np.linspace(0, len(golden) - 1, GOLDEN).astype(int)],
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
            f"recipe {recipe.name!r} trains {len(table.classes)} class: a network tells at least two apart"
        )
    for label, leaf in table.aliases.items():
        if leaf not in table.classes:
            raise ValueError(
                f"recipe {recipe.name!r}: alias {label!r} = {leaf!r}, which is none of the classes "
                f"{', '.join(table.classes)}"
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
) -> tuple[Labelled, np.ndarray, Cleaned, dict[str, int]]:
    """The light curves to train on, their classes, their good epochs, and what was left out and why."""
    data = read_labelled(path, recipe.layout.choices())
    label = rename(data.label, table.aliases)
    known = np.isin(label, table.classes)
    names, counts = np.unique(label[~known], return_counts=True)
    left_out = {f"label {name or 'missing'}": int(count) for name, count in zip(names, counts, strict=True)}
    if len(np.unique(label[known])) < 2:
        raise LabelledError(
            f"{path}: labels are {', '.join(sorted(set(data.label.tolist())))}, of which "
            f"{len(np.unique(label[known]))} belong to the recipe's classes {', '.join(table.classes)}; training needs "
            "two at least: rename labels in [train] aliases"
        )
    data, label = data.take(np.flatnonzero(known)), label[known]
    curves = data.curves
    cleaned = clean(
        curves.t, curves.mag, curves.magerr, curves.flags, curves.offsets,
        bad_flags=recipe.clean.bad_flags, min_epochs=recipe.clean.min_epochs,
    )  # fmt: skip
    left_out |= cleaned.rejected()
    y = np.array([table.classes.index(name) for name in label])[cleaned.accepted]
    return data.take(cleaned.accepted), y, cleaned, left_out


def _fitted(
    task: Task,
    held: int | None,
    recipe: Recipe,
    table: TrainTable,
    number: Callable[..., int],
    say: Callable[[str], None],
) -> Network:
    """A network trained on all folds but one."""
    place = table.folds if held is None else held
    keras().utils.set_random_seed(number(5, place))  # initial weights
    network = Network(table.architecture, recipe.dmdt.edges().shape, len(table.classes), table.parameters)
    y = task.y[task.fold != held] if held is not None else task.y
    counts = np.bincount(y, minlength=len(table.classes))
    weight = 1.0 / np.sqrt(counts[y])  # between the classes as they come and all alike
    name = "final fit" if held is None else f"fold {held + 1} of {table.folds}"
    fit_network(
        network, task.training(held), y, weight / weight.mean(),
        epochs=table.epochs, batch_size=table.batch_size, learning_rate=table.learning_rate, seed=number(6, place),
        progress=lambda epoch, loss: say(f"network, {name}: epoch {epoch + 1} of {table.epochs}, loss {loss:.3f}"),
    )  # fmt: skip
    return network


def _out_of_fold(
    task: Task, recipe: Recipe, table: TrainTable, number: Callable[..., int], say: Callable[[str], None]
) -> np.ndarray:
    """(n, n_classes) logits of each example by the network that did not see its fold."""
    logits = np.empty((len(task.y), len(table.classes)), np.float32)
    for k in range(table.folds):
        logits[task.fold == k] = _fitted(task, k, recipe, table, number, say).logits(task.testing(k))
    return logits


def _metrics(
    logits: np.ndarray, temperature: float, task: Task, table: TrainTable, gate: GateFit | None
) -> dict[str, Any]:
    p = scale_by_temperature(logits, temperature)
    metrics = summary(p, task.y, table.classes)
    metrics["ece_uncalibrated"] = summary(scale_by_temperature(logits, 1.0), task.y, table.classes)["ece"]
    metrics["macro_f1_folds"] = [
        summary(p[task.fold == k], task.y[task.fold == k], table.classes)["macro_f1"]
        for k in range(table.folds)
    ]
    if gate is not None:
        passed = summary(p[gate.passed], task.y[gate.passed], table.classes)
        metrics["passed"] = {name: passed[name] for name in ("n", "accuracy", "macro_f1", "ece")}
        metrics["gate"] = gate.report
    return metrics


def _numbers(root: int) -> Callable[..., int]:
    """Seeds that depend on the root and on the place in the work, and on nothing else."""
    return lambda *where: int(np.random.SeedSequence([root, *where]).generate_state(1)[0])
