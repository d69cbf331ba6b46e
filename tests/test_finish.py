"""`catalogs/finish.py`: what hats and LSDB ask of a catalogue, and what is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightmill.catalogs.finish import finish_catalog, partition_path

pytestmark = [
    # lsdb 0.11 on pandas 3: it still sets an option, and passes keywords, that pandas has begun to retire.
    pytest.mark.filterwarnings("ignore:The 'mode.chained_assignment' option is deprecated"),
    pytest.mark.filterwarnings("ignore:The inplace keyword in NestedFrame"),
    # lsdb announces another default for suffixes; the crossmatch here gives its own.
    pytest.mark.filterwarnings("ignore:The default suffix behavior will change:FutureWarning"),
    # A catalogue without a margin may miss pairs across partitions; a catalogue with itself misses none.
    pytest.mark.filterwarnings("ignore:Right catalog does not have a margin cache:RuntimeWarning"),
]

ORDER = 3
ROWS = 3_000
DATE = {"hats_creation_date": "2026-01-01T00:00UTC"}


def table_of(ra: np.ndarray, dec: np.ndarray) -> pa.Table:
    from hats.pixel_math.spatial_index import compute_spatial_index

    table = pa.table({"_healpix_29": compute_spatial_index(ra, dec), "ra": ra, "dec": dec})
    return table.append_column("objectid", pa.array(np.arange(len(ra)))).sort_by("_healpix_29")


def write_partitions(root: Path, npix_suffix: str = ".parquet") -> dict[tuple[int, int], int]:
    """ROWS objects in 10° × 10° across ra = 0; a partition that is a folder gets two files."""
    rng = np.random.default_rng(7)
    table = table_of(rng.uniform(-5, 5, ROWS) % 360, rng.uniform(-5, 5, ROWS))
    pixels = table["_healpix_29"].to_numpy() >> (2 * (29 - ORDER))
    partitions = {}
    for pixel in np.unique(pixels).tolist():
        mine, path = table.filter(pa.array(pixels == pixel)), partition_path(root, ORDER, pixel, npix_suffix)
        partitions[ORDER, pixel] = len(mine)
        if npix_suffix == ".parquet":
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(mine, path)
        else:
            path.mkdir(parents=True)
            pq.write_table(mine.slice(0, 10), path / "part0.snappy.parquet")
            pq.write_table(mine.slice(10), path / "part1.snappy.parquet")
    return partitions


def finish(root: Path, partitions: dict[tuple[int, int], int], **more) -> None:
    arguments = {"name": "stars", "ra_column": "ra", "dec_column": "dec", "properties": DATE}
    finish_catalog(root, partitions=partitions, **(arguments | more))


def digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def partitions(tmp_path: Path) -> dict[tuple[int, int], int]:
    return write_partitions(tmp_path)


@pytest.mark.parametrize("npix_suffix", [".parquet", "/"])
def test_hats_and_lsdb_accept_it(tmp_path, npix_suffix):
    import lsdb
    from hats.io.validation import is_valid_catalog

    partitions = write_partitions(tmp_path, npix_suffix)
    finish(tmp_path, partitions, npix_suffix=npix_suffix)
    assert is_valid_catalog(tmp_path, strict=True)
    catalog = lsdb.open_catalog(tmp_path)
    assert len(catalog) == ROWS
    ra, dec = (np.concatenate([catalog.compute()[name].to_numpy()]) for name in ("ra", "dec"))
    inside = np.hypot((ra + 180) % 360 - 180, dec) < 2  # flat near the equator to 0.1 %
    found = catalog.cone_search(0, 0, 2 * 3600).compute()
    assert abs(len(found) - inside.sum()) <= 2
    pairs = catalog.crossmatch(catalog, radius_arcsec=0.1, suffixes=("_a", "_b")).compute()
    assert len(pairs) == ROWS
    assert (pairs["objectid_a"] == pairs["objectid_b"]).all()


def test_what_the_properties_say(tmp_path, partitions):
    from hats import read_hats

    finish(tmp_path, partitions, default_columns=["objectid", "ra", "dec"], properties=DATE | {"run": "r1"})
    info = read_hats(tmp_path).catalog_info
    assert info.total_rows == ROWS == sum(partitions.values())
    assert info.hats_max_rows == max(partitions.values())
    assert (info.ra_column, info.dec_column, info.healpix_column) == ("ra", "dec", "_healpix_29")
    assert info.default_columns == ["objectid", "ra", "dec"]
    assert info.extra_dict()["run"] == "r1"
    assert info.extra_dict()["hats_creation_date"] == DATE["hats_creation_date"]
    assert float(info.moc_sky_fraction) == pytest.approx(len(partitions) / (12 * 4**ORDER), rel=1e-4)


def test_the_maps_count_every_row(tmp_path, partitions):
    from hats import read_hats
    from hats.io.skymap import read_skymap

    finish(tmp_path, partitions)
    coarse = read_skymap(read_hats(tmp_path), ORDER)
    assert {(ORDER, pixel): coarse[pixel] for pixel in np.flatnonzero(coarse)} == partitions


def test_twice_writes_the_same_bytes(tmp_path, partitions):
    finish(tmp_path, partitions)
    before = digests(tmp_path)
    finish(tmp_path, partitions)
    assert digests(tmp_path) == before
    assert not list(tmp_path.rglob("*.part"))


def test_no_partitions(tmp_path):
    with pytest.raises(ValueError, match="no partitions"):
        finish(tmp_path, {})


def test_wrong_number_of_rows(tmp_path, partitions):
    key = next(iter(partitions))
    wrong = partitions | {key: partitions[key] + 1}
    with pytest.raises(ValueError, match=f"holds {partitions[key]} rows, `partitions` says {wrong[key]}"):
        finish(tmp_path, wrong)
    assert not (tmp_path / "hats.properties").exists()


def test_missing_and_unexpected_files(tmp_path, partitions):
    with pytest.raises(ValueError, match="1 missing partition files"):
        finish(tmp_path, partitions | {(9, 3): 1})
    fewer = dict(list(partitions.items())[1:])
    with pytest.raises(ValueError, match="1 unexpected partition files"):
        finish(tmp_path, fewer)


def test_rows_outside_their_pixel(tmp_path, partitions):
    (order, pixel), *_, other = partitions
    pq.write_table(pq.read_table(partition_path(tmp_path, *other)), partition_path(tmp_path, order, pixel))
    with pytest.raises(ValueError, match=f"rows of pixels {other[1]} to {other[1]}.*expected only {pixel}"):
        finish(tmp_path, partitions)


def test_one_partition_with_another_type(tmp_path, partitions):
    path = partition_path(tmp_path, *list(partitions)[-1])
    table = pq.read_table(path)
    changed = table.set_column(1, "ra", table["ra"].cast(pa.float32()))
    pq.write_table(changed, path)
    with pytest.raises(ValueError, match="ra: float"):
        finish(tmp_path, partitions)


def test_columns_that_are_not_there(tmp_path, partitions):
    with pytest.raises(ValueError, match="no column \\['raj2000'\\]"):
        finish(tmp_path, partitions, ra_column="raj2000")
