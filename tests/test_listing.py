"""`catalogs/listing.py`: a folder that is listed has the files that its partitions have one by one."""

from __future__ import annotations

import fsspec
import pytest
from upath import UPath

from lightmill.catalogs import partitions
from lightmill.catalogs.listing import files_in
from lightmill.catalogs.partitions import open_hats


@pytest.mark.parametrize("folders", [True, False])
@pytest.mark.parametrize("place", ["local", "memory"])
def test_listed_and_looked_up_are_the_same(tmp_path, make_stars, write_hats, monkeypatch, folders, place):
    write_hats(tmp_path / "r", make_stars(), folders=folders, parts=2 if folders else 1)
    one = next((tmp_path / "r").rglob("Npix=*"))
    if folders:  # what is none of a partition's files
        (one / "_SUCCESS").write_text("")
        (one / "deeper").mkdir()
        (one / "deeper" / "x.parquet").write_text("")
    else:
        one.with_name("Npix=99999.parquet").write_text("of no partition")
    url, memory = str(tmp_path / "r"), fsspec.filesystem("memory")
    if place == "memory":
        memory.put(url, "/listed/r", recursive=True)
        url = "memory://listed/r"
    try:
        found = {}
        for few in (0, 1000):
            monkeypatch.setattr(partitions, "FEW", few)
            found[few] = open_hats(url).partitions()
        assert found[0] == found[1000]
        assert all(len(partition.files) == (2 if folders else 1) for partition in found[0])
    finally:
        if place == "memory":
            memory.rm("/listed", recursive=True)


def test_a_link_counts_as_what_it_leads_to(tmp_path, tiny_release, monkeypatch):
    path = next(tiny_release.rglob("Npix=*"))
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    monkeypatch.setattr(partitions, "FEW", 0)
    listed = open_hats(str(tiny_release)).partitions()
    monkeypatch.setattr(partitions, "FEW", 1000)
    assert listed == open_hats(str(tiny_release)).partitions()


@pytest.mark.parametrize("url", ["/nowhere/Dir=0", "memory://nowhere/Dir=0"])
def test_no_folder(url):
    place = UPath(url)
    assert files_in(place.fs, place.path) == {}
