"""Labelling: a majority's labels and light curves become a labelled table (DESIGN.md, section 4, layout c)."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lightmill.catalogs.lightcurves import LAYOUTS, Layout, LightCurves, choose_layout, from_arrow
from lightmill.pipeline.ballots import Ballot, Columns, VotesError, read_votes
from lightmill.pipeline.votes import (
    Majority,
    agreement_of_annotators,
    fleiss_kappa,
    majority,
    one_vote_each,
    tally,
)

__all__ = ["NO_LIGHT_CURVE", "Labelling", "label"]

NO_LIGHT_CURVE = "no_light_curve"
"""Reason of objects that the table of light curves does not have, or has without a good epoch."""

BAD_FLAGS = 32768  #: as the recipes that ship have it
BATCH = 10_000  #: light curves decoded at a time: a row group may hold more than memory does


@dataclass(frozen=True)
class Labelling:
    """What became of the votes; `objects` are those labelled and those left out."""

    objects: int
    labelled: int
    left_out: dict[str, int]  #: by reason
    classes: dict[str, int]  #: labelled objects by class
    votes: int  #: counted, of all objects
    repeated: int  #: votes that an annotator replaced or repeated: not counted
    abstained: int  #: votes for no class: not counted
    fleiss_kappa: float | None  #: of all objects with two votes; None: not defined
    out: str
    annotators: list[dict[str, Any]] = field(default_factory=list)
    """`annotator, votes, agreed, agreement` with the majority, most votes first; empty where counts alone are known"""


def label(
    votes: Iterable[str | Path],
    light_curves: str | Path,
    out: str | Path,
    *,
    columns: Columns | None = None,
    aliases: Mapping[str, str] | None = None,
    abstain: Iterable[str] = (),
    min_votes: int = 3,
    min_agreement: float = 0.6,
    layouts: Mapping[str, Layout] | None = None,
    bad_flags: int = BAD_FLAGS,
) -> Labelling:
    """Write the light curves of the objects that a majority agrees on, with label, votes and agreement.

    Each annotator's last vote counts (see `votes.one_vote_each`); the class with most votes is the label, if there are
    `min_votes`, no tie, and at least `min_agreement` of them for it. The table is written whole or not at all. Epochs
    are read batch by batch, and only of row groups that hold a labelled object.

    Parameters
    ----------
    votes, columns, aliases, abstain : see `ballots.read_votes`
    light_curves : Parquet file in one of `layouts` (default: all known); labels in it do not matter
    out : Parquet file to write: `id, label, ra, dec, mjd[], mag[], magerr[], votes, agreement`, and `group`,
        `filterid` and `period` where the light curves have them
    bad_flags : epochs with one of these bits are left out, for the table has no flags

    Raises
    ------
    VotesError
        if the votes cannot be counted, no object can be labelled, an object has several light curves, or `out` exists.
    LayoutError
        if the light curves have no known layout.
    """
    target = Path(out)
    if target.exists():
        raise VotesError(f"{target} exists: give another --out, or remove it")
    ballot, repeated = one_vote_each(read_votes(votes, columns, aliases=aliases, abstain=abstain))
    counts = tally(ballot)
    found = majority(counts, min_votes=min_votes, min_agreement=min_agreement)
    with _open(Path(light_curves)) as file:
        layout = _layout(file.schema_arrow, layouts or LAYOUTS, str(light_curves))
        written = _write(target, _tables(file, layout, ballot, found, bad_flags), ballot, found)
    return _account(ballot, counts, found, written, repeated, target)


def _account(
    ballot: Ballot, counts: np.ndarray, found: Majority, written: np.ndarray, repeated: int, target: Path
) -> Labelling:
    reason = np.where((found.reason == "") & ~written, NO_LIGHT_CURVE, found.reason)
    named, n = np.unique(reason[reason != ""], return_counts=True)
    winners = np.bincount(found.winner[written], minlength=len(ballot.classes))
    kappa = fleiss_kappa(counts)
    return Labelling(
        objects=len(ballot.objects),
        labelled=int(written.sum()),
        left_out=dict(zip(named.tolist(), n.tolist(), strict=True)),
        classes={name: int(k) for name, k in zip(ballot.classes, winners, strict=True) if k},
        votes=int(counts.sum()),
        repeated=repeated,
        abstained=int((ballot.cls < 0).sum()),
        fleiss_kappa=None if math.isnan(kappa) else kappa,
        out=str(target),
        annotators=_annotators(ballot, found),
    )


def _annotators(ballot: Ballot, found: Majority) -> list[dict[str, Any]]:
    votes, agreed = agreement_of_annotators(ballot, found)
    return [
        {
            "annotator": ballot.annotators[i],
            "votes": int(votes[i]),
            "agreed": int(agreed[i]),
            "agreement": float(agreed[i] / votes[i]) if votes[i] else None,
        }
        for i in np.argsort(-votes, kind="stable")
    ]


def _open(path: Path) -> pq.ParquetFile:
    if not path.is_file():
        raise VotesError(f"{path}: no such file; light curves are one Parquet file with a row for each")
    try:
        return pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise VotesError(f"{path}: not a Parquet file: {error}") from error


def _layout(schema: pa.Schema, layouts: Mapping[str, Layout], where: str) -> Layout:
    """The layout of the light curves; a column of labels is not asked for."""
    plain = {name: replace(layout, label=None) for name, layout in layouts.items()}
    return choose_layout(schema, plain, where=where)


def _tables(
    file: pq.ParquetFile, layout: Layout, ballot: Ballot, found: Majority, bad_flags: int
) -> Iterator[tuple[pa.Table, np.ndarray]]:
    """Rows of the labelled table, and the numbers of their objects, batch by batch."""
    agreed = found.reason == ""
    seen = np.zeros(len(agreed), bool)
    epochs = [layout.nested] if layout.nested else list(layout.epoch_columns)
    columns = [*layout.row_columns, *epochs]
    for group in range(file.num_row_groups):
        ids = file.read_row_group(group, columns=[layout.objectid]).column(0)
        number = _numbers(ids, ballot.objects)
        wanted = (number >= 0) & agreed[number]
        if not wanted.any():
            continue
        _refuse_doubles(ballot, seen, number[wanted])
        start = 0
        for batch in file.iter_batches(BATCH, row_groups=[group], columns=columns, use_threads=False):
            rows = np.flatnonzero(wanted[start : start + len(batch)])
            its = number[start + rows]
            start += len(batch)
            if not len(rows):
                continue
            table = pa.Table.from_batches([batch]).take(pa.array(rows))
            curves = _without_bad(_view(table, layout), bad_flags)
            there = np.flatnonzero(np.diff(curves.offsets) > 0)
            if len(there):
                yield _labelled(table, curves, there, layout, ballot, found, its[there]), its[there]


def _numbers(ids: pa.ChunkedArray, objects: pa.StringArray) -> np.ndarray:
    """The number of each row's object, −1 for what nobody voted on."""
    text = pc.utf8_trim_whitespace(ids.cast(pa.string())).combine_chunks()
    found = pc.index_in(text, value_set=objects)
    # null is a row without identifier, or one that is no object of the ballot
    return found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)


def _refuse_doubles(ballot: Ballot, seen: np.ndarray, number: np.ndarray) -> None:
    """Mark objects as seen; none may come twice."""
    doubled = seen[number] | (np.bincount(number, minlength=len(seen))[number] > 1)
    if doubled.any():
        raise VotesError(
            f"object {ballot.objects[int(number[doubled][0])]} has several light curves in the table: which one the "
            "votes are about is not known; leave all but one out"
        )
    seen[number] = True


def _view(table: pa.Table, layout: Layout) -> LightCurves:
    """The light curves of a table, whose own identifiers are not needed: text ones would be hashed one by one."""
    at = table.schema.get_field_index(layout.objectid)
    return from_arrow(table.set_column(at, layout.objectid, pa.array(np.arange(len(table)))), layout)


def _without_bad(curves: LightCurves, bad_flags: int) -> LightCurves:
    """The light curves without flagged epochs."""
    if not len(curves.flags):
        return curves
    good = (curves.flags & bad_flags) == 0
    offsets = np.concatenate([[0], np.cumsum(good)])[curves.offsets]
    epochs = {name: getattr(curves, name)[good] for name in ("t", "mag", "magerr", "flags")}
    return replace(curves, **epochs, offsets=offsets)


def _labelled(
    table: pa.Table, curves: LightCurves, there: np.ndarray, layout: Layout, ballot: Ballot, found: Majority,
    number: np.ndarray,
) -> pa.Table:  # fmt: skip
    kept = table.take(pa.array(there))
    # light curves without an epoch own none, so that the epochs of the others follow one another
    offsets = pa.array(np.append(curves.offsets[there], curves.offsets[-1]), pa.int64())
    optional = {
        name: getattr(layout, name) for name in ("group", "period", "filterid") if getattr(layout, name)
    }
    return pa.table(
        {
            "id": kept.column(layout.objectid),
            "label": pa.array(ballot.classes).take(pa.array(found.winner[number])),
            "ra": kept.column(layout.ra).cast(pa.float64()),
            "dec": kept.column(layout.dec).cast(pa.float64()),
            **{name: kept.column(column) for name, column in optional.items()},
            "mjd": pa.LargeListArray.from_arrays(offsets, pa.array(curves.t, pa.float64())),
            "mag": pa.LargeListArray.from_arrays(offsets, pa.array(curves.mag)),
            "magerr": pa.LargeListArray.from_arrays(offsets, pa.array(curves.magerr)),
            "votes": pa.array(found.votes[number], pa.int32()),
            "agreement": pa.array(found.agreement[number], pa.float32()),
        }
    )


def _write(
    target: Path, tables: Iterable[tuple[pa.Table, np.ndarray]], ballot: Ballot, found: Majority
) -> np.ndarray:
    """Write tables into one file; (n objects,) bool, which of them are in it."""
    written = np.zeros(len(ballot.objects), bool)
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    writer = None
    try:
        for table, number in tables:
            if writer is None:
                target.parent.mkdir(parents=True, exist_ok=True)
                writer = pq.ParquetWriter(part, table.schema, compression="zstd", compression_level=3)
            writer.write_table(table)
            written[number] = True
        if writer is None:
            raise VotesError(_nothing(ballot, found))
        writer.close()
        part.replace(target)
    finally:
        if writer is not None:
            writer.close()
        part.unlink(missing_ok=True)
    return written


def _nothing(ballot: Ballot, found: Majority) -> str:
    agreed = np.flatnonzero(found.reason == "")
    if not len(agreed):
        named, n = np.unique(found.reason, return_counts=True)
        counted = ", ".join(f"{k} {name}" for name, k in zip(named, n, strict=True))
        return f"none of {len(ballot.objects)} objects can be labelled: {counted}; see --min-votes, --min-agreement"
    return (
        f"none of {len(agreed)} objects that a majority agrees on has a light curve in the table, for example "
        f"{ballot.objects[int(agreed[0])]}: are the identifiers those of the table? --id COLUMN says where they are"
    )
