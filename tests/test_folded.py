"""`pipeline/folded.py`: the kernel against plain NumPy, one light curve at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightmill.models import architectures
from lightmill.pipeline.folded import BINS, CHANNELS, SCALARS, folded

SUMS = 2e-6  #: float32 of float64 means of a few hundred values of at most 6


def by_hand(
    t: np.ndarray, mag: np.ndarray, magerr: np.ndarray, frequency: float
) -> tuple[np.ndarray, np.ndarray]:
    """One light curve, as the module's docstring says."""
    if len(t) == 0 or not np.isfinite(frequency) or frequency <= 0:
        return np.zeros((64, 6)), np.zeros(4)
    weight = 1 / (np.maximum(magerr, 0.01) ** 2 + 0.02**2)
    mean = np.average(mag, weights=weight)
    scatter = np.sqrt(np.average((mag - mean) ** 2, weights=weight)) + 1e-3
    z = np.clip((mag - mean) / scatter, -6, 6)
    channels = []
    for f in (frequency, 0.5 * frequency):
        cell = np.floor((f * t % 1.0) * 64).astype(int)
        inside = [z[cell == k] for k in range(64)]
        channels.append([one.mean() if len(one) else 0.0 for one in inside])
        channels.append([one.std() if len(one) else 0.0 for one in inside])
        channels.append([len(one) / (len(one) + 2) for one in inside])
    scalars = np.log10([1 / frequency, scatter, magerr.mean() / scatter, len(t) / 300])
    return np.array(channels).T, scalars


def batch(n: int, seed: int = 1, most: int = 200) -> tuple[np.ndarray, ...]:
    """n light curves with outliers: t, mag, magerr, offsets, frequency."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, most, n)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    total, frequency = int(offsets[-1]), 10 ** rng.uniform(-2.5, 1.3, n)
    t = np.concatenate([np.sort(rng.uniform(0, 900, k)) for k in lengths])
    mag = 16 + 0.4 * np.sin(2 * np.pi * np.repeat(frequency, lengths) * t) + rng.normal(0, 0.05, total)
    mag[rng.random(total) < 0.02] += 9
    return t, mag, rng.uniform(0.001, 0.2, total), offsets, frequency


def frozen(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    for one in arrays:
        one.flags.writeable = False
    return arrays


def test_each_light_curve_by_hand():
    t, mag, magerr, offsets, frequency = frozen(*batch(40))
    curves, scalars = folded(t, mag, magerr, offsets, frequency)
    assert curves.shape == (40, BINS, len(CHANNELS)) == (40, 64, 6)
    assert scalars.shape == (40, len(SCALARS)) == (40, 4)
    assert curves.dtype == scalars.dtype == np.float32
    for i in range(40):
        own = slice(*offsets[i : i + 2])
        expected = by_hand(t[own], mag[own], magerr[own], frequency[i])
        np.testing.assert_allclose(curves[i], expected[0], atol=SUMS, err_msg=str(i))
        np.testing.assert_allclose(scalars[i], expected[1], rtol=1e-6, atol=1e-6)


def test_an_outlier_is_clipped():
    t, rng = np.arange(300.0), np.random.default_rng(2)
    mag, error = 16 + rng.normal(0, 0.05, 300), np.full(300, 0.05)
    mag[7] = 30.0
    curves, _ = folded(t, mag, error, np.array([0, 300]), np.array([1 / 300.5]))
    # one bin holds 4 or 5 epochs, one of them at the clip
    assert curves[0, 1, 0] == pytest.approx(6 / 5, abs=0.1) or curves[0, 1, 0] == pytest.approx(
        6 / 4, abs=0.1
    )
    assert np.abs(curves[0, :, 0]).max() <= 6


def test_empty_bins_are_nought():
    # three epochs: phases 0, 0.5 and 0.75 of one period
    curves, _ = folded(
        np.array([0.0, 0.5, 0.75]), np.array([15.0, 16, 17]), np.full(3, 0.1), np.array([0, 3]), np.array([1.0])
    )  # fmt: skip
    assert np.flatnonzero(curves[0, :, 2]).tolist() == [0, 32, 48]
    assert np.flatnonzero(curves[0, :, 5]).tolist() == [0, 16, 24]  # at the double
    np.testing.assert_allclose(curves[0, [0, 32, 48], 2], 1 / 3)
    others = np.delete(curves[0], [0, 16, 24, 32, 48], axis=0)
    assert (others == 0).all()
    assert curves[0, 0, 0] < 0 < curves[0, 48, 0]


@pytest.mark.parametrize("none", [np.nan, 0.0, -1.0])
def test_no_period_no_fold(none: float):
    t, mag, magerr, offsets, frequency = batch(3)
    with_all = folded(t, mag, magerr, offsets, frequency)
    frequency[1] = none
    curves, scalars = folded(t, mag, magerr, offsets, frequency)
    assert (curves[1] == 0).all()
    assert (scalars[1] == 0).all()
    for found, expected in zip((curves, scalars), with_all, strict=True):
        np.testing.assert_array_equal(found[[0, 2]], expected[[0, 2]])


def test_empty_light_curves_and_batches():
    t, mag, magerr, offsets, frequency = batch(2)
    curves, scalars = folded(t, mag, magerr, offsets[[0, 1, 1, 2]], frequency[[0, 0, 1]])
    assert (curves[1] == 0).all()
    assert (scalars[1] == 0).all()
    assert curves[2].any()
    none = np.empty(0)
    curves, scalars = folded(none, none, none, np.array([0]), none)
    assert (curves.shape, scalars.shape) == ((0, 64, 6), (0, 4))


def test_the_form_of_the_input_changes_nothing():
    t, mag, magerr, offsets, frequency = batch(12)
    mag = mag.astype(np.float32).astype(np.float64)
    expected = folded(t, mag, magerr, offsets, frequency)
    twice = [np.repeat(x, 2)[::2] for x in (t, mag, magerr)]  # views with a stride
    for form in (
        (t, mag.astype(np.float32), magerr, offsets, frequency),
        (*twice, offsets.astype(np.int32), frequency),
        frozen(*(x.copy() for x in (t, mag, magerr, offsets, frequency))),
    ):
        for found, one in zip(folded(*form), expected, strict=True):
            np.testing.assert_array_equal(found, one)


def test_offsets_may_begin_anywhere():
    t, mag, magerr, offsets, frequency = batch(9)
    whole = folded(t, mag, magerr, offsets, frequency)
    some = folded(t, mag, magerr, offsets[3:8], frequency[3:7])
    for one, all_of_it in zip(some, whole, strict=True):
        np.testing.assert_array_equal(one, all_of_it[3:7])


@given(st.integers(1, 12), st.integers(0, 2**32 - 1), st.data())
def test_nothing_depends_on_the_neighbours(n: int, seed: int, data: st.DataObject):
    t, mag, magerr, offsets, frequency = batch(n, seed, most=40)
    order = np.array(data.draw(st.permutations(range(n))))
    pieces = [slice(*offsets[i : i + 2]) for i in order]
    turned = [np.concatenate([x[piece] for piece in pieces]) for x in (t, mag, magerr)]
    cuts = np.concatenate([[0], np.cumsum(np.diff(offsets)[order])])
    for found, one in zip(folded(*turned, cuts, frequency[order]),
                          folded(t, mag, magerr, offsets, frequency), strict=True):  # fmt: skip
        np.testing.assert_array_equal(found, one[order])


@given(st.integers(1, 80), st.floats(1e-3, 50), st.integers(0, 2**32 - 1))
def test_every_epoch_is_in_one_bin_at_each_period(n: int, frequency: float, seed: int):
    rng = np.random.default_rng(seed)
    t, mag, magerr = np.sort(rng.uniform(0, 2000, n)), rng.normal(16, 1, n), rng.uniform(0.01, 0.3, n)
    curves, _ = folded(t, mag, magerr, np.array([0, n]), np.array([frequency]))
    z = np.clip((mag - np.average(mag, weights=1 / (magerr**2 + 4e-4))), -np.inf, np.inf)
    for k in (0, 3):
        filled = curves[0, :, k + 2].astype(np.float64)
        count = 2 * filled / (1 - filled)
        assert count.sum() == pytest.approx(n, abs=1e-3)
        # the bins' sums are the light curve's, up to the scatter that it was divided by
        if n > 1 and (np.abs(z) < 5 * z.std()).all():
            scatter = np.sqrt(np.average(z**2, weights=1 / (magerr**2 + 4e-4))) + 1e-3
            assert (count * curves[0, :, k]).sum() == pytest.approx(z.sum() / scatter, abs=1e-2)


def test_a_shift_in_magnitude_changes_nothing():
    t, mag, magerr, offsets, frequency = batch(6)
    for found, one in zip(folded(t, mag + 3, magerr, offsets, frequency),
                          folded(t, mag, magerr, offsets, frequency), strict=True):  # fmt: skip
        np.testing.assert_allclose(found, one, atol=SUMS)


def test_the_network_takes_what_is_folded():
    assert (
        BINS, len(CHANNELS), len(SCALARS),
    ) == (architectures.BINS, architectures.CHANNELS, architectures.SCALARS)  # fmt: skip


def test_wrong_lengths_are_named():
    t, mag, magerr, offsets, frequency = batch(3)
    with pytest.raises(ValueError, match=r"frequency has shape \(2,\), there are 3 light curves"):
        folded(t, mag, magerr, offsets, frequency[:2])
    with pytest.raises(ValueError, match=rf"mag has {len(t) - 1} epochs, t has {len(t)}"):
        folded(t, mag[:-1], magerr, offsets, frequency)
    with pytest.raises(ValueError, match="offsets must not decrease"):
        folded(t, mag, magerr, offsets[::-1], frequency)
    with pytest.raises(ValueError, match="offsets must lie in"):
        folded(t, mag, magerr, offsets + 1, frequency)
    with pytest.raises(ValueError, match="frequency must be finite, or NaN for no period, got inf at 0"):
        folded(t, mag, magerr, offsets, frequency * np.inf)
