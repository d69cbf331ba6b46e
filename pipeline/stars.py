"""The light curves of a simulated partition before they are observed, as bright as in real ZTF files (`fit_survey`).

Chosen, not measured: which filters a star has, its colours, and the share of detections that hardly recur.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lightmill.pipeline import sky
from lightmill.pipeline.draws import at_share, choose, from_quantiles, near
from lightmill.pipeline.survey import SATURATION, survey
from lightmill.pipeline.variables import amplitude_scale, draw_variables

# Which light curves one star has, as filterids, and how often.
FILTER_SETS = ((1,), (2,), (1, 2), (2, 3), (1, 2, 3))
FILTER_SET_SHARE = (0.22, 0.28, 0.42, 0.02, 0.06)

FEW_FRACTION = 0.2  # the file of field 250 has 0.75, nearly all of them single detections at its depth


class Stars(NamedTuple):
    """One row a star and filter, sorted by `_healpix_29`."""

    healpix: np.ndarray  # `_healpix_29`
    objectid: np.ndarray
    filterid: np.ndarray
    cell: np.ndarray  # pixel of CELL_ORDER
    ra: np.ndarray  # degrees, float32
    dec: np.ndarray
    mag: np.ndarray  # mean in its filter, mag
    quota: np.ndarray  # epochs of one that hardly recurs; −1 of the others
    label: np.ndarray  # index into LABELS
    scale: np.ndarray  # of the amplitude, in its filter
    shape: np.ndarray  # see `observe`
    params: np.ndarray


def draw_stars(
    rng: np.random.Generator, seed: int, n: int, patch: sky.Patch, variable_fraction: float
) -> Stars:
    """The rows of one patch of a release of `n` light curves."""
    star, filterid, first = _filters(rng, patch.rows)
    cell, ra, dec = sky.positions(rng, seed, n, patch, first)
    label, shape, params = draw_variables(rng, variable_fraction, len(first))
    mag = _magnitudes(rng, label > 0)[star, filterid - 1]
    ra, dec, healpix = sky.astrometry(rng, ra[star], dec[star])
    mag, quota = _hardly_recurring(rng, mag)
    order = np.argsort(healpix, kind="stable")
    star, filterid = star[order], filterid[order]
    return Stars(
        healpix[order],
        sky.objectids(patch, cell[star], filterid),
        filterid,
        cell[star],
        ra[order],
        dec[order],
        mag[order],
        quota[order],
        label[star],
        amplitude_scale(label[star], filterid),
        shape[star],
        params[star],
    )


def _filters(rng: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Star and filterid of each row, and the first row of each star; cut at the last row that is wanted."""
    which = choose(rng, FILTER_SET_SHARE, rows)
    sizes = np.array([len(each) for each in FILTER_SETS])[which]
    first = np.cumsum(sizes) - sizes
    star = np.repeat(np.arange(rows), sizes)[:rows]
    table = np.array([(*each, 0, 0)[:3] for each in FILTER_SETS])
    return star, table[which[star], np.arange(rows) - first[star]], first[: star[-1] + 1]


def _magnitudes(rng: np.random.Generator, varies: np.ndarray) -> np.ndarray:
    """n × 3 mean magnitudes in g, r, i; variables not among the faintest fifth, where none would be known."""
    n = len(varies)
    g = at_share(survey()["stars"]["mag_quantiles"], rng.random(n) * np.where(varies, 0.8, 1.0))
    r = g - near(rng, 0.6, 0.35, -0.2, 1.5, n)
    i = r - near(rng, 0.2, 0.12, -0.1, 0.8, n)
    return np.maximum(np.column_stack([g, r, i]), SATURATION + 0.3)


def _hardly_recurring(rng: np.random.Generator, mag: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Magnitudes, of which some are now those of detections that hardly recur, and the epochs of these (else −1)."""
    fit, n = survey()["stars"], len(mag)
    few = rng.random(n) < FEW_FRACTION
    quota = np.where(few, np.rint(from_quantiles(rng, fit["few_epochs_quantiles"], n)), -1).astype(np.int64)
    return np.where(few, from_quantiles(rng, fit["few_mag_quantiles"], n), mag), quota
