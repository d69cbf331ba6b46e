"""The radix sort, the extremes and the median against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightmill.pipeline.radix import extremes, median_of_positive, sort_into, workspace


def sort(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n = len(values)
    keys, first, counters = workspace(max(n, 1))
    ordered, order = np.empty(n), np.empty(n, np.int64)
    sort_into(values, ordered, order, keys, first, counters)
    return ordered, order


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), max_size=200))
def test_any_finite_values(numbers: list[float]) -> None:
    values = np.array(numbers, np.float64)
    ordered, order = sort(values)
    np.testing.assert_array_equal(ordered, np.sort(values))
    np.testing.assert_array_equal(values[order], ordered)


@pytest.mark.parametrize("n", [0, 1, 2, 15, 16, 17, 60, 160, 161, 300, 5000])
@pytest.mark.parametrize("kind", ["noise", "ties", "constant", "outlier", "ordered", "reversed"])
def test_is_stable(kind: str, n: int) -> None:
    """Equal values keep their order, also where an outlier squeezes all others into one key."""
    rng = np.random.default_rng(n)
    values = {
        "noise": rng.normal(18, 0.1, n),
        "ties": rng.integers(0, 7, n) * 0.1,
        "constant": np.full(n, 17.3),
        "outlier": np.where(np.arange(n) == n // 2, 1e9, rng.normal(18, 0.1, n)),
        "ordered": np.arange(n) * 1.0,
        "reversed": -np.arange(n) * 1.0,
    }[kind]
    ordered, order = sort(values)
    expected = np.argsort(values, kind="stable")
    np.testing.assert_array_equal(order, expected)
    np.testing.assert_array_equal(ordered, values[expected])


def test_reads_only() -> None:
    values = np.array([3.0, 1.0, 2.0] * 20)
    values.flags.writeable = False
    assert sort(values)[0].tolist() == sorted(values.tolist())


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=70))
def test_extremes(numbers: list[float]) -> None:
    assert extremes(np.array(numbers)) == (min(numbers), max(numbers))


positive = st.floats(0, exclude_min=True, allow_infinity=False, max_value=1e300)


@given(
    st.lists(positive, min_size=1, max_size=70)
    | st.lists(st.integers(1, 9).map(float), min_size=1, max_size=200)
)
def test_median_of_any_positive_values(numbers: list[float]) -> None:
    assert median_of_positive(np.array(numbers)) == np.median(numbers)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 31, 32, 33, 300, 301, 5000])
@pytest.mark.parametrize(
    "kind", ["noise", "hundredths", "constant", "half the same", "two values", "outlier"]
)
def test_median_of_errors(kind: str, n: int) -> None:
    """Equal to the last bit, also where many are equal, which no halving tells apart."""
    rng = np.random.default_rng(n)
    noise = rng.uniform(0.01, 0.08, n)
    values = {
        "noise": noise,
        "hundredths": np.round(noise, 2),
        "constant": np.full(n, 0.1),
        "half the same": np.where(np.arange(n) % 2, 0.03, noise),
        "two values": np.where(np.arange(n) % 2, 0.03, np.nextafter(0.03, 1)),
        "outlier": np.where(np.arange(n) == n // 2, 1e9, noise),
    }[kind]
    values.flags.writeable = False
    assert median_of_positive(values) == np.median(values)
