"""Ballots: tables of what several people said of the same objects, as labelling campaigns export them."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from lightmill.models.taxonomy import LEAVES, nearest

__all__ = ["IDS", "PREFIXES", "Ballot", "Columns", "VotesError", "read_ids", "read_votes"]

IDS = ("objectid", "object_id", "id", "oid", "object", "subject_id", "subject", "source_id", "star")
ANNOTATORS = ("annotator", "annotator_id", "user_name", "user", "user_id", "username", "labeller", "rater")
LABELS = ("label", "class", "classification", "vote", "annotation", "value")
TIMES = ("time", "created_at", "timestamp", "date", "voted_at")

NOT_COUNTS = frozenset(
    ("workflow_id", "workflow_version", "task", "reducer_key", "subject_set_id", "aggregation_version", "ra", "dec",
     "total", "votes", "n_votes", "agreement", "classification_count")
)  # fmt: skip
"""Columns of aggregated exports, in lower case, that are no count of a class."""

PREFIXES = ("data.", "votes_", "count_", "n_")  #: of count columns; what follows is the class


class VotesError(ValueError):
    """Votes cannot be read or counted."""


@dataclass(frozen=True)
class Columns:
    """Names of columns in a table of votes; None: the first usual one that is there."""

    objectid: str | None = None
    annotator: str | None = None
    label: str | None = None
    time: str | None = None
    ignore: tuple[str, ...] = ()  #: of a wide table: columns that are no count


@dataclass(frozen=True)
class Ballot:
    """v votes of known annotators, or counts alone, on n objects; a class is a number into `classes`."""

    objects: pa.StringArray  #: (n,) identifiers as text, each once
    classes: tuple[str, ...]
    annotators: tuple[str, ...]  #: empty where only counts are known
    obj: np.ndarray  #: (v,) int64, number of the object
    by: np.ndarray  #: (v,) int64, number of the annotator
    cls: np.ndarray  #: (v,) int64, number of the class; −1: abstained
    time: np.ndarray | None  #: (v,) float64 or int64, increasing with time, any unit
    counts: np.ndarray | None = None  #: (n, classes) int64 where only counts are known


def read_votes(
    paths: Iterable[str | Path],
    columns: Columns | None = None,
    *,
    aliases: Mapping[str, str] | None = None,
    abstain: Iterable[str] = (),
) -> Ballot:
    """Read tables of votes, CSV or Parquet, all long or all wide.

    Long: a row a vote, with columns for the object, the annotator, the label and perhaps the time. Wide: a row an
    object, with a column of counts for each class, whose name may begin with one of PREFIXES.

    Parameters
    ----------
    columns : names of the columns, where they are not usual ones
    aliases : label of the tables → class of the taxonomy
    abstain : labels that stand for no class ("unsure"): such votes are not counted, nor are empty ones

    Raises
    ------
    VotesError
        for files that are missing or of another kind, missing columns, labels that are no class of the taxonomy (with
        the nearest one), counts that are none, or objects or annotators without a name.
    """
    given, files = columns or Columns(), [Path(path) for path in paths]
    if not files:
        raise VotesError("no table of votes was given")
    headers = {path: _header(path) for path in files}
    wide = {path: _is_wide(header, given) for path, header in headers.items()}
    if len(set(wide.values())) > 1:
        a, b = (next(path for path in files if wide[path] is kind) for kind in (True, False))
        raise VotesError(f"{a} has a row an object, {b} a row a vote: read them one after the other")
    read = _read_wide if wide[files[0]] else _read_long
    return read({path: headers[path] for path in files}, given, aliases or {}, frozenset(abstain))


def read_ids(path: str | Path, column: str | None = None) -> pa.StringArray:
    """The distinct identifiers in a table, CSV or Parquet, as text; rows without one are passed over.

    Raises
    ------
    VotesError
        if the file cannot be read, or which column they are in cannot be known.
    """
    file = Path(path)
    header = _header(file)
    name = _column(file, header, column, IDS, "object", "--id")
    return pc.drop_null(pc.unique(_words(file, name, _table(file, header, [name], [name]).column(name))))


def _is_wide(header: Sequence[str], columns: Columns) -> bool:
    """A table is long if it says who voted or what for; else its classes are columns."""
    if columns.annotator or columns.label:
        return False
    return _usual(header, ANNOTATORS) is None and _usual(header, LABELS) is None


def _read_long(
    headers: Mapping[Path, Sequence[str]],
    columns: Columns,
    aliases: Mapping[str, str],
    abstain: frozenset[str],
) -> Ballot:
    parts = []
    for path, header in headers.items():
        names = [
            _column(path, header, columns.objectid, IDS, "object", "--id"),
            _column(path, header, columns.annotator, ANNOTATORS, "annotator", "--annotator"),
            _column(path, header, columns.label, LABELS, "label", "--label"),
        ]
        time = columns.time if columns.time else _usual(header, TIMES)
        if time is not None:
            names.append(_column(path, header, time, (), "time", "--time"))
        table = _table(path, header, names, text=names[:3])
        words = [_words(path, name, table.column(name)) for name in names[:3]]
        parts.append((*words, _times(path, names[3], table.column(names[3])) if time else None))
    text = [pa.chunked_array([part[i] for part in parts], pa.string()).combine_chunks() for i in range(3)]
    for what, column in zip(("object", "annotator"), text, strict=False):
        if column.null_count:
            raise VotesError(
                f"{_names(headers)}: {column.null_count} votes say no {what}: fill it in, or leave them out"
            )
    times = [part[3] for part in parts]
    if any(time is None for time in times) and any(time is not None for time in times):
        raise VotesError(
            f"{_names(headers)}: some tables say when a vote was cast, some do not: all must, or none"
        )
    (objects, obj), (annotators, by), (labels, said) = map(_codes, text)
    classes, cls = _classes(labels.to_pylist(), said, aliases, abstain, _names(headers))
    return Ballot(
        objects, classes, tuple(annotators.to_pylist()), obj, by, cls,
        None if times[0] is None else np.concatenate(times),
    )  # fmt: skip


def _read_wide(
    headers: Mapping[Path, Sequence[str]],
    columns: Columns,
    aliases: Mapping[str, str],
    abstain: frozenset[str],
) -> Ballot:
    pieces, where = [], _names(headers)
    for path, header in headers.items():
        name = _column(path, header, columns.objectid, IDS, "object", "--id")
        unknown = [other for other in columns.ignore if other not in header]
        if unknown and len(headers) == 1:
            raise VotesError(f"{path}: no column {unknown[0]!r} to ignore; the table has {', '.join(header)}")
        others = [
            other for other in header
            if other not in (name, *columns.ignore) and _class_of(other).lower() not in NOT_COUNTS
        ]  # fmt: skip
        table = _table(path, header, [name, *others], text=[name])
        ids = _words(path, name, table.column(name))
        read = {other: _counts(path, other, table.column(other)) for other in others}
        pieces.append((ids, {other: column for other, column in read.items() if column is not None}))
    objects = pa.chunked_array([ids for ids, _ in pieces], pa.string()).combine_chunks()
    if objects.null_count:
        raise VotesError(f"{where}: {objects.null_count} rows say no object: fill it in, or leave them out")
    distinct, obj = _codes(objects)
    if len(distinct) < len(objects):
        twice = distinct[int(np.argmax(np.bincount(obj) > 1))]
        raise VotesError(f"{where}: object {twice} has several rows; a table of counts has one row an object")
    labels = sorted({other for _, counts in pieces for other in counts})
    if not labels:
        raise VotesError(
            f"{where}: neither columns of an annotator and a label, nor a column of counts for a class: "
            f"{', '.join(next(iter(headers.values())))}"
        )
    said = np.arange(len(labels))
    classes, cls = _classes([_class_of(one) for one in labels], said, aliases, abstain, where, column=True)
    total = np.zeros((len(objects), len(classes) + 1), np.int64)  # the last is of abstentions
    start = 0
    for ids, counts in pieces:
        for label, votes in counts.items():
            total[start : start + len(ids), cls[labels.index(label)]] += votes
        start += len(ids)
    none = np.empty(0, np.int64)
    return Ballot(distinct, classes, (), none, none, none, None, np.ascontiguousarray(total[:, :-1]))


def _classes(
    labels: Sequence[str | None],
    said: np.ndarray,
    aliases: Mapping[str, str],
    abstain: frozenset[str],
    where: str,
    *,
    column: bool = False,
) -> tuple[tuple[str, ...], np.ndarray]:
    """Classes in the taxonomy's order, and for each vote the number of its class, −1 for an abstention."""
    named = [None if one is None or one in abstain else aliases.get(one, one) for one in labels]
    unknown = [
        (one, name)
        for one, name in zip(labels, named, strict=True)
        if name is not None and name not in LEAVES
    ]
    if unknown:
        votes = np.bincount(said[said >= 0], minlength=len(labels))
        listed = "; ".join(
            f"{one!r}{f' → {name!r}' if name != one else ''}"
            f"{'' if column else f' ({votes[labels.index(one)]} votes)'}{nearest(str(name), LEAVES)}"
            for one, name in unknown
        )
        raise VotesError(
            f"{where}: unknown class names {listed}. Known are {', '.join(LEAVES)}: rename with --map LABEL=CLASS, "
            + ("leave a column out with --ignore COLUMN" if column else "drop votes with --abstain LABEL")
        )
    classes = tuple(leaf for leaf in LEAVES if leaf in named)
    if not classes:
        raise VotesError(f"{where}: not one vote names a class")
    number = np.array([-1 if name is None else classes.index(name) for name in named] + [-1], np.int64)
    return classes, number[said]


def _codes(column: pa.StringArray) -> tuple[pa.StringArray, np.ndarray]:
    """Distinct values in order of appearance, and the number of each row's; −1 for null."""
    coded = column.dictionary_encode()
    return coded.dictionary, coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)


def _header(path: Path) -> list[str]:
    if not path.is_file():
        raise VotesError(f"{path}: no such file; votes are CSV or Parquet files")
    if _is_parquet(path):
        try:
            return list(pq.read_schema(path).names)
        except pa.ArrowInvalid as error:
            raise VotesError(f"{path}: not a Parquet file: {error}") from error
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            header = next(csv.reader(handle), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise VotesError(f"{path}: not CSV in UTF-8: {error}") from error
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice or not header:
        raise VotesError(f"{path}: {f'columns {twice} are there twice' if twice else 'the file is empty'}")
    return header


def _is_parquet(path: Path) -> bool:
    if path.suffix.lower() in (".parquet", ".pq"):
        return True
    with path.open("rb") as handle:
        return handle.read(4) == b"PAR1"


def _table(path: Path, header: Sequence[str], names: Sequence[str], text: Sequence[str]) -> pa.Table:
    """Some columns; in CSV those of `text` as text: a number would lose leading zeros, or digits."""
    try:
        if _is_parquet(path):
            return pq.read_table(path, columns=list(names))
        return pa.csv.read_csv(
            path,
            read_options=pa.csv.ReadOptions(column_names=list(header), skip_rows=1),
            parse_options=pa.csv.ParseOptions(newlines_in_values=True),
            convert_options=pa.csv.ConvertOptions(
                include_columns=list(dict.fromkeys(names)),
                column_types=dict.fromkeys(text, pa.string()),
                strings_can_be_null=True,
                null_values=["", "NA", "null", "NULL", "None", "nan", "NaN"],
            ),
        )
    except pa.ArrowInvalid as error:
        raise VotesError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error


def _words(path: Path, name: str, column: pa.ChunkedArray) -> pa.StringArray:
    """A column as text, without blanks around; blank is null."""
    if pa.types.is_floating(column.type):
        raise VotesError(
            f"{path}: column {name!r} is {column.type}, which loses digits: give text or integers"
        )
    try:
        words = pc.utf8_trim_whitespace(column.cast(pa.string()))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise VotesError(f"{path}: column {name!r} is {column.type}, not text or integers") from error
    return pc.if_else(pc.equal(words, ""), pa.scalar(None, pa.string()), words).combine_chunks()


def _times(path: Path, name: str, column: pa.ChunkedArray) -> np.ndarray:
    """Times as numbers that increase: of timestamps or ISO 8601 text nanoseconds, of numbers themselves."""
    if column.null_count:
        raise VotesError(f"{path}: {column.null_count} votes have no {name!r}: fill it in, or leave them out")
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return np.asarray(column.to_numpy(), np.float64)
    values = column.to_pandas()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        values = values.str.replace(r"\s*UTC$", "Z", regex=True)
    try:
        stamps = pd.to_datetime(values, utc=True, format="ISO8601")
    except (ValueError, TypeError) as error:
        raise VotesError(
            f"{path}: column {name!r} is neither a number nor a time like 2026-05-01T20:38:09: {error}"
        ) from error
    return stamps.astype("datetime64[ns, UTC]").astype(np.int64).to_numpy().astype(np.float64)


def _counts(path: Path, name: str, column: pa.ChunkedArray) -> np.ndarray | None:
    """A column of counts, null as 0; None if it is text, and so none."""
    if pa.types.is_null(column.type):
        return np.zeros(len(column), np.int64)
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        return None
    values = column.cast(pa.float64()).fill_null(0).to_numpy()
    if not ((values >= 0) & (values == np.floor(values)) & np.isfinite(values)).all():
        raise VotesError(
            f"{path}: column {name!r} holds {values[~((values >= 0) & (values == np.floor(values)))][0]}, which is no "
            "count of votes: leave it out with --ignore COLUMN"
        )
    return values.astype(np.int64)


def _class_of(name: str) -> str:
    """What a count column counts."""
    for prefix in PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def _usual(header: Sequence[str], known: Sequence[str]) -> str | None:
    """The first of the known names that a header has, in its spelling; case does not matter."""
    lower = {name.strip().lower(): name for name in reversed(header)}
    return next((lower[name] for name in known if name in lower), None)


def _column(
    path: Path, header: Sequence[str], given: str | None, known: Sequence[str], what: str, option: str
) -> str:
    if given is not None:
        if given in header:
            return given
        raise VotesError(
            f"{path}: no column {given!r}.{nearest(given, header)} The table has {', '.join(header)}"
        )
    found = _usual(header, known)
    if found is None:
        raise VotesError(
            f"{path}: which column names the {what}? None of {', '.join(known)} is among {', '.join(header)}: "
            f"say it with {option} COLUMN"
        )
    return found


def _names(paths: Iterable[Path]) -> str:
    return ", ".join(map(str, paths))
