"""The page of a comparison: one self-contained HTML file."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from lightmill.catalogs import storage
from lightmill.pipeline.compare import BARS, Comparison
from lightmill.pipeline.compare_charts import migration, shifts
from lightmill.pipeline.report_map import Pixels, share_map
from lightmill.pipeline.report_page import percent, render

__all__ = ["PERIODS_IN_WORDS", "write_page"]

PERIODS_IN_WORDS = {
    "same": "the same within 1 %",
    "factor_2": "twice or half as long, within 1 %",
    "other": "another period",
    "only_first": "a period in the first alone",
    "only_second": "a period in the second alone",
    "neither": "no period in either",
}
"""The kinds of `Comparison.periods`, for people."""


def write_page(found: Comparison, path: Path) -> Path:
    """Write a comparison as one HTML page that fetches nothing.

    Raises
    ------
    IsADirectoryError
        if `path` is a folder.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give the name of an HTML file")
    storage.replace(path.absolute(), render("compare.html", _facts(found)).encode())
    return path


def _facts(found: Comparison) -> dict[str, Any]:
    matrix = np.array(found.migration)
    drawn = {name: np.array(shift.bars) for name, shift in found.shifts.items() if shift.rows}
    return {
        "it": found,
        "names": (found.first["name"], found.second["name"]),
        "cards": {
            "rows in the first": f"{found.first['rows']:,}",
            "rows in the second": f"{found.second['rows']:,}",
            "in both": f"{found.both:,}",
            "new": f"{found.new:,}",
            "lost": f"{found.lost:,}",
            "class changed": f"{found.changed:,}",
            "share changed": "–" if found.share_changed is None else percent(found.share_changed),
        },
        "reasons": [
            ("Lost", found.lost, found.lost_reasons, "second"),
            ("New", found.new, found.new_reasons, "first"),
        ],
        "migration_picture": migration(found.classes, matrix) if found.both else None,
        "shift_picture": shifts(drawn, BARS) if drawn else None,
        "map_picture": _map(found),
        "periods": {PERIODS_IN_WORDS[name]: n for name, n in found.periods.items()},
        "provenance": [_provenance(side) for side in (found.first, found.second)],
        "made": f"lightmill {version('lightmill')}, {datetime.now(UTC).isoformat(timespec='seconds')}",
    }


def _map(found: Comparison) -> str | None:
    """A picture of the share of changed rows by pixel; None where there is no row to show."""
    if not found.map:
        return None
    pixel, rows, changed = np.array([(c["pixel"], c["rows"], c["changed"]) for c in found.map]).T
    pixels = Pixels(np.full(len(pixel), found.map_order), pixel, changed / rows)
    return share_map(pixels, "light curves of another class [%]")


def _provenance(side: dict[str, Any]) -> dict[str, str]:
    """What is known of a side, in words."""
    facts = {
        "version": side["name"],
        "place": side["url"],
        "published": side["created"],
        "bundles": ", ".join(f"{name} ({n:,} rows)" for name, n in side["bundles"].items()),
    }
    for run_id, run in list(side["runs"].items())[:20]:
        told = [f"{run['rows']:,} rows"]
        told += [f"{key} {run[key]}" for key in ("recipe", "release", "created", "code") if run.get(key)]
        facts[f"run {run_id}"] = ", ".join(told)
    if len(side["runs"]) > 20:
        facts["further runs"] = f"{len(side['runs']) - 20:,}"
    facts |= {key.removeprefix("lightmill_"): text for key, text in side["properties"].items()}
    facts |= {
        f"version.json: {key}": str(v) for key, v in side["version"].items() if isinstance(v, str | int)
    }
    return {name: text for name, text in facts.items() if text}
