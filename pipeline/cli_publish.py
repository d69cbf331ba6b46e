"""`lightmill publish`, `versions` and `retract`: the versions of a catalogue."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from lightmill.pipeline.cli_common import (
    LedgerOption,
    Summarise,
    TextOrJson,
    messages,
    print_facts,
    print_json,
)

if TYPE_CHECKING:
    from lightmill.catalogs.runfolder import CatalogueFolder
    from lightmill.catalogs.versions import Version

__all__ = ["register"]

WIDE = 250  #: as wide as a table needs to be: a line that a terminal folds can still be read
ARCSEC = {"arcsec": 1.0, '"': 1.0, "": 1.0, "arcmin": 60.0}


def register(app: typer.Typer) -> None:
    """Give the command line its `publish`, `versions` and `retract`."""
    for command in (publish, versions, retract):
        app.command()(command)


def _margin(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d*)?) ?(arcsec|arcmin|\"|)", text.strip())
    if not found:
        raise typer.BadParameter(f"--margin {text!r}: give an angle as 10arcsec or 1arcmin, or 0")
    return float(found[1]) * ARCSEC[found[2]]


def publish(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="RUN…", help="CATALOGUE/runs/ID, or a catalogue: its runs, newest first."),
    ],
    name: Annotated[str | None, typer.Option(help="Of the version (default: v1, v2, …).")] = None,
    min_complete: Annotated[
        float, typer.Option(min=0, max=1, help="Least share of the partitions that must be there.")
    ] = 1.0,
    allow_mixture: Annotated[
        bool, typer.Option("--allow-mixture", help="Of runs that differ, or of superseded input; recorded.")
    ] = False,
    not_current: Annotated[
        bool, typer.Option("--not-current", help="Leave what readers get as it is.")
    ] = False,
    margin: Annotated[str, typer.Option(help="Width of the margin, as 10arcsec; 0: none.")] = "10arcsec",
    deep: Annotated[bool, typer.Option("--deep", help="Compare every file with its checksum.")] = False,
    ledger: LedgerOption = None,
    form: Summarise = TextOrJson.table,
) -> None:
    """Publish what runs computed as a version of their catalogue: of each partition that of the first run that has it.

    Example: `lightmill publish catalogue/runs/20261128T120000-1f2e3d --min-complete 0.99`
    """
    from lightmill.catalogs.runfolder import CatalogueFolder
    from lightmill.pipeline.publishing import publish_runs

    version = publish_runs(
        runs, name, min_complete=min_complete, allow_mixture=allow_mixture, make_current=not not_current,
        margin=_margin(margin), deep=deep,
    )  # fmt: skip
    if version is None:
        messages.print("lightmill: nothing to publish: no partition has a row")
        raise typer.Exit(1)
    _tell_ledger(CatalogueFolder(version.root.parent.parent), ledger)
    facts = _facts(version)
    if form is TextOrJson.table:
        facts |= {"runs": ", ".join(version.runs), "mixture": "; ".join(version.mixture) or "none"}
    print_facts(facts, form)


def versions(
    catalogue: Annotated[str, typer.Argument(help="Catalogue: path or fsspec URL.")],
    make_current: Annotated[
        str | None,
        typer.Option("--make-current", metavar="NAME", help="Let readers get this one from now on."),
    ] = None,
    ledger: LedgerOption = None,
    form: Summarise = TextOrJson.table,
) -> None:
    """List the versions of a catalogue, the oldest first; a star marks what readers get.

    Example: `lightmill versions catalogue`

    Example: `lightmill versions catalogue --make-current v3`
    """
    from lightmill.catalogs import versions as module
    from lightmill.catalogs.runfolder import CatalogueFolder, NotAnOutput
    from lightmill.catalogs.versions import retracted
    from lightmill.catalogs.versions import versions as find

    folder = CatalogueFolder.at(catalogue)
    if not folder.root.exists():
        raise NotAnOutput(f"{catalogue} is not a catalogue: no such folder")
    if make_current is not None:
        module.make_current(folder, make_current)
        _tell_ledger(folder, ledger)
    found, gone = find(folder), retracted(folder)
    if form is TextOrJson.json:
        print_json({"versions": [_facts(version) for version in found], "retracted": gone})
        return
    if not found:
        messages.print(f"{catalogue} has no versions: lightmill publish {catalogue} makes one", markup=False)
    table = Table("", "version", "created", "rows", "partitions", "holes", "complete", "runs", box=None)
    for v in found:
        facts = _facts(v)
        table.add_row(
            "*" if v.current else "", v.name, v.created[:19], f"{v.rows:,}", f"{facts['partitions']:,}",
            f"{v.holes:,}", f"{100 * v.complete:.4g} %", str(len(v.runs)) + (", mixed" if v.mixture else ""),
        )  # fmt: skip
    for name, note in gone.items():
        table.add_row("", name, "retracted", "", "", "", "", note["reason"])
    Console(width=WIDE, highlight=False).print(table, markup=False)


def retract(
    catalogue: Annotated[str, typer.Argument(help="Catalogue: path or fsspec URL.")],
    name: Annotated[str, typer.Argument(help="Version.")],
    reason: Annotated[str, typer.Option(help="Why; it is recorded.")],
    current: Annotated[
        str | None, typer.Option("--current", metavar="OTHER", help="Version that readers get from now on.")
    ] = None,
    ledger: LedgerOption = None,
    form: Summarise = TextOrJson.table,
) -> None:
    """Remove a version for good; its name is not used again.

    Example: `lightmill retract catalogue v1 --reason "wrong zero point in field 487" --current v2`
    """
    from lightmill.catalogs.runfolder import CatalogueFolder
    from lightmill.catalogs.versions import retract as remove

    folder = CatalogueFolder.at(catalogue)
    remove(folder, name, reason, instead=current)
    _tell_ledger(folder, ledger)
    if form is TextOrJson.json:
        print_json({"catalogue": catalogue, "retracted": name, "reason": reason, "current": current})
        return
    messages.print(f"version {name} of {catalogue} is retracted", markup=False)


def _tell_ledger(catalogue: CatalogueFolder, ledger: str | None) -> None:
    from lightmill.pipeline.publishing import tell_ledger

    if trouble := tell_ledger(catalogue, ledger):
        messages.print(f"the ledger was not told: {trouble}", markup=False, soft_wrap=True)


def _facts(version: Version) -> dict[str, Any]:
    partitions = sum(len(p) for held in version.partitions.values() for p in held.values())
    return {
        "version": version.name, "current": version.current, "place": str(version.root), "created": version.created,
        "rows": version.rows, "partitions": partitions, "holes": version.holes, "complete": version.complete,
        "runs": version.runs, "mixture": version.mixture, "digest": version.digest,
    }  # fmt: skip
