"""Publishing in an object store: on a real S3 protocol server."""

from __future__ import annotations

import signal

import numpy as np
import pytest
from program import forked, publish_and_die

from lightmill.catalogs import publish as publishing
from lightmill.catalogs import storage
from lightmill.catalogs.publish import publish
from lightmill.catalogs.query import Question, query
from lightmill.catalogs.runfolder import CatalogueFolder
from lightmill.catalogs.versions import current, retract, versions

STEPS = "_link", "write_collection", "write_json"

FACTS = {"catalogue_name": "tiny", "provenance": {}}


def test_publish_query_and_retract(bucket, tmp_path, make_rows, write_run, monkeypatch):
    from hats.io.validation import is_valid_catalog

    rng = np.random.default_rng(2)
    places = rng.uniform(0, 60, 12), rng.uniform(-30, 30, 12)
    url = f"{bucket}/{tmp_path.name}/c"
    catalogue = CatalogueFolder.at(url)
    first = write_run(storage.place(url), make_rows(*places), run_id="20260101T000000-000001", order=1)
    second = write_run(
        storage.place(url),
        make_rows(*places, seed=2),
        run_id="20260102T000000-000002",
        order=1,
        fingerprint="e" * 64,
    )
    version = publish(catalogue, [first], **FACTS)
    assert (version.name, version.rows) == ("v1", 12)
    assert is_valid_catalog(catalogue.root, strict=True)
    before = query(url, Question())
    assert len(before) == 12

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(publishing, "_prove", fail)
        patch.setattr(publishing, "remove", lambda folder: None)  # as if killed
        with pytest.raises(OSError, match="gone"):
            publish(catalogue, [second], **FACTS)
    assert [v.name for v in versions(catalogue)] == ["v1"]
    assert query(url, Question()).equals(before)
    assert publish(catalogue, [second], **FACTS).name == "v2"
    assert current(catalogue).name == "v2"
    assert query(f"{url}@v1", Question()).equals(before)
    retract(catalogue, "v1", "old")
    assert [v.name for v in versions(catalogue)] == ["v2"]
    assert not catalogue.version("v1").exists()


@pytest.mark.parametrize("step", STEPS)
def test_killed_after_a_step(bucket, tmp_path, make_rows, write_run, step):
    """Of a version that was not finished readers see nothing, and its name is free again."""
    url = f"{bucket}/{tmp_path.name}/c"
    catalogue = CatalogueFolder.at(url)
    places = np.array([1.0, 20.0]), np.array([0.0, 5.0])
    first = write_run(storage.place(url), make_rows(*places), run_id="20260101T000000-000001", order=1)
    publish(catalogue, [first], **FACTS)
    before = query(url, Question())
    second = write_run(
        storage.place(url), make_rows(*places, seed=2), run_id="20260102T000000-000002", order=1, fingerprint="e" * 64
    )  # fmt: skip
    assert forked(publish_and_die, step, "after", url) == -signal.SIGKILL
    whole = step == "write_json"  # version.json is the last of a version: it is there, and not yet current
    assert [v.name for v in versions(catalogue)] == (["v1", "v2"] if whole else ["v1"])
    assert query(url, Question()).equals(before)
    assert publish(catalogue, [second], **FACTS).name == ("v3" if whole else "v2")
    assert not query(url, Question()).equals(before)
