"""The audits in a bundle's card: how good it is by magnitude, latitude, epochs, amplitude and passband."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lightmill.models.audit import MISSING
from lightmill.pipeline.markdown import table

__all__ = ["audits"]

TITLES = {
    "magnitude": "magnitude (weighted mean)",
    "b": "|galactic latitude| (degrees)",
    "epochs": "number of good epochs",
    "amplitude": "amplitude (half of the range from 5 to 95 % as observed, noise included, mag)",
    "band": "passband (its number; of ZTF 1 is g, 2 r, 3 i)",
}

LISTED = 12
"""Cells that are named as the worst."""

GAP = 0.03
"""Accuracy below what is expected, from which a cell may be named."""


def audits(metrics: Mapping[str, Any], gated: bool) -> str:
    """The section of a card.

    Parameters
    ----------
    metrics : of a bundle, with `per_class` and `audit` (`method, smallest, axes` as of `models.audit.audit`, without
        empty cells)
    gated : whether light curves are re-observations, so that their conditions are those of survey light curves
    """
    audit, recalls = metrics["audit"], {leaf: row["recall"] for leaf, row in metrics["per_class"].items()}
    smallest, method = audit["smallest"], audit["method"]
    whose = (
        """
- Brightness and amplitude are those of the re-observed light curve; place, epochs and passband those of the survey's
  light curve that it was re-observed on. Many stars share such a light curve: intervals by these are too narrow.
- Where the survey's light curves are of few fields, cells of latitude tell of the cadences of these, not of the sky.
- The gate is not asked: its recall is above."""
        if gated
        else ""
    )
    worst = "\n".join(_worst(audit["axes"], recalls)) or "- none"
    joined = "\n\n".join(_axis(name, axis, recalls) for name, axis in audit["axes"].items())
    return f"""## Audits

Of the answers out of fold, in brackets 95 %:

- Each light curve counts as one, also where a star has several. Cells of one axis differ along the others too: what is
  faint may also be seldom observed.{whose}
- “Expected” is the accuracy that a cell would have if each of its classes were found as often in it as in all together.
- ▲ and ▼ mark what is better or worse by more than chance: {method[0].lower()}{method[1:]}
- † marks an ECE that is larger than chance makes it.
- Cells without light curves are not listed. The smallest: {smallest["axis"]} {smallest["cell"]}, n {smallest["n"]}.

Worse than elsewhere, the largest differences first (at most {LISTED}):

{worst}

{joined}"""


def _worst(axes: Mapping[str, Any], recalls: Mapping[str, float]) -> list[str]:
    """What is marked as worse, a line each, the largest difference first."""
    found = []
    for name, axis in axes.items():
        where = "|b|" if name == "b" else name
        for cell in axis["cells"]:
            for what, row, usual in _compared(cell, recalls):
                least = GAP if what == "accuracy" else 0.0
                if row["differs"] and (gap := usual - row["value"]) > least:
                    figures = f"{row['value']:.2f} of {row['n']}, {usual:.2f} expected"
                    found.append((gap, f"- {what}, {where} {cell['cell']}: {figures}"))
    return [line for _, line in sorted(found, key=lambda one: -one[0])[:LISTED]]


def _compared(
    cell: Mapping[str, Any], recalls: Mapping[str, float]
) -> Iterator[tuple[str, Mapping[str, Any], float]]:
    """The accuracy of a cell and the recalls of its classes, with what is expected of each."""
    yield "accuracy", cell["accuracy"], cell["accuracy"]["expected"]
    for leaf, row in cell["per_class"].items():
        yield f"recall of {leaf}", row["recall"], recalls[leaf]


def _axis(name: str, axis: Mapping[str, Any], recalls: Mapping[str, float]) -> str:
    cells, title = axis["cells"], f"### By {TITLES[name]}"
    if [cell["cell"] for cell in cells] == [MISSING]:
        return f"{title}\n\nNot known of these light curves."
    accuracy = [
        (
            cell["cell"],
            cell["n"],
            _share(cell["accuracy"], cell["accuracy"]["expected"], 3),
            f"{cell['accuracy']['expected']:.3f}",
            _share(cell["ece"], digits=3) + (" †" if cell["ece"]["low"] > 0 else ""),
        )
        for cell in cells
    ]
    recall, precision, answered = (
        [(cell["cell"], *(shown(leaf, cell["per_class"][leaf]) for leaf in recalls)) for cell in cells]
        for shown in (
            lambda leaf, row: _share(row["recall"], recalls[leaf], of=True),
            lambda _, row: _share(row["precision"], of=True),
            lambda _, row: f"{_share(row['share_predicted'])}; {row['share_true']['value']:.2f}",
        )
    )
    head, smallest = ("", *recalls), axis["smallest"]
    return f"""{title}

Smallest cell: {smallest["cell"]}, n {smallest["n"]}.

{table(("", "n", "accuracy", "expected", "ECE"), accuracy)}

Recall, of how many:

{table(head, recall)}

Precision, of how many answers:

{table(head, precision)}

Share of the class among the answers; in truth:

{table(head, answered)}"""


def _share(row: Mapping[str, Any], usual: float | None = None, digits: int = 2, *, of: bool = False) -> str:
    """Value and interval, marked if it differs from the usual; nothing where there is nothing to take a share of."""
    if row["value"] is None:
        return ""
    value, low, high = (f"{row[name]:.{digits}f}" for name in ("value", "low", "high"))
    mark = ""
    if usual is not None and row["differs"]:
        mark = " ▲" if row["value"] > usual else " ▼"
    many = f" of {row['n']}" if of else ""
    return f"{value}{many} ({low}–{high}){mark}"
