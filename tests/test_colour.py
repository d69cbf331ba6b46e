"""`pipeline/colour.py`: partners on the sky against all distances, at the poles and across ra = 0."""

from __future__ import annotations

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from lightmill.pipeline import colour as module
from lightmill.pipeline.colour import COLOURS, RADIUS, ZTF_BANDS, colours, near_others

PLACES = [(0.0, 0.0), (359.9999999, 0.0), (120.0, 45.0), (77.0, 89.9999), (0.0, 90.0), (250.0, -90.0)]


def oracle(ra, dec, filterid, mag, radius=1.5) -> np.ndarray:
    """All distances by astropy; the nearest row of each band."""
    place = SkyCoord(ra * u.deg, dec * u.deg)
    in_band = np.full((len(ra), 3), np.nan)
    for i in range(len(ra)):
        apart = place[i].separation(place).arcsec
        for k, band in enumerate(ZTF_BANDS):
            near = np.flatnonzero((filterid == band) & np.isfinite(mag) & (apart <= radius))
            if filterid[i] == band:
                in_band[i, k] = mag[i]
            elif len(near):
                in_band[i, k] = mag[near[apart[near].argmin()]]
    return in_band[:, :-1] - in_band[:, 1:]


def field(centre, n, seed) -> tuple[np.ndarray, ...]:
    """n rows of a few stars around a place, each within 2″ of its star."""
    rng = np.random.default_rng(seed)
    stars = SkyCoord(*centre, unit="deg").directional_offset_by(
        rng.uniform(0, 360, n) * u.deg, rng.integers(0, 5, n) * 10 * u.arcsec
    )
    rows = stars.directional_offset_by(rng.uniform(0, 360, n) * u.deg, rng.uniform(0, 2, n) * u.arcsec)
    mag = np.where(rng.random(n) < 0.1, np.nan, rng.uniform(12, 20, n))
    return rows.ra.deg, rows.dec.deg, rng.integers(1, 4, n), mag


@pytest.mark.parametrize("centre", PLACES)
def test_against_all_distances(centre):
    for seed in range(5):
        rows = field(centre, 60, seed)
        found = colours(*rows)
        np.testing.assert_array_equal(found, oracle(*rows))
        assert np.isfinite(found).any()


def test_one_column_a_colour():
    assert colours(*field((10.0, 10.0), 7, 1)).shape == (7, len(COLOURS))
    assert colours(*[np.empty(0)] * 2, np.empty(0, int), np.empty(0)).shape == (0, 2)


@pytest.mark.parametrize("dec", [-60.0, 0.0, 89.0])
def test_partner_on_the_other_side_of_ra_0(dec):
    step = 0.5 / 3600 / np.cos(np.radians(dec))
    found = colours([step, 360 - step], [dec, dec], [1, 2], [15.0, 14.0])
    np.testing.assert_array_equal(found, [[1, np.nan], [1, np.nan]])


def test_partners_across_a_pole():
    step = 0.5 / 3600
    found = colours([10.0, 190.0, 100.0], np.array([90, 90, 90]) - step, [1, 2, 3], [15.0, 14.0, 13.5])
    np.testing.assert_array_equal(found, [[1, 0.5]] * 3)


@pytest.mark.parametrize(("apart", "found"), [(1.4999, 1.0), (1.5, 1.0), (1.5001, np.nan)])
def test_radius(apart, found):
    row = colours([30.0, 30.0], [0.0, apart / 3600], [1, 2], [15.0, 14.0])[0]
    np.testing.assert_array_equal(row, [found, np.nan])


def test_nearest_of_two_and_never_one_of_the_own_band():
    dec = np.array([0.0, 1.0, -0.5, 0.1]) / 3600
    found = colours(np.full(4, 30.0), dec, [1, 2, 2, 1], [15.0, 14.0, 13.0, 12.0])
    np.testing.assert_array_equal(found[:, 0], [2.0, -2.0, 2.0, -1.0])


def test_unknown_positions_bands_and_magnitudes():
    nan = np.nan
    found = colours([30.0, nan, 30.0, 30.0], np.zeros(4), [1, 2, 2, 7], [15.0, 14.0, nan, 13.0])
    np.testing.assert_array_equal(found, np.full((4, 2), nan))


def test_other_bands():
    found = colours([1.0, 1.0], [2.0, 2.0], [4, 0], [15.0, 14.0], bands=(0, 4), radius=3)
    np.testing.assert_array_equal(found, [[-1.0], [-1.0]])


@given(st.integers(0, 10**6), st.integers(2, 30))
def test_order_of_rows_does_not_matter(seed, n):
    rows = field((0.0, 89.9995), n, seed)
    order = np.random.default_rng(seed).permutation(n)
    np.testing.assert_array_equal(colours(*(x[order] for x in rows)), colours(*rows)[order])


@given(st.integers(0, 10**6))
def test_order_does_not_matter_where_places_are_shared(seed):
    """Fields of a survey list one star at one place several times in a band: the brightest is its partner."""
    rng = np.random.default_rng(seed)
    ra, dec = rng.choice([10.0, 10.0001, 10.0003], 12), np.zeros(12)
    band, mag = rng.integers(1, 4, 12), rng.uniform(12, 20, 12)
    order, found = rng.permutation(12), colours(ra, dec, band, mag)
    np.testing.assert_array_equal(colours(ra[order], dec[order], band[order], mag[order]), found[order])
    place = 10.0001
    for i in np.flatnonzero((band == 1) & (ra == place)):
        there = (band == 2) & (ra == place)
        if there.any():
            assert found[i, 0] == mag[i] - mag[there].min()


def test_thousands_of_rows_whose_place_is_not_known(monkeypatch):
    """(0, 0) for almost all of them."""
    asked, plain = [], cKDTree.query

    class Listening(cKDTree):
        def query(self, x, *k, **more):
            asked.append(self.n * len(x))
            return plain(self, x, *k, **more)

    monkeypatch.setattr(module, "cKDTree", Listening)
    n = 30_000
    ra = np.append(np.zeros(n), [50, 50])
    mag = np.linspace(15, 16, n + 2)
    found = colours(ra, np.zeros(n + 2), np.arange(n + 2) % 3 + 1, mag)
    # of such a place nothing is known: a colour would be the brightness against whoever is the brightest
    assert np.isnan(found[:-2]).all()
    np.testing.assert_allclose(found[-2:, 0], mag[-2] - mag[-1])
    assert max(asked) == 1
    near = near_others(ra, np.zeros(n + 2), np.arange(n + 2))
    assert near.tolist() == [False] * n + [True, True]


def test_a_clump_costs_no_square(monkeypatch):
    """Thousands of places within one radius: a few neighbours of each are looked at."""
    rng, n = np.random.default_rng(2), 5000

    class Nearest(cKDTree):
        query_pairs = query_ball_point = query_ball_tree = None

        def query(self, x, k=1, **more):
            assert k <= 16
            return super().query(x, k, **more)

    monkeypatch.setattr(module, "cKDTree", Nearest)
    ra, dec = rng.normal(50, 1e-6, n), rng.normal(0, 1e-6, n)
    assert near_others(ra, dec, np.arange(n) // 2).all()
    assert not near_others(ra, dec, np.zeros(n, int)).any()


@pytest.mark.parametrize("centre", PLACES)
def test_others_nearby_against_all_distances(centre):
    for seed in range(4):
        ra, dec, group, mag = field(centre, 40, seed)
        ra[mag > 19] = np.nan
        again = np.random.default_rng(seed).integers(0, 40, 60)  # some places several times
        ra, dec, group = ra[again], dec[again], np.concatenate([group[again[:30]], np.arange(30)])
        place = SkyCoord(np.nan_to_num(ra) * u.deg, dec * u.deg)
        apart = place[:, None].separation(place[None, :]).arcsec
        near = (apart <= RADIUS) & np.isfinite(ra) & np.isfinite(ra)[:, None] & (group != group[:, None])
        np.testing.assert_array_equal(near_others(ra, dec, group), near.any(axis=1))
    assert near_others(np.empty(0), np.empty(0), np.empty(0, int)).shape == (0,)
    assert not near_others([np.nan, np.nan], [0.0, 0.0], [1, 2]).any()


def test_float_width_and_views():
    ra, dec, band, mag = field((30.0, 40.0), 50, 3)
    wide = np.stack([ra, dec, mag], axis=1)
    np.testing.assert_array_equal(
        colours(wide[:, 0], wide[:, 1], band.astype(np.int8), wide[:, 2]), colours(ra, dec, band, mag)
    )
    # IRSA's positions are float32: 0.1″ at ra = 30°
    near = colours(ra.astype(np.float32), dec.astype(np.float32), band, mag, radius=2.5)
    assert np.isfinite(near).sum() >= np.isfinite(colours(ra, dec, band, mag)).sum()


def test_what_is_refused():
    ra, dec, band, mag = field((30.0, 40.0), 5, 3)
    with pytest.raises(ValueError, match=r"dec has shape \(4,\), ra has \(5,\)"):
        colours(ra, dec[:4], band, mag)
    with pytest.raises(ValueError, match=r"mag_mean has shape \(5, 1\)"):
        colours(ra, dec, band, mag[:, None])
    with pytest.raises(ValueError, match="radius must be more than 0 and less than 3600 arcsec, got 0"):
        colours(ra, dec, band, mag, radius=0)
