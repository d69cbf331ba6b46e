"""What experts look at: each view of a light curve, made only if one of them asks for it.

image:<normalisation>   the dm-dt image, (n_dm, n_dt)
folded, scalars         the folded light curve and what folding takes away
features                columns of `full.FULL`
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lightmill.pipeline.choose import Chosen
from lightmill.pipeline.dmdt import dmdt_images
from lightmill.pipeline.folded import BINS, CHANNELS, SCALARS, folded
from lightmill.pipeline.full import FULL, full
from lightmill.pipeline.stages import Stages

__all__ = ["REPRESENTATION", "represent", "shape_of"]

REPRESENTATION = 2  #: raised by hand whenever the same light curve gives other inputs


def represent(
    t: np.ndarray,
    mag: np.ndarray,
    magerr: np.ndarray,
    offsets: np.ndarray,
    *,
    needs: Sequence[str],
    dt_edges: Sequence[float] = (),
    dm_edges: Sequence[float] = (),
    statistics: np.ndarray | None = None,
    chosen: Chosen | None = None,
    colours: np.ndarray | None = None,
    features: Sequence[str] = (),
    stage: Stages | None = None,
) -> dict[str, np.ndarray]:
    """The views of each light curve of a clean, ragged batch that are asked for.

    Parameters
    ----------
    t, mag, magerr : (N,) float64 [d, mag, mag]
    offsets : (n + 1,) integer
    needs : names of views, as in the table above
    dt_edges, dm_edges : of the images
    statistics, chosen : of the same light curves; for "folded", "scalars" and "features"
    colours : (n, len(COLOURS)) float64 [mag] of the same light curves, for "features"; None: not known
    features : columns of FULL, in the order that is wanted
    stage : stopwatch for "images", "fold" and "features"

    Returns
    -------
    (n, …) float32 by name

    Raises
    ------
    ValueError
        if a view or a feature is unknown, or a view needs a period and there is none.
    """
    stage = stage or Stages()
    views: dict[str, np.ndarray] = {}
    for need in needs:
        if need.startswith("image:"):
            with stage("images"):
                views[need] = dmdt_images(
                    t, mag, offsets, dt_edges, dm_edges, normalisation=need.removeprefix("image:")
                )
            continue
        if need not in ("folded", "scalars", "features"):
            raise ValueError(
                f"unknown view {need!r} of a light curve; known are image:…, folded, scalars, features"
            )
        if chosen is None or statistics is None:
            raise ValueError(f"the view {need!r} needs a period, and none was searched")
        if need == "features":
            with stage("features"):
                table = full(t, mag, magerr, offsets, statistics, chosen, colours)
                views[need] = table[:, _columns(features)].astype(np.float32)
        elif need not in views:
            with stage("fold"):
                views["folded"], views["scalars"] = folded(t, mag, magerr, offsets, chosen.frequency[:, 0])
    return views


def _columns(features: Sequence[str]) -> list[int]:
    unknown = [name for name in features if name not in FULL]
    if unknown:
        raise ValueError(f"unknown features {', '.join(unknown)}; known are {', '.join(FULL)}")
    return [FULL.index(name) for name in features]


def shape_of(need: str, n_dm: int, n_dt: int) -> tuple[int, ...]:
    """Shape of one light curve's view.

    >>> shape_of("folded", 22, 23)
    (64, 6)
    """
    if need.startswith("image:"):
        return n_dm, n_dt
    return {"folded": (BINS, len(CHANNELS)), "scalars": (len(SCALARS),)}[need]
