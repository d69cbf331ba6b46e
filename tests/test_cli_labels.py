"""`lightmill labels` and `lightmill candidates`: the way from a catalogue to labels, and what is printed where."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from program import lightmill
from typer.testing import CliRunner, Result

from lightmill.pipeline.cli import app


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def curves(tmp_path: Path, make_stars, stars_table) -> Path:
    pq.write_table(stars_table(make_stars(6), "list"), tmp_path / "curves.parquet")
    return tmp_path / "curves.parquet"


@pytest.fixture
def votes(tmp_path: Path, curves: Path) -> Path:
    ids = pq.read_table(curves, columns=["objectid"]).column(0).to_pylist()
    said = [
        (ids[0], "EW EW EA"),
        (ids[1], "EW EA"),
        (ids[2], "b b b"),
        (ids[3], "EW EW EA EA"),
        (99, "EA EA EA"),
    ]
    rows = [f"{star},u{i},{name}" for star, names in said for i, name in enumerate(names.split())]
    (tmp_path / "votes.csv").write_text("\n".join(["star,who,what", *rows]))
    return tmp_path / "votes.csv"


COLUMNS = ("--id", "star", "--annotator", "who", "--label", "what", "--map", "b=RRab")


def test_labels(curves: Path, votes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    done = invoke("labels", votes, "--light-curves", curves, "--out", out, *COLUMNS, "--format", "json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["objects"] == 5
    assert found["classes"] == {"EW": 1, "RRab": 1}
    assert found["left_out"] == {"no_light_curve": 1, "tie": 1, "too_few_votes": 1}
    assert [one["annotator"] for one in found["annotators"]] == ["u0", "u1", "u2", "u3"]
    assert pq.read_table(out).column("label").to_pylist() == ["EW", "RRab"]
    out.unlink()
    limits = ("--min-votes", "2", "--min-agreement", "0.7")
    done = invoke("labels", votes, "--light-curves", curves, "--out", out, *COLUMNS, *limits)
    assert done.exit_code == 0, done.output
    text = " ".join(done.stdout.split())
    assert "objects 5 labelled 1: 1 RRab left out 4: 1 no_agreement, 1 no_light_curve, 2 tie" in text


def test_labels_refuse_before_any_work(curves: Path, votes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    done = lightmill("labels", votes, "--light-curves", curves, "--out", out, *COLUMNS[:-2])
    assert (done.returncode, done.stdout) == (1, "")
    assert "unknown class names 'b' (3 votes)" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not out.exists()
    wrong = invoke("labels", votes, "--light-curves", curves, "--out", out, "--map", "b")
    assert wrong.exit_code == 2
    assert invoke("labels", votes, "--light-curves", curves, "--out", "s3://b/out.parquet").exit_code == 2


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory, write_catalogue) -> Path:
    rng = np.random.default_rng(3)
    out = tmp_path_factory.mktemp("labels") / "catalogue"
    write_catalogue(out, rng.uniform(0, 360, 200), rng.uniform(-60, 60, 200))
    return out


def test_candidates_to_be_labelled(catalogue: Path, tmp_path: Path) -> None:
    """A list to label, which as votes is what the next list leaves out."""
    out = tmp_path / "next.csv"
    done = invoke("candidates", catalogue, "--n", 12, "--format", "csv", "--out", out)
    assert done.exit_code == 0, done.output
    assert "has no novelty" in done.stderr
    assert "12 rows written" in done.stderr
    first = list(csv.DictReader(io.StringIO(out.read_text())))
    assert [row["rank"] for row in first] == [str(i + 1) for i in range(12)]
    assert {row["picked_by"] for row in first} == {"uncertainty", "balance"}
    again = invoke(
        "candidates", catalogue, "--n", 12, "--format", "json", "--exclude", out, "--by", "balance"
    )
    second = json.loads(again.stdout)
    assert len(second) == 12
    assert not {row["objectid"] for row in first} & {str(row["objectid"]) for row in second}


def test_candidates_table(catalogue: Path) -> None:
    done = invoke("candidates", catalogue, "--n", 3, "--by", "uncertainty")
    lines = done.stdout.splitlines()
    assert lines[0].split()[:3] == ["rank", "picked_by", "why"]
    assert [line.split()[:2] for line in lines[1:]] == [[str(i), "uncertainty"] for i in (1, 2, 3)]
    assert invoke("candidates", catalogue, "--out", "x.csv").exit_code == 2
    assert invoke("candidates", catalogue, "--n", 0).exit_code == 2
    none = lightmill("candidates", catalogue, "--by", "novelty")
    assert (none.returncode, none.stdout, none.stderr.count("\n")) == (1, "", 1)


def test_neither_needs_dask_or_keras(catalogue: Path) -> None:
    code = (
        "import sys; from lightmill.pipeline.cli import app\n"
        f"app(['candidates', {str(catalogue)!r}, '--n', '1', '--by', 'uncertainty'], standalone_mode=False)\n"
        "import lightmill.pipeline.labelling\n"
        "print(sorted({'tensorflow', 'keras', 'xgboost', 'distributed'} & sys.modules.keys()), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
