"""`lightmill diff`: what has changed from one version of a catalogue to another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from lightmill.pipeline.cli_common import Summarise, TextOrJson, local, messages, print_json

if TYPE_CHECKING:
    from lightmill.pipeline.compare import Comparison

__all__ = ["register"]

WIDE = 250  #: as wide as a table needs to be: a line that a terminal folds can still be read


def register(app: typer.Typer) -> None:
    """Give the command line its `diff`."""
    app.command()(diff)


def diff(
    first: Annotated[
        str,
        typer.Argument(metavar="V1", help="Version: its folder, a catalogue (its current), CATALOGUE@NAME."),
    ],
    second: Annotated[str, typer.Argument(metavar="V2", help="The one to compare with it.")],
    html: Annotated[
        Path | None, typer.Option("--html", callback=local, help="Write a page with pictures too.")
    ] = None,
    memory: Annotated[str, typer.Option(help="To take at most; the rest goes to disk ($TMPDIR).")] = "1GB",
    form: Summarise = TextOrJson.table,
) -> None:
    """Compare two versions light curve by light curve: classes, probabilities, periods, new and lost.

    Example: `lightmill diff catalogue@v1 catalogue@v2 --html changes.html`
    """
    from dataclasses import asdict

    from lightmill.pipeline.compare import compare

    found = compare(first, second, memory=memory)
    if html is not None:
        from lightmill.pipeline.compare_page import write_page

        messages.print(f"page: {write_page(found, html)}", markup=False, soft_wrap=True)
    if form is TextOrJson.json:
        print_json(asdict(found))
        return
    _print(found)


def _print(found: Comparison) -> None:
    console = Console(width=WIDE, highlight=False)
    for label, side in (("first", found.first), ("second", found.second)):
        bundles = ", ".join(side["bundles"]) or "none"
        console.print(
            f"{label}: {side['name']} at {side['url']}, {side['rows']:,} rows, bundle {bundles}, "
            f"{len(side['runs'])} runs",
            markup=False,
        )
    share = "" if found.share_changed is None else f" ({100 * found.share_changed:.3g} %)"
    console.print(
        f"\nin both {found.both:,}; new {_reasons(found.new, found.new_reasons)}; "
        f"lost {_reasons(found.lost, found.lost_reasons)}; class changed {found.changed:,}{share}",
        markup=False,
    )
    for label, only in (("first", found.only_first), ("second", found.only_second)):
        if only:
            console.print(f"classes of the {label} alone: {', '.join(only)}")
    if not found.both:
        return
    table = Table("class, first", *found.classes, title="rows by class in the second", box=None)
    for name, row in zip(found.classes, found.migration, strict=True):
        table.add_row(name, *(f"{n:,}" if n else "·" for n in row))
    console.print(table)
    if found.moves:
        table = Table("from", "to", "rows", "examples", title="largest changes", box=None)
        for move in found.moves:
            table.add_row(move.first, move.second, f"{move.rows:,}", ", ".join(map(str, move.examples)))
        console.print(table)
    heads = [f"{q} %" for q in ("1", "16", "50", "84", "99")]
    table = Table(
        "class", "mean", "σ", *heads, "|Δ| > 0.1", title="probability, second minus first", box=None
    )
    for name, shift in found.shifts.items():
        if shift.rows:
            values = (shift.mean, shift.std, *shift.percentiles.values(), shift.large)
            table.add_row(name, *(f"{value:.4f}" for value in values))
    console.print(table)
    periods = ", ".join(f"{name.replace('_', ' ')} {n:,}" for name, n in found.periods.items())
    console.print(f"periods: {periods}")


def _reasons(n: int, reasons: dict[str, int]) -> str:
    return f"{n:,}" + (f" ({', '.join(f'{k:,} {why}' for why, k in reasons.items())})" if reasons else "")
