"""`catalogs/rows.py`: a partition appears whole and verified under its final name, or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightmill.catalogs import rows as module
from lightmill.catalogs import storage
from lightmill.catalogs.rows import (
    FLAGS,
    RowsError,
    commit,
    probability_columns,
    rejected_schema,
    row_schema,
    rows_table,
)

LEAVES = ("nonvar", "EW", "RRab")
SCHEMA = row_schema(LEAVES)


def columns(n: int, seed: int = 1) -> dict[str, object]:
    """What `classify` hands over, in any order and of any width."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(len(LEAVES)), n)
    return {
        "_healpix_29": rng.permutation(n),
        "objectid": rng.permutation(n) + 10**15,
        "ra": rng.uniform(0, 360, n),
        "dec": rng.uniform(-90, 90, n),
        "filterid": np.ones(n, np.int8),
        "n_good": np.full(n, 30),
        "baseline": np.full(n, 100.0),
        "mag_mean": np.full(n, 17.0),
        "amplitude": np.full(n, 0.1),
        "best_class": [LEAVES[k] for k in p.argmax(axis=1)],
        "best_prob": p.max(axis=1),
        "margin": np.sort(p)[:, -1] - np.sort(p)[:, -2],
        "flags": np.zeros(n, np.int64),
        "bundle": ["0123abcd"] * n,
        "run_id": ["r"] * n,
    } | {name: p[:, k] for k, name in enumerate(probability_columns(LEAVES))}


def table(n: int = 100, **changed) -> pa.Table:
    return rows_table(columns(n) | changed, SCHEMA)


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "dataset" / "Norder=3" / "Dir=0" / "Npix=5.parquet", tmp_path / "scratch"


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []


# The schema and the table


def test_the_columns_of_the_design():
    expected = {
        "_healpix_29": "int64", "objectid": "int64", "ra": "double", "dec": "double", "filterid": "int16",
        "n_good": "int32", "baseline": "float", "mag_mean": "float", "amplitude": "float", "p_variable": "float",
        "best_prob": "float", "margin": "float", "p_nonvar": "float", "p_EW": "float", "p_RRab": "float",
        "period": "double", "period_score": "float", "novelty": "float", "flags": "int32",
    }  # fmt: skip
    words = {"best_class", "bundle", "run_id"}
    assert {field.name: str(field.type) for field in SCHEMA if field.name not in words} == expected
    for name in words:
        assert SCHEMA.field(name).type == pa.dictionary(pa.int32(), pa.string())
    # the VOParquet writer fails on int8
    assert pa.int8() not in SCHEMA.types


def test_every_column_tells_what_it_is():
    for schema in (SCHEMA, rejected_schema()):
        for field in schema:
            assert field.metadata[b"description"]
            assert field.metadata[b"ucd"]
    assert SCHEMA.field("ra").metadata[b"unit"] == b"deg"
    assert SCHEMA.field("objectid").metadata[b"ucd"] == b"meta.id;meta.main"


def test_units_and_ucds_are_ones_that_the_virtual_observatory_knows():
    from astropy import units
    from astropy.io.votable import ucd

    for field in (*SCHEMA, *rejected_schema()):
        ucd.parse_ucd(field.metadata[b"ucd"].decode(), check_controlled_vocabulary=True)
        units.Unit(field.metadata.get(b"unit", b"").decode(), format="vounit")


def test_flags_are_single_bits():
    assert all(bit & (bit - 1) == 0 for bit in FLAGS.values())
    assert len(set(FLAGS.values())) == len(FLAGS)


def test_rows_are_cast_sorted_and_completed_with_nulls():
    given = columns(50)
    found = rows_table(given, SCHEMA)
    assert found.schema.equals(SCHEMA, check_metadata=True)
    order = np.argsort(given["_healpix_29"])
    for name in ("_healpix_29", "objectid", "ra"):
        np.testing.assert_array_equal(found[name], np.asarray(given[name])[order])
    assert found["best_class"].to_pylist() == [given["best_class"][i] for i in order]
    # float32 holds 24 bits
    np.testing.assert_allclose(found["p_EW"], given["p_EW"][order], rtol=6e-8)
    for name in ("period", "novelty", "p_variable"):
        assert found[name].null_count == 50


def test_rows_of_one_place_are_sorted_by_identifier():
    given = columns(20) | {"_healpix_29": np.zeros(20, int)}
    assert (np.diff(rows_table(given, SCHEMA)["objectid"].to_numpy()) > 0).all()


def test_no_rows():
    assert rows_table(columns(0), SCHEMA).num_rows == 0


def test_unknown_column():
    with pytest.raises(RowsError, match="columns \\['colour'\\] are not in the catalogue's schema"):
        table(colour=np.ones(100))


@pytest.mark.parametrize(
    ("name", "values"),
    [("ra", ["east"] * 100), ("best_class", list(range(100))), ("objectid", pa.array(["x"] * 100))],
)
def test_a_column_that_cannot_be_cast_is_named(name, values):
    with pytest.raises(RowsError, match=f"column '{name}' cannot be cast to"):
        table(**{name: values})


# The commit


def test_what_is_committed_is_what_was_meant(places):
    final, scratch = places
    rows = table()
    size, digest = commit(rows, final, scratch)
    assert digest == hashlib.sha256(final.read_bytes()).hexdigest()
    assert final.stat().st_size == size
    with pq.ParquetFile(final) as parquet:
        assert parquet.read().equals(rows)
        assert parquet.schema_arrow.equals(SCHEMA, check_metadata=True)
        assert parquet.metadata.row_group(0).column(0).compression == "ZSTD"
    assert leftovers(scratch) == []


def test_a_commit_replaces_an_older_one(places):
    final, scratch = places
    commit(table(100), final, scratch)
    commit(table(7), final, scratch)
    assert pq.read_metadata(final).num_rows == 7


def test_rejected_rows_need_no_probabilities(places):
    final, scratch = places
    given = {name: values for name, values in columns(5).items() if name in rejected_schema().names}
    commit(rows_table(given | {"reason": ["flagged"] * 5}, rejected_schema()), final, scratch)
    assert pq.read_table(final, partitioning=None)["reason"].to_pylist() == ["flagged"] * 5


BAD = {
    "sum": {"p_EW": np.full(100, 0.9), "p_RRab": np.full(100, 0.9), "p_nonvar": np.zeros(100)},
    "negative": {"p_EW": np.full(100, -0.5), "p_RRab": np.full(100, 1.0), "p_nonvar": np.full(100, 0.5)},
    "nan": {"p_EW": np.full(100, np.nan)},
    "inf": {"p_EW": np.full(100, np.inf)},
    "null": {"p_EW": pa.nulls(100, pa.float32())},
    "one row": {"p_EW": np.where(np.arange(100) == 41, 2.0, columns(100)["p_EW"])},
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("older", [True, False])
def test_probabilities_that_are_none(places, case, older):
    final, scratch = places
    if older:
        commit(table(3), final, scratch)
    with pytest.raises(RowsError, match=r"probabilities of objectid .*the bundle is at fault"):
        commit(table(**BAD[case]), final, scratch)
    assert leftovers(scratch) == []
    # the older file is untouched, or there is none
    assert pq.read_metadata(final).num_rows == 3 if older else not final.exists()


def test_the_row_at_fault_is_named(places):
    bad = table(**BAD["one row"])
    (row,) = np.flatnonzero(np.asarray(bad["p_EW"]) == 2)
    with pytest.raises(RowsError, match=f"objectid {bad['objectid'][int(row)]} sum to"):
        commit(bad, *places)


def fail_after(times: int, error: OSError):
    """A function that raises at its (times + 1)-th call."""
    calls = []

    def function(*args, **options):
        calls.append(args)
        if len(calls) > times:
            raise error

    return function


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("step", ["write", "sync", "verify", "rename"])
@pytest.mark.parametrize("older", [True, False])
def test_a_fault_at_any_step_leaves_nothing_under_the_final_name(places, monkeypatch, step, older):
    final, scratch = places
    if older:
        commit(table(3), final, scratch)
    if step == "write":

        def half(rows, path, **options):
            path.write_bytes(b"PAR1 half a file")
            raise FULL

        monkeypatch.setattr(module.pq, "write_table", half)
    elif step == "sync":
        monkeypatch.setattr(storage.os, "fsync", fail_after(0, FULL))
    elif step == "verify":
        monkeypatch.setattr(module.pq, "ParquetFile", fail_after(0, OSError(errno.EIO, "Input/output error")))
    else:
        monkeypatch.setattr(Path, "replace", fail_after(0, OSError(errno.EROFS, "Read-only file system")))
    with pytest.raises(OSError, match=r"No space|Input/output|Read-only"):
        commit(table(), final, scratch)
    monkeypatch.undo()
    assert leftovers(scratch) == []
    assert pq.read_metadata(final).num_rows == 3 if older else not final.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.slice(1), "holds 99 rows, 100 were written"),
        (lambda t: t.drop_columns(["novelty"]), "has other columns"),
        (lambda t: t.set_column(1, "objectid", pc_reverse(t["objectid"])), "holds other objects"),
    ],
)
def test_other_rows_on_disk_than_were_meant(places, monkeypatch, change, message):
    final, scratch = places
    write = pq.write_table
    monkeypatch.setattr(
        module.pq, "write_table", lambda rows, path, **options: write(change(rows), path, **options)
    )
    with pytest.raises(RowsError, match=message):
        commit(table(), final, scratch)
    assert not final.exists()
    assert leftovers(scratch) == []


def pc_reverse(column: pa.ChunkedArray) -> pa.Array:
    return pa.array(column.to_pylist()[::-1], pa.int64())


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "scratch").write_text("a file where a folder should be")
    with pytest.raises(OSError, match="scratch"):
        commit(table(), tmp_path / "out.parquet", tmp_path / "scratch")
    assert not (tmp_path / "out.parquet").exists()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 kB, where the machine lets us mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let us mount a small file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_is_full(small_disk):
    final, scratch = small_disk / "Npix=5.parquet", small_disk / "scratch"
    commit(table(10), final, scratch)
    with pytest.raises(OSError, match="No space left") as caught:
        commit(table(50_000), final, scratch)
    assert caught.value.errno == errno.ENOSPC
    assert leftovers(small_disk) == [final]
    assert pq.read_metadata(final).num_rows == 10
