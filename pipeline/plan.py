"""Plans: which partitions must be computed, and why (a pure function of what is there and what is done)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lightmill.catalogs.partitions import Partition
from lightmill.catalogs.receipts import Receipt

__all__ = ["Plan", "Task", "fingerprint", "plan"]


@dataclass(frozen=True)
class Task:
    """A partition that must be computed."""

    partition: Partition
    fingerprint: str
    reason: str  #: "new", "changed" (input, recipe, bundle or algorithm) or "output missing"


@dataclass(frozen=True)
class Plan:
    """What a run has to do, and what is done already."""

    tasks: tuple[Task, ...]
    current: tuple[Receipt, ...]  #: complete and up to date


def fingerprint(
    partition: Partition, science: Mapping[str, object], digest: str, versions: Mapping[str, int]
) -> str:
    """sha256 of all that decides a unit's rows: its input, the science fields, the bundle and our own versions."""
    facts = {
        "input": partition.identity(),
        "pixel": [partition.order, partition.pixel],
        "science": science,
        "bundle": digest,
        "versions": dict(versions),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def plan(
    wanted: Iterable[tuple[Partition, str]],
    receipts: Mapping[tuple[int, int], Receipt],
    sizes: Mapping[tuple[int, int], int],
) -> Plan:
    """Compare what is wanted with what is done.

    Parameters
    ----------
    wanted : partitions with their fingerprints
    receipts : of the partitions done so far, by (order, pixel)
    sizes : bytes of the Parquet files that are there, by (order, pixel)
    """
    tasks, current = [], []
    for partition, print_ in wanted:
        key = partition.order, partition.pixel
        receipt = receipts.get(key)
        if receipt is None:
            tasks.append(Task(partition, print_, "new"))
        elif receipt.fingerprint != print_:
            tasks.append(Task(partition, print_, "changed"))
        elif receipt.bytes != sizes.get(key, 0):
            tasks.append(Task(partition, print_, "output missing"))
        else:
            current.append(receipt)
    return Plan(tuple(tasks), tuple(current))
