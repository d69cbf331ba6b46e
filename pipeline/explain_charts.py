"""Pictures of explanations, as SVG text: blue speaks for a class, vermilion against it, green is where was looked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import CenteredNorm, Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lightmill.pipeline.dmdt import Grid
from lightmill.pipeline.report_curves import MARKS, draw_image
from lightmill.pipeline.report_style import (
    BLUE,
    GREEN,
    INK,
    PALE,
    PURPLE,
    VERMILION,
    axes_grid,
    bars,
    new_figure,
    picture,
)  # fmt: skip

__all__ = ["bars_for_and_against", "folded_look", "image_look", "light_curve", "most_used"]


@picture
def light_curve(
    t: np.ndarray, mag: np.ndarray, magerr: np.ndarray, period: float | None, filterid: int, unit: str
) -> Figure:
    """A light curve (n,) in time [d], and beside it folded at its period [d], if it has one."""
    figure = new_figure(2.5)
    every = axes_grid(figure, 1 if period is None else 2, 1 if period is None else 2)
    _points(every[0], t, mag, magerr, filterid)
    every[0].set_xlabel("time since the first good epoch [d]")
    every[0].set_ylabel(unit)
    if period is not None:
        phase = t / period % 1
        _points(every[1], np.append(phase, phase + 1), np.tile(mag, 2), np.tile(magerr, 2), filterid)
        every[1].set_xlabel(f"phase, period {period:.7g} d")
    return figure


@picture
def image_look(
    image: np.ndarray, speaks: np.ndarray, instead: np.ndarray, seen: np.ndarray, grid: Grid, best: str, second: str
) -> Figure:  # fmt: skip
    """A dm-dt image, its saliency for a class and for that class rather than a second, and its class map.

    All (n_dm, n_dt); the two saliencies share a colour scale.
    """
    figure = new_figure(2.9)
    every = axes_grid(figure, 4, 4)
    largest = max(float(np.abs(speaks).max()), float(np.abs(instead).max()), 1e-12)
    for axes, title, values, norm, colours in (
        (every[0], "image", image, PowerNorm(0.5, 0, max(float(image.max()), 1e-9)), "viridis"),
        (every[1], f"for {best}", speaks, CenteredNorm(0, largest), "RdBu"),
        (every[2], f"for {best} rather than {second}", instead, CenteredNorm(0, largest), "RdBu"),
        (every[3], f"class map of {best}", seen, Normalize(0, max(float(seen.max()), 1e-12)), "viridis"),
    ):
        draw_image(axes, values, grid, norm, colours)
        axes.set_title(title, loc="left")
        axes.set_xlabel("dt [d]")
    for group in (every[:1], every[1:3], every[3:]):
        bar = figure.colorbar(
            group[0].images[0], ax=group, location="bottom", pad=0.02, aspect=30 * len(group)
        )
        bar.outline.set_visible(False)
        bar.ax.xaxis.set_major_locator(MaxNLocator(3))
    every[0].set_ylabel("dm [mag]")
    return figure


@picture
def folded_look(
    curve: np.ndarray, speaks: np.ndarray, instead: np.ndarray, seen: np.ndarray, best: str, second: str
) -> Figure:
    """A folded light curve at its period and at twice that, with its class map in green; below, its saliency by phase.

    Parameters
    ----------
    curve, speaks, instead : (n_phase, 6): mean, scatter and filling of each bin, at the period and at its double
    seen : (n_phase,)
    """
    figure = new_figure(4.6)
    every = axes_grid(figure, 4, 2)
    edges = np.linspace(0, 1, len(curve) + 1)
    for axes, first, title in zip(every, (0, 3), ("at the period", "at twice the period"), strict=False):
        _profile(axes, curve[:, first], curve[:, first + 1], curve[:, first + 2] > 0, seen)
        axes.set_title(title, loc="left")
    every[0].set_ylabel("magnitude less mean\n[standard deviations]")
    largest = 1e-12
    titles = f"for {best}", f"for {best} rather than {second}"
    for axes, values, title in zip(every[2:], (speaks, instead), titles, strict=True):
        for first, colour, label in ((0, BLUE, "at the period"), (3, PURPLE, "at twice the period")):
            height = values[:, first : first + 3].sum(axis=1)
            largest = max(largest, float(np.abs(height).max()))
            axes.stairs(height, edges, color=colour, lw=1.2, label=label)
        axes.axhline(0, color=INK, lw=0.6)
        axes.set_title(title, loc="left")
        axes.set_xlabel("phase")
        axes.set_xlim(0, 1)
    for axes in every[2:]:
        axes.set_ylim(-1.1 * largest, 1.5 * largest)  # room for the legend
    every[2].set_ylabel("logit")
    every[3].legend(loc="upper right", ncols=2)
    return figure


@picture
def bars_for_and_against(panels: Mapping[str, Sequence[tuple[str, float]]]) -> Figure:
    """By title, names and what each adds, as bars to the right (for) and to the left (against), in one scale."""
    figure = new_figure(0.8 + 0.24 * max(map(len, panels.values())))
    every = axes_grid(figure, len(panels), len(panels))
    largest = max((abs(value) for rows in panels.values() for _, value in rows), default=0.0) or 1.0
    for axes, (title, rows) in zip(every, panels.items(), strict=True):
        names, values = zip(*rows, strict=True) if rows else ((), ())
        drawn = bars(
            axes, names, np.array(values), color=[BLUE if value > 0 else VERMILION for value in values]
        )
        axes.bar_label(drawn, [f"{value:+.2f}".replace("-", "−") for value in values], padding=3, fontsize=8)
        axes.axvline(0, color=INK, lw=0.6)
        axes.set_xlim(-1.3 * largest, 1.3 * largest)
        axes.set_title(title, loc="left")
        axes.set_xlabel("adds to the logit")
    return figure


@picture
def most_used(shares: Mapping[str, float]) -> Figure:
    """Shares of features in the gain of trees, the largest first."""
    figure = new_figure(0.75 + 0.23 * max(len(shares), 1))
    (axes,) = axes_grid(figure, 1, 1)
    percent = 100 * np.array(list(shares.values()))
    drawn = bars(axes, list(shares), percent, color=BLUE)
    axes.bar_label(drawn, [f"{value:.1f} %" for value in percent], padding=4, fontsize=8)
    axes.set_xlim(0, 1.12 * max(float(percent.max(initial=0)), 1.0))
    axes.set_xlabel("share of the total gain [%]")
    return figure


def _points(axes: Axes, x: np.ndarray, mag: np.ndarray, magerr: np.ndarray, filterid: int) -> None:
    colour, marker = MARKS.get(filterid, (BLUE, "o"))
    axes.set_rasterization_zorder(0)  # what lies below: the points, not axes and grid
    axes.errorbar(
        x, mag, magerr, fmt=marker, ms=3, color=colour, mew=0, elinewidth=0.6, ecolor=(PALE, 0.6), zorder=-1
    )
    pad = 0.06 * max(float(np.ptp(mag)), 0.05)
    axes.set_ylim(float(mag.max()) + pad, float(mag.min()) - pad)
    axes.yaxis.set_major_locator(MaxNLocator(5))


def _profile(axes: Axes, mean: np.ndarray, scatter: np.ndarray, filled: np.ndarray, seen: np.ndarray) -> None:
    """Means and scatter of the filled bins of phase, brighter above; at the bottom a class map, as high as it says."""
    phase = (np.arange(len(mean)) + 0.5) / len(mean)
    axes.errorbar(
        phase[filled], mean[filled], scatter[filled], fmt="o", ms=3, color=BLUE, elinewidth=0.6, ecolor=PALE
    )
    low, high = np.min(mean - scatter) - 0.2, np.max(mean + scatter) + 0.2
    edges = np.linspace(0, 1, len(mean) + 1)
    axes.stairs(0.4 * seen / max(float(seen.max()), 1e-12), edges, fill=True, color=GREEN, alpha=0.35, lw=0,
                transform=axes.get_xaxis_transform())  # fmt: skip
    axes.set_xlim(0, 1)
    axes.set_ylim(high, low)
