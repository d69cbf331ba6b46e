"""Connections to a ledger: SQLite set up for several processes, PostgreSQL as it is; both migrated when opened."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from lightmill.catalogs import migrations
from lightmill.catalogs.ledger_place import LedgerError
from lightmill.catalogs.ledger_tables import TABLES, VERSION_TABLE

__all__ = ["connect", "reason", "writing"]

BUSY = 60.0  #: seconds that a writer waits for another
MIGRATING = 5_023_194_411  #: PostgreSQL's advisory lock of whoever migrates; any number that is ours


def connect(url: URL) -> Engine:
    """A ledger's engine; its tables are made, or brought up to date.

    Raises
    ------
    LedgerError
        if it cannot be reached, was made by a newer Lightmill, or the database holds other tables of these names.
    """
    shown = url.render_as_string(hide_password=True)
    engine = _engine(url)
    try:
        _migrate(engine, shown)
    except SQLAlchemyError as error:
        engine.dispose()
        raise LedgerError(f"the ledger {shown} cannot be opened: {reason(error)}") from error
    except LedgerError:
        engine.dispose()
        raise
    return engine


def writing(engine: Engine) -> Engine:
    """The same engine, whose transactions are the only ones that write from their beginning on.

    A transaction of SQLite that begins with reading cannot write once another has written.
    """
    return engine.execution_options(immediate=True)


def _engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        try:
            return create_engine(url, pool_pre_ping=True)
        except ModuleNotFoundError as error:
            raise LedgerError(
                f"PostgreSQL needs {error.name}, which is not installed: pip install 'lightmill[postgres]'"
            ) from error
    if url.database not in (None, "", ":memory:"):
        _make_folder(Path(str(url.database)).absolute().parent)
    engine = create_engine(url, connect_args={"timeout": BUSY})
    event.listen(engine, "connect", _set_up)
    event.listen(engine, "begin", _begin)
    return engine


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LedgerError(f"the folder of the ledger, {folder}, cannot be made: {error}") from error


def _set_up(connection: sqlite3.Connection, _: Any) -> None:
    connection.isolation_level = None  # transactions are begun below, not guessed from the statement
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA synchronous=NORMAL")  # a power cut may lose the last rows: the files have them
    deadline = time.monotonic() + BUSY
    while connection.execute("PRAGMA journal_mode").fetchone()[0] not in ("wal", "memory"):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except (
            sqlite3.OperationalError
        ):  # nobody waits for this lock: another process is setting up the same file
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _begin(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _migrate(engine: Engine, shown: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    script = ScriptDirectory.from_config(config)
    head = script.get_current_head()
    with engine.connect() as connection:
        if _revision(connection) == head:
            return
    with writing(engine).begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATING})
        now = _revision(connection)
        known = {revision.revision for revision in script.walk_revisions()}
        if now is not None and now not in known:
            raise LedgerError(
                f"the ledger {shown} was made by a newer Lightmill (its tables are of revision {now}, this one knows "
                f"up to {head}): update Lightmill, or give another ledger"
            )
        there = set(inspect(connection).get_table_names()) & TABLES.keys()
        if now is None and there:
            raise LedgerError(
                f"{shown} has tables {', '.join(sorted(there))} that are not a ledger's: give another database, or a "
                "schema of its own (?options=-csearch_path=lightmill)"
            )
        if now != head:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def _revision(connection: Connection) -> str | None:
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    return context.get_current_revision()


def reason(error: SQLAlchemyError) -> str:
    """The database's own words, on one line."""
    return " ".join(str(getattr(error, "orig", None) or error).split())
