"""`catalogs/receipts.py`: written last and whole; one that was cut short counts as none."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightmill.catalogs import storage
from lightmill.catalogs.receipts import Receipt, read_records, receipt_path, write_json
from lightmill.catalogs.receipts import write_receipt as write_once

RECEIPT = Receipt(
    order=5, pixel=12014, fingerprint="f" * 64, rows_in=10, classified=7, rejected={"flagged": 2, "no_epochs": 1},
    bytes=1234, seconds=0.5, stages={"read": 0.1}, epochs=999, peak_rss_bytes=10**9, host="node1",
    versions={"numpy": "2.4.6"}, finished="2026-11-22T14:00:00+00:00",
)  # fmt: skip


def read_receipts(folder: Path) -> list[Receipt]:
    return list(read_records(Receipt, (path for path, _ in storage.files(folder, ".json"))))


def write_receipt(folder: Path, receipt: Receipt) -> Path:
    assert write_once(folder, receipt)
    return receipt_path(folder, *receipt.key)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_there_and_back(tmp_path):
    path = write_receipt(tmp_path, RECEIPT)
    assert path == tmp_path / "Norder=5" / "Dir=10000" / "Npix=12014.json" == receipt_path(tmp_path, 5, 12014)
    assert list(read_receipts(tmp_path)) == [RECEIPT]
    assert RECEIPT.key == (5, 12014)


def test_one_folder_for_ten_thousand_pixels(tmp_path):
    assert receipt_path(tmp_path, 9, 9_999).parent.name == "Dir=0"
    assert receipt_path(tmp_path, 9, 3_145_727).parent.name == "Dir=3140000"


@given(st.integers(0, 29).flatmap(lambda order: st.tuples(st.just(order), st.integers(0, 12 * 4**order - 1))))
def test_no_two_partitions_share_a_path(key):
    order, pixel = key
    path = receipt_path(Path("run"), order, pixel)
    assert path != receipt_path(Path("run"), order, pixel + 1)
    assert path != receipt_path(Path("run"), order + 1, pixel)


def test_all_that_are_there_in_order(tmp_path):
    every = [replace(RECEIPT, pixel=pixel) for pixel in (3, 10_001, 20_000)]
    for receipt in reversed(every):
        write_receipt(tmp_path, receipt)
    assert [receipt.pixel for receipt in read_receipts(tmp_path)] == [3, 10_001, 20_000]
    assert list(read_receipts(tmp_path / "nothing")) == []


def test_a_second_receipt_loses(tmp_path):
    write_receipt(tmp_path, RECEIPT)
    assert not write_once(tmp_path, replace(RECEIPT, classified=8))
    assert [receipt.classified for receipt in read_receipts(tmp_path)] == [RECEIPT.classified]
    assert len(files(tmp_path)) == 1


def test_cut_short_at_any_byte_counts_as_none(tmp_path):
    whole = write_receipt(tmp_path, RECEIPT).read_text()
    other = replace(RECEIPT, pixel=1)
    write_receipt(tmp_path, other)
    path = receipt_path(tmp_path, 5, 12014)
    for length in range(0, len(whole) - 1, 7):
        path.write_text(whole[:length])
        assert list(read_receipts(tmp_path)) == [other]


@pytest.mark.parametrize(
    "content",
    ["", "null", "[]", "3", "{}", '{"order": 5}', json.dumps(asdict(RECEIPT) | {"colour": 1}), "\x00" * 50],
)
def test_what_is_no_receipt_counts_as_none(tmp_path, content):
    write_receipt(tmp_path, RECEIPT).write_text(content)
    assert list(read_receipts(tmp_path)) == []


def test_bytes_that_are_no_text_count_as_none(tmp_path):
    write_receipt(tmp_path, RECEIPT).write_bytes(b"\xff\xfe\x00\xd8")
    assert list(read_receipts(tmp_path)) == []


def test_files_being_written_are_not_read(tmp_path):
    path = write_receipt(tmp_path, RECEIPT)
    path.rename(path.with_name(f".{path.name}.abc.part"))
    assert list(read_receipts(tmp_path)) == []


@pytest.mark.parametrize("step", ["open", "fsync", "link"])
def test_a_fault_leaves_none(tmp_path, monkeypatch, step):
    def fail(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    target, name = {"open": (Path, "open"), "fsync": (os, "fsync"), "link": (os, "link")}[step]
    monkeypatch.setattr(target, name, fail)
    with pytest.raises(OSError, match="No space left"):
        write_once(tmp_path, RECEIPT)
    monkeypatch.undo()
    assert read_receipts(tmp_path) == []
    assert files(tmp_path) == []


def test_json_of_anything(tmp_path):
    write_json(tmp_path / "deep" / "x.json", [{"b": 1, "a": None}])
    assert json.loads((tmp_path / "deep" / "x.json").read_text()) == [{"a": None, "b": 1}]
