"""The ledger: an index in SQL of what the files of catalogues say about runs, units, attempts, bundles and versions.

Only the driver writes it, from receipts; it is never asked what is done, and made anew from the files when it is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from sqlalchemy import Connection, Engine, Table, case, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from lightmill.catalogs import ledger_rows as rows
from lightmill.catalogs.ledger_engine import connect, reason, writing
from lightmill.catalogs.ledger_place import LedgerError, address, ledger_url
from lightmill.catalogs.ledger_tables import attempts, bundles, runs, units, versions
from lightmill.catalogs.receipts import FailedAttempt, Receipt
from lightmill.catalogs.runfolder import CatalogueFolder

__all__ = ["Ledger", "LedgerError", "open_ledger"]

Row = dict[str, Any]


@dataclass(frozen=True)
class Ledger:
    """An open ledger; many processes may write to one. Use it in a `with`, or close it."""

    engine: Engine
    url: str  #: where it is, without a password

    def start_run(self, facts: Mapping[str, Any], catalogue: str, units: int) -> None:
        """Tell of a run that begins, or goes on.

        Parameters
        ----------
        facts : run.json: the fields of an `Identity`, run_id, created, plan_sha256
        catalogue : address of the catalogue
        units : of the plan
        """
        with self.writing() as connection:
            put_run(connection, rows.run_row(facts, address(catalogue), units), rows.bundles_of(facts))

    def record(
        self, run_id: str, receipts: Sequence[Receipt] = (), failures: Sequence[FailedAttempt] = ()
    ) -> None:
        """Tell of units that are complete and of tries that failed, in one transaction; twice is as good as once.

        Raises
        ------
        LedgerError
            if the ledger does not know the run, or cannot be written; the files have all of it: tell again later.
        """
        with self.writing(run_id) as connection:
            put_units(connection, run_id, receipts, failures)

    def end_run(self, run_id: str, state: str, counts: Mapping[str, Any], ended: str | None = None) -> None:
        """Tell how a run ended.

        Parameters
        ----------
        state : "complete", "partial" or "stopped"
        counts : as end.json has them
        ended : UTC, ISO 8601; now where it is not given

        Raises
        ------
        LedgerError
            if the ledger does not know the run.
        """
        at = ended or datetime.now(UTC).isoformat(timespec="seconds")
        how = {"state": state, "counts": dict(counts), "ended": at}
        with self.writing() as connection:
            done = connection.execute(update(runs).where(runs.c.run_id == run_id).values(**how))
        if done.rowcount == 0:
            raise self._unknown(run_id)

    def runs(self, catalogue: str | None = None) -> list[Row]:
        """Rows of the table of runs, the newest first; of one catalogue, or of all."""
        question = select(runs).order_by(runs.c.created.desc(), runs.c.run_id.desc())
        if catalogue is not None:
            question = question.where(runs.c.catalogue == address(catalogue))
        with self.reading() as connection:
            return [dict(row) for row in connection.execute(question).mappings()]

    def overview(self, catalogue: str | None = None) -> list[Row]:
        """As `runs`, with what the units of each add up to: done, failed, quarantined, light_curves, begun, finished.

        `begun` and `finished` are of its first and last unit; None where no unit is complete.
        """
        state, complete = units.c.state, units.c.state == "done"
        numbers = [
            func.sum(case((state == s, 1), else_=0)).label(s) for s in ("done", "failed", "quarantined")
        ]
        begun = func.min(case((complete & (units.c.started != ""), units.c.started))).label("begun")
        finished = func.max(case((complete, units.c.finished))).label("finished")
        light_curves = func.sum(units.c.rows_in).label("light_curves")
        question = select(units.c.run_id, *numbers, light_curves, begun, finished).group_by(units.c.run_id)
        if catalogue is not None:
            mine = select(runs.c.run_id).where(runs.c.catalogue == address(catalogue))
            question = question.where(units.c.run_id.in_(mine))
        with self.reading() as connection:
            sums = {row["run_id"]: dict(row) for row in connection.execute(question).mappings()}
        nothing = dict.fromkeys(("done", "failed", "quarantined", "light_curves"), 0) | {
            "begun": None,
            "finished": None,
        }
        found = (run | nothing | sums.get(run["run_id"], {}) for run in self.runs(catalogue))
        return [
            row | {key: int(row[key]) for key in ("done", "failed", "quarantined", "light_curves")}
            for row in found
        ]

    def done(self, run_id: str) -> set[tuple[int, int]]:
        """(order, pixel) of the units of a run that the ledger knows to be complete."""
        mine = (units.c.run_id == run_id) & (units.c.state == "done")
        with self.reading() as connection:
            found = connection.execute(select(units.c.norder, units.c.npix).where(mine))
            return {(order, pixel) for order, pixel in found}

    def run(self, run_id: str) -> Row:
        """One row of the table of runs.

        Raises
        ------
        LedgerError
            if there is none.
        """
        with self.reading() as connection:
            found = connection.execute(select(runs).where(runs.c.run_id == run_id)).mappings().first()
        if found is None:
            raise self._unknown(run_id)
        return dict(found)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that reads."""
        try:
            with self.engine.connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise LedgerError(f"the ledger {self.url} cannot be read: {reason(error)}") from error

    @contextmanager
    def writing(self, run_id: str | None = None) -> Iterator[Connection]:
        """A transaction that writes; of rows of a run that must be known, if one is given."""
        try:
            with writing(self.engine).begin() as connection:
                yield connection
        except IntegrityError as error:
            if run_id is not None and run_id not in {row["run_id"] for row in self.runs()}:
                raise self._unknown(run_id) from error
            raise LedgerError(f"the ledger {self.url} refuses: {reason(error)}") from error
        except SQLAlchemyError as error:
            raise LedgerError(f"the ledger {self.url} cannot be written: {reason(error)}") from error

    def close(self) -> None:
        """Let go of the connections."""
        self.engine.dispose()

    def _unknown(self, run_id: str) -> LedgerError:
        return LedgerError(
            f"the ledger {self.url} does not know the run {run_id}: `lightmill ledger rebuild CATALOGUE` reads it from "
            "the catalogue's files"
        )

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_ledger(url: str | None, catalogue: CatalogueFolder, *, create: bool = True) -> Ledger:
    """The ledger at a URL, or that LIGHTMILL_LEDGER names, or else the catalogue's own; made if it is not there.

    Parameters
    ----------
    url : sqlite:////path/ledger.sqlite or postgresql://user@host/database
    create : make the file of SQLite if there is none

    Raises
    ------
    LedgerError
        if it cannot be opened, was made by a newer Lightmill, or is a SQLite file on a network file system.
    """
    place = ledger_url(url, catalogue)
    if not create and place.get_backend_name() == "sqlite" and not Path(str(place.database)).exists():
        raise LedgerError(
            f"there is no ledger {place.database}: `lightmill ledger rebuild CATALOGUE` makes one"
        )
    return Ledger(connect(place), place.render_as_string(hide_password=True))


def put_run(connection: Connection, run: Row, models: Sequence[Row]) -> None:
    """Write a run and its models."""
    upsert(connection, runs, [run])
    _insert(connection, bundles, models)


def put_units(
    connection: Connection, run_id: str, receipts: Iterable[Receipt], failures: Iterable[FailedAttempt]
) -> None:
    """Write what became of units; what is complete stays so, whatever is told afterwards."""
    done = {r.key: r for r in receipts}
    failed = {(*f.key, f.attempt): f for f in failures}
    given_up = {f.key: row for _, f in sorted(failed.items()) if (row := rows.unit_failed(run_id, f))}
    upsert(connection, units, [rows.unit_done(run_id, r) for _, r in sorted(done.items())])
    put_given_up(connection, [row for key, row in sorted(given_up.items()) if key not in done])
    tries = [rows.attempt_that_succeeded(run_id, r) for _, r in sorted(done.items())]
    upsert(
        connection, attempts, tries + [rows.attempt_that_failed(run_id, f) for _, f in sorted(failed.items())]
    )


def put_given_up(connection: Connection, given_up: Sequence[Row]) -> None:
    """Write units that failed, unless they are complete or failed later."""
    upsert(
        connection,
        units,
        given_up,
        only_if=lambda new: (units.c.state != "done") & (units.c.attempts <= new.attempts),
    )


def put_versions(connection: Connection, catalogue: str, published: Sequence[Row]) -> None:
    """Write a catalogue's versions in place of those told before."""
    connection.execute(delete(versions).where(versions.c.catalogue == catalogue))
    upsert(connection, versions, published)


def upsert(connection: Connection, table: Table, given: Sequence[Row], only_if: Any = None) -> None:
    """Insert rows, or write them over those of the same key (where `only_if(the new row)`)."""
    if not given:
        return
    statement = _statement(connection, table)
    keys = [column.name for column in table.primary_key]
    new = statement.excluded
    change = {column.name: new[column.name] for column in table.columns if column.name not in keys}
    where = None if only_if is None else only_if(new)
    connection.execute(
        statement.on_conflict_do_update(index_elements=keys, set_=change, where=where), list(given)
    )


def _insert(connection: Connection, table: Table, given: Sequence[Row]) -> None:
    """Insert rows; those whose key is there already stay as they are."""
    if given:
        connection.execute(_statement(connection, table).on_conflict_do_nothing(), list(given))


def _statement(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    make = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    return make(table)
