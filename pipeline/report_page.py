"""A page of its own: a template of this folder filled in, with nothing that must be fetched from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib import resources
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

__all__ = ["percent", "render"]


def render(template: str, facts: Mapping[str, Any]) -> str:
    """The HTML of a template (`report.html`, `explain.html`), which may import from `page.html`."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"n": "{:,}".format, "svg": Markup, "p": _decimal, "percent": percent}
    return environment.get_template(template).render(facts)


def _source(name: str) -> str:
    return (resources.files("lightmill.pipeline") / name).read_text(encoding="utf-8")


def _decimal(value: float | None, digits: int = 3) -> str:
    """A number with so many decimals, a dash for none."""
    return "–" if value is None or not math.isfinite(value) else f"{value:,.{digits}f}"


def percent(share: float) -> str:
    """A share with one decimal, or below 1 % with two significant digits: 93.4 %, 0.0063 %."""
    value = 100 * share
    few = np.format_float_positional(value, precision=2, fractional=False, trim="-")
    return f"{value:.1f} %".replace(".0 %", " %") if value >= 1 else f"{few} %"
