"""`runs`, `status`, `quarantine` and `ledger` as operators type them."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner

from lightmill.catalogs.receipts import Quarantined, Receipt, write_json, write_receipt
from lightmill.catalogs.runfolder import CatalogueFolder
from lightmill.pipeline.cli import app
from lightmill.pipeline.metrics import METRICS

RUN = "20261128T120000-abcdef"


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture(autouse=True)
def no_ledger_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIGHTMILL_LEDGER", raising=False)


@pytest.fixture
def folder(tmp_path: Path) -> CatalogueFolder:
    """A catalogue with a run of two units that has ended, and two partitions in quarantine."""
    folder = CatalogueFolder.at(tmp_path / "catalogue")
    run = folder.run(RUN)
    write_json(
        run.record,
        {
            "run_id": RUN, "created": "2026-11-28T12:00:00+00:00", "plan_sha256": "1" * 64, "units": 2, "code": "0.1.0",
            "release": "/data/release", "recipe": {"name": "ztf-dr"}, "science": {}, "models": {"bundle": "b" * 64},
        },
    )  # fmt: skip
    for pixel in (1, 2):
        run.rows(5, pixel).parent.mkdir(parents=True, exist_ok=True)
        run.rows(5, pixel).write_bytes(b"rows")
        write_receipt(run.receipts, Receipt(5, pixel, "f" * 64, 10, 9, {"short": 1}, 4, 30.0, run_id=RUN))
        folder.put_in_quarantine(Quarantined(5, 10 * pixel, "f" * 64, "OOM", "MemoryError: 3 GB", "older", 3))
    run.seal()
    write_json(run.end, {"state": "complete", "ended": "2026-11-28T12:01:00+00:00", "counts": {"done": 2}})
    return folder


class TestLedger:
    def test_rebuild_check_export(self, folder: CatalogueFolder, ledger_at: str) -> None:
        catalogue = str(folder.root)
        done = invoke("ledger", "rebuild", catalogue, "--ledger", ledger_at, "--format", "json")
        assert done.exit_code == 0, done.output
        facts = json.loads(done.stdout)
        assert (facts["runs"], facts["units"], facts["unreadable"]) == (1, 2, [])
        done = invoke("ledger", "check", catalogue, "--ledger", ledger_at, "--deep")
        assert (done.exit_code, done.stdout) == (0, "")
        assert "as the files have it" in done.stderr
        folder.run(RUN).rows(5, 1).unlink()
        done = invoke("ledger", "check", catalogue, "--ledger", ledger_at)
        assert done.exit_code == 1
        assert "Npix=1.parquet is missing, its receipt tells of 4 bytes" in done.stdout
        assert "1 differences" in done.stderr
        found = json.loads(
            invoke("ledger", "check", catalogue, "--ledger", ledger_at, "--format", "json").stdout
        )
        assert len(found["differences"]) == 1
        done = invoke(
            "ledger", "export", catalogue, "--ledger", ledger_at, "--table", "units", "--format", "csv"
        )
        assert done.stdout.splitlines()[1].startswith(f'"{RUN}",5,1,"done"')

    def test_the_catalogues_own(self, folder: CatalogueFolder, tmp_path: Path) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "lightmill.pipeline.cli", "ledger", "check", str(folder.root)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert "there is no ledger" in done.stderr
        assert done.stderr.count("\n") == 1
        assert invoke("ledger", "rebuild", str(folder.root)).exit_code == 0
        assert (folder.root / "ledger.sqlite").exists()
        assert invoke("ledger", "check", str(folder.root)).exit_code == 0
        out = tmp_path / "runs.parquet"
        arguments = ["--table", "runs", "--format", "parquet", "--out", str(out)]
        assert invoke("ledger", "export", str(folder.root), *arguments).exit_code == 0
        assert out.read_bytes()[:4] == b"PAR1"

    def test_what_is_no_catalogue(self, tmp_path: Path) -> None:
        done = invoke("ledger", "rebuild", str(tmp_path / "typo"))
        assert done.exit_code == 1
        assert "is no catalogue of runs" in str(done.exception)
        assert not (tmp_path / "typo").exists()


class TestRuns:
    def test_of_files_and_of_a_ledger(self, folder: CatalogueFolder, ledger_at: str) -> None:
        assert invoke("ledger", "rebuild", str(folder.root), "--ledger", ledger_at).exit_code == 0
        for arguments in ([str(folder.root)], ["--ledger", ledger_at]):
            done = invoke("runs", *arguments)
            assert done.exit_code == 0
            assert f" {RUN}  complete  ztf-dr  bbbbbbbb " in done.stdout
            (row,) = json.loads(invoke("runs", *arguments, "--format", "json").stdout)
            assert (row["run_id"], row["done"], row["units"], row["light_curves"]) == (RUN, 2, 2, 20)
            assert row["ended"] == "2026-11-28T12:01:00+00:00"

    def test_one_that_is_damaged_does_not_hide_the_others(self, folder: CatalogueFolder) -> None:
        run = folder.run("20261129T120000-fedcba")
        run.root.mkdir()
        run.record.write_text("{")
        done = invoke("runs", str(folder.root), "--format", "json")
        found = json.loads(done.stdout)
        assert [(one["run_id"], one["state"]) for one in found] == [
            (run.run_id, "damaged"),
            (RUN, "complete"),
        ]
        done = invoke("runs", str(folder.root))
        assert done.exit_code == 0
        assert f"{run.run_id}: {run.root} is not a run" in done.stderr
        assert "damaged" in done.stdout

    def test_the_ledger_of_the_environment(
        self, folder: CatalogueFolder, ledger_at: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LIGHTMILL_LEDGER", ledger_at)
        assert invoke("ledger", "rebuild", str(folder.root)).exit_code == 0
        assert RUN in invoke("runs").stdout
        assert RUN in invoke("status", RUN).stdout

    def test_of_nothing(self) -> None:
        done = invoke("runs")
        assert done.exit_code == 2
        assert "LIGHTMILL_LEDGER" in done.stderr


class TestStatus:
    def test_printed_once_where_there_is_no_terminal(self, folder: CatalogueFolder, tmp_path: Path) -> None:
        file = tmp_path / "lightmill.prom"
        done = invoke("status", str(folder.root), "--prometheus", str(file))
        assert done.exit_code == 0
        assert "complete, 2026-11-28T12:01:00" in done.stdout
        assert "2: 2 done" in done.stdout
        assert f'lightmill_run_units{{run_id="{RUN}",state="done"}} 2' in file.read_text()
        found = json.loads(invoke("status", str(folder.run(RUN).root), "--format", "json").stdout)
        assert (found["state"], found["done"], found["waiting"]) == ("complete", 2, 0)

    def test_the_help_names_every_metric(self) -> None:
        said = "".join(invoke("status", "--help").output.split())
        assert [name for name in METRICS if name not in said] == []

    def test_live_on_a_terminal_until_the_run_ends(self, folder: CatalogueFolder) -> None:
        run = folder.run(RUN)
        ended = run.end.read_bytes()
        run.end.unlink()
        here = {"host": os.uname().nodename, "pid": os.getpid()}
        write_json(run.lease, here | {"started": psutil.Process().create_time(), "token": "t", "beat": 1})
        write_json(run.progress, here | {"state": "running", "units": 2, "done": 1, "workers": 3})
        terminal, end = pty.openpty()
        command = [sys.executable, "-m", "lightmill.pipeline.cli", "status", str(folder.root)]
        environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
        process = subprocess.Popen(command, stdin=end, stdout=end, stderr=end, env=environment)
        os.close(end)
        shown, deadline = b"", time.monotonic() + 120
        while time.monotonic() < deadline:
            if not select.select([terminal], [], [], 1)[0]:
                continue
            try:
                data = os.read(terminal, 1 << 16)
            except OSError:  # the other side is closed
                break
            if not data:
                break
            shown += data
            if b"3 workers" in shown and not run.end.exists():
                run.end.write_bytes(ended)
        os.close(terminal)
        assert process.wait(60) == 0, shown.decode()
        assert b"running: process" in shown
        assert b"complete, 2026-11-28" in shown


class TestQuarantine:
    def test_list(self, folder: CatalogueFolder) -> None:
        done = invoke("quarantine", "list", str(folder.root))
        assert [line.split()[0] for line in done.stdout.splitlines()] == ["partition", "5/10", "5/20"]
        assert "MemoryError: 3 GB" in done.stdout
        found = json.loads(invoke("quarantine", "list", str(folder.root), "--format", "json").stdout)
        assert [(one["pixel"], one["attempts"]) for one in found] == [(10, 3), (20, 3)]

    @pytest.mark.parametrize("name", ["5/10", "Norder=5/Npix=10"])
    def test_release_one(self, folder: CatalogueFolder, name: str) -> None:
        done = invoke("quarantine", "release", str(folder.root), name)
        assert (done.exit_code, done.stdout) == (0, "1 released: 5/10\n")
        assert set(folder.quarantined()) == {(5, 20)}
        done = invoke("quarantine", "release", str(folder.root), name)
        assert done.exit_code == 1
        assert "5/10 was not in quarantine" in done.stderr

    def test_release_all(self, folder: CatalogueFolder) -> None:
        done = invoke("quarantine", "release", str(folder.root), "--all", "--format", "json")
        assert json.loads(done.stdout) == {"released": ["5/10", "5/20"], "not_in_quarantine": []}
        assert folder.quarantined() == {}
        assert invoke("quarantine", "release", str(folder.root), "--all").exit_code == 0

    @pytest.mark.parametrize("arguments", [[], ["5/10", "--all"], ["5-10"], ["5"]])
    def test_wrong_use(self, folder: CatalogueFolder, arguments: list[str]) -> None:
        assert invoke("quarantine", "release", str(folder.root), *arguments).exit_code == 2
        assert len(folder.quarantined()) == 2
