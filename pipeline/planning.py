"""Make a plan: look at the release, the models and the catalogue, and ask `plan` what is to be done."""

from __future__ import annotations

import os
import platform
from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from lightmill.catalogs.lightcurves import Layout, choose_layout
from lightmill.catalogs.partitions import HatsTable, Partition, Region, open_hats
from lightmill.catalogs.proven import proven_fields
from lightmill.catalogs.release import Release, open_release
from lightmill.catalogs.rows import SCHEMA_VERSION
from lightmill.catalogs.runfolder import CatalogueFolder, NotAnOutput, RunFolder
from lightmill.models import bundle as bundles
from lightmill.models import choice as choices
from lightmill.models import extras
from lightmill.models.choice import ChoiceManifest
from lightmill.models.manifest import Manifest
from lightmill.pipeline.asking import check_recipe
from lightmill.pipeline.bands import looks_at_colours
from lightmill.pipeline.classify import ALGORITHM_VERSION, software
from lightmill.pipeline.cost import estimate, refuse_what_does_not_fit
from lightmill.pipeline.plan import DEFAULT_TRIGGERS, Done, Identity, Plan, RunError, State, plan
from lightmill.pipeline.planfile import plan_digest
from lightmill.pipeline.recipe import Recipe

__all__ = ["catalogue_state", "check_world", "identity_of", "make_plan"]


def make_plan(
    url: str,
    recipe: Recipe,
    *,
    catalogue: CatalogueFolder | None = None,
    region: Region | None = None,
    pixels: Collection[tuple[int, int]] | None = None,
    policy: str = "stale",
    triggers: Collection[str] = DEFAULT_TRIGGERS,
    workers: int | None = None,
    memory: int | None = None,
) -> Plan:
    """What must be computed of a release, or of some partitions of it, so that a catalogue is up to date.

    Parameters
    ----------
    catalogue : that it is for; None: everything is new
    region, pixels : only partitions that overlap it, only these (order, pixel); None: all
    policy, triggers : as `plan` takes them
    workers, memory : processes, and memory of each [bytes]; None: those of this machine

    Raises
    ------
    NotHats, LayoutError
        if the release cannot be read.
    BundleError
        if the bundle is damaged, or was trained on other images than the recipe asks for.
    RunError
        if no partition is meant, or one needs more memory than a worker has.
    """
    table = open_hats(url)
    identity = identity_of(url, recipe)
    everything = table.pixels()
    wanted = _asked_for(table, region, pixels, everything)
    state = catalogue_state(catalogue) if catalogue is not None else State()
    made = plan(identity, wanted, everything, state, policy=policy, triggers=triggers)
    if made.tasks:  # where all is up to date no file is opened, not even for its columns
        layout = choose_layout(table.schema(), recipe.layout.choices(), where=url)
        _refuse_without_bands(layout, recipe, url)
        tasks = estimate(made.tasks, Release(table, layout), recipe, catalogue)
        refuse_what_does_not_fit(tasks, recipe, workers, memory)
        made = replace(made, tasks=tasks)
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S}"
    return replace(made, run_id=f"{stamp}-{plan_digest(made)[:6]}")


def identity_of(url: str, recipe: Recipe) -> Identity:
    """What a run of a recipe over a release would be made of; the models are checked on the way."""
    bundle = bundles.verify(recipe.model.bundle)
    searching = recipe.period.mode == "on"
    grown = bundle.gate or searching or any(expert.kind == "trees" for expert in bundle.experts)
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    extras.check("keras", backend, "safetensors", *(["xgboost"] if grown else []))
    choice = choices.read_manifest(recipe.period.choice) if searching else None
    check_recipe(recipe, bundle, choice)
    return Identity(
        release=url if "://" in url else str(Path(url).resolve()),
        recipe=recipe.model_dump(mode="json"),
        science=recipe.science(),
        models=_models(bundle, choice),
        versions={"algorithm": ALGORITHM_VERSION, "schema": SCHEMA_VERSION},
        code=version("lightmill"),
        environment={"python": platform.python_version()}
        | {name: number for name, number in software() if name != "lightmill"},
    )


def _refuse_without_bands(layout: Layout, recipe: Recipe, url: str) -> None:
    bundle = bundles.read_manifest(recipe.model.bundle)
    if layout.filterid is None and looks_at_colours(bundle, recipe.classes.experts):
        raise RunError(
            f"bundle {bundle.name} was trained with colours, and the layout {layout.name!r} of {url} says nothing of "
            'passbands: name their column in the recipe ([layout] filterid = "…"), or leave the trees out ([classes] '
            "experts = …)"
        )


def check_world(plan: Plan) -> None:
    """See that the release and the models are still what the plan was made for.

    Raises
    ------
    RunError
        naming what has moved, with both values.
    """
    recipe = Recipe.model_validate(plan.identity.recipe)
    searching = recipe.period.mode == "on"
    models = _models(
        bundles.verify(recipe.model.bundle),
        choices.read_manifest(recipe.period.choice) if searching else None,
    )
    for kind, planned in plan.identity.models.items():
        if models.get(kind) != planned:
            raise RunError(
                f"{kind} was {planned[:8]} when this was planned, now it is {str(models.get(kind))[:8]}: plan again"
            )
    versions = {"algorithm": ALGORITHM_VERSION, "schema": SCHEMA_VERSION}
    if plan.identity.versions != versions:
        raise RunError(f"planned for {plan.identity.versions}, this Lightmill has {versions}: plan again")
    release = open_release(plan.identity.release, recipe.layout.choices())
    there = set(release.table.pixels())
    named = [*(task.key for task in plan.tasks), *(unit.key for unit in plan.current)]
    for order, pixel in named:
        if (order, pixel) not in there:
            raise RunError(
                f"Norder={order}/Npix={pixel} is no partition of {plan.identity.release} any more: plan again"
            )
    found = {(p.order, p.pixel): p for p in release.table.partitions_of(named)}
    for unit in plan.current:
        now = found[unit.key]
        if unit.input and now.identity() != unit.input:
            raise RunError(
                f"{now} was up to date when this was planned, and has changed since: now it is {_files(now)}: plan "
                "again"
            )
    for task in plan.tasks:
        now = found[task.key]
        if now.identity() != task.partition.identity():
            raise RunError(
                f"{task.partition} has changed since it was planned: {_files(task.partition)}, now "
                f"{_files(now)}: plan again"
            )


def catalogue_state(catalogue: CatalogueFolder) -> State:
    """What the runs of a catalogue have done, as their receipts say."""
    runs: dict[str, Identity] = {}
    done: dict[tuple[int, int], tuple[Done, ...]] = {}
    failed: dict[tuple[int, int], str] = {}
    decided: set[tuple[int, int]] = set()
    for folder in catalogue.runs():
        runs[folder.run_id] = _identity(folder)
        proven = list(proven_fields(folder, "order", "pixel", "fingerprint", "input"))
        for order, pixel, print_, content in proven:
            key = order, pixel
            done[key] = (*done.get(key, ()), Done(folder.run_id, print_, content))
            decided.add(key)
        for failure in folder.failures():
            if failure.decision in ("failed", "quarantine") and failure.key not in decided:
                failed[failure.key] = failure.fingerprint
        decided |= failed.keys()
    quarantined = {key: record.fingerprint for key, record in catalogue.quarantined().items()}
    return State(runs, done, failed, quarantined)


def _identity(folder: RunFolder) -> Identity:
    facts = folder.facts()
    if missing := [name for name in Identity.__dataclass_fields__ if name not in facts]:
        raise NotAnOutput(
            f"{folder.record} lacks {', '.join(missing)}: it was not written by this Lightmill, or was changed; get it "
            f"back from a copy, or move {folder.root} away to compute its partitions again"
        )
    return Identity(**{name: facts[name] for name in Identity.__dataclass_fields__})


def _asked_for(
    table: HatsTable,
    region: Region | None,
    pixels: Collection[tuple[int, int]] | None,
    everything: Collection[tuple[int, int]],
) -> tuple[Partition, ...]:
    partitions = table.partitions(region)
    if pixels is not None:
        if unknown := sorted(set(pixels) - set(everything)):
            order, pixel = unknown[0]
            raise RunError(
                f"{len(unknown)} of the {len(pixels)} partitions asked for are none of {table.url}, first "
                f"Norder={order}/Npix={pixel}"
            )
        asked = set(pixels)
        partitions = tuple(p for p in partitions if (p.order, p.pixel) in asked)
    if not partitions:
        raise RunError(f"no partition of {table.url} overlaps the region asked for: nothing to do")
    return partitions


def _models(bundle: Manifest, choice: ChoiceManifest | None) -> dict[str, str]:
    return {"bundle": bundle.digest} | ({"period_choice": choice.digest} if choice else {})


def _files(partition: Partition) -> str:
    return ", ".join(
        f"{file.path.rsplit('/', 1)[-1]} of {file.size:,} bytes ({file.stamp})" for file in partition.files
    )
