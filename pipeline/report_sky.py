"""Sky maps of a report: light curves counted in HEALPix cells, on the whole sky or around a centre, as SVG text.

The projections are FITS's MOL and ZEA, both equal in area (Calabretta & Greisen 2002, A&A 395, 1077).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS
from hats.pixel_math.spatial_index import SPATIAL_INDEX_ORDER, compute_spatial_index
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from matplotlib.patheffects import withStroke
from mocpy import MOC

from lightmill.pipeline.report_style import INK, PALE, VERMILION, axes_grid, new_figure, number, picture

__all__ = [
    "COLOURS", "WHOLE_SKY", "ZOOM", "Projection", "SkyCells", "around", "draw_graticule", "label_offsets", "sky",
]  # fmt: skip

ZOOM = 25.0  # degrees: what lies within this radius is shown larger

COLOURS = ListedColormap(colormaps["viridis"](np.linspace(0.14, 1, 200)))
"""viridis without its darkest end, which would vanish on a dark page."""


@dataclass(frozen=True)
class SkyCells:
    """Light curves counted in HEALPix cells; cells without any are not listed."""

    order: int
    cell: np.ndarray  #: (k,) int64, NESTED, increasing
    count: np.ndarray  #: (k,) int64, positive

    @property
    def density(self) -> np.ndarray:
        """(k,) light curves a square degree."""
        return self.count * (12 * 4**self.order * np.pi / 129_600)  # 360²/π square degrees are the sky

    def coarser(self) -> SkyCells:
        """The same, one order lower."""
        cell, at = np.unique(self.cell >> 2, return_inverse=True)
        return SkyCells(self.order - 1, cell, np.bincount(at, self.count).astype(np.int64))

    def filled(self, mean: float = 4.0) -> SkyCells:
        """The same, in cells that hold `mean` light curves on average, if order 3 and above can do it."""
        cells = self
        while cells.order > 3 and cells.count.mean() < mean:
            cells = cells.coarser()
        return cells

    def extent(self) -> tuple[float, float, float]:
        """Right ascension and declination of the centre, and radius, of a circle around all cells [deg]."""
        cells = self.cell.astype(np.uint64)
        moc = MOC.from_healpix_cells(cells, np.full(len(cells), self.order, np.uint8), max_depth=self.order)
        centre = moc.barycenter()
        radius = moc.largest_distance_from_coo_to_vertices(centre)
        return float(centre.ra.deg), float(centre.dec.deg), float(radius.to_value("deg"))


@dataclass(frozen=True)
class Projection:
    """A map of the sky, equal in area; x and y are degrees to the west and north of the centre."""

    code: str  #: FITS's name of it
    ra: float  #: of the centre [deg]
    dec: float  #: of the centre [deg]
    half: tuple[float, float]  #: half its width and height [deg]
    pixels: tuple[int, int]

    @cached_property
    def wcs(self) -> WCS:
        """The same, for astropy."""
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = [f"RA---{self.code}", f"DEC--{self.code}"]
        wcs.wcs.crval = [self.ra, self.dec]
        wcs.wcs.cdelt = [-1, 1]
        return wcs

    def sky(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """ra, dec [deg], NaN where there is no sky."""
        ra, dec = self.wcs.wcs_pix2world(x, y, 1)
        return ra, dec

    def plane(self, ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """x, y [deg] of positions [deg]."""
        x, y = self.wcs.wcs_world2pix(ra, dec, 1)
        return x, y


WHOLE_SKY = Projection("MOL", 180.0, 0.0, (np.sqrt(8) * 180 / np.pi, np.sqrt(2) * 180 / np.pi), (1100, 550))


def around(ra: float, dec: float, radius: float) -> Projection:
    """A part of the sky [deg]."""
    return Projection("ZEA", ra, dec, (radius, radius), (640, 640))


@picture
def sky(maps: Mapping[str, SkyCells], failed: np.ndarray) -> Figure:
    """Light curves per square degree on the sky: all of it, or a zoom where all lie within ZOOM degrees.

    Parameters
    ----------
    maps : by title; the first says what part of the sky is shown
    failed : (k, 2) right ascension and declination of failed partitions [deg], marked with a cross
    """
    ra, dec, radius = next(iter(maps.values())).extent()
    zoomed = radius < ZOOM
    projection = around(ra, dec, radius) if zoomed else WHOLE_SKY
    figure = new_figure(4.4 if zoomed else 4.2 * len(maps))
    every = axes_grid(figure, len(maps), len(maps) if zoomed else 1)
    for axes, (title, cells) in zip(every, maps.items(), strict=True):
        _draw_cells(figure, axes, projection, cells)
        if zoomed:
            label_offsets(axes, projection)
        else:
            draw_graticule(axes)
        if len(failed):
            where = projection.plane(*failed.T)
            axes.plot(*where, "x", color=VERMILION, ms=7, mew=2, zorder=6, label="failed partition")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="lower right", bbox_to_anchor=None if zoomed else (1.0, -0.04))
        axes.set_title(f"{title}, per square degree")
    return figure


def _draw_cells(figure: Figure, axes: Axes, projection: Projection, cells: SkyCells) -> None:
    (nx, ny), (x, y) = projection.pixels, projection.half
    middles = x * (2 * np.arange(nx) + 1 - nx) / nx, y * (2 * np.arange(ny) + 1 - ny) / ny
    ra, dec = projection.sky(*np.meshgrid(*middles))
    there = np.isfinite(ra)
    index = compute_spatial_index(ra[there], dec[there]) >> (2 * (SPATIAL_INDEX_ORDER - cells.order))
    at = np.searchsorted(cells.cell, index).clip(max=len(cells.cell) - 1)
    density = cells.density
    shown = np.full((ny, nx), np.nan)
    shown[there] = np.where(cells.cell[at] == index, density[at], np.nan)
    image = axes.imshow(
        shown, extent=(-x, x, -y, y), origin="lower", cmap=COLOURS, interpolation="none",
        norm=LogNorm(density.min() / 1.1, density.max() * 1.1),
    )  # fmt: skip
    axes.grid(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.75, aspect=28, pad=0.03)
    bar.ax.yaxis.set_major_formatter(number)
    bar.ax.yaxis.set_minor_formatter(_few(density))
    bar.outline.set_visible(False)


def _few(density: np.ndarray) -> Callable[[float, float], str]:
    """Label minor ticks 2 and 5 where less than a decade or two is shown."""
    narrow = density.max() < 30 * density.min()

    def label(value: float, position: float) -> str:
        digit = round(value / 10 ** np.floor(np.log10(value) + 1e-9))
        return number(value) if narrow and digit in (2, 5) else ""

    return label


def label_offsets(axes: Axes, projection: Projection) -> None:
    """Axes of a zoom, which a failed partition outside does not widen."""
    axes.set(xlim=np.array((-1, 1)) * projection.half[0], ylim=np.array((-1, 1)) * projection.half[1])
    axes.set_xlabel(f"offset to the west of right ascension {projection.ra:.3f}° [deg]")
    axes.set_ylabel(f"offset to the north of declination {projection.dec:+.3f}° [deg]".replace("-", "−"))


def draw_graticule(axes: Axes) -> None:
    """Outline, meridians, parallels and the galactic plane on the whole sky."""
    width, height = (2 * half for half in WHOLE_SKY.half)
    axes.set_axis_off()
    axes.add_patch(Ellipse((0, 0), width, height, fc=PALE, ec="none", alpha=0.12, zorder=-1))
    axes.add_patch(Ellipse((0, 0), width, height, fc="none", ec=INK, lw=0.6, zorder=4))
    line: Any = {"color": PALE, "lw": 0.4, "alpha": 0.7, "zorder": 3}
    along = np.linspace(0, 359.999, 361)
    for dec in (-60, -30, 0, 30, 60):
        x, y = WHOLE_SKY.plane(along, np.full(361, dec))
        axes.plot(x, y, **line)
        axes.text(x[0] + 3, y[0], f"{dec:+d}°".replace("-", "−") if dec else "0°", fontsize=8, va="center")
    for ra in range(60, 360, 60):
        x, y = WHOLE_SKY.plane(np.full(181, ra), np.linspace(-90, 90, 181))
        axes.plot(x, y, **line)
        text = axes.text(
            x[86] + 1, y[86], f"{ra // 15}ʰ", fontsize=8, ha="left", va="top", zorder=5, color="white"
        )
        text.set_path_effects([withStroke(linewidth=2, foreground="black")])  # to be read on any colour
    x, y = WHOLE_SKY.plane(*_galactic_plane())
    cut = np.flatnonzero(np.abs(np.diff(x)) > 90) + 1  # it leaves the map and comes back on the other side
    x, y = np.insert(x, cut, np.nan), np.insert(y, cut, np.nan)
    axes.plot(x, y, color=VERMILION, lw=0.8, ls=(0, (5, 3)), zorder=3, label="galactic plane")


def _galactic_plane() -> tuple[np.ndarray, np.ndarray]:
    """Right ascension and declination [deg] along galactic latitude 0."""
    plane = SkyCoord(np.linspace(0, 360, 721), np.zeros(721), unit="deg", frame="galactic").icrs
    return plane.ra.deg, plane.dec.deg
