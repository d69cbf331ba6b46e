"""`pipeline/fit_survey.py`: the numbers in the house are those of the real files."""

from __future__ import annotations

import tomllib

import pytest

from lightmill.pipeline import fit_survey
from lightmill.pipeline.survey import survey


def test_the_numbers_in_the_house_are_those_of_the_files(data_dir, tmp_path):
    assert fit_survey.main([str(data_dir), str(tmp_path / "again.toml")]) == 0
    again = tomllib.loads((tmp_path / "again.toml").read_text(encoding="utf-8"))
    assert again.keys() == survey().keys()
    for section, values in again.items():
        assert values.keys() == survey()[section].keys()
        for name, value in values.items():
            fitted, kept = list(leaves(value)), list(leaves(survey()[section][name]))
            # A thousandth: another NumPy may add up in another order, and both were rounded.
            assert fitted == (kept if isinstance(value, str) else pytest.approx(kept, rel=1e-3)), name


def leaves(value):
    """The numbers and strings in nested tables and lists."""
    if isinstance(value, dict):
        value = [value[key] for key in sorted(value)]
    if not isinstance(value, list):
        yield value
        return
    for each in value:
        yield from leaves(each)


def test_usage(capsys):
    assert fit_survey.main([]) == 2
    assert "usage: python -m lightmill.pipeline.fit_survey" in capsys.readouterr().err
