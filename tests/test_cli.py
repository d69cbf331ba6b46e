"""The command line: what is printed where, exit codes, and that no command imports what it does not need."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from program import lightmill
from typer.testing import CliRunner, Result

from lightmill.catalogs.lightcurves import spatial_index
from lightmill.catalogs.publish import publish
from lightmill.catalogs.receipts import Receipt, write_json, write_receipt
from lightmill.catalogs.rows import commit, rejected_schema, row_schema, rows_table
from lightmill.catalogs.runfolder import CatalogueFolder
from lightmill.pipeline.cli import app
from lightmill.pipeline.recipe import load_recipe, recipe_text

LEAVES = ("nonvar", "RRab", "EW")


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classified stars and one rejected, in one partition, without a run."""
    folder = CatalogueFolder(tmp_path_factory.mktemp("cli") / "catalogue").run("r1")
    write_json(folder.record, {"release": "nowhere", "run_id": "r1"})
    index = spatial_index(np.array([50.0, 50.1, 50.2]), np.array([10.0, 10.1, 10.2]))
    pixel = int(index[0]) >> (2 * (29 - 3))
    rows = rows_table(
        {
            "_healpix_29": index,
            "objectid": [11, 12, 13],
            "ra": [50.0, 50.1, 50.2],
            "dec": [10.0, 10.1, 10.2],
            "filterid": [1, 2, 1],
            "n_good": [30, 40, 50],
            "mag_mean": [15.0, 16.0, 17.0],
            "p_nonvar": [0.1, 0.2, 0.9],
            "p_RRab": [0.8, 0.3, 0.05],
            "p_EW": [0.1, 0.5, 0.05],
            "best_class": ["RRab", "EW", "nonvar"],
            "best_prob": [0.8, 0.5, 0.9],
            "margin": [0.7, 0.2, 0.85],
            "flags": [0, 0, 1],
            "run_id": ["r1"] * 3,
        },
        row_schema(LEAVES),
    )
    size, _ = commit(rows, folder.rows(3, pixel), folder.scratch)
    rejected = rows_table(
        {"_healpix_29": index[:1], "objectid": [14], "n_good": [3], "reason": ["too_few_epochs"]},
        rejected_schema(),
    )
    commit(rejected, folder.rejected(3, pixel), folder.scratch)
    write_receipt(folder.receipts, Receipt(3, pixel, "f", 4, 3, {"too_few_epochs": 1}, size, 1.0))
    assert publish(folder.catalogue, [folder], catalogue_name="tiny", provenance={})
    return folder.catalogue.root


class TestQuery:
    def test_json_is_on_stdout_alone(self, catalogue: Path) -> None:
        done = lightmill("query", str(catalogue), "--class", "RRab", "--format", "json")
        assert done.returncode == 0
        assert done.stderr == ""
        (row,) = json.loads(done.stdout)
        assert (row["objectid"], row["best_class"]) == (11, "RRab")

    def test_table_shows_what_matters(self, catalogue: Path) -> None:
        done = invoke("query", str(catalogue))
        assert done.exit_code == 0
        lines = done.stdout.splitlines()
        assert "objectid" in lines[0]
        assert "best_class" in lines[0]
        assert [line.split()[0] for line in lines[1:]] == ["13", "11", "12"]  # most probable first

    def test_why_not_there(self, catalogue: Path) -> None:
        done = lightmill("query", str(catalogue), "--id", "14")
        assert done.returncode == 0
        assert "14 was not classified: too_few_epochs (3 good epochs)" in done.stderr
        assert "15 is not in" in lightmill("query", str(catalogue), "--id", "15").stderr
        assert "ZTF15 is not in" in lightmill("query", str(catalogue), "--id", "ZTF15").stderr

    def test_parquet_to_a_file(self, catalogue: Path, tmp_path: Path) -> None:
        out = tmp_path / "found.parquet"
        done = invoke("query", str(catalogue), "--min-prob", "0.6", "--format", "parquet", "--out", str(out))
        assert done.exit_code == 0
        table = pq.ParquetFile(out).read()
        assert table.column("objectid").to_pylist() == [13, 11]
        assert table.schema.field("ra").metadata[b"unit"] == b"deg"

    def test_a_table_is_not_for_a_file(self, catalogue: Path, tmp_path: Path) -> None:
        done = invoke("query", str(catalogue), "--out", str(tmp_path / "x"))
        assert done.exit_code == 2
        assert "--format json" in done.stderr

    def test_unknown_class(self, catalogue: Path) -> None:
        done = lightmill("query", str(catalogue), "--class", "RRb")
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1
        assert "Did you mean 'RRab'?" in done.stderr

    @pytest.mark.parametrize(
        ("cone", "found"), [("50,10,0.05", [11]), ("50,10,180arcsec", [11]), ("410.0,10,0.2", [11, 12])]
    )
    def test_cone(self, catalogue: Path, cone: str, found: list[int]) -> None:
        done = invoke("query", str(catalogue), "--cone", cone, "--format", "json")
        assert sorted(row["objectid"] for row in json.loads(done.stdout)) == found

    @pytest.mark.parametrize("cone", ["1,2", "a,b,c", "0,91,1", "0,0,0", "0,0,-1"])
    def test_wrong_cone(self, catalogue: Path, cone: str) -> None:
        assert invoke("query", str(catalogue), "--cone", cone).exit_code == 2


def test_query_needs_neither_dask_nor_tensorflow(catalogue: Path) -> None:
    """A command must not wait for what it does not use."""
    code = (
        "import sys; from lightmill.pipeline.cli import app\n"
        f"app(['query', {str(catalogue)!r}], standalone_mode=False)\n"
        "print(sorted({'tensorflow', 'keras', 'xgboost', 'distributed'} & sys.modules.keys()), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["run", "nowhere", "--out", "x"], "nowhere is not a HATS catalogue"),
        (["run", "nowhere", "--out", "x", "--recipe", "ztfdr"], "Did you mean 'ztf-dr'?"),
        (["query", "nowhere"], "nowhere is not a HATS catalogue"),
        (["simulate", "--n", "0", "--out", "x"], "0"),
        (["import", "nowhere.parquet", "--out", "x"], "no file or folder nowhere.parquet"),
        (["evaluate", "crts-8", "--labels", "nowhere.parquet"], "crts-8"),
        (["report", "nowhere"], "nowhere"),
    ],
)
def test_library_errors_are_one_line(
    arguments: list[str], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = lightmill(*arguments)
    assert done.returncode == 1, done.stderr
    assert text in done.stderr
    assert done.stderr.startswith("lightmill: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_an_object_store_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("AWS_ENDPOINT_URL", "http://127.0.0.1:9"), ("AWS_MAX_ATTEMPTS", "1")):
        monkeypatch.setenv(name, value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    for arguments in (
        ["status", "s3://archive/c"],
        ["run", "s3://archive/week.plan", "--out", "s3://archive/c"],
    ):
        done = lightmill(*arguments)
        assert done.returncode == 1
        assert "Could not connect to the endpoint URL" in done.stderr
        assert "check the address, the endpoint" in done.stderr
        assert done.stderr.count("\n") == 1


def test_missing_column_names_column_layouts_and_recipe_line(
    make_stars: Callable[..., Any], write_hats: Callable[..., Any], tmp_path: Path
) -> None:
    root = tmp_path / "release"
    write_hats(root, make_stars(5))
    for path in root.rglob("*.parquet"):
        pq.write_table(pq.ParquetFile(path).read().rename_columns({"objra": "alpha"}), path)
    done = lightmill("run", str(root), "--out", str(tmp_path / "x"))
    assert done.returncode == 1
    for part in ("'objra'", "irsa-hats, list, labelled", "[layout]"):
        assert part in done.stderr


def test_failed_partition_gives_exit_code_3(
    make_stars: Callable[..., Any], write_hats: Callable[..., Any], tiny_gated_bundle: Path, tmp_path: Path
) -> None:
    root, recipe = tmp_path / "release", tmp_path / "mine.toml"
    recipe.write_text(recipe_text("ztf-dr").replace('bundle = "ztf-dr"', f'bundle = "{tiny_gated_bundle}"'))
    write_hats(root, make_stars(6), order=1)
    files = sorted(root.rglob("*.parquet"))
    files[0].write_bytes(b"PAR1 this is no Parquet PAR1")
    done = lightmill(
        "run", str(root), "--out", str(tmp_path / "out"), "--recipe", str(recipe), "--format", "json", "--workers", "1"
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    summary = json.loads(done.stdout)
    assert set(summary) >= {
        "light_curves", "classified", "rejected", "seconds", "light_curves_per_second", "peak_rss_bytes", "catalogue",
    }  # fmt: skip
    assert len(summary["failed"]) == 1
    assert "→ quarantine" in done.stderr
    assert "INPUT_CORRUPT" in summary["failed"][0]["error"]
    assert isinstance(pq.ParquetFile(next((tmp_path / "out").rglob("dataset/**/*.parquet"))).read(), pa.Table)


def test_wrong_use_is_2() -> None:
    assert invoke("run", "release").exit_code == 2  # no --out
    assert invoke("run", "r", "--out", "o", "--cone", "1,2,3", "--box", "1,2,3,4").exit_code == 2
    assert invoke("run", "r", "--out", "o", "--box", "1,2,5,4").exit_code == 2
    assert invoke("nonsense").exit_code == 2
    away = invoke("simulate", "--n", "10", "--out", "s3://bucket/release")
    assert away.exit_code == 2
    assert "not on a file system" in away.stderr


def test_version() -> None:
    from importlib.metadata import version

    assert invoke("--version").stdout.strip() == f"lightmill {version('lightmill')}"


def test_recipes_can_be_printed_and_used(tmp_path: Path) -> None:
    assert "ztf-dr" in invoke("recipes").stdout
    mine = tmp_path / "mine.toml"
    mine.write_text(invoke("recipes", "ztf-dr").stdout)
    assert load_recipe(str(mine)) == load_recipe("ztf-dr")
