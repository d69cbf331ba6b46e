"""Which Parquet files a partition has: looked up one by one, or for a whole folder of partitions at once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fsspec import AbstractFileSystem
from upath import UPath

__all__ = ["File", "files_at", "files_in"]


@dataclass(frozen=True)
class File:
    """One Parquet file as it was when the release was opened."""

    path: str  #: as its file system names it
    size: int  #: [bytes]
    stamp: str  #: ETag, or time of the last change


def files_at(path: UPath, is_folder: bool) -> Iterator[File]:
    """The Parquet file at `path`, or those in the folder of that name; none if there is neither.

    The catalogue says whether it `is_folder`: over HTTP the folder itself would look like a file.
    """
    filesystem = path.fs
    try:
        info = {"type": "directory"} if is_folder else filesystem.info(path.path)
        entries = filesystem.ls(path.path, detail=True) if info["type"] == "directory" else [info]
    except FileNotFoundError:
        return
    for entry in sorted(entries, key=lambda entry: str(entry["name"])):
        if entry["type"] == "file" and (entry is info or str(entry["name"]).endswith(".parquet")):
            # an HTTP listing has names alone
            yield _file(entry if entry["size"] is not None else filesystem.info(entry["name"]))


def files_in(filesystem: AbstractFileSystem, folder: str) -> dict[str, tuple[File, ...]]:
    """The Parquet files in a folder, by the name of the file or of the folder in it that they lie in."""
    if "file" in filesystem.protocol:
        return _in_local(folder)
    found: dict[str, list[File]] = {}
    try:
        entries = filesystem.find(folder, detail=True)  # in one listing, whatever folders there are
    except FileNotFoundError:
        return {}
    for name, entry in sorted(entries.items()):
        top, *below = name.strip("/").removeprefix(folder.strip("/") + "/").split("/")
        if not below or (len(below) == 1 and name.endswith(".parquet")):
            found.setdefault(top, []).append(_file(entry))
    return {top: tuple(files) for top, files in found.items()}


def _in_local(folder: str) -> dict[str, tuple[File, ...]]:
    """The same on a file system, without the many facts that fsspec asks of each file."""
    found: dict[str, tuple[File, ...]] = {}
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return {}
    for entry in entries:
        if entry.is_dir():
            found[entry.name] = tuple(files_at(UPath(entry.path), is_folder=True))
        elif entry.is_file():
            facts = entry.stat()
            stamp = {"mtime": facts.st_mtime, "created": facts.st_ctime}
            found[entry.name] = (_file({"name": entry.path, "size": facts.st_size, **stamp}),)
    return found


def _file(info: Mapping[str, Any]) -> File:
    stamp = next(
        (info[key] for key in ("ETag", "etag", "mtime", "LastModified", "created") if info.get(key)), ""
    )
    if isinstance(stamp, datetime):  # some file systems tell the same time in one way here, in another there
        stamp = stamp.timestamp()
    return File(path=str(info["name"]), size=int(info.get("size") or 0), stamp=str(stamp))
