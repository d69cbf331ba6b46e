"""Training the gate: stars and transients on a survey's hosts against the same hosts without them.

A variable whose variability cannot show (`SHOWS`) teaches nothing and is left out of what trees are trained on. Their
log-odds become probabilities by a sigmoid fitted out of fold, with variables counted as the share that a release has
(PRIOR_VARIABLE). The threshold is where the asked recall is reached; light curves of few epochs, of which no recall is
asked, have one of their own, where all real light curves together pass at the share PASS_RATE.

Real constants are constants here only with the epochs and on the hosts that variables have. As more negatives they look
like a gain (of those with ≥ 50 epochs 11 instead of 14 % pass), but it is none: half of the variables lie on cadences
that no real constant has, and trees learn those. At the same recall of variables on real stars as many pass as before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from lightmill.models import trees
from lightmill.models.calibration import fit_platt, platt
from lightmill.models.manifest import FewEpochs
from lightmill.models.metrics import area_under_curve
from lightmill.pipeline.examples import Curves, Drawn, Reobserved
from lightmill.pipeline.features import STATISTICS, index_of
from lightmill.pipeline.period import search

__all__ = ["GATE_COLUMNS", "PRIOR_VARIABLE", "SHOWS", "GateFit", "fit_gate", "vary_for_certain"]

NUISANCE = ("baseline", "mean", "magerr_median")
"""Statistics that the gate does not get: they say how a star was observed, not that it varies."""

GIVEN = ("n", "median")
"""Statistics of that kind that it gets, because they say how much scatter is significant: faint stars of ZTF have more
outliers than their errors tell. They do not tell the two sets apart, one by one or together (`controls` in the report);
of mean and median only one, because the difference of the two is a skewness."""

GATE_COLUMNS: tuple[str, ...] = tuple(name for name in STATISTICS if name not in NUISANCE)
"""What the gate gets."""

PRIOR_VARIABLE = 0.05
"""Share of variables that p_variable assumes. Published catalogues from ZTF list 0.7 % (g) to 2.6 % (r) of the light
curves; those variable at 0.05 mag are more."""

SHOWS = 1.0
"""χ² that an example's variability must add (`Drawn.excess`, in standard deviations) for trees to be trained on it.
`p_variable` is the chance of variability that shows: what nobody can tell from noise is not held for variable."""

CERTAIN_SCORE = 5.0
"""Score of the period search (−log10 of a false-alarm probability) from which a star of the survey varies for certain:
one of 100,000 light curves of white noise gets there."""

DRAWS = 6
"""Draws of each example that a gate is trained on."""

TESTS = 4
"""Draws that a gate is tested on: the one that the network is tested on too, and more, because the threshold lies where
few variables are."""

ROUNDS, DEPTH, LEARNING_RATE = 400, 4, 0.05
SENSIBLE_AMPLITUDE, SENSIBLE_EPOCHS = 0.1, 50
"""The recall that sets the threshold is that of variables with at least this amplitude [mag] and number of epochs."""

PASS_RATE = 0.1
"""Share of the survey's real light curves, all numbers of epochs together, that may pass: sets the threshold of those
with fewer epochs than SENSIBLE_EPOCHS."""

AMPLITUDES = (0.0, 0.05, 0.1, 0.2, 0.4, np.inf)
MAGNITUDES = (0.0, 15.0, 17.0, 18.0, 19.0, 20.0, np.inf)
EPOCHS = (20, 50, 100, 200, 500, np.inf)
EXCESSES = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, np.inf)
RECALLS = (0.9, 0.95, 0.97, 0.98, 0.99)
PASS_RATES = (0.05, 0.1, 0.2)


@dataclass(frozen=True)
class GateFit:
    """A gate and how good it is."""

    trees: trees.Trees  #: trained on everything
    slope: float
    intercept: float
    threshold: float
    few: FewEpochs | None  #: the threshold for few epochs; None: the same
    passed: np.ndarray  #: (n,) bool: which test examples pass, out of fold
    p_variable: np.ndarray  #: (n,) of the test examples, out of fold
    p_constant: np.ndarray  #: (n,) of their hosts without them
    report: dict[str, Any]  #: plain JSON values


def fit_gate(
    examples: Reobserved,
    label: np.ndarray,
    fold: np.ndarray,
    host_fold: np.ndarray,
    tests: Sequence[Drawn],
    *,
    recall: float,
    seed: Callable[..., int],
    progress: Callable[[str], None],
) -> GateFit:
    """Train and test a gate.

    Parameters
    ----------
    label, fold : (n,) class and fold of each example
    host_fold : (n_hosts,) fold of each host
    tests : a draw for each fold, of that fold's examples on that fold's hosts, in the order of the examples: that of
        which `passed` tells
    recall : that sets the threshold
    seed : number for a place in the work
    """
    n, folds = len(examples), len(tests)
    columns = [index_of(name) for name in GATE_COLUMNS]
    told_by = [index_of(name) for name in GATE_COLUMNS if name not in GIVEN]
    variable, constant = np.empty((2, TESTS, n, len(STATISTICS)))
    amplitude, level, excess, margin, constant_margin = np.empty((5, TESTS, n))
    stars = np.flatnonzero(examples.hosts.constant)
    curves = Curves.of([examples.hosts.one(int(i)) for i in stars])
    real, certain = curves.statistics(), vary_for_certain(curves)
    real_margin = np.empty(len(stars))
    controls: dict[str, list[float]] = {}
    told: list[float] = []
    for k, test in enumerate(tests):
        progress(f"gate, fold {k + 1} of {folds}")
        rows, own_hosts = np.flatnonzero(fold == k), np.flatnonzero(host_fold == k)
        more = [examples.draw(rows, own_hosts, seed(k, 300 + i)) for i in range(1, TESTS)]
        for i, drawn in enumerate([test, *more]):
            variable[i, rows], constant[i, rows] = drawn.variable.statistics(), drawn.constant.statistics()
            amplitude[i, rows], level[i, rows], excess[i, rows] = drawn.amplitude, drawn.level, drawn.excess
        with_star, without, shows = _draw(
            examples, np.flatnonzero(fold != k), np.flatnonzero(host_fold != k), seed, k
        )
        fitted = _fit(with_star[shows][:, columns], without[:, columns], seed(k, 100))
        for i in range(TESTS):
            margin[i, rows] = fitted.margin(variable[i, rows][:, columns])
            constant_margin[i, rows] = fitted.margin(constant[i, rows][:, columns])
        held = host_fold[stars] == k
        real_margin[held] = fitted.margin(real[held][:, columns])
        told.append(_told_apart(without, real[~held], constant[0, rows], real[held], told_by, seed(k, 400)))
        parts = with_star, without, variable[0, rows], constant[0, rows]
        for name, value in _controls(*parts, columns, seed(k, 200)).items():
            controls.setdefault(name, []).append(value)

    # the draws one after the other, the network's first
    amplitude, level, excess, margin, constant_margin = (
        values.ravel() for values in (amplitude, level, excess, margin, constant_margin)
    )
    epochs, label = variable[:, :, 0].ravel(), np.tile(label, TESTS)
    shown = excess >= SHOWS
    y = np.repeat([True, False], [int(shown.sum()), TESTS * n])
    weight = np.where(y, PRIOR_VARIABLE / y.mean(), (1 - PRIOR_VARIABLE) / (~y).mean())
    both = np.concatenate([margin[shown], constant_margin])
    slope, intercept = fit_platt(both, y, weight)
    p, p_real = platt(margin, slope, intercept), platt(real_margin, slope, intercept)
    enough, enough_real = epochs >= SENSIBLE_EPOCHS, real[:, 0] >= SENSIBLE_EPOCHS
    large = amplitude >= SENSIBLE_AMPLITUDE
    sensible = large & enough
    if not sensible.any():
        raise ValueError(
            f"no re-observed variable has an amplitude ≥ {SENSIBLE_AMPLITUDE} mag and ≥ {SENSIBLE_EPOCHS} epochs, "
            "which the gate's threshold is set by: give survey files with longer light curves"
        )
    threshold = _threshold(p[sensible], recall)
    few = _few(p_real, enough_real, threshold)
    passed, passed_real = (
        values >= (threshold if few is None else np.where(long, threshold, few.threshold))
        for values, long in ((p, enough), (p_real, enough_real))
    )
    kinds = {
        "all": np.ones(len(stars), bool),
        "all but certain variables": ~certain,
        f"≥ {SENSIBLE_EPOCHS} epochs": enough_real,
        f"≥ {SENSIBLE_EPOCHS} epochs but certain variables": enough_real & ~certain,
        f"< {SENSIBLE_EPOCHS} epochs": ~enough_real,
    }
    progress("gate, final fit")
    with_star, without, shows = _draw(examples, np.arange(n), np.arange(len(host_fold)), seed, folds)
    final = _fit(with_star[shows][:, columns], without[:, columns], seed(folds, 100))
    gain = final.gain()
    report = {
        "statistics": list(GATE_COLUMNS),
        "prior_variable": PRIOR_VARIABLE,
        "threshold": threshold,
        "few_epochs": few.model_dump() if few else None,
        "auc": area_under_curve(np.concatenate([margin, constant_margin]), np.repeat([True, False], TESTS * n)),
        "calibration_error": _calibration_error(platt(both, slope, intercept), y, weight),
        "recall": float(passed[sensible].mean()),
        "recall_of": f"amplitude ≥ {SENSIBLE_AMPLITUDE} mag and ≥ {SENSIBLE_EPOCHS} epochs",
        "recall_interval": _interval(passed, sensible, TESTS),
        "recall_draws": TESTS,
        "recall_all": float(passed.mean()),
        "recall_few_epochs": _interval(passed, large & ~enough, TESTS),
        "recall_by_class": {str(c): _rate(passed, (label == c) & sensible) for c in np.unique(label)},
        "recall_by_amplitude": _by(passed, amplitude, AMPLITUDES),
        "recall_by_magnitude": _by(passed, level, MAGNITUDES),
        "recall_by_epochs": _by(passed, epochs, EPOCHS),
        "recall_by_excess": _by(passed, excess, EXCESSES, sensible),
        "recall_by_magnitude_and_amplitude": {
            name: _by(passed, amplitude, AMPLITUDES, sensible & inside)
            for name, inside in _bins(level, MAGNITUDES).items()
        },
        "shows": {"excess": SHOWS, "share": float(shown.mean()), "share_sensible": float(shown[sensible].mean())},
        "pass_rate_real": float(passed_real.mean()),
        "pass_rates_real": {name: _interval(passed_real, which) for name, which in kinds.items()},
        "pass_rate_real_by_magnitude": _by(passed_real, real[:, index_of("mean")], MAGNITUDES),
        "pass_rate_real_by_epochs": _by(passed_real, real[:, 0], EPOCHS),
        "pass_rate_real_by_magnitude_enough": _by(
            passed_real, real[:, index_of("mean")], MAGNITUDES, enough_real
        ),
        "real_stars": len(stars),
        "real_certain": {
            "score": CERTAIN_SCORE, "n": int(certain.sum()), "n_enough": int((certain & enough_real).sum()),
        },
        "roc": _roc(p[sensible], p_real, kinds),
        "roc_few_epochs": _roc(p[large & ~enough], p_real, {name: kinds[name] for name in [*kinds][-1:]}),
        "recall_at_pass_rate": {
            name: {f"{rate:g}": _recall_at(p[sensible], p_real[which], rate) for rate in PASS_RATES}
            for name, which in kinds.items() if which.any()
        },
        "made_or_real": float(np.mean(told)),
        "controls": {name: float(np.mean(values)) for name, values in controls.items()},
        "most_used": {GATE_COLUMNS[i]: float(gain[i]) for i in np.argsort(-gain)[:8]},
    }  # fmt: skip
    p_constant = platt(constant_margin[:n], slope, intercept)
    return GateFit(final, slope, intercept, threshold, few, passed[:n], p[:n], p_constant, report)


def vary_for_certain(curves: Curves) -> np.ndarray:
    """(n,) bool: light curves with a period that noise does not bring about, whatever a gate says of them.

    The test is independent of the gate, which knows no periods. It finds only what is periodic and well seen: that
    does not make the others constant.
    """
    found = search(curves.t, curves.mag, curves.magerr, curves.offsets)
    return np.nan_to_num(found.score[:, 0], nan=0.0) >= CERTAIN_SCORE


def _draw(examples: Reobserved, rows: np.ndarray, hosts: np.ndarray, seed: Callable[..., int], fold: int):
    """Statistics with and without the stars, of several draws, and in which the variability shows."""
    draws = [examples.draw(rows, hosts, seed(fold, i)) for i in range(DRAWS)]
    return (
        np.concatenate([draw.variable.statistics() for draw in draws]),
        np.concatenate([draw.constant.statistics() for draw in draws]),
        np.concatenate([draw.excess for draw in draws]) >= SHOWS,
    )


def _fit(variable: np.ndarray, constant: np.ndarray, seed: int) -> trees.Trees:
    table, y = np.concatenate([variable, constant]), np.repeat([True, False], [len(variable), len(constant)])
    return trees.fit(table, y, rounds=ROUNDS, depth=DEPTH, learning_rate=LEARNING_RATE, seed=seed)


def _controls(
    variable: np.ndarray,
    constant: np.ndarray,
    test_variable: np.ndarray,
    test_constant: np.ndarray,
    columns: list[int],
    seed: int,
) -> dict[str, float]:
    """Areas under the curve that should be ½: by how a star was observed alone, and with labels that mean nothing."""
    found = {}
    observed = (*GIVEN, *NUISANCE)
    sets = {f"{name} alone": [name] for name in observed} | {
        " and ".join(GIVEN): [*GIVEN], "these together": [*observed],
    }  # fmt: skip
    for name, names in sets.items():
        own = [index_of(one) for one in names]
        fitted = trees.fit(
            np.concatenate([variable[:, own], constant[:, own]]),
            np.repeat([True, False], [len(variable), len(constant)]),
            rounds=40, depth=DEPTH, seed=seed,
        )  # fmt: skip
        found[name] = area_under_curve(
            fitted.margin(np.concatenate([test_variable[:, own], test_constant[:, own]])),
            np.repeat([True, False], [len(test_variable), len(test_constant)]),
        )
    rng = np.random.default_rng(seed)
    shuffled = rng.random(2 * len(constant)) < 0.5
    table = np.concatenate([variable, constant])[:, columns]
    fitted = trees.fit(table, shuffled, rounds=40, depth=DEPTH, seed=seed)
    test = np.concatenate([test_variable, test_constant])[:, columns]
    found["shuffled labels"] = area_under_curve(fitted.margin(test), np.repeat([True, False], len(test) // 2))
    return found


def _told_apart(
    made: np.ndarray,
    real: np.ndarray,
    test_made: np.ndarray,
    test_real: np.ndarray,
    columns: list[int],
    seed: int,
) -> float:
    """Area under the curve of trees that tell made constants from real ones; ½ if nothing tells them apart.

    By neither epochs nor brightness: the made ones are thinned, and on deeper exposures, on purpose.
    """
    table = np.concatenate([made, real])[:, columns]
    weight = np.repeat([1 / len(made), 1 / len(real)], [len(made), len(real)]) * len(table) / 2
    fitted = trees.fit(
        table, np.repeat([True, False], [len(made), len(real)]), weight, rounds=100, depth=DEPTH, seed=seed
    )
    test = np.concatenate([test_made, test_real])[:, columns]
    return area_under_curve(fitted.margin(test), np.repeat([True, False], [len(test_made), len(test_real)]))


def _threshold(p: np.ndarray, recall: float) -> float:
    """The p that a share `recall` reaches."""
    # a little below the order statistic, because p is stored and compared as float32
    return float(np.quantile(p, 1 - recall, method="lower") * (1 - 1e-5))


def _few(p_real: np.ndarray, enough: np.ndarray, threshold: float) -> FewEpochs | None:
    """The threshold of real light curves with few epochs, so that with the others at most PASS_RATE of all pass."""
    short = np.sort(p_real[~enough])[::-1]
    left = int(PASS_RATE * len(p_real)) - int((p_real[enough] >= threshold).sum())
    if (short >= threshold).sum() <= max(left, 0):
        return None
    # just above the first that may not pass; p is compared as float32
    return FewEpochs(below=SENSIBLE_EPOCHS, threshold=min(1.0, float(short[max(left, 0)]) * (1 + 1e-5)))


def _roc(p: np.ndarray, p_real: np.ndarray, kinds: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """For each of RECALLS the threshold, and the share of each kind of real light curve that passes it."""
    rows = []
    for recall in RECALLS if len(p) else ():
        threshold = _threshold(p, recall)
        passed = {name: _interval(p_real >= threshold, which) for name, which in kinds.items()}
        rows.append({"recall": recall, "threshold": threshold, "pass_rates": passed})
    return rows


def _recall_at(p: np.ndarray, p_real: np.ndarray, rate: float) -> float:
    """Share of the variables above the threshold that a share `rate` of the real light curves passes at most."""
    return float((p > np.quantile(p_real, 1 - rate, method="higher")).mean())


def _calibration_error(p: np.ndarray, y: np.ndarray, weight: np.ndarray, bins: int = 15) -> float:
    """Mean difference between p and the share of variables, over bins of p; both with weights."""
    which = np.minimum((p * bins).astype(np.int64), bins - 1)
    off = np.bincount(which, weight * (p - y), bins)
    return float(np.abs(off).sum() / weight.sum())


def _rate(passed: np.ndarray, which: np.ndarray) -> dict[str, float | int]:
    return {"n": int(which.sum()), "rate": float(passed[which].mean()) if which.any() else 0.0}


def _interval(passed: np.ndarray, which: np.ndarray, draws: int = 1) -> dict[str, float | int]:
    """A rate with its 95 % interval (Wilson 1927), as wide as that of one draw: the others are of the same stars."""
    found = _rate(passed, which)
    n, rate = found["n"] / draws, found["rate"]
    if n == 0:
        return found | {"low": 0.0, "high": 1.0}
    z2 = 1.959964**2 / n
    centre, half = (rate + z2 / 2) / (1 + z2), np.sqrt(z2 * rate * (1 - rate) + z2**2 / 4) / (1 + z2)
    return found | {"low": max(0.0, float(centre - half)), "high": min(1.0, float(centre + half))}


def _bins(value: np.ndarray, edges: Sequence[float]) -> dict[str, np.ndarray]:
    """Which values lie in each bin, by the bins' names."""
    return {
        f"{low:g}–{high:g}" if np.isfinite(high) else f"≥ {low:g}": (value >= low) & (value < high)
        for low, high in pairwise(edges)
    }


def _by(
    passed: np.ndarray, value: np.ndarray, edges: Sequence[float], which: np.ndarray | None = None
) -> dict[str, dict[str, float | int]]:
    """Rate by bins of a value, by their names; of all or of `which`."""
    return {
        name: _rate(passed, inside if which is None else inside & which)
        for name, inside in _bins(value, edges).items()
    }
