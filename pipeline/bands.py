"""Colours of light curves as they are read: the other bands of a star may lie in other batches of its partition.

What the trees are told of a star must not depend on the size of a batch. So whoever has trees that look at colours
goes over the whole partition (or table) before, and keeps of each light curve the place, the band and the mean.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lightmill.catalogs.lightcurves import LightCurves
from lightmill.models.manifest import Manifest
from lightmill.pipeline.clean import clean
from lightmill.pipeline.colour import COLOURS, colours
from lightmill.pipeline.features import index_of, statistics
from lightmill.pipeline.recipe import CleanTable

__all__ = ["KnownColours", "colours_of", "looks_at_colours"]


def looks_at_colours(bundle: Manifest, experts: Sequence[str] = ()) -> bool:
    """Whether some of a bundle's experts (none named: all) are told a star's colours."""
    return "features" in bundle.needs(experts) and not set(COLOURS).isdisjoint(bundle.features)


@dataclass(frozen=True)
class KnownColours:
    """Colours of the n light curves of a partition or a table, in their order."""

    objectid: np.ndarray  #: (n,) int64
    colours: (
        np.ndarray
    )  #: (n, len(COLOURS)) float64 [mag]; NaN where a star has no light curve in one of the two bands

    def of_batch(self, start: int, batch: LightCurves) -> np.ndarray:
        """Those of a batch, whose first light curve is number `start`.

        Raises
        ------
        OSError
            (ESTALE) if other light curves stand there than when the colours were computed.
        """
        own = slice(start, start + len(batch))
        if not np.array_equal(self.objectid[own], batch.objectid):
            raise OSError(
                errno.ESTALE,
                "light curves are others than when they were read for their colours: the release is being changed; run "
                "again when that has ended",
            )
        return self.colours[own]

    def of(self, objectid: int) -> np.ndarray:
        """Those of the first light curve with this identifier, (len(COLOURS),); KeyError if there is none."""
        found = np.flatnonzero(self.objectid == objectid)
        if not len(found):
            raise KeyError(objectid)
        return self.colours[found[0]]


def colours_of(batches: Iterable[LightCurves], rules: CleanTable) -> KnownColours:
    """Compute the colours of the light curves of all batches together.

    A light curve's magnitude is the weighted mean of its good epochs, `mag_mean` of a catalogue. One that is rejected,
    or has no place on the sky, has none.

    Parameters
    ----------
    batches : all of a partition, or all of a table
    rules : which epochs are good, and how many a light curve needs
    """
    ids, known = list[np.ndarray](), list[tuple[np.ndarray, ...]]()
    for batch in batches:
        ids.append(batch.objectid.copy())  # copies: views would keep the batch in memory
        known.append(_known(batch, rules))
    if not known:
        return KnownColours(np.empty(0, np.int64), np.empty((0, len(COLOURS))))
    return KnownColours(
        np.concatenate(ids), colours(*(np.concatenate(column) for column in zip(*known, strict=True)))
    )


def _known(batch: LightCurves, rules: CleanTable) -> tuple[np.ndarray, ...]:
    """What `colours` takes, (n,) each: ra, dec, filterid, mean magnitude."""
    good = clean(*batch.epochs, **rules.limits())
    mean = np.full(len(batch), np.nan)
    mean[good.accepted] = statistics(good.t, good.mag, good.magerr, good.offsets)[:, index_of("mean")]
    mean[batch.healpix_29 < 0] = np.nan
    return batch.ra.copy(), batch.dec.copy(), batch.filterid.copy(), mean
