"""Query a classification catalogue with DuckDB, reading only the partitions that a question touches."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from lightmill.catalogs import storage
from lightmill.catalogs.partitions import Cone, HatsTable, NotHats, open_hats
from lightmill.catalogs.rows import UNCLASSIFIED, row_schema
from lightmill.catalogs.runfolder import CatalogueFolder
from lightmill.catalogs.versions import find_version, published_at

__all__ = ["QueryError", "Question", "leaves_of", "query", "why_rejected"]


class QueryError(ValueError):
    """A question that a catalogue cannot answer."""


@dataclass(frozen=True)
class Question:
    """What to look for; the conditions that are given must all hold."""

    cone: Cone | None = None
    best_class: str | None = None  #: a leaf of the catalogue's taxonomy
    min_prob: float | None = None  #: of `best_class` where given, else of the best class
    objectid: int | None = None
    sql: str | None = (
        None  #: a SELECT over the view `catalogue`, which holds the rows that meet the conditions
    )
    limit: int | None = None


def query(url: str, question: Question) -> pa.Table:
    """The rows of the catalogue at `url` that answer a question, with units and descriptions in the schema's metadata.

    CATALOGUE@NAME is another version than the current one. Without `sql`, rows come most probable first.

    Raises
    ------
    NotHats
        if `url` is no HATS catalogue.
    QueryError
        for an unknown class (with the nearest one), or SQL that DuckDB refuses.
    """
    try:
        table = open_hats(published_at(url))
    except NotHats:
        if _is_unpublished(url):
            raise QueryError(
                f"{url}: a run was begun here, and nothing is published yet: the same `lightmill run` goes on"
            ) from None
        raise
    leaves = leaves_of(table.schema())
    if not leaves:
        raise QueryError(f"{url} is not a classification catalogue: it has no columns p_<class>")
    files = [file for p in table.partitions(question.cone) for file in p.urls]
    if not files:
        return row_schema(leaves).empty_table()
    where, order = _conditions(question, leaves)
    with duckdb.connect() as connection:
        _register(connection, table)
        connection.execute("SET enable_progress_bar = false")
        listed = ", ".join(_text(file) for file in files)
        # names like Norder=5 in the paths are not columns
        view = f"SELECT * FROM read_parquet([{listed}], hive_partitioning = false) WHERE {where}"
        statement = (question.sql or "").strip().rstrip("; \n") or f"SELECT * FROM catalogue ORDER BY {order}"
        if question.limit is not None:
            statement = f"SELECT * FROM ({statement}\n) LIMIT {int(question.limit)}"
        try:
            connection.execute(f"CREATE VIEW catalogue AS {view}")
            answer = connection.sql(statement)
            found = answer.to_arrow_table() if answer is not None else pa.table({})
        except duckdb.Error as error:
            raise QueryError(
                f"DuckDB refuses the query: {' '.join(str(error).split())} (the rows are in the view `catalogue`, its "
                f"columns are {', '.join(row_schema(leaves).names)})"
            ) from error
    return _described(found, row_schema(leaves))


def leaves_of(schema: pa.Schema) -> tuple[str, ...]:
    """The classes that a catalogue has probabilities for."""
    return tuple(name[2:] for name in schema.names if name.startswith("p_") and name != "p_variable")


def why_rejected(url: str, objectid: int) -> str | None:
    """Why a light curve was not classified, in words; None if the catalogue does not list it as rejected."""
    version = find_version(url)
    files = (
        [] if version is None else [path for path, _ in storage.files(version.root / "rejected", ".parquet")]
    )
    if not files:
        return None
    listed = ", ".join(_text(str(file)) for file in files)
    with duckdb.connect() as connection:
        if not storage.is_local(files[0]):
            connection.register_filesystem(files[0].fs)  # type: ignore[attr-defined]
        row = connection.execute(
            f"SELECT reason, n_good FROM read_parquet([{listed}], hive_partitioning = false) WHERE objectid = ?",
            [objectid],
        ).fetchone()
    return f"{row[0]} ({row[1]} good epochs)" if row else None


def _is_unpublished(url: str) -> bool:
    try:
        return bool(CatalogueFolder.at(url).runs())
    except (OSError, NotImplementedError):  # a place that cannot be listed
        return False


def _conditions(question: Question, leaves: tuple[str, ...]) -> tuple[str, str]:
    """The WHERE and ORDER BY clauses."""
    where, probability = ["true"], "best_prob"
    if question.cone is not None:
        where.append(_inside(question.cone))
    if question.best_class is not None:
        if question.best_class not in (*leaves, UNCLASSIFIED):
            near = difflib.get_close_matches(question.best_class, leaves, n=1, cutoff=0.3)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise QueryError(
                f"unknown class {question.best_class!r}.{hint} The catalogue has {', '.join(leaves)}"
            )
        if question.best_class in leaves:
            probability = f'"p_{question.best_class}"'
        where.append(f"best_class = {_text(question.best_class)}")
    if question.min_prob is not None:
        # half a float32 step of slack: 0.9 is stored as 0.89999998
        where.append(f"{probability} >= {float(question.min_prob) - 3e-8!r}")
    if question.objectid is not None:
        where.append(f"objectid = {int(question.objectid)}")
    return " AND ".join(where), f"{probability} DESC, objectid"


def _inside(cone: Cone) -> str:
    """Haversine: exact for small radii, at the poles and across right ascension 0."""
    ra, dec, half = (f"radians({float(x)!r})" for x in (cone.ra, cone.dec, cone.radius / 2))
    return (
        f"pow(sin((radians(dec) - {dec}) / 2), 2) + cos(radians(dec)) * cos({dec}) * "
        f"pow(sin((radians(ra) - {ra}) / 2), 2) <= pow(sin({half}), 2)"
    )


def _text(value: str) -> str:
    """An SQL string literal."""
    return "'" + value.replace("'", "''") + "'"


def _register(connection: duckdb.DuckDBPyConnection, table: HatsTable) -> None:
    """Let DuckDB read through fsspec where the catalogue is not local."""
    if table.root.protocol not in ("", "file", "local"):
        connection.register_filesystem(table.root.fs)


def _described(table: pa.Table, known: pa.Schema) -> pa.Table:
    """Give columns that DuckDB handed through their units and descriptions back."""
    fields = [
        field.with_metadata(known.field(field.name).metadata) if field.name in known.names else field
        for field in table.schema
    ]
    return pa.Table.from_arrays(table.columns, schema=pa.schema(fields))
