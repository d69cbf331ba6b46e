"""Plans: which partitions must be computed, and why (a pure function of what is wanted and what is done)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightmill.catalogs.partitions import Partition

__all__ = [
    "DEFAULT_TRIGGERS",
    "POLICIES",
    "TRIGGERS",
    "Current",
    "Done",
    "Identity",
    "Plan",
    "RunError",
    "State",
    "Task",
    "changes",
    "fingerprint",
    "plan",
]

POLICIES: tuple[str, ...] = ("missing", "failed", "stale", "all")
TRIGGERS: tuple[str, ...] = ("input", "model", "recipe", "algorithm", "code", "environment")
DEFAULT_TRIGGERS: tuple[str, ...] = ("input", "model", "recipe", "algorithm")


class RunError(RuntimeError):
    """A run cannot be planned, start or go on."""


@dataclass(frozen=True)
class Identity:
    """What a run is made of, besides its partitions: all that decides the rows, and what made them."""

    release: str  #: absolute path or URL
    recipe: dict[str, Any]  #: all fields, as plain JSON values
    science: dict[str, Any]  #: those that decide the rows
    models: dict[str, str]  #: sha256 of "bundle" and, where periods are searched, "period_choice"
    versions: dict[str, int]  #: "algorithm" and "schema", raised by hand
    code: str = ""  #: version of Lightmill: recorded, and a reason to compute again only when asked
    environment: dict[str, str] = field(default_factory=dict)  #: versions of what it runs on: likewise


@dataclass(frozen=True)
class Task:
    """A partition that must be computed, why, and what that should cost."""

    partition: Partition
    fingerprint: str
    reason: (
        str  #: "new", "input changed", "model changed", "recipe changed", "algorithm changed", "failed", …
    )
    rows: int = 0  #: light curves, estimated
    epochs: int = 0  #: estimated
    seconds: float = 0.0  #: of one core, estimated
    memory: int = 0  #: of a worker at most [bytes], estimated

    @property
    def key(self) -> tuple[int, int]:
        """(order, pixel)"""
        return self.partition.order, self.partition.pixel


@dataclass(frozen=True)
class Current:
    """A partition that is complete and up to date."""

    order: int
    pixel: int
    run_id: str  #: that computed it
    fingerprint: str
    input: str = ""  #: `Partition.identity()` of what lies there now

    @property
    def key(self) -> tuple[int, int]:
        """(order, pixel)"""
        return self.order, self.pixel


@dataclass(frozen=True)
class Plan:
    """What a run has to do, what is done already, and what it leaves alone."""

    run_id: str  #: of the run that executes it
    identity: Identity
    tasks: tuple[Task, ...]
    current: tuple[Current, ...] = ()  #: of the partitions asked for
    quarantined: tuple[
        tuple[int, int], ...
    ] = ()  #: asked for, but kept out until they change or are released
    left: tuple[tuple[int, int], ...] = ()  #: asked for and not up to date, but not of the policy
    orphans: tuple[tuple[int, int], ...] = ()  #: done once, but no partition of the release any more


def fingerprint(partition: Partition, identity: Identity) -> str:
    """sha256 of all that decides a unit's rows: its input, the science fields, the models' digests, our versions."""
    return _fingerprint(partition.order, partition.pixel, partition.identity(), _common(identity))


def _common(identity: Identity) -> str:
    """sha256 of what all units of a run have in common."""
    facts = {"science": identity.science, "models": identity.models, "versions": identity.versions}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _fingerprint(order: int, pixel: int, content: str, common: str) -> str:
    return hashlib.sha256(f"{order} {pixel} {content} {common}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Done:
    """What a run has made of a partition."""

    run_id: str
    fingerprint: str
    input: str  #: `Partition.identity()` of what was read


@dataclass(frozen=True)
class State:
    """What the runs of a catalogue have done so far."""

    runs: Mapping[str, Identity] = field(default_factory=dict)  #: by run_id
    done: Mapping[tuple[int, int], tuple[Done, ...]] = field(
        default_factory=dict
    )  #: newest first, by partition
    failed: Mapping[tuple[int, int], str] = field(
        default_factory=dict
    )  #: fingerprint that the last run gave up
    quarantined: Mapping[tuple[int, int], str] = field(default_factory=dict)  #: fingerprint kept out


def plan(
    identity: Identity,
    wanted: Iterable[Partition],
    pixels: Iterable[tuple[int, int]],
    state: State = State(),
    *,
    run_id: str = "",
    policy: str = "stale",
    triggers: Collection[str] = DEFAULT_TRIGGERS,
) -> Plan:
    """Compare what is wanted with what is done.

    A partition is up to date if any run of the catalogue has computed it as it is wanted now, or if it differs only in
    what is no trigger.

    Parameters
    ----------
    wanted : partitions asked for
    pixels : (order, pixel) of all partitions of the release, asked for or not
    policy : "missing": what no run has computed; "failed": what the last run that tried it gave up, also where it was
        mended since; "stale": both of these, and what a trigger says has changed; "all": everything
    triggers : changes that make a partition stale, of TRIGGERS

    Raises
    ------
    ValueError
        if policy or a trigger is unknown.
    """
    if policy not in POLICIES:
        raise ValueError(f"unknown policy {policy!r}; known are {', '.join(POLICIES)}")
    if unknown := sorted(set(triggers) - set(TRIGGERS)):
        raise ValueError(f"unknown triggers {', '.join(unknown)}; known are {', '.join(TRIGGERS)}")
    tasks: list[Task] = []
    current: list[Current] = []
    quarantined: list[tuple[int, int]] = []
    left: list[tuple[int, int]] = []
    by_run: dict[str, tuple[str, ...]] = {}
    common = _common(identity)
    for partition in wanted:
        key = partition.order, partition.pixel
        content = partition.identity()
        fresh = _fingerprint(*key, content, common)
        if state.quarantined.get(key) == fresh and policy != "all":
            quarantined.append(key)
            continue
        done = state.done.get(key, ())
        good = next((one for one in done if one.fingerprint == fresh), None)
        reason = "failed" if state.failed.get(key) == fresh else "new"
        if good is None and done:
            good, changed = _up_to_date(done, content, identity, state.runs, by_run, triggers)
            reason = reason if reason == "failed" else f"{', '.join(changed)} changed"
        elif good is not None and (later := _asked_for_only(good, identity, state.runs, triggers)):
            good, reason = None, f"{', '.join(later)} changed"
        if good is not None and policy != "all":
            current.append(Current(*key, good.run_id, good.fingerprint, content))
        elif (
            policy in ("stale", "all")
            or (policy == "missing" and reason == "new")
            or (policy == "failed" and key in state.failed)  # what was mended since then too
        ):
            tasks.append(Task(partition, fresh, "all" if good is not None else reason))
        else:
            left.append(key)
    orphans = sorted(state.done.keys() - set(pixels))
    return Plan(
        run_id, identity, tuple(tasks), tuple(current), tuple(quarantined), tuple(left), tuple(orphans)
    )


def changes(before: Identity, now: Identity) -> tuple[str, ...]:
    """In what two identities differ, by the triggers' names; the input is not part of an identity."""
    found = {
        "model": before.models != now.models,
        "recipe": before.science != now.science,
        "algorithm": before.versions != now.versions,
        "code": before.code != now.code,
        "environment": before.environment != now.environment,
    }
    return tuple(name for name, differs in found.items() if differs)


def _up_to_date(
    done: Sequence[Done],
    content: str,
    identity: Identity,
    runs: Mapping[str, Identity],
    by_run: dict[str, tuple[str, ...]],
    triggers: Collection[str],
) -> tuple[Done | None, list[str]]:
    """What was done that differs only in what is no trigger; else in what the newest differs."""
    newest: list[str] = []
    for one in done:
        if one.run_id not in by_run:
            by_run[one.run_id] = changes(runs[one.run_id], identity)
        changed = ["input"] if one.input != content else []
        changed = [name for name in (*changed, *by_run[one.run_id]) if name in triggers]
        if not changed:
            return one, []
        newest = newest or changed
    return None, newest


def _asked_for_only(
    done: Done, identity: Identity, runs: Mapping[str, Identity], triggers: Collection[str]
) -> list[str]:
    """What has changed of that which is in no fingerprint, where that is a trigger."""
    extra = {"code", "environment"} & set(triggers)
    return [name for name in changes(runs[done.run_id], identity) if name in extra] if extra else []
