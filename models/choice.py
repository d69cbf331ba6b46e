"""The choice among a star's candidate periods: a small model of its own, as a folder of plain files.

    choice.json           what it takes, how it was trained and tested, size and sha256 of the other files
    trees.json.gz         boosted trees, in XGBoost's JSON: rows of numbers about candidates → that it is the period
    golden.safetensors    a few rows and what came out when it was made

Like a bundle it holds no code, each file is compared with its sha256 before it is parsed, and it is refused when it
does not give its own answers.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lightmill.models.extras import need
from lightmill.models.folder import BundleError, checked, sha256
from lightmill.models.manifest import FileEntry
from lightmill.models.trees import Trees, TreesError

__all__ = ["Choice", "ChoiceManifest", "check_free", "load", "read_manifest", "save"]

MANIFEST, TREES, GOLDEN = "choice.json", "trees.json.gz", "golden.safetensors"
TOLERANCE = 1e-4  #: largest difference of a golden probability: trees compare and add float32


class ChoiceManifest(BaseModel):
    """A choice without its trees."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    name: str = Field(min_length=1)
    columns: tuple[str, ...] = Field(min_length=1)  #: of the rows, in order
    considered: int = Field(ge=1)  #: candidates of a star that are asked about, from the highest rank down
    training: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    files: dict[str, FileEntry] = {}

    @property
    def digest(self) -> str:
        """sha256 of the content, the files' digests included: its identity."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Choice:
    """A loaded choice: rows in, probabilities out."""

    manifest: ChoiceManifest
    _trees: Trees

    @property
    def digest(self) -> str:
        """sha256 of the manifest's content, hexadecimal."""
        return self.manifest.digest

    def probability(self, rows: np.ndarray) -> np.ndarray:
        """That the candidate of a row is the star's period: (k, len(columns)) float → (k,) float32."""
        return (1 / (1 + np.exp(-self._trees.margin(rows)))).astype(np.float32)


def read_manifest(name_or_path: str | Path) -> ChoiceManifest:
    """Read and check `choice.json` alone; needs no extra.

    Raises
    ------
    BundleError
        if there is none, or it was changed.
    """
    path = _folder(name_or_path) / MANIFEST
    if not path.is_file():
        raise BundleError(
            f"no choice of periods {str(name_or_path)!r}: the one that ships is {SHIPPED!r}, or give a folder with a "
            f"{MANIFEST}"
        )
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        stated = raw.pop("digest", None)
        manifest = ChoiceManifest.model_validate(raw)
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise BundleError(f"{path}: cannot be read: {reason}; it is damaged: get it anew") from error
    if manifest.digest != stated:
        raise BundleError(
            f"{path}: sha256 of the content is {manifest.digest}, stated is {stated}: it was changed"
        )
    return manifest


def load(name_or_path: str | Path, columns: Sequence[str]) -> Choice:
    """Load a choice that takes rows of these columns.

    Raises
    ------
    BundleError
        if a file is missing or changed, it takes other columns, or it does not give its golden answers.
    MissingExtra
        if XGBoost is not installed.
    """
    manifest, folder = read_manifest(name_or_path), _folder(name_or_path)
    if manifest.columns != tuple(columns):
        other = sorted(set(manifest.columns) ^ set(columns))
        raise BundleError(
            f"choice {manifest.name!r} takes {len(manifest.columns)} columns, this Lightmill makes {len(columns)}; "
            f"they differ in {', '.join(other) or 'their order'}: train it anew (lightmill train --periods)"
        )
    content = {name: checked(folder / name, entry) for name, entry in manifest.files.items()}
    try:
        trees = Trees.from_json(gzip.decompress(content[TREES]), len(columns))
        golden = need("safetensors.numpy").load(content[GOLDEN])
    except (KeyError, OSError, TreesError, need("safetensors").SafetensorError) as error:
        raise BundleError(f"{folder}: {error}; the choice is damaged: get it anew") from error
    choice = Choice(manifest, trees)
    worst = float(np.abs(choice.probability(golden["rows"]) - golden["probability"]).max(initial=0.0))
    if not worst <= TOLERANCE:
        raise BundleError(
            f"{folder}: probabilities differ by {worst:.3g} from those when the choice was made, allowed is "
            f"{TOLERANCE}: this machine's XGBoost computes something else"
        )
    return choice


def check_free(folder: str | Path) -> None:
    """Raise BundleError unless the folder is empty, or is not there."""
    path = Path(folder)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise BundleError(f"{path} exists and is not an empty folder: choose another, or remove it")


def save(folder: str | Path, manifest: ChoiceManifest, trees: Trees, golden: np.ndarray) -> Choice:
    """Write a choice and load it again; `manifest` without files, `golden` a few rows to check it by.

    Raises
    ------
    BundleError
        if the folder holds something.
    """
    check_free(folder)
    path = Path(folder)
    rows = np.ascontiguousarray(golden, np.float32)
    answers = {"rows": rows, "probability": Choice(manifest, trees).probability(rows)}
    content = {
        TREES: gzip.compress(trees.to_json(), mtime=0),  # no time in it: same trees, same bytes
        GOLDEN: need("safetensors.numpy").save(answers),
    }
    files = {name: FileEntry(sha256=sha256(data), size=len(data)) for name, data in content.items()}
    full = manifest.model_copy(update={"files": files})
    path.mkdir(parents=True, exist_ok=True)
    for name, data in content.items():
        (path / name).write_bytes(data)
    text = json.dumps({"digest": full.digest} | full.model_dump(mode="json"), indent=1, ensure_ascii=False)
    # the manifest comes last: a folder without one is no choice
    (path / MANIFEST).write_text(text + "\n", encoding="utf-8")
    return load(path, manifest.columns)


SHIPPED = "period-choice"  #: name of the one that ships


def _folder(name_or_path: str | Path) -> Path:
    if str(name_or_path) == SHIPPED:
        return Path(str(resources.files("lightmill.models.weights"))) / SHIPPED
    return Path(name_or_path)
