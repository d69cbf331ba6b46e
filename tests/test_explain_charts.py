"""`pipeline/explain_charts.py`: pictures of ordinary and of empty explanations, without a warning."""

from __future__ import annotations

import numpy as np
import pytest

from lightmill.pipeline import explain_charts as charts
from lightmill.pipeline.dmdt import GRIDS

GRID = GRIDS["mahabal2017"]


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_an_image(scale):
    rng = np.random.default_rng(1)
    image, seen = (scale * rng.random(GRID.shape) for _ in range(2))
    speaks, instead = (scale * rng.normal(size=GRID.shape) for _ in range(2))
    drawn = charts.image_look(image, speaks, instead, seen, GRID, "EW", "RS_CVn")
    assert drawn.startswith("<svg")
    for text in ("for EW", "for EW rather than RS_CVn", "class map of EW", "dm [mag]"):
        assert f">{text}<" in drawn


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_a_folded_curve(scale):
    rng = np.random.default_rng(2)
    curve, speaks, instead = (scale * rng.normal(size=(64, 6)) for _ in range(3))
    curve[:, [2, 5]] = scale * (rng.random((64, 2)) > 0.3)
    curve[:, [1, 4]] **= 2
    drawn = charts.folded_look(curve, speaks, instead, scale * rng.random(64), "EA", "EW")
    for text in ("at the period", "at twice the period", "for EA", "for EA rather than EW"):
        assert f">{text}<" in drawn


@pytest.mark.parametrize("period", [None, 0.5])
def test_a_light_curve(period):
    t = np.linspace(0, 30, 50)
    drawn = charts.light_curve(t, 17 + np.sin(t), np.full(50, 0.1), period, 2, "r [mag]")
    assert ("phase, period 0.5 d" in drawn) == (period is not None)
    assert "r [mag]" in drawn


def test_bars():
    drawn = charts.bars_for_and_against({"for EW": [("eta = 3", 0.5), ("std = 1", -0.25)], "for LPV": []})
    for text in ("eta = 3", "+0.50", "−0.25", "for LPV"):
        assert f">{text}<" in drawn


def test_what_is_used_most():
    drawn = charts.most_used({"eta": 0.75, "std": 0.25})
    assert ">75.0 %<" in drawn
    assert charts.most_used({}).startswith("<svg")
