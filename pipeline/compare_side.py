"""One side of a comparison: a published version, wherever it lies, and what is known of how it was made."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
from upath import UPath

from lightmill.catalogs import storage
from lightmill.catalogs.partitions import HatsTable, open_hats
from lightmill.catalogs.query import leaves_of
from lightmill.catalogs.versions import published_at

__all__ = ["CompareError", "Side", "open_side", "text"]

PROVENANCE = "lightmill_"  #: how keys of hats.properties begin that we have written
LONG = ("records", "partitions")  #: fields of version.json that grow with runs and partitions


class CompareError(ValueError):
    """What was given cannot be compared."""


@dataclass(frozen=True)
class Side:
    """A version of a classification catalogue."""

    url: str  #: as it was given
    table: HatsTable
    leaves: tuple[str, ...]  #: classes that it has probabilities for

    @cached_property
    def rows_files(self) -> tuple[str, ...]:
        """Parquet files of the rows, as DuckDB takes them."""
        return tuple(url for partition in self.table.partitions() for url in partition.urls)

    @cached_property
    def rejected_files(self) -> tuple[str, ...]:
        """Parquet files of the light curves that were not classified; none where they are not listed."""
        root: Any = self.table.root
        if not storage.is_local(root):
            return tuple(str(path) for path, _ in storage.files(root.parent / "rejected", ".parquet"))
        return tuple(str(path) for path, _ in storage.files(Path(root.parent.path) / "rejected", ".parquet"))

    def register(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Let DuckDB read through fsspec where the version is not local."""
        known = connection.list_filesystems()
        if self.table.root.protocol not in ("", "file", "local", *known):
            connection.register_filesystem(self.table.root.fs)

    def facts(self) -> dict[str, Any]:
        """Name, and what hats.properties and version.json say."""
        found: dict[str, Any] = {"url": self.url, "name": self.name}
        properties = dict(self.table.catalog.catalog_info.__pydantic_extra__ or {})
        found["properties"] = {
            key: str(value) for key, value in sorted(properties.items()) if key.startswith(PROVENANCE)
        }
        created = getattr(self.table.catalog.catalog_info, "hats_creation_date", None)
        found["created"] = str(created or properties.get("hats_creation_date") or "")
        found["version"] = {key: value for key, value in self.record.items() if key not in LONG}
        return found

    @property
    def name(self) -> str:
        """Of the catalogue and, where it is known, of the version."""
        version = str(self.record.get("name") or "")
        return " ".join(dict.fromkeys((self.table.name, version))).strip()

    @cached_property
    def record(self) -> dict[str, Any]:
        """Content of version.json; empty without one."""
        return _json(self.table.root.parent / "version.json")

    def run_facts(self, run_id: str) -> dict[str, Any]:
        """What is recorded of a run, in short: in version.json, or in the catalogue; empty where neither has it."""
        record = (self.record.get("records") or {}).get(run_id) or _json(
            self.table.root.parent.parent.parent / "runs" / run_id / "run.json"
        )
        recipe = record.get("recipe") or {}
        facts = {
            "created": record.get("created"),
            "release": record.get("release"),
            "recipe": recipe.get("name") if isinstance(recipe, dict) else None,
            "models": record.get("models"),
            "versions": record.get("versions"),
            "code": record.get("code"),
        }
        return {key: value for key, value in facts.items() if value}


def open_side(url: str) -> Side:
    """Open a version: its folder, a catalogue (its current version), or CATALOGUE@NAME.

    Raises
    ------
    NotHats
        if there is none.
    CompareError
        if it is a HATS catalogue without classes.
    """
    table = open_hats(published_at(url))
    leaves = leaves_of(table.schema())
    if not leaves:
        raise CompareError(f"{url} is not a classification catalogue: it has no columns p_<class>")
    return Side(url, table, leaves)


def text(value: str) -> str:
    """An SQL string literal."""
    return "'" + value.replace("'", "''") + "'"


def _json(path: UPath) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
