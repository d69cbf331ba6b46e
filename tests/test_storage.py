"""Files that appear whole or not at all: on a file system, in memory, and on a real S3 protocol server."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from lightmill.catalogs import storage


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "local":
        return tmp_path / "root"
    return storage.place(f"{request.getfixturevalue('bucket')}/{tmp_path.name}")


def test_create_is_won_once(root: Path) -> None:
    path = root / "a" / "b.json"
    assert storage.create(path, b"first")
    assert not storage.create(path, b"second")
    assert path.read_bytes() == b"first"
    storage.replace(path, b"third")
    assert path.read_bytes() == b"third"


def test_of_many_who_create_one_wins(root: Path) -> None:
    path, results = root / "x.json", []
    barrier = threading.Barrier(8)

    def contend(i: int) -> None:
        barrier.wait()
        results.append((storage.create(path, b"%d" % i), i))

    threads = [threading.Thread(target=contend, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [i for won, i in results if won]
    assert path.read_bytes() == b"%d" % winner


def test_put_copy_and_list(root: Path, tmp_path: Path) -> None:
    part = tmp_path / "scratch.part"
    part.write_bytes(b"12345")
    first = root / "dataset" / "Norder=3" / "Dir=0" / "Npix=7.parquet"
    storage.put(part, first)
    second = root / "dataset" / "Norder=3" / "Dir=10000" / "Npix=10001.parquet"
    storage.copy(first, second)
    storage.replace(root / "dataset" / "other.txt", b"x")
    assert storage.sizes(root / "dataset", ".parquet") == {(3, 7): 5, (3, 10001): 5}
    listed = list(storage.files(root / "dataset", ".parquet"))
    assert [path.read_bytes() for path, _ in listed] == [b"12345", b"12345"]
    assert storage.sizes(root / "nothing", ".parquet") == {}
    first.unlink()
    assert second.read_bytes() == b"12345"


def test_nothing_half_written_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    storage.replace(tmp_path / "a.json", b"old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        storage.replace(tmp_path / "a.json", b"new")
    with pytest.raises(OSError, match="No space"):
        storage.create(tmp_path / "b.json", b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.json": b"old"}


def test_copy_to_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError(errno.EXDEV, "cross-device link")

    (tmp_path / "a").write_bytes(b"1")
    monkeypatch.setattr(os, "link", refuse)
    storage.copy(tmp_path / "a", tmp_path / "c" / "b")
    assert (tmp_path / "c" / "b").read_bytes() == b"1"
