"""The folder of a bundle: found by name or path, its manifest read, every file checked against its sha256.

Nothing here needs TensorFlow or XGBoost: what only asks which bundle it is loads none.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from pydantic import ValidationError

from lightmill.models import store
from lightmill.models.manifest import READ, FileEntry, Manifest

__all__ = [
    "CARD",
    "GATE",
    "GOLDEN",
    "MANIFEST",
    "NOVELTY",
    "BundleError",
    "available",
    "check_inputs",
    "checked",
    "find",
    "read_manifest",
    "sha256",
    "shipped",
    "verify",
]

MANIFEST = "bundle.json"
GATE = "gate.json"
GOLDEN = "golden.safetensors"
NOVELTY = "novelty.safetensors"
CARD = "card.md"


class BundleError(ValueError):
    """A bundle is missing, damaged, or does not fit what it is used for."""


def available() -> dict[str, Path]:
    """The bundles that a name means: folder by name, of those that were promoted and of those that ship."""
    promoted = {}
    for name in store.names():
        try:
            folder = store.current(name)
        except store.StoreError:
            continue  # `find` says what is wrong with it to whoever asks for it
        if folder is not None and (folder / MANIFEST).is_file():
            promoted[name] = folder
    return shipped() | promoted


def shipped() -> dict[str, Path]:
    """The bundles that ship with Lightmill: folder by name."""
    root = Path(str(resources.files("lightmill.models.weights")))
    return {path.parent.name: path.parent for path in sorted(root.glob(f"*/{MANIFEST}"))}


def find(name_or_path: str | Path) -> Path:
    """The folder of a bundle, which has a manifest: of the store, else one that ships, else the path itself.

    A name with the first digits of its digest (`ztf-dr-902b8c58`) is that very bundle, current or not.
    """
    name = str(name_or_path)
    try:
        found = store.resolve(name)
    except store.StoreError as error:
        raise BundleError(str(error)) from error
    path = found or shipped().get(name) or _shipped_by_digest(name) or Path(name_or_path)
    if path.is_dir():
        if not (path / MANIFEST).is_file():
            raise BundleError(f"{path}: no {MANIFEST} in it, so it is no bundle")
        return path
    known = available()
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise BundleError(
        f"no bundle {name!r}.{hint} Known are {', '.join(sorted(known)) or 'none'}, or give a folder"
    )


def _shipped_by_digest(name: str) -> Path | None:
    """The bundle that ships under the name before the last dash, if its digest begins as the rest says."""
    short, _, digits = name.rpartition("-")
    folder = shipped().get(short) if len(digits) == store.DIGITS else None
    return folder if folder and read_manifest(folder).digest.startswith(digits) else None


def verify(folder: str | Path) -> Manifest:
    """Check every file of a bundle against its sha256, without loading any: needs no extra."""
    path = find(folder)
    manifest = read_manifest(path)
    for name, entry in manifest.files.items():
        checked(path / name, entry)
    return manifest


def read_manifest(name_or_path: str | Path) -> Manifest:
    """Read and check `bundle.json` alone: name, classes, digest; needs no extra."""
    path = find(name_or_path) / MANIFEST
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: not JSON: {error}; the bundle is damaged: get it anew") from error
    if not isinstance(raw, dict) or raw.get("format") not in READ:
        found = raw.get("format") if isinstance(raw, dict) else type(raw).__name__
        raise BundleError(
            f"{path}: format {found!r}, this Lightmill reads {READ[0]} to {READ[-1]}: train the bundle anew, or use "
            "the version that wrote it"
        )
    stated = raw.pop("digest", None)
    try:
        manifest = Manifest.model_validate(raw)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise BundleError(f"{path}: {problems}") from error
    if manifest.digest != stated:
        raise BundleError(
            f"{path}: sha256 of the content is {manifest.digest}, stated is {stated}: it was changed"
        )
    expected = set(manifest.content)
    if set(manifest.files) != expected:
        raise BundleError(
            f"{path}: lists the files {sorted(manifest.files)}, expected are {sorted(expected)}"
        )
    return manifest


def check_inputs(
    manifest: Manifest,
    dt_edges: Sequence[float],
    dm_edges: Sequence[float],
    representation: int,
    period: tuple[str, Mapping[str, float]] | None,
    experts: Sequence[str] = (),
) -> None:
    """Raise BundleError unless experts will get what they were trained on.

    Parameters
    ----------
    dt_edges, dm_edges : of the images that will be made
    representation : version of what makes the inputs
    period : sha256 of the choice among candidates, and limits of the search; None: none will be searched
    experts : that will be asked; none: all
    """
    try:
        needs = manifest.needs(experts)
    except ValueError as error:
        raise BundleError(str(error)) from error
    for name, given in (("dt_edges", dt_edges), ("dm_edges", dm_edges)):
        own = getattr(manifest, name)
        if tuple(given) != own:
            raise BundleError(
                f"bundle {manifest.name!r} has {len(own)} {name} {own}, the recipe has {len(given)}: {tuple(given)}; "
                "use the bundle's grid in [dmdt], or train a bundle for this one"
            )
    if representation != manifest.representation:
        raise BundleError(
            f"bundle {manifest.name!r} was trained on inputs of version {manifest.representation}, this Lightmill "
            f"makes {representation}: train it anew, or use the version that it came with"
        )
    if manifest.period is None or all(need.startswith("image:") for need in needs):
        return
    if period is None:
        raise BundleError(
            f'bundle {manifest.name!r} needs periods: set [period] mode = "on" in the recipe, or ask only experts '
            'that need none, as in [classes] experts = ["dmdt"]'
        )
    choice, limits = period
    if choice != manifest.period.choice or dict(limits) != manifest.period.limits:
        raise BundleError(
            f"bundle {manifest.name!r} was trained with periods of the choice {manifest.period.choice[:8]} within "
            f"{manifest.period.limits}, the recipe's [period] has {choice[:8]} within {dict(limits)}: use the bundle's,"
            " or train a bundle for these"
        )


def checked(path: Path, entry: FileEntry) -> bytes:
    """The file's content, if it is what the manifest says."""
    if not path.is_file():
        raise BundleError(
            f"{path}: missing, {MANIFEST} lists it with {entry.size} bytes: get the bundle anew"
        )
    if path.stat().st_size != entry.size:
        raise BundleError(
            f"{path}: {path.stat().st_size} bytes, {MANIFEST} says {entry.size}: get the bundle anew"
        )
    data = path.read_bytes()
    if sha256(data) != entry.sha256:
        raise BundleError(
            f"{path}: sha256 {sha256(data)}, {MANIFEST} says {entry.sha256}: it was changed; get it anew"
        )
    return data


def sha256(data: bytes) -> str:
    """Digest, hexadecimal."""
    return hashlib.sha256(data).hexdigest()
