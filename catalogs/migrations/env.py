"""What Alembic runs: migrations over the connection, and within the transaction, of whoever opens a ledger."""

from __future__ import annotations

from alembic import context

from lightmill.catalogs.ledger_tables import METADATA, VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    version_table=VERSION_TABLE,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
