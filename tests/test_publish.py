"""`catalogs/publish.py`: a collection that hats validates and LSDB opens, searches, crossmatches and writes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

pytestmark = [
    # lsdb announces another default for suffixes; the crossmatch here gives its own.
    pytest.mark.filterwarnings("ignore:The default suffix behavior will change:FutureWarning"),
    # A catalogue without a margin may miss pairs across partitions; a catalogue with itself misses none.
    pytest.mark.filterwarnings("ignore:Right catalog does not have a margin cache:RuntimeWarning"),
]

N = 500


@pytest.fixture(scope="module")
def published(tmp_path_factory, write_catalogue):
    rng = np.random.default_rng(31)
    out = tmp_path_factory.mktemp("published") / "catalogue"
    return out, write_catalogue(out, rng.uniform(-10, 10, N) % 360, rng.uniform(-10, 10, N), order=3)


@pytest.fixture(scope="module")
def opened(published):
    import lsdb

    return lsdb.open_catalog(published[0])


def digests(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_hats_accepts_the_collection_and_its_table(published):
    from hats.io.validation import is_valid_catalog

    out, _ = published
    assert is_valid_catalog(out, strict=True)
    assert is_valid_catalog(out / "versions" / "v1", strict=True)
    assert is_valid_catalog(out / "versions" / "v1" / "objects", strict=True)


def test_lsdb_opens_all_of_it(published, opened):
    _, table = published
    assert len(opened) == N
    found = opened.compute().sort_values("objectid")
    np.testing.assert_array_equal(found["objectid"], table["objectid"])
    np.testing.assert_array_equal(found["ra"], table["ra"])
    assert found["best_class"].tolist() == table["best_class"].to_pylist()
    # the columns that are read without being asked for
    assert "p_EW" not in found.columns
    assert {"best_prob", "margin", "period", "flags"} <= set(found.columns)


def test_all_columns_of_it(published):
    import lsdb

    out, table = published
    assert set(lsdb.open_catalog(out, columns="all").columns) | {"_healpix_29"} == set(table.schema.names)


def test_cone_search_across_ra_zero(published, opened):
    _, table = published
    ra, dec = (np.radians(np.asarray(table[name])) for name in ("ra", "dec"))
    inside = np.degrees(np.arccos(np.cos(dec) * np.cos(ra))) <= 4
    found = opened.cone_search(0, 0, 4 * 3600).compute()
    assert sorted(found["objectid"]) == np.flatnonzero(inside).tolist()


def test_crossmatch_with_itself(opened):
    pairs = opened.crossmatch(opened, radius_arcsec=0.1, suffixes=("_a", "_b")).compute()
    assert len(pairs) == N
    assert (pairs["objectid_a"] == pairs["objectid_b"]).all()


def test_write_and_open_a_subset(opened, tmp_path):
    import lsdb
    from hats.io.validation import is_valid_catalog

    subset = opened.query("best_prob > 0.7")
    subset.write_catalog(tmp_path / "subset", catalog_name="subset")
    assert is_valid_catalog(tmp_path / "subset", strict=True)
    assert len(lsdb.open_catalog(tmp_path / "subset")) == len(subset.compute()) < N


def test_provenance_is_in_the_properties(published):
    from hats import read_hats

    info = read_hats(published[0] / "versions" / "v1" / "objects").catalog_info
    assert info.extra_dict()["lightmill_recipe"] == "ztf-dr"
    assert info.total_rows == N
