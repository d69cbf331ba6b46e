"""The store: a name means one whole folder at any moment, earlier ones stay, and undoing goes back."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lightmill.models import store
from lightmill.models.store import StoreError

DIGESTS = [f"{i:x}" * 64 for i in range(16)]


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIGHTMILL_MODELS", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture
def put(tmp_path: Path) -> Callable[[int], str]:
    """Put a model in; the name of its folder."""

    def make(i: int) -> str:
        source = tmp_path / f"source-{i}"
        source.mkdir(exist_ok=True)
        (source / "weights").write_bytes(bytes([i]) * 1000)
        (source / "bundle.json").write_text(str(i))
        return store.put(source, ["weights", "bundle.json"], store.folder_name("m", DIGESTS[i])).name

    return make


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert store.root() == tmp_path / "store"
    monkeypatch.delenv("LIGHTMILL_MODELS")
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert store.root() == Path("/home/ada/.local/share/lightmill/models")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert store.root() == Path("/data/lightmill/models")
    monkeypatch.setenv("XDG_DATA_HOME", "data")  # relative: to be ignored
    assert store.root() == Path("/home/ada/.local/share/lightmill/models")


def test_an_empty_store_is_none(root: Path):
    assert (store.names(), store.folders(), store.resolve("m"), store.history("m")) == ((), (), None, [])
    root.write_text("a file")  # or something else in its place
    assert (store.names(), store.folders(), store.resolve("m"), store.history("m")) == ((), (), None, [])


def test_promotions_and_back(root: Path, put: Callable[[int], str]):
    a, b = put(1), put(2)
    assert store.resolve("m") is None  # there, but not promoted
    assert store.resolve(a) == root / a
    store.point("m", a)
    store.point("m", b)
    store.point("m", b)  # no step of its own
    assert store.resolve("m") == root / b
    assert store.history("m") == [a, b]
    store.point("m", a)  # an older one again
    assert store.resolve("m") == root / a
    assert store.undo("m") == root / b
    assert store.undo("m") == root / a
    assert store.names() == ("m",)
    assert store.undo("m") is None
    assert store.names() == ()
    assert store.folders() == (root / a, root / b)  # both stay
    with pytest.raises(StoreError, match="'m' was never promoted"):
        store.undo("m")


def test_only_what_was_named_is_copied(root: Path, tmp_path: Path, put: Callable[[int], str]):
    name = put(3)
    source = tmp_path / "source-3"
    (source / "evil.py").write_text("import os")
    (source / "weights").write_bytes(b"something else by now")
    assert store.put(source, ["weights", "bundle.json"], name) == root / name
    assert sorted(path.name for path in (root / name).iterdir()) == ["bundle.json", "weights"]
    assert (root / name / "weights").read_bytes() == bytes([3]) * 1000  # what is there is never changed
    for file in ("../source-3/weights", "/etc/hostname"):
        with pytest.raises(StoreError, match="lies elsewhere"):
            store.put(source, [file], "m-00000000")
    (source / "link").symlink_to(source / "evil.py")
    with pytest.raises(StoreError, match="link lies elsewhere"):
        store.put(source, ["link"], "m-00000000")


def test_a_copy_that_fails_leaves_nothing(root: Path, tmp_path: Path, put: Callable[[int], str]):
    put(1)
    before = sorted(root.iterdir())
    with pytest.raises(FileNotFoundError):
        store.put(tmp_path / "source-1", ["weights", "missing"], "m-00000000")
    assert sorted(root.iterdir()) == before


def test_a_store_that_cannot_be_written(root: Path, tmp_path: Path, put: Callable[[int], str]):
    root.write_text("a file")
    with pytest.raises(OSError, match=str(root)):
        put(1)


@pytest.mark.parametrize("name", ["", "a b", "../m", "a/b", ".m", "m-0123abcd", "-m"])
def test_names_that_could_be_taken_for_something_else(name: str):
    with pytest.raises(StoreError, match="cannot name a model"):
        store.folder_name(name, DIGESTS[0])
    assert store.resolve(name) is None


@pytest.mark.parametrize("content", ["", "{}", "[]", '["../../etc"]', '["m-1"]', "[3]", "\xff"])
def test_a_damaged_pointer_is_refused(root: Path, put: Callable[[int], str], content: str):
    store.point("m", put(1))
    (root / "m.json").write_text(content, encoding="latin1")
    with pytest.raises(StoreError, match=r"m.json is damaged.*promote the model again"):
        store.resolve("m")


def test_a_folder_that_is_gone(root: Path, put: Callable[[int], str]):
    a, b = put(1), put(2)
    store.point("m", a)
    store.point("m", b)
    (root / b).rename(root.parent / "elsewhere")
    with pytest.raises(StoreError, match=r"is gone.*--undo m"):
        store.resolve("m")
    with pytest.raises(StoreError, match="is not there"):
        store.point("m", b)
    assert store.undo("m") == root / a


def test_readers_see_one_or_the_other_and_no_promotion_is_lost(root: Path, put: Callable[[int], str]):
    folders = [put(i) for i in range(8)]
    store.point("m", folders[0])
    seen, stop = set(), threading.Event()

    def read() -> None:
        while not stop.is_set():
            found = store.resolve("m")  # raises if what it reads is half-written
            assert found is not None
            seen.add(found.name)

    with ThreadPoolExecutor(max_workers=6) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        list(pool.map(lambda folder: store.point("m", folder), folders[1:]))
        stop.set()
        for reader in readers:
            reader.result()
    assert seen <= set(folders)
    assert sorted(store.history("m")) == sorted(folders)
    assert json.loads((root / "m.json").read_text()) == store.history("m")
    assert not list(root.glob(".*.part"))


def test_many_put_the_same_at_once(root: Path, put: Callable[[int], str]):
    put(5)
    source, name = root.parent / "source-5", "m-99999999"
    with ThreadPoolExecutor(max_workers=8) as pool:
        found = set(pool.map(lambda _: store.put(source, ["weights", "bundle.json"], name), range(16)))
    assert found == {root / name}
    assert (root / name / "bundle.json").read_text() == "5"
    assert not list(root.glob(".*.part"))
