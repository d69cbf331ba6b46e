"""Maps of HEALPix pixels of mixed orders, coloured by a value or by a category, as SVG text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from hats.pixel_math.spatial_index import SPATIAL_INDEX_ORDER, compute_spatial_index
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from mocpy import MOC

from lightmill.pipeline.report_sky import (
    COLOURS,
    WHOLE_SKY,
    ZOOM,
    Projection,
    around,
    draw_graticule,
    label_offsets,
)
from lightmill.pipeline.report_style import axes_grid, new_figure, picture

__all__ = ["Pixels", "category_map", "share_map"]


@dataclass(frozen=True)
class Pixels:
    """HEALPix pixels, NESTED, that do not overlap, each with a value."""

    order: np.ndarray  #: (k,) int64
    pixel: np.ndarray  #: (k,) int64
    value: np.ndarray  #: (k,) float64

    def projection(self) -> Projection:
        """The whole sky, or a zoom where all lie within ZOOM degrees."""
        moc = MOC.from_healpix_cells(
            self.pixel.astype(np.uint64), self.order.astype(np.uint8), max_depth=int(self.order.max())
        )
        centre = moc.barycenter()
        radius = float(moc.largest_distance_from_coo_to_vertices(centre).to_value("deg"))
        return around(float(centre.ra.deg), float(centre.dec.deg), radius) if radius < ZOOM else WHOLE_SKY

    def at(self, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        """Values at positions [deg], NaN outside the pixels."""
        index, found = compute_spatial_index(ra, dec), np.full(len(ra), np.nan)
        for order in np.unique(self.order):
            mine = np.flatnonzero(self.order == order)
            mine = mine[np.argsort(self.pixel[mine])]
            cells = index >> (2 * (SPATIAL_INDEX_ORDER - int(order)))
            where = np.searchsorted(self.pixel[mine], cells).clip(max=len(mine) - 1)
            inside = self.pixel[mine][where] == cells
            found[inside] = self.value[mine][where[inside]]
        return found


@picture
def share_map(pixels: Pixels, label: str) -> Figure:
    """Shares, 0 to 1, in per cent; at least one pixel."""
    figure, axes, projection = _map_of(pixels)
    # one pixel that differs altogether must not make all others look alike
    top = max(float(np.percentile(pixels.value, 99)), 1e-4)
    image: Any = _draw(axes, projection, pixels, COLOURS, Normalize(0, 100 * top), scale=100.0)
    bar = figure.colorbar(image, ax=axes, shrink=0.75, aspect=28, pad=0.03, extend="max")
    bar.outline.set_visible(False)
    bar.set_label(label)
    return figure


@picture
def category_map(pixels: Pixels, names: Mapping[str, str]) -> Figure:
    """Categories: the value of a pixel is its number in `names`, the colour of each by its name; at least one pixel."""
    figure, axes, projection = _map_of(pixels)
    colours = list(names.values())
    _draw(axes, projection, pixels, ListedColormap(colours), Normalize(-0.5, len(colours) - 0.5))
    counts = np.bincount(pixels.value.astype(int), minlength=len(colours))
    patches = [
        Patch(color=colour, label=f"{name}: {n:,}")
        for (name, colour), n in zip(names.items(), counts, strict=True)
        if n
    ]
    below = -0.02 if projection is WHOLE_SKY else -0.13  # under the label of the abscissa
    axes.legend(handles=patches, loc="upper center", bbox_to_anchor=(0.5, below), ncols=4)
    return figure


def _map_of(pixels: Pixels) -> tuple[Figure, Axes, Projection]:
    projection = pixels.projection()
    figure = new_figure(4.6)
    (axes,) = axes_grid(figure, 1, 1)
    axes.grid(False)
    return figure, axes, projection


def _draw(
    axes: Axes,
    projection: Projection,
    pixels: Pixels,
    colours: ListedColormap,
    norm: Normalize,
    scale: float = 1.0,
) -> object:
    (nx, ny), (x, y) = projection.pixels, projection.half
    middles = x * (2 * np.arange(nx) + 1 - nx) / nx, y * (2 * np.arange(ny) + 1 - ny) / ny
    ra, dec = projection.sky(*np.meshgrid(*middles))
    there = np.isfinite(ra)
    shown = np.full((ny, nx), np.nan)
    shown[there] = pixels.at(ra[there], dec[there]) * scale
    image = axes.imshow(
        shown, extent=(-x, x, -y, y), origin="lower", cmap=colours, interpolation="none", norm=norm
    )
    if projection is WHOLE_SKY:
        draw_graticule(axes)
    else:
        label_offsets(axes, projection)
    return image
