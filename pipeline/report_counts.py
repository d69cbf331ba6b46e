"""What DuckDB counts for a report: the catalogue's Parquet files are scanned in bounded memory, never loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import duckdb
import numpy as np
from hats.pixel_math.spatial_index import SPATIAL_INDEX_COLUMN, SPATIAL_INDEX_ORDER

from lightmill.catalogs import storage
from lightmill.catalogs.rows import UNCLASSIFIED, rejected_schema
from lightmill.models.taxonomy import DESCRIPTIONS
from lightmill.pipeline.report_catalogue import Catalogue

__all__ = ["by_class", "cells", "classes", "connect", "filters", "histogram", "middle", "rejected", "trim"]


def connect(catalogue: Catalogue) -> duckdb.DuckDBPyConnection:
    """A connection with the views `catalogue` and `rejected`; close it."""
    connection = duckdb.connect()
    connection.execute("SET enable_progress_bar = false; SET memory_limit = '2GB'")
    # names like Norder=5 in the paths are not columns
    read = partial(connection.read_parquet, hive_partitioning=False)
    read(list(catalogue.files), filename=True).create_view("catalogue")
    refused = [str(path) for path, _ in storage.files(catalogue.version.root / "rejected", ".parquet")]
    none = rejected_schema().empty_table()
    (read(refused) if refused else connection.from_arrow(none)).create_view("rejected")
    return connection


def histogram(
    connection: duckdb.DuckDBPyConnection,
    number: str,
    bins: int,
    *,
    by: str = "best_class",
    of: str = "catalogue",
) -> dict[Any, np.ndarray]:
    """(bins,) counts of an SQL expression, by group: those from i to i + 1 are counted in bin i.

    What lies outside is counted in the outermost bins; null, NaN and infinite numbers are left out.
    """
    inner = f"SELECT {by} AS g, ({number})::DOUBLE AS x FROM {of}"
    query = f"""
        SELECT g, greatest(0, least({bins - 1}, floor(x)))::BIGINT, count(*)
        FROM ({inner}) WHERE isfinite(x) GROUP BY ALL ORDER BY ALL"""
    counts: dict[Any, np.ndarray] = {}
    for group, at, n in connection.sql(query).fetchall():
        counts.setdefault(group, np.zeros(bins, np.int64))[at] = n
    return counts


def middle(counts: np.ndarray) -> int:
    """The bin in which the median lies."""
    return int(np.searchsorted(np.cumsum(counts), counts.sum() / 2))


def by_class(
    connection: duckdb.DuckDBPyConnection, leaves: Iterable[str], number: str, bins: int
) -> dict[str, np.ndarray]:
    """A histogram of each class that has light curves, in the order of the taxonomy; the unclassified come last."""
    found = histogram(connection, number, bins)
    return {name: found[name] for name in (*leaves, UNCLASSIFIED) if name in found}


def trim(
    counts: Mapping[str, np.ndarray], *, tail: float = 0.0005, whole: int = 1
) -> tuple[int, int, dict[str, np.ndarray]]:
    """Histograms without their empty ends: the first bin kept, the one after the last, and the counts in between.

    The share `tail` of all rows at either end is added to the outermost bins; both ends are multiples of `whole`.
    """
    total = np.cumsum(sum(counts.values()))
    first = int(np.searchsorted(total, max(tail * total[-1], 1))) // whole * whole
    stop = -(-(int(np.searchsorted(total, (1 - tail) * total[-1])) + 1) // whole) * whole
    kept = np.r_[0, first + 1 : stop]
    return first, stop, {name: np.add.reduceat(bins, kept) for name, bins in counts.items()}


def classes(
    connection: duckdb.DuckDBPyConnection, leaves: Iterable[str], medians: Mapping[str, float]
) -> list[dict[str, Any]]:
    """One row a class, in the order of the taxonomy; a class without light curves has its row too.

    Where there are unclassified light curves they have the last row: all rows together are the catalogue.
    """
    # 3e-8: half a float32 step, 0.9 is stored as 0.89999998
    sure = "count(*) FILTER (best_prob >= 0.9 - 3e-8)"
    query = f"SELECT best_class, count(*), avg(best_prob), {sure} FROM catalogue GROUP BY 1"
    counted = {name: rest for name, *rest in connection.sql(query).fetchall()}
    total = sum(count for count, *_ in counted.values())
    sums = ", ".join(f'sum("p_{leaf}"::DOUBLE)' for leaf in leaves)
    (expected,) = connection.sql(f"SELECT {sums} FROM catalogue").fetchall()
    rows = []
    for leaf, weight in zip(leaves, expected, strict=True):
        count, mean, many = counted.get(leaf, (0, None, 0))
        known = {"name": leaf, "text": DESCRIPTIONS.get(leaf, ""), "median": medians.get(leaf)}
        rows.append(
            known
            | {"count": count, "share": count / total, "mean": mean, "sure": many, "expected": weight or 0.0}
        )
    if UNCLASSIFIED in counted:
        count, mean, many = counted[UNCLASSIFIED]
        known = {"name": UNCLASSIFIED, "text": "too uncertain or too strange for a class", "expected": 0.0}
        known["median"] = medians.get(UNCLASSIFIED)
        rows.append(known | {"count": count, "share": count / total, "mean": mean, "sure": many})
    return rows


def filters(connection: duckdb.DuckDBPyConnection, names: Mapping[int, str]) -> list[dict[str, Any]]:
    """One row a filter."""
    query = """
        SELECT filterid, count(*) AS count, count(*) FILTER (best_class <> 'nonvar') AS variable,
               min(mag_mean) AS bright, max(mag_mean) AS faint
        FROM catalogue GROUP BY 1 ORDER BY 1"""
    # a histogram, for DuckDB's median holds every value in memory
    epochs = histogram(connection, "n_good", 20_000, by="filterid")
    rows = connection.sql(query).to_arrow_table().to_pylist()
    return [
        row | {"name": names.get(row["filterid"], ""), "n_good": middle(epochs[row["filterid"]])}
        for row in rows
    ]


def rejected(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Light curves that were not classified, by reason, the commonest first."""
    query = "SELECT reason, count(*) AS n FROM rejected GROUP BY 1 ORDER BY n DESC, 1"
    return dict(connection.sql(query).fetchall())


def cells(
    connection: duckdb.DuckDBPyConnection, order: int, where: str = "true"
) -> tuple[np.ndarray, np.ndarray]:
    """The HEALPix cells of an order that hold light curves, NESTED and increasing, and how many they hold."""
    cell = f'"{SPATIAL_INDEX_COLUMN}" >> {2 * (SPATIAL_INDEX_ORDER - order)}'
    query = f"SELECT {cell} AS cell, count(*) AS n FROM catalogue WHERE {where} GROUP BY 1 ORDER BY 1"
    found = connection.sql(query).fetchnumpy()
    return np.asarray(found["cell"], np.int64), np.asarray(found["n"], np.int64)
