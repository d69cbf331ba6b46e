"""The ledger's tables: runs, units, attempts, bundles, versions.

Times are UTC as ISO 8601 text, as the files have them: both databases sort them, and PostgreSQL casts them.
`norder` and `npix` are HATS's names; `order` is a word of SQL.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
)
from sqlalchemy.dialects.postgresql import JSONB

__all__ = ["METADATA", "TABLES", "VERSION_TABLE", "attempts", "bundles", "runs", "units", "versions"]

VERSION_TABLE = "lightmill_version"  #: where Alembic notes what was applied: others may share the database
METADATA = MetaData()
NESTED = JSON().with_variant(JSONB(), "postgresql")


def _run_id() -> Column[str]:
    return Column("run_id", String, ForeignKey("runs.run_id", ondelete="CASCADE"), primary_key=True)


runs = Table(
    "runs",
    METADATA,
    Column("run_id", String, primary_key=True),
    Column("catalogue", String, nullable=False),  # absolute path or URL, where it was last seen
    Column("release", String, nullable=False),
    Column("recipe", String, nullable=False),  # name
    Column("science", String, nullable=False),  # sha256 of the science fields
    Column("bundle", String, nullable=False),  # sha256
    Column("code", String, nullable=False),  # version of Lightmill
    Column("plan", String, nullable=False),  # sha256 of the plan's file
    Column("units", BigInteger, nullable=False),  # of the plan
    Column("created", String, nullable=False),
    Column("state", String, nullable=False),  # running, complete, partial, stopped
    Column("ended", String),
    Column("counts", NESTED, nullable=False),  # as end.json has them
    Index("runs_of_a_catalogue", "catalogue", "created"),
)

units = Table(
    "units",
    METADATA,
    _run_id(),
    Column("norder", Integer, primary_key=True),
    Column("npix", BigInteger, primary_key=True),
    Column("state", String, nullable=False),  # done, failed, quarantined
    Column("fingerprint", String, nullable=False),
    Column("rows_in", BigInteger, nullable=False),  # light curves
    Column("classified", BigInteger, nullable=False),
    Column("rejected", NESTED, nullable=False),  # light curves by reason
    Column("bytes", BigInteger, nullable=False),  # of the Parquet file
    Column("sha256", String, nullable=False),  # likewise
    Column("epochs", BigInteger, nullable=False),
    Column("seconds", Double, nullable=False),  # of the try that decided
    Column("peak_rss_bytes", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("host", String, nullable=False),
    Column("input", String, nullable=False),  # `Partition.identity()`
    Column("input_bytes", BigInteger, nullable=False),
    Column("started", String, nullable=False),
    Column("finished", String, nullable=False),
    Column("error_class", String),
    Index("units_of_a_partition", "norder", "npix"),
    Index("units_by_state", "run_id", "state"),
)

attempts = Table(
    "attempts",
    METADATA,
    _run_id(),
    Column("norder", Integer, primary_key=True),
    Column("npix", BigInteger, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    # a worker may commit a unit and die before it says so: then one attempt has both
    Column("outcome", String, primary_key=True),  # done, failed
    Column("host", String, nullable=False),
    Column("started", String, nullable=False),
    Column("finished", String, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("peak_rss_bytes", BigInteger, nullable=False),
    Column("batch_epochs", BigInteger, nullable=False),
    Column("alone", Boolean, nullable=False),
    Column("error_class", String),
    Column("error", String),
    Column("decision", String),
)

bundles = Table(
    "bundles",
    METADATA,
    Column("digest", String, primary_key=True),
    Column("kind", String, nullable=False),  # bundle, period_choice
    Column("name", String, nullable=False),  # as the recipe that used it first has it
)

versions = Table(
    "versions",
    METADATA,
    Column("catalogue", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("runs", NESTED, nullable=False),  # run ids, the first wins
    Column("created", String, nullable=False),
    Column("state", String, nullable=False),  # published, retracted
    Column("current", Boolean, nullable=False),
)

TABLES = {table.name: table for table in (runs, units, attempts, bundles, versions)}
