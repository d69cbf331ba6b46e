"""Training, end to end on a few made-up stars; and everything that is refused before any work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import binomtest

from lightmill.models.bundle import load, verify
from lightmill.pipeline.examples import Curves
from lightmill.pipeline.fit_gate import vary_for_certain
from lightmill.pipeline.hosts import read_hosts
from lightmill.pipeline.labelled import LabelledError
from lightmill.pipeline.recipe import DmdtTable, Recipe, load_recipe
from lightmill.pipeline.train import train

# a small grid makes a small network, which trains in no time
GRID = DmdtTable(dt_edges=(0, 0.1, 0.3, 1, 3, 10, 40, 1000), dm_edges=(-4, -1, -0.3, -0.1, 0, 0.1, 0.3, 1, 4))

PERIODS = {"EW": 0.35, "RRab": 0.6, "LPV": 200.0, "Blazhko": 0.55}


def labels(path: Path, counts: dict[str, int], *, seed: int = 1, **changes: object) -> Path:
    """A labelled table of stars of well-told amplitudes."""
    rng, rows = np.random.default_rng(seed), []
    for label, n in counts.items():
        for _ in range(n):
            t = np.sort(rng.uniform(53000, 55500, 120))
            period = PERIODS.get(label, 1.0) * rng.uniform(0.9, 1.1)
            size = {"EW": 0.2, "LPV": 1.5}.get(label, 0.6)
            mag = 15 + size * np.sin(2 * np.pi * t / period) + rng.normal(0, 0.03, 120)
            rows.append((label, period, t.tolist(), mag.tolist(), [0.03] * 120))
    label, period, t, mag, magerr = zip(*rows, strict=True)
    n = len(rows)
    columns = {
        "id": [f"s{i}" for i in range(n)], "group": np.arange(n), "label": label, "ra": np.zeros(n), "dec": np.zeros(n),
        "period": period, "mjd": t, "mag": mag, "magerr": magerr,
    }  # fmt: skip
    pq.write_table(pa.table(columns | changes), path)
    return path


def survey(folder: Path, n_stars: int = 24, n_transients: int = 6) -> list[Path]:
    """A file of constant stars and one of supernovae."""
    rng = np.random.default_rng(2)
    t = [np.sort(rng.uniform(58200, 58600, 90)) for _ in range(n_stars)]
    levels = rng.uniform(15, 18, n_stars)
    pq.write_table(
        pa.table(
            {
                "objectid": np.arange(n_stars), "filterid": np.ones(n_stars, int),
                "objra": np.zeros(n_stars), "objdec": np.zeros(n_stars), "hmjd": [x.tolist() for x in t],
                "mag": [(level + rng.normal(0, 0.03, 90)).tolist() for level in levels],
                "magerr": [[0.03] * 90] * n_stars, "catflags": [[0] * 90] * n_stars,
            }
        ),
        folder / "stars.parquet",
    )  # fmt: skip
    hjd = 2458200.5 + np.sort(rng.uniform(0, 200, (n_transients, 60)), axis=1)
    flash = -2.5 * np.exp(-(((hjd - 2458300.5) / 20) ** 2))
    pq.write_table(
        pa.table(
            {
                "oid": np.repeat(np.arange(n_transients), 60), "hjd": hjd.ravel(),
                "mag": (19 + flash + rng.normal(0, 0.05, hjd.shape)).ravel(),
                "magerr": np.full(hjd.size, 0.05), "catflags": np.zeros(hjd.size, int),
                "ZTFID": np.repeat([f"ZTF{i}" for i in range(n_transients)], 60),
                "bts_type": np.repeat("SN Ia", hjd.size), "bts_peakt_jd": np.full(hjd.size, 2458300.5),
            }
        ),
        folder / "transients.parquet",
    )  # fmt: skip
    return [folder / "stars.parquet", folder / "transients.parquet"]


def small(name: str, classes: tuple[str, ...], **changes: object) -> Recipe:
    """A shipped recipe that trains little."""
    recipe = load_recipe(name)
    assert recipe.train is not None
    few = {"classes": classes, "folds": 2, "epochs": 2, "draws": 1, "batch_size": 16, "aliases": {}} | changes
    return recipe.model_copy(update={"train": recipe.train.model_copy(update=few), "dmdt": GRID})


def test_training_without_a_gate(tmp_path: Path):
    table = labels(tmp_path / "labels.parquet", {"EW": 20, "LPV": 20, "Blazhko": 4, "Hump": 3})
    recipe = small("crts-7", ("EW", "LPV", "RRab"), aliases={"Blazhko": "RRab"}, epochs=8)
    lines: list[str] = []
    metrics = train(table, recipe, tmp_path / "crts-7", progress=lines.append)
    assert metrics["n"] == 44
    assert metrics["accuracy"] > 0.7
    assert len(metrics["macro_f1_folds"]) == 2
    assert any("fold 2 of 2: epoch 8 of 8" in line for line in lines)
    bundle = load(tmp_path / "crts-7")
    assert bundle.classes == bundle.leaves == ("EW", "LPV", "RRab")
    assert bundle.metrics == metrics
    np.testing.assert_allclose(bundle.priors, [20 / 44, 20 / 44, 4 / 44])
    assert bundle.manifest.training["left_out"] == {"label Hump": 3}
    assert bundle.manifest.training["labels"]["file"] == "labels.parquet"
    # not the recipe that ships under the name: with that one nobody would get the same bundle
    assert "lightmill train --labels labels.parquet --recipe RECIPE.toml --out BUNDLE" in bundle.card
    assert f"macro-F1 {metrics['macro_f1']:.3f}" in bundle.card


def test_training_with_a_gate(tmp_path: Path):
    table = labels(tmp_path / "labels.parquet", {"EW": 12, "RRab": 12})
    recipe = small("ztf-dr", ("EW", "RRab", "SN_Ia"), aliases={"SN Ia": "SN_Ia"}, epochs=1)
    metrics = train(table, recipe, tmp_path / "ztf-dr", survey=survey(tmp_path))
    assert metrics["n"] == 24 + 6
    gate = metrics["gate"]
    assert gate["recall"] >= 0.98
    assert gate["auc"] > 0.9
    assert gate["real_stars"] == 24
    assert set(gate["controls"]) == {
        "n alone",
        "baseline alone",
        "mean alone",
        "median alone",
        "magerr_median alone",
        "these together",
        "shuffled labels",
    }
    assert gate["pass_rate_real"] == gate["pass_rates_real"]["all"]["rate"]
    assert gate["real_certain"] == {"score": 5.0, "n": 0, "n_enough": 0}
    interval = gate["recall_interval"]
    assert interval["low"] < interval["rate"] == gate["recall"] <= interval["high"]
    assert interval["n"] <= gate["recall_draws"] * metrics["n"]
    # the draws are of the same stars: no narrower than that of one
    one = binomtest(round(interval["n"] / gate["recall_draws"]), round(interval["n"] / gate["recall_draws"]))
    assert interval["low"] <= one.proportion_ci(method="wilson").low + 0.01
    for rate in gate["pass_rates_real"].values():
        if rate["n"]:
            test = binomtest(round(rate["rate"] * rate["n"]), rate["n"])
            assert test.proportion_ci(method="wilson") == pytest.approx((rate["low"], rate["high"]), abs=1e-6)
    recalls = [row["recall"] for row in gate["roc"]]
    assert recalls == sorted(recalls)
    passes = [row["pass_rates"]["all"]["rate"] for row in gate["roc"]]
    assert passes == sorted(passes)
    assert [row["threshold"] for row in gate["roc"] if row["recall"] == 0.98] == [gate["threshold"]]
    assert gate["pass_rate_real"] in passes
    at = gate["recall_at_pass_rate"]["all"]
    assert at["0.05"] <= at["0.1"] <= at["0.2"]
    assert gate["calibration_error"] < 0.05
    assert (
        sum(cell["n"] for row in gate["recall_by_magnitude_and_amplitude"].values() for cell in row.values())
        == (gate["recall_interval"]["n"])
    )
    bundle = load(tmp_path / "ztf-dr")
    assert bundle.leaves == ("nonvar", "EW", "RRab", "SN_Ia")
    assert bundle.threshold == gate["threshold"]
    assert bundle.statistics == tuple(gate["statistics"])
    assert not {"mean", "baseline"} & set(bundle.statistics)
    assert "--survey stars.parquet --survey transients.parquet" in bundle.card
    assert str(tmp_path) not in bundle.card


def test_what_has_a_period_varies_for_certain():
    rng = np.random.default_rng(6)
    parts = []
    for size in (0.3, 0.0, 0.05, 0.0):
        t = np.sort(rng.uniform(0, 400, 80))
        parts.append(
            (t, 17 + size * np.sin(2 * np.pi * t / 0.37) + rng.normal(0, 0.03, 80), np.full(80, 0.03))
        )
    short = rng.uniform(0, 9, 4)
    parts.append((np.sort(short), np.full(4, 17.0), np.full(4, 0.03)))  # too few to search
    assert vary_for_certain(Curves.of(parts)).tolist() == [True, False, True, False, False]


def test_white_noise_seldom_varies_for_certain(data_dir: Path):
    """Real epochs and errors in any order have no period: none of them may be excused as a variable."""
    hosts = read_hosts([data_dir / "ztf_000250_zg_c01_q1_dr5.parquet"], load_recipe("ztf-dr"))
    rng, parts = np.random.default_rng(7), []
    for i in range(0, len(hosts), 4):
        t, mag, error = hosts.one(i)
        order = rng.permutation(len(t))
        parts.append((t, mag[order], error[order]))
    assert not vary_for_certain(Curves.of(parts)).any()


def test_the_same_seed_gives_the_same_folds_and_another_does_not(tmp_path: Path):
    table = labels(tmp_path / "labels.parquet", {"EW": 10, "LPV": 10})
    recipe = small("crts-7", ("EW", "LPV"), epochs=1)
    first, second = (train(table, recipe, tmp_path / name) for name in "ab")
    assert first["confusion"] == second["confusion"]
    assert verify(tmp_path / "a").training["seed"] == 0
    train(table, recipe, tmp_path / "c", seed=5)
    assert verify(tmp_path / "c").training["seed"] == 5


def test_a_gate_needs_a_survey(tmp_path: Path):
    with pytest.raises(ValueError, match=r"Give them with --survey FILE"):
        train(tmp_path / "none.parquet", load_recipe("ztf-dr"), tmp_path / "out")


def test_a_recipe_must_say_how_to_train(tmp_path: Path):
    recipe = load_recipe("crts-7").model_copy(update={"train": None})
    with pytest.raises(ValueError, match=r"recipe 'crts-7' has no table \[train\]"):
        train(tmp_path / "none.parquet", recipe, tmp_path / "out")


def test_an_unknown_class_is_refused_before_any_work(tmp_path: Path):
    with pytest.raises(ValueError, match=r"unknown class 'LVP'.* Did you mean 'LPV'"):
        train(tmp_path / "none.parquet", small("crts-7", ("EW", "LVP")), tmp_path / "out")
    with pytest.raises(ValueError, match="alias 'b' = 'RRd', which is none of the classes EW, LPV"):
        train(
            tmp_path / "none.parquet", small("crts-7", ("EW", "LPV"), aliases={"b": "RRd"}), tmp_path / "out"
        )


def test_one_class_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="trains 1 class"):
        train(tmp_path / "none.parquet", small("crts-7", ("EW",)), tmp_path / "out")
    table = labels(tmp_path / "labels.parquet", {"EW": 10, "Hump": 10})
    with pytest.raises(LabelledError, match="labels are EW, Hump, of which 1 belong"):
        train(table, small("crts-7", ("EW", "LPV")), tmp_path / "out")


def test_a_class_with_too_few_stars_is_refused(tmp_path: Path):
    table = labels(tmp_path / "labels.parquet", {"EW": 10, "LPV": 10, "RRab": 1})
    with pytest.raises(LabelledError, match=r"class 'RRab' has 1 stars .*, 2 folds need"):
        train(table, small("crts-7", ("EW", "LPV", "RRab")), tmp_path / "out")


def test_no_output_over_something_else(tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(ValueError, match="is not an empty folder"):
        train(tmp_path / "none.parquet", load_recipe("crts-7"), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_re_observing_needs_periods(tmp_path: Path):
    counts = {"EW": 4, "RRab": 4}
    table = labels(tmp_path / "labels.parquet", counts, period=[0.3] * 7 + [None])
    with pytest.raises(LabelledError, match="1 of 8 stars have no period"):
        train(table, small("ztf-dr", ("EW", "RRab")), tmp_path / "out", survey=survey(tmp_path))
    assert not (tmp_path / "out").exists()
