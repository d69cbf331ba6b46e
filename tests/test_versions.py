"""`catalogs/versions.py` and `catalogs/publish.py`: versions that come, go, and survive whatever dies meanwhile."""

from __future__ import annotations

import signal
from contextlib import nullcontext

import numpy as np
import pytest
from hats.io.validation import is_valid_catalog
from program import forked, publish_and_die

from lightmill.catalogs import publish as publishing
from lightmill.catalogs.publish import PublishError, publish
from lightmill.catalogs.query import Question, query
from lightmill.catalogs.receipts import write_json
from lightmill.catalogs.runfolder import CatalogueFolder
from lightmill.catalogs.versions import current, find_version, make_current, retract, retracted, versions

FACTS = {"catalogue_name": "tiny", "provenance": {}}
FIRST, SECOND, THIRD = (f"2026010{i}T000000-00000{i}" for i in (1, 2, 3))


@pytest.fixture
def places() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    return rng.uniform(0, 60, 40), rng.uniform(-30, 30, 40)


@pytest.fixture
def two(tmp_path, places, make_rows, write_run):
    """A catalogue whose first run is published as v1, and a second run that is not."""
    first = write_run(tmp_path / "c", make_rows(*places), run_id=FIRST)
    second = write_run(tmp_path / "c", make_rows(*places, seed=2), run_id=SECOND, fingerprint="e" * 64)
    catalogue = CatalogueFolder.at(tmp_path / "c")
    publish(catalogue, [first], **FACTS)
    return catalogue, first, second


def held(catalogue: CatalogueFolder) -> set[str]:
    return {path.name for path in (catalogue.root / "versions").iterdir()}


def probabilities(place: object) -> list[float]:
    found = query(str(place), Question()).sort_by("objectid")
    return found["best_prob"].to_pylist()


class TestPublish:
    def test_first_found_wins(self, two):
        catalogue, first, second = two
        key = sorted(second.done())[0]
        for other in set(second.done()) - {key}:
            second.discard(*other)
        second.seal()
        version = publish(catalogue, [second, first], **FACTS)
        assert version.name == "v2"
        assert version.runs == [SECOND, FIRST]
        assert version.partitions[SECOND] == {str(key[0]): [key[1]]}
        assert {r.key: r.run_id for r in version.receipts()}[key] == SECOND
        assert len(version.receipts()) == len(first.done())
        assert is_valid_catalog(catalogue.root, strict=True)

    def test_the_same_again_is_no_new_version(self, two):
        catalogue, first, _ = two
        assert publish(catalogue, [first], **FACTS) == current(catalogue)
        assert held(catalogue) == {"v1"}

    def test_another_name_or_margin_is_a_version_of_its_own(self, two):
        """Rather than the current one under the name that it has, as if that had been asked for."""
        catalogue, first, _ = two
        assert publish(catalogue, [first], "v1", **FACTS).name == "v1"
        assert publish(catalogue, [first], "dr24", **FACTS).name == "dr24"
        assert publish(catalogue, [first], margin=30.0, **FACTS).margin == "objects_30arcs"
        assert current(catalogue).name == "v2"
        with pytest.raises(PublishError, match="--make-current dr24"):
            publish(catalogue, [first], "dr24", **FACTS)

    def test_a_version_that_cannot_be_read_is_not_written_over(self, two):
        catalogue, _, second = two
        record = catalogue.version("v1") / "version.json"
        record.write_text("{")
        with pytest.raises(PublishError, match=r"version v1 of .* exists"):
            publish(catalogue, [second], "v1", **FACTS)
        assert publish(catalogue, [second], **FACTS).name == "v2"
        assert record.read_text() == "{"

    def test_names(self, two):
        catalogue, _, second = two
        with pytest.raises(PublishError, match=r"version v1 of .* exists"):
            publish(catalogue, [second], "v1", **FACTS)
        with pytest.raises(PublishError, match="is no name"):
            publish(catalogue, [second], "../v3", **FACTS)
        assert publish(catalogue, [second], "dr24.1", make_current=False, **FACTS).name == "dr24.1"
        assert current(catalogue).name == "v1"

    def test_holes(self, two):
        catalogue, _, second = two
        gone = sorted(second.done())[1]
        wanted = list(second.done())
        second.discard(*gone)
        second.seal()
        with pytest.raises(PublishError, match=rf"first missing: Norder={gone[0]}/Npix={gone[1]}\. Run"):
            publish(catalogue, [second], wanted=wanted, **FACTS)
        assert current(catalogue).name == "v1"
        version = publish(catalogue, [second], wanted=wanted, min_complete=0.5, **FACTS)
        assert (version.holes, version.complete) == (1, 1 - 1 / len(wanted))
        from mocpy import MOC

        hole = MOC.load(version.root / "holes.fits", "fits")
        assert hole == MOC.from_healpix_cells([gone[1]], [gone[0]], gone[0])
        assert not (catalogue.version("v1") / "holes.fits").exists()
        # the same rows, of more that is wanted: not the same version
        assert publish(catalogue, [second], wanted=wanted, min_complete=0.5, **FACTS).name == version.name
        elsewhere = (0, min({*range(12)} - {pixel >> 2 * order for order, pixel in wanted}))
        more = publish(catalogue, [second], wanted=[*wanted, elsewhere], min_complete=0.3, **FACTS)
        assert (more.holes, more.rows) == (2, version.rows)
        assert more.name != version.name

    def test_only_accepted_fingerprints(self, two):
        catalogue, first, second = two
        accept = dict.fromkeys(first.done(), "f" * 64)
        version = publish(catalogue, [second, first], accept=accept, **FACTS)
        assert version.runs == [FIRST]
        assert (
            publish(catalogue, [first], accept=dict.fromkeys(first.done(), ""), min_complete=0, **FACTS)
            is None
        )

    def test_runs_that_differ(self, two):
        catalogue, first, second = two
        key = sorted(second.done())[0]
        second.discard(*key)
        second.seal()
        write_json(second.record, second.facts() | {"models": {"bundle": "9" * 64}})
        with pytest.raises(PublishError, match=r"models.bundle 9{64}, now it is 0123abcd"):
            publish(catalogue, [second, first], **FACTS)
        version = publish(catalogue, [second, first], allow_mixture=True, **FACTS)
        assert "models.bundle" in version.mixture[0]
        assert "lightmill_mixture" in (version.objects / "hats.properties").read_text()

    def test_a_release_partitioned_anew(self, tmp_path, make_rows, write_run):
        """Four children of a pixel of the old run: its fourth quarter is a hole, and nothing is there twice."""
        from cdshealpix.nested import healpix_to_lonlat

        lon, lat = healpix_to_lonlat(np.arange(4 * 80, 4 * 80 + 4, dtype=np.uint64), 3)
        table = make_rows(lon.deg, lat.deg)
        out = tmp_path / "c"
        old = write_run(out, table, order=2, run_id=FIRST)
        new = write_run(out, table, order=3, run_id=SECOND)
        catalogue = CatalogueFolder.at(out)
        assert publish(catalogue, [new, old], **FACTS).rows == 4
        new.discard(3, 4 * 80 + 2)
        new.seal()
        with pytest.raises(PublishError, match=rf"first Norder=2/Npix=80 of {FIRST}"):
            publish(catalogue, [new, old], **FACTS)
        version = publish(catalogue, [new, old], min_complete=0.9, **FACTS)
        assert (version.rows, version.runs, version.holes) == (3, [SECOND], 1)
        # the coarse one first: all of it, and no child
        assert publish(catalogue, [old, new], **FACTS).runs == [FIRST]

    def test_a_file_that_changed(self, two):
        catalogue, _, second = two
        key = sorted(second.done())[0]
        path = second.rows(*key)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data))
        with pytest.raises(PublishError, match="1 files are not what was written"):
            publish(catalogue, [second], deep=True, **FACTS)
        path.write_bytes(bytes(data[:-1]))
        with pytest.raises(PublishError, match="first missing"):
            publish(catalogue, [second], wanted=[r.key for r in second.read_receipts()], **FACTS)

    def test_nothing_to_publish(self, tmp_path):
        catalogue = CatalogueFolder.at(tmp_path / "c")
        assert publish(catalogue, [], **FACTS) is None
        assert not catalogue.root.exists()

    def test_look_up_by_identifier(self, two):
        import lsdb

        catalogue, _, _ = two
        opened = lsdb.open_catalog(catalogue.root)
        assert opened.id_search(values={"objectid": 17}).compute()["objectid"].tolist() == [17]
        assert len(opened.id_search(values={"objectid": 10**12}).compute()) == 0

    def test_without_a_margin(self, two):
        catalogue, _, second = two
        version = publish(catalogue, [second], margin=0, **FACTS)
        assert version.margin is None
        assert is_valid_catalog(catalogue.root, strict=True)


class TestVersions:
    def test_older_ones_stay(self, two):
        catalogue, _, second = two
        before = probabilities(catalogue.root)
        publish(catalogue, [second], **FACTS)
        assert [(v.name, v.current) for v in versions(catalogue)] == [("v1", False), ("v2", True)]
        assert probabilities(catalogue.root) != before
        assert probabilities(f"{catalogue.root}@v1") == before
        assert probabilities(catalogue.version("v1")) == before
        make_current(catalogue, "v1")
        assert probabilities(catalogue.root) == before
        assert find_version(catalogue.root).name == "v1"
        assert is_valid_catalog(catalogue.root, strict=True)
        with pytest.raises(PublishError, match=r"no version 'v9'.*; it has v1, v2"):
            make_current(catalogue, "v9")

    def test_retract(self, two):
        catalogue, first, second = two
        with pytest.raises(PublishError, match="publish another first"):
            retract(catalogue, "v1", "wrong")
        publish(catalogue, [second], **FACTS)
        with pytest.raises(PublishError, match="name one of v1 with --current"):
            retract(catalogue, "v2", "wrong")
        retract(catalogue, "v2", "wrong zero point", instead="v1")
        assert [v.name for v in versions(catalogue)] == ["v1"]
        assert retracted(catalogue)["v2"]["reason"] == "wrong zero point"
        assert held(catalogue) == {"v1", ".retracted.json"}
        assert publish(catalogue, [second], **FACTS).name == "v3"  # a name is used once
        assert len(second.done()) == len(first.done())  # the runs keep their rows
        with pytest.raises(PublishError, match="it was retracted on"):
            make_current(catalogue, "v2")


STEPS = (
    "_link", "finish_catalog", "write_margin", "write_index_table", "write_index", "write_collection", "_prove",
    "write_json",
)  # fmt: skip


class TestFaults:
    @pytest.mark.parametrize("step", STEPS)
    def test_an_error_at_any_step(self, two, step, monkeypatch):
        catalogue, _, second = two
        before = probabilities(catalogue.root)

        def fail(*args: object, **kwargs: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(publishing, step, fail)
            with pytest.raises(OSError, match="No space left"):
                publish(catalogue, [second], **FACTS)
        assert current(catalogue).name == "v1"
        assert held(catalogue) == {"v1"}
        assert probabilities(catalogue.root) == before
        assert publish(catalogue, [second], **FACTS).name == "v2"

    @pytest.mark.parametrize("step", STEPS)
    def test_killed_after_a_step(self, two, step):
        catalogue, _, second = two
        before = probabilities(catalogue.root)
        assert forked(publish_and_die, step, "after", str(catalogue.root)) == -signal.SIGKILL
        assert len(held(catalogue)) == 3  # v1, half a version, and the lease of the dead
        assert [v.name for v in versions(catalogue)] == ["v1"]
        assert probabilities(catalogue.root) == before
        assert is_valid_catalog(catalogue.root, strict=True)
        assert publish(catalogue, [second], **FACTS).name == "v2"
        assert held(catalogue) == {"v1", "v2"}
        assert is_valid_catalog(catalogue.root, strict=True)

    @pytest.mark.parametrize(("when", "seen"), [("before", "v1"), ("after", "v2")])
    def test_killed_at_the_flip(self, two, when, seen):
        """The version is whole by then: readers get one or the other, and nothing is left to sweep but the lease."""
        catalogue, _, second = two
        assert forked(publish_and_die, "write_collection:2", when, str(catalogue.root)) == -signal.SIGKILL
        assert current(catalogue).name == seen
        assert [v.name for v in versions(catalogue)] == ["v1", "v2"]
        for root in (catalogue.root, catalogue.version("v1"), catalogue.version("v2")):
            assert is_valid_catalog(root, strict=True)
        with pytest.raises(PublishError, match="--make-current v2") if when == "before" else nullcontext():
            publish(catalogue, [second], "v2", **FACTS)
        make_current(catalogue, "v2")
        assert publish(catalogue, [second], **FACTS).name == "v2"
        assert held(catalogue) == {"v1", "v2"}

    def test_a_version_that_hats_refuses(self, two, monkeypatch):
        catalogue, _, second = two
        monkeypatch.setattr(publishing, "is_valid_catalog", lambda *args, **kwargs: False)
        with pytest.raises(PublishError, match="hats does not accept"):
            publish(catalogue, [second], **FACTS)
        assert held(catalogue) == {"v1"}

    def test_another_publishes(self, two):
        from lightmill.catalogs.versions import only_one

        catalogue, _, second = two
        for change in (lambda: publish(catalogue, [second], **FACTS), lambda: make_current(catalogue, "v1")):
            with (
                only_one(catalogue),
                pytest.raises(PublishError, match="another process changes the versions"),
            ):
                change()
