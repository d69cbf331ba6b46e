"""Architectures: each against a slow, obvious NumPy version of itself, and what its answers must not depend on."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from lightmill.models.architectures import ARCHITECTURES, BINS, CHANNELS, SCALARS
from lightmill.models.networks import FEATURES, Network

IMAGE = (9, 10)
CURVE = {"folded": (BINS, CHANNELS), "scalars": (SCALARS,)}
Weights = Mapping[str, np.ndarray]


def trained(network: Network, seed: int = 4) -> Network:
    """With all weights away from their starts, moving means and variances too."""
    rng = np.random.default_rng(seed)
    network.set_weights({k: w + 0.3 * rng.random(w.shape) - 0.1 for k, w in network.weights().items()})
    return network


@pytest.fixture(scope="module")
def dmdt() -> Network:
    return trained(Network("dmdt", {"image": IMAGE}, {"class": 3}, {"filters": [3, 4, 5], "dense": 6}))


@pytest.fixture(scope="module")
def folded() -> Network:
    return trained(Network("folded", CURVE, {"class": 3}, {"dense": 7}))


def counts(n: int, seed: int = 0) -> np.ndarray:
    """Images with empty columns, and one that is quite empty."""
    rng = np.random.default_rng(seed)
    found = rng.poisson(rng.uniform(0, 9, (n, 1, IMAGE[1])), (n, *IMAGE)).astype(np.float32)
    found[:, :, [0, 7]] = 0
    found[0] = 0
    return found


def curves(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(n, *shape)).astype(np.float32) for name, shape in CURVE.items()}


def close(found: np.ndarray, wanted: np.ndarray, times: float = 1e-5) -> None:
    """To float32 rounding in sums of some hundred terms, of the largest value."""
    np.testing.assert_allclose(found, wanted, atol=times * max(1.0, float(np.abs(wanted).max())))


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def normed(w: Weights, name: str, x: np.ndarray) -> np.ndarray:
    """Batch normalisation as it is applied: by the moving mean and variance."""
    scale = w[f"{name}/gamma"] / np.sqrt(w[f"{name}/moving_variance"] + 1e-3)
    return (x - w[f"{name}/moving_mean"]) * scale + w[f"{name}/beta"]


def dense(w: Weights, name: str, x: np.ndarray) -> np.ndarray:
    return x @ w[f"{name}/kernel"] + w[f"{name}/bias"]


def dmdt_oracle(w: Weights, image: np.ndarray) -> np.ndarray:
    """Last features of one image."""
    pairs, column = max(image.sum(), 1), np.maximum(image.sum(axis=0), 1)
    x = np.stack([np.log1p(3e4 * image / pairs) / 5, 2 * np.sqrt(image / column)], axis=-1)
    for k, pool in enumerate((0, 1, 0, 1, 0)):
        kernel = w[f"conv_{k}/kernel"]
        wide = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        out = np.zeros((*x.shape[:2], kernel.shape[-1]))
        for i in range(x.shape[0]):
            for j in range(x.shape[1]):
                out[i, j] = np.einsum("abc,abcd->d", wide[i : i + 3, j : j + 3], kernel)
        x = relu(normed(w, f"norm_{k}", out))
        if pool:
            m, n = x.shape[0] // 2, x.shape[1] // 2
            x = np.array(
                [[x[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max((0, 1)) for j in range(n)] for i in range(m)]
            )
    return relu(dense(w, "dense", x.ravel()))


def folded_oracle(w: Weights, curve: np.ndarray, scalars: np.ndarray) -> np.ndarray:
    """Last features of one folded light curve."""
    x = curve
    for k, pool in enumerate((0, 1, 0, 1, 0)):
        kernel, n = w[f"conv_{k}/kernel"], len(x)
        out = np.array(
            [sum(x[(i + d - 2) % n] @ kernel[d] for d in range(5)) for i in range(n)]  # round the circle
        )
        x = relu(normed(w, f"norm_{k}", out))
        if pool:
            x = np.array([x[i : i + 2].max(axis=0) for i in range(0, n, 2)])
    s = relu(dense(w, "scalars_2", relu(dense(w, "scalars_1", normed(w, "norm_scalars", scalars)))))
    return relu(dense(w, "dense", np.concatenate([x.mean(axis=0), x.max(axis=0), s])))


def test_dmdt_against_numpy(dmdt: Network):
    x, w = counts(4), {k: v.astype(np.float64) for k, v in dmdt.weights().items()}
    found = dmdt.apply({"image": x})
    wanted = np.array([dmdt_oracle(w, image.astype(np.float64)) for image in x])
    close(found[FEATURES], wanted)
    close(found["class"], dense(w, "class", wanted))


def test_folded_against_numpy(folded: Network):
    x, w = curves(4), {k: v.astype(np.float64) for k, v in folded.weights().items()}
    found = folded.apply(x)
    double = [values.astype(np.float64) for values in x.values()]
    wanted = np.array([folded_oracle(w, curve, scalars) for curve, scalars in zip(*double, strict=True)])
    close(found[FEATURES], wanted)
    close(found["class"], dense(w, "class", wanted))


@pytest.mark.parametrize("factor", [2, 3, 100])
def test_dmdt_does_not_see_how_many_pairs_there_are(dmdt: Network, factor: int):
    x = counts(20)
    close(dmdt.logits({"image": factor * x}), dmdt.logits({"image": x}))


def test_dmdt_sees_the_cadence_and_the_differences(dmdt: Network):
    x = counts(20)[1:]
    other_cadence = x * np.where(np.arange(IMAGE[1]) == 5, 3, 1)
    for changed in (other_cadence, x[:, ::-1]):
        assert (np.abs(dmdt.logits({"image": changed}) - dmdt.logits({"image": x})).max(axis=1) > 1e-4).all()


@pytest.mark.parametrize("trained_so_far", [False, True])
@pytest.mark.parametrize("bins", [4, 8, 32, 60])
def test_where_the_circle_is_cut_open_does_not_matter(folded: Network, bins: int, trained_so_far: bool):
    """Twice halved, the circle has steps of four bins."""
    network, x = folded if trained_so_far else Network("folded", CURVE, {"class": 3}), curves(20)
    turned = x | {"folded": np.roll(x["folded"], bins, axis=1)}
    close(network.logits(turned), network.logits(x), 1e-6)


def test_folded_sees_the_shape_the_direction_and_the_scalars(folded: Network):
    x = curves(20)
    for changed in (
        {"folded": x["folded"][:, ::-1]},
        {"folded": -x["folded"]},
        {"folded": x["folded"][:, :, ::-1]},
        {"scalars": x["scalars"] + 1},
    ):
        assert (np.abs(folded.logits(x | changed) - folded.logits(x)).max(axis=1) > 1e-4).all()


def test_the_parameters_are_the_builders():
    network = Network("folded", CURVE, {"class": 3}, {"dense": 5, "dropout": 0.1})
    assert network.apply(curves(2))[FEATURES].shape == (2, 5)
    assert [layer.rate for layer in network.model.layers if layer.name == "dropout"] == [0.1]


def test_the_folded_curve_is_the_pipelines():
    """The two rooms do not import each other, so that the sizes stand in both."""
    from lightmill.pipeline import folded

    assert (folded.BINS, len(folded.CHANNELS), len(folded.SCALARS)) == (BINS, CHANNELS, SCALARS)


def test_each_says_where_it_comes_from():
    assert set(ARCHITECTURES) == {"mahabal2017", "dmdt", "folded"}
    assert all(one.build.__doc__ for one in ARCHITECTURES.values())
