"""Votes: the majority among what several people said of the same objects, and how well they agree.

Kappa is that of Fleiss (1971, Psychological Bulletin 76, 378).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lightmill.pipeline.ballots import Ballot, VotesError

__all__ = [
    "NO_AGREEMENT",
    "TIE",
    "TOO_FEW",
    "Majority",
    "agreement_of_annotators",
    "fleiss_kappa",
    "majority",
    "one_vote_each",
    "tally",
]

TOO_FEW, TIE, NO_AGREEMENT = "too_few_votes", "tie", "no_agreement"
"""Why an object has no label, in the order in which they are looked at."""


@dataclass(frozen=True)
class Majority:
    """What n objects are by the votes."""

    winner: np.ndarray  #: (n,) int64 class with most votes, the first of them in a tie; −1 without votes
    votes: np.ndarray  #: (n,) int64 votes counted
    agreement: np.ndarray  #: (n,) float64 share of the winner among them; 0 without votes
    reason: np.ndarray  #: (n,) str: TOO_FEW, TIE or NO_AGREEMENT, or "" where the winner is the label


def one_vote_each(ballot: Ballot) -> tuple[Ballot, int]:
    """Let each annotator's last vote on an object count alone; also how many votes were dropped so.

    Without times, an annotator's equal votes on an object count once. Of votes at the same time the one further down in
    the tables is the later.

    Raises
    ------
    VotesError
        if there are no times and an annotator gave an object different votes: which holds cannot be known.
    """
    if ballot.counts is not None or not len(ballot.obj):
        return ballot, 0
    pair = ballot.obj * max(len(ballot.annotators), 1) + ballot.by
    keys = (pair,) if ballot.time is None else (ballot.time, pair)
    order = np.lexsort(keys)  # stable: rows of a table keep their order
    same = pair[order][1:] == pair[order][:-1]
    if ballot.time is None:
        unlike = same & (ballot.cls[order][1:] != ballot.cls[order][:-1])
        if unlike.any():
            raise VotesError(_contradiction(ballot, order[np.flatnonzero(unlike)[0] + np.arange(2)]))
    last = np.sort(order[np.append(~same, True)])
    kept = replace(ballot, obj=ballot.obj[last], by=ballot.by[last], cls=ballot.cls[last])
    return replace(kept, time=None if ballot.time is None else ballot.time[last]), len(order) - len(last)


def tally(ballot: Ballot) -> np.ndarray:
    """(n, classes) int64: how many votes each class has for each object; abstentions do not count."""
    if ballot.counts is not None:
        return ballot.counts
    n, k = len(ballot.objects), len(ballot.classes)
    cast = ballot.cls >= 0
    return (
        np.bincount(ballot.obj[cast] * k + ballot.cls[cast], minlength=n * k).reshape(n, k).astype(np.int64)
    )


def majority(counts: np.ndarray, *, min_votes: int = 3, min_agreement: float = 0.6) -> Majority:
    """The class with most votes, where there are enough votes, no tie, and enough of them for it.

    >>> found = majority(np.array([[4, 1], [2, 2], [1, 1], [0, 1]]), min_votes=2)
    >>> found.winner.tolist(), found.agreement.tolist(), found.reason.tolist()
    ([0, 0, 0, 1], [0.8, 0.5, 0.5, 1.0], ['', 'tie', 'tie', 'too_few_votes'])

    Parameters
    ----------
    counts : (n, classes) integer, votes
    min_votes : votes that an object needs
    min_agreement : share of the winner that it needs, 0…1

    Raises
    ------
    VotesError
        if a limit makes no sense.
    """
    if min_votes < 1 or not 0 <= min_agreement <= 1:
        raise VotesError(
            f"at least 1 vote and an agreement of 0…1 can be asked for, got {min_votes} and {min_agreement}"
        )
    votes = counts.sum(axis=1)
    most = counts.max(axis=1, initial=0)
    share = most / np.maximum(votes, 1)
    # one ten-thousand-millionth of slack: 0.6 of 5 votes is 3
    rules = [votes < min_votes, (counts == most[:, None]).sum(axis=1) > 1, share < min_agreement - 1e-10]
    reason = np.select(rules, [TOO_FEW, TIE, NO_AGREEMENT], default="")
    winner = np.where(votes > 0, counts.argmax(axis=1), -1)
    return Majority(winner.astype(np.int64), votes, share, reason)


def fleiss_kappa(counts: np.ndarray) -> float:
    """Agreement beyond chance of several annotators: 1 perfect, 0 as by chance (Fleiss 1971, equations 2 to 7).

    Fleiss has the same number of votes on each object. Here an object's agreement is taken over its own number of
    votes, and the share of a class over all votes, which is the same where the numbers are equal. Objects with fewer
    than two votes tell nothing and are left out.

    Parameters
    ----------
    counts : (n, classes) integer, votes

    Returns
    -------
    float, NaN where it is not defined: no object has two votes, or all votes are for one class
    """
    counts = np.asarray(counts, np.float64)
    counts = counts[counts.sum(axis=1) >= 2]
    if not len(counts):
        return float("nan")
    votes = counts.sum(axis=1)
    observed = ((counts**2).sum(axis=1) - votes) / (votes * (votes - 1))
    chance = ((counts.sum(axis=0) / votes.sum()) ** 2).sum()
    return float((observed.mean() - chance) / (1 - chance)) if chance < 1 else float("nan")


def agreement_of_annotators(ballot: Ballot, found: Majority) -> tuple[np.ndarray, np.ndarray]:
    """How often each annotator voted, and agreed with the majority, on objects that have one.

    The annotator's own vote is among those that made the majority.

    Returns
    -------
    votes, agreed : (annotators,) int64; abstentions are not among the votes
    """
    counted = (ballot.cls >= 0) & (found.reason[ballot.obj] == "")
    who = ballot.by[counted]
    agreed = ballot.cls[counted] == found.winner[ballot.obj[counted]]
    k = len(ballot.annotators)
    return np.bincount(who, minlength=k), np.bincount(who[agreed], minlength=k)


def _contradiction(ballot: Ballot, rows: np.ndarray) -> str:
    a, b = (ballot.classes[i] if i >= 0 else "no class" for i in ballot.cls[rows])
    return (
        f"annotator {ballot.annotators[ballot.by[rows[0]]]!r} voted both {a} and {b} for object "
        f"{ballot.objects[int(ballot.obj[rows[0]])]}, and no column says which is the later: name one with --time "
        "COLUMN, or leave one of the votes out"
    )
