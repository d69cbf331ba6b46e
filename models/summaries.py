"""Summaries of training as event files, which TensorBoard shows: the loss, and what goes through the network.

Of inputs, activations and outputs the percentiles of `drift.percentiles` are written after each epoch: a layer that has
died, or inputs of another scale, are seen there before they are seen in the loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lightmill.models.drift import percentiles
from lightmill.models.extras import need

__all__ = ["Summaries"]


class Summaries:
    """The event file of one training."""

    def __init__(self, folder: str | Path) -> None:
        """Begin a file in the folder, which is made."""
        self._tf = need("tensorflow")
        self._writer = self._tf.summary.create_file_writer(str(folder))
        # TensorBoard's own package writes the same; TensorFlow does not need it for that
        self._kind = self._tf.compat.v1.SummaryMetadata(
            plugin_data=self._tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars")
        )

    def epoch(self, number: int, loss: float, arrays: Mapping[str, np.ndarray]) -> None:
        """Write the loss, and the percentiles of each array under its name."""
        values = {"loss": loss}
        for name, array in arrays.items():
            values |= {f"{name}/{what}": value for what, value in percentiles(array).items()}
        with self._writer.as_default():
            for tag, value in values.items():
                self._tf.summary.write(tag, self._tf.constant(value, self._tf.float32), number, self._kind)
        self._writer.flush()
