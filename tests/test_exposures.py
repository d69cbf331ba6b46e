"""`pipeline/exposures.py`: nights, visits, depth and flags of fields, and rows in chunks with their exposures."""

from __future__ import annotations

import numpy as np
import pytest

from lightmill.pipeline import exposures as module
from lightmill.pipeline import palomar
from lightmill.pipeline.exposures import exposures, in_chunks
from lightmill.pipeline.sky import FIELD_ORDER, centre
from lightmill.pipeline.survey import FILTERS, NIGHTS, START, survey

FIELDS = range(0, 768, 16)


@pytest.fixture(scope="module", params=[1, 2, 3], ids=FILTERS)
def filterid(request) -> int:
    return request.param


@pytest.fixture(scope="module")
def some(filterid) -> list[module.Exposures]:
    """What a sixteenth of the fields gets in one filter."""
    return [exposures(11, field, filterid) for field in FIELDS]


def test_sorted_and_within_the_survey(some):
    for each in some:
        assert (np.diff(each.t) >= 0).all()
        assert each.t[0] >= START
        assert each.t[-1] < START + NIGHTS + 1
        assert len({len(column) for column in each}) == 1
        assert len(each.t) >= 1


def test_a_field_is_seen_within_reach_of_the_meridian(some):
    ra, dec = centre(FIELD_ORDER, np.arange(768))
    for field, each in zip(FIELDS, some, strict=True):
        if len(each.t) > 1 and dec[field] < 85:  # one: the exposure of a field that never rises
            assert np.abs(palomar.hour_angle(each.t, ra[field])).max() < 6.6


def test_exposures_follow_the_fitted_numbers(some, filterid):
    fit, name = survey()["exposures"], FILTERS[filterid - 1]
    every = module.Exposures(*map(np.concatenate, zip(*some, strict=True)))
    assert every.clrcoeff.mean() == pytest.approx(fit["clrcoeff_mean"][name], abs=0.001)
    assert every.clrcoeff.std() == pytest.approx(fit["clrcoeff_sd"][name], rel=0.05)
    assert every.flagged.mean() == pytest.approx(fit["flagged"], rel=0.1)
    assert np.quantile(every.depth, [0.25, 0.5, 0.75]) == pytest.approx(
        [fit["depth_quantiles"][name][k] for k in (5, 10, 15)], abs=0.05
    )


def test_no_two_fields_and_no_two_filters_are_alike():
    first = [tuple(exposures(11, field, filterid).t[:5]) for field in (5, 6) for filterid in (1, 2, 3)]
    assert len(set(first)) == 6


def test_weather_closes_the_fitted_share_of_nights():
    open_ = np.mean([len(module._clear_nights(seed)) / NIGHTS for seed in range(20)])
    assert open_ == pytest.approx(survey()["cadence"]["clear_nights"], abs=0.02)


def test_chunks_hold_all_rows_with_their_own_exposures(monkeypatch):
    rng = np.random.default_rng(1)
    field, filterid = np.sort(rng.integers(100, 104, 300)), rng.integers(1, 4, 300)
    monkeypatch.setattr(module, "IN_A_CHUNK", 20_000)
    chunks = list(in_chunks(11, field, filterid))
    assert len(chunks) > 3
    rows = [np.arange(300)[chunk.part] for chunk in chunks]
    assert np.concatenate(rows).tolist() == list(range(300))
    for chunk, mine in zip(chunks, rows, strict=True):
        assert (chunk.end - chunk.first).sum() < 20_000 + 2_500  # and one row more
        for k, row in enumerate(mine):
            own = exposures(11, int(field[row]), int(filterid[row]))
            there = slice(chunk.first[k], chunk.end[k])
            assert all(
                (kept[there] == column).all() for kept, column in zip(chunk.exposures, own, strict=True)
            )
