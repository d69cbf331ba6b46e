"""A catalogue's folder as a run sees it: who may go on in it, and what counts as done."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightmill.catalogs.receipts import Receipt, write_receipt
from lightmill.catalogs.runfolder import NotAnOutput, RunFolder

IDENTITY = {"release": "a", "science": {"clean": {"min_epochs": 20}}}


def _receipt(order: int, pixel: int, size: int) -> Receipt:
    return Receipt(
        order, pixel, "f" * 64, rows_in=2, classified=1 if size else 0, rejected={}, bytes=size, seconds=1.0
    )


def _finish(folder: RunFolder, order: int, pixel: int, content: bytes) -> None:
    path = folder.rows(order, pixel)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    write_receipt(folder.receipts, _receipt(order, pixel, len(content)))


def test_resume_keeps_the_first_record(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "out")
    first = folder.start_or_resume(IDENTITY, {"run_id": "one"})
    again = folder.start_or_resume(IDENTITY, {"run_id": "two"})
    assert first == again == {**IDENTITY, "run_id": "one"}


def test_refuses_another_identity_with_both_values(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "out")
    folder.start_or_resume(IDENTITY, {})
    with pytest.raises(NotAnOutput, match=r"science\.clean\.min_epochs 20, now it is 30"):
        folder.start_or_resume({"release": "a", "science": {"clean": {"min_epochs": 30}}}, {})


@pytest.mark.parametrize("kind", ["file", "full"])
def test_refuses_what_is_something_else(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "thesis.tex").write_text("mine")
    with pytest.raises(NotAnOutput, match="not a catalogue that a run has begun"):
        RunFolder(out).start_or_resume(IDENTITY, {})
    assert (out if kind == "file" else out / "thesis.tex").read_text() == "mine"


def test_refuses_an_unreadable_record(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.record.parent.mkdir()
    folder.record.write_text('{"release": ')
    with pytest.raises(NotAnOutput, match="cannot be read"):
        folder.start_or_resume(IDENTITY, {})


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
    assert folder.unproven() == {(3, 5)}


def test_discard(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    _finish(folder, 3, 1, b"whole")
    folder.rejected(3, 1).parent.mkdir(parents=True)
    folder.rejected(3, 1).write_bytes(b"rejected")
    folder.discard(3, 1)
    folder.discard(3, 1)  # twice does no harm
    assert not folder.done()
    assert not folder.unproven()
    assert not folder.rejected(3, 1).exists()


def test_clear_scratch(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.scratch.mkdir(parents=True)
    (folder.scratch / "Npix=1.abc.part").write_bytes(b"half")
    folder.clear_scratch()
    assert not list(folder.scratch.iterdir())
