"""Shape at a period: all columns in one pass, beside `numpy.linalg.lstsq` with the fit of six harmonics alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from lightmill.pipeline.shape import SHAPE, shape
from lightmill.pipeline.shape_fit import RIDGE

HARMONICS = np.arange(1, 7)


def explained(t, mag, magerr, frequency):
    """`explained_6`: the ridge is further rows of the design matrix."""
    weight = 1 / ((magerr / magerr.mean()) ** 2 + 0.25)
    y = mag - np.average(mag, weights=weight)
    angle = 2 * np.pi * frequency * np.outer(t - t[0], HARMONICS)
    design = np.column_stack([np.ones(len(t)), np.cos(angle), np.sin(angle)]) * np.sqrt(weight)[:, None]
    ridge = np.sqrt(RIDGE / 2 * weight.sum()) * np.diag([0, *HARMONICS, *HARMONICS])
    design, data = np.vstack([design, ridge]), np.append(y * np.sqrt(weight), np.zeros(len(ridge)))
    rest = design @ np.linalg.lstsq(design, data, rcond=None)[0] - data
    return 1 - rest @ rest / np.sum(weight * y**2)


@pytest.mark.parametrize(("n", "curves"), [(30, 1000), (100, 500), (300, 200), (1000, 50)])
def test_shape(beside, cadence, n, curves):
    t, mag, magerr, offsets = cadence(n, curves)
    frequency = np.random.default_rng(n).uniform(0.05, 5, curves)
    pieces = [tuple(x[a:b] for x in (t, mag, magerr)) for a, b in itertools.pairwise(offsets)]
    found = {}

    def ours():
        found["ours"] = shape(t, mag, magerr, offsets, frequency)

    def numpy():
        found["numpy"] = [explained(*piece, f) for piece, f in zip(pieces, frequency, strict=True)]

    beside("shape at a period", n, curves, ours, {"numpy.linalg.lstsq, its fit alone": numpy})
    # tests/test_shape.py says why not closer
    np.testing.assert_allclose(found["ours"][:, SHAPE.index("explained_6")], found["numpy"], rtol=1e-6)
