"""The report of a run: built by hand with every class of failure, read back, and every figure checked."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from lightmill.catalogs.partitions import File, Partition
from lightmill.catalogs.receipts import FailedAttempt, Quarantined, Receipt, write_json, write_receipt
from lightmill.catalogs.runfolder import CatalogueFolder, NotAnOutput, RunFolder
from lightmill.pipeline import cli_report
from lightmill.pipeline.failures import ErrorClass, decide
from lightmill.pipeline.plan import Current, Identity, Plan, Task
from lightmill.pipeline.planfile import save_plan
from lightmill.pipeline.report_attempts import IN_WORDS
from lightmill.pipeline.report_units import STATES, UNITS, account, is_run
from lightmill.pipeline.report_units_page import COLOURS, STATES_IN_WORDS, duration, page_of, report_run, size

APP = typer.Typer()
cli_report.register(APP)
RUN = "20261128T101500-1a2b3c"
START = datetime(2026, 11, 28, 10, 15, tzinfo=UTC)
ORDER = 3
DONE = 60  #: units that are done


def identity() -> Identity:
    """What the run is made of."""
    return Identity(
        release="/data/ztf-dr24",
        recipe={"name": "ztf-dr"},
        science={},
        models={"bundle": "b" * 64},
        versions={"algorithm": 3, "schema": 1},
        code="0.1.0",
        environment={"python": "3.11.7"},
    )


def task(pixel: int, reason: str) -> Task:
    """A unit of the plan."""
    partition = Partition(ORDER, pixel, (File(f"/data/{pixel}", 1000 + pixel, "1"),), "", "{}")
    return Task(partition, f"{pixel:064d}", reason, 500, 100_000, 10.0, 2**30)


def receipt(pixel: int) -> Receipt:
    """That a unit is done: two at a time, ten seconds each and a little more."""
    began = START + timedelta(seconds=10 * (pixel // 2))
    seconds = 9.0 + pixel / 100
    return Receipt(
        ORDER, pixel, f"{pixel:064d}", 400 + pixel, 390 + pixel, {"too_few_epochs": 7, "flagged": 3}, 0, seconds,
        {"read": 2.0, "classify": seconds - 2.5, "commit": 0.5}, 90_000, (600 + pixel) * 2**20, f"node{pixel % 3}",
        {"numpy": "2.4.6", "lightmill": "0.1.0"}, (began + timedelta(seconds=seconds)).isoformat(), RUN, "x",
        1000 + pixel, 2 if pixel == 5 else 1, began.isoformat(), "",
    )  # fmt: skip


def failure(pixel: int, attempt: int, kind: str, decision: str, *, alone: bool = False) -> FailedAttempt:
    """A try that failed."""
    return FailedAttempt(
        ORDER, pixel, attempt, kind, f"Error: <{kind}> of {pixel}", decision, f"{pixel:064d}", RUN,
        "" if kind == "WORKER_LOST" else "node1", 4.5, 10**6, alone, 2**30, START.isoformat(),
        "Traceback:\n  in classify" if kind == "BUG" else "",
    )  # fmt: skip


FAILURES = [
    failure(5, 1, "WORKER_LOST", "alone"),  # in company of 61: done in the end
    failure(61, 1, "WORKER_LOST", "alone"),
    *(failure(61, n, "WORKER_LOST", "quarantine" if n == 4 else "alone", alone=True) for n in (2, 3, 4)),
    failure(62, 1, "INPUT_CORRUPT", "quarantine"),
    failure(63, 1, "SCHEMA", "quarantine"),
    failure(64, 1, "OOM", "halve"),
    failure(64, 2, "OOM", "halve", alone=True),
    failure(64, 3, "OOM", "quarantine", alone=True),
    *(failure(65, n, "IO_TRANSIENT", "failed" if n == 4 else "retry") for n in (1, 2, 3, 4)),
    failure(66, 1, "MODEL", "failed"),
    failure(67, 1, "BUG", "retry"),
    failure(67, 2, "BUG", "quarantine"),
    failure(68, 1, "TIMEOUT", "alone"),
    failure(68, 2, "TIMEOUT", "quarantine", alone=True),
    failure(69, 1, "BUG", "retry"),  # not given up: still to do
]
HELD = (61, 62, 63, 64, 67)  #: in quarantine; 68 has been released since


def make_run(catalogue: Path, *, ended: bool = True) -> RunFolder:
    """A run of 70 units, of which 60 are done."""
    root = CatalogueFolder.at(catalogue)
    folder = root.run(RUN)
    folder.root.mkdir(parents=True)
    plan = Plan(
        RUN,
        identity(),
        tuple(task(pixel, "new" if pixel % 2 else "input changed") for pixel in range(70)),
        current=tuple(Current(ORDER, pixel, "earlier", "0" * 64) for pixel in range(70, 90)),
        quarantined=((ORDER, 90),),
        left=((ORDER, 91),),
        orphans=((ORDER, 300),),
    )
    save_plan(plan, folder.plan)
    created = START.isoformat(timespec="seconds")
    write_json(
        folder.record, asdict(plan.identity) | {"run_id": RUN, "created": created, "plan_sha256": "c" * 64}
    )
    for pixel in range(DONE):
        write_receipt(folder.receipts, receipt(pixel))
    # of another fingerprint: no proof of what this plan wants
    write_receipt(folder.receipts, replace(receipt(66), fingerprint="e" * 64))
    for one in FAILURES:
        write_json(folder.failure(*one.key, one.attempt), asdict(one))
    for pixel in HELD:
        root.put_in_quarantine(Quarantined(ORDER, pixel, f"{pixel:064d}", "BUG", "Error", RUN, 1))
    root.put_in_quarantine(Quarantined(ORDER, 60, "another", "BUG", "Error", "earlier", 1))
    if ended:
        folder.seal()
        write_json(folder.end, {"state": "partial", "ended": "2026-11-28T10:21:00+00:00"})
    return folder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run that has ended."""
    return make_run(tmp_path / "catalogue")


def test_units_by_state(run: RunFolder) -> None:
    found = account(run)
    assert found.counts == {
        "done": 60, "failed": 3, "quarantined": 5, "to do": 2, "current": 20, "kept out": 1, "left": 1,
    }  # fmt: skip
    state = {(unit.order, unit.pixel): unit.state for unit in found.units}
    assert {key for key, name in state.items() if name == "failed"} == {(3, 65), (3, 66), (3, 68)}
    assert {key for key, name in state.items() if name == "quarantined"} == {(3, pixel) for pixel in HELD}
    assert {key for key, name in state.items() if name == "to do"} == {(3, 60), (3, 69)}
    assert (found.state, found.ended) == ("partial", "2026-11-28T10:21:00+00:00")
    # a plan's orphans are no units: their partition is gone
    assert len(found.units) == 92


def test_totals_and_distributions(run: RunFolder) -> None:
    found, receipts = account(run), [receipt(pixel) for pixel in range(DONE)]
    assert found.totals["light_curves"] == sum(r.rows_in for r in receipts)
    assert found.totals["classified"] == sum(r.classified for r in receipts)
    assert found.rejected == {"too_few_epochs": 420, "flagged": 180}
    seconds = np.array([r.seconds for r in receipts])
    assert found.totals["worker_seconds"] == pytest.approx(seconds.sum())
    assert found.seconds["p50"] == pytest.approx(np.median(seconds))
    assert found.seconds["max"] == pytest.approx(9.59)
    assert found.memory["max"] == (600 + 59) * 2**20
    assert [unit.seconds for unit in found.units if unit.state == "done"] == seconds.tolist()
    assert found.stages == {
        "classify": pytest.approx(seconds.sum() - 150), "read": 120.0, "commit": 30.0,
    }  # fmt: skip
    assert list(found.stages) == ["classify", "read", "commit"]
    assert [row["pixel"] for row in found.slowest] == list(range(59, 44, -1))
    assert found.slowest[0]["longest_stage"] == "classify"


def test_the_timeline_adds_up(run: RunFolder) -> None:
    found = account(run)
    receipts = [receipt(pixel) for pixel in range(DONE)]
    assert len(found.timeline) == DONE // UNITS
    assert sum(bin["units"] for bin in found.timeline) == DONE
    assert sum(bin["light_curves"] for bin in found.timeline) == found.totals["light_curves"]
    busy = sum(bin["busy"] * (bin["end"] - bin["start"]) for bin in found.timeline)
    assert busy == pytest.approx(sum(r.seconds for r in receipts), rel=2e-3)
    # two at a time, which wait up to a second of ten
    assert all(1.75 < bin["busy"] <= 2 for bin in found.timeline)
    assert found.timeline[-1]["end"] == pytest.approx(found.totals["wall_seconds"], abs=1e-3)


def test_blame(run: RunFolder) -> None:
    found = {blame.error_class: blame for blame in account(run).failures}
    assert set(found) == {str(kind) for kind in ErrorClass}
    lost = found["WORKER_LOST"]
    assert (lost.tries, lost.not_blamed, lost.units, lost.done_later, lost.given_up) == (5, 2, 2, 1, 1)
    assert lost.hosts == {}
    assert lost.decided == {"alone": 4, "quarantine": 1}
    assert (found["BUG"].tries, found["BUG"].given_up, found["BUG"].done_later) == (3, 1, 0)
    assert (found["OOM"].not_blamed, found["OOM"].given_up) == (0, 1)
    assert found["IO_TRANSIENT"].seconds == 18.0
    # the most frequent class first
    tries = [blame.tries for blame in account(run).failures]
    assert tries == sorted(tries, reverse=True)


def test_the_driver_and_the_report_agree_on_who_is_not_to_blame() -> None:
    # the driver does not blame who was with a worker that died, among others, and tries it again alone
    assert decide(ErrorClass.WORKER_LOST, 0, 1, to_blame=False).name == "alone"


def test_every_failed_try_is_listed_and_grouped(run: RunFolder) -> None:
    found = account(run).attempts
    assert len(found) == len(FAILURES)
    classes = [row["error_class"] for row in found]
    assert len([a for a, b in pairwise(classes) if a != b]) == len(set(classes)) - 1
    mine = [row for row in found if row["pixel"] == 61]
    assert [(row["attempt"], row["alone"], row["to_blame"]) for row in mine] == [
        (1, False, False), (2, True, True), (3, True, True), (4, True, True),
    ]  # fmt: skip
    assert [row["done_later"] for row in found if row["pixel"] == 5] == [True]


def test_plan_and_environment(run: RunFolder) -> None:
    found = account(run)
    assert found.plan["reasons"] == {"input changed": 35, "new": 35}
    assert (found.plan["tasks"], found.plan["current"], found.plan["orphans"]) == (70, 20, 1)
    assert found.plan["seconds_estimated"] == 700.0
    assert found.plan["seconds_estimated_of_done"] == 600.0
    assert found.plan["memory_estimated"] == 2**30
    assert found.environment["hosts"] == {"node0": 20, "node1": 20, "node2": 20}
    assert found.environment["software"] == {"lightmill 0.1.0": 60, "numpy 2.4.6": 60}
    assert found.environment["models"] == {"bundle": "b" * 64}
    assert found.environment["release"] == "/data/ztf-dr24"


def test_a_file_that_is_not_there_is_not_done(tmp_path: Path) -> None:
    run = make_run(tmp_path / "catalogue", ended=False)
    write_receipt(run.receipts, replace(receipt(60), bytes=100))
    state = {unit.pixel: unit.state for unit in account(run).units}
    assert state[60] == "to do"


def test_the_page_lies_beside_the_run(run: RunFolder) -> None:
    before = sorted(run.root.rglob("*"))
    page = report_run(run)
    assert page == run.catalogue.root / "reports" / f"{RUN}.html"
    assert page == page_of(run)
    assert sorted(run.root.rglob("*")) == before
    run.catalogue.check()
    html = page.read_text()
    assert "Error: &lt;INPUT_CORRUPT&gt; of 62" in html
    for name in (
        *(str(kind) for kind in ErrorClass),
        "node2",
        "numpy 2.4.6",
        "input changed",
        "too_few_epochs",
    ):
        assert name in html
    assert "The run has not ended" not in html


def test_the_page_fetches_nothing(run: RunFolder) -> None:
    html = report_run(run).read_text()
    assert "default-src 'none'" in html
    assert not re.search(r"<(script|link|iframe)\b", html)
    addresses = re.findall(r"""(?:src|href)\s*=\s*["']([^"']+)|url\(([^)]+)""", html)
    assert {(a or b).strip("'\"")[:5] for a, b in addresses} <= {"data:"} | {
        (a or b).strip("'\"")[:5] for a, b in addresses if (a or b).strip("'\"").startswith("#")
    }


def test_a_run_that_has_just_begun(tmp_path: Path) -> None:
    root = CatalogueFolder.at(tmp_path / "catalogue")
    folder = root.run(RUN)
    folder.root.mkdir(parents=True)
    save_plan(Plan(RUN, identity(), (task(1, "new"),)), folder.plan)
    write_json(folder.record, asdict(identity()))
    found = account(folder)
    assert (found.state, found.counts, found.timeline, found.seconds) == ("not ended", {"to do": 1}, [], {})
    html = report_run(folder).read_text()
    assert "The run has not ended" in html
    assert "No unit is done yet" in html
    assert "No try has failed" in html


def test_what_is_no_run(tmp_path: Path) -> None:
    assert not is_run(tmp_path)
    with pytest.raises(NotAnOutput, match="is not a run"):
        report_run(RunFolder(tmp_path))


def test_the_command(run: RunFolder, tmp_path: Path) -> None:
    done = CliRunner().invoke(APP, [str(run.root) + "/"])
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(page_of(run))
    done = CliRunner().invoke(APP, [str(run.root), "--format", "json", "--out", str(tmp_path / "page.html")])
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert facts == json.loads(json.dumps(asdict(account(run))))
    assert Counter(unit["state"] for unit in facts["units"]) == facts["counts"]
    assert (tmp_path / "page.html").exists()
    assert CliRunner().invoke(APP, [str(run.root), "--release", "x"]).exit_code == 2
    assert CliRunner().invoke(APP, [str(tmp_path), "--format", "json"]).exit_code == 2


def test_a_run_behind_a_url(run: RunFolder) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(str(run.catalogue.root), "/report-catalogue", recursive=True)
    try:
        url = f"memory://report-catalogue/runs/{RUN}"
        done = CliRunner().invoke(APP, [url, "--format", "json"])
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["counts"] == account(run).counts
        done = CliRunner().invoke(APP, [url])
        assert memory.exists(f"/report-catalogue/reports/{RUN}.html")
    finally:
        memory.rm("/report-catalogue", recursive=True)


def test_every_state_and_class_has_words_and_a_colour() -> None:
    assert set(STATES) == set(STATES_IN_WORDS) == set(COLOURS)
    assert list(COLOURS) == list(STATES)
    assert set(IN_WORDS) == set(ErrorClass)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "0.25 s"), (59.4, "59.4 s"), (200, "3 min 20 s"), (18_720, "5 h 12 min"), (3599.8, "1 h 0 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (2048, "2 KiB"), (700 * 2**20, "700 MiB"), (1010 * 2**20, "1,010 MiB")]
)
def test_sizes(count: float, text: str) -> None:
    assert size(count) == text
