"""Picking: which light curves of a classification catalogue to label next.

DuckDB keeps the first few of each order while it reads, so a catalogue may have any number of rows; only those few
come here, where those of one star are made one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy.spatial import cKDTree

from lightmill.catalogs.lightcurves import objectid_of
from lightmill.catalogs.query import QueryError, Question, query
from lightmill.catalogs.rows import FLAGS, row_schema
from lightmill.pipeline.ballots import read_ids

__all__ = ["CRITERIA", "SAME_STAR", "Picked", "pick"]

CRITERIA = ("uncertainty", "novelty", "balance")
SAME_STAR = 1.5  #: [arcsec] rows closer than this are of one star, seen in several filters

COLUMNS = (
    "objectid", "ra", "dec", "filterid", "n_good", "mag_mean", "amplitude", "p_variable", "best_class", "best_prob",
    "margin", "period", "novelty",
)  # fmt: skip
PRIME = 2**31 - 1  #: of the hash that breaks ties: below, a product of two fits 63 bits


@dataclass(frozen=True)
class Picked:
    """What to label next."""

    rows: pa.Table  #: rank, picked_by, why, and columns of the catalogue; the first rank is the most wanted
    notes: tuple[str, ...]  #: what could not be done as asked


def pick(url: str, n: int, *, by: str = "mixed", exclude: str | Path | None = None, seed: int = 0) -> Picked:
    """Pick light curves to label next; the same arguments give the same rows.

    - `uncertainty`: the smallest margins among those that passed the gate.
    - `novelty`: the highest novelty.
    - `balance`: as many of each class found as can be had, those with the smallest margins first; of those that passed
      the gate.
    - `mixed`: a third of each, in turns.

    Of rows that lie within SAME_STAR of one another only one is picked, and none of a star in `exclude`.

    Parameters
    ----------
    url : classification catalogue, as `catalogs.query` takes it
    n : at most so many
    by : one of CRITERIA, or "mixed"
    exclude : table (Parquet or CSV) of what is labelled, with identifiers as the release has them
    seed : which of rows that are equal in all else comes first

    Raises
    ------
    QueryError
        if there is nothing to pick from, for example no novelty in the whole catalogue.
    VotesError
        if `exclude` cannot be read.
    NotHats
        if `url` is no HATS catalogue.
    """
    if by not in (*CRITERIA, "mixed") or n < 1:
        raise QueryError(
            f"{n} light curves by {by!r} cannot be picked: at least 1, by {', '.join(CRITERIA)} or mixed"
        )
    wanted = CRITERIA if by == "mixed" else (by,)
    with tempfile.TemporaryDirectory(prefix="lightmill-") as scratch:
        asked = _Asked(url, seed, _write_excluded(url, exclude, Path(scratch)))
        depth = _depth(n)
        while True:
            queues = {name: asked.queues(name, depth) for name in wanted}
            picked = _draw(queues, n, asked.excluded.places, depth)
            if picked is not None:
                break
            depth *= 4  # too many were of one star: look deeper
    notes = []
    if "novelty" in wanted and not queues["novelty"]:
        notes.append(
            f"{url} has no novelty: it was made without a stage that computes it. By novelty nothing is picked"
        )
    if not len(picked):
        nothing = (
            f"{url}: no light curve passed the gate and is not labelled yet, so there is nothing to pick"
        )
        raise QueryError("; ".join(notes) or nothing)
    if len(picked) < n:
        notes.append(f"only {len(picked)} of {n} light curves can be picked: there are no more")
    return Picked(picked, tuple(notes))


def _depth(n: int) -> int:
    """How many rows of each order to take at first: some will be of one star."""
    return 2 * n + 64


@dataclass(frozen=True)
class _Excluded:
    """What is labelled already, in files that DuckDB can read."""

    ids: Path | None  #: Parquet file with a column objectid
    places: np.ndarray  #: (k, 3) unit vectors of their stars


@dataclass(frozen=True)
class _Asked:
    """Questions to one catalogue."""

    url: str
    seed: int
    excluded: _Excluded

    def queues(self, criterion: str, depth: int) -> list[pa.Table]:
        """The first `depth` rows in the criterion's order; for balance of each class, by the class's name."""
        gate = f"(flags & {FLAGS['gated_out']}) = 0 AND isfinite(margin)"
        if criterion == "novelty":
            return _pieces([self._top("isfinite(novelty)", "-novelty", depth)])
        if criterion == "uncertainty":
            return _pieces([self._top(gate, "margin", depth)])
        row = ", ".join(f"{name}: {name}" for name in COLUMNS)
        # not a window function, which would sort the whole catalogue
        nested = (
            f"SELECT arg_min({{{row}}}, (margin, {self._tie()}, objectid), {depth}) AS best "
            f"FROM {self._rows()} WHERE {gate} GROUP BY best_class ORDER BY best_class"
        )
        found = query(self.url, Question(sql=nested))
        return _pieces([_table(pa.Table.from_struct_array(one.values)) for one in found.column("best")])

    def _top(self, where: str, key: str, depth: int) -> pa.Table:
        sql = (
            f"SELECT {', '.join(COLUMNS)} FROM {self._rows()} WHERE {where} "
            f"ORDER BY {key}, {self._tie()}, objectid LIMIT {depth}"
        )
        return _table(query(self.url, Question(sql=sql)))

    def _rows(self) -> str:
        if self.excluded.ids is None:
            return "catalogue"
        listed = str(self.excluded.ids).replace("'", "''")
        return f"(SELECT * FROM catalogue ANTI JOIN read_parquet('{listed}') USING (objectid))"

    def _tie(self) -> str:
        """A number of each row that looks random: a linear hash (Carter & Wegman 1979), its constants from the seed."""
        a, b = np.random.default_rng(self.seed).integers(1, PRIME, 2).tolist()
        return f"((objectid % {PRIME}) * {a} + {b}) % {PRIME}"


def _table(found: pa.Table) -> pa.Table:
    """COLUMNS with the catalogue's types and descriptions, text as plain text."""
    known = row_schema(())
    fields = []
    for name in COLUMNS:
        field = known.field(name)
        fields.append(field.with_type(pa.string()) if pa.types.is_dictionary(field.type) else field)
    return found.select(COLUMNS).cast(pa.schema(fields))


def _pieces(tables: Iterable[pa.Table]) -> list[pa.Table]:
    return [table for table in tables if len(table)]


def _draw(queues: dict[str, list[pa.Table]], n: int, labelled: np.ndarray, depth: int) -> pa.Table | None:
    """Draw from the criteria in turn, within one from its queues in turn, never a star twice.

    None if a queue that was cut at `depth` ran out: what comes next in it is not known.
    """
    tables = [table for pieces in queues.values() for table in pieces]
    rows = pa.concat_tables(tables) if tables else _table(row_schema(()).empty_table())
    blocked, neighbours = _near(rows, labelled)
    lines, start = {}, 0
    for name, pieces in queues.items():
        lines[name] = _Line()
        for table in pieces:
            lines[name].queues.append(_Queue(range(start, start + len(table)), cut=len(table) == depth))
            start += len(table)
    chosen: list[int] = []
    reasons: list[str] = []
    waiting = [name for name, line in lines.items() if line.queues]
    while waiting and len(chosen) < n:
        for name in tuple(waiting):
            row = lines[name].next(blocked)
            if row is None:
                waiting.remove(name)
                if lines[name].cut:
                    return None
                continue
            chosen.append(row)
            reasons.append(name)
            blocked[row] = True
            blocked[neighbours.get(row, [])] = True
            if len(chosen) == n:
                break
    return _explained(rows.take(pa.array(chosen, pa.int64())), reasons)


class _Queue:
    """Rows in the order in which they are wanted."""

    def __init__(self, rows: Sequence[int], *, cut: bool) -> None:
        self.rows = iter(rows)
        self.cut = cut  # whether the catalogue has more than these

    def next(self, blocked: np.ndarray) -> int | None:
        """The first row that is not blocked; None at the end."""
        return next((row for row in self.rows if not blocked[row]), None)


class _Line:
    """Queues that take turns."""

    def __init__(self) -> None:
        self.queues: list[_Queue] = []
        self.cut = False  # whether a queue ended that the catalogue could have gone on with

    def next(self, blocked: np.ndarray) -> int | None:
        while self.queues and not self.cut:
            queue = self.queues.pop(0)
            row = queue.next(blocked)
            if row is not None:
                self.queues.append(queue)
                return row
            self.cut = queue.cut
        return None


def _near(rows: pa.Table, labelled: np.ndarray) -> tuple[np.ndarray, dict[int, list[int]]]:
    """Rows of stars that are labelled already, and for each row that has any the others of its star."""
    blocked = np.zeros(len(rows), bool)
    neighbours: dict[int, list[int]] = {}
    if not len(rows):
        return blocked, neighbours
    places = _vectors(rows.column("ra").to_numpy(), rows.column("dec").to_numpy())
    tree = cKDTree(places)
    if len(labelled):
        blocked |= cKDTree(labelled).query(places, distance_upper_bound=_chord(SAME_STAR))[0] < np.inf
    for i, j in tree.query_pairs(_chord(SAME_STAR)):
        neighbours.setdefault(i, []).append(j)
        neighbours.setdefault(j, []).append(i)
    return blocked, neighbours


def _explained(rows: pa.Table, reasons: Sequence[str]) -> pa.Table:
    """Rows with their rank and why they were picked."""
    said = {
        "uncertainty": lambda row: f"margin {row['margin']:.3g} to the second class",
        "novelty": lambda row: f"novelty {row['novelty']:.4g}",
        "balance": lambda row: f"of class {row['best_class']}, margin {row['margin']:.3g}",
    }
    facts = rows.select(["margin", "novelty", "best_class"]).to_pylist()
    why = [said[name](row) for name, row in zip(reasons, facts, strict=True)]
    head = {
        "rank": pa.array(range(1, len(rows) + 1), pa.int64()),
        "picked_by": pa.array(reasons, pa.string()),
        "why": pa.array(why, pa.string()),
    }
    schema = pa.schema([*(pa.field(name, column.type) for name, column in head.items()), *rows.schema])
    return pa.Table.from_arrays([*head.values(), *rows.columns], schema=schema)


def _write_excluded(url: str, path: str | Path | None, scratch: Path) -> _Excluded:
    """The identifiers of a table as a catalogue has them, and where their stars are."""
    if path is None:
        return _Excluded(None, np.empty((0, 3)))
    text = read_ids(path)
    whole = pc.match_substring_regex(text, r"^[+-]?[0-9]{1,18}$").to_numpy(zero_copy_only=False)
    numbers = np.empty(len(text), np.int64)
    numbers[whole] = text.filter(pa.array(whole)).cast(pa.int64()).to_numpy()
    numbers[~whole] = [objectid_of(one) for one in text.filter(pa.array(~whole)).to_pylist()]
    ids = scratch / "excluded.parquet"
    pq.write_table(pa.table({"objectid": numbers}), ids)
    listed = str(ids).replace("'", "''")
    sql = f"SELECT ra, dec FROM catalogue SEMI JOIN read_parquet('{listed}') USING (objectid)"
    places = query(url, Question(sql=sql))
    return _Excluded(ids, _vectors(places.column("ra").to_numpy(), places.column("dec").to_numpy()))


def _vectors(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Unit vectors of places on the sky: (n,) [deg] → (n, 3)."""
    alpha, delta = np.radians(np.asarray(ra, np.float64)), np.radians(np.asarray(dec, np.float64))
    return np.column_stack([np.cos(delta) * np.cos(alpha), np.cos(delta) * np.sin(alpha), np.sin(delta)])


def _chord(arcsec: float) -> float:
    """The straight distance of two unit vectors at an angle."""
    return float(2 * np.sin(np.radians(arcsec / 3600) / 2))
