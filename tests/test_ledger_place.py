"""Where a ledger lies: never where SQLite would lose it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from sqlalchemy import text

from lightmill.catalogs import ledger_place
from lightmill.catalogs.ledger import open_ledger
from lightmill.catalogs.ledger_place import LedgerError, address, file_system, is_network, ledger_url
from lightmill.catalogs.runfolder import CatalogueFolder

MOUNTS = r"""/dev/sda1 / ext4 rw 0 0
server:/export /data nfs4 rw 0 0
/dev/sdb1 /data/scratch xfs rw 0 0
user@host: /mnt/far\040away fuse.sshfs rw 0 0
/dev/sdc1 /mnt/stick fuseblk rw 0 0
/dev/sda1 /twice ext4 rw 0 0
pool@tcp:/fs /twice lustre rw 0 0
broken
"""


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.delenv(ledger_place.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def mount(monkeypatch: pytest.MonkeyPatch, folder: Path, lines: str) -> None:
    """Let the system say what is mounted."""
    file = folder / "mounts"
    file.write_text(lines)
    monkeypatch.setattr(ledger_place, "MOUNTS", file)


@pytest.mark.parametrize(
    ("path", "kind", "network"),
    [
        ("/home/ada", "ext4", False),
        ("/data", "nfs4", True),
        ("/data/ztf/catalogue", "nfs4", True),
        ("/database", "ext4", False),
        ("/data/scratch/catalogue", "xfs", False),
        ("/mnt/far away/catalogue", "fuse.sshfs", True),
        ("/mnt/stick/catalogue", "fuseblk", False),
        ("/twice/catalogue", "lustre", True),
    ],
)
def test_file_systems(path: str, kind: str, network: bool) -> None:
    assert file_system(Path(path), MOUNTS) == kind
    assert is_network(kind) is network


@pytest.mark.parametrize(
    "kind", ["nfs", "cifs", "smb3", "lustre", "gpfs", "beegfs", "fuse.glusterfs", "ceph"]
)
def test_network_file_systems(kind: str) -> None:
    assert is_network(kind)


def test_the_file_system_of_this_machine(tmp_path: Path) -> None:
    assert file_system(tmp_path / "not there yet") == file_system(tmp_path) != ""


def test_a_system_that_does_not_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_place, "MOUNTS", tmp_path / "none")
    assert file_system(tmp_path) == ""
    assert not is_network("")


def test_beside_a_catalogue_on_a_local_disk(tmp_path: Path) -> None:
    folder = CatalogueFolder.at(tmp_path / "catalogue")
    assert ledger_url(None, folder).database == str(tmp_path / "catalogue" / "ledger.sqlite")
    with open_ledger(None, folder) as ledger:
        assert ledger.url == f"sqlite:///{tmp_path}/catalogue/ledger.sqlite"
        with ledger.engine.connect() as connection:
            connection.execute(text("SELECT 1"))
            assert (tmp_path / "catalogue" / "ledger.sqlite-wal").exists()
            folder.check()  # a catalogue may hold it
    folder.check()


def test_it_need_not_be_made(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"there is no ledger .*catalogue/ledger.sqlite.*rebuild"):
        open_ledger(None, CatalogueFolder.at(tmp_path / "catalogue"), create=False)
    assert not (tmp_path / "catalogue").exists()


def test_in_the_state_folder_otherwise(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    away = CatalogueFolder.at("memory://bucket/catalogue")
    name = hashlib.sha256(address(away).encode()).hexdigest()[:8]
    assert ledger_url(None, away).database == str(home / "lightmill" / f"ledger-{name}.sqlite")
    mount(monkeypatch, tmp_path, f"/dev/sda / ext4 rw 0 0\nh:/x {tmp_path}/net nfs rw 0 0\n")
    shared = CatalogueFolder.at(tmp_path / "net" / "catalogue")
    found = Path(str(ledger_url(None, shared).database))
    assert found.parent == home / "lightmill"
    assert found.name != f"ledger-{name}.sqlite"
    # homes of clusters are often on the network too
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "net" / "state"))
    assert str(ledger_url(None, shared).database).startswith("/var/tmp/lightmill-")
    mount(monkeypatch, tmp_path, "h:/x / nfs rw 0 0\n")
    with pytest.raises(LedgerError, match=r"is on a local disk.*--ledger or LIGHTMILL_LEDGER"):
        ledger_url(None, shared)


def test_a_relative_state_folder_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "state")
    monkeypatch.setenv("HOME", "/home/ada")
    found = ledger_url(None, CatalogueFolder.at("memory://bucket/catalogue")).database
    assert str(found).startswith("/home/ada/.local/state/lightmill/ledger-")


def test_what_is_given_counts_before_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = CatalogueFolder.at(tmp_path)
    monkeypatch.setenv(ledger_place.VARIABLE, "postgresql://ada@host/ztf")
    assert ledger_url("sqlite:////a/b.sqlite", folder).database == "/a/b.sqlite"
    assert ledger_url(None, folder).render_as_string() == "postgresql+psycopg://ada@host/ztf"


def test_sqlite_on_the_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount(monkeypatch, tmp_path, f"/dev/sda / ext4 rw 0 0\nh:/x {tmp_path}/net nfs4 rw 0 0\n")
    (tmp_path / "link").symlink_to(tmp_path / "net")
    for name in ("net", "link"):
        url = f"sqlite:///{tmp_path}/{name}/ledger.sqlite"
        with pytest.raises(LedgerError, match=r"network file system \(nfs4\).*postgresql://"):
            open_ledger(url, CatalogueFolder.at(tmp_path))
    assert not (tmp_path / "net").exists()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ledger.sqlite", "not the URL of a ledger.*sqlite:////path"),
        ("mysql://host/ztf", "in SQLite or PostgreSQL, not in mysql"),
        ("postgresql://ada:secret@127.0.0.1:1/ztf", r"cannot be opened: .*"),
        ("sqlite:////proc/none/ledger.sqlite", r"cannot be made|cannot be opened"),
    ],
)
def test_what_is_no_ledger(url: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=said) as caught:
        open_ledger(url, CatalogueFolder.at(tmp_path))
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_text("a thesis, not a ledger at all" * 100)
    with pytest.raises(LedgerError, match="file is not a database"):
        open_ledger(None, CatalogueFolder.at(tmp_path))


def test_addresses(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "catalogue")
    real = str((tmp_path / "catalogue").resolve())
    assert (
        address(tmp_path / "link")
        == address(f"{real}/")
        == address(CatalogueFolder.at(tmp_path / "link"))
        == real
    )
    assert address("s3://bucket/catalogue/") == "s3://bucket/catalogue"
