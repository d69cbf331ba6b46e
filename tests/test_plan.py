"""`pipeline/plan.py`: what must be computed, and why, without Dask, files or a clock."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightmill.catalogs.partitions import File, Partition
from lightmill.pipeline.plan import (
    DEFAULT_TRIGGERS,
    POLICIES,
    TRIGGERS,
    Done,
    Identity,
    State,
    changes,
    fingerprint,
    plan,
)

NOW = Identity(
    release="/r",
    recipe={"name": "x", "operational": {"workers": 2}},
    science={"clean": {"min_epochs": 20}, "gate": {"mode": "on"}},
    models={"bundle": "digest"},
    versions={"algorithm": 1, "schema": 1},
    code="1.0",
    environment={"numpy": "2.0"},
)
CHANGED = {
    "model": replace(NOW, models={"bundle": "older"}),
    "recipe": replace(NOW, science={"clean": {"min_epochs": 10}, "gate": {"mode": "on"}}),
    "algorithm": replace(NOW, versions={"algorithm": 0, "schema": 1}),
    "code": replace(NOW, code="0.9"),
    "environment": replace(NOW, environment={"numpy": "1.0"}),
}


def partition(pixel: int, stamp: str = "1", order: int = 3) -> Partition:
    return Partition(order, pixel, (File(f"/r/Npix={pixel}.parquet", 100, stamp),), "", "{}")


def done(part: Partition, identity: Identity = NOW, run: str = "run") -> Done:
    return Done(run, fingerprint(part, identity), part.identity())


ONE = partition(1)
ALONE = ((3, 1),)


def reasons(made) -> list[str]:
    return [task.reason for task in made.tasks]


def test_new_and_current():
    made = plan(NOW, [ONE, partition(2)], [(3, 1), (3, 2)], State({"run": NOW}, {(3, 1): (done(ONE),)}))
    assert [(task.key, task.reason) for task in made.tasks] == [((3, 2), "new")]
    assert made.tasks[0].fingerprint == fingerprint(partition(2), NOW)
    assert [(unit.key, unit.run_id, unit.fingerprint) for unit in made.current] == [
        ((3, 1), "run", fingerprint(ONE, NOW))
    ]
    assert made.left == made.quarantined == made.orphans == ()


def test_a_changed_input():
    state = State({"run": NOW}, {(3, 1): (done(partition(1, "before")),)})
    assert reasons(plan(NOW, [ONE], ALONE, state)) == ["input changed"]


@pytest.mark.parametrize("kind", CHANGED)
@pytest.mark.parametrize("triggers", [DEFAULT_TRIGGERS, TRIGGERS, ()])
def test_each_trigger(kind, triggers):
    before = CHANGED[kind]
    assert changes(before, NOW) == (kind,)
    state = State({"run": before}, {(3, 1): (done(ONE, before),)})
    made = plan(NOW, [ONE], ALONE, state, triggers=triggers)
    if kind in triggers:
        assert reasons(made) == [f"{kind} changed"]
        assert not made.current
    else:
        assert not made.tasks
        assert made.current[0].fingerprint == fingerprint(ONE, before)


def test_an_input_that_is_no_trigger():
    state = State({"run": NOW}, {(3, 1): (done(partition(1, "before")),)})
    assert not plan(NOW, [ONE], ALONE, state, triggers=["model"]).tasks


def test_all_that_has_changed_is_named():
    before = replace(NOW, models={"bundle": "older"}, versions={"algorithm": 0, "schema": 1})
    state = State({"run": before}, {(3, 1): (done(partition(1, "before"), before),)})
    assert reasons(plan(NOW, [ONE], ALONE, state)) == ["input, model, algorithm changed"]


def test_operational_fields_and_paths_are_no_reason():
    before = replace(NOW, recipe={"name": "y", "operational": {"workers": 9}}, release="/elsewhere")
    state = State({"run": before}, {(3, 1): (done(ONE, before),)})
    assert not plan(NOW, [ONE], ALONE, state, triggers=TRIGGERS).tasks


def test_any_run_with_the_wanted_fingerprint_is_current():
    """Going back to an earlier bundle computes nothing."""
    older = CHANGED["model"]
    state = State({"b": older, "a": NOW}, {(3, 1): (done(ONE, older, "b"), done(ONE, NOW, "a"))})
    made = plan(NOW, [ONE], ALONE, state)
    assert [unit.run_id for unit in made.current] == ["a"]


def test_the_newest_run_tells_what_has_changed():
    state = State(
        {"b": CHANGED["model"], "a": CHANGED["recipe"]},
        {(3, 1): (done(ONE, CHANGED["model"], "b"), done(ONE, CHANGED["recipe"], "a"))},
    )
    assert reasons(plan(NOW, [ONE], ALONE, state)) == ["model changed"]


def various() -> tuple[list[Partition], State]:
    """Partition 0 is new, 1 current, 2 stale, 3 failed, 4 in quarantine."""
    wanted = [partition(pixel) for pixel in range(5)]
    state = State(
        {"run": NOW},
        {(3, 1): (done(wanted[1]),), (3, 2): (done(partition(2, "before")),)},
        {(3, pixel): fingerprint(wanted[pixel], NOW) for pixel in (3, 4)},
        {(3, 4): fingerprint(wanted[4], NOW)},
    )
    return wanted, state


@pytest.mark.parametrize(
    ("policy", "todo", "left"),
    [
        ("missing", {0: "new"}, [2, 3]),
        ("failed", {3: "failed"}, [0, 2]),
        ("stale", {0: "new", 2: "input changed", 3: "failed"}, []),
        ("all", {0: "new", 1: "all", 2: "input changed", 3: "failed", 4: "failed"}, []),
    ],
)
def test_policies(policy, todo, left):
    wanted, state = various()
    made = plan(NOW, wanted, [(3, p) for p in range(5)], state, policy=policy)
    assert {task.partition.pixel: task.reason for task in made.tasks} == todo
    assert [pixel for _, pixel in made.left] == left
    assert made.quarantined == (() if policy == "all" else ((3, 4),))
    assert [unit.pixel for unit in made.current] == ([] if policy == "all" else [1])


def test_what_is_in_quarantine_comes_back_when_it_changes():
    wanted, state = various()
    changed = replace(wanted[4], files=(File("/r/Npix=4.parquet", 100, "repaired"),))
    made = plan(NOW, [changed], [(3, 4)], state)
    assert reasons(made) == ["new"]
    assert made.quarantined == ()


def test_what_failed_and_was_mended_is_new_and_is_tried_again():
    state = State({"run": NOW}, failed={(3, 1): "another"})
    for policy in ("failed", "missing", "stale"):
        assert reasons(plan(NOW, [ONE], ALONE, state, policy=policy)) == ["new"]
    assert plan(NOW, [ONE], ALONE, State({"run": NOW}), policy="failed").left == ALONE


def test_orphans_of_a_partition_that_was_split():
    state = State({"run": NOW}, {(3, 1): (done(ONE),)})
    parts = [partition(pixel, order=4) for pixel in range(4, 8)]
    made = plan(NOW, parts, [(4, pixel) for pixel in range(4, 8)], state)
    assert made.orphans == ((3, 1),)
    assert reasons(made) == ["new"] * 4


def test_partitions_that_were_not_asked_for_are_no_orphans():
    state = State({"run": NOW}, {(3, 1): (done(ONE),), (3, 2): (done(partition(2)),)})
    made = plan(NOW, [ONE], [(3, 1), (3, 2)], state)
    assert made.orphans == made.tasks == ()
    assert [unit.pixel for unit in made.current] == [1]


def test_unknown_words():
    with pytest.raises(ValueError, match=r"unknown policy 'new'; known are missing"):
        plan(NOW, [], [], policy="new")
    with pytest.raises(ValueError, match=r"unknown triggers weather; known are input"):
        plan(NOW, [], [], triggers=["weather", "input"])


def test_nothing_wanted():
    assert plan(NOW, [], []) == plan(NOW, iter([]), iter([]))


SITUATIONS = st.dictionaries(
    st.integers(0, 30),
    st.tuples(
        st.sampled_from(["none", "current", "input", *CHANGED]),
        st.booleans(),  # the last run gave it up
        st.booleans(),  # it is in quarantine
    ),
)


@given(
    SITUATIONS,
    st.sampled_from(POLICIES),
    st.sets(st.sampled_from(TRIGGERS)),
    st.lists(st.integers(0, 30), unique=True),
    st.randoms(),
)
def test_every_wanted_partition_is_in_exactly_one_place(situations, policy, triggers, asked, random):
    runs = {"now": NOW} | CHANGED
    past: dict[tuple[int, int], tuple[Done, ...]] = {}
    failed, quarantined = {}, {}
    for pixel, (kind, gave_up, held) in situations.items():
        if kind == "current":
            past[3, pixel] = (done(partition(pixel), run="now"),)
        elif kind == "input":
            past[3, pixel] = (done(partition(pixel, "before"), run="now"),)
        elif kind != "none":
            past[3, pixel] = (done(partition(pixel), CHANGED[kind], kind),)
        if gave_up:
            failed[3, pixel] = fingerprint(partition(pixel), NOW)
        if held:
            quarantined[3, pixel] = fingerprint(partition(pixel), NOW)
    state, everything = State(runs, past, failed, quarantined), [(3, pixel) for pixel in range(20)]

    def planned(pixels):
        return plan(NOW, map(partition, pixels), everything, state, policy=policy, triggers=triggers)

    made = planned(asked)
    places = [[t.key for t in made.tasks], [u.key for u in made.current], made.quarantined, made.left]
    assert sorted(key for place in places for key in place) == sorted((3, pixel) for pixel in asked)
    for place in places:  # in the order in which they were asked for
        assert list(place) == [(3, pixel) for pixel in asked if (3, pixel) in set(place)]
    assert set(made.orphans) == {key for key in past if key[1] >= 20}
    shuffled = random.sample(asked, len(asked))
    again = planned(shuffled)
    assert set(again.current) == set(made.current)
    assert {(t.key, t.reason) for t in again.tasks} == {(t.key, t.reason) for t in made.tasks}
    assert set(again.left) == set(made.left)
    assert made.orphans == again.orphans


@given(st.sets(st.integers(0, 50)))
def test_a_second_plan_after_all_was_done_has_nothing_to_do(pixels):
    first = plan(NOW, map(partition, sorted(pixels)), [])
    past = {t.key: (Done("run", t.fingerprint, t.partition.identity()),) for t in first.tasks}
    second = plan(NOW, map(partition, sorted(pixels)), past, State({"run": NOW}, past))
    assert second.tasks == second.orphans == ()


BASE = fingerprint(ONE, NOW)


def test_the_fingerprint_is_a_sha256_and_stable():
    assert len(BASE) == 64
    assert int(BASE, 16)
    again = replace(NOW, science=dict(reversed(NOW.science.items())), versions={"schema": 1, "algorithm": 1})
    assert fingerprint(ONE, again) == BASE


@pytest.mark.parametrize(
    ("part", "identity"),
    [
        (partition(2), NOW),
        (partition(1, "2"), NOW),
        (replace(ONE, files=()), NOW),
        (replace(ONE, order=4), NOW),
        (ONE, replace(NOW, models={"bundle": "digest", "period_choice": "one"})),
        (ONE, replace(NOW, versions={"algorithm": 1, "schema": 2})),
        *((ONE, CHANGED[kind]) for kind in ("model", "recipe", "algorithm")),
    ],
)
def test_whatever_decides_the_rows_changes_the_fingerprint(part, identity):
    assert fingerprint(part, identity) != BASE


@pytest.mark.parametrize("kind", ["code", "environment"])
def test_what_does_not_decide_them_is_in_none(kind):
    assert fingerprint(ONE, CHANGED[kind]) == BASE


def test_where_the_release_lies_does_not_matter():
    moved = replace(ONE, files=(File("bucket/elsewhere/Npix=1.parquet", 100, "1"),), protocol="s3")
    assert fingerprint(moved, replace(NOW, release="s3://bucket")) == BASE
