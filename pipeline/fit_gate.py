"""Training the gate: stars and transients on a survey's hosts against the same hosts without them.

Trees are trained on as many variables as constants. Their log-odds become probabilities by a sigmoid fitted
out of fold, with variables counted as the share that a release has (PRIOR_VARIABLE). The threshold is where
the asked recall is reached.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from lightmill.models import trees
from lightmill.models.calibration import fit_platt, platt
from lightmill.models.metrics import area_under_curve
from lightmill.pipeline.examples import Curves, Drawn, Reobserved
from lightmill.pipeline.features import STATISTICS, index_of

__all__ = ["GATE_COLUMNS", "PRIOR_VARIABLE", "GateFit", "fit_gate"]

NUISANCE = ("baseline", "mean", "median", "magerr_median")
"""Statistics that the gate does not get: they say how a star was observed or how bright it is, not that it varies."""

GATE_COLUMNS: tuple[str, ...] = tuple(name for name in STATISTICS if name not in NUISANCE)
"""What the gate gets. n is among them: how much scatter is significant depends on it, and it does not tell the two sets
apart (`controls` in the report)."""

PRIOR_VARIABLE = 0.05
"""Share of variables that p_variable assumes. Published catalogues from ZTF list 0.7 % (g) to 2.6 % (r) of the light
curves; those variable at 0.05 mag are more."""

DRAWS = 3
"""Draws of each example that a gate is trained on."""

ROUNDS, DEPTH = 250, 4
SENSIBLE_AMPLITUDE, SENSIBLE_EPOCHS = 0.1, 50
"""The recall that sets the threshold is that of variables with at least this amplitude [mag] and number of epochs."""

AMPLITUDES = (0.0, 0.05, 0.1, 0.2, 0.4, np.inf)
MAGNITUDES = (0.0, 15.0, 17.0, 18.0, 19.0, 20.0, np.inf)
EPOCHS = (20, 50, 100, 200, 500, np.inf)


@dataclass(frozen=True)
class GateFit:
    """A gate and how good it is."""

    trees: trees.Trees  #: trained on everything
    slope: float
    intercept: float
    threshold: float
    passed: np.ndarray  #: (n,) bool: which test examples pass, out of fold
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
    tests : a draw for each fold, of that fold's examples on that fold's hosts, in the order of the examples
    recall : that sets the threshold
    seed : number for a place in the work
    """
    n, folds = len(examples), len(tests)
    columns = [index_of(name) for name in GATE_COLUMNS]
    variable, constant = np.empty((n, len(STATISTICS))), np.empty((n, len(STATISTICS)))
    amplitude, level = np.empty(n), np.empty(n)
    margin, constant_margin = np.empty(n), np.empty(n)
    stars = np.flatnonzero(examples.hosts.constant)
    real = Curves.of([examples.hosts.one(int(i)) for i in stars]).statistics()
    real_margin = np.empty(len(stars))
    controls: dict[str, list[float]] = {}
    for k, test in enumerate(tests):
        progress(f"gate, fold {k + 1} of {folds}")
        rows = np.flatnonzero(fold == k)
        variable[rows], constant[rows] = test.variable.statistics(), test.constant.statistics()
        amplitude[rows], level[rows] = test.amplitude, test.level
        with_star, without = _draw(
            examples, np.flatnonzero(fold != k), np.flatnonzero(host_fold != k), seed, k
        )
        fitted = _fit(with_star[:, columns], without[:, columns], seed(k, 100))
        margin[rows] = fitted.margin(variable[rows][:, columns])
        constant_margin[rows] = fitted.margin(constant[rows][:, columns])
        held = host_fold[stars] == k
        real_margin[held] = fitted.margin(real[held][:, columns])
        for name, value in _controls(
            with_star, without, variable[rows], constant[rows], columns, seed(k, 200)
        ).items():
            controls.setdefault(name, []).append(value)

    y = np.repeat([True, False], n)
    weight = np.where(y, PRIOR_VARIABLE, 1 - PRIOR_VARIABLE)
    slope, intercept = fit_platt(np.concatenate([margin, constant_margin]), y, weight)
    p, p_real = platt(margin, slope, intercept), platt(real_margin, slope, intercept)
    sensible = (amplitude >= SENSIBLE_AMPLITUDE) & (variable[:, 0] >= SENSIBLE_EPOCHS)
    if not sensible.any():
        raise ValueError(
            f"no re-observed variable has an amplitude ≥ {SENSIBLE_AMPLITUDE} mag and ≥ {SENSIBLE_EPOCHS} epochs, "
            "which the gate's threshold is set by: give survey files with longer light curves"
        )
    # a little below the order statistic, because p is stored and compared as float32
    threshold = float(np.quantile(p[sensible], 1 - recall, method="lower") * (1 - 1e-5))
    progress("gate, final fit")
    with_star, without = _draw(examples, np.arange(n), np.arange(len(host_fold)), seed, folds)
    final = _fit(with_star[:, columns], without[:, columns], seed(folds, 100))
    gain = final.gain()
    report = {
        "statistics": list(GATE_COLUMNS),
        "prior_variable": PRIOR_VARIABLE,
        "threshold": threshold,
        "auc": area_under_curve(np.concatenate([margin, constant_margin]), y),
        "recall": float((p[sensible] >= threshold).mean()),
        "recall_of": f"amplitude ≥ {SENSIBLE_AMPLITUDE} mag and ≥ {SENSIBLE_EPOCHS} epochs",
        "recall_all": float((p >= threshold).mean()),
        "recall_by_class": {str(c): _rate(p >= threshold, (label == c) & sensible) for c in np.unique(label)},
        "recall_by_amplitude": _by(p >= threshold, amplitude, AMPLITUDES),
        "recall_by_magnitude": _by(p >= threshold, level, MAGNITUDES),
        "recall_by_epochs": _by(p >= threshold, variable[:, 0], EPOCHS),
        "pass_rate_real": float((p_real >= threshold).mean()),
        "pass_rate_real_by_magnitude": _by(p_real >= threshold, real[:, index_of("mean")], MAGNITUDES),
        "pass_rate_real_by_epochs": _by(p_real >= threshold, real[:, 0], EPOCHS),
        "real_stars": len(stars),
        "controls": {name: float(np.mean(values)) for name, values in controls.items()},
        "most_used": {GATE_COLUMNS[i]: float(gain[i]) for i in np.argsort(-gain)[:8]},
    }
    return GateFit(final, slope, intercept, threshold, p >= threshold, report)


def _draw(examples: Reobserved, rows: np.ndarray, hosts: np.ndarray, seed: Callable[..., int], fold: int):
    """Statistics with and without the stars, of several draws."""
    draws = [examples.draw(rows, hosts, seed(fold, i)) for i in range(DRAWS)]
    return (
        np.concatenate([draw.variable.statistics() for draw in draws]),
        np.concatenate([draw.constant.statistics() for draw in draws]),
    )


def _fit(variable: np.ndarray, constant: np.ndarray, seed: int) -> trees.Trees:
    table, y = np.concatenate([variable, constant]), np.repeat([True, False], [len(variable), len(constant)])
    return trees.fit(table, y, rounds=ROUNDS, depth=DEPTH, seed=seed)


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
    alone = {f"{name} alone": [index_of(name)] for name in ("n", *NUISANCE)}
    for name, own in (alone | {"these together": [index_of(one) for one in ("n", *NUISANCE)]}).items():
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


def _rate(passed: np.ndarray, which: np.ndarray) -> dict[str, float | int]:
    return {"n": int(which.sum()), "rate": float(passed[which].mean()) if which.any() else 0.0}


def _by(passed: np.ndarray, value: np.ndarray, edges: Sequence[float]) -> dict[str, dict[str, float | int]]:
    """Rate by bins of a value, by their names."""
    return {
        f"{low:g}–{high:g}" if np.isfinite(high) else f"≥ {low:g}": _rate(
            passed, (value >= low) & (value < high)
        )
        for low, high in pairwise(edges)
    }
