"""Plans as files: Parquet, one row a partition whatever becomes of it; what they are made of is in the metadata."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lightmill.catalogs import storage
from lightmill.catalogs.partitions import File, Partition
from lightmill.pipeline.plan import Current, Identity, Plan, RunError, Task

__all__ = ["SUFFIXES", "PlanError", "digest", "is_plan", "load_plan", "plan_digest", "save_plan"]

FORMAT = 1  #: raised whenever older versions of Lightmill could not read the file
KEY = b"lightmill_plan"
SUFFIXES = (".plan", ".parquet")  #: of addresses of plans

SCHEMA = pa.schema(
    [
        ("order", pa.int32()),
        ("pixel", pa.int64()),
        ("state", pa.string()),  # "task", "current", "quarantined", "left" or "orphan"
        ("reason", pa.string()),
        ("fingerprint", pa.string()),
        ("run_id", pa.string()),  # that computed it, where it is current
        ("rows", pa.int64()),
        ("epochs", pa.int64()),
        ("bytes", pa.int64()),
        ("seconds", pa.float64()),
        ("memory", pa.int64()),
        ("files", pa.list_(pa.struct([("path", pa.string()), ("size", pa.int64()), ("stamp", pa.string())]))),
        ("protocol", pa.string()),
        ("options", pa.string()),
        ("input", pa.string()),  # of what is current: digest of the names, sizes and stamps of its files
    ]
)


class PlanError(RunError):
    """A file is not a plan that can be used."""


def save_plan(plan: Plan, path: str | Path) -> None:
    """Write a plan; one that is there already is not overwritten, unless it is the same.

    Raises
    ------
    PlanError
        if there is another plan, or something else, of that name.
    """
    target = storage.place(path)
    content = _content(plan)
    if storage.create(target, content):
        return
    if target.read_bytes() != content:
        raise PlanError(f"{target} exists, and is another plan or no plan at all: give another --out")


def load_plan(path: str | Path) -> Plan:
    """Read a plan.

    Raises
    ------
    PlanError
        if it is no plan, one of another format, or one that was changed since it was written.
    """
    source = storage.place(path)
    try:
        table = pq.ParquetFile(pa.BufferReader(source.read_bytes())).read(use_threads=False)
        facts = json.loads((table.schema.metadata or {})[KEY])
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise PlanError(
            f"{source} is not a plan ({error}): make one with lightmill plan RELEASE --out PLAN"
        ) from error
    if facts["format"] != FORMAT:
        raise PlanError(
            f"{source} has plan format {facts['format']}, this version reads {FORMAT}: plan again"
        )
    rows = table.to_pylist()
    if facts["sha256"] != _digest_of(rows, facts["identity"]):
        raise PlanError(f"{source} was changed after it was written: plan again")
    keys: dict[str, list[tuple[int, int]]] = {"quarantined": [], "left": [], "orphan": []}
    for row in rows:
        if row["state"] in keys:
            keys[row["state"]].append((row["order"], row["pixel"]))
    return Plan(
        run_id=facts["run_id"],
        identity=Identity(**facts["identity"]),
        tasks=tuple(_task(row) for row in rows if row["state"] == "task"),
        current=tuple(
            Current(row["order"], row["pixel"], row["run_id"], row["fingerprint"], row.get("input", ""))
            for row in rows
            if row["state"] == "current"
        ),
        quarantined=tuple(keys["quarantined"]),
        left=tuple(keys["left"]),
        orphans=tuple(keys["orphan"]),
    )


def is_plan(text: str) -> bool:
    """Whether what a command was given means a saved plan rather than a release: a file of this machine, or an address
    that ends as those of plans do."""
    return text.endswith(SUFFIXES) if "://" in text else Path(text).is_file()


def digest(path: Path) -> str:
    """sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def plan_digest(plan: Plan) -> str:
    """sha256 of what a plan says, whatever it is called."""
    return _digest_of(_rows(plan), asdict(plan.identity))


def _digest_of(rows: list[dict[str, Any]], identity: dict[str, Any]) -> str:
    sha256 = hashlib.sha256(json.dumps(identity, sort_keys=True).encode())
    encode = json.JSONEncoder(sort_keys=True).encode  # json.dumps would make one for each row
    for row in rows:
        sha256.update(encode(row).encode())
    return sha256.hexdigest()


def _content(plan: Plan) -> bytes:
    rows, identity = _rows(plan), asdict(plan.identity)
    facts = {
        "format": FORMAT, "run_id": plan.run_id, "identity": identity, "sha256": _digest_of(rows, identity),
    }  # fmt: skip
    schema = SCHEMA.with_metadata({KEY: json.dumps(facts, sort_keys=True).encode()})
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def _rows(plan: Plan) -> list[dict[str, Any]]:
    nothing: dict[str, Any] = {name: None for name in SCHEMA.names}
    rows = [nothing | _row(task) for task in plan.tasks]
    rows += [nothing | vars(unit) | {"state": "current"} for unit in plan.current]
    for state, keys in (("quarantined", plan.quarantined), ("left", plan.left), ("orphan", plan.orphans)):
        rows += [nothing | {"order": order, "pixel": pixel, "state": state} for order, pixel in keys]
    return rows


def _row(task: Task) -> dict[str, Any]:
    partition = task.partition
    return {
        "order": partition.order, "pixel": partition.pixel, "state": "task", "reason": task.reason,
        "fingerprint": task.fingerprint, "rows": task.rows, "epochs": task.epochs, "bytes": partition.bytes,
        "seconds": task.seconds, "memory": task.memory, "files": [dict(vars(file)) for file in partition.files],
        "protocol": partition.protocol, "options": partition.options,
    }  # fmt: skip


def _task(row: dict[str, Any]) -> Task:
    partition = Partition(
        row["order"],
        row["pixel"],
        tuple(File(**file) for file in row["files"]),
        row["protocol"],
        row["options"],
    )
    return Task(
        partition,
        row["fingerprint"],
        row["reason"],
        row["rows"],
        row["epochs"],
        row["seconds"],
        row["memory"],
    )
