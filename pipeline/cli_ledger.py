"""`lightmill ledger`: make it anew from the files, compare the two, hand its tables to other programs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lightmill.pipeline.cli_common import Summarise, TextOrJson, local, messages, print_facts, print_json

if TYPE_CHECKING:
    from lightmill.catalogs.ledger import Ledger
    from lightmill.catalogs.runfolder import CatalogueFolder

__all__ = ["LedgerUrl", "register"]

ledger_app = typer.Typer(
    no_args_is_help=True,
    help="The ledger: an index in SQL of runs, units, attempts, bundles and versions, made anew from the files when it "
    "is lost. SQLite beside the catalogue (in $XDG_STATE_HOME/lightmill where that is on no local disk), or what "
    "--ledger or $LIGHTMILL_LEDGER names.\n\nExample: `lightmill ledger rebuild catalogue`",
)

Catalogue = Annotated[str, typer.Argument(metavar="CATALOGUE", help="Catalogue of runs: path or fsspec URL.")]
LedgerUrl = Annotated[
    str | None,
    typer.Option(
        "--ledger",
        metavar="URL",
        help="sqlite:////path/ledger.sqlite or postgresql://user@host/database (default: $LIGHTMILL_LEDGER).",
    ),
]


class TableName(StrEnum):
    """Tables of the ledger."""

    runs = "runs"
    units = "units"
    attempts = "attempts"
    bundles = "bundles"
    versions = "versions"


class TableForm(StrEnum):
    """How a table is written."""

    csv = "csv"
    json = "json"
    parquet = "parquet"


def register(app: typer.Typer) -> None:
    """Give the command line its `ledger`."""
    app.add_typer(ledger_app, name="ledger")


@ledger_app.command("rebuild")
def rebuild_command(
    catalogue: Catalogue, ledger: LedgerUrl = None, form: Summarise = TextOrJson.table
) -> None:
    """Write what the ledger has of a catalogue anew, from the catalogue's files. A run under way may go on.

    Example: `lightmill ledger rebuild catalogue --ledger postgresql://archive@db/lightmill`
    """
    from lightmill.catalogs.ledger_rebuild import rebuild

    with _opened(catalogue, ledger, create=True) as (known, folder):
        done = rebuild(known, folder)
    facts = asdict(done)
    if form is TextOrJson.table:
        for text in facts.pop("unreadable"):
            messages.print(f"left out: {text}", markup=False, soft_wrap=True)
    print_facts(facts, form)


@ledger_app.command("check")
def check_command(
    catalogue: Catalogue,
    ledger: LedgerUrl = None,
    deep: Annotated[
        bool,
        typer.Option("--deep", help="Read every Parquet file, and compare its sha256 with the receipt's."),
    ] = False,
    form: Summarise = TextOrJson.table,
) -> None:
    """Tell where ledger and files differ, and which Parquet files are not what their receipts tell.

    Exit code 1: there are some.

    Example: `lightmill ledger check catalogue --deep`
    """
    from lightmill.catalogs.ledger_check import check

    with _opened(catalogue, ledger, create=False) as (known, folder):
        wrong = check(known, folder, deep=deep)
        where = known.url
    if form is TextOrJson.json:
        print_json({"ledger": where, "differences": wrong})
    else:
        for line in wrong:
            typer.echo(line)
        messages.print(
            f"{where}: {f'{len(wrong):,} differences' if wrong else 'as the files have it'}", markup=False
        )
    if wrong:
        raise typer.Exit(1)


@ledger_app.command("export")
def export_command(
    catalogue: Catalogue,
    table: Annotated[TableName, typer.Option("--table", help="Which one.")] = TableName.units,
    ledger: LedgerUrl = None,
    form: Annotated[TableForm, typer.Option("--format", help="What to write.")] = TableForm.csv,
    out: Annotated[
        Path | None,
        typer.Option("--out", callback=local, help="Write to a file instead of standard output."),
    ] = None,
) -> None:
    """Write a table of the ledger, as far as it is about a catalogue, for other programs.

    Example: `lightmill ledger export catalogue --table attempts --format parquet --out attempts.parquet`
    """
    from lightmill.catalogs.ledger_export import export

    if form is TableForm.parquet and out is None and sys.stdout.isatty():
        raise typer.BadParameter("parquet is not for a terminal: give --out FILE, or pipe it")
    with _opened(catalogue, ledger, create=False) as (known, folder):
        data = export(known, table.value, form.value, str(folder.root))
    if out is not None:
        out.write_bytes(data)
        messages.print(f"{table.value} written to {out}", markup=False)
        return
    sys.stdout.buffer.write(data)
    sys.stdout.flush()


@contextmanager
def _opened(catalogue: str, url: str | None, create: bool) -> Iterator[tuple[Ledger, CatalogueFolder]]:
    from lightmill.catalogs.ledger import open_ledger
    from lightmill.catalogs.runfolder import CatalogueFolder

    folder = CatalogueFolder.at(catalogue)
    folder.must_have_runs()
    with open_ledger(url, folder, create=create) as ledger:
        yield ledger, folder
