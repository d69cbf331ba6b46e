"""Turn a folder of partition files into a HATS catalogue: the files beside the partitions.

After the IVOA note "HATS: a standard for the Hierarchical Adaptive Tiling Scheme in the virtual observatory"
(https://www.ivoa.net/documents/Notes/HATS/), with hats' own writers.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hats.catalog import CatalogType, PartitionInfo, TableProperties
from hats.io import file_io, paths
from hats.pixel_math import HealpixPixel, spatial_index_to_healpix
from hats.pixel_math.sparse_histogram import HistogramAggregator, SparseHistogram
from hats.pixel_math.spatial_index import SPATIAL_INDEX_COLUMN, SPATIAL_INDEX_ORDER

from lightmill.catalogs import storage

# The order of the maps: 8 is 0.05 square degrees a cell, what LSDB writes by default; finer where the
# partitions are finer, so that a map never blurs them; never above 10, where the array is 100 MB.
MAP_ORDER = 8
MAP_ORDER_MAX = 10


def partition_path(root: Path, order: int, pixel: int, npix_suffix: str = ".parquet") -> Path:
    """Where HATS keeps one partition: a file, or a folder of files where `npix_suffix` is "/".

    >>> partition_path(Path("dr24"), 5, 12014).as_posix()
    'dr24/dataset/Norder=5/Dir=10000/Npix=12014.parquet'
    """
    where = paths.pixel_catalog_file(root, HealpixPixel(order, pixel), npix_suffix=npix_suffix)
    return Path(where.path)


def below(root: Path, key: tuple[int, int], npix_suffix: str = ".parquet") -> Path:
    """The same under a root that may be in an object store."""
    return root / partition_path(Path(), *key, npix_suffix).as_posix()


def open_parquet(path: Path) -> pq.ParquetFile:
    """A Parquet file on a file system or in an object store."""
    if storage.is_local(path):
        return pq.ParquetFile(path)
    return pq.ParquetFile(path.path, filesystem=path.fs)  # type: ignore[attr-defined]


def finish_catalog(
    root: Path,
    *,
    name: str,
    partitions: Mapping[tuple[int, int], int],
    ra_column: str,
    dec_column: str,
    default_columns: Sequence[str] | None = None,
    properties: Mapping[str, str] = {},
    npix_suffix: str = ".parquet",
) -> None:
    """Write all that makes the partitions under `root` a valid HATS catalogue of objects.

    That is `dataset/_common_metadata`, `partition_info.csv`, `point_map.fits` and `skymap.fits` (rows a
    cell), and last `properties` and `hats.properties`, which are what makes the folder a catalogue. Each file
    appears whole under its name or not at all. `dataset/_metadata` is not written: it repeats the footer of
    every row group (tens of megabytes at ten thousand partitions), and neither hats nor LSDB needs it.

    Parameters: `partitions` maps (order, pixel) to the number of rows; `properties` are further `key = value`
    lines such as `obs_title`, and override what is set here (give `hats_creation_date` where equal input
    must make equal bytes). The partitions are read once, for their footers and the column `_healpix_29`.

    Raises ValueError where the files disagree with `partitions` (missing, unexpected, another number of
    rows), lie outside their pixel, or have different columns.
    """
    if not partitions:
        raise ValueError(
            f"no partitions for {root}: a HATS catalogue needs at least one; nothing was written"
        )
    _check_files(root, partitions, npix_suffix)
    schema, points = _survey(root, partitions, npix_suffix)
    _check_columns(schema, (ra_column, dec_column, *(default_columns or ())))
    pixels = PartitionInfo.from_healpix([HealpixPixel(*key) for key in partitions])
    facts = _properties(name, partitions, pixels, npix_suffix) | {
        "hats_col_ra": ra_column,
        "hats_col_dec": dec_column,
        "hats_cols_default": list(default_columns) if default_columns else None,
        "hats_skymap_order": _map_order(partitions),
        "hats_estsize": _kilobytes(root, partitions, npix_suffix),
    }
    write_file(root / "dataset" / "_common_metadata", partial(pq.write_metadata, schema))
    write_file(root / "partition_info.csv", pixels.write_to_file)
    write_file(root / "point_map.fits", partial(file_io.write_fits_image, points))
    write_file(root / "skymap.fits", partial(file_io.write_fits_image, points))
    write_properties(root, TableProperties.model_validate(facts | dict(properties)))


def _check_files(root: Path, partitions: Mapping[tuple[int, int], int], npix_suffix: str) -> None:
    """Exactly the expected partitions lie under `dataset/`: hats' strict validation refuses one too many."""
    expected = {below(root, key, npix_suffix) for key in partitions}
    found = set(_listed(root / paths.DATASET_DIR))
    for label, wrong, advice in (
        ("missing", expected - found, "write them, or leave them out of `partitions`"),
        ("unexpected", found - expected, "remove them, or add them to `partitions`"),
    ):
        if wrong:
            raise ValueError(
                f"{len(wrong)} {label} partition files under {root}, {len(found)} found where "
                f"{len(expected)} were expected, first {min(wrong)}: {advice}"
            )


def _listed(dataset: Path) -> Iterator[Path]:
    """The files and folders that hold partitions, by one listing where the store is remote."""
    if storage.is_local(dataset):
        yield from dataset.glob("Norder*/Dir*/Npix*")
        return
    for path, _ in storage.files(dataset, ""):
        for place in (path, *path.parents):
            if place.name.startswith("Npix"):
                yield place
                break


def _files(path: Path) -> list[Path]:
    """The Parquet files of one partition, sorted by name."""
    return sorted(path.glob("*.parquet")) if path.is_dir() else [path]


def _survey(
    root: Path, partitions: Mapping[tuple[int, int], int], npix_suffix: str
) -> tuple[pa.Schema, np.ndarray]:
    """The common schema, and how many rows lie in each cell of the map (int64, NESTED ordering)."""
    total = HistogramAggregator(_map_order(partitions))
    common: pa.Schema | None = None
    look = partial(_look, root, order_of_map=total.order, npix_suffix=npix_suffix)
    # Threads: the time goes into reading, and Arrow releases the GIL while it does.
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        for (key, rows), (schema, histogram) in zip(
            partitions.items(), pool.map(look, partitions), strict=True
        ):
            common = schema if common is None else common
            _check_partition(below(root, key, npix_suffix), rows, histogram, schema, common)
            total.add(histogram)
    assert common is not None
    return common, total.full_histogram


def _look(
    root: Path, key: tuple[int, int], *, order_of_map: int, npix_suffix: str
) -> tuple[pa.Schema, SparseHistogram]:
    """The schema and the map of one partition, and a ValueError where a row lies outside its pixel."""
    path = below(root, key, npix_suffix)
    schema: pa.Schema | None = None
    counts: dict[int, int] = {}
    for file in _files(path):
        with open_parquet(file) as parquet:
            _check_columns(parquet.schema_arrow, (SPATIAL_INDEX_COLUMN,), file)
            if schema is not None and not schema.equals(parquet.schema_arrow):
                raise ValueError(_schema_message(file, parquet.schema_arrow, schema))
            schema = parquet.schema_arrow
            for index in _spatial_index(parquet):
                _check_inside(file, key, index)
                cells, rows = np.unique(spatial_index_to_healpix(index, order_of_map), return_counts=True)
                for cell, n in zip(cells.tolist(), rows.tolist(), strict=True):
                    counts[cell] = counts.get(cell, 0) + n
    if schema is None:
        raise ValueError(f"{path} holds no *.parquet file: write one, or leave it out of `partitions`")
    cells = np.fromiter(counts, dtype=np.int64, count=len(counts))
    return schema, SparseHistogram(cells, np.fromiter(counts.values(), np.int64, len(counts)), order_of_map)


def _spatial_index(parquet: pq.ParquetFile) -> Iterator[np.ndarray]:
    """The column `_healpix_29`, batch by batch, so that memory does not follow the size of the partition."""
    for batch in parquet.iter_batches(1_000_000, columns=[SPATIAL_INDEX_COLUMN], use_threads=False):
        if len(batch):
            yield batch.column(0).to_numpy(zero_copy_only=False)


def _check_inside(file: Path, key: tuple[int, int], index: np.ndarray) -> None:
    order, pixel = key
    found = spatial_index_to_healpix(np.array([index.min(), index.max()]), order)
    if found[0] != pixel or found[1] != pixel:
        raise ValueError(
            f"{file} holds rows of pixels {found[0]} to {found[1]} at order {order}, expected only {pixel}: "
            f"write each row to the partition that its {SPATIAL_INDEX_COLUMN} names"
        )


def _check_partition(
    path: Path, rows: int, histogram: SparseHistogram, schema: pa.Schema, common: pa.Schema
) -> None:
    if histogram.counts.sum() != rows:
        raise ValueError(
            f"{path} holds {histogram.counts.sum()} rows, `partitions` says {rows}: "
            "write the partition again, or correct the number"
        )
    if not schema.equals(common):
        raise ValueError(_schema_message(path, schema, common))


def _schema_message(path: Path, found: pa.Schema, common: pa.Schema) -> str:
    differ = sorted({str(field) for field in found} ^ {str(field) for field in common})
    return f"{path} differs from the partitions before it in {differ}: cast every partition to one schema"


def _check_columns(schema: pa.Schema, columns: Sequence[str], where: Path | str = "the partitions") -> None:
    if missing := [column for column in columns if column not in schema.names]:
        raise ValueError(f"no column {missing} in {where}, which have {schema.names}: name columns they have")


def _map_order(partitions: Mapping[tuple[int, int], int]) -> int:
    return min(max(MAP_ORDER, *(order for order, _ in partitions)), MAP_ORDER_MAX)


def _kilobytes(root: Path, partitions: Mapping[tuple[int, int], int], npix_suffix: str) -> int:
    """The size of the partitions alone, so that a second call, which finds our own files, says the same."""
    files = (file for key in partitions for file in _files(below(root, key, npix_suffix)))
    return sum(file.stat().st_size for file in files) // 1024


def _properties(
    name: str, partitions: Mapping[tuple[int, int], int], pixels: PartitionInfo, npix_suffix: str
) -> dict[str, object]:
    """What `hats.properties` says of any catalogue of ours, under the names of the HATS note."""
    return {
        "obs_collection": name,
        "dataproduct_type": CatalogType.OBJECT,
        "hats_nrows": sum(partitions.values()),
        "hats_max_rows": max(partitions.values()),
        "hats_order": pixels.get_highest_order(),
        "hats_col_healpix": SPATIAL_INDEX_COLUMN,
        "hats_col_healpix_order": SPATIAL_INDEX_ORDER,
        "hats_npix_suffix": npix_suffix,
        "moc_sky_fraction": float(f"{pixels.calculate_fractional_coverage():.5g}"),
        "hats_builder": f"lightmill v{version('lightmill')}, hats v{version('hats')}",
        "hats_creation_date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M%Z"),
        "hats_version": "v1.0",
    }


def write_file(path: Path, writer: Callable[[Path], object]) -> None:
    """Let `writer` fill a temporary file, then put it in place whole: a reader never meets half a file."""
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / path.name
        writer(part)
        storage.replace(path, part.read_bytes())


def write_properties(root: Path, table: TableProperties) -> None:
    """Both names that hats reads; `hats.properties`, the one that it tries first, comes last."""
    for file in ("properties", "hats.properties"):
        write_file(
            root / file,
            lambda part: table.to_properties_file_path(
                file_io.get_upath(part), initial_comments="HATS catalog"
            ),
        )
