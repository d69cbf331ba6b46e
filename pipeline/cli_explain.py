"""`lightmill explain`: what the experts of a bundle looked at, or look for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lightmill.pipeline.cli_common import Summarise, TextOrJson, local, messages, print_json

if TYPE_CHECKING:
    from lightmill.pipeline.explain import Explained, Overview

__all__ = ["register"]

SHOWN = 3  #: features that are named in the table


def register(app: typer.Typer) -> None:
    """Give the command line its `explain`."""
    app.command()(explain)


def explain(
    bundle: Annotated[str, typer.Argument(help="Bundle, by name or path.")],
    release: Annotated[
        str | None, typer.Argument(help="HATS catalogue of light curves: path or fsspec URL.")
    ] = None,
    identifiers: Annotated[
        list[str] | None,
        typer.Option("--id", metavar="OBJECTID", help="A light curve; may be given several times."),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Recipe for layout, cuts and period (default: the bundle's own).")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", callback=local, help="HTML file: one page with pictures.")
    ] = None,
    form: Summarise = TextOrJson.table,
) -> None:
    """Show what each expert looked at in light curves; without --id, what the bundle looks for.

    Saliency and class maps of networks, SHAP values of trees: for the most probable class, and rather than the second.

    Example: `lightmill explain ztf-dr release --id 686103400067717 --out why.html`

    Example: `lightmill explain ztf-dr --out looks-for.html`
    """
    if bool(release) != bool(identifiers):
        raise typer.BadParameter(
            "give RELEASE and --id OBJECTID of light curves in it, or neither for the bundle alone"
        )
    if out is not None and out.is_dir():
        raise typer.BadParameter(f"{out} is a folder: give the name of an HTML file")
    if release and identifiers:
        _light_curves(bundle, release, identifiers, recipe, out, form)
    else:
        _bundle(bundle, out, form)


def _light_curves(
    bundle: str, release: str, identifiers: list[str], recipe: str | None, out: Path | None, form: TextOrJson
) -> None:
    from lightmill.pipeline.explain import explain as ask

    found = ask(bundle, release, identifiers, recipe=recipe)
    for name, reason in found.missing.items():
        messages.print(f"{name}: {reason}", markup=False, soft_wrap=True)
    if out is not None:
        from lightmill.pipeline.explain_page import page

        _write(out, page(found))
    if form is TextOrJson.json:
        from lightmill.pipeline.explain_json import as_json

        print_json(as_json(found))
        return
    table = Table(
        "id", "class", "probability", "second", "novelty", "period", "by expert", "speaks most", box=None
    )
    for one in found.found:
        table.add_row(*_row(one, found.bundle.classes, found.bundle.manifest.features))
    # as wide as it needs to be: a line that a terminal folds can still be read
    Console(width=250, highlight=False).print(table)


def _bundle(bundle: str, out: Path | None, form: TextOrJson) -> None:
    from lightmill.pipeline.explain import overview

    found = overview(bundle)
    if out is not None:
        from lightmill.pipeline.explain_page import overview_page

        _write(out, overview_page(found))
    if form is TextOrJson.json:
        from lightmill.pipeline.explain_json import overview_as_json

        print_json(overview_as_json(found))
        return
    _print_overview(found)


def _row(one: Explained, classes: tuple[str, ...], features: tuple[str, ...]) -> tuple[str, ...]:
    (best, probability), (second, its) = one.ranked[:2]
    speaks = []
    for look in one.looks:
        if "features" in look.speaks:
            order = (-abs(look.speaks["features"])).argsort(kind="stable")[:SHOWN]
            speaks += [f"{features[i]} {look.speaks['features'][i]:+.2f}" for i in order]
    return (
        one.identifier,
        f"{best} (unclassified)" if one.unsure else best,
        f"{probability:.3f}",
        f"{second} {its:.3f}",
        "-" if one.novelty is None else f"{one.novelty:.3f}",
        "-" if one.period is None else f"{one.period:.6g}",
        ", ".join(f"{look.name} {classes[int(look.probabilities.argmax())]}" for look in one.looks),
        ", ".join(speaks),
    )


def _print_overview(found: Overview) -> None:
    console = Console(width=250, highlight=False)
    for name, one in found.liked.items():
        table = Table(f"{name}: likes best", "from", "to", box=None)
        for leaf, before, after in zip(found.bundle.classes, one.before, one.after, strict=True):
            table.add_row(leaf, f"{before:.3f}", f"{after:.3f}")
        console.print(table)
    from lightmill.pipeline.meanings import meaning

    for name, shares in found.used.items():
        table = Table(f"{name}: uses most", "share", "what it is", box=None)
        for feature, share in list(shares.items())[:10]:
            table.add_row(feature, f"{share:.3f}", escape(meaning(feature)))
        console.print(table)


def _write(out: Path, html: str) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(html, encoding="utf-8")
    messages.print(f"written to {out}", markup=False, soft_wrap=True)
