"""How far a run is, as its files tell: what its driver said last, how it ended, and whether the driver still lives."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightmill.catalogs import storage
from lightmill.catalogs.lease import Holder, read_holder
from lightmill.catalogs.ledger import open_ledger
from lightmill.catalogs.ledger_place import VARIABLE, address
from lightmill.catalogs.runfolder import CatalogueFolder, NotAnOutput, RunFolder

__all__ = ["UNDER_WAY", "Status", "find_run", "read_status"]

SILENT = 60.0  #: seconds after which a driver that speaks every two is called silent
SLOWEST = 10  #: units that are listed

UNDER_WAY = ("starting", "running", "draining", "silent")


@dataclass(frozen=True)
class Status:
    """A run at one moment.

    `state` is "planned"; "starting", "running", "draining"; "silent" (its driver has said nothing for a minute);
    "killed" (its driver is gone, the same command goes on); "complete", "partial", "stopped" (as it ended).
    """

    run_id: str
    catalogue: str  #: path or URL
    release: str
    recipe: str  #: name
    bundle: str  #: sha256
    code: str  #: version of Lightmill
    created: str  #: UTC, ISO 8601
    ended: str | None  #: likewise
    state: str
    units: int
    done: int
    failed: int  #: given up, and not in quarantine
    quarantined: int
    light_curves: int  #: read, by earlier drivers too
    bytes_done: int  #: of input, likewise
    bytes_total: int  #: of input
    seconds: float  #: since the driver that spoke last started
    rate: float  #: light curves per second of that driver
    left_seconds: float | None
    workers: int
    host: str  #: of the driver
    pid: int | None  #: likewise
    updated: str  #: when it spoke last; UTC, ISO 8601
    heard_seconds: float | None  #: since then, by this host's clock
    peak_rss_bytes: int  #: highest of any worker
    running: list[dict[str, Any]] = field(default_factory=list)  #: order, pixel, attempt, since [s]
    slowest: list[dict[str, Any]] = field(default_factory=list)  #: order, pixel, seconds
    failures_by_class: dict[str, int] = field(default_factory=dict)  #: tries that failed

    @property
    def waiting(self) -> int:
        """Units that nobody works on."""
        return max(self.units - self.done - self.failed - self.quarantined - len(self.running), 0)

    @property
    def is_under_way(self) -> bool:
        """Whether a driver is at work, as far as can be told."""
        return self.state in UNDER_WAY


def read_status(run: RunFolder, now: datetime | None = None) -> Status:
    """How far a run is.

    Parameters
    ----------
    now : with a time zone; the present where it is not given

    Raises
    ------
    NotAnOutput
        if there is no run, or its record cannot be read.
    """
    facts = run.facts()
    told, end, holder = _json(run.progress), _json(run.end), read_holder(run.lease)
    heard = _since(told.get("updated"), now or datetime.now(UTC)) if told else None
    state = _state(told, end, holder, heard)
    said: Mapping[str, Any] = told or {}
    if not told or state == "killed":  # a driver that was killed had no time to tell of the last units
        said = {**said, **_count(run, facts)}
    if state == "planned" and said["done"]:
        state = "stopped"
    under_way = state in UNDER_WAY
    return Status(
        run_id=run.run_id,
        catalogue=address(run.catalogue),
        release=facts.get("release", ""),
        recipe=facts.get("recipe", {}).get("name", ""),
        bundle=facts.get("models", {}).get("bundle", ""),
        code=facts.get("code", ""),
        created=facts.get("created", ""),
        ended=end.get("ended") if end else None,
        state=state,
        units=said.get("units", 0),
        done=said.get("done", 0),
        # what a driver has given up includes what it put into quarantine
        failed=max(said.get("failed", 0) - said.get("quarantined", 0), 0),
        quarantined=said.get("quarantined", 0),
        light_curves=said.get("light_curves", 0),
        bytes_done=said.get("bytes_done", 0),
        bytes_total=said.get("bytes_total", 0),
        seconds=said.get("seconds", 0.0),
        rate=said.get("rate", 0.0),
        left_seconds=said.get("left_seconds") if under_way else None,
        workers=said.get("workers", 0),
        host=said.get("host", ""),
        pid=said.get("pid"),
        updated=said.get("updated", ""),
        heard_seconds=heard,
        peak_rss_bytes=said.get("peak_rss_bytes", 0),
        running=said.get("running", []) if under_way else [],
        slowest=said.get("slowest", [])[:SLOWEST],
        failures_by_class=said.get("failures_by_class", {}),
    )


def find_run(name: str, ledger: str | None = None) -> RunFolder:
    """The run that is meant: by its folder, by a catalogue whose newest it is, or by its id, which a ledger knows.

    Parameters
    ----------
    ledger : URL; that of the environment where it is not given

    Raises
    ------
    NotAnOutput
        if it is none of these.
    LedgerError
        if the ledger does not know it.
    """
    place = storage.place(name)
    if (run := RunFolder(place)).record.exists():
        return run
    if newest := CatalogueFolder(place).runs():
        return newest[0]
    if ledger or os.environ.get(VARIABLE):
        with open_ledger(ledger, CatalogueFolder(place), create=False) as known:
            return CatalogueFolder.at(known.run(name)["catalogue"]).run(name)
    raise NotAnOutput(
        f"{name} is neither the folder of a run nor a catalogue that has one; of a run id, tell which ledger knows it: "
        f"--ledger URL, or {VARIABLE}"
    )


def _state(
    told: Mapping[str, Any] | None, end: Mapping[str, Any] | None, holder: Holder | None, heard: float | None
) -> str:
    if end is not None:
        return str(end.get("state", "stopped"))
    if holder is None:
        return "stopped" if told else "planned"
    if holder.is_gone():
        return "killed"
    # what an earlier driver said counts no more
    if told is None or (told.get("host"), told.get("pid")) != (holder.host, holder.pid):
        return "starting"
    if heard is not None and heard > SILENT:
        return "silent"
    said = str(told.get("state", "starting"))
    return said if said in UNDER_WAY else "draining"


def _count(run: RunFolder, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What receipts and failures tell, where no driver has left word."""
    receipts, failures = run.read_receipts(), run.failures()
    done = {receipt.key for receipt in receipts}
    last = {f.key: f.decision for f in failures if f.key not in done}
    slowest = sorted(receipts, key=lambda receipt: -receipt.seconds)[:SLOWEST]
    return {
        "units": facts.get("units", len(done)),
        "done": len(done),
        "failed": sum(decision in ("failed", "quarantine") for decision in last.values()),
        "quarantined": sum(decision == "quarantine" for decision in last.values()),
        "light_curves": sum(receipt.rows_in for receipt in receipts),
        "bytes_done": sum(receipt.input_bytes for receipt in receipts),
        "peak_rss_bytes": max((receipt.peak_rss_bytes for receipt in receipts), default=0),
        "slowest": [{"order": r.order, "pixel": r.pixel, "seconds": r.seconds} for r in slowest],
        "failures_by_class": dict(Counter(failure.error_class for failure in failures)),
    }


def _since(stamp: str | None, now: datetime) -> float | None:
    """Seconds since a time in ISO 8601; None where it is none."""
    try:
        then = datetime.fromisoformat(stamp or "")
    except ValueError:
        return None
    return round((now - (then if then.tzinfo else then.replace(tzinfo=UTC))).total_seconds(), 1)


def _json(path: Path) -> dict[str, Any] | None:
    """A record; None where there is none, or none that can be read."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
