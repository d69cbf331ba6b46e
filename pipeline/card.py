# ruff: noqa: E501  (Markdown paragraphs with values in them)
"""Model cards (Mitchell+2019, arXiv:1810.03993): what a bundle is, what it was made of, how good it is and where not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from lightmill.models.manifest import Expert, Manifest, pool_name
from lightmill.models.proportions import wilson
from lightmill.models.taxonomy import describe
from lightmill.pipeline.card_audit import audits
from lightmill.pipeline.colour import COLOURS, RADIUS
from lightmill.pipeline.markdown import table
from lightmill.pipeline.recipe import known_recipes, load_recipe

__all__ = ["write_card"]

CRTS = "crts_css_labelled.parquet"
"""Labels that the bundles which ship were trained on, whose own limits are known."""

SELDOM = 0.2
"""Recall below which a class is named as seldom found."""


def write_card(manifest: Manifest, counts: np.ndarray) -> str:
    """The card of a bundle, as Markdown.

    Parameters
    ----------
    manifest : with training facts and metrics
    counts : (n_classes,) examples of each class
    """
    sections = [
        _head(manifest, counts),
        _figures(manifest),
        _experts(manifest),
        *([_gate(manifest)] if manifest.gate else []),
        _limits(manifest),
        audits(manifest.metrics, manifest.gate is not None),
    ]
    return "\n\n".join(sections) + "\n"


def _head(manifest: Manifest, counts: np.ndarray) -> str:
    facts = manifest.training
    survey = "".join(f" --survey {source['file']}" for source in facts["survey"])
    left_out = ", ".join(f"{n} × {reason}" for reason, n in sorted(facts["left_out"].items())) or "nothing"
    rows = [(name, describe(name), int(n)) for name, n in zip(manifest.classes, counts, strict=True)]
    files = "\n".join(f"- `{s['file']}`, sha256 `{s['sha256']}`" for s in [facts["labels"], *facts["survey"]])
    return f"""# {manifest.name}

{len(manifest.classes)} classes, told apart by {_list(manifest.names)} together{" behind a gate (variable or not)" if manifest.gate else ", without a gate"}.

Made in {facts["seconds"] / 60:.0f} minutes by

    lightmill train --labels {facts["labels"]["file"]}{survey} --recipe {_recipe(facts)} --seed {facts["seed"]} --out BUNDLE

from

{files}

Left out of the labels: {left_out}.

{table(("class", "what it is", "examples"), rows)}"""


def _recipe(facts: dict[str, Any]) -> str:
    """The recipe as the command line takes it: by name only if it is the one that ships under that name."""
    name = facts["recipe"]
    if name in known_recipes():
        shipped = load_recipe(name)
        train = shipped.train.model_dump(mode="json") if shipped.train else None
        if (shipped.digest(), train) == (facts["recipe_digest"], facts["train"]):
            return str(name)
    return "RECIPE.toml"


def _figures(manifest: Manifest) -> str:
    m, facts = manifest.metrics, manifest.training["train"]
    folds = np.array(m["macro_f1_folds"])
    what = (
        "stars re-observed on the survey, and transients of it"
        if manifest.gate
        else "light curves as they are"
    )
    counts = np.array(m["confusion"]["matrix"])
    rows = [
        (
            name,
            *(f"{share:.3f} ({low:.3f}–{high:.3f})" for share, (low, high) in (
                (row["precision"], wilson(counts[i, i], counts[:, i].sum())),
                (row["recall"], wilson(counts[i, i], counts[i].sum())),
            )),
            f"{row['f1']:.3f}",
            row["support"],
        )
        for i, (name, row) in enumerate(m["per_class"].items())
    ]  # fmt: skip
    weak = [name for name, row in m["per_class"].items() if row["support"] and row["recall"] < SELDOM]
    rare = f"\n\nSeldom found (recall below {SELDOM:g}): {', '.join(weak)}." if weak else ""
    matrix = [
        (f"**{name}**", *row)
        for name, row in zip(m["confusion"]["labels"], m["confusion"]["matrix"], strict=True)
    ]
    reliable = [
        (f"≤ {row['to']:.1f}", row["n"], f"{row['confidence']:.3f}", f"{row['accuracy']:.3f}")
        for row in m["reliability"]
    ]
    passed = ""
    if "passed" in m:
        p = m["passed"]
        passed = f"\n- of those that pass the gate ({p['n']}): accuracy {p['accuracy']:.3f}, macro-F1 {p['macro_f1']:.3f}"
    split, near = "", manifest.training.get("near_other_stars", 0)
    if near:
        split = f"\n- {near} light curves lie within {RADIUS:g}″ of one that counts as another star: where they are one, these figures flatter"
    low_high = {name: f"{low:.3f}–{high:.3f}" for name, (low, high) in m["intervals"].items()}
    return f"""## How right it is

Stratified {facts["folds"]}-fold cross-validation, all light curves of a star in one fold, on {m["n"]} {what}; all folds pooled; in brackets 95 % of the figures when the stars
are drawn anew:

- **macro-F1 {m["macro_f1"]:.3f}** ({low_high["macro_f1"]}; single folds {folds.mean():.3f} ± {folds.std(ddof=1):.3f}), accuracy {m["accuracy"]:.3f} ({low_high["accuracy"]})
- calibration error (15 bins) {m["ece"]:.3f} ({low_high["ece"]}){passed}{split}

Each fold is answered by experts, a choice of periods and a combiner that have seen none of its stars.

{table(("class", "precision", "recall", "F1", "support"), rows)}{rare}

Rows are the truth, columns the answer:

{table(("", *m["confusion"]["labels"]), matrix)}

How often it is right, by how sure it is:

{table(("highest probability", "n", "mean", "right"), reliable)}"""


def _experts(manifest: Manifest) -> str:
    m, facts = manifest.metrics, manifest.training["train"]
    what = {expert.name: _what(expert) for expert in manifest.experts} | {
        name: f"`{spec['architecture']}`, for comparison only"
        for name, spec in facts["networks"].items()
        if spec["reference"]
    }
    alone = [
        (name, what[name], f"{row['macro_f1']:.3f}", f"{row['accuracy']:.3f}", f"{row['ece']:.3f}")
        for name, row in m["experts"].items()
    ]
    kinds = list(next(iter(m["adds"].values()), {}))
    adds, bits = (
        [
            (name, *(f"{1e3 * row[what]:+.1f} ± {1e3 * row[error]:.1f}" for row in by_kind.values()))
            for name, by_kind in m["adds"].items()
        ]
        for what, error in (("gain", "error"), ("bits", "bits_error"))
    )
    numbers = [next(iter(m["adds"].values()))[kind]["n"] for kind in kinds] if kinds else []
    head = ("expert", *(f"{kind}, n {n}" for kind, n in zip(kinds, numbers, strict=True)))
    added = (
        f"""

What each adds to the others, in thousandths of macro-F1 (of the classes that occur there), ± one standard error:

{table(head, adds)}

And in thousandths of a bit: of the mean log2 of the probability that is given to the true class:

{table(head, bits)}"""
        if adds
        else ""
    )
    better = [
        f"{name} alone has a higher macro-F1 ({row['macro_f1']:.3f}) than all together ({m['macro_f1']:.3f})"
        for name, row in m["experts"].items()
        if not row["reference"] and row["macro_f1"] > m["macro_f1"] and len(manifest.names) > 1
    ]
    beaten = (
        f"\n\n{'; '.join(better)}: they are weighted for the best probabilities, not for the rarest classes."
        if better
        else ""
    )
    combiner = manifest.combiners[pool_name(manifest.names)]
    weights = ", ".join(
        f"{name} {weight:.2f}" for name, weight in zip(manifest.names, combiner.weights, strict=True)
    )
    heat = ", ".join(f"{name} {t:.2f}" for name, t in combiner.temperatures.items())
    strangers = ""
    if found := m.get("strangers"):
        rows = [(name, row["n"], f"{row['auc']:.3f}") for name, row in found.items()]
        strangers = f"""

Novelty of light curves whose labels it does not know: the area under the ROC curve between them and the known ones (½: no telling):

{table(("label", "n", "area"), rows)}"""
    period = ""
    if manifest.period is not None:
        limits = ", ".join(f"{name} {value:g}" for name, value in manifest.period.limits.items())
        period = f"""

Periods come from the search ({limits}; frequencies in 1/d) and the choice among its candidates `{manifest.period.choice[:8]}`; no
catalogue period is an input. Trees take {len(manifest.features)} features, and neither brightness, number of epochs nor baseline."""
    by = m.get("by_period")
    if by and by["wrong"]["n"]:
        period += f""" Where it is right (or its half or double; {by["right"]["n"]}), so is the class of {by["right"]["accuracy"]:.1%}; where it is wrong ({by["wrong"]["n"]}), of
{by["wrong"]["accuracy"]:.1%}."""
    period += _colours(manifest)
    networks = ""
    if any(expert.kind == "network" for expert in manifest.experts):
        networks = f"""

Networks are trained with AdamW and a one-cycle learning rate on {facts["draws"]} {"re-observations" if manifest.gate else "copies (fewer epochs, more noise)"} of each example, classes weighted
by 1/√(their number)."""
    return f"""## The experts

{table(("alone", "what it is", "macro-F1", "accuracy", "ECE"), alone)}{beaten}{added}

Combined by adding their logarithms of probabilities, weighted ({weights}); then temperatures of the taxonomy's nodes ({heat}).{period}{networks}{strangers}"""


def _colours(manifest: Manifest) -> str:
    """What trees know of colours, and how much hangs on it."""
    names, by = [name for name in manifest.features if name in COLOURS], manifest.metrics.get("by_colour")
    if not names or not by:
        return ""
    text = f"""

Among the features {"are" if len(names) > 1 else "is"} {_list(names)}: differences of the mean magnitudes of light curves within {RADIUS:g}″, which a run finds within a
partition. Where one is known ({by["known"]["n"]}), the class of {by["known"]["accuracy"]:.1%} is right"""
    if by["unknown"]["n"]:
        text += f"""; where none is ({by["unknown"]["n"]}), of {by["unknown"]["accuracy"]:.1%}"""
    return f"""{text}. Stars were trained on without theirs so that each set of
known colours is of the same share of each class: that they are known tells nothing of it."""


def _what(expert: Expert) -> str:
    if expert.kind == "trees":
        return "boosted trees on features of the folded light curve, its candidates of a period and its statistics"
    return f"`{expert.architecture}` network on {_list(expert.needs)}"


def _list(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _gate(manifest: Manifest) -> str:
    g = manifest.metrics["gate"]
    used = ", ".join(f"{name} {share:.2f}" for name, share in g["most_used"].items())
    controls = "\n".join(f"- {name}: {value:.3f}" for name, value in g["controls"].items())
    rates = [
        (kind, r["n"], f"{r['rate']:.3f}", f"{r['low']:.3f}–{r['high']:.3f}")
        for kind, r in g["pass_rates_real"].items()
    ]
    roc = [
        (
            f"{row['recall']:.2f}",
            f"{row['threshold']:.4f}",
            *(f"{r['rate']:.3f}" for r in row["pass_rates"].values()),
        )
        for row in g["roc"]
    ]
    grid = g["recall_by_magnitude_and_amplitude"]
    amplitudes = [one for one in next(iter(grid.values())) if any(row[one]["n"] for row in grid.values())]
    cells = [
        (
            magnitude,
            *(f"{row[one]['rate']:.3f} ({row[one]['n']})" if row[one]["n"] else "" for one in amplitudes),
        )
        for magnitude, row in grid.items()
        if any(r["n"] for r in row.values())
    ]
    low, high = g["recall_interval"]["low"], g["recall_interval"]["high"]
    few = g["recall_few_epochs"]
    opens = ""
    if own := g["few_epochs"]:
        opens = f"""
- threshold {own["threshold"]:.4f} for fewer than {own["below"]} epochs, so that of all real light curves together one in ten passes: recall
  {few["rate"]:.3f} ({few["low"]:.3f}–{few["high"]:.3f}) of variables with amplitude ≥ 0.1 mag and so few epochs"""
    transients = ""
    if t := manifest.metrics.get("transients"):
        transients = f"""

Transients: at {t["false_positives"]:.1%} of {t["others"]} other variables and constants taken for one, **{t["recall"]:.3f}** of {t["n"]} are found
({t["interval"][0]:.3f}–{t["interval"][1]:.3f}), by p_variable times their classes' probability."""
    return f"""## The gate

Boosted trees on {len(g["statistics"])} statistics (by gain: {used}), trained on labelled stars re-observed on real light curves of the
survey against the same light curves and epochs without them. All figures are out of fold: neither star nor host was seen.
Recalls are of {g["recall_draws"]} draws of each example; intervals are as wide as those of one.

- threshold {g["threshold"]:.4f}: recall **{g["recall"]:.3f}** ({low:.3f}–{high:.3f}) of variables with {g["recall_of"]}{opens}
- recall {g["recall_all"]:.3f} of all, the smallest amplitudes included
- `p_variable` is that of variability which shows (it adds {g["shows"]["excess"]:g} √(2n) to χ²); it assumes that {g["prior_variable"]:.0%} of the light curves
  vary so, and is calibrated to {g["calibration_error"]:.4f}
- area under the ROC curve {g["auc"]:.4f}

Of {g["real_stars"]} real light curves that count as constant so many pass; {g["real_certain"]["n"]} of them are periodic for certain (score ≥ {g["real_certain"]["score"]:g}), others may
vary too:

{table(("real light curves", "n", "pass", "95 %"), rates)}

With other thresholds, the same for all numbers of epochs:

{table(("recall", "threshold", *g["pass_rates_real"]), roc)}{transients}

Recall by class ({g["recall_of"]}):

{_rates("class", g["recall_by_class"])}

Recall by magnitude (rows) and amplitude (half of the range of the noiseless change, mag) of variables with {g["recall_of"]},
with the number of draws:

{table(("magnitude", *amplitudes), cells)}

Recall by amplitude, by median magnitude, and by number of epochs:

{_rates("amplitude", g["recall_by_amplitude"])}

{_rates("magnitude", g["recall_by_magnitude"])}

{_rates("epochs", g["recall_by_epochs"])}

Real light curves that count as constant and pass, by magnitude and number of epochs:

{_rates("magnitude", g["pass_rate_real_by_magnitude"])}

{_rates("epochs", g["pass_rate_real_by_epochs"])}

Made or real: trees that get the same statistics (but n) tell constants on survey epochs as they are made here from real ones with an
area under the curve of {g["made_or_real"]:.3f} (½: not at all). What passes of real ones is therefore counted on real ones, above.

Controls: areas under the curve of trees that get only how a star was observed, or labels that were shuffled. They should
be ½; what is above says how far the injection itself can be seen without any variability:

{controls}

n and median magnitude are given to the gate, because how much scatter is significant depends on them; mean magnitude, baseline
and median error are not. (Mean less median is a skewness: together they tell a little of variability.)"""


def _limits(manifest: Manifest) -> str:
    source = manifest.training["labels"]["file"]
    ours = source == CRTS
    if not manifest.gate:
        survey = (
            """One unfiltered survey (Catalina; labels of Drake+2014, ApJS 213, 9) with a median of 300 epochs a star. Labels were made with the period: a few per cent are wrong, and about 10 %
of RRd. """
            if ours
            else f"It knows light curves as `{source}` has them: cadence, depth and passbands, and how its labels were made. "
        )
        picked = (
            """ Which features trees get, and how long networks are trained, was picked
on folds of the same stars among a few settings: that flatters the figures a little."""
            if ours
            else ""
        )
        return f"""## Where it ends

{survey}It knows its classes and no other: there is no "not variable", and what is neither is to be seen by `novelty` at best.
Probabilities are calibrated for light curves like these.{picked}"""
    stars = (
        """CRTS stars of known period, re-observed: a smooth model of each (harmonics, and a slow term where there is one) on
  real epochs, errors and residuals. Their amplitudes are those of an unfiltered band. No real ZTF label of a periodic star was used,
  and figures here are for re-observed stars."""
        if ours
        else f"""stars of `{source}` with known periods, re-observed: a smooth model of each (harmonics, and a slow term where there is one)
  on real epochs, errors and residuals, with amplitudes as in its passbands. Figures here are for re-observed stars."""
    )
    return f"""## Where it ends

- The periodic classes are {stars}
- Stars that count as constant are all objects of one real file (one field, g) with enough epochs. A few of them vary.
- On cadences of transients the constant star is made: residuals of real constant stars, drawn anew, so without memory from
  epoch to epoch.
- Supernovae are few, nearby and bright, and measured together with their hosts.
- What a network adds to the classes is little (see above): it is there for novelty too, and for those who ask it alone.
- The gate's configuration was chosen on the same folds that its figures are quoted on, and the threshold for few epochs on the same
  real light curves whose pass rate is quoted.
- What passes in vain is faint (18 mag and more): a few shallow exposures make stars near their limit brighter by several errors, and one
  light curve does not tell such an exposure from a change.
- Class shares of the labels stand in for those of the sky (`priors`): a release has another mixture."""


def _rates(what: str, rates: Mapping[str, Mapping[str, float]]) -> str:
    return table(
        (what, "n", "rate"), [(name, r["n"], f"{r['rate']:.3f}") for name, r in rates.items() if r["n"]]
    )
