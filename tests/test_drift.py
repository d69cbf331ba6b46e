"""Drift: indices against their definitions, and of catalogues against the same numbers worked in NumPy."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats.contingency import association
from typer.testing import CliRunner

from lightmill.catalogs.partitions import NotHats, open_hats
from lightmill.models.drift import (
    PERCENTILES,
    bin_edges,
    cohens_d,
    count,
    cramers_v,
    percentiles,
    psi,
    psi_by_chance,
    psi_of_counts,
)
from lightmill.pipeline import drift as module
from lightmill.pipeline.cli import app
from lightmill.pipeline.drift import drift

# Percentiles


@given(st.lists(st.floats(width=32), max_size=60))
def test_percentiles_are_values_and_nothing_is_lost(values):
    found = percentiles(np.array(values, np.float32))
    names = ["max", "p93", "p84", "p69", "p50", "p31", "p16", "p7", "min"]
    assert list(found) == [*names, "n", "nan"]
    numbers = sorted(x for x in values if x == x)
    assert (found["n"], found["nan"]) == (len(numbers), len(values) - len(numbers))
    for name, percent in zip(names, PERCENTILES, strict=True):
        if not numbers:
            assert np.isnan(found[name])
            continue
        # at least so many of 100 are not larger, and it is the least of which that is so
        assert found[name] in numbers
        assert sum(x <= found[name] for x in numbers) * 100 >= percent * len(numbers)
        assert sum(x < found[name] for x in numbers) * 100 <= percent * len(numbers)


def test_percentiles_of_a_normal_distribution_are_half_sigmas_apart():
    found = percentiles(np.random.default_rng(1).normal(0, 1, (200, 1000)))
    steps = [found[name] for name in ("p93", "p84", "p69", "p50", "p31", "p16", "p7")]
    np.testing.assert_allclose(steps, [1.5, 1, 0.5, 0, -0.5, -1, -1.5], atol=0.03)


# Population stability index


def slow_psi(a: list[int], b: list[int]) -> float:
    """Σ (q − p) ln(q / p), half a row in every bin that either has."""
    bins = [(x + 0.5, y + 0.5) for x, y in zip(a, b, strict=True) if x or y]
    n, m = sum(x for x, _ in bins), sum(y for _, y in bins)
    return sum((y / m - x / n) * np.log(y / m / (x / n)) for x, y in bins)


COUNTS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=8).filter(
    lambda rows: all(sum(column) for column in zip(*rows, strict=True))
)


@given(COUNTS)
def test_index_of_counts_is_the_definition(rows):
    a, b = map(list, zip(*rows, strict=True))
    found = psi_of_counts(np.array(a), np.array(b))
    assert found == pytest.approx(slow_psi(a, b), abs=1e-12)
    assert found >= -1e-15
    assert found == pytest.approx(psi_of_counts(np.array(b), np.array(a)), abs=1e-12)


def test_index_of_two_normal_distributions():
    """Of N(0, 1) and N(δ, 1) the divergence is δ²; ten bins see nearly all of it."""
    rng = np.random.default_rng(4)
    a, b = rng.normal(0, 1, 400_000), rng.normal(0.3, 1, 400_000)
    assert 0.8 * 0.09 < psi(a, b) < 0.09
    assert 0.9 * 0.09 < psi(a, b, bins=50) < 0.0925


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0, 3.0, 7.0]), min_size=2, max_size=40))
def test_bins_hold_every_value_once(values):
    edges = bin_edges(np.quantile(values, np.arange(11) / 10, method="inverted_cdf"))
    assert (np.diff(edges) > 0).all()
    counts = count(np.array([*values, np.nan, np.inf]), edges)
    ends = [-np.inf, *edges, np.inf]
    slow = [sum(low < x <= high for x in values) for low, high in pairwise(ends)]
    assert counts.tolist() == [*slow, 2]
    # what a fifth of the rows are has a bin to itself
    for value in set(values):
        if values.count(value) > 0.2 * len(values):
            at = int(np.searchsorted(edges, value))
            assert counts[at] == values.count(value)


def test_a_heap_that_moves_is_seen():
    a = np.zeros(500)
    for b in (np.full(500, -1.0), np.full(500, 1e-9), np.full(500, np.nan)):
        assert psi(a, b) > 5
    assert psi(a, a) == 0
    assert psi(np.full(3, np.nan), np.arange(9.0)) > 1


def test_missing_is_a_bin():
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=5000), rng.normal(size=5000)
    b[: 5000 // 4] = np.nan
    # nine tenths of the index of 0 against 25 % missing, by the definition with two bins
    assert psi(a, b) > slow_psi([5000, 0], [3750, 1250]) * 0.9
    assert psi(a, rng.normal(size=5000)) < 0.01


def test_chance_is_as_stated():
    rng, over = np.random.default_rng(7), 0
    for _ in range(400):
        a, b = rng.multinomial(3000, np.full(10, 0.1)), rng.multinomial(1000, np.full(10, 0.1))
        over += psi_of_counts(a, b) > psi_by_chance(a, b)
    # 5 % of 400 is 20, with a standard deviation of 4.4
    assert 8 <= over <= 33


def test_index_of_nothing_is_refused():
    with pytest.raises(ValueError, match="add up to 0 and 3"):
        psi_of_counts(np.zeros(2), np.array([1, 2]))
    with pytest.raises(ValueError, match=r"\(2,\) and \(3,\) bins"):
        psi_of_counts(np.ones(2), np.ones(3))
    with pytest.raises(ValueError, match="bins is 1"):
        psi(np.ones(3), np.ones(3), bins=1)


# Effect sizes


def test_cohens_d_by_hand():
    a, b = np.array([1.0, 2, 3]), np.array([3.0, 5, 7, 9])
    # pooled variance (2·1 + 3·20/3) / 5 = 4.4
    found = cohens_d(3, a.mean(), a.std(ddof=1), 4, b.mean(), b.std(ddof=1))
    assert found == pytest.approx((6 - 2) / np.sqrt(4.4))
    assert cohens_d(3, 1.0, 0.0, 3, 2.0, 0.0) is None
    assert cohens_d(1, 1.0, 0.0, 3, 2.0, 1.0) is None


@given(COUNTS)
def test_cramers_v_is_that_of_equally_many_rows(rows):
    a, b = (np.array(column) for column in zip(*rows, strict=True))
    both = (a + b) > 0
    if both.sum() < 2:
        assert cramers_v(a, b) == 0
        return
    # each set as often as the other has rows
    table = np.array([a * b.sum(), b * a.sum()])[:, both]
    assert cramers_v(a, b) == pytest.approx(association(table, method="cramer"), abs=1e-9)


# Two catalogues


def rows_of(url: Path) -> pa.Table:
    files = [file for p in open_hats(str(url)).partitions() for file in p.urls]
    return pa.concat_tables([pq.ParquetFile(file).read() for file in files])


@pytest.fixture(scope="module")
def two(tmp_path_factory, write_catalogue) -> tuple[Path, Path]:
    """Of 700 and 300 rows; in the second magnitudes are fainter, and some are not there."""
    folder, rng = tmp_path_factory.mktemp("drift"), np.random.default_rng(9)
    paths = folder / "a", folder / "b"
    for path, n, seed in zip(paths, (700, 300), (1, 2), strict=True):
        write_catalogue(path, rng.uniform(0, 360, n), rng.uniform(-60, 60, n), order=1, seed=seed)
    for p in open_hats(str(paths[1])).partitions():
        for url in p.urls:
            table = pq.ParquetFile(url).read()
            mag = table["mag_mean"].to_numpy() + 1.5
            mag[::5], mag[1::7] = np.nan, np.inf
            at = table.schema.get_field_index("mag_mean")
            table = table.set_column(at, table.schema.field(at), pa.array(mag, pa.float32()))
            pq.write_table(table, url)
    return paths


@pytest.fixture(scope="module")
def found(two: tuple[Path, Path]) -> dict[str, Any]:
    return drift(*map(str, two))


def test_columns_as_numpy_has_them(two: tuple[Path, Path], found: dict[str, Any]):
    a, b = map(rows_of, two)
    assert (found["a"]["rows"], found["b"]["rows"]) == (700, 300)
    for name, row in found["columns"].items():
        x, y = (np.asarray(table[name].to_numpy(), np.float64) for table in (a, b))
        assert row["psi"] == pytest.approx(psi(x, y), abs=1e-12), name
        for side, values in (("a", x), ("b", y)):
            numbers = values[np.isfinite(values)]
            assert (row[side]["n"], row[side]["missing"]) == (len(numbers), len(values) - len(numbers))
            if len(numbers) == 0:
                assert row[side]["percentiles"] is row[side]["mean"] is None
                continue
            known = percentiles(numbers)
            assert row[side]["percentiles"] == {key: known[key] for key in row[side]["percentiles"]}
            assert row[side]["mean"] == pytest.approx(numbers.mean())
            assert row[side]["std"] == pytest.approx(numbers.std(ddof=1))
    assert list(found["columns"])[:4] == ["n_good", "baseline", "mag_mean", "amplitude"]
    assert {"p_nonvar", "p_EW", "p_RRab", "p_SN_Ia"} < set(found["columns"])


def test_what_changed_is_said(found: dict[str, Any]):
    assert found["columns"]["mag_mean"]["change"] == "much"
    assert found["columns"]["mag_mean"]["d"] == pytest.approx(1.5 / np.sqrt(64 / 12), abs=0.2)
    assert found["columns"]["amplitude"]["change"] in ("none", "little")
    assert found["columns"]["novelty"]["change"] == "none"  # null in both
    json.dumps(found, allow_nan=False)


def test_classes_are_those_of_the_rows(two: tuple[Path, Path], found: dict[str, Any]):
    for side, path in zip("ab", two, strict=True):
        names, n = np.unique(rows_of(path)["best_class"].to_pylist(), return_counts=True)
        assert found["classes"][side] == dict(zip(names.tolist(), n.tolist(), strict=True))
    counts = [[found["classes"][side].get(name, 0) for name in found["classes"]["a"]] for side in "ab"]
    assert found["classes"]["v"] == pytest.approx(cramers_v(*counts))
    assert found["classes"]["psi"] == pytest.approx(slow_psi(*counts))


def test_a_catalogue_has_not_drifted_from_itself(two: tuple[Path, Path]):
    same = drift(str(two[1]), str(two[1]))
    assert {row["psi"] for row in same["columns"].values()} == {0.0}
    # means differ in their last digits with the thread that was first
    assert all(abs(row["d"] or 0.0) < 1e-12 for row in same["columns"].values())
    assert (same["classes"]["psi"], same["classes"]["v"]) == (0.0, 0.0)


def test_many_rows_are_sampled_for_quantiles_alone(
    two: tuple[Path, Path], found: dict[str, Any], monkeypatch
):
    monkeypatch.setattr(module, "SAMPLE", 100)
    some, again = drift(*map(str, two)), drift(*map(str, two))
    for name, row in some["columns"].items():
        assert row["psi"] == again["columns"][name]["psi"]
        assert row["a"]["percentiles"] == again["columns"][name]["a"]["percentiles"]
    for name in ("baseline", "amplitude", "p_EW"):
        few, all_ = some["columns"][name]["a"], found["columns"][name]["a"]
        for key in ("n", "missing"):
            assert few[key] == all_[key]
        for key in ("mean", "std"):
            assert few[key] == pytest.approx(all_[key])
        assert few["percentiles"]["max"] == all_["percentiles"]["max"]
        assert few["percentiles"]["p50"] != all_["percentiles"]["p50"]
        assert few["percentiles"]["p50"] == pytest.approx(all_["percentiles"]["p50"], rel=0.5)
    assert some["columns"]["mag_mean"]["change"] == "much"


def test_columns_that_one_does_not_have(two: tuple[Path, Path], tmp_path: Path, write_catalogue):
    other = tmp_path / "other"
    shutil.copytree(two[1], other)
    (table_of,) = (other / "versions").glob("*/objects")
    for path in [*table_of.rglob("Npix=*.parquet"), *table_of.rglob("_common_metadata")]:
        table = pq.ParquetFile(path).read().drop_columns(["p_EW", "novelty"])
        pq.write_table(table, path)
    found = drift(str(two[0]), str(other))
    assert (found["only_a"], found["only_b"]) == (["novelty", "p_EW"], [])
    assert "p_EW" not in found["columns"]


def test_what_is_no_catalogue(two: tuple[Path, Path], tmp_path: Path, tiny_release: Path):
    with pytest.raises(NotHats):
        drift(str(two[0]), str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match="is not a classification catalogue"):
        drift(str(tiny_release), str(two[0]))


class TestCommand:
    def test_table(self, two: tuple[Path, Path]):
        done = CliRunner().invoke(app, ["drift", *map(str, two)])
        assert done.exit_code == 0, done.output
        lines = [line.split() for line in done.stdout.splitlines() if line]
        at = next(i for i, words in enumerate(lines) if words[0] == "column")
        # what drifted most comes first
        assert lines[at + 1][0] == "mag_mean"
        assert lines[at + 1][3] == "much"
        assert "population stability index" in done.stdout

    def test_json(self, two: tuple[Path, Path], found: dict[str, Any]):
        done = CliRunner().invoke(app, ["drift", *map(str, two), "--format", "json"])
        told = json.loads(done.stdout)
        assert list(told) == list(found)
        assert told["classes"] == found["classes"]
        for name, row in told["columns"].items():
            # sums differ in their last digits with the thread that was first
            assert row["psi"] == found["columns"][name]["psi"]
            assert row["d"] == pytest.approx(found["columns"][name]["d"])
