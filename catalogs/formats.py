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
        out[field.name] = MaskedColumn(
            _values(column),
            mask=column.is_null().to_numpy(),
            unit=facts.get("unit") or None,
            description=facts.get("description"),
            meta={"ucd": facts["ucd"]} if "ucd" in facts else None,
        )
    return out


def _values(column: pa.ChunkedArray) -> np.ndarray:
    """A column as NumPy has it, of a type that VOTable and FITS have too; what is masked is 0, False or empty."""
    kind = column.type
    if pa.types.is_boolean(kind):
        return column.fill_null(False).to_numpy()
    if pa.types.is_integer(kind) or (pa.types.is_decimal(kind) and kind.scale == 0):
        # DuckDB sums integers into 128 bits; VOTable has no int8 and no unsigned ones but uint8
        small = pa.int16() if kind == pa.int8() else kind
        signed = small if small in (pa.uint8(), pa.int16(), pa.int32()) else pa.int64()
        try:
            return column.cast(signed).fill_null(0).to_numpy()
        except pa.ArrowInvalid:
            return column.cast(pa.float64()).fill_null(0).to_numpy()
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        wide = kind if kind in (pa.float32(), pa.float64()) else pa.float64()
        return column.cast(wide).fill_null(0).to_numpy()
    return np.array(["" if value is None else str(value) for value in column.to_pylist()], dtype=str)
