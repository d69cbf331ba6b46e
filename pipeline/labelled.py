"""Labelled tables: light curves with a class each, for training and evaluation (DESIGN.md, section 4, layout c)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lightmill.catalogs.lightcurves import Layout, LightCurves, choose_layout, from_arrow

__all__ = ["Labelled", "LabelledError", "read_labelled", "rename", "source_of"]


class LabelledError(ValueError):
    """A labelled table cannot be used for what was asked."""


@dataclass(frozen=True)
class Labelled:
    """n light curves and what is known of each."""

    curves: LightCurves
    label: np.ndarray  #: (n,) str; "" where the table has null
    group: np.ndarray  #: (n,) int64; rows of one group are one star
    period: np.ndarray  #: (n,) float64 [d]; NaN where unknown
    colours: np.ndarray | None = None  #: (n, len(COLOURS)) float64 [mag], NaN: not known; None: not asked for

    def __len__(self) -> int:
        return len(self.label)

    def take(self, index: np.ndarray) -> Labelled:
        """The rows `index`, in that order."""
        return Labelled(
            self.curves.take(index),
            self.label[index],
            self.group[index],
            self.period[index],
            None if self.colours is None else self.colours[index],
        )


def read_labelled(path: str | Path, layouts: Mapping[str, Layout]) -> Labelled:
    """Read a Parquet file of labelled light curves.

    Parameters
    ----------
    layouts : the layouts that the file may have (`recipe.layout.choices()`). Any of them will do, if the table has a
        column `label` besides. Without a column `group` each row is a star of its own; without `period` none is known.
        A column `filterid` tells the bands.

    Raises
    ------
    LabelledError
        if the file is missing or is no Parquet file, or has no labels.
    LayoutError
        if columns of the layout are missing, or hold something else.
    """
    path = Path(path)
    if not path.is_file():
        raise LabelledError(
            f"{path}: no such file; labels are one Parquet file with a row for each light curve"
        )
    try:
        schema = pq.read_schema(path)
    except pa.ArrowInvalid as error:
        raise LabelledError(f"{path}: not a Parquet file: {error}") from error
    named = {name: replace(layout, label=layout.label or "label") for name, layout in layouts.items()}
    layout = choose_layout(schema, named, where=str(path))
    table = pq.read_table(path, columns=list(layout.columns))
    n = table.num_rows
    if n == 0:
        raise LabelledError(f"{path}: the table has no rows")
    return Labelled(
        curves=from_arrow(table, layout, where=str(path)),
        label=np.array([value or "" for value in table.column(layout.label).to_pylist()], dtype=np.str_),
        group=_groups(table.column(layout.group)) if layout.group else np.arange(n),
        period=_floats(table.column(layout.period)) if layout.period else np.full(n, np.nan),
    )


def rename(label: np.ndarray, aliases: Mapping[str, str]) -> np.ndarray:
    """Labels with the aliases put in place: (n,) str → (n,) str; a label is renamed at most once."""
    return np.array([aliases.get(str(name), str(name)) for name in label], dtype=np.str_)


def _groups(column: pa.ChunkedArray) -> np.ndarray:
    """Numbers for groups of any type; each null is a group of its own."""
    codes = pa.compute.fill_null(column.combine_chunks().dictionary_encode().indices, -1).to_numpy(
        zero_copy_only=False
    )
    alone = codes < 0
    numbers = codes.astype(np.int64)
    numbers[alone] = numbers.max(initial=0) + 1 + np.arange(alone.sum())
    return numbers


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(
        column.combine_chunks().cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False)
    )


def source_of(path: Path) -> dict[str, str]:
    """Name and sha256 of a file, by which a bundle remembers what it was trained on."""
    with path.open("rb") as handle:
        return {"file": path.name, "sha256": hashlib.file_digest(handle, "sha256").hexdigest()}
