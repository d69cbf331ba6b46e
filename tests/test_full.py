"""The full features are those of the modules that they come from, side by side."""

from __future__ import annotations

import numpy as np
import pytest

from lightmill.models import choice as choices
from lightmill.pipeline.candidates import COLUMNS
from lightmill.pipeline.choose import choose
from lightmill.pipeline.colour import COLOURS
from lightmill.pipeline.features import STATISTICS, statistics
from lightmill.pipeline.full import FULL, full
from lightmill.pipeline.period import search
from lightmill.pipeline.shape import SHAPE, shape


@pytest.fixture(scope="module")
def double_mode():
    """Three double-mode stars (P₁/P₀ = 0.745) and one light curve of five epochs."""
    rng = np.random.default_rng(2)
    pieces = []
    for k, n in enumerate((200, 250, 5, 300)):
        t = np.sort(rng.integers(0, 900, n) + rng.uniform(0.2, 0.5, n))
        first = 2.3 + 0.11 * k
        mag = 15 + 0.3 * np.sin(2 * np.pi * first * t) + 0.15 * np.sin(2 * np.pi * first / 0.745 * t)
        pieces.append((t - t[0], mag + 0.01 * rng.standard_normal(n), np.full(n, 0.01)))
    t, mag, magerr = (np.concatenate(x) for x in zip(*pieces, strict=True))
    return t, mag, magerr, np.concatenate([[0], np.cumsum([len(p[0]) for p in pieces])])


def test_columns_are_named_once():
    assert len(set(FULL)) == len(FULL)


def test_side_by_side(double_mode):
    known = statistics(*double_mode)
    chosen = choose(search(*double_mode), known, choices.load("period-choice", COLUMNS))
    colours = np.arange(4.0 * len(COLOURS)).reshape(4, -1)
    table = full(*double_mode, known, chosen, colours)
    assert table.shape == (4, len(FULL))
    at = {name: table[:, i] for i, name in enumerate(FULL)}
    np.testing.assert_array_equal(table[:, : len(STATISTICS)], known)
    np.testing.assert_array_equal(
        table[:, len(STATISTICS) : len(STATISTICS) + len(SHAPE)], shape(*double_mode, chosen.frequency[:, 0])
    )
    np.testing.assert_array_equal(table[:, -len(COLOURS) :], colours)
    np.testing.assert_array_equal(
        10 ** at["candidate_3_log_frequency"], 10 ** np.log10(chosen.frequency[:, 3])
    )
    searched = np.array([0, 1, 3])
    np.testing.assert_allclose(at["second_ratio"][searched], 0.745, atol=1e-3)
    assert (at["second_score"][searched] > 20).all()
    # five epochs have statistics, and no period
    assert np.isnan(at["period_score"][2])
    assert np.isnan(at["second_ratio"][2])
    assert np.isfinite(at["skew"][2])


def test_no_colours_and_no_light_curves(double_mode):
    known = statistics(*double_mode)
    chosen = choose(search(*double_mode), known, choices.load("period-choice", COLUMNS))
    assert np.isnan(full(*double_mode, known, chosen)[:, -len(COLOURS) :]).all()
    none = np.empty(0), np.empty(0), np.empty(0), np.array([0])
    empty = choose(search(*none), known[:0], choices.load("period-choice", COLUMNS))
    assert full(*none, known[:0], empty).shape == (0, len(FULL))
    with pytest.raises(ValueError, match="4 light curves, statistics of 3, periods of 4, colours of 3"):
        full(*double_mode, known[:3], chosen)
