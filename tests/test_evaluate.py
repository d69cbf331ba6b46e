"""Evaluation: the keys promised, every row accounted for, and labels that cannot be judged refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightmill.models.bundle import load
from lightmill.models.folder import BundleError, read_manifest
from lightmill.pipeline.answer import answer
from lightmill.pipeline.asking import Asking, finder_of
from lightmill.pipeline.clean import clean
from lightmill.pipeline.evaluate import evaluate, judge, recipe_of
from lightmill.pipeline.features import index_of
from lightmill.pipeline.labelled import LabelledError
from lightmill.pipeline.recipe import DmdtTable, load_recipe

SEVEN = ("EW", "EA", "RRab", "RRc", "RRd", "RS_CVn", "LPV")
KEYS = [
    "n",
    "accuracy",
    "macro_f1",
    "ece",
    "per_class",
    "confusion",
    "rejected",
    "trained_on_these",
    "with_colour",
]


def labels(path: Path, names: list[str], *, epochs: int = 60, seed: int = 1) -> Path:
    rng, n = np.random.default_rng(seed), len(names)
    t = [np.sort(rng.uniform(58000, 58900, epochs)) for _ in names]
    mag = [16 + 0.5 * np.sin(2 * np.pi * x / 0.55) + rng.normal(0, 0.03, epochs) for x in t]
    pq.write_table(
        pa.table(
            {
                "id": [f"s{i}" for i in range(n)], "label": names, "ra": np.zeros(n), "dec": np.zeros(n),
                "mjd": [x.tolist() for x in t], "mag": [m.tolist() for m in mag], "magerr": [[0.03] * epochs] * n,
            }
        ),
        path,
    )  # fmt: skip
    return path


def test_the_keys(tmp_path: Path, tiny_bundle: Path):
    found = evaluate(tiny_bundle, labels(tmp_path / "l.parquet", ["RRab", "EW", "RRab"]))
    assert list(found) == KEYS
    assert found["n"] == 3
    assert found["rejected"] == {}
    assert set(found["per_class"]) == set(SEVEN)
    assert set(found["per_class"]["EW"]) == {"precision", "recall", "f1", "support"}
    assert found["per_class"]["RRab"]["support"] == 2
    assert np.array(found["confusion"]["matrix"]).sum() == 3


def test_answers_are_the_bundles(tmp_path: Path, tiny_bundle: Path):
    path = labels(tmp_path / "l.parquet", ["RRab", "EW", "RRc", "EA"] * 5)
    bundle, table = load(tiny_bundle), pq.read_table(path)
    t, mag, magerr = (
        np.concatenate([np.asarray(x) for x in table.column(name).to_pylist()])
        for name in ("mjd", "mag", "magerr")
    )
    good = clean(t, mag, magerr, np.empty(0, np.int32), np.arange(0, 1201, 60))
    said = answer(good, bundle, Asking(), finder=finder_of(load_recipe("crts-7"))).probabilities
    truth = np.array([bundle.classes.index(name) for name in table.column("label").to_pylist()])
    matrix = np.zeros((7, 7), int)
    np.add.at(matrix, (truth, said.argmax(axis=1)), 1)
    assert evaluate(tiny_bundle, path)["confusion"]["matrix"] == matrix.tolist()


def test_the_recipe_is_that_of_the_training(tiny_bundle: Path):
    found = recipe_of(read_manifest(tiny_bundle))
    assert found.name == "crts-7"
    assert found.science() == load_recipe("crts-7").science()
    # a manifest that tells nothing: the defaults
    bare = read_manifest(tiny_bundle).model_copy(update={"training": {}})
    assert recipe_of(bare).period.mode == "off"


def test_some_experts_alone(tmp_path: Path, tiny_bundle: Path):
    """The recipe's [classes] say who is asked; the image alone needs no period."""
    path, recipe = labels(tmp_path / "l.parquet", ["RRab", "EW", "EA"] * 4), load_recipe("crts-7")
    alone = recipe.model_copy(
        update={
            "classes": recipe.classes.model_copy(update={"experts": ("dmdt",)}),
            "period": recipe.period.model_copy(update={"mode": "off"}),
        }
    )
    whole, image = judge(tiny_bundle, path), judge(tiny_bundle, path, recipe=alone)
    np.testing.assert_array_equal(whole.truth, image.truth)
    assert np.abs(whole.probabilities - image.probabilities).max() > 0.01
    without = recipe.model_copy(update={"period": alone.period})
    with pytest.raises(BundleError, match="needs periods"):
        judge(tiny_bundle, path, recipe=without)
    with pytest.raises(BundleError, match="has 24 dt_edges"):
        judge(tiny_bundle, path, recipe=recipe.model_copy(update={"dmdt": DmdtTable(grid="scope")}))


def test_only_asks_among_these(tmp_path: Path, tiny_bundle: Path):
    path = labels(tmp_path / "l.parquet", ["RRab", "EW", "RRc", "EA", "Hump"] * 4)
    found = evaluate(tiny_bundle, path, only=["EA", "EW"])
    assert found["confusion"]["labels"] == ["EW", "EA"]
    assert found["n"] == 8
    assert found["rejected"] == {"not_asked_for": 12}


def test_labels_are_mapped(tmp_path: Path, tiny_bundle: Path):
    path = labels(tmp_path / "l.parquet", ["RRab", "Blazhko", "EW"])
    found = evaluate(tiny_bundle, path, aliases={"Blazhko": "RRab"})
    assert found["per_class"]["RRab"]["support"] == 2


def test_every_row_is_accounted_for(tmp_path: Path, tiny_bundle: Path):
    many, few = (
        labels(tmp_path / "a.parquet", ["RRab", "EW", "HADS"]),
        labels(tmp_path / "b.parquet", ["EA"] * 2, epochs=10),
    )
    pq.write_table(pa.concat_tables([pq.read_table(many), pq.read_table(few)]), tmp_path / "l.parquet")
    found = evaluate(tiny_bundle, tmp_path / "l.parquet")
    assert found["n"] == 2
    assert found["rejected"] == {"not_in_bundle": 1, "too_few_epochs": 2}


def test_what_is_judged_keeps_its_light_curves(tmp_path: Path, tiny_bundle: Path):
    many, few = (
        labels(tmp_path / "a.parquet", ["RRab", "HADS", "EW"], epochs=60),
        labels(tmp_path / "b.parquet", ["EA", "LPV"], epochs=10),
    )
    table = pa.concat_tables([pq.read_table(few), pq.read_table(many)])
    table = table.set_column(table.schema.get_field_index("ra"), "ra", pa.array([10.0, 20, 30, 40, 50]))
    pq.write_table(table, tmp_path / "l.parquet")
    found = judge(tiny_bundle, tmp_path / "l.parquet")
    assert found.curves.ra.tolist() == [30.0, 50.0]
    assert [found.classes[k] for k in found.truth] == ["RRab", "EW"]
    assert found.probabilities.shape == (2, 7)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1)
    assert found.statistics[:, index_of("n")].tolist() == [60, 60]
    figures = evaluate(tiny_bundle, tmp_path / "l.parquet")
    answer = found.probabilities.argmax(axis=1)
    assert figures["accuracy"] == (answer == found.truth).mean()


def test_with_a_gate_all_leaves_answer(tmp_path: Path, tiny_gated_bundle: Path):
    path = labels(tmp_path / "l.parquet", ["RRab", "nonvar", "EW"])
    found = evaluate(tiny_gated_bundle, path)
    assert found["confusion"]["labels"] == list(load(tiny_gated_bundle).leaves)
    without = evaluate(tiny_gated_bundle, path, only=["RRab", "EW"])
    assert without["n"] == 2
    assert without["confusion"]["labels"] == ["EW", "RRab"]


def test_unknown_labels_are_refused_with_those_known(
    tmp_path: Path, tiny_bundle: Path, tiny_gated_bundle: Path
):
    path = labels(tmp_path / "l.parquet", ["RRab", "Blazhko", "Blazhko"])
    with pytest.raises(
        LabelledError, match=r"unknown labels Blazhko \(2\)\. .*gives EW, EA, RRab.*--map LABEL=CLASS"
    ):
        evaluate(tiny_bundle, path)
    with pytest.raises(LabelledError, match=r"trained with --map Blazhko=RRab"):
        evaluate(tiny_gated_bundle, path)


def test_wrong_arguments_are_named(tmp_path: Path, tiny_bundle: Path):
    path = labels(tmp_path / "l.parquet", ["RRab", "EW"])
    with pytest.raises(
        LabelledError, match=r"'RRAB', which the bundle 'tiny' cannot give. Did you mean 'RRab'"
    ):
        evaluate(tiny_bundle, path, only=["RRAB", "EW"])
    with pytest.raises(
        LabelledError, match="label 'x' is mapped to 'CEP', which the bundle 'tiny' cannot give"
    ):
        evaluate(tiny_bundle, path, aliases={"x": "CEP"})
    with pytest.raises(LabelledError, match="at least two classes"):
        evaluate(tiny_bundle, path, only=["EW"])
    with pytest.raises(LabelledError, match="no light curve has one of the labels EA, LPV"):
        evaluate(tiny_bundle, path, only=["EA", "LPV"])
    with pytest.raises(LabelledError, match=r"no light curve can be used: .*'too_few_epochs': 2"):
        evaluate(tiny_bundle, labels(tmp_path / "short.parquet", ["EW", "EA"], epochs=5))


def test_real_stars(data_dir: Path, tmp_path: Path):
    table = pq.read_table(data_dir / "crts_css_labelled.parquet")
    pq.write_table(table.take(np.arange(0, table.num_rows, 7)), tmp_path / "some.parquet")
    found = evaluate("crts-7", tmp_path / "some.parquet", only=SEVEN)
    assert found["n"] + found["rejected"]["not_asked_for"] == -(-table.num_rows // 7)
    # trained on these stars too: no worse than on those that it had not seen
    assert found["trained_on_these"] is False  # another file
    assert found["macro_f1"] > read_manifest("crts-7").metrics["macro_f1"] - 0.02
    assert found["per_class"]["EA"]["f1"] > 0.85
    assert found["per_class"]["LPV"]["f1"] > 0.85
    # re-observed training carries over to the stars' own light curves
    gated = evaluate("ztf-dr", tmp_path / "some.parquet", only=SEVEN)
    assert gated["accuracy"] > 0.35
