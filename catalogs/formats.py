"""Tables for people and machines: JSON, CSV, Parquet, VOTable and FITS of an Arrow table."""

from __future__ import annotations

import io
import json
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from astropy.table import MaskedColumn, Table

__all__ = ["BINARY", "FORMATS", "encode", "plain"]

FORMATS = ("table", "json", "csv", "parquet", "votable", "fits")
BINARY = ("parquet", "fits")


def encode(table: pa.Table, form: str) -> bytes:
    """The table in one of FORMATS but "table", which is the terminal's."""
    if form == "json":
        return (json.dumps(plain(table).to_pylist(), indent=1, default=str) + "\n").encode()
    sink: BinaryIO = io.BytesIO()
    if form == "csv":
        pa.csv.write_csv(plain(table), sink)
    elif form == "parquet":
        pq.write_table(table, sink, compression="zstd", compression_level=3)
    elif form == "votable":
        _astropy(table).write(sink, format="votable", tabledata_format="tabledata")
    elif form == "fits":
        _astropy(table).write(sink, format="fits")
    else:
        raise ValueError(f"unknown format {form!r}; known are {', '.join(FORMATS)}")
    return sink.getvalue()  # type: ignore[attr-defined]


def plain(table: pa.Table) -> pa.Table:
    """Dictionary columns as plain text."""
    for i, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            values = table.column(i).cast(field.type.value_type)
            table = table.set_column(i, field.with_type(field.type.value_type), values)
    return table


def _astropy(table: pa.Table) -> Table:
    """The table with units, descriptions and UCDs; nulls are masked."""
    out = Table()
    for field, column in zip(plain(table).schema, plain(table).columns, strict=True):
        facts = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
        mask = column.is_null().to_numpy()
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            values = np.array(column.fill_null("").to_pylist(), dtype=str)
        else:
            values = column.fill_null(0).to_numpy()
        out[field.name] = MaskedColumn(
            values,
            mask=mask,
            unit=facts.get("unit") or None,
            description=facts.get("description"),
            meta={"ucd": facts["ucd"]} if "ucd" in facts else None,
        )
    return out
