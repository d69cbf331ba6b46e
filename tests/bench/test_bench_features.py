"""Statistics: all of ours in one pass beside `light_curve`'s Extractor with 29 of its own, those of the same kind."""

from __future__ import annotations

import itertools

import light_curve
import numpy as np
import pytest

from lightmill.pipeline.features import STATISTICS, index_of, statistics

PEER = light_curve.Extractor(
    light_curve.ObservationCount(),
    light_curve.Duration(),
    light_curve.Mean(),
    light_curve.WeightedMean(),
    light_curve.Median(),
    light_curve.StandardDeviation(),
    light_curve.MedianAbsoluteDeviation(),
    light_curve.InterPercentileRange(0.25),
    light_curve.InterPercentileRange(0.1),
    light_curve.InterPercentileRange(0.05),
    light_curve.Amplitude(),
    light_curve.PercentAmplitude(),
    light_curve.MagnitudePercentageRatio(0.4, 0.05),
    light_curve.MagnitudePercentageRatio(0.25, 0.05),
    light_curve.MagnitudePercentageRatio(0.1, 0.05),
    light_curve.ReducedChi2(),
    light_curve.ExcessVariance(),
    light_curve.Roms(),
    light_curve.Eta(),
    light_curve.EtaE(),
    light_curve.StetsonK(),
    light_curve.Skew(),
    light_curve.Kurtosis(),
    light_curve.MaximumSlope(),
    light_curve.LinearFit(),  # 3 of them
    light_curve.BeyondNStd(3.0),
    light_curve.BeyondNStd(5.0),
)


@pytest.mark.parametrize(("n", "curves"), [(30, 20_000), (100, 6000), (300, 2000), (1000, 600)])
def test_statistics(beside, cadence, measured, n, curves):
    curves = curves if measured else curves // 10
    assert len(PEER.names) == 29
    t, mag, magerr, offsets = cadence(n, curves)
    pieces = [tuple(x[a:b] for x in (t, mag, magerr)) for a, b in itertools.pairwise(offsets)]
    found = {}

    def ours():
        found["ours"] = statistics(t, mag, magerr, offsets)

    def theirs():
        # a call for each light curve: its `many` takes about as long on one thread
        found["light_curve"] = np.array([PEER(*piece, sorted=True, check=False) for piece in pieces])

    beside(f"{len(STATISTICS)} statistics", n, curves, ours, {"light-curve, 29 of them": theirs})
    # the tolerance of tests/test_features.py: its sums are of one pass
    for name in ("median", "mad", "std", "eta", "skew"):
        theirs_at = PEER.names.index(
            {"mad": "median_absolute_deviation", "std": "standard_deviation"}.get(name, name)
        )
        np.testing.assert_allclose(
            found["ours"][:, index_of(name)],
            found["light_curve"][:, theirs_at],
            rtol=1e-9,
            atol=1e-9,
            err_msg=name,
        )
