"""`pipeline/sky.py`: the plan of partitions, positions inside their pixels, and object ids."""

from __future__ import annotations

import numpy as np
import pytest
from hats.pixel_math.spatial_index import compute_spatial_index

from lightmill.pipeline import sky
from lightmill.pipeline.sky import CELL_ORDER, Patch


@pytest.mark.parametrize("n", [1, 500, 40_000, 3_000_000])
def test_all_rows_are_in_one_patch_each(n):
    patches = sky.patches(3, n)
    assert sum(patch.rows for patch in patches) == n
    assert min(patch.rows for patch in patches) > 0
    ends = [patch.first + 4 ** (29 - patch.order) for patch in patches]
    assert all(end <= after.first for end, after in zip(ends, patches[1:], strict=False))


def test_partitions_of_a_dense_sky():
    """The plan alone, as such a release would take an hour: mixed orders, below the limit, all rows."""
    patches = sky.patches(1, 50_000_000)
    sizes = np.array([patch.rows for patch in patches])
    assert sizes.sum() == 50_000_000
    assert sizes.max() <= 100_000
    assert len({patch.order for patch in patches}) > 2
    assert np.median(sizes) > 2_000


def test_rows_finer_than_a_channel_keep_their_ids_apart():
    """Partitions below order 6 share the numbers of one readout channel."""
    cell = np.full(50, 1000)
    patches = [Patch(8, 16 * 1000 + child, 50) for child in range(16)]
    ids = np.concatenate([sky.objectids(patch, cell, np.full(50, 2)) for patch in patches])
    assert len(np.unique(ids)) == len(ids)


@pytest.mark.parametrize("order", [0, 3, CELL_ORDER, 9])
def test_measured_positions_stay_in_their_patch_and_cell(order):
    """Of a release dense enough; the pixels are in the plane, at both poles' sides and across ra = 0."""
    n, seed = 3_000_000, 4
    for pixel in (0, 4**order, 3 * 4**order - 1, 4 * 4**order + 4**order // 2):
        ring = np.arange(12 << (2 * CELL_ORDER))
        inside = ring >> (2 * max(CELL_ORDER - order, 0)) == pixel >> (2 * max(order - CELL_ORDER, 0))
        rows = int(sky._cell_counts(seed, n)[inside].sum()) if order <= CELL_ORDER else 200
        rng = np.random.default_rng(order)
        cell, ra, dec = sky.positions(rng, seed, n, Patch(order, pixel, rows), np.arange(rows))
        ra, dec, index = sky.astrometry(rng, ra, dec)
        assert ra.dtype == dec.dtype == np.float32
        assert (index == compute_spatial_index(ra.astype(float), dec.astype(float))).all()
        assert (index >> (2 * (29 - order)) == pixel).all()
        assert (index >> (2 * (29 - CELL_ORDER)) == cell).all()


def test_a_position_just_below_360_degrees_is_written_as_0():
    ra, _, index = sky.astrometry(np.random.default_rng(1), np.full(100, 360 - 1e-9), np.zeros(100))
    assert ra.max() < 360
    assert ra.min() == 0
    assert (index >= 0).all()


def test_fields_and_channels_of_cells():
    cell = np.array([0, 63, 64, 12 * 4**6 - 1])
    assert sky.field_of(cell).tolist() == [0, 0, 1, 767]
    assert sky.channel_of(cell).tolist() == [0, 63, 0, 63]


def test_the_plane_is_denser_than_the_pole_and_the_south_empty():
    """Per pixel: |b| < 5° over |b| > 60°, with the scatter of 30 % from cell to cell averaged out."""
    from astropy import units as u
    from astropy.coordinates import SkyCoord

    counts = sky._cell_counts(1, 5_000_000)
    ra, dec = sky.centre(CELL_ORDER, np.arange(len(counts)))
    b = np.abs(SkyCoord(ra * u.deg, dec * u.deg).galactic.b.deg)
    north = dec > sky.SOUTH
    assert counts[north & (b < 5)].mean() > 5 * counts[north & (b > 60)].mean()
    assert counts[~north].sum() == 0
