"""`pipeline/palomar.py`: hour angles, the Moon and the dark hours, against ERFA and astropy."""

from __future__ import annotations

import erfa
import numpy as np
import pytest
from astropy.coordinates import get_sun
from astropy.time import Time

from lightmill.pipeline import palomar

NIGHTS = 58200 + np.arange(0, 2000, 37)


def test_hour_angle_is_sidereal_time_minus_right_ascension():
    mjd = NIGHTS + 0.123
    sidereal = np.degrees(erfa.gmst82(2400000.5, mjd)) + palomar.LONGITUDE
    for ra in (0.0, 200.0, 359.9):
        expected = ((sidereal - ra + 180) % 360 - 180) / 15
        assert palomar.hour_angle(mjd, ra) == pytest.approx(expected, abs=1e-4)  # 0.4 s of time


@pytest.mark.parametrize(("mjd", "phase"), [(60408.765, 0.0), (57986.768, 0.0), (59715.174, 0.5)])
def test_eclipses_are_at_new_and_full_moon(mjd, phase):
    """The eclipses of 2024-04-08 and 2017-08-21 (Sun) and 2022-05-16 (Moon); half a day is 0.017."""
    away = (palomar.lunation(np.array([mjd])) - phase + 0.5) % 1 - 0.5
    assert abs(away[0]) < 0.02


def test_a_field_culminates_on_the_meridian():
    culmination, _, _ = palomar.window(NIGHTS, 123.0, 40.0)
    assert palomar.hour_angle(culmination, 123.0) == pytest.approx(0, abs=1e-4)
    midnight = NIGHTS - palomar.LONGITUDE / 360
    assert np.abs(culmination - midnight).max() <= 0.5


def altitude(ra: np.ndarray, dec: np.ndarray, mjd: np.ndarray) -> np.ndarray:
    """Degrees above the horizon of Palomar."""
    angle = np.radians(15 * palomar.hour_angle(mjd, ra))
    latitude, dec = np.radians(palomar.LATITUDE), np.radians(dec)
    sine = np.sin(latitude) * np.sin(dec) + np.cos(latitude) * np.cos(dec) * np.cos(angle)
    return np.degrees(np.arcsin(sine))


@pytest.mark.parametrize(("ra", "dec"), [(10.0, -25.0), (100.0, 0.0), (200.0, 33.0), (300.0, 80.0)])
def test_a_window_is_dark_and_above_twenty_degrees(ra, dec):
    culmination, low, high = palomar.window(NIGHTS, ra, dec)
    open_ = high > low
    assert 0.2 < open_.mean() <= 1
    for angle in (low, high):
        t = (culmination + angle / 24 * palomar.SIDEREAL_DAY)[open_]
        sun = get_sun(Time(t, format="mjd"))
        assert altitude(sun.ra.deg, sun.dec.deg, t).max() < -12 + 4
        assert altitude(ra, dec, t).min() > 20 - 1e-2


def test_the_far_south_never_rises():
    _, low, high = palomar.window(NIGHTS, 100.0, -60.0)
    assert (high <= low).all()
