"""Light curves of a release by identifier: only the column of identifiers is read of what does not hold them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lightmill.catalogs.lightcurves import LightCurves, choose_layout, from_arrow, objectid_of
from lightmill.catalogs.partitions import File, Partition
from lightmill.catalogs.release import Release

__all__ = ["Found", "lookup"]

SIDE_BY_SIDE = 8  #: partitions that are looked into: behind a URL the time is spent waiting


@dataclass(frozen=True)
class Found:
    """A light curve, and where it is."""

    partition: Partition
    curves: LightCurves  #: a batch of one


def lookup(release: Release, identifiers: Iterable[str]) -> dict[str, Found]:
    """The light curves that have these identifiers; those that are not there are left out.

    Parameters
    ----------
    identifiers : as the release has them; of text also the number that stands for it in a catalogue

    Raises
    ------
    OSError, pyarrow.ArrowInvalid
        if a file cannot be read.
    """
    wanted = list(dict.fromkeys(identifiers))
    found: dict[str, Found] = {}
    pool = ThreadPoolExecutor(SIDE_BY_SIDE)
    try:
        for here in pool.map(lambda part: _in_partition(part, release, wanted), release.table.partitions()):
            found = here | found
            if len(found) == len(wanted):
                break
    finally:
        pool.shutdown(cancel_futures=True)
    return {identifier: found[identifier] for identifier in wanted if identifier in found}


def _in_partition(partition: Partition, release: Release, wanted: list[str]) -> dict[str, Found]:
    found: dict[str, Found] = {}
    for file in partition.files:
        found = _in_file(partition, file, release, wanted) | found
    return found


def _in_file(partition: Partition, file: File, release: Release, wanted: list[str]) -> dict[str, Found]:
    layout = release.layout
    found: dict[str, Found] = {}
    with _opened(partition, file) as parquet:
        choose_layout(parquet.schema_arrow, {layout.name: layout}, where=file.path)
        match = _matcher(parquet.schema_arrow.field(layout.objectid).type, wanted)
        # an epoch column by its first name: all of a nested one
        epochs = dict.fromkeys(name.partition(".")[0] for name in layout.epoch_columns)
        for group in range(parquet.metadata.num_row_groups):
            if not _may_hold(parquet, group, layout.objectid, wanted):
                continue
            hits = match(parquet.read_row_group(group, columns=[layout.objectid]).column(0))
            if not hits:
                continue
            table = parquet.read_row_group(group, columns=[*layout.row_columns, *epochs], use_threads=False)
            for identifier, row in hits.items():
                found.setdefault(
                    identifier, Found(partition, from_arrow(table.slice(row, 1), layout, where=file.path))
                )
    return found


@contextmanager
def _opened(partition: Partition, file: File) -> Iterator[pq.ParquetFile]:
    """A file of a partition; errors of its content name it."""
    try:
        with partition.open(file) as parquet:
            yield parquet
    except pa.ArrowInvalid as error:
        raise pa.ArrowInvalid(f"{file.path}: {error}") from error


def _may_hold(parquet: pq.ParquetFile, group: int, name: str, wanted: list[str]) -> bool:
    """Whether a row group's footer leaves it open that one of the identifiers is in it."""
    names = [parquet.schema.column(i).path for i in range(len(parquet.schema))]
    about = parquet.metadata.row_group(group).column(names.index(name)).statistics
    if about is None or not about.has_min_max or not isinstance(about.min, int):
        return True
    return any(about.min <= objectid_of(identifier) <= about.max for identifier in wanted)


def _matcher(dtype: pa.DataType, wanted: list[str]) -> Callable[[pa.ChunkedArray], dict[str, int]]:
    """Finds the first row of each identifier in a column of this type."""
    if pa.types.is_integer(dtype):
        numbers = {identifier: objectid_of(identifier) for identifier in wanted}

        def in_numbers(column: pa.ChunkedArray) -> dict[str, int]:
            values = column.fill_null(-1).to_numpy().astype(np.int64)
            rows = np.flatnonzero(np.isin(values, list(numbers.values())))
            first = {int(values[row]): int(row) for row in rows[::-1]}
            return {identifier: first[number] for identifier, number in numbers.items() if number in first}

        return in_numbers
    hashes = {int(identifier): identifier for identifier in wanted if identifier.isdigit()}

    def in_texts(column: pa.ChunkedArray) -> dict[str, int]:
        hits: dict[str, int] = {}
        for row, text in enumerate(column.to_pylist()):
            if text in wanted:
                hits.setdefault(text, row)
            elif hashes and text and objectid_of(text) in hashes:
                hits.setdefault(hashes[objectid_of(text)], row)
        return hits

    return in_texts
