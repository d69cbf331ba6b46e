"""Compare two versions of a catalogue, row by row: classes, probabilities, periods, what is new and what is lost.

The rows of both are joined once by DuckDB, which keeps to a memory limit and spills to disk beyond it; what is counted
is counted over the joined rows. A row is a light curve: the same objectid and filterid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np

from lightmill.catalogs.rows import UNCLASSIFIED
from lightmill.pipeline.compare_pairs import FINEST, joined, select_from
from lightmill.pipeline.compare_side import CompareError, Side, open_side

__all__ = ["BARS", "Comparison", "Move", "Shift", "compare"]

MEMORY = "1GB"  #: of DuckDB, unless told
CELLS = 4096  #: of the map at most
MOVES = 20  #: largest migrations that are named
EXAMPLES = 5  #: objects that are named for each
LARGE = 0.1  #: a shift of a probability that counts as large
FINE = 10_000  #: bins a unit of probability, in which percentiles are found
COARSE = 50  #: and in which they are drawn
BARS = np.arange(-COARSE - 0.5, COARSE + 1) / COARSE  #: edges of the drawn bins, the middle one around 0
PERCENTILES = (1, 16, 50, 84, 99)
SAME = 0.01  #: relative difference up to which periods are the same


@dataclass(frozen=True)
class Move:
    """A pair of different classes."""

    first: str  #: class in the first version
    second: str  #: class in the second
    rows: int
    examples: list[int]  #: objectids, the smallest


@dataclass(frozen=True)
class Shift:
    """How the probability of a class has changed, second minus first, over the rows of both."""

    rows: int  #: that have a probability in both
    mean: float | None
    std: float | None
    percentiles: dict[str, float]  #: 1, 16, 50, 84 and 99, to 1/10,000
    large: float | None  #: share of rows that changed by more than 0.1
    bars: list[int]  #: rows between the edges `BARS`


@dataclass(frozen=True)
class Comparison:
    """How the second of two versions differs from the first; plain JSON values."""

    first: dict[str, Any]  #: what is known of the first: url, rows, bundles and runs with their rows, records
    second: dict[str, Any]
    both: int  #: rows in both
    new: int  #: rows of the second alone
    lost: int  #: rows of the first alone
    new_reasons: dict[
        str, int
    ]  #: why the first did not classify them, "not read" where it does not list them
    lost_reasons: dict[str, int]  #: why the second does not classify them, likewise
    changed: int  #: rows of both with another best class
    share_changed: float | None  #: of the rows of both; None without any
    classes: list[str]  #: of the matrix
    migration: list[list[int]]  #: rows of both, by class in the first (outer) and in the second
    moves: list[Move]  #: the largest changes of class
    only_first: list[str]  #: classes that only the first has probabilities for
    only_second: list[str]
    shifts: dict[str, Shift]  #: by class that both have probabilities for
    periods: dict[str, int]  #: rows of both: same, factor_2, other, only_first, only_second, neither
    map_order: int  #: HEALPix order of the map
    map: list[dict[str, int]]  #: pixel (NESTED), rows in both, changed


def compare(first: str, second: str, *, memory: str = MEMORY) -> Comparison:
    """Compare two versions of a classification catalogue.

    Parameters
    ----------
    first, second : folder or URL of a version, of a catalogue (its current version), or CATALOGUE@NAME
    memory : that DuckDB may take, as "1GB"; what does not fit goes into the folder for temporary files

    Raises
    ------
    NotHats
        if one of them is no HATS catalogue.
    CompareError
        if one holds no classes, or the same light curve twice.
    """
    a, b = open_side(first), open_side(second)
    shared = [leaf for leaf in a.leaves if leaf in b.leaves]
    with joined(a, b, shared, memory) as connection:
        facts = [_known(connection, side, view) for side, view in ((a, "first_rows"), (b, "second_rows"))]
        both, new, lost = _counts(connection, a, b, [side["rows"] for side in facts])
        classes, matrix = _migration(connection, a, b)
        changed = int(matrix.sum() - np.trace(matrix))
        order, cells = _map(connection)
        return Comparison(
            first=facts[0],
            second=facts[1],
            both=both,
            new=new,
            lost=lost,
            new_reasons=_reasons(connection, a, "in_second AND NOT in_first", new),
            lost_reasons=_reasons(connection, b, "in_first AND NOT in_second", lost),
            changed=changed,
            share_changed=changed / both if both else None,
            classes=classes,
            migration=matrix.tolist(),
            moves=_moves(connection),
            only_first=[leaf for leaf in a.leaves if leaf not in b.leaves],
            only_second=[leaf for leaf in b.leaves if leaf not in a.leaves],
            shifts=_shifts(connection, shared),
            periods=_periods(connection),
            map_order=order,
            map=cells,
        )


def _known(connection: duckdb.DuckDBPyConnection, side: Side, view: str) -> dict[str, Any]:
    """Facts of a side, with its rows by bundle and by run."""
    found = connection.execute(
        f"SELECT bundle, run_id, count(*) FROM {view} GROUP BY ALL ORDER BY 3 DESC, 1, 2"
    ).fetchall()
    bundles: dict[str, int] = {}
    runs: dict[str, dict[str, Any]] = {}
    for bundle, run_id, n in found:
        bundles[str(bundle)] = bundles.get(str(bundle), 0) + n
        run = runs.setdefault(str(run_id), {"rows": 0, **side.run_facts(str(run_id))})
        run["rows"] += n
    return side.facts() | {"rows": sum(bundles.values()), "bundles": bundles, "runs": runs}


def _counts(
    connection: duckdb.DuckDBPyConnection, a: Side, b: Side, rows: Sequence[int]
) -> tuple[int, int, int]:
    """Rows in both, in the second alone, in the first alone; a CompareError where a row was joined twice."""
    both, new, lost = _one(
        connection,
        "SELECT count_if(in_first AND in_second), count_if(NOT in_first), count_if(NOT in_second) FROM pairs",
    )
    for side, found, there in ((a, both + lost, rows[0]), (b, both + new, rows[1])):
        if found != there:
            other = b if side is a else a
            raise CompareError(
                f"{side.url} has {there:,} rows, {found:,} once they are joined by objectid and filterid: "
                f"{other.url} holds the same light curve more than once, so rows cannot be compared"
            )
    return both, new, lost


def _one(connection: duckdb.DuckDBPyConnection, statement: str) -> tuple[int, ...]:
    """The counts of one row; of no rows count_if is null."""
    row = connection.execute(statement).fetchone()
    assert row is not None
    return tuple(n or 0 for n in row)


def _reasons(connection: duckdb.DuckDBPyConnection, side: Side, which: str, n: int) -> dict[str, int]:
    """Why `side` has not classified `n` light curves that the other has."""
    found: dict[str, int] = {}
    if n and side.rejected_files:
        found = dict(
            connection.execute(
                f"SELECT reason, count(*) FROM (SELECT objectid FROM pairs WHERE {which}) "
                f"JOIN (SELECT objectid, any_value(reason) AS reason FROM ({select_from(side.rejected_files)}) "
                "GROUP BY objectid) USING (objectid) GROUP BY reason ORDER BY 2 DESC, 1"
            ).fetchall()
        )
    rest = n - sum(found.values())
    return found | ({"not read": rest} if rest else {})


def _migration(connection: duckdb.DuckDBPyConnection, a: Side, b: Side) -> tuple[list[str], np.ndarray]:
    """The classes, and how many rows of both are of which class before and after, (k, k) int64."""
    found = connection.execute(
        "SELECT class_1, class_2, count(*) FROM pairs WHERE in_first AND in_second GROUP BY ALL"
    ).fetchall()
    seen = {str(name) for row in found for name in row[:2]}
    classes = list(dict.fromkeys((*a.leaves, *b.leaves)))
    classes += sorted(seen - set(classes) - {UNCLASSIFIED}) + [UNCLASSIFIED] * (UNCLASSIFIED in seen)
    at = {name: i for i, name in enumerate(classes)}
    matrix = np.zeros((len(classes), len(classes)), np.int64)
    for before, after, n in found:
        matrix[at[str(before)], at[str(after)]] = n
    return classes, matrix


def _moves(connection: duckdb.DuckDBPyConnection) -> list[Move]:
    found = connection.execute(
        f"SELECT class_1, class_2, count(*), min(objectid, {EXAMPLES}) FROM pairs WHERE class_1 <> class_2 "
        f"GROUP BY class_1, class_2 ORDER BY 3 DESC, 1, 2 LIMIT {MOVES}"
    ).fetchall()
    return [Move(*row) for row in found]


def _shifts(connection: duckdb.DuckDBPyConnection, shared: Sequence[str]) -> dict[str, Shift]:
    """By class; each is counted in fine bins, so that memory does not follow the rows."""
    return {
        leaf: _shift(
            np.array(
                connection.execute(
                    f"SELECT round(d{i} * {FINE})::INTEGER, count(*), sum(d{i}::DOUBLE), sum(d{i}::DOUBLE * d{i}), "
                    f"count_if(abs(d{i}) > {LARGE}) FROM pairs WHERE d{i} IS NOT NULL GROUP BY 1 ORDER BY 1"
                ).fetchall()
            ).reshape(-1, 5)
        )
        for i, leaf in enumerate(shared)
    }


def _shift(bins: np.ndarray) -> Shift:
    """From (k, 5): bin, rows, sum, sum of squares, rows that changed much; bins increasing."""
    at, rows, total, squares, large = bins.T
    bars = np.zeros(len(BARS) - 1, np.int64)
    np.add.at(bars, np.rint(at / FINE * COARSE).astype(int) + COARSE, rows.astype(np.int64))
    n = int(rows.sum())
    if n == 0:
        return Shift(0, None, None, {}, None, bars.tolist())
    mean = total.sum() / n
    cumulative = np.cumsum(rows)
    where = np.searchsorted(cumulative, np.array(PERCENTILES) / 100 * n)
    return Shift(
        rows=n,
        mean=float(mean),
        std=float(np.sqrt(max(squares.sum() / n - mean**2, 0.0))),
        percentiles={
            str(q): round(float(v), 4) + 0.0
            for q, v in zip(PERCENTILES, total[where] / rows[where], strict=True)
        },
        large=float(large.sum() / n),
        bars=bars.tolist(),
    )


def _periods(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    near = f"BETWEEN {1 - SAME} AND {1 + SAME}"
    names = ("same", "factor_2", "other", "only_first", "only_second", "neither")
    row = _one(
        connection,
        f"SELECT count_if(ratio {near}), count_if(ratio / 2 {near} OR ratio * 2 {near}), count_if(ratio IS NOT NULL), "
        "count_if(period_1 IS NOT NULL AND period_2 IS NULL), count_if(period_1 IS NULL AND period_2 IS NOT NULL), "
        "count_if(period_1 IS NULL AND period_2 IS NULL) "
        "FROM (SELECT period_1, period_2, period_2 / period_1 AS ratio FROM pairs WHERE in_first AND in_second)",
    )
    found = dict(zip(names, row, strict=True))
    found["other"] -= found["same"] + found["factor_2"]
    return found


def _map(connection: duckdb.DuckDBPyConnection) -> tuple[int, list[dict[str, int]]]:
    """Order of the map, as fine as its extent allows, and rows of both and changed ones by cell."""
    found = np.array(
        connection.execute(
            "SELECT cell, count(*), count_if(class_1 <> class_2) FROM pairs WHERE in_first AND in_second "
            "GROUP BY cell ORDER BY cell"
        ).fetchall(),
        np.int64,
    ).reshape(-1, 3)
    order = FINEST
    while len(found) > CELLS:
        cells, at = np.unique(found[:, 0] >> 2, return_inverse=True)
        sums = [np.bincount(at, found[:, i]).astype(np.int64) for i in (1, 2)]
        found, order = np.column_stack([cells, *sums]), order - 1
    return order, [
        {"pixel": pixel, "rows": rows, "changed": changed} for pixel, rows, changed in found.tolist()
    ]
