"""Report: one self-contained HTML page about a catalogue, its counts, distributions, examples, timings and provenance.

The catalogue is never loaded: `report_counts` counts over its Parquet files, and `report_examples` reads light curves
from a few partitions of the release, chosen so that they hold good examples of as many classes as possible.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from cdshealpix.nested import healpix_to_lonlat

from lightmill.catalogs.rows import FLAGS, UNCLASSIFIED
from lightmill.catalogs.runfolder import CatalogueFolder
from lightmill.catalogs.versions import Version, current
from lightmill.models.taxonomy import DESCRIPTIONS
from lightmill.pipeline import explain_page, report_run
from lightmill.pipeline import report_charts as charts
from lightmill.pipeline import report_counts as counts
from lightmill.pipeline import report_curves as curves
from lightmill.pipeline import report_examples as examples
from lightmill.pipeline.explain import overview
from lightmill.pipeline.report_catalogue import Catalogue, ReportError, open_catalogue
from lightmill.pipeline.report_examples import NORMALISATION, Reading
from lightmill.pipeline.report_page import percent, render
from lightmill.pipeline.report_sky import ZOOM, SkyCells, sky
from lightmill.pipeline.report_style import BLUE, PALE, VERMILION

__all__ = ["ReportError", "percent", "report"]

SHOWN = 3  #: example light curves of a class that are drawn
BINS = 1000  #: of the probability of the best class, as it is counted
DRAWN = 50  #: of them, as it is drawn

REASONS_IN_WORDS = {
    "no_epochs": "no epoch at all",
    "flagged": "long enough, but for epochs with quality flags",
    "bad_values": "long enough, but for values that are no numbers, or errors that are not positive",
    "too_few_epochs": "too few epochs to begin with",
    "bad_position": "a position that is no place on the sky",
}
"""The reasons of `clean.REASONS`, for people."""


def report(catalogue: Path, out: Path | None = None, *, release: str | None = None) -> Path:
    """Write one self-contained HTML page about a classification catalogue.

    Parameters
    ----------
    catalogue : folder that `lightmill run` made, one of its versions, or CATALOGUE@NAME
    out : file to write (default: report.html in the catalogue, of an older version report-NAME.html)
    release : where the light curves are now, if they moved; without them their pictures are left out

    Raises
    ------
    NotHats
        if the folder is not a HATS catalogue.
    ReportError
        if it is one, but not of `lightmill run`, or nothing has been published in it.
    """
    subject = open_catalogue(Path(catalogue))
    target = Path(out) if out is not None else _default(subject.version)
    if target.is_dir():
        raise ReportError(f"{target} is a folder: give the name of an HTML file")
    with counts.connect(subject) as connection:
        probabilities = counts.by_class(connection, subject.leaves, f"best_prob * {BINS}", BINS)
        facts = _counted(connection, subject, probabilities)
        rows = examples.sample(connection, subject, examples.thresholds(probabilities))
    reading = examples.read(subject, rows, release or subject.run["release"])
    facts |= {"name": subject.table.name, "reading": reading, **_light_curves(subject, reading)}
    facts |= {"timing": _timing(subject), "failures": subject.failures}
    facts["looks_for"] = _looks_for(subject)
    facts["provenance"] = report_run.provenance(subject, reading.url)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(render("report.html", facts), encoding="utf-8")
    return target


def _default(version: Version) -> Path:
    """Beside the versions, which never change."""
    known = current(CatalogueFolder(version.root.parent.parent))
    name = (
        "report.html" if known is not None and known.name == version.name else f"report-{version.name}.html"
    )
    return version.root.parent.parent / name


# ---- what is counted


def _counted(
    connection: duckdb.DuckDBPyConnection, subject: Catalogue, probabilities: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """What the page says of the catalogue alone: tables and pictures by name."""
    medians = {name: (counts.middle(bins) + 0.5) / BINS for name, bins in probabilities.items()}
    classes = counts.classes(connection, subject.leaves, medians)
    rejected = counts.rejected(connection)
    names, number, expected = ([row[key] for row in classes] for key in ("name", "count", "expected"))
    classified, refused = sum(number), sum(rejected.values())
    return {
        "classes": classes,
        "class_list": ", ".join(f"{name} {n:,}" for name, n in zip(names, number, strict=True)),
        "class_picture": charts.class_counts(names, np.array(number), np.array(expected)),
        "summary": _summary(subject, classes, refused),
        "check": report_run.check(subject, classified, refused),
        "filters": counts.filters(connection, subject.filters),
        "has_gate": subject.has_gate,
        "rejected": rejected,
        "reasons": REASONS_IN_WORDS,
        "rejected_picture": charts.rejections(rejected) if rejected else None,
        "sky_picture": _sky(connection, subject),
        "probability_picture": _probabilities(probabilities),
        "gate": _gate(connection, subject),
        "magnitude_pictures": _magnitudes(connection, subject),
        "period_picture": _periods(connection, subject),
        "epochs_picture": _epochs(connection, subject),
    }


def _summary(subject: Catalogue, classes: Sequence[Mapping[str, Any]], rejected: int) -> dict[str, int]:
    """The first figures: what they count, and the count."""
    classified = sum(row["count"] for row in classes)
    read = subject.rows_in or classified + rejected
    facts = {"light curves read": read, "classified": classified, "rejected": rejected}
    if subject.has_gate:
        facts["classified as variable"] = sum(row["count"] for row in classes if row["name"] != "nonvar")
    facts["partitions"] = len(subject.receipts) or len(subject.files)
    facts["partitions failed"] = len(subject.failures)
    if subject.receipts:
        facts["light curves/s per worker"] = round(subject.rows_in / sum(r.seconds for r in subject.receipts))
    return facts


def _sky(connection: duckdb.DuckDBPyConnection, subject: Catalogue) -> str:
    """A picture of all and of the variable light curves; no finer than it shows."""
    *_, radius = SkyCells(6, *counts.cells(connection, 6)).extent()
    # where all lie close together, some forty cells across: cells of order 0 are 58.6° wide
    order = min(max(math.ceil(math.log2(58.6 * 20 / radius)), 6), 14) if radius < ZOOM else 6
    maps = {"Light curves classified": SkyCells(order, *counts.cells(connection, order)).filled()}
    cells, n = counts.cells(connection, order, "best_class <> 'nonvar'")
    if subject.has_gate and len(cells):
        maps["Light curves classified as variable"] = SkyCells(order, cells, n).filled()
    failed = np.array([(it["order"], it["pixel"]) for it in subject.failures], np.int64).reshape(-1, 2)
    lon, lat = healpix_to_lonlat(failed[:, 1].astype(np.uint64), failed[:, 0].astype(np.uint8))
    return sky(maps, np.column_stack([lon.deg, lat.deg]))


def _probabilities(found: Mapping[str, np.ndarray]) -> str:
    """A picture of the probability of the best class."""
    drawn = {name: bins.reshape(DRAWN, -1).sum(axis=1) for name, bins in found.items()}
    return charts.panels(drawn, np.linspace(0, 1, DRAWN + 1), "probability of the most probable class")


def _gate(connection: duckdb.DuckDBPyConnection, subject: Catalogue) -> dict[str, Any] | None:
    """Figures and picture of the gate; None if there was none."""
    bit, none = FLAGS["gated_out"], np.zeros(100, np.int64)
    found = counts.histogram(connection, "p_variable * 100", 100, by=f"flags & {bit}")
    if not found:
        return None
    passed, held = found.get(0, none), found.get(bit, none)
    heights = {f"passed: {passed.sum():,}": passed, f"stopped: {held.sum():,}": held}
    threshold = subject.threshold
    line = None if threshold is None else (threshold, f"threshold {threshold:.3g}")
    label = "p_variable, the gate's probability to be variable"
    picture = charts.two_histograms(heights, (BLUE, PALE), np.linspace(0, 1, 101), label, line=line)
    return {"picture": picture, "threshold": threshold, "passed": passed.sum(), "held": held.sum()}


def _magnitudes(connection: duckdb.DuckDBPyConnection, subject: Catalogue) -> tuple[str, str] | None:
    """Pictures of mean magnitudes from 0 to 50, in bins of a quarter of a magnitude."""
    found = counts.by_class(connection, subject.leaves, "mag_mean * 4", 200)
    if not found:
        return None
    first, stop, heights = counts.trim(found)
    edges = np.arange(first, stop + 1) / 4
    everything = np.sum(list(heights.values()), axis=0)
    variable = everything - heights.get("nonvar", 0) if subject.has_gate else None
    panels = charts.panels(heights, edges, "mean magnitude [mag]", behind=everything)
    return charts.magnitudes(everything, variable, edges), panels


def _periods(connection: duckdb.DuckDBPyConnection, subject: Catalogue) -> str | None:
    """A picture of the periods from 1e-5 to 1e5 d, in tenths of a decade and over whole decades; None without any."""
    number = "CASE WHEN period > 0 THEN log10(period) * 10 + 50 END"
    found = counts.by_class(connection, subject.leaves, number, 100)
    if not found:
        return None
    first, stop, heights = counts.trim(found, whole=10)
    return charts.panels(heights, 10 ** (np.arange(first - 50, stop - 49) / 10), "period [d]", log=True)


def _epochs(connection: duckdb.DuckDBPyConnection, subject: Catalogue) -> str:
    """A picture of good epochs, in tenths of a decade."""
    number, none = "log10(greatest(n_good, 1)) * 10", np.zeros(80, np.int64)
    found = {
        name: counts.histogram(connection, number, 80, by="0", of=view).get(0, none)
        for name, view in (("rejected", "rejected"), ("classified", "catalogue"))
    }
    first, stop, heights = counts.trim(found, tail=0)
    edges = np.ceil((10 ** (np.arange(first, stop + 1) / 10)).round(6))
    holds = np.diff(edges) > 0  # below ten epochs some bins hold no whole number
    heights = {name: bins[holds] for name, bins in heights.items()}
    line = None
    if subject.recipe is not None:
        least = subject.recipe.clean.min_epochs
        line = (float(least), f"min_epochs = {least}")
    label = "good epochs of a light curve (those with none stand at 1)"
    return charts.two_histograms(heights, (VERMILION, BLUE), np.unique(edges), label, line=line, log=True)


# ---- what is read


def _timing(subject: Catalogue) -> dict[str, Any] | None:
    """Figures, slowest partitions and picture of the time that it took; None without receipts."""
    receipts = subject.receipts
    if not receipts:
        return None
    rows, seconds = np.array([(receipt.rows_in, receipt.seconds) for receipt in receipts]).T
    picture = charts.timings(report_run.stages(receipts), seconds, rows / seconds)
    slowest = sorted(receipts, key=lambda receipt: -receipt.seconds)[:5]
    return {"facts": report_run.timings(receipts), "slowest": slowest, "picture": picture}


def _light_curves(subject: Catalogue, reading: Reading) -> dict[str, Any]:
    """Pictures of light curves and their images, if any could be read."""
    if not reading.found or subject.recipe is None:
        return {"image_picture": None, "groups": []}
    grid, filters = subject.recipe.dmdt.edges(), subject.filters
    medians, groups = {}, []
    for name in (*subject.leaves, UNCLASSIFIED):
        mine = [example for example in reading.found if example.row["best_class"] == name]
        if not mine:
            continue
        medians[f"{name}  ({len(mine)})"] = np.median([example.image for example in mine], axis=0)
        picture = curves.light_curves(mine[:SHOWN], grid, filters)
        text = DESCRIPTIONS.get(name, "")
        groups.append({"name": name, "text": text, "picture": picture, "examples": mine[:SHOWN]})
    image = curves.median_images(medians, grid, f"median pixel, normalisation “{NORMALISATION}”")
    return {"image_picture": image, "groups": groups, "filter_names": filters}


def _looks_for(subject: Catalogue) -> dict[str, Any] | None:
    """Pictures of what the bundle's experts look for; None if it is not found here, or cannot be loaded."""
    if subject.manifest is None or subject.recipe is None:
        return None
    try:
        return explain_page.looked_for(overview(subject.recipe.model.bundle))
    except (ImportError, ValueError, RuntimeError) as error:
        # TensorFlow is not there, or not the one that the bundle was made with
        return {"problem": str(error), "liked": [], "used": []}
