"""The folder of a catalogue: where the runs that filled it, and the versions that were published from them, lie.

CATALOGUE/                           what `--out` names: a HATS collection as soon as a version is current
  collection.properties              the current version, named by the address of its table; replaced in one step
  versions/NAME/                     a published version: a HATS collection of its own, never changed
  runs/RUN_ID/                       one execution of one plan
    run.json                         what it is made of; never changed
    plan.parquet                     what it executes; never changed
    objects/dataset/Norder=/Dir=/Npix=.parquet    rows, one file a unit
    rejected/Norder=/Dir=/Npix=.parquet           light curves that were not classified, and why
    receipts/Norder=/Dir=/Npix=.json              one a unit, last: complete, and made of what
    failures/Norder=/Dir=/Npix=.<attempt>.json    tries that did not end with a receipt
    marks/Norder=/Dir=/Npix=.<attempt>.json       left by a worker that ended itself: too long, too much memory
    receipts.parquet                 all receipts in one file, once the run has ended
    end.json                         how it ended
    lease.json                       which driver executes it
    progress.json                    how far it is, as its driver last said
    scratch/                         files being written
  quarantine/Norder=/Dir=/Npix=.json partitions that no run tries again until they change or are released
  report.html                        of the current version, if it was asked for
  reports/RUN_ID.html                pages about runs, as somebody asked for them
  ledger.sqlite                      an index of all that; made anew from the files when it is lost
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lightmill.catalogs import storage
from lightmill.catalogs.finish import partition_path
from lightmill.catalogs.receipts import (
    FailedAttempt,
    Quarantined,
    Receipt,
    read_records,
    receipt_path,
    write_json,
)

__all__ = ["CATALOG", "CatalogueFolder", "NotAnOutput", "RunFolder"]

CATALOG = "objects"  #: folder of the main table within a run or a version
LEDGER = {"ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"}  #: as SQLite has them while it is open
OWN = {"collection.properties", "versions", "runs", "quarantine", "report.html", "reports"} | LEDGER


class NotAnOutput(ValueError):
    """A folder that holds something else than the catalogue, or run, that is asked for."""


@dataclass(frozen=True)
class RunFolder:
    """One run of a catalogue, as a driver and its workers see it."""

    root: Path

    @property
    def run_id(self) -> str:
        """Name of the run."""
        return self.root.name

    @property
    def catalogue(self) -> CatalogueFolder:
        """What it is a run of."""
        return CatalogueFolder(self.root.parent.parent)

    @property
    def objects(self) -> Path:
        """Root of the rows, laid out as a HATS table."""
        return self.root / CATALOG

    @property
    def receipts(self) -> Path:
        """Folder of the receipts."""
        return self.root / "receipts"

    @property
    def index(self) -> Path:
        """All receipts in one Parquet file, once the run has ended."""
        return self.root / "receipts.parquet"

    @property
    def scratch(self) -> Path:
        """Folder of files being written, on the same file system; of an object store, none of ours."""
        return self.root / "scratch"

    @property
    def record(self) -> Path:
        """JSON of what the run is made of."""
        return self.root / "run.json"

    @property
    def plan(self) -> Path:
        """The plan that it executes."""
        return self.root / "plan.parquet"

    @property
    def end(self) -> Path:
        """JSON of how it ended; absent while it is under way or was killed."""
        return self.root / "end.json"

    @property
    def lease(self) -> Path:
        """JSON of the driver that executes it."""
        return self.root / "lease.json"

    @property
    def progress(self) -> Path:
        """JSON of how far it is."""
        return self.root / "progress.json"

    def rows(self, order: int, pixel: int) -> Path:
        """Parquet file of a partition's rows."""
        below = partition_path(Path(), order, pixel)
        return self.objects / str(below)

    def rejected(self, order: int, pixel: int) -> Path:
        """Parquet file of a partition's light curves that were not classified."""
        return receipt_path(self.root / "rejected", order, pixel).with_suffix(".parquet")

    def failure(self, order: int, pixel: int, attempt: int) -> Path:
        """JSON of a try that failed."""
        return receipt_path(self.root / "failures", order, pixel).with_suffix(f".{attempt}.json")

    def mark(self, order: int, pixel: int, attempt: int) -> Path:
        """JSON that a worker leaves when it ends itself in the midst of a try: too long, or too much memory."""
        return receipt_path(self.root / "marks", order, pixel).with_suffix(f".{attempt}.json")

    def facts(self) -> dict[str, Any]:
        """What the run is made of.

        Raises
        ------
        NotAnOutput
            if there is no run here, or its record cannot be read.
        """
        try:
            found: dict[str, Any] = json.loads(self.record.read_bytes())
        except (OSError, ValueError) as error:
            raise NotAnOutput(
                f"{self.root} is not a run: {self.record} cannot be read ({error}); get it back from a copy, or move "
                "the folder away: other runs do without it"
            ) from error
        return found

    def is_sealed(self) -> bool:
        """Whether the run has ended and its receipts are in one file."""
        return self.index.exists()

    def read_receipts(self) -> list[Receipt]:
        """All receipts: from the one file of a run that has ended, else one by one."""
        if self.is_sealed():
            return read_index(self.index)
        return list(read_records(Receipt, (path for path, _ in storage.files(self.receipts, ".json"))))

    def done(self) -> dict[tuple[int, int], Receipt]:
        """The receipts that are there and whose Parquet file is too, with its size, by (order, pixel)."""
        sizes = storage.sizes(self.objects / "dataset", ".parquet")
        return {r.key: r for r in self.read_receipts() if sizes.get(r.key, 0) == r.bytes}

    def failures(self) -> list[FailedAttempt]:
        """All tries that failed, by partition and attempt."""
        paths = (path for path, _ in storage.files(self.root / "failures", ".json"))
        return sorted(read_records(FailedAttempt, paths), key=lambda f: (*f.key, f.attempt))

    def discard(self, order: int, pixel: int) -> None:
        """Remove what is there of a partition, the proof of it first."""
        receipt_path(self.receipts, order, pixel).unlink(missing_ok=True)
        self.rows(order, pixel).unlink(missing_ok=True)
        self.rejected(order, pixel).unlink(missing_ok=True)

    def clear_scratch(self) -> None:
        """Remove what killed workers and drivers were writing."""
        if not storage.is_local(self.root):
            return
        for path in (*self.scratch.glob("*"), *self.root.rglob(".*.part")):
            path.unlink(missing_ok=True)

    def seal(self) -> None:
        """Write all receipts into one file: whoever plans later need not open each."""
        write_index(self.index, self.read_receipts())


@dataclass(frozen=True)
class CatalogueFolder:
    """A catalogue: runs, versions, quarantine."""

    root: Path

    @classmethod
    def at(cls, url: str | Path) -> CatalogueFolder:
        """The catalogue at a local path or an fsspec URL; it need not exist."""
        return cls(storage.place(url))

    @property
    def collection(self) -> Path:
        """The file that makes it a HATS collection, and says which version is current."""
        return self.root / "collection.properties"

    def check(self) -> None:
        """Refuse a folder that holds something else.

        Raises
        ------
        NotAnOutput
        """
        if not self.root.exists():
            return
        strange = [] if self.root.is_dir() else [self.root.name]
        strange = strange or [
            p.name for p in self.root.iterdir() if p.name not in OWN and p.name[0] not in "._"
        ]
        if not (self.root / "runs").exists() and strange:
            raise NotAnOutput(
                f"{self.root} exists and is no catalogue of runs (it holds {', '.join(sorted(strange)[:3])}): "
                "give another --out, or remove it"
            )

    def run(self, run_id: str) -> RunFolder:
        """The folder of a run; it need not exist."""
        return RunFolder(self.root / "runs" / run_id)

    def runs(self) -> tuple[RunFolder, ...]:
        """All runs that have a record, the newest first: run ids begin with the time they were planned."""
        folder = self.root / "runs"
        if not folder.exists():
            return ()
        names = sorted(
            (path.name for path in folder.iterdir() if not path.name.startswith(".")), reverse=True
        )
        return tuple(run for run in map(self.run, names) if run.record.exists())

    def must_have_runs(self) -> None:
        """Refuse a place that no run has begun to fill.

        Raises
        ------
        NotAnOutput
        """
        if not (self.root / "runs").exists():
            raise NotAnOutput(f"{self.root} is no catalogue of runs: there is no folder runs in it")

    def version(self, name: str) -> Path:
        """The folder of a published version; it need not exist."""
        return self.root / "versions" / name

    def quarantined(self) -> dict[tuple[int, int], Quarantined]:
        """Partitions that are kept out of runs, by (order, pixel)."""
        paths = (path for path, _ in storage.files(self.root / "quarantine", ".json"))
        return {record.key: record for record in read_records(Quarantined, paths)}

    def put_in_quarantine(self, record: Quarantined) -> None:
        """Keep a partition out of further runs, until it changes or is released."""
        write_json(receipt_path(self.root / "quarantine", record.order, record.pixel), asdict(record))

    def release(self, order: int, pixel: int) -> bool:
        """Let runs try a partition again; False if it was not in quarantine."""
        path = receipt_path(self.root / "quarantine", order, pixel)
        found = path.exists()
        path.unlink(missing_ok=True)
        return found


def write_index(path: Path, receipts: list[Receipt]) -> None:
    """Receipts as one Parquet file: numbers and words in columns, what is nested as JSON."""
    rows = [
        {key: json.dumps(v, sort_keys=True) if isinstance(v, Mapping) else v for key, v in asdict(r).items()}
        for r in sorted(receipts, key=lambda r: r.key)
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=_index_schema()), sink, compression="zstd")
    storage.replace(path, sink.getvalue().to_pybytes())


def read_index(path: Path) -> list[Receipt]:
    """The receipts in such a file.

    Raises
    ------
    NotAnOutput
        if it cannot be read.
    """
    table = read_index_table(path)
    nested = {"rejected", "stages", "versions"}
    columns = {name: table.column(name).to_pylist() for name in table.column_names}
    for name in nested:
        known = {text: json.loads(text) for text in set(columns[name])}
        columns[name] = [known[text] for text in columns[name]]
    names = list(columns)
    return [Receipt(**dict(zip(names, row, strict=True))) for row in zip(*columns.values(), strict=True)]


def read_index_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """The same as a table, or some columns of it.

    No thread of Arrow may hold Python's bytes: one that lets go of them while the interpreter ends aborts the process.
    """
    try:
        return pq.ParquetFile(pa.BufferReader(path.read_bytes())).read(columns, use_threads=False)
    except pa.ArrowInvalid as error:
        raise NotAnOutput(
            f"{path} cannot be read ({error}): get it back from a copy, or remove it, and the single receipts beside "
            "it count again"
        ) from error


def _index_schema() -> pa.Schema:
    kinds = {"int": pa.int64(), "float": pa.float64(), "str": pa.string(), "dict[str, int]": pa.string()}
    kinds |= {"dict[str, float]": pa.string(), "dict[str, str]": pa.string()}
    return pa.schema([(name, kinds[str(kind)]) for name, kind in Receipt.__annotations__.items()])


def differences(before: Mapping[str, Any], now: Mapping[str, Any], where: str = "") -> list[str]:
    """The fields in which two records differ, with both values."""
    found = []
    for key in sorted(before.keys() | now.keys()):
        a, b = before.get(key), now.get(key)
        if a == b:
            continue
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{where}{key}.")
        else:
            found.append(f"{where}{key} {a}, now it is {b}")
    return found
