"""Bundles: a model with all that is needed to apply it, as a folder of plain files named by its sha256.

    bundle.json           the manifest: classes, grid, calibration, metrics, size and sha256 of every other file
    network.safetensors   the network's weights, float16
    gate.json             the gate's trees, in XGBoost's JSON (only with a gate)
    golden.safetensors    a few inputs and what came out when the bundle was made
    card.md               what it is, for people

No file holds code. Each is compared with its sha256 before it is parsed, the network is built by
`networks`, and the golden inputs are run at each load: a bundle that does not give its own answers is
refused.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightmill.models.calibration import platt, scale_by_temperature
from lightmill.models.extras import need
from lightmill.models.folder import (
    CARD,
    GATE,
    GOLDEN,
    MANIFEST,
    WEIGHTS,
    BundleError,
    available,
    checked,
    find,
    read_manifest,
    sha256,
    verify,
)
from lightmill.models.manifest import FileEntry, Manifest
from lightmill.models.networks import Network, WeightsError
from lightmill.models.trees import Trees, TreesError

__all__ = [
    "GOLDEN_TOLERANCE",
    "Bundle",
    "BundleError",
    "available",
    "check_images",
    "load",
    "read_manifest",
    "save",
    "verify",
    "versions",
]

GOLDEN_TOLERANCE = 2e-3
"""Largest allowed difference of a golden probability: GPUs may multiply in TF32, with 10 bits of mantissa."""


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle: arrays in, calibrated probabilities out."""

    manifest: Manifest
    card: str  #: Markdown
    digest: str  #: sha256 of the manifest's content, hexadecimal
    _network: Network
    _trees: Trees | None

    @property
    def name(self) -> str:
        """The name that it ships under."""
        return self.manifest.name

    @property
    def classes(self) -> tuple[str, ...]:
        """What the network tells apart."""
        return self.manifest.classes

    @property
    def leaves(self) -> tuple[str, ...]:
        """What the bundle gives probabilities for: ("nonvar", *classes) with a gate, else the classes."""
        return self.manifest.leaves

    @property
    def dt_edges(self) -> tuple[float, ...]:
        """(n_dt + 1,) [d]."""
        return self.manifest.dt_edges

    @property
    def dm_edges(self) -> tuple[float, ...]:
        """(n_dm + 1,) [mag]."""
        return self.manifest.dm_edges

    @property
    def normalisation(self) -> str:
        """How counts become the images that `network` takes."""
        return self.manifest.normalisation

    @property
    def has_gate(self) -> bool:
        """Whether it can tell variable from not."""
        return self.manifest.gate is not None

    @property
    def statistics(self) -> tuple[str, ...]:
        """Names of the columns that `gate` takes, in order; empty without a gate."""
        return self.manifest.gate.statistics if self.manifest.gate else ()

    @property
    def threshold(self) -> float:
        """p_variable from which a light curve is passed on; 0 without a gate."""
        return self.manifest.gate.threshold if self.manifest.gate else 0.0

    @property
    def priors(self) -> np.ndarray:
        """(n_classes,) float64, sum 1: share of each class among variables."""
        return np.array(self.manifest.priors) / sum(self.manifest.priors)

    @property
    def metrics(self) -> dict[str, Any]:
        """What was measured when it was made."""
        return self.manifest.metrics

    def gate(self, statistics: np.ndarray) -> np.ndarray:
        """Calibrated probability that a light curve is variable.

        Parameters
        ----------
        statistics : (n, len(self.statistics)) float, columns as `self.statistics` names them

        Returns
        -------
        (n,) float32 in [0, 1]
        """
        part = self.manifest.gate
        if part is None or self._trees is None:
            raise BundleError(f'bundle {self.name!r} has no gate: set [gate] mode = "off" in the recipe')
        return platt(self._trees.margin(statistics), part.slope, part.intercept).astype(np.float32)

    def network(self, images: np.ndarray) -> np.ndarray:
        """Calibrated class probabilities.

        Parameters
        ----------
        images : (n, n_dm, n_dt) float32 in the bundle's normalisation

        Returns
        -------
        (n, n_classes) float32, rows sum to 1
        """
        return scale_by_temperature(self._network.logits(images), self.manifest.network.temperature).astype(
            np.float32
        )


def load(name_or_path: str | Path) -> Bundle:
    """Load a bundle by the name that it ships under, or from a folder.

    Raises
    ------
    BundleError
        if there is none (with the nearest name), a file is missing or changed, or it does not give its golden answers.
    MissingExtra
        if TensorFlow or XGBoost is not installed.
    """
    folder = find(name_or_path)
    manifest = read_manifest(folder)
    content = {name: checked(folder / name, entry) for name, entry in manifest.files.items()}
    try:
        part = manifest.network
        network = Network(part.architecture, manifest.shape, len(manifest.classes), part.parameters)
        network.set_weights(_tensors(folder / WEIGHTS, content[WEIGHTS]))
    except WeightsError as error:
        raise BundleError(f"{folder / WEIGHTS}: {error}; the bundle is damaged: get it anew") from error
    trees = None
    if manifest.gate:
        try:
            trees = Trees.from_json(content[GATE], len(manifest.gate.statistics))
        except TreesError as error:
            raise BundleError(f"{folder / GATE}: {error}; the bundle is damaged: get it anew") from error
    bundle = Bundle(manifest, content[CARD].decode(), manifest.digest, network, trees)
    _check_golden(folder / GOLDEN, bundle, _tensors(folder / GOLDEN, content[GOLDEN]))
    return bundle


def check_images(
    manifest: Manifest, dt_edges: Sequence[float], dm_edges: Sequence[float], normalisation: str
) -> None:
    """Raise BundleError unless images with these edges and normalisation are what the network was trained on."""
    for name, given in (("dt_edges", dt_edges), ("dm_edges", dm_edges)):
        own = getattr(manifest, name)
        if tuple(given) != own:
            raise BundleError(
                f"bundle {manifest.name!r} has {len(own)} {name} {own}, the recipe has {len(given)}: {tuple(given)}; "
                "use the bundle's grid in [dmdt], or train a bundle for this one"
            )
    if normalisation != manifest.normalisation:
        raise BundleError(
            f"bundle {manifest.name!r} takes images normalised by {manifest.normalisation!r}, the recipe says "
            f"{normalisation!r}: change [dmdt] normalisation, or train a bundle for it"
        )


def save(
    folder: str | Path,
    manifest: Manifest,
    network: Network,
    trees: Trees | None,
    *,
    card: str,
    golden_images: np.ndarray,
    golden_statistics: np.ndarray | None = None,
) -> Bundle:
    """Write a bundle and load it again.

    Parameters
    ----------
    folder : must not exist, or be empty
    manifest : without `files`; they are filled in here
    card : Markdown
    golden_images : (k, n_dm, n_dt) in the bundle's normalisation
    golden_statistics : (k, n_statistics), with a gate

    Raises
    ------
    BundleError
        if the folder holds something, or the manifest and the parts do not fit each other.
    """
    path = Path(folder)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise BundleError(f"{path} exists and is not an empty folder: choose another, or remove it")
    if (manifest.gate is None) != (trees is None):
        raise BundleError("a manifest with a gate needs trees, and one without must have none")
    safetensors = need("safetensors.numpy")
    half = {name: value.astype(np.float16) for name, value in network.weights().items()}
    # golden answers come from the rounded weights: they are what a reader has
    network.set_weights({name: value.astype(np.float32) for name, value in half.items()})
    bare = Bundle(manifest, card, "", network, trees)
    # contiguous: safetensors writes the memory as it lies
    golden = {"images": np.ascontiguousarray(golden_images, np.float32)}
    golden["p_class"] = bare.network(golden["images"])
    content = {WEIGHTS: safetensors.save(half), CARD: card.encode()}
    if trees is not None:
        if golden_statistics is None:
            raise BundleError("a bundle with a gate needs golden_statistics")
        golden["statistics"] = np.ascontiguousarray(golden_statistics, np.float64)
        golden["p_variable"] = bare.gate(golden["statistics"])
        content[GATE] = trees.to_json()
    content[GOLDEN] = safetensors.save(golden)
    files = {name: FileEntry(sha256=sha256(data), size=len(data)) for name, data in sorted(content.items())}
    path.mkdir(parents=True, exist_ok=True)
    for name, data in content.items():
        (path / name).write_bytes(data)
    # the manifest comes last: a folder without one is no bundle
    (path / MANIFEST).write_text(manifest.model_copy(update={"files": files}).to_json(), encoding="utf-8")
    return load(path)


def versions() -> dict[str, str]:
    """Versions of what a bundle is made with."""
    found = {"python": platform.python_version()}
    for package in (
        "lightmill",
        "numpy",
        "keras",
        "tensorflow",
        "tensorflow-cpu",
        "xgboost",
        "xgboost-cpu",
        "safetensors",
    ):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _tensors(path: Path, data: bytes) -> dict[str, np.ndarray]:
    try:
        return need("safetensors.numpy").load(data)
    except need("safetensors").SafetensorError as error:
        raise BundleError(f"{path}: not safetensors: {error}; the bundle is damaged: get it anew") from error


def _check_golden(path: Path, bundle: Bundle, golden: dict[str, np.ndarray]) -> None:
    answers = {"p_class": ("images", bundle.network)} | (
        {"p_variable": ("statistics", bundle.gate)} if bundle.has_gate else {}
    )
    for name, (given, function) in answers.items():
        if not {name, given} <= golden.keys():
            raise BundleError(
                f"{path}: has {sorted(golden)}, {given!r} and {name!r} are needed: get the bundle anew"
            )
        try:
            found = function(golden[given])
        except ValueError as error:
            raise BundleError(f"{path}: {error}") from error
        if found.shape != golden[name].shape:
            raise BundleError(
                f"{path}: {name} has shape {golden[name].shape}, the bundle gives {found.shape}"
            )
        worst = float(np.abs(found - golden[name]).max(initial=0.0))
        if not worst <= GOLDEN_TOLERANCE:
            raise BundleError(
                f"{path}: {name} differs by {worst:.3g} from the answers when the bundle was made, allowed is "
                f"{GOLDEN_TOLERANCE}: this machine's TensorFlow or XGBoost computes something else"
            )
