"""How far a run is: what its files tell, whoever wrote them and whether they live."""

from __future__ import annotations

import io
import os
import re
import socket
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from lightmill.catalogs.ledger import LedgerError, open_ledger
from lightmill.catalogs.receipts import FailedAttempt, Receipt, write_json, write_receipt
from lightmill.catalogs.runfolder import CatalogueFolder, NotAnOutput, RunFolder
from lightmill.pipeline.listing import runs_of_files, runs_of_ledger
from lightmill.pipeline.metrics import METRICS
from lightmill.pipeline.prometheus import exposition, write_exposition
from lightmill.pipeline.status import find_run, read_status
from lightmill.pipeline.status_page import page

RUN = "20261128T120000-abcdef"
NOW = datetime(2026, 11, 28, 12, 30, tzinfo=UTC)
FACTS = {
    "run_id": RUN, "created": "2026-11-28T12:00:00+00:00", "plan_sha256": "1" * 64, "units": 100, "code": "0.1.0",
    "release": "/data/release", "recipe": {"name": "ztf-dr"}, "science": {}, "models": {"bundle": "b" * 64},
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = CatalogueFolder.at(tmp_path / "catalogue").run(RUN)
    write_json(folder.record, FACTS)
    return folder


def lease(run: RunFolder, host: str = "", **facts: Any) -> None:
    mine = {"pid": os.getpid(), "started": psutil.Process().create_time(), "token": "t", "beat": 3}
    write_json(run.lease, {"host": host or socket.gethostname(), **mine, **facts})


def told(run: RunFolder, host: str = "", ago: float = 1, **facts: Any) -> None:
    """What a driver says, some seconds ago."""
    said = {
        "run_id": RUN, "state": "running", "updated": (NOW - timedelta(seconds=ago)).isoformat(), "beat": 7,
        "host": host or socket.gethostname(), "pid": os.getpid(), "workers": 4, "units": 100, "done": 40, "failed": 7,
        "quarantined": 2, "light_curves": 120_000, "bytes_done": 4 * 10**9, "bytes_total": 10**10, "seconds": 20.0,
        "rate": 6000.0, "left_seconds": 30.0, "running": [{"order": 5, "pixel": 9, "attempt": 2, "since": 3.5}],
        "slowest": [{"order": 5, "pixel": i, "seconds": 9.0 - i} for i in range(5)],
        "failures_by_class": {"OOM": 3, "IO_TRANSIENT": 9}, "peak_rss_bytes": 2 * 10**9,
    }  # fmt: skip
    write_json(run.progress, said | facts)


def end(run: RunFolder, state: str) -> None:
    write_json(run.end, {"state": state, "ended": "2026-11-28T13:00:00+00:00", "counts": {}})


class TestStates:
    def test_under_way(self, run: RunFolder) -> None:
        lease(run)
        told(run)
        found = read_status(run, NOW)
        assert (found.state, found.is_under_way, found.ended, found.heard_seconds) == (
            "running",
            True,
            None,
            1.0,
        )
        # of the seven that were given up two are in quarantine
        assert (found.units, found.done, found.failed, found.quarantined, found.waiting) == (
            100,
            40,
            5,
            2,
            52,
        )
        assert (found.rate, found.left_seconds, found.light_curves) == (6000.0, 30.0, 120_000)
        assert found.running == [{"order": 5, "pixel": 9, "attempt": 2, "since": 3.5}]
        assert (found.recipe, found.bundle, found.release) == ("ztf-dr", "b" * 64, "/data/release")

    @pytest.mark.parametrize(
        ("said", "state"), [("starting", "starting"), ("draining", "draining"), ("ended", "draining")]
    )
    def test_as_the_driver_says(self, run: RunFolder, said: str, state: str) -> None:
        lease(run)
        told(run, state=said)
        assert read_status(run, NOW).state == state

    def test_planned(self, run: RunFolder) -> None:
        assert read_status(run).state == "planned"
        assert read_status(run).units == 100

    def test_starting(self, run: RunFolder) -> None:
        lease(run)
        assert read_status(run).state == "starting"

    @pytest.mark.parametrize(
        "facts", [{"pid": 2**22 - 1}, {"started": 1.0}], ids=["no process", "another process"]
    )
    def test_killed(self, run: RunFolder, facts: dict[str, Any]) -> None:
        """It had no time to tell of the last two units: its receipts do."""
        lease(run, **facts)
        told(run, ago=300)
        for pixel in range(42):
            write_receipt(run.receipts, Receipt(5, pixel, "f", 10, 10, {}, 0, 1.0, input_bytes=7))
        found = read_status(run, NOW)
        assert (found.state, found.is_under_way, found.running, found.left_seconds) == (
            "killed",
            False,
            [],
            None,
        )
        assert (found.done, found.light_curves, found.bytes_done, found.bytes_total) == (42, 420, 294, 10**10)

    def test_on_another_host(self, run: RunFolder) -> None:
        lease(run, host="node17", pid=os.getpid(), started=1.0)
        told(run, host="node17")
        assert read_status(run, NOW).state == "running"
        told(run, host="node17", ago=61)
        assert read_status(run, NOW).state == "silent"

    def test_a_driver_that_hangs(self, run: RunFolder) -> None:
        lease(run)
        told(run, ago=300)
        assert read_status(run, NOW).state == "silent"

    def test_what_an_earlier_driver_said_counts_no_more(self, run: RunFolder) -> None:
        lease(run)
        told(run, ago=3000, pid=1)
        assert read_status(run, NOW).state == "starting"

    def test_stopped(self, run: RunFolder) -> None:
        told(run, state="stopped")
        assert read_status(run, NOW).state == "stopped"

    @pytest.mark.parametrize("state", ["complete", "partial"])
    def test_ended(self, run: RunFolder, state: str) -> None:
        told(run, state="ended", ago=3000)
        end(run, state)
        found = read_status(run, NOW)
        assert (found.state, found.ended, found.left_seconds) == (state, "2026-11-28T13:00:00+00:00", None)

    def test_files_that_are_cut_short(self, run: RunFolder) -> None:
        for path in (run.progress, run.lease, run.end):
            path.write_text('{"state": ')
        assert read_status(run).state == "planned"
        write_json(run.progress, {"updated": "yesterday"})
        assert read_status(run).heard_seconds is None


def test_counted_where_no_driver_left_word(run: RunFolder) -> None:
    for pixel in range(20):
        write_receipt(
            run.receipts,
            Receipt(5, pixel, "f", 10, 10, {}, 0, float(pixel), peak_rss_bytes=pixel, input_bytes=7),
        )
    tries = ((30, 1, "retry"), (30, 2, "failed"), (31, 1, "quarantine"), (32, 1, "retry"), (3, 1, "failed"))
    for pixel, attempt, decision in tries:
        one = FailedAttempt(5, pixel, attempt, "OOM" if pixel == 30 else "BUG", "x", decision)
        write_json(run.failure(5, pixel, attempt), asdict(one))
    end(run, "partial")
    found = read_status(run)
    assert (found.units, found.done, found.failed, found.quarantined) == (100, 20, 1, 1)
    assert (found.light_curves, found.bytes_done, found.peak_rss_bytes) == (200, 140, 19)
    assert found.slowest[0] == {"order": 5, "pixel": 19, "seconds": 19.0}
    assert len(found.slowest) == 10
    assert found.failures_by_class == {"OOM": 2, "BUG": 3}
    run.seal()
    assert read_status(run) == found
    run.end.unlink()
    assert read_status(run).state == "stopped"


class TestFind:
    def test_by_folder_and_catalogue(self, run: RunFolder) -> None:
        assert find_run(str(run.root)) == find_run(str(run.catalogue.root)) == run
        later = run.catalogue.run("20261129T120000-abcdef")
        write_json(later.record, FACTS)
        assert find_run(str(run.catalogue.root)) == later

    def test_by_its_id(self, run: RunFolder, ledger_at: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with open_ledger(ledger_at, run.catalogue) as ledger:
            ledger.start_run(FACTS, str(run.catalogue.root), 100)
        assert find_run(RUN, ledger_at).record.samefile(run.record)
        with pytest.raises(LedgerError, match="does not know the run 2025"):
            find_run("2025", ledger_at)
        monkeypatch.setenv("LIGHTMILL_LEDGER", ledger_at)
        assert find_run(RUN).record.samefile(run.record)

    def test_what_is_none(self, tmp_path: Path) -> None:
        with pytest.raises(NotAnOutput, match="neither the folder of a run nor a catalogue"):
            find_run(str(tmp_path))
        with pytest.raises(NotAnOutput, match=f"{RUN} is neither"):
            find_run(RUN)


class TestPrometheus:
    NAME = re.compile(r'^(lightmill_run_[a-z_]+)\{((?:[a-z_]+="(?:[^"\\\n]|\\.)*",?)+)\} (\S+)$')

    def parse(self, text: str) -> dict[str, dict[str, float]]:
        """The text format, strictly: HELP, TYPE, then samples without times, each metric once."""
        found: dict[str, dict[str, float]] = {}
        assert text.endswith("\n")
        name = ""
        for line in text.splitlines():
            if line.startswith("# HELP "):
                name = line.split(" ", 3)[2]
                assert name not in found
                found[name] = {}
            elif line.startswith("# TYPE "):
                assert line == f"# TYPE {name} gauge"
            else:
                match = self.NAME.match(line)
                assert match, line
                assert match[1] == name
                assert match[2] not in found[name]
                found[name][match[2]] = float(match[3])
        return found

    def test_all_that_is_documented(self, run: RunFolder) -> None:
        lease(run)
        told(run)
        found = self.parse(exposition(read_status(run, NOW)))
        assert list(found) == list(METRICS)
        mine = f'run_id="{RUN}"'
        assert found["lightmill_run_units"] == {
            f'{mine},state="done"': 40, f'{mine},state="failed"': 5, f'{mine},state="quarantined"': 2,
            f'{mine},state="running"': 1, f'{mine},state="waiting"': 52,
        }  # fmt: skip
        assert found["lightmill_run_state"][f'{mine},state="running"'] == 1
        assert sum(found["lightmill_run_state"].values()) == 1
        assert found["lightmill_run_input_bytes"][f'{mine},state="total"'] == 1e10
        assert found["lightmill_run_failed_attempts"] == {
            f'{mine},class="IO_TRANSIENT"': 9,
            f'{mine},class="OOM"': 3,
        }
        updated = found["lightmill_run_updated_timestamp_seconds"][mine]
        assert updated == pytest.approx((NOW - timedelta(seconds=1)).timestamp(), abs=1e-3)

    def test_every_state_has_a_sample(self, run: RunFolder) -> None:
        for state in ("complete", "partial", "stopped"):
            end(run, state)
            found = self.parse(exposition(read_status(run)))
            assert found["lightmill_run_state"][f'run_id="{RUN}",state="{state}"'] == 1
            assert "lightmill_run_left_seconds" not in found

    def test_labels_are_escaped(self, run: RunFolder) -> None:
        write_json(run.record, FACTS | {"release": 'a "release"\\of\nours'})
        assert r'release="a \"release\"\\of\nours"' in exposition(read_status(run))
        self.parse(exposition(read_status(run)))

    def test_the_file_appears_whole(
        self, run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        for _ in range(2):
            write_exposition(Path("run.prom"), read_status(run))
        assert self.parse((tmp_path / "run.prom").read_text())
        assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["run.prom"]


def shown(run: RunFolder) -> str:
    console = Console(width=100, markup=False, highlight=False, file=io.StringIO())
    with console.capture() as capture:
        console.print(page(read_status(run, NOW)))
    return capture.get()


class TestPage:
    def test_under_way(self, run: RunFolder) -> None:
        lease(run)
        told(run)
        text = shown(run)
        for part in (
            f"running: process {os.getpid()} on {socket.gethostname()}, 4 workers, heard 1.0 s ago",
            "100: 40 done, 1 under way, 52 waiting, 5 failed, 2 in quarantine",
            "120,000 light curves, 3.73 GiB of 9.31 GiB",
            "20.0 s, 6,000 light curves/s, 30.0 s left",
            "1.86 GiB in a worker",
            "47.0%",
            "5/9, attempt 2",
        ):
            assert part in text
        assert re.search(r"IO_TRANSIENT +9", text)

    @pytest.mark.parametrize(
        ("make", "text"),
        [
            (lambda run: None, "planned"),
            (lambda run: lease(run), "starting"),
            (lambda run: (lease(run, started=1.0), told(run)), "is gone.*the same command goes on"),
            (lambda run: told(run, state="stopped"), "stopped; the same command goes on"),
            (lambda run: end(run, "complete"), r"complete, 2026-11-28T13:00:00"),
        ],
    )
    def test_states(self, run: RunFolder, make: Callable[[RunFolder], object], text: str) -> None:
        make(run)
        assert re.search(text, " ".join(shown(run).split()))


class TestLists:
    def test_of_files(self, run: RunFolder) -> None:
        lease(run)
        told(run)
        other = run.catalogue.run("20261127T120000-abcdef")
        write_json(other.record, FACTS)
        end(other, "complete")
        found = runs_of_files(str(run.catalogue.root))
        assert [(one.run_id, one.state) for one in found] == [
            (RUN, read_status(run).state),
            (other.run_id, "complete"),
        ]
        assert (found[0].rate, found[1].rate) == (6000.0, None)
        with pytest.raises(NotAnOutput, match="is no catalogue of runs"):
            runs_of_files(str(run.root))

    def test_of_a_ledger(self, run: RunFolder, ledger_at: str) -> None:
        first = {"started": "2026-11-28T12:00:00+00:00", "finished": "2026-11-28T12:00:30+00:00"}
        last = {"started": "2026-11-28T12:00:10+00:00", "finished": "2026-11-28T12:00:40+00:00"}
        with open_ledger(ledger_at, run.catalogue) as ledger:
            ledger.start_run(FACTS, str(run.catalogue.root), 100)
            ledger.start_run(FACTS | {"run_id": "other"}, "s3://bucket/other", 100)
            units = [
                Receipt(5, i, "f", 1000, 9, {}, 9, 30.0, **times) for i, times in enumerate((first, last))
            ]
            ledger.record(RUN, units)
            ledger.end_run(RUN, "partial", {})
        (one,) = runs_of_ledger(ledger_at, str(run.catalogue.root))
        assert (one.state, one.done, one.units, one.light_curves, one.rate) == ("partial", 2, 100, 2000, 50.0)
        assert {one.catalogue for one in runs_of_ledger(ledger_at)} == {
            "s3://bucket/other",
            str(run.catalogue.root.resolve()),
        }
