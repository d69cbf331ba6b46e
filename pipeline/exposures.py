"""What a survey gives a field: nights, visits, depth and flags, as measured on real ZTF files (`fit_survey`)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from lightmill.pipeline import palomar
from lightmill.pipeline.draws import Purpose, at_share, choose, from_quantiles, stream
from lightmill.pipeline.sky import FIELD_ORDER, centre
from lightmill.pipeline.survey import FILTERS, NIGHTS, START, survey

# Share of the fitted nights that a field gets, chosen so that a lasting star has about 200 good epochs in the
# median: the fitted fields are those of bright transients.
PACE = 0.58

IN_A_CHUNK = 2_000_000  # exposures looked at between two row groups: about 100 MB


class Exposures(NamedTuple):
    """The exposures of one field in one filter, sorted by time; or those of several, one after the other."""

    t: np.ndarray  # MJD, d, float64
    depth: np.ndarray  # limiting magnitude, mag
    clrcoeff: np.ndarray  # colour coefficient of the calibration
    log_error: np.ndarray  # ln of what the exposure multiplies every error by
    flagged: np.ndarray  # bool


@lru_cache(maxsize=256)  # above the 192 of a partition of order 0: 64 fields, 3 filters
def exposures(seed: int, field: int, filterid: int) -> Exposures:
    """What a field (pixel of FIELD_ORDER) gets in a filter over the whole survey; one exposure at least."""
    rng, name, fit = (
        stream(seed, Purpose.FIELD, field, filterid),
        FILTERS[filterid - 1],
        survey()["exposures"],
    )
    t, night = _visits(rng, _nights(rng, seed, name), field)
    if not len(t):
        t, night = np.array([START + 0.5 * NIGHTS + 0.3]), np.zeros(1)
    # Exposures of one night share most of their seeing and sky: a common and an own normal deviate.
    which = np.cumsum(np.diff(night, prepend=night[0]) > 0)
    quality = ndtr(0.8 * rng.standard_normal(which[-1] + 1)[which] + 0.6 * rng.standard_normal(len(t)))
    return Exposures(
        t,
        at_share(fit["depth_quantiles"][name], quality),
        rng.normal(fit["clrcoeff_mean"][name], fit["clrcoeff_sd"][name], len(t)),
        rng.normal(0, survey()["errors"]["spread_exposure"], len(t)),
        rng.random(len(t)) < fit["flagged"],
    )


@lru_cache(maxsize=4)
def _clear_nights(seed: int) -> np.ndarray:
    """The nights (MJD, int64) on which the dome opened: bad weather lasts three nights on average."""
    rng, clear = stream(seed, Purpose.WEATHER), survey()["cadence"]["clear_nights"]
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
    planned = START + rng.integers(0, 10) + np.cumsum(np.rint(from_quantiles(rng, tier, NIGHTS)))
    # The gaps were measured with their weather: what falls on a closed night is made up on the next one.
    night = np.unique(clear[np.minimum(np.searchsorted(clear, planned), len(clear) - 1)])
    moon = np.array(fit["moon"][name])
    tenth = (palomar.lunation(night) * len(moon)).astype(int)
    return night[rng.random(len(night)) < PACE * moon[tenth] / moon.mean()]


@lru_cache(maxsize=1)
def _fields() -> tuple[np.ndarray, np.ndarray]:
    """Right ascension and declination (degrees) of the centres of all fields."""
    return centre(FIELD_ORDER, np.arange(12 << (2 * FIELD_ORDER)))


def _visits(rng: np.random.Generator, night: np.ndarray, field: int) -> tuple[np.ndarray, np.ndarray]:
    """Times (MJD) of the exposures of these nights and the night of each; nights out of season have none."""
    fit = survey()["cadence"]
    ra, dec = (float(value[field]) for value in _fields())
    culmination, low, high = palomar.window(night, ra, dec)
    in_season = high - low > 0.3
    night, culmination, low, high = (each[in_season] for each in (night, culmination, low, high))
    angle = _hour_angles(rng, low, high)
    visits = 1 + choose(rng, fit["visits"], len(night))
    first = np.cumsum(visits) - visits
    pause = from_quantiles(rng, fit["revisit_quantiles"], int(visits.sum()))
    pause[first] = 0
    elapsed = np.cumsum(pause)
    elapsed -= np.repeat(elapsed[first], visits)
    t = np.repeat(culmination + angle / 24 * palomar.SIDEREAL_DAY, visits) + elapsed
    before_dawn = np.repeat(angle, visits) + 24 * elapsed <= np.repeat(high, visits)
    t, night = t[before_dawn], np.repeat(night, visits)[before_dawn]
    order = np.argsort(t, kind="stable")
    return t[order], night[order]


def _hour_angles(rng: np.random.Generator, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Hour angles (h) of first exposures, between two each, as they were measured there."""
    quantiles = survey()["cadence"]["hour_angle_quantiles"]
    levels = np.linspace(0, 1, len(quantiles))
    below, above = np.interp(low, quantiles, levels), np.interp(high, quantiles, levels)
    return np.clip(at_share(quantiles, below + (above - below) * rng.random(len(low))), low, high)


class Chunk(NamedTuple):
    """Rows whose exposures fit into memory together."""

    part: slice  # of the rows
    exposures: Exposures
    first: np.ndarray  # index of the first exposure of each row
    end: np.ndarray  # and one beyond its last


def in_chunks(seed: int, field: np.ndarray, filterid: np.ndarray) -> Iterator[Chunk]:
    """All rows, in slices of at most about IN_A_CHUNK rows × exposures, with the exposures of their fields."""
    key = field * 4 + filterid
    keys, which = np.unique(key, return_inverse=True)
    lengths = np.array([len(exposures(seed, int(k) // 4, int(k) % 4).t) for k in keys])[which]
    chunk = np.cumsum(lengths) // IN_A_CHUNK
    for start, stop in pairwise([0, *(np.flatnonzero(np.diff(chunk)) + 1), len(key)]):
        used, place = np.unique(key[start:stop], return_inverse=True)
        each = [exposures(seed, int(k) // 4, int(k) % 4) for k in used]
        ends = np.cumsum([len(one.t) for one in each])
        first = np.array([0, *ends[:-1]])[place]
        together = Exposures(*map(np.concatenate, zip(*each, strict=True)))
        yield Chunk(slice(int(start), int(stop)), together, first, ends[place])
