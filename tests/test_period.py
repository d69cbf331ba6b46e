"""Period search against direct sums and least squares, on light curves made here."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import betaincc
from scipy.stats import beta

from lightmill.pipeline import period_fit
from lightmill.pipeline.period import FITTED, HARMONICS, POLISHED, search
from lightmill.pipeline.period_plan import FEWEST

TIMES = {
    "nights": lambda rng, n: rng.integers(0, 900, n) + rng.uniform(0.2, 0.55, n),
    "sidereal": lambda rng, n: 0.9972695663 * (rng.integers(0, 900, n) + rng.uniform(0.9, 1.2, n)),
    "all hours": lambda rng, n: rng.uniform(0, 900, n),
    "one night": lambda rng, n: rng.uniform(0, 0.4, n),
    "one season": lambda rng, n: rng.uniform(0, 60, n),
    "a century": lambda rng, n: rng.integers(0, 36500, n) + rng.uniform(0.1, 0.4, n),
    "whole days": lambda rng, n: rng.permutation(2000)[:n].astype(float),
}


def star(times: str, n: int, frequency: float, seed: int = 0, noise: float = 0.02, overtone: float = 0.0):
    """A sine of 0.3 mag with an overtone, at n times; t from the first, mag, magerr."""
    rng = np.random.default_rng(seed)
    t = np.sort(TIMES[times](rng, n))
    t -= t[0]
    phase = 2 * np.pi * (frequency * t + rng.uniform())
    magerr = noise * rng.uniform(0.5, 2, n)
    mag = 16 + 0.3 * np.sin(phase) + overtone * np.sin(2 * phase) + magerr * rng.standard_normal(n)
    return t, mag, magerr


def batch(*stars):
    t, mag, magerr = (np.concatenate(arrays) for arrays in zip(*stars, strict=True))
    return t, mag, magerr, np.concatenate([[0], np.cumsum([len(s[0]) for s in stars])])


def weighed(mag, magerr):
    """What the search makes of magnitudes and errors: outliers drawn in, a tenth of the range added to the errors."""
    k = int(0.05 * (len(mag) - 1))
    bright, faint = np.sort(mag)[[k, -1 - k]]
    spread = faint - bright
    return np.clip(mag, bright - 0.3 * spread, faint + 1.0 * spread), np.hypot(magerr, 0.1 * spread)


def direct_power(t, mag, magerr, frequency):
    """Lomb-Scargle's power by its definition, mean removed: the weighted R² of a lone sine as Σ w y exp(…) gives it."""
    mag, magerr = weighed(mag, magerr)
    w = magerr**-2 / (magerr**-2).sum()
    y = mag - (w * mag).sum()
    turns = np.multiply.outer(frequency, t - (t[0] + t[-1]) / 2)
    angle = 2 * np.pi * (turns - np.rint(turns))
    return 2 * ((np.cos(angle) @ (w * y)) ** 2 + (np.sin(angle) @ (w * y)) ** 2) / (w * y * y).sum()


def explained_by_least_squares(t, mag, magerr, frequency, harmonics):
    """Weighted R² of a constant and harmonics, by `numpy.linalg.lstsq`."""
    mag, magerr = weighed(mag, magerr)
    angle = 2 * np.pi * frequency * (t - t.mean())
    columns = [np.ones_like(t)]
    for h in range(1, harmonics + 1):
        columns += [np.cos(h * angle), np.sin(h * angle)]
    design = np.stack(columns, 1) / magerr[:, None]
    rest = [
        ((mag / magerr - design[:, :k] @ np.linalg.lstsq(design[:, :k], mag / magerr)[0]) ** 2).sum()
        for k in (1, len(columns))
    ]
    return 1 - rest[1] / rest[0]


@pytest.mark.parametrize("times", [name for name in TIMES if name not in ("one night", "whole days")])
@pytest.mark.parametrize("frequency", [0.0713, 0.731, 3.317, 11.93, 24.71])
def test_a_sine_is_found(times, frequency):
    t, mag, magerr = star(times, 200, frequency)
    found = search(*batch((t, mag, magerr)))
    assert found.frequency[0] == pytest.approx(frequency, abs=0.02 / t[-1])
    assert found.score[0, 0] > 20
    assert found.candidates[0, 0] == found.frequency[0]


def test_a_sine_is_found_in_one_night():
    t, mag, magerr = star("one night", 200, 11.93, noise=0.005)
    # whole cycles a day more cannot be told apart where there is one night: there is nothing to alias with either
    assert search(*batch((t, mag, magerr))).frequency[0] == pytest.approx(11.93, abs=0.02 / t[-1])


def test_times_of_whole_days_are_searched_up_to_half_a_cycle_a_day_and_their_aliases():
    t, mag, magerr = star("whole days", 200, 0.1234)
    found = search(*batch((t, mag, magerr))).frequency[0]
    assert (found + 0.5) % 1 - 0.5 == pytest.approx(np.copysign(0.1234, (found + 0.5) % 1 - 0.5), abs=1e-4)


@pytest.mark.parametrize("times", TIMES)
def test_the_highest_peaks_of_the_power_spectrum_are_candidates(times):
    t, mag, magerr = star(times, 60, 4.37, noise=0.3)
    found = search(*batch((t, mag, magerr)))
    grid = (
        np.arange(1 / t[-1], 25, 0.05 / t[-1]) if times != "a century" else 4.37 + np.arange(-400, 401) * 1e-6
    )
    # two of 20 peaks or more are as high to the gridding's error, 1e-3: the highest is among those that are judged
    assert np.nanmax(found.power[0]) >= 0.998 * direct_power(t, mag, magerr, grid).max()
    # the power told is the peak's: that of the candidate, or of twice its frequency; those that were moved to where
    # several harmonics fit best are at its foot. Its last step is told by Taylor's second order, not by a new sum
    rest = found.candidates[0, POLISHED:][np.isfinite(found.candidates[0, POLISHED:])]
    here = np.stack([direct_power(t, mag, magerr, k * rest) for k in (1, 2)])
    assert np.abs(here - found.power[0, POLISHED : POLISHED + len(rest)]).min(0).max(initial=0) < 2e-3


def related(frequency: np.ndarray, lowest: float, highest: float = 25.0) -> np.ndarray:
    """Doubles and day aliases of frequencies [1/d] that are within the limits."""
    relatives = np.concatenate([2 * frequency, frequency + 1, np.abs(frequency - 1)])
    return relatives[(relatives >= lowest) & (relatives <= highest)]


@pytest.mark.parametrize("frequency", [0.0713, 0.41, 0.731, 1.0012, 3.317, 12.93, 24.71])
@pytest.mark.parametrize("times", ["nights", "sidereal", "all hours"])
def test_half_double_and_day_aliases_of_the_highest_peak_are_candidates(times, frequency):
    """One peak is asked for: what else is listed is related to it, and nothing beyond what was asked."""
    t, mag, magerr = star(times, 200, frequency, overtone=0.1)
    found = search(*batch((t, mag, magerr)), candidates=1)
    listed = found.candidates[0][np.isfinite(found.candidates[0])]
    bases = np.append(frequency, related(np.array([frequency]), 1 / t[-1]))
    expected = np.concatenate([bases, bases / 2])
    expected = expected[expected >= 1 / t[-1]]
    # moved to where each fits best
    distance = np.abs(listed[:, None] - expected) * t[-1]
    assert (distance.min(axis=0) < 1).all()
    assert (distance.min(axis=1) < 1).all()
    assert len(listed) <= len(expected)


def test_relatives_of_the_three_highest_peaks_are_candidates():
    """Three sines at all hours, where nothing else is as high; of a fourth, lower one no relatives are."""
    rng = np.random.default_rng(0)
    t = np.sort(rng.uniform(0, 900, 400))
    t -= t[0]
    frequency, amplitude = np.array([1.37, 4.21, 7.83, 2.93]), np.array([0.3, 0.28, 0.26, 0.2])
    mag = 16 + (amplitude * np.sin(2 * np.pi * frequency * t[:, None])).sum(axis=1)
    found = search(*batch((t, mag + 0.01 * rng.standard_normal(400), np.full(400, 0.01))), candidates=4)

    def listed(frequency):
        return np.nanmin(np.abs(found.candidates[0] - frequency[:, None]), axis=1) < 1 / t[-1]

    assert listed(frequency).all()
    assert listed(related(frequency[:3], 1 / t[-1])).all()
    assert not listed(related(frequency[3:], 1 / t[-1])).any()


def test_a_relative_near_a_peak_is_that_peak():
    """In one night a cycle a day more or less is not told apart: there are the peak, its double and its half."""
    t, mag, magerr = star("one night", 200, 11.93, noise=0.005)
    listed = search(*batch((t, mag, magerr)), candidates=1).candidates[0]
    listed = np.sort(listed[np.isfinite(listed)])
    assert len(listed) == 3
    assert (np.abs(listed - 11.93 * np.array([0.5, 1, 2])) * t[-1] < 1).all()


def test_few_frequencies_are_listed_twice():
    """Two of the first may have merged where they fit best: in one star of thirty, not in every tenth."""
    stars = [star("nights", 150, 0.3 + 0.137 * k, seed=k, overtone=0.1) for k in range(60)]
    found = search(*batch(*stars)).candidates[:, :POLISHED]
    apart = np.diff(np.sort(found, axis=1), axis=1).min(axis=1) * [t[-1] for t, *_ in stars]
    assert (apart < 0.19).sum() <= 2


def test_an_alias_just_within_the_limits_is_a_candidate():
    """Where the power rises towards lower frequencies, which are not asked for."""
    for k in range(40):
        t, mag, magerr = star("nights", 150, 1.0005 + 1.2 / 890, seed=k)
        found = search(*batch((t, mag, magerr)), candidates=1)
        alias = found.candidates[0, np.nanargmax(found.power[0])] - 1
        assert alias < 1 / t[-1] or np.nanmin(np.abs(found.candidates[0] - alias)) * t[-1] < 1


def test_an_alias_of_the_highest_peak_may_be_the_period():
    """A saw tooth at few epochs: the highest peak is often a day off, and the harmonics of its alias tell."""
    stars = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        t = np.sort(rng.integers(0, 400, 40) + rng.uniform(0.3, 0.5, 40))
        t -= t[0]
        stars.append((t, 16 + 0.8 * (1.731 * t % 1) + 0.02 * rng.standard_normal(40), np.full(40, 0.02)))
    found = search(*batch(*stars), candidates=1)
    highest = found.candidates[np.arange(60), np.nanargmax(found.power, axis=1)]
    peaks, periods = (np.abs(f - 1.731) < 1e-3 for f in (highest, found.frequency))
    assert 20 < peaks.sum() < 50
    assert (periods & ~peaks).sum() > 2 * (peaks & ~periods).sum()
    assert periods.sum() > peaks.sum() + 5


@pytest.mark.parametrize("n", [FEWEST, 25, 64, 300, 1000])
def test_what_harmonics_explain_is_that_of_least_squares(n):
    t, mag, magerr = star("nights", n, 1.87, overtone=0.15)
    found = search(*batch((t, mag, magerr)))
    for c in range(0, found.rank.shape[1], 7):
        if not np.isfinite(found.candidates[0, c]):
            continue
        for h in (1, 2, HARMONICS):
            if 2 * h + 1 > n - 10:
                continue
            # the ridge costs more where few epochs leave phases uncovered; it never adds
            least = explained_by_least_squares(t, mag, magerr, found.candidates[0, c], h)
            assert least - (1e-3 if n > 50 else 1e-2) < found.explained[0, c, h - 1] < least + 2e-5


def test_the_wave_is_that_of_least_squares():
    t, mag, magerr = star("nights", 300, 1.87, overtone=0.15)
    found = search(*batch((t, mag, magerr)))
    clipped, soft = weighed(mag, magerr)
    angle = 2 * np.pi * found.frequency[0] * (t - (t[0] + t[-1]) / 2)
    columns = [np.ones_like(t)] + [f(h * angle) for h in range(1, FITTED + 1) for f in (np.cos, np.sin)]
    expected = np.linalg.lstsq(np.stack(columns, 1) / soft[:, None], clipped / soft)[0][1:]
    np.testing.assert_allclose(found.wave[0, 0], expected, atol=1e-4)
    amplitudes = np.hypot(*found.wave[0, 0].reshape(FITTED, 2).T)
    np.testing.assert_allclose(amplitudes, [0.3, 0.15, 0, 0], atol=0.01)


def test_an_outlier_does_not_hide_a_period():
    t, mag, magerr = star("nights", 100, 1.87, noise=0.03)
    mag[[20, 70]] += [-6.0, 5.0]
    magerr[[20, 70]] = 1e-4
    assert search(*batch((t, mag, magerr))).frequency[0] == pytest.approx(1.87, abs=0.1 / t[-1])


def test_refined_beyond_the_grid():
    """The error of a frequency is (√6/π) σ / (A T √n) (Montgomery & O'Donoghue 1999): far below the grid's step."""
    stars = [star("nights", 400, 3.1 + 0.0123 * k, seed=k, noise=0.01) for k in range(40)]
    found = search(*batch(*stars)).frequency
    error = (found - 3.1 - 0.0123 * np.arange(40)) * 900
    expected = np.sqrt(6) / np.pi * 0.01 / 0.3 / np.sqrt(400)
    assert np.sqrt((error**2).mean()) < 2 * expected
    assert np.abs(error).max() < 6 * expected


def test_an_eclipsing_binary_has_half_the_frequency_of_its_highest_peak():
    rng = np.random.default_rng(3)
    t = np.sort(rng.integers(0, 1500, 400) + rng.uniform(0.2, 0.5, 400))
    phase = (t - t[0]) * 0.31741 % 1
    eclipses = 0.6 * np.exp(-0.5 * ((phase - 0.25) / 0.03) ** 2) + 0.3 * np.exp(
        -0.5 * ((phase - 0.75) / 0.03) ** 2
    )
    mag = 15 + eclipses + 0.01 * rng.standard_normal(400)
    found = search(*batch((t - t[0], mag, np.full(400, 0.01))))
    assert found.frequency[0] == pytest.approx(0.31741, rel=1e-4)


def test_score_is_a_false_alarm_probability_of_noise():
    """Shuffled noise: the chance of a score above s must be at most 10^−s, and not far below it."""
    rng = np.random.default_rng(5)
    stars = [
        (t, rng.standard_normal(len(t)), np.ones(len(t)))
        for t, *_ in (star("nights", 120, 1, k) for k in range(1500))
    ]
    score = search(*batch(*stars), fmax=10.0).score[:, 0]
    assert np.isfinite(score).all()
    assert (score >= 0).all()
    assert (score > 1).mean() < 0.1
    assert (score > 2).mean() < 0.012
    assert (score > 1).mean() > 0.005


@given(st.integers(1, HARMONICS), st.integers(20, 400), st.floats(0.001, 0.9))
def test_the_tail_of_one_frequency_is_that_of_the_beta_distribution(h, n, r):
    explained = np.zeros(HARMONICS)
    explained[h - 1] = r
    free = (n - 2 * h - 1) / 2
    z = -free * np.log1p(-r)
    expected = -np.log10(
        np.maximum(betaincc(h, free, r), 1e-300) * 1e3 * h * HARMONICS * np.sqrt(max(z, 1.0))
    )
    if betaincc(h, free, r) > 1e-290:
        assert period_fit.significance(explained, n, 1e3) == pytest.approx(max(expected, 0.0), abs=1e-6)


def test_beta_is_the_distribution_of_what_noise_explains():
    rng = np.random.default_rng(0)
    t = np.sort(rng.uniform(0, 10, 40))
    r = [explained_by_least_squares(t, rng.standard_normal(40), np.ones(40), 0.77, 2) for _ in range(2000)]
    for q in (0.1, 0.5, 0.9):
        assert np.quantile(r, q) == pytest.approx(beta(2, (40 - 5) / 2).ppf(q), rel=0.08)


@pytest.fixture(scope="module")
def mixed():
    """Light curves of all kinds and lengths, one of them without any variance, one empty, one too short."""
    stars = [star(name, 30 + 17 * k, 0.3 + k, seed=k) for k, name in enumerate(TIMES) for _ in range(2)]
    t, mag, magerr = star("nights", 50, 1.0)
    stars += [
        (t, np.full(50, 15.25), magerr),
        tuple(np.empty(0) for _ in range(3)),
        (t[:5], mag[:5], magerr[:5]),
    ]
    return stars


def test_what_cannot_be_searched_is_nan(mixed):
    found = search(*batch(*mixed))
    assert np.isnan(found.frequency[-3:]).all()
    assert np.isnan(found.score[-3:]).all()
    assert np.isfinite(found.frequency[:-3]).all()
    assert np.isfinite(found.score[:-3, 0]).all()
    assert not (np.diff(found.rank[:-3], axis=1) > 0).any()


@pytest.mark.parametrize("power", [-200, -30, -20, -16, -14, 14, 15, 17, 20, 21, 22, 31, 38, 60, 154, 200])
def test_numbers_that_float32_cannot_square_are_found_right_or_not_at_all(power):
    t, mag, magerr = star("nights", 200, 1.25)
    y = 10.0**power * (mag - mag.mean())
    for error in (10.0**power * magerr, magerr):
        found = search(*batch((t, y, error)))
        searched = np.isfinite(found.frequency[0])
        for column in ("candidates", "rank", "score", "power", "explained", "wave"):
            values = getattr(found, column)[0]
            assert np.isfinite(values[0]).all() if searched else np.isnan(values).all()
        if error is not magerr:
            assert searched or not -14 <= power <= 14
            assert not searched or found.frequency[0] == pytest.approx(1.25, abs=0.02 / t[-1])


def test_neighbours_in_the_batch_change_nothing(mixed):
    whole = search(*batch(*mixed))
    for order in (np.arange(len(mixed))[::-1], np.random.default_rng(0).permutation(len(mixed))):
        again = search(*batch(*[mixed[i] for i in order]))
        for name in ("candidates", "rank", "score", "explained", "power", "wave"):
            np.testing.assert_array_equal(getattr(again, name), getattr(whole, name)[order])
    alone = search(*batch(mixed[3]))
    np.testing.assert_array_equal(alone.candidates[0], whole.candidates[3])


def test_views_and_widths(mixed):
    t, mag, magerr, offsets = batch(*mixed)
    whole = search(t, mag.astype(np.float32).astype(np.float64), magerr, offsets)
    for array in (t, mag, magerr, offsets):
        array.flags.writeable = False
    twice = np.repeat(t, 2)[::2]
    again = search(twice, mag.astype(np.float32), magerr, offsets.astype(np.int32))
    np.testing.assert_array_equal(again.candidates, whole.candidates)
    shifted = search(
        np.append(-1.0, t), np.append(0, mag.astype(np.float32)), np.append(1, magerr), offsets + 1
    )
    np.testing.assert_array_equal(shifted.candidates, whole.candidates)


@given(st.floats(-30, 30), st.floats(0.1, 10), st.integers(0, 5))
def test_a_shift_or_a_scale_of_the_magnitudes_changes_no_period(shift, scale, seed):
    t, mag, magerr = star("nights", 60, 2.2, seed=seed, noise=0.1)
    here = search(*batch((t, mag, magerr), (t, scale * mag + shift, scale * magerr)))
    assert here.frequency[1] == pytest.approx(here.frequency[0], abs=1e-3 / t[-1])
    assert here.score[1, 0] == pytest.approx(here.score[0, 0], rel=1e-3)


def test_a_baseline_that_no_grid_can_hold_is_not_searched():
    t, mag, magerr = star("nights", 60, 2.2)
    far = t.copy()
    far[-1] = 1e12
    found = search(*batch((far, mag, magerr), (t, mag, magerr)))
    assert np.isnan(found.frequency[0])
    assert found.frequency[1] == pytest.approx(2.2, abs=1e-3)


def test_times_may_count_from_anywhere():
    stars = [star("nights", 60 + k, 2.2, seed=k) for k in range(3)]
    here = search(*batch(*stars))
    there = search(*batch(*[(t + 58123.4, mag, magerr) for t, mag, magerr in stars]))
    np.testing.assert_allclose(there.frequency, here.frequency, rtol=1e-7)
    before = search(*batch(*[(t - 1e4, mag, magerr) for t, mag, magerr in stars]))
    np.testing.assert_allclose(before.frequency, here.frequency, rtol=1e-7)


@pytest.mark.parametrize("hours", [0.9, 1.5, 3.0, 10.0, 100.0])
def test_no_candidate_outside_of_what_was_asked(hours):
    """Nor below one cycle over the baseline, wherever fits of noise would climb to."""
    rng = np.random.default_rng(int(10 * hours))
    n, curves = 40, 300
    t = np.sort(rng.uniform(0, hours / 24, (curves, n)), axis=1)
    found = search(t.ravel(), rng.normal(15, 0.02, t.size), np.full(t.size, 0.02), np.arange(curves + 1) * n)
    lowest = 1 / np.ptp(t, axis=1)[:, None]
    listed = np.isfinite(found.candidates)
    assert listed.any() == (hours > 1.0)  # in less than an hour there is no whole cycle of 25 a day
    assert (found.candidates <= 25)[listed].all()
    assert (found.candidates >= lowest * (1 - 1e-12))[listed].all()


def test_equal_times_are_no_baseline():
    assert np.isnan(search(np.full(20, 3.0), np.arange(20.0), np.ones(20), np.array([0, 20])).frequency).all()


@pytest.mark.parametrize(
    ("name", "at", "value", "message"),
    [
        (
            "t",
            7,
            -1.0,
            r"t must not decrease within a light curve, got .* before -1\.0 at 6: use `clean` first",
        ),
        ("t", 7, np.nan, r"t must be finite, got nan at 7"),
        ("mag", 100, np.inf, r"mag must be finite, got inf at 100"),
        ("magerr", 3, 0.0, r"magerr must be finite and positive, got 0\.0 at 3"),
        ("magerr", 119, np.nan, r"magerr must be finite and positive, got nan at 119"),
    ],
)
def test_what_clean_would_not_have_left_is_refused(name, at, value, message):
    t, mag, magerr, offsets = batch(star("nights", 60, 2.2), star("nights", 60, 1.2))
    arrays = {"t": t, "mag": mag, "magerr": magerr}
    arrays[name][at] = value
    with pytest.raises(ValueError, match=message):
        search(**arrays, offsets=offsets)


def test_what_the_offsets_leave_out_may_be_anything():
    t, mag, magerr = star("nights", 60, 2.2)
    around = [np.concatenate([[np.nan], x, [np.nan, -1.0]]) for x in (t, mag, magerr)]
    np.testing.assert_array_equal(
        search(*around, np.array([1, 1, 61])).candidates[1], search(*batch((t, mag, magerr))).candidates[0]
    )


def test_an_unknown_device():
    with pytest.raises(ValueError, match="device must be cpu or cuda, got 'gpu'"):
        search(*batch(star("nights", 60, 2.2)), device="gpu")


def test_an_empty_batch():
    found = search(np.empty(0), np.empty(0), np.empty(0), np.array([0]))
    assert found.frequency.shape == (0,)
    most = 2 * period_fit.with_relatives(30)
    assert found.candidates.shape == (0, most)
    assert found.explained.shape == (0, most, HARMONICS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mag": np.zeros(3)}, r"mag has 3 epochs, t has 60"),
        ({"offsets": np.array([0, 60, 30])}, r"offsets must not decrease, got 60 before 30 at 1"),
        ({"offsets": np.array([0, 61])}, r"offsets must lie in 0…60"),
        ({"fmin": 0.0}, r"0 < fmin < fmax.*got fmin 0\.0"),
        ({"fmax": float("nan")}, r"got fmin 0\.0005, fmax nan"),
        ({"fmin": 30.0}, r"got fmin 30\.0, fmax 25\.0"),
        ({"oversampling": 0.5}, r"oversampling 0\.5"),
        ({"candidates": 0}, r"candidates 0"),
        ({"candidates": 1.5}, r"candidates must be a whole number, got 1\.5"),
        ({"candidates": True}, r"candidates must be a whole number, got True"),
    ],
)
def test_bad_arguments_are_named_with_their_values(change, message):
    t, mag, magerr = star("nights", 60, 2.2)
    arguments = {"t": t, "mag": mag, "magerr": magerr, "offsets": np.array([0, 60])} | change
    with pytest.raises(ValueError, match=message):
        search(**arguments)
