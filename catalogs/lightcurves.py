"""Light curves: a ragged batch as flat arrays + offsets, and the layouts that they are stored in."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute  # registers pa.compute
from hats.pixel_math.spatial_index import SPATIAL_INDEX_COLUMN, compute_spatial_index

__all__ = [
    "LAYOUTS",
    "Layout",
    "LayoutError",
    "LightCurves",
    "choose_layout",
    "from_arrow",
    "objectid_of",
    "spatial_index",
]


class LayoutError(ValueError):
    """A table does not have the columns that a layout names."""


@dataclass(frozen=True)
class Layout:
    """Where each quantity of a light curve is stored: a declaration, not code.

    The epoch columns (`t, mag, magerr, flags`) are list columns, or, if `nested` is given, children of that
    struct column. `None` says that a release does not have the quantity.
    """

    name: str
    nested: str | None  #: struct column that holds the epoch columns, or None: they stand at top level
    t: str  #: time of each epoch [d], any zero point
    mag: str  #: magnitude [mag]
    magerr: str  #: one-sigma error of the magnitude [mag]
    flags: str | None  #: integer quality flags of each epoch
    objectid: str  #: identifier of the light curve, integer, or text (then a hash stands for it)
    ra: str  #: right ascension [deg]
    dec: str  #: declination [deg]
    filterid: str | None  #: passband, integer
    label: str | None = None  #: class label of a labelled table
    group: str | None = None  #: rows of one group are one star: never split between training and test
    period: str | None = None  #: catalogue period [d] of a labelled table

    @property
    def epoch_columns(self) -> tuple[str, ...]:
        """Paths of the epoch columns as `pyarrow.parquet` selects them."""
        names = (self.t, self.mag, self.magerr) + ((self.flags,) if self.flags else ())
        return tuple(f"{self.nested}.{n}" for n in names) if self.nested else names

    @property
    def row_columns(self) -> tuple[str, ...]:
        """Names of the columns with one value a light curve."""
        optional = (self.filterid, self.label, self.group, self.period)
        return (self.objectid, self.ra, self.dec, *(name for name in optional if name))

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns to read, in the form that `pyarrow.parquet` takes."""
        return self.row_columns + self.epoch_columns

    def where_present(self, schema: pa.Schema) -> Layout:
        """With `group` and `period` if a table has them, by the name given or the usual one, and its `filterid` if none
        is named and it holds numbers."""

        def present(own: str | None, usual: str) -> str | None:
            return next((name for name in (own, usual) if name in schema.names), None)

        band = "filterid" in schema.names and _is_number(schema.field("filterid").type)
        return replace(
            self,
            group=present(self.group, "group"),
            period=present(self.period, "period"),
            filterid=self.filterid or ("filterid" if band else None),
        )

    def missing_from(self, schema: pa.Schema) -> list[str]:
        """Names that this layout needs and `schema` does not have (children as `struct.child`)."""
        children: set[str] = set()
        if self.nested is not None and self.nested in schema.names:
            children = {f"{self.nested}.{name}" for name in _child_names(schema.field(self.nested).type)}
        present = set(schema.names) | children
        return [name for name in self.columns if name not in present]


LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in (
        Layout(
            "irsa-hats", "lightcurve", "hmjd", "mag", "magerr", "catflags",
            objectid="objectid", ra="objra", dec="objdec", filterid="filterid",
        ),
        Layout(
            "list", None, "hmjd", "mag", "magerr", "catflags",
            objectid="objectid", ra="objra", dec="objdec", filterid="filterid",
        ),
        Layout(
            "labelled", None, "mjd", "mag", "magerr", None,
            objectid="id", ra="ra", dec="dec", filterid=None,
            label="label", group="group", period="period",
        ),
    )
}  # fmt: skip
"""The layouts known: IRSA HATS (nested), IRSA bulk Parquet and LINCC HATS (list), a labelled table."""


def choose_layout(
    schema: pa.Schema, layouts: Mapping[str, Layout] | None = None, *, where: str = ""
) -> Layout:
    """The first of `layouts` (default: all known) whose columns `schema` has, with `where_present` applied.

    Raises
    ------
    LayoutError
        naming, for the nearest layout, the columns that are missing, and the recipe line to change.
    """
    given = LAYOUTS if layouts is None else layouts
    candidates = {name: layout.where_present(schema) for name, layout in given.items()}
    missing = {name: layout.missing_from(schema) for name, layout in candidates.items()}
    for name, names in missing.items():
        if not names:
            return candidates[name]
    # a table without labels is rather a release
    nearest = min(missing, key=lambda name: (candidates[name].label is not None, len(missing[name])))
    hints = [near for name in missing[nearest] for near in difflib.get_close_matches(name, schema.names, n=1)]
    hint = f" (did you mean {', '.join(map(repr, hints))}?)" if hints else ""
    raise LayoutError(
        f"{where or 'table'}: no column {', '.join(map(repr, missing[nearest]))}{hint}, which the layout {nearest!r} "
        f"needs; the table has {', '.join(schema.names) or 'no columns'}. Layouts known: "
        f'{", ".join(LAYOUTS)}. Name your columns in the recipe: [layout] name = "mine", t = "…", mag = "…"'
    )


ROW_FIELDS = ("objectid", "ra", "dec", "filterid", "healpix_29")
"""Fields of `LightCurves` with one value a light curve."""


@dataclass(frozen=True)
class LightCurves:
    """A ragged batch of n light curves with N epochs in all; the arrays may be read-only views.

    Light curve i owns the epochs `offsets[i]:offsets[i + 1]`.
    """

    t: np.ndarray  #: (N,) float32/float64 time [d]
    mag: np.ndarray  #: (N,) float32/float64 magnitude [mag]
    magerr: np.ndarray  #: (N,) float32/float64 error [mag]
    flags: np.ndarray  #: (N,) integer quality flags; empty where the layout has none
    offsets: np.ndarray  #: (n + 1,) int64, increasing
    objectid: np.ndarray  #: (n,) int64
    ra: np.ndarray  #: (n,) float64 [deg]
    dec: np.ndarray  #: (n,) float64 [deg]
    filterid: np.ndarray  #: (n,) int16; 0 where the layout has none
    healpix_29: (
        np.ndarray
    )  #: (n,) int64 HATS spatial index (order 29, NESTED); −1 where (ra, dec) is no place on the sky

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def n_epochs(self) -> int:
        """Number of epochs in the batch."""
        return int(self.offsets[-1] - self.offsets[0])

    @property
    def epochs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """`t, mag, magerr, flags, offsets`, as cleaning takes them."""
        return self.t, self.mag, self.magerr, self.flags, self.offsets

    def select(self, start: int, stop: int) -> LightCurves:
        """Light curves `start:stop`, as views; the offsets start at 0 again."""
        a, b = int(self.offsets[start]), int(self.offsets[stop])
        epochs = {name: getattr(self, name)[a:b] for name in ("t", "mag", "magerr", "flags")}
        rows = {name: getattr(self, name)[start:stop] for name in ROW_FIELDS}
        return replace(self, **epochs, **rows, offsets=self.offsets[start : stop + 1] - a)

    def split(self, max_epochs: int) -> list[LightCurves]:
        """Consecutive pieces of at most `max_epochs` epochs each (one light curve at least)."""
        pieces, start = [], 0
        while start < len(self):
            limit = self.offsets[start] + max_epochs
            stop = max(start + 1, int(np.searchsorted(self.offsets, limit, side="right")) - 1)
            pieces.append(self.select(start, stop))
            start = stop
        return pieces

    def take(self, index: np.ndarray) -> LightCurves:
        """Light curves `index`, copied in that order."""
        n = np.diff(self.offsets)[index]
        offsets = np.concatenate([[0], np.cumsum(n)]).astype(np.int64)
        at = np.repeat(self.offsets[index] - offsets[:-1], n) + np.arange(offsets[-1])
        epochs = {name: getattr(self, name)[at] for name in ("t", "mag", "magerr")}
        flags = self.flags[at] if len(self.flags) else self.flags
        rows = {name: getattr(self, name)[index] for name in ROW_FIELDS}
        return replace(self, **epochs, flags=flags, **rows, offsets=offsets)


def from_arrow(table: pa.Table | pa.RecordBatch, layout: Layout, *, where: str = "") -> LightCurves:
    """View a table as light curves, without copying the epochs of a single-chunk table.

    A null list is a light curve without epochs; a null time, magnitude or error becomes NaN, a null flag 0. A light
    curve that has more of one list than of another keeps its times, and has NaN for every magnitude: which belongs to
    which cannot be known.

    Raises
    ------
    LayoutError
        if a column is missing, is not a list, or holds passbands that are no numbers; it names `where`, the table.
    """
    try:
        return _viewed(table, layout)
    except LayoutError as error:
        raise LayoutError(f"{where}: {error}" if where else str(error)) from error


def _viewed(table: pa.Table | pa.RecordBatch, layout: Layout) -> LightCurves:
    missing = layout.missing_from(table.schema)
    if missing:
        choose_layout(table.schema, {layout.name: layout})
    t, offsets = _flat(table, layout, layout.t)
    uneven = np.zeros(len(offsets) - 1, bool)
    mag, magerr = (_aligned(table, layout, name, offsets, uneven) for name in (layout.mag, layout.magerr))
    flags = (
        _integers(_aligned(table, layout, layout.flags, offsets, uneven))
        if layout.flags
        else np.empty(0, np.int32)
    )
    mag = _floats(mag)
    if uneven.any():
        mag = np.where(np.repeat(uneven, np.diff(offsets)), np.nan, mag)
    n = len(offsets) - 1
    ra, dec = _row(table, layout.ra, np.float64), _row(table, layout.dec, np.float64)
    return LightCurves(
        t=_floats(t),
        mag=mag,
        magerr=_floats(magerr),
        flags=flags,
        offsets=offsets,
        objectid=_identifiers(table.column(layout.objectid)),
        ra=ra,
        dec=dec,
        filterid=_bands(table, layout.filterid) if layout.filterid else np.zeros(n, np.int16),
        healpix_29=_row(table, SPATIAL_INDEX_COLUMN, np.int64)
        if SPATIAL_INDEX_COLUMN in table.schema.names
        else spatial_index(ra, dec),
    )


def spatial_index(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """HATS spatial index of positions [deg], any turn of right ascension; (n,) int64, −1 for no place on the sky."""
    index = np.full(len(ra), -1, np.int64)
    good = np.isfinite(ra) & (np.abs(dec) <= 90)
    index[good] = compute_spatial_index(ra[good] % 360, dec[good])
    return index


def _one_chunk(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """The column as one Array; copies only if it has several chunks."""
    if isinstance(column, pa.ChunkedArray):
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return column


def _child_names(dtype: pa.DataType) -> list[str]:
    struct = dtype.value_type if _is_list(dtype) else dtype
    return [struct.field(i).name for i in range(struct.num_fields)] if pa.types.is_struct(struct) else []


def _is_list(dtype: pa.DataType) -> bool:
    return bool(pa.types.is_list(dtype) or pa.types.is_large_list(dtype))


def _flat(table: pa.Table | pa.RecordBatch, layout: Layout, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Flat values and int64 offsets (from 0) of one epoch column; struct<list> and list<struct> both occur."""
    column = _one_chunk(table.column(layout.nested or name))
    child = name if layout.nested else None
    if child is not None and pa.types.is_struct(column.type):
        # not `.field`, which ignores the validity of the struct itself: the lists of a null row are null
        column, child = pa.compute.struct_field(column, name), None
    if not _is_list(column.type):
        raise LayoutError(
            f"column {name!r} is {column.type}, not a list: the layout {layout.name!r} expects one list an object; "
            "change its name in the recipe's [layout]"
        )
    if column.null_count:
        # a null list may still own values: keep only those of valid rows
        column = column.fill_null(pa.scalar([], column.type))
    offsets = column.offsets.to_numpy(zero_copy_only=False).astype(np.int64)
    values = column.values.slice(offsets[0], offsets[-1] - offsets[0])
    if child is not None:
        values = pa.compute.struct_field(values, child)
    return values.to_numpy(zero_copy_only=False), offsets - offsets[0]


def _aligned(
    table: pa.Table | pa.RecordBatch, layout: Layout, name: str, offsets: np.ndarray, uneven: np.ndarray
) -> np.ndarray:
    """Values of an epoch column, one a time; light curves where they are more or fewer are marked in `uneven`."""
    values, own = _flat(table, layout, name)
    if np.array_equal(own, offsets):
        return values
    lengths = np.diff(offsets)
    even = np.diff(own) == lengths
    uneven |= ~even
    out = np.zeros(offsets[-1], values.dtype)
    out[np.repeat(even, lengths)] = values[np.repeat(even, np.diff(own))]
    return out


def _floats(values: np.ndarray) -> np.ndarray:
    return values if values.dtype.kind == "f" else values.astype(np.float64)


def _integers(values: np.ndarray) -> np.ndarray:
    """NumPy has floats for integers of which one is null; no flag is set there."""
    return values if values.dtype.kind in "iu" else np.nan_to_num(values).astype(np.int64)


def _row(table: pa.Table | pa.RecordBatch, name: str, dtype: type) -> np.ndarray:
    column = _one_chunk(table.column(name))
    if column.null_count:
        column = column.fill_null(np.nan if pa.types.is_floating(column.type) else 0)
    return np.asarray(column.to_numpy(zero_copy_only=False)).astype(dtype)


def _bands(table: pa.Table | pa.RecordBatch, name: str) -> np.ndarray:
    """Passbands, (n,) int16; 0 for null and for what is no whole number or out of range."""
    column = _one_chunk(table.column(name))
    if not _is_number(column.type):
        some = next((f", for example {value!r}" for value in column.to_pylist() if value is not None), "")
        raise LayoutError(
            f"column {name!r} is {column.type}{some}: passbands are numbers (of ZTF 1 g, 2 r, 3 i); write them "
            "so, or name another column in the recipe: [layout] filterid = …"
        )
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    values = column.cast(pa.float64(), safe=False).fill_null(0).to_numpy(zero_copy_only=False)
    known = (np.abs(values) <= np.iinfo(np.int16).max) & (values == np.round(values))
    return np.where(known, values, 0).astype(np.int16)


def _is_number(dtype: pa.DataType) -> bool:
    """Whether values are numbers, or null throughout."""
    if pa.types.is_dictionary(dtype):
        dtype = dtype.value_type
    return bool(pa.types.is_integer(dtype) or pa.types.is_floating(dtype) or pa.types.is_null(dtype))


def _identifiers(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Integer identifiers as they are; for text the first 63 bits of its SHA-256, the same in every batch."""
    array = _one_chunk(column)
    if pa.types.is_integer(array.type):
        return array.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return np.fromiter((_hashed(str(text)) for text in array.to_pylist()), np.int64, len(array))


def objectid_of(text: str) -> int:
    """The `objectid` in a catalogue of an identifier in a release: itself if it is a number, else its hash.

    >>> objectid_of("686103400067717"), objectid_of("ZTF00015")
    (686103400067717, 170627882354576341)
    """
    return int(text) if text.lstrip("+-").isdigit() else _hashed(text)


def _hashed(text: str) -> int:
    """The first 63 bits of a text's SHA-256."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1
