"""Report: one self-contained HTML page about a catalogue, its counts, distributions, examples, timings and provenance.

The catalogue is never loaded: DuckDB counts over its Parquet files. Light curves for the pictures are read from a few
partitions of the release, chosen so that they hold good examples of as many classes as possible.
"""

from __future__ import annotations

import json
import math
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

import duckdb
import jinja2
import numpy as np
from hats.pixel_math.spatial_index import SPATIAL_INDEX_COLUMN, SPATIAL_INDEX_ORDER
from markupsafe import Markup
from mocpy import MOC

from lightmill.catalogs.lightcurves import LightCurves
from lightmill.catalogs.partitions import HatsTable, NotHats, Partition, open_hats
from lightmill.catalogs.query import leaves_of
from lightmill.catalogs.receipts import Receipt, read_receipts
from lightmill.catalogs.release import Release, open_release, read_batches
from lightmill.catalogs.rows import FLAGS
from lightmill.catalogs.runfolder import RunFolder
from lightmill.models.bundle import BundleError, read_manifest
from lightmill.models.manifest import Manifest
from lightmill.models.taxonomy import DESCRIPTIONS
from lightmill.pipeline import pictures
from lightmill.pipeline.clean import clean
from lightmill.pipeline.dmdt import dmdt_counts, normalise
from lightmill.pipeline.recipe import Recipe

__all__ = ["ReportError", "report"]

EXAMPLES = 100  #: light curves of a class that its median image is made of
SHOWN = 3  #: of them, drawn
FROM_ONE = 25  #: examples of a class that count for choosing a partition: the rest come from elsewhere
MAX_PARTITIONS = 8  #: partitions of the release that are read
MAX_EPOCHS = (
    100_000_000  #: epochs of the release that are read: a minute or two, whatever the size of its partitions
)
PROBABILITY_BINS = 1000
MAX_FAILURES = 200  #: failed partitions listed one by one

REASONS_IN_WORDS = {
    "no_epochs": "no epoch at all",
    "flagged": "long enough, but for epochs with quality flags",
    "bad_values": "long enough, but for values that are no numbers, or errors that are not positive",
    "too_few_epochs": "too few epochs to begin with",
    "bad_position": "a position that is no place on the sky",
}
"""The reasons of `clean.REASONS`, for people."""

Key = tuple[int, int]  #: order, pixel


class ReportError(ValueError):
    """What was given cannot be reported on."""


@dataclass(frozen=True)
class Subject:
    """A catalogue made by `lightmill run`."""

    folder: RunFolder
    table: HatsTable
    leaves: tuple[str, ...]
    files: dict[str, Key]  #: its Parquet files
    run: dict[str, Any]  #: content of run.json
    recipe: Recipe | None  #: None where this version cannot read it
    manifest: Manifest | None  #: of the bundle, None where it is not found here, or another

    @property
    def has_gate(self) -> bool:
        """Whether it tells variable light curves from others."""
        return "nonvar" in self.leaves

    @property
    def threshold(self) -> float | None:
        """p_variable from which a light curve passed the gate, None if unknown or all passed."""
        if self.recipe is None or self.recipe.gate.mode == "off" or not self.has_gate:
            return None
        if self.recipe.gate.threshold is not None:
            return self.recipe.gate.threshold
        return self.manifest.gate.threshold if self.manifest and self.manifest.gate else None

    @property
    def filters(self) -> dict[int, str]:
        """Names of the filters, by filterid, where they are known to be ZTF's."""
        ztf = self.recipe is not None and self.recipe.layout.name in ("auto", "irsa-hats", "list")
        return {key: name for key, (name, *_) in pictures.BANDS.items()} if ztf else {}


@dataclass
class Work:
    """What the receipts say, summed up as they are read."""

    keys: list[Key] = field(default_factory=list)
    rows_in: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    classified: int = 0
    epochs: int = 0
    bytes: int = 0
    peak_rss_bytes: int = 0
    stages: Counter[str] = field(default_factory=Counter)
    hosts: Counter[str] = field(default_factory=Counter)
    versions: dict[str, set[str]] = field(default_factory=dict)
    first: str = ""  #: UTC, ISO 8601
    last: str = ""

    def add(self, receipt: Receipt) -> None:
        """Count one more partition."""
        self.keys.append(receipt.key)
        self.rows_in.append(receipt.rows_in)
        self.seconds.append(receipt.seconds)
        self.classified += receipt.classified
        self.epochs += receipt.epochs
        self.bytes += receipt.bytes
        self.peak_rss_bytes = max(self.peak_rss_bytes, receipt.peak_rss_bytes)
        self.stages.update(receipt.stages)
        self.hosts[receipt.host or "unknown"] += 1
        for name, number in receipt.versions.items():
            self.versions.setdefault(name, set()).add(number)
        if receipt.finished:
            self.first = min(self.first or receipt.finished, receipt.finished)
            self.last = max(self.last, receipt.finished)

    def slowest(self, n: int) -> list[tuple[Key, int, float]]:
        """Partitions that took longest: key, light curves, seconds."""
        at = np.argsort(np.array(self.seconds))[::-1][:n]
        return [(self.keys[i], self.rows_in[i], self.seconds[i]) for i in at.tolist()]


@dataclass(frozen=True)
class Example:
    """A row of the catalogue with its light curve."""

    row: Mapping[str, Any]
    t: np.ndarray  #: (n,) float64 [d] since the first good epoch
    mag: np.ndarray  #: (n,) float64 [mag]
    magerr: np.ndarray  #: (n,) float64 [mag]
    image: np.ndarray  #: (n_dm, n_dt) float32, normalised as the recipe says


@dataclass
class Reading:
    """What could be read from the release."""

    url: str
    wanted: int = 0  #: light curves looked for
    epochs: int = 0  #: read on the way, of whatever light curve
    partitions: int = 0  #: read, in whole or in part
    problems: list[str] = field(default_factory=list)
    found: list[Example] = field(default_factory=list)


def report(catalogue: Path, out: Path | None = None, *, release: str | None = None) -> Path:
    """Write one self-contained HTML page about a classification catalogue.

    Parameters
    ----------
    catalogue : folder that `lightmill run` made
    out : file to write (default: report.html in the catalogue)
    release : where the light curves are now, if they moved; without them their pictures are left out

    Raises
    ------
    NotHats
        if the folder is not a HATS catalogue.
    ReportError
        if it is one, but not of `lightmill run`, or nothing has been published in it.
    """
    subject = _open(RunFolder(Path(catalogue)))
    target = Path(out) if out is not None else subject.folder.out / "report.html"
    if target.is_dir():
        raise ReportError(f"{target} is a folder: give the name of an HTML file")
    work, failures = _work(subject.folder), _failures(subject.folder)
    with duckdb.connect() as connection:
        _views(connection, subject)
        facts = _sections(connection, subject, work, failures)
        rows = _sample(connection, subject, facts["thresholds"])
    reading = _read(subject, rows, release or str(subject.run.get("release", "")))
    facts |= _light_curves(subject, reading)
    facts |= {"failures": failures[:MAX_FAILURES], "more_failures": max(len(failures) - MAX_FAILURES, 0)}
    facts |= {"provenance": _provenance(subject, work, reading.url), "name": subject.table.name}
    _write(target, _page(facts))
    return target


# ---- what there is


def _open(folder: RunFolder) -> Subject:
    """The catalogue, if it is one of ours."""
    out, record = folder.out, folder.record
    if not out.is_dir():
        raise NotHats(f"{out} is not a HATS catalogue: there is no such folder")
    try:
        table = open_hats(str(out))
    except NotHats as error:
        if record.is_file():
            raise ReportError(_unpublished(folder)) from error
        raise NotHats(
            f"{out} is not a HATS catalogue, nor made by lightmill run: it has no collection.properties"
        ) from error
    leaves = leaves_of(table.schema())
    if not record.is_file() or not leaves:
        lacks = "run/run.json" if not record.is_file() else "columns p_<class>"
        raise ReportError(f"{out} is a HATS catalogue, but was not made by lightmill run: it has no {lacks}")
    try:
        run = dict(json.loads(record.read_text()))
    except (ValueError, TypeError) as error:
        raise ReportError(
            f"{record} cannot be read: {error}; lightmill run writes it, restore it from a copy"
        ) from error
    recipe = _recipe(run)
    partitions = table.partitions()
    return Subject(
        folder=folder,
        table=table,
        leaves=leaves,
        files={file.path: (part.order, part.pixel) for part in partitions for file in part.files},
        run=run,
        recipe=recipe,
        manifest=_manifest(recipe, run),
    )


def _unpublished(folder: RunFolder) -> str:
    rejected: Counter[str] = Counter()
    for receipt in read_receipts(folder.receipts):
        rejected.update(receipt.rejected)
    why = ", ".join(f"{n:,} {reason}" for reason, n in rejected.most_common())
    return (
        f"{folder.out} holds a run, but nothing has been published in it: the run was cut short (the same command "
        f"goes on), or no light curve could be classified (rejected so far: {why or 'none'})"
    )


def _recipe(run: Mapping[str, Any]) -> Recipe | None:
    """What decided the results; the rest of the recipe may be of a version that had other fields."""
    try:
        given = run["recipe"]
        return Recipe.model_validate(
            {key: given[key] for key in ("name", "description", "model")} | run["science"]
        )
    except (KeyError, TypeError, ValueError):
        return None


def _manifest(recipe: Recipe | None, run: Mapping[str, Any]) -> Manifest | None:
    if recipe is None:
        return None
    try:
        manifest = read_manifest(recipe.model.bundle)
    except (BundleError, OSError):
        return None
    return manifest if manifest.digest == run.get("bundle") else None


def _work(folder: RunFolder) -> Work:
    work = Work()
    for receipt in read_receipts(folder.receipts):
        work.add(receipt)
    return work


def _failures(folder: RunFolder) -> list[dict[str, Any]]:
    """Partitions that the last run could not classify."""
    try:
        listed = json.loads(folder.failures.read_text())
        return [
            {"order": int(f["order"]), "pixel": int(f["pixel"]), "error": str(f["error"])} for f in listed
        ]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def _views(connection: duckdb.DuckDBPyConnection, subject: Subject) -> None:
    """`catalogue` and `rejected`, with bounded memory."""
    connection.execute("SET enable_progress_bar = false")
    connection.execute("SET memory_limit = '2GB'")
    names = ("objectid", "filterid", "n_good", "reason")
    rejected = sorted(map(str, subject.folder.out.glob("run/rejected/Norder=*/Dir=*/Npix=*.parquet")))
    # names like Norder=5 in the paths are not columns
    read = partial(connection.read_parquet, hive_partitioning=False)
    read(list(subject.files), filename=True).create_view("catalogue")
    if rejected:
        read(rejected).select(*names).create_view("rejected")
    else:
        columns = "0::BIGINT AS objectid, 0 AS filterid, 0 AS n_good, ''::VARCHAR AS reason"
        connection.execute(f"CREATE VIEW rejected AS SELECT {columns} WHERE false")


# ---- counts


def _sections(
    connection: duckdb.DuckDBPyConnection, subject: Subject, work: Work, failures: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What the page says of the catalogue alone: tables and pictures by name."""
    probabilities = _histogram(connection, f"best_prob * {PROBABILITY_BINS}", last=PROBABILITY_BINS - 1)
    classes = _classes(connection, subject.leaves, probabilities)
    rejected = dict(
        connection.sql("SELECT reason, count(*) AS n FROM rejected GROUP BY 1 ORDER BY n DESC, 1").fetchall()
    )
    classified = sum(row["count"] for row in classes)
    return {
        "classes": classes,
        "thresholds": _thresholds(probabilities),
        "rejected": rejected,
        "summary": _summary(subject, work, classes, rejected, len(failures)),
        "checks": _checks(work, classified, rejected),
        "filters": _filters(connection, subject),
        "n_rejected": sum(rejected.values()),
        "reasons": REASONS_IN_WORDS,
        "class_list": ", ".join(f"{row['name']} {row['count']:,}" for row in classes),
        "sky_picture": pictures.sky(_sky(connection, subject.has_gate), _positions(failures)),
        "class_picture": pictures.class_counts(
            [row["name"] for row in classes],
            np.array([row["count"] for row in classes]),
            np.array([row["expected"] for row in classes]),
        ),
        "rejected_picture": pictures.rejections(rejected) if rejected else None,
        "epochs_picture": _epochs(connection, subject),
        "timing": _timing(work),
        **_probabilities(connection, subject, probabilities),
        **_magnitudes(connection, subject),
        **_periods(connection, subject),
    }


def _histogram(
    connection: duckdb.DuckDBPyConnection,
    number: str,
    *,
    of: str = "catalogue",
    by: str = "best_class",
    last: int | None = None,
) -> dict[Any, dict[int, int]]:
    """Rows by group and by the whole part of an SQL expression; those where it is null or not finite are left out.

    Bins after `last` are counted in it: a probability of exactly 1 belongs to the highest bin.
    """
    counts: dict[Any, Counter[int]] = {}
    inner = f"SELECT {by} AS g, ({number})::DOUBLE AS x FROM {of}"
    query = f"SELECT g, floor(x)::BIGINT, count(*) FROM ({inner}) WHERE isfinite(x) GROUP BY ALL ORDER BY ALL"
    for group, bin_, n in connection.sql(query).fetchall():
        counts.setdefault(group, Counter())[bin_ if last is None else min(bin_, last)] += n
    return {group: dict(bins) for group, bins in counts.items()}


def _dense(counts: Mapping[int, int], first: int, stop: int) -> np.ndarray:
    """(stop − first,) counts of the bins from `first`; those outside are added to the outermost."""
    heights = np.zeros(stop - first, np.int64)
    for bin_, n in counts.items():
        heights[min(max(bin_, first), stop - 1) - first] += n
    return heights


def _span(histograms: Iterable[Mapping[int, int]], tail: float = 0.0005) -> tuple[int, int]:
    """First bin and the one after the last, without the share `tail` of the rows at either end."""
    total: Counter[int] = Counter()
    for counts in histograms:
        total.update(counts)
    if not total:
        return 0, 1
    bins = np.array(sorted(total))
    share = np.cumsum([total[b] for b in bins.tolist()]) / total.total()
    first, last = np.searchsorted(share, (tail, 1 - tail))
    return int(bins[first]), int(bins[min(last, len(bins) - 1)]) + 1


def _classes(
    connection: duckdb.DuckDBPyConnection,
    leaves: Sequence[str],
    probabilities: Mapping[str, Mapping[int, int]],
) -> list[dict[str, Any]]:
    """One row a class, in the order of the taxonomy; a class without light curves has its row too."""
    # 3e-8: half a float32 step, 0.9 is stored as 0.89999998
    sure = "count(*) FILTER (best_prob >= 0.9 - 3e-8)"
    query = f"SELECT best_class, count(*), avg(best_prob), {sure} FROM catalogue GROUP BY 1"
    counted = {name: rest for name, *rest in connection.sql(query).fetchall()}
    sums = ", ".join(f'sum("p_{leaf}"::DOUBLE)' for leaf in leaves)
    (expected,) = connection.sql(f"SELECT {sums} FROM catalogue").fetchall()
    total = sum(count for count, *_ in counted.values())
    rows = []
    for leaf, weight in zip(leaves, expected, strict=True):
        count, mean, many = counted.get(leaf, (0, None, 0))
        rows.append(
            {
                "name": leaf,
                "text": DESCRIPTIONS.get(leaf, ""),
                "count": count,
                "share": count / total if total else 0.0,
                "mean": mean,
                "median": _quantile(probabilities.get(leaf, {}), 0.5),
                "sure": many,
                "expected": float(weight or 0.0),
            }
        )
    return rows


def _quantile(counts: Mapping[int, int], q: float) -> float | None:
    """Probability below which a share q of the rows lies, to the width of a bin."""
    if not counts:
        return None
    bins = np.array(sorted(counts))
    share = np.cumsum([counts[b] for b in bins.tolist()]) / sum(counts.values())
    return float((bins[np.searchsorted(share, q)] + 0.5) / PROBABILITY_BINS)


def _thresholds(probabilities: Mapping[str, Mapping[int, int]]) -> dict[str, float]:
    """Probability from which a light curve is among the best of its class: the first 5 %, or EXAMPLES of them."""
    thresholds = {}
    for name, counts in probabilities.items():
        total = sum(counts.values())
        wanted, seen = max(0.05 * total, min(EXAMPLES, total)), 0
        for bin_ in sorted(counts, reverse=True):
            seen += counts[bin_]
            if seen >= wanted:
                break
        thresholds[name] = bin_ / PROBABILITY_BINS
    return thresholds


def _summary(
    subject: Subject,
    work: Work,
    classes: Sequence[Mapping[str, Any]],
    rejected: Mapping[str, int],
    failed: int,
) -> list[tuple[str, str]]:
    """The first figures: what they count, and the count."""
    classified, refused = sum(row["count"] for row in classes), sum(rejected.values())
    facts = [
        ("light curves read", f"{sum(work.rows_in) or classified + refused:,}"),
        ("classified", f"{classified:,}"),
        ("rejected", f"{refused:,}"),
    ]
    if subject.has_gate:
        variable = sum(row["count"] for row in classes if row["name"] != "nonvar")
        facts.append(("classified as variable", f"{variable:,}"))
    facts.append(("partitions", f"{len(work.keys) or len(subject.files):,}"))
    facts.append(("partitions failed", f"{failed:,}"))
    if sum(work.seconds) > 0:
        facts.append(("light curves/s per worker", f"{sum(work.rows_in) / sum(work.seconds):,.0f}"))
    return facts


def _checks(work: Work, classified: int, rejected: Mapping[str, int]) -> list[str]:
    """Where receipts and files disagree."""
    refused = sum(rejected.values())
    if not work.keys:
        return ["No receipt could be read: the light curves read are taken as those classified and rejected."]
    if (sum(work.rows_in), work.classified) == (classified + refused, classified):
        return []
    return [
        f"The receipts count {sum(work.rows_in):,} light curves read and {work.classified:,} classified; the files "
        f"hold {classified:,} classified and {refused:,} rejected. The same lightmill run computes what is missing."
    ]


def _filters(connection: duckdb.DuckDBPyConnection, subject: Subject) -> list[dict[str, Any]]:
    query = (
        "SELECT filterid, count(*), count(*) FILTER (best_class <> 'nonvar'), median(n_good), min(mag_mean), "
        "max(mag_mean) FROM catalogue GROUP BY 1 ORDER BY 1"
    )
    names = ("filterid", "count", "variable", "n_good", "bright", "faint")
    rows = [dict(zip(names, row, strict=True)) for row in connection.sql(query).fetchall()]
    return [row | {"name": subject.filters.get(row["filterid"], "")} for row in rows]


# ---- pictures of the catalogue


def _sky(connection: duckdb.DuckDBPyConnection, has_gate: bool) -> dict[str, pictures.SkyCells]:
    """Counts on the sky, of all and of the variable light curves, by title; no finer than a picture shows."""
    everything = _cells(connection, 6)
    _, radius = pictures.extent(everything)
    # where all lie close together, some forty cells across: cells of order 0 are 58.6° wide
    order = min(max(math.ceil(math.log2(58.6 * 20 / radius)), 6), 14) if radius < pictures.ZOOM else 6
    maps = {"Light curves classified, per square degree": _cells(connection, order).filled()}
    variable = _cells(connection, order, "best_class <> 'nonvar'") if has_gate else None
    if variable is not None and len(variable.cell):
        maps["Light curves classified as variable, per square degree"] = variable.filled()
    return maps


def _cells(connection: duckdb.DuckDBPyConnection, order: int, where: str = "true") -> pictures.SkyCells:
    cell = f'"{SPATIAL_INDEX_COLUMN}" >> {2 * (SPATIAL_INDEX_ORDER - order)}'
    query = f"SELECT {cell} AS cell, count(*) AS n FROM catalogue WHERE {where} GROUP BY 1 ORDER BY 1"
    found = connection.sql(query).fetchnumpy()
    return pictures.SkyCells(order, *(np.asarray(found[name], np.int64) for name in ("cell", "n")))


def _positions(failures: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """(k, 2) ra and dec [deg] of the centres of partitions."""
    places = [pictures.centres(f["order"], np.array([f["pixel"]])) for f in failures[:MAX_FAILURES]]
    return np.array([[ra[0], dec[0]] for ra, dec in places]).reshape(-1, 2)


def _probabilities(
    connection: duckdb.DuckDBPyConnection, subject: Subject, fine: Mapping[str, Mapping[int, int]]
) -> dict[str, Any]:
    """Pictures of the probability of the best class, and of the gate's."""
    merge = 20  # fine bins in a drawn one
    heights = {
        name: _dense(fine[name], 0, PROBABILITY_BINS).reshape(-1, merge).sum(axis=1)
        for name in subject.leaves
        if name in fine
    }
    edges = np.linspace(0, 1, PROBABILITY_BINS // merge + 1)
    stopped = _histogram(connection, "p_variable * 100", by=f"flags & {FLAGS['gated_out']}", last=99)
    passed, held = (_dense(stopped.get(key, {}), 0, 100) for key in (0, FLAGS["gated_out"]))
    return {
        "probability_picture": pictures.panels(heights, edges, "probability of the most probable class"),
        "gate_picture": pictures.gate(passed, held, np.linspace(0, 1, 101), subject.threshold)
        if stopped
        else None,
        "threshold": subject.threshold,
        "passed": int(passed.sum()),
        "held": int(held.sum()),
    }


def _magnitudes(connection: duckdb.DuckDBPyConnection, subject: Subject) -> dict[str, Any]:
    """Pictures of mean magnitudes, in bins of a quarter of a magnitude."""
    found = _histogram(connection, "mag_mean * 4")
    if not found:
        return {"magnitude_picture": None, "magnitude_panels": None}
    first, stop = _span(found.values())
    edges = np.arange(first, stop + 1) / 4
    heights = {name: _dense(found[name], first, stop) for name in subject.leaves if name in found}
    everything = np.sum(list(heights.values()), axis=0)
    variable = everything - heights.get("nonvar", 0) if subject.has_gate else None
    return {
        "magnitude_picture": pictures.magnitudes(everything, variable, edges),
        "magnitude_panels": pictures.panels(heights, edges, "mean magnitude [mag]", behind=everything),
    }


def _periods(connection: duckdb.DuckDBPyConnection, subject: Subject) -> dict[str, Any]:
    """A picture of the periods, in tenths of a decade and over whole decades, where any was searched."""
    found = _histogram(connection, "CASE WHEN period > 0 THEN log10(period) * 10 END")
    if not found:
        return {"period_picture": None}
    first, stop = _span(found.values())
    first, stop = first // 10 * 10, -(-stop // 10) * 10
    heights = {name: _dense(found[name], first, stop) for name in subject.leaves if name in found}
    return {
        "period_picture": pictures.panels(
            heights, 10 ** (np.arange(first, stop + 1) / 10), "period [d]", log=True
        )
    }


def _epochs(connection: duckdb.DuckDBPyConnection, subject: Subject) -> str:
    """A picture of good epochs, in tenths of a decade."""
    number = "log10(greatest(n_good, 1)) * 10"
    sets = [_histogram(connection, number, of=of, by="0").get(0, {}) for of in ("catalogue", "rejected")]
    first, stop = _span(sets, tail=0)
    edges = np.ceil((10 ** (np.arange(first, stop + 1) / 10)).round(6))
    holds = np.diff(edges) > 0  # below ten epochs some bins hold no whole number
    classified, rejected = (_dense(counts, first, stop)[holds] for counts in sets)
    least = subject.recipe.clean.min_epochs if subject.recipe else None
    return pictures.epoch_counts(classified, rejected, np.append(edges[:-1][holds], edges[-1]), least)


def _timing(work: Work) -> dict[str, Any] | None:
    """Figures, slowest partitions and picture of the time that it took; None without receipts."""
    total = sum(work.seconds)
    if total <= 0:
        return None
    seconds, rows = np.array(work.seconds), np.array(work.rows_in)
    stages = dict(work.stages.most_common())
    facts = [
        ("worker time in all", _duration(total)),
        ("light curves a second, per worker", f"{rows.sum() / total:,.0f}"),
        ("epochs a second, per worker", f"{work.epochs / total:,.0f}"),
        ("longest partition", _duration(float(seconds.max()))),
        ("median partition", _duration(float(np.median(seconds)))),
        ("highest resident memory of a worker", f"{work.peak_rss_bytes / 2**20:,.0f} MiB"),
        ("rows written", f"{work.bytes / 2**20:,.1f} MiB of Parquet"),
    ]
    rate = rows / np.maximum(seconds, 1e-9)
    return {
        "facts": facts,
        "slowest": work.slowest(5),
        "picture": pictures.timings(stages, seconds, rate),
        "stages": stages,
    }


def _duration(seconds: float) -> str:
    """A time for people."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours:,} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"


# ---- light curves of the release


def _sample(
    connection: duckdb.DuckDBPyConnection, subject: Subject, thresholds: Mapping[str, float]
) -> dict[Key, list[dict[str, Any]]]:
    """The most probable light curves of each class in a few partitions, by partition."""
    good = _is_good(thresholds)
    chosen = _choose(_offers(connection, good))
    if not chosen:
        return {}
    query = (
        f"SELECT * FROM catalogue WHERE list_contains($files, filename) AND {good} "
        "QUALIFY row_number() OVER (PARTITION BY best_class ORDER BY best_prob DESC, objectid, filterid) <= $n "
        "ORDER BY best_prob DESC, objectid, filterid"
    )
    found = connection.sql(query, params={"files": chosen, "n": EXAMPLES}).to_arrow_table().to_pylist()
    rows: dict[Key, list[dict[str, Any]]] = {}
    for row in found:
        rows.setdefault(subject.files[row["filename"]], []).append(row)
    return rows


def _is_good(thresholds: Mapping[str, float]) -> str:
    """An SQL condition: among the best of its class."""
    cases = " ".join(f"WHEN '{name}' THEN {value!r}" for name, value in thresholds.items())
    return f"best_prob >= CASE best_class {cases} ELSE 2 END" if cases else "false"


def _offers(connection: duckdb.DuckDBPyConnection, good: str) -> dict[str, dict[str, int]]:
    """Good examples by file and class; of each class the twenty smallest files that have most, FROM_ONE is plenty."""
    query = f"""
        WITH counted AS (
                 SELECT filename, best_class, count(*) AS n, count(*) FILTER ({good}) AS good
                 FROM catalogue GROUP BY ALL),
             sized AS (SELECT *, sum(n) OVER (PARTITION BY filename) AS size FROM counted)
        SELECT filename, best_class, good FROM sized WHERE good > 0
        QUALIFY row_number() OVER (PARTITION BY best_class ORDER BY least(good, {FROM_ONE}) DESC, size, filename) <= 20
        ORDER BY size, filename"""
    offers: dict[str, dict[str, int]] = {}
    for file, name, good_here in connection.sql(query).fetchall():
        offers.setdefault(file, {})[name] = good_here
    return offers


def _choose(offers: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Few files that together have examples of every class, and up to EXAMPLES of each.

    Taken greedily: the one that brings most classes not seen yet, then the one that adds most to those still short.
    """
    chosen: list[str] = []
    have: Counter[str] = Counter()

    def gain(file: str) -> tuple[int, int]:
        adds = {name: min(n, FROM_ONE, EXAMPLES - have[name]) for name, n in offers[file].items()}
        return sum(have[name] == 0 for name in adds), sum(max(n, 0) for n in adds.values())

    while len(chosen) < MAX_PARTITIONS:
        best = max((file for file in offers if file not in chosen), key=gain, default=None)
        if best is None or gain(best) == (0, 0):
            break
        chosen.append(best)
        have.update({name: min(n, FROM_ONE) for name, n in offers[best].items()})
    return chosen


def _read(subject: Subject, rows: Mapping[Key, Sequence[Mapping[str, Any]]], url: str) -> Reading:
    """The light curves of rows, as far as they can be read; what cannot is said in `problems`."""
    reading = Reading(url, wanted=sum(map(len, rows.values())))
    if subject.recipe is None:
        reading.problems.append("the recipe in run.json is not one that this version of Lightmill reads")
        return reading
    try:
        release = open_release(url, subject.recipe.layout.choices())
        partitions = _partitions(release, rows)
    # whatever a remote file system raises, and there are many: the rest of the page does not need the release
    except Exception as error:
        reading.problems.append(_one_line(error))
        return reading
    for key, wanted in rows.items():
        if key not in partitions:
            reading.problems.append(f"the release has no partition Norder={key[0]}/Npix={key[1]} (any more)")
            continue
        if reading.epochs >= MAX_EPOCHS:
            break
        reading.partitions += 1
        try:
            _stream(partitions[key], release, subject.recipe, wanted, reading)
        except Exception as error:  # as above
            reading.problems.append(f"{partitions[key]}: {_one_line(error)}")
    reading.found.sort(key=lambda example: -example.row["best_prob"])
    return reading


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {text}"


def _partitions(release: Release, keys: Iterable[Key]) -> dict[Key, Partition]:
    """Partitions by key, without looking up the files of all others."""
    wanted = list(keys)
    if not wanted:
        return {}
    orders, pixels = zip(*wanted, strict=True)
    cells = MOC.from_healpix_cells(
        np.array(pixels, np.uint64), np.array(orders, np.uint8), max_depth=max(orders)
    )
    found = {(part.order, part.pixel): part for part in release.table.partitions(cells)}
    return {key: found[key] for key in wanted if key in found}


def _stream(
    partition: Partition,
    release: Release,
    recipe: Recipe,
    rows: Sequence[Mapping[str, Any]],
    reading: Reading,
) -> None:
    """Add the light curves of rows in one partition to what was found; ends when it has all, or has read enough."""
    # text identifiers are numbered batch by batch: position and filter tell them apart
    wanted = {(row["objectid"], row["ra"], row["dec"], row["filterid"]): row for row in rows}
    identifiers = np.array(sorted({key[0] for key in wanted}), np.int64)
    for batch in read_batches(partition, release.layout, recipe.operational.batch_epochs):
        reading.epochs += batch.n_epochs
        hits = np.flatnonzero(np.isin(batch.objectid, identifiers))
        columns = (getattr(batch, name)[hits].tolist() for name in ("objectid", "ra", "dec", "filterid"))
        pairs = [
            (i, wanted.pop(key))
            for i, key in zip(hits, zip(*columns, strict=True), strict=True)
            if key in wanted
        ]
        if pairs:
            at, mine = zip(*pairs, strict=True)
            reading.found += _examples(batch.take(np.array(at)), mine, recipe)
        if not wanted or reading.epochs >= MAX_EPOCHS:
            return


def _examples(curves: LightCurves, rows: Sequence[Mapping[str, Any]], recipe: Recipe) -> Iterator[Example]:
    """Light curves cleaned and imaged as the run did it; those that were changed and are too short now are left out."""
    good = clean(
        curves.t, curves.mag, curves.magerr, curves.flags, curves.offsets,
        bad_flags=recipe.clean.bad_flags, min_epochs=recipe.clean.min_epochs,
    )  # fmt: skip
    grid = recipe.dmdt.edges()
    counts = dmdt_counts(good.t, good.mag, good.offsets, grid.dt_edges, grid.dm_edges)
    images = normalise(counts, recipe.dmdt.normalisation)
    for i, at in enumerate(good.accepted.tolist()):
        own = slice(good.offsets[i], good.offsets[i + 1])
        yield Example(rows[at], good.t[own], good.mag[own], good.magerr[own], images[i])


def _light_curves(subject: Subject, reading: Reading) -> dict[str, Any]:
    """Pictures of light curves and their images, or why there are none."""
    facts: dict[str, Any] = {
        "release": reading.url,
        "problems": reading.problems,
        "wanted": reading.wanted,
        "n_found": len(reading.found),
        "n_read": reading.partitions,
        "image_picture": None,
        "examples": [],
    }
    if not reading.found or subject.recipe is None:
        return facts
    grid = subject.recipe.dmdt.edges()
    by_class = {
        leaf: mine
        for leaf in subject.leaves
        if (mine := [e for e in reading.found if e.row["best_class"] == leaf])
    }
    medians = {
        f"{name}  ({len(mine)})": np.median([e.image for e in mine], axis=0)
        for name, mine in by_class.items()
    }
    unit = f"median pixel, normalisation “{subject.recipe.dmdt.normalisation}”"
    facts["image_picture"] = pictures.median_images(medians, grid.dt_edges, grid.dm_edges, unit)
    for name, mine in by_class.items():
        shown = [_curve(example, subject) for example in mine[:SHOWN]]
        picture = pictures.examples(shown, grid.dt_edges, grid.dm_edges, subject.filters)
        rows = [_example_row(example.row, subject) for example in mine[:SHOWN]]
        facts["examples"].append(
            {"name": name, "text": DESCRIPTIONS.get(name, ""), "picture": picture, "rows": rows}
        )
    return facts


def _curve(example: Example, subject: Subject) -> pictures.Curve:
    row = example.row
    period = row["period"]
    folds = period is not None and math.isfinite(period) and period > 0
    probabilities = {leaf: float(row[f"p_{leaf}"]) for leaf in subject.leaves}
    title = f"objectid {row['objectid']}, {len(example.t)} good epochs"
    return pictures.Curve(
        title,
        row["filterid"],
        example.t,
        example.mag,
        example.magerr,
        period if folds else None,
        example.image,
        probabilities,
    )


def _example_row(row: Mapping[str, Any], subject: Subject) -> dict[str, Any]:
    """A row as the page's table shows it."""
    others = sorted(
        ((row[f"p_{leaf}"], leaf) for leaf in subject.leaves if leaf != row["best_class"]), reverse=True
    )
    return {
        **row,
        "filter": subject.filters.get(row["filterid"], row["filterid"]),
        "second": others[0] if others else None,
    }


# ---- the page


def _provenance(subject: Subject, work: Work, release: str) -> list[tuple[str, str]]:
    """What was made of what, by what, where and when."""
    run, recipe = subject.run, subject.recipe
    facts = [
        ("catalogue", str(subject.folder.out.absolute())),
        ("release", str(run.get("release", "unknown"))),
        ("recipe", recipe.name if recipe else "not readable by this version"),
        ("recipe says", recipe.description if recipe else ""),
        ("recipe, science fields", f"sha256 {recipe.digest()}" if recipe else ""),
        ("bundle", recipe.model.bundle if recipe else ""),
        ("bundle, content", f"sha256 {run.get('bundle', 'unknown')}"),
        ("run", str(run.get("run_id", "unknown"))),
        ("algorithm and schema", ", ".join(f"{k} {v}" for k, v in dict(run.get("versions", {})).items())),
        (
            "software of the workers",
            ", ".join(f"{k} {'/'.join(sorted(v))}" for k, v in sorted(work.versions.items())),
        ),
        ("hosts", ", ".join(f"{host} ({n:,} partitions)" for host, n in work.hosts.most_common(20))),
        ("first and last partition finished", f"{work.first} – {work.last}" if work.first else ""),
        ("catalogue published", str(subject.table.catalog.catalog_info.hats_creation_date or "")),
        ("this page", f"lightmill {version('lightmill')}, {datetime.now(UTC).isoformat(timespec='seconds')}"),
    ]
    if release != run.get("release"):
        facts.insert(2, ("release, read here from", release))
    if subject.manifest is None:
        facts.insert(
            7,
            (
                "bundle, its description",
                "not found on this machine, so neither its threshold nor its metrics",
            ),
        )
    elif metrics := _scalars(subject.manifest.metrics):
        facts.insert(7, ("bundle, as measured when made", metrics))
    return [(name, text) for name, text in facts if text]


def _scalars(metrics: Mapping[str, Any]) -> str:
    """The single numbers among a bundle's metrics."""
    return ", ".join(f"{k} {v:.4g}" for k, v in metrics.items() if isinstance(v, int | float))


def _decimal(value: float | None, digits: int = 3) -> str:
    """A number with so many decimals, a dash for none."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _page(facts: Mapping[str, Any]) -> str:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "n": lambda value: f"{value:,}",
        "svg": Markup,
        "p": _decimal,
        "percent": lambda value: f"{100 * value:.3g} %",
    }
    source = (resources.files("lightmill.pipeline") / "report.html").read_text(encoding="utf-8")
    return environment.from_string(source).render(facts)


def _write(path: Path, text: str) -> None:
    """The page under its name, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
