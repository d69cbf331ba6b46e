"""`pipeline/asking.py`: what a recipe asks of a bundle, and everything that is refused before any work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lightmill.models import choice as choices
from lightmill.models.choice import ChoiceManifest
from lightmill.models.folder import BundleError, read_manifest
from lightmill.models.manifest import Manifest
from lightmill.pipeline.asking import Asking, asking_of, check_recipe, finder_of, mix_of
from lightmill.pipeline.recipe import Recipe


def recipe(**tables: object) -> Recipe:
    return Recipe.model_validate(
        {"name": "mine", "period": {"mode": "on"}, "model": {"bundle": "tiny"}} | tables
    )


@pytest.fixture(scope="module")
def manifest(tiny_bundle: Path) -> Manifest:
    return read_manifest(tiny_bundle)


@pytest.fixture(scope="module")
def choice() -> ChoiceManifest:
    return choices.read_manifest("period-choice")


def test_the_gate_and_the_classes_are_asked_as_the_recipe_says():
    assert asking_of(recipe()) == Asking(mix={})
    assert asking_of(recipe(gate={"threshold": 0.3})).threshold == 0.3
    # zero, not "none given", which would be the bundle's own
    assert asking_of(recipe(gate={"mode": "off", "threshold": 0.3})).threshold == 0.0
    found = asking_of(recipe(classes={"experts": ["dmdt"], "mix": {"EW": 2, "EA": 1}}))
    assert (found.experts, found.mix) == (("dmdt",), {"EW": 2.0, "EA": 1.0})
    assert found.gate


def test_periods_are_searched_if_the_recipe_says_so(choice: ChoiceManifest):
    assert finder_of(recipe(period={"mode": "off"})) is None
    found = finder_of(recipe(period={"mode": "on", "fmax": 12.0}))
    assert found is not None
    assert found.limits == {"fmin": 0.0005, "fmax": 12.0, "oversampling": 1.5, "candidates": 30}
    assert found.choice.digest == choice.digest
    with pytest.raises(BundleError, match="no choice of periods 'nowhere'"):
        finder_of(recipe(period={"mode": "on", "choice": "nowhere"}))


def test_a_mix_is_shares_in_the_order_of_the_classes():
    np.testing.assert_allclose(mix_of({"EA": 3, "EW": 1}, ["EW", "EA"]), [0.25, 0.75])


@pytest.mark.parametrize(
    "mix", [{"EW": 1.0}, {"EW": 1, "EA": 1, "RRab": 1}, {"EW": 1, "EA": 0}, {"EW": 1, "EA": -1}, {}]
)
def test_a_mix_of_other_classes_is_refused(mix: dict[str, float]):
    with pytest.raises(
        ValueError, match=r"\[classes\] mix gives shares of .*; one above 0 .* each of EW, EA"
    ):
        mix_of(mix, ["EW", "EA"])


def test_a_recipe_that_fits(manifest: Manifest, choice: ChoiceManifest):
    check_recipe(recipe(), manifest, choice)
    check_recipe(recipe(classes={"experts": ["trees", "dmdt"]}), manifest, choice)
    check_recipe(recipe(classes={"mix": dict.fromkeys(manifest.classes, 1.0)}), manifest, choice)


def test_the_image_alone_needs_no_period(manifest: Manifest, choice: ChoiceManifest):
    alone = {"experts": ["dmdt"]}
    check_recipe(recipe(period={"mode": "off"}, classes=alone), manifest, None)
    # nor does it matter which periods are searched, if they are searched for the catalogue
    check_recipe(recipe(period={"mode": "on", "fmax": 5.0}, classes=alone), manifest, choice)


@pytest.mark.parametrize("experts", [(), ("trees",), ("folded",), ("dmdt", "folded")])
def test_other_experts_do(manifest: Manifest, experts: tuple[str, ...]):
    without = recipe(period={"mode": "off"}, classes={"experts": experts})
    with pytest.raises(
        BundleError, match=r"needs periods: set \[period\] mode = \"on\" .* experts = \[\"dmdt\"\]"
    ):
        check_recipe(without, manifest, None)


def test_another_choice_or_search_is_refused(manifest: Manifest, choice: ChoiceManifest):
    other = choice.model_copy(update={"considered": choice.considered + 1})
    with pytest.raises(
        BundleError,
        match=rf"trained with periods of the choice {choice.digest[:8]} .* has {other.digest[:8]}",
    ):
        check_recipe(recipe(), manifest, other)
    with pytest.raises(BundleError, match=r"'fmax': 25\.0.*'fmax': 12\.0.*train a bundle for these"):
        check_recipe(recipe(period={"mode": "on", "fmax": 12.0}), manifest, choice)


def test_another_grid_is_refused(manifest: Manifest, choice: ChoiceManifest):
    with pytest.raises(BundleError, match=r"has 24 dt_edges .*, the recipe has 27"):
        check_recipe(recipe(dmdt={"grid": "scope"}), manifest, choice)


def test_other_inputs_are_refused(manifest: Manifest, choice: ChoiceManifest):
    older = manifest.model_copy(update={"representation": 0})
    with pytest.raises(BundleError, match="trained on inputs of version 0, this Lightmill makes"):
        check_recipe(recipe(), older, choice)


def test_unknown_experts_are_named(manifest: Manifest, choice: ChoiceManifest):
    with pytest.raises(
        BundleError, match=r"cannot be asked for the experts tree: it has trees, folded, dmdt"
    ):
        check_recipe(recipe(classes={"experts": ["tree"]}), manifest, choice)


def test_a_set_of_experts_without_a_combiner_is_refused(manifest: Manifest, choice: ChoiceManifest):
    some = {name: part for name, part in manifest.combiners.items() if name != "dmdt+trees"}
    with pytest.raises(BundleError, match="cannot be asked for the experts dmdt, trees"):
        check_recipe(
            recipe(classes={"experts": ["dmdt", "trees"]}),
            manifest.model_copy(update={"combiners": some}),
            choice,
        )


def test_a_mix_of_other_classes_is_refused_with_the_recipe(manifest: Manifest, choice: ChoiceManifest):
    with pytest.raises(
        ValueError, match="mix gives shares of EW 1; one above 0 is needed for each of EW, EA"
    ):
        check_recipe(recipe(classes={"mix": {"EW": 1}}), manifest, choice)
