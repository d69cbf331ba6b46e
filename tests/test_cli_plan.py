"""`lightmill plan`: the table, saved plans, and why a partition is in its state."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lightmill.catalogs.receipts import FailedAttempt, Quarantined, Receipt, write_json
from lightmill.catalogs.runfolder import CatalogueFolder, write_index
from lightmill.pipeline.cli import app
from lightmill.pipeline.explain_plan import explain_partition
from lightmill.pipeline.plan import RunError
from lightmill.pipeline.planfile import load_plan, save_plan
from lightmill.pipeline.planning import make_plan


@pytest.fixture(autouse=True)
def small_models(tmp_path, monkeypatch, tiny_ztf):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("lightmill.pipeline.recipe.load_recipe", lambda name: tiny_ztf)


@pytest.fixture
def done(tmp_path, tiny_release, tiny_ztf):
    """A catalogue whose only run has computed partitions 0 to 2 and put 3 into quarantine; and its plan."""
    catalogue = CatalogueFolder(tmp_path / "catalogue")
    plan = make_plan(str(tiny_release), tiny_ztf)
    folder = catalogue.run(plan.run_id)
    save_plan(plan, folder.plan)
    write_json(folder.record, asdict(plan.identity) | {"run_id": plan.run_id})
    receipts = [
        Receipt(*t.key, t.fingerprint, 10, 0, {}, 0, 1.0, run_id=plan.run_id, input=t.partition.identity())
        for t in plan.tasks[:3]
    ]
    write_index(folder.index, receipts)
    bad = plan.tasks[3]
    failure = FailedAttempt(*bad.key, 2, "OOM", "killed", "quarantine", bad.fingerprint, plan.run_id)
    write_json(folder.failure(*bad.key, 2), asdict(failure))
    catalogue.put_in_quarantine(
        Quarantined(*bad.key, bad.fingerprint, "OOM", "killed", plan.run_id, 2, "2026-01-01")
    )
    return catalogue, plan


def ask(*arguments, code=0):
    result = CliRunner().invoke(app, ["plan", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.output


def touch(task):
    path = Path(task.partition.files[0].path)
    os.utime(path, (1, path.stat().st_mtime + 10))


def test_everything_is_new(tiny_release):
    said = ask(tiny_release)
    assert "new" in said
    assert "core-hours" in said
    facts = json.loads(ask(tiny_release, "--format", "json"))
    assert facts["total"]["partitions"] == 4
    assert [line["what"] for line in facts["lines"]] == ["new"]
    assert facts["total"]["memory"] > 900 << 20
    assert facts["saved"] is None


def test_counts_by_reason(tiny_release, done):
    catalogue, plan = done
    touch(plan.tasks[0])
    facts = json.loads(ask(tiny_release, "--catalogue", catalogue.root, "--format", "json"))
    found = {line["what"]: line["partitions"] for line in facts["lines"]}
    assert found == {"input changed": 1, "current": 2, "quarantined": 1}
    said = ask(tiny_release, "--catalogue", catalogue.root, "--policy", "missing")
    assert "left" in said
    facts = json.loads(
        ask(tiny_release, "--catalogue", catalogue.root, "--triggers", "model", "--format", "json")
    )
    assert facts["total"]["partitions"] == 0


def test_a_saved_plan_is_shown_again(tmp_path, tiny_release):
    path = tmp_path / "week.plan"
    first = json.loads(ask(tiny_release, "--out", path, "--format", "json"))
    assert first["saved"] == str(path)
    assert load_plan(path).run_id == first["run_id"]
    assert json.loads(ask(path, "--format", "json")) == first | {"saved": None}
    assert "saved plan" in ask(path, "--cone", "1,2,3", code=2)


def test_pixels(tiny_release, done):
    _, plan = done
    order, pixel = plan.tasks[1].key
    facts = json.loads(ask(tiny_release, "--pixels", f"{order}/{pixel}", "--format", "json"))
    assert facts["total"]["partitions"] == 1


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--policy", "new"], "missing, failed, stale, all"),
        (["--triggers", "weather"], "weather"),
        (["--pixels", "5-3"], "ORDER/PIXEL"),
        (["--pixels", "0/12"], "pixels of order 0 to 11"),
        (["--explain", "0/1,0/2"], "one partition"),
        (["--cone", "1,2"], "degrees"),
        (["--out", "s3://archive/week"], "addresses of plans end with .plan or .parquet"),
    ],
)
def test_wrong_use(tiny_release, arguments, word):
    said = ask(tiny_release, *arguments, code=2)
    assert word in " ".join(said.replace("│", " ").split())


def explained(tiny_release, tiny_ztf, catalogue, key, **options):
    return explain_partition(str(tiny_release), tiny_ztf, key, catalogue=catalogue, **options)


def test_explain_a_new_one(tiny_release, tiny_ztf, done):
    _, plan = done
    found = explained(tiny_release, tiny_ztf, None, plan.tasks[0].key)
    assert (found.state, found.reason, found.compared_with) == ("task", "new", None)
    assert found.fingerprint == plan.tasks[0].fingerprint


def test_explain_a_changed_input(tiny_release, tiny_ztf, done):
    catalogue, plan = done
    task = plan.tasks[0]
    assert explained(tiny_release, tiny_ztf, catalogue, task.key).state == "current"
    touch(task)
    found = explained(tiny_release, tiny_ztf, catalogue, task.key)
    assert (found.state, found.reason) == ("task", "input changed")
    (file,) = found.input
    assert file.before == task.partition.files[0]
    assert file.now is not None
    assert file.now.size == file.before.size
    assert float(file.now.stamp) == pytest.approx(float(file.before.stamp) + 10, abs=0.1)
    assert all(not fields for fields in found.changed.values())
    assert [one["outcome"] for one in found.attempts] == ["complete"]


def test_explain_changed_fields(tiny_release, tiny_ztf, done):
    catalogue, plan = done
    clean = tiny_ztf.clean.model_copy(update={"min_epochs": 77})
    found = explained(
        tiny_release, tiny_ztf.model_copy(update={"clean": clean}), catalogue, plan.tasks[0].key
    )
    assert found.reason == "recipe changed"
    assert found.changed["recipe"] == (f"science.clean.min_epochs {tiny_ztf.clean.min_epochs}, now it is 77",)


def test_explain_quarantine(tiny_release, tiny_ztf, done):
    catalogue, plan = done
    key = plan.tasks[3].key
    found = explained(tiny_release, tiny_ztf, catalogue, key)
    assert found.state == "quarantined"
    assert found.quarantine is not None
    assert found.quarantine["error_class"] == "OOM"
    assert [(one["attempt"], one["outcome"]) for one in found.attempts] == [(2, "quarantine")]
    name = f"{key[0]}/{key[1]}"
    said = ask(tiny_release, "--catalogue", catalogue.root, "--explain", name)
    assert "quarantined" in said
    assert "OOM: killed" in said
    facts = json.loads(
        ask(tiny_release, "--catalogue", catalogue.root, "--explain", name, "--format", "json")
    )
    assert facts == json.loads(json.dumps(found.facts()))


def test_explain_an_orphan(tiny_release, tiny_ztf, done):
    catalogue, plan = done
    order, pixel = plan.tasks[0].key
    folder = catalogue.run(plan.run_id)
    moved = replace(folder.read_receipts()[0], order=order - 1, pixel=pixel >> 2)
    write_index(folder.index, [*folder.read_receipts(), moved])
    found = explained(tiny_release, tiny_ztf, catalogue, (order - 1, pixel >> 2))
    assert found.state == "orphan"
    assert (order, pixel) in found.overlaps


def test_explain_what_is_not_there(tiny_release, tiny_ztf, done):
    catalogue, plan = done
    order, pixel = plan.tasks[0].key
    with pytest.raises(RunError, match=rf"neither of .* the release has {order}/{pixel} there"):
        explained(tiny_release, tiny_ztf, catalogue, (order + 1, pixel << 2))
