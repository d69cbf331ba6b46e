"""A simulated release from end to end: light curves a second of one core and of two, and where the time goes.

    python tests/bench/end_to_end.py --n 200000
    python tests/bench/end_to_end.py --workers 1 2 1 2     in turns, where the machine is not quiet

The rate of a core is light curves over the time that workers spent on units, from the first read to the receipt;
start-up of workers and publishing are told beside it. Prints Markdown.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from lightmill.catalogs.receipts import Receipt
from lightmill.catalogs.runfolder import CatalogueFolder
from lightmill.pipeline.recipe import load_recipe
from lightmill.pipeline.run import run
from lightmill.pipeline.simulate import simulate


def measure(folder: Path, release: Path, workers: int) -> dict[str, Any]:
    """One run; figures."""
    marks: dict[str, float] = {}
    first = last = 0.0
    receipts: list[Receipt] = []

    def watch(event: str, facts: dict[str, Any]) -> None:
        nonlocal first, last
        marks.setdefault(event, time.perf_counter())
        if event == "done":
            receipts.append(facts["receipt"])
            last = time.perf_counter()
            first = first or last

    out, start = folder / "catalogue", time.perf_counter()
    summary = run(str(release), load_recipe("ztf-dr"), out, workers=workers, watch=watch)
    stages: Counter[str] = Counter()
    for receipt in receipts:
        stages.update(receipt.stages)
    busy, rows = sum(receipt.seconds for receipt in receipts), sum(receipt.rows_in for receipt in receipts)
    stages["else"] = busy - stages.total()
    return {
        "workers": workers,
        "light curves": rows,
        "epochs a light curve": sum(receipt.epochs for receipt in receipts) / rows,
        "partitions": len(receipts),
        "classified": summary.classified,
        "per core": rows / busy,
        "wall": rows / (last - marks["started"]),
        "start-up": marks["started"] - marks["starting"],
        "publishing": time.perf_counter() - marks["publishing"],
        "all": time.perf_counter() - start,
        "peak": summary.peak_rss_bytes / 2**20,
        "stages": {name: 1e6 * seconds / rows for name, seconds in stages.most_common()},
        "receipts": CatalogueFolder(out).runs()[0].run_id,
    }


def page(found: list[dict[str, Any]]) -> str:
    """The figures as Markdown."""
    heads = (
        "workers",
        "light curves/s a core, read to commit",
        "wall",
        "start-up",
        "publishing",
        "peak memory",
    )
    lines = [f"| {' | '.join(heads)} |", "| ---: | ---: | ---: | ---: | ---: | ---: |"]
    lines += [
        f"| {one['workers']} | {one['per core']:,.0f} | {one['wall']:,.0f} | {one['start-up']:.1f} s | "
        f"{one['publishing']:.1f} s | {one['peak']:,.0f} MiB |"
        for one in found
    ]
    lines += ["", "| stage | µs a light curve |", "| --- | ---: |"]
    lines += [f"| {name} | {value:.1f} |" for name, value in found[0]["stages"].items()]
    one = found[0]
    lines += ["", f"{one['light curves']:,} light curves, {one['epochs a light curve']:.0f} epochs each, "
              f"{one['classified']:,} classified, {one['partitions']} partitions."]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=200_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="of each run")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        simulate(Path(name) / "release", given.n, seed=1)
        found = []
        for k, workers in enumerate(given.workers):
            folder = Path(name) / str(k)
            folder.mkdir()
            found.append(measure(folder, Path(name) / "release", workers))
        print(page(found))
