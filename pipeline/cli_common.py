"""What the commands share: options, the stream for messages, and how facts are printed."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

# what a command needs beyond this is imported inside it
if TYPE_CHECKING:
    from lightmill.catalogs.partitions import Cone, Region

__all__ = [
    "BoxOption",
    "ConeOption",
    "LedgerOption",
    "MocOption",
    "Out",
    "Summarise",
    "TextOrJson",
    "Workers",
    "cone_of",
    "local",
    "messages",
    "pairs",
    "print_facts",
    "print_json",
    "region_of",
]

messages = Console(stderr=True, highlight=False)


class TextOrJson(StrEnum):
    """Output of commands that end with a summary."""

    table = "table"
    json = "json"


def local(out: Path | None) -> Path | None:
    """Refuse an address where a path of this machine is needed."""
    if out is not None and re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+:/", str(out)):
        raise typer.BadParameter(
            f"{out} is not on a file system of this machine: only releases are read from elsewhere"
        )
    return out


Out = Annotated[
    Path,
    typer.Option("--out", callback=local, help="Where to write; must not exist, or be this command's own."),
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="Worker processes (default: one a core).")
]
ConeOption = Annotated[
    str | None,
    typer.Option("--cone", metavar="RA,DEC,R", help="Only around a point; degrees, or R as 30arcsec."),
]
BoxOption = Annotated[
    str | None,
    typer.Option("--box", metavar="RA1,RA2,DEC1,DEC2", help="Only a zone; RA1 > RA2 crosses 0. Degrees."),
]
MocOption = Annotated[Path | None, typer.Option("--moc", help="Only a coverage map, FITS or JSON.")]
LedgerOption = Annotated[
    str | None,
    typer.Option(
        "--ledger",
        metavar="URL",
        help="Ledger (default: $LIGHTMILL_LEDGER, or a file beside the catalogue).",
    ),
]
Summarise = Annotated[TextOrJson, typer.Option("--format", help="How to print the summary.")]


def print_json(facts: object) -> None:
    """One JSON document on standard output."""
    typer.echo(json.dumps(facts, indent=1, default=str))


def print_facts(facts: dict[str, object], form: TextOrJson) -> None:
    """Names and values, as a table for people or as JSON."""
    if form is TextOrJson.json:
        print_json(facts)
        return
    table = Table(show_header=False, box=None)
    for key, value in facts.items():
        plain = {True: "yes", False: "no"}.get(value) if isinstance(value, bool) else None
        table.add_row(
            key.replace("_", " "), plain or (f"{value:,}" if isinstance(value, int) else str(value))
        )
    Console().print(table)


def pairs(texts: Sequence[str]) -> dict[str, str]:
    """`A=B` → {A: B}; anything else is wrong use."""
    found = {}
    for text in texts:
        a, equals, b = text.partition("=")
        if not (a and equals and b):
            raise typer.BadParameter(f"--map {text!r} is not A=B: label of the table = class of the bundle")
        found[a] = b
    return found


def cone_of(text: str) -> Cone:
    """`RA,DEC,R` → cone; anything else is wrong use."""
    from astropy.coordinates import Angle

    from lightmill.catalogs.partitions import Cone

    try:
        ra, dec, radius = (part.strip() for part in text.split(","))
        cone = Cone(float(ra) % 360, float(dec), float(Angle(radius, unit="deg").deg))
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is not ra,dec,radius in degrees, for example 210.5,-5.2,0.5"
        ) from error
    if not (abs(cone.dec) <= 90 and 0 < cone.radius <= 180):
        raise typer.BadParameter(
            f"declination must lie in ±90, radius in 0…180 degrees, got {cone.dec}, {cone.radius}"
        )
    return cone


def region_of(cone: str | None, box: str | None, moc: Path | None) -> Region | None:
    """The one of three options that was given, as a region of the sky; more than one is wrong use."""
    from lightmill.catalogs.partitions import Box

    if sum(given is not None for given in (cone, box, moc)) > 1:
        raise typer.BadParameter("give one of --cone, --box and --moc")
    if cone is not None:
        return cone_of(cone)
    if moc is not None:
        from mocpy import MOC

        try:
            return MOC.load(moc, format="json" if moc.suffix == ".json" else "fits")
        except (OSError, ValueError) as error:
            raise typer.BadParameter(f"{moc} is not a coverage map in FITS or JSON: {error}") from error
    if box is None:
        return None
    try:
        ra1, ra2, dec1, dec2 = (float(part) for part in box.split(","))
    except ValueError as error:
        raise typer.BadParameter(
            f"{box!r} is not ra1,ra2,dec1,dec2 in degrees, for example 350,10,-5,5"
        ) from error
    if not -90 <= dec1 < dec2 <= 90:
        raise typer.BadParameter(f"declinations must increase within ±90, got {dec1} and {dec2}")
    return Box((ra1, ra2), (dec1, dec2))
