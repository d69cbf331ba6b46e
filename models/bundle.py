"""Bundles: a model with all that is needed to apply it, as a folder of plain files named by its sha256.

    bundle.json           the manifest: classes, grid, experts, calibration, metrics, size and sha256 of all other files
    <expert>.safetensors  a network's weights, float16
    <expert>.json.gz      boosted trees on features, in XGBoost's JSON
    gate.json             the gate's trees (only with a gate)
    novelty.safetensors   where known light curves lie among a network's features
    golden.safetensors    a few inputs and what came out when the bundle was made
    card.md               what it is, for people

No file holds code. Each is compared with its sha256 before it is parsed, networks are built by `architectures`, and the
golden inputs are run at each load: a bundle that does not give its own answers is refused.
"""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lightmill.models.calibration import platt
from lightmill.models.combine import at_temperatures, pool
from lightmill.models.experts import Expert, Inputs, load_expert
from lightmill.models.extras import need
from lightmill.models.folder import (
    CARD,
    GATE,
    GOLDEN,
    MANIFEST,
    NOVELTY,
    BundleError,
    available,
    checked,
    find,
    read_manifest,
    sha256,
    verify,
)
from lightmill.models.manifest import FileEntry, Manifest, pool_name
from lightmill.models.networks import WeightsError, precision
from lightmill.models.novelty import Novelty
from lightmill.models.trees import Trees, TreesError

__all__ = [
    "GOLDEN_TOLERANCE",
    "Bundle",
    "BundleError",
    "Parts",
    "available",
    "load",
    "read_manifest",
    "save",
    "verify",
    "versions",
]

GOLDEN_TOLERANCE = {"float32": 2e-3, "bfloat16": 2e-2}
"""Largest allowed difference of a golden answer, by the precision of networks: GPUs may multiply float32 in TF32, with
10 bits of mantissa; bfloat16 has 8."""


@dataclass(frozen=True)
class Parts:
    """What a bundle is made of, beside its manifest."""

    experts: tuple[Expert, ...]
    gate: Trees | None = None
    novelty: Novelty | None = None


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle: arrays in, calibrated probabilities out."""

    manifest: Manifest
    card: str  #: Markdown
    digest: str  #: sha256 of the manifest's content, hexadecimal
    parts: Parts = field(repr=False)

    @property
    def name(self) -> str:
        """The name that it ships under."""
        return self.manifest.name

    @property
    def classes(self) -> tuple[str, ...]:
        """What the experts tell apart."""
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
    def has_gate(self) -> bool:
        """Whether it can tell variable from not."""
        return self.manifest.gate is not None

    @property
    def statistics(self) -> tuple[str, ...]:
        """Names of the columns that `gate` takes, in order; empty without a gate."""
        return self.manifest.gate.statistics if self.manifest.gate else ()

    @property
    def threshold(self) -> float:
        """p_variable from which a light curve is passed on; 0 without a gate. For few epochs see `thresholds`."""
        return self.manifest.gate.threshold if self.manifest.gate else 0.0

    def thresholds(self, epochs: np.ndarray) -> np.ndarray:
        """(n,) float64: p_variable from which light curves of so many epochs are passed on; 0 without a gate."""
        few = self.manifest.gate.few if self.manifest.gate else None
        if few is None:
            return np.full(len(epochs), self.threshold)
        return np.where(np.asarray(epochs) < few.below, few.threshold, self.threshold)

    @property
    def priors(self) -> np.ndarray:
        """(n_classes,) float64, sum 1: share of each class among variables."""
        return np.array(self.manifest.priors) / sum(self.manifest.priors)

    @property
    def metrics(self) -> dict[str, Any]:
        """What was measured when it was made."""
        return self.manifest.metrics

    def expert(self, name: str) -> Expert:
        """One of its experts."""
        self.manifest.chosen([name])
        return next(expert for expert in self.parts.experts if expert.part.name == name)

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
        if part is None or self.parts.gate is None:
            raise BundleError(f'bundle {self.name!r} has no gate: set [gate] mode = "off" in the recipe')
        return platt(self.parts.gate.margin(statistics), part.slope, part.intercept).astype(np.float32)

    def judge(self, inputs: Inputs, experts: Sequence[str] = ()) -> tuple[np.ndarray, np.ndarray | None]:
        """Calibrated class probabilities, and how novel each light curve is.

        Parameters
        ----------
        inputs : the representations that `manifest.needs(experts)` names, each (n, …)
        experts : names of those that are asked; none: all

        Returns
        -------
        probabilities : (n, n_classes) float32, rows sum to 1
        novelty : (n,) float32 in [0, 1], see `novelty`; None if it is not told, or not by these experts

        Raises
        ------
        ValueError
            if there are no such experts, or an input is missing or has another shape.
        """
        asked = self.manifest.chosen(experts)
        missing = [name for name in self.manifest.needs(experts) if name not in inputs]
        if missing:
            raise ValueError(f"inputs missing: {', '.join(missing)}; given are {', '.join(inputs) or 'none'}")
        names = [expert.name for expert in asked]
        answers = {
            expert.part.name: expert.answers(inputs)
            for expert in self.parts.experts
            if expert.part.name in names
        }
        part = self.manifest.combiners[pool_name(names)]
        pooled = pool([answers[name][0] for name in names], part.weights)
        p = at_temperatures(pooled, self.classes, part.temperatures).astype(np.float32)
        if self.parts.novelty is None or not set(self.manifest.novelty) <= set(names):
            return p, None
        return p, self.parts.novelty.score(last_features(answers, self.manifest.novelty))


def last_features(answers: Mapping[str, tuple[Any, np.ndarray | None]], names: Sequence[str]) -> np.ndarray:
    """The last features of several networks side by side: (n, d)."""
    found = [answers[name][1] for name in names]
    return np.concatenate([one for one in found if one is not None], axis=1)


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
    experts: list[Expert] = []
    gate, novelty, file = None, None, ""
    try:
        for part in manifest.experts:
            file = part.file
            experts.append(load_expert(part, content[file], len(manifest.classes), len(manifest.features)))
        if manifest.gate:
            file = GATE
            gate = Trees.from_json(content[file], len(manifest.gate.statistics))
        if manifest.novelty:
            file = NOVELTY
            novelty = Novelty.of(_tensors(folder / file, content[file]))
    except BundleError:
        raise
    except (WeightsError, TreesError, ValueError) as error:
        raise BundleError(f"{folder / file}: {error}; the bundle is damaged: get it anew") from error
    bundle = Bundle(manifest, content[CARD].decode(), manifest.digest, Parts(tuple(experts), gate, novelty))
    _check_golden(folder / GOLDEN, bundle, _tensors(folder / GOLDEN, content[GOLDEN]))
    return bundle


def save(
    folder: str | Path,
    manifest: Manifest,
    parts: Parts,
    *,
    card: str,
    golden_inputs: Inputs,
    golden_statistics: np.ndarray | None = None,
) -> Bundle:
    """Write a bundle and load it again.

    Parameters
    ----------
    folder : must not exist, or be empty
    manifest : without `files`; they are filled in here
    card : Markdown
    golden_inputs : the representations that `manifest.needs()` names, of a few light curves
    golden_statistics : (k, n_statistics), with a gate

    Raises
    ------
    BundleError
        if the folder holds something, or the manifest and the parts do not fit each other.
    """
    path = Path(folder)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise BundleError(f"{path} exists and is not an empty folder: choose another, or remove it")
    if (manifest.gate is None) != (parts.gate is None):
        raise BundleError("a manifest with a gate needs trees, and one without must have none")
    if bool(manifest.novelty) != (parts.novelty is not None):
        raise BundleError("a manifest that tells novelty needs its arrays, and another must have none")
    if [expert.part for expert in parts.experts] != list(manifest.experts):
        raise BundleError(
            f"the manifest names the experts {', '.join(manifest.names)}, given are "
            f"{', '.join(expert.part.name for expert in parts.experts)}: they must be the same"
        )
    missing = [name for name in manifest.needs() if name not in golden_inputs]
    if missing:
        raise BundleError(f"golden inputs missing: {', '.join(missing)}")
    safetensors = need("safetensors.numpy")
    content = {expert.part.file: expert.to_bytes() for expert in parts.experts} | {CARD: card.encode()}
    if parts.novelty is not None:
        content[NOVELTY] = safetensors.save(
            {name: np.ascontiguousarray(value) for name, value in parts.novelty.tensors().items()}
        )
    bare = Bundle(manifest, card, "", parts)
    # contiguous: safetensors writes the memory as it lies
    golden = {name: np.ascontiguousarray(golden_inputs[name], np.float32) for name in manifest.needs()}
    golden["p_class"], novelty = bare.judge(golden)
    if novelty is not None:
        golden["novelty"] = novelty
    if parts.gate is not None:
        if golden_statistics is None:
            raise BundleError("a bundle with a gate needs golden_statistics")
        golden["statistics"] = np.ascontiguousarray(golden_statistics, np.float64)
        golden["p_variable"] = bare.gate(golden["statistics"])
        content[GATE] = parts.gate.to_json()
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
    told = bundle.parts.novelty is not None
    wanted = {*bundle.manifest.needs(), "p_class", *(["novelty"] if told else [])}
    wanted |= {"statistics", "p_variable"} if bundle.has_gate else set()
    if not wanted <= golden.keys():
        raise BundleError(f"{path}: has {sorted(golden)}, {sorted(wanted)} are needed: get the bundle anew")
    found: dict[str, np.ndarray] = {}
    try:
        found["p_class"], novelty = bundle.judge(golden)
        if novelty is not None:
            found["novelty"] = novelty
        if bundle.has_gate:
            found["p_variable"] = bundle.gate(golden["statistics"])
    except ValueError as error:
        raise BundleError(f"{path}: {error}") from error
    allowed = GOLDEN_TOLERANCE[precision()]
    for name, values in found.items():
        if values.shape != golden[name].shape:
            raise BundleError(
                f"{path}: {name} has shape {golden[name].shape}, the bundle gives {values.shape}"
            )
        worst = float(np.abs(values - golden[name]).max(initial=0.0))
        if not worst <= allowed:
            raise BundleError(
                f"{path}: {name} differs by {worst:.3g} from the answers when the bundle was made, allowed is "
                f"{allowed}: this machine's TensorFlow or XGBoost computes something else"
            )
