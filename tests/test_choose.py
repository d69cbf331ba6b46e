"""The learned choice of a period: the model's folder, its training, and what it chooses."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightmill.models import choice as choices
from lightmill.models.folder import BundleError
from lightmill.pipeline.candidates import COLUMNS
from lightmill.pipeline.choose import KEPT, Chosen, Finder, choose
from lightmill.pipeline.features import statistics
from lightmill.pipeline.fit_choice import fit_choice, judged
from lightmill.pipeline.labelled import LabelledError
from lightmill.pipeline.period import search
from lightmill.pipeline.recipe import load_recipe


@pytest.fixture(scope="module")
def shipped() -> choices.Choice:
    return choices.load("period-choice", COLUMNS)


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(choices._folder("period-choice"), tmp_path / "choice")
    return tmp_path / "choice"


def stars(n: int, seed: int, lowest: int = 60):
    """Binaries with unequal minima and pulsators, at night; t, mag, magerr, offsets, periods."""
    rng = np.random.default_rng(seed)
    pieces, periods = [], []
    for k in range(n):
        length = int(rng.integers(lowest, 2 * lowest))
        period = 10 ** rng.uniform(-0.5, 0.5)
        t = np.sort(rng.integers(0, 800, length) + rng.uniform(0.2, 0.5, length))
        phase = (t / period) % 1
        if k % 2:
            mag = 0.4 * np.cos(4 * np.pi * phase) + 0.1 * np.cos(2 * np.pi * phase)
        else:
            mag = 0.8 * phase - 0.8 * np.exp(-((phase - 0.95) ** 2) / 0.002)
        pieces.append((t - t[0], 15 + mag + 0.03 * rng.standard_normal(length), np.full(length, 0.03)))
        periods.append(period)
    t, mag, magerr = (np.concatenate(x) for x in zip(*pieces, strict=True))
    offsets = np.concatenate([[0], np.cumsum([len(p[0]) for p in pieces])])
    return t, mag, magerr, offsets, np.array(periods)


def labelled(path, n=60, seed=0, **columns):
    t, mag, magerr, offsets, period = stars(n, seed)
    lists = {
        name: pa.LargeListArray.from_arrays(offsets, pa.array(values))
        for name, values in (("mjd", t), ("mag", mag), ("magerr", magerr))
    }
    plain = {"id": np.arange(n), "label": ["EW", "RRab"] * (n // 2), "ra": np.zeros(n), "dec": np.zeros(n)}
    pq.write_table(pa.table(plain | lists | {"period": period} | columns), path)
    return path


def test_shares_of_right_periods():
    frequency = 1 / np.array([[1.0, 9.0], [2.02, 1.0], [0.5, 1.0], [7.0, 2.0], [np.nan, np.nan]])
    shares = judged(frequency, np.ones(5), np.array(["a", "a", "a", "b", "b"]))
    assert shares["exact"] == 0.2
    assert shares["factor"] == 0.6  # 2.02 is within 1 % of 2
    assert shares["exact_3"] == 0.6
    assert shares["factor_3"] == 0.8
    assert shares["by_class"]["b"] == {"n": 2, "exact": 0.0, "factor": 0.0}


def test_the_shipped_choice_keeps_the_bar():
    """What its training saw out of fold, on 8,144 real stars."""
    metrics = choices.read_manifest("period-choice").metrics
    assert metrics["n"] > 8000
    assert metrics["choice"]["factor"] >= 0.87
    assert metrics["choice"]["exact"] > metrics["rule"]["exact"] + 0.2


def test_the_choice_lifts_what_is_right(shipped):
    t, mag, magerr, offsets, period = stars(60, seed=7)
    found, known = search(t, mag, magerr, offsets), statistics(t, mag, magerr, offsets)
    chosen = choose(found, known, shipped)
    assert chosen.frequency.shape == chosen.probability.shape == chosen.score.shape == (60, KEPT)
    factor = judged(chosen.frequency, period, np.full(60, "x"))["factor"]
    assert factor >= 0.9
    assert np.nanmin(chosen.probability) >= 0
    assert np.nanmax(chosen.probability) <= 1
    # each of them is a candidate of the search, with its own score
    for i in range(60):
        at = [int(np.flatnonzero(found.candidates[i] == f)[0]) for f in chosen.frequency[i]]
        assert len(set(at)) == KEPT
        np.testing.assert_array_equal(found.score[i, at], chosen.score[i])


def test_a_finder_searches_and_chooses(shipped):
    t, mag, magerr, offsets, _ = stars(6, seed=3)
    known = statistics(t, mag, magerr, offsets)
    found = Finder({"candidates": 30}, shipped)(t, mag, magerr, offsets, known)
    again = choose(search(t, mag, magerr, offsets), known, shipped)
    np.testing.assert_array_equal(found.frequency, again.frequency)
    both = Chosen.joined([found, again])
    assert both.frequency.shape == (12, KEPT)
    assert Chosen.joined([]).score.shape == (0, KEPT)


def test_nothing_to_choose_from(shipped):
    t = np.arange(5.0)
    found = search(t, t, t + 1, np.array([0, 5, 5]))
    chosen = choose(found, statistics(t, t, t + 1, np.array([0, 5, 5])), shipped)
    assert np.isnan(chosen.frequency).all()
    assert np.isnan(chosen.score).all()


def test_few_candidates_are_padded(shipped):
    t, mag, magerr, offsets, _ = stars(3, seed=3)
    found = search(t, mag, magerr, offsets, candidates=1)
    chosen = choose(found, statistics(t, mag, magerr, offsets), shipped)
    assert chosen.frequency.shape == (3, KEPT)
    # a peak, its double, its two aliases, and half of each
    assert np.isnan(chosen.frequency[:, 8:]).all()
    assert np.isfinite(chosen.frequency[:, 0]).all()


@pytest.mark.slow
def test_training_writes_a_choice_that_loads(tmp_path):
    path = labelled(tmp_path / "stars.parquet", n=60)
    metrics = fit_choice(path, load_recipe("ztf-dr"), tmp_path / "made")
    made = choices.load(tmp_path / "made", COLUMNS)
    assert made.manifest.training["labels"]["file"] == "stars.parquet"
    assert metrics["n"] == 60
    assert 0.7 < metrics["choice"]["factor"] <= 1
    assert set(metrics["choice"]["by_class"]) == {"EW", "RRab"}
    with pytest.raises(BundleError, match="is not an empty folder"):
        fit_choice(path, load_recipe("ztf-dr"), tmp_path / "made")


def test_stars_without_periods_teach_nothing(tmp_path):
    path = labelled(tmp_path / "stars.parquet", n=4, period=pa.array([None, np.nan, 0.0, -1.0], pa.float64()))
    with pytest.raises(LabelledError, match="no star has a period"):
        fit_choice(path, load_recipe("ztf-dr"), tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_a_changed_manifest_is_refused(folder):
    raw = json.loads((folder / "choice.json").read_text())
    raw["considered"] = 3
    (folder / "choice.json").write_text(json.dumps(raw))
    with pytest.raises(BundleError, match="it was changed"):
        choices.load(folder, COLUMNS)


@pytest.mark.parametrize("name", ["trees.json.gz", "golden.safetensors"])
def test_a_changed_file_is_refused(folder, name):
    data = bytearray((folder / name).read_bytes())
    data[100] ^= 1
    (folder / name).write_bytes(bytes(data))
    with pytest.raises(BundleError, match="it was changed"):
        choices.load(folder, COLUMNS)


def test_a_missing_file_and_folder_are_named(folder, tmp_path):
    (folder / "trees.json.gz").unlink()
    with pytest.raises(BundleError, match=r"trees\.json\.gz: missing"):
        choices.load(folder, COLUMNS)
    with pytest.raises(BundleError, match=r"no choice of periods .* the one that ships is 'period-choice'"):
        choices.load(tmp_path / "nothing", COLUMNS)


def test_other_columns_are_refused(folder):
    with pytest.raises(BundleError, match="they differ in odd, other: train it anew"):
        choices.load(folder, [name if name != "odd" else "other" for name in COLUMNS])


def test_other_answers_are_refused(folder, monkeypatch):
    real = choices.Choice.probability
    monkeypatch.setattr(choices.Choice, "probability", lambda self, rows: real(self, rows) + 1e-3)
    with pytest.raises(BundleError, match=r"differ by 0\.001 from those when the choice was made"):
        choices.load(folder, COLUMNS)
