"""The bias audit: every row is in one cell, figures are those of its rows, marks are where there is a reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from lightmill.models.audit import audit as measure
from lightmill.models.folder import read_manifest
from lightmill.models.metrics import expected_calibration_error, summary
from lightmill.pipeline.audit import AuditError, audit
from lightmill.pipeline.cli import app
from lightmill.pipeline.conditions import AXES, EDGES
from lightmill.pipeline.evaluate import evaluate
from lightmill.pipeline.labelled import source_of

CLASSES = ("A", "B", "C")


def answers(rng: np.random.Generator, truth: np.ndarray, right: np.ndarray | float, k: int = 3) -> np.ndarray:
    """Probabilities whose highest is the truth with probability `right`, another class otherwise."""
    hit = rng.random(len(truth)) < right
    answer = np.where(hit, truth, (truth + rng.integers(1, k, len(truth))) % k)
    top = rng.uniform(0.5, 0.95, len(truth))
    p = np.repeat(((1 - top) / (k - 1))[:, None], k, axis=1)
    p[np.arange(len(truth)), answer] = top
    return p


def marked(found: dict[str, Any], axis: str) -> list[str]:
    return [cell["cell"] for cell in found["axes"][axis]["cells"] if cell["accuracy"]["differs"]]


def worse(found: dict[str, Any], axis: str) -> list[tuple[str, str]]:
    """Cells and classes whose recall is marked, and lower than that of the whole."""
    whole = found["whole"]["per_class"]
    return [
        (cell["cell"], name)
        for cell in found["axes"][axis]["cells"]
        for name, row in cell["per_class"].items()
        if row["recall"]["differs"] and row["recall"]["value"] < whole[name]["recall"]["value"]
    ]


# Cells


@given(
    st.lists(st.one_of(st.floats(-5, 5), st.sampled_from([0.0, 1.0, 2.0, np.nan, np.inf, -np.inf])), min_size=1),
    st.lists(st.integers(-3, 3), min_size=1, max_size=4, unique=True),
)  # fmt: skip
def test_every_row_is_in_one_cell(values, edges):
    n, edges = len(values), sorted(edges)
    p = np.tile([0.6, 0.4], (n, 1))
    found = measure(p, np.zeros(n, int), ["A", "B"], {"x": np.array(values)}, {"x": edges})
    cells = found["axes"]["x"]["cells"]
    assert sum(cell["n"] for cell in cells) == n == found["n"]
    ends = [-np.inf, *edges, np.inf]
    for cell, low, high in zip(cells, ends[:-1], ends[1:], strict=False):
        inside = [low <= x < high or (high == np.inf and x == np.inf) for x in values]
        assert cell["n"] == sum(inside)
        assert cell["low"] == (None if low == -np.inf else low)
        assert cell["high"] == (None if high == np.inf else high)
    missing = int(np.isnan(values).sum())
    assert [cell["n"] for cell in cells[len(edges) + 1 :]] == ([missing] if missing else [])


def test_categories_have_a_cell_each():
    p, truth = np.tile([0.6, 0.4], (6, 1)), np.zeros(6, int)
    by = {
        "number": np.array([2.0, 1.0, 2.0, np.nan, 2.0, np.nan]),
        "word": np.array(["r", "g", None, "g", "r", "r"], object),
        "code": np.array([3, 3, 3, 3, 3, 10]),
    }
    axes = measure(p, truth, ["A", "B"], by)["axes"]
    listed = {name: [(cell["cell"], cell["n"]) for cell in axis["cells"]] for name, axis in axes.items()}
    assert listed["number"] == [("1", 1), ("2", 3), ("missing", 2)]
    assert listed["word"] == [("g", 2), ("r", 3), ("missing", 1)]
    assert listed["code"] == [("3", 5), ("10", 1)]


def test_figures_are_those_of_the_cells_rows():
    rng = np.random.default_rng(3)
    truth, x = rng.integers(0, 3, 700), rng.uniform(0, 3, 700)
    p = answers(rng, truth, 0.7)
    found = measure(p, truth, CLASSES, {"x": x}, {"x": [1, 2]})
    for i, cell in enumerate([*found["axes"]["x"]["cells"], found["whole"]]):
        rows = np.floor(x) == i if i < 3 else np.ones(700, bool)
        known, answer = summary(p[rows], truth[rows], CLASSES), p[rows].argmax(axis=1)
        assert cell["n"] == known["n"]
        assert cell["accuracy"]["value"] == pytest.approx(known["accuracy"])
        assert cell["ece"]["value"] == pytest.approx(known["ece"])
        for k, name in enumerate(CLASSES):
            row = cell["per_class"][name]
            assert row["precision"]["value"] == pytest.approx(known["per_class"][name]["precision"])
            assert row["recall"]["value"] == pytest.approx(known["per_class"][name]["recall"])
            assert row["recall"]["n"] == known["per_class"][name]["support"]
            assert row["share_true"]["value"] == pytest.approx((truth[rows] == k).mean())
            assert row["share_predicted"]["value"] == pytest.approx((answer == k).mean())
            assert all(row[key]["low"] <= row[key]["value"] <= row[key]["high"] for key in row)


def test_smallest_and_empty_cells():
    x, y = np.array([0.5] * 5 + [2.5] * 3), np.array(["g"] * 2 + ["r"] * 6)
    found = measure(
        np.tile([0.6, 0.4], (8, 1)), np.zeros(8, int), ["A", "B"], {"x": x, "y": y}, {"x": [1, 2, 3]}
    )
    assert found["axes"]["x"]["smallest"] == {"cell": "2 – 3", "n": 3}
    assert found["smallest"] == {"axis": "y", "cell": "g", "n": 2}
    empty = found["axes"]["x"]["cells"][1]
    assert (empty["cell"], empty["n"], empty["accuracy"]["value"], empty["ece"]["value"]) == (
        "1 – 2",
        0,
        None,
        None,
    )
    assert (empty["accuracy"]["low"], empty["accuracy"]["high"], empty["accuracy"]["differs"]) == (
        0,
        1,
        False,
    )
    json.dumps(found, allow_nan=False)


# Marks


def test_a_worse_cell_is_marked():
    rng = np.random.default_rng(8)
    x, truth = rng.uniform(0, 5, 4000), rng.integers(0, 3, 4000)
    bad = (x >= 3) & (x < 4) & (truth == 1)
    found = measure(
        answers(rng, truth, np.where(bad, 0.5, 0.85)), truth, CLASSES, {"x": x}, {"x": [1, 2, 3, 4]}
    )
    # the others may be marked too, for being better than a rest that holds the bad one
    assert "3 – 4" in marked(found, "x")
    assert worse(found, "x") == [("3 – 4", "B")]
    p = [cell["accuracy"]["p"] for cell in found["axes"]["x"]["cells"]]
    assert int(np.argmin(p)) == 3


def test_the_mix_of_classes_is_no_bias():
    """One class is hard everywhere; the cell that is full of it is no worse than the others."""
    rng = np.random.default_rng(4)
    x = rng.uniform(0, 2, 4000)
    truth = np.where(rng.random(4000) < np.where(x < 1, 0.9, 0.1), 0, 1)
    found = measure(
        answers(rng, truth, np.where(truth == 0, 0.4, 0.95)), truth, CLASSES, {"x": x}, {"x": [1]}
    )
    first, second = found["axes"]["x"]["cells"]
    assert first["accuracy"]["high"] < 0.55 < 0.8 < second["accuracy"]["low"]
    assert marked(found, "x") == []
    for cell in (first, second):
        assert cell["accuracy"]["expected"] == pytest.approx(cell["accuracy"]["value"], abs=0.03)


def test_false_marks_are_as_rare_as_stated():
    rng, any_mark = np.random.default_rng(11), 0
    for _ in range(120):
        truth = rng.integers(0, 3, 300)
        by = {"x": rng.uniform(0, 4, 300), "y": rng.uniform(0, 4, 300)}
        found = measure(
            answers(rng, truth, 0.8), truth, CLASSES, by, {"x": [0.1, 1, 2, 3], "y": [0.5, 1, 2, 3]}
        )
        any_mark += bool(marked(found, "x") + marked(found, "y"))
    # 5 % at most: 12 of 120 would be 2.5 standard deviations more
    assert any_mark < 12


@pytest.mark.parametrize("shift", [0.0, 0.15])
def test_the_interval_of_the_calibration_error_covers(shift):
    rng, covered, runs = np.random.default_rng(2), 0, 150
    for _ in range(runs):
        confidence = rng.uniform(0.55, 0.99, 400)
        p = np.column_stack([confidence, 1 - confidence])
        truth = (rng.random(400) > confidence - shift).astype(int)
        row = measure(p, truth, ["A", "B"], {})["whole"]["ece"]
        covered += row["low"] <= shift <= row["high"]
        assert row["low"] <= expected_calibration_error(p, truth) <= row["high"]
    assert covered > 0.85 * runs


def test_wrong_arguments_are_named():
    p, truth = np.tile([0.6, 0.4], (3, 1)), np.zeros(3, int)
    with pytest.raises(ValueError, match=r"shape \(3, 2\), expected \(3, 3\)"):
        measure(p, truth, CLASSES, {})
    with pytest.raises(ValueError, match="'x' has 2 values for 3 rows"):
        measure(p, truth, ["A", "B"], {"x": np.zeros(2)})
    with pytest.raises(ValueError, match="'y', which is no axis: axes are x"):
        measure(p, truth, ["A", "B"], {"x": np.zeros(3)}, {"y": [1]})
    for edges in ([], [1, 1], [2, 1], [np.nan]):
        with pytest.raises(ValueError, match="numbers that increase"):
            measure(p, truth, ["A", "B"], {"x": np.zeros(3)}, {"x": edges})


# A bundle on light curves


@pytest.fixture(scope="module")
def labels(tmp_path_factory) -> Path:
    """40 light curves with passbands, in the layout of bulk files, of two classes; one is too short."""
    rng, n = np.random.default_rng(6), 40
    epochs = np.where(np.arange(n) == 7, 5, rng.integers(40, 260, n))
    t = [np.sort(rng.uniform(58000, 58900, k)) for k in epochs]
    wave = [rng.uniform(0.02, 0.9) * np.sin(2 * np.pi * x / 0.55) for x in t]
    mag = [m + rng.uniform(14, 20) + rng.normal(0, 0.03, len(m)) for m in wave]
    ra, dec = rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))
    path = tmp_path_factory.mktemp("audit") / "labels.parquet"
    table = {
        "objectid": np.arange(n), "filterid": np.array([1, 2] * (n // 2), np.int8), "objra": ra, "objdec": dec,
        "hmjd": [x.tolist() for x in t], "mag": [x.tolist() for x in mag], "magerr": [[0.03] * k for k in epochs],
        "catflags": [[0] * k for k in epochs], "label": ["RRab", "EW", "RRab", "EA"] * (n // 4),
    }  # fmt: skip
    pq.write_table(pa.table(table), path)
    return path


@pytest.fixture(scope="module")
def found(labels: Path, tiny_bundle: Path) -> dict[str, Any]:
    return audit(tiny_bundle, labels, recipe="ztf-dr")


def cells(found: dict[str, Any], axis: str) -> dict[str, int]:
    return {cell["cell"]: cell["n"] for cell in found["axes"][axis]["cells"]}


def test_it_is_what_evaluate_judges(labels: Path, tiny_bundle: Path, found: dict[str, Any]):
    known = evaluate(tiny_bundle, labels, recipe="ztf-dr")
    assert found["n"] == known["n"] == 39
    assert found["rejected"] == known["rejected"] == {"too_few_epochs": 1}
    assert found["trained_on_these"] is known["trained_on_these"] is False
    assert found["whole"]["accuracy"]["value"] == pytest.approx(known["accuracy"])
    assert found["whole"]["ece"]["value"] == pytest.approx(known["ece"])


def test_cells_of_light_curves(labels: Path, found: dict[str, Any]):
    table = pq.read_table(labels).to_pydict()
    kept = [i for i in range(40) if i != 7]
    assert tuple(found["axes"]) == AXES
    assert cells(found, "band") == {"1": 20, "2": 19}
    mean = np.array([np.mean(table["mag"][i]) for i in kept])  # equal errors: the weighted mean
    assert (
        list(cells(found, "magnitude").values())
        == np.histogram(mean, [-np.inf, *EDGES["magnitude"], np.inf])[0].tolist()
    )
    epochs = [len(table["mag"][i]) for i in kept]
    assert (
        list(cells(found, "epochs").values())
        == np.histogram(epochs, [0, *EDGES["epochs"], np.inf])[0].tolist()
    )
    # the galactic pole of Hipparcos (ESA 1997, section 1.5.3)
    pole = np.radians([192.85948, 27.12825])
    ra, dec = (np.radians([table[name][i] for i in kept]) for name in ("objra", "objdec"))
    sine = np.sin(dec) * np.sin(pole[1]) + np.cos(dec) * np.cos(pole[1]) * np.cos(ra - pole[0])
    b = np.abs(np.degrees(np.arcsin(sine)))
    assert list(cells(found, "b").values()) == np.histogram(b, [0, *EDGES["b"], 91])[0].tolist()


def test_no_bands_no_place(tmp_path: Path, labels: Path, tiny_bundle: Path):
    table = pq.read_table(labels)
    dec = np.where(np.arange(40) == 3, np.nan, table["objdec"].to_numpy())
    table = table.set_column(3, "objdec", pa.array(dec)).set_column(1, "filterid", pa.nulls(40, pa.int8()))
    pq.write_table(table, tmp_path / "l.parquet")
    found = audit(tiny_bundle, tmp_path / "l.parquet", recipe="ztf-dr", by=["band", "b"], edges={"b": [20]})
    assert list(found["axes"]) == ["band", "b"]
    assert cells(found, "band") == {"missing": 39}
    assert cells(found, "b")["missing"] == 1
    assert sum(cells(found, "b").values()) == 39


def test_an_axis_that_is_not_known(labels: Path, tiny_bundle: Path):
    with pytest.raises(AuditError, match="by colour is not known: by magnitude, b, epochs"):
        audit(tiny_bundle, labels, by=["b", "colour"])


def test_real_stars(data_dir: Path, tmp_path: Path):
    table = pq.read_table(data_dir / "crts_css_labelled.parquet")
    pq.write_table(table.take(np.arange(0, table.num_rows, 8)), tmp_path / "some.parquet")
    seven = ("EW", "EA", "RRab", "RRc", "RRd", "RS_CVn", "LPV")
    found = audit("crts-7", tmp_path / "some.parquet", only=seven, by=["amplitude", "band"])
    # accuracy is that of the rows of each cell, whatever else is said of them
    counted = [cell["n"] for cell in found["axes"]["amplitude"]["cells"]]
    assert sum(counted) == found["n"] > 900
    right = sum(
        cell["n"] * cell["accuracy"]["value"] for cell in found["axes"]["amplitude"]["cells"] if cell["n"]
    )
    assert right / found["n"] == pytest.approx(found["whole"]["accuracy"]["value"])
    assert found["whole"]["accuracy"]["value"] > 0.9
    assert cells(found, "band") == {"missing": found["n"]}


class TestCommand:
    def test_table(self, labels: Path, tiny_bundle: Path):
        done = CliRunner().invoke(
            app,
            ["audit", str(tiny_bundle), "--labels", str(labels), "--recipe", "ztf-dr", "--by", "b,band", "--by-class"],
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        assert "by b: smallest cell" in done.stdout
        assert "by magnitude" not in done.stdout
        assert "share predicted" in done.stdout
        assert "Mantel–Haenszel" in done.stdout

    def test_json(self, labels: Path, tiny_bundle: Path, found: dict[str, Any]):
        done = CliRunner().invoke(
            app,
            ["audit", str(tiny_bundle), "--labels", str(labels), "--recipe", "ztf-dr", "--format", "json"],
        )
        assert json.loads(done.stdout) == found

    def test_it_says_when_the_figures_flatter(self, labels: Path, tiny_bundle: Path, tmp_path: Path):
        """With a bundle that remembers this very file."""
        shutil.copytree(tiny_bundle, tmp_path / "bundle")
        manifest = read_manifest(tiny_bundle)
        facts = manifest.training | {"labels": source_of(labels)}
        text = manifest.model_copy(update={"training": facts}).to_json()
        (tmp_path / "bundle" / "bundle.json").write_text(text, encoding="utf-8")
        done = CliRunner().invoke(
            app,
            ["audit", str(tmp_path / "bundle"), "--labels", str(labels), "--recipe", "ztf-dr", "--only", "RRab,EW",
             "--by", "band", "--format", "json"],
        )  # fmt: skip
        assert "trained on this very file: the figures flatter" in done.stderr.replace("\n", " ")
        assert json.loads(done.stdout)["trained_on_these"] is True

    def test_wrong_map(self, labels: Path, tiny_bundle: Path):
        done = CliRunner().invoke(app, ["audit", str(tiny_bundle), "--labels", str(labels), "--map", "RRab"])
        assert done.exit_code == 2
        assert "is not A=B" in done.stderr
