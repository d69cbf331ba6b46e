"""`pipeline/shape*.py`: columns against a slow oracle, known answers for stars that one can draw, robustness."""

from __future__ import annotations

import itertools

import light_curve
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from lightmill.pipeline.shape import BINS, BLOCKS, LAGS, SHAPE, shape
from lightmill.pipeline.shape_fit import RIDGE
from lightmill.pipeline.shape_second import SECOND, prewhitened, second_period

GRID = np.arange(128) / 128


def weights(e):
    return 1 / ((e / e.mean()) ** 2 + 0.25)


def terms(turns, orders):
    """The design matrix: 1, then the cosine and sine of each order."""
    waves = [wave(2 * np.pi * k * turns) for k in orders for wave in (np.cos, np.sin)]
    return np.stack([np.ones(len(turns)), *waves], axis=1)


def fit(turns, y, w, orders, unit):
    """Weighted least squares with the ridge as further rows, by `numpy.linalg.lstsq`: coefficients and the minimum."""
    ridge = [np.sqrt(RIDGE / 2 * w.sum()) * k / unit for k in orders for _ in range(2)]
    design = np.vstack([terms(turns, orders) * np.sqrt(w)[:, None], np.diag([0, *ridge])])
    data = np.concatenate([y * np.sqrt(w), np.zeros(1 + len(ridge))])
    coefficients = np.linalg.lstsq(design, data, rcond=None)[0]
    return coefficients, np.sum((design @ coefficients - data) ** 2)


def bins(phase, y, curve, faint):
    centre = np.interp((faint + np.arange(BINS) / BINS) % 1, GRID, curve)
    which = np.floor(phase * BINS)
    return [np.median(y[which == b]) if (which == b).any() else centre[b] for b in range(BINS)]


def scatters(phase, y):
    inside = [y[np.floor(phase * BINS) == b] for b in range(BINS)]
    return [np.subtract(*np.quantile(x, (0.75, 0.25))) / 1.349 if len(x) > 1 else 0 for x in inside]


def relative(coefficients, first, at, k):
    """Ratio, cosine and sine of the phase of the order k, whose cosine is at `at`, to the first."""
    (size, one), angles = (
        (np.hypot(coefficients[x], coefficients[x + 1]) for x in (at, first)),
        [np.arctan2(-coefficients[x + 1], coefficients[x]) for x in (at, first)],
    )
    return size / (one + size), np.cos(angles[0] - k * angles[1]), np.sin(angles[0] - k * angles[1])


def named(name, values):
    return dict(
        zip(
            (f"{name[0]}_ratio_{name[1]}1", f"{name[0]}_cos_{name[1]}1", f"{name[0]}_sin_{name[1]}1"),
            values,
            strict=True,
        )
    )


def opposite(curve):
    """The faintest value 0.3…0.7 after the faintest."""
    return np.roll(curve, -curve.argmax())[3 * 128 // 10 : 7 * 128 // 10 + 1].max()


def string(phase, y):
    around = y[np.argsort(phase, kind="stable")]
    return np.sum((around - np.roll(around, 1)) ** 2) / (2 * (len(y) - 1) * y.var(ddof=1))


def lags(t, y, low, high):
    """|Δm| of each epoch with the first one at least `low` later, if that is less than `high` later."""
    for i in range(len(t) - 1):
        later = np.flatnonzero((np.arange(len(t)) > i) & (t - t[i] >= low))
        if len(later) and t[later[0]] - t[i] < high:
            yield abs(y[later[0]] - y[i])


def oracle(t, m, e, f) -> dict[str, float]:
    """The definitions of `SHAPE`, each written out."""
    n, w, std, err = len(m), weights(e), m.std(ddof=1), e.mean()
    y = m - np.average(m, weights=w)
    turns = (0.5 * f * (t - t[0])) % 1  # of twice the period
    chi2 = np.sum(w * y**2)
    left = {k: fit(2 * turns, y, w, range(1, k + 1), 1)[1] for k in (1, 2, 4, 6)}
    even, odd = [2, 4, 6, 8, 10, 12], [1, 3, 5, 7]
    single = fit(2 * turns, y, w, range(1, 7), 1)[0]
    half, left_half = fit(4 * turns, y, w, (1, 2, 3), 1)
    double, left_double = fit(turns, y, w, even + odd, 2)
    a, b = single[1::2], single[2::2]
    size, angle = np.hypot(a, b), np.arctan2(-b, a)
    sigma = np.sqrt(left[6] / w.sum()) * np.sqrt(2 / n)
    curve, twice = terms(GRID, range(1, 7)) @ single - single[0], terms(GRID, even + odd) @ double - double[0]
    extent, span = np.ptp(curve), np.ptp(twice)
    faint = GRID[curve.argmax()]
    unit = (curve - curve.min()) / extent
    squares = double[1:] ** 2
    phase = (2 * turns - faint + 0.5 / BINS) % 1  # the first bin is centred on the faintest
    values = terms(2 * turns, range(1, 7)) @ single
    rest = y - values
    q1, q2, q3 = np.quantile(rest, (0.25, 0.5, 0.75))
    robust = (q3 - q1) / 1.349
    clipped, level = np.minimum(np.abs(rest) / robust, 6), (values - values.min()) / extent
    bright, dim = clipped[level < 0.25], clipped[level >= 0.75]
    pairs = [list(lags(t, y, low, high)) for low, high in itertools.pairwise(LAGS)]
    return {
        "log_period": -np.log10(f),
        **{f"explained_{k}": 1 - left[k] / chi2 for k in (1, 2, 4, 6)},
        "half_3": 1 - left_half / chi2,
        "half_amplitude_1": np.hypot(*half[1:3]),
        **named(("half", 2), relative(half, 1, 3, 2)),
        **named(("half", 3), relative(half, 1, 5, 3)),
        "odd_4": 1 - left_double / left[6],
        "fit_scatter": np.log10(1 + np.sqrt(left[6] / w.sum()) / err),
        "amplitude_1": size[0],
        "amplitude_noise": sigma / (sigma + size[0]),
        **{f"ratio_{k}1": size[k - 1] / (size[0] + size[k - 1]) for k in (2, 3, 4)},
        **{f"cos_{k}1": np.cos(angle[k - 1] - k * angle[0]) for k in (2, 3, 4)},
        **{f"sin_{k}1": np.sin(angle[k - 1] - k * angle[0]) for k in (2, 3, 4)},
        "extent": extent,
        "extent_over_std": extent / std,
        "rise": (GRID[curve.argmin()] - faint) % 1,
        "level": unit.mean(),
        "above_half": np.mean(unit > 0.5),
        "curve_skew": scipy.stats.skew(unit),
        "steepest": np.abs(unit - np.roll(unit, 1)).max() * 128,
        "second_depth": (curve.max() - opposite(curve)) / extent,
        "odd_even": np.sqrt(squares[12:].sum() / squares.sum()),
        "odd_1_even": np.hypot(*double[13:15]) / (np.hypot(*double[13:15]) + np.hypot(*double[1:3])),
        "depth_difference": (twice.max() - opposite(twice)) / span,
        "double_above_half": np.mean((twice - twice.min()) / span > 0.5),
        "double_amplitude_1": np.hypot(*double[13:15]),
        **dict(zip(("double_cos_21", "double_sin_21"), relative(double, 13, 1, 2)[1:], strict=True)),
        **named(("double", 3), relative(double, 13, 15, 3)),
        **{f"folded_scatter_{k}": value / std for k, value in enumerate(scatters(phase, y))},
        **{f"folded_{k}": value / std for k, value in enumerate(bins(phase, y, curve, faint))},
        "string_length": string(phase, y),
        "string_length_double": string(turns, y),
        "res_over_err": robust / err,
        "res_over_std": robust / std,
        "res_skew": np.mean(np.clip((rest - q2) / robust, -6, 6) ** 3),
        "res_auto": np.sum(rest[1:] * rest[:-1]) / np.sum((rest[1:] ** 2 + rest[:-1] ** 2) / 2),
        "res_bright": bright.mean() if len(bright) else 0,
        "res_faint": dim.mean() if len(dim) else 0,
        **{f"structure_{k}": np.mean(pair) / std if pair else 0 for k, pair in enumerate(pairs)},
    }


def rtol(n: int) -> float:
    """Phases f·t ≈ 1e4 turns lose 4 digits; the normal matrix (condition ≤ 1 / RIDGE) 3 more; m/std ≈ 1e3 3 more."""
    return 1e-16 * max(n, 10) * 1e4 * 1e3 * 1e3


# Mean curves, of phase from the faintest: bright is small
def sine(phase):
    return 0.4 * np.cos(2 * np.pi * phase)


def sawtooth(phase):
    """An RRab star: up in 0.15 of the period, down in the rest."""
    return np.where(phase < 0.15, 0.5 - phase / 0.15, (phase - 0.15) / 0.85 - 0.5)


def eclipses(phase):
    """At its own period; the two eclipses are of unequal depth."""
    near = np.minimum(phase, 1 - phase)
    return 0.8 * np.exp(-((near / 0.06) ** 2)) + 0.4 * np.exp(-(((phase - 0.5) / 0.06) ** 2))


CURVES = {"sine": sine, "sawtooth": sawtooth, "eclipses": eclipses, "constant": lambda phase: 0 * phase}


def star(kind: str, n: int, seed: int, period: float = 0.5371, noise: float = 1.0):
    rng = np.random.default_rng(seed)
    nights = np.sort(rng.choice(max(1500, n), n, replace=False))
    # dyadic times, so that a shift is exact
    t = np.round((nights + rng.uniform(0, 0.3, n)) * 4096) / 4096
    e = rng.uniform(0.01, 0.05, n)
    return t, 15 + CURVES[kind](t / period % 1) + noise * e * rng.standard_normal(n), e


def batch(curves) -> list[np.ndarray]:
    columns = [np.concatenate([np.empty(0), *(c[i] for c in curves)]) for i in range(3)]
    columns.append(np.concatenate([[0], np.cumsum([len(c[0]) for c in curves])]).astype(np.int64))
    for array in columns:
        array.flags.writeable = False
    return columns


def one(curve, frequency) -> dict[str, float]:
    return dict(zip(SHAPE, shape(*batch([curve]), np.array([frequency]))[0], strict=True))


KINDS = tuple(CURVES)
STARS = [
    star(kind, n, seed) for seed, kind in enumerate(KINDS) for n in (12, 21, 60, 300, 1000)
]  # 12 epochs: fewer than terms
FREQUENCIES = np.resize([1 / 0.5371, 2 / 0.5371, 0.913, 0.0171], len(STARS))


@pytest.fixture(scope="module")
def table() -> np.ndarray:
    return shape(*batch(STARS), FREQUENCIES)


@pytest.fixture(scope="module")
def oracles() -> list[dict[str, float]]:
    return [oracle(*curve, f) for curve, f in zip(STARS, FREQUENCIES, strict=True)]


def test_one_column_a_name(table, oracles):
    assert table.shape == (len(STARS), len(SHAPE))
    assert table.dtype == np.float64
    assert len(set(SHAPE)) == len(SHAPE) == sum(map(len, BLOCKS.values()))
    assert set(oracles[0]) == set(SHAPE)


@pytest.mark.parametrize("name", SHAPE)
def test_against_the_oracle(table, oracles, name):
    for row, expected, (t, *_) in zip(table, oracles, STARS, strict=True):
        value = row[SHAPE.index(name)]
        np.testing.assert_allclose(value, expected[name], rtol=rtol(len(t)), atol=1e-8, err_msg=f"n={len(t)}")


def test_string_length_is_that_of_light_curve(table):
    peer = light_curve.LaflerKinmanStringLength()
    for row, f, (t, m, _) in zip(table, FREQUENCIES, STARS, strict=True):
        order = np.argsort(f * (t - t[0]) % 1, kind="stable")
        # it sums in one pass: (m/std)² ≈ 1e5 ulps
        theirs = peer(np.arange(len(t), dtype=float), m[order])[0]
        np.testing.assert_allclose(row[SHAPE.index("string_length")], theirs, rtol=1e-8)


def test_a_sine_has_one_harmonic():
    found = one(star("sine", 400, 1, noise=0), 1 / 0.5371)
    assert found["amplitude_1"] == pytest.approx(0.4, rel=2 * RIDGE)
    assert found["explained_1"] == pytest.approx(1, abs=2 * RIDGE)
    # the ridge takes a thousandth of it, which other harmonics may try to mend
    for name in ("ratio_21", "ratio_31", "ratio_41", "odd_even", "half_3"):
        assert found[name] < 0.02, name
    for name, value in (("rise", 0.5), ("level", 0.5), ("above_half", 0.5)):
        assert found[name] == pytest.approx(value, abs=1 / 64)
    assert found["extent"] == pytest.approx(0.8, rel=0.01)
    assert found["curve_skew"] == pytest.approx(0, abs=0.02)


def test_noise_explains_nothing():
    found = one(star("constant", 500, 2), 1.234)
    assert found["explained_6"] < 0.1
    assert found["string_length"] == pytest.approx(1, abs=0.15)
    # errors of 0.01…0.05: most residuals are smaller than those of the mean error
    assert found["res_over_err"] == pytest.approx(0.85, abs=0.15)
    assert found["structure_6"] == pytest.approx(2 / np.sqrt(np.pi), abs=0.15)


@pytest.mark.parametrize("offset", [0.0, 0.21, 0.77])
def test_phases_of_a_sawtooth(offset):
    """Σ sin(2πkφ)/k, infinitely steep: φ_k − kφ₁ = −π/2 (1 − k), A_k = A₁ / k, whatever the zero of phase."""
    t = star("sine", 900, 3)[0]
    phase = 2 * np.pi * (t / 0.61 + offset)
    wave = sum(np.sin(k * phase) / k for k in range(1, 7))
    found = one((t, 17 + wave, np.full(len(t), 0.02)), 1 / 0.61)
    for k in (2, 3, 4):
        angle = (k - 1) * np.pi / 2
        assert found[f"cos_{k}1"] == pytest.approx(np.cos(angle), abs=0.05)
        assert found[f"sin_{k}1"] == pytest.approx(np.sin(angle), abs=0.05)
        assert found[f"ratio_{k}1"] == pytest.approx(1 / (1 + k), abs=0.02)


def test_an_rrab_rises_fast():
    found = one(star("sawtooth", 600, 4), 1 / 0.5371)
    # six harmonics round its corners off
    assert found["rise"] == pytest.approx(0.15, abs=0.07)
    assert found["steepest"] > 4
    assert found["depth_difference"] < 0.2


def test_eclipses_folded_at_half_the_period():
    at_half, at_own = (one(star("eclipses", 800, 5), k / 0.5371) for k in (2, 1))
    # 0.8 and 0.4 deep
    assert at_half["depth_difference"] == pytest.approx(0.5, abs=0.08)
    assert at_own["second_depth"] == pytest.approx(0.5, abs=0.08)
    assert at_half["odd_even"] > 0.3 > at_own["odd_even"]
    assert at_half["odd_4"] > 0.7
    assert at_half["string_length"] > 2 * at_half["string_length_double"]
    assert at_own["folded_0"] > at_own[f"folded_{BINS // 2}"] > at_own["folded_2"]
    assert at_own["curve_skew"] > 1


@pytest.mark.parametrize("frequency", [np.nan, 0.0, -1.0])
def test_no_period(frequency):
    curves = STARS[:3]
    found = shape(*batch(curves), np.array([2.0, frequency, 1.0]))
    assert np.isnan(found[1]).all()
    assert np.isfinite(found[[0, 2]]).all()


@pytest.mark.parametrize("n", [0, 1, 2])
def test_short_light_curves_have_a_period_only(n):
    t, m, e = (x[:n] for x in STARS[0])
    row = shape(*batch([(t, m, e)]), np.array([0.1]))[0]
    assert row[0] == 1
    assert not row[1:].any()


@pytest.mark.parametrize("value", [0.0, 16.1, -3.3])
@pytest.mark.parametrize("n", [3, 12, 101])
def test_equal_magnitudes(n, value):
    t, _, e = star("sine", n, n)
    row = shape(*batch([(t, np.full(n, value), e)]), np.array([0.7]))[0]
    assert not row[1:].any()
    assert not prewhitened(*batch([(t, np.full(n, value), e)]), np.array([0.7])).any()


def test_no_light_curves():
    none = batch([])
    assert shape(*none, np.empty(0)).shape == (0, len(SHAPE))
    assert prewhitened(*none, np.empty(0)).shape == (0,)
    assert second_period(*none, np.empty(0), np.empty(0)).shape == (0, len(SECOND))


@pytest.mark.parametrize("n", [10, 12, 20])
def test_all_epochs_at_one_phase(n):
    """One a night at the same time, folded at a day: nothing is known of the curve."""
    rng = np.random.default_rng(n)
    curve = np.arange(float(n)), 15 + 0.3 * rng.standard_normal(n), np.full(n, 0.02)
    found = one(curve, 1.0)
    assert np.isfinite(list(found.values())).all()
    assert found["explained_6"] == pytest.approx(0, abs=1e-12)
    assert found["extent"] == found["steepest"] == 0
    assert np.isfinite(prewhitened(*batch([curve]), np.array([1.0]))).all()


numbers = st.integers(3, 40).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 10**6), min_size=n, max_size=n, unique=True),
        st.lists(st.floats(-30, 40, width=32, allow_subnormal=False), min_size=n, max_size=n),
        st.lists(st.floats(1e-4, 10), min_size=n, max_size=n),
    )
)
rates = st.one_of(st.floats(1e-4, 50), st.sampled_from([0.5, 1.0, 2.0, 50.0]))


def arrays(drawn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.sort(drawn[0]) / 512, np.array(drawn[1]), np.array(drawn[2])


@given(numbers, rates, rates)
def test_finite_and_within_their_ranges(drawn, f, g):
    columns = batch([arrays(drawn)])
    row = shape(*columns, np.array([f]))[0]
    assert np.isfinite(row).all()
    found = dict(zip(SHAPE, row, strict=True))
    shares = [name for name in SHAPE if name.startswith(("explained", "odd", "ratio")) or "_ratio_" in name]
    for name in (*shares, "half_3", "rise", "level", "above_half", "amplitude_noise", "double_above_half"):
        assert -1e-9 <= found[name] <= 1 + 1e-9, name
    nested = [found[f"explained_{k}"] for k in (1, 2, 4, 6)]
    assert nested == sorted(nested)
    assert np.isfinite(second_period(*columns, np.array([f]), np.array([g]))).all()
    assert np.isfinite(prewhitened(*columns, np.array([f]), 6)).all()


@given(numbers, numbers, rates)
def test_a_batch_is_its_light_curves(first, second, f):
    first, second = arrays(first), arrays(second)
    f = np.array([f, 2.3, f])
    together = shape(*batch([first, second, first]), f)
    alone = np.concatenate([shape(*batch([c]), f[k : k + 1]) for k, c in enumerate((first, second))])
    np.testing.assert_array_equal(together[:2], alone)
    np.testing.assert_array_equal(together[2], alone[0])


@given(numbers, rates, st.integers(-(2**20), 2**20))
def test_a_shift_in_time_changes_nothing(drawn, f, days):
    t, m, e = arrays(drawn)
    found = [shape(*batch([(at, m, e)]), np.array([f])) for at in (t, t + days)]
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("kind", ["sawtooth", "eclipses", "constant"])
@pytest.mark.parametrize("by", [-7.25, 3.0])
def test_a_constant_added_to_magnitudes_changes_nothing(kind, by):
    t, m, e = star(kind, 200, 7)
    found = [shape(*batch([(t, mag, e)]), np.array([1.9])) for mag in (m, m + by)]
    np.testing.assert_allclose(*found, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["sawtooth", "eclipses", "constant"])
@pytest.mark.parametrize("by", [0.25, 8.0])
def test_magnitudes_and_errors_scaled(kind, by):
    """Only what is in magnitudes scales."""
    t, m, e = star(kind, 200, 8)
    before, after = one((t, m, e), 1.9), one((t, by * m, by * e), 1.9)
    for name in SHAPE:
        factor = by if name.endswith("amplitude_1") or name == "extent" else 1
        assert after[name] == pytest.approx(factor * before[name], rel=1e-9, abs=1e-9), name


def test_views_widths_and_slices(table):
    t, m, e, offsets = batch(STARS)
    wide = np.stack([t, m, e], axis=1)
    views = wide[:, 0], wide[:, 1], wide[:, 2]
    np.testing.assert_array_equal(shape(*views, offsets.astype(np.int32), FREQUENCIES), table)
    np.testing.assert_array_equal(shape(t, m, e, offsets[5:9], FREQUENCIES[5:8]), table[5:8])
    narrow, few = [x.astype(np.float32) for x in (t, m, e)], FREQUENCIES.astype(np.float32)
    again = [x.astype(np.float64) for x in narrow]
    np.testing.assert_array_equal(
        shape(*narrow, offsets, few), shape(*again, offsets, few.astype(np.float64))
    )


@pytest.mark.parametrize("harmonics", [1, 4, 6])
def test_prewhitened_against_the_oracle(harmonics):
    found = prewhitened(*batch(STARS), FREQUENCIES, harmonics)
    start = 0
    for (t, m, e), f in zip(STARS, FREQUENCIES, strict=True):
        w, turns, orders = weights(e), f * (t - t[0]) % 1, range(1, harmonics + 1)
        y = m - np.average(m, weights=w)
        expected = y - terms(turns, orders) @ fit(turns, y, w, orders, 1)[0]
        np.testing.assert_allclose(found[start : start + len(t)], expected, rtol=0, atol=rtol(len(t)))
        start += len(t)


def test_prewhitened_without_a_period_is_the_magnitude_less_its_mean():
    t, m, e, offsets = batch(STARS[3:5])
    found = prewhitened(t, m, e, offsets, np.array([np.nan, 0.0]))
    for a, b in itertools.pairwise(offsets):
        mean = np.average(m[a:b], weights=weights(e[a:b]))
        np.testing.assert_allclose(found[a:b], m[a:b] - mean, rtol=0, atol=1e-12)


def test_two_modes():
    """An RRd star: P₁/P₀ = 0.745; what is left after the first is the second, and after both it is noise."""
    t, _, e = star("sine", 400, 9)
    f, g = 1 / 0.4, 0.745 / 0.4
    m = 15 + 0.3 * np.cos(2 * np.pi * f * t) + 0.1 * np.sin(2 * np.pi * g * t)
    m = m + 0.3 * e * np.random.default_rng(1).standard_normal(400)
    columns = batch([(t, m, e)])
    rest = prewhitened(*columns, np.array([f]))
    assert rest.std() == pytest.approx(0.1 / np.sqrt(2), rel=0.1)
    row = second_period(*columns, np.array([f]), np.array([g]))[0]
    found = dict(zip(SECOND, row, strict=True))
    assert found["second_log_period"] == pytest.approx(-np.log10(g))
    assert found["second_ratio"] == pytest.approx(0.745)
    assert found["second_log_ratio"] == pytest.approx(-np.log10(0.745))
    assert found["second_explained_1"] > 0.95
    assert found["second_explained_1"] <= found["second_explained_2"] <= 1
    assert found["second_amplitude"] == pytest.approx(0.25, abs=0.02)
    assert found["second_beat"] == pytest.approx(np.log10((f - g) * np.ptp(t) + 0.01))
    assert found["second_day"] == pytest.approx(abs(g - round(g)))
    assert found["second_alias"] == pytest.approx(abs(g - f - round(g - f)))


def test_second_period_against_the_oracle():
    g = np.resize([1.3, 0.021, 7.7], len(STARS))
    table = second_period(*batch(STARS), FREQUENCIES, g)
    for (t, m, e), f, h, row in zip(STARS, FREQUENCIES, g, table, strict=True):
        w = weights(e)
        y = m - np.average(m, weights=w)
        turns, turns_two = f * (t - t[0]) % 1, h * (t - t[0]) % 1
        first, _ = fit(turns, y, w, range(1, 5), 1)
        rest = y - terms(turns, range(1, 5)) @ first
        # what is left has no mean of zero: the constant is fitted, and explains too
        left = np.sum(w * rest**2)
        found = dict(zip(SECOND, row, strict=True))
        for k in (1, 2):
            second, least = fit(turns_two, rest, w, range(1, k + 1), 1)
            assert found[f"second_explained_{k}"] == pytest.approx(1 - least / left, rel=1e-6, abs=1e-8)
            if k == 1:
                sizes = np.hypot(*first[1:3]), np.hypot(*second[1:3])
                assert found["second_amplitude"] == pytest.approx(sizes[1] / sum(sizes), rel=1e-6)


@pytest.mark.parametrize("pair", [(np.nan, 1.0), (1.0, np.nan), (0.0, 1.0), (1.0, -2.0)])
def test_without_a_second_period(pair):
    row = second_period(*batch(STARS[:1]), np.array(pair[:1]), np.array(pair[1:]))
    assert np.isnan(row).all()


def test_what_is_refused():
    t, m, e, offsets = batch(STARS[:2])
    f = np.array([1.0, 2.0])
    with pytest.raises(ValueError, match="magerr has"):
        shape(t, m, e[:-1], offsets, f)
    with pytest.raises(ValueError, match="offsets must lie in"):
        shape(t, m, e, offsets + 1, f)
    with pytest.raises(ValueError, match=r"frequency has shape \(3,\), there are 2 light curves"):
        shape(t, m, e, offsets, np.ones(3))
    with pytest.raises(ValueError, match="frequency must be finite, or NaN for no period, got inf at 1"):
        shape(t, m, e, offsets, np.array([1.0, np.inf]))
    with pytest.raises(ValueError, match="second must be finite"):
        second_period(t, m, e, offsets, f, np.array([-np.inf, 1.0]))
    with pytest.raises(ValueError, match=r"first has shape \(2, 1\)"):
        second_period(t, m, e, offsets, f[:, None], f)
    with pytest.raises(ValueError, match="harmonics must be at least 1, got 0"):
        prewhitened(t, m, e, offsets, f, 0)
