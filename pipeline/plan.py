"""Plans: which partitions must be computed, and why (a pure function of what is wanted and what is done)."""

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
    reason: str  #: "new", or "changed": the input, or a version of ours, is not what the receipt says


@dataclass(frozen=True)
class Plan:
    """What a run has to do, and what is done already."""

    tasks: tuple[Task, ...]
    current: tuple[Receipt, ...]  #: complete and up to date, of the partitions asked for
    orphans: tuple[
        tuple[int, int], ...
    ]  #: done once, but no longer partitions of the release: split, or gone


def fingerprint(
    partition: Partition,
    science: Mapping[str, object],
    models: Mapping[str, str],
    versions: Mapping[str, int],
) -> str:
    """sha256 of all that decides a unit's rows: its input, the science fields, the models' digests, our versions."""
    facts = {
        "input": partition.identity(),
        "pixel": [partition.order, partition.pixel],
        "science": science,
        "models": dict(models),
        "versions": dict(versions),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def plan(
    wanted: Iterable[tuple[Partition, str]],
    done: Mapping[tuple[int, int], Receipt],
    pixels: Iterable[tuple[int, int]],
) -> Plan:
    """Compare what is wanted with what is done.

    Parameters
    ----------
    wanted : partitions asked for, with their fingerprints
    done : receipts so far, by (order, pixel)
    pixels : (order, pixel) of all partitions of the release, asked for or not
    """
    tasks, current = [], []
    for partition, wanted_print in wanted:
        receipt = done.get((partition.order, partition.pixel))
        if receipt is None:
            tasks.append(Task(partition, wanted_print, "new"))
        elif receipt.fingerprint != wanted_print:
            tasks.append(Task(partition, wanted_print, "changed"))
        else:
            current.append(receipt)
    return Plan(tuple(tasks), tuple(current), tuple(sorted(done.keys() - set(pixels))))
