"""`catalogs/lookup.py`: the light curves that were asked for, and no others, from every shape of release."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightmill.catalogs.lightcurves import objectid_of
from lightmill.catalogs.lookup import lookup
from lightmill.catalogs.release import open_release


def same(found, stars, i) -> None:
    """One light curve, as it was written."""
    assert len(found) == 1
    np.testing.assert_array_equal(found.t, stars.t[i])
    np.testing.assert_array_equal(found.mag.astype(np.float32), np.float32(stars.mag[i]))
    np.testing.assert_array_equal(found.magerr.astype(np.float32), np.float32(stars.magerr[i]))
    assert found.offsets.tolist() == [0, len(stars.t[i])]


def name_of(stars, i: int, shape: str) -> str:
    return f"star-{stars.objectid[i]}" if shape == "labelled" else str(stars.objectid[i])


@pytest.mark.parametrize("row_group_size", [None, 3])
def test_every_shape(tmp_path, make_stars, write_hats, shape, row_group_size):
    stars = make_stars(50, seed=3)
    write_hats(tmp_path / "release", stars, shape=shape, row_group_size=row_group_size, parts=2)
    release = open_release(str(tmp_path / "release"))
    asked = {name_of(stars, i, shape): i for i in (0, 17, 49, 5)}
    found = lookup(release, [*asked, "12", "no such star"])
    assert list(found) == list(asked)
    for name, i in asked.items():
        same(found[name].curves, stars, i)
        assert found[name].curves.ra[0] == pytest.approx(stars.ra[i], rel=1e-6)


def test_text_is_found_by_the_number_that_stands_for_it(tmp_path, make_stars, write_hats):
    stars = make_stars(10)
    write_hats(tmp_path / "release", stars, shape="labelled")
    number = objectid_of(name_of(stars, 4, "labelled"))
    found = lookup(open_release(str(tmp_path / "release")), [str(number)])
    same(found[str(number)].curves, stars, 4)
    assert found[str(number)].curves.objectid.tolist() == [number]


def test_two_spellings_of_a_number_are_both_answered(tiny_release, make_stars):
    stars = make_stars()
    one = str(stars.objectid[2])
    found = lookup(open_release(str(tiny_release)), [one, f"0{one}", one])
    assert list(found) == [one, f"0{one}"]
    same(found[f"0{one}"].curves, stars, 2)


def test_nothing_is_asked(tiny_release):
    assert lookup(open_release(str(tiny_release)), []) == {}


def test_only_the_row_group_that_holds_it_is_read(tmp_path, make_stars, write_hats, monkeypatch):
    stars = make_stars(40, seed=3, ra=np.full(40, 10.0), dec=np.full(40, 10.0))
    write_hats(tmp_path / "release", stars, row_group_size=4)
    read, original = [], pq.ParquetFile.read_row_group

    def listen(self, group, columns=None, **options):
        read.append((group, tuple(columns)))
        return original(self, group, columns=columns, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", listen)
    found = lookup(open_release(str(tmp_path / "release")), [str(stars.objectid[21])])
    same(found[str(stars.objectid[21])].curves, stars, 21)
    assert {group for group, _ in read} == {5}
    assert len(read) == 2


def test_a_damaged_file_is_said(tmp_path, make_stars, write_hats):
    stars = make_stars(20, seed=3, ra=np.full(20, 10.0), dec=np.full(20, 10.0))
    write_hats(tmp_path / "release", stars)
    release = open_release(str(tmp_path / "release"))
    (file,) = (tmp_path / "release").rglob("*.parquet")
    file.write_bytes(b"PAR1 nothing")
    with pytest.raises(pa.ArrowInvalid, match=file.name):
        lookup(release, [str(stars.objectid[0])])
