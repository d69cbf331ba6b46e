# ruff: noqa: E501  (Markdown paragraphs with values in them)
"""Model cards (Mitchell+2019, arXiv:1810.03993): what a bundle is, what it was made of, how good it is and where not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from lightmill.models.manifest import Manifest
from lightmill.models.taxonomy import describe
from lightmill.pipeline.recipe import known_recipes, load_recipe

__all__ = ["write_card"]


def write_card(manifest: Manifest, counts: np.ndarray) -> str:
    """The card of a bundle, as Markdown.

    Parameters
    ----------
    manifest : with training facts and metrics
    counts : (n_classes,) examples of each class
    """
    sections = [
        _head(manifest, counts),
        _network(manifest),
        *([_gate(manifest)] if manifest.gate else []),
        _limits(manifest),
    ]
    return "\n\n".join(sections) + "\n"


def _head(manifest: Manifest, counts: np.ndarray) -> str:
    facts = manifest.training
    survey = "".join(f" --survey {source['file']}" for source in facts["survey"])
    left_out = ", ".join(f"{n} × {reason}" for reason, n in sorted(facts["left_out"].items())) or "nothing"
    rows = [(name, describe(name), int(n)) for name, n in zip(manifest.classes, counts, strict=True)]
    files = "\n".join(f"- `{s['file']}`, sha256 `{s['sha256']}`" for s in [facts["labels"], *facts["survey"]])
    return f"""# {manifest.name}

A dm-dt network over {len(manifest.classes)} classes{" behind a gate (variable or not)" if manifest.gate else ", without a gate"}.

Made by

    lightmill train --labels {facts["labels"]["file"]}{survey} --recipe {_recipe(facts)} --out BUNDLE

from

{files}

Left out of the labels: {left_out}.

{_table(("class", "what it is", "examples"), rows)}"""


def _recipe(facts: dict[str, Any]) -> str:
    """The recipe as the command line takes it: by name only if it is the one that ships under that name."""
    name = facts["recipe"]
    if name in known_recipes():
        shipped = load_recipe(name)
        train = shipped.train.model_dump(mode="json") if shipped.train else None
        if (shipped.digest(), train) == (facts["recipe_digest"], facts["train"]):
            return str(name)
    return "RECIPE.toml"


def _network(manifest: Manifest) -> str:
    m, facts = manifest.metrics, manifest.training["train"]
    folds = np.array(m["macro_f1_folds"])
    what = (
        "stars re-observed on the survey, and transients of it"
        if manifest.gate
        else "light curves as they are"
    )
    rows = [
        (name, f"{row['precision']:.3f}", f"{row['recall']:.3f}", f"{row['f1']:.3f}", row["support"])
        for name, row in m["per_class"].items()
    ]
    weak = [name for name, row in m["per_class"].items() if row["support"] and row["f1"] < 0.1]
    rare = f"\n\nHardly ever the most probable, and so hardly ever found: {', '.join(weak)}." if weak else ""
    matrix = [
        (f"**{name}**", *row)
        for name, row in zip(m["confusion"]["labels"], m["confusion"]["matrix"], strict=True)
    ]
    passed = ""
    if "passed" in m:
        p = m["passed"]
        passed = f"\n\nOf those that pass the gate ({p['n']}): accuracy {p['accuracy']:.3f}, macro-F1 {p['macro_f1']:.3f}."
    parameters = (
        ", ".join(f"{name} {value}" for name, value in manifest.network.parameters.items())
        or "the paper's parameters"
    )
    return f"""## The network

`{manifest.network.architecture}` with {parameters}: the network of Mahabal+2017 (arXiv:1709.06257) on {manifest.shape[0]} × {manifest.shape[1]} images
normalised by "{manifest.normalisation}". (`scale` multiplies the images; the paper's is 1/255, with which training is slower.) Trained with AdamW and a one-cycle learning rate (peak {facts["learning_rate"]:g}, {facts["epochs"]} epochs,
batches of {facts["batch_size"]}), classes weighted by 1/√(their number), on {facts["draws"]} {"re-observations" if manifest.gate else "augmented copies (fewer epochs, more noise)"} of each example.

Grouped, stratified {facts["folds"]}-fold cross-validation on {m["n"]} {what}; all folds pooled:

- **macro-F1 {m["macro_f1"]:.3f}** (single folds {folds.mean():.3f} ± {folds.std(ddof=1):.3f}), accuracy {m["accuracy"]:.3f}
- calibration error (15 bins) {m["ece"]:.3f} with temperature {manifest.network.temperature:.3f}, {m["ece_uncalibrated"]:.3f} without; the one temperature was fitted
  to the same predictions{passed}

{_table(("class", "precision", "recall", "F1", "support"), rows)}{rare}

Rows are the truth, columns the answer:

{_table(("", *m["confusion"]["labels"]), matrix)}"""


def _gate(manifest: Manifest) -> str:
    g = manifest.metrics["gate"]
    used = ", ".join(f"{name} {share:.2f}" for name, share in g["most_used"].items())
    controls = "\n".join(f"- {name}: {value:.3f}" for name, value in g["controls"].items())
    return f"""## The gate

Boosted trees on {len(g["statistics"])} statistics (by gain: {used}), trained on labelled stars re-observed on real light curves of the
survey against the same light curves and epochs without them. All figures are out of fold: neither star nor host was seen.

- threshold {g["threshold"]:.4f}: recall **{g["recall"]:.3f}** of variables with {g["recall_of"]}; {g["recall_all"]:.3f} of all
- of {g["real_stars"]} real light curves that count as constant **{g["pass_rate_real"]:.3f}** pass; a few of them do vary, so this is an upper limit
- area under the ROC curve {g["auc"]:.4f}
- `p_variable` assumes that {g["prior_variable"]:.0%} of the light curves vary

Recall by class ({g["recall_of"]}):

{_rates("class", g["recall_by_class"])}

Recall by amplitude (half of the range of the noiseless change, mag), by median magnitude, and by number of epochs:

{_rates("amplitude", g["recall_by_amplitude"])}

{_rates("magnitude", g["recall_by_magnitude"])}

{_rates("epochs", g["recall_by_epochs"])}

Real light curves that count as constant and pass, by magnitude and number of epochs:

{_rates("magnitude", g["pass_rate_real_by_magnitude"])}

{_rates("epochs", g["pass_rate_real_by_epochs"])}

Controls: areas under the curve of trees that get only how a star was observed, or labels that were shuffled. They should
be ½; what is above says how far the injection itself can be seen without any variability (the four together know how
an error depends on the magnitude, which the injection follows only on average):

{controls}

n is given to the gate, because how much scatter is significant depends on it; mean magnitude, baseline and median error are not."""


def _limits(manifest: Manifest) -> str:
    if not manifest.gate:
        return """## Where it ends

One unfiltered survey with a median of 300 epochs a star. Labels were made with the period, which this network does not see: a
few per cent are wrong, and about 10 % of RRd. It always answers with one of its classes: there is no "something else" and no
"not variable". Probabilities are calibrated for light curves like these."""
    return """## Where it ends

- The periodic classes are CRTS stars of known period, re-observed: a smooth model of each (harmonics, and a slow term where there is one) on
  real epochs, errors and residuals. Their amplitudes are those of an unfiltered band. No real ZTF label of a periodic star was used,
  and figures here are for re-observed stars.
- Stars that count as constant are all objects of one real file (one field, g) with enough epochs. A few of them vary.
- On cadences of transients the constant star is made: residuals of real constant stars, drawn anew, so without memory from
  epoch to epoch.
- Supernovae are few, nearby and bright, and measured together with their hosts.
- Class shares of the labels stand in for those of the sky (`priors`): a release has another mixture."""


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _rates(what: str, rates: Mapping[str, Mapping[str, float]]) -> str:
    return _table(
        (what, "n", "rate"), [(name, r["n"], f"{r['rate']:.3f}") for name, r in rates.items() if r["n"]]
    )
