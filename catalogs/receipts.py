"""Receipts: small JSON files, one a unit, written last: the proof that a partition is complete.

And what went wrong: one small JSON a failed attempt, and one a partition that is kept out of further runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from lightmill.catalogs import storage

__all__ = [
    "FailedAttempt",
    "Quarantined",
    "Receipt",
    "read_records",
    "receipt_path",
    "write_json",
    "write_receipt",
]

READERS = 16  #: threads that read small files


@dataclass(frozen=True)
class Receipt:
    """What became of one partition."""

    order: int
    pixel: int
    fingerprint: str  #: sha256 of all that decides the rows: input, science fields, models, algorithm, schema
    rows_in: int  #: light curves read
    classified: int  #: rows written
    rejected: dict[str, int]  #: light curves not classified, by reason
    bytes: int  #: size of the Parquet file, 0 where no row was written
    seconds: float  #: wall time of the unit
    stages: dict[str, float] = field(default_factory=dict)  #: seconds by stage
    epochs: int = 0  #: epochs read
    peak_rss_bytes: int = 0  #: highest resident memory of the worker so far
    host: str = ""
    versions: dict[str, str] = field(default_factory=dict)  #: of the software that made it
    finished: str = ""  #: UTC, ISO 8601
    run_id: str = ""
    input: str = ""  #: `Partition.identity()` of what was read
    input_bytes: int = 0  #: size of what was read
    attempt: int = 1  #: which try this was
    started: str = ""  #: UTC, ISO 8601
    sha256: str = ""  #: of the Parquet file, "" where no row was written

    @property
    def key(self) -> tuple[int, int]:
        """(order, pixel)"""
        return self.order, self.pixel


@dataclass(frozen=True)
class FailedAttempt:
    """A try at a unit that did not end with a receipt; the driver writes it."""

    order: int
    pixel: int
    attempt: int
    error_class: str  #: INPUT_CORRUPT, SCHEMA, OOM, WORKER_LOST, IO_TRANSIENT, MODEL, BUG, TIMEOUT
    error: str  #: class and message
    decision: str  #: what came of it: "retry", "halve", "alone", "quarantine", "failed"
    fingerprint: str = ""
    run_id: str = ""
    host: str = ""  #: where known
    seconds: float = 0.0  #: from submission to failure, as the driver saw it
    batch_epochs: int = 0
    alone: bool = False  #: no other unit was under way: who dies now is to blame
    peak_rss_bytes: int = 0  #: where known
    finished: str = ""  #: UTC, ISO 8601
    trace: str = ""  #: where in the code it happened, where known

    @property
    def key(self) -> tuple[int, int]:
        """(order, pixel)"""
        return self.order, self.pixel


@dataclass(frozen=True)
class Quarantined:
    """A partition that no run tries again until it changes or is released."""

    order: int
    pixel: int
    fingerprint: str  #: of the unit that failed: another input, recipe or bundle is another unit
    error_class: str
    error: str
    run_id: str
    attempts: int
    since: str = ""  #: UTC, ISO 8601

    @property
    def key(self) -> tuple[int, int]:
        """(order, pixel)"""
        return self.order, self.pixel


Record = TypeVar("Record", Receipt, FailedAttempt, Quarantined)


def receipt_path(folder: Path, order: int, pixel: int) -> Path:
    """Where the receipt of a partition lies; folders of 10,000 as HATS has them."""
    return folder / f"Norder={order}" / f"Dir={pixel // 10_000 * 10_000}" / f"Npix={pixel}.json"


def write_receipt(folder: Path, receipt: Receipt) -> bool:
    """Write a receipt unless there is one of the same partition already: a late duplicate loses (False)."""
    return storage.create(receipt_path(folder, receipt.order, receipt.pixel), encode(asdict(receipt)))


def read_records(kind: type[Record], paths: Iterable[Path]) -> Iterator[Record]:
    """The records in JSON files, in order; a file that is gone, cut short or of another form counts as none."""

    def read(path: Path) -> Record | None:
        try:
            return kind(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    listed = list(paths)
    if len(listed) < READERS:
        found: Iterable[Record | None] = map(read, listed)
        yield from (record for record in found if record is not None)
        return
    with ThreadPoolExecutor(max_workers=READERS if not storage.is_local(listed[0]) else 2) as pool:
        yield from (record for record in pool.map(read, listed, chunksize=64) if record is not None)


def write_json(path: Path, content: object) -> None:
    """Write JSON under its name whole or not at all, flushed to disk, over what is there."""
    storage.replace(path, encode(content))


def encode(content: Any) -> bytes:
    """JSON as it is stored."""
    return json.dumps(content, indent=1, sort_keys=True).encode()
