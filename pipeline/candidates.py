"""What tells a star's period from its aliases: one row of numbers for each candidate of the period search.

A power spectrum of nightly epochs repeats itself at whole cycles a day, and a binary's highest peak is at half its
period: which candidate is right shows in how much better it fits than its relatives, how near it is to the day, and
whether the folded curve looks like that of a star. `models/choice` learns from these rows.
"""

# mypy: ignore-errors
# (kernels are written in Numba's language, which mypy does not know)

from __future__ import annotations

import numpy as np
from numba import njit

from lightmill.pipeline.features import index_of
from lightmill.pipeline.period import FITTED, Periods

__all__ = ["COLUMNS", "ordered", "table"]

DAYS = (1.0, 0.9972695663)  #: solar and sidereal [d]
MULTIPLES = {"half": 0.5, "double": 2.0, "third": 1 / 3, "triple": 3.0}  #: of the frequency: its relatives
SHIFTS = (1.0, -1.0, 2.0, -2.0, 0.5, -0.5)  #: aliases, in cycles a day; a negative frequency is its positive
NEAR, NEAR_ALIAS = 1.2, 2.0  #: a relative is at most so many 1/T away
PHASES = 32  #: at which the fitted curve is looked at
REST = 1e-6  #: of the variance is never explained, see `period_fit`
SHORT = 1e-9  #: [d], in place of no baseline at all

CANDIDATE = (
    "log_frequency",  #: log10 of it [1/d]
    "log_cycles",  #: log10 of the cycles in the baseline
    "from_day",  #: distance to the nearest whole number of cycles a day
    "from_day_resolved",  #: log10 of that in units of 1/T (plus 0.01)
    "from_sidereal_day",  #: the same of cycles a sidereal day
    "from_sidereal_day_resolved",
    "from_half_day",  #: distance of twice the frequency to the nearest whole number of cycles a day
    "rank",  #: of `period_fit`
    "rank_behind",  #: rank of the first less its own
    "place",  #: 0 for the first
    *(f"r2_{h}" for h in (1, 2, 3, 4, 6)),  #: R² of so many harmonics
    *(f"share_{h}" for h in (1, 2, 4, 6)),  #: gain, −ln(1 − R²), over the largest of all candidates
    "gain_2_1",  #: gain of two harmonics over that of one
    "gain_4_2",
    "gain_6_4",
    "power",  #: Lomb-Scargle's
    "power_share",  #: over the largest of all candidates
    "log_rest",  #: log10 of reduced χ² times 1 − R²_6
    *(f"relative_{name}" for name in MULTIPLES),  #: gain of 4 harmonics there, over its own
    *(f"alias_{shift:+.1f}" for shift in SHIFTS),
    "share_amplitude_2",  #: A_2 / (A_1 + A_2), of the fitted curve
    "share_amplitude_3",
    "share_amplitude_4",
    "cos_phase_2",  #: of φ_2 − 2 φ_1
    "sin_phase_2",
    "cos_phase_3",
    "sin_phase_3",
    "cos_phase_4",
    "sin_phase_4",
    "log_range",  #: log10 of highest less lowest of the fitted curve [mag]
    "asymmetry",  #: (highest + lowest) / (highest − lowest): −1 and 1 for narrow maxima and minima
    "odd",  #: share of odd harmonics in the variance of the fitted curve
    "log_n",  #: log10 of the epochs
    "log_baseline",  #: log10 of days
    "best_gain_1",  #: largest of all candidates
    "best_gain_6",
)

WITHOUT_PERIOD = (
    "mean_minus_median", "std", "mad", "iqr", "amplitude", "magerr_median", "mad_over_err", "iqr_over_err",
    "reduced_chi2", "excess_variance", "eta", "eta_weighted", "stetson_j", "stetson_k", "skew", "kurtosis", "range_20",
    "range_50", "range_80", "bright_skew", "max_slope", "longest_run", "trend_sigma", "outliers", "outlier_size",
    "brighter_3sigma", "fainter_3sigma", "nightly",
)  # fmt: skip
"""Statistics of the light curve, the same in all its rows: what they know without a period."""

COLUMNS: tuple[str, ...] = (*CANDIDATE, *WITHOUT_PERIOD)


def table(found: Periods, statistics: np.ndarray, considered: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the first `considered` candidates of n light curves.

    Parameters
    ----------
    found : of `period.search`
    statistics : (n, len(features.STATISTICS)) float64, of the same light curves

    Returns
    -------
    rows : (k, len(COLUMNS)) float32; NaN where a relative is no candidate
    known : (n, considered) bool, k of them true: whose rows they are, in this order

    Raises
    ------
    ValueError
        if the numbers of light curves differ.
    """
    if len(statistics) != len(found.candidates):
        raise ValueError(
            f"statistics of {len(statistics)} light curves, periods of {len(found.candidates)}: must be equal"
        )
    of_star = {
        name: statistics[:, [index_of(name)]] for name in ("n", "baseline", "reduced_chi2", *WITHOUT_PERIOD)
    }
    frequency = found.candidates[:, :considered]
    known = np.isfinite(frequency)
    gain = -np.log(np.maximum(REST, 1 - found.explained[:, :considered]))
    best = np.where(known[..., None], gain, 0).max(axis=1, initial=0)[:, None]
    with np.errstate(
        divide="ignore", invalid="ignore"
    ):  # of places without a candidate, which are left out below
        columns = (
            _place(frequency, of_star["baseline"])
            | _fit(found, considered, gain, best, of_star["reduced_chi2"])
            | _relatives(frequency, gain[:, :, 3], of_star["baseline"])
            | _curve(found.wave[:, :considered])
            | {"log_n": np.log10(of_star["n"]), "log_baseline": np.log10(of_star["baseline"])}
            | {"best_gain_1": best[..., 0], "best_gain_6": best[..., 5]}
            | {name: of_star[name] for name in WITHOUT_PERIOD}
        )
    rows = np.empty((int(known.sum()), len(COLUMNS)), np.float32)
    for i, name in enumerate(COLUMNS):
        rows[:, i] = np.broadcast_to(columns[name], known.shape)[known]
    return rows, known


def _place(f: np.ndarray, baseline: np.ndarray) -> dict[str, np.ndarray]:
    """Where in the spectrum the candidates are; (n, c)."""
    day, sidereal = (np.abs(f * length - np.rint(f * length)) for length in DAYS)
    return {
        "log_frequency": np.log10(f),
        "log_cycles": np.log10(f * baseline),
        "from_day": day,
        "from_day_resolved": np.log10(day * baseline + 0.01),
        "from_sidereal_day": sidereal,
        "from_sidereal_day_resolved": np.log10(sidereal * baseline + 0.01),
        "from_half_day": np.abs(2 * f - np.rint(2 * f)),
    }


def _fit(
    found: Periods, considered: int, gain: np.ndarray, best: np.ndarray, chi2: np.ndarray
) -> dict[str, np.ndarray]:
    """How well each fits, by itself and beside the others; (n, c)."""
    rank, power = found.rank[:, :considered], found.power[:, :considered]
    r2 = found.explained[:, :considered]
    least = np.maximum(gain, REST)
    return {
        "rank": rank,
        "rank_behind": rank[:, :1] - rank,
        "place": np.arange(considered)[None],
        **{f"r2_{h}": r2[:, :, h - 1] for h in (1, 2, 3, 4, 6)},
        **{f"share_{h}": (gain / np.maximum(best, REST))[:, :, h - 1] for h in (1, 2, 4, 6)},
        "gain_2_1": gain[:, :, 1] / least[:, :, 0],
        "gain_4_2": gain[:, :, 3] / least[:, :, 1],
        "gain_6_4": gain[:, :, 5] / least[:, :, 3],
        "power": power,
        "power_share": power / np.nan_to_num(power).max(axis=1, keepdims=True, initial=REST),
        "log_rest": np.log10(np.maximum(chi2 * (1 - r2[:, :, 5]), 1e-3)),
    }


def _relatives(f: np.ndarray, gain: np.ndarray, baseline: np.ndarray) -> dict[str, np.ndarray]:
    """Gain of the candidate next to a multiple or an alias of each, over its own; (n, c), NaN where there is none."""
    listed = np.nan_to_num(f, nan=-np.inf)
    targets = {f"relative_{name}": (f * multiple, NEAR) for name, multiple in MULTIPLES.items()} | {
        f"alias_{shift:+.1f}": (np.abs(f + shift), NEAR_ALIAS) for shift in SHIFTS
    }
    found = {}
    for name, (target, near) in targets.items():
        at = np.empty(f.shape, np.int64)
        _nearest(target, near / np.maximum(baseline[:, 0], SHORT), listed, at)
        there = np.take_along_axis(gain, np.maximum(at, 0), axis=1)
        found[name] = np.where(at >= 0, there / np.maximum(gain, REST), np.nan)
    return found


def _curve(wave: np.ndarray) -> dict[str, np.ndarray]:
    """Shape of the fitted curves, of (n, c, 2 · FITTED) coefficients; (n, c)."""
    z = wave[..., ::2] - 1j * wave[..., 1::2]
    amplitude, phase = np.abs(z), np.angle(z)
    turn = np.exp(2j * np.pi * np.outer(np.arange(1, FITTED + 1), np.arange(PHASES) / PHASES))
    values = (z @ turn).real
    high, low = values.max(axis=-1, initial=-np.inf), values.min(axis=-1, initial=np.inf)
    extent = np.maximum(high - low, 1e-4)
    square = amplitude**2
    shares = {
        f"share_amplitude_{h + 1}": amplitude[..., h]
        / np.maximum(amplitude[..., 0] + amplitude[..., h], REST)
        for h in range(1, FITTED)
    }
    behind = {h + 1: phase[..., h] - (h + 1) * phase[..., 0] for h in range(1, FITTED)}
    return {
        **shares,
        **{f"cos_phase_{h}": np.cos(difference) for h, difference in behind.items()},
        **{f"sin_phase_{h}": np.sin(difference) for h, difference in behind.items()},
        "log_range": np.log10(extent),
        "asymmetry": (high + low) / extent,
        "odd": square[..., ::2].sum(axis=-1) / np.maximum(square.sum(axis=-1), REST**2),
    }


def ordered(frequency: np.ndarray, probability: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """Candidates in the order in which they should be believed.

    A candidate's family is itself, its half and its double. The family with the highest sum of probabilities comes
    first: so a binary, whose probability is shared by P and P/2, is not lost to an alias that has its own to itself.
    Within it, and after the first, the most probable candidate leads.

    Parameters
    ----------
    frequency, probability : (n, c) float64 [1/d] and float; NaN where there is no candidate
    baseline : (n,) float64 [d]

    Returns
    -------
    (n, c) int64; those that are no candidates last
    """
    order = np.empty(frequency.shape, np.int64)
    known = np.where(np.isfinite(frequency), probability, -1.0)
    _ordered(np.nan_to_num(frequency, nan=-1.0), known, NEAR / np.maximum(baseline, SHORT), order)
    return order


# nogil: threads may work side by side
_jit = njit(nogil=True, cache=True, error_model="numpy")


@_jit
def _nearest(target, within, frequency, at):
    """Which candidate of the same star is nearest to each target, −1 where none is that near; (n, c) into `at`."""
    for i in range(target.shape[0]):
        for c in range(target.shape[1]):
            at[i, c] = _near(target[i, c], within[i], frequency[i])


@_jit
def _near(target, within, frequency):
    found = -1
    for c in range(frequency.size):
        distance = abs(frequency[c] - target)
        if distance < within:
            within, found = distance, c
    return found


@_jit
def _ordered(frequency, probability, near, order):
    for i in range(frequency.shape[0]):
        f, p, own = frequency[i], probability[i], order[i]
        best, first = -1.0, 0
        for c in range(f.size):
            if p[c] < 0.0:
                continue
            family, leader = p[c], c
            for multiple in (0.5, 2.0):
                relative = _near(f[c] * multiple, near[i], f)
                if relative >= 0:
                    family += p[relative]
                    if p[relative] > p[leader]:
                        leader = relative
            if family > best:
                best, first = family, leader
        own[0], at = first, 1
        for c in np.argsort(-p, kind="mergesort"):
            if c != first:
                own[at] = c
                at += 1
