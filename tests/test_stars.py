"""`pipeline/stars.py`: the rows of a partition, one a star and filter."""

from __future__ import annotations

import numpy as np
import pytest

from lightmill.pipeline import stars as module
from lightmill.pipeline.sky import patches
from lightmill.pipeline.survey import SATURATION, survey

N, SEED = 200_000, 6


@pytest.fixture(scope="module")
def stars() -> module.Stars:
    patch = max(patches(SEED, N), key=lambda patch: patch.rows)
    return module.draw_stars(np.random.default_rng(1), SEED, N, patch, 0.1)


def test_sorted_by_place_with_unique_ids(stars):
    assert (np.diff(stars.healpix) >= 0).all()
    assert (np.diff(stars.cell) >= 0).all()
    assert len(np.unique(stars.objectid)) == len(stars.objectid)


@pytest.mark.parametrize("rows", [1, 2, 999, 5000])
def test_stars_have_the_filters_of_their_set_and_the_last_is_cut(rows):
    star, filterid, first = module._filters(np.random.default_rng(rows), rows)
    assert len(star) == len(filterid) == rows
    assert (star[first] == np.arange(len(first))).all()
    for k in range(len(first) - 1):
        assert tuple(filterid[star == k]) in module.FILTER_SETS
    last = tuple(filterid[star == len(first) - 1])
    assert any(each[: len(last)] == last for each in module.FILTER_SETS)


def test_magnitudes_are_the_fitted_ones(stars):
    lasting = (stars.quota < 0) & (stars.label == 0) & (stars.filterid == 1)
    quantiles = survey()["stars"]["mag_quantiles"]
    assert np.median(stars.mag[lasting]) == pytest.approx(quantiles[10], abs=0.1)
    assert stars.mag.min() > SATURATION
    assert stars.mag[(stars.quota < 0) & (stars.label > 0)].max() < quantiles[-1]


def test_some_hardly_recur(stars):
    few = stars.quota >= 0
    assert few.mean() == pytest.approx(module.FEW_FRACTION, abs=0.02)
    assert stars.quota[few].min() >= 1
    assert stars.quota[few].max() < 20
