"""The version of a catalogue that a report is about: its files, the runs that made it, and what its receipts say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from lightmill.catalogs.partitions import HatsTable, NotHats, open_hats
from lightmill.catalogs.query import leaves_of
from lightmill.catalogs.receipts import Receipt
from lightmill.catalogs.runfolder import CatalogueFolder
from lightmill.catalogs.versions import Version, find_version
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
    """A published version of a catalogue."""

    version: Version
    table: HatsTable
    leaves: tuple[str, ...]
    files: dict[str, Key]  #: its Parquet files
    run: dict[str, Any]  #: content of run.json, of the first of its runs
    recipe: Recipe | None  #: None where this version cannot read it
    manifest: Manifest | None  #: of the bundle, None where it is not found here, or another
    receipts: tuple[Receipt, ...]
    failures: list[
        dict[str, Any]
    ]  #: order, pixel and error of what could not be classified, and is not in it

    @property
    def has_gate(self) -> bool:
        """Whether it tells variable light curves from others."""
        return "nonvar" in self.leaves

    @property
    def threshold(self) -> float | None:
        """p_variable from which a light curve of many epochs passed the gate, None if unknown or all passed."""
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


def open_catalogue(place: Path) -> Catalogue:
    """The version at a place: a catalogue, a version's folder, CATALOGUE@NAME; errors as `report` says."""
    version = find_version(place)
    if version is None:
        _explain(place)
    table = open_hats(str(version.objects))
    run = version.records[version.runs[0]]
    recipe = recipe_of(run)
    receipts = version.receipts() if (version.root / "receipts.parquet").exists() else []
    return Catalogue(
        version=version,
        table=table,
        leaves=leaves_of(table.schema()),
        files={file.path: (part.order, part.pixel) for part in table.partitions() for file in part.files},
        run=run,
        recipe=recipe,
        manifest=_manifest(recipe, run),
        receipts=tuple(receipts),
        failures=_failures(version),
    )


def _explain(place: Path) -> NoReturn:
    """Say why there is no version."""
    if not place.is_dir():
        raise NotHats(f"{place} is not a HATS catalogue: there is no such folder")
    runs = CatalogueFolder(place).runs()
    if runs:
        raise ReportError(_unpublished(place, [receipt for run in runs for receipt in run.read_receipts()]))
    open_hats(str(place))
    raise ReportError(
        f"{place} is a HATS catalogue, but was not made by lightmill run: it has no versions/NAME/version.json"
    )


def _failures(version: Version) -> list[dict[str, Any]]:
    """What its runs, and later ones, gave up, as far as it is not in the version."""
    there = {
        (int(o), p) for held in version.partitions.values() for o, pixels in held.items() for p in pixels
    }
    catalogue = CatalogueFolder(version.root.parent.parent)
    found = {record.key: record.error for record in catalogue.quarantined().values()}
    for run in catalogue.runs():
        for failure in run.failures():
            if failure.decision in ("failed", "quarantine"):
                found.setdefault(failure.key, failure.error)
    return [
        {"order": key[0], "pixel": key[1], "error": found[key]} for key in sorted(found) if key not in there
    ]


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
    return manifest if manifest.digest == run["models"]["bundle"] else None


def _unpublished(place: Path, receipts: Sequence[Receipt]) -> str:
    rejected: Counter[str] = Counter()
    for receipt in receipts:
        rejected.update(receipt.rejected)
    why = ", ".join(f"{n:,} {reason}" for reason, n in rejected.most_common())
    return (
        f"{place} holds runs, but nothing has been published in it: the run was cut short (the same command goes on), "
        f"or no light curve could be classified (rejected so far: {why or 'none'})"
    )
