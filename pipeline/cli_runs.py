"""`lightmill runs`, `status` and `quarantine`: what operators see of runs, and let go again."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from lightmill.pipeline.cli_common import Summarise, TextOrJson, local, messages, print_json
from lightmill.pipeline.cli_ledger import Catalogue, LedgerUrl
from lightmill.pipeline.metrics import METRICS

__all__ = ["register"]

REFRESH = 2.0  #: seconds: as often as a driver speaks
WIDE = 250  #: as wide as a table needs to be: a line that a terminal folds can still be read

quarantine_app = typer.Typer(
    no_args_is_help=True,
    help="Partitions that no run tries again until they change or are released.\n\n"
    "Example: `lightmill quarantine list catalogue`",
)


def register(app: typer.Typer) -> None:
    """Give the command line its `runs`, `status` and `quarantine`."""
    app.command()(runs)
    app.command(help=_with_metrics(status.__doc__ or ""))(status)
    app.add_typer(quarantine_app, name="quarantine")


def _with_metrics(text: str) -> str:
    """A help text that names the metrics too."""
    lines = "\n".join(f"* `{name}`: {told}" for name, told in METRICS.items())
    return f"{cleandoc(text)}\n\nMetrics of --prometheus, each with the label run_id:\n\n{lines}\n"


def runs(
    catalogue: Annotated[
        str | None,
        typer.Argument(help="Catalogue of runs: path or fsspec URL (default: all that the ledger knows)."),
    ] = None,
    ledger: LedgerUrl = None,
    form: Summarise = TextOrJson.table,
) -> None:
    """List runs, the newest first: state, units, light curves, rate, when; from the ledger if one is named.

    Example: `lightmill runs catalogue`

    Example: `lightmill runs --ledger postgresql://archive@db/lightmill --format json`
    """
    from lightmill.catalogs.ledger_place import VARIABLE
    from lightmill.pipeline.listing import runs_of_files, runs_of_ledger

    if ledger or os.environ.get(VARIABLE):
        found = runs_of_ledger(ledger, catalogue)
    elif catalogue is not None:
        found = runs_of_files(catalogue)
    else:
        raise typer.BadParameter(f"say whose: give CATALOGUE, or a ledger by --ledger or {VARIABLE}")
    if form is TextOrJson.json:
        print_json([asdict(run) for run in found])
        return
    table = Table("run", "state", "recipe", "bundle", box=None)
    for name in ("units", "done", "failed", "quarantined", "light curves", "per second"):
        table.add_column(name, justify="right")
    for name in ("created", "ended", *([] if catalogue else ["catalogue"])):
        table.add_column(name)
    for run in found:
        numbers = (run.units, run.done, run.failed, run.quarantined, run.light_curves)
        table.add_row(
            run.run_id, run.state, run.recipe, run.bundle[:8], *(f"{n:,}" for n in numbers),
            "" if run.rate is None else f"{run.rate:,.0f}", run.created[:19], (run.ended or "")[:19],
            *([] if catalogue else [run.catalogue]),
        )  # fmt: skip
    Console(width=WIDE, markup=False, highlight=False).print(table)
    for run in found:
        if run.trouble:
            messages.print(f"{run.run_id}: {run.trouble}", markup=False, soft_wrap=True)


def status(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="Folder of a run; a catalogue, for its newest; or the id of one in the ledger.",
        ),
    ],
    ledger: LedgerUrl = None,
    once: Annotated[bool, typer.Option("--once", help="Print once, on a terminal too.")] = False,
    prometheus: Annotated[
        Path | None,
        typer.Option(
            "--prometheus",
            metavar="FILE",
            callback=local,
            help="Write the metrics named above too, for node_exporter's textfile collector.",
        ),
    ] = None,
    form: Summarise = TextOrJson.table,
) -> None:
    """Show how far a run is: units by state, rate, time left, slowest units, failures by class, memory.

    On a terminal until it ends, or Ctrl-C; elsewhere once. A run whose driver is gone is "killed": the same command
    goes on. One whose driver has said nothing for a minute is "silent".

    Example: `lightmill status catalogue`

    Example: `lightmill status catalogue --once --prometheus /var/lib/node_exporter/lightmill.prom`
    """
    from lightmill.pipeline.prometheus import write_exposition
    from lightmill.pipeline.status import Status, find_run, read_status
    from lightmill.pipeline.status_page import page

    folder = find_run(run, ledger)

    def look() -> Status:
        found = read_status(folder)
        if prometheus is not None:
            write_exposition(prometheus, found)
        return found

    found = look()
    if form is TextOrJson.json:
        print_json(asdict(found) | {"waiting": found.waiting})
        return
    console = Console(markup=False, highlight=False)
    if once or not console.is_terminal:
        console.print(page(found))
        return
    try:
        with Live(page(found), console=console, auto_refresh=False) as live:
            while found.is_under_way:
                time.sleep(REFRESH)
                found = look()
                live.update(page(found), refresh=True)
    except KeyboardInterrupt:
        messages.print("the run goes on")


@quarantine_app.command("list")
def list_command(catalogue: Catalogue, form: Summarise = TextOrJson.table) -> None:
    """List the partitions in quarantine, and why they are.

    Example: `lightmill quarantine list catalogue --format json`
    """
    from lightmill.catalogs.runfolder import CatalogueFolder

    folder = CatalogueFolder.at(catalogue)
    folder.must_have_runs()
    found = [record for _, record in sorted(folder.quarantined().items())]
    if form is TextOrJson.json:
        print_json([asdict(record) for record in found])
        return
    table = Table("partition", "class", "attempts", "since", "run", "error", box=None)
    for one in found:
        table.add_row(
            f"{one.order}/{one.pixel}",
            one.error_class,
            str(one.attempts),
            one.since[:19],
            one.run_id,
            one.error,
        )
    Console(width=WIDE, markup=False, highlight=False).print(table)


@quarantine_app.command()
def release(
    catalogue: Catalogue,
    partitions: Annotated[
        list[str] | None,
        typer.Argument(metavar="ORDER/PIXEL…", help="Which, as `quarantine list` names them."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    form: Summarise = TextOrJson.table,
) -> None:
    """Let the next run try partitions again. Exit code 1: one that was named was not in quarantine.

    Example: `lightmill quarantine release catalogue 5/1234 5/1240`
    """
    from lightmill.catalogs.runfolder import CatalogueFolder

    if everything == bool(partitions):
        raise typer.BadParameter("give partitions as ORDER/PIXEL, or --all")
    folder = CatalogueFolder.at(catalogue)
    folder.must_have_runs()
    keys = sorted(folder.quarantined()) if everything else [_partition(text) for text in partitions or []]
    done = {key: folder.release(*key) for key in keys}
    released = [f"{order}/{pixel}" for (order, pixel), found in done.items() if found]
    missing = [f"{order}/{pixel}" for (order, pixel), found in done.items() if not found]
    if form is TextOrJson.json:
        print_json({"released": released, "not_in_quarantine": missing})
    else:
        typer.echo(f"{len(released)} released{': ' if released else ''}{' '.join(released)}")
        for name in missing:
            messages.print(f"{name} was not in quarantine", markup=False)
    if missing:
        raise typer.Exit(1)


def _partition(text: str) -> tuple[int, int]:
    """`5/1234`, or as HATS has it, `Norder=5/Npix=1234`."""
    parts: list[Any] = text.removeprefix("Norder=").replace("Npix=", "").split("/")
    try:
        order, pixel = (int(part) for part in parts)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not ORDER/PIXEL, for example 5/1234") from error
    return order, pixel
