"""Bias audit of a bundle: is it as good for the faint, the crowded and the rarely observed as for the rest?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightmill.models import audit as cells
from lightmill.pipeline.conditions import AXES, EDGES, Conditions
from lightmill.pipeline.evaluate import judge
from lightmill.pipeline.recipe import Recipe

__all__ = ["AuditError", "audit"]


class AuditError(ValueError):
    """An audit by something that is not known of light curves."""


def audit(
    bundle: str | Path,
    labels: str | Path,
    *,
    aliases: Mapping[str, str] | None = None,
    only: Sequence[str] | None = None,
    recipe: Recipe | str | None = None,
    by: Sequence[str] = AXES,
    edges: Mapping[str, Sequence[float]] | None = None,
) -> dict[str, Any]:
    """Apply a bundle to labelled light curves and measure it cell by cell.

    Parameters
    ----------
    bundle, labels, aliases, only, recipe : as for `evaluate.judge`
    by : some of AXES
    edges : of cells, instead of EDGES, for the axes named

    Returns
    -------
    dict as of `models.audit.audit`, with `rejected: {reason: n}` and `trained_on_these` as of `evaluate`

    Raises
    ------
    AuditError
        for an axis that is not known, before any work.
    LabelledError
        as `evaluate.judge`.
    """
    unknown = sorted(set(by) - set(AXES))
    if unknown or not by:
        raise AuditError(f"an audit by {', '.join(unknown) or 'nothing'} is not known: by {', '.join(AXES)}")
    found = judge(bundle, labels, aliases=aliases, only=only, recipe=recipe)
    names = tuple(dict.fromkeys(by))
    bounds = {name: bounds for name, bounds in (EDGES | dict(edges or {})).items() if name in names}
    curves = found.curves
    values = Conditions(found.statistics, curves.ra, curves.dec, curves.filterid).along(names)
    return cells.audit(found.probabilities, found.truth, found.classes, values, bounds) | {
        "rejected": found.rejected,
        "trained_on_these": found.trained_on_these,
    }
