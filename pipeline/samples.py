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

    def take(self, rows: np.ndarray | None, hidden: np.ndarray | None = None) -> Part:
        """Some of the light curves, in that order (None: all); views are made of all of them, once.

        hidden : (n, len(COLOURS)) bool, colours of the sample that are NaN in the part
        """
        return Part(self, rows, hidden)

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
    rows: np.ndarray | None  #: None: all
    hidden: np.ndarray | None = None  #: (len(whole), len(COLOURS)) bool

    def __len__(self) -> int:
        return len(self.whole) if self.rows is None else len(self.rows)

    def views(self, needs: Sequence[str]) -> dict[str, np.ndarray]:
        """Views of these light curves."""
        rows = slice(None) if self.rows is None else self.rows
        views = {need: view[rows] for need, view in self.whole.views(needs).items()}
        told = [(at, COLOURS.index(name)) for at, name in enumerate(self.whole.columns) if name in COLOURS]
        if self.hidden is not None and told and "features" in views:
            table = views["features"].copy()
            for at, k in told:
                table[self.hidden[rows, k], at] = np.nan
            views["features"] = table
        return views
