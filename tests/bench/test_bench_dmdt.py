"""dm-dt images: ours beside `light_curve.DmDt`, the fastest public package, and `numpy.histogram2d`."""

from __future__ import annotations

import itertools

import light_curve
import numpy as np
import pytest

from lightmill.pipeline.dmdt import GRIDS, counts_reference, dmdt_counts

GRID = GRIDS["mahabal2017"]


@pytest.mark.parametrize(("n", "curves"), [(30, 2000), (100, 500), (300, 60), (1000, 6), (3000, 1)])
def test_counts(beside, cadence, n, curves):
    t, mag, _, offsets = cadence(n, curves)
    peer = light_curve.DmDt(
        dt=np.array(GRID.dt_edges), dm=np.array(GRID.dm_edges), dt_type="asis", dm_type="asis", norm=[]
    )
    pieces = [(t[a:b], mag[a:b]) for a, b in itertools.pairwise(offsets)]
    found = {}

    def ours():
        found["ours"] = dmdt_counts(t, mag, offsets, GRID.dt_edges, GRID.dm_edges)

    def theirs():
        found["light_curve"] = [peer.points(x, m, sorted=True) for x, m in pieces]

    def by_numpy():
        found["numpy"] = [counts_reference(*piece, GRID.dt_edges, GRID.dm_edges) for piece in pieces]

    figures = beside(ours, {"light_curve": theirs, "numpy": by_numpy}, pair=curves * n * (n - 1) / 2)
    # side by side also in what they find
    np.testing.assert_array_equal(found["ours"].transpose(0, 2, 1), np.array(found["light_curve"]))
    np.testing.assert_array_equal(found["ours"], np.array(found["numpy"]))
    assert set(figures) == {"times_faster_than_light_curve", "times_faster_than_numpy", "ns_per_pair"}
