"""The catalogue that a report is about: its files, the run that made it, and what its receipts say."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightmill.catalogs.partitions import HatsTable, NotHats, open_hats
from lightmill.catalogs.query import leaves_of
from lightmill.catalogs.receipts import Receipt, read_receipts
from lightmill.catalogs.runfolder import RunFolder
from lightmill.models.bundle import BundleError, read_manifest
from lightmill.models.manifest import Manifest
from lightmill.pipeline.recipe import Recipe

__all__ = ["Catalogue", "Key", "ReportError", "open_catalogue", "recipe_of"]

ZTF = {1: "g", 2: "r", 3: "i"}  #: names of its filters, by filterid

Key = tuple[int, int]  #: order, pixel


class ReportError(ValueError):
    """What was given cannot be reported on."""


@dataclass(frozen=True)
class Catalogue:
    """A catalogue made by `lightmill run`."""

    folder: RunFolder
    table: HatsTable
    leaves: tuple[str, ...]
    files: dict[str, Key]  #: its Parquet files
    run: dict[str, Any]  #: content of run.json
    recipe: Recipe | None  #: None where this version cannot read it
    manifest: Manifest | None  #: of the bundle, None where it is not found here, or another
    receipts: tuple[Receipt, ...]
    failures: list[dict[str, Any]]  #: order, pixel and error of what the last run could not classify

    @property
    def has_gate(self) -> bool:
        """Whether it tells variable light curves from others."""
        return "nonvar" in self.leaves

    @property
    def threshold(self) -> float | None:
        """p_variable from which a light curve passed the gate, None if unknown or all passed."""
        if self.recipe is None or self.recipe.gate.mode == "off" or not self.has_gate:
            return None
        if self.recipe.gate.threshold is not None:
            return self.recipe.gate.threshold
        return self.manifest.gate.threshold if self.manifest and self.manifest.gate else None

    @property
    def filters(self) -> dict[int, str]:
        """Names of the filters, by filterid, where they are known to be ZTF's."""
        return ZTF if self.recipe and self.recipe.layout.name in ("auto", "irsa-hats", "list") else {}

    @property
    def rows_in(self) -> int:
        """Light curves read, by the receipts."""
        return sum(receipt.rows_in for receipt in self.receipts)


def open_catalogue(folder: RunFolder) -> Catalogue:
    """The catalogue in a folder; NotHats or ReportError as `report` says."""
    out, record = folder.out, folder.record
    if not out.is_dir():
        raise NotHats(f"{out} is not a HATS catalogue: there is no such folder")
    receipts = tuple(read_receipts(folder.receipts))
    if record.is_file() and not (out / "collection.properties").is_file():
        raise ReportError(_unpublished(folder, receipts))
    table = open_hats(str(out))
    if not record.is_file():
        raise ReportError(
            f"{out} is a HATS catalogue, but was not made by lightmill run: it has no run/run.json"
        )
    try:
        run = json.loads(record.read_text())
    except ValueError as error:
        raise ReportError(
            f"{record} cannot be read: {error}; lightmill run writes it, restore it from a copy"
        ) from error
    recipe = recipe_of(run)
    return Catalogue(
        folder=folder,
        table=table,
        leaves=leaves_of(table.schema()),
        files={file.path: (part.order, part.pixel) for part in table.partitions() for file in part.files},
        run=run,
        recipe=recipe,
        manifest=_manifest(recipe, run),
        receipts=receipts,
        failures=json.loads(folder.failures.read_text()) if folder.failures.is_file() else [],
    )


def recipe_of(run: Mapping[str, Any]) -> Recipe | None:
    """What decided the results; the rest of the recipe may be of a version that had other fields."""
    try:
        given = {key: run["recipe"][key] for key in ("name", "description", "model")}
        return Recipe.model_validate(given | run["science"])
    except (KeyError, ValueError):
        return None


def _manifest(recipe: Recipe | None, run: Mapping[str, Any]) -> Manifest | None:
    if recipe is None:
        return None
    try:
        manifest = read_manifest(recipe.model.bundle)
    except (BundleError, OSError):
        return None
    return manifest if manifest.digest == run["bundle"] else None


def _unpublished(folder: RunFolder, receipts: tuple[Receipt, ...]) -> str:
    rejected: Counter[str] = Counter()
    for receipt in receipts:
        rejected.update(receipt.rejected)
    why = ", ".join(f"{n:,} {reason}" for reason, n in rejected.most_common())
    return (
        f"{folder.out} holds a run, but nothing has been published in it: the run was cut short (the same command "
        f"goes on), or no light curve could be classified (rejected so far: {why or 'none'})"
    )
