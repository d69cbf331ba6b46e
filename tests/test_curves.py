"""`pipeline/curves.py`: ragged batches joined, taken apart and augmented, against Python lists."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightmill.pipeline.curves import MOST_NOISE, Curves
from lightmill.pipeline.features import STATISTICS, statistics


def parts(lengths: list[int], seed: int = 1) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [
        (np.sort(rng.uniform(0, 100, n)), rng.normal(16, 1, n), rng.uniform(0.01, 0.2, n)) for n in lengths
    ]


def listed(curves: Curves) -> list[tuple[list[float], ...]]:
    """Each light curve as lists of t, mag and magerr."""
    cuts = curves.offsets
    return [
        tuple(x[cuts[i] : cuts[i + 1]].tolist() for x in (curves.t, curves.mag, curves.magerr))
        for i in range(len(cuts) - 1)
    ]


def as_lists(some: list[tuple[np.ndarray, ...]]) -> list[tuple[list[float], ...]]:
    return [tuple(x.tolist() for x in one) for one in some]


LENGTHS = st.lists(st.integers(0, 9), max_size=8)


@given(LENGTHS, LENGTHS, st.data())
def test_taken_and_joined_as_lists(first: list[int], second: list[int], data: st.DataObject):
    one, two = parts(first), parts(second, 2)
    joined = Curves.joined([Curves.of(one), Curves.of(two)])
    expected = as_lists(one + two)
    assert listed(joined) == expected
    assert joined.offsets.dtype == np.int64
    rows = data.draw(st.lists(st.integers(0, len(expected) - 1), max_size=12)) if expected else []
    assert listed(joined.take(np.array(rows, int))) == [expected[i] for i in rows]


def test_offsets_may_begin_anywhere():
    whole = Curves.of(parts([3, 5, 2, 4]))
    later = Curves(whole.t, whole.mag, whole.magerr, whole.offsets[1:])
    assert listed(later.take(np.array([2, 0]))) == [listed(whole)[3], listed(whole)[1]]


def test_none():
    assert Curves.of([]).offsets.tolist() == [0]
    assert Curves.of([]).statistics().shape == (0, len(STATISTICS))
    assert Curves.of([]).augmented(1, 0.4).offsets.tolist() == [0]


def test_statistics_are_the_kernels():
    curves = Curves.of(parts([30, 40, 50]))
    np.testing.assert_array_equal(
        curves.statistics(), statistics(curves.t, curves.mag, curves.magerr, curves.offsets)
    )


def test_augmenting_leaves_out_epochs_and_adds_noise():
    n = 400
    curves = Curves.of(parts([100] * n))
    new = curves.augmented(7, 0.4)
    shares, sizes = [], []
    for (t, mag, magerr), (old_t, old_mag, _) in zip(listed(new), listed(curves), strict=True):
        at = np.searchsorted(old_t, t)
        assert np.array(old_t)[at].tolist() == t  # each epoch is one of the old, in their order
        shares.append(len(t) / 100)
        sizes.append(np.std((np.array(mag) - np.array(old_mag)[at]) / magerr))
    # shares are uniform in 0.6…1, noise is uniform in 0…½ of the errors; binomial scatter is 0.05
    assert 0.4 < min(shares) < 0.65
    assert max(shares) > 0.95
    assert np.mean(shares) == pytest.approx(0.8, abs=4 * np.sqrt((0.4**2 / 12 + 0.05**2) / n))
    assert max(sizes) < 1.4 * MOST_NOISE
    assert min(sizes) < 0.05
    assert np.mean(sizes) == pytest.approx(0.5 * MOST_NOISE, abs=0.03)


def test_seeds():
    curves = Curves.of(parts([60] * 5))
    assert listed(curves.augmented(3, 0.4)) == listed(curves.augmented(3, 0.4))
    assert listed(curves.augmented(3, 0.4)) != listed(curves.augmented(4, 0.4))
    full = curves.augmented(3, 0.0)
    np.testing.assert_array_equal(full.t, curves.t)
    assert (full.mag != curves.mag).any()
