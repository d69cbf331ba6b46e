"""dm-dt images: ours beside `light_curve.DmDt`, the fastest public package, and `numpy.histogram2d`.

The GPU's are timed by `gpu_dmdt.py`.
"""

from __future__ import annotations

import itertools
import time

import light_curve
import numpy as np
import pytest

from lightmill.pipeline.dmdt import GRIDS, counts_reference, dmdt_counts, dmdt_images, normalise

GRID = GRIDS["mahabal2017"]
#: set on a Zen 4, where light-curve takes 1.4 times as long
BARS = {30: 5.0, 100: 6.0, 300: 18.0, 1000: 50.0}


@pytest.mark.parametrize(("n", "curves"), [(30, 8000), (100, 2000), (300, 600), (1000, 60), (3000, 10)])
def test_counts(beside, cadence, measured, n, curves):
    curves = curves if measured else curves // 10
    t, mag, _, offsets = cadence(n, curves)
    peer = light_curve.DmDt(
        dt=np.array(GRID.dt_edges), dm=np.array(GRID.dm_edges), dt_type="asis", dm_type="asis", norm=[]
    )
    pieces = [(t[a:b], mag[a:b]) for a, b in itertools.pairwise(offsets)]
    found = {}

    # what is found replaces what was found before, whose memory is free for it: a run keeps no counts either
    def ours():
        found.pop("ours", None)
        found["ours"] = dmdt_counts(t, mag, offsets, GRID.dt_edges, GRID.dm_edges)

    def theirs():
        found.pop("light_curve", None)
        found["light_curve"] = [peer.points(x, m, sorted=True) for x, m in pieces]

    def by_numpy():
        found["numpy"] = [counts_reference(*piece, GRID.dt_edges, GRID.dm_edges) for piece in pieces]

    peers = {"light-curve": theirs, "numpy.histogram2d": by_numpy}
    bars = {"light-curve": BARS[n]} if n in BARS else {}
    beside("dm-dt counts", n, curves, ours, peers, bars=bars, rounds=7)
    # side by side also in what they find
    np.testing.assert_array_equal(found["ours"].transpose(0, 2, 1), np.array(found["light_curve"]))
    np.testing.assert_array_equal(found["ours"], np.array(found["numpy"]))


@pytest.mark.parametrize(("n", "curves"), [(30, 8192), (100, 2000), (300, 400), (1000, 50)])
def test_images(beside, cadence, n, curves):
    """Straight into a buffer, beside counting first and normalising then."""
    t, mag, _, offsets = cadence(n, curves)
    arguments = t, mag, offsets, GRID.dt_edges, GRID.dm_edges
    buffer, small = (np.empty((curves, *GRID.shape), dtype) for dtype in (np.float32, np.uint8))
    found = {}

    def two_steps():
        found["two steps"] = normalise(dmdt_counts(*arguments), "paper")

    def ours():
        dmdt_images(*arguments, out=buffer)

    beside("dm-dt images", n, curves, ours, {"counts, then normalised": two_steps})
    dmdt_images(*arguments, out=small)
    np.testing.assert_array_equal(buffer, found["two steps"])
    np.testing.assert_array_equal(small, buffer)


@pytest.mark.parametrize(("n", "curves"), [(30, 40_000), (100, 8000), (300, 2000), (1000, 200)])
def test_two_threads(beside, cadence, n, curves):
    """Beside one: at best twice as fast, and only where two cores are free."""
    t, mag, _, offsets = cadence(n, curves)
    arguments = t, mag, offsets, GRID.dt_edges, GRID.dm_edges
    one, two = (np.empty((curves, *GRID.shape), np.float32) for _ in range(2))
    beside(
        "dm-dt images on two threads",
        n,
        curves,
        lambda: dmdt_images(*arguments, out=two, threads=2),
        {"one thread": lambda: dmdt_images(*arguments, out=one)},
        clock=time.perf_counter,
    )
    np.testing.assert_array_equal(one, two)
