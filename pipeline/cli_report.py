"""`lightmill report`: one self-contained page about a catalogue, or about a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lightmill.pipeline.cli_common import TextOrJson, local, print_json

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Give the command line its `report`."""
    app.command()(report)


def report(
    catalogue: Annotated[
        str,
        typer.Argument(
            metavar="CATALOGUE|RUN", help="Classification catalogue, local; or CATALOGUE/runs/ID."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            callback=local,
            help="HTML file (default: in the catalogue, report.html or reports/ID.html).",
        ),
    ] = None,
    release: Annotated[
        str | None, typer.Option(help="Of a catalogue: where the light curves are now, if they moved.")
    ] = None,
    form: Annotated[
        TextOrJson | None,
        typer.Option("--format", help="Of a run: json prints the facts, and writes a page only with --out."),
    ] = None,
) -> None:
    """Write one self-contained HTML page, with pictures, about a catalogue or about one of its runs.

    Example: `lightmill report catalogue --out report.html`

    Example: `lightmill report catalogue/runs/20261128T101500-1a2b3c`
    """
    from lightmill.pipeline.report_units import is_run

    as_json = form is TextOrJson.json
    if is_run(catalogue):
        if release is not None:
            raise typer.BadParameter("--release is for the light curves of a catalogue, and a run shows none")
        _report_run(catalogue, out, as_json)
        return
    if as_json:
        raise typer.BadParameter(f"--format json is for a run, and {catalogue} is none: it has no run.json")
    from lightmill.pipeline.report import report as write

    typer.echo(str(write(Path(catalogue), out, release=release)))


def _report_run(place: str, out: Path | None, as_json: bool) -> None:
    from dataclasses import asdict

    from lightmill.pipeline.report_units import account, run_folder

    folder = run_folder(place)
    if out is not None or not as_json:
        from lightmill.pipeline.report_units_page import report_run

        page = report_run(folder, out)
        if not as_json:
            typer.echo(str(page))
    if as_json:
        print_json(asdict(account(folder)))
