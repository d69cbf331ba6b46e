"""A catalogue's folder as a run sees it: who may go on in it, and what counts as done."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from lightmill.catalogs.receipts import FailedAttempt, Quarantined, Receipt, write_json, write_receipt
from lightmill.catalogs.runfolder import CatalogueFolder, NotAnOutput, RunFolder


def _receipt(order: int, pixel: int, size: int) -> Receipt:
    return Receipt(
        order, pixel, "f" * 64, rows_in=2, classified=1 if size else 0, rejected={}, bytes=size, seconds=1.0
    )


def _finish(folder: RunFolder, order: int, pixel: int, content: bytes) -> None:
    path = folder.rows(order, pixel)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    write_receipt(folder.receipts, _receipt(order, pixel, len(content)))


@pytest.mark.parametrize("kind", ["file", "full"])
def test_refuses_what_is_something_else(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "thesis.tex").write_text("mine")
    with pytest.raises(NotAnOutput, match="is no catalogue of runs"):
        CatalogueFolder(out).check()
    assert (out if kind == "file" else out / "thesis.tex").read_text() == "mine"


def test_accepts_nothing_and_its_own(tmp_path: Path) -> None:
    catalogue = CatalogueFolder(tmp_path / "out")
    catalogue.check()
    _finish(catalogue.run("20261128T000000-aaaaaa"), 3, 1, b"whole")
    catalogue.check()


def test_an_unreadable_record_is_no_run(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "one")
    folder.record.parent.mkdir(parents=True)
    folder.record.write_text('{"release": ')
    with pytest.raises(NotAnOutput, match="cannot be read"):
        folder.facts()


def test_runs_the_newest_first(tmp_path: Path) -> None:
    catalogue = CatalogueFolder(tmp_path)
    assert catalogue.runs() == ()
    for run_id in ("20261128T100000-b", "20261128T090000-c", "20261128T110000-a"):
        write_json(catalogue.run(run_id).record, {"run_id": run_id})
    catalogue.run("20261128T120000-x").root.mkdir()  # begun, and killed before it had a record
    assert [run.run_id[9:15] for run in catalogue.runs()] == ["110000", "100000", "090000"]
    assert catalogue.runs()[0].catalogue == catalogue


def test_quarantine(tmp_path: Path) -> None:
    catalogue = CatalogueFolder(tmp_path)
    record = Quarantined(3, 10_001, "f" * 64, "OOM", "too much", "run", attempts=3)
    catalogue.put_in_quarantine(record)
    assert catalogue.quarantined() == {(3, 10_001): record}
    assert catalogue.release(3, 10_001)
    assert not catalogue.release(3, 10_001)
    assert catalogue.quarantined() == {}


def test_sealed_receipts_are_the_same(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "one")
    for pixel in range(30):
        _finish(folder, 3, pixel, b"x" * (pixel + 1))
    before = folder.done()
    assert len(before) == 30
    folder.seal()
    assert folder.is_sealed()
    assert folder.done() == before
    assert folder.read_receipts() == sorted(before.values(), key=lambda r: r.key)


def test_failures_by_attempt(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "one")
    tries = [FailedAttempt(3, 7, k, "BUG", "x", "retry") for k in (2, 10, 1)]
    for one in tries:
        write_json(folder.failure(3, 7, one.attempt), asdict(one))
    assert [one.attempt for one in folder.failures()] == [1, 2, 10]


def test_done_needs_receipt_and_file(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    _finish(folder, 3, 1, b"whole")
    _finish(folder, 3, 2, b"whole")
    folder.rows(3, 2).write_bytes(b"cut")  # shorter than its receipt says
    _finish(folder, 3, 3, b"whole")
    folder.rows(3, 3).unlink()
    write_receipt(folder.receipts, _receipt(3, 4, 0))  # nothing was classified: no file is right
    _finish(folder, 3, 5, b"whole")
    (folder.receipts / "Norder=3" / "Dir=0" / "Npix=5.json").unlink()
    assert set(folder.done()) == {(3, 1), (3, 4)}


def test_discard(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    _finish(folder, 3, 1, b"whole")
    folder.rejected(3, 1).parent.mkdir(parents=True)
    folder.rejected(3, 1).write_bytes(b"rejected")
    folder.discard(3, 1)
    folder.discard(3, 1)  # twice does no harm
    assert not folder.done()
    assert not folder.rejected(3, 1).exists()


def test_clear_scratch(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.scratch.mkdir(parents=True)
    (folder.scratch / "Npix=1.abc.part").write_bytes(b"half")
    folder.clear_scratch()
    assert not list(folder.scratch.iterdir())
