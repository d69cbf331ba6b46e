"""Counted shares: Wilson's intervals solve his equation, the test is Fisher's, R's and an enumeration's."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, fisher_exact, norm

from lightmill.models import proportions
from lightmill.models.proportions import holm, stratified_test, wilson

COUNTS = st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_ends_where_the_share_is_z_sigma_away(counts):
    hits, n = counts
    low, high = map(float, wilson(hits, n))
    assert 0 <= low <= hits / n <= high <= 1
    for end in (low, high):
        # his equation; an end at 0 or 1 is one where the share itself lies
        off, sigma = hits / n - end, np.sqrt(end * (1 - end) / n)
        assert abs(off) == pytest.approx(norm.isf(0.025) * sigma, abs=1e-9) or end in (0, 1)


def test_wilson_covers():
    rng = np.random.default_rng(5)
    for share, n in ((0.02, 30), (0.5, 12), (0.9, 80)):
        low, high = wilson(rng.binomial(n, share, 4000), np.full(4000, n))
        assert ((low <= share) & (share <= high)).mean() > 0.92


def test_nothing_is_known_of_a_share_of_nothing():
    assert tuple(map(float, wilson(0, 0))) == (0.0, 1.0)


@given(COUNTS)
def test_one_stratum_is_fishers_test(counts):
    a, b, c, d = counts
    found = stratified_test(a, a + b, c, c + d)
    if a + b == 0 or c + d == 0:
        assert found is None
    else:
        assert found == pytest.approx(fisher_exact([[a, b], [c, d]]).pvalue, rel=1e-6)


@given(st.lists(st.tuples(*[st.integers(0, 6)] * 4), min_size=2, max_size=3))
def test_strata_are_all_ways_to_deal_the_hits(strata):
    """The definition, by enumeration: each stratum deals its hits to the groups blindly."""
    a, b, c, d = np.array(strata).T
    found = stratified_test(a, a + b, c, c + d)
    ways = {0: 1}
    for hit, miss, other_hit, other_miss in strata:
        n, m, rest = hit + miss, hit + other_hit, other_hit + other_miss
        new: dict[int, int] = {}
        for k in range(max(0, m - rest), min(n, m) + 1):
            for total, number in ways.items():
                new[total + k] = new.get(total + k, 0) + number * comb(m, k) * comb(n + rest - m, n - k)
        ways = new
    if found is None:
        assert ((a + b) * (c + d) == 0).all()
        return
    here = ways[int(a.sum())]
    assert found == pytest.approx(sum(w for w in ways.values() if w <= here) / sum(ways.values()), rel=1e-6)


# Bickel+1975: admissions to Berkeley by department (men admitted, men, women admitted, women)
BERKELEY = np.array(
    [[512, 825, 89, 108], [353, 560, 17, 25], [120, 325, 202, 593], [138, 417, 131, 375], [53, 191, 94, 393],
     [22, 373, 24, 341]]
)  # fmt: skip


def test_berkeley_as_r_has_it():
    # mantelhaen.test(UCBAdmissions): p = 0.2323
    assert stratified_test(*BERKELEY.T) == pytest.approx(0.2323, abs=5e-5)
    # without strata: Simpson's paradox
    assert stratified_test(*BERKELEY.sum(axis=0)) < 1e-15


def test_many_rows_are_the_chi_square_test():
    a, n1, b, n2 = 700, 1000, 1300, 2000
    slow = chi2_contingency([[a, n1 - a], [b, n2 - b]], correction=False)
    total = n1 + n2
    shrunk = np.sqrt(slow.statistic * (total - 1) / total) - 0.5 / np.sqrt(
        n1 * n2 * (a + b) * (total - a - b) / total**2 / (total - 1)
    )
    assert stratified_test(a, n1, b, n2) == pytest.approx(2 * norm.sf(shrunk), rel=1e-9)


def test_exact_and_normal_meet(monkeypatch):
    rows = np.array([[40, 60, 210, 400], [30, 90, 100, 300], [10, 20, 60, 150]])
    for move in range(-8, 10, 3):
        moved = rows + np.array([move, 0, 0, 0])
        normal = stratified_test(*moved.T)
        monkeypatch.setattr(proportions, "NORMAL_FROM", np.inf)
        exact = stratified_test(*moved.T)
        monkeypatch.undo()
        # the one measures the far tail by distance, the other by probability: they may part by one more count
        assert normal == pytest.approx(exact, rel=0.25, abs=1e-5)


def test_large_margins_with_few_misses():
    # the window that is followed must hold what is seen, and be found quickly
    assert stratified_test(100_000, 100_000, 899_990, 900_000) == pytest.approx(
        fisher_exact([[100_000, 0], [899_990, 10]]).pvalue, rel=1e-6
    )
    assert stratified_test(0, 40, 1_000_000, 1_000_000) < 1e-15


def test_impossible_counts_are_named():
    with pytest.raises(ValueError, match=r"hits \[3\] of \[2\]"):
        stratified_test(3, 2, 1, 1)
    with pytest.raises(ValueError, match=r"lengths \[1, 1, 2, 2\]"):
        stratified_test([1], [1], [1, 1], [1, 1])


@given(st.lists(st.floats(0, 1), max_size=12), st.sampled_from([0.01, 0.05, 0.3]))
def test_holm_is_his_procedure(p, level):
    """Step by step: the smallest against α/m, the next against α/(m − 1), until one fails."""
    called = set()
    for step, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        if not p[i] * (len(p) - step) < level:
            break
        called.add(i)
    assert set(np.flatnonzero(holm(np.array(p)) < level)) == called
