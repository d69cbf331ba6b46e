"""Statistics: all of ours in one pass beside `light_curve`'s Extractor with those that it has too."""

from __future__ import annotations

import itertools

import light_curve
import numpy as np
import pytest

from lightmill.pipeline.features import index_of, statistics

PEER = light_curve.Extractor(
    light_curve.WeightedMean(),
    light_curve.StandardDeviation(),
    light_curve.MedianAbsoluteDeviation(),
    light_curve.InterPercentileRange(0.25),
    light_curve.InterPercentileRange(0.05),
    light_curve.ReducedChi2(),
    light_curve.ExcessVariance(),
    light_curve.Eta(),
    light_curve.StetsonK(),
    light_curve.Skew(),
    light_curve.Kurtosis(),
    light_curve.MagnitudePercentageRatio(0.4, 0.05),
    light_curve.MaximumSlope(),
    light_curve.LinearFit(),
    light_curve.BeyondNStd(3.0),
)


@pytest.mark.parametrize(("n", "curves"), [(30, 1000), (300, 200), (1000, 50)])
def test_statistics(beside, cadence, n, curves):
    t, mag, magerr, offsets = cadence(n, curves)
    pieces = [tuple(x[a:b] for x in (t, mag, magerr)) for a, b in itertools.pairwise(offsets)]
    found = {}

    def ours():
        found["ours"] = statistics(t, mag, magerr, offsets)

    def theirs():
        found["light_curve"] = np.array([PEER(*piece, sorted=True, check=False) for piece in pieces])

    figures = beside(ours, {"light_curve": theirs}, light_curve=curves)
    # the tolerance of tests/test_features.py: its sums are of one pass
    np.testing.assert_allclose(found["ours"][:, index_of("eta")], found["light_curve"][:, 7], rtol=1e-9)
    assert set(figures) == {"times_faster_than_light_curve", "ns_per_light_curve"}
