"""How a bundle is asked under a recipe, and whether it can be: checked before any work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lightmill.models import choice as choices
from lightmill.models import folder as folders
from lightmill.models.choice import ChoiceManifest
from lightmill.models.manifest import Manifest
from lightmill.pipeline.candidates import COLUMNS
from lightmill.pipeline.choose import Finder
from lightmill.pipeline.recipe import Recipe
from lightmill.pipeline.represent import REPRESENTATION

__all__ = ["Asking", "asking_of", "check_recipe", "finder_of", "mix_of"]


@dataclass(frozen=True)
class Asking:
    """How a bundle is asked."""

    gate: bool = True  #: whether its gate is, if it has one
    threshold: float | None = None  #: p_variable from which a light curve passes it (None: the bundle's own)
    experts: tuple[str, ...] = ()  #: which of its experts are (none named: all)
    mix: Mapping[str, float] | None = None  #: shares of the classes among variables (None: the labels' own)


def asking_of(recipe: Recipe) -> Asking:
    """As the recipe's [gate] and [classes] say."""
    # a threshold of 0 lets everything pass, and keeps p_variable
    threshold = 0.0 if recipe.gate.mode == "off" else recipe.gate.threshold
    return Asking(threshold=threshold, experts=recipe.classes.experts, mix=recipe.classes.mix)


def finder_of(recipe: Recipe) -> Finder | None:
    """What searches periods as the recipe's [period] says; None if it says "off".

    Raises
    ------
    BundleError
        if the choice among candidates is missing or damaged.
    """
    if recipe.period.mode == "off":
        return None
    return Finder(recipe.period.limits(), choices.load(recipe.period.choice, COLUMNS))


def check_recipe(recipe: Recipe, bundle: Manifest, choice: ChoiceManifest | None) -> None:
    """Raise unless the bundle's experts will get what they were trained on, and the mix has its classes.

    Parameters
    ----------
    choice : among the candidates of the period search; None: none is searched

    Raises
    ------
    BundleError, ValueError
    """
    grid = recipe.dmdt.edges()
    period = (choice.digest, recipe.period.limits()) if choice else None
    folders.check_inputs(bundle, grid.dt_edges, grid.dm_edges, REPRESENTATION, period, recipe.classes.experts)
    if recipe.classes.mix:
        mix_of(recipe.classes.mix, bundle.classes)


def mix_of(mix: Mapping[str, float], classes: Sequence[str]) -> np.ndarray:
    """Shares of the classes in their order, (k,) float64 with sum 1.

    Raises
    ------
    ValueError
        if a class has none, a name is none of the classes, or a share is not above 0.
    """
    if set(mix) != set(classes) or not all(share > 0 for share in mix.values()):
        raise ValueError(
            f"[classes] mix gives shares of {', '.join(f'{name} {share:g}' for name, share in mix.items())}; one above "
            f"0 is needed for each of {', '.join(classes)}"
        )
    shares = np.array([mix[name] for name in classes], np.float64)
    return shares / shares.sum()
