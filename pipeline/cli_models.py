"""`lightmill models`: list, show, verify, promote, and print the card of the models at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from lightmill.pipeline.cli_common import Summarise, TextOrJson, messages, print_json

__all__ = ["register"]

SHOWN = 8  #: of a list of values; a table tells only how many there are of a longer one

models_app = typer.Typer(
    no_args_is_help=True,
    help="The models at hand: those that ship, and those promoted into the store ($LIGHTMILL_MODELS).\n\n"
    "Example: `lightmill models list`",
)

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Name, name with digest (ztf-dr-0123abcd), or folder.")
]


def register(app: typer.Typer) -> None:
    """Give the command line its `models`."""
    app.add_typer(models_app, name="models")


@models_app.command("list")
def list_command(form: Summarise = TextOrJson.table) -> None:
    """List the models that ship and those of the store; a star marks what a name means.

    Example: `lightmill models list --format json`
    """
    from lightmill.models.inventory import models

    found = models()
    if form is TextOrJson.json:
        print_json([asdict(model) for model in found])
        return
    table = Table("", "name", "digest", "kind", "classes", "macro-F1", "from", "folder", box=None)
    for model in found:
        table.add_row(
            "*" if model.current else "",
            model.name,
            model.digest[:8],
            model.kind,
            str(len(model.classes) or ""),
            "" if model.macro_f1 is None else f"{model.macro_f1:.3f}",
            model.source,
            model.folder,
        )
    Console(width=250, markup=False).print(table)
    for model in found:
        if model.problem:
            messages.print(model.problem, markup=False, soft_wrap=True)


@models_app.command()
def show(name: Name, form: Summarise = TextOrJson.table) -> None:
    """Show what a model's manifest says: classes, grid, parts, training, metrics.

    Example: `lightmill models show ztf-dr`
    """
    from lightmill.models.inventory import facts

    found = facts(name)
    if form is TextOrJson.json:
        print_json(found)
        return
    table = Table(show_header=False, box=None)
    for key, value in _flat(found):
        table.add_row(key, value)
    Console(width=160, markup=False).print(table)


@models_app.command()
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME…", help="Names or folders (default: all at hand).")
    ] = None,
    golden: Annotated[bool, typer.Option(help="Load each too, and compare its golden answers.")] = True,
    form: Summarise = TextOrJson.table,
) -> None:
    """Compare every file of models with its sha256, and their answers with the golden ones.

    Exit code 1: at least one is not as it should be.

    Example: `lightmill models verify ztf-dr crts-7`
    """
    from lightmill.models.inventory import models
    from lightmill.models.inventory import verify as check

    found = [check(name, golden=golden) for name in names or [model.folder for model in models()]]
    if form is TextOrJson.json:
        print_json([asdict(one) for one in found])
    else:
        table = Table("name", "digest", "kind", "files", "bytes", "golden answers", "", box=None)
        for one in found:
            answers = "same" if one.golden else "not asked" if not golden else "no"
            verdict = "refused" if one.problem else "good"
            table.add_row(
                one.name, one.digest[:8], one.kind, str(one.files), f"{one.bytes:,}", answers, verdict
            )
        Console(width=250, markup=False).print(table)
    bad = [one for one in found if one.problem]
    for one in bad:
        messages.print(f"lightmill: {one.problem}", markup=False, soft_wrap=True)
    if bad:
        raise typer.Exit(1)


@models_app.command()
def card(name: Name) -> None:
    """Print the model card of a bundle, Markdown.

    Example: `lightmill models card ztf-dr`
    """
    from lightmill.models.inventory import card as text

    typer.echo(text(name), nl=False)


@models_app.command()
def promote(
    bundle: Annotated[
        str, typer.Argument(metavar="FOLDER", help="Bundle's folder, or an older one of the store by name.")
    ],
    name: Annotated[
        str | None, typer.Option("--as", help="Name to mean it (default: as before, or its own).")
    ] = None,
    undo: Annotated[
        bool, typer.Option("--undo", help="Take the last promotion of the name FOLDER back instead.")
    ] = False,
) -> None:
    """Verify a bundle, copy it into the store, and let its name mean it from now on; earlier ones stay.

    A catalogue that was begun with another bundle does not go on with this one: its rows carry the digest.

    Example: `lightmill models promote bundle --as ztf-dr`

    Example: `lightmill models promote --undo ztf-dr`
    """
    from lightmill.models import inventory

    if undo and name is not None:
        raise typer.BadParameter("--undo takes a name alone: lightmill models promote --undo NAME")
    now = inventory.undo(bundle) if undo else inventory.promote(bundle, name)
    if now is None:
        messages.print(f"{bundle} means no model any more", markup=False)
        return
    typer.echo(now.folder)
    messages.print(f"{now.name} is {now.name}-{now.digest[:8]} now", markup=False)


def _flat(facts: Mapping[str, Any], above: str = "") -> list[tuple[str, str]]:
    """Nested facts as lines: name with dots, and value in short."""
    lines: list[tuple[str, str]] = []
    for key, value in facts.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping):
            lines += _flat(value, f"{name}.") if value else [(name, "none")]
        else:
            lines.append((name, _short(value)))
    return lines


def _short(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    if not isinstance(value, Sequence) or isinstance(value, str):
        return str(value)
    if any(isinstance(one, Sequence | Mapping) and not isinstance(one, str) for one in value):
        return f"{len(value)} rows (--format json shows them)"
    if len(value) > SHOWN and not any(isinstance(one, str) for one in value):
        return f"{len(value)} values, {_short(value[0])} … {_short(value[-1])}"
    return ", ".join(map(_short, value)) or "none"
