"""Files that appear whole or not at all, on a local or shared file system and on object stores.

A file system renames and links atomically; an object store replaces an object in one PUT and creates one only if it is
absent when asked to (`If-None-Match: *`, Amazon S3 since 2024). Nothing here looks at clocks.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
from hats.io.file_io import get_upath
from upath import UPath

__all__ = ["copy", "create", "files", "is_local", "of_network", "place", "put", "replace", "sizes", "sync"]


def of_network(error: BaseException) -> bool:
    """Whether an error is of a package that speaks to object stores: many of theirs are no OSError."""
    return type(error).__module__.partition(".")[0] in ("aiohttp", "botocore")


def place(url: str | Path) -> Path:
    """A local path made absolute, or the place behind an fsspec URL, which has the methods of a path too.

    hats would read S3 anonymously; here credentials are used where any are configured.
    """
    if isinstance(url, UPath) or "://" not in str(url):
        return url if isinstance(url, UPath) else Path(url).absolute()
    path = get_upath(str(url))
    options = dict(path.storage_options)
    if path.protocol in ("s3", "s3a"):
        given = fsspec.config.conf.get("s3", {}).keys() & {"anon", "key", "secret", "token", "profile"}
        if given or os.environ.keys() & {"AWS_ACCESS_KEY_ID", "AWS_PROFILE"}:
            options.pop("anon", None)
    # others write there too: what was listed a moment ago may be out of date
    return UPath(str(url), **options | {"use_listings_cache": False})


def is_local(path: Path) -> bool:
    """Whether a place is on a file system, which can rename and link."""
    return not isinstance(path, UPath) or path.protocol in ("", "file", "local")


def replace(path: Path, data: bytes) -> None:
    """Write a file under its name whole or not at all, over an older one, flushed to disk."""
    if not is_local(path):
        path.fs.pipe_file(path.path, data)  # type: ignore[attr-defined]
        return
    part = _part(path)
    try:
        _write(part, data)
        part.replace(path)
        sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def create(path: Path, data: bytes) -> bool:
    """Write a file only if there is none of that name; False if there is. Of two who try, one wins."""
    if not is_local(path):
        try:
            path.fs.pipe_file(path.path, data, mode="create")  # type: ignore[attr-defined]
        except FileExistsError:
            return False
        except OSError as error:
            if "recondition" in str(error) or "PreconditionFailed" in repr(error):  # S3's answer 412
                return False
            raise
        return True
    part = _part(path)
    try:
        _write(part, data)
        try:
            os.link(part, path)
        except FileExistsError:
            return False
        sync(path.parent)
    finally:
        part.unlink(missing_ok=True)
    return True


def put(local: Path, final: Path) -> None:
    """Move a finished local file under its final name, in one step, over an older one.

    On a file system `local` must lie on the same one as `final`; on an object store it is uploaded and kept.
    """
    if not is_local(final):
        with local.open("rb") as handle:
            final.fs.pipe_file(final.path, handle.read())  # type: ignore[attr-defined]
        return
    final.parent.mkdir(parents=True, exist_ok=True)
    local.replace(final)
    sync(final.parent)


def copy(source: Path, target: Path) -> None:
    """The same bytes under a second name: linked where the file system can, copied by the store where there is none."""
    if not is_local(target):
        target.fs.copy(source.path, target.path)  # type: ignore[attr-defined]
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = _part(target)
    try:
        try:
            os.link(source, part)
        except OSError:  # another file system, or one that has no links
            shutil.copyfile(source, part)
            sync(part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def files(folder: Path, suffix: str) -> Iterator[tuple[Path, int]]:
    """All files under a folder whose names end with `suffix`, with their sizes [bytes]; none if there is no folder.

    A listing costs one call a folder, or one a thousand objects. Names that begin with a dot are left out.
    """
    if not is_local(folder):
        found = folder.fs.find(folder.path, detail=True)  # type: ignore[attr-defined]
        for name, facts in sorted(found.items()):
            if name.endswith(suffix):
                yield _under(folder, name), int(facts["size"] or 0)
        return
    yield from _walk(str(folder), suffix)


def sizes(folder: Path, suffix: str) -> dict[tuple[int, int], int]:
    """Sizes [bytes] of `Norder=…/Dir=…/Npix=…<suffix>` under a folder, by (order, pixel)."""
    found = {}
    for path, size in files(folder, suffix):
        order, name = path.parts[-3], path.name.removesuffix(suffix)
        if order.startswith("Norder=") and name.startswith("Npix="):
            found[int(order.removeprefix("Norder=")), int(name.removeprefix("Npix="))] = size
    return found


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's entries, are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _under(folder: Path, name: str) -> Path:
    """The place of an object that a listing of `folder` named."""
    return folder / name.removeprefix(folder.path).lstrip("/")  # type: ignore[attr-defined]


def _walk(folder: str, suffix: str) -> Iterator[tuple[Path, int]]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, suffix)
        elif entry.name.endswith(suffix) and not entry.name.startswith("."):
            try:
                yield Path(entry.path), entry.stat().st_size
            except FileNotFoundError:
                continue  # gone since the folder was listed


def _part(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())
