"""The taxonomy: which classes there are and how they hang together, declared once.

Names follow Mahabal+2017 (arXiv:1709.06257), Drake+2014 (ApJS 213, 9) and the ZTF classification project SCoPe.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

__all__ = [
    "DESCRIPTIONS",
    "LEAVES",
    "TREE",
    "check_classes",
    "column",
    "describe",
    "nearest",
    "nodes",
    "path_to",
]

Tree = Mapping[str, "Tree"]

TREE: Tree = {
    "nonvar": {},
    "variable": {
        "periodic": {
            name: {} for name in ("EW", "EA", "RRab", "RRc", "RRd", "RS_CVn", "LPV", "HADS", "CEP", "ELL")
        },
        "transient": {"SN_Ia": {}, "SN_CC": {}},
        "other": {},
    },
}
"""Nodes by name, each with its children; a node without children is a leaf, and a class that a model may tell."""

DESCRIPTIONS: dict[str, str] = {
    "nonvar": "not variable within the errors",
    "EW": "contact eclipsing binary (W UMa)",
    "EA": "detached eclipsing binary (Algol)",
    "RRab": "RR Lyrae star, fundamental mode",
    "RRc": "RR Lyrae star, first overtone",
    "RRd": "RR Lyrae star, two modes",
    "RS_CVn": "spotted, rotating binary (RS Canum Venaticorum)",
    "LPV": "long-period variable (Mira or semiregular)",
    "HADS": "high-amplitude delta Scuti star",
    "CEP": "Cepheid, mostly of type II or anomalous",
    "ELL": "ellipsoidal binary",
    "SN_Ia": "thermonuclear supernova (type Ia)",
    "SN_CC": "core-collapse supernova (types II, Ib, Ic)",
    "other": "variable, but none of the classes named",
}
"""One line for each leaf, for column metadata and the report."""


def _paths(tree: Tree, above: tuple[str, ...] = ()) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for name, children in tree.items():
        here = (*above, name)
        found |= _paths(children, here) if children else {name: here}
    return found


_PATHS = _paths(TREE)

LEAVES: tuple[str, ...] = tuple(_PATHS)
"""Every leaf of the tree, in its order."""


def path_to(leaf: str) -> tuple[str, ...]:
    """The nodes from the top of the tree down to a leaf, the leaf included.

    >>> path_to("RRab")
    ('variable', 'periodic', 'RRab')
    """
    return _PATHS[check_classes([leaf])[0]]


def nodes(classes: Sequence[str]) -> dict[str, dict[str, list[int]]]:
    """The inner nodes where some of these leaves part: node → its children → indices of the leaves below each.

    >>> nodes(["RRab", "RRc", "SN_Ia"])
    {'variable': {'periodic': [0, 1], 'transient': [2]}, 'periodic': {'RRab': [0], 'RRc': [1]}}
    """
    found: dict[str, dict[str, list[int]]] = {}
    for index, leaf in enumerate(classes):
        path = ("", *path_to(leaf))
        for above, child in pairwise(path):
            found.setdefault(above, {}).setdefault(child, []).append(index)
    return {name: children for name, children in found.items() if len(children) > 1}


def check_classes(names: Iterable[str]) -> tuple[str, ...]:
    """The names as a tuple, if each is a leaf and none is there twice.

    Raises
    ------
    ValueError
        naming the unknown class and the nearest known one, or the class that is there twice.
    """
    given = tuple(names)
    for name in given:
        if name not in _PATHS:
            raise ValueError(
                f"unknown class {name!r}.{nearest(str(name), LEAVES)} Known are {', '.join(LEAVES)}"
            )
    twice = sorted({name for name in given if given.count(name) > 1})
    if twice:
        raise ValueError(f"class {', '.join(twice)} is listed more than once: each class may stand once")
    return given


def nearest(name: str, known: Iterable[str]) -> str:
    """A question for an error message: " Did you mean 'RRab'?", or nothing if no known name is near.

    >>> nearest("rrAB", ["RRab", "RRc"])
    " Did you mean 'RRab'?"
    """
    lower = {one.lower(): one for one in known}
    near = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.4)
    return f" Did you mean {lower[near[0]]!r}?" if near else ""


def column(leaf: str) -> str:
    """Name of the output column that holds a leaf's probability.

    >>> column("SN_Ia")
    'p_SN_Ia'
    """
    return f"p_{check_classes([leaf])[0]}"


def describe(leaf: str) -> str:
    """One line about a leaf, for column metadata and the report."""
    return DESCRIPTIONS[check_classes([leaf])[0]]
