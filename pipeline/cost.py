"""What a task should cost: rows, epochs, time of a core, memory of a worker, from past tries or from a few footers."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

import psutil

from lightmill.catalogs.proven import receipt_fields
from lightmill.catalogs.receipts import write_json
from lightmill.catalogs.release import Release, count_epochs
from lightmill.catalogs.runfolder import CatalogueFolder
from lightmill.cluster.local import available_cores
from lightmill.pipeline.plan import RunError, Task
from lightmill.pipeline.recipe import Recipe

__all__ = ["Rates", "estimate", "refuse_what_does_not_fit"]

SAMPLE = 32  #: partitions whose footers are read, where nothing is known from past tries
SECONDS_PER_ROW = 160e-6  #: of one core, with the recipe ztf-dr: `pipeline/DESIGN.md`, Speed
SECONDS_A_UNIT = 0.1  #: whatever is in it
BASE = 900 << 20  #: of a worker that has loaded models and kernels [bytes]
BYTES_PER_EPOCH = 120  #: of a batch while it is worked on
BYTES_PER_ROW = 600  #: of what is written, until it is written
SHARE = 0.9  #: of a machine's memory that workers may use together


@dataclass(frozen=True)
class Rates:
    """What a byte of input holds and costs, on average."""

    rows_per_byte: float
    epochs_per_byte: float
    seconds_per_row: float = SECONDS_PER_ROW


def estimate(
    tasks: Sequence[Task], release: Release, recipe: Recipe, catalogue: CatalogueFolder | None
) -> tuple[Task, ...]:
    """The tasks with what they should cost: as the same partition, or all of them, did in earlier runs; else as the
    footers of a few say, which are remembered."""
    if not tasks:
        return ()
    past = _past(catalogue)
    rates = _rates(list(past.values())) or _sampled(tasks, release)
    return tuple(_estimated(task, past.get(task.key), rates, recipe) for task in tasks)


def refuse_what_does_not_fit(
    tasks: Sequence[Task], recipe: Recipe, workers: int | None = None, memory: int | None = None
) -> None:
    """Refuse a plan of which a task needs more memory than a worker has.

    Raises
    ------
    RunError
    """
    if not tasks:
        return
    count = min(workers or recipe.operational.workers or available_cores(), len(tasks))
    allowed = memory if memory is not None else int(psutil.virtual_memory().total * SHARE / count)
    largest = max(tasks, key=lambda task: task.memory)
    if largest.memory > allowed:
        raise RunError(
            f"{largest.partition} is expected to need {largest.memory / 2**30:.1f} GiB, a worker has "
            f"{allowed / 2**30:.1f} GiB: use fewer workers, or a smaller [operational] batch_epochs (now "
            f"{recipe.operational.batch_epochs:,})"
        )


@dataclass(frozen=True, slots=True)
class _Past:
    """What a partition cost once."""

    input_bytes: int
    rows_in: int
    epochs: int
    seconds: float


def _past(catalogue: CatalogueFolder | None) -> dict[tuple[int, int], _Past]:
    """The newest receipt of each partition."""
    found: dict[tuple[int, int], _Past] = {}
    for folder in catalogue.runs() if catalogue is not None else ():
        names = ("order", "pixel", *_Past.__dataclass_fields__)
        for order, pixel, *cost in receipt_fields(folder, *names):
            found.setdefault((order, pixel), _Past(*cost))
    return found


def _rates(past: Sequence[_Past]) -> Rates | None:
    known = [one for one in past if one.input_bytes and one.rows_in]
    if not known:
        return None
    size = sum(one.input_bytes for one in known)
    return Rates(
        sum(one.rows_in for one in known) / size,
        sum(one.epochs for one in known) / size,
        median(one.seconds / one.rows_in for one in known),
    )


def _sampled(tasks: Sequence[Task], release: Release) -> Rates:
    """Rates from the footers of partitions spread over the tasks, read once for a release that does not change."""
    chosen = [tasks[i * len(tasks) // SAMPLE] for i in range(SAMPLE)] if len(tasks) > SAMPLE else list(tasks)
    facts = [release.table.url, *(task.partition.identity() for task in chosen)]
    name = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    remembered = base / "lightmill" / "rates" / f"{name[:16]}.json"
    try:
        return Rates(**json.loads(remembered.read_bytes()))
    except (OSError, ValueError, TypeError):
        pass
    rows = epochs = size = 0
    for task in chosen:
        for file in task.partition.files:
            try:
                with task.partition.open(file) as parquet:
                    counted = parquet.metadata.num_rows, count_epochs(parquet, release.layout)
            except Exception:  # a file that cannot be read, in whatever way, is for the run to tell of
                continue
            rows, epochs, size = rows + counted[0], epochs + counted[1], size + file.size
    rates = Rates(rows / max(size, 1), epochs / max(size, 1))
    with contextlib.suppress(OSError):  # no home to write to: it is read again next time
        write_json(remembered, asdict(rates))
    return rates


def _estimated(task: Task, past: _Past | None, rates: Rates, recipe: Recipe) -> Task:
    size, seconds = task.partition.bytes, None
    if past is not None and past.input_bytes:
        scale = size / past.input_bytes
        rows, epochs, seconds = past.rows_in * scale, past.epochs * scale, past.seconds * scale
    else:
        rows, epochs = rates.rows_per_byte * size, rates.epochs_per_byte * size
    batch = min(epochs, recipe.operational.batch_epochs)
    return replace(
        task,
        rows=round(rows),
        epochs=round(epochs),
        seconds=round(seconds if seconds is not None else SECONDS_A_UNIT + rates.seconds_per_row * rows, 3),
        memory=round(BASE + BYTES_PER_EPOCH * batch + BYTES_PER_ROW * rows),
    )
