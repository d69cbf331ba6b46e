"""`pipeline/cli_publish.py` and `pipeline/publishing.py`: what the commands print, refuse and leave behind."""

from __future__ import annotations

import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from lightmill.catalogs.partitions import Partition
from lightmill.catalogs.publish import PublishError
from lightmill.catalogs.runfolder import CatalogueFolder, NotAnOutput
from lightmill.catalogs.versions import current
from lightmill.pipeline import cli_publish
from lightmill.pipeline.plan import Current, Identity, Plan, Task
from lightmill.pipeline.planfile import save_plan
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


def test_what_is_superseded(catalogue):
    """Rows of input that the newest plan found changed: a hole, unless a mixture is allowed, and then recorded."""
    folder = CatalogueFolder(catalogue)
    first, second = folder.run("1"), folder.run("2")
    gone, kept = sorted(second.done())[:2]
    identity = Identity(release="ztf", recipe={}, science={}, models={}, versions={})
    for run, letter in ((first, "f"), (second, "e")):
        tasks = tuple(
            Task(Partition(*key, (), "", "{}"), letter * 64, "new") for key in run.done() if key != kept
        )
        current = (Current(*kept, "1", "f" * 64),) if run == second else ()
        save_plan(Plan(run.run_id, identity, tasks, current), run.plan)
    second.discard(*gone)  # the new input could not be read
    second.discard(*kept)  # what the first run made of it is up to date
    second.seal()
    place = f"Norder={gone[0]}/Npix={gone[1]}"
    with pytest.raises(
        PublishError, match=rf"first missing: {place}\..* other input, .*{place} of 1.*--allow-mix"
    ):
        publish_runs([str(catalogue)])
    holed = publish_runs([str(catalogue)], min_complete=0.5)
    assert (holed.holes, holed.mixture, holed.runs) == (1, [], ["2", "1"])
    assert gone not in {receipt.key for receipt in holed.receipts()}
    mixed = publish_runs([str(catalogue)], allow_mixture=True)
    assert (mixed.holes, mixed.rows) == (0, 30)
    assert "1 partitions were computed from other input, or otherwise, than" in mixed.mixture[0]
    assert place in (mixed.objects / "hats.properties").read_text()
    plain = publish_runs([str(first.root)])  # its own plan asked for them
    assert (plain.rows, plain.mixture) == (30, [])
    # the same rows of the same runs, but nobody asks for others any more
    second.plan.unlink()
    same = publish_runs([str(catalogue)])
    assert (same.digest, same.mixture) == (mixed.digest, [])
    assert same.name not in (mixed.name, plain.name)


def test_what_is_no_partition_any_more(catalogue):
    folder = CatalogueFolder(catalogue)
    second = folder.run("2")
    key = sorted(second.done())[0]
    second.discard(*key)
    second.seal()
    identity = Identity(release="ztf", recipe={}, science={}, models={}, versions={})
    tasks = tuple(Task(Partition(*one, (), "", "{}"), "e" * 64, "new") for one in second.done())
    save_plan(Plan("2", identity, tasks, orphans=(key,)), second.plan)
    for mixture in (False, True):
        version = publish_runs([str(catalogue)], allow_mixture=mixture)
        assert (version.runs, version.holes) == (["2"], 0)


def test_the_plan_says_what_is_wanted(catalogue):
    run = CatalogueFolder(catalogue).run("2")
    identity = Identity(release="ztf", recipe={}, science={}, models={}, versions={})
    save_plan(Plan(run_id="2", identity=identity, tasks=(), left=((3, 700),)), run.plan)
    with pytest.raises(PublishError, match="first missing: Norder=3/Npix=700"):
        publish_runs([str(run.root)])
