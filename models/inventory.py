"""The models at hand: those that ship and those of the store, bundles and choices of periods alike.

Listing and showing read manifests alone; verifying and promoting load a model, which checks its golden answers.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from lightmill.models import choice as choices
from lightmill.models import folder as bundles
from lightmill.models import store
from lightmill.models.choice import ChoiceManifest
from lightmill.models.folder import BundleError
from lightmill.models.manifest import Manifest

__all__ = ["BUNDLE", "CHOICE", "Checked", "Model", "card", "facts", "models", "promote", "undo", "verify"]

BUNDLE, CHOICE = "bundle", "period choice"  #: kinds of models


@dataclass(frozen=True)
class Model:
    """One model, as a list shows it."""

    name: str
    kind: str  #: BUNDLE or CHOICE
    digest: str  #: sha256 of its content; "" where it cannot be read
    classes: tuple[str, ...]  #: that it tells apart; empty for a choice of periods
    macro_f1: float | None  #: that its training measured, where it did
    source: str  #: "ships" or "promoted"
    current: bool  #: whether this is what the name means
    folder: str
    problem: str = ""  #: why it cannot be read


@dataclass(frozen=True)
class Checked:
    """What a verification found."""

    name: str
    kind: str
    digest: str
    files: int  #: compared with their sha256
    bytes: int
    golden: bool  #: whether it was loaded, and gave its golden answers
    seconds: float
    problem: str = ""  #: empty: all is as it should be


def models() -> list[Model]:
    """Every model that ships or is in the store, by name, what is current first; a damaged one with its problem."""
    found = [_model(folder.name, folder, "ships") for folder in _shipped()]
    found += [_model(folder.name.rpartition("-")[0], folder, "promoted") for folder in store.folders()]
    return sorted(found, key=lambda model: (model.name, not model.current, model.folder))


def facts(name: str | Path) -> dict[str, Any]:
    """All that the manifest of a model says, with its kind, digest and folder.

    Raises
    ------
    BundleError
        if there is none, or its manifest was changed.
    """
    kind, folder, manifest = _open(name)
    head = {"name": manifest.name, "kind": kind, "digest": manifest.digest, "folder": str(folder)}
    return head | manifest.model_dump(mode="json")


def card(name: str | Path) -> str:
    """The model card of a bundle, Markdown, as it was when the bundle was made.

    Raises
    ------
    BundleError
        if there is no such bundle, or its card was changed.
    """
    kind, folder, manifest = _open(name)
    entry = manifest.files.get(bundles.CARD)
    if entry is None:
        raise BundleError(f"{str(name)!r}, a {kind}, has no card; see lightmill models show {name}")
    return bundles.checked(folder / bundles.CARD, entry).decode()


def verify(name: str | Path, *, golden: bool = True) -> Checked:
    """Compare each file of a model with its sha256, and with `golden` load it, which compares its golden answers.

    What is wrong with the model is told in the answer, not raised.

    Raises
    ------
    MissingExtra
        with `golden`, if TensorFlow or XGBoost is not installed.
    """
    start = time.perf_counter()
    try:
        kind, folder, manifest = _open(name)
    except BundleError as error:
        return Checked(str(name), "", "", 0, 0, False, _since(start), str(error))
    count = size = 0
    problem = ""
    try:
        for file, entry in manifest.files.items():
            size += len(bundles.checked(folder / file, entry))
            count += 1
        if golden:
            _load(folder, manifest)
    except BundleError as error:
        problem = str(error)
    return Checked(
        str(name), kind, manifest.digest, count, size, golden and not problem, _since(start), problem
    )


def promote(name_or_folder: str | Path, name: str | None = None) -> Model:
    """Verify and load a bundle, copy it into the store, and let a name mean it from now on.

    What the name meant before stays in the store. A catalogue that was begun with another bundle of the name refuses to
    go on with this one: rows carry the digest.

    Parameters
    ----------
    name_or_folder : a bundle's folder, or what `folder.find` knows: an older one of the store to go back to
    name : that is to mean it; None: the one that it has in the store, else the bundle's own

    Raises
    ------
    BundleError
        if there is no such bundle, it is damaged, or does not give its golden answers. The store is then unchanged.
    StoreError
        if the name cannot be one.
    """
    kind, folder, manifest = _open(name_or_folder)
    if kind == CHOICE:
        raise BundleError(
            f"{folder} is a choice of periods, which a recipe names by its folder: [period] choice = {str(folder)!r}"
        )
    if name is None:  # a folder of the store was promoted under a name before
        name = folder.name.rpartition("-")[0] if folder.parent == store.root() else manifest.name
    target = store.folder_name(name, manifest.digest)
    for file, entry in manifest.files.items():
        bundles.checked(folder / file, entry)
    _load(folder, manifest)
    # the manifest last, though the rename of the whole is what counts
    kept = store.put(folder, [*manifest.files, bundles.MANIFEST], target)
    _check_copy(kept, manifest)
    store.point(name, target)
    return _model(name, kept, "promoted")


def undo(name: str) -> Model | None:
    """Take the last promotion of a name back; returns what it means now, None if that is nothing.

    Raises
    ------
    StoreError
        if it was never promoted, or what it meant before is gone.
    """
    back = store.undo(name)
    if back is not None:
        return _model(name, back, "promoted")
    ships = [folder for folder in _shipped() if folder.name == name]
    return _model(name, ships[0], "ships") if ships else None


def _check_copy(kept: Path, manifest: Manifest | ChoiceManifest) -> None:
    """What is in the store must be what was verified, also where it was there before."""
    try:
        found = bundles.verify(kept).digest
    except BundleError as error:
        raise BundleError(f"{error}; remove {kept}, and promote it again") from error
    if found != manifest.digest:
        raise BundleError(
            f"{kept} holds the bundle {found}, {manifest.digest} begins alike: promote it under another name (--as)"
        )


def _shipped() -> list[Path]:
    """Folders of all models that ship."""
    root = Path(str(resources.files("lightmill.models.weights")))
    manifests = (
        path for pattern in (bundles.MANIFEST, choices.MANIFEST) for path in root.glob(f"*/{pattern}")
    )
    return sorted(path.parent for path in manifests)


def _open(name: str | Path) -> tuple[str, Path, Manifest | ChoiceManifest]:
    """Kind, folder and manifest of a model."""
    choice = next((folder for folder in _shipped() if folder.name == str(name)), Path(name))
    if (choice / choices.MANIFEST).is_file():
        return CHOICE, choice, choices.read_manifest(choice)
    folder = bundles.find(name)
    return BUNDLE, folder, bundles.read_manifest(folder)


def _load(folder: Path, manifest: Manifest | ChoiceManifest) -> None:
    """Load a model, which compares its golden answers."""
    if isinstance(manifest, ChoiceManifest):
        choices.load(folder, manifest.columns)
        return
    from lightmill.models import bundle  # here: what only lists models must not wait for TensorFlow

    bundle.load(folder)


def _model(name: str, folder: Path, source: str) -> Model:
    kind = CHOICE if (folder / choices.MANIFEST).is_file() else BUNDLE
    digest, classes, score, problem = "", (), None, ""
    try:
        manifest = choices.read_manifest(folder) if kind == CHOICE else bundles.read_manifest(folder)
        digest = manifest.digest
        classes = getattr(manifest, "classes", ())
        score = manifest.metrics.get("macro_f1")
    except BundleError as error:
        problem = str(error)
    return Model(name, kind, digest, classes, score, source, _is_current(name, folder), str(folder), problem)


def _is_current(name: str, folder: Path) -> bool:
    try:
        promoted = store.current(name)
    except store.StoreError:
        return False
    return folder == promoted if promoted else folder in _shipped()


def _since(start: float) -> float:
    return round(time.perf_counter() - start, 3)
