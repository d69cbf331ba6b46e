"""The demonstration: simulate (or take a release), classify, publish, ask three questions, report."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["demo", "steps"]

LIGHT_CURVES = 30_000
SEED = 20

BY_CLASS = (
    "SELECT best_class, count(*) AS n, round(avg(best_prob), 3) AS mean_prob, "
    "round(avg(amplitude), 3) AS mean_amplitude FROM catalogue GROUP BY best_class ORDER BY n DESC"
)
BY_FILTER = (
    "SELECT filterid, count(*) AS n, round(avg(p_variable), 4) AS mean_p_variable, median(n_good) AS median_epochs "
    "FROM catalogue GROUP BY filterid ORDER BY filterid"
)


def steps(out: Path, release: str | None) -> list[list[str]]:
    """The command lines of the demonstration, without the program's name."""
    source = release or str(out / "release")
    catalogue = str(out / "catalogue")
    first = [] if release else [["simulate", "--n", str(LIGHT_CURVES), "--seed", str(SEED), "--out", source]]
    return [
        *first,
        ["run", source, "--recipe", "ztf-dr", "--out", catalogue],
        ["query", catalogue, "--sql", BY_CLASS],
        ["query", catalogue, "--sql", BY_FILTER],
        ["query", catalogue, "--class", "RRab", "--min-prob", "0.5", "--limit", "5"],
        ["report", catalogue, "--out", str(out / "report.html")],
    ]


def demo(
    out: Path, release: str | None, execute: Callable[[Sequence[str]], None], say: Callable[[str], None]
) -> None:
    """Run the demonstration: say each command, execute it, and at the end say what to look at.

    A release that an earlier demonstration simulated is used again; its catalogue too: `run` does what is missing.
    """
    out.mkdir(parents=True, exist_ok=True)
    for arguments in steps(out, release):
        say(f"$ lightmill {shlex.join(arguments)}")
        if arguments[0] == "simulate" and (out / "release" / "hats.properties").exists():
            say("(is there already)")
            continue
        execute(arguments)
        say("")
    say("Look at")
    say(f"  {out / 'report.html'}   the report: open it in a browser")
    say(
        f"  {out / 'catalogue'}   the catalogue: lightmill query {out / 'catalogue'} --help, or lsdb.open_catalog(…)"
    )
    if release is None:
        say(f"  {out / 'release' / 'truth.parquet'}   what was simulated, to compare with")
