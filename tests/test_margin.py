"""`catalogs/margin.py`: against LSDB's own margins, and against every cell that hats says borders on a partition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hats.pixel_math import HealpixPixel
from hats.pixel_math.pixel_margins import get_margin
from hats.pixel_tree.negative_tree import compute_negative_tree_pixels
from hats.pixel_tree.pixel_tree import PixelTree
from hypothesis import given
from hypothesis import strategies as st

from lightmill.catalogs.margin import _whole_sky, edge_cells, margin_name, margin_order, write_margin

ARCSEC = 10.0
ALL_OF_IT = {(0, pixel) for pixel in range(11)} | {(1, pixel) for pixel in range(44, 48)}


def margins(root: Path) -> dict[tuple[int, int], list[int]]:
    """Identifiers in each partition of a table, as its files have them."""
    return {
        (int(path.parts[-3][7:]), int(path.stem[5:])): sorted(
            pq.ParquetFile(path).read(columns=["objectid"]).column(0).to_pylist()
        )
        for path in root.glob("dataset/Norder=*/Dir=*/Npix=*.parquet")
    }


def near_edges(seed: int, n: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions around a corner of three pixels, across ra = 0, and around a pole."""
    rng = np.random.default_rng(seed)
    ra = np.concatenate([45 + rng.normal(0, scale, n), rng.normal(0, scale, n), rng.uniform(0, 360, n)]) % 360
    dec = np.concatenate(
        [rng.normal(0, scale, n), rng.normal(0, scale, n), 90 - np.abs(rng.normal(0, scale, n))]
    )
    return ra, dec


@given(st.integers(0, 8), st.data())
def test_edge_cells_are_those_that_border_on_others(order, data):
    """What lies on an edge has a neighbour beyond it, by hats' own list of those."""
    pixel = data.draw(st.integers(0, 12 * 4**order - 1))
    depth = data.draw(st.integers(1, 4))
    inside = np.arange(pixel << (2 * depth), (pixel + 1) << (2 * depth))
    from cdshealpix.nested import neighbours

    around = neighbours(inside.astype(np.uint64), order + depth)
    beyond = np.isin(around, get_margin(order, pixel, depth)).any(axis=1)
    np.testing.assert_array_equal(edge_cells(inside, order + depth, (order, pixel)), beyond)


@pytest.mark.parametrize(
    "keys", [{(0, 3)}, {(2, 7), (2, 8), (1, 46), (5, 12287)}, {(12, 12345), (0, 11)}, ALL_OF_IT]
)
def test_the_sky_between_partitions_is_that_of_hats(keys):
    tree = PixelTree.from_healpix([HealpixPixel(*key) for key in keys])
    empty = {(int(p.order), int(p.pixel)) for p in compute_negative_tree_pixels(tree)}
    sky = _whole_sky(keys)
    assert set(sky.keys) == keys | empty
    assert len(sky.keys) == len(keys) + len(empty)


@pytest.mark.parametrize("order", [1, 6])
def test_as_hats_has_it(order, tmp_path, write_catalogue):
    """By brute force: the rows in the cells that hats lists around each pixel, also those without rows."""
    ra, dec = near_edges(order, 400, 0.01)
    table = write_catalogue(tmp_path / "c", ra, dec, order=order)
    deep, cells = margin_order(ARCSEC), table["_healpix_29"].to_numpy()
    cells = cells >> (2 * (29 - deep))
    found = margins(tmp_path / "c" / "versions" / "v1" / margin_name("objects", ARCSEC))
    assert found
    for (at, pixel), ids in found.items():
        border = get_margin(at, pixel, deep - at)
        assert ids == np.flatnonzero(np.isin(cells, border)).tolist()
    for pixel in np.unique(cells >> (2 * (deep - order))).tolist():
        border = get_margin(order, pixel, deep - order)
        assert found.get((order, pixel), []) == np.flatnonzero(np.isin(cells, border)).tolist()


@pytest.mark.filterwarnings("ignore")
def test_as_lsdb_has_it(tmp_path, write_catalogue):
    import lsdb

    ra, dec = near_edges(7, 300, 0.02)
    table = write_catalogue(tmp_path / "c", ra, dec, order=4)
    frame = table.select(["objectid", "ra", "dec"]).to_pandas()
    made = lsdb.from_dataframe(frame, lowest_order=4, highest_order=4, margin_threshold=ARCSEC)
    wanted = {
        (int(p.order), int(p.pixel)): sorted(
            made.margin.get_partition(p.order, p.pixel).compute()["objectid"]
        )
        for p in made.margin.get_healpix_pixels()
    }
    assert margins(tmp_path / "c" / "versions" / "v1" / margin_name("objects", ARCSEC)) == wanted


def test_nothing_near_an_edge(tmp_path, write_catalogue):
    """A margin without rows is a valid one."""
    import lsdb
    from hats.io.validation import is_valid_catalog

    out = tmp_path / "c"
    write_catalogue(out, np.array([20.0]), np.array([20.0]), order=1)
    assert margins(out / "versions" / "v1" / "objects_10arcs") == {}
    assert is_valid_catalog(out, strict=True)
    assert len(lsdb.open_catalog(out)) == 1


def test_partitions_that_are_too_small(tmp_path):
    with pytest.raises(ValueError, match="needs partitions of order"):
        write_margin(tmp_path, tmp_path, [(15, 3)], ARCSEC, {})


@pytest.mark.filterwarnings("ignore:The default suffix behavior will change:FutureWarning")
def test_a_crossmatch_across_edges_misses_nothing(tmp_path, write_catalogue):
    import lsdb

    ra, dec = near_edges(3, 300, 0.02)
    write_catalogue(tmp_path / "a", ra, dec, order=6)
    write_catalogue(tmp_path / "b", ra, dec + np.where(dec > 0, -1, 1) * 5 / 3600, order=5)
    a, b = (lsdb.open_catalog(tmp_path / name, columns=["objectid", "ra", "dec"]) for name in "ab")
    pairs = a.crossmatch(b, radius_arcsec=6, n_neighbors=50, suffixes=("_a", "_b")).compute()
    found = set(zip(pairs["objectid_a"], pairs["objectid_b"], strict=True))
    assert {(i, i) for i in range(len(ra))} <= found
