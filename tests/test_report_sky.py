"""`pipeline/report_sky.py`: maps that are true to positions, east to the left, and hold at the poles."""

from __future__ import annotations

import numpy as np
import pytest

from lightmill.pipeline.report_sky import WHOLE_SKY, Projection, SkyCells, around, sky


@pytest.mark.parametrize("projection", [WHOLE_SKY, around(359.9, 10, 5), around(12, 89.5, 3)])
def test_maps_there_and_back(projection: Projection) -> None:
    x, y = (0.65 * half * np.random.default_rng(1).uniform(-1, 1, 500) for half in projection.half)
    back = projection.plane(*projection.sky(x, y))
    np.testing.assert_allclose(back, [x, y], atol=1e-6)


def test_east_is_to_the_left() -> None:
    x, _ = around(0, 0, 5).plane(np.array([1.0, 359.0]), np.array([0.0, 0.0]))
    assert x[0] < 0 < x[1]
    x, _ = WHOLE_SKY.plane(np.array([181.0, 179.0]), np.array([0.0, 0.0]))
    assert x[0] < 0 < x[1]


def test_whole_sky_ends_at_its_outline() -> None:
    ra, _ = WHOLE_SKY.sky(np.array([0.0, 161, 163, 150]), np.array([0.0, 0, 0, 60]))
    assert np.isfinite(ra).tolist() == [True, True, False, False]


def test_extent() -> None:
    everywhere = SkyCells(3, np.arange(768), np.ones(768, int))
    assert everywhere.extent()[2] > 90
    assert everywhere.density == pytest.approx(768 / 41253, rel=1e-5)
    ra, dec, radius = SkyCells(6, np.array([4**6 - 1]), np.array([3])).extent()
    assert ra == pytest.approx(45)
    assert dec == pytest.approx(89.27, abs=0.01)
    assert radius == pytest.approx(0.73, abs=0.01)


def test_whole_sky_and_one_cell() -> None:
    """A map of everywhere, and one of a single cell at the pole, with a failed partition beside it."""
    everywhere = SkyCells(3, np.arange(768), np.arange(1, 769))
    assert sky({"all": everywhere}, np.empty((0, 2))).count("<svg") == 1
    assert everywhere.coarser().count.sum() == everywhere.count.sum()
    pole = SkyCells(6, np.array([4**6 - 1]), np.array([3]))
    assert "failed partition" in sky({"pole": pole}, np.array([[45.0, 89.0]]))
