"""Counting votes: against counts by hand, and Fleiss' kappa against a published example."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightmill.pipeline.ballots import Ballot, VotesError
from lightmill.pipeline.votes import (
    NO_AGREEMENT,
    TIE,
    TOO_FEW,
    agreement_of_annotators,
    fleiss_kappa,
    majority,
    one_vote_each,
    tally,
)

CLASSES = ("EW", "EA", "RRab")

# a worked example, 14 annotators, 10 objects, 5 classes: https://en.wikipedia.org/wiki/Fleiss%27_kappa
WORKED = np.array([
    [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
])  # fmt: skip

Vote = tuple[int, int, int, int]
votes_lists = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(-1, 2), st.integers(0, 9)), max_size=60
)


def ballot(votes: list[Vote], *, times: bool = True) -> Ballot:
    """Of (object, annotator, class, time)."""
    table = np.array(votes, np.int64).reshape(-1, 4)
    return Ballot(
        pa.array([f"star{i}" for i in range(6)]), CLASSES, tuple("abcd"), *table[:, :3].T,
        time=table[:, 3].astype(float) if times else None,
    )  # fmt: skip


@given(votes_lists)
def test_the_last_vote_of_each_counts(votes: list[Vote]):
    last: dict[tuple[int, int], tuple[int, int]] = {}
    for obj, by, cls, time in votes:
        if (obj, by) not in last or time >= last[obj, by][0]:
            last[obj, by] = (time, cls)
    kept, dropped = one_vote_each(ballot(votes))
    found = {(int(o), int(b)): int(c) for o, b, c in zip(kept.obj, kept.by, kept.cls, strict=True)}
    assert found == {pair: cls for pair, (_, cls) in last.items()}
    assert dropped + len(kept.obj) == len(votes)
    counts = tally(kept)
    for obj in range(6):
        expected = Counter(cls for (o, _), (_, cls) in last.items() if o == obj and cls >= 0)
        assert counts[obj].tolist() == [expected[cls] for cls in range(3)]


def test_without_times_equal_votes_count_once_and_others_are_refused():
    same = ballot([(0, 0, 1, 0), (0, 1, 1, 0), (0, 0, 1, 0)], times=False)
    kept, dropped = one_vote_each(same)
    assert (tally(kept)[0].tolist(), dropped) == ([0, 2, 0], 1)
    unlike = ballot([(0, 0, 1, 0), (0, 1, 1, 0), (0, 0, 2, 0)], times=False)
    with pytest.raises(VotesError, match=r"'a' voted both EA and RRab for object star0.*--time COLUMN"):
        one_vote_each(unlike)


@given(
    st.lists(st.lists(st.integers(0, 6), min_size=3, max_size=3), min_size=1, max_size=20),
    st.integers(1, 8),
    st.integers(0, 10),
)
def test_majority_is_that_of_counting_by_hand(rows: list[list[int]], least: int, tenths: int):
    found = majority(np.array(rows), min_votes=least, min_agreement=tenths / 10)
    for i, row in enumerate(rows):
        best = sorted(row)[-1]
        if sum(row) < least:
            expected = TOO_FEW
        elif row.count(best) > 1:
            expected = TIE
        elif best * 10 < tenths * sum(row):  # in integers: exact
            expected = NO_AGREEMENT
        else:
            expected = ""
            assert row[found.winner[i]] == best
        assert found.reason[i] == expected
        assert found.votes[i] == sum(row)
        assert (found.winner[i] == -1) == (sum(row) == 0)


@pytest.mark.parametrize(("votes", "share"), [(0, 0.5), (3, 1.1), (3, -0.1), (3, float("nan"))])
def test_limits_that_make_no_sense(votes: int, share: float):
    with pytest.raises(VotesError, match="at least 1 vote"):
        majority(WORKED, min_votes=votes, min_agreement=share)


def test_kappa_of_the_worked_example():
    assert round(fleiss_kappa(WORKED), 3) == 0.210


def test_kappa_at_its_ends():
    assert fleiss_kappa(np.array([[4, 0], [0, 4]])) == 1
    # two annotators who never agree, on classes that are equally frequent
    assert fleiss_kappa(np.array([[1, 1], [1, 1]])) == -1
    assert np.isnan(fleiss_kappa(np.array([[4, 0], [3, 0]])))  # nothing else could have been said
    assert np.isnan(fleiss_kappa(np.array([[1, 0], [0, 1]])))  # no two votes to compare
    assert np.isnan(fleiss_kappa(np.zeros((0, 3), int)))


@given(
    st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3), min_size=1, max_size=12),
    st.permutations(range(3)),
)
def test_kappa_is_that_of_all_pairs_of_votes(rows: list[list[int]], order: list[int]):
    """An oracle that goes through pairs; and names of classes, and objects of one vote, do not matter."""
    counts = np.array(rows)
    said = [[cls for cls in range(3) for _ in range(row[cls])] for row in rows]
    said = [votes for votes in said if len(votes) > 1]
    agree = [
        np.mean([a == b for i, a in enumerate(votes) for j, b in enumerate(votes) if i != j])
        for votes in said
    ]
    everything = [cls for votes in said for cls in votes]
    chance = sum((everything.count(cls) / max(len(everything), 1)) ** 2 for cls in range(3))
    found = fleiss_kappa(counts)
    if not said or len(set(everything)) == 1:
        assert np.isnan(found)
        return
    assert found == pytest.approx((np.mean(agree) - chance) / (1 - chance), abs=1e-12)
    assert fleiss_kappa(counts[:, order]) == pytest.approx(found, abs=1e-12)
    assert fleiss_kappa(np.vstack([counts, [1, 0, 0]])) == pytest.approx(found, abs=1e-12)


def test_votes_at_random_agree_by_chance():
    rng = np.random.default_rng(4)
    counts = rng.multinomial(7, [0.5, 0.3, 0.2], 20_000)
    # its standard deviation is then 0.0011 (Fleiss, Nee & Landis 1979, Psychological Bulletin 86, 974)
    assert abs(fleiss_kappa(counts)) < 0.006


def test_agreement_of_annotators():
    votes = [
        (0, 0, 0, 0), (0, 1, 0, 0), (0, 2, 1, 0),  # EW, two to one
        (1, 0, 2, 0), (1, 1, 1, 0), (1, 3, -1, 0),  # a tie: tells of nobody
        (2, 0, 1, 0), (2, 1, 1, 0), (2, 2, 1, 0), (2, 3, -1, 0),
    ]  # fmt: skip
    given = ballot(votes)
    found = majority(tally(given), min_votes=2)
    asked, agreed = agreement_of_annotators(given, found)
    assert asked.tolist() == [2, 2, 2, 0]
    assert agreed.tolist() == [2, 2, 1, 0]
