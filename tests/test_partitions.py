"""`catalogs/partitions.py`: which partitions a catalogue has and a region touches, and what is no catalogue."""

from __future__ import annotations

import os
from pathlib import Path

import astropy.units as u
import numpy as np
import pyarrow as pa
import pytest
from astropy.coordinates import Angle, Latitude, Longitude, SkyCoord
from mocpy import MOC

from lightmill.catalogs.partitions import Box, Cone, File, NotHats, Partition, open_hats


def pixels(table, region=None) -> list[int]:
    return [partition.pixel for partition in table.partitions(region)]


@pytest.fixture(scope="module")
def whole_sky(tmp_path_factory, make_stars, write_hats):
    """Stars everywhere, on the poles and on both sides of ra = 0; which pixel holds which."""
    rng = np.random.default_rng(11)
    ra = np.concatenate([rng.uniform(0, 360, 300), [0.0, 359.999, 0.001, 12.0, 200.0]])
    dec = np.concatenate([np.degrees(np.arcsin(rng.uniform(-1, 1, 300))), [0.0, 0.0, 0.0, 90.0, -90.0]])
    stars = make_stars(ra=ra, dec=dec, n_epochs=2)
    root = tmp_path_factory.mktemp("sky") / "release"
    inside = write_hats(root, stars, order=2)
    return open_hats(str(root)), stars, inside


def test_all_partitions_in_the_order_of_the_sky(whole_sky):
    table, _, inside = whole_sky
    assert pixels(table) == sorted(inside)
    assert table.pixels() == tuple((2, pixel) for pixel in sorted(inside))
    assert table.name == "release"
    for partition in table.partitions():
        assert len(partition.files) == 1
        assert partition.is_local
        assert partition.bytes == sum(Path(url).stat().st_size for url in partition.urls)
        assert str(partition) == f"Norder=2/Npix={partition.pixel}"


@pytest.mark.parametrize(
    "cone",
    [
        Cone(0, 0, 3),
        Cone(359.9, 1, 8),
        Cone(120, 89.5, 2),
        Cone(300, -89, 5),
        Cone(45, 20, 0.1),
        Cone(77, -33, 60),
    ],
)
def test_a_cone_misses_no_partition(whole_sky, cone):
    """Every star inside is in a partition that was chosen; each that was chosen reaches into the cone."""
    table, stars, inside = whole_sky
    centre = SkyCoord(cone.ra, cone.dec, unit="deg")
    distance = centre.separation(SkyCoord(stars.ra, stars.dec, unit="deg")).deg
    needed = {pixel for pixel, index in inside.items() if (distance[index] <= cone.radius).any()}
    found = set(pixels(table, cone))
    assert needed <= found
    # an order-2 pixel is nowhere more than 25° across: the chosen ones touch the cone
    near = {pixel for pixel, index in inside.items() if (distance[index] <= cone.radius + 25).any()}
    assert found <= near


@pytest.mark.parametrize(
    "box",
    [Box((350, 10), (-5, 5)), Box((10, 350), (-5, 5)), Box((0, 360), (80, 90)), Box((100, 140), (-90, -60))],
)
def test_a_box_misses_no_partition(whole_sky, box):
    table, stars, inside = whole_sky
    a, b = box.ra
    in_ra = (stars.ra >= a) & (stars.ra <= b) if a < b else (stars.ra >= a) | (stars.ra <= b)
    mine = in_ra & (stars.dec >= box.dec[0]) & (stars.dec <= box.dec[1])
    needed = {pixel for pixel, index in inside.items() if mine[index].any()}
    found = set(pixels(table, box))
    assert needed
    assert needed <= found
    assert box.ra == (0, 360) or len(found) < len(inside)


def test_a_moc(whole_sky):
    table, stars, inside = whole_sky
    moc = MOC.from_cone(Longitude(0.5 * u.deg), Latitude(0.5 * u.deg), radius=Angle(6 * u.deg), max_depth=8)
    mine = moc.contains_lonlat(stars.ra * u.deg, stars.dec * u.deg)
    needed = {pixel for pixel, index in inside.items() if mine[index].any()}
    found = set(pixels(table, moc))
    assert needed
    assert needed <= found < set(inside)


def test_a_region_without_partitions(tiny_release):
    assert open_hats(str(tiny_release)).partitions(Cone(180, 0, 1)) == ()


def test_folders_of_files_and_files(tmp_path, make_stars, write_hats):
    for folders, parts in ((True, 3), (False, 1)):
        root = tmp_path / f"{folders}"
        write_hats(root, make_stars(), folders=folders, parts=parts)
        for partition in open_hats(str(root)).partitions():
            names = [Path(url).name for url in partition.urls]
            parquet = [f"part{i}.snappy.parquet" for i in range(parts)]
            assert names == (parquet if folders else [f"Npix={partition.pixel}.parquet"])


def test_other_files_beside_the_parquet(tiny_release):
    folder = next(tiny_release.rglob("Npix=*"))
    (folder / "_SUCCESS").write_text("")
    (folder / "notes").mkdir()
    assert all(len(partition.files) == 1 for partition in open_hats(str(tiny_release)).partitions())


def test_a_partition_whose_file_is_gone(tiny_release):
    first, *_ = open_hats(str(tiny_release)).partitions()
    Path(first.urls[0]).unlink()
    again, *others = open_hats(str(tiny_release)).partitions()
    assert again.files == ()
    assert again.bytes == 0
    assert all(partition.files for partition in others)


def test_the_identity_changes_with_the_input(tiny_release):
    def identities():
        return [partition.identity() for partition in open_hats(str(tiny_release)).partitions()]

    before = identities()
    assert identities() == before
    assert len(set(before)) == len(before)
    path = Path(open_hats(str(tiny_release)).partitions()[1].urls[0])
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
    after = identities()
    assert [a != b for a, b in zip(before, after, strict=True)] == [False, True, *[False] * (len(before) - 2)]


def test_the_identity_does_not_depend_on_where_the_release_lies():
    one, two = (
        Partition(3, 1, (File(f"{root}/Npix=1.parquet", 10, "etag"),), protocol, "{}")
        for root, protocol in (("/data", ""), ("bucket/release", "s3"))
    )
    assert one.identity() == two.identity()
    assert two.urls == ("s3://bucket/release/Npix=1.parquet",)
    assert one.urls == ("/data/Npix=1.parquet",)


def test_schema_with_and_without_common_metadata(tiny_release):
    import pyarrow.parquet as pq

    found = open_hats(str(tiny_release)).schema()
    assert "lightcurve" in found.names
    pq.write_metadata(
        found.append(pa.field("extra", pa.int8())), tiny_release / "dataset" / "_common_metadata"
    )
    assert "extra" in open_hats(str(tiny_release)).schema().names


def test_no_file_at_all(tiny_release):
    for path in tiny_release.rglob("*.parquet"):
        path.unlink()
    with pytest.raises(NotHats, match="lists 4 partitions but has no Parquet file"):
        open_hats(str(tiny_release)).schema()


@pytest.mark.parametrize("kind", ["missing", "empty folder", "file"])
def test_not_hats(tmp_path, kind):
    path = tmp_path / "thing"
    if kind == "empty folder":
        path.mkdir()
    elif kind == "file":
        path.write_text("PAR1")
    advice = "no such file or folder" if kind == "missing" else "lightmill import"
    with pytest.raises(NotHats, match=rf"thing is not a HATS catalogue.*{advice}"):
        open_hats(str(path))


def test_damaged_properties(tiny_release):
    (tiny_release / "hats.properties").write_text("dataproduct_type=object\nhats_nrows=many\n")
    with pytest.raises(NotHats, match="cannot be read as a HATS catalogue"):
        open_hats(str(tiny_release))


def test_no_partitions(tiny_release):
    (tiny_release / "partition_info.csv").write_text("Norder,Npix\n")
    with pytest.raises(NotHats, match=r"has no partitions|cannot be read"):
        open_hats(str(tiny_release))


def test_a_collection_is_its_main_catalogue(tmp_path, make_stars, write_hats):
    write_hats(tmp_path / "main", make_stars())
    (tmp_path / "collection.properties").write_text("obs_collection=ztf\nhats_primary_table_url=main\n")
    table = open_hats(str(tmp_path))
    assert len(table.partitions()) == 4
    assert all(partition.files for partition in table.partitions())
