"""Torture: processes killed at random moments and at each step of a commit, until a release is done all the same.

    python tests/torture.py --kills 300          # what `make torture` runs; prints one line a round, JSON at the end

A round classifies a release of more than a hundred partitions into a fresh catalogue while a driver, its workers, or
the scheduler of a cluster of its own are sent SIGKILL, and is begun again each time. Then every light curve must be
there once, every unit that had a receipt must have kept it, and every Parquet file must be, byte by byte, that of a run
that nobody disturbed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

STEPS = ("write", "flush", "verify", "rename", "link", "receipt")
"""Where a commit is cut: before the scratch file is written, before it is flushed, read back, renamed; before the
receipt gets its name, and right after that."""


def killer(folder: Path) -> None:
    """Make this process kill itself at a step of a commit, once for each file `<step>-<k>` in a folder.

    Whoever removes the file is the one that dies: of many workers, one.
    """
    import pyarrow.parquet as pq

    from lightmill.catalogs import rows, storage

    def deadly(step: str, function: Any, after: bool = False) -> Any:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            if not after:
                _die_if_asked(folder, step)
            result = function(*arguments, **options)
            if after:
                _die_if_asked(folder, step)
            return result

        return wrapped

    if getattr(storage, "deadly", False):
        return
    storage.deadly = True  # type: ignore[attr-defined]
    pq.write_table = deadly("write", pq.write_table)
    storage.sync = deadly("flush", storage.sync)
    rows._verify = deadly("verify", rows._verify)
    storage.put = deadly("rename", storage.put)
    os.link = deadly("link", os.link)
    storage.create = deadly("receipt", storage.create, after=True)


def _die_if_asked(folder: Path, step: str) -> None:
    for path in folder.glob(f"{step}-*"):
        try:
            path.unlink()
        except FileNotFoundError:
            continue
        os.kill(os.getpid(), signal.SIGKILL)


class Still:
    """A bundle that takes everything for constant: no network is loaded, the rest is as it always is."""

    digest = "0123abcd" * 8
    leaves = ("nonvar", "EW", "EA")
    classes = leaves[1:]
    statistics = ("mad_over_err",)
    threshold = 0.5
    has_gate = True
    features = ()
    priors = np.array([0.5, 0.5])

    @property
    def manifest(self) -> Still:
        return self

    def thresholds(self, epochs: np.ndarray) -> np.ndarray:
        return np.full(len(epochs), self.threshold)

    def gate(self, statistics: np.ndarray) -> np.ndarray:
        return np.clip(statistics[:, 0] / 1000, 0, 0.4).astype(np.float32)

    def needs(self, experts: tuple[str, ...] = ()) -> tuple[str, ...]:
        return ("image:count",)

    def judge(self, views: dict[str, np.ndarray], experts: tuple[str, ...] = ()) -> tuple[np.ndarray, None]:
        assert len(views["image:count"]) == 0
        return np.zeros((0, 2), np.float32), None


def without_models() -> None:
    """Let this process classify with `Still`: what is tried is what lies around the models."""
    from lightmill.pipeline import classify

    classify.prepare = lambda unit: (Still(), None)  # type: ignore[assignment, return-value]


@dataclass(frozen=True)
class Attempt:
    """`attempt_unit`, slowed down so that a kill finds it at work, and deadly where it is asked to be."""

    folder: str  #: of the orders to die
    seconds: float  #: to wait

    def __call__(self, unit: Any) -> Any:
        from lightmill.pipeline.classify import attempt_unit

        without_models()
        if self.folder:
            killer(Path(self.folder))
        time.sleep(self.seconds)
        return attempt_unit(unit)


def drive(release: Path, recipe: Path, out: Path, orders: Path, scheduler: str | None, seconds: float) -> int:
    """One driver: goes on with the plan in `out`'s folder; the exit code."""
    import cloudpickle

    from lightmill.catalogs.runfolder import CatalogueFolder
    from lightmill.pipeline.execute import Machine, execute
    from lightmill.pipeline.planfile import load_plan

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    plan = load_plan(recipe)
    killer(orders)
    machine = Machine(
        workers=2, scheduler=scheduler, patience=3.0, function=Attempt(str(orders), seconds), setup=None
    )
    ending = execute(plan, CatalogueFolder.at(out), machine)
    for record in ending.failed:
        print(f"failed: {record.key} {record.error_class} {record.error}", flush=True)
    return 0 if ending.state == "complete" else 4


@dataclass
class Round:
    """One catalogue, filled under fire."""

    release: Path
    plan: Path
    whole: dict[str, str]  #: sha256 of each file of the undisturbed run, by its name
    folder: Path
    seed: int
    kills: int
    seconds: float = 0.1
    cluster: bool = False  #: a scheduler and workers of its own, which are killed too
    killed: Counter[str] = field(default_factory=Counter)
    _cluster: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def out(self) -> Path:
        return self.folder / "catalogue"

    @property
    def orders(self) -> Path:
        return self.folder / "orders"

    def run(self) -> dict[str, Any]:
        """Kill, begin again, and see what came out."""
        self.orders.mkdir(parents=True)
        rng = random.Random(self.seed)
        kept: dict[str, str] = {}
        driver: subprocess.Popen[bytes] | None = None
        finished, starts = False, 0
        try:
            while not finished:
                if driver is None:
                    driver, starts = self._start_driver(), starts + 1
                self._order_a_death(rng)
                left = self.kills - self.killed.total() > 0
                try:
                    code = driver.wait(timeout=rng.uniform(0.2, 4.0) if left else 600)
                except subprocess.TimeoutExpired:
                    if left:
                        driver = self._kill(rng, driver)
                    else:
                        raise
                else:
                    finished, driver = code == 0, None
                    self._release_all()
                self._check_kept(kept)
            return self._verdict(starts)
        finally:
            if driver is not None:
                driver.kill()
            self._stop_cluster()

    def _start_driver(self) -> subprocess.Popen[bytes]:
        scheduler = self._start_cluster() if self.cluster else ""
        command = [sys.executable, __file__, "--drive", str(self.release), str(self.plan), str(self.out),
                   str(self.orders), scheduler, str(self.seconds)]  # fmt: skip
        with (self.folder / "driver.log").open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)

    def _order_a_death(self, rng: random.Random) -> None:
        """Now and then a worker, or the driver, dies at a step of a commit."""
        if self.kills - self.killed.total() > 0 and rng.random() < 0.5 and not any(self.orders.iterdir()):
            step = rng.choice(STEPS)
            (self.orders / f"{step}-{self.killed.total()}").touch()
            self.killed[f"at {step}"] += 1

    def _kill(self, rng: random.Random, driver: subprocess.Popen[bytes]) -> subprocess.Popen[bytes] | None:
        """Kill somebody; the driver, if it lives on."""
        kind = rng.choice(["driver", "worker", "worker", *(["scheduler"] if self.cluster else [])])
        workers = self._workers(driver)
        for _ in range(100):  # they are still starting, and this one is to die at work
            if workers or kind != "worker" or driver.poll() is not None:
                break
            time.sleep(0.1)
            workers = self._workers(driver)
        if kind == "worker" and workers:
            victim = rng.choice(workers)
            self.killed["worker"] += 1
            _kill(victim)
            return driver
        if kind == "scheduler" and self._cluster:
            self.killed["scheduler"] += 1
            self._cluster[0].kill()
            self._stop_cluster()
        else:
            self.killed["driver"] += 1
        driver.kill()
        driver.wait()
        return None

    def _workers(self, driver: subprocess.Popen[bytes]) -> list[psutil.Process]:
        """The worker processes that there are, and the ones that they were forked from."""
        parents = [driver.pid, *(process.pid for process in self._cluster[1:])]
        return [
            p
            for p in _below(*parents)
            if {"spawn_main", "forkserver"} & {*re.findall(r"\w+", " ".join(_words(p)))}
        ]

    def _start_cluster(self) -> str:
        """A scheduler and two workers as processes of their own; the scheduler's file."""
        file = self.folder / "scheduler.json"
        if self._cluster and all(process.poll() is None for process in self._cluster):
            return str(file)
        self._stop_cluster()
        file.unlink(missing_ok=True)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        dask = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
        self._cluster = [
            subprocess.Popen(
                [
                    *dask,
                    "--scheduler-file",
                    str(file),
                    "--host",
                    "127.0.0.1",
                    "--port",
                    "0",
                    "--no-dashboard",
                ],
                **quiet,
            )
        ]
        worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", str(file),
                  "--nthreads", "1", "--no-dashboard", "--host", "127.0.0.1"]  # fmt: skip
        self._cluster += [subprocess.Popen(worker, **quiet) for _ in range(2)]
        while not file.exists():
            time.sleep(0.1)
        return str(file)

    def _stop_cluster(self) -> None:
        processes = _below(*(process.pid for process in self._cluster))
        for process in self._cluster:
            process.kill()
            process.wait()
        for process in processes:
            _kill(process)
        self._cluster = []

    def _release_all(self) -> None:
        """Who was killed three times by chance is no bad partition."""
        shutil.rmtree(self.out / "quarantine", ignore_errors=True)

    def _check_kept(self, kept: dict[str, str]) -> None:
        """A receipt, once there, is never changed: its unit is computed once."""
        for path in sorted((self.out / "runs").glob("*/receipts/*/*/Npix=*.json")):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if kept.setdefault(path.name, digest) != digest:
                raise AssertionError(f"{path} was written twice")

    def _verdict(self, starts: int) -> dict[str, Any]:
        found = digests(self.out)
        if found != self.whole:
            wrong = sorted(k for k in found.keys() | self.whole.keys() if found.get(k) != self.whole.get(k))
            raise AssertionError(f"{len(wrong)} files differ from the undisturbed run's, first {wrong[:3]}")
        leftovers = [path for path in self.out.rglob("*.part")]
        if leftovers:
            raise AssertionError(f"half-written files were left: {leftovers[:3]}")
        return {"seed": self.seed, "cluster": self.cluster, "starts": starts, "kills": dict(self.killed)}


def digests(out: Path) -> dict[str, str]:
    """sha256 of each Parquet file of rows, of classified and of rejected ones, by its name."""
    return {
        "/".join(path.parts[-5:]): hashlib.sha256(path.read_bytes()).hexdigest()
        for kind in ("objects/dataset", "rejected")
        for path in (out / "runs").glob(f"*/{kind}/Norder=*/Dir=*/Npix=*.parquet")
    }


def objects(out: Path) -> list[int]:
    """Every light curve of a run, classified or rejected."""
    import pyarrow.parquet as pq

    found: list[int] = []
    for kind in ("objects/dataset", "rejected"):
        for path in sorted((out / "runs").glob(f"*/{kind}/Norder=*/Dir=*/Npix=*.parquet")):
            found += pq.ParquetFile(path).read(columns=["objectid"]).column(0).to_pylist()
    return found


def torture(
    folder: Path, release: Path, recipe: Any, *, kills: int, a_round: int, seconds: float, seed: int = 0
) -> dict[str, Any]:
    """Round after round until so many were killed; figures of all of them.

    Parameters
    ----------
    recipe : `Recipe` to apply
    a_round : kills in one round
    seconds : that each unit is held up
    """
    import cloudpickle

    from lightmill.catalogs.runfolder import CatalogueFolder
    from lightmill.pipeline.execute import Machine, execute
    from lightmill.pipeline.planfile import save_plan
    from lightmill.pipeline.planning import make_plan

    plan = make_plan(str(release), recipe)
    if len(plan.tasks) < 100 and kills >= 100:
        raise ValueError(f"{len(plan.tasks)} units are too few to be tortured: 100 at least")
    save_plan(plan, folder / "plan.parquet")
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    execute(
        plan,
        CatalogueFolder.at(folder / "whole"),
        Machine(workers=2, function=Attempt("", 0.0), setup=None),
    )
    whole = digests(folder / "whole")
    everything = sorted(objects(folder / "whole"))
    assert len(everything) == len(set(everything))
    rounds: list[dict[str, Any]] = []
    killed: Counter[str] = Counter()
    while killed.total() < kills:
        i = len(rounds)
        one = Round(
            release, folder / "plan.parquet", whole, folder / f"round-{i}", seed + i,
            min(a_round, kills - killed.total()), seconds, cluster=i % 2 == 1,
        )  # fmt: skip
        rounds.append(one.run())
        if sorted(objects(one.out)) != everything:
            raise AssertionError(f"round {i}: light curves were lost or doubled")
        killed.update(one.killed)
        print(json.dumps(rounds[-1]), flush=True)
        shutil.rmtree(one.folder)
    return {
        "units": len(plan.tasks),
        "light_curves": len(everything),
        "kills": dict(killed),
        "rounds": len(rounds),
    }


def target(folder: Path, n: int, order: int = 6) -> tuple[Path, Any]:
    """A release of n light curves in about a hundred partitions, and a recipe for it."""
    import importlib.util

    from lightmill.pipeline.recipe import load_recipe

    spec = importlib.util.spec_from_file_location("torture_conftest", Path(__file__).with_name("conftest.py"))
    assert spec is not None
    assert spec.loader is not None
    conftest = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = conftest
    spec.loader.exec_module(conftest)
    conftest.write_hats(folder / "release", conftest.make_stars(n), order=order)
    return folder / "release", load_recipe("ztf-dr")


def _below(*pids: int) -> list[psutil.Process]:
    """The processes that these have started, and those that they have."""
    found = []
    for pid in pids:
        try:
            found += psutil.Process(pid).children(recursive=True)
        except psutil.NoSuchProcess:
            continue
    return found


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


def main() -> None:
    """Command line: a driver, or all of it."""
    if sys.argv[1:2] == ["--drive"]:
        release, plan, out, orders, scheduler, seconds = sys.argv[2:8]
        sys.exit(drive(Path(release), Path(plan), Path(out), Path(orders), scheduler or None, float(seconds)))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--a-round", type=int, default=60, help="kills in one round")
    parser.add_argument("--n", type=int, default=1500, help="light curves of the release")
    parser.add_argument("--seconds", type=float, default=0.3, help="that each unit is held up")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = time.monotonic()
        figures = torture(
            folder, *target(folder, given.n), kills=given.kills, a_round=given.a_round, seconds=given.seconds
        )
    print(json.dumps(figures | {"minutes": round((time.monotonic() - start) / 60, 1)}))


if __name__ == "__main__":
    main()
