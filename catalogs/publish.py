"""Publish: assemble a version of a catalogue from the partitions of its runs, prove it, and let readers get it.

A version is built under a temporary name and renamed when it is whole; in an object store its `version.json` comes
last. Then one file of the catalogue is replaced, and readers get it. A crash at any moment leaves current what was.
"""

from __future__ import annotations

import hashlib
import logging
import os
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from hats.io.validation import is_valid_catalog

from lightmill.catalogs import storage
from lightmill.catalogs.chain import Chain, Key, choose
from lightmill.catalogs.finish import below, finish_catalog, write_file
from lightmill.catalogs.idindex import write_index_table
from lightmill.catalogs.margin import margin_name, write_margin
from lightmill.catalogs.receipts import receipt_path, write_json
from lightmill.catalogs.runfolder import CATALOG, CatalogueFolder, RunFolder, differences, write_index
from lightmill.catalogs.versions import (
    INDEX,
    PublishError,
    Version,
    current,
    new_name,
    only_one,
    read_version,
    record,
    remove,
    write_collection,
)

__all__ = ["MARGIN", "PublishError", "publish"]

MARGIN = 10.0  #: arcseconds
IDENTITY = ("science", "models", "versions")  #: of run.json, what decides the rows
SHOWN = 3  #: partitions that a refusal names
THREADS = 8

DEFAULT_COLUMNS = (
    "objectid", "ra", "dec", "filterid", "n_good", "mag_mean", "amplitude", "p_variable", "best_class", "best_prob",
    "margin", "period", "flags",
)  # fmt: skip


def publish(
    catalogue: CatalogueFolder,
    runs: Sequence[RunFolder],
    name: str | None = None,
    *,
    wanted: Collection[Key] | None = None,
    accept: Mapping[Key, str] | None = None,
    min_complete: float = 1.0,
    allow_mixture: bool = False,
    catalogue_name: str,
    provenance: Mapping[str, str],
    make_current: bool = True,
    margin: float = MARGIN,
    deep: bool = False,
) -> Version | None:
    """Publish a version; None if no partition has a row.

    Nothing is written where the current version holds exactly this, with this margin, under this name or any.

    Parameters
    ----------
    runs : of each partition that of the first run that has it is taken
    name : of the version; None: v1, v2, …
    wanted : partitions that should be there; None: all that have a receipt
    accept : fingerprint that alone counts, by partition; partitions that it does not name may have any
    min_complete : least share of the partitions wanted that must be there, 0 to 1; below 1 parts of partitions may
        be missing too, where a release was partitioned anew
    allow_mixture : let runs differ in science, models or versions, and take what `accept` does not where no run has
        better; it is recorded
    catalogue_name : for the properties
    provenance : further `key = value` lines of hats.properties
    make_current : let readers get it
    margin : of the margin cache [arcsec]; 0: none
    deep : compare the sha256 of every file with its receipt

    Raises
    ------
    PublishError
        if too much is missing, runs differ, a file is not what its receipt says, or the name is taken.
    """
    chain = choose(runs, wanted, accept, allow_mixture)
    mixture = _mixture(chain)
    _refuse_holes(chain, min_complete)
    if not chain.rows:
        return None
    if mixture and not allow_mixture:
        raise PublishError(
            f"the runs differ: {'; '.join(mixture[:SHOWN])}: compute all alike, publish fewer runs, or allow a mixture"
        )
    if deep:
        _compare_sums(chain)
    with only_one(catalogue):
        before = current(catalogue)
        if before is not None and _is_asked_for(before, chain, mixture, name, margin):
            return before
        name = new_name(catalogue, name)
        version = _describe(catalogue.version(name), chain, mixture, catalogue_name, margin)
        facts = {
            "lightmill_version": name,
            "lightmill_runs": " ".join(version.runs),
            "lightmill_complete": f"{version.complete:.6g}",
        } | dict(provenance)
        if mixture:
            facts["lightmill_mixture"] = "; ".join(mixture)
        _build(version, chain, margin, facts)
        if make_current:
            write_collection(catalogue.root, version, f"versions/{name}/")
    return read_version(version.root, is_current=make_current)


def _is_asked_for(
    version: Version, chain: Chain, mixture: list[str], name: str | None, margin: float
) -> bool:
    """Whether a version is what publishing would make."""
    if version.mixture != mixture:
        return False
    same_margin = version.margin == (margin_name(CATALOG, margin) if margin else None)
    # the same rows of more partitions wanted are another statement
    same_holes = version.holes == len(chain.holes) + len(chain.lost) and version.complete == chain.complete
    return version.digest == chain.digest() and same_holes and same_margin and name in (None, version.name)


def _describe(root: Path, chain: Chain, mixture: list[str], catalogue_name: str, margin: float) -> Version:
    partitions: dict[str, dict[str, list[int]]] = {}
    for (order, pixel), (run, _) in sorted(chain.chosen.items()):
        partitions.setdefault(run.run_id, {}).setdefault(str(order), []).append(pixel)
    return Version(
        root=root,
        name=root.name,
        created=datetime.now(UTC).isoformat(timespec="microseconds"),
        catalogue=catalogue_name,
        rows=sum(chain.rows.values()),
        partitions=partitions,
        runs=[run.run_id for run in chain.runs],
        records={run.run_id: run.facts() for run in chain.runs},
        holes=len(chain.holes) + len(chain.lost),
        complete=chain.complete,
        mixture=mixture,
        digest=chain.digest(),
        margin=margin_name(CATALOG, margin) if margin else None,
    )


def _build(version: Version, chain: Chain, margin: float, facts: Mapping[str, str]) -> None:
    """Write a version's folder and prove it, then give it its name."""
    local = storage.is_local(version.root)
    root = version.root.with_name(f".{version.name}.{uuid.uuid4().hex}.part") if local else version.root
    try:
        _link(root, chain)
        objects, rows = root / CATALOG, chain.rows
        finish_catalog(
            objects, name=version.catalogue, partitions=rows, ra_column="ra", dec_column="dec",
            default_columns=DEFAULT_COLUMNS, properties=facts,
        )  # fmt: skip
        shared: dict[str, Any] = {
            "obs_collection": version.catalogue, "hats_col_ra": "ra", "hats_col_dec": "dec",
            "hats_cols_default": list(DEFAULT_COLUMNS), "hats_col_healpix": "_healpix_29",
            "hats_col_healpix_order": 29, "hats_version": "v1.0",
        } | dict(facts)  # fmt: skip
        scratch = root if local else None
        if version.margin:
            try:
                write_margin(root / version.margin, objects, rows, margin, shared, scratch)
            except ValueError as error:
                raise PublishError(str(error)) from error
        write_index_table(
            root / INDEX, objects, rows, {"obs_collection": version.catalogue} | dict(facts), scratch
        )
        receipts = [replace(receipt, run_id=run.run_id) for run, receipt in chain.chosen.values()]
        write_index(root / "receipts.parquet", receipts)
        holes = chain.hole_moc()
        if holes is not None:
            write_file(root / "holes.fits", partial(holes.save, format="fits"))
        write_collection(root, version)
        _prove(root)
        write_json(root / "version.json", record(version))
        if local:
            storage.sync(root)
            root.rename(version.root)
            storage.sync(version.root.parent)
    except BaseException:
        if root.exists() and not (root == version.root and (root / "version.json").exists()):
            remove(root)
        raise


def _link(root: Path, chain: Chain) -> None:
    """Give the runs' Parquet a second name each in the version."""
    pairs = [(chain.chosen[key][0].rows(*key), below(root / CATALOG, key)) for key in chain.rows]
    for run in chain.runs:
        listed = storage.sizes(run.root / "rejected", ".parquet")
        pairs += [
            (run.rejected(*key), receipt_path(root / "rejected", *key).with_suffix(".parquet"))
            for key, (of, _) in chain.chosen.items()
            if of.run_id == run.run_id and key in listed
        ]
    with ThreadPoolExecutor(2 if storage.is_local(root) else 4 * THREADS) as pool:
        for _ in pool.map(lambda pair: storage.copy(*pair), pairs):
            pass


def _prove(root: Path) -> None:
    with _warnings() as said:
        valid = is_valid_catalog(root, strict=True)
    if not valid:
        raise PublishError(
            f"hats does not accept the version built in {root}: {'; '.join(said) or 'no reason given'}"
        )


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """What hats logs meanwhile, instead of on the terminal."""
    said: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    root = logging.getLogger()
    before, root.handlers = root.handlers, [Keep(logging.WARNING)]
    try:
        yield said
    finally:
        root.handlers = before


def _mixture(chain: Chain) -> list[str]:
    """In which fields, that decide the rows, the runs differ."""
    records = {run.run_id: run.facts() for run in chain.runs}
    if not records:
        return []
    first, *rest = records
    known = {key: records[first].get(key) for key in IDENTITY}
    found = []
    for run_id in rest:
        now = {key: records[run_id].get(key) for key in IDENTITY}
        found += [f"{run_id} against {first}: {text}" for text in differences(known, now)]
    if taken := [key for key in chain.superseded if key in chain.chosen]:
        found.append(_superseded(chain, taken))
    return found


def _superseded(chain: Chain, keys: Sequence[Key]) -> str:
    order, pixel = min(keys)
    return (
        f"{len(keys)} partitions were computed from other input, or otherwise, than the first plan that names them "
        f"asks for (first Norder={order}/Npix={pixel} of {chain.superseded[order, pixel]})"
    )


def _refuse_holes(chain: Chain, min_complete: float) -> None:
    """Stop where more is missing than is allowed."""
    if chain.complete < min_complete:
        old = [key for key in chain.holes if key in chain.superseded]
        n, first = len(chain.holes), ", ".join(f"Norder={o}/Npix={p}" for o, p in chain.holes[:SHOWN])
        raise PublishError(
            f"{chain.wanted - n:,} of {chain.wanted:,} partitions are there, {100 * chain.complete:.4g} %, and at "
            f"least {100 * min_complete:.4g} % are asked for; first missing: {first}. Run what is missing, or publish "
            f"with --min-complete {int(chain.complete * 1e4) / 1e4:g}"
            + (
                f". Of those missing, {_superseded(chain, old)}: --allow-mixture takes these too"
                if old
                else ""
            )
        )
    if chain.lost and min_complete >= 1:
        (order, pixel), run_id = next(iter(chain.lost.items()))
        raise PublishError(
            f"{len(chain.lost)} partitions are left out because others, of runs named before, lie in them, and these "
            f"do not cover them wholly; first Norder={order}/Npix={pixel} of {run_id}. Run the whole release as it is "
            "partitioned now, or publish with --min-complete below 1"
        )


def _compare_sums(chain: Chain) -> None:
    def differs(key: Key) -> str | None:
        run, receipt = chain.chosen[key]
        if not receipt.sha256:
            return None
        found = hashlib.sha256()
        with run.rows(*key).open("rb") as handle:
            while part := handle.read(1 << 22):
                found.update(part)
        if found.hexdigest() == receipt.sha256:
            return None
        return f"{run.rows(*key)} has sha256 {found.hexdigest()[:12]}…, its receipt {receipt.sha256[:12]}…"

    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        wrong = [text for text in pool.map(differs, chain.rows) if text]
    if wrong:
        raise PublishError(
            f"{len(wrong)} files are not what was written, first {wrong[0]}: remove its receipt and run again"
        )
