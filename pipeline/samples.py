"""Samples: light curves to train on or to test with, and their views, each made once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lightmill.pipeline.choose import Chosen
from lightmill.pipeline.colour import COLOURS
from lightmill.pipeline.curves import Curves
from lightmill.pipeline.dmdt import Grid
from lightmill.pipeline.represent import represent

__all__ = ["Part", "Sample"]


@dataclass(frozen=True)
class Sample:
    """n clean light curves with what was found out about them."""

    curves: Curves
    statistics: np.ndarray  #: (n, len(features.STATISTICS)) float64
    chosen: Chosen | None  #: candidate periods; None: none were searched
    grid: Grid  #: of the images
    columns: tuple[str, ...]  #: features that trees take
    colours: np.ndarray | None = None  #: (n, len(COLOURS)) float64 [mag]; None: not known
    _views: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.statistics)

    def take(self, rows: np.ndarray, without_colours: np.ndarray | None = None) -> Part:
        """Some of the light curves, in that order; views are made of all of them, once.

        without_colours : (n,) bool, light curves of the sample that have none in the part
        """
        return Part(self, rows, without_colours)

    def views(self, needs: Sequence[str]) -> dict[str, np.ndarray]:
        """See `represent.represent`; what was made before is kept."""
        new = [need for need in needs if need not in self._views]
        if new:
            own = self.curves
            self._views.update(
                represent(
                    own.t, own.mag, own.magerr, own.offsets,
                    needs=new, dt_edges=self.grid.dt_edges, dm_edges=self.grid.dm_edges,
                    statistics=self.statistics, chosen=self.chosen, colours=self.colours, features=self.columns,
                )
            )  # fmt: skip
        return {need: self._views[need] for need in needs}


@dataclass(frozen=True)
class Part:
    """Some light curves of a sample."""

    whole: Sample
    rows: np.ndarray
    without_colours: np.ndarray | None = None  #: (len(whole),) bool

    def __len__(self) -> int:
        return len(self.rows)

    def views(self, needs: Sequence[str]) -> dict[str, np.ndarray]:
        """Views of these light curves."""
        views = {need: view[self.rows] for need, view in self.whole.views(needs).items()}
        if self.without_colours is not None and "features" in views:
            columns = [k for k, name in enumerate(self.whole.columns) if name in COLOURS]
            views["features"][np.ix_(self.without_colours[self.rows], columns)] = np.nan
        return views
