"""Bundles: what is saved is loaded, and nothing else is."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from lightmill.models import extras, trees
from lightmill.models.bundle import (
    BundleError,
    available,
    check_images,
    load,
    read_manifest,
    save,
    verify,
    versions,
)
from lightmill.models.manifest import FileEntry, GatePart, Manifest, NetworkPart
from lightmill.models.networks import Network

DT, DM = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0), (-2.0, -1.0, 0.0, 1.0, 2.0)
SHAPE = (4, 5)


def manifest(**changes: object) -> Manifest:
    fields = {
        "name": "tiny", "classes": ("EW", "RRab", "LPV"), "dt_edges": DT, "dm_edges": DM, "normalisation": "paper",
        "network": NetworkPart(architecture="mahabal2017", temperature=1.3),
        "gate": GatePart(statistics=("std", "eta"), slope=0.9, intercept=-1.0, threshold=0.2),
        "priors": (0.5, 0.3, 0.2), "metrics": {"macro_f1": 0.5}, "versions": versions(),
    }  # fmt: skip
    return Manifest(**(fields | changes))


def a_gate() -> trees.Trees:
    table = np.random.default_rng(1).normal(size=(400, 2))
    return trees.fit(table, table[:, 0] > 0, rounds=10, depth=2)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    rng = np.random.default_rng(2)
    save(
        folder, manifest(), Network("mahabal2017", SHAPE, 3), a_gate(), card="# tiny\n",
        golden_images=rng.integers(0, 9, (3, *SHAPE)), golden_statistics=rng.normal(size=(5, 2)),
    )  # fmt: skip
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def rewrite(folder: Path, change: Callable[[dict], None], *, sign: bool = True) -> None:
    """Change bundle.json as one would who knows how it is signed."""
    raw = json.loads((folder / "bundle.json").read_text())
    digest = raw.pop("digest")
    change(raw)
    if sign:
        digest = Manifest.model_validate(raw).digest
    (folder / "bundle.json").write_text(json.dumps({"digest": digest} | raw))


def replace_file(folder: Path, name: str, data: bytes) -> None:
    """Put in another file, with its right size and sha256."""
    import hashlib

    (folder / name).write_bytes(data)
    entry = FileEntry(sha256=hashlib.sha256(data).hexdigest(), size=len(data)).model_dump()
    rewrite(folder, lambda raw: raw["files"].update({name: entry}))


def test_what_is_loaded(made: Path):
    bundle = load(made)
    assert bundle.name == "tiny"
    assert bundle.classes == ("EW", "RRab", "LPV")
    assert bundle.leaves == ("nonvar", "EW", "RRab", "LPV")
    assert (bundle.dt_edges, bundle.dm_edges, bundle.normalisation) == (DT, DM, "paper")
    assert bundle.has_gate
    assert bundle.statistics == ("std", "eta")
    assert bundle.threshold == 0.2
    np.testing.assert_allclose(bundle.priors, [0.5, 0.3, 0.2])
    assert bundle.metrics == {"macro_f1": 0.5}
    assert bundle.card == "# tiny\n"
    assert bundle.digest == verify(made).digest == read_manifest(made).digest
    assert len(bundle.digest) == 64


def test_answers_are_probabilities_and_do_not_depend_on_batches(made: Path):
    bundle, rng = load(made), np.random.default_rng(5)
    images, table = rng.integers(0, 200, (60, *SHAPE)).astype(np.float32), rng.normal(size=(60, 2))
    p_class, p_variable = bundle.network(images), bundle.gate(table)
    assert p_class.dtype == p_variable.dtype == np.float32
    np.testing.assert_allclose(p_class.sum(axis=1), 1, atol=1e-6)
    assert ((p_variable >= 0) & (p_variable <= 1)).all()
    np.testing.assert_allclose(
        np.concatenate([bundle.network(images[i : i + 7]) for i in range(0, 60, 7)]), p_class, atol=1e-6
    )
    np.testing.assert_array_equal(
        np.concatenate([bundle.gate(table[i : i + 7]) for i in range(0, 60, 7)]), p_variable
    )
    assert bundle.network(images[:0]).shape == (0, 3)
    assert bundle.gate(table[:0]).shape == (0,)


def test_weights_are_halves_and_golden_answers_follow_them(made: Path):
    assert {w.dtype for w in safetensors.numpy.load_file(made / "network.safetensors").values()} == {
        np.dtype(np.float16)
    }
    golden, bundle = safetensors.numpy.load_file(made / "golden.safetensors"), load(made)
    np.testing.assert_allclose(bundle.network(golden["images"]), golden["p_class"], atol=1e-6)
    np.testing.assert_allclose(bundle.gate(golden["statistics"]), golden["p_variable"], atol=1e-6)


def test_a_bundle_without_gate(tmp_path: Path):
    bundle = save(
        tmp_path / "plain", manifest(gate=None), Network("mahabal2017", SHAPE, 3), None, card="",
        golden_images=np.ones((1, *SHAPE)),
    )  # fmt: skip
    assert not bundle.has_gate
    assert bundle.leaves == bundle.classes
    assert bundle.statistics == ()
    assert bundle.threshold == 0
    with pytest.raises(BundleError, match="has no gate"):
        bundle.gate(np.zeros((1, 2)))


@pytest.mark.parametrize("name", ["network.safetensors", "gate.json", "golden.safetensors", "card.md"])
def test_a_changed_byte_is_refused(copy: Path, name: str):
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(bytes(data))
    for check in (load, verify):
        with pytest.raises(
            BundleError, match=rf"{name}: sha256 [0-9a-f]{{64}}, bundle.json says [0-9a-f]{{64}}"
        ):
            check(copy)


@pytest.mark.parametrize("name", ["network.safetensors", "gate.json", "golden.safetensors", "card.md"])
def test_a_missing_or_cut_file_is_refused(copy: Path, name: str):
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data[:-1])
    with pytest.raises(BundleError, match=rf"{name}: {len(data) - 1} bytes, bundle.json says {len(data)}"):
        load(copy)
    (copy / name).unlink()
    with pytest.raises(BundleError, match=rf"{name}: missing"):
        load(copy)


def test_a_changed_manifest_is_refused(copy: Path):
    rewrite(copy, lambda raw: raw["gate"].update(threshold=0.9), sign=False)
    with pytest.raises(
        BundleError, match=r"bundle.json: sha256 of the content is .*, stated is .*: it was changed"
    ):
        load(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw.update(format=2), "format 2, this Lightmill reads 1"),
        (lambda raw: raw.pop("classes"), "classes: Field required"),
        (lambda raw: raw.update(extra=1), "extra: Extra inputs are not permitted"),
        (lambda raw: raw.update(classes=["EW", "RRab", "LVP"]), "unknown class 'LVP'.* Did you mean 'LPV'"),
        (lambda raw: raw.update(priors=[0.5, 0.5]), "2 priors for 3 classes"),
        (lambda raw: raw.update(priors=[0.5, 0.5, 0.5]), "sum to 1"),
        (lambda raw: raw.update(dt_edges=[1, 1, 2, 3, 4, 5]), "dt_edges must increase"),
    ],
)  # fmt: skip
def test_a_manifest_that_says_nonsense_is_refused(copy: Path, change: Callable[[dict], None], message: str):
    rewrite(copy, change, sign=False)
    with pytest.raises(BundleError, match=message):
        load(copy)


def test_files_that_are_not_a_bundles_are_never_opened(copy: Path):
    rewrite(copy, lambda raw: raw["files"].update({"../evil": {"sha256": "0" * 64, "size": 0}}))
    with pytest.raises(BundleError, match=r"lists the files \['\.\./evil', .*expected are"):
        load(copy)


def test_no_json(copy: Path):
    (copy / "bundle.json").write_text("{")
    with pytest.raises(BundleError, match=r"bundle.json: not JSON"):
        load(copy)


def weights(folder: Path) -> dict[str, np.ndarray]:
    return safetensors.numpy.load_file(folder / "network.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("conv/bias"), "weights missing: conv/bias"),
        (lambda w: w.update(more=np.ones(2, np.float16)), "not of this network: more"),
        (
            lambda w: w.update({"logits/bias": np.ones(5, np.float16)}),
            r"shape \(5,\), the network's has \(3,\)",
        ),
    ],
)
def test_signed_weights_that_do_not_fit_are_refused(copy: Path, change: Callable[[dict], None], message: str):
    own = weights(copy)
    change(own)
    replace_file(copy, "network.safetensors", safetensors.numpy.save(own))
    with pytest.raises(BundleError, match=rf"network.safetensors: .*{message}"):
        load(copy)


def test_signed_rubbish_is_refused(copy: Path):
    replace_file(copy, "network.safetensors", b"rubbish")
    with pytest.raises(BundleError, match=r"network.safetensors: not safetensors"):
        load(copy)


def test_signed_rubbish_for_trees_is_refused(copy: Path):
    replace_file(copy, "gate.json", b"rubbish")
    with pytest.raises(BundleError, match=r"gate.json: XGBoost cannot read the trees"):
        load(copy)


def test_trees_with_other_columns_are_refused(copy: Path):
    rewrite(copy, lambda raw: raw["gate"].update(statistics=["std", "eta", "skew"]))
    with pytest.raises(BundleError, match=r"gate.json: the trees take 2 columns, 3 statistics are named"):
        load(copy)


def test_another_grid_is_refused(copy: Path):
    rewrite(copy, lambda raw: raw.update(dt_edges=[*DT, 32.0]))
    with pytest.raises(
        BundleError, match=r"dense_1/kernel' has shape \(192, 128\), the network's has \(256, 128\)"
    ):
        load(copy)


def test_an_unknown_architecture_is_refused(copy: Path):
    rewrite(copy, lambda raw: raw["network"].update(architecture="resnet"))
    with pytest.raises(BundleError, match="unknown architecture 'resnet'"):
        load(copy)


def test_other_weights_do_not_give_the_golden_answers(copy: Path):
    replace_file(
        copy, "network.safetensors", safetensors.numpy.save({k: 1 - w for k, w in weights(copy).items()})
    )
    with pytest.raises(BundleError, match=r"golden.safetensors: p_class differs by .*, allowed is 0.002"):
        load(copy)


def test_another_calibration_does_not_give_the_golden_answers(copy: Path):
    rewrite(copy, lambda raw: raw["gate"].update(intercept=3.0))
    with pytest.raises(BundleError, match=r"p_variable differs by"):
        load(copy)


def test_golden_answers_must_be_there(copy: Path):
    golden = safetensors.numpy.load_file(copy / "golden.safetensors")
    replace_file(copy, "golden.safetensors", safetensors.numpy.save({"images": golden["images"]}))
    with pytest.raises(BundleError, match=r"has \['images'\], 'images' and 'p_class' are needed"):
        load(copy)


def test_the_recipe_must_have_the_bundles_images(made: Path):
    manifest = load(made).manifest
    check_images(manifest, DT, DM, "paper")
    with pytest.raises(BundleError, match=r"has 6 dt_edges .*, the recipe has 5"):
        check_images(manifest, DT[:-1], DM, "paper")
    with pytest.raises(BundleError, match="normalised by 'paper', the recipe says 'l2'"):
        check_images(manifest, DT, DM, "l2")


def test_unknown_names_and_folders(tmp_path: Path):
    with pytest.raises(BundleError, match=r"no bundle 'crts7'. Did you mean 'crts-7'"):
        load("crts7")
    with pytest.raises(BundleError, match=r"no bundle.json in it"):
        load(tmp_path)


def test_save_overwrites_nothing(made: Path):
    with pytest.raises(BundleError, match="is not an empty folder"):
        save(
            made,
            manifest(),
            Network("mahabal2017", SHAPE, 3),
            a_gate(),
            card="",
            golden_images=np.ones((1, *SHAPE)),
        )


def test_save_checks_that_the_parts_fit(tmp_path: Path):
    with pytest.raises(BundleError, match="with a gate needs trees"):
        save(
            tmp_path,
            manifest(),
            Network("mahabal2017", SHAPE, 3),
            None,
            card="",
            golden_images=np.ones((1, *SHAPE)),
        )


def test_the_digest_is_of_the_content(made: Path):
    one, other = manifest(), manifest(metrics={"macro_f1": 0.6})
    assert one.digest == manifest().digest
    assert one.digest != other.digest
    assert read_manifest(made).digest != one.digest  # the files' digests are in it


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> object:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(
        extras.MissingExtra, match=r"needs the extra 'cpu' .*pip install 'lightmill\[cpu\]'.*'xgboost'"
    ):
        extras.need("xgboost")


def test_a_manifest_is_read_without_the_extras():
    code = (
        "import sys; from lightmill.models.bundle import available, read_manifest, verify\n"
        "[verify(name).digest for name in available()]\n"
        "assert not {'tensorflow', 'keras', 'xgboost'} & set(sys.modules), 'an extra was imported'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["crts-7", "ztf-dr"])
def test_a_bundle_that_ships(name: str):
    folder = available()[name]
    assert verify(name).name == name
    bundle = load(name)
    assert bundle.has_gate == (name == "ztf-dr")
    assert {path.name for path in folder.iterdir()} == {"bundle.json", *bundle.manifest.files}
    assert sum(path.stat().st_size for path in folder.iterdir()) < 4.7e6
    assert f"macro-F1 {bundle.metrics['macro_f1']:.3f}" in bundle.card
    assert f"--recipe {name} --out BUNDLE" in bundle.card
    assert "/work" not in bundle.card + (folder / "bundle.json").read_text()


def test_the_papers_network_reaches_its_figure():
    metrics = load("crts-7").metrics
    assert metrics["n"] == 7389
    assert metrics["macro_f1"] >= 0.62
    assert np.mean(metrics["macro_f1_folds"]) >= 0.62


def test_the_gate_that_ships_reaches_its_recall():
    report = load("ztf-dr").metrics["gate"]
    assert report["recall"] >= 0.98
    assert report["pass_rate_real"] < 0.5
    # nothing is to be seen by how a star was observed, or with labels that mean nothing
    assert abs(report["controls"]["n alone"] - 0.5) < 0.02
    assert abs(report["controls"]["shuffled labels"] - 0.5) < 0.05


@pytest.mark.parametrize("name", ["crts-7", "ztf-dr"])
def test_the_card_names_the_recipe_that_ships(name: str):
    card = (available()[name] / "card.md").read_text()
    assert f"--recipe {name} --out BUNDLE" in card
