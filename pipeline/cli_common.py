"""What the commands share: options, the stream for messages, and how facts are printed."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

__all__ = [
    "Out",
    "Summarise",
    "TextOrJson",
    "Workers",
    "local",
    "messages",
    "pairs",
    "print_facts",
    "print_json",
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
        table.add_row(key.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value))
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
