"""Versions of a catalogue: which there are, which is current, and which were retracted.

A version is a folder with a `version.json`; one without is half made. The current one is what the catalogue's own
`collection.properties` names: that file is replaced in one step.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hats.catalog.dataset.collection_properties import CollectionProperties

from lightmill.catalogs import storage
from lightmill.catalogs.lease import LeaseError, lease
from lightmill.catalogs.partitions import NotHats
from lightmill.catalogs.receipts import Receipt, write_json
from lightmill.catalogs.runfolder import CATALOG, CatalogueFolder, read_index

__all__ = [
    "INDEX",
    "PublishError",
    "Version",
    "current",
    "find_version",
    "make_current",
    "new_name",
    "only_one",
    "published_at",
    "read_version",
    "retract",
    "retracted",
    "versions",
    "write_collection",
]

INDEX = f"{CATALOG}_objectid_index"  #: folder of the index of identifiers within a version


class PublishError(ValueError):
    """A version cannot be published, made current or retracted."""


@dataclass(frozen=True)
class Version:
    """A published version."""

    root: Path
    name: str
    created: str  #: UTC, ISO 8601
    catalogue: str  #: name in the properties
    rows: int
    partitions: dict[str, dict[str, list[int]]]  #: pixels by order, by run
    runs: list[str]  #: names of its runs, in the order in which they were asked
    records: dict[str, dict[str, Any]]  #: run.json of each run
    holes: int  #: partitions that should be there, and are not
    complete: float  #: share of those that should be there, 0 to 1
    mixture: list[str]  #: what its runs differ in, in words
    digest: str  #: sha256 of partitions, runs and fingerprints
    margin: str | None  #: folder of its margin
    current: bool = False

    @property
    def objects(self) -> Path:
        """Root of its table."""
        return self.root / CATALOG

    def receipts(self) -> list[Receipt]:
        """Of its partitions."""
        return read_index(self.root / "receipts.parquet")


def read_version(root: Path, *, is_current: bool = False) -> Version | None:
    """The version in a folder; None if there is none, or a half-made one."""
    try:
        facts = json.loads((root / "version.json").read_bytes())
        return Version(root=root, **facts, current=is_current)
    except (OSError, ValueError, TypeError):
        return None


def versions(catalogue: CatalogueFolder) -> list[Version]:
    """All versions, the oldest first."""
    folder, name = catalogue.root / "versions", _current_name(catalogue)
    if not folder.exists():
        return []
    found = [
        read_version(path, is_current=path.name == name)
        for path in folder.iterdir()
        if not path.name.startswith(".")
    ]
    return sorted((v for v in found if v is not None), key=lambda v: (v.created, len(v.name), v.name))


def current(catalogue: CatalogueFolder) -> Version | None:
    """The version that readers get; None if none is published."""
    name = _current_name(catalogue)
    return read_version(catalogue.version(name), is_current=True) if name else None


def find_version(place: str | Path) -> Version | None:
    """The version at a place: a version's folder, a catalogue (its current one), or CATALOGUE@NAME."""
    root = storage.place(place)
    if (found := read_version(root)) is not None:
        return found
    if (found := current(CatalogueFolder(root))) is not None:
        return found
    before, at, name = str(place).rpartition("@")
    if at and before and name and "/" not in name:
        return read_version(CatalogueFolder.at(before).version(name))
    return None


def published_at(place: str) -> str:
    """Where the tables of a catalogue lie: the place itself, but for CATALOGUE@NAME.

    Raises
    ------
    NotHats
        if the catalogue has no such version.
    """
    root, at, name = place.rstrip("/").rpartition("@")
    if not at or not root or not name or "/" in name or storage.place(place).exists():
        return place
    folder = CatalogueFolder.at(root).root / "versions"
    if not (folder / name / "version.json").exists():
        there = sorted(path.parent.name for path in folder.glob("*/version.json"))
        raise NotHats(f"{root} has no version {name!r}; it has {', '.join(there) or 'none'}")
    return str(folder / name)


def new_name(catalogue: CatalogueFolder, name: str | None) -> str:
    """A name for a version to come: the one asked for, or the next of v1, v2, …

    Raises
    ------
    PublishError
        if it is no name for a folder, or was ever taken.
    """
    # by their folders: a version whose record cannot be read just now must not be written over
    folder, gone = catalogue.root / "versions", retracted(catalogue)
    there = {path.name for path in folder.iterdir() if path.name[0] != "."} if folder.exists() else set()
    if name is None:
        numbers = [int(found[1]) for one in there | gone.keys() if (found := re.fullmatch(r"v(\d+)", one))]
        return f"v{max(numbers, default=0) + 1}"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", name):
        raise PublishError(
            f"{name!r} is no name for a version: letters, digits and . _ + -, a letter or digit first"
        )
    if name in gone or name in there:
        advice = "" if name in gone else f", or let readers get it: lightmill versions --make-current {name}"
        raise PublishError(
            f"version {name} of {catalogue.root} {'was retracted' if name in gone else 'exists'}, and versions never "
            f"change: give another name{advice}"
        )
    return name


def make_current(catalogue: CatalogueFolder, name: str) -> Version:
    """Let readers get another version, in one step.

    Raises
    ------
    PublishError
        if there is no such version, or another process changes the versions.
    """
    with only_one(catalogue):
        return _make_current(catalogue, name)


def _make_current(catalogue: CatalogueFolder, name: str) -> Version:
    version = _get(catalogue, name)
    write_collection(catalogue.root, version, f"versions/{name}/")
    found = current(catalogue)
    assert found is not None
    return found


def retract(catalogue: CatalogueFolder, name: str, reason: str, *, instead: str | None = None) -> None:
    """Remove a version for good, and record why.

    Parameters
    ----------
    instead : version that becomes current; needed where the one to be retracted is

    Raises
    ------
    PublishError
        if there is no such version, no reason, or it is current and no other is named.
    """
    if not reason.strip():
        raise PublishError(f"{name} is not retracted without a reason: it is recorded, give one")
    with only_one(catalogue):
        version = _get(catalogue, name)
        if instead == name:
            raise PublishError(f"{name} cannot be retracted and be current: name another version")
        if instead is not None:
            _make_current(catalogue, instead)
        elif _current_name(catalogue) == name:
            others = [v.name for v in versions(catalogue) if v.name != name]
            advice = f"name one of {', '.join(others)} with --current" if others else "publish another first"
            raise PublishError(f"{name} is the current version of {catalogue.root}: {advice}")
        note = {"reason": reason, "retracted": _now(), "digest": version.digest, "runs": version.runs}
        write_json(_record(catalogue), retracted(catalogue) | {name: note})
        (version.root / "version.json").unlink()
        remove(version.root)


def retracted(catalogue: CatalogueFolder) -> dict[str, dict[str, Any]]:
    """What was retracted, when and why, by name."""
    try:
        found: dict[str, dict[str, Any]] = json.loads(_record(catalogue).read_bytes())
    except FileNotFoundError:
        return {}
    return found


@contextmanager
def only_one(catalogue: CatalogueFolder) -> Iterator[None]:
    """Let one process at a time change a catalogue's versions; what dead ones left half made is removed.

    Raises
    ------
    PublishError
        if another one does.
    """
    folder = catalogue.root / "versions"
    try:
        with lease(folder / ".lease.json"):
            for path in folder.iterdir():
                whole = not path.name.startswith(".") and (path / "version.json").exists()
                if not whole and path.is_dir():
                    remove(path)
            yield
    except LeaseError as error:
        raise PublishError(f"another process changes the versions of {catalogue.root}: {error}") from error


def write_collection(root: Path, version: Version, before: str = "") -> None:
    """Write the file that makes a folder a collection of a version's tables, in one step; `before` is their place."""
    facts: dict[str, Any] = {
        "obs_collection": version.catalogue, "hats_primary_table_url": f"{before}{CATALOG}",
        "all_indexes": {"objectid": f"{before}{INDEX}"}, "default_index": "objectid",
        "lightmill_version": version.name,
    }  # fmt: skip
    if version.margin:
        facts |= {"all_margins": [f"{before}{version.margin}"], "default_margin": f"{before}{version.margin}"}
    with tempfile.TemporaryDirectory() as folder:
        CollectionProperties.model_validate(facts).to_properties_file(folder)
        text = (Path(folder) / "collection.properties").read_bytes()
    storage.replace(root / "collection.properties", text)


def remove(folder: Path) -> None:
    """Remove a folder and all in it."""
    if not storage.is_local(folder):
        folder.fs.rm(folder.path, recursive=True)  # type: ignore[attr-defined]
        return
    gone = folder.with_name(f".{uuid.uuid4().hex}.gone")
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def record(version: Version) -> dict[str, Any]:
    """A version as its `version.json` has it."""
    return {key: value for key, value in asdict(version).items() if key not in ("root", "current")}


def _get(catalogue: CatalogueFolder, name: str) -> Version:
    version = read_version(catalogue.version(name)) if name and "/" not in name else None
    if version is None:
        known = ", ".join(v.name for v in versions(catalogue)) or "none"
        note = retracted(catalogue).get(name)
        gone = f" (it was retracted on {note['retracted']}: {note['reason']})" if note else ""
        raise PublishError(f"{catalogue.root} has no version {name!r}{gone}; it has {known}")
    return version


def _current_name(catalogue: CatalogueFolder) -> str | None:
    """Read from the address of the table."""
    try:
        lines = catalogue.collection.read_bytes().decode().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return None
    for line in lines:
        key, _, value = line.partition("=")
        if key.strip() == "hats_primary_table_url":
            parts = value.strip().split("/")
            return parts[1] if len(parts) == 3 and parts[0] == "versions" else None
    return None


def _record(catalogue: CatalogueFolder) -> Path:
    return catalogue.root / "versions" / ".retracted.json"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
