"""`lightmill audit` and `lightmill drift`: where a bundle is worse than elsewhere, and how two catalogues differ."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from lightmill.pipeline.cli_common import Summarise, TextOrJson, messages, pairs, print_json

__all__ = ["register"]

WIDE = 250  #: as wide as a table needs to be: a line that a terminal folds can still be read


def register(app: typer.Typer) -> None:
    """Give the command line its `audit` and `drift`."""
    app.command()(audit)
    app.command()(drift)


def audit(
    bundle: Annotated[str, typer.Argument(help="Bundle, by name or path.")],
    labels: Annotated[Path, typer.Option(help="Labelled light curves.")],
    rename: Annotated[
        list[str] | None, typer.Option("--map", metavar="A=B", help="Take label A of the table for class B.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Only these classes; may be given several times.")
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(help="Some of magnitude,b,epochs,amplitude,band (default: all)."),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Recipe for layout and cuts (default: the bundle's name).")
    ] = None,
    by_class: Annotated[
        bool, typer.Option("--by-class", help="Tables of recall, precision and shares of each class too.")
    ] = False,
    form: Summarise = TextOrJson.table,
) -> None:
    """Measure a bundle by magnitude, galactic latitude, epochs, amplitude and band, with intervals.

    A star marks what differs from the other rows by more than chance, and by more than its mix of classes explains.

    Example: `lightmill audit crts-7 --labels stars.parquet --map beta_lyrae=EW --only EW,EA,RRab --by magnitude,b`
    """
    from lightmill.pipeline.audit import audit as measure
    from lightmill.pipeline.conditions import AXES

    found = measure(
        bundle, labels, aliases=pairs(rename or []), only=_words(only) or None, recipe=recipe, by=_words(by) or AXES
    )  # fmt: skip
    if found["trained_on_these"]:
        messages.print(
            f"{bundle} was trained on this very file: the figures flatter; its card has those of held-out folds"
        )
    if form is TextOrJson.json:
        print_json(found)
        return
    _print_audit(found, by_class)


def drift(
    catalogue_a: Annotated[str, typer.Argument(help="Classification catalogue: path or fsspec URL.")],
    catalogue_b: Annotated[str, typer.Argument(help="The one to compare with it.")],
    form: Summarise = TextOrJson.table,
) -> None:
    """Compare two catalogues: stability index and effect size of every column, and of the mix of classes.

    Example: `lightmill drift catalogue-dr22 catalogue-dr23`
    """
    from lightmill.pipeline.drift import drift as compare

    found = compare(catalogue_a, catalogue_b)
    if form is TextOrJson.json:
        print_json(found)
        return
    _print_drift(found)


def _words(given: list[str] | None) -> list[str]:
    """Words of an option that may be given several times, and with commas."""
    return [word.strip() for text in given or [] for word in text.split(",")]


def _print_audit(found: dict[str, Any], by_class: bool) -> None:
    console, whole, smallest = Console(width=WIDE, highlight=False), found["whole"], found["smallest"]
    console.print(
        f"n {found['n']:,}, accuracy {_share(whole['accuracy'])}, ECE {_share(whole['ece'])}; smallest cell: "
        f"{smallest['axis']} {smallest['cell']}, n {smallest['n']:,}"
    )
    for name, axis in found["axes"].items():
        console.print(f"\nby {name}: smallest cell {axis['smallest']['cell']}, n {axis['smallest']['n']:,}")
        table = Table("cell", "n", "accuracy", "by its classes", "p", "ECE", "recall differs", box=None)
        for cell in axis["cells"]:
            table.add_row(
                cell["cell"],
                f"{cell['n']:,}",
                _share(cell["accuracy"]),
                _figure(cell["accuracy"]["expected"]),
                "" if cell["accuracy"]["p"] is None else f"{cell['accuracy']['p']:.1g}",
                _share(cell["ece"]),
                ", ".join(
                    f"{leaf} {_figure(row['recall']['value'])} of {row['recall']['n']}"
                    for leaf, row in cell["per_class"].items()
                    if row["recall"]["differs"]
                ),
            )
        console.print(table)
        if by_class:
            for measure in ("recall", "precision", "share_predicted", "share_true"):
                _print_grid(console, measure, [whole, *axis["cells"]], found["classes"])
    Console(highlight=False).print(f"\n* {found['method']}", markup=False)


def _print_grid(console: Console, measure: str, cells: list[dict[str, Any]], classes: list[str]) -> None:
    table = Table(measure.replace("_", " "), *classes, box=None)
    for cell in cells:
        table.add_row(cell["cell"], *(_share(cell["per_class"][leaf][measure]) for leaf in classes))
    console.print(table)


def _share(row: dict[str, Any]) -> str:
    """Value and interval, with a star where it is marked."""
    if row["value"] is None:
        return "-"
    return f"{row['value']:.3f} ({row['low']:.3f}–{row['high']:.3f}){'*' if row.get('differs') else ''}"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _print_drift(found: dict[str, Any]) -> None:
    console = Console(width=WIDE, highlight=False)
    for side in ("a", "b"):
        console.print(f"{side}: {found[side]['catalogue']}, {found[side]['rows']:,} rows", markup=False)
    heads = ("mean", "median", "missing")
    table = Table(
        "column", "PSI", "by chance", "change", "d", *(f"{x} {s}" for x in heads for s in "ab"), box=None
    )
    for name, row in sorted(found["columns"].items(), key=lambda item: -item[1]["psi"]):
        middles = [(row[s]["percentiles"] or {}).get("p50") for s in "ab"]
        table.add_row(
            name, *_change(row), "-" if row["d"] is None else f"{row['d']:+.3f}",
            *(_number(row[s]["mean"]) for s in "ab"), *map(_number, middles),
            *(f"{row[s]['missing']:,}" for s in "ab"),
        )  # fmt: skip
    console.print(table)
    mix = found["classes"]
    psi, chance, change = _change(mix)
    console.print(f"\nclasses: PSI {psi}, by chance {chance}, change {change}, V {mix['v']:.3f}")
    table = Table("best class", "a", "b", "share a", "share b", box=None)
    for name in mix["a"] | mix["b"]:
        rows = [mix[s].get(name, 0) for s in "ab"]
        shares = [n / found[s]["rows"] for n, s in zip(rows, "ab", strict=True)]
        table.add_row(name, *(f"{n:,}" for n in rows), *(f"{share:.4f}" for share in shares))
    console.print(table)
    for side in ("a", "b"):
        if found[f"only_{side}"]:
            console.print(f"only in {side}: {', '.join(found[f'only_{side}'])}")
    Console(highlight=False).print(f"\n{found['method']}", markup=False)


def _change(row: dict[str, Any]) -> tuple[str, str, str]:
    return f"{row['psi']:.3f}", f"{row['by_chance']:.3f}", row["change"]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
