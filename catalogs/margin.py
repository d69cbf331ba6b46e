"""The margin of a catalogue: of each partition the rows of others that lie just beyond its edge.

LSDB reads them with the partition, so that a crossmatch across an edge misses nothing. As hats-import and LSDB make it:
the rows in those cells that border on the partition, of the finest order at which a cell is as wide as the threshold.
Partitions with no rows of their own have a margin too: a row of another catalogue may lie there.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from cdshealpix.nested import neighbours
from hats.catalog import CatalogType, PartitionInfo, TableProperties
from hats.pixel_math import HealpixPixel
from hats.pixel_math.healpix_shim import margin2order
from hats.pixel_math.spatial_index import SPATIAL_INDEX_COLUMN, SPATIAL_INDEX_ORDER

from lightmill.catalogs import storage
from lightmill.catalogs.chain import Key, coverage, span
from lightmill.catalogs.finish import below, open_parquet, write_file, write_properties
from lightmill.catalogs.rows import COMPRESSION

__all__ = ["edge_cells", "margin_name", "margin_order", "write_margin"]

THREADS = 4


def margin_name(table: str, arcsec: float) -> str:
    """The folder of a margin: objects_10arcs."""
    return f"{table}_{arcsec:g}arcs"


def margin_order(arcsec: float) -> int:
    """The finest order at which cells are nowhere narrower than the threshold."""
    return int(margin2order(np.array([arcsec / 60]))[0])


def write_margin(
    root: Path,
    primary: Path,
    partitions: Collection[Key],
    arcsec: float,
    facts: Mapping[str, object],
    scratch: Path | None = None,
) -> int:
    """Write the margin of a table of the catalogue as a table of its own; its number of rows.

    Parameters
    ----------
    root, primary : folders of the margin and of the table
    partitions : of the table, (order, pixel)
    arcsec : threshold
    facts : properties of the table that the margin shares: its name, columns
    scratch : folder for files that are gone afterwards (default: this machine's)

    Raises
    ------
    ValueError
        where partitions are not larger than the cells of the threshold.
    """
    order, finest = margin_order(arcsec), max(key[0] for key in partitions)
    if order <= finest:
        raise ValueError(
            f'a margin of {arcsec:g}" needs partitions of order {order - 1} or below, the finest here is of order '
            f"{finest}: give a smaller margin, or 0"
        )
    sky = _whole_sky(partitions)
    with tempfile.TemporaryDirectory(dir=scratch) as folder, ThreadPoolExecutor(THREADS) as pool:
        shards: dict[int, list[tuple[Path, int]]] = {}
        gather = partial(_gather, primary, order=order, sky=sky, folder=Path(folder))
        for path, wanted_by in pool.map(gather, sorted(partitions)):
            for group, target in enumerate(wanted_by):
                shards.setdefault(target, []).append((path, group))
        targets = {sky.keys[target]: parts for target, parts in shards.items()}
        counts = dict(zip(targets, pool.map(partial(_write, root), targets.items()), strict=True))
    with open_parquet(below(primary, min(partitions))) as parquet:
        write_file(root / "dataset" / "_common_metadata", partial(pq.write_metadata, parquet.schema_arrow))
    info = PartitionInfo.from_healpix([HealpixPixel(*key) for key in sorted(counts)])
    write_file(root / "partition_info.csv", info.write_to_file)
    name = str(facts["obs_collection"])
    more = {
        "obs_collection": margin_name(name, arcsec),
        "dataproduct_type": CatalogType.MARGIN,
        "hats_primary_table_url": name,
        "hats_margin_threshold": arcsec,
        "hats_nrows": sum(counts.values()),
        "hats_max_rows": max(counts.values(), default=0),
        "hats_order": max((key[0] for key in counts), default=finest),
        "hats_skymap_order": None,
        "hats_estsize": None,
        "moc_sky_fraction": float(f"{info.calculate_fractional_coverage():.5g}") if counts else 0.0,
    }
    write_properties(root, TableProperties.model_validate(dict(facts) | more))
    return sum(counts.values())


class _Sky:
    """Partitions, and the pixels between them, so that every place lies in one."""

    def __init__(self, keys: list[Key]) -> None:
        self.keys = sorted(keys, key=span)
        self.starts = np.array([span(key)[0] for key in self.keys], np.int64)

    def at(self, cells: np.ndarray, order: int) -> np.ndarray:
        """Which of `keys` cells of an order lie in."""
        first = cells.astype(np.int64) << (2 * (SPATIAL_INDEX_ORDER - order))
        return np.searchsorted(self.starts, first, "right") - 1


def _whole_sky(partitions: Collection[Key]) -> _Sky:
    # as hats' negative tree has it, which Numba would compile anew in each process that publishes
    uniq = coverage(partitions).complement().uniq_hpx.astype(np.int64)  # 4 * 4**order + pixel
    order = np.searchsorted(4 ** np.arange(2, 31), uniq, "right")
    empty = zip(order.tolist(), (uniq - (4 << 2 * order)).tolist(), strict=True)
    return _Sky([*partitions, *empty])


def edge_cells(cells: np.ndarray, order: int, key: Key) -> np.ndarray:
    """Which cells of a finer order, all within a pixel, lie on its edge: (n,) bool.

    The bits of a NESTED number below the pixel's are those of x and y in turn; on the edge one of them is all 0 or 1.
    """
    depth = order - key[0]
    x = sum(1 << (2 * i) for i in range(depth))
    y = x << 1
    in_x, in_y = cells & x, cells & y
    on_edge: np.ndarray = (in_x == 0) | (in_x == x) | (in_y == 0) | (in_y == y)
    return on_edge


def _gather(primary: Path, key: Key, *, order: int, sky: _Sky, folder: Path) -> tuple[Path, list[int]]:
    """Write the rows of a partition that are in the margins of others, one row group a margin; of which they are."""
    found: dict[int, list[pa.Table]] = {}
    with open_parquet(below(primary, key)) as parquet:
        schema = parquet.schema_arrow
        for group in range(parquet.num_row_groups):
            index = parquet.read_row_group(group, columns=[SPATIAL_INDEX_COLUMN], use_threads=False)
            cells = index.column(0).to_numpy() >> (2 * (SPATIAL_INDEX_ORDER - order))
            rows = np.flatnonzero(edge_cells(cells, order, key))
            near, at = np.unique(cells[rows], return_inverse=True)
            if not len(near):
                continue
            beyond = neighbours(near.astype(np.uint64), order)  # (n, 9), -1 where there is none
            targets = np.where(beyond >= 0, sky.at(beyond, order), -1)
            own = sky.at(near[:1], order)[0]
            others = np.setdiff1d(targets, [-1, own])
            if not len(others):
                continue
            table = parquet.read_row_group(group, use_threads=False)
            for target in others.tolist():
                mine = (targets == target).any(axis=1)[at]
                found.setdefault(target, []).append(table.take(pa.array(rows[mine])))
    path = folder / f"{key[0]}-{key[1]}.parquet"
    if found:
        with pq.ParquetWriter(path, schema, compression="zstd", compression_level=1) as writer:
            for parts in found.values():
                table = pa.concat_tables(parts).unify_dictionaries().combine_chunks()
                writer.write_table(table, row_group_size=max(len(table), 1))
    return path, list(found)


def _write(root: Path, item: tuple[Key, list[tuple[Path, int]]]) -> int:
    """Write the margin of one partition; its number of rows."""
    key, parts = item
    tables = []
    for path, group in parts:
        with pq.ParquetFile(path) as parquet:
            tables.append(parquet.read_row_group(group, use_threads=False))
    table = pa.concat_tables(tables).unify_dictionaries().combine_chunks().sort_by(SPATIAL_INDEX_COLUMN)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **COMPRESSION)
    storage.replace(below(root, key), sink.getvalue().to_pybytes())
    return len(table)
