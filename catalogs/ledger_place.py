"""Where a ledger lies: beside its catalogue on a local disk, in the user's state folder otherwise, or where it is told.

SQLite's write-ahead log needs memory that all its users share, so that a ledger on a network file system would be
corrupted by the first two hosts that write to it: https://www.sqlite.org/wal.html.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from lightmill.catalogs import storage
from lightmill.catalogs.runfolder import CatalogueFolder

__all__ = ["VARIABLE", "LedgerError", "address", "file_system", "is_network", "ledger_url"]

VARIABLE = "LIGHTMILL_LEDGER"  #: environment variable with the URL of a ledger
MOUNTS = Path("/proc/mounts")

NETWORK = {
    "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "dvs", "gfs", "gfs2", "glusterfs", "gpfs", "lustre",
    "ncpfs", "nfs", "nfs3", "nfs4", "ocfs2", "orangefs", "panfs", "pvfs2", "quobyte", "smb2", "smb3", "smbfs",
    "wekafs",
}  # fmt: skip
LOCAL_FUSE = {"fuse.ext2", "fuse.ntfs", "fuse.ntfs-3g", "fuse.fuse-overlayfs", "fuse.zfs", "fuse.exfat"}


class LedgerError(RuntimeError):
    """A ledger that cannot be opened, or does not know what it is asked about."""


def address(catalogue: CatalogueFolder | Path | str) -> str:
    """What the ledger calls a catalogue: its URL, or its path without symbolic links."""
    root = catalogue.root if isinstance(catalogue, CatalogueFolder) else catalogue
    text = str(root)
    if "://" in text:
        return text.rstrip("/")
    return os.path.realpath(root)


def ledger_url(given: str | None, catalogue: CatalogueFolder) -> URL:
    """The ledger that is given, or that the environment names, or else the SQLite file of a catalogue.

    Raises
    ------
    LedgerError
        if it is no URL of SQLite or PostgreSQL, or a SQLite file on a network file system.
    """
    text = given or os.environ.get(VARIABLE)
    if not text:
        return URL.create("sqlite", database=str(_default(catalogue)))
    return _checked(text)


def file_system(path: Path, mounts: str | None = None) -> str:
    """Type of the file system that a path lies on, or would ("ext4"); "" where the system does not say.

    `mounts` : what /proc/mounts says

    >>> file_system(Path("/data/ztf/x"), "/dev/sda / ext4 rw 0 0\\nhost:/d /data nfs4 rw 0 0\\n")
    'nfs4'
    """
    if mounts is None:
        try:
            mounts = MOUNTS.read_text(errors="replace")
        except OSError:
            return ""
        path = Path(os.path.realpath(path))
    found = Path(), ""
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        folder = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields[1]))
        # the longest one that holds it; of two on one folder, the later lies on top
        if path.is_relative_to(folder) and len(folder.parts) >= len(found[0].parts):
            found = folder, fields[2]
    return found[1]


def is_network(kind: str) -> bool:
    """Whether file systems of a type are shared between hosts.

    >>> [is_network(kind) for kind in ("nfs4", "fuse.sshfs", "ext4", "fuseblk")]
    [True, True, False, False]
    """
    return kind in NETWORK or (kind.startswith("fuse.") and kind not in LOCAL_FUSE)


def _checked(text: str) -> URL:
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise LedgerError(
            f"{text} is not the URL of a ledger: give sqlite:////path/ledger.sqlite or "
            "postgresql://user@host/database"
        ) from error
    if url.get_backend_name() == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() != "sqlite":
        raise LedgerError(
            f"a ledger is kept in SQLite or PostgreSQL, not in {url.get_backend_name()} ({text})"
        )
    if url.database not in (None, "", ":memory:"):
        kind = file_system(Path(str(url.database)))
        if is_network(kind):
            raise LedgerError(
                f"{url.database} lies on a network file system ({kind}), on which SQLite loses what two hosts write: "
                "give a path on a local disk, or a PostgreSQL server as postgresql://user@host/database"
            )
    return url


def _default(catalogue: CatalogueFolder) -> Path:
    name = f"ledger-{hashlib.sha256(address(catalogue).encode()).hexdigest()[:8]}.sqlite"
    state = os.environ.get("XDG_STATE_HOME", "")
    home = Path(state) if Path(state).is_absolute() else Path.home() / ".local" / "state"
    # homes of clusters are often on the network too
    places = [home / "lightmill" / name, Path("/var/tmp") / f"lightmill-{os.getuid()}" / name]
    if storage.is_local(catalogue.root):
        places.insert(0, catalogue.root / "ledger.sqlite")
    for path in places:
        if not is_network(file_system(path)):
            return path
    raise LedgerError(
        f"none of {', '.join(str(path.parent) for path in places)} is on a local disk, which a ledger in SQLite needs: "
        f"give one with --ledger or {VARIABLE}, or a PostgreSQL server as postgresql://user@host/database"
    )
