"""Experts: each answers by its own view, and what is written answers as before."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
import safetensors.numpy

from lightmill.models import trees
from lightmill.models.experts import NetworkExpert, TreesExpert, load_expert
from lightmill.models.manifest import NetworkPart, TreesPart
from lightmill.models.networks import WeightsError, keras
from lightmill.models.trees import TreesError

SHAPES = {"folded": (16, 6), "scalars": (4,)}
PART = NetworkPart(
    name="curve", architecture="folded", parameters={"dense": 6}, shapes=SHAPES, turns=2,
    inputs={"folded": "view:folded", "scalars": "view:scalars"},
)  # fmt: skip


def views(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    found = {f"view:{name}": rng.normal(size=(n, *shape)) for name, shape in SHAPES.items()}
    return {name: values.astype(np.float32) for name, values in found.items()} | {
        "features": rng.normal(size=(n, 3)).astype(np.float32)
    }


@pytest.fixture(scope="module")
def network() -> NetworkExpert:
    keras().utils.set_random_seed(1)
    return NetworkExpert.fresh(PART, 3)


def of_trees(k: int) -> TreesExpert:
    table = views(300)["features"]
    y = np.digitize(table[:, 0], [-0.5, 0.5] if k == 3 else [0.0])
    return TreesExpert(TreesPart(name="trees"), trees.fit_classes(table, y, k, rounds=20, leaves=4))


def test_a_network_takes_the_views_of_its_part(network: NetworkExpert):
    given = views(5)
    logits, last = network.answers(given)
    assert (logits.shape, last.shape) == ((5, 3), (5, 6))
    named = {name: given[f"view:{name}"] for name in SHAPES}
    # the circle is begun at two places that are pooled apart, and the answers averaged
    later = named | {"folded": np.roll(named["folded"], 2, axis=1)}
    both = [network.network.logits(one) for one in (named, later)]
    np.testing.assert_allclose(logits, np.mean(both, axis=0), atol=1e-6)
    assert network.part.needs == ("view:folded", "view:scalars")


def test_weights_are_written_as_halves_and_answer_as_before(network: NetworkExpert):
    before = network.answers(views(9))[0]
    content = network.to_bytes()
    assert {w.dtype for w in safetensors.numpy.load(content).values()} == {np.dtype(np.float16)}
    logits, last = network.answers(views(9))
    # whoever writes it answers from then on as whoever reads it
    again = load_expert(PART, content, 3, 0)
    np.testing.assert_array_equal(again.answers(views(9))[0], logits)
    np.testing.assert_array_equal(again.answers(views(9))[1], last)
    assert np.abs(logits - before).max() < 0.01
    assert again.to_bytes() == content


@pytest.mark.parametrize("k", [2, 3])
def test_trees_give_a_logit_a_class(k: int):
    expert, given = of_trees(k), views(40, seed=2)
    logits, last = expert.answers(given)
    assert last is None
    assert logits.shape == (40, k)
    truth = np.digitize(given["features"][:, 0], [-0.5, 0.5] if k == 3 else [0.0])
    assert (logits.argmax(axis=1) == truth).mean() > 0.9
    margin = expert.trees.margin(given["features"])
    np.testing.assert_array_equal(logits if k == 3 else logits[:, 1] - logits[:, 0], margin)
    again = load_expert(expert.part, expert.to_bytes(), k, 3)
    np.testing.assert_array_equal(again.answers(given)[0], logits)
    assert expert.answers(views(0))[0].shape == (0, k)


def test_the_same_trees_are_the_same_bytes():
    expert = of_trees(3)
    assert expert.to_bytes() == expert.to_bytes()
    assert gzip.decompress(expert.to_bytes()) == expert.trees.to_json()
    assert expert.to_bytes()[4:8] == b"\0\0\0\0"  # gzip's time of writing


def test_content_of_another_network_is_refused(network: NetworkExpert):
    content = network.to_bytes()
    with pytest.raises(WeightsError, match=r"'class/kernel' has shape \(6, 3\), the network's has \(6, 4\)"):
        load_expert(PART, content, 4, 0)
    with pytest.raises(WeightsError, match="weights missing"):
        load_expert(PART, safetensors.numpy.save({"a": np.ones(2, np.float16)}), 3, 0)
    with pytest.raises(WeightsError, match="not safetensors"):
        load_expert(PART, of_trees(3).to_bytes(), 3, 0)
    with pytest.raises(WeightsError, match="not safetensors"):
        load_expert(PART, b"", 3, 0)


def test_content_of_other_trees_is_refused():
    part, content = TreesPart(name="trees"), of_trees(3).to_bytes()
    with pytest.raises(TreesError, match="the trees take 3 columns, 4 statistics are named"):
        load_expert(part, content, 3, 4)
    with pytest.raises(TreesError, match=r"the trees give \(3,\) values a row, 1 are needed"):
        load_expert(part, content, 2, 3)


DAMAGES = {
    "nothing": lambda data: b"",
    "rubbish": lambda data: b"rubbish",
    "cut": lambda data: data[: len(data) // 2],
    "a changed byte": lambda data: data[:-6] + bytes([data[-6] ^ 1]) + data[-5:],
    "rubbish behind the head": lambda data: data[:10] + b"rubbish" * 9,
    "gzip of rubbish": lambda data: gzip.compress(b"rubbish"),
    "gzip of nothing": lambda data: gzip.compress(b""),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_trees_are_refused(damage: str):
    content = DAMAGES[damage](of_trees(3).to_bytes())
    with pytest.raises(TreesError, match=r"not gzip|XGBoost cannot read"):
        load_expert(TreesPart(name="trees"), content, 3, 3)
