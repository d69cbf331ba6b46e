"""What the ledger's tables hold of a run, a receipt, a failed attempt, a version: pure functions, record to row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from lightmill.catalogs.receipts import FailedAttempt, Quarantined, Receipt

__all__ = [
    "attempt_that_failed",
    "attempt_that_succeeded",
    "bundles_of",
    "run_row",
    "unit_done",
    "unit_failed",
    "unit_quarantined",
]

Row = dict[str, Any]

FINAL = {"failed": "failed", "quarantine": "quarantined"}
"""State of a unit by the decision that ended it; after any other decision it is tried again."""


def run_row(facts: Mapping[str, Any], catalogue: str, units: int) -> Row:
    """A run that is under way, of the fields of its run.json."""
    recipe = facts.get("recipe", {})
    return {
        "run_id": facts["run_id"],
        "catalogue": catalogue,
        "release": facts["release"],
        "recipe": recipe.get("name", ""),
        "science": hashlib.sha256(json.dumps(facts["science"], sort_keys=True).encode()).hexdigest(),
        "bundle": facts["models"].get("bundle", ""),
        "code": facts.get("code", ""),
        "plan": facts.get("plan_sha256", ""),
        "units": units,
        "created": facts["created"],
        "state": "running",
        "ended": None,
        "counts": {},
    }


def bundles_of(facts: Mapping[str, Any]) -> list[Row]:
    """The models of a run, with the names that its recipe gives them."""
    recipe = facts.get("recipe", {})
    names = {
        "bundle": recipe.get("model", {}).get("bundle"),
        "period_choice": recipe.get("period", {}).get("choice"),
    }
    return [
        {"digest": digest, "kind": kind, "name": str(names.get(kind) or "")}
        for kind, digest in sorted(facts["models"].items())
        if digest
    ]


def unit_done(run_id: str, receipt: Receipt) -> Row:
    """A unit that is complete."""
    return {
        **_key(run_id, receipt),
        "state": "done",
        "fingerprint": receipt.fingerprint,
        "rows_in": receipt.rows_in,
        "classified": receipt.classified,
        "rejected": dict(receipt.rejected),
        "bytes": receipt.bytes,
        "sha256": receipt.sha256,
        "epochs": receipt.epochs,
        "seconds": receipt.seconds,
        "peak_rss_bytes": receipt.peak_rss_bytes,
        "attempts": receipt.attempt,
        "host": receipt.host,
        "input": receipt.input,
        "input_bytes": receipt.input_bytes,
        "started": receipt.started,
        "finished": receipt.finished,
        "error_class": None,
    }


def attempt_that_succeeded(run_id: str, receipt: Receipt) -> Row:
    """The try that ended with a receipt."""
    return {
        **_key(run_id, receipt),
        "attempt": receipt.attempt,
        "outcome": "done",
        "host": receipt.host,
        "started": receipt.started,
        "finished": receipt.finished,
        "seconds": receipt.seconds,
        "peak_rss_bytes": receipt.peak_rss_bytes,
        "batch_epochs": 0,
        "alone": False,
        "error_class": None,
        "error": None,
        "decision": None,
    }


def unit_failed(run_id: str, failure: FailedAttempt) -> Row | None:
    """A unit that is given up; None where it is to be tried again."""
    if failure.decision not in FINAL:
        return None
    return _without_rows(
        run_id,
        failure,
        state=FINAL[failure.decision],
        seconds=failure.seconds,
        peak_rss_bytes=failure.peak_rss_bytes,
        attempts=failure.attempt,
        host=failure.host,
        finished=failure.finished,
    )


def unit_quarantined(run_id: str, record: Quarantined) -> Row:
    """A unit of which only the record of its quarantine is left."""
    return _without_rows(run_id, record, state="quarantined", attempts=record.attempts, finished=record.since)


def attempt_that_failed(run_id: str, failure: FailedAttempt) -> Row:
    """A try that did not end with a receipt."""
    return {
        **_key(run_id, failure),
        "attempt": failure.attempt,
        "outcome": "failed",
        "host": failure.host,
        "started": "",
        "finished": failure.finished,
        "seconds": failure.seconds,
        "peak_rss_bytes": failure.peak_rss_bytes,
        "batch_epochs": failure.batch_epochs,
        "alone": failure.alone,
        "error_class": failure.error_class,
        "error": failure.error,
        "decision": failure.decision,
    }


def _key(run_id: str, record: Receipt | FailedAttempt | Quarantined) -> Row:
    return {"run_id": run_id, "norder": record.order, "npix": record.pixel}


def _without_rows(run_id: str, record: FailedAttempt | Quarantined, **facts: Any) -> Row:
    nothing = dict.fromkeys(
        ("rows_in", "classified", "bytes", "epochs", "peak_rss_bytes", "input_bytes", "seconds"), 0
    )
    words = dict.fromkeys(("sha256", "host", "input", "started"), "")
    return {
        **_key(run_id, record),
        "fingerprint": record.fingerprint,
        "rejected": {},
        "error_class": record.error_class,
        **nothing,
        **words,
        **facts,
    }
