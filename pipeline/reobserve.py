"""Re-observing: labelled stars of one survey as another would have seen them, with its real epochs, errors and faults.

A star's variability is a smooth, mean-free model fitted to its own light curve (`fit_star`): a harmonic series at the
catalogue period, its order chosen by the Bayesian information criterion (Schwarz 1978), and for stars that
do more than repeat a slow term. `observe` takes a real constant star of the survey (a host) as it is, or a
real cadence with the residuals of real constant stars on it; `inject` adds the star's variability to that
and scales residuals and errors with the brightness. Errors of a release are a function of the measured magnitude (in
ZTF's files to a few thousandths): an injected star's must be the same one, or they betray it. Everything that is not
the star is the survey's, and is there with and without injection, so that a gate cannot tell the surveys apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lightmill.pipeline.hosts import Hosts

__all__ = ["ErrorCurve", "Observer", "Star", "fit_error_curve", "fit_star", "inject"]

ORDERS = (1, 2, 3, 4, 5, 6, 8, 10, 12)
"""Numbers of harmonics that are tried; 12 follow an eclipse of 0.04 in phase."""

RIDGE = 1e-2
"""Weight of Σ k⁴ |c_k|² / amplitude² in the fit: keeps high orders from ringing in gaps of phase."""

OVERSHOOT = 1.1
"""Largest range of a series, in ranges of the data: a series that runs away in a gap of phase is not the star's."""

KNOT_SPACING = 100.0
"""Days between the knots of the slow term: shorter than a season, longer than the noise of a few nights."""

ERROR_BIN = 0.1  # mag; the errors of a star of 0.2 mag follow the curve within it
FEWEST_IN_BIN = 30
FAINT_END = 0.5  # mag, over which the curve's last slope is taken

SMOOTHING = 0.2
"""Noise on residuals that are drawn again, in their standard deviations: equal ones would betray a made star."""


@dataclass(frozen=True)
class Star:
    """The variability of one star: a function of time with mean 0 over its own epochs."""

    frequency: float  #: [1/d]
    harmonics: np.ndarray  #: (k,) complex128 [mag]: Σ Re(c_j exp(2πi j f t))
    slow: np.ndarray  #: (m,) float64 [mag] at knots KNOT_SPACING apart, from t = 0; empty: none

    def at(self, t: np.ndarray, phase: float = 0.0, start: float = 0.0) -> np.ndarray:
        """Magnitude difference at times t [d]: phase is added to the cycle, start to the slow term's time."""
        turn = np.exp(2j * np.pi * (self.frequency * t + phase))
        powers = np.cumprod(np.broadcast_to(turn[:, None], (len(t), len(self.harmonics))), axis=1)
        value = (powers @ self.harmonics).real
        if len(self.slow):
            value = value + np.interp(start + t, KNOT_SPACING * np.arange(len(self.slow)), self.slow)
        return value

    def slack(self, baseline: float) -> float:
        """How much later [d] observations of this length may start within the slow term."""
        return max(0.0, KNOT_SPACING * (len(self.slow) - 1) - baseline)


def fit_star(t: np.ndarray, mag: np.ndarray, magerr: np.ndarray, period: float) -> Star:
    """Fit the variability of a star.

    Parameters
    ----------
    t, mag, magerr : (n,) float64 [d, mag, mag], clean
    period : [d]

    Raises
    ------
    ValueError
        if the period is not a positive number.
    """
    if not (np.isfinite(period) and period > 0):
        raise ValueError(f"a star needs a period > 0 d to be re-observed, got {period}")
    weight = 1.0 / (magerr**2 + np.median(magerr) ** 2 / 4)
    turn = 2 * np.pi * t / period
    design = np.ones((len(t), 1 + 2 * max(ORDERS)))
    for k in range(1, max(ORDERS) + 1):
        design[:, 2 * k - 1], design[:, 2 * k] = np.cos(k * turn), np.sin(k * turn)
    order = np.repeat(np.arange(max(ORDERS) + 1), [1] + [2] * max(ORDERS)).astype(np.float64)
    keep = np.ones(len(t), bool)
    for _ in range(2):  # once more without what lies far off
        coefficients = _best_series(design[keep], mag[keep], weight[keep], order)
        residual = mag - design[:, : len(coefficients)] @ coefficients
        scatter = 1.4826 * np.median(np.abs(residual[keep] - np.median(residual[keep])))
        keep = np.abs(residual) <= max(4 * scatter, 1e-6)
        if keep.sum() < len(t) / 2:
            keep[:] = True
    slow = _slow_term(t[keep], residual[keep], weight[keep])
    return Star(1.0 / period, coefficients[1::2] - 1j * coefficients[2::2], slow)


def _best_series(design: np.ndarray, mag: np.ndarray, weight: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Coefficients (constant, cos, sin, cos, …) of the order with the lowest BIC."""
    centre = np.average(mag, weights=weight)
    y = mag - centre
    spread = np.average(y**2, weights=weight)
    gram, right = design.T @ (weight[:, None] * design), design.T @ (weight * y)
    widest = OVERSHOOT * float(np.ptp(y))
    best, lowest = np.zeros(1), np.inf
    for k in ORDERS:
        p = 2 * k + 1
        if len(y) < 3 * p:
            break
        penalty = np.diag(RIDGE * order[:p] ** 4 / max(spread, 1e-8))
        c = np.linalg.solve(gram[:p, :p] + penalty, right[:p])
        bic = _bic(y - design[:, :p] @ c, weight, p)
        if bic < lowest and _range(c) <= widest:
            best, lowest = c, bic
    best[0] += centre
    return best


def _range(coefficients: np.ndarray) -> float:
    """Highest minus lowest value of a series over its cycle."""
    order = np.arange(1, len(coefficients) // 2 + 1)
    turns = np.exp(2j * np.pi * np.arange(256)[:, None] * order / 256)
    return float(np.ptp((turns @ (coefficients[1::2] - 1j * coefficients[2::2])).real))


def _slow_term(t: np.ndarray, residual: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Values at knots of the slow change that the series left, if the BIC says that there is one."""
    knots = int(t[-1] // KNOT_SPACING) + 2 if len(t) else 0
    if len(t) < 3 * knots:
        return np.empty(0)
    at = t / KNOT_SPACING
    left = at.astype(np.int64)
    design = np.zeros((len(t), knots))
    design[np.arange(len(t)), left] = 1 - (at - left)
    design[np.arange(len(t)), left + 1] = at - left
    bend = np.diff(np.eye(knots), n=2, axis=0)
    stiffness = bend.T @ bend + 0.1 * np.eye(knots)  # knots in a season's gap follow their neighbours
    values = np.linalg.solve(
        design.T @ (weight[:, None] * design) + np.median(weight) * stiffness, design.T @ (weight * residual)
    )
    model = design @ values
    if _bic(residual - model, weight, knots) >= _bic(residual, weight, 0):
        return np.empty(0)
    return values - np.average(model, weights=weight)


def _bic(residual: np.ndarray, weight: np.ndarray, parameters: int) -> float:
    """BIC with the scale of the errors unknown: n ln(mean weighted square) + p ln n."""
    n = len(residual)
    return float(n * np.log(np.average(residual**2, weights=weight) + 1e-12) + parameters * np.log(n))


@dataclass(frozen=True)
class ErrorCurve:
    """The usual error at a magnitude."""

    mag: np.ndarray  #: (k,) float64, increasing
    log_error: np.ndarray  #: (k,) float64, natural logarithm of mag

    def __call__(self, mag: np.ndarray) -> np.ndarray:
        """Error [mag] at magnitudes; constant beyond the bright end, along the last slope beyond the faint end."""
        first = max(0, min(int(np.searchsorted(self.mag, self.mag[-1] - FAINT_END)), len(self.mag) - 2))
        rise, width = self.log_error[-1] - self.log_error[first], self.mag[-1] - self.mag[first]
        slope = max(float(rise / width), 0.0) if width > 0 else 0.6
        inside = np.interp(mag, self.mag, self.log_error)
        return np.exp(inside + slope * np.maximum(np.asarray(mag) - self.mag[-1], 0.0))


def fit_error_curve(mag: np.ndarray, magerr: np.ndarray) -> ErrorCurve:
    """Medians of the error in bins of a tenth of a magnitude (with ≥ 30 epochs).

    Parameters
    ----------
    mag, magerr : (N,) float64, epochs of constant stars
    """
    bins = np.floor(mag / ERROR_BIN).astype(np.int64)
    numbers, counts = np.unique(bins, return_counts=True)
    used = numbers[counts >= FEWEST_IN_BIN] if (counts >= FEWEST_IN_BIN).any() else numbers
    medians = np.array([np.median(magerr[bins == number]) for number in used])
    return ErrorCurve((used + 0.5) * ERROR_BIN, np.log(medians))


def inject(
    mag: np.ndarray, magerr: np.ndarray, change: np.ndarray, limit: np.ndarray, curve: ErrorCurve
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Add a change of brightness to a constant star's light curve.

    Residuals from the median are scaled as the usual error scales with the true brightness; the error that is told
    follows the measured magnitude. Epochs at which the star falls below the exposure's limit are lost.

    Parameters
    ----------
    mag, magerr, change, limit : (n,) float64 [mag]

    Returns
    -------
    magnitude, error (both (n,)), and which epochs are seen (n,) bool

    Examples
    --------
    >>> flat = ErrorCurve(np.array([10.0, 20.0]), np.log([0.02, 0.02]))
    >>> inject(np.array([15.0, 15.1, 14.9]), np.full(3, 0.1), np.array([0.0, 0.5, 0.0]), np.full(3, 20.0), flat)[0]
    array([15. , 15.6, 14.9])
    """
    level = np.median(mag)
    new = level + change + (mag - level) * curve(level + change) / curve(np.array([level]))
    return new, magerr * curve(new) / curve(mag), new <= limit


class Observer:
    """Draws constant light curves from hosts: the same for what is to be variable and for what is not."""

    def __init__(self, hosts: Hosts, allowed: np.ndarray, curve: ErrorCurve, *, min_epochs: int) -> None:
        """
        Parameters
        ----------
        hosts : all of them
        allowed : (k,) integer, the hosts to draw from: those of the training folds, or of the test fold
        curve : of the survey
        min_epochs : that a light curve must have
        """
        self.hosts, self.curve, self.min_epochs = hosts, curve, min_epochs
        self.allowed = allowed
        self.stars = allowed[hosts.constant[allowed]]
        self.cadences = allowed[~hosts.constant[allowed]]
        if len(self.stars) == 0:
            raise ValueError(
                f"none of {len(allowed)} hosts is a constant star: use fewer folds or more survey files"
            )
        self.level = {i: float(np.median(hosts.one(i)[1])) for i in self.stars}
        self._quiet = self._quiet_stars()

    def _quiet_stars(self) -> np.ndarray:
        """The 97 % of the stars with the least excess scatter: residuals to be shuffled come from these."""
        excess = []
        for i in self.stars:
            _, mag, magerr = self.hosts.one(i)
            excess.append(np.mean(((mag - self.level[i]) / magerr) ** 2))
        return self.stars[np.array(excess) <= np.quantile(excess, 0.97)]

    def draw_host(self, rng: np.random.Generator) -> int:
        """A star or, as often, a cadence."""
        pool = self.cadences if len(self.cadences) and rng.random() < 0.5 else self.stars
        return int(rng.choice(pool))

    def thin(self, host: int, rng: np.random.Generator, *, windows: bool = True) -> np.ndarray:
        """Rows of a host's epochs: all, or in half of the draws a part of them, as an earlier or poorer release has.

        The part is a window in time or, always without `windows`, taken at random.
        """
        n = int(self.hosts.offsets[host + 1] - self.hosts.offsets[host])
        rows = np.arange(n)
        if n <= self.min_epochs or rng.random() < 0.5:
            return rows
        k = int(np.exp(rng.uniform(np.log(self.min_epochs), np.log(n))))
        if windows and rng.random() < 0.5:
            first = int(rng.integers(0, n - k + 1))
            return rows[first : first + k]
        return np.sort(rng.choice(rows, k, replace=False))

    def observe(
        self, host: int, rows: np.ndarray, rng: np.random.Generator, level: float | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """A constant star as the survey sees it on a host's epochs: time, magnitude, error, limit of the exposure.

        Parameters
        ----------
        host : its number
        rows : which of its epochs
        level : magnitude of the star on a cadence; None: that of a random star
        """
        t, mag, magerr = (values[rows] for values in self.hosts.one(host))
        limit = self.hosts.limits(host)[rows]
        if not self.hosts.constant[host]:
            mag, magerr = self._constant_on(mag, magerr, level, rng)
            seen = mag <= limit
            if seen.sum() < self.min_epochs:
                # too faint for the cadence: still constant, and whoever wants it brighter draws another host
                seen[:] = True
            t, mag, magerr, limit = t[seen], mag[seen], magerr[seen], limit[seen]
        return t - t[0], mag, magerr, limit

    def _constant_on(
        self, mag: np.ndarray, magerr: np.ndarray, level: float | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Residuals of one real constant star, drawn with replacement, with errors that follow each epoch's quality."""
        donor = int(rng.choice(self._quiet))
        _, own, own_error = self.hosts.one(donor)
        level = self.level[donor] if level is None else level
        quality = np.clip(magerr / self.curve(mag), 0.5, 3.0)
        # in units of the error at the star's true brightness: the one that is told follows the noise as well
        true_error = own_error / self.curve(own) * self.curve(np.array([self.level[donor]]))
        residual = (own - self.level[donor]) / true_error
        drawn = rng.choice(residual, len(mag)) + SMOOTHING * residual.std() * rng.standard_normal(len(mag))
        made = level + drawn / np.hypot(1.0, SMOOTHING) * quality * self.curve(np.array([level]))
        return made, quality * self.curve(made)
