"""dm-dt images: ours beside `light_curve.DmDt`, the fastest public package, and `numpy.histogram2d`.

The GPU's are timed by `gpu_dmdt.py`.
"""

from __future__ import annotations

import itertools

import light_curve
import numpy as np
import pytest

from lightmill.pipeline.dmdt import GRIDS, counts_reference, dmdt_counts, dmdt_images, normalise

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


@pytest.mark.parametrize(("n", "curves"), [(30, 8192), (100, 2000), (1000, 50)])
def test_images(beside, cadence, n, curves):
    """Straight into a buffer, beside counting first and normalising then."""
    t, mag, _, offsets = cadence(n, curves)
    arguments = t, mag, offsets, GRID.dt_edges, GRID.dm_edges
    buffer, small = (np.empty((curves, *GRID.shape), dtype) for dtype in (np.float32, np.uint8))
    found = {}

    def two_steps():
        found["two steps"] = normalise(dmdt_counts(*arguments), "paper")

    figures = beside(
        lambda: dmdt_images(*arguments, out=buffer),
        {
            "two_steps": two_steps,
            "counts_alone": lambda: dmdt_counts(*arguments),
            "bytes": lambda: dmdt_images(*arguments, out=small),
        },
        image=curves,
    )
    np.testing.assert_array_equal(buffer, found["two steps"])
    np.testing.assert_array_equal(small, buffer)
    assert "times_faster_than_two_steps" in figures


@pytest.mark.parametrize(("n", "curves"), [(30, 40_000), (300, 2000)])
def test_two_threads(beside, cadence, n, curves):
    """Beside one: at best twice as fast, and only where two cores are free."""
    t, mag, _, offsets = cadence(n, curves)
    arguments = t, mag, offsets, GRID.dt_edges, GRID.dm_edges
    one, two = (np.empty((curves, *GRID.shape), np.float32) for _ in range(2))
    figures = beside(
        lambda: dmdt_images(*arguments, out=two, threads=2),
        {"one_thread": lambda: dmdt_images(*arguments, out=one)},
        image=curves,
    )
    np.testing.assert_array_equal(one, two)
    assert set(figures) == {"times_faster_than_one_thread", "ns_per_image"}
