"""`models/maximise.py`: the climb goes up, stays among images, and is held back by its penalties."""

from __future__ import annotations

import numpy as np
import pytest

from lightmill.models.calibration import softmax
from lightmill.models.experts import NetworkExpert
from lightmill.models.manifest import NetworkPart
from lightmill.models.maximise import maximised

SHAPE, K = (8, 9), 3


def network(architecture: str) -> NetworkExpert:
    """An expert with random weights and batch statistics."""
    inputs, shapes = {"image": "image:count"}, {"image": SHAPE}
    part = NetworkPart(name="tried", architecture=architecture, inputs=inputs, shapes=shapes)
    expert, rng = NetworkExpert.fresh(part, K), np.random.default_rng(8)
    weights = expert.network.weights()
    for name, value in weights.items():
        if name.endswith("kernel"):
            weights[name] = rng.normal(0, 1.4 / np.sqrt(value[..., 0].size), value.shape).astype(np.float32)
        elif name.endswith(("gamma", "moving_variance")):
            weights[name] = rng.uniform(0.5, 1.5, value.shape).astype(np.float32)
        else:
            weights[name] = rng.normal(0, 0.2, value.shape).astype(np.float32)
    expert.network.set_weights(weights)
    return expert


def typical() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 60, (20, *SHAPE)).mean(axis=0)


@pytest.mark.parametrize("architecture", ["mahabal2017", "dmdt"])
def test_the_climb_raises_each_class(architecture):
    expert, start = network(architecture), typical()
    start[:, 4] = 0
    best = maximised(expert, start, steps=60)
    assert best.images.shape == (K, *SHAPE)
    assert (best.after > best.before + 0.02).all()
    assert (best.images >= 0).all()
    np.testing.assert_allclose(
        best.images.sum(axis=1), np.tile(start.sum(axis=0), (K, 1)), rtol=1e-4, atol=1e-4
    )
    # what it says of its images is what the network says of them
    p = softmax(expert.answers({"image:count": best.images})[0])
    np.testing.assert_allclose(p[np.arange(K), np.arange(K)], best.after, rtol=1e-3)
    np.testing.assert_array_equal(best.images, maximised(expert, start, steps=60).images)


def test_penalties_hold_it_back():
    expert, start = network("dmdt"), typical()
    free, held = (maximised(expert, start, steps=60, penalty=weight) for weight in (0.0, 10.0))
    gone = [np.abs(one.images - start).mean() for one in (free, held)]
    assert gone[1] < 0.5 * gone[0]
    assert (free.after > held.after).all()


def test_what_cannot_be_climbed_to():
    expert = network("dmdt")
    with pytest.raises(ValueError, match=r"\(3, 3\).*of shape \(8, 9\)"):
        maximised(expert, np.ones((3, 3)))
    for start in (np.zeros(SHAPE), np.full(SHAPE, -1.0), np.full(SHAPE, np.nan)):
        with pytest.raises(ValueError, match=r"≥ 0 with something"):
            maximised(expert, start)
    inputs, shapes = {"folded": "folded", "scalars": "scalars"}, {"folded": (64, 6), "scalars": (4,)}
    part = NetworkPart(name="other", architecture="folded", inputs=inputs, shapes=shapes)
    with pytest.raises(ValueError, match=r"'other' takes folded, scalars: images alone"):
        maximised(NetworkExpert.fresh(part, K), np.ones(SHAPE))
