"""A ledger and its files: made anew it is the same, and what differs is told."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from sqlalchemy import delete, select, update

from lightmill.catalogs import ledger_rebuild
from lightmill.catalogs.ledger import Ledger, open_ledger
from lightmill.catalogs.ledger_check import check
from lightmill.catalogs.ledger_engine import writing
from lightmill.catalogs.ledger_export import export
from lightmill.catalogs.ledger_rebuild import catch_up, rebuild, refresh_versions
from lightmill.catalogs.ledger_tables import TABLES, attempts, runs, units
from lightmill.catalogs.receipts import FailedAttempt, Quarantined, Receipt, write_json, write_receipt
from lightmill.catalogs.runfolder import CatalogueFolder, RunFolder

ONE, TWO = "20261128T120000-aaaaaa", "20261128T130000-bbbbbb"
COUNTS = {"done": 4, "failed": 1, "quarantined": 1}


def facts(run_id: str, units: int = 6) -> dict[str, Any]:
    return {
        "run_id": run_id, "created": f"2026-11-28T{run_id[9:11]}:00:00+00:00", "plan_sha256": "1" * 64, "units": units,
        "release": "/data/release", "recipe": {"name": "ztf-dr", "model": {"bundle": "ztf-dr"}},
        "science": {"clean": {"min_epochs": 20}}, "models": {"bundle": "b" * 64},
        "versions": {"algorithm": 1, "schema": 1}, "code": "0.1.0", "environment": {"numpy": "2"},
    }  # fmt: skip


def receipt(run_id: str, pixel: int, content: bytes, attempt: int = 1) -> Receipt:
    return Receipt(
        5, pixel, f"{pixel:064d}", 10, 9 if content else 0, {"too few epochs": 1}, len(content), 12.5 + pixel / 7,
        {"read": 1.5}, 3000, 2**30, "node1", {"numpy": "2"}, "2026-11-28T12:01:00+00:00", run_id, "i" * 64, 4000,
        attempt, "2026-11-28T12:00:30+00:00", hashlib.sha256(content).hexdigest() if content else "",
    )  # fmt: skip


def failure(run_id: str, pixel: int, attempt: int, decision: str) -> FailedAttempt:
    return FailedAttempt(
        5, pixel, attempt, "OOM", "MemoryError: 3 GB", decision, f"{pixel:064d}", run_id, "node1", 3.0, 10**6, False,
        2**31, "2026-11-28T12:02:00+00:00",
    )  # fmt: skip


def write_run(
    run: RunFolder, ledger: Ledger | None, pixels: range = range(4)
) -> tuple[list[Receipt], list[FailedAttempt]]:
    """A run with `pixels` done (the first empty), one that failed, one in quarantine; told to the ledger as it goes."""
    run_id, first, lost, bad = run.run_id, pixels.start, pixels.stop, pixels.stop + 1
    write_json(run.record, facts(run_id))
    if ledger is not None:
        ledger.start_run(facts(run_id), str(run.catalogue.root), 6)
    receipts = []
    for pixel in pixels:
        content = b"" if pixel == first else f"rows of {pixel}".encode()
        if content:
            run.rows(5, pixel).parent.mkdir(parents=True, exist_ok=True)
            run.rows(5, pixel).write_bytes(content)
        receipts.append(receipt(run_id, pixel, content, attempt=2 if pixel == pixels[-1] else 1))
        write_receipt(run.receipts, receipts[-1])
    failures = [failure(run_id, pixels[-1], 1, "retry")]
    failures += [failure(run_id, lost, i, d) for i, d in ((1, "retry"), (2, "halve"), (3, "failed"))]
    failures += [failure(run_id, bad, 1, "quarantine")]
    for one in failures:
        write_json(run.failure(*one.key, one.attempt), asdict(one))
    run.catalogue.put_in_quarantine(
        Quarantined(5, bad, f"{bad:064d}", "OOM", "MemoryError: 3 GB", run_id, 1, "2026-11-28T12:02:00+00:00")
    )
    if ledger is not None:
        ledger.record(run_id, receipts[:2], failures[:3])
        ledger.record(run_id, receipts[2:], failures[3:])
    return receipts, failures


def finish(run: RunFolder, ledger: Ledger | None, state: str = "partial") -> None:
    end = {"state": state, "ended": "2026-11-28T14:00:00+00:00", "counts": COUNTS}
    run.seal()
    write_json(run.end, end)
    if ledger is not None:
        ledger.end_run(run.run_id, state, COUNTS, end["ended"])


def publish(folder: CatalogueFolder, name: str, *names: str) -> None:
    records = {run_id: facts(run_id) for run_id in names}
    write_json(
        folder.version(name) / "version.json",
        {"name": name, "records": records, "created": "2026-11-28T15:00:00+00:00"},
    )
    folder.collection.write_text(f"obs_collection=c\nhats_primary_table_url=versions/{name}/objects\n")


@pytest.fixture
def folder(tmp_path: Path) -> CatalogueFolder:
    return CatalogueFolder.at(tmp_path / "catalogue")


@pytest.fixture
def ledger(ledger_at: str, folder: CatalogueFolder) -> Iterator[Ledger]:
    with open_ledger(ledger_at, folder) as ledger:
        yield ledger


@pytest.fixture
def filled(ledger: Ledger, folder: CatalogueFolder) -> Ledger:
    """Two runs, the second under way, and a version, told to the ledger as a driver tells it."""
    write_run(folder.run(ONE), ledger)
    finish(folder.run(ONE), ledger)
    write_run(folder.run(TWO), ledger, range(10, 14))
    publish(folder, "v1", ONE)
    refresh_versions(ledger, folder)
    return ledger


def everything(ledger: Ledger) -> dict[str, list[dict[str, Any]]]:
    with ledger.engine.connect() as connection:
        return {
            name: [dict(r) for r in connection.execute(select(table).order_by(*table.primary_key)).mappings()]
            for name, table in TABLES.items()
        }


def change(ledger: Ledger, statement: Any) -> None:
    with writing(ledger.engine).begin() as connection:
        connection.execute(statement)


def test_made_anew_it_is_what_the_driver_told(filled: Ledger, folder: CatalogueFolder) -> None:
    told = everything(filled)
    assert check(filled, folder, deep=True) == []
    done = rebuild(filled, folder)
    assert everything(filled) == told
    assert (done.runs, done.units, done.attempts, done.versions, done.unreadable) == (2, 12, 18, 1, [])
    assert [row["state"] for row in told["units"][:6]] == ["done"] * 4 + ["failed", "quarantined"]
    assert [row["state"] for row in told["runs"]] == ["partial", "running"]
    assert (told["versions"][0]["runs"], told["versions"][0]["current"]) == ([ONE], True)


def test_a_lost_ledger_comes_back(filled: Ledger, folder: CatalogueFolder, tmp_path: Path) -> None:
    with open_ledger(f"sqlite:///{tmp_path}/other.sqlite", folder) as other:
        wrong = check(other, folder)
        assert f"run {ONE}: it is not in the ledger" in wrong
        assert f"run {TWO}: it is not in the ledger" in wrong
        rebuild(other, folder)
        assert everything(other) == everything(filled)


def test_of_an_empty_catalogue(ledger: Ledger, folder: CatalogueFolder) -> None:
    assert rebuild(ledger, folder).runs == 0
    assert check(ledger, folder) == []


def test_a_run_that_was_stopped(ledger: Ledger, folder: CatalogueFolder) -> None:
    run = folder.run(ONE)
    write_run(run, ledger)
    write_json(run.progress, {"state": "stopped"})
    assert check(ledger, folder) == []  # whether the driver told the ledger or not
    ledger.end_run(ONE, "stopped", {})
    assert check(ledger, folder) == []
    rebuild(ledger, folder)
    assert ledger.run(ONE)["state"] == "stopped"


def test_other_catalogues_are_left_alone(filled: Ledger, tmp_path: Path) -> None:
    before = everything(filled)
    other = CatalogueFolder.at(tmp_path / "other")
    write_run(other.run("20261128T160000-cccccc"), None)
    rebuild(filled, other)
    after = everything(filled)
    assert len(after["runs"]) == 3
    for name in ("runs", "units", "attempts", "versions"):
        assert [row for row in after[name] if row in before[name]] == before[name]


def test_a_moved_catalogue_takes_its_runs_along(
    filled: Ledger, folder: CatalogueFolder, tmp_path: Path
) -> None:
    moved = CatalogueFolder.at(tmp_path / "moved")
    folder.root.rename(moved.root)
    rebuild(filled, moved)
    assert {row["catalogue"] for row in filled.runs()} == {str(moved.root.resolve())}
    assert check(filled, moved) == []


def test_a_quarantine_whose_failure_was_not_written(ledger: Ledger, folder: CatalogueFolder) -> None:
    run = folder.run(ONE)
    write_run(run, None)
    run.failure(5, 5, 1).unlink()
    rebuild(ledger, folder)
    kept_out = [row for row in everything(ledger)["units"] if row["state"] == "quarantined"]
    assert [(row["npix"], row["error_class"]) for row in kept_out] == [(5, "OOM")]
    assert check(ledger, folder) == []


def test_who_goes_on_tells_what_a_killed_driver_did_not(ledger: Ledger, folder: CatalogueFolder) -> None:
    run = folder.run(ONE)
    write_run(run, None)
    ledger.start_run(facts(ONE), str(folder.root), 6)
    ledger.record(ONE, run.read_receipts()[:1])
    assert catch_up(ledger, run) == 3
    assert check(ledger, folder) == []
    assert catch_up(ledger, run) == 0


def test_runs_that_cannot_be_read_are_told(ledger: Ledger, folder: CatalogueFolder) -> None:
    write_run(folder.run(ONE), None)
    write_json(folder.run(TWO).record, {"run_id": TWO})
    cut = folder.run("20261128T140000-cccccc").record
    cut.parent.mkdir()
    cut.write_text('{"run_id": ')
    done = rebuild(ledger, folder)
    assert done.runs == 1
    assert len(done.unreadable) == 2
    assert f"{folder.run(TWO).record} has no field 'release'" in done.unreadable[0]
    assert check(ledger, folder) == done.unreadable


def test_what_was_told_while_the_files_were_read(
    ledger: Ledger, folder: CatalogueFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = folder.run(ONE)
    write_run(run, ledger)
    read = ledger_rebuild.read_runs

    def slow(catalogue: CatalogueFolder) -> Any:
        found = read(catalogue)
        late = receipt(ONE, 99, b"")  # the driver goes on meanwhile
        write_receipt(run.receipts, late)
        ledger.record(ONE, [late])
        return found

    monkeypatch.setattr(ledger_rebuild, "read_runs", slow)
    rebuild(ledger, folder)
    assert check(ledger, folder) == []
    assert 99 in {row["npix"] for row in everything(ledger)["units"]}


class TestCheck:
    def test_rows(self, filled: Ledger, folder: CatalogueFolder) -> None:
        change(filled, delete(units).where(units.c.npix == 1))
        change(filled, update(units).where(units.c.npix == 2).values(classified=8))
        change(filled, delete(attempts).where(attempts.c.decision == "halve", attempts.c.run_id == ONE))
        change(filled, update(runs).where(runs.c.run_id == ONE).values(state="complete"))
        filled.record(TWO, [receipt(TWO, 77, b"")])
        assert check(filled, folder) == [
            f"run {ONE}: state is 'complete' in the ledger, 'partial' in the files",
            f"run {ONE}: 1 units of the files are not in the ledger: Norder=5/Npix=1",
            f"run {ONE}: 1 units differ from the files: Norder=5/Npix=2",
            f"run {ONE}: 1 attempts of the files are not in the ledger: Norder=5/Npix=4",
            f"run {TWO}: 1 units of the ledger are not among the files: Norder=5/Npix=77",
            f"run {TWO}: 1 attempts of the ledger are not among the files: Norder=5/Npix=77",
        ]
        rebuild(filled, folder)
        assert check(filled, folder) == []

    def test_many_are_one_line(self, ledger: Ledger, folder: CatalogueFolder) -> None:
        write_run(folder.run(ONE), ledger, range(100))
        change(ledger, delete(units))
        (line,) = check(ledger, folder)
        assert "102 units of the files" in line
        assert line.endswith("Norder=5/Npix=0, Norder=5/Npix=1, Norder=5/Npix=2, …")

    def test_runs_and_versions(self, filled: Ledger, folder: CatalogueFolder) -> None:
        folder.run(TWO).record.unlink()
        publish(folder, "v2", ONE)
        (folder.version("v1") / "version.json").unlink()
        write_json(folder.root / "versions" / ".retracted.json", {"v1": {"reason": "wrong", "runs": [ONE]}})
        wrong = check(filled, folder)
        assert wrong[0] == f"run {TWO}: it is in the ledger, but there is no {folder.run(TWO).record}"
        assert wrong[1].startswith("version v1: published and current, ")
        assert f"in the ledger, retracted, of {ONE} in the files" in wrong[1]
        assert wrong[2].startswith("version v2: none in the ledger, published and current")
        rebuild(filled, folder)
        assert check(filled, folder) == []

    def test_files(self, filled: Ledger, folder: CatalogueFolder) -> None:
        run = folder.run(ONE)
        run.rows(5, 1).unlink()
        run.rows(5, 2).write_bytes(b"cut")
        run.rows(5, 3).write_bytes(b"ROWS OF 3")
        missing, cut = check(filled, folder)
        assert missing == f"{run.rows(5, 1)} is missing, its receipt tells of 9 bytes"
        assert cut == f"{run.rows(5, 2)} has 3 bytes, its receipt tells of 9 bytes"
        *_, flipped = check(filled, folder, deep=True)
        assert flipped.startswith(f"{run.rows(5, 3)} has sha256 ")

    def test_the_one_file_of_receipts(self, filled: Ledger, folder: CatalogueFolder) -> None:
        run = folder.run(ONE)
        write_receipt(run.receipts, receipt(ONE, 50, b""))
        assert check(filled, folder) == [
            f"run {ONE}: receipts.parquet and the receipts differ in Norder=5/Npix=50"
        ]


def test_on_an_object_store(ledger: Ledger) -> None:
    folder = CatalogueFolder.at(f"memory://bucket-{id(ledger)}/catalogue")
    write_run(folder.run(ONE), ledger)
    finish(folder.run(ONE), ledger)
    assert check(ledger, folder, deep=True) == []
    before = everything(ledger)
    rebuild(ledger, folder)
    assert everything(ledger) == before
    assert before["runs"][0]["catalogue"] == str(folder.root)


class TestExport:
    def test_parquet(self, filled: Ledger, folder: CatalogueFolder) -> None:
        table = pq.read_table(io.BytesIO(export(filled, "units", "parquet", str(folder.root))))
        assert table.num_rows == 12
        assert [str(table.schema.field(name).type) for name in ("norder", "npix", "seconds", "rejected")] == [
            "int32",
            "int64",
            "double",
            "string",
        ]
        assert json.loads(table["rejected"][0].as_py()) == {"too few epochs": 1}

    def test_csv(self, filled: Ledger) -> None:
        table = pyarrow.csv.read_csv(io.BytesIO(export(filled, "attempts", "csv")))
        assert table.num_rows == 18
        assert table["decision"].to_pylist().count("halve") == 2

    def test_json(self, filled: Ledger, folder: CatalogueFolder) -> None:
        found = json.loads(export(filled, "runs", "json", str(folder.root)))
        assert [(row["run_id"], row["counts"]) for row in found] == [(ONE, COUNTS), (TWO, {})]
        assert json.loads(export(filled, "versions", "json"))[0]["name"] == "v1"
        assert json.loads(export(filled, "runs", "json", "elsewhere")) == []
        assert len(json.loads(export(filled, "bundles", "json", "elsewhere"))) == 1

    def test_of_nothing(self, ledger: Ledger) -> None:
        for name in TABLES:
            assert pq.read_table(io.BytesIO(export(ledger, name, "parquet"))).num_rows == 0

    def test_what_there_is_not(self, ledger: Ledger) -> None:
        with pytest.raises(ValueError, match="no table 'schedules'; it has runs, units"):
            export(ledger, "schedules", "csv")
        with pytest.raises(ValueError, match="not as 'fits'"):
            export(ledger, "runs", "fits")
