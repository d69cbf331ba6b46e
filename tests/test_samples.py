"""`pipeline/samples.py`: views of a sample are made once, and parts of it are its rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from lightmill.pipeline import samples
from lightmill.pipeline.choose import KEPT, Chosen
from lightmill.pipeline.dmdt import Grid
from lightmill.pipeline.represent import represent
from lightmill.pipeline.samples import Sample

GRID = Grid((0, 1, 10, 400), (-4, -0.3, 0, 0.3, 4))


@pytest.fixture
def sample(waves: Callable) -> Sample:
    curves, _ = waves(12, ("EW", "EA", "RRab"))
    return Sample(curves, curves.statistics(), None, GRID, ())


def test_views_are_those_of_represent(sample: Sample):
    curves = sample.curves
    expected = represent(
        curves.t, curves.mag, curves.magerr, curves.offsets, needs=["image:paper", "image:count"],
        dt_edges=GRID.dt_edges, dm_edges=GRID.dm_edges,
    )  # fmt: skip
    found = sample.views(["image:paper", "image:count"])
    assert list(found) == ["image:paper", "image:count"]
    for name, view in found.items():
        np.testing.assert_array_equal(view, expected[name])
    assert len(sample) == 12


def test_each_view_is_made_once(sample: Sample, monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[str, ...]] = []

    def counted(*args: object, needs: tuple[str, ...], **more: object) -> dict[str, np.ndarray]:
        asked.append(tuple(needs))
        return represent(*args, needs=needs, **more)

    monkeypatch.setattr(samples, "represent", counted)
    part = sample.take(np.array([3, 1]))
    part.views(["image:count"])
    sample.views(["image:count", "image:l2"])
    part.views(["image:l2", "image:count"])
    assert asked == [("image:count",), ("image:l2",)]


def test_a_part_is_its_rows_in_their_order(sample: Sample):
    rows = np.array([7, 2, 2, 11])
    part = sample.take(rows)
    assert len(part) == 4
    whole = sample.views(["image:count"])["image:count"]
    np.testing.assert_array_equal(part.views(["image:count"])["image:count"], whole[rows])
    alone = sample.curves.take(rows)
    again = Sample(alone, alone.statistics(), None, GRID, ())
    np.testing.assert_array_equal(again.views(["image:count"])["image:count"], whole[rows])


def test_a_part_may_hide_colours(waves: Callable):
    curves, _ = waves(6, ("EW", "EA"))
    known, one = curves.statistics(), np.full((6, KEPT), 0.3)
    colours = np.arange(12.0).reshape(6, 2)
    columns = ("r_minus_i", "eta", "g_minus_r")
    sample = Sample(curves, known, Chosen(one, one, one, one), GRID, columns, colours)
    whole = sample.views(["features"])["features"]
    np.testing.assert_array_equal(whole[:, [2, 0]], colours)
    rows, hidden = np.array([5, 0, 0, 3]), np.zeros((6, 2), bool)
    hidden[[0, 3], 0] = hidden[[3, 5], 1] = True
    part = sample.take(rows, hidden).views(["features", "image:count"])
    want = whole[rows].copy()
    want[1:, 2] = want[[0, 3], 0] = np.nan
    np.testing.assert_array_equal(part["features"], want)
    np.testing.assert_array_equal(part["image:count"], sample.views(["image:count"])["image:count"][rows])
    every = sample.take(None, hidden)
    assert len(every) == 6
    np.testing.assert_array_equal(np.isnan(every.views(["features"])["features"][:, [2, 0]]), hidden)
    # nobody else's are gone
    np.testing.assert_array_equal(sample.take(rows).views(["features"])["features"], whole[rows])


def test_two_samples_share_nothing(waves: Callable):
    one, two = (
        Sample(curves, curves.statistics(), None, GRID, ())
        for curves in (waves(4, ("EW", "EA"), seed)[0] for seed in (1, 2))
    )
    first = one.views(["image:count"])["image:count"]
    assert (two.views(["image:count"])["image:count"] != first).any()


def test_what_needs_a_period_is_refused_without_one(sample: Sample):
    with pytest.raises(ValueError, match="the view 'folded' needs a period"):
        sample.views(["folded"])
