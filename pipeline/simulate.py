"""Write a ZTF-like HATS release of any size, with the truth beside it.

Cadence, depth, errors, flags, outliers and magnitudes are drawn from numbers measured on real ZTF files (`survey`,
refitted by `fit_survey`); variable stars have the shapes of the literature (`variables`, `observe`). It is for testing
and sizing: quote no accuracy on it.

Chosen, not measured, each where it stands: the length (`survey.YEARS`), the share of exposures taken
(`exposures.PACE`), the share of detections that hardly recur and which filters a star has (`stars`), the classes
(`variables.CLASSES`), and the sky (`sky`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import pyarrow.parquet as pq

from lightmill.catalogs.finish import finish_catalog, partition_path
from lightmill.pipeline.sky import patches
from lightmill.pipeline.tables import LAYOUTS, TRUTH, Task, write_partition

CREATION_DATE = "2018-03-17T00:00UTC"  # fixed: equal arguments must write equal bytes


@dataclass(frozen=True)
class Simulated:
    """What `simulate` has written."""

    light_curves: int
    epochs: int
    partitions: int
    seconds: float
    path: Path


def simulate(
    out: Path,
    n: int,
    *,
    seed: int,
    layout: str = "nested",
    variable_fraction: float = 0.025,
    processes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Simulated:
    """Write `n` light curves to the new or empty folder `out`: a HATS catalogue, and `out/truth.parquet`.

    A light curve is one star in one field and filter, as in a ZTF release: a star with g and r is two rows.
    Layout `nested` has one column `lightcurve`, a struct of lists (IRSA's HATS release); `list` has five
    list columns (IRSA's bulk files, but `hmjd` is float64). An epoch has hmjd (d), mag, magerr (mag),
    clrcoeff and catflags; a row objectid, filterid (1 g, 2 r, 3 i), fieldid, rcid, objra, objdec (degrees),
    nepochs and `_healpix_29`, by which rows are sorted. The truth has objectid, label, period (d; null where
    there is none; of RRd that of the first overtone, which dominates) and amplitude (mag in g, peak to peak).

    The real files behind the fitted numbers cover 2.4 years; here it is `survey.YEARS`, so that a light curve
    of a lasting star has about 200 good epochs, as in a late release, and not 50 to 100.

    Equal arguments write equal bytes, whatever the number of processes (default: one a core; they are
    spawned, so a script needs `if __name__ == "__main__":`). `progress` gets light curves done and wanted.

    Raises ValueError where n < 1, the seed is negative, the layout is unknown, the fraction is outside 0 to
    1, or `out` is not empty.
    """
    _check(out, n, seed, layout, variable_fraction, processes)
    began = time.perf_counter()
    tasks = plan(out, n, seed, layout, variable_fraction)
    (out / ".truth").mkdir(parents=True, exist_ok=True)
    epochs = done = 0
    for task, written in _run(tasks, processes or os.cpu_count() or 1):
        epochs, done = epochs + written, done + task.patch.rows
        if progress is not None:
            progress(done, n)
    _join_truth(out, tasks)
    finish_catalog(
        out,
        name="ztf_simulated",
        partitions={(task.patch.order, task.patch.pixel): task.patch.rows for task in tasks},
        ra_column="objra",
        dec_column="objdec",
        properties={
            "obs_title": "Simulated light curves, like those of the Zwicky Transient Facility",
            "hats_creation_date": CREATION_DATE,
            "lightmill_simulated": f"n={n} seed={seed} layout={layout} variable_fraction={variable_fraction}",
        },
    )
    return Simulated(n, epochs, len(tasks), time.perf_counter() - began, out)


def _check(out: Path, n: int, seed: int, layout: str, fraction: float, processes: int | None) -> None:
    if n < 1:
        raise ValueError(f"n = {n} light curves, at least 1 is needed: ask for a positive number")
    if seed < 0:
        raise ValueError(f"seed = {seed} is negative: give 0 or more")
    if layout not in LAYOUTS:
        raise ValueError(f"layout {layout!r} is unknown: use one of {', '.join(LAYOUTS)}")
    if not 0 <= fraction <= 1:
        raise ValueError(f"variable_fraction = {fraction} is outside 0 to 1: give a share of the stars")
    if processes is not None and processes < 1:
        raise ValueError(f"processes = {processes}, at least 1 is needed: leave it out for one a core")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists and is not an empty folder: name another one, or remove it")


def plan(out: Path, n: int, seed: int, layout: str, variable_fraction: float) -> list[Task]:
    """The partitions to write, in the order of the sky."""
    return [
        Task(
            path=partition_path(out, patch.order, patch.pixel),
            truth=out / ".truth" / f"{patch.order}-{patch.pixel}.parquet",
            seed=seed,
            n=n,
            patch=patch,
            layout=layout,
            variable_fraction=variable_fraction,
        )
        for patch in patches(seed, n)
    ]


def _run(tasks: list[Task], processes: int) -> Iterator[tuple[Task, int]]:
    """Each task with the number of epochs that it wrote, in the order in which they finish."""
    if min(processes, len(tasks)) == 1:
        yield from ((task, write_partition(task)) for task in tasks)
        return
    with ProcessPoolExecutor(min(processes, len(tasks)), mp_context=get_context("spawn")) as pool:
        # The largest first: the last to finish is then a small one.
        largest_first = sorted(tasks, key=lambda task: -task.patch.rows)
        futures = {pool.submit(write_partition, task): task for task in largest_first}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _join_truth(out: Path, tasks: list[Task]) -> None:
    """One table from those of the partitions, in the order of the sky; a partition at a time in memory."""
    part = out / ".truth" / "all.part"
    with pq.ParquetWriter(part, TRUTH, compression="zstd", compression_level=3) as writer:
        for task in tasks:
            writer.write_table(pq.read_table(task.truth))
            task.truth.unlink()
    part.replace(out / "truth.parquet")
    part.parent.rmdir()
