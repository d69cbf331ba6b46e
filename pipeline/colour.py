"""Colours of stars whose bands are rows of their own: mean magnitudes of the nearest partners on the sky, subtracted.

ZTF releases have a row for each filter (and field) of a star; what belongs together is told by position alone.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy.spatial import cKDTree

__all__ = ["COLOURS", "ZTF_BANDS", "colours"]

ZTF_BANDS = (1, 2, 3)  #: filterid of g, r, i
COLOURS: tuple[str, ...] = (
    "g_minus_r",  #: [mag]
    "r_minus_i",  #: [mag]
)
ARCSEC = np.pi / 180 / 3600  #: [rad]


def colours(
    ra: np.ndarray,
    dec: np.ndarray,
    filterid: np.ndarray,
    mag_mean: np.ndarray,
    *,
    bands: tuple[int, ...] = ZTF_BANDS,
    radius: float = 1.5,
) -> np.ndarray:
    """Compute the colours between successive bands for each of n rows, from the rows themselves.

    In its own band a row has its own magnitude, in each other band that of the nearest row of that band. Only what is
    among the rows given can be a partner: give a partition with all its bands.

    Parameters
    ----------
    ra, dec : (n,) float [deg]; a row whose position is not finite is nobody's partner, nor has it any
    filterid : (n,) integer
    mag_mean : (n,) float [mag]; NaN: unknown, and no partner
    bands : filterids from blue to red
    radius : farthest partner [arcsec]

    Returns
    -------
    (n, len(bands) − 1) float64 [mag]; NaN where a band has no partner within the radius

    Raises
    ------
    ValueError
        if lengths differ or the radius is not positive.

    Examples
    --------
    >>> colours([10.0, 10.0, 50.0], [0.0, 0.0002, 0.0], [1, 2, 1], [16.0, 15.5, 17.0])
    array([[0.5, nan],
           [0.5, nan],
           [nan, nan]])
    """
    ra, dec, mag_mean = (np.asarray(values, np.float64) for values in (ra, dec, mag_mean))
    filterid = np.asarray(filterid)
    for name, values in (("ra", ra), ("dec", dec), ("filterid", filterid), ("mag_mean", mag_mean)):
        if values.shape != (len(ra),):
            raise ValueError(
                f"{name} has shape {values.shape}, ra has {ra.shape}: they must be equal vectors"
            )
    if not 0 < radius < 3600:
        raise ValueError(f"radius must be more than 0 and less than 3600 arcsec, got {radius}")
    known = np.isfinite(ra) & np.isfinite(dec)
    place = _unit_vectors(ra, dec)
    in_band = [_magnitudes(place, known, filterid == band, mag_mean, radius) for band in bands]
    return np.stack([blue - red for blue, red in pairwise(in_band)], axis=1)


def _magnitudes(
    place: np.ndarray, known: np.ndarray, own: np.ndarray, mag_mean: np.ndarray, radius: float
) -> np.ndarray:
    """Magnitude of each row in the band of the rows `own`: its own one, else that of the nearest of them; (n,)."""
    found = np.where(own, mag_mean, np.nan)
    partners = np.flatnonzero(own & known & np.isfinite(mag_mean))
    asking = np.flatnonzero(~own & known)
    if len(partners) == 0 or len(asking) == 0:
        return found
    chord = 2 * np.sin(radius * ARCSEC / 2)
    # a hair more: the bound is open, and rounding of unit vectors is 1e-16 of 1 against a chord of 7e-6
    distance, nearest = cKDTree(place[partners]).query(place[asking], distance_upper_bound=chord * (1 + 1e-9))
    near = np.isfinite(distance)
    found[asking[near]] = mag_mean[partners[nearest[near]]]
    return found


def _unit_vectors(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Places on the unit sphere, (n, 3): neither the poles nor ra = 0 are special there."""
    a, d = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=1)
