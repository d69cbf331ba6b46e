"""`pipeline/variables.py`: classes as common as asked for, with the shapes and periods of their kind."""

from __future__ import annotations

import numpy as np
import pytest

from lightmill.pipeline import observe, variables
from lightmill.pipeline.variables import CLASSES, DRAW, LABELS, draw_variables


def one(drawn: variables.Variables, k: int, epoch: float) -> np.ndarray:
    """The parameters of one star."""
    return np.r_[drawn.period[k], epoch, drawn.amplitude[k], drawn.rest[k]]


def folded(shape: int, params: np.ndarray) -> np.ndarray:
    """A cycle from its epoch on, in g."""
    t = params[observe.EPOCH] + params[observe.PERIOD] * np.linspace(0, 1, 2000, endpoint=False)
    return np.array([observe.signal(shape, params, each, 0) for each in t])


@pytest.mark.parametrize("label", ["EW", "EA", "RRab", "RRc", "HADS", "CEP", "ELL"])
def test_strictly_periodic_classes_repeat_with_their_amplitude(label):
    drawn = DRAW[label](np.random.default_rng(1), 20)
    for k in range(20):
        params = one(drawn, k, 100.0)
        curve = folded(drawn.shape, params)
        again = observe.signal(drawn.shape, params, 100.0 + 7 * drawn.period[k], 0)
        assert again == pytest.approx(curve[0], abs=1e-6)
        # EA: a wave of up to 4 % lies below the deeper eclipse; the others were scaled on 64 phases.
        assert np.ptp(curve) == pytest.approx(drawn.amplitude[k], rel=0.06)


def test_rrab_rises_faster_than_it_fades():
    drawn = DRAW["RRab"](np.random.default_rng(2), 50)
    for k in range(50):
        curve = folded(drawn.shape, one(drawn, k, 0.0))
        rise = (np.argmin(curve) - np.argmax(curve)) % len(curve) / len(curve)  # faintest to brightest
        assert rise < 0.35


def test_rrd_period_ratio():
    """The period is that of the first overtone, the first of the other columns that of the fundamental mode."""
    drawn = DRAW["RRd"](np.random.default_rng(3), 500)
    ratio = drawn.period / drawn.rest[:, 0]
    assert ratio.min() > 0.742
    assert ratio.max() < 0.749
    assert 0.7435 < np.median(ratio) < 0.747


def test_classes_are_as_common_as_said():
    label, _, params = draw_variables(np.random.default_rng(4), 0.5, 40_000)
    counts = np.bincount(label, minlength=len(LABELS))
    assert counts[0] / 40_000 == pytest.approx(0.5, abs=0.01)
    for name, count in zip(LABELS[1:], counts[1:], strict=True):
        expected = 20_000 * CLASSES[name]
        assert abs(count - expected) < 4.5 * expected**0.5, name
    periodic = ~np.isin(label, [0, LABELS.index("SN_Ia")])
    assert (np.isfinite(params[:, observe.PERIOD]) == periodic).all()
    assert (params[label == 0, observe.AMPLITUDE] == 0).all()
    assert (params[label > 0, observe.AMPLITUDE] > 0).all()


def test_every_class_has_a_shape_and_colours():
    assert set(DRAW) == set(CLASSES)
    assert set(variables.REDDER) == set(LABELS)
    assert sum(CLASSES.values()) == pytest.approx(1)


def test_pulsation_is_smaller_in_red_light():
    label = np.full(3, LABELS.index("RRab"))
    assert variables.amplitude_scale(label, np.array([1, 2, 3])).tolist() == [1.0, 0.72, 0.57]
