"""Charts of a comparison: the migration matrix and the shifts of probabilities, as SVG text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from lightmill.pipeline.report_style import (
    BLUE,
    INK,
    axes_grid,
    log_counts,
    new_figure,
    picture,
    whole_counts,
)

__all__ = ["migration", "shifts"]

HEAT = ListedColormap(colormaps["viridis"](np.linspace(0.14, 1, 200)))
WRITTEN = 20  #: classes up to which each cell holds its number


@picture
def migration(classes: Sequence[str], matrix: np.ndarray) -> Figure:
    """Shares of each class of the first version (a row) that are of each class in the second; (k, k) counts."""
    k = len(classes)
    totals = matrix.sum(axis=1, keepdims=True)
    share = np.where(matrix > 0, matrix / np.maximum(totals, 1), np.nan)
    figure = new_figure(1.4 + 0.34 * k)
    (axes,) = axes_grid(figure, 1, 1)
    axes.grid(False)
    image = axes.imshow(100 * share, cmap=HEAT, vmin=0, vmax=100, aspect="auto", interpolation="none")
    names = [f"{name} ({n:,})" for name, n in zip(classes, totals[:, 0], strict=True)]
    axes.set_yticks(range(k), names)
    axes.set_xticks(range(k), list(classes), rotation=45 if k > 8 else 0, ha="right" if k > 8 else "center")
    axes.tick_params(length=0)
    axes.set_ylabel("class in the first version")
    axes.set_xlabel("class in the second version")
    if k <= WRITTEN:
        for i, j in np.argwhere(matrix > 0).tolist():
            colour = INK_ON_LIGHT if share[i, j] > 0.55 else "white"
            axes.text(j, i, _short(int(matrix[i, j])), ha="center", va="center", fontsize=7.5, color=colour)
    bar = figure.colorbar(image, ax=axes, shrink=0.9, aspect=30, pad=0.02)
    bar.set_label("share of the class in the first [%]")
    bar.outline.set_visible(False)
    return figure


INK_ON_LIGHT = "#000000"  # on a light cell, whatever the page's colours


def _short(n: int) -> str:
    """A count that fits a cell: 1,234 or 56.7k or 8.9M."""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**4, "k")):
        if n >= size:
            unit = 10**3 if letter == "k" else size
            return f"{n / unit:.3g}{letter}"
    return f"{n:,}"


@picture
def shifts(bars: Mapping[str, np.ndarray], edges: np.ndarray) -> Figure:
    """Rows by change of the probability of each class, on a logarithmic scale.

    Parameters
    ----------
    bars : (n,) counts by class
    edges : (n + 1,)
    """
    columns = min(4, len(bars))
    figure = new_figure(0.35 + 1.45 * -(-len(bars) // columns))
    every = axes_grid(figure, len(bars), columns, sharex=True)
    for axes, (name, height) in zip(every, bars.items(), strict=True):
        axes.stairs(height, edges, fill=True, color=BLUE, lw=0, baseline=0.1)
        axes.axvline(0, color=INK, lw=0.6, ls=(0, (4, 2)))
        axes.set_title(name, loc="left")
        whole_counts(axes.yaxis, 3)
        log_counts(axes, float(height.max()))
    for axes in every[-columns:]:
        axes.tick_params(labelbottom=True)
    every[0].set_xlim(-1, 1)
    figure.supxlabel("change of the probability, second minus first", fontsize=9)
    figure.supylabel("light curves (log)", fontsize=9)
    return figure
