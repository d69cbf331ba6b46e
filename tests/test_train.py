"""Training, end to end on a few made-up stars; and everything that is refused before any work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import binomtest

from lightmill.models.bundle import load, verify
from lightmill.models.folder import read_manifest
from lightmill.pipeline.curves import Curves
from lightmill.pipeline.evaluate import evaluate, recipe_of
from lightmill.pipeline.fit_gate import vary_for_certain
from lightmill.pipeline.hosts import read_hosts
from lightmill.pipeline.labelled import LabelledError
from lightmill.pipeline.recipe import DmdtTable, NetworkTable, Recipe, TreesTable, load_recipe
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


TREES = {"trees": TreesTable(rounds=5, leaves=6)}
FOLDED = NetworkTable(architecture="folded", epochs=1, batch_size=16, parameters={"dense": 8})
DMDT = NetworkTable(architecture="dmdt", epochs=2, batch_size=16, parameters={"dense": 8})
PAPER = NetworkTable(
    architecture="mahabal2017", normalisation="paper", epochs=2, batch_size=16, parameters={"dense": 8, "scale": 1.0},
    reference=True,
)  # fmt: skip
IMAGE = {"trees": {}, "networks": {"dmdt": DMDT}}  #: one expert, which needs no period


def small(name: str, classes: tuple[str, ...], *, period: str = "on", **changes: object) -> Recipe:
    """A shipped recipe that trains little."""
    recipe = load_recipe(name)
    assert recipe.train is not None
    few = {
        "classes": classes, "folds": 2, "draws": 2, "aliases": {}, "leave_out": (), "trees": TREES,
        "networks": {"folded": FOLDED, "dmdt": DMDT},
    } | changes  # fmt: skip
    return recipe.model_copy(
        update={
            "train": recipe.train.model_copy(update=few), "dmdt": GRID,
            "period": recipe.period.model_copy(update={"mode": period}),
        }
    )  # fmt: skip


def check_audits(card: str, audit: dict, classes: tuple[str, ...]) -> None:
    """The card has a table by each axis: accuracy and calibration of each cell, and figures of each class."""
    _, section = card.split("## Audits")
    parts = section.split("### By ")[1:]
    assert len(parts) == len(audit["axes"]) == 5
    for part, axis in zip(parts, audit["axes"].values(), strict=True):
        if [cell["cell"] for cell in axis["cells"]] == ["missing"]:
            continue
        assert f"Smallest cell: {axis['smallest']['cell']}, n {axis['smallest']['n']}." in part
        assert part.count(f"|  | {' | '.join(classes)} |") == 3
        for cell in axis["cells"]:
            rows = [line for line in part.splitlines() if line.startswith(f"| {cell['cell']} |")]
            assert len(rows) == 4
            accuracy = cell["accuracy"]
            assert f"{accuracy['value']:.3f} ({accuracy['low']:.3f}–{accuracy['high']:.3f})" in rows[0]
            for line, measure in zip(rows[1:], ("recall", "precision", "share_predicted"), strict=True):
                for name, text in zip(classes, line.split(" | ")[1:], strict=True):
                    found = cell["per_class"][name]
                    value, n = found[measure]["value"], found[measure]["n"]
                    if measure == "share_predicted":
                        assert text.startswith(f"{value:.2f} (")
                        assert f"); {found['share_true']['value']:.2f}" in text
                    else:
                        assert text.startswith("" if value is None else f"{value:.2f} of {n} (")


def test_light_curves_as_they_are(tmp_path: Path):
    """All experts, a reference beside them, and everything that the bundle and its card say."""
    table = labels(tmp_path / "labels.parquet", {"EW": 20, "LPV": 20, "Blazhko": 4, "Hump": 3})
    recipe = small(
        "crts-7", ("EW", "LPV", "RRab"), aliases={"Blazhko": "RRab"}, leave_out=("Hump",),
        networks={"folded": FOLDED, "dmdt": DMDT, "paper": PAPER},
    )  # fmt: skip
    lines: list[str] = []
    metrics = train(table, recipe, tmp_path / "crts-7", progress=lines.append)
    assert metrics["n"] == 44
    assert metrics["accuracy"] > 0.8  # the trees alone know the periods
    assert len(metrics["macro_f1_folds"]) == 2
    assert any("dmdt, fold 2 of 2: epoch 2 of 2" in line for line in lines)
    assert any("dmdt, final fit: epoch 2 of 2" in line for line in lines)
    assert not any("paper, final fit" in line for line in lines)  # a reference answers nothing
    bundle = load(tmp_path / "crts-7")
    assert bundle.classes == bundle.leaves == ("EW", "LPV", "RRab")
    assert bundle.metrics == metrics
    np.testing.assert_allclose(bundle.priors, [20 / 44, 20 / 44, 4 / 44])
    manifest = bundle.manifest
    assert manifest.names == ("trees", "folded", "dmdt")
    assert set(manifest.combiners) == {
        "trees", "folded", "dmdt", "folded+trees", "dmdt+trees", "dmdt+folded", "dmdt+folded+trees",
    }  # fmt: skip
    assert manifest.novelty == ("folded", "dmdt")
    assert manifest.period is not None
    assert manifest.period.limits == recipe.period.limits()
    assert not {"mean", "median", "n", "baseline", "magerr_median"} & set(manifest.features)
    assert set(metrics["experts"]) == {"trees", "folded", "dmdt", "paper"}
    assert [name for name, row in metrics["experts"].items() if row["reference"]] == ["paper"]
    assert set(metrics["adds"]) == {"trees", "folded", "dmdt"}
    assert manifest.training["left_out"] == {"label Hump": 3}
    assert metrics["strangers"]["Hump"]["n"] == 3
    assert 0 <= metrics["strangers"]["Hump"]["auc"] <= 1
    assert manifest.training["labels"]["file"] == "labels.parquet"
    # the card has every section, and the figures are those measured
    for part in (
        "## How right it is", "## The experts", "## Where it ends", "`mahabal2017`, for comparison only",
        f"macro-F1 {metrics['macro_f1']:.3f}", "What each adds to the others", "| RRab |",
        "Left out of the labels: 3 × label Hump",
        # not the recipe that ships under the name: with that one nobody would get the same bundle
        "lightmill train --labels labels.parquet --recipe RECIPE.toml --seed 0 --out BUNDLE",
    ):  # fmt: skip
        assert part in bundle.card, part
    assert "## The gate" not in bundle.card
    check_audits(bundle.card, metrics["audit"], manifest.classes)
    assert (
        "### By passband (its number; of ZTF 1 is g, 2 r, 3 i)\n\nNot known of these light curves."
        in bundle.card
    )
    assert [cell["n"] for cell in metrics["audit"]["axes"]["b"]["cells"]] == [44]  # all of one place
    assert str(tmp_path) not in bundle.card
    # and it can be asked with the recipe that it remembers
    assert recipe_of(manifest).science() == recipe.science()
    found = evaluate(tmp_path / "crts-7", table, aliases={"Blazhko": "RRab"}, only=["EW", "LPV", "RRab"])
    assert found["n"] == 44
    assert found["trained_on_these"]


def test_stars_re_observed_behind_a_gate(tmp_path: Path):
    table = labels(tmp_path / "labels.parquet", {"EW": 12, "RRab": 12})
    recipe = small("ztf-dr", ("EW", "RRab", "SN_Ia"), aliases={"SN Ia": "SN_Ia"})
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
        "n and median",
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
    assert gate["few_epochs"] is None or gate["pass_rate_real"] <= 0.1
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
    few = bundle.manifest.gate.few
    assert (few.model_dump() if few else None) == gate["few_epochs"]
    assert bundle.statistics == tuple(gate["statistics"])
    assert not {"mean", "baseline"} & set(bundle.statistics)
    assert 0 < metrics["passed"]["n"] <= 30
    assert "transients" in metrics["adds"]["trees"]
    assert metrics["adds"]["trees"]["transients"]["n"] == 6
    for part in ("## How right it is", "## The experts", "## The gate", "## Where it ends"):
        assert part in bundle.card
    check_audits(bundle.card, metrics["audit"], bundle.classes)
    # the band is the host's: stars of the survey in band 1, of the table of epochs nothing is known
    band = {cell["cell"]: cell["n"] for cell in metrics["audit"]["axes"]["band"]["cells"]}
    assert band["0"] >= 6
    assert sum(band.values()) == 30
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


def test_the_image_alone_needs_no_period(tmp_path: Path):
    table = labels(tmp_path / "labels.parquet", {"EW": 10, "LPV": 10}, period=pa.nulls(20, pa.float64()))
    metrics = train(table, small("crts-7", ("EW", "LPV"), period="off", **IMAGE), tmp_path / "out")
    manifest = read_manifest(tmp_path / "out")
    assert manifest.period is None
    assert (manifest.features, manifest.names, manifest.needs()) == ((), ("dmdt",), ("image:count",))
    assert metrics["adds"] == {}  # there is no other to add to
    load(tmp_path / "out")


def test_two_classes_by_trees_alone(tmp_path: Path):
    table = labels(tmp_path / "labels.parquet", {"EW": 30, "LPV": 30})
    metrics = train(table, small("crts-7", ("EW", "LPV"), networks={}), tmp_path / "out")
    assert metrics["accuracy"] > 0.9
    assert load(tmp_path / "out").parts.novelty is None


def test_the_same_seed_gives_the_same_bundle_and_another_does_not(tmp_path: Path):
    table = labels(tmp_path / "labels.parquet", {"EW": 10, "LPV": 10, "RRab": 10})
    recipe = small("crts-7", ("EW", "LPV", "RRab"), networks={"dmdt": DMDT})
    first, second = (train(table, recipe, tmp_path / name) for name in "ab")
    assert first == second
    one, two = (verify(tmp_path / name) for name in "ab")
    assert one.files == two.files
    assert (one.training["seed"], one.combiners) == (0, two.combiners)
    train(table, small("crts-7", ("EW", "LPV", "RRab"), networks={}), tmp_path / "c", seed=5)
    other = verify(tmp_path / "c")
    assert other.training["seed"] == 5
    assert other.files["trees.json.gz"] != one.files["trees.json.gz"]


def test_what_is_out_of_fold_knows_nothing_of_its_star(tmp_path: Path):
    """Classes drawn by lot for each star, of which there are four copies: whoever has seen a copy knows the class."""
    stars, copies = 40, 4
    table = labels(tmp_path / "labels.parquet", {"EW": stars // 2, "LPV": stars // 2}, seed=3)
    data = pq.read_table(table)
    lot = np.random.default_rng(5).permutation(np.repeat(["EW", "LPV"], stars // 2))
    wave = pq.read_table(labels(tmp_path / "same.parquet", {"RRab": stars}, seed=4)).drop_columns(["label"])
    rows = pa.array(np.tile(np.arange(stars), copies))
    many = wave.append_column("label", pa.array(lot)).take(rows)
    many = many.set_column(
        many.schema.get_field_index("id"), "id", pa.array([f"c{i}" for i in range(len(many))])
    )
    assert set(many.column_names) == set(data.column_names)
    recipe = small(
        "crts-7", ("EW", "LPV"), trees={"trees": TreesTable(rounds=40, leaves=12)},
        networks={"dmdt": DMDT.model_copy(update={"epochs": 4})},
    )  # fmt: skip
    pq.write_table(many, tmp_path / "grouped.parquet")
    metrics = train(tmp_path / "grouped.parquet", recipe, tmp_path / "grouped")
    # 40 coins: 3.5 standard deviations are 0.28
    assert metrics["accuracy"] < 0.5 + 0.28
    for row in metrics["experts"].values():
        assert row["accuracy"] < 0.5 + 0.28
    # the same without the groups, so that this test could fail: the trees learn them by heart
    loose = many.set_column(many.schema.get_field_index("group"), "group", pa.array(np.arange(len(many))))
    pq.write_table(loose, tmp_path / "loose.parquet")
    again = train(tmp_path / "loose.parquet", recipe.model_copy(
        update={"train": recipe.train.model_copy(update={"networks": {}, "folds": 4})}
    ), tmp_path / "loose")  # fmt: skip
    assert again["accuracy"] > 0.9


# What is refused before any work


def refused(tmp_path: Path, table: Path, recipe: Recipe, message: str, **more: object) -> None:
    """Nothing is said about work, and nothing is written."""
    lines: list[str] = []
    with pytest.raises(ValueError, match=message):
        train(table, recipe, tmp_path / "out", progress=lines.append, **more)
    assert not (tmp_path / "out").exists()
    assert not any("fold" in line or "hosts" in line for line in lines)


def test_a_gate_needs_a_survey(tmp_path: Path):
    refused(tmp_path, tmp_path / "none.parquet", load_recipe("ztf-dr"), r"Give them with --survey FILE")


def test_a_recipe_must_say_how_to_train(tmp_path: Path):
    recipe = load_recipe("crts-7").model_copy(update={"train": None})
    refused(tmp_path, tmp_path / "none.parquet", recipe, r"recipe 'crts-7' has no table \[train\]")


def test_unknown_classes_of_the_recipe(tmp_path: Path):
    table = tmp_path / "none.parquet"
    refused(tmp_path, table, small("crts-7", ("EW", "LVP")), r"unknown class 'LVP'.* Did you mean 'LPV'")
    wrong = small("crts-7", ("EW", "LPV"), aliases={"b": "RRd"})
    refused(tmp_path, table, wrong, "alias 'b' = 'RRd', which is none of the classes EW, LPV")


def test_unknown_labels_of_the_table(tmp_path: Path):
    table = labels(tmp_path / "labels.parquet", {"EW": 4, "LPV": 4, "RRAB": 2, "Humpf": 1})
    recipe = small("crts-7", ("EW", "LPV", "RRab"))
    refused(
        tmp_path, table, recipe,
        r"unknown labels Humpf \(1\)(?! Did).*, RRAB \(2\) Did you mean 'RRab'\?\. "
        "The recipe's classes are EW, LPV, RRab: rename labels in .*aliases, or list them in leave_out",
    )  # fmt: skip
    some = small("crts-7", ("EW", "LPV", "RRab"), aliases={"RRAB": "RRab"})
    refused(tmp_path, table, some, r"unknown labels Humpf \(1\)")


def test_labels_that_are_left_out_and_none(tmp_path: Path):
    table = labels(tmp_path / "labels.parquet", {"EW": 8, "LPV": 8, "Hump": 2, "gone": 3})
    data = pq.read_table(table)
    label = pa.array([None if name == "gone" else name for name in data.column("label").to_pylist()])
    pq.write_table(data.set_column(data.schema.get_field_index("label"), "label", label), table)
    recipe = small("crts-7", ("EW", "LPV"), leave_out=("Hump", "Blazhko"), period="off", **IMAGE)
    assert train(table, recipe, tmp_path / "out")["n"] == 16
    assert read_manifest(tmp_path / "out").training["left_out"] == {"label Hump": 2, "label missing": 3}


def test_one_class(tmp_path: Path):
    refused(tmp_path, tmp_path / "none.parquet", small("crts-7", ("EW",)), "trains 1 class")
    table = labels(tmp_path / "labels.parquet", {"EW": 10, "Hump": 10})
    recipe = small("crts-7", ("EW", "LPV"), leave_out=("Hump",))
    refused(tmp_path, table, recipe, "labels are EW, Hump, of which 1 belong")


def test_a_class_with_too_few_stars(tmp_path: Path):
    table = labels(tmp_path / "labels.parquet", {"EW": 10, "LPV": 10, "RRab": 1})
    recipe = small("crts-7", ("EW", "LPV", "RRab"))
    refused(tmp_path, table, recipe, r"class 'RRab' has 1 stars .*, 2 folds need")
    # four light curves of one star are one star
    group = [*range(20), 20, 20, 20, 20]
    table = labels(tmp_path / "labels.parquet", {"EW": 10, "LPV": 10, "RRab": 4}, group=group)
    refused(tmp_path, table, recipe, r"class 'RRab' has 1 stars .*, 2 folds need")


def test_light_curves_that_are_too_short(tmp_path: Path):
    """All of them, and all of one class."""
    table = labels(tmp_path / "labels.parquet", {"EW": 6, "LPV": 6})
    data = pq.read_table(table).to_pydict()
    for n, message in (
        (12, "class 'EW' has 0 stars that can be used"),
        (6, "class 'EW' has 0 stars that can be used"),
    ):
        short = {
            name: [x[:9] if i < n else x for i, x in enumerate(values)] if name in ("mjd", "mag", "magerr") else values
            for name, values in data.items()
        }  # fmt: skip
        pq.write_table(pa.table(short), tmp_path / "short.parquet")
        refused(tmp_path, tmp_path / "short.parquet", small("crts-7", ("EW", "LPV")), message)


@pytest.mark.parametrize(
    "experts", [{"networks": {"dmdt": DMDT}}, {"trees": {}, "networks": {"folded": FOLDED}}]
)
def test_trees_and_folded_curves_need_periods(tmp_path: Path, experts: dict[str, object]):
    recipe = small("crts-7", ("EW", "LPV"), period="off", **experts)
    refused(
        tmp_path,
        tmp_path / "none.parquet",
        recipe,
        r'has \[period\] mode = "off", but trains trees or folded',
    )


def test_a_network_that_cannot_be_built(tmp_path: Path):
    for parameters in ({"depth": 3}, {"dense": -1}):
        wrong = {"dmdt": DMDT.model_copy(update={"parameters": parameters})}
        recipe = small("crts-7", ("EW", "LPV"), networks=wrong)
        refused(tmp_path, tmp_path / "none.parquet", recipe, "architecture 'dmdt'")


def test_a_choice_of_periods_that_is_not_there(tmp_path: Path):
    table, recipe = labels(tmp_path / "labels.parquet", {"EW": 4, "LPV": 4}), small("crts-7", ("EW", "LPV"))
    gone = recipe.model_copy(update={"period": recipe.period.model_copy(update={"choice": "nowhere"})})
    refused(tmp_path, table, gone, "no choice of periods 'nowhere'")


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
