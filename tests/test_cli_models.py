"""`lightmill models`: what is printed where, and exit codes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from program import lightmill
from typer.main import get_command
from typer.testing import CliRunner, Result

from lightmill.models import folder
from lightmill.pipeline.cli import app

CRTS = folder.shipped()["crts-7"]


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIGHTMILL_MODELS", str(tmp_path / "store"))
    return tmp_path / "store"


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["models", *arguments])


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    copy = Path(shutil.copytree(CRTS, tmp_path / "damaged"))
    (copy / "card.md").write_bytes((copy / "card.md").read_bytes()[:-1] + b"!")
    return copy


def test_list() -> None:
    table = invoke("list").stdout.splitlines()
    raw = json.loads((CRTS / folder.MANIFEST).read_text())
    (line,) = [line for line in table if "crts-7" in line]
    assert line.split()[:3] == ["*", "crts-7", raw["digest"][:8]]
    listed = json.loads(invoke("list", "--format", "json").stdout)
    assert {one["name"] for one in listed} >= {"crts-7", "ztf-dr", "period-choice"}
    assert next(one for one in listed if one["name"] == "crts-7")["digest"] == raw["digest"]


def test_show_and_card() -> None:
    raw = json.loads((CRTS / folder.MANIFEST).read_text())
    shown = invoke("show", "crts-7").stdout
    assert raw["digest"] in shown
    assert ", ".join(raw["classes"]) in shown
    assert json.loads(invoke("show", "crts-7", "--format", "json").stdout)["classes"] == raw["classes"]
    assert invoke("card", "crts-7").stdout == (CRTS / "card.md").read_text()


def test_verify(damaged: Path) -> None:
    good = invoke("verify", "crts-7", "period-choice", "--no-golden", "--format", "json")
    assert good.exit_code == 0
    assert [(one["golden"], one["problem"]) for one in json.loads(good.stdout)] == [(False, "")] * 2
    bad = lightmill("models", "verify", "crts-7", str(damaged))
    assert bad.returncode == 1
    assert [line.split()[-1] for line in bad.stdout.splitlines()[1:]] == ["good", "refused"]
    assert bad.stderr.startswith(f"lightmill: {damaged}/card.md: sha256")
    assert bad.stderr.count("\n") == 1


def test_verify_without_names_takes_all() -> None:
    found = json.loads(invoke("verify", "--no-golden", "--format", "json").stdout)
    assert len(found) == len(json.loads(invoke("list", "--format", "json").stdout))


def test_promote_and_undo(root: Path) -> None:
    done = invoke("promote", "crts-7", "--as", "mine")
    assert done.exit_code == 0, done.output
    assert Path(done.stdout.strip()).parent == root
    current = {one["name"]: one for one in json.loads(invoke("list", "--format", "json").stdout)}
    assert (current["mine"]["source"], current["mine"]["current"]) == ("promoted", True)
    assert "mine means no model any more" in invoke("promote", "--undo", "mine").stderr
    assert invoke("promote", "--undo", "mine", "--as", "x").exit_code == 2


def test_errors_are_one_line(damaged: Path, root: Path) -> None:
    for arguments, text in (
        (["promote", str(damaged)], "it was changed"),
        (["promote", "crts-7", "--as", "a/b"], "cannot name a model"),
        (["promote", "--undo", "crts-7"], "never promoted"),
        (["show", "crts-8"], "Did you mean 'crts-7'?"),
    ):
        done = lightmill("models", *arguments)
        assert (done.returncode, done.stdout) == (1, ""), done.stderr
        assert text in done.stderr
        assert done.stderr.count("\n") == 1
    assert not root.exists()


def test_what_only_reads_manifests_does_not_wait_for_keras() -> None:
    code = (
        "import sys; from lightmill.pipeline.cli import app\n"
        "for command in (['list'], ['show', 'ztf-dr'], ['card', 'ztf-dr'], ['verify', 'ztf-dr', '--no-golden']):\n"
        "    app(['models', *command], standalone_mode=False)\n"
        "print(sorted({'tensorflow', 'keras', 'xgboost', 'distributed'} & sys.modules.keys()), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("command", ["list", "show", "verify", "card", "promote"])
def test_each_has_an_example(command: str) -> None:
    group = get_command(app).commands["models"]  # type: ignore[attr-defined]
    assert f"lightmill models {command}" in group.commands[command].help
    assert invoke(command, "--help").exit_code == 0
