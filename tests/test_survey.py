"""`pipeline/survey.py`: the fitted numbers are there, and TOML brings them back."""

from __future__ import annotations

import tomllib

import pytest

from lightmill.pipeline.survey import FILTERS, survey, to_toml


def test_toml_brings_back_what_was_written():
    assert tomllib.loads(to_toml(survey())) == survey()


@pytest.mark.parametrize(
    ("section", "names"),
    [
        ("cadence", ("gap_tiers", "moon")),
        ("exposures", ("depth_quantiles", "clrcoeff_mean", "clrcoeff_sd")),
        ("errors", ("log_error_by_mag",)),
    ],
)
def test_every_filter_has_its_numbers(section, names):
    for name in names:
        assert set(survey()[section][name]) == set(FILTERS)


def test_tables_by_magnitude_have_a_value_a_knot():
    errors = survey()["errors"]
    for values in (*errors["log_error_by_mag"].values(), errors["scatter_by_mag"]):
        assert len(values) == len(errors["mag_knots"])
