"""Explanations: what a bundle's experts looked at in single light curves of a release, and what they look for at all.

`explain` finds light curves by identifier, asks the bundle as a run would, and asks each expert what speaks for the
most probable class and what for it rather than for the second; `overview` tells of the bundle alone. The methods are
those of `models.explain` and `models.maximise`, the page is made by `explain_page`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lightmill.catalogs.lightcurves import LightCurves
from lightmill.catalogs.lookup import Found, lookup
from lightmill.catalogs.release import Release, open_release, read_batches
from lightmill.models import cascade, folder
from lightmill.models import choice as choices
from lightmill.models import explain as looks
from lightmill.models.bundle import Bundle, load, read_manifest
from lightmill.models.calibration import softmax
from lightmill.models.experts import Expert, TreesExpert
from lightmill.models.extras import need
from lightmill.models.manifest import pool_name
from lightmill.models.maximise import Maximised, maximised
from lightmill.pipeline.answer import Answers, answer
from lightmill.pipeline.asking import Asking, asking_of, check_recipe, finder_of, mix_of
from lightmill.pipeline.bands import colours_of, looks_at_colours
from lightmill.pipeline.clean import REASONS, Cleaned, clean
from lightmill.pipeline.colour import COLOURS
from lightmill.pipeline.evaluate import recipe_of
from lightmill.pipeline.features import index_of
from lightmill.pipeline.recipe import ClassesTable, Recipe, load_recipe
from lightmill.pipeline.represent import represent

__all__ = ["Explained", "Explanations", "Look", "Overview", "explain", "overview"]


@dataclass(frozen=True)
class Look:
    """One expert and one light curve: what it was given, and what of it speaks for the class."""

    name: str  #: of the expert
    weight: float  #: of its log-probabilities in the combination
    probabilities: np.ndarray  #: (n_classes,) float32, asked alone
    given: Mapping[str, np.ndarray]  #: what it takes, by representation
    speaks: Mapping[
        str, np.ndarray
    ]  #: of the same shapes: what is for the class (> 0) or against it, in its logit
    instead: Mapping[str, np.ndarray]  #: likewise for the class rather than for the second
    seen: np.ndarray | None  #: class map of a network, (n_dm, n_dt) or (n_phase,); None of trees
    base: tuple[float, float] = (0.0, 0.0)  #: of trees: what they say of nothing in particular, of both


@dataclass(frozen=True)
class Explained:
    """One light curve and what was looked at."""

    identifier: str  #: as it was asked for
    objectid: int
    ra: float  #: [deg]
    dec: float  #: [deg]
    filterid: int
    t: np.ndarray  #: (n,) float64 [d] since the first good epoch
    mag: np.ndarray  #: (n,) float64 [mag]
    magerr: np.ndarray  #: (n,) float64 [mag]
    period: float | None  #: [d], the one that the experts were given
    probabilities: dict[str, float]  #: as a run with this recipe would give, by leaf
    p_variable: float | None  #: None: there is no gate
    threshold: float | None  #: p_variable from which it passes the gate
    passed: bool  #: the gate
    gate: (
        tuple[np.ndarray, np.ndarray] | None
    )  #: statistics and what each adds to its margin, the last the base
    novelty: float | None  #: None: it is not told
    best: str  #: most probable class, of those that the experts tell apart
    second: str
    looks: tuple[Look, ...]
    unsure: str = ""  #: why a run calls it unclassified, if it does

    @property
    def ranked(self) -> list[tuple[str, float]]:
        """Leaves and their probabilities, the highest first."""
        return sorted(self.probabilities.items(), key=lambda pair: -pair[1])


@dataclass(frozen=True)
class Explanations:
    """What was asked, and what came out."""

    bundle: Bundle
    recipe: Recipe
    release: str
    found: tuple[Explained, ...]
    missing: dict[str, str]  #: why the others could not be explained, by identifier


@dataclass(frozen=True)
class Overview:
    """What a bundle looks for."""

    bundle: Bundle
    start: dict[str, np.ndarray]  #: by network of images: the typical image, (n_dm, n_dt) float32
    liked: dict[str, Maximised]  #: by network of images: what each class likes best
    used: dict[
        str, dict[str, float]
    ]  #: by trees, or "gate": share of each feature in the gain, the highest first


def explain(
    bundle: str | Path, release: str, identifiers: Sequence[str], *, recipe: Recipe | str | None = None
) -> Explanations:
    """What the experts of a bundle looked at in light curves of a release.

    Parameters
    ----------
    bundle : name or folder
    release : HATS catalogue of light curves, path or fsspec URL
    identifiers : of light curves, as the release has them
    recipe : for layout, cuts, gate and period, or its name; None: the one that the bundle was trained with. Whatever it
        says of precision, networks are applied in this process's own, float32 if nothing else was configured.

    Raises
    ------
    ValueError
        if not one of the identifiers can be explained, saying why; or as `check_recipe` and `open_release` say.
    """
    manifest = read_manifest(bundle)
    used = load_recipe(recipe) if isinstance(recipe, str) else recipe or recipe_of(manifest)
    searching = used.period.mode == "on"
    check_recipe(used, manifest, choices.read_manifest(used.period.choice) if searching else None)
    opened = open_release(release, used.layout.choices())
    at = lookup(opened, identifiers)
    missing = {name: f"not in {release}" for name in identifiers if name not in at}
    curves = _joined([one.curves for one in at.values()])
    good = clean(*curves.epochs, **used.clean.limits())
    accepted, names = good.accepted.tolist(), list(at)
    for i, name in enumerate(names):
        if i not in accepted:
            missing[name] = f"not classified: {REASONS[good.reason[i]]} ({good.n_good[i]} good epochs)"
        elif curves.healpix_29[i] < 0:
            missing[name] = f"a run does not classify it: bad_position ({curves.ra[i]}, {curves.dec[i]})"
    if set(missing) >= set(identifiers):
        raise ValueError("; ".join(f"{name}: {reason}" for name, reason in missing.items()))
    loaded, asking = load(bundle), asking_of(used)
    colours = None
    if looks_at_colours(manifest, asking.experts):
        colours = _colours(opened, [list(at.values())[i] for i in good.accepted], used)
    found = _explained(loaded, asking, good, curves, names, used, colours)
    kept = tuple(one for one in found if one.identifier not in missing)
    return Explanations(loaded, used, release, kept, missing)


def overview(bundle: str | Path) -> Overview:
    """What a bundle looks for: the image that each class likes best, and the features that its trees use most.

    The climb starts from the mean of the light curves that the bundle carries along to check itself.
    """
    loaded = load(bundle)
    golden = need("safetensors.numpy").load_file(folder.find(bundle) / folder.GOLDEN)
    start, liked, used = {}, {}, {}
    for expert in loaded.parts.experts:
        name = expert.part.name
        if isinstance(expert, TreesExpert):
            used[name] = _gains(loaded.manifest.features, expert.trees.gain())
        elif set(expert.part.inputs) == {"image"}:
            start[name] = golden[expert.part.inputs["image"]].mean(axis=0)
            liked[name] = maximised(expert, start[name])
    if loaded.parts.gate is not None:
        used["gate"] = _gains(loaded.statistics, loaded.parts.gate.gain())
    return Overview(loaded, start, liked, used)


def _gains(names: Sequence[str], shares: np.ndarray) -> dict[str, float]:
    order = np.argsort(-shares, kind="stable")
    return {names[i]: float(shares[i]) for i in order if shares[i] > 0}


def _joined(parts: Sequence[LightCurves]) -> LightCurves:
    """Batches one after the other; without any, one without light curves."""
    if not parts:
        none, rows = np.empty(0), np.empty(0, np.int64)
        return LightCurves(none, none, none, rows, np.zeros(1, np.int64), rows, none, none, rows, rows)
    lengths = np.concatenate([np.diff(part.offsets) for part in parts])
    every = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("t", "mag", "magerr", "flags", "objectid", "ra", "dec", "filterid", "healpix_29")
    }
    return LightCurves(**every, offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def _colours(release: Release, light_curves: Sequence[Found], recipe: Recipe) -> np.ndarray:
    """Colours as a run finds them, from the whole of each light curve's partition; (n, len(COLOURS)) [mag]."""
    found = np.full((len(light_curves), len(COLOURS)), np.nan)
    for partition in dict.fromkeys(one.partition for one in light_curves):
        batches = read_batches(partition, release.layout, recipe.operational.batch_epochs)
        known = colours_of(batches, recipe.clean)
        for i, one in enumerate(light_curves):
            if one.partition == partition:
                found[i] = known.of(int(one.curves.objectid[0]))
    return found


def _explained(
    bundle: Bundle, asking: Asking, good: Cleaned, curves: LightCurves, names: Sequence[str], recipe: Recipe,
    colours: np.ndarray | None,
) -> list[Explained]:  # fmt: skip
    """The accepted light curves; the experts are asked about what the gate would stop, too."""
    answers = answer(good, bundle, replace(asking, threshold=0.0), finder=finder_of(recipe), colours=colours)
    views = represent(
        good.t, good.mag, good.magerr, good.offsets,
        needs=bundle.manifest.needs(asking.experts), dt_edges=bundle.dt_edges, dm_edges=bundle.dm_edges,
        statistics=answers.statistics, chosen=answers.chosen, colours=colours, features=bundle.manifest.features,
    )  # fmt: skip
    of_class = answers.probabilities[:, -len(bundle.classes) :]
    order = np.argsort(-of_class, axis=1, kind="stable")
    target, rival = order[:, 0], order[:, 1]
    every = _looks(bundle, asking, views, target, rival)
    probabilities, passed, threshold = _as_in_a_run(bundle, asking, answers)
    gate = _gate(bundle, answers.statistics)
    found = []
    for i, at in enumerate(good.accepted.tolist()):
        # a run tells no novelty of what the gate stops
        novelty = answers.novelty[i] if answers.novelty is not None and passed[i] else None
        own = slice(good.offsets[i], good.offsets[i + 1])
        frequency = answers.chosen.frequency[i, 0] if answers.chosen is not None else np.nan
        found.append(
            Explained(
                identifier=names[at], objectid=int(curves.objectid[at]), ra=float(curves.ra[at]),
                dec=float(curves.dec[at]), filterid=int(curves.filterid[at]),
                t=good.t[own], mag=good.mag[own], magerr=good.magerr[own],
                period=float(1 / frequency) if frequency > 0 else None,
                probabilities=dict(zip(bundle.leaves, probabilities[i].tolist(), strict=True)),
                p_variable=None if answers.p_variable is None else float(answers.p_variable[i]),
                threshold=None if answers.p_variable is None else float(threshold[i]),
                passed=bool(passed[i]),
                gate=None if gate is None else (gate[0][i], gate[1][i]),
                novelty=None if answers.novelty is None else float(answers.novelty[i]),
                best=bundle.classes[target[i]], second=bundle.classes[rival[i]],
                looks=tuple(look[i] for look in every),
                unsure=_unsure(probabilities[i], novelty, recipe.classes),
            )
        )  # fmt: skip
    return found


def _as_in_a_run(
    bundle: Bundle, asking: Asking, answers: Answers
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """With the gate's thresholds, set aside before: (n, n_leaves) probabilities, (n,) bool who passes, (n,) they."""
    least = bundle.thresholds(answers.statistics[:, index_of("n")])
    if asking.threshold is not None:
        least = np.full(len(least), asking.threshold)
    if answers.p_variable is None:
        return answers.probabilities, answers.passed, least
    passed = answers.p_variable >= least
    priors = mix_of(asking.mix, bundle.classes) if asking.mix else bundle.priors
    none = np.empty((0, len(bundle.classes)), np.float32)
    stopped = cascade.leaf_probabilities(answers.p_variable, none, np.zeros(len(passed), bool), priors)
    return np.where(passed[:, None], answers.probabilities, stopped), passed, least


def _unsure(probabilities: np.ndarray, novelty: float | None, classes: ClassesTable) -> str:
    second, best = np.sort(probabilities)[-2:]
    reasons = []
    if best - second < classes.least_margin:
        reasons.append(f"margin {best - second:.3f} below {classes.least_margin:g}")
    if novelty is not None and novelty > classes.most_novelty:
        reasons.append(f"novelty {novelty:.3f} above {classes.most_novelty:g}")
    return ", ".join(reasons)


def _gate(bundle: Bundle, statistics: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """What the gate was given, (n, n_statistics), and what each adds to its margin, (n, n_statistics + 1)."""
    if bundle.parts.gate is None:
        return None
    table = statistics[:, [index_of(name) for name in bundle.statistics]]
    return table, bundle.parts.gate.contributions(table)[:, 0]


def _looks(
    bundle: Bundle, asking: Asking, views: Mapping[str, np.ndarray], target: np.ndarray, rival: np.ndarray
) -> list[list[Look]]:
    """Of each expert, what it looked at in each light curve."""
    asked = [expert.name for expert in bundle.manifest.chosen(asking.experts)]
    weights = bundle.manifest.combiners[pool_name(asked)].weights
    # not `bundle.expert`, which refuses one that the bundle cannot combine on its own
    experts, every = {expert.part.name: expert for expert in bundle.parts.experts}, []
    for name, weight in zip(asked, weights, strict=True):
        expert = experts[name]
        alone = _alone(bundle, expert, views)
        speaks, instead, seen = {}, {}, None
        base = np.zeros((len(target), 2))
        if isinstance(expert, TreesExpert):
            adds = [looks.attributions(expert, views, target, other) for other in (None, rival)]
            speaks["features"], instead["features"] = (table[:, :-1] for table in adds)
            base = np.stack([table[:, -1] for table in adds], axis=1)
        else:
            speaks = looks.saliency(expert, views, target)
            instead = looks.saliency(expert, views, target, rival)
            seen = looks.class_map(expert, views, target)
        every.append(
            [
                Look(
                    name, float(weight), alone[i], _row({key: views[key] for key in expert.part.needs}, i),
                    _row(speaks, i), _row(instead, i), None if seen is None else seen[i],
                    (float(base[i, 0]), float(base[i, 1])),
                )
                for i in range(len(target))
            ]
        )  # fmt: skip
    return every


def _alone(bundle: Bundle, expert: Expert, views: Mapping[str, np.ndarray]) -> np.ndarray:
    """(n, n_classes) probabilities of one expert: calibrated where the bundle knows how, else its softmax."""
    name = expert.part.name
    if pool_name([name]) in bundle.manifest.combiners:
        return bundle.judge(views, [name])[0]
    return softmax(expert.answers(views)[0]).astype(np.float32)


def _row(tables: Mapping[str, np.ndarray], i: int) -> dict[str, np.ndarray]:
    return {name: values[i] for name, values in tables.items()}
