"""`pipeline/measure.py`: the figures of a bundle against those counted by hand, on answers that are made up."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightmill.models.metrics import expected_calibration_error, summary
from lightmill.models.novelty import fit_novelty
from lightmill.pipeline import measure as module
from lightmill.pipeline.choose import KEPT, Chosen
from lightmill.pipeline.conditions import AXES, EDGES, Conditions
from lightmill.pipeline.curves import Curves
from lightmill.pipeline.dmdt import Grid
from lightmill.pipeline.features import STATISTICS
from lightmill.pipeline.fit_experts import OutOfFold, pooled
from lightmill.pipeline.measure import measured, strangeness
from lightmill.pipeline.recipe import TrainTable
from lightmill.pipeline.samples import Sample
from lightmill.pipeline.tasks import Task

CLASSES = ("EW", "RRab", "SN_Ia")
N = 600


def table(**changes: object) -> TrainTable:
    return TrainTable.model_validate({"classes": CLASSES, "folds": 3, "trees": {"a": {}}} | changes)


def no_training(held: int | None, which: int) -> Sample:
    raise AssertionError("nothing is trained here")


def made(n: int = N, seed: int = 1, **changes: Any) -> Task:
    """n light curves of n/2 stars, the first half of them sparse or without a sure period."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(n // 2), 2)
    y = np.repeat(rng.integers(0, 3, n // 2), 2)
    statistics = np.zeros((n, len(STATISTICS)))
    statistics[:, 0] = np.where(np.arange(n) <= n // 10, 21, 100 + np.arange(n))
    score = np.full((n, KEPT), np.nan)
    score[:, 0] = np.where(np.arange(n) % 4 == 0, 3.0, 40.0)
    score[1, 0] = np.nan  # no period at all: not a sure one
    frequency = np.ones((n, KEPT))
    sample = Sample(
        Curves.of([]), statistics, Chosen(frequency, frequency, score, frequency), Grid((0, 1), (0, 1)), ()
    )
    given = {"y": y, "fold": group % 3, "group": group, "period": None, "draws": 1, "of_trees": 1,
             "training": no_training, "tests": sample,
             "conditions": Conditions(statistics, *rng.uniform(-90, 90, (2, n)), 1 + group % 2)}  # fmt: skip
    return Task(**given | changes)


def logits(task: Task, seed: int = 2) -> dict[str, np.ndarray]:
    """Two experts that know something, each its own; one that knows nothing; one that is a copy of the first."""
    rng, truth = np.random.default_rng(seed), np.eye(3)[task.y]
    n = len(truth)
    found = {
        "a": 1.5 * truth + rng.normal(size=(n, 3)),
        "b": 1.5 * truth + rng.normal(size=(n, 3)),
        "noise": rng.normal(size=(n, 3)),
    }
    return {name: x.astype(np.float32) for name, x in found.items()}


@pytest.fixture(scope="module")
def task() -> Task:
    return made()


@pytest.fixture(scope="module")
def found(task: Task) -> OutOfFold:
    return OutOfFold(logits(task), None)


@pytest.fixture(scope="module")
def metrics(task: Task, found: OutOfFold) -> dict[str, Any]:
    return measured(found, task, table(), ["a", "b"], None)


def test_figures_are_those_of_the_pooled_answers(metrics, task, found):
    p = pooled(found.logits, task.y, task.fold, CLASSES, ["a", "b"])
    for name, value in summary(p, task.y, CLASSES).items():
        assert metrics[name] == value
    by_fold = [summary(p[task.fold == k], task.y[task.fold == k], CLASSES)["macro_f1"] for k in range(3)]
    assert metrics["macro_f1_folds"] == by_fold
    json.dumps(metrics, allow_nan=False)


def test_the_audit_is_of_the_pooled_answers(metrics, task, found):
    """Each cell counted by hand; nothing of the whole, which the other figures say; no empty cells."""
    p = pooled(found.logits, task.y, task.fold, CLASSES, ["a", "b"])
    right = p.argmax(axis=1) == task.y
    audit = metrics["audit"]
    assert list(audit["axes"]) == list(AXES)
    assert set(audit) == {"level", "method", "smallest", "axes"}
    band = {cell["cell"]: cell for cell in audit["axes"]["band"]["cells"]}
    for name, cell in band.items():
        own = task.conditions.filterid == int(name)
        assert cell["n"] == own.sum() == 300
        assert cell["accuracy"]["value"] == pytest.approx(right[own].mean(), rel=1e-3)
        for c, leaf in enumerate(CLASSES):
            row = cell["per_class"][leaf]
            assert row["recall"]["value"] == pytest.approx(right[own & (task.y == c)].mean(), rel=1e-3)
            assert row["precision"]["value"] == pytest.approx(
                right[own & (p.argmax(axis=1) == c)].mean(), rel=1e-3
            )
            assert row["share_true"]["value"] == pytest.approx((task.y[own] == c).mean(), rel=1e-3)
    epochs = {cell["cell"]: cell["n"] for cell in audit["axes"]["epochs"]["cells"]}
    n = task.tests.statistics[:, 0]
    edges = [0, *EDGES["epochs"], np.inf]
    assert list(epochs.values()) == [count for count in np.histogram(n, edges)[0].tolist() if count]
    assert audit["smallest"]["n"] == min(
        cell["n"] for axis in audit["axes"].values() for cell in axis["cells"]
    )


def test_intervals_contain_the_figures(metrics):
    for name, (low, high) in metrics["intervals"].items():
        assert low < high
        if name != "ece":  # of a resampled calibration error the mean lies above: its noise does not cancel
            assert low < metrics[name] < high
    low, high = metrics["intervals"]["accuracy"]
    # 300 stars of two light curves each: between 600 and 300 independent answers
    share = metrics["accuracy"]
    one = np.sqrt(share * (1 - share) / N)
    assert 2 * 1.96 * one * 0.8 < high - low < 2 * 1.96 * one * np.sqrt(2) * 1.2


def test_intervals_by_stars_are_wider(task: Task):
    """Copies of an answer are no new answers."""
    twice = np.repeat(logits(task)["a"][::2], 2, axis=0)
    answers = OutOfFold({"a": twice}, None)
    own = measured(answers, task, table(), ["a"], None)["intervals"]["accuracy"]
    alone = measured(answers, made(group=np.arange(N)), table(), ["a"], None)["intervals"]["accuracy"]
    assert (own[1] - own[0]) / (alone[1] - alone[0]) == pytest.approx(np.sqrt(2), rel=0.2)


def test_intervals_are_quantiles_of_resampled_stars(metrics, task, found):
    """The same by taking rows again and again, with other numbers of chance."""
    p = pooled(found.logits, task.y, task.fold, CLASSES, ["a", "b"])
    rng, values = np.random.default_rng(99), []
    for _ in range(600):
        stars = rng.integers(0, N // 2, N // 2)
        rows = np.concatenate([2 * stars, 2 * stars + 1])
        one = summary(p[rows], task.y[rows], CLASSES)
        values.append([one["macro_f1"], one["accuracy"], one["ece"]])
    expected = np.quantile(values, [0.025, 0.975], axis=0).T
    spread = np.std(values, axis=0)
    for name, ends, sigma in zip(("macro_f1", "accuracy", "ece"), expected, spread, strict=True):
        # a 2.5 % quantile of 300 draws scatters by 0.15 standard deviations
        np.testing.assert_allclose(metrics["intervals"][name], ends, atol=0.6 * sigma)


@given(st.integers(2, 5), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_weighted_macro_f1_is_that_of_repeated_rows(k: int, n: int, seed: int):
    rng = np.random.default_rng(seed)
    y, p, weight = rng.integers(0, k, n), rng.dirichlet(np.ones(k), n), rng.integers(0, 4, (5, n))
    found = module._macro_f1(p, y, weight)
    for value, row in zip(found, weight, strict=True):
        drawn = summary(np.repeat(p, row, axis=0), np.repeat(y, row), [str(c) for c in range(k)])
        assert value == pytest.approx(drawn["macro_f1"], abs=1e-12)
    whole = module._macro_f1(p, y, np.ones((1, n)))[0]
    assert whole == pytest.approx(summary(p, y, [str(c) for c in range(k)])["macro_f1"], abs=1e-12)


def test_stars_are_drawn_whole():
    group = np.array([5, 5, 9, 2, 2, 2])
    draws = module._draws(group)
    assert draws.shape == (module.RESAMPLES, 6)
    assert (draws[:, 0] == draws[:, 1]).all()
    assert (draws[:, 3] == draws[:, 4]).all()
    assert (draws[:, [0, 2, 3]].sum(axis=1) == 3).all()
    assert (draws[:, 0] != draws[:, 2]).any()
    np.testing.assert_allclose(draws.mean(axis=0), 1, atol=0.2)


def test_reliability_counts_every_answer_once(metrics, task, found):
    p = pooled(found.logits, task.y, task.fold, CLASSES, ["a", "b"])
    rows = metrics["reliability"]
    assert sum(row["n"] for row in rows) == N
    sure, right = p.max(axis=1), p.argmax(axis=1) == task.y
    for row in rows:
        own = np.ceil(sure * 10).astype(int) == round(row["to"] * 10)
        assert row["n"] == own.sum()
        assert row["confidence"] == pytest.approx(sure[own].mean())
        assert row["accuracy"] == pytest.approx(right[own].mean())
        # what is pooled and calibrated means what it says
        if row["n"] > 60:
            assert abs(row["accuracy"] - row["confidence"]) < 4 * np.sqrt(0.25 / row["n"])
    total = sum(row["n"] * row["accuracy"] for row in rows) / N
    assert total == pytest.approx(metrics["accuracy"])


def test_reliability_of_what_is_certain():
    p, y = np.eye(3)[[0, 1, 2, 2]], np.array([0, 1, 2, 1])
    assert module._reliability(p, y) == [{"to": 1.0, "n": 4, "confidence": 1.0, "accuracy": 0.75}]


def test_experts_alone_and_references(task, found):
    metrics = measured(found, task, table(), ["b", "a"], None)
    assert set(metrics["experts"]) == {"a", "b", "noise"}
    assert {name: row["reference"] for name, row in metrics["experts"].items()} == {
        "a": False, "b": False, "noise": True,
    }  # fmt: skip
    for name, row in metrics["experts"].items():
        alone = summary(pooled(found.logits, task.y, task.fold, CLASSES, [name]), task.y, CLASSES)
        assert (row["macro_f1"], row["accuracy"], row["ece"]) == tuple(
            alone[key] for key in ("macro_f1", "accuracy", "ece")
        )
        assert row["f1"] == {one: alone["per_class"][one]["f1"] for one in CLASSES}
    assert metrics["experts"]["noise"]["accuracy"] < 0.45 < metrics["experts"]["a"]["accuracy"]
    assert set(metrics["adds"]) == {"a", "b"}  # a reference adds nothing


def test_a_needed_expert_adds_and_a_useless_one_does_not(task, found):
    adds = measured(found, task, table(), ["a", "b", "noise"], None)["adds"]
    for name in ("a", "b"):
        whole = adds[name]["all"]
        assert whole["gain"] > 4 * whole["error"] > 0
        assert whole["bits"] > 4 * whole["bits_error"] > 0
    whole = adds["noise"]["all"]
    assert abs(whole["gain"]) < 2 * whole["error"] + 1e-3


def test_a_copy_adds_nothing(task, found):
    again = found.logits | {"twin": found.logits["a"]}
    adds = measured(OutOfFold(again, None), task, table(), ["a", "b", "twin"], None)["adds"]
    for name in ("a", "twin"):
        assert abs(adds[name]["all"]["gain"]) <= 2 * adds[name]["all"]["error"] + 1e-3
    assert adds["b"]["all"]["gain"] > 4 * adds["b"]["all"]["error"]


def test_gains_are_differences_of_macro_f1(task, found):
    adds = measured(found, task, table(), ["a", "b"], None)["adds"]
    both = pooled(found.logits, task.y, task.fold, CLASSES, ["a", "b"])
    without = pooled(found.logits, task.y, task.fold, CLASSES, ["b"])
    kinds = {
        "all": np.full(N, True),
        "sparse (≤ 21 epochs)": np.arange(N) <= N // 10,
        "no sure period (score < 10)": (np.arange(N) % 4 == 0) | (np.arange(N) == 1),
        "transients": task.y == 2,
    }
    assert list(adds["a"]) == list(kinds)
    for kind, own in kinds.items():
        row = adds["a"][kind]
        gain = [summary(p[own], task.y[own], CLASSES)["macro_f1"] for p in (both, without)]
        assert row["n"] == own.sum()
        assert row["gain"] == pytest.approx(gain[0] - gain[1])
        truth = np.flatnonzero(own), task.y[own]
        bits = np.log2(both[truth]) - np.log2(without[truth])
        assert row["bits"] == pytest.approx(bits.mean())
        # pairs of light curves of one star are drawn together
        assert bits.std() / np.sqrt(len(bits)) * 0.7 < row["bits_error"] < bits.std() / np.sqrt(len(bits)) * 2
        assert row["error"] > 0


def test_without_periods_transients_and_others():
    task = made()
    bare = Sample(task.tests.curves, task.tests.statistics, None, task.tests.grid, ())
    classes = ("EW", "EA", "RRab")
    plain = made(tests=bare)
    metrics = measured(OutOfFold(logits(plain), None), plain, table(classes=classes), ["a", "b"], None)
    assert list(metrics["adds"]["a"]) == ["all", "sparse (≤ 21 epochs)"]
    alone = measured(OutOfFold(logits(plain), None), plain, table(classes=classes), ["a"], None)
    assert alone["adds"] == {}
    assert not {"passed", "gate", "transients"} & set(metrics)


def test_where_the_period_is_right(found):
    """Right are the period itself, its half and its double, within 1 %."""
    true = np.ones(N)
    true[:60], true[60:100], true[100:140], true[140:200] = 0.5, 2.015, 1.05, np.nan
    known = made(true_period=true)
    rows = measured(found, known, table(), ["a", "b"], None)["by_period"]
    p = pooled(found.logits, known.y, known.fold, CLASSES, ["a", "b"])
    hit, at = p.argmax(axis=1) == known.y, np.arange(N)
    right, wrong = (at < 100) | (at >= 200), (at >= 100) & (at < 140)
    assert rows == {
        "right": {"n": 500, "accuracy": hit[right].mean()}, "wrong": {"n": 40, "accuracy": hit[wrong].mean()},
    }  # fmt: skip
    assert measured(found, made(), table(), ["a", "b"], None)["by_period"] == {}


def test_strangers_are_scored_by_the_features_of_those_that_tell():
    rng = np.random.default_rng(4)
    sample = Sample(Curves.of([]), np.zeros((4, 1)), None, Grid((0, 1), (0, 1)), ())
    sample._views["image:count"] = rng.normal(size=(4, 1, 1)).astype(np.float32)
    features = {name: rng.normal(size=(4, 3)).astype(np.float32) for name in ("one", "two", "trees")}

    def expert(name: str) -> SimpleNamespace:
        part = SimpleNamespace(name=name, needs=("image:count",))
        return SimpleNamespace(part=part, answers=lambda views: (np.zeros((4, 3)), features[name]))

    known = rng.normal(size=(300, 6))
    novelty = fit_novelty(known, np.arange(300) % 2)
    label = np.array(["Hump", "LADS", "Hump", "Hump"])
    strange = made(strangers=(label, sample))
    found = strangeness(novelty, [expert(name) for name in features], ("two", "one"), strange)["strangers"]
    score = novelty.score(np.concatenate([features["two"], features["one"]], axis=1))
    assert found == {
        "Hump": {"n": 3, "auc": pytest.approx(score[[0, 2, 3]].mean())},
        "LADS": {"n": 1, "auc": pytest.approx(score[1])},
    }  # fmt: skip
    assert strangeness(novelty, [], (), made()) == {}
    assert strangeness(None, [], (), strange) == {}


def gate(task: Task, seed: int = 3) -> SimpleNamespace:
    """What `measured` reads of a gate that is right nine times of ten."""
    rng = np.random.default_rng(seed)
    p = rng.beta(9, 1, len(task.y))
    return SimpleNamespace(
        passed=p > 0.8, p_variable=p, p_constant=rng.beta(1, 9, len(task.y)), report={"recall": 0.98}
    )


def test_of_those_that_pass(task, found):
    own = gate(task)
    metrics = measured(found, task, table(), ["a", "b"], own)
    p = pooled(found.logits, task.y, task.fold, CLASSES, ["a", "b"])
    expected = summary(p[own.passed], task.y[own.passed], CLASSES)
    assert metrics["passed"] == {name: expected[name] for name in ("n", "accuracy", "macro_f1", "ece")}
    assert metrics["gate"] == own.report


def test_transients_are_found_at_a_rate_of_false_ones(task, found):
    own = gate(task)
    constant = {name: np.random.default_rng(8).normal(size=(N, 3)).astype(np.float32) for name in ("a", "b")}
    answers = OutOfFold(found.logits, None, constant)
    row = measured(answers, task, table(), ["a", "b"], own)["transients"]
    p = pooled(found.logits, task.y, task.fold, CLASSES, ["a", "b"])
    q = pooled(found.logits, task.y, task.fold, CLASSES, ["a", "b"], constant)
    score, still = own.p_variable * p[:, 2], own.p_constant * q[:, 2]
    true = task.y == 2
    others = np.sort(np.concatenate([score[~true], still]))
    assert row["n"] == true.sum()
    assert row["others"] == len(others) == N + (~true).sum()
    assert row["false_positives"] <= 0.01
    assert row["false_positives"] == pytest.approx((others > row["threshold"]).mean())
    assert row["recall"] == pytest.approx((score[true] > row["threshold"]).mean())
    low, high = row["interval"]
    assert low < row["recall"] < high
    # with the next lower threshold too many would be
    assert (others >= row["threshold"]).mean() > 0.01


def test_the_calibration_error_of_what_is_resampled_lies_above():
    """Why its interval need not hold it: the error of a sample of a sample is larger."""
    rng = np.random.default_rng(1)
    p = np.sort(rng.dirichlet(np.ones(2), 200), axis=1)
    y = (rng.random(200) < p[:, 1]).astype(int)
    draws = module._draws(np.arange(200))
    low, high = module._intervals(p, y, draws)["ece"]
    assert low < high
    assert high > expected_calibration_error(p, y)
