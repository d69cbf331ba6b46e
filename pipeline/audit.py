"""Bias audit of a bundle: is it as good for the faint, the crowded and the rarely observed as for the rest?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord

from lightmill.models import audit as cells
from lightmill.pipeline.evaluate import Judged, judge
from lightmill.pipeline.features import index_of
from lightmill.pipeline.recipe import Recipe

__all__ = ["AXES", "EDGES", "AuditError", "audit", "values_of"]

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


class AuditError(ValueError):
    """An audit by something that is not known of light curves."""


def audit(
    bundle: str | Path,
    labels: str | Path,
    *,
    aliases: Mapping[str, str] | None = None,
    only: Sequence[str] | None = None,
    recipe: Recipe | str | None = None,
    by: Sequence[str] = AXES,
    edges: Mapping[str, Sequence[float]] | None = None,
) -> dict[str, Any]:
    """Apply a bundle to labelled light curves and measure it cell by cell.

    Parameters
    ----------
    bundle, labels, aliases, only, recipe : as for `evaluate.judge`
    by : some of AXES
    edges : of cells, instead of EDGES, for the axes named

    Returns
    -------
    dict as of `models.audit.audit`, with `rejected: {reason: n}` and `trained_on_these` as of `evaluate`

    Raises
    ------
    AuditError
        for an axis that is not known, before any work.
    LabelledError
        as `evaluate.judge`.
    """
    unknown = sorted(set(by) - set(AXES))
    if unknown or not by:
        raise AuditError(f"an audit by {', '.join(unknown) or 'nothing'} is not known: by {', '.join(AXES)}")
    found = judge(bundle, labels, aliases=aliases, only=only, recipe=recipe)
    names = tuple(dict.fromkeys(by))
    bounds = {name: bounds for name, bounds in (EDGES | dict(edges or {})).items() if name in names}
    values = {name: values_of(name, found) for name in names}
    return cells.audit(found.probabilities, found.truth, found.classes, values, bounds) | {
        "rejected": found.rejected,
        "trained_on_these": found.trained_on_these,
    }


def values_of(axis: str, judged: Judged) -> np.ndarray:
    """(n,) float64: where light curves lie along one of AXES; NaN where it is not known."""
    if axis in STATISTIC:
        return judged.statistics[:, index_of(STATISTIC[axis])]
    if axis == "b":
        return _latitude(judged.curves.ra, judged.curves.dec)
    band = judged.curves.filterid.astype(np.float64)
    # 0 throughout is what a table without passbands has
    return band if band.any() else np.full(len(band), np.nan)


def _latitude(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """|galactic latitude| [deg] of positions [deg]; NaN for what is no place on the sky."""
    found = np.full(len(ra), np.nan)
    good = np.isfinite(ra) & (np.abs(dec) <= 90)
    found[good] = np.abs(SkyCoord(ra[good] * u.deg, dec[good] * u.deg).galactic.b.deg)
    return found
