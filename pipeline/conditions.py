"""Conditions: how bright, where on the sky, how often and in which passband light curves were observed.

An audit asks whether a bundle is as good under one condition as under another: these are what it can go by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord

from lightmill.pipeline.features import index_of

__all__ = ["AXES", "EDGES", "Conditions"]

EDGES: dict[str, tuple[float, ...]] = {
    "magnitude": (13, 14, 15, 16, 17, 18, 19, 20, 21),  #: weighted mean [mag]
    "b": (5, 10, 20, 30, 45, 60),  #: |galactic latitude| [deg]
    "epochs": (50, 100, 200, 300, 500, 1000),  #: good ones
    "amplitude": (0.05, 0.1, 0.2, 0.4, 0.8),  #: half of the 5 to 95 % range [mag]
}
"""The same cells whatever is audited, so that two audits can be laid side by side."""

AXES: tuple[str, ...] = (*EDGES, "band")
"""What an audit can go by; band is the passband's number, a category."""

STATISTIC = {"magnitude": "mean", "epochs": "n", "amplitude": "amplitude"}


@dataclass(frozen=True)
class Conditions:
    """Under which conditions n light curves were observed."""

    statistics: np.ndarray  #: (n, len(features.STATISTICS)) float64, of the good epochs
    ra: np.ndarray  #: (n,) float64 [deg]; NaN where unknown
    dec: np.ndarray  #: (n,) float64 [deg]; NaN where unknown
    filterid: np.ndarray  #: (n,) integer, passband; 0 throughout where the table has none

    def along(self, axes: Sequence[str] = AXES) -> dict[str, np.ndarray]:
        """Each of the axes → (n,) float64, where the light curves lie along it; NaN where it is not known."""
        return {axis: self._along(axis) for axis in axes}

    def _along(self, axis: str) -> np.ndarray:
        if axis in STATISTIC:
            return self.statistics[:, index_of(STATISTIC[axis])]
        if axis == "b":
            return _latitude(self.ra, self.dec)
        band = self.filterid.astype(np.float64)
        # 0 throughout is what a table without passbands has
        return band if band.any() else np.full(len(band), np.nan)


def _latitude(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """|galactic latitude| [deg] of positions [deg]; NaN for what is no place on the sky."""
    found = np.full(len(ra), np.nan)
    good = np.isfinite(ra) & (np.abs(dec) <= 90)
    found[good] = np.abs(SkyCoord(ra[good] * u.deg, dec[good] * u.deg).galactic.b.deg)
    return found
