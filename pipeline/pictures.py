"""Pictures of the report: plain arrays in, SVG text out, to stand inside an HTML page.

Colours are those of Okabe & Ito (https://jfly.uni-koeln.de/color/) and viridis, which colour-blind readers can tell
apart. Text and axes are drawn in INK, which becomes the CSS `currentColor`: they follow the page into the dark. What
has thousands of marks is embedded as a small PNG.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec

import numpy as np
from hats.pixel_math.spatial_index import SPATIAL_INDEX_ORDER, compute_spatial_index
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, ListedColormap, LogNorm, PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

__all__ = [
    "BANDS",
    "Curve",
    "SkyCells",
    "class_counts",
    "epoch_counts",
    "examples",
    "gate",
    "magnitudes",
    "median_images",
    "panels",
    "rejections",
    "sky",
    "timings",
]

INK = "#10131a"
BLUE, VERMILION, GREEN, PURPLE = "#3287bd", "#d55e00", "#009e73", "#b0659a"
PALE = "#8f98a3"  # reads on white and on black
WIDTH = 10.4  # inches: the width of the page's column

BANDS = {1: ("g", GREEN, "o"), 2: ("r", VERMILION, "s"), 3: ("i", PURPLE, "^")}
"""Name, colour and marker of ZTF's filterids."""

STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": PALE,
    "grid.alpha": 0.35,
    "grid.linewidth": 0.4,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text: it can be searched, and is small
    "svg.hashsalt": "lightmill",
}

P = ParamSpec("P")


@dataclass(frozen=True)
class SkyCells:
    """Light curves counted in HEALPix cells; cells without any are not listed."""

    order: int
    cell: np.ndarray  #: (k,) int64, NESTED, increasing
    count: np.ndarray  #: (k,) int64, positive

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


@dataclass(frozen=True)
class Curve:
    """A light curve with what was found out about it."""

    title: str
    band: int  #: filterid
    t: np.ndarray  #: (n,) float64 [d] since the first good epoch
    mag: np.ndarray  #: (n,) [mag]
    magerr: np.ndarray  #: (n,) [mag]
    period: float | None  #: [d]
    image: np.ndarray  #: (n_dm, n_dt) normalised dm-dt image
    probabilities: Mapping[str, float]  #: by class


def _picture(draw: Callable[P, Figure]) -> Callable[P, str]:
    """Draw in the house's style and give the SVG."""

    @wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> str:
        with rc_context(STYLE):
            return _svg(draw(*args, **kwargs))

    return styled


def _svg(figure: Figure) -> str:
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
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'href="#', f'href="#{prefix}-', text).replace("url(#", f"url(#{prefix}-")
    return (
        re.sub(r"\n\s*", "\n", text)
        .replace(INK, "currentColor")
        .replace("'DejaVu Sans'", "'DejaVu Sans', Verdana")
    )


def _figure(height: float) -> Figure:
    return Figure(figsize=(WIDTH, height), dpi=144, layout="constrained")


def _axes(figure: Figure, rows: int, columns: int, **options: object) -> list[Axes]:
    """The axes of a grid, row by row."""
    return list(figure.subplots(rows, columns, squeeze=False, **options).flat)  # type: ignore[call-overload]


def _thousands(axis: Axis) -> None:
    axis.set_major_formatter(FuncFormatter(_number))


def _number(value: float, position: int | None = None) -> str:
    """A label that people read: no exponents, thousands set apart; called by matplotlib with a tick's position."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _log_counts(axes: Axes, largest: float) -> None:
    """A logarithmic scale of counts, which starts below 1 so that single objects are seen."""
    axes.set_yscale("log")
    axes.set_ylim(0.7, max(largest, 1) * 1.6)
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    axes.yaxis.set_minor_locator(NullLocator())
    _thousands(axes.yaxis)


# ---- the sky


@_picture
def sky(maps: Mapping[str, SkyCells], failed: np.ndarray) -> Figure:
    """Light curves per square degree on the sky: Mollweide, or a zoom where all lie within ZOOM degrees.

    Parameters
    ----------
    maps : by title; the first says what part of the sky is shown
    failed : (k, 2) right ascension and declination of failed partitions [deg], marked with a cross
    """
    centre, radius = extent(next(iter(maps.values())))
    project = _Zoom(*centre, radius) if radius < ZOOM else _Mollweide()
    columns = len(maps) if radius < ZOOM else 1
    rows = len(maps) // columns
    figure = _figure(rows * (4.2 if columns == 1 else 4.4))
    for axes, (title, cells) in zip(_axes(figure, rows, columns), maps.items(), strict=True):
        _sky_map(figure, axes, project, cells)
        axes.set_title(title)
        _mark(axes, project, failed)
    return figure


ZOOM = 25.0  # degrees: a release within this radius is shown larger


def extent(cells: SkyCells) -> tuple[tuple[float, float], float]:
    """Centre (ra, dec) and radius [deg] of a circle around all cells."""
    ra, dec = centres(cells.order, cells.cell)
    xyz = _unit(ra, dec)
    mean = xyz.mean(axis=0)
    if np.linalg.norm(mean) < 1e-3:
        return (0.0, 0.0), 180.0
    mean /= np.linalg.norm(mean)
    radius = np.degrees(np.arccos(np.clip(xyz @ mean, -1, 1).min())) + 0.7 * _cell_size(cells.order)
    centre = np.degrees(np.arctan2(mean[1], mean[0])) % 360, np.degrees(np.arcsin(np.clip(mean[2], -1, 1)))
    return (float(centre[0]), float(centre[1])), float(radius)


def centres(order: int, cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Right ascension and declination [deg] of cells' centres."""
    from cdshealpix.nested import healpix_to_lonlat

    lon, lat = healpix_to_lonlat(cell.astype(np.uint64), order)
    return lon.deg, lat.deg


def _cell_size(order: int) -> float:
    """Side of a HEALPix cell [deg]."""
    return float(np.degrees(np.sqrt(4 * np.pi / (12 * 4**order))))


def _unit(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """(n, 3) unit vectors."""
    ra, dec = np.radians(ra), np.radians(dec)
    return np.column_stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])


class _Mollweide:
    """The whole sky, equal in area, right ascension 180° in the middle, east to the left."""

    half = (2 * np.sqrt(2), np.sqrt(2))
    pixels = (1100, 550)

    def sky(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """ra, dec [deg] and whether there is sky."""
        theta = np.arcsin(np.clip(y / np.sqrt(2), -1, 1))
        dec = np.arcsin(np.clip((2 * theta + np.sin(2 * theta)) / np.pi, -1, 1))
        lon = np.pi * x / (2 * np.sqrt(2) * np.maximum(np.cos(theta), 1e-9))
        return (180 - np.degrees(lon)) % 360, np.degrees(dec), np.abs(lon) <= np.pi

    def plane(self, ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """x, y of positions [deg]."""
        dec = np.radians(np.asarray(dec, float))
        theta = np.array(dec)
        for _ in range(30):  # Newton's method; near the poles it is slow
            step = (2 * theta + np.sin(2 * theta) - np.pi * np.sin(dec)) / np.maximum(
                2 + 2 * np.cos(2 * theta), 1e-6
            )
            theta = np.clip(theta - step, -np.pi / 2, np.pi / 2)
        lon = np.radians(180 - np.asarray(ra, float) % 360)
        return 2 * np.sqrt(2) / np.pi * lon * np.cos(theta), np.sqrt(2) * np.sin(theta)

    def frame(self, axes: Axes) -> None:
        """Outline, graticule and the galactic plane."""
        axes.set_axis_off()
        axes.add_patch(
            Ellipse((0, 0), 2 * self.half[0], 2 * self.half[1], fc=PALE, ec="none", alpha=0.12, zorder=-1)
        )
        axes.add_patch(
            Ellipse((0, 0), 2 * self.half[0], 2 * self.half[1], fc="none", ec=INK, lw=0.6, zorder=4)
        )
        line: Any = {"color": PALE, "lw": 0.4, "alpha": 0.7, "zorder": 3}
        along = np.linspace(0, 359.999, 361)
        for dec in (-60, -30, 0, 30, 60):
            axes.plot(*self.plane(along, np.full(361, dec)), **line)
            x, y = self.plane(np.array([0.0]), np.array([dec]))
            axes.text(
                x[0] + 0.05, y[0], f"{dec:+d}°".replace("-", "−") if dec else "0°", fontsize=8, va="center"
            )
        for ra in range(60, 360, 60):
            axes.plot(*self.plane(np.full(181, ra), np.linspace(-90, 90, 181)), **line)
            x, y = self.plane(np.array([ra]), np.array([-4.0]))
            text = axes.text(
                x[0] + 0.02, y[0], f"{ra // 15}ʰ", fontsize=8, ha="left", va="top", zorder=5, color="white"
            )
            text.set_path_effects([withStroke(linewidth=2, foreground="black")])  # to be read on any colour
        x, y = self.plane(*_galactic_plane())
        axes.plot(*_broken(x, y), color=VERMILION, lw=0.8, ls=(0, (5, 3)), zorder=3, label="galactic plane")
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, -0.04))


class _Zoom:
    """Lambert's equal-area projection around a centre; x and y are the offsets to the west and north [deg]."""

    pixels = (640, 640)

    def __init__(self, ra: float, dec: float, radius: float) -> None:
        self.ra, self.dec, self.half = ra, dec, (radius, radius)
        east = np.array([-np.sin(np.radians(ra)), np.cos(np.radians(ra)), 0.0])
        self.up = _unit(np.array([ra]), np.array([dec]))[0]
        self.basis = np.stack([-east, np.cross(self.up, east)])

    def sky(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """ra, dec [deg] and whether there is sky."""
        x, y = np.radians(x), np.radians(y)
        square = x**2 + y**2
        scale = np.sqrt(np.maximum(1 - square / 4, 0))
        xyz = (1 - square / 2)[..., None] * self.up + (x * scale)[..., None] * self.basis[0]
        xyz = xyz + (y * scale)[..., None] * self.basis[1]
        ra = np.degrees(np.arctan2(xyz[..., 1], xyz[..., 0])) % 360
        return ra, np.degrees(np.arcsin(np.clip(xyz[..., 2], -1, 1))), square <= 4

    def plane(self, ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """x, y [deg] of positions [deg]."""
        xyz = _unit(np.asarray(ra), np.asarray(dec))
        scale = np.sqrt(2 / np.maximum(1 + xyz @ self.up, 1e-9))
        x, y = np.degrees(scale * (xyz @ self.basis.T).T)
        return x, y

    def frame(self, axes: Axes) -> None:
        """Axes in degrees from the centre."""
        axes.set_xlabel(f"offset to the west of right ascension {self.ra:.3f}° [deg]")
        axes.set_ylabel(f"offset to the north of declination {self.dec:+.3f}° [deg]".replace("-", "−"))
        axes.set_xlim(-self.half[0], self.half[0])
        axes.set_ylim(-self.half[1], self.half[1])


def _galactic_plane() -> tuple[np.ndarray, np.ndarray]:
    """Right ascension and declination [deg] along galactic latitude 0."""
    pole, node, tilt = np.radians(192.85948), np.radians(32.93192), np.radians(27.12825)
    lon = np.radians(np.linspace(0, 360, 721)) - node
    dec = np.arcsin(np.cos(tilt) * np.sin(lon))
    ra = np.arctan2(np.cos(lon), -np.sin(tilt) * np.sin(lon)) + pole
    return np.degrees(ra) % 360, np.degrees(dec)


def _broken(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A line cut where it leaves the map on one side and comes back on the other."""
    jump = np.flatnonzero(np.abs(np.diff(x)) > 1) + 1
    return np.insert(x, jump, np.nan), np.insert(y, jump, np.nan)


def _sky_map(figure: Figure, axes: Axes, project: _Mollweide | _Zoom, cells: SkyCells) -> None:
    (nx, ny), (x, y) = project.pixels, project.half
    grid = np.meshgrid((np.arange(nx) + 0.5) / nx * 2 * x - x, (np.arange(ny) + 0.5) / ny * 2 * y - y)
    ra, dec, is_sky = project.sky(*grid)
    index = compute_spatial_index(ra.ravel(), dec.ravel()) >> (2 * (SPATIAL_INDEX_ORDER - cells.order))
    at = np.minimum(np.searchsorted(cells.cell, index), len(cells.cell) - 1)
    found = (
        np.where(cells.cell[at] == index, cells.count[at], 0).reshape(ny, nx) / _cell_size(cells.order) ** 2
    )
    shown = np.ma.masked_where((found == 0) | ~is_sky, found)
    density = cells.count / _cell_size(cells.order) ** 2
    norm = LogNorm(density.min() / 1.1, density.max() * 1.1)
    axes.grid(False)
    axes.set_aspect("equal")
    image = axes.imshow(
        shown, extent=(-x, x, -y, y), origin="lower", norm=norm, cmap=_viridis(), interpolation="none"
    )
    project.frame(axes)
    bar = figure.colorbar(image, ax=axes, shrink=0.75, aspect=28, pad=0.03)
    bar.ax.yaxis.set_major_formatter(FuncFormatter(_number))
    bar.ax.yaxis.set_minor_formatter(FuncFormatter(_few(density)))
    bar.outline.set_visible(False)


def _few(density: np.ndarray) -> Callable[[float, int], str]:
    """Label minor ticks 2 and 5 where less than a decade or two is shown."""
    narrow = density.max() < 30 * density.min()

    def label(value: float, _: int) -> str:
        digit = round(value / 10 ** np.floor(np.log10(value) + 1e-9))
        return _number(value) if narrow and digit in (2, 5) else ""

    return label


def _viridis() -> Colormap:
    """viridis without its darkest end, which would vanish on a dark page."""
    return ListedColormap(colormaps["viridis"](np.linspace(0.14, 1, 200)))


def _mark(axes: Axes, project: _Mollweide | _Zoom, failed: np.ndarray) -> None:
    if len(failed):
        x, y = project.plane(failed[:, 0], failed[:, 1])
        axes.plot(x, y, "x", color=VERMILION, ms=7, mew=2, zorder=6, label="failed partition")
        axes.legend(loc="lower right")


# ---- counts and distributions


@_picture
def class_counts(names: Sequence[str], counts: np.ndarray, expected: np.ndarray) -> Figure:
    """Light curves of each class (bars), and the sum of each class's probabilities (diamonds)."""
    figure = _figure(0.9 + 0.27 * len(names))
    (axes,) = _axes(figure, 1, 1)
    y = np.arange(len(names))[::-1]
    logarithmic = counts.max(initial=1) > 50 * max(counts[counts > 0].min(initial=counts.max(initial=1)), 1)
    floor = 0.7 if logarithmic else 0.0
    shown = np.maximum(counts, floor)
    axes.barh(y, shown, height=0.62, color=BLUE, label="most probable class")
    axes.plot(
        np.maximum(expected, floor), y, "D", color=VERMILION, ms=4.5, ls="", label="sum of probabilities"
    )
    if logarithmic:
        axes.set_xscale("log")
    largest = max(counts.max(initial=1), expected.max(initial=1))
    axes.set_xlim(floor, largest * (1.5 if logarithmic else 1.05))
    for at, count in zip(y, counts, strict=True):
        axes.annotate(f"{count:,}", (1.005, at), xycoords=axes.get_yaxis_transform(), va="center", fontsize=8)
    axes.set_yticks(y, names)
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("light curves" + (" (logarithmic)" if logarithmic else ""))
    _thousands(axes.xaxis)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return figure


@_picture
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
    columns = min(4, max(len(heights), 1))
    rows = -(-len(heights) // columns)
    figure = _figure(0.35 + 1.45 * rows)
    every = _axes(figure, rows, columns, sharex=True)
    for i, (axes, (name, height)) in enumerate(zip(every, heights.items(), strict=False)):
        axes.stairs(height, edges, fill=True, color=BLUE, lw=0)
        if behind is not None and behind.max() > 0:
            axes.stairs(behind / behind.max() * height.max(), edges, color=PALE, lw=0.9)
        axes.set_title(f"{name}  ({height.sum():,})", loc="left")
        axes.set_ylim(0, max(height.max(), 1) * 1.06)
        axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        _thousands(axes.yaxis)
        if log:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(_number))
            axes.xaxis.set_minor_formatter(NullFormatter())
        if i >= len(heights) - columns:
            axes.tick_params(labelbottom=True)
    for axes in every[len(heights) :]:
        axes.remove()
    every[0].set_xlim(edges[0], edges[-1])
    figure.supxlabel(xlabel, fontsize=9)
    figure.supylabel("light curves", fontsize=9)
    return figure


@_picture
def gate(passed: np.ndarray, stopped: np.ndarray, edges: np.ndarray, threshold: float | None) -> Figure:
    """The probability to be variable, of what passed the gate and of what it stopped; (n,) counts each."""
    figure = _figure(2.7)
    (axes,) = _axes(figure, 1, 1)
    both = passed + stopped
    axes.stairs(both, edges, fill=True, color=BLUE, lw=0, label=f"passed: {passed.sum():,}", baseline=0.1)
    axes.stairs(
        stopped, edges, fill=True, color=PALE, lw=0, label=f"stopped: {stopped.sum():,}", baseline=0.1
    )
    if threshold is not None:
        axes.axvline(threshold, color=VERMILION, lw=1.4, ls=(0, (4, 2)), label=f"threshold {threshold:.3g}")
    _log_counts(axes, both.max(initial=1))
    axes.set_xlim(0, 1)
    axes.set_xlabel("p_variable, the gate's probability to be variable")
    axes.set_ylabel("light curves (log)")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return figure


@_picture
def magnitudes(everything: np.ndarray, variable: np.ndarray | None, edges: np.ndarray) -> Figure:
    """Mean magnitudes of all and of the variable light curves, and the share that is variable; (n,) counts each."""
    figure = _figure(2.8)
    left, *right = _axes(figure, 1, 1 if variable is None else 2)
    left.stairs(everything, edges, fill=True, color=PALE, alpha=0.6, lw=0, label="all", baseline=0.1)
    if variable is not None:
        left.stairs(variable, edges, color=BLUE, lw=1.4, label="variable")
        left.legend(loc="upper left")
    _log_counts(left, everything.max(initial=1))
    left.set_ylabel("light curves (log)")
    left.set_xlabel("mean magnitude [mag]")
    for axes in right:
        assert variable is not None
        _share(axes, everything, variable, edges)
    for axes in (left, *right):
        axes.set_xlim(edges[0], edges[-1])
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
    axes.set_xlabel("mean magnitude [mag]")


@_picture
def rejections(counts: Mapping[str, int]) -> Figure:
    """How many light curves were rejected, by reason."""
    figure = _figure(0.75 + 0.3 * len(counts))
    (axes,) = _axes(figure, 1, 1)
    y = np.arange(len(counts))[::-1]
    axes.barh(y, list(counts.values()), height=0.6, color=VERMILION)
    for at, count in zip(y, counts.values(), strict=True):
        axes.annotate(f"{count:,}", (count, at), (5, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(y, [name.replace("_", " ") for name in counts])
    axes.set_xlim(0, max(counts.values()) * 1.12)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("light curves rejected")
    _thousands(axes.xaxis)
    return figure


@_picture
def epoch_counts(
    classified: np.ndarray, rejected: np.ndarray, edges: np.ndarray, least: int | None
) -> Figure:
    """Good epochs of classified and rejected light curves, (n,) counts each, and the recipe's minimum."""
    figure = _figure(2.5)
    (axes,) = _axes(figure, 1, 1)
    axes.stairs(rejected, edges, fill=True, color=VERMILION, alpha=0.75, lw=0, label="rejected", baseline=0.1)
    axes.stairs(classified, edges, fill=True, color=BLUE, alpha=0.75, lw=0, label="classified", baseline=0.1)
    if least is not None:
        axes.axvline(least, color=INK, lw=1, ls=(0, (4, 2)), label=f"min_epochs = {least}")
    _log_counts(axes, max(classified.max(initial=1), rejected.max(initial=1)))
    axes.set_xscale("log")
    axes.set_xlim(edges[0], edges[-1])
    axes.set_xlabel("good epochs of a light curve (those with none stand at 1)")
    axes.set_ylabel("light curves (log)")
    _thousands(axes.xaxis)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return figure


@_picture
def timings(stages: Mapping[str, float], seconds: np.ndarray, rate: np.ndarray) -> Figure:
    """Worker time by stage [s], and its distribution over partitions: seconds, and light curves a second."""
    figure = _figure(2.9)
    first, second, third = _axes(figure, 1, 3)
    total = max(sum(stages.values()), 1e-9)
    y = np.arange(len(stages))[::-1]
    first.barh(y, list(stages.values()), height=0.62, color=BLUE)
    for at, value in zip(y, stages.values(), strict=True):
        text = f"{100 * value / total:.0f} %" if value >= total / 200 else "< 1 %"
        first.annotate(text, (value, at), (4, 0), textcoords="offset points", va="center", fontsize=8)
    first.set_yticks(y, list(stages))
    first.set_xlim(0, max(stages.values(), default=1.0) * 1.22)
    first.grid(False, axis="y")
    first.tick_params(axis="y", length=0)
    first.set_xlabel("worker time [s]")
    for axes, values, label in (
        (second, seconds, "time of a partition [s]"),
        (third, rate, "light curves a second, per worker"),
    ):
        _log_histogram(axes, values, label)
    return figure


def _log_histogram(axes: Axes, values: np.ndarray, label: str) -> None:
    values = values[values > 0]
    axes.set_xlabel(label)
    axes.set_ylabel("partitions")
    if not len(values):
        return
    low, high = np.log10(values.min()) - 0.15, np.log10(values.max()) + 0.15
    edges = np.logspace(low, high, int(np.clip(np.sqrt(len(values)) * 2, 5, 40)) + 1)
    axes.stairs(np.histogram(values, edges)[0], edges, fill=True, color=BLUE, lw=0)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high - low < 1.6 else (1,), numticks=8))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(_number))
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    _thousands(axes.yaxis)


# ---- light curves


@_picture
def median_images(
    images: Mapping[str, np.ndarray], dt: Sequence[float], dm: Sequence[float], unit: str
) -> Figure:
    """Images of classes, all on one colour scale.

    Parameters
    ----------
    images : (n_dm, n_dt) by title
    dt, dm : edges of their bins [d], [mag]
    unit : of the colour scale
    """
    columns = min(4, max(len(images), 1))
    rows = -(-len(images) // columns)
    figure = _figure(0.3 + 2.55 * rows)
    every = _axes(figure, rows, columns)
    norm = PowerNorm(0.5, 0, max(1e-9, *(float(image.max()) for image in images.values())))
    for i, (axes, (title, image)) in enumerate(zip(every, images.items(), strict=False)):
        _image(axes, image, dt, dm, norm)
        axes.set_title(title, loc="left")
        if i % columns == 0:
            axes.set_ylabel("dm [mag]")
        if i >= len(images) - columns:
            axes.set_xlabel("dt [d]")
    for axes in every[len(images) :]:
        axes.remove()
    bar = figure.colorbar(
        ScalarMappable(norm, "viridis"), ax=every[: len(images)], shrink=0.8, aspect=40, pad=0.015
    )
    bar.set_label(unit)
    bar.outline.set_visible(False)
    return figure


def _image(axes: Axes, image: np.ndarray, dt: Sequence[float], dm: Sequence[float], norm: PowerNorm) -> None:
    """A dm-dt image with its bins drawn equally wide, and labels at some of their edges."""
    axes.imshow(image, origin="lower", norm=norm, cmap="viridis", interpolation="none", aspect="auto",
                extent=(0, image.shape[1], 0, image.shape[0]))  # fmt: skip
    axes.grid(False)
    for ticks, edges, set_ticks in ((4, dt, axes.set_xticks), (6, dm, axes.set_yticks)):
        at = np.unique(np.linspace(0, len(edges) - 1, ticks + 1).round().astype(int))
        set_ticks(at, [_short(edges[i]) for i in at])
    axes.tick_params(length=2)


def _short(value: float) -> str:
    """A number in few characters, with a true minus sign."""
    return f"{value:.2g}".replace("-", "−") if abs(value) < 100 else f"{value:.0f}".replace("-", "−")


@_picture
def examples(
    curves: Sequence[Curve], dt: Sequence[float], dm: Sequence[float], names: Mapping[int, str]
) -> Figure:
    """Light curves, one below the other, with their dm-dt images and highest class probabilities.

    Parameters
    ----------
    curves : at least one; folded where they have a period
    dt, dm : edges of the images' bins [d], [mag]
    names : of filters, by filterid
    """
    height = 0.35 + 2.05 * len(curves)
    figure = Figure(figsize=(WIDTH, height), dpi=144)
    grid = figure.add_gridspec(
        len(curves), 3, width_ratios=(3.1, 1.25, 1.0), left=0.065, right=0.985, wspace=0.24, hspace=0.62,
        top=1 - 0.28 / height, bottom=0.45 / height,
    )  # fmt: skip
    for row, curve in enumerate(curves):
        left, middle, right = (figure.add_subplot(grid[row, column]) for column in range(3))
        _light_curve(left, curve, names)
        _image(middle, curve.image, dt, dm, PowerNorm(0.5, 0, max(float(curve.image.max()), 1e-9)))
        middle.set_ylabel("dm [mag]", labelpad=1)
        middle.set_xlabel("dt [d]", labelpad=1)
        _probabilities(right, curve.probabilities)
    return figure


def _light_curve(axes: Axes, curve: Curve, names: Mapping[int, str]) -> None:
    _, colour, marker = BANDS.get(curve.band, ("", BLUE, "o"))
    t, mag, magerr = curve.t, curve.mag, curve.magerr
    xlabel = "time since the first good epoch [d]"
    if curve.period:
        phase = t / curve.period % 1
        t, mag, magerr = np.append(phase, phase + 1), np.tile(mag, 2), np.tile(magerr, 2)
        xlabel = f"phase, period {curve.period:.7g} d"
    axes.set_rasterization_zorder(0)  # what lies below: the points, not axes and grid
    axes.errorbar(
        t, mag, magerr, fmt=marker, ms=3, color=colour, mew=0, elinewidth=0.6, ecolor=(PALE, 0.6), zorder=-1
    )
    pad = 0.06 * max(float(np.ptp(curve.mag)), 0.05)
    axes.set_ylim(float(curve.mag.max()) + pad, float(curve.mag.min()) - pad)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(xlabel, labelpad=1)
    axes.set_ylabel(f"{names.get(curve.band, '')} [mag]".strip())
    axes.set_title(curve.title, loc="left", pad=4)


def _probabilities(axes: Axes, probabilities: Mapping[str, float]) -> None:
    """Bars of the highest five."""
    best = sorted(probabilities.items(), key=lambda item: -item[1])[:5]
    y = np.arange(len(best))[::-1]
    axes.barh(y, [value for _, value in best], height=0.7, color=BLUE)
    for at, (name, value) in zip(y, best, strict=True):
        axes.text(max(value, 0) + 0.03, at, f"{name} {value:.2f}", va="center", fontsize=8)
    axes.set_xlim(0, 1.55)
    axes.set_xticks([0, 0.5, 1])
    axes.set_yticks([])
    axes.spines["left"].set_bounds(-0.5, len(best) - 0.5)
    axes.grid(False, axis="y")
    axes.set_xlabel("probability", labelpad=1)
