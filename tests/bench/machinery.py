"""What the machinery of runs costs: planning, driving and sealing a release of very many partitions that need no work.

    python tests/bench/machinery.py --units 100000
    python tests/bench/machinery.py --units 100000 --plan-only     # the run's receipts are written by hand, in one file
    python tests/bench/machinery.py --units 20 --seconds 60        # units that take a minute, and only wait

Prints JSON: seconds to plan before and after the run, milliseconds a unit of wall and of the driver's own time, the
driver's memory along the way, and of units that take their time, what the run takes longer than that.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

PROPERTIES = """#HATS catalog
obs_collection=many
dataproduct_type=object
hats_nrows={rows}
hats_col_ra=objra
hats_col_dec=objdec
hats_npix_suffix=.parquet
hats_order={order}
hats_version=v1.0
"""


def release(root: Path, units: int) -> Path:
    """A release of so many partitions, which are all one file under many names."""
    order = 0
    while 12 * 4**order < units:
        order += 1
    lists = {"hmjd": pa.float64(), "mag": pa.float32(), "magerr": pa.float32(), "catflags": pa.int32()}
    table = pa.table(
        {"objectid": pa.array([1], pa.int64()), "filterid": pa.array([1], pa.int8()),
         "objra": pa.array([10.0], pa.float32()), "objdec": pa.array([1.0], pa.float32())}
        | {name: pa.array([[1] * 5], pa.list_(dtype)) for name, dtype in lists.items()}
    )  # fmt: skip
    root.mkdir(parents=True)
    first = root / "first"
    pq.write_table(table, first)
    for pixel in range(units):
        folder = root / "dataset" / f"Norder={order}" / f"Dir={pixel // 10_000 * 10_000}"
        if pixel % 10_000 == 0:
            folder.mkdir(parents=True)
        target = folder / f"Npix={pixel}.parquet"
        try:
            os.link(first, target)
        except OSError:  # as many links as the file system allows
            first.unlink()
            pq.write_table(table, first)
            os.link(first, target)
    first.unlink()
    (root / "hats.properties").write_text(PROPERTIES.format(rows=units, order=order))
    (root / "partition_info.csv").write_text(
        "Norder,Npix\n" + "".join(f"{order},{pixel}\n" for pixel in range(units))
    )
    return root


@dataclass(frozen=True)
class Nothing:
    """A unit's function that waits, and proves that it was there."""

    wait: float = 0.0  #: [s]

    def __call__(self, unit: Any) -> Any:
        from lightmill.catalogs.receipts import Receipt, write_receipt

        time.sleep(self.wait)
        receipt = Receipt(
            *unit.key, unit.fingerprint, rows_in=1, classified=0, rejected={"too_few_epochs": 1}, bytes=0,
            seconds=0.001, run_id=unit.folder.run_id, input=unit.partition.identity(),
            input_bytes=unit.partition.bytes, attempt=unit.attempt, epochs=5,
        )  # fmt: skip
        write_receipt(unit.folder.receipts, receipt)
        return receipt


def pretend(plan: Any, catalogue: Any) -> None:
    """What a run of a plan leaves when all its units have ended without a row."""
    from lightmill.catalogs.receipts import Receipt, write_json
    from lightmill.catalogs.runfolder import write_index
    from lightmill.pipeline.planfile import save_plan

    folder = catalogue.run(plan.run_id)
    save_plan(plan, folder.plan)
    write_json(folder.record, asdict(plan.identity) | {"run_id": plan.run_id})
    receipts = [
        Receipt(
            *task.key, task.fingerprint, rows_in=1, classified=0, rejected={"too_few_epochs": 1}, bytes=0,
            seconds=0.001, run_id=plan.run_id, input=task.partition.identity(),
            input_bytes=task.partition.bytes, epochs=5,
        )
        for task in plan.tasks
    ]  # fmt: skip
    write_index(folder.index, receipts)


@contextmanager
def opened(below: Path) -> Iterator[list[str]]:
    """Files below a folder that are opened as Parquet while it lasts."""
    names: list[str] = []
    original = pq.ParquetFile.__init__

    def spy(self: Any, source: Any, *arguments: Any, **options: Any) -> None:
        if str(getattr(source, "path", source)).startswith(str(below / "dataset" / "Norder")):
            names.append(str(source))
        original(self, source, *arguments, **options)

    pq.ParquetFile.__init__ = spy
    try:
        yield names
    finally:
        pq.ParquetFile.__init__ = original


def measure(
    units: int, folder: Path, workers: int = 2, *, plan_only: bool = False, wait: float = 0.0
) -> dict[str, Any]:
    """Plan, drive, plan again; figures."""
    import cloudpickle

    from lightmill.catalogs.runfolder import CatalogueFolder
    from lightmill.pipeline.execute import Machine, execute
    from lightmill.pipeline.planning import check_world, make_plan
    from lightmill.pipeline.recipe import load_recipe

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    recipe, catalogue = load_recipe("ztf-dr"), CatalogueFolder(folder / "catalogue")
    url = str(release(folder / "release", units))
    process, figures = psutil.Process(), {"units": units}

    def timed(name: str, function: Any, *arguments: Any, **options: Any) -> Any:
        start, used = time.perf_counter(), time.process_time()
        result = function(*arguments, **options)
        figures[name] = round(time.perf_counter() - start, 2)
        figures[f"{name}, driver's own"] = round(time.process_time() - used, 2)
        return result

    figures["driver's memory before [MiB]"] = process.memory_info().rss >> 20
    plan = timed("plan [s]", make_plan, url, recipe, catalogue=catalogue)
    figures["driver's memory with the plan [MiB]"] = process.memory_info().rss >> 20
    if plan_only:
        timed("save [s]", pretend, plan, catalogue)
        with opened(Path(url)) as names:
            again = timed("plan again [s]", make_plan, url, recipe, catalogue=catalogue)
        figures["data files opened by the second plan"] = len(names)
        changed = timed("plan all [s]", make_plan, url, recipe, catalogue=catalogue, policy="all")
        timed("check world [s]", check_world, changed)
        figures["driver's memory at the end [MiB]"] = process.memory_info().rss >> 20
        assert len(plan.tasks) == len(again.current) == len(changed.tasks) == units
        return figures
    memory: list[int] = []
    marks: dict[str, float] = {}

    def watch(event: str, facts: dict[str, Any]) -> None:
        marks[event] = time.perf_counter()
        if event == "done":
            count[0] += 1
            if count[0] % max(units // 10, 1) == 0:
                memory.append(process.memory_info().rss >> 20)

    count = [0]
    machine = Machine(workers=workers, function=Nothing(wait), setup=None)
    timed("run [s]", execute, plan, catalogue, machine, watch=watch)
    again = timed("plan again [s]", make_plan, url, recipe, catalogue=catalogue)
    assert len(plan.tasks) == len(again.current) == count[0] == units
    figures["a unit, wall [ms]"] = round(figures["run [s]"] / units * 1e3, 3)
    figures["a unit, driver's own [ms]"] = round(figures["run [s], driver's own"] / units * 1e3, 3)
    figures["driver's memory at each tenth [MiB]"] = memory
    if wait:
        least = -(-units // workers) * wait
        figures["overhead, first to last unit [%]"] = round(
            100 * (marks["done"] - marks["started"] - least) / least, 2
        )
        figures["overhead, whole run [%]"] = round(100 * (figures["run [s]"] - least) / least, 2)
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--units", type=int, default=100_000)
    parser.add_argument("--plan-only", action="store_true", help="drive no unit")
    parser.add_argument("--seconds", type=float, default=0.0, help="that a unit takes")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = measure(given.units, Path(name), plan_only=given.plan_only, wait=given.seconds)
        print(json.dumps(found, indent=1))
