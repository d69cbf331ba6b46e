"""`pipeline/cli_publish.py` and `pipeline/publishing.py`: what the commands print, refuse and leave behind."""

from __future__ import annotations

import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from lightmill.catalogs.publish import PublishError
from lightmill.catalogs.runfolder import CatalogueFolder, NotAnOutput
from lightmill.catalogs.versions import current
from lightmill.pipeline import cli_publish
from lightmill.pipeline.publishing import find_runs, publish_runs

app = typer.Typer()
cli_publish.register(app)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def catalogue(tmp_path, make_rows, write_run):
    """Two runs, nothing published."""
    rng = np.random.default_rng(1)
    places = rng.uniform(0, 20, 30), rng.uniform(0, 20, 30)
    for number, letter in ((1, "f"), (2, "e")):
        write_run(
            tmp_path / "c", make_rows(*places, seed=number), run_id=f"{number}", fingerprint=letter * 64
        )
    return tmp_path / "c"


def test_publish_list_go_back_and_retract(catalogue):
    first = invoke("publish", catalogue / "runs" / "1", "--format", "json")
    assert first.exit_code == 0
    facts = json.loads(first.stdout)
    assert (facts["version"], facts["current"], facts["runs"], facts["rows"]) == ("v1", True, ["1"], 30)
    second = invoke("publish", catalogue, "--name", "dr2", "--not-current", "--margin", "0", "--deep")
    assert second.exit_code == 0
    assert "dr2" in second.stdout
    listed = json.loads(invoke("versions", catalogue, "--format", "json").stdout)
    assert [(v["version"], v["current"]) for v in listed["versions"]] == [("v1", True), ("dr2", False)]
    assert "dr2" in invoke("versions", catalogue).stdout
    assert invoke("versions", catalogue, "--make-current", "dr2").exit_code == 0
    assert current(CatalogueFolder(catalogue)).name == "dr2"
    assert invoke("versions", catalogue, "--make-current", "v1").exit_code == 0
    assert isinstance(invoke("retract", catalogue, "v1", "--reason", "x").exception, PublishError)
    assert "without a reason" in str(invoke("retract", catalogue, "v1", "--reason", " ").exception)
    gone = invoke("retract", catalogue, "v1", "--reason", "wrong", "--current", "dr2", "--format", "json")
    assert json.loads(gone.stdout) == {
        "catalogue": str(catalogue), "retracted": "v1", "reason": "wrong", "current": "dr2",
    }  # fmt: skip
    assert "wrong" in invoke("versions", catalogue).stdout


def test_wrong_use(catalogue):
    assert invoke("publish", catalogue, "--margin", "wide").exit_code == 2
    assert invoke("publish", catalogue, "--min-complete", "2").exit_code == 2
    for command in ("publish", "versions", "retract"):
        assert "Example:" in invoke(command, "--help").stdout


def test_damaged_records(catalogue, tmp_path):
    assert "no such folder" in str(invoke("versions", tmp_path / "nowhere").exception)
    run = CatalogueFolder(catalogue).run("1")
    run.seal()
    whole = run.index.read_bytes()
    run.index.write_bytes(b"junk")
    with pytest.raises(
        NotAnOutput, match=r"receipts\.parquet cannot be read .*remove it, and the single receipts"
    ):
        run.read_receipts()
    run.index.unlink()
    assert invoke("publish", run.root).exit_code == 0  # as it was told
    run.index.write_bytes(whole)
    run.record.write_bytes(b"")
    assert "move the folder away" in str(invoke("publish", run.root).exception)


def test_which_runs(catalogue, tmp_path, make_rows, write_run):
    assert [run.run_id for run in find_runs([str(catalogue)])] == ["2", "1"]
    assert [run.run_id for run in find_runs([str(catalogue / "runs" / "1"), str(catalogue)])] == ["1", "2"]
    with pytest.raises(NotAnOutput, match="neither a run"):
        find_runs([str(tmp_path / "nothing")])
    other = write_run(tmp_path / "d", make_rows(np.array([1.0]), np.array([1.0])))
    with pytest.raises(PublishError, match="of 2 catalogues"):
        publish_runs([str(catalogue), str(other.root)])


def test_the_plan_says_what_is_wanted(catalogue):
    from lightmill.pipeline.plan import Identity, Plan
    from lightmill.pipeline.planfile import save_plan

    run = CatalogueFolder(catalogue).run("2")
    identity = Identity(release="ztf", recipe={}, science={}, models={}, versions={})
    save_plan(Plan(run_id="2", identity=identity, tasks=(), left=((3, 700),)), run.plan)
    with pytest.raises(PublishError, match="first missing: Norder=3/Npix=700"):
        publish_runs([str(run.root)])
