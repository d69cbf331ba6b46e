"""Make what a ledger has of a catalogue anew from the catalogue's files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from sqlalchemy import Connection, delete

from lightmill.catalogs import ledger_rows as rows
from lightmill.catalogs import storage
from lightmill.catalogs.ledger import Ledger, put_run, put_versions, upsert
from lightmill.catalogs.ledger_place import address
from lightmill.catalogs.ledger_read import Recorded, read_runs, read_versions
from lightmill.catalogs.ledger_tables import attempts, runs, units
from lightmill.catalogs.receipts import Receipt, read_records, receipt_path
from lightmill.catalogs.runfolder import CatalogueFolder, RunFolder

__all__ = ["Rebuilt", "catch_up", "rebuild", "refresh_versions"]

Item = TypeVar("Item")

AT_ONCE = 10_000  #: rows that the database is handed at a time


@dataclass(frozen=True)
class Rebuilt:
    """What a ledger was made of."""

    ledger: str  #: where it is
    runs: int
    units: int  #: complete, failed and quarantined
    attempts: int
    versions: int
    unreadable: list[str] = field(default_factory=list)  #: runs that were left out, and why


def rebuild(ledger: Ledger, catalogue: CatalogueFolder) -> Rebuilt:
    """Write anew, in one transaction, all that a ledger has of a catalogue; drivers may go on meanwhile.

    A run is of the catalogue in which it was seen last: where one was moved or copied, its runs come along.
    """
    found, unreadable = read_runs(catalogue)
    published = read_versions(catalogue)
    here = (runs.c.catalogue == address(catalogue)) | runs.c.run_id.in_([run.run_id for run in found])
    with ledger.writing() as connection:
        connection.execute(delete(runs).where(here))
        written = [_write(connection, run) for run in found]
        put_versions(connection, address(catalogue), published)
    for run in found:
        if run.end is None:
            catch_up(ledger, run.folder)  # with what a driver told while the files were read
    counts = [sum(column) for column in zip(*written, strict=True)] or [0, 0]
    return Rebuilt(ledger.url, len(found), counts[0], counts[1], len(published), unreadable)


def catch_up(ledger: Ledger, run: RunFolder) -> int:
    """Tell a ledger what a run's files have and it lacks; how many receipts those are.

    A driver that is killed has written receipts of which it has not told yet; who goes on with its run tells of them.
    The ledger must know the run.
    """
    missing = sorted(storage.sizes(run.receipts, ".json").keys() - ledger.done(run.run_id))
    for some in _in_parts(missing):
        paths = (receipt_path(run.receipts, *key) for key in some)
        ledger.record(run.run_id, list(read_records(Receipt, paths)))
    ledger.record(run.run_id, [], run.failures())
    return len(missing)


def refresh_versions(ledger: Ledger, catalogue: CatalogueFolder) -> None:
    """Tell a ledger of what was published or retracted."""
    with ledger.writing() as connection:
        put_versions(connection, address(catalogue), read_versions(catalogue))


def _write(connection: Connection, run: Recorded) -> tuple[int, int]:
    """Write a run; how many units and attempts it has."""
    put_run(connection, run.run(), rows.bundles_of(run.facts))
    written = []
    for table, content in ((units, run.units()), (attempts, run.attempts())):
        for some in _in_parts(content):
            upsert(connection, table, some)
        written.append(len(content))
    return written[0], written[1]


def _in_parts(content: list[Item]) -> Iterator[list[Item]]:
    for start in range(0, len(content), AT_ONCE):
        yield content[start : start + AT_ONCE]
