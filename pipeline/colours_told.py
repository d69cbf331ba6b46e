"""Which colours trees are told of in training, and of which stars: that one is known must tell nothing of the class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lightmill.pipeline.colour import COLOURS, RADIUS

__all__ = ["ColoursTold", "choose_colours"]

LEAST_WITH_COLOUR = 0.1
"""Share of each class's light curves from which trees look at a colour, which costs a pass over each partition."""

COLOURS_HIDDEN = 0.25
"""Share of the stars of the class with the fewest colours that are trained on without theirs: in a release some lack a
band. Of the other classes it is more."""


@dataclass(frozen=True)
class ColoursTold:
    """Colours of n examples."""

    names: tuple[str, ...]  #: of COLOURS, those that trees look at
    known: np.ndarray  #: (n, len(COLOURS)) float64 [mag], NaN where not known
    hidden: np.ndarray  #: (n, len(COLOURS)) bool: not told in training


def choose_colours(
    known: np.ndarray,
    y: np.ndarray,
    group: np.ndarray,
    classes: Sequence[str],
    seed: int,
    say: Callable[[str], None],
) -> ColoursTold:
    """Choose the colours that are known of enough light curves of each class, and the stars that are trained without.

    Those that are left with a colour are the same share of each class, stars whole and at random.

    Parameters
    ----------
    known : (n, len(COLOURS)) float64 [mag], NaN where not known
    y : (n,) class
    group : (n,) integer; light curves of one star
    say : is told of each colour whether trees look at it, and why not
    """
    given = np.isfinite(known)
    share = np.stack([given[y == k].sum(axis=0) / max((y == k).sum(), 1) for k in range(len(classes))])
    least = share.min(axis=0)
    enough: np.ndarray = least >= LEAST_WITH_COLOUR
    if not given.any():
        say(f"no colours: the labels have no bands, or no light curve has another band's within {RADIUS:g}″")
    for k in np.flatnonzero(given.any(axis=0)):
        less = f"trees do not look at it; {LEAST_WITH_COLOUR:.0%} of each class are needed"
        say(
            f"{COLOURS[k]} is known of {given[:, k].sum()} of {len(y)} light curves, and of {least[k]:.0%} of "
            f"{classes[int(share[:, k].argmin())]}: {'trees look at it' if enough[k] else less}"
        )
    left = (1 - COLOURS_HIDDEN) * least / np.maximum(share, LEAST_WITH_COLOUR)
    _, star = np.unique(group, return_inverse=True)
    drawn = np.random.default_rng(seed).random(len(group))[star]
    names = tuple(name for name, one in zip(COLOURS, enough, strict=True) if one)
    return ColoursTold(names, known, drawn[:, None] >= left[y])
