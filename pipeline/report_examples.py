"""Example light curves of a report: chosen by the catalogue, read from a few partitions of the release."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import duckdb
import numpy as np
from mocpy import MOC

from lightmill.catalogs.lightcurves import LightCurves
from lightmill.catalogs.partitions import Partition
from lightmill.catalogs.release import Release, open_release, read_batches
from lightmill.pipeline.clean import clean
from lightmill.pipeline.dmdt import dmdt_images
from lightmill.pipeline.recipe import Recipe
from lightmill.pipeline.report_catalogue import Catalogue, Key

__all__ = ["NORMALISATION", "Example", "Reading", "choose", "read", "sample", "stream", "thresholds"]

NORMALISATION = "paper"  #: of the images that are shown: fit for eyes, whatever the experts take
EXAMPLES = 100  #: light curves of a class that its median image is made of
FROM_ONE = 25  #: examples of a class that count for choosing a partition: the rest come from elsewhere
MAX_PARTITIONS = 8  #: partitions of the release that are read
MAX_EPOCHS = 100_000_000  #: epochs of the release that are read: a minute or two, whatever its partitions

Row = Mapping[str, Any]  #: a row of the catalogue


@dataclass(frozen=True)
class Example:
    """A row of the catalogue with its light curve."""

    row: Row
    t: np.ndarray  #: (n,) float64 [d] since the first good epoch
    mag: np.ndarray  #: (n,) float64 [mag]
    magerr: np.ndarray  #: (n,) float64 [mag]
    image: np.ndarray  #: (n_dm, n_dt) float32, normalised as the recipe says

    @property
    def period(self) -> float | None:
        """Of the row [d], None if none was found."""
        period = self.row["period"]
        return period if period is not None and math.isfinite(period) and period > 0 else None

    @property
    def ranked(self) -> list[tuple[float, str]]:
        """Probability and class, the highest first."""
        names = [name for name in self.row if name.startswith("p_") and name != "p_variable"]
        return sorted(((self.row[name], name[2:]) for name in names), key=lambda pair: -pair[0])


@dataclass
class Reading:
    """What could be read from the release."""

    url: str
    wanted: int = 0  #: light curves looked for
    epochs: int = 0  #: read on the way, of whatever light curve
    partitions: int = 0  #: read, in whole or in part
    problems: list[str] = field(default_factory=list)
    found: list[Example] = field(default_factory=list)


def thresholds(probabilities: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Probability from which a light curve is among the best of its class: the first 5 %, or EXAMPLES of them.

    `probabilities` are histograms by class, over bins of equal width from 0 to 1.
    """
    found = {}
    for name, counts in probabilities.items():
        wanted = max(0.05 * counts.sum(), min(EXAMPLES, counts.sum()))
        from_top = np.searchsorted(np.cumsum(counts[::-1]), wanted)
        found[name] = float((len(counts) - 1 - from_top) / len(counts))
    return found


def sample(
    connection: duckdb.DuckDBPyConnection, catalogue: Catalogue, least: Mapping[str, float]
) -> dict[Key, list[Row]]:
    """The most probable rows of each class in a few partitions, by partition; `least` are the thresholds."""
    cases = " ".join(f"WHEN '{name}' THEN {value!r}" for name, value in least.items())
    good = f"best_prob >= CASE best_class {cases} END"
    query = f"""
        SELECT * FROM catalogue WHERE list_contains($files, filename) AND {good}
        QUALIFY row_number() OVER (PARTITION BY best_class ORDER BY best_prob DESC, objectid, filterid) <= $n
        ORDER BY best_prob DESC, objectid, filterid"""
    chosen = choose(_offers(connection, good))
    found = connection.sql(query, params={"files": chosen, "n": EXAMPLES}).to_arrow_table().to_pylist()
    rows: dict[Key, list[Row]] = {}
    for row in found:
        rows.setdefault(catalogue.files[row["filename"]], []).append(row)
    return rows


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


def choose(offers: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Few files that together have examples of every class, and up to EXAMPLES of each.

    Taken greedily: the one that brings most classes not seen yet, then the one that adds most to those still short.
    """
    chosen: list[str] = []
    have: Counter[str] = Counter()

    def gain(file: str) -> tuple[int, int]:
        adds = [max(min(n, FROM_ONE, EXAMPLES - have[name]), 0) for name, n in offers[file].items()]
        return sum(have[name] == 0 for name in offers[file]), sum(adds)

    while len(chosen) < min(MAX_PARTITIONS, len(offers)):
        best = max((file for file in offers if file not in chosen), key=gain)
        if gain(best) == (0, 0):
            break
        chosen.append(best)
        have.update({name: min(n, FROM_ONE) for name, n in offers[best].items()})
    return chosen


def read(catalogue: Catalogue, rows: Mapping[Key, Sequence[Row]], url: str) -> Reading:
    """The light curves of rows, as far as they can be read; what cannot is said in `problems`."""
    reading = Reading(url, wanted=sum(map(len, rows.values())))
    if catalogue.recipe is None:
        reading.problems.append("the recipe in run.json is not one that this version of Lightmill reads")
        return reading
    try:
        release = open_release(url, catalogue.recipe.layout.choices())
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
            stream(partitions[key], release, catalogue.recipe, wanted, reading)
        except Exception as error:  # as above
            reading.problems.append(f"{partitions[key]}: {_one_line(error)}")
    reading.found.sort(key=lambda example: -example.row["best_prob"])
    return reading


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"


def _partitions(release: Release, keys: Iterable[Key]) -> dict[Key, Partition]:
    """Partitions by key, without looking up the files of all others."""
    orders, pixels = np.array(list(keys)).T
    cells = MOC.from_healpix_cells(
        pixels.astype(np.uint64), orders.astype(np.uint8), max_depth=int(orders.max())
    )
    return {(part.order, part.pixel): part for part in release.table.partitions(cells)}


def stream(
    partition: Partition, release: Release, recipe: Recipe, rows: Sequence[Row], reading: Reading
) -> None:
    """Add the light curves of rows in one partition to what was found; ends when it has all, or has read enough."""
    # text identifiers are numbered batch by batch: position and filter tell them apart
    names = ("objectid", "ra", "dec", "filterid")
    wanted = {tuple(row[name] for name in names): row for row in rows}
    identifiers = np.array([row["objectid"] for row in rows], np.int64)
    for batch in read_batches(partition, release.layout, recipe.operational.batch_epochs):
        reading.epochs += batch.n_epochs
        hits = np.flatnonzero(np.isin(batch.objectid, identifiers))
        keys = zip(*(getattr(batch, name)[hits].tolist() for name in names), strict=True)
        pairs = [(i, wanted.pop(key)) for i, key in zip(hits, keys, strict=True) if key in wanted]
        if pairs:
            at, mine = zip(*pairs, strict=True)
            reading.found += _examples(batch.take(np.array(at)), mine, recipe)
        if not wanted or reading.epochs >= MAX_EPOCHS:
            return


def _examples(curves: LightCurves, rows: Sequence[Row], recipe: Recipe) -> Iterator[Example]:
    """Light curves cleaned and imaged as the run did it; those that were changed and are too short now are left out."""
    good = clean(*curves.epochs, **recipe.clean.limits())
    grid = recipe.dmdt.edges()
    images = dmdt_images(
        good.t, good.mag, good.offsets, grid.dt_edges, grid.dm_edges, normalisation=NORMALISATION
    )
    for i, at in enumerate(good.accepted.tolist()):
        own = slice(good.offsets[i], good.offsets[i + 1])
        yield Example(rows[at], good.t[own], good.mag[own], good.magerr[own], images[i])
