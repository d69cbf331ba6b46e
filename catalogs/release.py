"""Releases: HATS catalogues of light curves, read partition by partition in bounded batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow.parquet as pq
from hats.pixel_math.spatial_index import SPATIAL_INDEX_COLUMN

from lightmill.catalogs.lightcurves import Layout, LightCurves, choose_layout, from_arrow
from lightmill.catalogs.partitions import HatsTable, Partition, open_hats

__all__ = ["Release", "count_epochs", "count_rows", "open_release", "read_batches"]


@dataclass(frozen=True)
class Release:
    """A HATS catalogue of light curves, and how they are stored in it."""

    table: HatsTable
    layout: Layout


def open_release(url: str, layouts: Mapping[str, Layout] | None = None) -> Release:
    """Open a HATS catalogue and find out its layout: the first of `layouts` (default: all known) that fits.

    Raises
    ------
    NotHats
        if it is not a HATS catalogue, or has no partition.
    LayoutError
        if none of the layouts fits its columns.
    """
    table = open_hats(url)
    return Release(table, choose_layout(table.schema(), layouts, where=url))


def read_batches(partition: Partition, layout: Layout, max_epochs: int) -> Iterator[LightCurves]:
    """Stream a partition in batches of at most `max_epochs` epochs (one light curve at least).

    Memory follows the batch, not the partition or its row groups.

    Raises
    ------
    LayoutError
        if this partition does not have the columns of the layout.
    OSError, pyarrow.ArrowInvalid
        if a file cannot be read.
    """
    if not partition.files:
        raise FileNotFoundError(f"{partition}: no Parquet file, though the catalogue lists this partition")
    for file in partition.files:
        with partition.open(file) as parquet:
            schema = parquet.schema_arrow
            choose_layout(schema, {layout.name: layout}, where=file.path)
            index = [SPATIAL_INDEX_COLUMN] if SPATIAL_INDEX_COLUMN in schema.names else []
            rows = _rows_per_batch(parquet, layout, max_epochs)
            columns = [*layout.row_columns, *_leaves(parquet, layout), *index]
            for groups in _groups(parquet, layout, max_epochs):
                # one thread: the process is one of many on its host
                found = parquet.iter_batches(rows, row_groups=groups, columns=columns, use_threads=False)
                for batch in found:
                    yield from from_arrow(batch, layout, where=file.path).split(max_epochs)


def count_rows(partition: Partition) -> int:
    """Light curves in a partition, from the footers of its files."""
    total = 0
    for file in partition.files:
        with partition.open(file) as parquet:
            total += parquet.metadata.num_rows
    return total


def count_epochs(parquet: pq.ParquetFile, layout: Layout) -> int:
    """Epochs in a Parquet file, from its footer (a null list counts as one)."""
    paths = [parquet.schema.column(i).path for i in range(len(parquet.schema))]
    leaf, meta = paths.index(_leaves(parquet, layout)[0]), parquet.metadata
    return sum(meta.row_group(group).column(leaf).num_values for group in range(meta.num_row_groups))


def _leaves(parquet: pq.ParquetFile, layout: Layout) -> list[str]:
    """Paths of the epoch columns as Parquet stores them, that of the time first.

    `mag.list.element`, nested `lightcurve.mag.list.element`, or `lightcurve.list.element.mag` in a list of structs.
    """
    parts = [parquet.schema.column(i).path.split(".") for i in range(len(parquet.schema))]
    names = [name.split(".") for name in layout.epoch_columns]
    return [".".join(p) for first, *rest in names for p in parts if p[0] == first and set(rest) <= set(p)]


def _groups(parquet: pq.ParquetFile, layout: Layout, max_epochs: int) -> Iterator[list[int]]:
    """Row groups to read together, of at most `max_epochs` epochs unless one alone has more.

    Arrow keeps the compressed pages of all row groups that one iterator has passed: a file in one go would pile up.
    """
    paths = [parquet.schema.column(i).path for i in range(len(parquet.schema))]
    leaf, meta = paths.index(_leaves(parquet, layout)[0]), parquet.metadata
    held, epochs = list[int](), 0
    for group in range(meta.num_row_groups):
        more = meta.row_group(group).column(leaf).num_values
        if held and epochs + more > max_epochs:
            yield held
            held, epochs = [], 0
        held.append(group)
        epochs += more
    if held:
        yield held


def _rows_per_batch(parquet: pq.ParquetFile, layout: Layout, max_epochs: int) -> int:
    """How many rows hold about `max_epochs` epochs, by the mean of the file; decoded rows must fit in memory."""
    mean = count_epochs(parquet, layout) / max(parquet.metadata.num_rows, 1)
    return int(max(1, min(max_epochs / max(mean, 1.0), 1_000_000)))
