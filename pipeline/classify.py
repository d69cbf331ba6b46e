"""One partition, from light curves to rows: read → clean → gate → represent → classify → commit."""

from __future__ import annotations

import errno
import os
import resource
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from hats.pixel_math.spatial_index import SPATIAL_INDEX_COLUMN, SPATIAL_INDEX_ORDER

from lightmill.catalogs.lightcurves import Layout, LightCurves
from lightmill.catalogs.partitions import Partition
from lightmill.catalogs.receipts import Receipt, read_records, receipt_path, write_receipt
from lightmill.catalogs.release import read_batches
from lightmill.catalogs.rows import (
    FLAGS,
    UNCLASSIFIED,
    commit,
    probability_columns,
    rejected_schema,
    row_schema,
    rows_table,
)
from lightmill.catalogs.runfolder import RunFolder
from lightmill.cluster.watchdog import watched
from lightmill.models.folder import BundleError
from lightmill.pipeline import clean as cleaning
from lightmill.pipeline.answer import Answers, answer
from lightmill.pipeline.asking import asking_of
from lightmill.pipeline.bands import colours_of, looks_at_colours
from lightmill.pipeline.candidates import COLUMNS
from lightmill.pipeline.choose import Finder
from lightmill.pipeline.failures import Fault, fault_of, reading
from lightmill.pipeline.features import index_of
from lightmill.pipeline.recipe import ClassesTable, Recipe
from lightmill.pipeline.stages import Stages
from lightmill.pipeline.warmup import warm_up

if TYPE_CHECKING:
    from lightmill.models.bundle import Bundle
    from lightmill.models.choice import Choice

__all__ = [
    "ALGORITHM_VERSION",
    "Model",
    "Unit",
    "attempt_unit",
    "classify_batch",
    "classify_unit",
    "prepare",
    "software",
]

ALGORITHM_VERSION = 6  #: raised by hand whenever the same input and bundle give other rows


@dataclass(frozen=True)
class Model:
    """A model to apply."""

    name: str  #: that it ships under, or the path of its folder
    digest: str  #: sha256 that it must have


@dataclass(frozen=True)
class Unit:
    """A partition to classify within a run: all that a worker needs, small enough to be sent."""

    partition: Partition
    layout: Layout
    recipe: Recipe
    bundle: Model
    fingerprint: str
    folder: RunFolder  #: where it all goes
    choice: Model | None = None  #: of periods; None: none is searched
    attempt: int = 1  #: which try this is
    batch_epochs: int = 0  #: epochs in memory at a time; 0: what the recipe says
    timeout: float = 0.0  #: wall time after which the try is given up [s]; 0: never

    def __str__(self) -> str:
        return str(self.partition)

    @property
    def key(self) -> tuple[int, int]:
        """(order, pixel)"""
        return self.partition.order, self.partition.pixel


def attempt_unit(unit: Unit) -> Receipt | Fault:
    """Classify a unit; an error comes back as a `Fault`, of which the driver makes what its policies say.

    What takes too long or too much memory ends this worker, and leaves a mark that says so (`watchdog`).
    """
    with watched(unit.folder.mark(*unit.key, unit.attempt), unit.timeout):
        try:
            return classify_unit(unit)
        except Exception as error:  # whatever it is, it must not cost the driver more than this unit
            return fault_of(error)


def classify_unit(unit: Unit) -> Receipt:
    """Classify one partition and commit its rows, the list of what was rejected, and last its receipt."""
    start, started, stage = time.perf_counter(), datetime.now(UTC), Stages()
    earlier = _earlier(unit)
    if earlier is not None:  # another try at the unit was quicker
        return earlier
    bundle, finder = prepare(unit)
    tables: list[pa.Table] = []
    rejected: list[pa.Table] = []
    rows_in = epochs = 0
    known = None
    if looks_at_colours(bundle.manifest, unit.recipe.classes.experts):
        with stage("colours"):
            known = colours_of(_batches(unit), unit.recipe.clean)
    for batch in stage.over("read", _batches(unit)):
        own = None if known is None else known.of_batch(rows_in, batch)
        rows_in += len(batch)
        epochs += batch.n_epochs
        rows, refused = classify_batch(
            batch, unit.recipe, bundle, unit.partition, unit.folder.run_id,
            finder=finder, colours=own, stage=stage,
        )  # fmt: skip
        tables.append(rows)
        rejected.append(refused)
    if known is not None and rows_in < len(known.objectid):
        raise OSError(
            errno.ESTALE,
            f"{unit}: {rows_in} light curves, {len(known.objectid)} when they were read before: the release is being "
            "changed; run again when that has ended",
        )
    with stage("commit"):
        accepted = _sorted(tables, row_schema(bundle.leaves))
        refused = _sorted(rejected, rejected_schema())
        if len(accepted) + len(refused) != rows_in:
            raise RuntimeError(
                f"{unit}: {rows_in} light curves read, {len(accepted)} classified + {len(refused)} rejected: "
                "rows were lost; nothing was committed"
            )
        receipt = Receipt(
            order=unit.partition.order,
            pixel=unit.partition.pixel,
            fingerprint=unit.fingerprint,
            rows_in=rows_in,
            classified=len(accepted),
            rejected=_tally(refused),
            bytes=0,
            seconds=0.0,
            epochs=epochs,
            host=socket.gethostname(),
            versions=dict(software()),
            run_id=unit.folder.run_id,
            input=unit.partition.identity(),
            input_bytes=unit.partition.bytes,
            attempt=unit.attempt,
            started=started.isoformat(timespec="milliseconds"),
        )
        receipt = _commit(unit, accepted, refused, receipt)
    receipt = replace(
        receipt,
        seconds=time.perf_counter() - start,
        stages=stage.seconds,
        peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        finished=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )
    if write_receipt(unit.folder.receipts, receipt):
        return receipt
    return _earlier(unit) or receipt


def _batches(unit: Unit) -> Iterator[LightCurves]:
    """The light curves of a unit, in batches."""
    most = unit.batch_epochs or unit.recipe.operational.batch_epochs
    return reading(read_batches(unit.partition, unit.layout, most))


def _commit(unit: Unit, accepted: pa.Table, refused: pa.Table, receipt: Receipt) -> Receipt:
    """Write both tables under their final names, unless another try at the unit was quicker; size and digest."""
    earlier = _earlier(unit)
    if earlier is not None:  # a late duplicate: what is proven is not touched
        return replace(receipt, bytes=earlier.bytes, sha256=earlier.sha256)
    _commit_or_remove(refused, unit.folder.rejected(*unit.key), unit.folder.scratch)
    size, digest = _commit_or_remove(accepted, unit.folder.rows(*unit.key), unit.folder.scratch)
    return replace(receipt, bytes=size, sha256=digest)


def _earlier(unit: Unit) -> Receipt | None:
    """The receipt of another try at the unit, if there is one."""
    return next(read_records(Receipt, [receipt_path(unit.folder.receipts, *unit.key)]), None)


@lru_cache(maxsize=1)
def software() -> tuple[tuple[str, str], ...]:
    """Names and versions of what rows are made with."""
    return tuple((name, version(name)) for name in ("lightmill", "numpy", "pyarrow", "numba"))


def classify_batch(
    batch: LightCurves,
    recipe: Recipe,
    bundle: Bundle,
    partition: Partition,
    run_id: str,
    *,
    finder: Finder | None = None,
    colours: np.ndarray | None = None,
    stage: Stages | None = None,
) -> tuple[pa.Table, pa.Table]:
    """Classify a batch of light curves: the rows, and those that were rejected with their reasons.

    Every light curve of the batch is in exactly one of the two tables.

    colours : (n, len(COLOURS)) float64 [mag] of the batch's light curves; None: no expert looks at them
    """
    stage = stage or Stages()
    with stage("clean"):
        good = cleaning.clean(*batch.epochs, **recipe.clean.limits())
        good = _reject_bad_positions(good, batch)
    own = None if colours is None else colours[good.accepted]
    answers = answer(good, bundle, asking_of(recipe), finder=finder, colours=own, stage=stage)
    with stage("rows"):
        rows = _rows(batch, good, answers, bundle, recipe.classes, partition, run_id)
        return rows, _rejected(batch, good, run_id)


def prepare(unit: Unit) -> tuple[Bundle, Finder | None]:
    """The models of a unit, each loaded once in this process and the one that was meant; the kernels are ready too."""
    _ready()
    finder = None
    if unit.choice is not None:
        finder = Finder(unit.recipe.period.limits(), _load_choice(unit.choice))
    recipe = unit.recipe
    return _load_bundle(unit.bundle, recipe.operational.engine, recipe.classes.precision), finder


@lru_cache(maxsize=1)
def _load_bundle(model: Model, engine: str, precision: str) -> Bundle:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from lightmill.models import bundle as bundles  # here: what only queries never imports TensorFlow
    from lightmill.models import networks

    networks.configure(engine=engine, precision=precision)
    bundle = bundles.load(model.name)
    _check_planned("bundle", model, bundle.digest)
    return bundle


@lru_cache(maxsize=1)
def _load_choice(model: Model) -> Choice:
    from lightmill.models import choice as choices

    choice = choices.load(model.name, COLUMNS)
    _check_planned("choice of periods", model, choice.digest)
    return choice


def _check_planned(what: str, model: Model, found: str) -> None:
    if found != model.digest:
        raise BundleError(
            f"{what} {model.name} has sha256 {found[:8]}, the run was planned with {model.digest[:8]}: it was changed"
        )


_ready = lru_cache(maxsize=1)(warm_up)


def _reject_bad_positions(good: cleaning.Cleaned, batch: LightCurves) -> cleaning.Cleaned:
    """Light curves without a place on the sky cannot stand in a catalogue."""
    lost = batch.healpix_29[good.accepted] < 0
    if not lost.any():
        return good
    reason = good.reason.copy()
    reason[good.accepted[lost]] = cleaning.BAD_POSITION
    kept = np.repeat(~lost, np.diff(good.offsets))
    lengths = np.diff(good.offsets)[~lost]
    return cleaning.Cleaned(
        t=good.t[kept],
        mag=good.mag[kept],
        magerr=good.magerr[kept],
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        accepted=good.accepted[~lost],
        n_good=good.n_good,
        reason=reason,
    )


def _rows(
    batch: LightCurves,
    good: cleaning.Cleaned,
    answers: Answers,
    bundle: Bundle,
    classes: ClassesTable,
    partition: Partition,
    run_id: str,
) -> pa.Table:
    at, probabilities = good.accepted, answers.probabilities
    n = len(at)
    index, moved = _into_partition(batch.healpix_29[at], partition)
    best = probabilities.argmax(axis=1)
    ordered = np.sort(probabilities, axis=1)
    margin = ordered[:, -1] - ordered[:, -2]
    novelty = _of_passed(answers.novelty, answers.passed)
    unsure = (margin < classes.least_margin) | (novelty > classes.most_novelty)
    columns = {
        SPATIAL_INDEX_COLUMN: index,
        "objectid": batch.objectid[at],
        "ra": batch.ra[at],
        "dec": batch.dec[at],
        "filterid": batch.filterid[at],
        "n_good": good.n_good[at],
        "baseline": answers.statistics[:, index_of("baseline")],
        "mag_mean": answers.statistics[:, index_of("mean")],
        "amplitude": answers.statistics[:, index_of("amplitude")],
        "best_class": _words(np.where(unsure, len(bundle.leaves), best), (*bundle.leaves, UNCLASSIFIED)),
        "best_prob": ordered[:, -1],
        "margin": margin,
        "novelty": _null_where_unknown(novelty),
        "flags": np.where(answers.passed, 0, FLAGS["gated_out"]) | np.where(moved, FLAGS["moved_index"], 0),
        "bundle": _words(np.zeros(n, np.int32), (bundle.digest[:8],)),
        "run_id": _words(np.zeros(n, np.int32), (run_id,)),
    }
    if answers.p_variable is not None:
        columns["p_variable"] = answers.p_variable
    if answers.chosen is not None:
        period = _of_passed(1 / answers.chosen.frequency[:, 0], answers.passed)
        columns["period"] = _null_where_unknown(period)
        columns["period_score"] = _null_where_unknown(_of_passed(answers.chosen.score[:, 0], answers.passed))
    columns |= dict(zip(probability_columns(bundle.leaves), probabilities.T, strict=True))
    return rows_table(columns, row_schema(bundle.leaves))


def _rejected(batch: LightCurves, good: cleaning.Cleaned, run_id: str) -> pa.Table:
    at = np.flatnonzero(good.reason != cleaning.ACCEPTED)
    columns = {
        SPATIAL_INDEX_COLUMN: batch.healpix_29[at],
        "objectid": batch.objectid[at],
        "ra": batch.ra[at],
        "dec": batch.dec[at],
        "filterid": batch.filterid[at],
        "n_good": good.n_good[at],
        "reason": _words(good.reason[at], cleaning.REASONS),
        "run_id": _words(np.zeros(len(at), np.int32), (run_id,)),
    }
    return rows_table(columns, rejected_schema())


def _into_partition(index: np.ndarray, partition: Partition) -> tuple[np.ndarray, np.ndarray]:
    """Spatial indices moved to the partition's edge where float32 positions put them just outside; which were moved."""
    shift = 2 * (SPATIAL_INDEX_ORDER - partition.order)
    first, last = partition.pixel << shift, ((partition.pixel + 1) << shift) - 1
    inside = np.clip(index, first, last)
    return inside, inside != index


def _of_passed(values: np.ndarray | None, passed: np.ndarray) -> np.ndarray:
    """Values of those that passed as a column of all; NaN elsewhere."""
    column = np.full(len(passed), np.nan)
    if values is not None:
        column[passed] = values
    return column


def _null_where_unknown(values: np.ndarray) -> pa.Array:
    return pa.array(values, mask=~np.isfinite(values))


def _words(codes: np.ndarray, words: tuple[str, ...]) -> pa.Array:
    """Codes into a tuple of words, as a dictionary column."""
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(words, pa.string()))


def _sorted(tables: list[pa.Table], schema: pa.Schema) -> pa.Table:
    """The batches as one table in the order of the catalogue."""
    whole = pa.concat_tables(tables).unify_dictionaries() if tables else schema.empty_table()
    if len(tables) < 2:
        return whole
    return whole.combine_chunks().sort_by([(SPATIAL_INDEX_COLUMN, "ascending"), ("objectid", "ascending")])


def _commit_or_remove(table: pa.Table, path: Path, scratch: Path) -> tuple[int, str]:
    """Commit a table; of an empty one no file is kept, nor an older one of the same partition. Bytes and sha256."""
    if len(table) == 0:
        path.unlink(missing_ok=True)
        return 0, ""
    return commit(table, path, scratch)


def _tally(refused: pa.Table) -> dict[str, int]:
    """How many light curves were rejected for each reason."""
    counts = refused.column("reason").combine_chunks().cast(pa.string()).value_counts().to_pylist()
    return {entry["values"]: entry["counts"] for entry in counts}
