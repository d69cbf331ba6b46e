"""What the files of a catalogue say, as rows of the ledger's tables."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightmill.catalogs import ledger_rows as rows
from lightmill.catalogs.ledger_place import address
from lightmill.catalogs.receipts import FailedAttempt, Quarantined, Receipt
from lightmill.catalogs.runfolder import CatalogueFolder, NotAnOutput, RunFolder

__all__ = ["Recorded", "read_runs", "read_versions"]

Row = dict[str, Any]
RETRACTED = ".retracted.json"  #: in the folder of versions: those that were, by name
CURRENT = re.compile(r"^\s*hats_primary_table_url\s*=.*?versions/([^/\s]+)", re.MULTILINE)


@dataclass(frozen=True)
class Recorded:
    """A run, as its files have it."""

    folder: RunFolder
    facts: Row  #: run.json
    end: Row | None  #: end.json, None where there is none
    progress: Row | None  #: progress.json, likewise
    receipts: list[Receipt]
    failures: list[FailedAttempt]
    quarantined: list[Quarantined]  #: by this run

    @property
    def run_id(self) -> str:
        """Name of the run."""
        return self.folder.run_id

    def run(self) -> Row:
        """Of the table of runs.

        Raises
        ------
        KeyError
            if run.json lacks a field.
        """
        count = self.facts.get("units", len(self.receipts))
        found = rows.run_row(self.facts, address(self.folder.catalogue), count)
        if self.end is None:
            stopped = (self.progress or {}).get("state") == "stopped"
            return found | ({"state": "stopped"} if stopped else {})
        ended: Row = {"state": "stopped", "ended": None, "counts": {}} | self.end
        return found | {key: ended[key] for key in ("state", "ended", "counts")}

    def units(self) -> list[Row]:
        """Of the table of units, by partition."""
        given_up = (rows.unit_failed(self.run_id, f) for f in self.failures)
        failed = {_key(row): row for row in given_up if row is not None}
        kept_out = {r.key: rows.unit_quarantined(self.run_id, r) for r in self.quarantined}
        done = {r.key: rows.unit_done(self.run_id, r) for r in self.receipts}
        return [row for _, row in sorted((kept_out | failed | done).items())]

    def attempts(self) -> list[Row]:
        """Of the table of attempts."""
        return [rows.attempt_that_succeeded(self.run_id, r) for r in self.receipts] + [
            rows.attempt_that_failed(self.run_id, f) for f in self.failures
        ]


def read_runs(catalogue: CatalogueFolder) -> tuple[list[Recorded], list[str]]:
    """The runs of a catalogue, the oldest first, and what is wrong with those that cannot be read."""
    kept_out = catalogue.quarantined().values()
    found, unreadable = [], []
    for folder in reversed(catalogue.runs()):
        try:
            run = Recorded(
                folder,
                folder.facts(),
                _json(folder.end),
                _json(folder.progress),
                folder.read_receipts(),
                folder.failures(),
                [record for record in kept_out if record.run_id == folder.run_id],
            )
            run.run()  # are all fields there?
        except NotAnOutput as error:
            unreadable.append(str(error))
        except KeyError as error:
            unreadable.append(f"{folder.record} has no field {error}: it is no record of a run")
        else:
            found.append(run)
    return found, unreadable


def read_versions(catalogue: CatalogueFolder) -> list[Row]:
    """The rows of the table of versions: of versions/NAME/version.json, what was retracted, collection.properties."""
    folder = catalogue.root / "versions"
    if not folder.exists():
        return []
    current = CURRENT.search(_text(catalogue.collection))
    names = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    there = {name: facts for name in names if (facts := _json(catalogue.version(name) / "version.json"))}
    retracted = _json(folder / RETRACTED) or {}
    return [
        _version(address(catalogue), name, facts, name in there, current is not None and current[1] == name)
        for name, facts in sorted((retracted | there).items())
    ]


def _version(catalogue: str, name: str, facts: Mapping[str, Any], published: bool, current: bool) -> Row:
    return {
        "catalogue": catalogue,
        "name": name,
        "runs": list(facts.get("runs") or facts.get("records", ())),
        "created": str(facts.get("created", "")),
        "state": "published" if published else "retracted",
        "current": current,
    }


def _key(row: Row) -> tuple[int, int]:
    return row["norder"], row["npix"]


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _json(path: Path) -> Row | None:
    """A record; None where there is none, or none that can be read."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
