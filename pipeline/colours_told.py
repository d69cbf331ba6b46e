"""Which colours trees are told of in training, and of which stars: that one is known must tell nothing of the class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from lightmill.pipeline.colour import COLOURS, RADIUS

__all__ = ["ColoursTold", "choose_colours"]

LEAST_WITH_COLOUR = 0.1
"""Share of each class's light curves from which trees look at a colour, which costs a pass over each partition."""

COLOURS_HIDDEN = 0.25
"""Share of the stars that are trained on without their colours, for in a release some lack a band; of what has several
colours the share that is trained on with one of them at most."""


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

    Each set of colours (none, one, both) is told of the same share of each class, stars at random.

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
        say(
            f"no colours: the labels have no passbands (numbers in filterid), or none has another's within {RADIUS:g}″"
        )
    for k in np.flatnonzero(given.any(axis=0)):
        less = f"trees do not look at it; {LEAST_WITH_COLOUR:.0%} of each class are needed"
        say(
            f"{COLOURS[k]} is known of {given[:, k].sum()} of {len(y)} light curves, and of {least[k]:.0%} of "
            f"{classes[int(share[:, k].argmin())]}: {'trees look at it' if enough[k] else less}"
        )
    names = tuple(name for name, one in zip(COLOURS, enough, strict=True) if one)
    return ColoursTold(names, known, ~_told(given & enough, y, group, len(classes), seed))


def _told(given: np.ndarray, y: np.ndarray, group: np.ndarray, n_classes: int, seed: int) -> np.ndarray:
    """Which colours are told, (n, k) bool: each set of colours of the same share of each class.

    Sets are dealt out from the largest on, each as far as the class goes that has the fewest of it; what is left over
    may still serve for a smaller set. Stars come in one random order, and the first of them have no colour.
    """
    _, star = np.unique(group, return_inverse=True)
    place = np.random.default_rng(seed).random(len(group))[star]
    told = np.zeros_like(given)
    left = np.ones(len(y), bool)
    for k in range(n_classes):
        left &= (y != k) | (place > _smallest(place[y == k], round(COLOURS_HIDDEN * (y == k).sum())))
    sets = [one for one in product((True, False), repeat=given.shape[1]) if any(one)]
    for wanted in sorted(sets, key=sum, reverse=True):
        can = left & (given | ~np.array(wanted)).all(axis=1)
        # some of what has more than one colour is kept for the smaller sets
        part = 1 - COLOURS_HIDDEN if sum(wanted) > 1 else 1.0
        share = part * min(can[y == k].sum() / max((y == k).sum(), 1) for k in range(n_classes))
        for k in range(n_classes):
            own = can & (y == k)
            some = own & (place <= _smallest(place[own], round(share * (y == k).sum())))
            told[some] = wanted
            left[some] = False
    return told


def _smallest(values: np.ndarray, k: int) -> float:
    """The k-th smallest: stars have one value, so that a comparison takes them whole."""
    return float(np.sort(values)[k - 1]) if k else -np.inf
