"""Alembic's migrations of the ledger: how its tables came to be what they are; applied when a ledger is opened."""
