"""Where simulated stars lie: fields, density, partitions and positions, in HEALPix (Górski+2005, ApJ 622, 759).

Pixels are numbered in the NESTED way. A field is a pixel of order 3 (7.3°, a ZTF field has 7.4°); its 64 children of
order 6, the cells, are the 64 readout channels. The density is chosen, not fitted.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import cdshealpix.nested as healpix
import numpy as np
from astropy import units as u
from astropy.coordinates import Latitude, Longitude

from lightmill.pipeline.draws import Purpose, stream

FIELD_ORDER, CELL_ORDER = 3, 6
FIRST_FIELD = 200
SOUTH = -30.0  # degrees: the southern end of the survey
DEEPEST = 29  # order of `_healpix_29`
PARTITION_ROWS = 100_000  # the most


class Patch(NamedTuple):
    """A partition to fill: a HEALPix pixel and the light curves in it."""

    order: int
    pixel: int
    rows: int

    @property
    def first(self) -> int:
        """The first `_healpix_29` of the pixel: patches sorted by it are in the order of the sky."""
        return self.pixel << (2 * (DEEPEST - self.order))


def centre(order: int, pixel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Right ascension and declination (degrees) of the centres of pixels."""
    lon, lat = healpix.healpix_to_lonlat(pixel, order, num_threads=1)
    return lon.to_value("deg"), lat.to_value("deg")


def field_of(cell: np.ndarray) -> np.ndarray:
    """The field (pixel of FIELD_ORDER) of cells."""
    return cell >> (2 * (CELL_ORDER - FIELD_ORDER))


def channel_of(cell: np.ndarray) -> np.ndarray:
    """The readout channel of cells, 0 … 63 (ZTF's `rcid`)."""
    return cell & (4 ** (CELL_ORDER - FIELD_ORDER) - 1)


@lru_cache(maxsize=4)
def _cell_counts(seed: int, n: int) -> np.ndarray:
    """How many of `n` light curves lie in each cell (int64)."""
    rng = stream(seed, Purpose.SKY)
    ra, dec = centre(CELL_ORDER, np.arange(12 << (2 * CELL_ORDER)))
    weight = _density(ra, dec) * np.exp(rng.normal(0, 0.3, len(ra)))
    return rng.multinomial(n, weight / weight.sum())


def _density(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Relative number of stars: a halo, a disc of 8° and a bulge, none south of the survey (degrees in)."""
    ra, dec = np.radians(ra), np.radians(dec)
    pole_ra, pole_dec = np.radians(192.8595), np.radians(27.1283)  # the galactic pole (J2000)
    sin_b = np.sin(dec) * np.sin(pole_dec) + np.cos(dec) * np.cos(pole_dec) * np.cos(ra - pole_ra)
    b = np.degrees(np.arcsin(np.clip(sin_b, -1, 1)))
    towards_centre = np.cos(ra - np.radians(266.405)) * np.cos(dec)
    disc = 9 * np.exp(-np.abs(b) / 8) * (1 + 0.7 * towards_centre)
    return np.where(dec < np.radians(SOUTH), 0.0, 1 + disc)


def patches(seed: int, n: int) -> list[Patch]:
    """The partitions of `n` light curves, in the order of the sky: pixels are split while they hold too many.

    The limit makes some thirty partitions of a small release, and none above PARTITION_ROWS of a large one.
    """
    limit = min(max(n // 16, 3_000), PARTITION_ROWS)
    counts = _cell_counts(seed, n)
    open_ = [Patch(0, pixel, int(rows)) for pixel, rows in enumerate(counts.reshape(12, -1).sum(axis=1))]
    done = []
    while open_:
        patch = open_.pop()
        if patch.rows > limit:
            open_ += _children(seed, counts, patch)
        elif patch.rows:
            done.append(patch)
    return sorted(done, key=lambda patch: patch.first)


def _children(seed: int, counts: np.ndarray, patch: Patch) -> list[Patch]:
    """The four children of a pixel, with their rows."""
    order, pixel, rows = patch
    if order < CELL_ORDER:
        cells = 4 ** (CELL_ORDER - order)
        shares = counts[pixel * cells : (pixel + 1) * cells].reshape(4, -1).sum(axis=1)
    else:
        shares = stream(seed, Purpose.SKY, order, pixel).multinomial(rows, [0.25] * 4)
    return [Patch(order + 1, 4 * pixel + child, int(share)) for child, share in enumerate(shares)]


def positions(
    rng: np.random.Generator, seed: int, n: int, patch: Patch, first: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cell, ra and dec (degrees) of stars of a release of `n`, given the first row of each within the patch."""
    order, inner = patch.order, np.full(len(first), patch.pixel)
    if order < CELL_ORDER:
        cells = 4 ** (CELL_ORDER - order)
        numbers = np.arange(patch.pixel * cells, (patch.pixel + 1) * cells)
        order, inner = CELL_ORDER, np.repeat(numbers, _cell_counts(seed, n)[numbers])[first]
    # Stay 0.6″ inside: float32 positions and the scatter between filters must not leave the pixel.
    margin = max(1e-3, 0.6 / (58.6 * 3600 / 2**order))
    deeper = DEEPEST - order
    x, y = ((margin + (1 - 2 * margin) * rng.random((2, len(first)))) * 2**deeper).astype(np.int64)
    ra, dec = centre(DEEPEST, (inner << (2 * deeper)) + _interleave(x, y))
    return inner >> (2 * (order - CELL_ORDER)), ra, dec


def _interleave(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Place within a pixel in the NESTED ordering: the bits of x at the even, of y at the odd places."""
    place = np.zeros_like(x)
    for bit in range(DEEPEST):
        place |= (((x >> bit) & 1) << (2 * bit)) | (((y >> bit) & 1) << (2 * bit + 1))
    return place


def astrometry(
    rng: np.random.Generator, ra: np.ndarray, dec: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions as measured in one filter, 0.05″ from the star, as float32, and their `_healpix_29`."""
    off = np.clip(rng.normal(0, 0.05 / 3600, (2, len(ra))), -0.2 / 3600, 0.2 / 3600)
    ra = ((ra + off[0] / np.maximum(np.cos(np.radians(dec)), 1e-3)) % 360).astype(np.float32)
    ra[ra == 360] = 0  # float32 rounds the last 0.05″ up
    dec = np.clip(dec + off[1], -90, 90).astype(np.float32)
    lon, lat = Longitude(ra.astype(float), u.deg), Latitude(dec.astype(float), u.deg)
    return ra, dec, healpix.lonlat_to_healpix(lon, lat, DEEPEST, num_threads=1).astype(np.int64)


def objectids(patch: Patch, cell: np.ndarray, filterid: np.ndarray) -> np.ndarray:
    """ZTF's object ids of rows sorted by cell: field, filter, CCD, quadrant, and eight digits counting within them.

    Partitions finer than a readout channel share its numbers out between them.
    """
    finer = 4 ** max(patch.order - CELL_ORDER, 0)
    start = (patch.pixel % finer) * (10**8 // finer)
    count = np.arange(len(cell)) - np.searchsorted(cell, cell) + 1 + start
    field, channel = FIRST_FIELD + field_of(cell), channel_of(cell)
    return (((field * 10 + filterid) * 100 + channel // 4 + 1) * 10 + channel % 4 + 1) * 10**8 + count
