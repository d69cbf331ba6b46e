"""`lightmill labels` and `lightmill candidates`: labels of several people in, what to label next out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from lightmill.pipeline.cli_common import Summarise, TextOrJson, local, messages, pairs, print_json

if TYPE_CHECKING:
    from lightmill.pipeline.labelling import Labelling

__all__ = ["register"]

SHOWN = 10  #: annotators in a table; JSON has all
IN_A_TABLE = (
    "rank",
    "picked_by",
    "why",
    "objectid",
    "ra",
    "dec",
    "filterid",
    "n_good",
    "best_class",
    "best_prob",
)


class Criterion(StrEnum):
    """By what `candidates` picks."""

    mixed = "mixed"
    uncertainty = "uncertainty"
    novelty = "novelty"
    balance = "balance"


class Form(StrEnum):
    """Output of `candidates`."""

    table = "table"
    json = "json"
    csv = "csv"


def register(app: typer.Typer) -> None:
    """Give the command line its `labels` and `candidates`."""
    app.command()(labels)
    app.command()(candidates)


def labels(
    votes: Annotated[
        list[Path], typer.Argument(metavar="VOTES…", help="CSV or Parquet: a row a vote, or counts by class.")
    ],
    light_curves: Annotated[Path, typer.Option(help="Parquet file with the objects' light curves.")],
    out: Annotated[
        Path, typer.Option("--out", callback=local, help="Labelled table to write; must not exist.")
    ],
    min_votes: Annotated[int, typer.Option(min=1, help="Votes that an object needs.")] = 3,
    min_agreement: Annotated[
        float, typer.Option(min=0, max=1, help="Share of them that its label needs.")
    ] = 0.6,
    rename: Annotated[
        list[str] | None, typer.Option("--map", metavar="A=B", help="Take label A for class B.")
    ] = None,
    abstain: Annotated[
        list[str] | None, typer.Option(help="Label that names no class, such as unsure: not counted.")
    ] = None,
    identifier: Annotated[str | None, typer.Option("--id", help="Column of the object.")] = None,
    annotator: Annotated[str | None, typer.Option(help="Column of who voted.")] = None,
    label: Annotated[str | None, typer.Option(help="Column of the label.")] = None,
    time: Annotated[str | None, typer.Option(help="Column of when: of one's votes the last counts.")] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(help="Column of a table of counts that is none.")
    ] = None,
    recipe: Annotated[str, typer.Option(help="Recipe for layout and bad flags.")] = "ztf-dr",
    form: Summarise = TextOrJson.table,
) -> None:
    """Make a labelled table of people's votes: what a majority agrees on, with its light curves.

    Each person's last vote on an object counts. The label is the class with most votes; an object is left out for too
    few votes, a tie, too little agreement, or for want of a light curve, and counted.

    Example: `lightmill labels votes.csv --light-curves stars.parquet --out labelled.parquet --map beta_lyrae=EW`
    """
    from lightmill.pipeline.ballots import Columns
    from lightmill.pipeline.labelling import label as make
    from lightmill.pipeline.recipe import load_recipe

    used = load_recipe(recipe)
    done = make(
        votes,
        light_curves,
        out,
        columns=Columns(identifier, annotator, label, time, tuple(ignore or ())),
        aliases=pairs(rename or []),
        abstain=abstain or (),
        min_votes=min_votes,
        min_agreement=min_agreement,
        layouts=used.layout.choices(),
        bad_flags=used.clean.bad_flags,
    )
    if form is TextOrJson.json:
        print_json(asdict(done))
    else:
        _print_labelling(done)


def candidates(
    catalogue: Annotated[str, typer.Argument(help="Classification catalogue: path or fsspec URL.")],
    n: Annotated[int, typer.Option("--n", min=1, max=100_000, help="How many to pick.")] = 100,
    by: Annotated[Criterion, typer.Option(help="By what; mixed: a third of each.")] = Criterion.mixed,
    exclude: Annotated[
        Path | None, typer.Option(help="Table of what is labelled already: CSV or Parquet with identifiers.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Which of equals comes first.")] = 0,
    form: Annotated[Form, typer.Option("--format", help="What to print.")] = Form.table,
    out: Annotated[
        Path | None,
        typer.Option("--out", callback=local, help="Write to a file instead of standard output."),
    ] = None,
) -> None:
    """Pick the light curves to label next: the least certain, the most novel, or of each class alike.

    Example: `lightmill candidates catalogue --n 200 --by mixed --exclude labelled.parquet --format csv --out next.csv`
    """
    from lightmill.catalogs.formats import encode
    from lightmill.pipeline.picking import pick

    if form is Form.table and out is not None:
        raise typer.BadParameter("a table is for reading: choose --format json or csv for --out")
    found = pick(catalogue, n, by=by.value, exclude=exclude, seed=seed)
    for note in found.notes:
        messages.print(note, markup=False, soft_wrap=True)
    if form is Form.table:
        _print_rows(IN_A_TABLE, found.rows.select(IN_A_TABLE).to_pylist())
        return
    data = encode(found.rows, form.value)
    if out is None:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
    else:
        out.write_bytes(data)
        messages.print(f"{len(found.rows)} rows written to {out}", markup=False)


def _print_labelling(done: Labelling) -> None:
    kappa = "not defined" if done.fleiss_kappa is None else f"{done.fleiss_kappa:.3f}"
    table = Table(show_header=False, box=None)
    for key, text in (
        ("objects", f"{done.objects:,}"),
        ("labelled", f"{done.labelled:,}: {_counts(done.classes)}"),
        ("left out", f"{sum(done.left_out.values()):,}: {_counts(done.left_out)}"),
        ("votes", f"{done.votes:,} counted, {done.repeated:,} repeated, {done.abstained:,} abstained"),
        ("Fleiss' kappa", kappa),
        ("written", done.out),
    ):
        table.add_row(key, text)
    Console(markup=False).print(table)
    if not done.annotators:
        return
    rows = [
        one | {"agreement": "" if one["agreement"] is None else f"{one['agreement']:.3f}"}
        for one in done.annotators[:SHOWN]
    ]
    _print_rows(("annotator", "votes", "agreed", "agreement"), rows)
    if len(done.annotators) > SHOWN:
        messages.print(f"the first {SHOWN} of {len(done.annotators)} annotators; --format json has all")


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{n:,} {name}" for name, n in counts.items()) or "none"


def _print_rows(names: Sequence[str], rows: Sequence[dict[str, object]]) -> None:
    table = Table(*names, box=None)
    for row in rows:
        table.add_row(*(_cell(row[name]) for name in names))
    Console(width=250, markup=False).print(table)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.5f}" if abs(value) >= 10 else f"{value:.4g}"
    return "" if value is None else str(value)
