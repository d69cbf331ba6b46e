"""`pipeline/answer.py`: what a bundle says of light curves, whatever stands beside them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from lightmill.models.bundle import Bundle, load
from lightmill.models.combine import to_mix
from lightmill.pipeline import answer as module
from lightmill.pipeline.answer import Answers, answer
from lightmill.pipeline.asking import Asking, finder_of
from lightmill.pipeline.choose import Chosen, Finder
from lightmill.pipeline.clean import Cleaned
from lightmill.pipeline.curves import Curves
from lightmill.pipeline.features import index_of
from lightmill.pipeline.recipe import load_recipe
from lightmill.pipeline.represent import represent

CLASSES = ("EW", "EA", "RRab")
BAR = 1e-6  #: a batch's shape may change the last bits of float32 products
NOVELTY_BAR = 1e-6  #: of distances that are float32 differences of large squares


def cleaned(curves: Curves) -> Cleaned:
    n = len(curves.offsets) - 1
    return Cleaned(
        curves.t, curves.mag, curves.magerr, curves.offsets, np.arange(n), np.diff(curves.offsets).astype(np.int32),
        np.zeros(n, np.int8),
    )  # fmt: skip


@pytest.fixture(scope="module")
def curves(waves: Callable) -> Curves:
    """Twenty variables and ten constant stars, mixed."""
    varying, _ = waves(20, CLASSES, seed=9)
    still, _ = waves(10, CLASSES, seed=10)
    rng = np.random.default_rng(4)
    still = Curves(still.t, 16 + rng.normal(0, 0.03, len(still.t)), still.magerr, still.offsets)
    return Curves.joined([varying, still]).take(rng.permutation(30))


@pytest.fixture(scope="module")
def finder() -> Finder:
    found = finder_of(load_recipe("ztf-dr"))
    assert found is not None
    return found


@pytest.fixture(scope="module")
def gated(tiny_gated_bundle: Path) -> Bundle:
    return load(tiny_gated_bundle)


@pytest.fixture(scope="module")
def bare(tiny_bundle: Path) -> Bundle:
    return load(tiny_bundle)


@pytest.fixture(scope="module")
def answers(curves: Curves, gated: Bundle, finder: Finder) -> Answers:
    return answer(cleaned(curves), gated, finder=finder)


def judged(
    bundle: Bundle, curves: Curves, finder: Finder | None, experts: tuple[str, ...] = ()
) -> tuple[np.ndarray, np.ndarray | None]:
    """The bundle asked directly."""
    own = curves.t, curves.mag, curves.magerr, curves.offsets
    known = curves.statistics()
    views = represent(
        *own, needs=bundle.manifest.needs(experts), dt_edges=bundle.dt_edges, dm_edges=bundle.dm_edges,
        statistics=known, chosen=finder(*own, known) if finder else None, features=bundle.manifest.features,
    )  # fmt: skip
    return bundle.judge(views, experts)


def same(one: Answers, two: Answers) -> None:
    """Equal to the bar, NaN where the other is."""
    np.testing.assert_array_equal(one.passed, two.passed)
    for name in ("statistics", "p_variable", "probabilities"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), rtol=0, atol=BAR, err_msg=name)
    np.testing.assert_allclose(one.novelty, two.novelty, rtol=0, atol=NOVELTY_BAR)
    assert one.chosen is not None
    assert two.chosen is not None
    for field in fields(Chosen):
        np.testing.assert_array_equal(getattr(one.chosen, field.name), getattr(two.chosen, field.name))


def test_rows_sum_to_one(answers: Answers, gated: Bundle):
    assert answers.probabilities.shape == (30, 1 + len(gated.classes))
    assert answers.probabilities.dtype == np.float32
    assert ((answers.probabilities >= 0) & (answers.probabilities <= 1)).all()
    np.testing.assert_allclose(answers.probabilities.sum(axis=1), 1, atol=BAR)
    # neither half of the cascade is idle
    assert 0 < answers.passed.sum() < 30


def test_what_the_gate_holds_back_is_shared_out_by_the_priors(answers: Answers, gated: Bundle):
    out = ~answers.passed
    np.testing.assert_array_equal(answers.passed, answers.p_variable >= 0.5)
    shares = answers.p_variable[out, None] * gated.priors
    np.testing.assert_allclose(answers.probabilities[out, 1:], shares, atol=BAR)
    np.testing.assert_allclose(answers.probabilities[out, 0], 1 - answers.p_variable[out], atol=BAR)


def test_what_passes_is_what_the_experts_say(answers: Answers, curves: Curves, gated: Bundle, finder: Finder):
    passed = np.flatnonzero(answers.passed)
    p, novelty = judged(gated, curves.take(passed), finder)
    np.testing.assert_allclose(
        answers.probabilities[passed, 1:], answers.p_variable[passed, None] * p, atol=BAR
    )
    assert answers.novelty.shape == (len(passed),) == answers.chosen.frequency[:, 0].shape
    np.testing.assert_allclose(answers.novelty, novelty, atol=NOVELTY_BAR)
    assert ((answers.novelty >= 0) & (answers.novelty <= 1)).all()


def test_a_mix_turns_both(answers: Answers, curves: Curves, gated: Bundle, finder: Finder):
    mix = {name: float(k) for name, k in zip(gated.classes, (9, 1, 4, 2, 3), strict=True)}
    shares = np.array(list(mix.values())) / sum(mix.values())
    found = answer(cleaned(curves), gated, Asking(mix=mix), finder=finder)
    passed = answers.passed
    np.testing.assert_array_equal(found.passed, passed)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, atol=BAR)
    np.testing.assert_allclose(
        found.probabilities[~passed, 1:], answers.p_variable[~passed, None] * shares, atol=BAR
    )
    p = answers.probabilities[passed, 1:] / answers.p_variable[passed, None]
    by_hand = p * shares / gated.priors  # Saerens+2002, eq. 2.4
    by_hand /= by_hand.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        found.probabilities[passed, 1:], answers.p_variable[passed, None] * by_hand, atol=2 * BAR
    )
    np.testing.assert_allclose(to_mix(p, gated.priors, shares), by_hand, atol=BAR)
    with pytest.raises(ValueError, match=r"\[classes\] mix gives shares of EW 1; one above 0 is needed"):
        answer(cleaned(curves), gated, Asking(mix={"EW": 1.0}), finder=finder)


@pytest.mark.parametrize(
    "experts", [("trees",), ("folded",), ("dmdt",), ("dmdt", "trees"), ("dmdt", "folded")]
)
def test_some_experts_are_the_bundles_judge_of_them(
    curves: Curves, bare: Bundle, finder: Finder, experts: tuple[str, ...]
):
    found = answer(cleaned(curves), bare, Asking(experts=experts), finder=finder)
    p, novelty = judged(bare, curves, finder, experts)
    np.testing.assert_allclose(found.probabilities, p, atol=BAR)
    # novelty is told by both networks together, or not at all
    assert (found.novelty is None) is (novelty is None) is (set(experts) != {"dmdt", "folded"})
    whole = answer(cleaned(curves), bare, finder=finder)
    assert np.abs(whole.probabilities - found.probabilities).max() > 1e-3


def test_the_image_alone_needs_no_period(curves: Curves, bare: Bundle, finder: Finder):
    without = answer(cleaned(curves), bare, Asking(experts=("dmdt",)))
    assert without.chosen is None
    p, _ = judged(bare, curves, None, ("dmdt",))
    np.testing.assert_allclose(without.probabilities, p, atol=BAR)
    with pytest.raises(ValueError, match="needs a period, and none was searched"):
        answer(cleaned(curves), bare)


def test_without_a_gate(answers: Answers, curves: Curves, gated: Bundle, bare: Bundle, finder: Finder):
    """A bundle that has none, and one whose gate is not asked."""
    for bundle in (gated, bare):
        found = answer(cleaned(curves), bundle, Asking(gate=False), finder=finder)
        assert found.p_variable is None
        assert found.passed.all()
        assert found.probabilities.shape == (30, len(bundle.classes))
        assert found.novelty.shape == (30,)
    every = answer(cleaned(curves), gated, Asking(threshold=0.0), finder=finder)
    assert every.passed.all()
    np.testing.assert_array_equal(every.p_variable, answers.p_variable)
    none = answer(cleaned(curves), gated, Asking(threshold=1.0), finder=finder)
    assert not none.passed.any()
    assert none.novelty is None
    assert none.chosen.frequency.shape[0] == 0
    np.testing.assert_allclose(none.probabilities[:, 1:], none.p_variable[:, None] * gated.priors, atol=BAR)


def test_one_by_one_and_in_any_order(answers: Answers, curves: Curves, gated: Bundle, finder: Finder):
    alone = [answer(cleaned(curves.take(np.array([i]))), gated, finder=finder) for i in range(30)]
    for i, one in enumerate(alone):
        np.testing.assert_allclose(one.probabilities[0], answers.probabilities[i], rtol=0, atol=BAR)
        np.testing.assert_allclose(one.statistics[0], answers.statistics[i], rtol=0, atol=0)
    told = np.concatenate([one.novelty for one in alone if one.novelty is not None])
    np.testing.assert_allclose(told, answers.novelty, rtol=0, atol=NOVELTY_BAR)
    back = answer(cleaned(curves.take(np.arange(30)[::-1])), gated, finder=finder)
    np.testing.assert_allclose(back.probabilities[::-1], answers.probabilities, rtol=0, atol=BAR)


@pytest.mark.parametrize("at_once", [1, 7, 20])
def test_in_pieces(
    answers: Answers, curves: Curves, gated: Bundle, finder: Finder, at_once: int, monkeypatch: pytest.MonkeyPatch
):  # fmt: skip
    monkeypatch.setattr(module, "AT_ONCE", at_once)
    same(answer(cleaned(curves), gated, finder=finder), answers)


def test_more_than_a_networks_batch(waves: Callable, bare: Bundle):
    """600 light curves: the second call of a network is padded."""
    many, _ = waves(600, CLASSES, seed=3)
    asking = Asking(experts=("dmdt",))
    whole = answer(cleaned(many), bare, asking).probabilities
    last = answer(cleaned(many.take(np.arange(500, 600))), bare, asking).probabilities
    np.testing.assert_allclose(last, whole[500:], rtol=0, atol=BAR)


def test_no_light_curves(gated: Bundle, finder: Finder):
    found = answer(cleaned(Curves.of([])), gated, finder=finder)
    assert found.probabilities.shape == (0, 1 + len(gated.classes))
    assert found.novelty is None


def test_statistics_are_of_all(answers: Answers, curves: Curves):
    np.testing.assert_array_equal(answers.statistics[:, index_of("n")], np.diff(curves.offsets))
