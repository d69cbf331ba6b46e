"""`pipeline/card_audit.py`: what is worse is named and marked, and what is chance is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lightmill.models.audit import audit
from lightmill.models.metrics import summary
from lightmill.pipeline.card_audit import LISTED, audits

CLASSES = ("EW", "RRab")
N = 4000


@pytest.fixture(scope="module")
def metrics() -> dict[str, Any]:
    """Two classes told apart well, but not the RRab of 20 mag; at 15 mag no worse than elsewhere by chance."""
    rng = np.random.default_rng(3)
    y = rng.integers(0, 2, N)
    magnitude = rng.integers(15, 21, N).astype(float)
    right = rng.random(N) < np.where((magnitude == 20) & (y == 1), 0.4, 0.9)
    answer = np.where(right, y, 1 - y)
    p = np.where(np.eye(2)[answer] > 0, 0.9, 0.1)
    by = {"magnitude": magnitude, "b": np.full(N, 50.0), "band": np.full(N, np.nan)}
    edges = {"magnitude": [16, 17, 18, 19, 20], "b": [45]}
    found = audit(p, y, CLASSES, by, edges)
    for axis in found["axes"].values():
        axis["cells"] = [cell for cell in axis["cells"] if cell["n"]]  # as `measure` leaves them
    return summary(p, y, CLASSES) | {"audit": found}


def rows(text: str, cell: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(f"| {cell} |")]


def test_the_worst_are_named_first(metrics: dict[str, Any]):
    text = audits(metrics, gated=False)
    listed = text.split("Worse than elsewhere")[1].split("### By")[0].strip().splitlines()[2:]
    cell = metrics["audit"]["axes"]["magnitude"]["cells"][-1]
    recall, usual = cell["per_class"]["RRab"]["recall"], metrics["per_class"]["RRab"]["recall"]
    assert listed == [
        f"- recall of RRab, magnitude ≥ 20: {recall['value']:.2f} of {recall['n']}, {usual:.2f} expected",
        f"- accuracy, magnitude ≥ 20: {cell['accuracy']['value']:.2f} of {cell['n']}, "
        f"{cell['accuracy']['expected']:.2f} expected",
    ]


def test_marks_have_a_direction(metrics: dict[str, Any]):
    text = audits(metrics, gated=False)
    accuracy, recall, *others = rows(text, "≥ 20")
    assert accuracy.count("▼") == recall.count("▼") == 1
    assert not any("▼" in line or "▲" in line for line in others)
    # all others are better than the rest, of which the bad cell is a part: all that is said of them is in their marks
    for cell in metrics["audit"]["axes"]["magnitude"]["cells"][:-1]:
        (line, *_) = rows(text, cell["cell"])
        assert line.count("▲") == cell["accuracy"]["differs"]
        assert "▼" not in line


def test_an_ece_beyond_chance_is_marked(metrics: dict[str, Any]):
    text = audits(metrics, gated=False)
    cells = metrics["audit"]["axes"]["magnitude"]["cells"]
    marked = [rows(text, cell["cell"])[0].rstrip(" |").endswith("†") for cell in cells]
    assert marked == [cell["ece"]["low"] > 0 for cell in cells]
    assert marked[-1]
    assert not all(marked)


def test_what_is_not_known_is_said(metrics: dict[str, Any]):
    plain, gated = audits(metrics, gated=False), audits(metrics, gated=True)
    for text in (plain, gated):
        assert text.count("Not known of these light curves.") == 1
        assert f"(at most {LISTED})" in text
    assert "The gate is not asked" not in plain
    assert "The gate is not asked" in gated


def test_nothing_is_worse():
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 400)
    p = np.eye(2)[y] * 0.8 + 0.1
    found = audit(p, y, CLASSES, {"b": rng.uniform(0, 90, 400)}, {"b": [20, 60]})
    text = audits(summary(p, y, CLASSES) | {"audit": found}, gated=False)
    assert "(at most 12):\n\n- none\n" in text
    assert text.count("▼") == 1  # where marks are explained
