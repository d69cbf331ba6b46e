"""`pipeline/observe.py`: the shapes of the light, and what a survey makes of it."""

from __future__ import annotations

import numpy as np
import pytest

from lightmill.pipeline import observe as module
from lightmill.pipeline.exposures import Exposures
from lightmill.pipeline.observe import Epochs, Targets, noise, observe
from lightmill.pipeline.survey import BAD, START, survey


def constant(n: int, mag: float, nights: int, *, band: int = 0, quota: int = -1) -> Targets:
    """`n` constant stars, all with the same exposures."""
    return Targets(
        np.full(n, module.CONSTANT),
        np.zeros((n, module.PARAMETERS)),
        np.full(n, mag),
        np.ones(n),
        np.full(n, band + 1),
        np.full(n, quota),
        np.zeros(n, np.int64),
        np.full(n, nights),
    )


def nightly(n: int, depth: float = 21.0, *, flagged: bool = False) -> Exposures:
    return Exposures(
        START + np.arange(n, dtype=float),
        np.full(n, depth),
        np.arange(n, dtype=float),
        np.zeros(n),
        np.full(n, flagged),
    )


def seen(stars: Targets, exposures: Exposures, seed: int = 1) -> tuple[np.ndarray, Epochs]:
    out = Epochs.empty(int((stars.end - stars.first).sum()))
    counts = observe(np.random.default_rng(seed), stars, exposures, noise(), out)
    return counts, Epochs(*(column[: counts.sum()] for column in out))


def test_a_bright_star_is_seen_in_every_exposure():
    counts, epochs = seen(constant(50, 15.0, 40), nightly(40))
    assert (counts == 40).all()
    assert (epochs.hmjd.reshape(50, 40) == nightly(40).t).all()
    assert (epochs.clrcoeff.reshape(50, 40) == np.arange(40)).all()


def test_half_of_the_exposures_find_a_star_at_their_depth():
    counts, _ = seen(constant(200, 21.0, 200), nightly(200))
    assert counts.mean() / 200 == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("mag", [5.0, 30.0], ids=["saturated", "too faint"])
def test_a_light_curve_has_an_epoch(mag):
    counts, epochs = seen(constant(30, mag, 25), nightly(25))
    assert (counts == 1).all()
    assert (epochs.hmjd == nightly(25).t[-1]).all()


@pytest.mark.parametrize("quota", [1, 3, 25])
def test_a_quota_is_met_at_random_times(quota):
    counts, epochs = seen(constant(400, 30.0, 25, quota=quota), nightly(25))
    assert (counts == quota).all()
    times = epochs.hmjd.reshape(400, quota)
    assert (np.diff(times, axis=1) > 0).all()
    assert times.mean() == pytest.approx(START + 12, abs=1)


@pytest.mark.parametrize("band", [0, 1, 2])
def test_noise_follows_the_fitted_numbers(band):
    """At the knot of 17 mag: error, its spread, the true scatter over it and the outliers."""
    fit = survey()["errors"]
    knot = fit["mag_knots"].index(17.0)
    _, epochs = seen(constant(500, 17.0, 200, band=band), nightly(200))
    error = np.exp(fit["log_error_by_mag"]["gri"[band]][knot])
    assert np.median(epochs.magerr) == pytest.approx(error, rel=0.01)
    away = epochs.mag.astype(float) - 17
    scatter = 1.4826 * np.median(np.abs(away))
    assert scatter == pytest.approx(error * fit["scatter_by_mag"][knot], rel=0.02)
    outliers = away[np.abs(away) > 4.9 * scatter]
    assert len(outliers) / len(away) == pytest.approx(fit["outlier_rate"], rel=0.2)
    assert (outliers < 0).mean() == pytest.approx(fit["outlier_bright"], abs=0.1)


def test_a_flagged_exposure_scatters_more_and_says_so():
    good = seen(constant(100, 17.0, 200), nightly(200))[1]
    bad = seen(constant(100, 17.0, 200), nightly(200, flagged=True))[1]
    widths = [np.median(np.abs(each.mag - 17)) for each in (good, bad)]
    assert widths[1] / widths[0] == pytest.approx(survey()["exposures"]["flagged_scatter"], rel=0.05)
    assert ((bad.catflags & BAD) > 0).all()
    assert ((good.catflags == 0) | np.isin(good.catflags, survey()["exposures"]["other_flags"])).all()
    assert (good.catflags > 0).mean() == pytest.approx(
        sum(survey()["exposures"]["other_flags_rate"]), rel=0.4
    )


def test_supernova_rises_in_three_weeks_and_is_gone_in_a_year():
    params = np.zeros(module.PARAMETERS)
    params[module.EPOCH], params[module.REST], params[module.REST + 1] = 500.0, 1.0, 1.0
    at = [module.signal(module.SUPERNOVA, params, 500.0 + day, 1) for day in (-30, 0, 20, 400)]
    assert at[0] == 0
    assert at[1] == pytest.approx(-2.5 * np.log10(1 + 10**0.4))
    assert at[1] < at[2] < -0.1
    assert -0.01 < at[3] <= 0


def test_a_star_changes_by_its_scaled_amplitude():
    """One harmonic of 1 mag peak to peak, seen at 0.8 of it."""
    stars = constant(1, 16.0, 500)
    stars.shape[0], stars.scale[0] = module.FOURIER, 0.8
    stars.params[0, [module.PERIOD, module.AMPLITUDE, module.REST]] = 7.31, 1.0, 0.5
    _, epochs = seen(stars, nightly(500))
    expected = 16 + 0.4 * np.sin(2 * np.pi * (epochs.hmjd - START) / 7.31)
    assert np.median(np.abs(epochs.mag - expected) / epochs.magerr) < 1
    assert len(epochs.mag) == 500
