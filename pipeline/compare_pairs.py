"""The rows of two versions of a catalogue, joined by DuckDB within a limit of memory; the rest goes to disk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb

from lightmill.pipeline.compare_side import CompareError, Side, text

__all__ = ["FINEST", "joined", "select_from"]

FINEST = 5  #: HEALPix order of the column `cell`


@contextmanager
def joined(a: Side, b: Side, shared: Sequence[str], memory: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection with the views `first_rows` and `second_rows` and the table `pairs`, on disk until it is closed."""
    shifts = "".join(
        f', (b."p_{leaf}"::DOUBLE - a."p_{leaf}"::DOUBLE)::FLOAT AS d{i}' for i, leaf in enumerate(shared)
    )
    with (
        tempfile.TemporaryDirectory(prefix="lightmill-diff-") as folder,
        duckdb.connect(str(Path(folder) / "pairs.duckdb")) as connection,
    ):
        connection.execute("SET enable_progress_bar = false")
        connection.execute("SET preserve_insertion_order = false")
        connection.execute(f"SET temp_directory = {text(folder)}")
        try:
            connection.execute(f"SET memory_limit = {text(memory)}")
        except duckdb.Error as error:
            raise CompareError(f"memory {memory!r} is not an amount such as 1GB: {error}") from error
        for side, view in ((a, "first_rows"), (b, "second_rows")):
            side.register(connection)
            connection.execute(f"CREATE TEMP VIEW {view} AS {select_from(side.rows_files)}")
        connection.execute(
            "CREATE TABLE pairs AS SELECT coalesce(a.objectid, b.objectid) AS objectid, "
            "a.objectid IS NOT NULL AS in_first, b.objectid IS NOT NULL AS in_second, "
            f"coalesce(b._healpix_29, a._healpix_29) >> {2 * (29 - FINEST)} AS cell, "
            "a.best_class AS class_1, b.best_class AS class_2, a.period AS period_1, b.period AS period_2"
            f"{shifts} FROM first_rows a FULL OUTER JOIN second_rows b "
            "ON a.objectid = b.objectid AND coalesce(a.filterid, -1) = coalesce(b.filterid, -1)"
        )
        yield connection


def select_from(files: Sequence[str]) -> str:
    """A SELECT of all rows of Parquet files, at least one."""
    # names like Norder=5 in the paths are not columns
    return f"SELECT * FROM read_parquet([{', '.join(map(text, files))}], hive_partitioning = false)"
