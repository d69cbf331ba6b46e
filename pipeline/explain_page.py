"""The page of an explanation: self-contained HTML, made of the template `explain.html`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lightmill.models.bundle import Bundle
from lightmill.models.taxonomy import DESCRIPTIONS
from lightmill.pipeline import explain_charts as charts
from lightmill.pipeline.dmdt import Grid
from lightmill.pipeline.explain import Explained, Explanations, Look, Overview
from lightmill.pipeline.folded import SCALARS
from lightmill.pipeline.meanings import meaning
from lightmill.pipeline.report_catalogue import ZTF
from lightmill.pipeline.report_curves import median_images
from lightmill.pipeline.report_page import render

__all__ = ["looked_for", "overview_page", "page"]

LARGEST = 10  #: features of a light curve that are shown
USED = 20  #: features of a bundle that are shown


def page(found: Explanations) -> str:
    """The HTML about light curves and what was looked at in each."""
    ztf = ZTF if found.recipe.layout.name in ("auto", "irsa-hats", "list") else {}
    facts = {
        "title": f"What {found.bundle.name} looked at",
        "bundle": found.bundle,
        "release": found.release,
        "missing": found.missing,
        "curves": [_one(one, found, ztf.get(one.filterid, "")) for one in found.found],
        "overview": None,
    }
    return render("explain.html", facts)


def overview_page(found: Overview) -> str:
    """The HTML about what a bundle looks for."""
    facts = {
        "title": f"What {found.bundle.name} looks for",
        "bundle": found.bundle,
        "release": None,
        "missing": {},
        "curves": [],
        "overview": looked_for(found),
    }
    return render("explain.html", facts)


def looked_for(found: Overview) -> dict[str, Any]:
    """Pictures and tables of what a bundle looks for, as `page.html` shows them."""
    grid = Grid(found.bundle.dt_edges, found.bundle.dm_edges)
    liked = []
    for name, one in found.liked.items():
        every = {"start": found.start[name]}
        climbs = zip(found.bundle.classes, one.before, one.after, one.images, strict=True)
        every |= {f"{leaf}  {a:.2f} → {b:.2f}": image for leaf, a, b, image in climbs}
        # shares of each column: how many pairs it has is the survey's doing
        shares = {title: image / np.maximum(image.sum(axis=0), 1e-9) for title, image in every.items()}
        liked.append({"name": name, "picture": median_images(shares, grid, "share of the column")})
    used = []
    for name, shares in found.used.items():
        most = dict(list(shares.items())[:USED])
        rows = [(feature, share, meaning(feature)) for feature, share in most.items()]
        used.append({"name": name, "n": len(shares), "picture": charts.most_used(most), "rows": rows})
    return {"liked": liked, "used": used}


def _one(one: Explained, found: Explanations, band: str) -> dict[str, Any]:
    """What the template needs of a light curve."""
    unit = f"{band} [mag]".strip()
    grid = Grid(found.bundle.dt_edges, found.bundle.dm_edges)
    return {
        "it": one,
        "about": _about(one, found, band),
        "texts": DESCRIPTIONS,
        "picture": charts.light_curve(one.t, one.mag, one.magerr, one.period, one.filterid, unit),
        "table": _probabilities(one, found.bundle),
        "looks": [_look(look, one, found.bundle, grid) for look in one.looks],
        "gate": None if one.gate is None else _features(found.bundle.statistics, *_gate(one), "variable"),
    }


def _about(one: Explained, found: Explanations, band: str) -> dict[str, str]:
    """Facts about a light curve, by name."""
    best, probability = one.ranked[0]
    facts = {
        "most probable class": f"{best}, probability {probability:.3f}",
        "objectid": str(one.objectid),
        "position": f"{one.ra:.5f}, {one.dec:+.5f} deg",
        "filter": f"{one.filterid} {band}".strip(),
        "good epochs": f"{len(one.t):,}",
        "period": "none" if one.period is None else f"{one.period:.7g} d",
        "novelty": "not told" if one.novelty is None else
        f"{one.novelty:.3f}: the share of known light curves that are less strange",
    }  # fmt: skip
    if one.unsure:
        facts["most probable class"] += f"; a run calls it unclassified: {one.unsure}"
    if one.p_variable is not None:
        done = (
            "passes the gate"
            if one.passed
            else "stopped by the gate: a run does not ask the experts; here they were"
        )
        facts["p_variable"] = f"{one.p_variable:.3f}, threshold {one.threshold:.3g}: {done}"
    return facts


def _probabilities(one: Explained, bundle: Bundle) -> list[tuple[str, float, list[float | None]]]:
    """Leaf, its probability in all, and that by each expert (None: it cannot give it); the most probable first."""
    rows = []
    for leaf, value in one.ranked:
        column = bundle.classes.index(leaf) if leaf in bundle.classes else None
        own = [None if column is None else float(look.probabilities[column]) for look in one.looks]
        rows.append((leaf, value, own))
    return rows


def _look(look: Look, one: Explained, bundle: Bundle, grid: Grid) -> dict[str, Any]:
    """What the template needs of an expert."""
    own = bundle.classes[int(look.probabilities.argmax())]
    facts: dict[str, Any] = {
        "name": look.name,
        "weight": look.weight,
        "own": own,
        "pictures": [],
        "features": None,
    }
    for source, given in look.given.items():
        speaks, instead = look.speaks[source], look.instead[source]
        if source == "features":
            facts["features"] = _features(
                bundle.manifest.features,
                given,
                speaks,
                look.base[0],
                one.best,
                (instead, look.base[1], one.second),
            )
        elif source.startswith("image:") and look.seen is not None:
            how = source.removeprefix("image:")
            drawn = charts.image_look(given, speaks, instead, look.seen, grid, one.best, one.second)
            facts["pictures"].append({"kind": "image", "svg": drawn, "text": f"normalisation “{how}”"})
        elif source == "folded" and look.seen is not None:
            drawn = charts.folded_look(given, speaks, instead, look.seen, one.best, one.second)
            facts["pictures"].append({"kind": "folded", "svg": drawn, "text": ""})
        else:
            facts["numbers"] = list(zip(SCALARS, given, speaks, instead, strict=True))
    return facts


def _gate(one: Explained) -> tuple[np.ndarray, np.ndarray, float]:
    assert one.gate is not None
    values, adds = one.gate
    return values, adds[:-1], float(adds[-1])


def _features(
    names: Sequence[str],
    values: np.ndarray,
    adds: np.ndarray,
    base: float,
    best: str,
    rather: tuple[np.ndarray, float, str] | None = None,
) -> dict[str, Any]:
    """A picture of the features that add most, and a table of them."""
    of = [(f"for {best}", adds, base)]
    if rather is not None:
        of.append((f"for {best} rather than {rather[2]}", rather[0], rather[1]))
    panels, shown, sums = {}, [], []
    for title, each, start in of:
        order = np.argsort(-np.abs(each), kind="stable")[:LARGEST]
        panels[title] = [(f"{names[i]} = {_short(values[i])}", float(each[i])) for i in order]
        shown += [i for i in order if i not in shown]
        rest = float(each.sum() - each[order].sum())
        sums.append((title, float(each[order].sum()), rest, start, float(each.sum()) + start))
    rows = [
        (names[i], _short(values[i]), [float(each[i]) for _, each, _ in of], meaning(names[i])) for i in shown
    ]
    return {
        "picture": charts.bars_for_and_against(panels),
        "titles": [title for title, *_ in of],
        "rows": rows,
        "sums": sums,
    }


def _short(value: float) -> str:
    """A number in few characters, with a true minus sign."""
    return f"{value:.3g}".replace("-", "−") if np.isfinite(value) else "not known"
