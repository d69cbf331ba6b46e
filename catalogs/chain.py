"""Chains of runs: which receipt stands for each partition of a version, and what is missing.

The first run that has a partition wins. Partitions of runs over a release that was partitioned anew may overlap: an
ancestor and a descendant pixel are never both taken, for their light curves would be there twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from mocpy import MOC

from lightmill.catalogs.receipts import Receipt
from lightmill.catalogs.runfolder import RunFolder

__all__ = ["Chain", "Key", "choose", "coverage", "span"]

Key = tuple[int, int]  #: order, pixel
DEEPEST = 29  #: order at which pixels are ranges of whole numbers


@dataclass(frozen=True)
class Chain:
    """What a version is made of."""

    chosen: dict[Key, tuple[RunFolder, Receipt]] = field(default_factory=dict)
    holes: tuple[Key, ...] = ()  #: wanted, but no run has them
    wanted: int = 0  #: partitions that should be there
    asked: tuple[str, ...] = ()  #: names of all runs, in the order in which they were asked
    lost: dict[Key, str] = field(default_factory=dict)
    """Of these, partitions that were skipped for finer ones, a part is not covered: the run that has them."""
    superseded: dict[Key, str] = field(default_factory=dict)
    """Partitions of which a run has only what another fingerprint counts for: that run. Holes, or taken if allowed."""

    @property
    def complete(self) -> float:
        """Share of the partitions wanted that are there, 0 to 1."""
        return 1 - len(self.holes) / self.wanted if self.wanted else 1.0

    @property
    def rows(self) -> dict[Key, int]:
        """Rows of each partition that has any."""
        found = {key: receipt.classified for key, (_, receipt) in self.chosen.items()}
        return {key: found[key] for key in sorted(found) if found[key]}

    @property
    def runs(self) -> list[RunFolder]:
        """The runs that partitions come from, in the order in which they were asked."""
        found = {run.run_id: run for run, _ in self.chosen.values()}
        return [found[name] for name in self.asked if name in found]

    def digest(self) -> str:
        """sha256 of what is in it: partitions, runs, fingerprints."""
        sha256 = hashlib.sha256()
        for key, (run, receipt) in sorted(self.chosen.items(), key=lambda item: item[0]):
            sha256.update(f"{key[0]}/{key[1]} {run.run_id} {receipt.fingerprint}\n".encode())
        return sha256.hexdigest()

    def hole_moc(self) -> MOC | None:
        """The part of the sky that should be covered and is not; None if all is."""
        missing = [*self.holes, *self.lost]
        if not missing:
            return None
        moc = coverage(missing)
        return moc.difference(coverage(self.chosen)) if self.chosen else moc


def choose(
    runs: Sequence[RunFolder],
    wanted: Collection[Key] | None = None,
    accept: Mapping[Key, str] | None = None,
    allow_superseded: bool = False,
) -> Chain:
    """The receipts of a version: of each partition that of the first run that has one.

    Parameters
    ----------
    runs : the first wins
    wanted : partitions that should be there; None: all that have a receipt
    accept : fingerprint that alone counts, by partition; partitions that it does not name may have any
    allow_superseded : where no run has that, take what the first run has of a partition that is wanted
    """
    accept, asked = accept or {}, None if wanted is None else set(wanted)
    chosen: dict[Key, tuple[RunFolder, Receipt]] = {}
    passed: dict[Key, tuple[RunFolder, Receipt]] = {}  # wanted, but not as this
    skipped: dict[Key, str] = {}

    def take(run: RunFolder, fit: Mapping[Key, Receipt]) -> None:
        clash = _overlapping(list(fit), chosen)
        skipped.update({key: run.run_id for key in clash if key not in skipped})
        chosen.update({key: (run, receipt) for key, receipt in sorted(fit.items()) if key not in clash})

    for run in runs:
        fit = {}
        for key, receipt in run.done().items():
            if key in chosen:
                continue
            if accept.get(key, receipt.fingerprint) == receipt.fingerprint:
                fit[key] = receipt
            elif asked is None or key in asked:
                passed.setdefault(key, (run, receipt))
        take(run, fit)
    superseded = {key: run.run_id for key, (run, _) in passed.items() if key not in chosen}
    if allow_superseded:
        for run in runs:
            take(run, {key: passed[key][1] for key, run_id in superseded.items() if run_id == run.run_id})
    holes = [key for key in wanted or () if key not in chosen]
    uncovered = set(_uncovered([*holes, *skipped], chosen))
    return Chain(
        chosen,
        tuple(sorted(key for key in holes if key in uncovered)),
        len(chosen) if wanted is None else len(wanted),
        tuple(dict.fromkeys(run.run_id for run in runs)),
        {key: run for key, run in skipped.items() if key in uncovered},
        superseded,
    )


def span(key: Key) -> tuple[int, int]:
    """The pixels of the deepest order that a pixel holds: first, and last plus one."""
    shift = 2 * (DEEPEST - key[0])
    return key[1] << shift, (key[1] + 1) << shift


def _spans(keys: Iterable[Key]) -> tuple[np.ndarray, np.ndarray]:
    found = np.array([span(key) for key in keys], np.int64).reshape(-1, 2)
    found = found[np.argsort(found[:, 0])]
    return found[:, 0], found[:, 1]


def _overlapping(keys: Sequence[Key], others: Collection[Key]) -> set[Key]:
    """Those that share a part of the sky with any of the others, which do not overlap one another."""
    if not keys or not others:
        return set()
    starts, ends = _spans(others)
    mine = np.array([span(key) for key in keys], np.int64)
    at = np.searchsorted(ends, mine[:, 0], "right")
    hit = (at < len(starts)) & (starts[at.clip(max=len(starts) - 1)] < mine[:, 1])
    return {key for key, found in zip(keys, hit, strict=True) if found}


def _uncovered(keys: Sequence[Key], others: Collection[Key]) -> list[Key]:
    """Those of which a part lies in none of the others."""
    if not keys or not others:
        return list(keys)
    starts, ends = _spans(others)
    covered = np.concatenate([[0], np.cumsum(ends - starts)])
    mine = np.array([span(key) for key in keys], np.int64)
    first, last = np.searchsorted(ends, mine[:, 0], "right"), np.searchsorted(starts, mine[:, 1], "left")
    inside = covered[np.maximum(last, first)] - covered[first]
    return [key for key, (a, b), n in zip(keys, mine, inside, strict=True) if n < b - a]


def coverage(keys: Iterable[Key]) -> MOC:
    """The part of the sky that some pixels cover; there is at least one."""
    order, pixel = np.array(list(keys), np.int64).reshape(-1, 2).T
    return MOC.from_healpix_cells(pixel.astype(np.uint64), order.astype(np.uint8), max_depth=int(order.max()))
