"""Pictures of light curves and their dm-dt images for a report, as SVG text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lightmill.pipeline.dmdt import Grid
from lightmill.pipeline.report_examples import Example
from lightmill.pipeline.report_style import (
    BLUE,
    GREEN,
    PALE,
    PURPLE,
    VERMILION,
    WIDTH,
    axes_grid,
    new_figure,
    picture,
)  # fmt: skip

__all__ = ["MARKS", "draw_image", "light_curves", "median_images"]

MARKS = {1: (GREEN, "o"), 2: (VERMILION, "s"), 3: (PURPLE, "^")}
"""Colour and marker of a filterid."""


@picture
def median_images(images: Mapping[str, np.ndarray], grid: Grid, unit: str) -> Figure:
    """Images of classes by title, (n_dm, n_dt) each, all on one colour scale, which has a unit."""
    columns = min(4, len(images))
    figure = new_figure(0.3 + 2.55 * -(-len(images) // columns))
    every = axes_grid(figure, len(images), columns)
    norm = _norm(*images.values())
    for axes, (title, image) in zip(every, images.items(), strict=True):
        draw_image(axes, image, grid, norm)
        axes.set_title(title, loc="left")
    for axes in every[::columns]:
        axes.set_ylabel("dm [mag]")
    for axes in every[-columns:]:
        axes.set_xlabel("dt [d]")
    bar = figure.colorbar(ScalarMappable(norm, "viridis"), ax=every, shrink=0.8, aspect=40, pad=0.015)
    bar.set_label(unit)
    bar.outline.set_visible(False)
    return figure


@picture
def light_curves(examples: Sequence[Example], grid: Grid, names: Mapping[int, str]) -> Figure:
    """Light curves, one below the other, with their dm-dt images and highest class probabilities.

    Parameters
    ----------
    examples : at least one; folded where they have a period
    grid : of the images
    names : of filters, by filterid
    """
    height = 0.35 + 2.05 * len(examples)
    figure = Figure(figsize=(WIDTH, height), dpi=144)
    places = figure.add_gridspec(
        len(examples), 3, width_ratios=(3.1, 1.25, 1.0), left=0.065, right=0.985, wspace=0.24, hspace=0.62,
        top=1 - 0.28 / height, bottom=0.45 / height,
    )  # fmt: skip
    for row, example in enumerate(examples):
        left, middle, right = (figure.add_subplot(places[row, column]) for column in range(3))
        _light_curve(left, example, names)
        draw_image(middle, example.image, grid, _norm(example.image))
        middle.set_ylabel("dm [mag]", labelpad=1)
        middle.set_xlabel("dt [d]", labelpad=1)
        _probabilities(right, example.ranked[:5])
    return figure


def _norm(*images: np.ndarray) -> PowerNorm:
    return PowerNorm(0.5, 0, max(1e-9, *(float(image.max()) for image in images)))


def draw_image(axes: Axes, image: np.ndarray, grid: Grid, norm: Normalize, colours: str = "viridis") -> None:
    """A dm-dt image with its bins drawn equally wide, and labels at some of their edges."""
    axes.imshow(image, origin="lower", norm=norm, cmap=colours, interpolation="none", aspect="auto",
                extent=(0, image.shape[1], 0, image.shape[0]))  # fmt: skip
    axes.grid(False)
    for ticks, edges, set_ticks in ((4, grid.dt_edges, axes.set_xticks), (6, grid.dm_edges, axes.set_yticks)):
        at = np.linspace(0, len(edges) - 1, ticks + 1).round().astype(int)
        set_ticks(at, [_short(edges[i]) for i in at])
    axes.tick_params(length=2)


def _short(value: float) -> str:
    """A number in few characters, with a true minus sign."""
    return (f"{value:.2g}" if abs(value) < 100 else f"{value:.0f}").replace("-", "−")


def _light_curve(axes: Axes, example: Example, names: Mapping[int, str]) -> None:
    band = example.row["filterid"]
    colour, marker = MARKS.get(band, (BLUE, "o"))
    t, mag, magerr = example.t, example.mag, example.magerr
    xlabel = "time since the first good epoch [d]"
    if example.period:
        phase = t / example.period % 1
        t, mag, magerr = np.append(phase, phase + 1), np.tile(mag, 2), np.tile(magerr, 2)
        xlabel = f"phase, period {example.period:.7g} d"
    axes.set_rasterization_zorder(0)  # what lies below: the points, not axes and grid
    axes.errorbar(
        t, mag, magerr, fmt=marker, ms=3, color=colour, mew=0, elinewidth=0.6, ecolor=(PALE, 0.6), zorder=-1
    )
    pad = 0.06 * max(float(np.ptp(mag)), 0.05)
    axes.set_ylim(float(mag.max()) + pad, float(mag.min()) - pad)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(xlabel, labelpad=1)
    axes.set_ylabel(f"{names.get(band, '')} [mag]".strip())
    axes.set_title(f"objectid {example.row['objectid']}, {len(example.t)} good epochs", loc="left", pad=4)


def _probabilities(axes: Axes, best: Sequence[tuple[float, str]]) -> None:
    values, names = zip(*best, strict=True)
    bars = axes.barh(names, values, height=0.7, color=BLUE)
    axes.bar_label(bars, [f"{name} {value:.2f}" for value, name in best], padding=4, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.85)  # room for a name behind a bar of 1
    axes.set_xticks([0, 0.5, 1])
    axes.set_yticks([])
    axes.spines["left"].set_bounds(-0.5, len(best) - 0.5)
    axes.grid(False, axis="y")
    axes.set_xlabel("probability", labelpad=1)
