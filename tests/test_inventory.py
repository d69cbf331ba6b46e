"""The models at hand: what is listed, verified and promoted, and that a damaged one never is."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.numpy

from lightmill.models import bundle, folder, store
from lightmill.models.bundle import BundleError
from lightmill.models.inventory import BUNDLE, CHOICE, card, facts, models, promote, undo, verify
from lightmill.models.manifest import Manifest
from lightmill.models.store import StoreError

SHIPPED = folder.shipped()
CHOICE_FOLDER = SHIPPED["ztf-dr"].parent / "period-choice"


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIGHTMILL_MODELS", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture
def altered(tmp_path: Path) -> Callable[..., Path]:
    """A copy of a bundle that ships, with another note in its manifest and so another digest."""

    def make(
        note: str = "mine", name: str = "ztf-dr", change: Callable[[dict], None] = lambda raw: None
    ) -> Path:
        copy = Path(shutil.copytree(SHIPPED[name], tmp_path / f"{name}-{note}"))
        raw = json.loads((copy / folder.MANIFEST).read_text())
        raw.pop("digest")
        raw["training"]["note"] = note
        change(raw)
        (copy / folder.MANIFEST).write_text(Manifest.model_validate(raw).to_json())
        return copy

    return make


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_what_ships_is_listed_and_current():
    found = {model.name: model for model in models()}
    assert {"crts-7", "ztf-dr", "period-choice"} <= found.keys()
    for name, model in found.items():
        assert model.kind == (CHOICE if name == "period-choice" else BUNDLE)
        assert (model.source, model.current, model.problem) == ("ships", True, "")
    raw = json.loads((SHIPPED["crts-7"] / folder.MANIFEST).read_text())
    model = found["crts-7"]
    assert (model.digest, model.classes) == (raw["digest"], tuple(raw["classes"]))
    assert model.macro_f1 == raw["metrics"]["macro_f1"]


@pytest.mark.parametrize("name", ["crts-7", "period-choice"])
def test_show_tells_the_whole_manifest(name: str):
    found = facts(name)
    raw = json.loads(next(Path(found["folder"]).glob("[bc][uh]*.json")).read_text())
    assert found == {"kind": found["kind"], "folder": found["folder"]} | raw


def test_cards(altered: Callable[..., Path]):
    assert card("crts-7").encode() == (SHIPPED["crts-7"] / "card.md").read_bytes()
    with pytest.raises(BundleError, match="'period-choice', a period choice, has no card"):
        card("period-choice")
    mine = altered()
    (mine / "card.md").write_text("The best model ever.")
    with pytest.raises(BundleError, match=r"card.md: 20 bytes"):
        card(mine)


def test_the_way_of_a_promotion(root: Path, altered: Callable[..., Path]):
    shipped = SHIPPED["ztf-dr"]
    one, two = altered("one"), altered("two")
    (one / "notes.txt").write_text("not listed in the manifest")
    first = promote(one)
    assert Path(first.folder) == root / f"ztf-dr-{first.digest[:8]}"
    assert contents(root / first.folder) == {
        name: data for name, data in contents(one).items() if name != "notes.txt"
    }
    assert folder.find("ztf-dr") == Path(first.folder) == folder.available()["ztf-dr"]
    assert bundle.load("ztf-dr").digest == first.digest != bundle.read_manifest(shipped).digest

    second = promote(two)
    shutil.rmtree(one)  # what was promoted does not need where it came from
    shutil.rmtree(two)
    listed = [(model.digest, model.source, model.current) for model in models() if model.name == "ztf-dr"]
    digest = bundle.read_manifest(shipped).digest
    assert sorted(listed) == sorted(
        [(second.digest, "promoted", True), (first.digest, "promoted", False), (digest, "ships", False)]
    )
    for model in (first, second):  # by name and digest, current or not
        assert folder.find(f"ztf-dr-{model.digest[:8]}") == Path(model.folder)
    assert folder.find(f"ztf-dr-{digest[:8]}") == shipped

    again = promote(f"ztf-dr-{first.digest[:8]}")  # an older one
    assert (again.name, again.digest, folder.find("ztf-dr")) == ("ztf-dr", first.digest, Path(first.folder))
    assert undo("ztf-dr") == second
    undo("ztf-dr")
    back = undo("ztf-dr")
    assert back is not None
    assert (back.digest, back.source, folder.find("ztf-dr")) == (digest, "ships", shipped)
    with pytest.raises(StoreError, match="never promoted"):
        undo("ztf-dr")


def test_under_a_name_of_its_own(root: Path, altered: Callable[..., Path]):
    made = promote("crts-7", "mine")
    assert folder.find("mine") == Path(made.folder) == root / f"mine-{made.digest[:8]}"
    assert "mine" in folder.available()
    with pytest.raises(BundleError, match="Did you mean 'mine'"):
        folder.find("mime")
    # going back to it by its folder keeps the name that it has in the store
    promote(altered(name="crts-7"), "mine")
    assert promote(made.folder) == made
    assert folder.find("crts-7") == SHIPPED["crts-7"]
    undo("mine")
    undo("mine")
    assert undo("mine") is None
    with pytest.raises(BundleError, match="no bundle 'mine'"):
        folder.find("mine")


def largest(path: Path) -> Path:
    """The file with the most weights: trees or a network."""
    return max(
        (file for file in path.iterdir() if file.name != folder.MANIFEST),
        key=lambda file: file.stat().st_size,
    )


def drop(path: Path) -> None:
    largest(path).unlink()


def flip(path: Path) -> None:
    data = bytearray(largest(path).read_bytes())
    data[len(data) // 2] ^= 1
    largest(path).write_bytes(data)


def edit(path: Path) -> None:
    text = (path / folder.MANIFEST).read_text()
    (path / folder.MANIFEST).write_text(text.replace('"mine"', '"yours"'))


def older(path: Path) -> None:
    raw = json.loads((path / folder.MANIFEST).read_text())
    (path / folder.MANIFEST).write_text(json.dumps(raw | {"format": 1}))


def other_answers(path: Path) -> None:
    """Golden answers that the bundle does not give, under a manifest that is signed as it should be."""
    tensors = safetensors.numpy.load((path / folder.GOLDEN).read_bytes())
    tensors["p_class"] = np.roll(tensors["p_class"], 1, axis=1)
    data = safetensors.numpy.save(tensors)
    (path / folder.GOLDEN).write_bytes(data)
    raw = json.loads((path / folder.MANIFEST).read_text())
    raw.pop("digest")
    raw["files"][folder.GOLDEN] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    (path / folder.MANIFEST).write_text(Manifest.model_validate(raw).to_json())


DAMAGES = [
    (drop, "missing", False),
    (flip, "sha256 .* it was changed", False),
    (edit, "stated is .* it was changed", False),
    (older, "format 1, this Lightmill reads 2 to 3: train the bundle anew", False),
    (other_answers, "differs by .* allowed is", True),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "message", "loads_only"), DAMAGES)
def test_a_damaged_bundle_is_told_and_never_promoted(
    root: Path, altered: Callable[..., Path], damage: Callable[[Path], None], message: str, loads_only: bool
):
    mine = altered(name="crts-7")
    assert verify(mine).problem == ""
    damage(mine)
    found = verify(mine)
    assert not found.golden
    with pytest.raises(BundleError, match=message) as error:
        promote(mine)
    assert found.problem == str(error.value)
    assert not root.exists()
    assert bool(verify(mine, golden=False).problem) != loads_only


def test_the_choice_of_periods_is_verified(tmp_path: Path):
    good = verify("period-choice")
    assert (good.kind, good.files, good.golden, good.problem) == (CHOICE, 2, True, "")
    copy = Path(shutil.copytree(CHOICE_FOLDER, tmp_path / "choice"))
    assert verify(copy).problem == ""
    data = bytearray((copy / "trees.json.gz").read_bytes())
    data[1000] ^= 1
    (copy / "trees.json.gz").write_bytes(data)
    for golden in (True, False):
        assert "it was changed" in verify(copy, golden=golden).problem
    with pytest.raises(BundleError, match=r"a choice of periods.*\[period\] choice = "):
        promote("period-choice")


def test_what_is_not_there():
    assert "no bundle 'ztf-d'. Did you mean 'ztf-dr'?" in verify("ztf-d").problem
    for ask in (facts, card, promote):
        with pytest.raises(BundleError, match="no bundle 'nothing'"):
            ask("nothing")


def test_damage_in_the_store_is_listed_and_refused(root: Path, altered: Callable[..., Path]):
    mine = altered(name="crts-7")
    made = promote(mine)
    flip(Path(made.folder))
    with pytest.raises(BundleError, match=rf"it was changed.*remove {made.folder}"):
        promote(mine)
    edit(Path(made.folder))
    (listed,) = [model for model in models() if model.source == "promoted"]
    assert "it was changed" in listed.problem
    shutil.rmtree(made.folder)
    for ask in (folder.find, facts):
        with pytest.raises(BundleError, match="is gone: promote it again"):
            ask("crts-7")
    assert "crts-7" in folder.available()  # the one that ships; `models` still lists it
    assert [model.current for model in models() if model.name == "crts-7"] == [False]
    assert promote(mine) == made


def test_an_older_format_in_the_store_is_listed_and_not_used(root: Path, altered: Callable[..., Path]):
    """As after an update of Lightmill: what was promoted before it cannot be read any more."""
    made = promote(altered(name="crts-7"))
    older(Path(made.folder))
    (listed,) = [model for model in models() if model.source == "promoted"]
    assert (listed.digest, listed.current) == ("", True)
    assert "format 1, this Lightmill reads 2" in listed.problem
    with pytest.raises(BundleError, match="format 1, this Lightmill reads 2"):
        bundle.load("crts-7")
    assert undo("crts-7") is not None
    assert folder.find("crts-7") == SHIPPED["crts-7"]


@pytest.mark.slow
def test_promoting_between_two_runs_mixes_no_rows(tmp_path: Path, altered: Callable[..., Path]):
    from lightmill.pipeline.recipe import load_recipe
    from lightmill.pipeline.run import run
    from lightmill.pipeline.simulate import simulate

    release, out, recipe = tmp_path / "release", tmp_path / "out", load_recipe("ztf-dr")
    simulate(release, 1200, seed=3, variable_fraction=0.3)
    files = sorted(release.rglob("Npix=*.parquet")) or sorted(release.rglob("Npix=*/*.parquet"))
    assert len(files) > 1
    whole = files[0].read_bytes()
    files[0].write_bytes(b"PAR1 no Parquet PAR1")

    def digests(catalogue: Path) -> set[Any]:
        """Of the version that is current."""
        (table,) = re.findall(
            "hats_primary_table_url=(.*)", (catalogue / "collection.properties").read_text()
        )
        rows = [
            pq.read_table(file, columns=["bundle"])
            for file in (catalogue / table).glob("dataset/*/*/*.parquet")
        ]
        return {value for table in rows for value in table.column("bundle").to_pylist()}

    before = bundle.read_manifest("ztf-dr").digest
    first = run(str(release), recipe, out, workers=1)
    assert len(first.failed) == 1
    files[0].write_bytes(whole)
    written = contents(out / "runs" / str(first.run_id))
    new = promote(altered())
    # with the new one everything is computed anew, on the workers too, beside what was there
    second = run(str(release), recipe, out, workers=1)
    assert second.computed == second.partitions == len(files)
    assert digests(out) == {new.digest[:8]}
    assert contents(out / "runs" / str(first.run_id)) == written
    undo("ztf-dr")
    third = run(str(release), recipe, out, workers=1)
    assert (third.computed, third.failed) == (1, [])
    assert digests(out) == {before[:8]}


def test_the_store_is_a_folder_of_plain_files(root: Path, altered: Callable[..., Path]):
    made = promote(altered(name="crts-7"))
    found = {path.suffix for path in root.rglob("*") if path.is_file() and path.name != ".lock"}
    assert found == {".json", ".md", ".safetensors", ".gz"}
    assert store.history("crts-7") == [Path(made.folder).name]
