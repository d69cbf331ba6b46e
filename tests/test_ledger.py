"""The ledger, on SQLite and on a real PostgreSQL server: what is told is there, once, whoever tells it how often."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from program import all_at_once, open_ledger_once, write_units
from sqlalchemy import func, inspect, select, text

from lightmill.catalogs.ledger import Ledger, LedgerError, open_ledger
from lightmill.catalogs.ledger_engine import writing
from lightmill.catalogs.ledger_export import export
from lightmill.catalogs.ledger_tables import METADATA, VERSION_TABLE, attempts, bundles, runs, units
from lightmill.catalogs.receipts import FailedAttempt, Receipt
from lightmill.catalogs.runfolder import CatalogueFolder

RUN = "20261128T120000-abcdef"
FACTS = {
    "run_id": RUN,
    "created": "2026-11-28T12:00:00+00:00",
    "plan_sha256": "1" * 64,
    "units": 3,
    "release": "s3://bucket/release",
    "recipe": {"name": "ztf-dr", "model": {"bundle": "ztf-dr"}, "period": {"choice": "crts-7"}},
    "science": {"clean": {"min_epochs": 20}},
    "models": {"bundle": "b" * 64, "period_choice": "c" * 64},
    "versions": {"algorithm": 1, "schema": 1},
    "code": "0.1.0",
    "environment": {},
}


def receipt(pixel: int, **facts: Any) -> Receipt:
    return Receipt(
        5, pixel, "f" * 64, rows_in=10, classified=9, rejected={"too few epochs": 1}, bytes=100, seconds=60.0,
        epochs=3000, peak_rss_bytes=2**30, host="node1", finished="2026-11-28T12:01:00+00:00", run_id=RUN, **facts,
    )  # fmt: skip


def failure(pixel: int, attempt: int, decision: str, **facts: Any) -> FailedAttempt:
    return FailedAttempt(
        5, pixel, attempt, "OOM", "MemoryError: 3 GB", decision, fingerprint="f" * 64, run_id=RUN, seconds=3.0,
        finished="2026-11-28T12:02:00+00:00", **facts,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> CatalogueFolder:
    return CatalogueFolder.at(tmp_path / "catalogue")


@pytest.fixture
def ledger(ledger_at: str, folder: CatalogueFolder) -> Iterator[Ledger]:
    with open_ledger(ledger_at, folder) as ledger:
        ledger.start_run(FACTS, str(folder.root), 3)
        yield ledger


def rows(ledger: Ledger, table: Any) -> list[dict[str, Any]]:
    with ledger.engine.connect() as connection:
        found = connection.execute(select(table).order_by(*table.primary_key)).mappings()
        return [dict(row) for row in found]


def test_a_run_from_start_to_end(ledger: Ledger, folder: CatalogueFolder) -> None:
    ledger.record(RUN, [receipt(1), receipt(2)], [failure(3, 1, "retry")])
    assert ledger.run(RUN)["state"] == "running"
    ledger.end_run(RUN, "complete", {"done": 3}, "2026-11-28T13:00:00+00:00")
    (row,) = ledger.runs(str(folder.root))
    assert row == ledger.run(RUN)
    assert row["catalogue"] == str(folder.root.resolve())
    assert (row["recipe"], row["bundle"], row["units"]) == ("ztf-dr", "b" * 64, 3)
    assert (row["state"], row["counts"], row["ended"]) == (
        "complete",
        {"done": 3},
        "2026-11-28T13:00:00+00:00",
    )
    assert ledger.runs("elsewhere") == []
    first = rows(ledger, units)[0]
    assert (first["norder"], first["npix"], first["state"]) == (5, 1, "done")
    assert (first["rows_in"], first["classified"], first["rejected"]) == (10, 9, {"too few epochs": 1})
    assert [(row["npix"], row["outcome"], row["decision"]) for row in rows(ledger, attempts)] == [
        (1, "done", None),
        (2, "done", None),
        (3, "failed", "retry"),
    ]
    assert {(row["kind"], row["name"]) for row in rows(ledger, bundles)} == {
        ("bundle", "ztf-dr"),
        ("period_choice", "crts-7"),
    }


def test_overview(ledger: Ledger, folder: CatalogueFolder) -> None:
    assert ledger.overview()[0]["light_curves"] == 0
    assert ledger.overview()[0]["begun"] is None
    first, last = "2026-11-28T12:00:10+00:00", "2026-11-28T12:00:40+00:00"
    ledger.record(RUN, [receipt(1, started=last), receipt(2, started=first)])
    ledger.record(RUN, [], [failure(3, 1, "failed"), failure(4, 1, "quarantine")])
    ledger.start_run(FACTS | {"run_id": "later", "created": "2026-11-29T00:00:00+00:00"}, "elsewhere", 5)
    empty, row = ledger.overview()
    assert (empty["run_id"], empty["done"], empty["light_curves"]) == ("later", 0, 0)
    assert {key: row[key] for key in ("done", "failed", "quarantined", "light_curves", "begun", "finished")} == {
        "done": 2, "failed": 1, "quarantined": 1, "light_curves": 20, "begun": first,
        "finished": "2026-11-28T12:01:00+00:00",
    }  # fmt: skip
    assert ledger.overview(str(folder.root)) == [row]


def test_telling_it_again_changes_nothing(ledger: Ledger, folder: CatalogueFolder) -> None:
    told = [receipt(1), receipt(2)], [failure(3, 1, "retry"), failure(3, 2, "quarantine")]
    ledger.record(RUN, *told)
    before = rows(ledger, units), rows(ledger, attempts)
    ledger.record(RUN, *told)
    ledger.record(RUN, told[0][:1], told[1][:1])
    assert (rows(ledger, units), rows(ledger, attempts)) == before
    assert [row["state"] for row in before[0]] == ["done", "done", "quarantined"]
    ledger.record(RUN)  # nothing to tell


@pytest.mark.parametrize("decision", ["retry", "halve", "alone"])
def test_a_unit_that_is_tried_again_is_not_given_up(ledger: Ledger, decision: str) -> None:
    ledger.record(RUN, [], [failure(3, 1, decision)])
    assert rows(ledger, units) == []
    assert rows(ledger, attempts)[0]["decision"] == decision


def test_what_is_complete_stays_complete(ledger: Ledger) -> None:
    ledger.record(RUN, [], [failure(3, 1, "failed")])
    assert (rows(ledger, units)[0]["state"], rows(ledger, units)[0]["error_class"]) == ("failed", "OOM")
    ledger.record(RUN, [receipt(3, attempt=2)])
    ledger.record(RUN, [], [failure(3, 2, "failed")])  # its worker died after the commit
    (unit,) = rows(ledger, units)
    assert (unit["state"], unit["attempts"], unit["error_class"]) == ("done", 2, None)
    assert [(row["attempt"], row["outcome"]) for row in rows(ledger, attempts)] == [
        (1, "failed"),
        (2, "done"),
        (2, "failed"),
    ]


def test_the_last_failure_counts_in_any_order(ledger: Ledger) -> None:
    ledger.record(RUN, [], [failure(3, 4, "quarantine")])
    ledger.record(RUN, [], [failure(3, 2, "failed")])
    assert [(row["state"], row["attempts"]) for row in rows(ledger, units)] == [("quarantined", 4)]


def test_a_resumed_run_is_under_way_again(ledger: Ledger, folder: CatalogueFolder) -> None:
    ledger.record(RUN, [receipt(1)])
    ledger.end_run(RUN, "stopped", {"done": 1})
    ledger.start_run(FACTS, str(folder.root), 3)
    assert (ledger.run(RUN)["state"], ledger.run(RUN)["ended"]) == ("running", None)
    assert len(rows(ledger, units)) == 1


def test_an_unknown_run_is_refused(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="does not know the run nobody"):
        ledger.record("nobody", [receipt(1)])
    with pytest.raises(LedgerError, match="does not know the run nobody"):
        ledger.end_run("nobody", "complete", {})
    with pytest.raises(LedgerError, match=r"does not know the run nobody.*rebuild"):
        ledger.run("nobody")


def test_what_the_database_refuses_is_an_error_of_the_ledger(ledger: Ledger) -> None:
    with writing(ledger.engine).begin() as connection:
        connection.execute(text("DROP TABLE attempts"))
    with pytest.raises(LedgerError, match=r"cannot be written: .*attempts") as caught:
        ledger.record(RUN, [receipt(1)])
    assert "\n" not in str(caught.value)
    assert rows(ledger, units) == []  # one transaction
    with pytest.raises(LedgerError, match="cannot be read"):
        export(ledger, "attempts", "csv")


def test_record_takes_less_than_5_ms_a_receipt(ledger: Ledger) -> None:
    batch = [receipt(pixel) for pixel in range(500)]
    ledger.record(RUN, batch[:10])
    start = time.perf_counter()
    for i in range(0, len(batch), 50):
        ledger.record(RUN, batch[i : i + 50])
    assert (time.perf_counter() - start) / len(batch) < 0.005


class TestMigrations:
    def test_they_make_the_tables_that_the_code_has(self, ledger: Ledger) -> None:
        with ledger.engine.connect() as connection:
            context = MigrationContext.configure(
                connection, opts={"version_table": VERSION_TABLE, "compare_type": True}
            )
            assert compare_metadata(context, METADATA) == []

    def test_a_newer_ledger_is_refused(self, ledger: Ledger, ledger_at: str, folder: CatalogueFolder) -> None:
        with writing(ledger.engine).begin() as connection:
            connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
        with pytest.raises(LedgerError, match=r"newer Lightmill.*9999.*0001.*update"):
            open_ledger(ledger_at, folder)

    def test_a_database_of_something_else_is_left_alone(
        self, ledger_at: str, folder: CatalogueFolder
    ) -> None:
        with open_ledger(ledger_at, folder) as ledger, writing(ledger.engine).begin() as connection:
            METADATA.drop_all(connection)
            connection.execute(text(f"DROP TABLE {VERSION_TABLE}"))
            connection.execute(text("CREATE TABLE runs (miles INTEGER)"))
        with pytest.raises(LedgerError, match="has tables runs that are not a ledger's"):
            open_ledger(ledger_at, folder)

    def test_down_and_up_again(self, ledger: Ledger, ledger_at: str, folder: CatalogueFolder) -> None:
        from alembic import command
        from alembic.config import Config

        from lightmill.catalogs import migrations

        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__file__).parent))
        with writing(ledger.engine).begin() as connection:
            config.attributes["connection"] = connection
            command.downgrade(config, "base")
            assert set(inspect(connection).get_table_names()) == {VERSION_TABLE}
        with open_ledger(ledger_at, folder) as again:
            assert rows(again, runs) == []

    def test_many_open_it_at_once(self, ledger_at: str, tmp_path: Path) -> None:
        assert all_at_once(open_ledger_once, [(ledger_at, str(tmp_path))] * 4) == [0] * 4


@pytest.mark.parametrize("same", [True, False], ids=["one run", "two runs"])
def test_two_processes_write_to_one_ledger(ledger_at: str, folder: CatalogueFolder, same: bool) -> None:
    ids = ["one", "one" if same else "two"]
    calls = [(ledger_at, str(folder.root), run_id, own, FACTS) for own, run_id in enumerate(ids)]
    assert all_at_once(write_units, calls) == [0, 0]
    with open_ledger(ledger_at, folder) as ledger, ledger.engine.connect() as connection:
        count = select(func.count())
        assert connection.execute(count.select_from(units)).scalar() == 800
        assert connection.execute(count.select_from(attempts)).scalar() == 1000
        assert {row["state"] for row in ledger.runs()} == {"complete"}
