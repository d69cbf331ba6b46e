"""The store: promoted models on this machine, each in a folder named by its content, and which of them a name means.

    <name>-<digest8>/    the files of a model, never changed
    <name>.json          the folders that the name has meant, oldest first: the last is current

Promotion replaces the small file in one rename, so a reader sees the old model or the new one, whole. Older folders
stay. What is in a folder is not looked at here: `inventory` checks it before it is put in, and whoever loads it again.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = [
    "DIGITS",
    "StoreError",
    "check_name",
    "current",
    "folder_name",
    "folders",
    "history",
    "names",
    "point",
    "put",
    "resolve",
    "root",
    "undo",
]

DIGITS = 8  #: of a sha256, in the name of a folder and in each row of a catalogue
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_FOLDER = re.compile(rf"({_NAME.pattern})-([0-9a-f]{{{DIGITS}}})")


class StoreError(ValueError):
    """The store does not hold what was asked for, or cannot take what was given."""


def root() -> Path:
    """The store's folder, which need not exist: $LIGHTMILL_MODELS, or lightmill/models in the user's data folder.

    The data folder is $XDG_DATA_HOME, or ~/.local/share, as the XDG Base Directory Specification has it.
    """
    given = os.environ.get("LIGHTMILL_MODELS")
    if given:
        return Path(given).absolute()
    # the specification says that a relative path there must be ignored
    data = os.environ.get("XDG_DATA_HOME", "")
    base = Path(data) if Path(data).is_absolute() else Path(os.path.expanduser("~/.local/share"))  # noqa: PTH111
    return base / "lightmill" / "models"


def check_name(name: str) -> str:
    """The name, if it is one word that cannot be taken for a path or for the name of a folder of the store.

    >>> check_name("ztf-dr")
    'ztf-dr'

    Raises
    ------
    StoreError
    """
    if not _NAME.fullmatch(name) or _FOLDER.fullmatch(name):
        raise StoreError(
            f"{name!r} cannot name a model: letters, digits, '.', '_' and '-' are allowed, and an end like -0123abcd "
            "is a digest's; choose another with --as"
        )
    return name


def folder_name(name: str, digest: str) -> str:
    """Name of a model's folder.

    >>> folder_name("ztf-dr", "902b8c588d7b44d9f7d8767acfe62e44b50839cd440dbac62176e82be94f769f")
    'ztf-dr-902b8c58'
    """
    return f"{check_name(name)}-{digest[:DIGITS]}"


def names() -> tuple[str, ...]:
    """The names that the store gives a meaning to."""
    return tuple(sorted(path.stem for path in root().glob("*.json") if _NAME.fullmatch(path.stem)))


def folders() -> tuple[Path, ...]:
    """All models of the store, current or not."""
    return tuple(sorted(path for path in root().glob("*") if _FOLDER.fullmatch(path.name) and path.is_dir()))


def history(name: str) -> list[str]:
    """The folders that a name has meant, oldest first; empty if it was never promoted.

    Raises
    ------
    StoreError
        if the file that says so is damaged.
    """
    path = root() / f"{name}.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except ValueError as error:
        raise StoreError(_damaged(path, str(error))) from error
    if not (isinstance(found, list) and found and all(map(_is_folder_name, found))):
        raise StoreError(_damaged(path, f"{found!r} is not a list of folders like {name}-0123abcd"))
    return found


def current(name: str) -> Path | None:
    """The folder that a name means, or None if it was never promoted.

    Raises
    ------
    StoreError
        if the folder is gone.
    """
    before = history(name)
    if not before:
        return None
    path = root() / before[-1]
    if not path.is_dir():
        raise StoreError(
            f"{name!r} was promoted to {path}, which is gone: promote it again, or go back with "
            f"lightmill models promote --undo {name}"
        )
    return path


def resolve(name: str) -> Path | None:
    """The folder that a name, or the name of a folder of the store, means; None if the store knows neither.

    Raises
    ------
    StoreError
        if the store says that there is one, and it cannot be had.
    """
    if _is_folder_name(name):
        path = root() / name
        return path if path.is_dir() else None
    return current(name) if _NAME.fullmatch(name) else None


def put(source: Path, files: Sequence[str], name: str) -> Path:
    """Copy the files of a folder into the store as the folder `name`, whole or not at all; returns it.

    What is there under that name already is left as it is. Other files of `source` are not copied.

    Raises
    ------
    StoreError
        if a file is not one of `source` itself.
    OSError
        if the store cannot be written.
    """
    strange = [file for file in files if Path(file).name != file or (source / file).is_symlink()]
    if strange:
        raise StoreError(f"{source}: {', '.join(strange)} lies elsewhere; a model's files lie in its folder")
    final = root() / name
    if final.is_dir():
        return final
    root().mkdir(parents=True, exist_ok=True)
    part = root() / f".{name}.{uuid.uuid4().hex}.part"
    try:
        part.mkdir()
        for file in files:
            shutil.copyfile(source / file, part / file)
            _sync(part / file)
        _sync(part)
        _settle(part, final)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    _sync(root())
    return final


def point(name: str, folder: str) -> None:
    """Let a name mean a folder of the store from now on."""
    if not (root() / folder).is_dir():
        raise StoreError(f"{root() / folder} is not there: {name!r} cannot mean it")
    with _locked():
        before = history(name)
        if before[-1:] != [folder]:
            _write(root() / f"{check_name(name)}.json", [*before, folder])


def undo(name: str) -> Path | None:
    """Let a name mean what it meant before; returns the folder, or None where that is no folder of the store.

    Raises
    ------
    StoreError
        if it was never promoted.
    """
    if not history(name):
        raise StoreError(
            f"{name!r} was never promoted, so there is nothing to undo. {_promoted(names())} in {root()}"
        )
    with _locked():
        before = history(name)[:-1]
        if before:
            _write(root() / f"{name}.json", before)
        else:
            (root() / f"{name}.json").unlink(missing_ok=True)
            _sync(root())
    return current(name)


def _promoted(known: Iterable[str]) -> str:
    return f"Promoted are {', '.join(known)}" if known else "Nothing is promoted"


def _is_folder_name(name: object) -> bool:
    return isinstance(name, str) and _FOLDER.fullmatch(name) is not None


def _damaged(path: Path, why: str) -> str:
    return f"{path} is damaged: {why}; remove it, and promote the model again"


def _settle(part: Path, final: Path) -> None:
    """Give the folder its name; another process may have been quicker with the same content."""
    try:
        part.rename(final)
    except OSError:
        if not final.is_dir():
            raise


@contextmanager
def _locked() -> Iterator[None]:
    """One promotion at a time: each reads the history before it writes it."""
    with (root() / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _write(path: Path, content: list[str]) -> None:
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        _sync(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    _sync(path.parent)


def _sync(path: Path) -> None:
    """Wait until a file's content, or a folder's entries, are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
