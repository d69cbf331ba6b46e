"""How a report's pictures look: colours, axes, numbers, and the SVG text that stands inside the page.

Colours are those of Okabe & Ito (https://jfly.uni-koeln.de/color/) and viridis, which colour-blind readers can tell
apart. Text and axes are drawn in INK, which becomes the CSS `currentColor`: they follow the page into the dark. What
has thousands of marks is embedded as a small PNG.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator

__all__ = [
    "BLUE", "GREEN", "INK", "PALE", "PURPLE", "VERMILION", "WIDTH", "axes_grid", "bars", "legend_above", "log_axis",
    "log_counts", "new_figure", "number", "picture", "svg", "whole_counts",
]  # fmt: skip

INK = "#10131a"
BLUE, VERMILION, GREEN, PURPLE = "#3287bd", "#d55e00", "#009e73", "#b0659a"
PALE = "#8f98a3"  # reads on white and on black
WIDTH = 10.4  # inches: the width of the page's column

STYLE: Any = {
    **dict.fromkeys(("font.size", "axes.titlesize", "axes.labelsize"), 9),
    **dict.fromkeys(("legend.fontsize", "xtick.labelsize", "ytick.labelsize"), 8),
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.linewidth", "xtick.major.width", "ytick.major.width"), 0.6),
    **dict.fromkeys(("xtick.minor.width", "ytick.minor.width", "grid.linewidth"), 0.4),
    **dict.fromkeys(("axes.facecolor", "figure.facecolor"), "none"),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    **dict.fromkeys(("axes.grid", "axes.axisbelow"), True),
    "grid.color": PALE,
    "grid.alpha": 0.35,
    "svg.fonttype": "none",  # text stays text: it can be searched, and is small
    "svg.hashsalt": "lightmill",
}

P = ParamSpec("P")


def picture(draw: Callable[P, Figure]) -> Callable[P, str]:
    """Draw in the house's style and give the SVG."""

    @wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> str:
        with rc_context(STYLE):
            return svg(draw(*args, **kwargs))

    return styled


def svg(figure: Figure) -> str:
    """The figure as an <svg> element; its identifiers are made unique, for many stand in one page."""
    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(
        buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r' (xmlns(:xlink)?|version)="[^"]*"', "", text)
    prefix = "f" + hashlib.sha256(text.encode()).hexdigest()[:8]
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    text = re.sub(r"\n\s*", "\n", text).replace(INK, "currentColor")
    return text.replace("'DejaVu Sans'", "'DejaVu Sans', Verdana")


def new_figure(height: float) -> Figure:
    """As wide as the page; the height is in inches."""
    return Figure(figsize=(WIDTH, height), dpi=144, layout="constrained")


def axes_grid(figure: Figure, n: int, columns: int, *, sharex: bool = False) -> list[Axes]:
    """n axes, row by row; the last row may be shorter."""
    every = list(figure.subplots(-(-n // columns), columns, squeeze=False, sharex=sharex).flat)
    for axes in every[n:]:
        axes.remove()
    return every[:n]


def number(value: float, position: float | None = None) -> str:
    """A label that people read: no exponents, thousands set apart; called by matplotlib with a tick's position."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def log_axis(axis: Axis) -> None:
    """Labels of a logarithmic axis, at its major ticks alone."""
    axis.set_major_formatter(number)
    axis.set_minor_formatter(NullFormatter())


def log_counts(axes: Axes, largest: float) -> None:
    """A logarithmic ordinate of counts, which starts below 1 so that single objects are seen."""
    axes.set_yscale("log")
    axes.set_ylim(0.7, max(largest, 1) * 1.6)
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(number)


def whole_counts(axis: Axis, ticks: int) -> None:
    """An axis of counts, labelled at whole numbers."""
    axis.set_major_locator(MaxNLocator(ticks, integer=True))
    axis.set_major_formatter(number)


def legend_above(axes: Axes) -> None:
    """A legend in one line over the axes."""
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4)


def bars(axes: Axes, names: Sequence[str], lengths: np.ndarray, **options: Any) -> BarContainer:
    """Horizontal bars, the first at the top."""
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    return axes.barh(names, lengths, height=0.62, **options)
