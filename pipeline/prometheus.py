"""A run's status as Prometheus reads it: the text format, for node_exporter's textfile collector.

https://prometheus.io/docs/instrumenting/exposition_formats/; names and units after
https://prometheus.io/docs/practices/naming/. No sample has a time of its own: the collector refuses such files.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from lightmill.catalogs import storage
from lightmill.pipeline.metrics import METRICS
from lightmill.pipeline.status import UNDER_WAY, Status

__all__ = ["exposition", "write_exposition"]

STATES = ("planned", *UNDER_WAY, "killed", "complete", "partial", "stopped")


def write_exposition(path: Path, status: Status) -> None:
    """Write a status into a file that appears whole or not at all."""
    storage.replace(path.absolute(), exposition(status).encode())


def exposition(status: Status) -> str:
    """A status in Prometheus's text format."""
    samples: dict[str, list[str]] = {name: [] for name in METRICS}
    for name, labels, value in _samples(status):
        told = ",".join(
            f'{key}="{_escaped(text)}"' for key, text in {"run_id": status.run_id, **labels}.items()
        )
        samples[name].append(f"{name}{{{told}}} {value:.15g}")
    lines = []
    for name, text in METRICS.items():
        if samples[name]:
            lines += [f"# HELP {name} {text}", f"# TYPE {name} gauge", *samples[name]]
    return "\n".join(lines) + "\n"


def _samples(status: Status) -> Iterator[tuple[str, dict[str, str], float]]:
    run = "lightmill_run_"
    labels = {name: getattr(status, name) for name in ("catalogue", "release", "recipe", "bundle", "code")}
    yield f"{run}info", labels, 1
    for state in STATES:
        yield f"{run}state", {"state": state}, state == status.state
    for state, count in (
        ("done", status.done),
        ("failed", status.failed),
        ("quarantined", status.quarantined),
        ("running", len(status.running)),
        ("waiting", status.waiting),
    ):
        yield f"{run}units", {"state": state}, count
    yield f"{run}light_curves", {}, status.light_curves
    yield f"{run}light_curves_per_second", {}, status.rate
    yield f"{run}input_bytes", {"state": "done"}, status.bytes_done
    yield f"{run}input_bytes", {"state": "total"}, status.bytes_total
    yield f"{run}seconds", {}, status.seconds
    if status.left_seconds is not None:
        yield f"{run}left_seconds", {}, status.left_seconds
    for error_class, count in sorted(status.failures_by_class.items()):
        yield f"{run}failed_attempts", {"class": error_class}, count
    yield f"{run}workers", {}, status.workers
    yield f"{run}peak_rss_bytes", {}, status.peak_rss_bytes
    if status.slowest:
        yield f"{run}slowest_unit_seconds", {}, status.slowest[0]["seconds"]
    if status.updated:
        yield f"{run}updated_timestamp_seconds", {}, datetime.fromisoformat(status.updated).timestamp()


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
