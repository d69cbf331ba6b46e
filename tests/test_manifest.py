"""The manifest: what it must not say is refused, and what it says is found."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lightmill.models.manifest import CombinerPart, Manifest, NetworkPart, TreesPart, pool_name

DT, DM = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0), (-2.0, -1.0, 0.0, 1.0, 2.0)


def fields(**changes: Any) -> dict[str, Any]:
    """A manifest of trees, a folded network and one on images, as JSON has it."""
    one = {"weights": [1.0], "temperatures": {"periodic": 1.1}}
    return {
        "format": 2, "name": "tiny", "classes": ["EW", "RRab", "LPV"], "dt_edges": list(DT), "dm_edges": list(DM),
        "representation": 1, "features": ["period", "skew"],
        "period": {"choice": "0" * 64, "limits": {"fmin": 0.01, "fmax": 20.0}},
        "experts": [
            {"kind": "trees", "name": "trees"},
            {
                "kind": "network", "name": "folded", "architecture": "folded",
                "inputs": {"folded": "folded", "scalars": "scalars"},
                "shapes": {"folded": [64, 6], "scalars": [4]},
            },
            {
                "kind": "network", "name": "dmdt", "architecture": "dmdt", "inputs": {"image": "image:count"},
                "shapes": {"image": [4, 5]},
            },
        ],
        "combiners": {
            "dmdt": one, "folded": one, "dmdt+folded": one | {"weights": [0.4, 0.6]},
            "dmdt+folded+trees": one | {"weights": [0.5, 0.3, 0.2]},
        },
        "novelty": ["folded", "dmdt"],
        "gate": {"statistics": ["std", "eta"], "slope": 0.9, "intercept": -1.0, "threshold": 0.2},
        "priors": [0.5, 0.3, 0.2],
    } | changes  # fmt: skip


def manifest(**changes: Any) -> Manifest:
    return Manifest.model_validate(fields(**changes))


def expert(i: int, **changes: Any) -> list[dict[str, Any]]:
    """The experts with one changed."""
    found = fields()["experts"]
    found[i] |= changes
    return found


def combiners(**changes: Any) -> dict[str, Any]:
    return fields()["combiners"] | {name.replace("_and_", "+"): part for name, part in changes.items()}


def test_what_it_says():
    found = manifest()
    assert found.names == ("trees", "folded", "dmdt")
    assert found.shape == (4, 5)
    assert found.leaves == ("nonvar", "EW", "RRab", "LPV")
    assert manifest(gate=None).leaves == ("EW", "RRab", "LPV")
    assert set(found.content) == {
        "trees.json.gz", "folded.safetensors", "dmdt.safetensors", "gate.json", "novelty.safetensors",
        "golden.safetensors", "card.md",
    }  # fmt: skip
    bare = manifest(gate=None, novelty=[])
    assert set(found.content) - set(bare.content) == {"gate.json", "novelty.safetensors"}
    assert isinstance(found.experts[0], TreesPart)
    assert isinstance(found.experts[2], NetworkPart)


def test_there_and_back():
    found = manifest()
    raw = json.loads(found.to_json())
    assert next(iter(raw)) == "digest"
    assert raw.pop("digest") == found.digest
    assert Manifest.model_validate(raw) == found
    assert Manifest.model_validate(raw).digest == found.digest


def test_the_digest_is_of_all_that_it_says():
    own = manifest().digest
    assert manifest().digest == own
    for change in (
        {"metrics": {"macro_f1": 0.6}},
        {"training": {"seed": 1}},
        {"representation": 2},
        {"combiners": combiners(dmdt={"weights": [1.0], "temperatures": {"periodic": 1.2}})},
        {"experts": expert(2, parameters={"dense": 5})},
        {"files": {"card.md": {"sha256": "0" * 64, "size": 3}}},
    ):
        assert manifest(**change).digest != own


@pytest.mark.parametrize(
    ("names", "key"),
    [(["trees"], "trees"), (["trees", "dmdt"], "dmdt+trees"), (("c", "a", "b"), "a+b+c")],
)
def test_the_name_of_a_pool(names: list[str], key: str):
    assert pool_name(names) == key


@given(st.lists(st.from_regex("[a-z][a-z0-9_]*", fullmatch=True), min_size=1, unique=True), st.randoms())
def test_the_name_of_a_pool_does_not_depend_on_the_order(names: list[str], random: Any):
    other = names.copy()
    random.shuffle(other)
    assert pool_name(names) == pool_name(other)
    assert set(pool_name(names).split("+")) == set(names)


def test_the_experts_that_are_asked():
    found = manifest()
    assert [one.name for one in found.chosen()] == ["trees", "folded", "dmdt"]
    # the bundle's order, since the weights are in it
    assert [one.name for one in found.chosen(["dmdt", "folded"])] == ["folded", "dmdt"]
    assert [one.name for one in found.chosen(["trees", "dmdt", "folded"])] == ["trees", "folded", "dmdt"]
    assert [one.name for one in found.chosen(["dmdt"])] == ["dmdt"]


@pytest.mark.parametrize("names", [["tree"], ["dmdt", "paper"], ["trees"], ["trees", "dmdt"]])
def test_experts_that_cannot_be_asked_are_named(names: list[str]):
    asked = ", ".join(names)
    with pytest.raises(
        ValueError,
        match=rf"cannot be asked for the experts {asked}: it has trees, folded, dmdt and combines dmdt, ",
    ):
        manifest().chosen(names)


def test_what_experts_need():
    found = manifest()
    assert found.needs() == ("features", "folded", "scalars", "image:count")
    assert found.needs(["dmdt"]) == ("image:count",)
    assert found.needs(["dmdt", "folded"]) == ("folded", "scalars", "image:count")
    twice = manifest(
        experts=[*fields()["experts"], fields()["experts"][2] | {"name": "again"}],
        combiners={"again+dmdt+folded+trees": {"weights": [1, 1, 1, 1], "temperatures": {}}},
    )
    assert twice.needs() == ("features", "folded", "scalars", "image:count")  # each once


REFUSALS = [
    ({"format": 1}, "Input should be 2 or 3"),
    ({"extra": 1}, "Extra inputs are not permitted"),
    ({"name": ""}, "at least 1 character"),
    ({"classes": ["EW"], "priors": [1.0]}, "at least 2 items"),
    ({"classes": ["EW", "RRab", "LVP"]}, "unknown class 'LVP'.* Did you mean 'LPV'"),
    ({"classes": ["EW", "RRab", "EW"]}, "class EW is listed more than once"),
    ({"priors": [0.5, 0.5]}, "2 priors for 3 classes: one each"),
    ({"priors": [0.5, 0.5, 0.5]}, r"sum to 1, got \(0.5, 0.5, 0.5\) with sum 1.5"),
    ({"priors": [1.2, -0.1, -0.1]}, "priors must be ≥ 0"),
    ({"priors": [math.nan, 0.5, 0.5]}, "finite number"),
    ({"dt_edges": [0, 1, 1, 2, 3, 4]}, "dt_edges must increase"),
    ({"dm_edges": [2, 1, 0, -1, -2]}, "dm_edges must increase"),
    ({"dm_edges": [-2, -1, 0, 1, math.inf]}, "finite number"),
    ({"dt_edges": [0.0]}, "at least 2 items"),
    ({"experts": []}, "at least 1 item"),
    ({"experts": expert(0, kind="forest")}, "'kind' does not match any of the expected tags: 'network', 'trees'"),
    ({"experts": expert(0, name="folded")}, r"\['folded', 'folded', 'dmdt'\]: each needs a name of its own"),
    *(
        ({"experts": expert(0, name=name)}, "none of gate, golden, novelty, bundle, card")
        for name in ("gate", "golden", "novelty", "bundle", "card")
    ),
    *(
        ({"experts": expert(0, name=name)}, "String should match pattern")
        for name in ("", "Trees", "../trees", "a+b", "a b", "1a", "a.b", "a\n")
    ),
    ({"experts": expert(0, weights=[1])}, "Extra inputs are not permitted"),
    ({"combiners": {}}, "no combiner for all experts, 'dmdt.folded.trees'; there are"),
    ({"combiners": combiners(paper={"weights": [1], "temperatures": {}})}, "combiner 'paper' has 1 weights"),
    ({"combiners": combiners(dmdt={"weights": [1, 2], "temperatures": {}})}, "combiner 'dmdt' has 2 weights"),
    (
        {"combiners": combiners(trees_and_dmdt={"weights": [1, 1], "temperatures": {}})},
        r"combiner 'trees\+dmdt' .* in alphabetical order",
    ),
    (
        {"combiners": combiners(dmdt_and_dmdt={"weights": [1, 1], "temperatures": {}})},
        r"combiner 'dmdt\+dmdt' has 2 weights",
    ),
    ({"combiners": combiners(dmdt={"weights": [-1], "temperatures": {}})}, "greater than or equal to 0"),
    ({"combiners": combiners(dmdt={"weights": [math.nan], "temperatures": {}})}, "finite number"),
    ({"combiners": combiners(dmdt={"weights": [1], "temperatures": {"periodic": 0}})}, "greater than 0"),
    ({"novelty": ["trees"]}, r"novelty is told by \('trees',\), networks are \['dmdt', 'folded'\]"),
    ({"novelty": ["paper"]}, "novelty is told by"),
    ({"period": None}, "expert 'trees' takes features, but there is no period"),
    (
        {
            "period": None, "experts": fields()["experts"][1:],
            "combiners": {"dmdt+folded": {"weights": [1, 1], "temperatures": {}}},
        },
        "expert 'folded' takes folded, scalars, but there is no period",
    ),
    ({"period": {"choice": "x", "limits": {}}}, "String should match pattern"),
    ({"features": []}, "expert 'trees' takes features, and none is named"),
    (
        {"experts": expert(1, inputs={"folded": "folded"})},
        "expert 'folded' has inputs folded and shapes of folded, scalars",
    ),
    (
        {"experts": expert(2, shapes={"image": [5, 4]})},
        r"expert 'dmdt' takes images of shape \(5, 4\), the edges make \(4, 5\)",
    ),
    ({"dt_edges": [*DT, 32.0]}, r"takes images of shape \(4, 5\), the edges make \(4, 6\)"),
    ({"gate": {"statistics": [], "slope": 1, "intercept": 0, "threshold": 0.5}}, "at least 1 item"),
    ({"gate": {"statistics": ["std"], "slope": 0, "intercept": 0, "threshold": 0.5}}, "greater than 0"),
    ({"gate": {"statistics": ["std"], "slope": 1, "intercept": 0, "threshold": 2}}, "less than or equal to 1"),
    ({"files": {"card.md": {"sha256": "0", "size": 1}}}, "String should match pattern"),
    ({"files": {"card.md": {"sha256": "0" * 64, "size": -1}}}, "greater than or equal to 0"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), REFUSALS, ids=range(len(REFUSALS)))
def test_nonsense_is_refused(change: dict[str, Any], message: str):
    with pytest.raises(ValidationError, match=message):
        manifest(**change)


@pytest.mark.parametrize("name", sorted(Manifest.model_fields))
def test_what_is_missing_is_named(name: str):
    raw = fields()
    if name in raw and Manifest.model_fields[name].is_required():
        raw.pop(name)
        with pytest.raises(ValidationError, match=rf"{name}\n  Field required"):
            Manifest.model_validate(raw)
    else:
        assert not Manifest.model_fields[name].is_required()


def test_a_bundle_of_images_alone_needs_no_period():
    alone = {"weights": [1.0], "temperatures": {}}
    found = manifest(
        period=None, features=[], experts=fields()["experts"][2:], combiners={"dmdt": alone}, novelty=[]
    )
    assert found.needs() == ("image:count",)


def test_nothing_can_be_changed():
    found = manifest()
    with pytest.raises(ValidationError, match="frozen"):
        found.name = "other"
    with pytest.raises(ValidationError, match="frozen"):
        CombinerPart(weights=(1.0,), temperatures={}).weights = (2.0,)
