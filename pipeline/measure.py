"""What a bundle's metrics say: figures out of fold, their intervals, and what each expert adds.

Intervals and standard errors come from drawing whole stars anew (bootstrap, Efron 1979), so that light curves of one
star do not count as several.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from lightmill.models.audit import audit
from lightmill.models.bundle import last_features
from lightmill.models.experts import Expert
from lightmill.models.metrics import expected_calibration_error, summary
from lightmill.models.novelty import Novelty
from lightmill.models.proportions import wilson
from lightmill.models.taxonomy import path_to
from lightmill.pipeline.colour import COLOURS
from lightmill.pipeline.conditions import EDGES
from lightmill.pipeline.features import index_of
from lightmill.pipeline.fit_choice import RIGHT
from lightmill.pipeline.fit_experts import OutOfFold, pooled
from lightmill.pipeline.fit_gate import GateFit
from lightmill.pipeline.recipe import TrainTable
from lightmill.pipeline.tasks import Task

__all__ = ["measured", "strangeness"]

RESAMPLES = 300
SURE_PERIOD = 10.0  #: period_score above which a light curve counts as periodic
BINS = 10  #: of the reliability table
FALSE_ALARMS = 0.01  #: share of what is no transient that may be taken for one


def measured(
    found: OutOfFold, task: Task, table: TrainTable, names: Sequence[str], gate: GateFit | None
) -> dict[str, Any]:
    """The metrics of a bundle, as plain JSON values.

    Parameters
    ----------
    names : experts that the bundle has; others in `found` are references

    Returns
    -------
    what `models.metrics.summary` gives of all experts together, and `intervals` (95 %), `macro_f1_folds`,
    `reliability`, `experts` (each alone), `by_period` (accuracy where the period is right, and where not), `by_colour`
    (where trees know a colour, and where not; empty: they look at none), `adds` (what each adds to the others, by kind
    of light curve), `audit` (by the conditions of observation, see `models.audit`; cells without light curves are left
    out) and, with a gate, `passed`, `gate` and `transients`
    """
    y, fold, classes = task.y, task.fold, table.classes
    p = pooled(found.logits, y, fold, classes, names)
    metrics = summary(p, y, classes)
    draws = _draws(task.group)
    metrics["intervals"] = _intervals(p, y, draws)
    metrics["macro_f1_folds"] = [
        summary(p[fold == k], y[fold == k], classes)["macro_f1"] for k in range(table.folds)
    ]
    metrics["reliability"] = _reliability(p, y)
    metrics["experts"] = {}
    for name in found.logits:
        alone = summary(pooled(found.logits, y, fold, classes, [name]), y, classes)
        metrics["experts"][name] = {key: alone[key] for key in ("macro_f1", "accuracy", "ece")} | {
            "reference": name not in names,
            "f1": {one: row["f1"] for one, row in alone["per_class"].items()},
        }
    metrics["by_period"] = _by_period(p, task)
    metrics["by_colour"] = _by_colour(p, task)
    metrics["adds"] = _adds(p, found.logits, task, classes, names, draws)
    metrics["audit"] = _audited(p, task, classes)
    if gate is not None:
        passed = summary(p[gate.passed], y[gate.passed], classes)
        metrics["passed"] = {name: passed[name] for name in ("n", "accuracy", "macro_f1", "ece")}
        metrics["gate"] = gate.report
        if found.constant is not None:
            constant = pooled(found.logits, y, fold, classes, names, found.constant)
            metrics["transients"] = _transients(p, constant, y, classes, gate)
    return metrics


def strangeness(
    novelty: Novelty | None, experts: Sequence[Expert], telling: Sequence[str], task: Task
) -> dict[str, Any]:
    """`strangers`: by label that the experts do not know, how many light curves, and their mean novelty.

    Novelty is the share of known light curves that lie nearer, so its mean is the area under the ROC curve between that
    label and the known classes: ½ if nothing tells them apart.
    """
    if novelty is None or task.strangers is None:
        return {}
    label, sample = task.strangers
    answers = {
        one.part.name: one.answers(sample.views(one.part.needs))
        for one in experts
        if one.part.name in telling
    }
    score = novelty.score(last_features(answers, telling))
    names = np.unique(label)
    return {
        "strangers": {
            str(name): {"n": int((label == name).sum()), "auc": float(score[label == name].mean())}
            for name in names
        }
    }


def _draws(group: np.ndarray) -> np.ndarray:
    """(RESAMPLES, n) how often each light curve is drawn, stars with all of theirs."""
    _, which = np.unique(group, return_inverse=True)
    stars = int(which.max()) + 1
    rng = np.random.default_rng(0)
    return np.stack([rng.multinomial(stars, np.full(stars, 1 / stars))[which] for _ in range(RESAMPLES)])


def _macro_f1(p: np.ndarray, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Macro-F1 for each row of weights (r, n): (r,); over the classes that occur in y."""
    k = p.shape[1]
    best = p.argmax(axis=1)
    hits, called, true = np.zeros((3, len(weight), k))
    for c in range(k):
        hits[:, c] = weight @ ((best == c) & (y == c))
        called[:, c] = weight @ (best == c)
        true[:, c] = weight @ (y == c)
    f1 = np.divide(2 * hits, called + true, out=np.zeros_like(hits), where=called + true > 0)
    present = true > 0
    return (f1 * present).sum(axis=1) / np.maximum(present.sum(axis=1), 1)


def _intervals(p: np.ndarray, y: np.ndarray, draws: np.ndarray) -> dict[str, list[float]]:
    """95 % of the resampled figures."""
    right = (p.argmax(axis=1) == y).astype(np.float64)
    drawn = {
        "macro_f1": _macro_f1(p, y, draws),
        "accuracy": draws @ right / draws.sum(axis=1),
        "ece": np.array(
            [expected_calibration_error(np.repeat(p, d, axis=0), np.repeat(y, d)) for d in draws]
        ),
    }
    return {name: [float(v) for v in np.quantile(values, [0.025, 0.975])] for name, values in drawn.items()}


def _reliability(p: np.ndarray, y: np.ndarray) -> list[dict[str, float | int]]:
    """Bins of the highest probability: how many, how sure, how often right."""
    sure, right = p.max(axis=1), p.argmax(axis=1) == y
    rows: list[dict[str, float | int]] = []
    for low, high in pairwise(np.linspace(0, 1, BINS + 1)):
        own = (sure > low) & (sure <= high)
        if own.any():
            rows.append({"to": float(high), "n": int(own.sum()), "confidence": float(sure[own].mean()),
                         "accuracy": float(right[own].mean())})  # fmt: skip
    return rows


def _by_period(p: np.ndarray, task: Task) -> dict[str, dict[str, float | int]]:
    """How often the class is right where the period is right (or its half or double), and where it is not."""
    if task.true_period is None or task.tests.chosen is None:
        return {}
    ratio = task.tests.chosen.frequency[:, 0] * task.true_period
    right = np.any([np.abs(ratio * factor - 1) < RIGHT for factor in (0.5, 1.0, 2.0)], axis=0)
    hit, known = p.argmax(axis=1) == task.y, np.isfinite(task.true_period)
    return {
        name: {"n": int(own.sum()), "accuracy": float(hit[own].mean()) if own.any() else 0.0}
        for name, own in (("right", known & right), ("wrong", known & ~right))
    }


def _by_colour(p: np.ndarray, task: Task) -> dict[str, dict[str, float | int]]:
    """How often the class is right where trees know a colour, and where they know none."""
    looked = [k for k, name in enumerate(COLOURS) if name in task.tests.columns]
    if not looked or task.tests.colours is None:
        return {}
    hit, known = p.argmax(axis=1) == task.y, np.isfinite(task.tests.colours[:, looked]).any(axis=1)
    return {
        name: {"n": int(own.sum()), "accuracy": float(hit[own].mean()) if own.any() else 0.0}
        for name, own in (("known", known), ("unknown", ~known))
    }


def _adds(
    p: np.ndarray, logits: Mapping[str, np.ndarray], task: Task, classes: Sequence[str], names: Sequence[str],
    draws: np.ndarray,
) -> dict[str, dict[str, dict[str, float | int]]]:  # fmt: skip
    """Figures of all experts less those of all but one, with standard errors, by kind of light curve.

    `gain` and `error`: of macro-F1; `bits` and `bits_error`: of the mean log2 of the true class's probability, which
    tells of small changes of all probabilities, and not of the rarest classes alone
    """
    if len(names) < 2:
        return {}
    kinds = {"all": np.full(len(task.y), True)} | _kinds(task, classes)
    found: dict[str, dict[str, dict[str, float | int]]] = {}
    for name in names:
        others = [one for one in names if one != name]
        without = pooled(logits, task.y, task.fold, classes, others)
        each = _bits(p, task.y) - _bits(without, task.y)
        found[name] = {}
        for kind, own in kinds.items():
            y, some = task.y[own], draws[:, own]
            whole = np.ones((1, int(own.sum())))
            gain = _macro_f1(p[own], y, whole)[0] - _macro_f1(without[own], y, whole)[0]
            error = np.std(_macro_f1(p[own], y, some) - _macro_f1(without[own], y, some), ddof=1)
            found[name][kind] = {
                "n": int(own.sum()),
                "gain": float(gain),
                "error": float(error),
                "bits": float(each[own].mean()),
                "bits_error": float(np.std(some @ each[own] / np.maximum(some.sum(axis=1), 1), ddof=1)),
            }
    return found


def _bits(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(n,) log2 of the true class's probability, of p (n, k)."""
    return np.log2(np.maximum(p[np.arange(len(y)), y], 1e-12))


def _audited(p: np.ndarray, task: Task, classes: Sequence[str]) -> dict[str, Any]:
    """The audit of what was said out of fold, without what the other metrics say already."""
    found = audit(p, task.y, classes, task.conditions.along(), EDGES)
    for axis in found["axes"].values():
        axis["cells"] = [cell for cell in axis["cells"] if cell["n"]]
    return {name: _rounded(found[name]) for name in ("level", "method", "smallest", "axes")}


def _rounded(value: Any) -> Any:
    """The same with numbers as precise as anyone reads them: there are thousands."""
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _transients(
    p: np.ndarray, constant: np.ndarray, y: np.ndarray, classes: Sequence[str], gate: GateFit
) -> dict[str, Any]:
    """How many transients are found where 1 % of the other variables and of the constants are taken for one."""
    columns = [i for i, name in enumerate(classes) if "transient" in path_to(name)]
    own = np.isin(y, columns)
    if not own.any():
        return {}
    score = gate.p_variable * p[:, columns].sum(axis=1)
    others = np.concatenate([score[~own], gate.p_constant * constant[:, columns].sum(axis=1)])
    threshold = float(np.quantile(others, 1 - FALSE_ALARMS, method="higher"))  # that share at most
    hits, n = int((score[own] > threshold).sum()), int(own.sum())
    return {
        "n": n,
        "others": len(others),
        "false_positives": float((others > threshold).mean()),
        "recall": hits / n,
        "interval": [float(v) for v in wilson(hits, n)],
        "threshold": threshold,
    }


def _kinds(task: Task, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """Light curves on which an expert might matter: the sparse, those without a sure period, transients."""
    n = task.tests.statistics[:, index_of("n")]
    sparse = float(np.quantile(n, 0.1))
    kinds = {f"sparse (≤ {sparse:.0f} epochs)": n <= sparse}
    if task.tests.chosen is not None:
        score = task.tests.chosen.score[:, 0]
        kinds[f"no sure period (score < {SURE_PERIOD:g})"] = ~(score >= SURE_PERIOD)
    transient = [i for i, name in enumerate(classes) if "transient" in path_to(name)]
    if transient:
        kinds["transients"] = np.isin(task.y, transient)
    return {kind: own for kind, own in kinds.items() if own.any()}
