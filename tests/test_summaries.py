"""Summaries: what is written is what TensorBoard reads, epoch by epoch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lightmill.models.extras import need
from lightmill.models.fitting import fit_network
from lightmill.models.networks import Network
from lightmill.models.summaries import Summaries


def read(folder: Path) -> dict[str, list[float]]:
    """Scalars of an event file by tag, in the order of the steps."""
    tf = need("tensorflow")
    found: dict[str, dict[int, float]] = {}
    for record in tf.data.TFRecordDataset([str(path) for path in folder.iterdir()]):
        event = tf.compat.v1.Event.FromString(record.numpy())
        for value in event.summary.value:
            assert value.metadata.plugin_data.plugin_name == "scalars"
            found.setdefault(value.tag, {})[event.step] = float(tf.make_ndarray(value.tensor))
    return {tag: [values[step] for step in sorted(values)] for tag, values in found.items()}


def test_percentiles_of_what_goes_through_a_network(tmp_path: Path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 9, (90, 5, 6)).astype(np.float32)
    y = rng.integers(0, 3, 90)
    network, losses = Network("mahabal2017", {"image": (5, 6)}, {"class": 3}), []
    fit_network(
        network, lambda epoch: {"image": images * (epoch + 1)}, {"class": y}, np.ones(90),
        epochs=3, batch_size=30, learning_rate=1e-3, seed=1,
        progress=lambda epoch, loss: losses.append(loss), watch=Summaries(tmp_path / "log").epoch,
    )  # fmt: skip
    found = read(tmp_path / "log")
    np.testing.assert_allclose(found["loss"], losses, rtol=1e-6)
    assert found["input/image/max"] == [images.max() * k for k in (1, 2, 3)]
    assert found["input/image/min"] == [0.0, 0.0, 0.0]
    # after the last epoch the outputs are those of the network as it is now
    outputs = network.logits({"image": images * 3})
    np.testing.assert_allclose([found["output/class/max"][-1], found["output/class/min"][-1]],
                               [outputs.max(), outputs.min()], rtol=1e-5)  # fmt: skip
    assert {tag.split("/")[1] for tag in found if tag.startswith("activation/")} == {
        "conv",
        "dense_1",
        "dense_2",
    }
    assert all(len(values) == 3 for values in found.values())
