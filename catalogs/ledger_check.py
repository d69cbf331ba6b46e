"""Where a ledger and the files that it is an index of differ, and where files are not what their receipts tell."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, select

from lightmill.catalogs import storage
from lightmill.catalogs.ledger import Ledger
from lightmill.catalogs.ledger_place import address
from lightmill.catalogs.ledger_read import Recorded, read_runs, read_versions
from lightmill.catalogs.ledger_tables import attempts, runs, units, versions
from lightmill.catalogs.receipts import Receipt
from lightmill.catalogs.runfolder import CatalogueFolder, RunFolder

__all__ = ["check"]

Row = dict[str, Any]

SHOWN = 3  #: partitions that are named where many differ alike
READERS = 4  #: files that are read at a time for their sha256


def check(ledger: Ledger, catalogue: CatalogueFolder, *, deep: bool = False) -> list[str]:
    """Where ledger and files differ, and receipts whose Parquet file is missing or another; nothing where all is well.

    Parameters
    ----------
    deep : read every Parquet file, and compare its sha256 with the receipt's
    """
    found, wrong = read_runs(catalogue)
    with ledger.reading() as connection:
        question = select(runs).where(runs.c.catalogue == address(catalogue))
        known = {row["run_id"]: dict(row) for row in connection.execute(question).mappings()}
        for run_id in sorted(known.keys() - {run.run_id for run in found}):
            wrong.append(f"run {run_id}: it is in the ledger, but there is no {catalogue.run(run_id).record}")
        for run in found:
            wrong += _run(connection, run, known.get(run.run_id)) + _index(run) + files_of(run, deep)
        return wrong + _versions(connection, catalogue)


def files_of(run: Recorded, deep: bool) -> list[str]:
    """Receipts whose Parquet file is not what they tell."""
    sizes = storage.sizes(run.folder.objects / "dataset", ".parquet")
    receipts = sorted(run.receipts, key=lambda receipt: receipt.key)
    whole = [r for r in receipts if sizes.get(r.key, 0) == r.bytes]
    wrong = [
        f"{run.folder.rows(*r.key)} {_size(sizes.get(r.key))}, its receipt tells of {r.bytes} bytes"
        for r in receipts
        if sizes.get(r.key, 0) != r.bytes
    ]
    return wrong + (_digests(run.folder, whole) if deep else [])


def _digests(folder: RunFolder, receipts: Iterable[Receipt]) -> list[str]:
    to_read = [(folder.rows(*r.key), r.sha256) for r in receipts if r.bytes and r.sha256]
    with ThreadPoolExecutor(READERS) as pool:
        digests = list(pool.map(_sha256, (path for path, _ in to_read)))
    return [
        f"{path} has sha256 {digest}, its receipt tells of {told}"
        for (path, told), digest in zip(to_read, digests, strict=True)
        if digest != told
    ]


def _run(connection: Connection, run: Recorded, known: Row | None) -> list[str]:
    if known is None:
        return [f"run {run.run_id}: it is not in the ledger"]
    told = run.run()
    if run.end is None:  # whether it is under way, or was killed, no file tells
        told = {column: value for column, value in told.items() if column not in ("state", "ended", "counts")}
    return [
        f"run {run.run_id}: {column} is {known[column]!r} in the ledger, {value!r} in the files"
        for column, value in told.items()
        if known[column] != value
    ] + [
        f"run {run.run_id}: {text}"
        for table, told in ((units, run.units()), (attempts, run.attempts()))
        for text in _alike(table, told, _rows(connection, table, run.run_id))
    ]


def _alike(table: Table, told: Iterable[Row], there: Iterable[Row]) -> list[str]:
    names = [column.name for column in table.primary_key if column.name != "run_id"]
    files = {tuple(row[name] for name in names): row for row in told}
    known = {tuple(row[name] for name in names): row for row in there}
    sides: tuple[tuple[Iterable[tuple[Any, ...]], str], ...] = (
        (files.keys() - known.keys(), "of the files are not in the ledger"),
        (known.keys() - files.keys(), "of the ledger are not among the files"),
        ({key for key in files.keys() & known.keys() if files[key] != known[key]}, "differ from the files"),
    )
    return [f"{_count(keys)} {table.name} {text}: {_some(keys)}" for keys, text in sides if keys]


def _index(run: Recorded) -> list[str]:
    """Whether the one file of receipts has what the folder of receipts has."""
    if not run.folder.is_sealed():
        return []
    differ = {r.key for r in run.receipts} ^ storage.sizes(run.folder.receipts, ".json").keys()
    if not differ:
        return []
    return [f"run {run.run_id}: {run.folder.index.name} and the receipts differ in {_some(differ)}"]


def _versions(connection: Connection, catalogue: CatalogueFolder) -> list[str]:
    there = {
        row["name"]: dict(row)
        for row in connection.execute(
            select(versions).where(versions.c.catalogue == address(catalogue))
        ).mappings()
    }
    told = {row["name"]: row for row in read_versions(catalogue)}
    return [
        f"version {name}: {_version(there.get(name))} in the ledger, {_version(told.get(name))} in the files"
        for name in sorted(told.keys() | there.keys())
        if told.get(name) != there.get(name)
    ]


def _version(row: Row | None) -> str:
    if row is None:
        return "none"
    when = f", {row['created']}" if row["created"] else ""
    return f"{row['state']}{' and current' if row['current'] else ''}{when}, of {' '.join(row['runs'])}"


def _rows(connection: Connection, table: Table, run_id: str) -> list[Row]:
    question = select(table).where(table.c.run_id == run_id)
    return [dict(row) for row in connection.execute(question).mappings()]


def _count(keys: Iterable[Any]) -> str:
    return f"{sum(1 for _ in keys):,}"


def _some(keys: Iterable[tuple[Any, ...]]) -> str:
    """The first few partitions by name."""
    found = sorted({key[:2] for key in keys})
    names = ", ".join(f"Norder={order}/Npix={pixel}" for order, pixel in found[:SHOWN])
    return names + (", …" if len(found) > SHOWN else "")


def _size(size: int | None) -> str:
    return "is missing" if size is None else f"has {size} bytes"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
