"""Receipts: small JSON files, one a unit, written last: the proof that a partition is complete."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lightmill.catalogs.rows import sync

__all__ = ["Receipt", "read_receipts", "receipt_path", "write_json", "write_receipt"]


@dataclass(frozen=True)
class Receipt:
    """What became of one partition."""

    order: int
    pixel: int
    fingerprint: str  #: sha256 of all that decides the rows: input, science fields, bundle, algorithm, schema
    rows_in: int  #: light curves read
    classified: int  #: rows written
    rejected: dict[str, int]  #: light curves not classified, by reason
    bytes: int  #: size of the Parquet file, 0 where no row was written
    seconds: float  #: wall time of the unit
    stages: dict[str, float] = field(default_factory=dict)  #: seconds by stage
    epochs: int = 0  #: epochs read
    peak_rss_bytes: int = 0  #: highest resident memory of the worker so far
    host: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    finished: str = ""  #: UTC, ISO 8601

    @property
    def key(self) -> tuple[int, int]:
        """(order, pixel)"""
        return self.order, self.pixel


def receipt_path(folder: Path, order: int, pixel: int) -> Path:
    """Where the receipt of a partition lies; folders of 10,000 as HATS has them."""
    return folder / f"Norder={order}" / f"Dir={pixel // 10_000 * 10_000}" / f"Npix={pixel}.json"


def write_receipt(folder: Path, receipt: Receipt) -> Path:
    """Write a receipt, atomically, over an older one of the same partition."""
    path = receipt_path(folder, receipt.order, receipt.pixel)
    write_json(path, asdict(receipt))
    return path


def read_receipts(folder: Path) -> Iterator[Receipt]:
    """All receipts that can be read, by path; one cut short by a crash counts as none."""
    for path in sorted(folder.glob("Norder=*/Dir=*/Npix=*.json")):
        try:
            yield Receipt(**json.loads(path.read_text()))
        except (ValueError, TypeError):
            continue


def write_json(path: Path, content: object) -> None:
    """Write JSON under its name whole or not at all, flushed to disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with part.open("w") as handle:
            json.dump(content, handle, indent=1, sort_keys=True)
            handle.flush()
            os.fsync(handle.fileno())
        part.replace(path)
        sync(path.parent)
    finally:
        part.unlink(missing_ok=True)
