"""Hosts: the real light curves of a survey, on which labelled stars are re-observed.

Two kinds of file are read: a release's own light curves (any layout of `catalogs.lightcurves`), whose
magnitudes serve as a non-variable star's; and tables of epochs of known transients, of which the transient
itself is an example of its class, and the epochs and errors serve as the cadence of another star.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lightmill.catalogs.lightcurves import Layout, LayoutError, choose_layout, from_arrow
from lightmill.pipeline.clean import Cleaned, clean
from lightmill.pipeline.recipe import Recipe

__all__ = ["TRANSIENT_COLUMNS", "Hosts", "join", "read_hosts"]

TRANSIENT_COLUMNS = ("oid", "hjd", "mag", "magerr", "catflags", "ZTFID", "bts_type", "bts_peakt_jd")
"""Columns of a table of epochs: light curve, time [d], magnitude, error, flags, transient, its type and peak [d]."""

PEAK_WINDOW = (-20.0, 60.0)
"""Days around a transient's peak; an example of its class has at least PEAK_EPOCHS in there."""

PEAK_EPOCHS = 3

LIMIT_COLUMN = "limitmag"
"""Of a table of epochs, if it is there: limiting magnitude of each exposure."""

PLACE_COLUMNS = ("ra", "dec", "filtercode")
"""Of a table of epochs, if they are there: position [deg] and passband, by which bundles are audited."""

FILTERIDS = {"zg": 1, "zr": 2, "zi": 3}
"""Passbands of ZTF by their codes, as its releases number them."""

FEWEST_SOURCES = 50
"""An exposure's limit is that of its faintest source, if there are so many; else that of the file."""


@dataclass(frozen=True)
class Hosts:
    """n real light curves, cleaned."""

    t: np.ndarray  #: (N,) float64 [d], increasing within a light curve
    mag: np.ndarray  #: (N,) float64 [mag]
    magerr: np.ndarray  #: (N,) float64 [mag]
    limit: np.ndarray  #: (N,) float64 [mag], not brighter than mag: a fainter source is not in the exposure
    offsets: np.ndarray  #: (n + 1,) int64
    group: np.ndarray  #: (n,) int64; light curves of one group are one object
    kind: (
        np.ndarray
    )  #: (n,) str: "" a star whose magnitudes count as constant, else the type of the transient
    at_peak: np.ndarray  #: (n,) bool; a transient that was seen around its peak
    ra: np.ndarray  #: (n,) float64 [deg]; NaN where unknown
    dec: np.ndarray  #: (n,) float64 [deg]; NaN where unknown
    filterid: np.ndarray  #: (n,) int64, passband; 0 where unknown

    def __len__(self) -> int:
        return len(self.group)

    @property
    def constant(self) -> np.ndarray:
        """(n,) bool: magnitudes are a star's that counts as constant."""
        return self.kind == ""

    def one(self, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Time, magnitude and error of one light curve."""
        rows = slice(self.offsets[i], self.offsets[i + 1])
        return self.t[rows], self.mag[rows], self.magerr[rows]

    def limits(self, i: int) -> np.ndarray:
        """Limiting magnitude of each epoch of one light curve."""
        return self.limit[self.offsets[i] : self.offsets[i + 1]]


def read_hosts(paths: Sequence[str | Path], recipe: Recipe) -> Hosts:
    """Read hosts from survey files: of each light curve the good epochs, if they are enough for the recipe.

    Raises
    ------
    LayoutError
        if a file is neither a release's light curves nor a table of epochs of transients.
    ValueError
        if a file is missing, or there is no constant star in all.
    """
    parts = []
    for path in map(Path, paths):
        if not path.is_file():
            raise ValueError(f"survey {path}: no such file; give Parquet files of real light curves")
        schema = pq.read_schema(path)
        is_transients = set(TRANSIENT_COLUMNS) <= set(schema.names)
        parts.append(_transients(path, recipe) if is_transients else _stars(path, schema, recipe))
    hosts = join(parts)
    if not hosts.constant.any():
        raise ValueError(
            f"no survey file holds constant stars with ≥ {recipe.clean.min_epochs} good epochs: the gate is "
            f"trained on them; add a file of a release's own light curves (given: {', '.join(map(str, paths))})"
        )
    return hosts


def join(parts: Sequence[Hosts]) -> Hosts:
    """Several as one; groups of different parts stay different."""
    starts = np.cumsum([0] + [int(part.group.max(initial=-1)) + 1 for part in parts])
    return Hosts(
        t=np.concatenate([part.t for part in parts]),
        mag=np.concatenate([part.mag for part in parts]),
        magerr=np.concatenate([part.magerr for part in parts]),
        limit=np.concatenate([part.limit for part in parts]),
        offsets=_offsets(np.concatenate([np.diff(part.offsets) for part in parts])),
        group=np.concatenate([part.group + start for part, start in zip(parts, starts[:-1], strict=True)]),
        kind=np.concatenate([part.kind for part in parts]),
        at_peak=np.concatenate([part.at_peak for part in parts]),
        ra=np.concatenate([part.ra for part in parts]),
        dec=np.concatenate([part.dec for part in parts]),
        filterid=np.concatenate([part.filterid for part in parts]),
    )


def _stars(path: Path, schema: pa.Schema, recipe: Recipe) -> Hosts:
    try:
        layout: Layout = choose_layout(schema, recipe.layout.choices(), where=str(path))
    except LayoutError as error:
        raise LayoutError(
            f"{error}. A table of epochs of transients would need {', '.join(TRANSIENT_COLUMNS)}"
        ) from error
    curves = from_arrow(pq.read_table(path, columns=list(layout.columns)), layout, where=str(path))
    limit = _faintest(curves.t, curves.mag)
    good, limit = _clean(curves.t, curves.mag, curves.magerr, curves.flags, curves.offsets, limit, recipe)
    n = len(good.accepted)
    return Hosts(
        good.t, good.mag, good.magerr, limit, good.offsets,
        group=np.arange(n), kind=np.full(n, "", dtype="<U16"), at_peak=np.zeros(n, bool),
        ra=curves.ra[good.accepted], dec=curves.dec[good.accepted],
        filterid=curves.filterid[good.accepted].astype(np.int64),
    )  # fmt: skip


def _transients(path: Path, recipe: Recipe) -> Hosts:
    """One light curve for each `oid`, grouped by transient, with HJD as time."""
    wanted = (*TRANSIENT_COLUMNS, LIMIT_COLUMN, *PLACE_COLUMNS)
    names = [name for name in pq.read_schema(path).names if name in wanted]
    table = pq.read_table(path, columns=names).sort_by([("oid", "ascending"), ("hjd", "ascending")])
    column = {name: table.column(name).combine_chunks().to_numpy(zero_copy_only=False) for name in names}
    first = np.flatnonzero(np.append(True, column["oid"][1:] != column["oid"][:-1]))
    offsets = np.append(first, table.num_rows).astype(np.int64)
    told = column.get(LIMIT_COLUMN)
    limit = _faintest(column["hjd"], column["mag"]) if told is None else told
    good, limit = _clean(
        column["hjd"], column["mag"], column["magerr"], column["catflags"], offsets, limit, recipe
    )
    rows = first[good.accepted]
    _, group = np.unique(column["ZTFID"][rows].astype(str), return_inverse=True)
    since_peak = column["hjd"] - column["bts_peakt_jd"]
    usable = (column["catflags"].astype(np.int64) & recipe.clean.bad_flags) == 0
    unknown = np.full(table.num_rows, np.nan)
    ra, dec = (column.get(name, unknown)[rows].astype(np.float64) for name in ("ra", "dec"))
    code = column.get("filtercode", np.full(table.num_rows, ""))[rows]
    near = usable & (since_peak > PEAK_WINDOW[0]) & (since_peak < PEAK_WINDOW[1])
    return Hosts(
        good.t, good.mag, good.magerr, limit, good.offsets,
        group=group.astype(np.int64),
        kind=column["bts_type"][rows].astype("<U16"),
        at_peak=np.add.reduceat(near.astype(np.int64), first)[good.accepted] >= PEAK_EPOCHS,
        ra=ra, dec=dec, filterid=np.array([FILTERIDS.get(one, 0) for one in code.tolist()], np.int64),
    )  # fmt: skip


def _clean(
    t: np.ndarray,
    mag: np.ndarray,
    magerr: np.ndarray,
    flags: np.ndarray,
    offsets: np.ndarray,
    limit: np.ndarray,
    recipe: Recipe,
) -> tuple[Cleaned, np.ndarray]:
    """The good epochs, and the limits of the same ones."""

    def cleaned(values: np.ndarray) -> Cleaned:
        return clean(t, values, magerr, flags, offsets, **recipe.clean.limits())

    # what was measured was above the limit; and NaN where the magnitude is, so that the same epochs are good
    return cleaned(mag), cleaned(np.where(limit > mag, limit, mag)).mag


def _faintest(t: np.ndarray, mag: np.ndarray) -> np.ndarray:
    """(N,) float64 [mag]: faintest source of each epoch's exposure, or where it has few the usual faintest of all."""
    seen = np.isfinite(mag)
    if not seen.any():
        return np.full(len(t), np.nan)
    _, which, sources = np.unique(t, return_inverse=True, return_counts=True)
    faintest = np.full(len(sources), -np.inf)
    np.maximum.at(faintest, which[seen], mag[seen])
    return np.where(sources >= FEWEST_SOURCES, faintest, np.quantile(mag[seen], 0.999))[which]


def _offsets(n: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(n)]).astype(np.int64)
