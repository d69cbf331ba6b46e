"""`pipeline/ragged.py`: one form for every kernel's input, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightmill.pipeline.ragged import ragged

OFFSETS = np.array([0, 2, 5])
VALUES = np.arange(5.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, ">f8"])
@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint64, ">i4"])
def test_one_form_whatever_came(dtype, kind):
    offsets, t = ragged(OFFSETS.astype(kind), t=VALUES.astype(dtype))
    assert (offsets.dtype, t.dtype) == (np.dtype(np.int64), np.dtype(np.float64))
    assert offsets.dtype.isnative
    assert t.dtype.isnative
    assert offsets.flags.c_contiguous
    assert t.flags.c_contiguous
    assert not offsets.flags.writeable
    assert not t.flags.writeable
    assert t.tolist() == VALUES.tolist()


def test_what_has_that_form_already_is_not_copied_nor_frozen():
    offsets, values = OFFSETS.astype(np.int64), VALUES.copy()
    own_offsets, own = ragged(offsets, t=values)
    assert np.shares_memory(own, values)
    assert np.shares_memory(own_offsets, offsets)
    assert values.flags.writeable


@pytest.mark.parametrize("view", [slice(None, None, 2), slice(None, None, -1), slice(1, 6)])
def test_strided_views(view):
    base = np.arange(12.0)
    _, t = ragged(np.array([0, 3]), t=base[view])
    assert t.tolist() == base[view].tolist()


def test_vectors_in_the_order_given():
    offsets, b, a = ragged(OFFSETS, b=VALUES, a=VALUES + 1)
    assert (b[0], a[0]) == (0, 1)
    assert len(offsets) == 3


@given(st.lists(st.integers(0, 5), max_size=6), st.integers(0, 3), st.integers(0, 3))
def test_any_offsets_that_fit_are_taken(lengths, before, after):
    offsets = before + np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    found, _ = ragged(offsets, t=np.zeros(offsets[-1] + after))
    assert found.tolist() == offsets.tolist()


@pytest.mark.parametrize(
    ("offsets", "vectors", "message"),
    [
        (OFFSETS, {"t": np.zeros((5, 1))}, r"t must be a vector, got shape \(5, 1\)"),
        (OFFSETS, {"t": np.float64(1)}, r"t must be a vector, got shape \(\)"),
        (OFFSETS, {"t": VALUES, "mag": VALUES[:4]}, "mag has 4 epochs, t has 5"),
        (np.empty(0, int), {"t": VALUES}, r"n \+ 1 integers, got shape \(0,\)"),
        (OFFSETS[None], {"t": VALUES}, r"n \+ 1 integers, got shape \(1, 3\)"),
        (OFFSETS.astype(float), {"t": VALUES}, "n \\+ 1 integers.*float64"),
        (np.array([0, 4, 3]), {"t": VALUES}, "must not decrease, got 4 before 3 at 1"),
        (np.array([3, 1], np.uint64), {"t": VALUES}, "must not decrease, got 3 before 1 at 0"),
        (OFFSETS, {"t": VALUES, "mag": VALUES + 0j}, "mag must be real numbers, got dtype complex128"),
        (OFFSETS, {"t": np.array(["a"] * 5)}, "t must be real numbers, got dtype <U1"),
        (OFFSETS, {"t": VALUES.astype("M8[D]")}, r"t must be real numbers, got dtype datetime64\[D\]"),
        (
            OFFSETS,
            {"t": VALUES, "mag": np.ma.masked_equal(VALUES, 2)},
            "mag has 1 masked values of 5: leave them out",
        ),
        (np.array([-1, 3]), {"t": VALUES}, "must lie in 0…5, the length of t, got -1…3"),
        (np.array([0, 6]), {"t": VALUES}, "must lie in 0…5, the length of t, got 0…6"),
    ],
)
def test_what_is_refused(offsets, vectors, message):
    with pytest.raises(ValueError, match=message):
        ragged(offsets, **vectors)
