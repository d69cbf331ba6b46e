"""Explanations as plain values, for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lightmill.models.bundle import Bundle
from lightmill.pipeline.explain import Explained, Explanations, Look, Overview

__all__ = ["as_json", "overview_as_json"]


def as_json(found: Explanations) -> dict[str, Any]:
    """All of it as plain values: of each light curve probabilities, and of each expert what spoke for the class."""
    return {
        "bundle": found.bundle.name,
        "digest": found.bundle.digest,
        "release": found.release,
        "recipe": found.recipe.name,
        "classes": list(found.bundle.classes),
        "light_curves": [_one_as_json(one, found.bundle) for one in found.found],
        "missing": found.missing,
    }


def overview_as_json(found: Overview) -> dict[str, Any]:
    """All of it as plain values."""
    classes = found.bundle.classes
    return {
        "bundle": found.bundle.name,
        "digest": found.bundle.digest,
        "liked": {
            name: {
                leaf: {"before": float(a), "after": float(b), "image": _plain(image)}
                for leaf, a, b, image in zip(classes, one.before, one.after, one.images, strict=True)
            }
            for name, one in found.liked.items()
        },
        "used": found.used,
    }


def _one_as_json(one: Explained, bundle: Bundle) -> dict[str, Any]:
    facts = {
        name: getattr(one, name)
        for name in (
            "identifier", "objectid", "ra", "dec", "filterid", "period", "probabilities", "p_variable", "passed",
            "novelty", "best", "second", "unsure",
        )
    }  # fmt: skip
    facts["experts"] = {look.name: _look_as_json(look, bundle) for look in one.looks}
    if one.gate is not None:
        values, adds = one.gate
        facts["gate"] = _features_as_json(bundle.statistics, values, adds[:-1]) | {"base": float(adds[-1])}
    return facts


def _look_as_json(look: Look, bundle: Bundle) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "weight": look.weight,
        "probabilities": dict(zip(bundle.classes, map(float, look.probabilities), strict=True)),
    }
    if "features" in look.given:
        both = _features_as_json(
            bundle.manifest.features,
            look.given["features"],
            look.speaks["features"],
            look.instead["features"],
        )
        return facts | both | {"base": look.base[0], "base_rather": look.base[1]}
    facts["saliency"] = {name: _plain(values) for name, values in look.speaks.items()}
    facts["saliency_rather"] = {name: _plain(values) for name, values in look.instead.items()}
    facts["class_map"] = None if look.seen is None else _plain(look.seen)
    return facts


def _features_as_json(
    names: Sequence[str], values: np.ndarray, adds: np.ndarray, rather: np.ndarray | None = None
) -> dict[str, Any]:
    """What each feature adds, the largest first; a value that is not known is null."""
    order = np.argsort(-np.abs(adds), kind="stable")
    rows = []
    for i in order:
        row = {"name": names[i], "value": float(values[i]) if np.isfinite(values[i]) else None}
        row["adds"] = float(adds[i])
        if rather is not None:
            row["adds_rather"] = float(rather[i])
        rows.append(row)
    return {"features": rows}


def _plain(values: np.ndarray) -> Any:
    """Nested lists with four significant digits."""
    flat = [float(f"{value:.4g}") for value in np.ravel(values)]
    return np.reshape(np.array(flat), np.shape(values)).tolist()
