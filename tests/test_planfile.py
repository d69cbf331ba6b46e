"""`pipeline/planfile.py`: plans as files, there and back, and those that are refused."""

from __future__ import annotations

import json
from dataclasses import replace

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightmill.catalogs.partitions import File, Partition
from lightmill.pipeline.plan import Current, Identity, Plan, Task
from lightmill.pipeline.planfile import KEY, PlanError, is_plan, load_plan, plan_digest, save_plan

IDENTITY = Identity(
    "/r", {"name": "x"}, {"a": [1, 2.5]}, {"bundle": "d"}, {"algorithm": 1}, "1", {"numpy": "2"}
)
FILES = (File("/r/Npix=7/part0.parquet", 10, "1.5"), File("/r/Npix=7/part1.parquet", 20, '"etag"'))
PLAN = Plan(
    "20260101T000000-abcdef",
    IDENTITY,
    tasks=(
        Task(Partition(3, 7, FILES, "s3", '{"anon": true}'), "f" * 64, "input changed", 5, 50, 0.25, 900),
        Task(Partition(3, 8, (), "", "{}"), "e" * 64, "new"),
    ),
    current=(Current(3, 9, "run", "c" * 64),),
    quarantined=((3, 10),),
    left=((3, 11),),
    orphans=((2, 1),),
)


@pytest.fixture(params=["local", "memory"])
def place(request, tmp_path):
    """Where a plan may be saved."""
    if request.param == "local":
        yield str(tmp_path / "week.plan")
        return
    yield "memory://plans/week.plan"
    fsspec.filesystem("memory").rm("/plans", recursive=True)


def rewrite(path, rows=None, **facts):
    """Write the file anew with other rows or facts."""
    table = pq.ParquetFile(path).read()
    found = json.loads(table.schema.metadata[KEY]) | facts
    changed = pa.Table.from_pylist(rows or table.to_pylist(), schema=table.schema)
    pq.write_table(changed.replace_schema_metadata({KEY: json.dumps(found)}), path)


def test_there_and_back(place):
    save_plan(PLAN, place)
    assert load_plan(place) == PLAN


def test_what_means_a_plan(place, tmp_path):
    save_plan(PLAN, place)
    assert is_plan(place)
    assert not is_plan(str(tmp_path))
    assert not is_plan("s3://archive/release")


def test_an_empty_plan(place):
    save_plan(Plan("run", IDENTITY, ()), place)
    assert load_plan(place) == Plan("run", IDENTITY, ())


def test_a_plan_is_never_changed(place):
    save_plan(PLAN, place)
    save_plan(PLAN, place)  # the same: nothing to do
    with pytest.raises(PlanError, match=r"exists, and is another plan or no plan at all: give another --out"):
        save_plan(replace(PLAN, run_id="another"), place)
    assert load_plan(place) == PLAN


def test_an_edited_plan(tmp_path):
    path = tmp_path / "plan"
    save_plan(PLAN, path)
    rows = pq.ParquetFile(path).read().to_pylist()
    rewrite(path, [row | {"fingerprint": "0" * 64} for row in rows])
    with pytest.raises(PlanError, match="was changed after it was written: plan again"):
        load_plan(path)


def test_an_edited_identity(tmp_path):
    path = tmp_path / "plan"
    save_plan(PLAN, path)
    rewrite(path, identity=vars(replace(IDENTITY, models={"bundle": "another"})))
    with pytest.raises(PlanError, match="was changed"):
        load_plan(path)


def test_another_format(tmp_path):
    path = tmp_path / "plan"
    save_plan(PLAN, path)
    rewrite(path, format=99)
    with pytest.raises(PlanError, match=r"has plan format 99, this version reads 1: plan again"):
        load_plan(path)


@pytest.mark.parametrize("kind", ["missing", "text", "table", "truncated"])
def test_what_is_no_plan(tmp_path, kind):
    path = tmp_path / "plan"
    if kind == "text":
        path.write_text("PAR1 and no more")
    elif kind == "table":
        pq.write_table(pa.table({"order": [1]}), path)
    elif kind == "truncated":
        save_plan(PLAN, path)
        path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(
        PlanError, match=r"plan is not a plan .*make one with lightmill plan RELEASE --out PLAN"
    ):
        load_plan(path)


def test_the_digest_is_of_what_a_plan_says():
    assert plan_digest(PLAN) == plan_digest(replace(PLAN, run_id="another"))
    assert plan_digest(PLAN) != plan_digest(replace(PLAN, left=()))
    assert plan_digest(PLAN) != plan_digest(replace(PLAN, identity=replace(IDENTITY, code="2")))
