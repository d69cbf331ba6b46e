"""`pipeline/draws.py`: own streams for each purpose, and the distributions asked for."""

from __future__ import annotations

import numpy as np
import pytest

from lightmill.pipeline import draws
from lightmill.pipeline.draws import Purpose, stream


def test_a_stream_is_the_same_again_and_like_no_other():
    keys = [(purpose, *rest) for purpose in Purpose for rest in ((), (3,), (3, 1), (4, 1))]
    first = [stream(7, *key).random() for key in keys]
    assert [stream(7, *key).random() for key in keys] == first
    assert len({*first, *(stream(8, *key).random() for key in keys)}) == 2 * len(keys)


def test_quantiles_come_back():
    quantiles = [1.0, 2.0, 4.0, 8.0, 16.0]
    drawn = draws.from_quantiles(np.random.default_rng(1), quantiles, 40_000)
    assert np.quantile(drawn, [0.25, 0.5, 0.75]) == pytest.approx([2, 4, 8], rel=0.03)
    assert drawn.min() >= 1
    assert drawn.max() <= 16


def test_limits_are_kept():
    rng = np.random.default_rng(2)
    low, high = 0.5, 3.0
    for drawn in (draws.near(rng, 1, 2, low, high, 1000), draws.log_uniform(rng, low, high, 1000)):
        assert drawn.min() >= low
        assert drawn.max() <= high
    spread = np.log(draws.log_uniform(rng, low, high, 20_000))
    assert spread.mean() == pytest.approx(np.log(low * high) / 2, abs=0.02)


def test_weights_need_not_add_up_to_one():
    drawn = draws.choose(np.random.default_rng(3), [1, 3], 40_000)
    assert drawn.mean() == pytest.approx(0.75, abs=0.01)
