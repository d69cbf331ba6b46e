"""What is packed: the wheel holds exactly the files of the four rooms, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("pipeline", "catalogs", "models", "cluster")
METADATA = ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "top_level.txt", "licenses/LICENSE")


def tree() -> set[str]:
    """Files of the rooms, as the wheel should have them; without what interpreters and editors leave behind."""
    files = (path.relative_to(ROOT) for room in ROOMS for path in (ROOT / room).rglob("*") if path.is_file())
    left = ("__pycache__", ".ruff_cache", ".mypy_cache")
    return {
        f"lightmill/{path.as_posix()}"
        for path in files
        if not set(left) & set(path.parts)
        and not path.name.startswith(".")
        and path.suffix not in (".nbi", ".nbc")
    }


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> set[str]:
    """Files of the wheel that the tests run against; of one that is built now where they run against the tree."""
    installed = {str(path) for path in distribution("lightmill").files or ()}
    if "lightmill/pipeline/cli.py" in installed:
        return {path for path in installed if path.startswith("lightmill") and "__pycache__" not in path}
    folder = tmp_path_factory.mktemp("wheel")
    # a copy: an older build/ in the tree would put files into the wheel that are no longer there
    skip = shutil.ignore_patterns("__pycache__", "*.nbi", "*.nbc", "*.egg-info")
    for room in ROOMS:
        shutil.copytree(ROOT / room, folder / "tree" / room, ignore=skip)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "tree" / name)
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(folder),
        str(folder / "tree"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_exactly_the_files_of_the_rooms(packed):
    code = {name for name in packed if ".dist-info/" not in name}
    assert code - tree() == set()
    assert tree() - code == set()


def test_what_must_be_in_it(packed):
    for name in ("pipeline/recipes/ztf-dr.toml", "pipeline/ztf_survey.toml", "models/weights/__init__.py"):
        assert f"lightmill/{name}" in packed
    assert any(name.startswith("lightmill/models/weights/ztf-dr/") for name in packed)
    # four packages in a namespace: there is no module `lightmill`
    assert "lightmill/__init__.py" not in packed


def test_no_data_no_tests(packed):
    assert not [name for name in packed if name.endswith((".parquet", ".csv", ".fits", ".enc", ".pyc"))]
    assert not [name for name in packed if "test" in name.lower()]


def test_metadata(packed):
    names = {name.split(".dist-info/")[1] for name in packed if ".dist-info/" in name}
    assert set(METADATA) - {"top_level.txt"} <= names
    dist = distribution("lightmill")
    assert dist.metadata["License-Expression"] == "BSD-3-Clause"
    assert dist.metadata["Requires-Python"] == ">=3.11"
    assert set(dist.metadata.get_all("Provides-Extra")) >= {"cpu", "gpu", "import", "test"}
    (script,) = dist.entry_points.select(group="console_scripts")
    assert (script.name, script.value) == ("lightmill", "lightmill.pipeline.cli:main")


def test_the_weights_are_a_few_megabytes():
    size = sum(path.stat().st_size for path in (ROOT / "models" / "weights").rglob("*") if path.is_file())
    assert size < 20e6
