"""When Palomar can see a field: hour angles, the Moon, the dark hours (Meeus, Astronomical Algorithms, ch. 12, 49)."""

from __future__ import annotations

from typing import Any

import numpy as np

LATITUDE = 33.3563  # degrees
LONGITUDE = -116.8630  # degrees east
SIDEREAL_DAY = 0.99726957  # d
NEW_MOON = 51549.598  # MJD of the mean new moon of 2000-01-06 (eq. 49.1)
LUNATION = 29.530589  # d


def hour_angle(mjd: np.ndarray, ra: Any) -> np.ndarray:
    """Hours from the meridian, −12 … 12, of right ascensions (degrees) at times (MJD; eq. 12.4)."""
    sidereal = 280.46061837 + 360.98564736629 * (mjd - 51544.5) + LONGITUDE
    return ((sidereal - ra + 180) % 360 - 180) / 15


def lunation(mjd: np.ndarray) -> np.ndarray:
    """Phase of the Moon, 0 … 1 from new moon to new moon, to half a day.

    >>> lunation(np.array([51549.598 + 29.530589 / 2])).round(6).tolist()
    [0.5]
    """
    return ((mjd - NEW_MOON) / LUNATION) % 1


def window(night: np.ndarray, ra: float, dec: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """When a field (degrees) culminates (MJD) nearest to the midnights of nights (MJD), and the hour angles (h)
    between which it can be observed then; the first is above the second where it cannot.

    The Sun is 12° below the horizon (without the equation of time: to 4°), the field at least 20° above it and
    not further than 6.5 h from the meridian.
    """
    latitude, midnight = np.radians(LATITUDE), night - LONGITUDE / 360
    mean = np.radians(280.46 + 0.9856474 * (midnight - 51544.5))
    sun_dec = np.arcsin(np.sin(np.radians(23.44)) * np.sin(mean))
    half_night = 12 - _half_arc(np.radians(-12.0), latitude, sun_dec)
    half_arc = np.minimum(_half_arc(np.radians(20.0), latitude, np.radians(dec)), 6.5)
    at_midnight = hour_angle(midnight, ra)
    return (
        midnight - at_midnight / 24 * SIDEREAL_DAY,
        np.maximum(at_midnight - half_night, -half_arc),
        np.minimum(at_midnight + half_night, half_arc),
    )


def _half_arc(altitude: float, latitude: float, dec: Any) -> Any:
    """Hours from the meridian to a given altitude (angles in radians): 0 if never above it, 12 if always."""
    cosine = (np.sin(altitude) - np.sin(latitude) * np.sin(dec)) / (np.cos(latitude) * np.cos(dec))
    return np.degrees(np.arccos(np.clip(cosine, -1, 1))) / 15
