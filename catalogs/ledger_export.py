"""The ledger's tables for other programs: Parquet, CSV, JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from sqlalchemy import JSON, BigInteger, Boolean, Column, Double, Integer, Select, Table, select

from lightmill.catalogs.formats import encode
from lightmill.catalogs.ledger import Ledger
from lightmill.catalogs.ledger_place import address
from lightmill.catalogs.ledger_tables import TABLES, runs

__all__ = ["export"]

FORMS = ("json", "csv", "parquet")


def export(ledger: Ledger, table: str, form: str, catalogue: str | None = None) -> bytes:
    """A table of the ledger in a form, by its key; what is nested is JSON in CSV and Parquet.

    Parameters
    ----------
    table : runs, units, attempts, bundles or versions
    form : "json", "csv" or "parquet"
    catalogue : address of the one whose rows are wanted; of bundles, all are told

    Raises
    ------
    ValueError
        if there is no such table or form.
    """
    if table not in TABLES:
        raise ValueError(f"the ledger has no table {table!r}; it has {', '.join(TABLES)}")
    if form not in FORMS:
        raise ValueError(f"a table of the ledger is written as {', '.join(FORMS)}, not as {form!r}")
    with ledger.reading() as connection:
        question = _question(TABLES[table], catalogue)
        found = [dict(row) for row in connection.execute(question).mappings()]
    if form == "json":
        return (json.dumps(found, indent=1) + "\n").encode()
    return encode(_arrow(TABLES[table], found), form)


def _question(table: Table, catalogue: str | None) -> Select[Any]:
    question = select(table).order_by(*table.primary_key)
    if catalogue is None:
        return question
    if "catalogue" in table.columns:
        return question.where(table.c.catalogue == address(catalogue))
    if "run_id" in table.columns:
        mine = select(runs.c.run_id).where(runs.c.catalogue == address(catalogue))
        return question.where(table.c.run_id.in_(mine))
    return question


def _arrow(table: Table, found: list[dict[str, Any]]) -> pa.Table:
    schema = pa.schema([(column.name, _kind(column)) for column in table.columns])
    plain = [
        {
            key: json.dumps(value, sort_keys=True) if isinstance(value, Mapping | list) else value
            for key, value in row.items()
        }
        for row in found
    ]
    return pa.Table.from_pylist(plain, schema=schema)


def _kind(column: Column[Any]) -> pa.DataType:
    # in this order: a big integer is an integer too
    for kind, arrow in (
        (JSON, pa.string()),
        (Boolean, pa.bool_()),
        (BigInteger, pa.int64()),
        (Integer, pa.int32()),
        (Double, pa.float64()),
    ):
        if isinstance(column.type, kind):
            return arrow
    return pa.string()
