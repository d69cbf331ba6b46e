"""Drift: how two classification catalogues differ, column by column and in their mix of classes.

DuckDB scans the catalogues' Parquet and hands over sums, quantiles and counts, never rows. Each is scanned three times,
whatever its size, and of its columns only those that are compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lightmill.catalogs.query import Question, leaves_of, query
from lightmill.models.drift import (
    PERCENTILES,
    PSI_LIMITS,
    bin_edges,
    cohens_d,
    cramers_v,
    name_of,
    psi_by_chance,
    psi_of_counts,
)

__all__ = ["COLUMNS", "METHOD", "drift"]

COLUMNS: tuple[str, ...] = (
    "n_good", "baseline", "mag_mean", "amplitude", "p_variable", "period", "period_score", "best_prob", "margin",
    "novelty",
)  # fmt: skip
"""Columns with a number in every catalogue; those of the classes come on top."""

BINS = 10

MISSING = "missing"  #: name of the class of rows that have none

SAMPLE = 1_000_000
"""Rows, about, that quantiles are taken of: all up to here, else those that a hash of `objectid` picks. Exact quantiles
of all would need all in memory, and a digest's depend on which thread was first."""

METHOD = (
    f"PSI: population stability index in {BINS} bins of equally many rows of the first catalogue; null, NaN and "
    "infinite are a bin of their own. Change: none where chance alone gives as much in 5 % of cases, were the rows "
    f"independent; else by the usual limits little, from {PSI_LIMITS[0]} some, above {PSI_LIMITS[1]} much. d: Cohen's "
    "d, second minus first, of finite numbers (0.2 small, 0.5 medium, 0.8 large). V: Cramér's V of the shares of the "
    f"classes (0.1, 0.3, 0.5). Percentiles and the edges of bins are those of about {SAMPLE:,} rows where there are "
    "more; the rest is of all."
)

_QUANTILES = tuple(sorted({percent / 100 for percent in PERCENTILES} | {i / BINS for i in range(BINS + 1)}))


def drift(a: str, b: str) -> dict[str, Any]:
    """Compare two catalogues: of two releases, or of one by two bundles.

    Parameters
    ----------
    a, b : classification catalogues, path or fsspec URL; a is the one that bins are made of

    Returns
    -------
    dict of plain values: `method`, `a` and `b` `{catalogue, rows}`, `only_a` and `only_b` (columns that the other does
    not have), `columns: {name: {psi, by_chance, change, d, a, b}}` and `classes: {psi, by_chance, change, v, a, b}`.
    A column's `a` and `b` are `{n, missing, mean, std, percentiles}` (n finite numbers; None where there are none),
    those of the classes `{class: rows}`. `change` is "none", "little", "some" or "much", see METHOD

    Raises
    ------
    NotHats, QueryError
        as `catalogs.query.query`.
    """
    own = [_columns(url) for url in (a, b)]
    names = [name for name in own[0] if name in own[1]]
    classes = [_classes(url) for url in (a, b)]
    rows = [sum(mix.values()) for mix in classes]
    first, second = (_moments(url, names, n) for url, n in zip((a, b), rows, strict=True))
    edges = {name: _edges(first[name], second[name]) for name in names}
    counts = [_counts(url, edges, found) for url, found in ((a, first), (b, second))]
    return {
        "method": METHOD,
        "a": {"catalogue": a, "rows": rows[0]},
        "b": {"catalogue": b, "rows": rows[1]},
        "only_a": [name for name in own[0] if name not in own[1]],
        "only_b": [name for name in own[1] if name not in own[0]],
        "columns": {
            name: _index(counts[0][name], counts[1][name])
            | {"d": _effect(first[name], second[name])}
            | {"a": _described(first[name]), "b": _described(second[name])}
            for name in names
        },
        "classes": _mix(*classes),
    }


def _columns(url: str) -> list[str]:
    schema = query(url, Question(limit=0)).schema
    known = (*COLUMNS, *(f"p_{leaf}" for leaf in leaves_of(schema)))
    return [name for name in known if name in schema.names]


def _moments(url: str, names: Sequence[str], rows: int) -> dict[str, dict[str, Any]]:
    """Of each column its rows, finite numbers, mean, standard deviation and quantiles, in one scan."""
    listed = ", ".join(map(str, _QUANTILES))
    every = -(-rows // SAMPLE)
    wanted = [
        f"""struct_pack(
            n := count({x}), mean := avg({x}), std := stddev_samp({x}), least := min({x}), largest := max({x}),
            quantiles := quantile_disc(CASE WHEN picked THEN {x} END, [{listed}])) AS {x}"""
        for x in map(_quoted, names)
    ]
    inner = f"SELECT {_finite(names)}, hash(objectid) % {every} = 0 AS picked FROM catalogue"
    (found,) = query(url, Question(sql=f"SELECT {', '.join(wanted)} FROM ({inner})")).to_pylist()
    for row in found.values():
        row["rows"] = rows
        if row["quantiles"]:
            row["quantiles"] = np.array([row["least"], *row["quantiles"][1:-1], row["largest"]])
    return found


def _edges(first: Mapping[str, Any], second: Mapping[str, Any]) -> np.ndarray:
    """Of the bins: by the first catalogue, or where it has no number by the second."""
    quantiles = first["quantiles"] if first["quantiles"] is not None else second["quantiles"]
    if quantiles is None:
        return np.empty(0)
    return bin_edges(quantiles[[_QUANTILES.index(i / BINS) for i in range(BINS + 1)]])


def _counts(
    url: str, edges: Mapping[str, np.ndarray], moments: Mapping[str, Mapping[str, Any]]
) -> dict[str, np.ndarray]:
    """Rows of each column in its bins, and at the end those without a finite number: as `models.drift.count`."""
    binned = [name for name in edges if len(edges[name])]
    found: dict[str, Any] = {}
    if binned:
        wanted = [
            f"histogram({x}, [{_doubles(edges[name])}]) AS {x}"
            for name, x in zip(binned, map(_quoted, binned), strict=True)
        ]
        sql = f"SELECT {', '.join(wanted)} FROM (SELECT {_finite(binned)} FROM catalogue)"
        (found,) = query(url, Question(sql=sql)).to_pylist()
    counts = {}
    for name, bounds in edges.items():
        # without a finite number there is no histogram; what lies above the last edge is listed only if there is any
        inside, n = dict(found.get(name) or []), moments[name]["n"]
        below = [inside.get(edge, 0) for edge in bounds.tolist()]
        counts[name] = np.array([*below, n - sum(below), moments[name]["rows"] - n], np.int64)
    return counts


def _finite(names: Sequence[str]) -> str:
    """SQL of columns as numbers, null where they are not finite.

    DuckDB takes a FILTER for the same, but its time then grows as the square of the number of columns.
    """
    return ", ".join(
        f"CASE WHEN isfinite({x}::DOUBLE) THEN {x}::DOUBLE END AS {x}" for x in map(_quoted, names)
    )


def _classes(url: str) -> dict[str, int]:
    """Rows of each best class, most first."""
    sql = (
        "SELECT best_class::VARCHAR AS name, count(*) AS n FROM catalogue GROUP BY ALL ORDER BY n DESC, name"
    )
    return {row["name"] or MISSING: row["n"] for row in query(url, Question(sql=sql)).to_pylist()}


def _mix(first: dict[str, int], second: dict[str, int]) -> dict[str, Any]:
    names = list(first | second)
    counts = [np.array([mix.get(name, 0) for name in names]) for mix in (first, second)]
    return _index(*counts) | {"v": cramers_v(*counts), "a": first, "b": second}


def _index(a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
    found, chance = psi_of_counts(a, b), psi_by_chance(a, b)
    some, much = PSI_LIMITS
    change = "little" if found < some else "some" if found <= much else "much"
    change = "none" if found <= chance else change
    return {"psi": found, "by_chance": chance, "change": change}


def _effect(first: Mapping[str, Any], second: Mapping[str, Any]) -> float | None:
    if min(first["n"], second["n"]) < 2:
        return None
    return cohens_d(*(row[key] for row in (first, second) for key in ("n", "mean", "std")))


def _described(row: Mapping[str, Any]) -> dict[str, Any]:
    at = {name_of(percent): _QUANTILES.index(percent / 100) for percent in PERCENTILES}
    return {
        "n": row["n"],
        "missing": row["rows"] - row["n"],
        "mean": row["mean"],
        "std": row["std"],
        "percentiles": {name: float(row["quantiles"][i]) for name, i in at.items()}
        if row["quantiles"] is not None
        else None,
    }


def _quoted(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _doubles(values: np.ndarray) -> str:
    """SQL literals of exactly these numbers: without a cast of text 0.1 would be a decimal."""
    return ", ".join(f"'{value!r}'::DOUBLE" for value in values.tolist())
