"""The index of identifiers: which partition holds an `objectid`, as a HATS index that LSDB's `id_search` asks.

Sorted by DuckDB, which spills to disk; written in files of some ten million identifiers, small row groups within.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from hats.catalog import CatalogType, TableProperties

from lightmill.catalogs import storage
from lightmill.catalogs.chain import Key
from lightmill.catalogs.finish import below, write_file, write_properties

__all__ = ["write_index_table"]

SCHEMA = pa.schema(
    [
        pa.field("objectid", pa.int64(), nullable=True),
        ("_healpix_29", pa.int64()),
        ("Norder", pa.uint8()),
        ("Npix", pa.uint64()),
    ]
)
GROUP = 100_000  #: rows that a look-up reads at least
FILE = 100  #: groups a file
MEMORY = "1GB"  #: that sorting may take before it spills


def write_index_table(
    root: Path,
    primary: Path,
    partitions: Collection[Key],
    facts: Mapping[str, object],
    scratch: Path | None = None,
) -> int:
    """Write the index of a table of the catalogue; its number of rows.

    Parameters
    ----------
    root, primary : folders of the index and of the table
    partitions : of the table, (order, pixel)
    facts : properties of the table that the index shares: its name, who made it
    scratch : folder for files that are gone afterwards (default: this machine's)
    """
    rows, footers = 0, []
    with tempfile.TemporaryDirectory(dir=scratch) as folder, duckdb.connect() as connection:
        connection.execute("SET temp_directory = '{}'".format(folder.replace("'", "''")))
        connection.execute(f"SET memory_limit = '{MEMORY}'")
        connection.execute("SET enable_progress_bar = false")
        if not storage.is_local(primary):
            connection.register_filesystem(primary.fs)  # type: ignore[attr-defined]
        # names of the files, not a pattern: only these, and no listing
        files = [_address(below(primary, key)) for key in sorted(partitions)]
        reader = connection.sql(
            "SELECT objectid, _healpix_29, regexp_extract(filename, 'Norder=(\\d+)', 1)::UTINYINT AS Norder, "
            "regexp_extract(filename, 'Npix=(\\d+)[^/]*$', 1)::UBIGINT AS Npix "
            "FROM read_parquet($files, hive_partitioning = false, filename = true) "
            "ORDER BY objectid, _healpix_29",
            params={"files": files},
        ).to_arrow_reader(GROUP)
        local = Path(folder) / "part.parquet"
        writer, groups, number = None, 0, 0
        for batch in _regroup(reader):
            if writer is None:
                writer, groups = pq.ParquetWriter(local, SCHEMA, compression="zstd"), 0
            writer.write_table(batch.cast(SCHEMA), row_group_size=GROUP)
            rows, groups = rows + len(batch), groups + 1
            if groups == FILE:
                writer.close()
                footers.append(_place(local, root, number))
                writer, number = None, number + 1
        if writer is not None:
            writer.close()
            footers.append(_place(local, root, number))
    whole = footers[0]
    for footer in footers[1:]:
        whole.append_row_groups(footer)
    write_file(root / "dataset" / "_metadata", whole.write_metadata_file)
    write_file(root / "dataset" / "_common_metadata", partial(pq.write_metadata, SCHEMA))
    name = str(facts["obs_collection"])
    more = {
        "obs_collection": f"{name}_objectid_index",
        "dataproduct_type": CatalogType.INDEX,
        "hats_primary_table_url": name,
        "hats_index_column": "objectid",
        "hats_nrows": rows,
    }
    write_properties(root, TableProperties.model_validate(dict(facts) | more))
    return rows


def _regroup(reader: pa.RecordBatchReader) -> Iterator[pa.Table]:
    """Tables of GROUP rows, the last one shorter."""
    held: list[pa.RecordBatch] = []
    for batch in reader:
        held.append(batch)
        while sum(map(len, held)) >= GROUP:
            table = pa.Table.from_batches(held)
            yield table.slice(0, GROUP)
            held = table.slice(GROUP).to_batches()
    if held and sum(map(len, held)):
        yield pa.Table.from_batches(held)


def _place(local: Path, root: Path, number: int) -> pq.FileMetaData:
    """Put a finished file in its place; its footer, with that place in it."""
    name = f"index/part{number:05}.parquet"
    footer = pq.read_metadata(local)
    footer.set_file_path(name)
    storage.replace(root / "dataset" / name, local.read_bytes())
    return footer


def _address(path: Path) -> str:
    return str(path)
