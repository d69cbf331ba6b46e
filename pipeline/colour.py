"""Colours of stars whose bands are rows of their own: mean magnitudes of the nearest partners on the sky, subtracted.

ZTF releases have a row for each filter (and field) of a star; what belongs together is told by position alone.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy.spatial import cKDTree

__all__ = ["COLOURS", "RADIUS", "ZTF_BANDS", "colours", "near_others"]

ZTF_BANDS = (1, 2, 3)  #: filterid of g, r, i
COLOURS: tuple[str, ...] = (
    "g_minus_r",  #: [mag]
    "r_minus_i",  #: [mag]
)
RADIUS = 1.5  #: within which light curves are of one star [arcsec]
NEIGHBOURS = 16  #: places that are looked at around each
MOST_IN_ONE_PLACE = (
    50  #: rows; more are not one star, but rows whose place is not known, at (0, 0) for example
)
ARCSEC = np.pi / 180 / 3600  #: [rad]


def colours(
    ra: np.ndarray,
    dec: np.ndarray,
    filterid: np.ndarray,
    mag_mean: np.ndarray,
    *,
    bands: tuple[int, ...] = ZTF_BANDS,
    radius: float = RADIUS,
) -> np.ndarray:
    """Compute the colours between successive bands for each of n rows, from the rows themselves.

    In its own band a row has its own magnitude, in each other band that of the nearest row of that band. Only what is
    among the rows given can be a partner: give a partition with all its bands.

    Parameters
    ----------
    ra, dec : (n,) float [deg]; a row whose position is not finite is nobody's partner, nor has it any, nor has one that
        shares its place to the last bit with more than MOST_IN_ONE_PLACE rows
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
    known = _known(ra, dec)
    in_band = [_magnitudes(ra, dec, known, filterid == band, mag_mean, radius) for band in bands]
    return np.stack([blue - red for blue, red in pairwise(in_band)], axis=1)


def near_others(ra: np.ndarray, dec: np.ndarray, group: np.ndarray, *, radius: float = RADIUS) -> np.ndarray:
    """Tell the rows that have a row of another group within the radius [arcsec]; (n,) bool.

    Parameters
    ----------
    ra, dec : (n,) float [deg]; places as in `colours`
    group : (n,) integer

    Examples
    --------
    >>> near_others([10.0, 50.0, 10.0, 50.0], [0.0, 0.0, 0.0002, 0.0], [1, 2, 3, 2])
    array([ True, False,  True, False])
    """
    ra, dec, group = np.asarray(ra, np.float64), np.asarray(dec, np.float64), np.asarray(group)
    near = np.zeros(len(ra), bool)
    known = np.flatnonzero(_known(ra, dec))
    if len(known) == 0:
        return near
    ra, dec, group = ra[known], dec[known], group[known]
    first, place = _distinct(ra, dec)
    low, high = group[first], group[first]
    np.minimum.at(low, place, group)
    np.maximum.at(high, place, group)
    mixed = low != high
    # the nearest few: all pairs of a clump would be its square
    few = min(NEIGHBOURS, len(first))
    where = _unit_vectors(ra[first], dec[first])
    distance, others = cKDTree(where).query(where, few, distance_upper_bound=_chord(radius))
    a, b = np.repeat(np.arange(len(first)), few), others.ravel()
    a, b = a[np.isfinite(distance.ravel())], b[np.isfinite(distance.ravel())]
    differ = mixed[a] | mixed[b] | (low[a] != low[b])
    mixed[a[differ]] = mixed[b[differ]] = True
    near[known] = mixed[place]
    return near


def _magnitudes(
    ra: np.ndarray, dec: np.ndarray, known: np.ndarray, own: np.ndarray, mag_mean: np.ndarray, radius: float
) -> np.ndarray:
    """Magnitude of each row in the band of the rows `own`: its own one, else that of the nearest of them; (n,).

    Of several in one place it is the brightest: the order of rows decides nothing.
    """
    found = np.where(own, mag_mean, np.nan)
    partners = np.flatnonzero(own & known & np.isfinite(mag_mean))
    asking = np.flatnonzero(~own & known)
    if len(partners) == 0 or len(asking) == 0:
        return found
    # each place once: a tree is of no use for thousands of rows at (0, 0), where positions are not known
    partners = partners[_distinct(ra[partners], dec[partners], mag_mean[partners])[0]]
    first, place = _distinct(ra[asking], dec[asking])
    once = asking[first]
    tree = cKDTree(_unit_vectors(ra[partners], dec[partners]))
    distance, nearest = tree.query(_unit_vectors(ra[once], dec[once]), distance_upper_bound=_chord(radius))
    near = np.isfinite(distance)
    of_place = np.full(len(once), np.nan)
    of_place[near] = mag_mean[partners[nearest[near]]]
    found[asking] = of_place[place]
    return found


def _known(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """(n,) bool: rows whose place is known."""
    _, place = _distinct(ra, dec)
    return np.isfinite(ra) & np.isfinite(dec) & (np.bincount(place, minlength=1)[place] <= MOST_IN_ONE_PLACE)


def _distinct(ra: np.ndarray, dec: np.ndarray, *then: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct places: a row of each, the first by `then`; and for each row the number of its place."""
    order = np.lexsort((*then, dec, ra))
    new = np.ones(len(order), bool)
    new[1:] = (np.diff(ra[order]) != 0) | (np.diff(dec[order]) != 0)
    place = np.empty(len(order), np.int64)
    place[order] = np.cumsum(new) - 1
    return order[new], place


def _chord(radius: float) -> float:
    """Distance of unit vectors an angle [arcsec] apart."""
    # a hair more: the bound is open, and rounding of unit vectors is 1e-16 of 1 against a chord of 7e-6
    return float(2 * np.sin(radius * ARCSEC / 2) * (1 + 1e-9))


def _unit_vectors(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Places on the unit sphere, (n, 3): neither the poles nor ra = 0 are special there."""
    a, d = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], axis=1)
