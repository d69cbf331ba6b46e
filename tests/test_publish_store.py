"""Publishing in an object store: on a real S3 protocol server."""

from __future__ import annotations

import numpy as np
import pytest

from lightmill.catalogs import publish as publishing
from lightmill.catalogs import storage
from lightmill.catalogs.publish import publish
from lightmill.catalogs.query import Question, query
from lightmill.catalogs.runfolder import CatalogueFolder
from lightmill.catalogs.versions import current, retract, versions

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
