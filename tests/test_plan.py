"""`pipeline/plan.py`: what must be computed, and why, without Dask."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightmill.catalogs.partitions import File, Partition
from lightmill.catalogs.receipts import Receipt
from lightmill.pipeline.plan import fingerprint, plan

SCIENCE = {"clean": {"min_epochs": 20}, "gate": {"mode": "on"}}
VERSIONS = {"algorithm": 1, "schema": 1}


def partition(pixel: int, stamp: str = "1") -> Partition:
    return Partition(3, pixel, (File(f"/r/Npix={pixel}.parquet", 100, stamp),), "", "{}")


def receipt(pixel: int, print_: str) -> Receipt:
    return Receipt(3, pixel, print_, 10, 10, {}, 100, 1.0)


def pixels(parts) -> list[int]:
    return [task.partition.pixel for task in parts]


def test_new_changed_and_current():
    wanted = [(partition(pixel), f"print{pixel}") for pixel in range(4)]
    done = {(3, 1): receipt(1, "print1"), (3, 2): receipt(2, "another")}
    found = plan(wanted, done, [(3, pixel) for pixel in range(4)])
    assert [(task.partition.pixel, task.reason) for task in found.tasks] == [
        (0, "new"),
        (2, "changed"),
        (3, "new"),
    ]
    assert [task.fingerprint for task in found.tasks] == ["print0", "print2", "print3"]
    assert found.current == (done[3, 1],)
    assert found.orphans == ()


def test_partitions_that_were_not_asked_for_are_left_alone():
    done = {(3, 1): receipt(1, "print1"), (3, 2): receipt(2, "print2")}
    found = plan([(partition(1), "print1")], done, [(3, 1), (3, 2)])
    assert found.tasks == found.orphans == ()
    assert [one.pixel for one in found.current] == [1]


def test_partitions_that_the_release_no_longer_has():
    done = {(3, 7): receipt(7, "x"), (2, 1): replace(receipt(1, "x"), order=2), (3, 1): receipt(1, "print1")}
    found = plan([(partition(1), "print1")], done, [(3, 1)])
    assert found.orphans == ((2, 1), (3, 7))


def test_nothing_wanted():
    assert plan([], {}, []) == plan(iter([]), {}, iter([]))


@given(st.lists(st.integers(0, 20), unique=True), st.dictionaries(st.integers(0, 20), st.booleans()))
def test_every_partition_is_either_to_do_or_done(wanted, done):
    receipts = {(3, p): receipt(p, f"print{p}" if same else "old") for p, same in done.items()}
    found = plan([(partition(p), f"print{p}") for p in wanted], receipts, [(3, p) for p in range(21)])
    assert sorted(pixels(found.tasks) + [one.pixel for one in found.current]) == sorted(wanted)
    assert {one.pixel for one in found.current} == {p for p in wanted if done.get(p)}
    # in the order in which they were asked for
    assert pixels(found.tasks) == [p for p in wanted if not done.get(p)]


def test_a_second_plan_after_all_was_done_has_nothing_to_do():
    wanted = [(partition(p), fingerprint(partition(p), SCIENCE, {"bundle": "d"}, VERSIONS)) for p in range(5)]
    first = plan(wanted, {}, [])
    done = {(3, t.partition.pixel): receipt(t.partition.pixel, t.fingerprint) for t in first.tasks}
    assert plan(wanted, done, done.keys()).tasks == ()


BASE = fingerprint(partition(1), SCIENCE, {"bundle": "digest"}, VERSIONS)


def test_the_fingerprint_is_a_sha256_and_stable():
    assert len(BASE) == 64
    assert int(BASE, 16)
    again = {"gate": {"mode": "on"}, "clean": {"min_epochs": 20}}  # another order of the same fields
    assert fingerprint(partition(1), again, {"bundle": "digest"}, dict(reversed(VERSIONS.items()))) == BASE


@pytest.mark.parametrize(
    "changed",
    [
        (partition(2), SCIENCE, {"bundle": "digest"}, VERSIONS),
        (partition(1, stamp="2"), SCIENCE, {"bundle": "digest"}, VERSIONS),
        (replace(partition(1), files=()), SCIENCE, {"bundle": "digest"}, VERSIONS),
        (replace(partition(1), order=4), SCIENCE, {"bundle": "digest"}, VERSIONS),
        (partition(1), SCIENCE | {"clean": {"min_epochs": 21}}, {"bundle": "digest"}, VERSIONS),
        (partition(1), SCIENCE, {"bundle": "other"}, VERSIONS),
        (partition(1), SCIENCE, {"bundle": "digest", "period_choice": "one"}, VERSIONS),
        (partition(1), SCIENCE, {"bundle": "digest"}, VERSIONS | {"algorithm": 2}),
        (partition(1), SCIENCE, {"bundle": "digest"}, VERSIONS | {"schema": 2}),
    ],
)
def test_whatever_decides_the_rows_changes_the_fingerprint(changed):
    assert fingerprint(*changed) != BASE


def test_where_the_release_lies_does_not():
    moved = replace(partition(1), files=(File("bucket/elsewhere/Npix=1.parquet", 100, "1"),), protocol="s3")
    assert fingerprint(moved, SCIENCE, {"bundle": "digest"}, VERSIONS) == BASE
