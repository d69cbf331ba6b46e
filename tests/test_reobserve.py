"""Re-observing: star models recover what was put in, and what is not the star stays the survey's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightmill.catalogs.lightcurves import LayoutError
from lightmill.pipeline.examples import Reobserved
from lightmill.pipeline.hosts import TRANSIENT_COLUMNS, Hosts, join, read_hosts
from lightmill.pipeline.recipe import load_recipe
from lightmill.pipeline.reobserve import (
    KNOT_SPACING,
    ErrorCurve,
    Observer,
    Star,
    fit_error_curve,
    fit_star,
    inject,
)

CURVE = ErrorCurve(np.array([14.0, 16.0, 18.0, 20.0]), np.log([0.02, 0.02, 0.05, 0.2]))


def some_hosts(
    n_stars: int = 30, n_cadences: int = 6, epochs: int = 80, seed: int = 1, limit: float = 21.0
) -> Hosts:
    """Constant stars of 15–19 mag with errors that follow the curve, and supernova-like light curves."""
    rng = np.random.default_rng(seed)
    parts = []
    for i in range(n_stars + n_cadences):
        t = np.sort(rng.uniform(0, 400, epochs))
        level = rng.uniform(15, 19)
        error = CURVE(np.full(epochs, level)) * rng.uniform(0.8, 1.3, epochs)
        flash = -2 * np.exp(-(((t - 200) / 20) ** 2)) if i >= n_stars else 0.0
        parts.append(
            Hosts(
                t, level + flash + error * rng.standard_normal(epochs), error, np.full(epochs, limit),
                np.array([0, epochs]), np.array([0]),
                np.array(["" if i < n_stars else "SN Ia"]), np.array([i >= n_stars]),
                np.array([float(i)]), np.array([-float(i)]), np.array([1 + i % 2]),
            )
        )  # fmt: skip
    return join(parts)


def a_star_like(t: np.ndarray, period: float) -> np.ndarray:
    phase = 2 * np.pi * t / period
    return 0.3 * np.sin(phase) + 0.1 * np.cos(2 * phase + 1)


@pytest.mark.parametrize("period", [0.31, 0.77, 12.3])
def test_a_harmonic_star_is_recovered(period: float):
    rng = np.random.default_rng(3)
    t = np.sort(rng.uniform(0, 2500, 300))
    t -= t[0]
    star = fit_star(t, 15 + a_star_like(t, period) + rng.normal(0, 0.03, 300), np.full(300, 0.03), period)
    later = np.linspace(0, 30, 500)
    # 5 coefficients from 300 epochs of 0.03 mag: an error of about 0.03 · √(5/300) = 0.004
    np.testing.assert_allclose(star.at(later), a_star_like(later, period), atol=0.02)
    assert len(star.harmonics) <= 4
    assert len(star.slow) == 0


def test_the_model_has_no_mean():
    star = Star(2.0, np.array([0.2 - 0.1j, 0.05j]), np.empty(0))
    assert star.at(np.arange(1000) / 2000).mean() == pytest.approx(0, abs=1e-12)


def test_phase_shifts_the_cycle():
    star, t = Star(0.5, np.array([0.3, 0.1j, 0.05]), np.empty(0)), np.linspace(0, 9, 50)
    np.testing.assert_allclose(star.at(t, phase=0.25), star.at(t + 0.5), atol=1e-12)


def test_a_slow_change_is_found_and_may_start_later():
    rng = np.random.default_rng(4)
    t = np.sort(rng.uniform(0, 2500, 400))
    slow = 0.3 * np.sin(2 * np.pi * t / 1500)
    star = fit_star(t, 15 + a_star_like(t, 5.0) + slow + rng.normal(0, 0.03, 400), np.full(400, 0.03), 5.0)
    assert len(star.slow) > 20
    knots = KNOT_SPACING * np.arange(len(star.slow) - 2)
    # the knots stand for a moment; what the series took of the slow term is small
    assert np.corrcoef(star.slow[:-2], np.sin(2 * np.pi * knots / 1500))[0, 1] > 0.97
    assert star.slack(1000.0) == pytest.approx(KNOT_SPACING * (len(star.slow) - 1) - 1000)
    assert star.slack(1e5) == 0


def test_a_series_does_not_run_away_where_there_are_no_data():
    rng = np.random.default_rng(5)
    t = np.sort(rng.uniform(0, 900, 80))
    t = t[(t % 365) < 150]  # a Mira with a period of a year is never seen in half of its phases
    mag = 15 + np.cos(2 * np.pi * t / 365) + rng.normal(0, 0.05, len(t))
    star = fit_star(t, mag, np.full(len(t), 0.05), 365.0)
    assert np.ptp(star.at(np.linspace(0, 365, 400))) < 1.5 * np.ptp(mag)


def test_a_star_needs_a_period():
    with pytest.raises(ValueError, match="period > 0 d to be re-observed, got nan"):
        fit_star(np.arange(30.0), np.ones(30), np.ones(30), np.nan)


def test_the_error_curve_follows_the_errors():
    rng = np.random.default_rng(6)
    mag = rng.uniform(14, 20, 50_000)
    curve = fit_error_curve(mag, CURVE(mag) * rng.lognormal(0, 0.1, len(mag)))
    at = np.linspace(14.5, 19.5, 40)
    np.testing.assert_allclose(curve(at), CURVE(at), rtol=0.06)
    # beyond the last star the errors go on to grow, in front of the first they stay
    assert curve(np.array([21.0])) == pytest.approx(CURVE(np.array([21.0])), rel=0.1)
    assert curve(np.array([10.0])) == pytest.approx(0.02, rel=0.06)


def test_a_curve_of_one_magnitude_grows_as_sky_noise_does():
    curve = fit_error_curve(np.full(40, 18.03), np.full(40, 0.05))
    assert curve(np.array([17.0, 18.0])) == pytest.approx([0.05, 0.05])
    assert curve(np.array([20.0]))[0] > 0.1


DEEP = np.full(50, 30.0)


@given(st.integers(0, 2**32 - 1), st.floats(-0.5, 0.5))
def test_injection_keeps_residuals_in_units_of_the_true_error(seed: int, constant: float):
    rng = np.random.default_rng(seed)
    mag, error = 17 + rng.normal(0, 0.1, 50), rng.uniform(0.02, 0.05, 50)
    change = constant + 0.3 * np.sin(np.arange(50))
    new, _, seen = inject(mag, error, change, DEEP, CURVE)
    level = np.median(mag)
    np.testing.assert_allclose(
        (new - level - change) / CURVE(level + change), (mag - level) / CURVE(level), atol=1e-9
    )
    assert seen.all()


@given(st.integers(0, 2**32 - 1))
def test_told_errors_follow_the_measured_magnitude_as_the_host_s_do(seed: int):
    rng = np.random.default_rng(seed)
    mag, quality = 17 + rng.normal(0, 0.1, 50), rng.uniform(0.8, 1.3, 50)
    new, error, _ = inject(mag, quality * CURVE(mag), 0.3 * np.sin(np.arange(50)), DEEP, CURVE)
    np.testing.assert_allclose(error, quality * CURVE(new), rtol=1e-9)


def test_no_change_changes_nothing():
    mag, error = np.array([17.0, 17.1, 16.9]), np.array([0.03, 0.04, 0.05])
    new, new_error, seen = inject(mag, error, np.zeros(3), mag, CURVE)
    np.testing.assert_allclose(new, mag)
    np.testing.assert_allclose(new_error, error)
    assert seen.all()


def test_epochs_below_the_limit_are_lost():
    limit = np.array([19.0, 21.0, 19.0])
    for change, expected in (([0.0, 3.0, -3.0], [True, False, True]), ([0.1, 1.9, 0.0], [False, True, True])):
        _, _, seen = inject(np.full(3, 19.0), np.full(3, 0.1), np.array(change), limit, CURVE)
        assert seen.tolist() == expected


def test_a_host_star_stays_as_it_is():
    hosts, rng = some_hosts(), np.random.default_rng(0)
    observer = Observer(hosts, np.arange(len(hosts)), CURVE, min_epochs=20)
    t, mag, error, limit = observer.observe(3, np.arange(80), rng)
    own = hosts.one(3)
    np.testing.assert_array_equal(t, own[0] - own[0][0])
    np.testing.assert_array_equal(mag, own[1])
    np.testing.assert_array_equal(error, own[2])
    np.testing.assert_array_equal(limit, hosts.limits(3))


def test_a_cadence_gets_a_constant_star():
    hosts, rng = some_hosts(), np.random.default_rng(0)
    observer = Observer(hosts, np.arange(len(hosts)), CURVE, min_epochs=20)
    host = 32
    for _ in range(20):
        t, mag, error, _ = observer.observe(host, np.arange(80), rng, level=17.0)
        np.testing.assert_array_equal(t, hosts.one(host)[0] - hosts.one(host)[0][0])
        assert np.median(mag) == pytest.approx(17.0, abs=0.05)
        # the flash of two magnitudes is gone: residuals are as large as errors
        assert np.mean(((mag - 17.0) / error) ** 2) < 3
        # errors are those of the made magnitudes, with each epoch's quality
        _, own, own_error = hosts.one(host)
        np.testing.assert_allclose(error / CURVE(mag), np.clip(own_error / CURVE(own), 0.5, 3.0))
        drawn = (mag - 17.0) / (error / CURVE(mag))
        assert (np.diff(np.sort(drawn)) > 1e-9).all()  # from 80 residuals with replacement, but no two alike


def test_a_faint_star_is_seen_on_the_deep_epochs_of_a_cadence_only():
    hosts, rng = some_hosts(), np.random.default_rng(0)
    host, rows = 32, np.arange(80)
    hosts.limit[hosts.offsets[host] : hosts.offsets[host + 1]] = np.where(rows % 2, 16.0, 19.0)
    observer = Observer(hosts, np.arange(len(hosts)), CURVE, min_epochs=20)
    t, mag, _, limit = observer.observe(host, rows, rng, level=17.5)
    own = hosts.one(host)[0]
    np.testing.assert_array_equal(t, own[::2] - own[0])
    assert (mag <= limit).all()
    # on none of them, it is no less constant
    assert len(observer.observe(host, rows, rng, level=20.5)[0]) == 80


def test_only_allowed_hosts_are_used():
    hosts, rng = some_hosts(), np.random.default_rng(0)
    allowed = np.array([1, 2, 5, 31, 33])
    observer = Observer(hosts, allowed, CURVE, min_epochs=20)
    assert {observer.draw_host(rng) for _ in range(200)} == set(allowed.tolist())
    with pytest.raises(ValueError, match="none of 1 hosts is a constant star"):
        Observer(hosts, np.array([31]), CURVE, min_epochs=20)


def test_thinning_leaves_enough_epochs():
    hosts, rng = some_hosts(), np.random.default_rng(0)
    observer = Observer(hosts, np.arange(len(hosts)), CURVE, min_epochs=20)
    rows = [observer.thin(0, rng) for _ in range(200)]
    assert min(map(len, rows)) >= 20
    assert all((np.diff(r) > 0).all() for r in rows)
    assert 0.3 < np.mean([len(r) == 80 for r in rows]) < 0.7


def test_pairs_share_host_epochs_and_errors():
    hosts = some_hosts()
    star = Star(1 / 0.6, np.array([0.4 + 0j]), np.empty(0))
    examples = Reobserved([star] * 10, np.array([30, 31]), hosts, CURVE, 20)
    drawn = examples.draw(np.arange(12), np.arange(len(hosts)), seed=1)
    n, n_constant = np.diff(drawn.variable.offsets), np.diff(drawn.constant.offsets)
    assert (n <= n_constant).all()
    assert (n >= 20).all()
    for i in range(10):
        assert drawn.amplitude[i] == pytest.approx(0.4, rel=0.4)
    variable, constant = drawn.variable.statistics(), drawn.constant.statistics()
    assert (variable[:, 4] > 1.5 * constant[:, 4]).mean() > 0.9  # standard deviation
    # what the change adds to χ² is what the light curves' χ² have more; the products with the noise make 10 % of it
    chi2 = [table[:, 11] * (table[:, 0] - 1) for table in (variable, constant)]
    added = drawn.excess * np.sqrt(2 * n)
    assert np.median((chi2[0] - chi2[1])[:10] / added[:10]) == pytest.approx(1, abs=0.15)
    assert (drawn.excess[:10] > 10).all()
    # and the host is told: the epochs are some of its own
    assert drawn.host[10:].tolist() == [30, 31]
    for i, host in enumerate(drawn.host):
        own, seen = hosts.one(host)[0], drawn.constant.t[slice(*drawn.constant.offsets[i : i + 2])]
        assert any(np.isin(np.round(seen, 6), np.round(own - first, 6)).all() for first in own)
    again = examples.draw(np.arange(12), np.arange(len(hosts)), seed=1)
    np.testing.assert_array_equal(again.variable.mag, drawn.variable.mag)
    other = examples.draw(np.arange(12), np.arange(len(hosts)), seed=2)
    assert not np.array_equal(other.variable.mag, drawn.variable.mag)


def test_a_survey_too_faint_for_a_star_is_named():
    hosts = some_hosts(n_cadences=0, epochs=21, limit=19.5)
    star = Star(1 / 0.6, np.array([9.0 + 0j]), np.empty(0))
    examples = Reobserved([star], np.empty(0, int), hosts, CURVE, 20)
    with pytest.raises(ValueError, match="leaves fewer than 20 epochs on each of 50 hosts"):
        examples.draw(np.array([0]), np.arange(len(hosts)), seed=1)


def transients(**changes: object) -> pa.Table:
    n = 60
    columns = {
        "oid": np.repeat([5, 6, 7], n), "hjd": 2458000.5 + np.tile(np.arange(n)[::-1] * 2.0, 3),
        "mag": np.full(3 * n, 18.0), "magerr": np.full(3 * n, 0.1), "catflags": np.zeros(3 * n, np.int64),
        "ZTFID": np.repeat(["a", "a", "b"], n), "bts_type": np.repeat(["SN Ia", "SN Ia", "SN II"], n),
        "bts_peakt_jd": np.repeat([2458050.0, 2458050.0, 2459999.0], n),
    }  # fmt: skip
    return pa.table(columns | changes)


def constant_stars() -> pa.Table:
    n = 30
    return pa.table(
        {
            "objectid": [1, 2], "filterid": [1, 1], "objra": [0.0, 1.0], "objdec": [0.0, 1.0],
            "hmjd": [list(range(n)), list(range(5))], "mag": [[16.0] * n, [16.0] * 5],
            "magerr": [[0.1] * n, [0.1] * 5], "catflags": [[0] * n, [0] * 5],
        }
    )  # fmt: skip


def test_hosts_are_read_from_both_kinds_of_file(tmp_path: Path):
    pq.write_table(constant_stars(), tmp_path / "stars.parquet")
    pq.write_table(transients(), tmp_path / "transients.parquet")
    hosts = read_hosts([tmp_path / "stars.parquet", tmp_path / "transients.parquet"], load_recipe("ztf-dr"))
    assert hosts.kind.tolist() == ["", "SN Ia", "SN Ia", "SN II"]  # the short star is left out
    assert hosts.constant.tolist() == [True, False, False, False]
    assert hosts.at_peak.tolist() == [False, True, True, False]  # one light curve ends long before its peak
    assert hosts.group[1] == hosts.group[2]
    assert len({hosts.group[0], hosts.group[1], hosts.group[3]}) == 3
    assert (np.diff(hosts.one(1)[0]) == 2).all()
    assert hosts.filterid.tolist() == [1, 0, 0, 0]  # this table of epochs says nothing of bands and places
    assert np.isnan(hosts.ra).tolist() == np.isnan(hosts.dec).tolist() == [False, True, True, True]


def test_place_and_band_of_hosts(tmp_path: Path):
    """By these a bundle is audited: each light curve has its own, also where a shorter one was left out before it."""
    pq.write_table(constant_stars().take([1, 0]), tmp_path / "stars.parquet")
    oid = np.repeat([5, 6, 7], 60)
    told = {"ra": oid + 0.25, "dec": -1.0 * oid, "filtercode": np.repeat(["zr", "zg", "new"], 60)}
    pq.write_table(transients(**told), tmp_path / "transients.parquet")
    hosts = read_hosts([tmp_path / "stars.parquet", tmp_path / "transients.parquet"], load_recipe("ztf-dr"))
    assert hosts.ra.tolist() == [0.0, 5.25, 6.25, 7.25]
    assert hosts.dec.tolist() == [0.0, -5.0, -6.0, -7.0]
    assert hosts.filterid.tolist() == [1, 2, 1, 0]


def test_limits_are_those_of_exposures(tmp_path: Path):
    recipe, n, sources = load_recipe("ztf-dr"), 30, 60
    rng = np.random.default_rng(8)
    level = np.linspace(15, 20, sources)
    mag = level[:, None] + rng.normal(0, 0.01, (sources, n))
    mag[-5:, 7] = np.nan  # the last ones are missing from one exposure
    mag[3, 4], late = 22.0, np.arange(n) * 1.0
    table = {
        "objectid": np.arange(sources), "filterid": np.ones(sources, int), "objra": np.zeros(sources),
        "objdec": np.zeros(sources), "hmjd": [(58000 + late).tolist()] * sources, "mag": mag.tolist(),
        "magerr": [[0.1] * n] * sources, "catflags": [[0] * n] * sources,
    }  # fmt: skip
    pq.write_table(pa.table(table), tmp_path / "stars.parquet")
    hosts = read_hosts([tmp_path / "stars.parquet"], recipe)
    np.testing.assert_array_equal(hosts.limits(0), np.nanmax(mag, axis=0))
    assert len(hosts.limits(sources - 1)) == n - 1
    pq.write_table(transients(limitmag=np.tile(np.arange(60) + 17.5, 3)), tmp_path / "transients.parquet")
    hosts = read_hosts([tmp_path / "stars.parquet", tmp_path / "transients.parquet"], recipe)
    # sorted by time as the epochs are, and what was measured was above the limit
    np.testing.assert_array_equal(hosts.limits(sources), np.maximum(np.arange(60)[::-1] + 17.5, 18.0))


def test_survey_files_that_cannot_be_used_are_named(tmp_path: Path):
    recipe = load_recipe("ztf-dr")
    pq.write_table(transients(), tmp_path / "transients.parquet")
    with pytest.raises(ValueError, match="no survey file holds constant stars"):
        read_hosts([tmp_path / "transients.parquet"], recipe)
    with pytest.raises(ValueError, match="no such file"):
        read_hosts([tmp_path / "none.parquet"], recipe)
    pq.write_table(transients().drop_columns(["bts_type"]), tmp_path / "other.parquet")
    with pytest.raises(LayoutError, match=f"would need {', '.join(TRANSIENT_COLUMNS)}"):
        read_hosts([tmp_path / "other.parquet"], recipe)


def test_real_hosts(data_dir: Path):
    files = [data_dir / "ztf_000250_zg_c01_q1_dr5.parquet", data_dir / "ztf_dr_bts_epochs.parquet"]
    hosts = read_hosts(files, load_recipe("ztf-dr"))
    assert hosts.constant.sum() == 1362  # of 1363 with ≥ 20 good epochs, one has two at the same time
    supernovae = np.char.startswith(hosts.kind, "SN Ia") & hosts.at_peak
    assert supernovae.sum() == 260
    assert np.diff(hosts.offsets).max() > 800
    assert (hosts.limit >= hosts.mag).all()
    assert np.isfinite(hosts.limit).all()


def test_a_re_observed_star_s_errors_look_like_a_real_one_s(data_dir: Path):
    files = [data_dir / "ztf_000250_zg_c01_q1_dr5.parquet", data_dir / "ztf_dr_bts_epochs.parquet"]
    hosts = read_hosts(files, load_recipe("ztf-dr"))
    of_stars = np.repeat(hosts.constant, np.diff(hosts.offsets))
    curve = fit_error_curve(hosts.mag[of_stars], hosts.magerr[of_stars])
    some = [i for i in np.flatnonzero(hosts.constant) if 16 < np.median(hosts.one(i)[1]) < 20][:200]
    off = []
    for i in some:
        _, mag, error = hosts.one(i)
        new, new_error, seen = inject(mag, error, 0.2 * np.sin(np.arange(len(mag))), hosts.limits(i), curve)
        # real errors are a function of the magnitude: nothing in them may tell that a star was put in
        order, inside = np.argsort(mag), seen & (new > mag.min()) & (new < mag.max())
        off.append(np.log(new_error / np.interp(new, mag[order], error[order]))[inside])
    assert len(np.concatenate(off)) > 1000
    assert (
        np.quantile(np.abs(np.concatenate(off)), 0.9) < 0.005
    )  # 0.002; 0.015 with errors of the true brightness
