"""Write a ZTF-like HATS release of any size, with the truth beside it.

Cadence, depth, errors, flags, outliers and magnitudes are drawn from numbers measured on real ZTF files
(`ztf_survey.toml`, refitted by `fit_survey`). Variable stars have the shapes of the literature: Fourier
ratios of RR Lyrae stars as in Simon & Lee 1981 (ApJ 248, 291), period ratios of RRd stars as in
Petersen 1973 (A&A 27, 89), cosine series of contact binaries as in Ruciński 1993 (PASP 105, 1433), and rough
templates of a type Ia supernova. It is for testing and sizing: quote no accuracy on it.

Chosen, not measured: the length (YEARS, that of DR24; the fitted files cover 2.4 and 2.3), the share of
exposures taken (PACE, so that a light curve has about 200 good epochs in the median), the share of detections
that hardly recur (FEW_FRACTION), the classes (CLASSES), which filters a star has, its colours, and the sky.
"""

from __future__ import annotations

import math
import os
import time
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import cdshealpix.nested as healpix
import numba
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy import units as u
from astropy.coordinates import Latitude, Longitude
from scipy.special import ndtr

from lightmill.catalogs.finish import finish_catalog, partition_path

# nogil: a caller may run threads; cache: compiled once a machine; numpy error model: no branch at a division.
_jit = numba.njit(nogil=True, cache=True, error_model="numpy")

LAYOUTS = ("nested", "list")
FILTERS = ("g", "r", "i")  # filterid 1, 2, 3

START = 58194  # MJD of the first night, 2018-03-17
YEARS = 6.6
NIGHTS = round(YEARS * 365.25)
PACE = 0.58  # share of the fitted nights that a field gets; the fitted fields are those of bright transients
FEW_FRACTION = 0.2  # the file of field 250 has 0.75, nearly all of them single detections at its depth

# The share of each class among variables: between that of Chen+2020 (ApJS 249, 18), where nine tenths are
# eclipsing, spotted or long-period, and an even one, which would give rare classes too much.
CLASSES = {
    "EW": 0.36,
    "RS_CVn": 0.14,
    "EA": 0.12,
    "RRab": 0.10,
    "LPV": 0.10,
    "RRc": 0.06,
    "HADS": 0.04,
    "ELL": 0.03,
    "RRd": 0.02,
    "CEP": 0.02,
    "SN_Ia": 0.01,
}
LABELS = ("nonvar", *CLASSES)

# Which light curves one star has, as filterids, and how often.
FILTER_SETS = ((1,), (2,), (1, 2), (2, 3), (1, 2, 3))
FILTER_SET_SHARE = (0.22, 0.28, 0.42, 0.02, 0.06)

SATURATION = 11.9  # mag: the brightest of the 106,588 real epochs has 11.95

# A field is a HEALPix pixel of order 3 (7.3°, a ZTF field has 7.4°); its 64 children of order 6 are the 64
# readout channels. All objects of a field share its exposures, as on the sky.
FIELD_ORDER, CELL_ORDER = 3, 6
FIRST_FIELD = 200
SOUTH = -30.0  # degrees: the southern end of the survey

EPOCHS_A_CHUNK = 2_000_000  # exposures looked at between two row groups: about 100 MB
CREATION_DATE = "2018-03-17T00:00UTC"  # fixed: equal arguments must write equal bytes

# What a random stream is for; the rest of its key is the field or the partition.
_SKY, _WEATHER, _FIELD, _PARTITION = range(4)


@dataclass(frozen=True)
class Simulated:
    """What `simulate` has written."""

    light_curves: int
    epochs: int
    partitions: int
    seconds: float
    path: Path


@dataclass(frozen=True)
class _Task:
    """One partition to write: all that a worker process needs."""

    path: Path
    """the file to write"""
    out: Path
    """the folder of the release"""
    seed: int
    n: int
    """light curves in the whole release: the sky follows from it and the seed"""
    order: int
    pixel: int
    rows: int
    layout: str
    variable_fraction: float

    def __str__(self) -> str:
        return f"order {self.order} pixel {self.pixel}: {self.rows} light curves"

    @property
    def first(self) -> int:
        """The first `_healpix_29` of the pixel: partitions sorted by it are in the order of the sky."""
        return self.pixel << (2 * (29 - self.order))

    @property
    def truth(self) -> Path:
        return self.out / ".truth" / f"{self.order}-{self.pixel}.parquet"


def simulate(
    out: Path,
    n: int,
    *,
    seed: int,
    layout: str = "nested",
    variable_fraction: float = 0.025,
    processes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Simulated:
    """Write `n` light curves to the new or empty folder `out`: a HATS catalogue, and `out/truth.parquet`.

    A light curve is one star in one field and filter, as in a ZTF release: a star with g and r is two rows.
    Layout `nested` has one column `lightcurve`, a struct of lists (IRSA's HATS release); `list` has five
    list columns (IRSA's bulk files, but `hmjd` is float64). An epoch has hmjd (d), mag, magerr (mag),
    clrcoeff and catflags; a row objectid, filterid (1 g, 2 r, 3 i), fieldid, rcid, objra, objdec (degrees),
    nepochs and `_healpix_29`, by which rows are sorted. The truth has objectid, label, period (d; null where
    there is none; of RRd that of the first overtone, which dominates) and amplitude (mag in g, peak to peak).

    The real files behind the fitted numbers cover 2.4 years; here it is YEARS, so that a light curve of a
    lasting star has about 200 good epochs, as in a late release, and not 50 to 100.

    Equal arguments write equal bytes, whatever the number of processes (default: one a core; they are
    spawned, so a script needs `if __name__ == "__main__":`). `progress` gets light curves done and wanted.

    Raises ValueError where n < 1, the layout is unknown, the fraction is outside 0 to 1, `out` is not empty.
    """
    # Here, not above: a worker process needs no hats, which takes a second to import.

    _check(out, n, layout, variable_fraction, processes)
    began = time.perf_counter()
    tasks = _plan(out, n, seed, layout, variable_fraction)
    (out / ".truth").mkdir(parents=True, exist_ok=True)
    epochs = done = 0
    for task, written in _run(tasks, processes or len(os.sched_getaffinity(0))):
        epochs, done = epochs + written, done + task.rows
        if progress is not None:
            progress(done, n)
    _join_truth(out, tasks)
    finish_catalog(
        out,
        name="ztf_simulated",
        partitions={(task.order, task.pixel): task.rows for task in tasks},
        ra_column="objra",
        dec_column="objdec",
        properties={
            "obs_title": "Simulated light curves, like those of the Zwicky Transient Facility",
            "hats_creation_date": CREATION_DATE,
            "lightmill_simulated": f"n={n} seed={seed} layout={layout} variable_fraction={variable_fraction}",
        },
    )
    return Simulated(n, epochs, len(tasks), time.perf_counter() - began, out)


def _check(out: Path, n: int, layout: str, fraction: float, processes: int | None) -> None:
    if n < 1:
        raise ValueError(f"n = {n} light curves, at least 1 is needed: ask for a positive number")
    if layout not in LAYOUTS:
        raise ValueError(f"layout {layout!r} is unknown: use one of {', '.join(LAYOUTS)}")
    if not 0 <= fraction <= 1:
        raise ValueError(f"variable_fraction = {fraction} is outside 0 to 1: give a share of the stars")
    if processes is not None and processes < 1:
        raise ValueError(f"processes = {processes}, at least 1 is needed: leave it out for one a core")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists and is not an empty folder: name another one, or remove it")


def _run(tasks: list[_Task], processes: int) -> Iterator[tuple[_Task, int]]:
    """Each task with the number of epochs that it wrote, in the order in which they finish."""
    if min(processes, len(tasks)) == 1:
        yield from ((task, _write_partition(task)) for task in tasks)
        return
    with ProcessPoolExecutor(min(processes, len(tasks)), mp_context=get_context("spawn")) as pool:
        # The largest first: the last to finish is then a small one.
        largest_first = sorted(tasks, key=lambda task: -task.rows)
        futures = {pool.submit(_write_partition, task): task for task in largest_first}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _join_truth(out: Path, tasks: list[_Task]) -> None:
    """One table from those of the partitions, in the order of the sky; a partition at a time in memory."""
    part = out / ".truth" / "all.part"
    with pq.ParquetWriter(part, TRUTH, compression="zstd", compression_level=3) as writer:
        for task in tasks:
            writer.write_table(pq.read_table(task.truth))
            task.truth.unlink()
    part.replace(out / "truth.parquet")
    part.parent.rmdir()


# ---------------------------------------------------------------------------------------------- the survey


@lru_cache(maxsize=1)
def survey() -> dict[str, Any]:
    """The fitted numbers: sections `cadence`, `exposures`, `errors`, `stars` (see `fit_survey`)."""
    return tomllib.loads(files(__package__).joinpath("ztf_survey.toml").read_text(encoding="utf-8"))


def _rng(seed: int, *key: int) -> np.random.Generator:
    """An own random stream for each purpose, so that no result depends on who ran before."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))


def _draw(rng: np.random.Generator, quantiles: list[float], size: int) -> np.ndarray:
    """`size` values of the distribution with these equidistant quantiles."""
    return np.interp(rng.random(size), np.linspace(0, 1, len(quantiles)), quantiles)


def _centre(order: int, pixel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Right ascension and declination (degrees) of the centres of pixels."""
    lon, lat = healpix.healpix_to_lonlat(pixel, order, num_threads=1)
    return lon.to_value("deg"), lat.to_value("deg")


@lru_cache(maxsize=1)
def _fields() -> tuple[np.ndarray, np.ndarray]:
    """Right ascension and declination (degrees) of the centres of all fields."""
    return _centre(FIELD_ORDER, np.arange(12 << (2 * FIELD_ORDER)))


# ------------------------------------------------------------------------------------------------- the sky


@lru_cache(maxsize=4)
def _cell_counts(seed: int, n: int) -> np.ndarray:
    """How many of `n` light curves lie in each pixel of CELL_ORDER (int64)."""
    rng = _rng(seed, _SKY)
    ra, dec = _centre(CELL_ORDER, np.arange(12 << (2 * CELL_ORDER)))
    weight = _density(ra, dec) * np.exp(rng.normal(0, 0.3, len(ra)))
    return rng.multinomial(n, weight / weight.sum())


def _density(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Relative number of stars: a halo, a disc of 8° and a bulge, none south of the survey (degrees in)."""
    ra, dec = np.radians(ra), np.radians(dec)
    pole_ra, pole_dec = np.radians(192.8595), np.radians(27.1283)  # the galactic pole (J2000)
    sin_b = np.sin(dec) * np.sin(pole_dec) + np.cos(dec) * np.cos(pole_dec) * np.cos(ra - pole_ra)
    b = np.degrees(np.arcsin(np.clip(sin_b, -1, 1)))
    towards_centre = np.cos(ra - np.radians(266.405)) * np.cos(dec)
    disc = 9 * np.exp(-np.abs(b) / 8) * (1 + 0.7 * towards_centre)
    return np.where(dec < np.radians(SOUTH), 0.0, 1 + disc)


def _plan(out: Path, n: int, seed: int, layout: str, variable_fraction: float) -> list[_Task]:
    """The partitions, in the order of the sky: pixels are split while they hold too many rows.

    The limit makes some thirty partitions of a small release, and none above 100,000 rows of a large one.
    """

    limit = min(max(n // 16, 3_000), 100_000)
    counts = _cell_counts(seed, n)
    pixels = [(0, pixel, int(rows)) for pixel, rows in enumerate(counts.reshape(12, -1).sum(axis=1))]
    tasks = []
    while pixels:
        order, pixel, rows = pixels.pop()
        if rows > limit:
            shares = _children(seed, counts, order, pixel, rows)
            pixels += [(order + 1, 4 * pixel + child, int(share)) for child, share in enumerate(shares)]
        elif rows:
            path = partition_path(out, order, pixel)
            tasks.append(_Task(path, out, seed, n, order, pixel, rows, layout, variable_fraction))
    return sorted(tasks, key=lambda task: task.first)


def _children(seed: int, counts: np.ndarray, order: int, pixel: int, rows: int) -> np.ndarray:
    """The rows of the four children of a pixel."""
    if order < CELL_ORDER:
        cells = 4 ** (CELL_ORDER - order)
        return counts[pixel * cells : (pixel + 1) * cells].reshape(4, -1).sum(axis=1)
    return _rng(seed, _SKY, order, pixel).multinomial(rows, [0.25] * 4)


# -------------------------------------------------------------------------------------------- the exposures


class _Exposures(NamedTuple):
    """The exposures of one field in one filter, sorted by time."""

    t: np.ndarray  # MJD, d, float64
    depth: np.ndarray  # limiting magnitude, mag
    clrcoeff: np.ndarray  # colour coefficient of the calibration
    log_error: np.ndarray  # ln of what the exposure multiplies every error by
    flagged: np.ndarray  # bool


@lru_cache(maxsize=256)
def _exposures(seed: int, field: int, filterid: int) -> _Exposures:
    """What a field (pixel of FIELD_ORDER) gets in a filter over the whole survey; one exposure at least."""
    rng, name = _rng(seed, _FIELD, field, filterid), FILTERS[filterid - 1]
    night = _nights(rng, seed, name)
    t, night = _visits(rng, night, field)
    if not len(t):
        t, night = np.array([START + 0.5 * NIGHTS + 0.3]), np.zeros(1)
    fit = survey()["exposures"]
    # Exposures of one night share most of their seeing and sky: a common and an own normal deviate.
    which = np.cumsum(np.diff(night, prepend=night[0]) > 0)
    quality = ndtr(0.8 * rng.standard_normal(which[-1] + 1)[which] + 0.6 * rng.standard_normal(len(t)))
    depths = fit["depth_quantiles"][name]
    return _Exposures(
        t,
        np.interp(quality, np.linspace(0, 1, len(depths)), depths),
        rng.normal(fit["clrcoeff_mean"][name], fit["clrcoeff_sd"][name], len(t)),
        rng.normal(0, survey()["errors"]["spread_exposure"], len(t)),
        rng.random(len(t)) < fit["flagged"],
    )


@lru_cache(maxsize=4)
def _clear_nights(seed: int) -> np.ndarray:
    """The nights (MJD, int64) on which the dome opened: bad weather lasts three nights on average."""
    rng, clear = _rng(seed, _WEATHER), survey()["cadence"]["clear_nights"]
    leave = 1 / 3
    enter = leave * (1 - clear) / clear
    closed, is_closed = np.zeros(NIGHTS, bool), False
    for night, draw in enumerate(rng.random(NIGHTS)):
        is_closed = draw >= leave if is_closed else draw < enter
        closed[night] = is_closed
    return START + np.flatnonzero(~closed)


def _nights(rng: np.random.Generator, seed: int, name: str) -> np.ndarray:
    """The nights (MJD) on which a field is visited in a filter, before its season is considered."""
    fit, clear = survey()["cadence"], _clear_nights(seed)
    tier = fit["gap_tiers"][name][rng.choice(3, p=(0.5, 0.3, 0.2))]
    planned = START + rng.integers(0, 10) + np.cumsum(np.rint(_draw(rng, tier, NIGHTS)))
    # The gaps were measured with their weather: what falls on a closed night is made up on the next one.
    night = np.unique(clear[np.minimum(np.searchsorted(clear, planned), len(clear) - 1)])
    moon = np.array(fit["moon"][name])
    phase = ((night - 58131.594) / 29.530589) % 1
    return night[rng.random(len(night)) < PACE * moon[(phase * len(moon)).astype(int)] / moon.mean()]


def _visits(rng: np.random.Generator, night: np.ndarray, field: int) -> tuple[np.ndarray, np.ndarray]:
    """Times (MJD) of the exposures of these nights and the night of each; nights out of season have none."""
    fit = survey()["cadence"]
    ra, dec = (float(value[field]) for value in _fields())
    midnight, low, high = _window(night, ra, dec)
    open_ = high - low > 0.3
    night, midnight, low, high = night[open_], midnight[open_], low[open_], high[open_]
    levels = np.linspace(0, 1, len(fit["hour_angle_quantiles"]))
    chance_low = np.interp(low, fit["hour_angle_quantiles"], levels)
    chance_high = np.interp(high, fit["hour_angle_quantiles"], levels)
    chance = chance_low + (chance_high - chance_low) * rng.random(len(night))
    angle = np.clip(np.interp(chance, levels, fit["hour_angle_quantiles"]), low, high)
    share = np.array(fit["visits"]) / sum(fit["visits"])
    visits = 1 + rng.choice(len(share), size=len(night), p=share)
    pause = _draw(rng, fit["revisit_quantiles"], int(visits.sum()))
    first = np.cumsum(visits) - visits
    pause[first] = 0
    elapsed = np.cumsum(pause)
    elapsed -= np.repeat(elapsed[first], visits)
    t = np.repeat(midnight + angle / 24 * 0.99726957, visits) + elapsed
    before_dawn = np.repeat(angle, visits) + 24 * elapsed <= np.repeat(high, visits)
    t, night = t[before_dawn], np.repeat(night, visits)[before_dawn]
    order = np.argsort(t, kind="stable")
    return t[order], night[order]


def _window(night: np.ndarray, ra: float, dec: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Midnight (MJD) at Palomar and the hour angles (h) between which a field can be observed that night.

    The Sun is 12° below the horizon (its position to half a degree), the field at least 20° above it.
    """
    latitude, longitude = np.radians(33.3563), -116.8630
    midnight = night - longitude / 360
    mean = np.radians(280.46 + 0.9856474 * (midnight - 51544.5))
    sun_dec = np.arcsin(np.sin(np.radians(23.44)) * np.sin(mean))
    half_night = 12 - _half_arc(np.radians(-12.0), latitude, sun_dec)
    half_arc = np.minimum(_half_arc(np.radians(20.0), latitude, np.radians(dec)), 6.5)
    sidereal = 280.46061837 + 360.98564736629 * (midnight - 51544.5) + longitude
    at_midnight = ((sidereal - ra + 180) % 360 - 180) / 15
    return (
        midnight - at_midnight / 24 * 0.99726957,
        np.maximum(at_midnight - half_night, -half_arc),
        np.minimum(at_midnight + half_night, half_arc),
    )


def _half_arc(altitude: float, latitude: float, dec: Any) -> Any:
    """Hours from the meridian to a given altitude (angles in radians): 0 if never above it, 12 if always."""
    cosine = (np.sin(altitude) - np.sin(latitude) * np.sin(dec)) / (np.cos(latitude) * np.cos(dec))
    return np.degrees(np.arccos(np.clip(cosine, -1, 1))) / 15


# ------------------------------------------------------------------------------------------------ the stars

# The shapes that the kernel knows, and the columns of `params` that all have. Times in d since START.
CONSTANT, FOURIER, ECLIPSES, TWO_MODES, LONG_PERIOD, SPOTS, SUPERNOVA = range(7)
PERIOD, EPOCH, AMPLITUDE, REST = 0, 1, 2, 3
HARMONICS = 6
PARAMETERS = REST + 2 * HARMONICS

# Amplitude in r and i over that in g: pulsation and spots are a matter of temperature, eclipses less so.
REDDER = {
    "EW": (0.95, 0.92),
    "EA": (0.97, 0.95),
    "ELL": (0.95, 0.92),
    "RRab": (0.72, 0.57),
    "RRc": (0.72, 0.57),
    "RRd": (0.72, 0.57),
    "HADS": (0.70, 0.55),
    "CEP": (0.66, 0.52),
    "LPV": (0.75, 0.50),
    "RS_CVn": (0.85, 0.70),
    "SN_Ia": (1.0, 1.0),
    "nonvar": (1.0, 1.0),
}


class _Variables(NamedTuple):
    """What makes `n` stars of one class vary."""

    shape: int
    period: np.ndarray  # d; NaN where there is none
    amplitude: np.ndarray  # peak to peak in g, mag
    rest: np.ndarray  # the columns of `params` from REST on, n × up to 2 HARMONICS


def _log_uniform(rng: np.random.Generator, low: float, high: float, n: int) -> np.ndarray:
    return np.exp(rng.uniform(math.log(low), math.log(high), n))


def _near(rng: np.random.Generator, mean: float, sd: float, low: float, high: float, n: int) -> np.ndarray:
    """Normal, cut to an interval."""
    return np.clip(rng.normal(mean, sd, n), low, high)


def _fourier(rng: np.random.Generator, ratios: Any, phases: Any, spread: float, n: int) -> np.ndarray:
    """n × 2 HARMONICS: A_k/A_1 and φ_k of Σ A_k sin(2πk·phase + φ_k), scaled to peak to peak 1.

    `phases` are φ_k1 = φ_k − k φ_1 (radians); both scatter from star to star, the ratios by `spread` of
    themselves.
    """
    rest = np.zeros((n, 2 * HARMONICS))
    rest[:, 0] = 1
    for k, (ratio, phase) in enumerate(zip(ratios, phases, strict=True), start=1):
        rest[:, k] = ratio * np.clip(rng.normal(1, spread, n), 0, 2)
        rest[:, HARMONICS + k] = rng.normal(phase, 0.12 * k**0.5, n)
    return _unit_range(rest)


def _unit_range(rest: np.ndarray) -> np.ndarray:
    """Scale the amplitudes of Fourier series so that each spans 1 from crest to trough."""
    phase = 2 * np.pi * np.arange(64) / 64
    k = np.arange(1, HARMONICS + 1)[:, None]
    sines = np.sin(k * phase + rest[:, HARMONICS:, None])
    curve = np.einsum("nk,nkp->np", rest[:, :HARMONICS], sines)
    rest[:, :HARMONICS] /= np.ptp(curve, axis=1)[:, None]
    return rest


def _binary(rng: np.random.Generator, ellipsoidal: Any, unequal: Any, n: int) -> np.ndarray:
    """Two waves an orbit: cos 2θ, sharper minima by cos 4θ, unequal ones by cos θ, O'Connell's by sin θ."""
    rest = np.zeros((n, 2 * HARMONICS))
    rest[:, HARMONICS : HARMONICS + 4] = np.pi / 2
    rest[:, 0], rest[:, 1], rest[:, 3] = unequal, 1, ellipsoidal
    rest[:, 2], rest[:, HARMONICS] = 0.3 * unequal, np.pi / 2 + rng.normal(0, 0.4, n)
    return _unit_range(rest)


def _rrab(rng: np.random.Generator, n: int) -> _Variables:
    period = _near(rng, 0.56, 0.07, 0.38, 0.9, n)
    # Bailey's diagram: the longer the period, the smaller the amplitude.
    amplitude = np.clip(1.05 - 3.2 * (period - 0.55) + rng.normal(0, 0.15, n), 0.25, 1.6)
    rest = _fourier(rng, (0.47, 0.34, 0.22, 0.14, 0.09), (2.4, 5.0, 1.4, 4.0, 0.4), 0.12, n)
    return _Variables(FOURIER, period, amplitude, rest)


def _rrc(rng: np.random.Generator, n: int) -> _Variables:
    rest = _fourier(rng, (0.14, 0.06, 0.04), (3.0, 3.6, 2.0), 0.35, n)
    return _Variables(FOURIER, _near(rng, 0.32, 0.04, 0.22, 0.44, n), rng.uniform(0.25, 0.6, n), rest)


def _hads(rng: np.random.Generator, n: int) -> _Variables:
    rest = _fourier(rng, (0.37, 0.16, 0.08), (2.5, 5.1, 1.5), 0.25, n)
    return _Variables(FOURIER, _log_uniform(rng, 0.045, 0.2, n), rng.uniform(0.2, 0.8, n), rest)


def _cep(rng: np.random.Generator, n: int) -> _Variables:
    rest = _fourier(rng, (0.36, 0.2, 0.1), (2.7, 5.3, 1.8), 0.3, n)
    return _Variables(FOURIER, _log_uniform(rng, 1.5, 40, n), rng.uniform(0.35, 1.2, n), rest)


def _ew(rng: np.random.Generator, n: int) -> _Variables:
    amplitude = rng.uniform(0.1, 0.8, n)
    rest = _binary(rng, 0.05 + 0.25 * amplitude, np.abs(rng.normal(0, 0.06, n)), n)
    return _Variables(FOURIER, np.clip(np.exp(rng.normal(-1.03, 0.2, n)), 0.21, 0.9), amplitude, rest)


def _ell(rng: np.random.Generator, n: int) -> _Variables:
    rest = _binary(rng, 0.02, np.abs(rng.normal(0, 0.15, n)), n)
    return _Variables(FOURIER, _log_uniform(rng, 0.3, 20, n), rng.uniform(0.03, 0.25, n), rest)


def _ea(rng: np.random.Generator, n: int) -> _Variables:
    """Columns: second over first depth, two half widths (cycles), phase of the second, slope, wave."""
    period = np.clip(np.exp(rng.normal(0.75, 0.75, n)), 0.4, 40)
    # Stars of a size fill less of a wider orbit: Kepler's third law gives width ∝ P^(−2/3).
    half_width = np.clip(0.075 * period ** (-2 / 3) * np.exp(rng.normal(0, 0.25, n)), 0.012, 0.11)
    rest = np.zeros((n, 2 * HARMONICS))
    rest[:, 0] = rng.beta(1.6, 1.8, n)
    rest[:, 1] = half_width
    rest[:, 2] = half_width * np.exp(rng.normal(0, 0.1, n))
    rest[:, 3] = np.where(rng.random(n) < 0.75, 0.5, rng.uniform(0.35, 0.65, n))
    rest[:, 4] = rng.uniform(0.4, 1.0, n)
    rest[:, 5] = 0.04 * rng.random(n)
    return _Variables(ECLIPSES, period, np.clip(rng.lognormal(-0.9, 0.55, n), 0.1, 2.5), rest)


def _rrd(rng: np.random.Generator, n: int) -> _Variables:
    """Columns: fundamental period, its amplitude and phase, and the share of the overtone's harmonic.

    P1/P0 runs from 0.742 to 0.748 with P0 (Petersen 1973); the first overtone P1 has the larger amplitude.
    """
    fundamental = rng.uniform(0.46, 0.57, n)
    ratio = 0.7440 + 0.025 * (fundamental - 0.46) + rng.normal(0, 0.0004, n)
    rest = np.zeros((n, 2 * HARMONICS))
    rest[:, 0] = fundamental
    rest[:, 1] = rng.uniform(0.25, 0.8, n)
    rest[:, 2] = rng.uniform(0, 2 * np.pi, n)
    rest[:, 3] = rng.uniform(0.1, 0.2, n)
    return _Variables(TWO_MODES, ratio * fundamental, rng.uniform(0.35, 0.7, n), rest)


def _lpv(rng: np.random.Generator, n: int) -> _Variables:
    """Columns: harmonic, change of the amplitude over cycles and its period and phase, slow wave the same."""
    mira = rng.random(n) < 0.3
    period = np.where(mira, _log_uniform(rng, 130, 500, n), _log_uniform(rng, 35, 300, n))
    rest = np.zeros((n, 2 * HARMONICS))
    rest[:, 0] = np.where(mira, 0.15, 0.05) * rng.random(n)
    rest[:, 1] = np.where(mira, 0.15, 0.5) * rng.uniform(0.3, 1, n)
    rest[:, 2] = period * rng.uniform(2.5, 9, n)
    rest[:, 3] = rng.uniform(0, 2 * np.pi, n)
    rest[:, 4] = np.where(mira, 0.1, 0.4) * rng.random(n)
    rest[:, 5] = period * rng.uniform(5, 12, n)
    rest[:, 6] = rng.uniform(0, 2 * np.pi, n)
    amplitude = np.where(mira, rng.uniform(2.5, 5.5, n), _log_uniform(rng, 0.15, 1.5, n))
    return _Variables(LONG_PERIOD, period, amplitude, rest)


def _rs_cvn(rng: np.random.Generator, n: int) -> _Variables:
    """Columns: harmonic, its phase, drift of the spots (radians); the cycle (d), its phase, its effects."""
    rest = np.zeros((n, 2 * HARMONICS))
    rest[:, 0] = rng.uniform(0, 0.45, n)
    rest[:, 1] = rng.uniform(0, 2 * np.pi, n)
    rest[:, 2] = rng.uniform(0.2, 1.3, n)
    rest[:, 3] = rng.uniform(300, 3000, n)
    rest[:, 4] = rng.uniform(0, 2 * np.pi, n)
    rest[:, 5] = rng.uniform(0.1, 0.6, n)
    rest[:, 6] = rng.uniform(0, 0.5, n)
    period = np.clip(np.exp(rng.normal(1.3, 1.0, n)), 0.4, 60)
    return _Variables(SPOTS, period, _log_uniform(rng, 0.06, 0.45, n), rest)


def _sn_ia(rng: np.random.Generator, n: int) -> _Variables:
    """Columns: how much brighter than its host at peak (mag), and the stretch of time s (1 + z)."""
    peak = rng.uniform(-0.5, 3.0, n)
    rest = np.zeros((n, 2 * HARMONICS))
    rest[:, 0] = peak
    rest[:, 1] = _near(rng, 1.0, 0.1, 0.7, 1.25, n) * (1 + rng.uniform(0.01, 0.12, n))
    brightening = 2.5 * np.log10(1 + 10 ** (0.4 * peak))
    return _Variables(SUPERNOVA, np.full(n, np.nan), brightening, rest)


DRAW: dict[str, Callable[[np.random.Generator, int], _Variables]] = {
    "EW": _ew,
    "RS_CVn": _rs_cvn,
    "EA": _ea,
    "RRab": _rrab,
    "LPV": _lpv,
    "RRc": _rrc,
    "HADS": _hads,
    "ELL": _ell,
    "RRd": _rrd,
    "CEP": _cep,
    "SN_Ia": _sn_ia,
}

# Magnitudes below peak of a type Ia supernova on days −20 … 100 in steps of 5, in g, r and i.
_SN_FIRST, _SN_STEP = -20.0, 5.0
# fmt: off
_SN_FADING = np.array([
    [9, 3.2, 1.1, 0.3, 0, 0.2, 0.6, 1.1, 1.6, 2.1, 2.4, 2.6, 2.8, 2.9, 3.0, 3.1, 3.2, 3.3, 3.4, 3.5, 3.6, 3.6,
     3.7, 3.8, 3.9],
    [9, 3.0, 1.0, 0.3, 0, 0.1, 0.4, 0.7, 0.8, 0.9, 1.1, 1.5, 1.8, 2.0, 2.2, 2.4, 2.6, 2.7, 2.9, 3.0, 3.2, 3.3,
     3.5, 3.6, 3.8],
    [9, 3.0, 1.0, 0.3, 0, 0.2, 0.6, 0.7, 0.6, 0.5, 0.7, 1.1, 1.4, 1.7, 1.9, 2.1, 2.3, 2.5, 2.7, 2.9, 3.1, 3.2,
     3.4, 3.6, 3.8],
])
# fmt: on


# ----------------------------------------------------------------------------------------------- the kernel


@_jit
def _signal(shape, p, t, filterid, template):
    """Magnitudes fainter than the mean at time `t` (d since START) of a star with the parameters `p`."""
    if shape == CONSTANT:
        return 0.0
    if shape == SUPERNOVA:
        return _supernova(p, t, template[filterid - 1])
    cycle = (t - p[EPOCH]) / p[PERIOD]
    angle = 2 * math.pi * (cycle - math.floor(cycle))
    if shape == FOURIER:
        value = 0.0
        for k in range(HARMONICS):
            if p[REST + k] != 0.0:
                value += p[REST + k] * math.sin((k + 1) * angle + p[REST + HARMONICS + k])
        return p[AMPLITUDE] * value
    if shape == ECLIPSES:
        return p[AMPLITUDE] * _eclipses(p, angle)
    if shape == TWO_MODES:
        overtone = math.sin(angle) + p[REST + 3] * math.sin(2 * angle + 3.0)
        fundamental = p[REST + 1] * math.sin(2 * math.pi * t / p[REST] + p[REST + 2])
        return 0.5 * p[AMPLITUDE] * (overtone + fundamental) / (1 + p[REST + 1])
    if shape == LONG_PERIOD:
        size = 1 + p[REST + 1] * math.sin(2 * math.pi * t / p[REST + 2] + p[REST + 3])
        slow = p[REST + 4] * math.sin(2 * math.pi * t / p[REST + 5] + p[REST + 6])
        wave = math.sin(angle) + p[REST] * math.sin(2 * angle + 1.0)
        return 0.5 * p[AMPLITUDE] * (size * wave + slow)
    activity = math.sin(2 * math.pi * t / p[REST + 3] + p[REST + 4])
    drifted = angle + p[REST + 2] * activity
    wave = math.sin(drifted) + p[REST] * math.sin(2 * drifted + p[REST + 1])
    return 0.5 * p[AMPLITUDE] * ((1 + p[REST + 5] * activity) * wave + p[REST + 6] * activity)


@_jit
def _eclipses(p, angle):
    """Two eclipses and the wave of the distorted stars between them; the deeper one has depth 1."""
    phase = angle / (2 * math.pi)
    value = 0.5 * p[REST + 5] * math.cos(2 * angle)
    for which in range(2):
        centre, half_width, depth = (
            (0.0, p[REST + 1], 1.0) if which == 0 else (p[REST + 3], p[REST + 2], p[REST])
        )
        away = abs(phase - centre)
        away = min(away, 1 - away) / half_width
        if away < 1:
            value += depth * min(1.0, (1 - away) / p[REST + 4])
    return value


@_jit
def _supernova(p, t, template):
    """The light of a supernova that peaks at EPOCH, added to that of its host."""
    day = ((t - p[EPOCH]) / p[REST + 1] - _SN_FIRST) / _SN_STEP
    if day < 0:
        return 0.0
    last = len(template) - 1
    step = min(int(day), last - 1)
    # Beyond the table the last slope goes on: the radioactive tail.
    fading = template[step] + (day - step) * (template[step + 1] - template[step])
    return -2.5 * math.log10(1 + 10 ** (0.4 * (p[REST] - fading)))


@_jit
def _between(x, values):
    """Linear interpolation at the fractional index `x`, constant beyond the ends."""
    x = min(max(x, 0.0), len(values) - 1.000001)
    k = int(x)
    return values[k] + (x - k) * (values[k + 1] - values[k])


@_jit
def _observe(rng, stars, exposures, fit, out):
    """Observe each star with its exposures; returns the number of epochs of each star (int64).

    `stars`: shape, params (n × PARAMETERS), mag, scale of the amplitude, filterid, quota (−1: each exposure
    that is deep enough; else that many, at random), first and end of its exposures. `out`: flat, from 0.
    """
    shape, params, mag, scale, filterid, quota, first, end = stars
    t, depth, clrcoeff, log_error, flagged = exposures
    knot, step, errors, scatter, numbers, outliers, bits, bit_rates, template = fit
    width, flagged_scatter, spread, outlier_rate, outlier_bright = numbers
    hmjd, mags, magerrs, clrcoeffs, catflags = out
    counts = np.zeros(len(shape), np.int64)
    k = 0
    for i in range(len(shape)):
        begin, left = k, quota[i]
        for e in range(first[i], end[i]):
            if quota[i] >= 0 and rng.random() * (end[i] - e) >= left:
                continue
            true = mag[i] + scale[i] * _signal(shape[i], params[i], t[e] - START, filterid[i], template)
            # A light curve has an epoch: the last exposure counts where no other has found the star.
            may_miss = quota[i] < 0 and (k > begin or e < end[i] - 1)
            chance = 1 / (1 + math.exp((true - depth[e]) / width)) if true > SATURATION else 0.0
            if may_miss and rng.random() >= chance:
                continue
            left -= 1
            x = (true - knot) / step
            sigma = math.exp(_between(x, errors[filterid[i] - 1])) * _between(x, scatter)
            if flagged[e]:
                sigma *= flagged_scatter
            seen = true + sigma * rng.standard_normal()
            if rng.random() < outlier_rate:
                size = sigma * _between(rng.random() * (len(outliers) - 1), outliers)
                # Fainter than the exposure reaches cannot be: such an outlier is a bright one.
                bright = rng.random() < outlier_bright or true + size > depth[e] + 0.5
                seen = true - size if bright else true + size
            # The error that is written follows the measured magnitude, as in the real files.
            error = _between((seen - knot) / step, errors[filterid[i] - 1]) + log_error[e]
            flag = 32768 if flagged[e] else 0
            draw = rng.random()
            for b in range(len(bits)):
                if draw < bit_rates[b]:
                    flag |= bits[b]
                    break
            hmjd[k] = t[e]
            mags[k] = seen
            magerrs[k] = math.exp(error + spread * rng.standard_normal())
            clrcoeffs[k] = clrcoeff[e]
            catflags[k] = flag
            k += 1
        counts[i] = k - begin
    return counts


@lru_cache(maxsize=1)
def _fit() -> tuple[Any, ...]:
    """The fitted numbers as the kernel takes them."""
    errors, exposures = survey()["errors"], survey()["exposures"]
    knots = errors["mag_knots"]
    return (
        float(knots[0]),
        float(knots[1] - knots[0]),
        np.array([errors["log_error_by_mag"][name] for name in FILTERS]),
        np.array(errors["scatter_by_mag"]),
        (
            exposures["detection_width"],
            exposures["flagged_scatter"],
            errors["spread_epoch"],
            errors["outlier_rate"],
            errors["outlier_bright"],
        ),
        np.array(errors["outlier_quantiles"]),
        np.array(exposures["other_flags"], dtype=np.int32),
        np.cumsum(exposures["other_flags_rate"]),
        _SN_FADING,
    )


# --------------------------------------------------------------------------------------------- a partition

EPOCH_COLUMNS = {
    "hmjd": pa.float64(),
    "mag": pa.float32(),
    "magerr": pa.float32(),
    "clrcoeff": pa.float32(),
    "catflags": pa.int32(),
}
TRUTH = pa.schema(
    [
        ("objectid", pa.int64()),
        ("label", pa.string()),
        ("period", pa.float64()),
        ("amplitude", pa.float32()),
    ]
)


class _Rows(NamedTuple):
    """The light curves of a partition, sorted by `_healpix_29`, without their epochs."""

    healpix: np.ndarray
    objectid: np.ndarray
    filterid: np.ndarray
    cell: np.ndarray  # pixel of CELL_ORDER
    ra: np.ndarray  # degrees, float32
    dec: np.ndarray
    mag: np.ndarray  # mean in its filter, mag
    quota: np.ndarray  # epochs of one that hardly recurs; −1 of the others
    label: np.ndarray  # index into LABELS
    scale: np.ndarray  # of the amplitude, in its filter
    shape: np.ndarray
    params: np.ndarray


def schema(layout: str) -> pa.Schema:
    """The columns of a release in the layout `nested` or `list`."""
    epochs = {name: pa.list_(kind) for name, kind in EPOCH_COLUMNS.items()}
    filterid = pa.int8() if layout == "nested" else pa.int16()
    row = {
        "_healpix_29": pa.int64(),
        "objectid": pa.int64(),
        "filterid": filterid,
        "fieldid": pa.int16(),
        "rcid": pa.int16(),
        "objra": pa.float32(),
        "objdec": pa.float32(),
        "nepochs": pa.int32(),
    }
    columns = {"lightcurve": pa.struct(epochs)} if layout == "nested" else epochs
    return pa.schema(row | columns)


def _write_partition(task: _Task) -> int:
    """Write one partition and its truth, a row group a chunk; returns the number of epochs."""
    rng = _rng(task.seed, _PARTITION, task.order, task.pixel)
    rows = _draw_rows(rng, task)
    task.path.parent.mkdir(parents=True, exist_ok=True)
    columns, epochs = schema(task.layout), 0
    with pq.ParquetWriter(
        task.path, columns, compression="zstd", compression_level=3, use_dictionary=_repeating(task.layout)
    ) as writer:
        for start, stop, exposures, first, end in _chunks(task.seed, rows):
            table, written = _chunk(rng, task.layout, rows, slice(start, stop), exposures, first, end)
            writer.write_table(table, row_group_size=stop - start)
            epochs += written
    _write_truth(task, rows)
    return epochs


def _repeating(layout: str) -> list[str]:
    """The columns worth a dictionary: what an exposure or a field shares. Magnitudes hardly repeat."""
    inside = "lightcurve." if layout == "nested" else ""
    shared = [f"{inside}{name}.list.element" for name in ("hmjd", "clrcoeff", "catflags")]
    return [*shared, "filterid", "fieldid", "rcid"]


def _draw_rows(rng: np.random.Generator, task: _Task) -> _Rows:
    """Stars with their filters, cut at the last row that is wanted, and sorted by `_healpix_29`."""
    share = np.array(FILTER_SET_SHARE)
    which = rng.choice(len(share), size=task.rows, p=share / share.sum())
    sizes = np.array([len(each) for each in FILTER_SETS])[which]
    star = np.repeat(np.arange(task.rows), sizes)[: task.rows]
    number = np.arange(task.rows) - (np.cumsum(sizes) - sizes)[star]
    table = np.array([(*each, 0, 0)[:3] for each in FILTER_SETS])
    filterid = table[which[star], number]
    stars = int(star[-1]) + 1
    cell, ra, dec = _positions(rng, task, (np.cumsum(sizes) - sizes)[:stars])
    label, shape, params = _draw_variables(rng, task.variable_fraction, stars)
    mag = _draw_magnitudes(rng, label > 0, stars)[star, filterid - 1]
    ra, dec, index = _astrometry(rng, ra[star], dec[star])
    few = rng.random(task.rows) < FEW_FRACTION
    fit = survey()["stars"]
    quota = np.where(few, np.rint(_draw(rng, fit["few_epochs_quantiles"], task.rows)), -1).astype(np.int64)
    mag = np.where(few, _draw(rng, fit["few_mag_quantiles"], task.rows), mag)
    scale = np.array([(1.0, *REDDER[name]) for name in LABELS])[label[star], filterid - 1]
    order = np.argsort(index, kind="stable")
    cell, filterid, star = cell[star][order], filterid[order], star[order]
    return _Rows(
        index[order],
        _objectids(task, cell, filterid),
        filterid,
        cell,
        ra[order],
        dec[order],
        mag[order],
        quota[order],
        label[star],
        scale[order],
        shape[star],
        params[star],
    )


def _positions(rng: np.random.Generator, task: _Task, first: np.ndarray) -> tuple[np.ndarray, ...]:
    """Pixel of CELL_ORDER, ra and dec (degrees) of stars, given the number of the first row of each."""
    if task.order <= CELL_ORDER:
        cells = 4 ** (CELL_ORDER - task.order)
        numbers = np.arange(task.pixel * cells, (task.pixel + 1) * cells)
        inner = np.repeat(numbers, _cell_counts(task.seed, task.n)[numbers])[first]
        order, cell = CELL_ORDER, inner
    else:
        order, inner = task.order, np.full(len(first), task.pixel)
        cell = inner >> (2 * (task.order - CELL_ORDER))
    # Stay 0.6″ inside: float32 positions and the scatter between filters must not leave the pixel.
    margin = max(1e-3, 0.6 / (58.6 * 3600 / 2**order))
    deeper = 29 - order
    x, y = ((margin + (1 - 2 * margin) * rng.random((2, len(first)))) * 2**deeper).astype(np.int64)
    index = (inner << (2 * deeper)) + _interleave(x, y)
    lon, lat = healpix.healpix_to_lonlat(index, 29, num_threads=1)
    return cell, lon.to_value("deg"), lat.to_value("deg")


def _interleave(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Place within a pixel in the NESTED ordering: the bits of x at the even, of y at the odd places."""
    place = np.zeros_like(x)
    for bit in range(29):
        place |= (((x >> bit) & 1) << (2 * bit)) | (((y >> bit) & 1) << (2 * bit + 1))
    return place


def _astrometry(
    rng: np.random.Generator, ra: np.ndarray, dec: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions as measured in one filter, 0.05″ from the star, as float32, and their `_healpix_29`."""
    off = np.clip(rng.normal(0, 0.05 / 3600, (2, len(ra))), -0.2 / 3600, 0.2 / 3600)
    ra = ((ra + off[0] / np.maximum(np.cos(np.radians(dec)), 1e-3)) % 360).astype(np.float32)
    dec = np.clip(dec + off[1], -90, 90).astype(np.float32)
    lon, lat = Longitude(ra.astype(float), u.deg), Latitude(dec.astype(float), u.deg)
    return ra, dec, healpix.lonlat_to_healpix(lon, lat, 29, num_threads=1).astype(np.int64)


def _objectids(task: _Task, cell: np.ndarray, filterid: np.ndarray) -> np.ndarray:
    """ZTF's object ids: field, filter, CCD, quadrant, and eight digits that count within them.

    Partitions finer than a readout channel share its numbers out between them.
    """
    finer = max(task.order - CELL_ORDER, 0)
    start = (task.pixel % 4**finer) * (10**8 // 4**finer)
    count = np.arange(len(cell)) - np.searchsorted(cell, cell) + 1 + start
    field, channel = FIRST_FIELD + (cell >> 6), cell & 63
    return (((field * 10 + filterid) * 100 + channel // 4 + 1) * 10 + channel % 4 + 1) * 10**8 + count


def _draw_variables(
    rng: np.random.Generator, fraction: float, n: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Label, shape and parameters of `n` stars, of which about `fraction` vary."""
    share = np.array(list(CLASSES.values()))
    varies = rng.random(n) < fraction
    label = np.where(varies, 1 + rng.choice(len(share), size=n, p=share / share.sum()), 0)
    shape, params = np.zeros(n, np.int64), np.zeros((n, PARAMETERS))
    params[:, PERIOD] = np.nan
    for number, name in enumerate(LABELS[1:], start=1):
        mine = np.flatnonzero(label == number)
        drawn = DRAW[name](rng, len(mine))
        shape[mine] = drawn.shape
        params[mine, PERIOD], params[mine, AMPLITUDE] = drawn.period, drawn.amplitude
        params[mine, EPOCH] = rng.uniform(0, NIGHTS, len(mine))
        params[mine, REST:] = drawn.rest
    return label, shape, params


def _draw_magnitudes(rng: np.random.Generator, varies: np.ndarray, n: int) -> np.ndarray:
    """n × 3 mean magnitudes in g, r, i; variables not among the faintest fifth, where none would be known."""
    rank = rng.random(n) * np.where(varies, 0.8, 1.0)
    quantiles = survey()["stars"]["mag_quantiles"]
    g = np.interp(rank, np.linspace(0, 1, len(quantiles)), quantiles)
    r = g - _near(rng, 0.6, 0.35, -0.2, 1.5, n)
    i = r - _near(rng, 0.2, 0.12, -0.1, 0.8, n)
    return np.maximum(np.column_stack([g, r, i]), SATURATION + 0.3)


def _chunks(seed: int, rows: _Rows) -> Iterator[tuple[int, int, _Exposures, np.ndarray, np.ndarray]]:
    """Slices of the rows, each with the exposures of its fields, at most EPOCHS_A_CHUNK rows × exposures."""
    field = rows.cell >> (2 * (CELL_ORDER - FIELD_ORDER))
    key = field * 4 + rows.filterid
    keys, which = np.unique(key, return_inverse=True)
    lengths = np.array([len(_exposures(seed, int(k) // 4, int(k) % 4).t) for k in keys])[which]
    chunk = np.cumsum(lengths) // EPOCHS_A_CHUNK
    edges = [0, *(np.flatnonzero(np.diff(chunk)) + 1), len(key)]
    for start, stop in pairwise(edges):
        used, place = np.unique(key[start:stop], return_inverse=True)
        each = [_exposures(seed, int(k) // 4, int(k) % 4) for k in used]
        ends = np.cumsum([len(one.t) for one in each])
        first = np.array([0, *ends[:-1]])[place]
        yield start, stop, _Exposures(*map(np.concatenate, zip(*each, strict=True))), first, ends[place]


def _chunk(
    rng: np.random.Generator,
    layout: str,
    rows: _Rows,
    part: slice,
    exposures: _Exposures,
    first: np.ndarray,
    end: np.ndarray,
) -> tuple[pa.Table, int]:
    """The table of some rows, and its number of epochs."""
    quota = np.minimum(rows.quota[part], end - first)
    space = int((end - first).sum())
    out = tuple(np.empty(space, kind.to_pandas_dtype()) for kind in EPOCH_COLUMNS.values())
    stars = (rows.shape[part], rows.params[part], rows.mag[part], rows.scale[part], rows.filterid[part])
    counts = _observe(rng, (*stars, quota, first, end), tuple(exposures), _fit(), out)
    written = int(counts.sum())
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    lists = [pa.ListArray.from_arrays(offsets, pa.array(values[:written])) for values in out]
    columns = schema(layout)
    row = [
        rows.healpix[part],
        rows.objectid[part],
        rows.filterid[part],
        FIRST_FIELD + (rows.cell[part] >> 6),
        rows.cell[part] & 63,
        rows.ra[part],
        rows.dec[part],
        counts,
    ]
    epochs = [pa.StructArray.from_arrays(lists, list(EPOCH_COLUMNS))] if layout == "nested" else lists
    arrays = [pa.array(values).cast(kind) for values, kind in zip(row, columns.types, strict=False)]
    return pa.Table.from_arrays([*arrays, *epochs], schema=columns), written


def _write_truth(task: _Task, rows: _Rows) -> None:
    varies = rows.label > 0
    labels = pa.DictionaryArray.from_arrays(rows.label.astype(np.int32), list(LABELS)).cast(pa.string())
    arrays = [
        pa.array(rows.objectid),
        labels,
        pa.array(rows.params[:, PERIOD], mask=np.isnan(rows.params[:, PERIOD])),
        pa.array(np.where(varies, rows.params[:, AMPLITUDE], 0).astype(np.float32)),
    ]
    pq.write_table(pa.Table.from_arrays(arrays, schema=TRUTH), task.truth, compression="zstd")
