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
RELATIVES = (0.5, 2.0, 1 / 3, 3.0)  #: multiples of the frequency at which a relative is looked for
SHIFTS = (1.0, -1.0, 2.0, -2.0, 0.5, -0.5)  #: aliases, in cycles a day; a negative frequency is its positive
NEAR, NEAR_ALIAS = 1.2, 2.0  #: a relative is at most so many 1/T away
PHASES = 32  #: at which the fitted curve is looked at
REST = 1e-6

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
    *(
        f"relative_{name}" for name in ("half", "double", "third", "triple")
    ),  #: gain of 4 harmonics there, over its own
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
    frequency = found.candidates[:, :considered]
    known = np.isfinite(frequency)
    rows = np.empty((int(known.sum()), len(COLUMNS)), np.float32)
    angle = 2 * np.pi * np.outer(np.arange(1, FITTED + 1), np.arange(PHASES) / PHASES)
    of_curve = [
        np.ascontiguousarray(statistics[:, index_of(name)]) for name in ("n", "baseline", "reduced_chi2")
    ]
    _table(
        frequency, known.sum(axis=1), found.rank, found.explained, found.power, found.wave, *of_curve,
        statistics[:, [index_of(name) for name in WITHOUT_PERIOD]], np.cos(angle), np.sin(angle), rows,
    )  # fmt: skip
    return rows, known


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
    _ordered(np.nan_to_num(frequency, nan=-1.0), known, NEAR / np.maximum(baseline, 1e-9), order)
    return order


# nogil: threads may work side by side
_jit = njit(nogil=True, cache=True, error_model="numpy")


@_jit
def _table(frequency, count, rank, explained, power, wave, n, baseline, chi2, of_curve, cosine, sine, rows):
    at = 0
    gain = np.empty(explained.shape[1:])
    for i in range(count.size):
        k = count[i]
        if k == 0:
            continue
        for c in range(k):
            for h in range(gain.shape[1]):
                gain[c, h] = -np.log(max(REST, 1.0 - explained[i, c, h]))
        best = np.zeros(gain.shape[1])
        for c in range(k):
            for h in range(gain.shape[1]):
                best[h] = max(best[h], gain[c, h])
        highest = np.max(power[i, :k])
        for c in range(k):
            row = rows[at]
            at += 1
            f, r2, g = frequency[i, c], explained[i, c], gain[c]
            q = 0
            row[q] = np.log10(f)
            row[q + 1] = np.log10(f * baseline[i])
            q += 2
            for day in DAYS:
                x = abs(f * day - np.rint(f * day))
                row[q], row[q + 1] = x, np.log10(x * baseline[i] + 0.01)
                q += 2
            row[q] = abs(2 * f - np.rint(2 * f))
            row[q + 1], row[q + 2], row[q + 3] = rank[i, c], rank[i, 0] - rank[i, c], c
            q += 4
            for h in (1, 2, 3, 4, 6):
                row[q] = r2[h - 1]
                q += 1
            for h in (1, 2, 4, 6):
                row[q] = g[h - 1] / max(best[h - 1], REST)
                q += 1
            row[q], row[q + 1], row[q + 2] = (
                g[1] / max(g[0], REST),
                g[3] / max(g[1], REST),
                g[5] / max(g[3], REST),
            )
            row[q + 3], row[q + 4] = power[i, c], power[i, c] / highest
            row[q + 5] = np.log10(max(chi2[i] * (1.0 - r2[5]), 1e-3))
            q += 6
            for multiple in RELATIVES:
                row[q] = _gain_near(f * multiple, NEAR / baseline[i], frequency[i, :k], gain) / max(
                    g[3], REST
                )
                q += 1
            for shift in SHIFTS:
                row[q] = _gain_near(abs(f + shift), NEAR_ALIAS / baseline[i], frequency[i, :k], gain) / max(
                    g[3], REST
                )
                q += 1
            q = _curve(wave[i, c], cosine, sine, row, q)
            row[q], row[q + 1], row[q + 2], row[q + 3] = (
                np.log10(n[i]),
                np.log10(baseline[i]),
                best[0],
                best[5],
            )
            q += 4
            for j in range(of_curve.shape[1]):
                row[q + j] = of_curve[i, j]


@_jit
def _nearest(target, within, frequency):
    """The candidate nearest to `target`, −1 if none is that near."""
    found = -1
    for c in range(frequency.size):
        distance = abs(frequency[c] - target)
        if distance < within:
            within, found = distance, c
    return found


@_jit
def _gain_near(target, within, frequency, gain):
    """Gain of four harmonics at the candidate nearest to `target`; NaN if there is none within that distance."""
    found = _nearest(target, within, frequency)
    return gain[found, 3] if found >= 0 else np.nan


@_jit
def _curve(wave, cosine, sine, row, q):
    """Shape of the fitted curve, four harmonics; returns the next free column."""
    amplitude, phase = np.empty(FITTED), np.empty(FITTED)
    for h in range(FITTED):
        amplitude[h] = np.hypot(wave[2 * h], wave[2 * h + 1])
        phase[h] = np.arctan2(-wave[2 * h + 1], wave[2 * h])
    for h in range(1, FITTED):
        row[q] = amplitude[h] / max(amplitude[0] + amplitude[h], REST)
        q += 1
    for h in range(1, FITTED):
        difference = phase[h] - (h + 1) * phase[0]
        row[q], row[q + 1] = np.cos(difference), np.sin(difference)
        q += 2
    high, low, total, odd = -np.inf, np.inf, 0.0, 0.0
    for p in range(cosine.shape[1]):
        value = 0.0
        for h in range(FITTED):
            value += wave[2 * h] * cosine[h, p] + wave[2 * h + 1] * sine[h, p]
        high, low = max(high, value), min(low, value)
    for h in range(FITTED):
        total += amplitude[h] ** 2
        odd += amplitude[h] ** 2 * (h % 2 == 0)
    row[q] = np.log10(max(high - low, 1e-4))
    row[q + 1] = (high + low) / max(high - low, 1e-4)
    row[q + 2] = odd / max(total, REST**2)
    return q + 3


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
                relative = _nearest(f[c] * multiple, near[i], f)
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
