"""The manifest of a bundle: `bundle.json`, everything about a model that is not weights (DESIGN.md, section 1)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lightmill.models.taxonomy import check_classes

__all__ = [
    "FORMAT",
    "READ",
    "CombinerPart",
    "Expert",
    "FewEpochs",
    "FileEntry",
    "GatePart",
    "Manifest",
    "NetworkPart",
    "PeriodPart",
    "TreesPart",
    "pool_name",
]

FORMAT = 3
"""Version of the format; a reader refuses what it does not know. 3: a gate may have a threshold for few epochs."""

READ = (2, 3)
"""Versions that are read: what is new in 3 is left out of the content where there is none, so digests of 2 hold."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


NAME = "^[a-z][a-z0-9_]*$"  #: of an expert: its file is called so
TAKEN = ("gate", "golden", "novelty", "bundle", "card")  #: names of other files


def pool_name(experts: Iterable[str]) -> str:
    """The key of a set of experts among the combiners.

    >>> pool_name(["trees", "dmdt"])
    'dmdt+trees'
    """
    return "+".join(sorted(experts))


class FileEntry(_Part):
    """What a file of the bundle must be."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size: int = Field(ge=0)  #: [bytes]


class NetworkPart(_Part):
    """An expert that is a network."""

    kind: Literal["network"] = "network"
    name: str = Field(pattern=NAME)
    architecture: str
    parameters: dict[str, Any] = {}  #: of the architecture's builder
    inputs: dict[
        str, str
    ]  #: of the architecture → representation of the light curve, "image:count" for example
    shapes: dict[str, tuple[int, ...]]  #: of one row of each input
    turns: int = Field(default=1, ge=1)  #: places where a round input is begun; the answers are averaged

    @property
    def file(self) -> str:
        """Where its weights are."""
        return f"{self.name}.safetensors"

    @property
    def needs(self) -> tuple[str, ...]:
        """Representations that it takes."""
        return tuple(self.inputs.values())


class TreesPart(_Part):
    """An expert that is boosted trees on the bundle's `features`."""

    kind: Literal["trees"] = "trees"
    name: str = Field(pattern=NAME)

    @property
    def file(self) -> str:
        """Where the trees are."""
        return f"{self.name}.json.gz"

    @property
    def needs(self) -> tuple[str, ...]:
        """Representations that it takes."""
        return ("features",)


Expert = Annotated[NetworkPart | TreesPart, Field(discriminator="kind")]


class CombinerPart(_Part):
    """How the answers of a set of experts become one."""

    #: of each expert's log-probabilities, in the order of `Manifest.experts`
    weights: tuple[Annotated[float, Field(ge=0)], ...]
    #: of each inner node of the taxonomy
    temperatures: dict[str, Annotated[float, Field(gt=0)]]


class PeriodPart(_Part):
    """Which periods the experts were trained with."""

    choice: str = Field(pattern="^[0-9a-f]{64}$")  #: sha256 of the choice among candidates
    limits: dict[str, float]  #: of the search: fmin, fmax [1/d], oversampling, candidates


class FewEpochs(_Part):
    """Where the gate opens for light curves of few epochs, in which less shows."""

    below: int = Field(ge=1)  #: number of epochs from which `GatePart.threshold` holds
    threshold: float = Field(ge=0, le=1)  #: p_variable from which one with fewer passes


class GatePart(_Part):
    """What the gate takes, its calibration, and where it opens."""

    statistics: tuple[str, ...] = Field(min_length=1)  #: columns, in order
    slope: float = Field(gt=0)  #: of the sigmoid that makes margins probabilities
    intercept: float
    threshold: float = Field(ge=0, le=1)  #: p_variable from which a light curve passes
    few: FewEpochs | None = Field(default=None, exclude_if=lambda few: few is None)  #: None: the same for all


class Manifest(_Part):
    """One bundle, without its weights."""

    format: Literal[2, 3] = 3
    name: str = Field(min_length=1)
    classes: tuple[str, ...] = Field(min_length=2)
    dt_edges: tuple[float, ...] = Field(min_length=2)  #: [d]
    dm_edges: tuple[float, ...] = Field(min_length=2)  #: [mag]
    representation: int  #: version of what makes the experts' inputs of a light curve
    features: tuple[str, ...] = ()  #: columns that trees take, in order
    period: PeriodPart | None  #: None: no expert looks at a period
    experts: tuple[Expert, ...] = Field(min_length=1)
    combiners: dict[str, CombinerPart]  #: by `pool_name` of each set of experts that may answer
    novelty: tuple[str, ...] = ()  #: networks by whose last features novelty is told; none: it is not
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
        names = [expert.name for expert in self.experts]
        if len(set(names)) != len(names) or set(names) & set(TAKEN):
            raise ValueError(f"experts {names}: each needs a name of its own, and none of {', '.join(TAKEN)}")
        if pool_name(names) not in self.combiners:
            raise ValueError(
                f"no combiner for all experts, {pool_name(names)!r}; there are {list(self.combiners)}"
            )
        for key, combiner in self.combiners.items():
            own = set(key.split("+"))
            if not own <= set(names) or key != pool_name(own) or len(combiner.weights) != len(own):
                raise ValueError(
                    f"combiner {key!r} has {len(combiner.weights)} weights, experts are {names}: a key is some of them "
                    "in alphabetical order with + between, and each has a weight"
                )
        for expert in self.experts:
            self._takes(expert)
        networks = {expert.name for expert in self.experts if expert.kind == "network"}
        if not set(self.novelty) <= networks:
            raise ValueError(f"novelty is told by {self.novelty}, networks are {sorted(networks)}")
        return self

    def _takes(self, expert: NetworkPart | TreesPart) -> None:
        """Raise ValueError unless an expert's inputs can be made as the rest of the manifest says."""
        if self.period is None and any(not need.startswith("image:") for need in expert.needs):
            raise ValueError(
                f"expert {expert.name!r} takes {', '.join(expert.needs)}, but there is no period"
            )
        if isinstance(expert, TreesPart):
            if not self.features:
                raise ValueError(f"expert {expert.name!r} takes features, and none is named")
            return
        if set(expert.inputs) != set(expert.shapes):
            raise ValueError(
                f"expert {expert.name!r} has inputs {', '.join(expert.inputs)} and shapes of {', '.join(expert.shapes)}"
            )
        for name, need in expert.inputs.items():
            if need.startswith("image:") and expert.shapes[name] != self.shape:
                raise ValueError(
                    f"expert {expert.name!r} takes images of shape {expert.shapes[name]}, the edges make {self.shape}"
                )

    @property
    def content(self) -> tuple[str, ...]:
        """Files beside the manifest."""
        optional = (("gate.json",) if self.gate else ()) + (("novelty.safetensors",) if self.novelty else ())
        return (*(expert.file for expert in self.experts), *optional, "golden.safetensors", "card.md")

    @property
    def names(self) -> tuple[str, ...]:
        """Of the experts."""
        return tuple(expert.name for expert in self.experts)

    def chosen(self, names: Sequence[str] = ()) -> tuple[Expert, ...]:
        """The experts of these names, in the bundle's order; all without names.

        Raises
        ------
        ValueError
            if the bundle has no such expert, or no combiner for this set.
        """
        unknown = sorted(set(names) - set(self.names))
        if unknown or (names and pool_name(set(names)) not in self.combiners):
            raise ValueError(
                f"bundle {self.name!r} cannot be asked for the experts {', '.join(names)}: it has "
                f"{', '.join(self.names)} and combines {', '.join(self.combiners)}"
            )
        return tuple(expert for expert in self.experts if not names or expert.name in names)

    def needs(self, names: Sequence[str] = ()) -> tuple[str, ...]:
        """Representations of a light curve that these experts (none named: all) take, each once."""
        return tuple(dict.fromkeys(need for expert in self.chosen(names) for need in expert.needs))

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
