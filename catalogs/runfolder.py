"""The folder that a run writes: where each thing lies, and what is there already.

CATALOGUE/
  collection.properties   HATS collection, written last
  objects/                its main table: dataset/Norder=/Dir=/Npix=.parquet, hats.properties, …
  run/run.json            release, recipe, bundle: what may not change while the folder is filled
  run/receipts/           one JSON a partition: complete, and made of what
  run/rejected/           one Parquet a partition: light curves that were not classified, and why
  run/failures.json       partitions that could not be classified, as of the last invocation
  run/scratch/            files being written
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightmill.catalogs.finish import partition_path
from lightmill.catalogs.receipts import Receipt, read_receipts, receipt_path, write_json

__all__ = ["CATALOG", "NotAnOutput", "RunFolder"]

CATALOG = "objects"  #: folder of the main table within the collection


class NotAnOutput(ValueError):
    """A folder that holds something else than the run that is to go on in it."""


@dataclass(frozen=True)
class RunFolder:
    """A catalogue's folder, as a run sees it."""

    out: Path

    @property
    def objects(self) -> Path:
        """Root of the main HATS table."""
        return self.out / CATALOG

    @property
    def receipts(self) -> Path:
        """Folder of the receipts."""
        return self.out / "run" / "receipts"

    @property
    def scratch(self) -> Path:
        """Folder of files being written, on the same file system."""
        return self.out / "run" / "scratch"

    @property
    def failures(self) -> Path:
        """JSON list of the partitions that failed."""
        return self.out / "run" / "failures.json"

    @property
    def record(self) -> Path:
        """JSON of what the run is made of."""
        return self.out / "run" / "run.json"

    def rows(self, order: int, pixel: int) -> Path:
        """Parquet file of a partition's rows."""
        return partition_path(self.objects, order, pixel)

    def rejected(self, order: int, pixel: int) -> Path:
        """Parquet file of a partition's light curves that were not classified."""
        return receipt_path(self.out / "run" / "rejected", order, pixel).with_suffix(".parquet")

    def start_or_resume(self, identity: Mapping[str, Any], further: Mapping[str, Any]) -> dict[str, Any]:
        """Record a new run in an empty folder, or check that the one that is there has the same identity.

        `identity` may not change between invocations; `further` is only recorded. Returns the record.

        Raises
        ------
        NotAnOutput
            if the folder holds something else, or a run of another identity: with both values of each difference.
        """
        if not self.record.exists():
            if self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
                raise NotAnOutput(
                    f"{self.out} exists and is not a catalogue that a run has begun: give another --out, or remove it"
                )
            fresh = {**further, **identity}
            write_json(self.record, fresh)
            return fresh
        try:
            before: dict[str, Any] = json.loads(self.record.read_text())
        except ValueError as error:
            raise NotAnOutput(f"{self.record} cannot be read ({error}): give another --out") from error
        differences = _differences({key: before.get(key) for key in identity}, identity)
        if differences:
            raise NotAnOutput(
                f"{self.out} was made with {'; '.join(differences)}: rows of both would be mixed. Give another --out"
            )
        return before

    def done(self) -> dict[tuple[int, int], Receipt]:
        """The receipts that are there and whose Parquet file is too, by (order, pixel)."""
        return {receipt.key: receipt for receipt in read_receipts(self.receipts) if self._is_whole(receipt)}

    def discard(self, order: int, pixel: int) -> None:
        """Remove what is there of a partition, the proof of it first."""
        receipt_path(self.receipts, order, pixel).unlink(missing_ok=True)
        self.rows(order, pixel).unlink(missing_ok=True)
        self.rejected(order, pixel).unlink(missing_ok=True)

    def is_unpublished(self) -> bool:
        """Whether a run was begun here but no catalogue is published yet."""
        return self.record.exists() and not (self.out / "collection.properties").exists()

    def clear_scratch(self) -> None:
        """Remove what a killed worker was writing."""
        for path in self.scratch.glob("*.part"):
            path.unlink(missing_ok=True)

    def unproven(self) -> set[tuple[int, int]]:
        """Partitions with a Parquet file but no receipt: a worker was killed between the two."""
        proven = {receipt.key for receipt in read_receipts(self.receipts)}
        found = set()
        for path in self.objects.glob("dataset/Norder=*/Dir=*/Npix=*.parquet"):
            order = int(path.parts[-3].removeprefix("Norder="))
            found.add((order, int(path.stem.removeprefix("Npix="))))
        return found - proven

    def _is_whole(self, receipt: Receipt) -> bool:
        path = self.rows(*receipt.key)
        return path.stat().st_size == receipt.bytes if path.exists() else receipt.bytes == 0


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], where: str = "") -> list[str]:
    """The fields in which two records differ, with both values."""
    found = []
    for key in sorted(before.keys() | now.keys()):
        a, b = before.get(key), now.get(key)
        if a == b:
            continue
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += _differences(a, b, f"{where}{key}.")
        else:
            found.append(f"{where}{key} {a}, now it is {b}")
    return found
