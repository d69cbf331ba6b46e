"""Experts: what a bundle asks about the class of a light curve, each by its own view of it."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lightmill.models.architectures import ARCHITECTURES
from lightmill.models.extras import need
from lightmill.models.manifest import NetworkPart, TreesPart
from lightmill.models.networks import FEATURES, Network, WeightsError
from lightmill.models.trees import Trees, TreesError

__all__ = ["Expert", "NetworkExpert", "TreesExpert", "load_expert"]

Inputs = Mapping[str, np.ndarray]
"""Representations of n light curves by name, each (n, …)."""


@dataclass(frozen=True)
class NetworkExpert:
    """A network and which representations it takes."""

    part: NetworkPart
    network: Network

    @classmethod
    def fresh(cls, part: NetworkPart, n_classes: int) -> NetworkExpert:
        """With random weights."""
        return cls(part, Network(part.architecture, part.shapes, {"class": n_classes}, part.parameters))

    def answers(self, inputs: Inputs) -> tuple[np.ndarray, np.ndarray]:
        """Logits (n, n_classes) and last features (n, d), float32."""
        given = {name: inputs[source] for name, source in self.part.inputs.items()}
        found = [self.network.apply(given | turned) for turned in self._turned(given)]
        logits, last = (sum(one[name] for one in found) / len(found) for name in ("class", FEATURES))
        return np.asarray(logits, np.float32), np.asarray(last, np.float32)

    def _turned(self, given: Inputs) -> list[dict[str, np.ndarray]]:
        """The inputs that are round, begun at as many places as the part says; one empty dict if none is.

        Bins that are pooled together make the answer depend on where the circle is cut; its mean does less so.
        """
        circles, turns = ARCHITECTURES[self.part.architecture].circles, self.part.turns
        return [
            {name: np.roll(given[name], k * pooled // turns, axis=1) for name, pooled in circles.items()}
            for k in range(turns if circles else 1)
        ]

    def to_bytes(self) -> bytes:
        """Its weights, float16, as safetensors."""
        half = {name: value.astype(np.float16) for name, value in self.network.weights().items()}
        # from now on it answers as whoever loads it will
        self.network.set_weights({name: value.astype(np.float32) for name, value in half.items()})
        return bytes(need("safetensors.numpy").save(half))


@dataclass(frozen=True)
class TreesExpert:
    """Boosted trees on the full features."""

    part: TreesPart
    trees: Trees

    def answers(self, inputs: Inputs) -> tuple[np.ndarray, None]:
        """Logits (n, n_classes) float32; trees have no last features."""
        margin = self.trees.margin(inputs["features"])
        # two classes have one margin, the log-odds of the second
        return (margin if margin.ndim == 2 else np.stack([np.zeros_like(margin), margin], axis=1)), None

    def to_bytes(self) -> bytes:
        """The trees in XGBoost's JSON, compressed."""
        return gzip.compress(self.trees.to_json(), mtime=0)  # no time in it: same trees, same bytes


Expert = NetworkExpert | TreesExpert


def load_expert(part: NetworkPart | TreesPart, content: bytes, n_classes: int, n_features: int) -> Expert:
    """An expert from its file's content, whose digest the caller has checked.

    Raises
    ------
    WeightsError, TreesError
        if the content is damaged, or belongs to another expert.
    """
    if isinstance(part, NetworkPart):
        expert = NetworkExpert.fresh(part, n_classes)
        try:
            weights = need("safetensors.numpy").load(content)
        except need("safetensors").SafetensorError as error:
            raise WeightsError(f"not safetensors: {error}") from error
        expert.network.set_weights(weights)
        return expert
    try:
        text = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise TreesError(f"not gzip: {error}") from error
    return TreesExpert(part, Trees.from_json(text, n_features, n_classes))
