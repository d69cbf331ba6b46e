"""The journal of a run: what its driver writes down of each try, in files, in the ledger, and for who looks on."""

from __future__ import annotations

import heapq
import os
import socket
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from lightmill.catalogs.ledger_place import LedgerError
from lightmill.catalogs.receipts import FailedAttempt, Quarantined, Receipt, write_json
from lightmill.catalogs.runfolder import RunFolder
from lightmill.pipeline.drive import Outcome

__all__ = ["Index", "Journal"]

EVERY = 2.0  #: seconds between two accounts of how far it is, and between two entries into the ledger
MOST_HELD = 10_000  #: receipts that wait for a ledger that does not answer; `ledger rebuild` finds them all
BATCH = 200  #: tries that the ledger gets at once at most
SLOWEST = 10


class Index(Protocol):
    """A ledger, as the journal needs it."""

    def record(self, run_id: str, receipts: list[Receipt], failures: list[FailedAttempt]) -> None:
        """Enter what was tried."""


@dataclass
class Journal:
    """What has become of the units of a run so far."""

    folder: RunFolder
    units: int  #: tasks of the plan
    bytes_total: int  #: of the input of all tasks
    workers: int = 0
    ledger: Index | None = None
    done: int = 0  #: units with a receipt, those of earlier invocations included
    computed: int = 0  #: by this invocation
    light_curves: int = 0  #: read by this invocation
    bytes_done: int = 0  #: likewise
    light_curves_before: int = 0  #: read by earlier invocations
    bytes_before: int = 0  #: likewise
    peak_rss_bytes: int = 0
    state: str = "starting"
    failed: dict[tuple[int, int], FailedAttempt] = field(default_factory=dict)  #: given up
    quarantined: set[tuple[int, int]] = field(default_factory=set)
    by_class: Counter[str] = field(default_factory=Counter)
    ledger_error: str = ""  #: why the ledger was not told, last time
    _held: list[Quarantined] = field(default_factory=list)
    _receipts: list[Receipt] = field(default_factory=list)
    _failures: list[FailedAttempt] = field(default_factory=list)
    _slowest: list[tuple[float, tuple[int, int]]] = field(default_factory=list)
    _start: float = field(default_factory=time.monotonic)
    _told: float = 0.0
    _beat: int = 0

    def resume(self, done: Sequence[Receipt]) -> None:
        """Count what earlier invocations have done."""
        self.done = len(done)
        self.light_curves_before = sum(receipt.rows_in for receipt in done)
        self.bytes_before = sum(receipt.input_bytes for receipt in done)
        self.peak_rss_bytes = max((receipt.peak_rss_bytes for receipt in done), default=0)

    def succeeded(self, receipt: Receipt) -> None:
        """A unit has its receipt."""
        self.done += 1
        self.computed += 1
        self.light_curves += receipt.rows_in
        self.bytes_done += receipt.input_bytes
        self.peak_rss_bytes = max(self.peak_rss_bytes, receipt.peak_rss_bytes)
        entry = receipt.seconds, receipt.key
        (heapq.heappush if len(self._slowest) < SLOWEST else heapq.heappushpop)(self._slowest, entry)
        self._receipts.append(receipt)
        self.let_quarantine()

    def failed_try(self, outcome: Outcome) -> FailedAttempt:
        """A try has failed: it is written down, and the unit put into quarantine if that was decided."""
        unit, fault, decision = outcome.unit, outcome.fault, outcome.decision
        assert fault is not None
        assert decision is not None
        record = FailedAttempt(
            order=unit.key[0],
            pixel=unit.key[1],
            attempt=unit.attempt,
            error_class=str(fault.error_class),
            error=fault.error,
            decision=decision.name,
            fingerprint=unit.fingerprint,
            run_id=self.folder.run_id,
            host=fault.host,
            seconds=round(outcome.seconds, 3),
            batch_epochs=unit.batch_epochs,
            alone=outcome.alone,
            peak_rss_bytes=fault.peak_rss_bytes,
            finished=datetime.now(UTC).isoformat(timespec="milliseconds"),
            trace=fault.trace,
        )
        write_json(self.folder.failure(*record.key, record.attempt), asdict(record))
        self._failures.append(record)
        self.by_class[record.error_class] += 1
        if not decision.again:
            self.failed[record.key] = record
        if decision.name == "quarantine":
            self._held.append(
                Quarantined(
                    record.order, record.pixel, record.fingerprint, record.error_class, record.error,
                    record.run_id, record.attempt, record.finished,
                )
            )  # fmt: skip
            if self.computed:
                self.let_quarantine()
        return record

    def let_quarantine(self) -> None:
        """Put into quarantine what was decided: not before a unit has succeeded, or all of them were tried.

        Where everything fails alike the units are not to blame.
        """
        for record in self._held:
            self.folder.catalogue.put_in_quarantine(record)
            self.quarantined.add(record.key)
        self._held.clear()

    def tick(self, under_way: Mapping[str, Any] = {}, *, now: bool = False) -> None:
        """Tell how far it is and bring the ledger up to date, if it is time to."""
        if not now and time.monotonic() - self._told < EVERY and len(self._receipts) < BATCH:
            return
        self._told = time.monotonic()
        self._beat += 1
        self._tell_ledger()
        write_json(self.folder.progress, self.account(under_way))

    def _tell_ledger(self) -> None:
        """The files are the truth: a ledger that does not answer costs no run, and is caught up with later."""
        if self.ledger is None or not (self._receipts or self._failures):
            self._receipts, self._failures = [], []
            return
        try:
            self.ledger.record(self.folder.run_id, self._receipts, self._failures)
        except LedgerError as error:
            self.ledger_error = str(error)
            if len(self._receipts) < MOST_HELD:
                return
        else:
            self.ledger_error = ""
        self._receipts, self._failures = [], []

    def account(self, under_way: Mapping[str, Any] = {}) -> dict[str, Any]:
        """How far it is, as plain JSON values."""
        seconds = time.monotonic() - self._start
        left = None
        if self.bytes_done:
            to_do = self.bytes_total - self.bytes_before - self.bytes_done
            left = round(seconds * max(to_do, 0) / self.bytes_done, 1)
        running = [
            {"order": one.unit.key[0], "pixel": one.unit.key[1], "attempt": one.unit.attempt,
             "since": round(time.monotonic() - one.since, 1)}
            for one in under_way.values()
        ]  # fmt: skip
        return {
            "run_id": self.folder.run_id,
            "state": self.state,
            "updated": datetime.now(UTC).isoformat(timespec="seconds"),
            "beat": self._beat,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "workers": self.workers,
            "units": self.units,
            "done": self.done,
            "failed": len(self.failed),
            "quarantined": len(self.quarantined),
            "light_curves": self.light_curves_before + self.light_curves,
            "bytes_done": self.bytes_before + self.bytes_done,
            "bytes_total": self.bytes_total,
            "seconds": round(seconds, 1),
            "rate": round(self.light_curves / max(seconds, 1e-3), 1),
            "left_seconds": left,
            "running": running,
            "slowest": [
                {"order": key[0], "pixel": key[1], "seconds": round(taken, 3)}
                for taken, key in sorted(self._slowest, reverse=True)
            ],
            "failures_by_class": dict(self.by_class),
            "peak_rss_bytes": self.peak_rss_bytes,
            "ledger_error": self.ledger_error,
        }
