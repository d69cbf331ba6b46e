"""`pipeline/features.py`: each statistic against a slow oracle, and against `light-curve` where it has the same one."""

from __future__ import annotations

import math
from itertools import groupby

import light_curve
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from lightmill.pipeline.features import STATISTICS, index_of, statistics


def oracle(t, m, e) -> dict[str, float]:
    """The definitions of `STATISTICS`, each written out on its own."""
    n = len(m)
    mean = np.average(m, weights=e**-2.0)
    median, std = np.median(m), np.std(m, ddof=1)
    mad = np.median(np.abs(m - median))
    q = {p: np.quantile(m, p / 100) for p in (5, 10, 25, 40, 60, 75, 90, 95)}
    wide, err = q[95] - q[5], np.median(e)
    chi2 = np.sum(((m - mean) / e) ** 2) / (n - 1)
    delta = math.sqrt(n / (n - 1)) * (m - mean) / e
    dm, dt, sigma2 = np.diff(m), np.diff(t), e[1:] ** 2 + e[:-1] ** 2
    near = dt < 1
    products = (delta[1:] * delta[:-1])[near]
    squares = ((delta[1:] ** 2 + delta[:-1] ** 2) / 2)[near]
    steep = np.abs(dm) > 3 * np.sqrt(sigma2)
    line, covariance = np.polyfit(t, m, 1, w=1 / e, cov="unscaled")
    return {
        "n": n,
        "baseline": t.max() - t.min(),
        "mean": mean,
        "mean_minus_median": mean - median,
        "std": std,
        "mad": mad,
        "iqr": scipy.stats.iqr(m),
        "amplitude": wide / 2,
        "magerr_median": err,
        "mad_over_err": 1.4826 * mad / err,
        "iqr_over_err": scipy.stats.iqr(m) / 1.349 / err,
        "reduced_chi2": chi2,
        "excess_variance": (std**2 - np.mean(e**2)) / std**2,
        "eta": np.sum(dm**2) / ((n - 1) * std**2),
        "eta_weighted": np.sum(dm**2 / sigma2) / (n - 1) / chi2,
        "stetson_j": np.mean(np.sign(products) * np.sqrt(np.abs(products))) if near.any() else 0,
        "stetson_k": np.mean(np.abs(delta)) / np.sqrt(np.mean(delta**2)),
        "skew": scipy.stats.skew(m, bias=False),
        "kurtosis": scipy.stats.kurtosis(m, bias=False) if n > 3 else 0,
        "range_20": (q[60] - q[40]) / wide,
        "range_50": (q[75] - q[25]) / wide,
        "range_80": (q[90] - q[10]) / wide,
        "bright_skew": (median - q[5]) / wide,
        "max_slope": math.log10(1 + np.max(np.abs(dm / dt)[steep], initial=0)),
        "longest_run": max(len(list(run)) for _, run in groupby(m > mean)) / n,
        "trend_sigma": line[0] / math.sqrt(covariance[0, 0]),
        "outliers": np.mean(np.abs(m - median) > 5 * 1.4826 * mad),
        "outlier_size": np.max(np.abs(m - median)) / (1.4826 * mad) if mad else 0,
        "brighter_3sigma": np.mean(m - median < -3 * e),
        "fainter_3sigma": np.mean(m - median > 3 * e),
        "nightly": np.sum(products) / np.sum(squares) if near.any() else 0,
        "median": median,
        "inverse_eta": ((n - 1) * std**2) / np.sum(dm**2),
        "weighted_std_over_err": math.sqrt(np.cov(m, aweights=e**-2.0)) / err,
    }  # fmt: skip


def rtol(n: int) -> float:
    """Sums of n terms in another order: n ulps; (m − mean) loses m/std ≈ 1e4 of them, its fourth power 4 times."""
    return 1e-15 * max(n, 10) * 1e4 * 4


def curve(kind: str, n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    nights = np.sort(rng.choice(2000, n))
    t = np.sort(nights + rng.uniform(0, 0.3, n))
    e = rng.uniform(0.01, 0.1, n)
    m = 17 + e * rng.standard_normal(n)
    if kind == "wave":
        m += 0.5 * np.sin(2 * np.pi * t / 0.57)
    elif kind == "eclipses":
        m += np.where(t % 3.1 < 0.3, 1.2, 0.0)
    elif kind == "flares":
        m -= rng.exponential(0.3, n) * (rng.random(n) < 0.1)
    elif kind == "trend":
        m += t / 500
    elif kind == "bright":
        m -= 25
    return t - t[0], m, e


def batch(curves) -> list[np.ndarray]:
    columns = [np.concatenate([np.empty(0), *(c[i] for c in curves)]) for i in range(3)]
    columns.append(np.concatenate([[0], np.cumsum([len(c[0]) for c in curves])]).astype(np.int64))
    for array in columns:
        array.flags.writeable = False
    return columns


KINDS = ("noise", "wave", "eclipses", "flares", "trend", "bright")
CURVES = [curve(kind, n, seed) for seed, kind in enumerate(KINDS) for n in (3, 4, 5, 20, 21, 100, 1000)]


@pytest.fixture(scope="module")
def table() -> np.ndarray:
    return statistics(*batch(CURVES))


def test_one_column_a_name(table):
    assert table.shape == (len(CURVES), 34)
    assert table.dtype == np.float64
    assert len(set(STATISTICS)) == 34
    assert [index_of(name) for name in STATISTICS] == list(range(34))
    assert set(oracle(*CURVES[3])) == set(STATISTICS)


@pytest.mark.parametrize("name", STATISTICS)
def test_against_the_oracle(table, name):
    for row, one in zip(table, CURVES, strict=True):
        n = len(one[0])
        # what vanishes by symmetry is compared with the size of its parts, which is 1 (or 20 mag for the mean)
        np.testing.assert_allclose(
            row[index_of(name)], oracle(*one)[name], rtol=rtol(n), atol=1e-11, err_msg=f"n={n}"
        )


PEERS = {
    "n": light_curve.ObservationCount(),
    "baseline": light_curve.Duration(),
    "mean": light_curve.WeightedMean(),
    "median": light_curve.Median(),
    "std": light_curve.StandardDeviation(),
    "mad": light_curve.MedianAbsoluteDeviation(),
    "reduced_chi2": light_curve.ReducedChi2(),
    "eta": light_curve.Eta(),
    "stetson_k": light_curve.StetsonK(),
    "skew": light_curve.Skew(),
    "kurtosis": light_curve.Kurtosis(),
}


@pytest.mark.parametrize("name", PEERS)
def test_against_light_curve(table, name):
    for row, (t, m, e) in zip(table, CURVES, strict=True):
        if len(t) > 3:  # its kurtosis needs 4
            # it sums in one pass where we take two: (m/std)² ≈ 1e6 ulps
            np.testing.assert_allclose(row[index_of(name)], PEERS[name](t, m, e)[0], rtol=1e-9, atol=1e-9)


def test_trend_is_the_slope_of_light_curve_over_its_error(table):
    peer = light_curve.LinearFit()
    for row, (t, m, e) in zip(table, CURVES, strict=True):
        slope, error, _ = peer(t, m, e)
        np.testing.assert_allclose(row[index_of("trend_sigma")], slope / error, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "p"), [("iqr", 0.25), ("amplitude", 0.05)])
def test_quantiles_of_light_curve_are_other_ones_but_near(table, name, p):
    """It interpolates at (k + ½)/n, we as numpy at k/(n − 1): alike to a step between order statistics."""
    peer, half = light_curve.InterPercentileRange(p), 2 if name == "amplitude" else 1
    for row, (t, m, e) in zip(table, CURVES, strict=True):
        if len(t) >= 100:
            ordered = np.sort(m)
            k = int(p * len(m))
            step = max(np.diff(ordered[k - 2 : k + 2]).max(), np.diff(ordered[-k - 2 : len(m) - k + 2]).max())
            assert abs(row[index_of(name)] * half - peer(t, m, e)[0]) <= 2 * step


@pytest.mark.parametrize("n", [0, 1, 2])
def test_short_light_curves_have_n_baseline_and_mean(n):
    t, m, e = np.array([0.0, 2.5])[:n], np.array([15.0, 16.0])[:n], np.array([0.1, 0.1])[:n]
    row = statistics(*batch([(t, m, e)]))[0]
    assert row[:3].tolist() == pytest.approx([n, 2.5 if n == 2 else 0, [0, 15, 15.5][n]])
    assert not row[3:].any()


def test_no_light_curves():
    assert statistics(*batch([])).shape == (0, 34)


@pytest.mark.parametrize("value", [0.0, 16.1, -3.3, 17.123456789])
@pytest.mark.parametrize("n", [3, 7, 100, 1001])
def test_equal_magnitudes_have_no_variance(value, n):
    """Also where their mean is rounded to something else."""
    t, _, e = curve("noise", n, n)
    row = dict(zip(STATISTICS, statistics(*batch([(t, np.full(n, value), e)]))[0], strict=True))
    assert row["mean"] == row["median"] == value
    assert row["longest_run"] == 1
    zero = set(STATISTICS) - {"n", "baseline", "mean", "median", "magerr_median", "longest_run"}
    assert {name for name in zero if row[name] != 0} == set()


def test_all_epochs_in_one_night_and_none():
    _, m, e = curve("wave", 50, 1)
    row = statistics(*batch([(np.linspace(0, 0.4, 50), m, e), (np.arange(50.0), m, e)]))
    assert row[0, index_of("stetson_j")] != 0
    assert row[1, index_of("stetson_j")] == row[1, index_of("nightly")] == 0  # gaps of 1 d are not below 1 d


numbers = st.integers(3, 60).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 10**6), min_size=n, max_size=n, unique=True),
        # float32, as all magnitudes are stored: the fourth power of a difference is still a double
        st.lists(st.floats(-30, 40, width=32, allow_subnormal=False), min_size=n, max_size=n),
        st.lists(st.floats(1e-4, 10), min_size=n, max_size=n),
    )
)


def arrays(drawn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.sort(drawn[0]) / 500, np.array(drawn[1]), np.array(drawn[2])


# any finite float32, and errors of twelve decades; in float64, for its products
wild = st.integers(3, 60).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 10**6), min_size=n, max_size=n, unique=True),
        st.lists(
            st.floats(allow_nan=False, allow_infinity=False, width=32, allow_subnormal=False),
            min_size=n,
            max_size=n,
        ),
        st.lists(st.floats(1e-6, 1e6), min_size=n, max_size=n),
    )
)

# in 1024ths, so that differences and sums with whole numbers are exact
lattice = st.integers(3, 60).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 10**6), min_size=n, max_size=n, unique=True),
        st.lists(st.integers(-8192, 8192).map(lambda k: k / 1024), min_size=n, max_size=n),
        st.lists(st.floats(0.01, 1), min_size=n, max_size=n),
    )
)


@given(numbers)
def test_finite_and_within_their_ranges(drawn):
    row = statistics(*batch([arrays(drawn)]))[0]
    assert np.isfinite(row).all()
    found = dict(zip(STATISTICS, row, strict=True))
    for name in ("outliers", "brighter_3sigma", "fainter_3sigma", "longest_run"):
        assert 0 <= found[name] <= 1
    for name in ("range_20", "range_50", "range_80", "bright_skew", "stetson_k"):
        assert -1e-9 <= found[name] <= 1 + 1e-9
    assert found["range_20"] <= found["range_50"] + 1e-9 <= found["range_80"] + 2e-9
    assert -1 - 1e-9 <= found["nightly"] <= 1 + 1e-9
    assert min(drawn[1]) <= found["mean"] <= max(drawn[1])


@given(wild)
def test_finite_whatever_the_magnitudes(drawn):
    assert np.isfinite(statistics(*batch([arrays(drawn)]))).all()


@pytest.mark.parametrize("n", [3, 4, 20, 300])
@pytest.mark.parametrize("outlier", [1e3, -1e3, 1e6, -1e30])
@pytest.mark.parametrize("scatter", [0.0, 0.02])
def test_finite_with_a_huge_outlier(n, outlier, scatter):
    t, _, e = curve("noise", n, n)
    m = np.random.default_rng(n).normal(17, scatter, n)
    m[n // 2] += outlier
    row = dict(zip(STATISTICS, statistics(*batch([(t, m, e)]))[0], strict=True))
    assert np.isfinite(list(row.values())).all()
    if n > 4 and scatter:
        assert row["outliers"] == 1 / n
        assert row["outlier_size"] > 1e4


@given(numbers, numbers)
def test_a_batch_is_its_light_curves(one, two):
    one, two = arrays(one), arrays(two)
    together = statistics(*batch([one, two, one]))
    alone = np.concatenate([statistics(*batch([c])) for c in (one, two)])
    np.testing.assert_array_equal(together[:2], alone)
    np.testing.assert_array_equal(together[2], alone[0])


@given(st.lists(numbers, min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_order_of_light_curves(drawn, random):
    curves = [arrays(one) for one in drawn]
    order = random.sample(range(len(curves)), len(curves))
    shuffled = statistics(*batch([curves[k] for k in order]))
    np.testing.assert_array_equal(shuffled, statistics(*batch(curves))[order])


@pytest.mark.parametrize("n", [3, 16, 60, 161, 300])
def test_where_in_memory_does_not_matter(n):
    """To the last bit: vector lanes begin elsewhere, the sums stay the same."""
    one = curve("wave", n, n)
    expected = statistics(*batch([one]))
    for places in ((1, 2, 3), (8, 5, 0), (4, 4, 4)):
        buffers = [np.full(n + 16, np.nan) for _ in one]
        moved = [buffer[k : k + n] for buffer, k in zip(buffers, places, strict=True)]
        for values, view in zip(one, moved, strict=True):
            view[:] = values
        np.testing.assert_array_equal(statistics(*moved, np.array([0, n])), expected)


@pytest.mark.parametrize("dtype", [np.float32, ">f4", ">f8", np.float16])
def test_any_width_is_the_same_numbers_cast(dtype):
    columns = [values.astype(dtype) for values in batch(CURVES)[:3]]
    offsets = batch(CURVES)[3]
    cast = [values.astype(np.float64) for values in columns]
    np.testing.assert_array_equal(statistics(*columns, offsets.astype(np.int32)), statistics(*cast, offsets))


BY_LEVEL = {"mean", "median"}
IN_MAG = {"mean", "median", "mean_minus_median", "std", "mad", "iqr", "amplitude", "magerr_median"}


@given(lattice, st.integers(-30, 30))
def test_a_constant_shifts_mean_and_median_only(drawn, constant):
    t, m, e = arrays(drawn)
    one, two = (
        dict(zip(STATISTICS, row, strict=True))
        for row in statistics(*batch([(t, m, e), (t, m + constant, e)]))
    )
    # what lies on the mean may fall to either of its sides
    for name in set(STATISTICS) - {"longest_run"}:
        expected = one[name] + constant * (name in BY_LEVEL)
        # residuals of up to 10³ are known to 10⁻¹² then, and J takes the root of the product of two
        assert two[name] == pytest.approx(expected, rel=1e-7, abs=1e-4 if name == "stetson_j" else 1e-7), name


@given(numbers, st.sampled_from([0.25, 2.0, 1024.0]))
def test_another_unit_of_magnitude(drawn, factor):
    """A power of two scales every step exactly."""
    t, m, e = arrays(drawn)
    one, two = statistics(*batch([(t, m, e), (t, m * factor, e * factor)]))
    for k, name in enumerate(STATISTICS):
        if name == "max_slope":
            assert 10 ** two[k] - 1 == pytest.approx((10 ** one[k] - 1) * factor)
        else:
            assert two[k] == one[k] * (factor if name in IN_MAG else 1), name


@given(numbers)
def test_inverse_of_eta(drawn):
    found = dict(zip(STATISTICS, statistics(*batch([arrays(drawn)]))[0], strict=True))
    assert found["eta"] * found["inverse_eta"] == pytest.approx(1 if found["std"] > 0 else 0)
    assert found["mean"] - found["median"] == found["mean_minus_median"]


def test_brighter_is_the_mirror_of_fainter():
    t, m, e = curve("eclipses", 200, 3)
    one, two = (
        dict(zip(STATISTICS, row, strict=True)) for row in statistics(*batch([(t, m, e), (t, -m, e)]))
    )
    assert one["brighter_3sigma"] == two["fainter_3sigma"]
    assert one["bright_skew"] == pytest.approx(1 - two["bright_skew"])
    for name in ("skew", "mean_minus_median", "mean", "trend_sigma"):
        assert one[name] == pytest.approx(-two[name])
    for name in ("std", "mad", "eta", "stetson_j", "stetson_k", "kurtosis", "max_slope", "nightly"):
        assert one[name] == pytest.approx(two[name])


def test_views_and_slices(table):
    t, m, e, offsets = batch(CURVES)
    wide = np.stack([t, m, e], axis=1)
    wide.flags.writeable = False
    np.testing.assert_array_equal(statistics(wide[:, 0], wide[:, 1], wide[:, 2], offsets), table)
    backwards = [values[::-1].copy()[::-1] for values in (t, m, e)]
    np.testing.assert_array_equal(statistics(*backwards, offsets), table)
    np.testing.assert_array_equal(statistics(t, m, e, offsets[5:9]), table[5:8])


def test_what_is_read_is_not_changed():
    columns = [np.array(values) for values in batch(CURVES)]
    before = [values.copy() for values in columns]
    statistics(*columns)
    for values, copy in zip(columns, before, strict=True):
        np.testing.assert_array_equal(values, copy)


def test_what_is_refused():
    t, m, e, offsets = batch(CURVES[:2])
    a, b = (int(x) for x in offsets[1:])
    for arguments, message in (
        ((t, m[:-1], e, offsets), f"mag has {len(m) - 1} epochs, t has {len(t)}"),
        ((t, m, e[:-1], offsets), f"magerr has {len(e) - 1} epochs, t has {len(t)}"),
        ((t, m, e, offsets + 1), f"offsets must lie in 0…{len(t)}"),
        ((t, m, e, np.array([0, b, a])), f"offsets must not decrease, got {b} before {a}"),
        ((t, m, e, np.array([], np.int64)), "offsets must be a vector of n \\+ 1 integers"),
        ((t, m, e, offsets.astype(float)), "offsets must be a vector of n \\+ 1 integers"),
        ((t[:, None], m, e, offsets), "t must be a vector"),
        ((-t, m, e, offsets), "t must not decrease within a light curve, got .*: use `clean` first"),
        ((t, m * np.nan, e, offsets), "mag must be finite, got nan at 0: use `clean` first"),
        ((t, m, 0 * e, offsets), "magerr must be finite and positive, got 0.0 at 0: use `clean` first"),
    ):
        with pytest.raises(ValueError, match=message):
            statistics(*arguments)
