"""Rows of candidate periods against slow oracles, and the order made of probabilities."""

from __future__ import annotations

import numpy as np
import pytest

from lightmill.pipeline.candidates import COLUMNS, ordered, table
from lightmill.pipeline.features import index_of, statistics
from lightmill.pipeline.period import search


@pytest.fixture(scope="module")
def found():
    """Three stars, one of them too short to be searched, their statistics, and the frequencies put in."""
    rng = np.random.default_rng(4)
    pieces = []
    for n, frequency in ((150, 1.9), (8, 1.0), (90, 3.3)):
        t = np.sort(rng.integers(0, 600, n) + rng.uniform(0.2, 0.5, n))
        phase = 2 * np.pi * frequency * t
        mag = 15 + 0.3 * np.sin(phase) + 0.12 * np.sin(2 * phase + 1) + 0.02 * rng.standard_normal(n)
        pieces.append((t - t[0], mag, np.full(n, 0.02)))
    t, mag, magerr = (np.concatenate(x) for x in zip(*pieces, strict=True))
    offsets = np.array([0, 150, 158, 248])
    return search(t, mag, magerr, offsets), statistics(t, mag, magerr, offsets), (1.9, np.nan, 3.3)


def column(rows, name):
    return rows[:, COLUMNS.index(name)].astype(float)


def test_a_row_for_each_candidate(found):
    periods, known_statistics, _ = found
    rows, known = table(periods, known_statistics, 24)
    assert known.shape == (3, 24)
    assert known.sum(axis=1).tolist()[1] == 0
    assert rows.shape == (known.sum(), len(COLUMNS))
    star, candidate = np.nonzero(known)
    np.testing.assert_allclose(
        column(rows, "log_frequency"), np.log10(periods.candidates[star, candidate]), rtol=1e-6
    )
    np.testing.assert_array_equal(column(rows, "place"), candidate)
    np.testing.assert_allclose(column(rows, "r2_4"), periods.explained[star, candidate, 3], rtol=1e-6)
    np.testing.assert_allclose(column(rows, "skew"), known_statistics[star, index_of("skew")], rtol=1e-6)


def test_relatives_by_hand(found):
    """The gain of four harmonics at the candidate next to half the frequency, to an alias …, over its own."""
    periods, known_statistics, _ = found
    rows, known = table(periods, known_statistics, 24)
    gain = -np.log(1 - periods.explained[:, :, 3])
    seen = 0
    for row, (i, c) in zip(rows, np.argwhere(known), strict=True):
        f, listed = periods.candidates[i, c], periods.candidates[i, :24][known[i]]
        baseline = known_statistics[i, index_of("baseline")]
        for name, target, near in (
            ("relative_half", f / 2, 1.2), ("relative_double", 2 * f, 1.2), ("relative_triple", 3 * f, 1.2),
            ("alias_+1.0", f + 1, 2.0), ("alias_-1.0", abs(f - 1), 2.0), ("alias_-0.5", abs(f - 0.5), 2.0),
        ):  # fmt: skip
            distance = np.abs(listed - target) * baseline
            value = row[COLUMNS.index(name)]
            if distance.min() < near:
                assert value == pytest.approx(gain[i, distance.argmin()] / gain[i, c], rel=1e-5)
                seen += 1
            else:
                assert np.isnan(value)
    assert seen > 20


def test_the_curve_of_the_right_candidate(found):
    periods, known_statistics, true = found
    rows, known = table(periods, known_statistics, 24)
    at = [np.flatnonzero(np.argwhere(known)[:, 0] == i)[0] for i in (0, 2)]
    for row, i in zip(rows[at], (0, 2), strict=True):
        assert periods.candidates[i, 0] == pytest.approx(true[i], rel=1e-4)
        value = dict(zip(COLUMNS, row.tolist(), strict=True))
        assert value["share_amplitude_2"] == pytest.approx(0.12 / 0.42, abs=0.02)
        # 0.3 sin φ + 0.12 sin(2φ + 1): φ₂ − 2 φ₁ = (1 − π/2) + 2 · π/2
        assert np.arctan2(value["sin_phase_2"], value["cos_phase_2"]) == pytest.approx(1 + np.pi / 2, abs=0.1)
        phase = np.linspace(0, 2 * np.pi, 400)
        curve = 0.3 * np.sin(phase) + 0.12 * np.sin(2 * phase + 1)
        high, low = curve.max(), curve.min()
        assert 10 ** value["log_range"] == pytest.approx(high - low, rel=0.03)
        assert value["asymmetry"] == pytest.approx((high + low) / (high - low), abs=0.05)
        assert value["odd"] == pytest.approx(0.3**2 / (0.3**2 + 0.12**2), abs=0.03)


def test_rows_do_not_depend_on_their_neighbours(found):
    periods, known_statistics, _ = found
    whole, known = table(periods, known_statistics, 24)
    alone, _ = table(periods.take(slice(2, 3)), known_statistics[2:], 24)
    np.testing.assert_array_equal(alone, whole[np.argwhere(known)[:, 0] == 2])


def test_as_many_statistics_as_light_curves(found):
    with pytest.raises(ValueError, match="statistics of 2 light curves, periods of 3"):
        table(found[0], found[1][:2], 24)


def test_a_binary_is_not_lost_to_an_alias():
    frequency = np.array([[3.0, 0.7, 1.5, 9.0, np.nan]])
    probability = np.array([[0.3, 0.4, 0.35, 0.01, np.nan]])
    # 3.0 and 1.5 share 0.65, the alias has 0.4; then what is most probable
    assert ordered(frequency, probability, np.array([1000.0])).tolist() == [[2, 1, 0, 3, 4]]


def test_without_relatives_the_most_probable_leads():
    frequency = np.array([[3.0, 0.7, 1.5001, 9.0], [np.nan] * 4])
    probability = np.array([[0.3, 0.6, 0.35, 0.01], [np.nan] * 4])
    order = ordered(frequency, probability, np.array([1e6, 1.0]))
    assert order[0].tolist() == [1, 2, 0, 3]
    assert sorted(order[1].tolist()) == [0, 1, 2, 3]
