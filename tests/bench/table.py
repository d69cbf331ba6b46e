"""Run all benchmarks and print them as one table: each a ratio to a peer in the same run.

    python tests/bench/table.py                     Markdown
    python tests/bench/table.py --format json       the same figures for programs
    python tests/bench/table.py -k period           further arguments are pytest's

Figures go to stdout, all else to stderr. Exit code 1 if a benchmark failed; what was measured is printed all the same.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

LIBRARIES = ("lightmill", "numpy", "numba", "scipy", "light-curve", "nifty-ls", "finufft")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
CLOCKS = {"process_time": "CPU time", "perf_counter": "wall time"}


def figures(report: Mapping[str, Any], machine: Mapping[str, Any]) -> dict[str, Any]:
    """What the benchmarks noted (`conftest.py`) in a report of pytest-benchmark, and the machine."""
    notes = [benchmark["extra_info"] for benchmark in report["benchmarks"]]
    return {
        "machine": dict(machine),
        "rows": [row for note in notes for row in note.get("rows", [])],
        "recovered": [record for note in notes for record in note.get("recovered", [])],
    }


def machine_of(report: Mapping[str, Any], load: float, versions: Mapping[str, str]) -> dict[str, Any]:
    """Where the report was made; `load`: processes that ran when it began."""
    info = report["machine_info"]
    return {
        "cpu": info["cpu"].get("brand_raw", info["processor"]),
        "cores": info["cpu"].get("count"),
        "load": round(load, 2),
        "python": info["python_version"],
        "versions": dict(versions),
    }


def markdown(found: Mapping[str, Any]) -> str:
    """The machine in one line, the table of times, and that of periods if they were looked for."""
    blocks = [_machine(found["machine"]), _times(found["rows"])]
    if found["recovered"]:
        blocks.append(_recovered(found["recovered"]))
    return "\n\n".join(blocks) + "\n"


def _machine(machine: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores, load {machine['load']} before; "
        f"Python {machine['python']}, {versions}."
    )


def _times(rows: Sequence[Mapping[str, Any]]) -> str:
    """Times are of one light curve."""
    lines = [
        [
            row["what"],
            str(row["n"]),
            quantity(row["ours_s"]),
            row["peer"],
            quantity(row["peer_s"]),
            f"{row['times_faster']:.{1 if row['times_faster'] >= 3 else 2}f}",
            _bar(row),
            CLOCKS[row["clock"]],
        ]
        for row in rows
    ]
    heads = ["what", "n", "ours, a curve", "peer", "peer, a curve", "times faster", "bar", "clock"]
    return _table(heads, "lrrlrrll", lines)


def _bar(row: Mapping[str, Any]) -> str:
    if row["bar"] is None:
        return ""
    return f"{row['bar']:g}, {'met' if row['times_faster'] >= row['bar'] else 'missed'}"


def _recovered(records: Sequence[Mapping[str, Any]]) -> str:
    """Shares in per cent: ours and nifty-ls's highest peak."""
    shares = ("ours", "nifty_ls", "exact_ours", "exact_nifty_ls")
    lines = [
        [record["class"], str(record["n"]), *(f"{100 * record[name]:.1f}" for name in shares)]
        for record in records
    ]
    heads = ["class", "n", "ours, %", "nifty-ls, %", "exact, ours, %", "exact, nifty-ls, %"]
    return (
        "Stars found within 1 % of P, P/2 or 2P, and of P alone (exact); nifty-ls: its highest peak.\n\n"
        + _table(heads, "lrrrrr", lines)
    )


def quantity(seconds: float) -> str:
    """Three digits, in µs below a millisecond."""
    value, unit = (seconds * 1e6, "µs") if seconds < 1e-3 else (seconds * 1e3, "ms")
    return f"{value:.3g} {unit}" if value < 100 else f"{value:.0f} {unit}"


def _table(heads: Sequence[str], sides: str, lines: Sequence[Sequence[str]]) -> str:
    rule = ["---:" if side == "r" else "---" for side in sides]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [heads, rule, *lines])


def _measure(arguments: Sequence[str]) -> tuple[dict[str, Any] | None, int]:
    """pytest-benchmark's report, if there is one, and pytest's exit code."""
    # numpy's own threads would count twice in CPU time
    alone = os.environ | dict.fromkeys(THREADS, "1")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.json"
        options = ["-q", "--no-header", "--benchmark-only", "--benchmark-quiet", f"--benchmark-json={path}"]
        command = [sys.executable, "-m", "pytest", str(Path(__file__).parent), *options, *arguments]
        code = subprocess.run(command, stdout=sys.stderr, env=alone, check=False).returncode
        text = path.read_text() if path.exists() else ""
    return (json.loads(text) if text else None), code


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--format", choices=["markdown", "json"], default="markdown")
    options, others = parser.parse_known_args(arguments)
    load = os.getloadavg()[0]
    report, code = _measure(others)
    if report is None:
        sys.stderr.write("nothing was measured: see pytest's output above\n")
        return 1
    found = figures(report, machine_of(report, load, {name: version(name) for name in LIBRARIES}))
    shown = markdown(found) if options.format == "markdown" else json.dumps(found, indent=1) + "\n"
    sys.stdout.write(shown)
    return 1 if code else 0


if __name__ == "__main__":
    sys.exit(main())
