"""`pipeline/clean.py`: the good epochs and the reasons, against plain Python."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightmill.pipeline.clean import REASONS, Cleaned, clean

ACCEPTED, NO_EPOCHS, FLAGGED, BAD_VALUES, TOO_FEW = range(5)


def oracle(rows, bad_flags: int, min_epochs: int) -> tuple[dict[int, list], list[int], list[str]]:
    """Epochs kept of each accepted row, number of good epochs and reason of every row; the words, one by one."""
    kept, n_good, reasons = {}, [], []
    for at, epochs in enumerate(rows):
        unflagged = [e for e in epochs if not e[3] & bad_flags]
        valid = [e for e in unflagged if all(map(math.isfinite, e[:3])) and e[2] > 0]
        good: dict[float, tuple] = {}
        for epoch in sorted(valid, key=lambda e: e[0]):  # Python's sort is stable
            good.setdefault(epoch[0], epoch[:3])
        n_good.append(len(good))
        if len(good) >= min_epochs:
            reasons.append("accepted")
            kept[at] = list(good.values())
        elif not epochs:
            reasons.append("no_epochs")
        elif len(good) + len(epochs) - len(unflagged) >= min_epochs:
            reasons.append("flagged")
        elif len(good) + len(epochs) - len(valid) >= min_epochs:
            reasons.append("bad_values")
        else:
            reasons.append("too_few_epochs")
    return kept, n_good, reasons


def run(rows, **options) -> Cleaned:
    flat = [epoch for row in rows for epoch in row]
    columns = [np.array([e[i] for e in flat], float) for i in range(3)]
    flags = np.array([e[3] for e in flat], np.int32)
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    for array in (*columns, flags, offsets):
        array.flags.writeable = False
    return clean(*columns, flags, offsets, **options)


def check(rows, bad_flags: int, min_epochs: int) -> None:
    found = run(rows, bad_flags=bad_flags, min_epochs=min_epochs)
    kept, n_good, reasons = oracle(rows, bad_flags, min_epochs)
    assert [REASONS[code] for code in found.reason] == reasons
    assert found.n_good.tolist() == n_good
    assert found.accepted.tolist() == list(kept)
    assert len(found.offsets) == len(kept) + 1
    # rows in = accepted + rejected
    assert len(rows) == len(found.accepted) + np.count_nonzero(found.reason)
    for i, epochs in enumerate(kept.values()):
        a, b = found.offsets[i], found.offsets[i + 1]
        # the same float64 subtraction: equal to the bit
        assert found.t[a:b].tolist() == [e[0] - epochs[0][0] for e in epochs]
        assert found.mag[a:b].tolist() == [e[1] for e in epochs]
        assert found.magerr[a:b].tolist() == [e[2] for e in epochs]
    assert len(found.t) == len(found.mag) == len(found.magerr) == found.offsets[-1]


number = st.one_of(
    st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0, -1.0]), st.floats(-100, 100, width=32)
)
epoch = st.tuples(
    st.one_of(st.integers(0, 4).map(float), number),  # whole days: many at the same time
    number,
    st.one_of(st.just(0.1), number),
    st.sampled_from([0, 0, 0, 1, 32768, 32769, 64]),
)


@settings(max_examples=200)
@given(
    st.lists(st.lists(epoch, max_size=8), max_size=5),
    st.sampled_from([0, 1, 32768, 65535]),
    st.integers(1, 5),
)
def test_as_plain_python_does_it(rows, bad_flags, min_epochs):
    check(rows, bad_flags, min_epochs)


@given(st.data())
def test_the_order_of_the_epochs_does_not_matter_where_times_differ(data):
    times = data.draw(st.lists(st.floats(0, 1000), unique=True, min_size=3, max_size=12))
    row = [(t, float(i), 0.1 + i, 0) for i, t in enumerate(times)]
    shuffled = data.draw(st.permutations(row))
    one, two = run([row], min_epochs=3), run([shuffled], min_epochs=3)
    for name in ("t", "mag", "magerr"):
        assert getattr(one, name).tolist() == getattr(two, name).tolist()


GOOD = [(float(i), 15.0, 0.1, 0) for i in range(4)]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (GOOD, ACCEPTED),
        ([], NO_EPOCHS),
        (GOOD[:3], TOO_FEW),
        ([*GOOD[:3], (3.0, 15.0, 0.1, 32768)], FLAGGED),
        ([*GOOD[:3], (3.0, math.nan, 0.1, 0)], BAD_VALUES),
        ([*GOOD[:3], (3.0, 15.0, math.inf, 0)], BAD_VALUES),
        ([*GOOD[:3], (3.0, 15.0, 0.0, 0)], BAD_VALUES),
        ([*GOOD[:3], (3.0, 15.0, -0.1, 0)], BAD_VALUES),
        ([*GOOD[:3], (math.nan, 15.0, 0.1, 0)], BAD_VALUES),
        # one time twice: short to begin with
        ([*GOOD[:3], (2.0, 16.0, 0.1, 0)], TOO_FEW),
        # flagged and not a number: without the flag it would still be one too few
        ([*GOOD[:2], (3.0, math.nan, 0.1, 0), (4.0, 15.0, 0.1, 32768)], BAD_VALUES),
        # another bit than the one that disqualifies
        ([*GOOD[:3], (3.0, 15.0, 0.1, 1)], ACCEPTED),
    ],
)
def test_reasons(row, reason):
    assert run([row], min_epochs=4).reason.tolist() == [reason]


def test_the_first_of_several_at_one_time_stays():
    found = run(
        [[(1.0, 1.0, 0.1, 0), (0.0, 2.0, 0.1, 0), (1.0, 3.0, 0.1, 0), (2.0, 4.0, 0.1, 0)]], min_epochs=3
    )
    assert found.mag.tolist() == [2.0, 1.0, 4.0]


def test_times_count_from_the_first_good_epoch():
    row = [(58000.0, math.nan, 0.1, 0), *((58001.25 + t, m, e, f) for t, m, e, f in GOOD)]
    assert run([row], min_epochs=4).t.tolist() == [0.0, 1.0, 2.0, 3.0]


def test_float32_columns_and_no_flags():
    t = np.arange(58000, 58030, dtype=np.float32)
    found = clean(t, t, np.full(30, 0.1, np.float32), np.empty(0, np.int32), np.array([0, 30], np.int32))
    assert found.t.dtype == np.float64
    assert found.n_good.tolist() == [30]


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.int32, np.int64, np.uint8])
def test_the_flag_bit_whatever_the_width_of_the_flags(dtype):
    """IRSA's bulk files have u2, where 32768 is the top bit, its HATS files i4."""
    flags = np.zeros(30, dtype)
    if dtype is not np.uint8:
        flags[:5] = np.array(32768).astype(dtype)
    t = np.arange(30.0)
    found = clean(t, t, t + 1, flags, np.array([0, 30]))
    assert found.n_good.tolist() == [30 if dtype is np.uint8 else 25]


def test_a_slice_of_a_batch():
    """Offsets need not start at 0 nor end with the arrays."""
    t = np.arange(100.0)
    found = clean(t, t, t + 1, np.zeros(100, np.int32), np.array([20, 50, 90]), min_epochs=35)
    assert found.accepted.tolist() == [1]
    assert found.mag.tolist() == list(range(50, 90))


def test_no_light_curves():
    found = clean(*(np.empty(0),) * 3, np.empty(0, np.int32), np.array([0]))
    assert len(found.accepted) == len(found.reason) == len(found.t) == 0
    assert found.offsets.tolist() == [0]


def test_what_is_refused():
    t, offsets = np.arange(5.0), np.array([0, 5])
    with pytest.raises(ValueError, match="flags has 4 epochs, t has 5: as many, or none"):
        clean(t, t, t, np.zeros(4, int), offsets)
    with pytest.raises(ValueError, match="magerr has 4 epochs, t has 5"):
        clean(t, t, t[:4], np.empty(0, int), offsets)
    with pytest.raises(ValueError, match="must lie in 0…5"):
        clean(t, t, t, np.empty(0, int), np.array([0, 6]))


def test_rejected_are_counted_by_reason():
    t, offsets = np.arange(60.0), np.array([0, 30, 30, 33, 60])
    flags = np.zeros(60, np.int64)
    flags[33:50] = 32768
    found = clean(t, t, np.ones(60), flags, offsets, min_epochs=20).rejected()
    assert found == {"no_epochs": 1, "flagged": 1, "too_few_epochs": 1}
