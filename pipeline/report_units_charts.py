"""Charts of a run: time and memory of its units, its stages, and its rate over time, as SVG text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from lightmill.pipeline.report_style import (
    BLUE,
    GREEN,
    PALE,
    axes_grid,
    bars,
    log_axis,
    new_figure,
    number,
    picture,
    whole_counts,
)

__all__ = ["distributions", "rate", "stages", "time_unit"]

LONG = 20.0  #: largest over smallest value from which an abscissa is logarithmic


def time_unit(seconds: float) -> tuple[float, str]:
    """The unit in which people read so long a time: its seconds, and its sign."""
    for size, sign in ((86_400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 3 * size:
            return size, sign
    return 1.0, "s"


@picture
def distributions(seconds: np.ndarray, memory: np.ndarray) -> Figure:
    """Units by wall time [s] and by peak memory [bytes]; a panel without values is left out, one has some."""
    size, sign = time_unit(float(seconds.max())) if len(seconds) else (1.0, "s")
    wanted = [
        (seconds / size, f"time of a unit [{sign}]"),
        (memory / 2**20, "highest memory of its worker so far [MiB]"),
    ]
    wanted = [(values, label) for values, label in wanted if len(values)]
    figure = new_figure(2.7)
    for axes, (values, label) in zip(axes_grid(figure, len(wanted), len(wanted)), wanted, strict=True):
        _histogram(axes, values, label)
    return figure


def _histogram(axes: Axes, values: np.ndarray, label: str) -> None:
    low, high = float(values.min()), float(values.max())
    if high <= low:  # all alike: one bar
        low, high = 0.9 * low, 1.1 * high + 1e-9
    n = int(np.clip(np.sqrt(len(values)) * 2, 8, 60))
    logarithmic = 0 < low < high / LONG
    edges = np.geomspace(low, high, n + 1) if logarithmic else np.linspace(low, high, n + 1)
    edges[[0, -1]] = low, high
    axes.stairs(*np.histogram(values, edges), fill=True, color=BLUE, lw=0)
    axes.set_xlabel(label)
    axes.set_ylabel("units")
    if logarithmic:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 150 * low else (1,), numticks=8))
        log_axis(axes.xaxis)
    axes.xaxis.set_major_formatter(number)
    whole_counts(axes.yaxis, 4)


@picture
def stages(seconds: Mapping[str, float]) -> Figure:
    """Worker time by stage [s], at least one above 0."""
    times = np.array(list(seconds.values()))
    size, sign = time_unit(float(times.max()))
    figure = new_figure(0.8 + 0.28 * len(times))
    (axes,) = axes_grid(figure, 1, 1)
    share = 100 * times / times.sum()
    texts = [f"{value:.1f} %" if value >= 0.1 else "< 0.1 %" for value in share]
    axes.bar_label(bars(axes, list(seconds), times / size, color=BLUE), texts, padding=4, fontsize=8)
    axes.set_xlim(0, times.max() / size * 1.1)
    axes.xaxis.set_major_formatter(number)
    axes.set_xlabel(f"worker time [{sign}]")
    return figure


@picture
def rate(timeline: Sequence[Mapping[str, float]]) -> Figure:
    """Light curves a second, and units being computed, over time; at least one bin."""
    edges = np.array([*(bin["start"] for bin in timeline), timeline[-1]["end"]])
    width = np.diff(edges)
    size, sign = time_unit(float(edges[-1]))
    figure = new_figure(3.6)
    first, second = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    done = np.array([bin["light_curves"] for bin in timeline])
    first.stairs(done / width, edges / size, fill=True, color=BLUE, lw=0)
    mean = done.sum() / edges[-1]
    first.axhline(mean, color=PALE, lw=1, ls=(0, (4, 2)), label=f"mean {number(mean)}")
    first.set_ylabel("light curves a second")
    first.set_ylim(0, None)
    first.yaxis.set_major_formatter(number)
    first.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0)
    second.stairs([bin["busy"] for bin in timeline], edges / size, fill=True, color=GREEN, lw=0)
    second.set_ylabel("units at a time")
    second.set_ylim(0, None)
    second.set_xlim(0, edges[-1] / size)
    second.set_xlabel(f"time since the first unit began [{sign}]")
    return figure
