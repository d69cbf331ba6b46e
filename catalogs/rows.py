"""Rows of a classification catalogue, and how a partition of them is committed.

A partition appears under its final name whole and verified, or not at all: it is written beside the catalogue, flushed
to disk, read back, and renamed. The receipt that proves it comes after it (`receipts`).
"""

from __future__ import annotations

import hashlib
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from hats.pixel_math.spatial_index import SPATIAL_INDEX_COLUMN

from lightmill.catalogs import storage

__all__ = [
    "FLAGS",
    "SCHEMA_VERSION",
    "UNCLASSIFIED",
    "RowsError",
    "commit",
    "probability_columns",
    "rejected_schema",
    "row_schema",
    "rows_table",
]

SCHEMA_VERSION = 1  #: raised by hand whenever the columns or their meaning change
COMPRESSION = {"compression": "zstd", "compression_level": 3}
ROW_GROUP = 200_000

UNCLASSIFIED = "unclassified"  #: best_class of what is too uncertain or too strange for a class

FLAGS: dict[str, int] = {
    "gated_out": 1,  #: the gate took it for non-variable: class probabilities are its p_variable shared out by priors
    "moved_index": 2,  #: its position lies just outside its partition: `_healpix_29` was moved to the nearest edge
}
"""Bits of the column `flags`."""


class RowsError(RuntimeError):
    """A partition that was written does not hold what it should."""


def _field(name: str, dtype: pa.DataType, text: str, unit: str = "", ucd: str = "") -> pa.Field:
    """A column that tells what it is: unit and UCD as VOParquet and the IVOA's UCD1+ list name them."""
    facts = {"description": text, "unit": unit, "ucd": ucd}
    return pa.field(name, dtype, metadata={key: value for key, value in facts.items() if value})


_WORD = pa.dictionary(pa.int32(), pa.string())


def probability_columns(leaves: Sequence[str]) -> list[str]:
    """Names of the probability columns, in the order of the leaves."""
    return [f"p_{leaf}" for leaf in leaves]


def row_schema(leaves: Sequence[str]) -> pa.Schema:
    """The columns of a classification catalogue whose bundle knows `leaves`."""
    probabilities = [
        _field(f"p_{leaf}", pa.float32(), f"probability of class {leaf}", "", "stat.probability")
        for leaf in leaves
    ]
    return pa.schema(
        [
            _field(SPATIAL_INDEX_COLUMN, pa.int64(), "HATS spatial index, order 29, NESTED", "", "pos.healpix"),
            _field("objectid", pa.int64(), "identifier of the light curve", "", "meta.id;meta.main"),
            _field("ra", pa.float64(), "right ascension", "deg", "pos.eq.ra;meta.main"),
            _field("dec", pa.float64(), "declination", "deg", "pos.eq.dec;meta.main"),
            _field("filterid", pa.int16(), "passband, as the release numbers it", "", "instr.bandpass"),
            _field("n_good", pa.int32(), "good epochs", "", "meta.number;obs"),
            _field("baseline", pa.float32(), "last minus first good epoch", "d", "time.duration"),
            _field("mag_mean", pa.float32(), "weighted mean magnitude", "mag", "phot.mag;stat.mean"),
            _field("amplitude", pa.float32(), "half of the 5 to 95 % range", "mag", "src.var.amplitude"),
            _field("p_variable", pa.float32(), "probability to be variable; null: no gate", "", "stat.probability"),
            _field("best_class", _WORD, "most probable class, or unclassified", "", "src.class"),
            _field("best_prob", pa.float32(), "its probability", "", "stat.probability;stat.max"),
            _field("margin", pa.float32(), "best minus second probability", "", "stat.probability"),
            *probabilities,
            _field("period", pa.float64(), "period; null where none was searched", "d", "time.period"),
            _field("period_score", pa.float32(), "−log10 of the false-alarm probability", "", "stat.likelihood"),
            _field("novelty", pa.float32(), "share of known ones less strange; null: not told", "", "stat.value"),
            _field("flags", pa.int32(), "1 gated out, 2 index moved into its partition", "", "meta.code"),
            _field("bundle", _WORD, "first 8 digits of the bundle's sha256", "", "meta.version"),
            _field("run_id", _WORD, "run that wrote the row", "", "meta.id"),
        ]
    )  # fmt: skip


def rejected_schema() -> pa.Schema:
    """The columns of the list of light curves that were not classified."""
    names = (SPATIAL_INDEX_COLUMN, "objectid", "ra", "dec", "filterid", "n_good")
    schema = row_schema(())
    reason = _field("reason", _WORD, "why it was not classified", "", "meta.note")
    return pa.schema([*(schema.field(name) for name in names), reason, schema.field("run_id")])


def rows_table(
    columns: Mapping[str, np.ndarray | Sequence[object] | pa.Array], schema: pa.Schema
) -> pa.Table:
    """Cast columns to a schema, explicitly, sorted by spatial index; columns not given are null.

    Raises
    ------
    RowsError
        naming the column that is not in the schema or cannot be cast.
    """
    unknown = sorted(set(columns) - set(schema.names))
    if unknown:
        raise RowsError(f"columns {unknown} are not in the catalogue's schema: {schema.names}")
    n = len(columns[SPATIAL_INDEX_COLUMN])
    arrays = []
    for field in schema:
        given = columns.get(field.name)
        try:
            if given is None:
                arrays.append(pa.nulls(n, field.type))
            elif pa.types.is_dictionary(field.type) and not isinstance(given, pa.Array):
                arrays.append(pa.array(given, pa.string()).dictionary_encode())
            elif isinstance(given, pa.Array):
                arrays.append(given.cast(field.type))
            else:
                arrays.append(pa.array(np.asarray(given).astype(field.type.to_pandas_dtype())))
        except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError, TypeError) as error:
            raise RowsError(f"column {field.name!r} cannot be cast to {field.type}: {error}") from error
    table = pa.Table.from_arrays(arrays, schema=schema)
    order = pc.sort_indices(table, sort_keys=[(SPATIAL_INDEX_COLUMN, "ascending"), ("objectid", "ascending")])
    return table.take(order)


def commit(table: pa.Table, final: Path, scratch: Path) -> tuple[int, str]:
    """Write a partition under its final name, whole or not at all; its size in bytes, and the sha256 of them.

    `scratch` is a folder on the same file system as `final`; for an object store the partition is written in this
    machine's folder for temporary files, and goes up in one PUT. Nothing is left there, whatever happens.

    Raises
    ------
    OSError
        if the disk is full or a folder cannot be written.
    RowsError
        if what was written is not what was meant.
    """
    if not storage.is_local(final):
        scratch = Path(tempfile.gettempdir())
    scratch.mkdir(parents=True, exist_ok=True)
    part = scratch / f"{final.stem}.{uuid.uuid4().hex}.part"
    try:
        pq.write_table(table, part, row_group_size=ROW_GROUP, **COMPRESSION)
        storage.sync(part)
        _verify(part, table)
        size = part.stat().st_size
        with part.open("rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
        storage.put(part, final)
    finally:
        part.unlink(missing_ok=True)
    return size, digest


def _verify(path: Path, table: pa.Table) -> None:
    """Read the file back: the rows, the columns and the probabilities that were meant."""
    with pq.ParquetFile(path) as parquet:
        if parquet.metadata.num_rows != table.num_rows:
            raise RowsError(f"{path} holds {parquet.metadata.num_rows} rows, {table.num_rows} were written")
        if not parquet.schema_arrow.equals(table.schema):
            raise RowsError(f"{path} has other columns than were written: {parquet.schema_arrow.names}")
        again = parquet.read()
    if table.num_rows == 0:
        return
    if not again.column("objectid").equals(table.column("objectid")):
        raise RowsError(f"{path} holds other objects than were written")
    if "margin" not in table.schema.names:
        return
    start = again.schema.get_field_index("margin") + 1
    stop = again.schema.get_field_index("period")
    leaves = np.column_stack([again.column(i).to_numpy() for i in range(start, stop)])
    total = leaves.sum(axis=1)
    if not (np.isfinite(leaves).all() and leaves.min() >= 0 and np.abs(total - 1).max() < 1e-4):
        row = int(np.argmax(np.abs(np.nan_to_num(total, nan=np.inf) - 1)))
        raise RowsError(
            f"{path}: probabilities of objectid {again.column('objectid')[row]} sum to {total[row]}, not 1, or lie "
            "outside 0…1: the bundle is at fault"
        )
