"""Lists of runs: of a catalogue's files, or of a ledger."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lightmill.catalogs.ledger import open_ledger
from lightmill.catalogs.ledger_place import address
from lightmill.catalogs.runfolder import CatalogueFolder, NotAnOutput, RunFolder
from lightmill.pipeline.status import Status, read_status

__all__ = ["Listed", "runs_of_files", "runs_of_ledger"]


@dataclass(frozen=True)
class Listed:
    """A run in a list."""

    run_id: str
    catalogue: str
    state: str
    """As a `Status` has it, or "damaged"; a ledger does not know of drivers that were killed: "running"."""
    recipe: str
    bundle: str  #: sha256
    units: int
    done: int
    failed: int
    quarantined: int
    light_curves: int
    rate: float | None  #: light curves per second, None where nothing is done
    created: str
    ended: str | None
    trouble: str = ""  #: why nothing more can be told of one that is damaged


def runs_of_files(catalogue: str) -> list[Listed]:
    """The runs of a catalogue, the newest first.

    Raises
    ------
    NotAnOutput
        if it is none.
    """
    folder = CatalogueFolder.at(catalogue)
    folder.must_have_runs()
    return [_of_run(run) for run in folder.runs()]


def runs_of_ledger(url: str | None, catalogue: str | None = None) -> list[Listed]:
    """The runs that a ledger knows, of all catalogues or of one, the newest first.

    Raises
    ------
    LedgerError
        if it cannot be opened.
    """
    with open_ledger(url, CatalogueFolder.at(catalogue or "."), create=False) as ledger:
        found = ledger.overview(catalogue)
    names = ("run_id", "catalogue", "state", "recipe", "bundle", "units", "done", "failed", "quarantined")
    rest = ("light_curves", "created", "ended")
    return [Listed(**{name: row[name] for name in (*names, *rest)}, rate=_rate(row)) for row in found]


def _of_run(run: RunFolder) -> Listed:
    try:
        return _of_status(read_status(run))
    except NotAnOutput as error:
        return Listed(
            run.run_id, address(run.catalogue), "damaged", recipe="", bundle="", units=0, done=0, failed=0,
            quarantined=0, light_curves=0, rate=None, created="", ended=None, trouble=str(error),
        )  # fmt: skip


def _of_status(status: Status) -> Listed:
    names = [name for name in Listed.__dataclass_fields__ if name not in ("rate", "trouble")]
    return Listed(**{name: getattr(status, name) for name in names}, rate=status.rate or None)


def _rate(row: dict[str, Any]) -> float | None:
    """Light curves per second from the begin of the first unit to the end of the last."""
    if not (row["begun"] and row["finished"]):
        return None
    seconds = (datetime.fromisoformat(row["finished"]) - datetime.fromisoformat(row["begun"])).total_seconds()
    return round(row["light_curves"] / seconds, 1) if seconds > 0 else None
