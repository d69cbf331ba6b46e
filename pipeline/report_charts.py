"""Charts of a report, of counts and distributions: plain arrays in, SVG text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from lightmill.pipeline.report_style import (
    BLUE,
    INK,
    PALE,
    VERMILION,
    axes_grid,
    bars,
    legend_above,
    log_axis,
    log_counts,
    new_figure,
    number,
    picture,
    whole_counts,
)  # fmt: skip

__all__ = ["class_counts", "magnitudes", "panels", "rejections", "timings", "two_histograms"]


@picture
def class_counts(names: Sequence[str], counts: np.ndarray, expected: np.ndarray) -> Figure:
    """Light curves of each class (bars), and the sum of each class's probabilities (diamonds)."""
    figure = new_figure(0.9 + 0.27 * len(names))
    (axes,) = axes_grid(figure, 1, 1)
    logarithmic = counts.max() > 50 * counts[counts > 0].min()
    floor = 0.7 if logarithmic else 0.0
    bars(axes, names, np.maximum(counts, floor), color=BLUE, label="most probable class")
    axes.plot(np.maximum(expected, floor), names, "D", color=VERMILION, ms=4.5, label="sum of probabilities")
    for at, count in enumerate(counts):
        axes.annotate(f"{count:,}", (1.005, at), xycoords=axes.get_yaxis_transform(), va="center", fontsize=8)
    axes.set_xscale("log" if logarithmic else "linear")
    axes.set_xlim(floor, max(counts.max(), expected.max()) * (1.5 if logarithmic else 1.05))
    axes.set_xlabel("light curves" + (" (logarithmic)" if logarithmic else ""))
    axes.xaxis.set_major_formatter(number)
    legend_above(axes)
    return figure


@picture
def panels(
    heights: Mapping[str, np.ndarray],
    edges: np.ndarray,
    xlabel: str,
    *,
    behind: np.ndarray | None = None,
    log: bool = False,
) -> Figure:
    """One small histogram a class, all on the same abscissa.

    Parameters
    ----------
    heights : (n,) counts by class
    edges : (n + 1,)
    behind : (n,) counts of all, drawn as a grey outline scaled to the height of each panel
    log : the abscissa is logarithmic
    """
    columns = min(4, len(heights))
    figure = new_figure(0.35 + 1.45 * -(-len(heights) // columns))
    every = axes_grid(figure, len(heights), columns, sharex=True)
    for axes, (name, height) in zip(every, heights.items(), strict=True):
        axes.stairs(height, edges, fill=True, color=BLUE, lw=0)
        if behind is not None:
            axes.stairs(behind / behind.max() * height.max(), edges, color=PALE, lw=0.9)
        axes.set_title(f"{name}  ({height.sum():,})", loc="left")
        axes.set_ylim(0, height.max() * 1.06)
        whole_counts(axes.yaxis, 3)
        if log:
            axes.set_xscale("log")
            log_axis(axes.xaxis)
    for axes in every[-columns:]:
        axes.tick_params(labelbottom=True)
    every[0].set_xlim(edges[0], edges[-1])
    figure.supxlabel(xlabel, fontsize=9)
    figure.supylabel("light curves", fontsize=9)
    return figure


@picture
def two_histograms(
    heights: Mapping[str, np.ndarray],
    colours: Sequence[str],
    edges: np.ndarray,
    xlabel: str,
    *,
    line: tuple[float, str] | None,
    log: bool = False,
) -> Figure:
    """Two sets of light curves over one another.

    Parameters
    ----------
    heights : (n,) counts by label
    colours : of each
    edges : (n + 1,)
    line : where a vertical line stands, and its label
    log : the abscissa is logarithmic
    """
    figure = new_figure(2.6)
    (axes,) = axes_grid(figure, 1, 1)
    for (label, height), colour in zip(heights.items(), colours, strict=True):
        axes.stairs(height, edges, fill=True, color=colour, alpha=0.75, lw=0, label=label, baseline=0.1)
    if line is not None:
        axes.axvline(line[0], color=INK, lw=1, ls=(0, (4, 2)), label=line[1])
    log_counts(axes, max(height.max() for height in heights.values()))
    if log:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(number)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_xlabel(xlabel)
    axes.set_ylabel("light curves (log)")
    legend_above(axes)
    return figure


@picture
def magnitudes(everything: np.ndarray, variable: np.ndarray | None, edges: np.ndarray) -> Figure:
    """Mean magnitudes of all and of the variable light curves, and the share that is variable; (n,) counts each."""
    columns = 1 if variable is None else 2
    figure = new_figure(2.8)
    every = axes_grid(figure, columns, columns)
    every[0].stairs(everything, edges, fill=True, color=PALE, alpha=0.6, lw=0, label="all", baseline=0.1)
    if variable is not None:
        every[0].stairs(variable, edges, color=BLUE, lw=1.4, label="variable")
        every[0].legend(loc="upper left")
        _share(every[1], everything, variable, edges)
    log_counts(every[0], everything.max())
    every[0].set_ylabel("light curves (log)")
    for axes in every:
        axes.set_xlim(edges[0], edges[-1])
        axes.set_xlabel("mean magnitude [mag]")
    return figure


def _share(axes: Axes, everything: np.ndarray, variable: np.ndarray, edges: np.ndarray) -> None:
    """Share of variables with its binomial error, (k + 1)/(n + 2) so that 0 of 3 has one."""
    filled = everything > 0
    n, k = everything[filled], variable[filled]
    smooth = (k + 1) / (n + 2)
    error = 100 * np.sqrt(smooth * (1 - smooth) / (n + 3))
    middle = (edges[:-1] + edges[1:])[filled] / 2
    axes.errorbar(middle, 100 * k / n, error, fmt="o", ms=3, color=BLUE, elinewidth=0.8)
    axes.set_ylim(0, None)
    axes.set_ylabel("share classified as variable [%]")


@picture
def rejections(counts: Mapping[str, int]) -> Figure:
    """How many light curves were rejected, by reason."""
    figure = new_figure(0.75 + 0.3 * len(counts))
    (axes,) = axes_grid(figure, 1, 1)
    lengths = np.array(list(counts.values()))
    names = [name.replace("_", " ") for name in counts]
    drawn = bars(axes, names, lengths, color=VERMILION)
    axes.bar_label(drawn, [f"{n:,}" for n in lengths], padding=5, fontsize=8)
    axes.set_xlim(0, lengths.max() * 1.12)
    whole_counts(axes.xaxis, 6)
    axes.set_xlabel("light curves rejected")
    return figure


@picture
def timings(stages: Mapping[str, float], seconds: np.ndarray, rate: np.ndarray) -> Figure:
    """Worker time by stage [s], and its distribution over partitions: seconds, and light curves a second."""
    figure = new_figure(2.9)
    first, second, third = axes_grid(figure, 3, 3)
    times = np.array(list(stages.values()))
    percent = 100 * times / times.sum()
    texts = [f"{value:.0f} %" if value >= 0.5 else "< 1 %" for value in percent]
    first.bar_label(bars(first, list(stages), times, color=BLUE), texts, padding=4, fontsize=8)
    first.set_xlim(0, times.max() * 1.22)
    first.set_xlabel("worker time [s]")
    _log_histogram(second, seconds, "time of a partition [s]")
    _log_histogram(third, rate, "light curves a second, per worker")
    return figure


def _log_histogram(axes: Axes, values: np.ndarray, label: str) -> None:
    values = values[values > 0]
    low, high = np.log10(values.min()) - 0.15, np.log10(values.max()) + 0.15
    edges = np.logspace(low, high, int(np.clip(np.sqrt(len(values)) * 2, 5, 40)) + 1)
    axes.stairs(np.histogram(values, edges)[0], edges, fill=True, color=BLUE, lw=0)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high - low < 2.2 else (1,), numticks=8))
    log_axis(axes.xaxis)
    whole_counts(axes.yaxis, 4)
    axes.set_xlabel(label)
    axes.set_ylabel("partitions")
