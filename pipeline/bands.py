"""Colours of light curves as they are read: the other bands of a star may lie in other batches of its partition.

What the trees are told of a star must not depend on the size of a batch. So whoever has trees that look at colours
goes over the whole partition (or table) before, and keeps of each light curve the place, the band and the mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from lightmill.catalogs.lightcurves import LightCurves
from lightmill.models.manifest import Manifest
from lightmill.pipeline.clean import clean
from lightmill.pipeline.colour import COLOURS, colours
from lightmill.pipeline.features import index_of, statistics
from lightmill.pipeline.recipe import CleanTable

__all__ = ["colours_of", "looks_at_colours"]


def looks_at_colours(bundle: Manifest, experts: Sequence[str] = ()) -> bool:
    """Whether some of a bundle's experts (none named: all) are told a star's colours."""
    return "features" in bundle.needs(experts) and not set(COLOURS).isdisjoint(bundle.features)


def colours_of(batches: Iterable[LightCurves], rules: CleanTable) -> np.ndarray:
    """Compute the colours of the n light curves of all batches together, in their order.

    A light curve's magnitude is the weighted mean of its good epochs, `mag_mean` of a catalogue. One that is rejected,
    or has no place on the sky, has none.

    Parameters
    ----------
    batches : all of a partition, or all of a table
    rules : which epochs are good, and how many a light curve needs

    Returns
    -------
    (n, len(COLOURS)) float64 [mag]; NaN where a star has no light curve in one of the two bands
    """
    known = [_known(batch, rules) for batch in batches]
    if not known:
        return np.empty((0, len(COLOURS)))
    return colours(*(np.concatenate(column) for column in zip(*known, strict=True)))


def _known(batch: LightCurves, rules: CleanTable) -> tuple[np.ndarray, ...]:
    """What `colours` takes, (n,) each: ra, dec, filterid, mean magnitude."""
    good = clean(*batch.epochs, **rules.limits())
    mean = np.full(len(batch), np.nan)
    mean[good.accepted] = statistics(good.t, good.mag, good.magerr, good.offsets)[:, index_of("mean")]
    mean[batch.healpix_29 < 0] = np.nan
    # copies: views would keep the batch in memory
    return batch.ra.copy(), batch.dec.copy(), batch.filterid.copy(), mean
