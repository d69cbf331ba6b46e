"""One simulated partition as Parquet, with its truth: columns as in IRSA's HATS release or bulk files of ZTF."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lightmill.pipeline.draws import Purpose, stream
from lightmill.pipeline.exposures import Chunk, in_chunks
from lightmill.pipeline.observe import AMPLITUDE, PERIOD, Epochs, Targets, noise, observe
from lightmill.pipeline.sky import FIRST_FIELD, Patch, channel_of, field_of
from lightmill.pipeline.stars import Stars, draw_stars
from lightmill.pipeline.variables import LABELS

# The types in which IRSA's HATS release and its bulk files differ; `hmjd`, float32 in the latter, is float64 in both.
TYPES = {
    "nested": {"filterid": pa.int8(), "rcid": pa.int16(), "nepochs": pa.int32(), "catflags": pa.int32()},
    "list": {"filterid": pa.uint8(), "rcid": pa.uint8(), "nepochs": pa.int64(), "catflags": pa.uint16()},
}
LAYOUTS = tuple(TYPES)
TRUTH = pa.schema(
    [
        ("objectid", pa.int64()),
        ("label", pa.string()),
        ("period", pa.float64()),
        ("amplitude", pa.float32()),
    ]
)


@dataclass(frozen=True)
class Task:
    """One partition to write: all that a worker process needs."""

    path: Path
    """the file to write"""
    truth: Path
    """the file for its truth"""
    seed: int
    n: int
    """light curves in the whole release: the sky follows from it and the seed"""
    patch: Patch
    layout: str
    variable_fraction: float
    """share of the stars that vary"""

    def __str__(self) -> str:
        return f"order {self.patch.order} pixel {self.patch.pixel}: {self.patch.rows} light curves"


def schema(layout: str) -> pa.Schema:
    """The columns of a release in the layout `nested` or `list`."""
    types = TYPES[layout]
    row = {
        "_healpix_29": pa.int64(),
        "objectid": pa.int64(),
        "filterid": types["filterid"],
        "fieldid": pa.int16(),
        "rcid": types["rcid"],
        "objra": pa.float32(),
        "objdec": pa.float32(),
        "nepochs": types["nepochs"],
    }
    kinds = (pa.float64(), pa.float32(), pa.float32(), pa.float32(), types["catflags"])
    epochs = {name: pa.list_(kind) for name, kind in zip(Epochs._fields, kinds, strict=True)}
    columns = {"lightcurve": pa.struct(epochs)} if layout == "nested" else epochs
    return pa.schema(row | columns)


def write_partition(task: Task) -> int:
    """Write one partition and its truth, a row group a chunk; returns the number of epochs.

    The files appear whole under their names or not at all.
    """
    rng = stream(task.seed, Purpose.PARTITION, task.patch.order, task.patch.pixel)
    stars = draw_stars(rng, task.seed, task.n, task.patch, task.variable_fraction)
    task.path.parent.mkdir(parents=True, exist_ok=True)
    part = task.path.with_suffix(".part")
    epochs = 0
    with pq.ParquetWriter(
        part,
        schema(task.layout),
        compression="zstd",
        compression_level=3,
        use_dictionary=_repeating(task.layout),
    ) as writer:
        for table, written in _tables(rng, task, stars):
            writer.write_table(table, row_group_size=len(table))
            epochs += written
    pq.write_table(_truth(stars), task.truth, compression="zstd")
    part.replace(task.path)
    return epochs


def _repeating(layout: str) -> list[str]:
    """The columns worth a dictionary: what an exposure or a field shares. Magnitudes hardly repeat."""
    inside = "lightcurve." if layout == "nested" else ""
    shared = [f"{inside}{name}.list.element" for name in ("hmjd", "clrcoeff", "catflags")]
    return [*shared, "filterid", "fieldid", "rcid"]


def _tables(rng: np.random.Generator, task: Task, stars: Stars) -> Iterator[tuple[pa.Table, int]]:
    """The rows with their epochs, a chunk at a time, and the number of epochs of each."""
    for chunk in in_chunks(task.seed, field_of(stars.cell), stars.filterid):
        some = Stars(*(column[chunk.part] for column in stars))
        counts, epochs = _observed(rng, some, chunk)
        yield _table(task.layout, some, counts, epochs), int(counts.sum())


def _observed(rng: np.random.Generator, stars: Stars, chunk: Chunk) -> tuple[np.ndarray, Epochs]:
    """The number of epochs of each row, and the epochs."""
    seen = chunk.end - chunk.first
    targets = Targets(
        stars.shape,
        stars.params,
        stars.mag,
        stars.scale,
        stars.filterid,
        np.minimum(stars.quota, seen),
        chunk.first,
        chunk.end,
    )
    epochs = Epochs.empty(int(seen.sum()))
    counts = observe(rng, targets, chunk.exposures, noise(), epochs)
    return counts, epochs


def _table(layout: str, stars: Stars, counts: np.ndarray, epochs: Epochs) -> pa.Table:
    """Rows and epochs as Arrow."""
    columns = schema(layout)
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    lists = [pa.ListArray.from_arrays(offsets, pa.array(values[: counts.sum()])) for values in epochs]
    row = [
        stars.healpix,
        stars.objectid,
        stars.filterid,
        FIRST_FIELD + field_of(stars.cell),
        channel_of(stars.cell),
        stars.ra,
        stars.dec,
        counts,
    ]
    nested = [pa.StructArray.from_arrays(lists, list(Epochs._fields))] if layout == "nested" else lists
    arrays = [*map(pa.array, row), *nested]
    return pa.Table.from_arrays(
        [array.cast(kind) for array, kind in zip(arrays, columns.types, strict=True)], schema=columns
    )


def _truth(stars: Stars) -> pa.Table:
    """Class, period and amplitude of each row; null and 0 where there is none."""
    period, amplitude = stars.params[:, PERIOD], stars.params[:, AMPLITUDE]
    labels = pa.DictionaryArray.from_arrays(stars.label.astype(np.int32), list(LABELS)).cast(pa.string())
    arrays = [
        pa.array(stars.objectid),
        labels,
        pa.array(period, mask=np.isnan(period)),
        pa.array(np.where(stars.label > 0, amplitude, 0).astype(np.float32)),
    ]
    return pa.Table.from_arrays(arrays, schema=TRUTH)
