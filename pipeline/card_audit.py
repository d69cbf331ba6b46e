"""The audits in a bundle's card: how good it is by magnitude, latitude, epochs, amplitude and passband."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightmill.models.audit import MISSING
from lightmill.pipeline.markdown import table

__all__ = ["audits"]

TITLES = {
    "magnitude": "magnitude (weighted mean)",
    "b": "|galactic latitude| (degrees)",
    "epochs": "number of good epochs",
    "amplitude": "amplitude (half of the range from 5 to 95 %, mag)",
    "band": "passband (its number; of ZTF 1 is g, 2 r, 3 i)",
}

MEASURES = {
    "recall": "Recall",
    "precision": "Precision",
    "share_predicted": "Share of the answers",
    "share_true": "Share of the truth",
}


def audits(audit: Mapping[str, Any], classes: Sequence[str], gated: bool) -> str:
    """The section of a card.

    Parameters
    ----------
    audit : `level, method, smallest, axes` as of `models.audit.audit`
    classes : in the order of the columns
    gated : whether light curves are re-observations, so that their conditions are those of survey light curves
    """
    smallest = audit["smallest"]
    whose = (
        """Brightness and amplitude are those of the re-observed light curve; place, epochs and passband those of the
survey's light curve that it was re-observed on. The gate is not asked: its recall is above."""
        if gated
        else "They are of light curves as they are."
    )
    joined = "\n\n".join(_axis(name, axis, classes) for name, axis in audit["axes"].items())
    return f"""## Audits

Figures of the answers out of fold, in brackets 95 %; each light curve counts as one, also where a star has several.
{whose} Cells of one axis differ along the
others too: what lies in one part of the sky may be fainter. Cells without light curves are not listed; the
smallest is that of {smallest["axis"]} {smallest["cell"]}, n {smallest["n"]}.

A star marks what differs: {audit["method"][0].lower()}{audit["method"][1:]}

{joined}"""


def _axis(name: str, axis: Mapping[str, Any], classes: Sequence[str]) -> str:
    cells, title = axis["cells"], f"### By {TITLES[name]}"
    if [cell["cell"] for cell in cells] == [MISSING]:
        return f"{title}\n\nNot known of these light curves."
    smallest = axis["smallest"]
    accuracy = table(
        ("", "n", "accuracy", "by its classes", "ECE"),
        [
            (
                cell["cell"], cell["n"], _share(cell["accuracy"], 3), f"{cell['accuracy']['expected']:.3f}",
                _share(cell["ece"], 3),
            )
            for cell in cells
        ],
    )  # fmt: skip
    grids = [
        f"{heading}:\n\n"
        + table(
            ("", *classes),
            [
                (cell["cell"], *(_share(cell["per_class"][leaf][measure]) for leaf in classes))
                for cell in cells
            ],
        )
        for measure, heading in MEASURES.items()
    ]
    return "\n\n".join([title, f"Smallest cell: {smallest['cell']}, n {smallest['n']}.", accuracy, *grids])


def _share(row: Mapping[str, Any], digits: int = 2) -> str:
    """Value and interval, with a star where it differs; nothing where there is nothing to take a share of."""
    if row["value"] is None:
        return ""
    mark = r" \*" if row.get("differs") else ""
    value, low, high = (f"{row[name]:.{digits}f}" for name in ("value", "low", "high"))
    return f"{value} ({low}–{high}){mark}"
