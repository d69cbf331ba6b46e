"""The manifest of a bundle: `bundle.json`, everything about a model that is not weights (DESIGN.md, section 1)."""

from __future__ import annotations

import hashlib
import json
from itertools import pairwise
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lightmill.models.taxonomy import check_classes

__all__ = ["FORMAT", "FileEntry", "GatePart", "Manifest", "NetworkPart"]

FORMAT = 1
"""Version of the format; a reader refuses what it does not know."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileEntry(_Part):
    """What a file of the bundle must be."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size: int = Field(ge=0)  #: [bytes]


class NetworkPart(_Part):
    """How the network is built, and its calibration."""

    architecture: str
    parameters: dict[str, Any] = {}  #: of the architecture's builder
    temperature: float = Field(gt=0)  #: logits are divided by it


class GatePart(_Part):
    """What the gate takes, its calibration, and where it opens."""

    statistics: tuple[str, ...] = Field(min_length=1)  #: columns, in order
    slope: float = Field(gt=0)  #: of the sigmoid that makes margins probabilities
    intercept: float
    threshold: float = Field(ge=0, le=1)  #: p_variable from which a light curve passes


class Manifest(_Part):
    """One bundle, without its weights."""

    format: Literal[1] = 1
    name: str = Field(min_length=1)
    classes: tuple[str, ...] = Field(min_length=2)
    dt_edges: tuple[float, ...] = Field(min_length=2)  #: [d]
    dm_edges: tuple[float, ...] = Field(min_length=2)  #: [mag]
    normalisation: str
    network: NetworkPart
    gate: GatePart | None
    priors: tuple[float, ...]  #: share of each class among variables
    training: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    versions: dict[str, str] = {}
    files: dict[str, FileEntry] = {}

    @model_validator(mode="after")
    def _fits(self) -> Manifest:
        check_classes(self.classes)
        if len(self.priors) != len(self.classes):
            raise ValueError(f"{len(self.priors)} priors for {len(self.classes)} classes: one each")
        if min(self.priors) < 0 or abs(sum(self.priors) - 1.0) > 1e-6:
            raise ValueError(
                f"priors must be ≥ 0 and sum to 1, got {self.priors} with sum {sum(self.priors)}"
            )
        for name in ("dt_edges", "dm_edges"):
            edges = getattr(self, name)
            if any(b <= a for a, b in pairwise(edges)):
                raise ValueError(f"{name} must increase, got {edges}")
        return self

    @property
    def shape(self) -> tuple[int, int]:
        """(n_dm, n_dt), the shape of an image."""
        return len(self.dm_edges) - 1, len(self.dt_edges) - 1

    @property
    def leaves(self) -> tuple[str, ...]:
        """What the bundle gives probabilities for: nonvar first if it has a gate, then the classes."""
        return ("nonvar", *self.classes) if self.gate else self.classes

    @property
    def digest(self) -> str:
        """sha256 of the content, the files' digests included: the identity of the bundle."""
        text = json.dumps(
            self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=True
        )
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> str:
        """The text of `bundle.json`: the content and, first, its digest."""
        return (
            json.dumps({"digest": self.digest} | self.model_dump(mode="json"), indent=1, ensure_ascii=False)
            + "\n"
        )
