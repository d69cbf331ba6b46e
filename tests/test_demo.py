"""The demonstration, smaller than a user's: every step really runs, and a second time nothing is done twice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lightmill.pipeline import demo
from lightmill.pipeline.cli import app


@pytest.mark.slow
def test_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "LIGHT_CURVES", 1500)
    done = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "demo")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "demo" / "report.html").stat().st_size > 10_000
    assert done.stderr.count("$ lightmill") == 6
    assert "report.html" in done.stderr.split("Look at")[1]
    assert "nonvar" in done.stdout


def test_steps_with_a_release_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    commands = demo.steps(tmp_path, "mine")
    assert [arguments[0] for arguments in commands] == ["run", "query", "query", "query", "report"]
    assert commands[0][1] == "mine"


def test_a_simulated_release_is_used_again(tmp_path: Path) -> None:
    (tmp_path / "release").mkdir()
    (tmp_path / "release" / "hats.properties").touch()
    executed: list[str] = []

    def execute(arguments: Sequence[str]) -> None:
        executed.append(arguments[0])

    demo.demo(tmp_path, None, execute, lambda text: None)
    assert executed == ["run", "query", "query", "query", "report"]
