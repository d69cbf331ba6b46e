"""The survey that is simulated: numbers measured on real ZTF files by `fit_survey` (`ztf_survey.toml`) or chosen."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files
from typing import Any

FILTERS = ("g", "r", "i")  # filterid 1, 2, 3

START = 58194  # MJD of the first night, 2018-03-17
YEARS = 6.6  # that of DR24; the fitted files cover 2.4 and 2.3
NIGHTS = round(YEARS * 365.25)

BAD = 32768  # the bit of catflags that the ZTF documentation asks to reject
SATURATION = 11.9  # mag: the brightest of the 106,588 real epochs has 11.95


@lru_cache(maxsize=1)
def survey() -> dict[str, Any]:
    """The fitted numbers: sections `cadence`, `exposures`, `errors`, `stars` (see `fit_survey`)."""
    return tomllib.loads(files(__package__).joinpath("ztf_survey.toml").read_text(encoding="utf-8"))


def to_toml(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """The fitted numbers as TOML: a table a section, sub-tables by filter.

    >>> print(to_toml({"errors": {"rate": 0.1, "by": {"g": [1.0, 2.0]}}}))
    [errors]
    rate = 0.1
    by.g = [1.0, 2.0]
    <BLANKLINE>
    """
    lines: list[str] = []
    for section, values in sections.items():
        lines.append(f"[{section}]")
        for name, value in values.items():
            pairs = value.items() if isinstance(value, Mapping) else [(None, value)]
            lines += [f"{name}{f'.{key}' if key else ''} = {_literal(each)}" for key, each in pairs]
        lines.append("")
    return "\n".join(lines)


def _literal(value: Any) -> str:
    """TOML writes numbers and lists of them as Python does; strings take double quotes."""
    return f'"{value}"' if isinstance(value, str) else repr(value)
