"""A short torture: drivers, workers and a scheduler killed, at random and in the midst of commits (`make torture`)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torture

pytestmark = pytest.mark.slow


def test_nothing_is_lost_doubled_or_computed_twice(tmp_path: Path) -> None:
    release, recipe = torture.target(tmp_path, 90, order=4)
    figures = torture.torture(tmp_path, release, recipe, kills=6, a_round=3, seconds=0.1, seed=5)
    assert figures["light_curves"] == 90
    assert figures["rounds"] == 2
    assert sum(figures["kills"].values()) == 6
