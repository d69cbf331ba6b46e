"""Bulk import: light-curve Parquet files, as IRSA serves them, into a HATS release (extra `import`)."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hats_import.catalog.arguments import ImportArguments
from hats_import.catalog.file_readers import ParquetPyarrowReader
from hats_import.pipeline import pipeline_with_client

from lightmill.catalogs.lightcurves import Layout, choose_layout
from lightmill.catalogs.release import count_epochs, count_rows, open_release
from lightmill.cluster.local import available_cores, local_cluster

__all__ = ["BulkError", "Imported", "import_files"]

EPOCHS_PER_PARTITION = (
    50_000_000  #: about 1 GB of Parquet, what ZTF's own HATS releases have at most per partition
)
HIGHEST_ORDER = 10  #: 3.4 arcmin: no partition need be smaller


class BulkError(ValueError):
    """Files that cannot be made a release."""


class DoublePositions(ParquetPyarrowReader):
    """Reads Parquet with positions as float64, whatever they are stored as.

    IRSA stores float32; an index computed from float32 steps can fall into the pixel next door.
    """

    def __init__(self, positions: tuple[str, str], **options: object) -> None:
        super().__init__(**options)
        self.positions = positions

    def read(self, input_file: str, read_columns: list[str] | None = None) -> Iterator[pa.Table]:
        """Tables of at most `chunksize` rows."""
        for table in super().read(input_file, read_columns):
            for name in self.positions:
                at = table.schema.get_field_index(name)
                if at >= 0:
                    table = table.set_column(at, name, table.column(at).cast(pa.float64()))
            yield table


@dataclass(frozen=True)
class Imported:
    """What an import did."""

    light_curves: int  #: rows read and rows written, which are equal
    files: int
    partitions: int
    release: str


def import_files(
    sources: Sequence[Path],
    out: Path,
    *,
    layouts: Mapping[str, Layout] | None = None,
    workers: int | None = None,
    progress: bool = False,
) -> Imported:
    """Make a HATS release of Parquet files (or folders of them) that have a light curve a row.

    Raises
    ------
    BulkError
        if there are no such files, one has other columns than the first, a position is no place on the sky, `out`
        exists, or a row was lost.
    LayoutError
        if the columns fit no layout.
    """
    files = _files(sources)
    layout, rows, epochs = _inspect(files, layouts)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BulkError(f"{out} exists and is not empty: give another --out, or remove it")
    name = _catalog_name(out)
    per_partition = max(1, int(EPOCHS_PER_PARTITION / max(1.0, epochs / rows)))
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        job = ImportArguments(
            output_path=scratch,
            output_artifact_name=name,
            input_file_list=[str(path) for path in files],
            file_reader=DoublePositions((layout.ra, layout.dec), chunksize=min(500_000, per_partition)),
            ra_column=layout.ra,
            dec_column=layout.dec,
            sort_columns=layout.objectid,
            pixel_threshold=per_partition,
            highest_healpix_order=HIGHEST_ORDER,
            expected_total_rows=rows,
            progress_bar=progress,
            simple_progress_bar=True,
            tmp_dir=str(Path(scratch) / "tmp"),
        )
        with local_cluster(workers or min(available_cores(), len(files))) as client:
            pipeline_with_client(job, client)
        # the release appears under its name whole, or not at all
        (Path(scratch) / name).rename(out)
    release = open_release(str(out), layouts)
    partitions = release.table.partitions()
    written = sum(count_rows(partition) for partition in partitions)
    if written != rows:
        raise BulkError(
            f"{rows} light curves read from {len(files)} files, {written} written to {out}: rows were lost"
        )
    return Imported(light_curves=written, files=len(files), partitions=len(partitions), release=str(out))


def _files(sources: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for source in sources:
        if source.is_dir():
            files += sorted(source.rglob("*.parquet"))
        elif source.is_file():
            files.append(source)
        else:
            raise BulkError(f"no file or folder {source}")
    if not files:
        raise BulkError(f"no Parquet file in {', '.join(map(str, sources))}")
    return files


def _inspect(files: Sequence[Path], layouts: Mapping[str, Layout] | None) -> tuple[Layout, int, int]:
    """Layout, rows and epochs of the files, from their footers; positions are looked at."""
    layout: Layout | None = None
    schema: pa.Schema | None = None
    rows = epochs = 0
    for path in files:
        try:
            parquet = pq.ParquetFile(path)
        except (OSError, ValueError) as error:
            raise BulkError(f"{path} is not a Parquet file that can be read: {error}") from error
        with parquet:
            own = choose_layout(parquet.schema_arrow, layouts, where=str(path))
            if layout is not None and own.name != layout.name:
                raise BulkError(
                    f"{path} has the layout {own.name!r}, {files[0]} has {layout.name!r}: import them apart"
                )
            if schema is not None and not schema.equals(parquet.schema_arrow):
                differ = sorted(
                    {str(field) for field in schema} ^ {str(field) for field in parquet.schema_arrow}
                )
                raise BulkError(
                    f"{path} differs from {files[0]} in {differ}: import them apart, or cast one of them"
                )
            layout, schema = own, parquet.schema_arrow
            rows += parquet.metadata.num_rows
            epochs += count_epochs(parquet, own)
            _check_positions(path, parquet, own)
    if layout is None or rows == 0:
        raise BulkError(f"the {len(files)} files hold no light curve")
    return layout, rows, epochs


def _check_positions(path: Path, parquet: pq.ParquetFile, layout: Layout) -> None:
    """hats-import would fail, or drop the row, on a position that is no place on the sky."""
    for batch in parquet.iter_batches(1_000_000, columns=[layout.ra, layout.dec]):
        ra, dec = (batch.column(i).to_numpy(zero_copy_only=False).astype(np.float64) for i in (0, 1))
        bad = ~(np.isfinite(ra) & (np.abs(dec) <= 90))
        if bad.any():
            at = int(np.flatnonzero(bad)[0])
            raise BulkError(
                f"{path}: {int(bad.sum())} light curves have no place on the sky, the first at "
                f"({layout.ra}, {layout.dec}) = ({ra[at]}, {dec[at]}): a HATS release needs one for each; correct "
                "or remove them"
            )


def _catalog_name(out: Path) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", out.name) or "release"
