"""`pipeline/tables.py`: one partition in the columns of IRSA's releases, whole or not at all."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightmill.pipeline import exposures, fit_survey, tables
from lightmill.pipeline.observe import Epochs
from lightmill.pipeline.sky import patches
from lightmill.pipeline.tables import LAYOUTS, Task, schema, write_partition


@pytest.fixture
def task(tmp_path) -> Task:
    patch = max(patches(5, 2_000), key=lambda patch: patch.rows)
    (tmp_path / ".truth").mkdir()
    return Task(tmp_path / "Npix=0.parquet", tmp_path / ".truth/a.parquet", 5, 2_000, patch, "nested", 0.1)


def test_list_has_the_types_of_the_bulk_files(data_dir):
    """All but `hmjd`, whose float32 there is a loss; `_healpix_29` is HATS's."""
    real = pq.read_schema(data_dir / fit_survey.QUADRANT)
    for name in real.names:
        if name != "hmjd":
            ours = schema("list").field(name).type
            assert ours == real.field(name).type, name
    assert set(schema("list").names) - set(real.names) == {"_healpix_29"}


def test_nested_has_the_types_of_the_release():
    expected = {"objectid": pa.int64(), "filterid": pa.int8(), "nepochs": pa.int32()}
    expected |= {"objra": pa.float32(), "objdec": pa.float32()}
    assert {name: schema("nested").field(name).type for name in expected} == expected
    kinds = (pa.float64(), pa.float32(), pa.float32(), pa.float32(), pa.int32())
    epochs = pa.struct([(name, pa.list_(kind)) for name, kind in zip(Epochs._fields, kinds, strict=True)])
    assert schema("nested").field("lightcurve").type == epochs


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_partition_and_its_truth(task, layout):
    epochs = write_partition(replace(task, layout=layout))
    table, truth = pq.read_table(task.path), pq.read_table(task.truth)
    assert table.schema.equals(schema(layout))
    assert truth.schema.equals(tables.TRUTH)
    assert len(table) == task.patch.rows
    assert sum(table["nepochs"].to_pylist()) == epochs
    assert table["objectid"].equals(truth["objectid"])
    assert [path.name for path in task.path.parent.glob("*.part")] == []


def test_row_groups_are_the_chunks(task, monkeypatch):
    monkeypatch.setattr(exposures, "IN_A_CHUNK", 50_000)
    write_partition(task)
    file = pq.ParquetFile(task.path)
    assert file.num_row_groups > 2
    assert file.metadata.num_rows == task.patch.rows


def test_what_fails_half_way_has_no_final_name(task, monkeypatch):
    monkeypatch.setattr(exposures, "IN_A_CHUNK", 50_000)
    tables_of = tables._tables

    def full(*arguments):
        yield next(tables_of(*arguments))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tables, "_tables", full)
    with pytest.raises(OSError, match="No space left"):
        write_partition(task)
    assert not task.path.exists()
    assert not task.truth.exists()


def test_a_worker_needs_no_hats():
    """hats takes two seconds to import, in each process."""
    code = "import sys, lightmill.pipeline.tables; sys.exit('hats' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path("/")).returncode == 0


def test_a_task_says_which_partition_it_is(task):
    assert str(task) == f"order {task.patch.order} pixel {task.patch.pixel}: {task.patch.rows} light curves"
