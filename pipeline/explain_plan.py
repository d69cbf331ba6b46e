"""Why a partition is in the state that a plan gives it: what it was computed from, and what is wanted, by field."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lightmill.catalogs.partitions import File, Partition, open_hats
from lightmill.catalogs.runfolder import CatalogueFolder, RunFolder, differences
from lightmill.pipeline.plan import DEFAULT_TRIGGERS, Done, Identity, Plan, RunError, State, fingerprint, plan
from lightmill.pipeline.planfile import PlanError, load_plan
from lightmill.pipeline.planning import catalogue_state, identity_of
from lightmill.pipeline.recipe import Recipe

__all__ = ["Explanation", "FileChange", "explain_partition"]

KINDS: dict[str, str] = {
    "model": "models",
    "recipe": "science",
    "algorithm": "versions",
    "code": "code",
    "environment": "environment",
}
"""The field of an identity that each trigger looks at, but for the input, which is the partition's own."""


@dataclass(frozen=True)
class FileChange:
    """An input file before and now."""

    name: str
    before: (
        File | None
    )  #: as the earlier run's plan has it; None: it was not there, or that plan cannot be read
    now: File | None  #: None: it is gone

    @property
    def same(self) -> bool:
        """Whether size and stamp are what they were."""
        return (
            self.before is not None
            and self.now is not None
            and (self.before.size, self.before.stamp) == (self.now.size, self.now.stamp)
        )


@dataclass(frozen=True)
class Explanation:
    """Why a partition is computed, or is not."""

    order: int
    pixel: int
    state: str  #: "task", "current", "quarantined", "left" or "orphan"
    reason: str  #: in words
    fingerprint: str  #: that is wanted now; "" of an orphan
    compared_with: str | None  #: run that computed it; None: none has
    before: str | None  #: fingerprint of what that run computed
    policy: str
    triggers: tuple[str, ...]
    input: tuple[FileChange, ...] = ()
    changed: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict
    )  #: by trigger, the fields that differ, with both values
    attempts: tuple[Mapping[str, Any], ...] = ()  #: tries of all runs, the newest run first
    quarantine: Mapping[str, Any] | None = None
    overlaps: tuple[tuple[int, int], ...] = ()  #: of an orphan: what the release has in its place

    def facts(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self) | {"input": [asdict(one) | {"same": one.same} for one in self.input]}


def explain_partition(
    url: str,
    recipe: Recipe,
    key: tuple[int, int],
    *,
    catalogue: CatalogueFolder | None = None,
    policy: str = "stale",
    triggers: Collection[str] = DEFAULT_TRIGGERS,
) -> Explanation:
    """Compare what is wanted of a partition, (order, pixel), with what the runs of a catalogue made of it.

    Raises
    ------
    RunError
        if it is a partition neither of the release nor of the catalogue, with those that overlap it.
    ValueError
        if policy or a trigger is unknown.
    """
    table = open_hats(url)
    identity, everything = identity_of(url, recipe), table.pixels()
    whole = catalogue_state(catalogue) if catalogue is not None else State()
    state = State(
        whole.runs,
        {key: whole.done[key]} if key in whole.done else {},
        {key: whole.failed[key]} if key in whole.failed else {},
        {key: whole.quarantined[key]} if key in whole.quarantined else {},
    )
    there = key in set(everything)
    if not there and key not in state.done:
        near = ", ".join(f"{order}/{pixel}" for order, pixel in _overlaps(key, everything)[:4])
        raise RunError(
            f"{key[0]}/{key[1]} is a partition neither of {url} nor of the catalogue"
            + (f"; the release has {near} there" if near else "")
        )
    wanted = table.partitions_of([key]) if there else ()
    made = plan(identity, wanted, everything, state, policy=policy, triggers=triggers)
    name, reason = _state(made, policy)
    done = _compared(state.done.get(key, ()), made)
    before = catalogue.run(done.run_id) if catalogue is not None and done is not None else None
    held = catalogue.quarantined().get(key) if catalogue is not None and key in state.quarantined else None
    return Explanation(
        *key,
        state=name,
        reason=reason,
        fingerprint=fingerprint(wanted[0], identity) if wanted else "",
        compared_with=done.run_id if done else None,
        before=done.fingerprint if done else None,
        policy=policy,
        triggers=tuple(triggers),
        input=_files(before, key, wanted[0] if wanted else None),
        changed=_changed(state.runs[done.run_id], identity) if done else {},
        attempts=_attempts(catalogue, key),
        quarantine=asdict(held) if held else None,
        overlaps=() if there else _overlaps(key, everything),
    )


def _state(made: Plan, policy: str) -> tuple[str, str]:
    """State of the only partition of a plan, and why."""
    if made.tasks:
        reason = made.tasks[0].reason
        return "task", "everything is asked for" if reason == "all" else reason
    if made.current:
        return "current", f"run {made.current[0].run_id} has computed it as it is wanted"
    if made.quarantined:
        return "quarantined", "it failed as it is now, and is kept out until it changes or is released"
    if made.left:
        return "left", f"it is not up to date, but policy {policy!r} does not ask for that"
    return "orphan", "the release has no such partition any more"


def _compared(done: tuple[Done, ...], made: Plan) -> Done | None:
    """What the plan takes for it, else the newest."""
    taken = {unit.run_id for unit in made.current}
    return next((one for one in done if one.run_id in taken), done[0] if done else None)


def _changed(before: Identity, now: Identity) -> dict[str, tuple[str, ...]]:
    return {
        kind: tuple(differences({name: getattr(before, name)}, {name: getattr(now, name)}))
        for kind, name in KINDS.items()
    }


def _files(folder: RunFolder | None, key: tuple[int, int], now: Partition | None) -> tuple[FileChange, ...]:
    old: dict[str, File] = {}
    if folder is not None:
        try:
            tasks = load_plan(folder.plan).tasks
        except (
            PlanError
        ):  # what it read is not known any more; the fingerprints still tell whether it has changed
            tasks = ()
        old = {_name(f): f for task in tasks if task.key == key for f in task.partition.files}
    new = {_name(file): file for file in now.files} if now else {}
    return tuple(FileChange(name, old.get(name), new.get(name)) for name in sorted(old.keys() | new.keys()))


def _name(file: File) -> str:
    return file.path.rsplit("/", 1)[-1]


def _attempts(catalogue: CatalogueFolder | None, key: tuple[int, int]) -> tuple[dict[str, Any], ...]:
    """What each try came to: its error, or that it was completed."""
    found: list[dict[str, Any]] = []
    for folder in catalogue.runs() if catalogue is not None else ():
        for failure in folder.failures():
            if failure.key == key:
                found.append(
                    {"run_id": folder.run_id, "attempt": failure.attempt, "outcome": failure.decision,
                     "error_class": failure.error_class, "error": failure.error, "seconds": failure.seconds,
                     "finished": failure.finished}
                )  # fmt: skip
        receipt = folder.done().get(key)
        if receipt is not None:
            found.append(
                {"run_id": folder.run_id, "attempt": receipt.attempt, "outcome": "complete", "error_class": "",
                 "error": "", "seconds": receipt.seconds, "finished": receipt.finished}
            )  # fmt: skip
    return tuple(found)


def _overlaps(key: tuple[int, int], everything: Collection[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The partitions that share sky with a HEALPix pixel, of a higher order or a lower one."""
    order, pixel = key
    return tuple(
        (o, p)
        for o, p in everything
        if (p >> 2 * (o - order) == pixel if o >= order else pixel >> 2 * (order - o) == p)
    )
