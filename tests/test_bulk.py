"""`pipeline/bulk.py`: bulk Parquet files become a HATS release with every object in it, or are refused."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightmill.catalogs.lightcurves import LayoutError
from lightmill.catalogs.release import open_release, read_batches
from lightmill.pipeline import bulk as module
from lightmill.pipeline.bulk import BulkError, import_files

REAL = "ztf_000250_zg_c01_q1_dr5.parquet"


@pytest.fixture
def no_cluster(monkeypatch):
    """What is refused is refused before a cluster starts."""

    def refuse(workers):
        raise AssertionError("a cluster was started")

    monkeypatch.setattr(module, "local_cluster", refuse)


@pytest.fixture
def write(tmp_path, make_stars, stars_table):
    """Write a bulk file of a few stars; its path."""

    def make(
        name: str = "a.parquet", shape: str = "list", ra=(10.0, 11.0), dec=(0.0, 1.0), seed: int = 1
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        stars = make_stars(ra=np.array(ra), dec=np.array(dec), seed=seed)
        pq.write_table(stars_table(stars, shape), path)
        return path

    return make


def objects(root: Path) -> dict[int, tuple]:
    """All that a release holds of each object."""
    release, found = open_release(str(root)), {}
    for partition in release.table.partitions():
        shift = 2 * (29 - partition.order)
        for batch in read_batches(partition, release.layout, 10**9):
            assert (batch.healpix_29 >> shift == partition.pixel).all()
            for i in range(len(batch)):
                one = batch.select(i, i + 1)
                epochs = tuple(getattr(one, name).tobytes() for name in ("t", "mag", "magerr", "flags"))
                found[int(one.objectid[0])] = (one.ra[0], one.dec[0], *epochs)
    return found


@pytest.mark.slow
def test_the_real_file(data_dir, tmp_path):
    """5,449 objects in, 5,449 out, each with the epochs that it came with; hats and LSDB accept the release."""
    import lsdb
    from hats.io.validation import is_valid_catalog

    out = tmp_path / "release"
    done = import_files([data_dir / REAL], out, workers=1)
    assert (done.light_curves, done.files, done.partitions, done.release) == (5_449, 1, 1, str(out))
    table = pq.read_table(data_dir / REAL)
    found = objects(out)
    assert len(found) == 5_449
    for row in range(0, 5_449, 97):
        ra, dec, t, mag, *_, flags = found[table["objectid"][row].as_py()]
        # positions are float32 in the file, and doubles of the same value in the release
        assert (ra, dec) == (table["objra"][row].as_py(), table["objdec"][row].as_py())
        assert t == np.array(table["hmjd"][row].as_py(), np.float32).tobytes()
        assert mag == np.array(table["mag"][row].as_py(), np.float32).tobytes()
        assert flags == np.array(table["catflags"][row].as_py(), np.uint16).tobytes()
    assert is_valid_catalog(out, strict=True)
    assert len(lsdb.open_catalog(out)) == 5_449
    assert [path.name for path in tmp_path.iterdir()] == ["release"]  # nothing of the scratch folder is left


@pytest.mark.slow
def test_the_poles_and_ra_zero_in_several_files(write, tmp_path, monkeypatch):
    """Small partitions, so that many borders are near; `--out` an empty folder is fine."""
    monkeypatch.setattr(module, "EPOCHS_PER_PARTITION", 2000)
    rng = np.random.default_rng(1)
    folder = tmp_path / "bulk"
    for k in range(2):
        ra = np.concatenate([rng.uniform(-1, 1, 40) % 360, rng.uniform(0, 360, 30), [0.0, 359.99999]])
        dec = np.concatenate(
            [rng.uniform(-1, 1, 40), rng.choice([-1, 1], 30) * rng.uniform(89, 90, 30), [90.0, -90.0]]
        )
        path = write(f"bulk/{k}.parquet", ra=ra, dec=dec, seed=k)
        table = pq.read_table(path)
        pq.write_table(table.set_column(0, "objectid", pa.array(np.arange(72) + 1000 * k)), path)
    out = tmp_path / "release"
    out.mkdir()
    done = import_files([folder], out, workers=1)
    assert (done.light_curves, done.files) == (144, 2)
    assert done.partitions >= 3
    assert len(objects(out)) == 144


# What is refused, before anything is started or written


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_an_output_that_exists(write, tmp_path, no_cluster, kind):
    out = tmp_path / "out"
    if kind == "folder":
        out.mkdir()
        (out / "notes.txt").write_text("mine")
    else:
        out.write_text("mine")
    with pytest.raises(BulkError, match="out exists and is not empty: give another --out"):
        import_files([write()], out)
    assert (out / "notes.txt" if kind == "folder" else out).read_text() == "mine"


@pytest.mark.parametrize(
    ("ra", "dec"), [(np.nan, 0.0), (np.inf, 0.0), (10.0, 90.5), (10.0, np.nan), (10.0, -1000.0)]
)
def test_positions_that_are_none(write, tmp_path, no_cluster, ra, dec):
    path = write(ra=(10.0, 11.0, ra), dec=(0.0, 1.0, dec))
    with pytest.raises(
        BulkError, match=r"a\.parquet: 1 light curves have no place on the sky, .*\(objra, objdec\)"
    ):
        import_files([path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_position_that_is_null(write, tmp_path, no_cluster):
    path = write()
    table = pq.read_table(path)
    at = table.schema.get_field_index("objra")
    pq.write_table(table.set_column(at, "objra", pa.array([10.0, None], pa.float32())), path)
    with pytest.raises(BulkError, match="1 light curves have no place on the sky"):
        import_files([path], tmp_path / "out")


def test_mixed_layouts(write, tmp_path, no_cluster):
    files = [write("a.parquet"), write("b.parquet", shape="struct<list>")]
    with pytest.raises(
        BulkError, match=r"b\.parquet has the layout 'irsa-hats', .*a\.parquet has 'list': import them"
    ):
        import_files(files, tmp_path / "out")


def test_one_file_with_another_type(write, tmp_path, no_cluster):
    """hats-import would fail after the last of thousands of files."""
    one, two = write("a.parquet"), write("b.parquet")
    table = pq.read_table(two)
    at = table.schema.get_field_index("hmjd")
    pq.write_table(table.set_column(at, "hmjd", table["hmjd"].cast(pa.list_(pa.float32()))), two)
    with pytest.raises(BulkError, match=r"b\.parquet .*hmjd"):
        import_files([one, two], tmp_path / "out")


def test_one_file_with_a_column_more(write, tmp_path, no_cluster):
    """A period is known of a labelled table: still the same layout, and the column is named."""
    one, two = write("a.parquet"), write("b.parquet")
    table = pq.read_table(two)
    pq.write_table(table.append_column("period", pa.array([0.5] * len(table))), two)
    with pytest.raises(BulkError, match=r"b\.parquet differs from .*period: double"):
        import_files([one, two], tmp_path / "out")


def test_no_file(tmp_path, no_cluster):
    with pytest.raises(BulkError, match=r"no file or folder .*nothing"):
        import_files([tmp_path / "nothing"], tmp_path / "out")
    with pytest.raises(BulkError, match="no Parquet file in"):
        import_files([tmp_path], tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"object,ra,dec\n1,2,3\n" * 10])
def test_not_parquet(tmp_path, no_cluster, content):
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(BulkError, match=r"a\.parquet is not a Parquet file that can be read"):
        import_files([tmp_path / "a.parquet"], tmp_path / "out")


def test_no_light_curve(write, tmp_path, no_cluster):
    path = write()
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    with pytest.raises(BulkError, match="the 1 files hold no light curve"):
        import_files([path], tmp_path / "out")


def test_a_missing_column(write, tmp_path, no_cluster):
    path = write()
    pq.write_table(pq.read_table(path).drop_columns(["magerr"]), path)
    with pytest.raises(LayoutError, match=r"a\.parquet: no column 'magerr'"):
        import_files([path], tmp_path / "out")


def test_rows_that_are_lost_are_noticed(write, tmp_path, monkeypatch):
    """hats-import is played by a function that leaves out the first object."""
    path = write()

    def lose(job, client):
        root = Path(job.output_path) / job.output_artifact_name
        folder = root / "dataset" / "Norder=0" / "Dir=0"
        folder.mkdir(parents=True)
        pq.write_table(pq.read_table(path).slice(1), folder / "Npix=4.parquet")
        (root / "partition_info.csv").write_text("Norder,Npix\n0,4\n")
        lines = (
            "obs_collection=x",
            "dataproduct_type=object",
            "hats_nrows=1",
            "hats_col_ra=objra",
            "hats_col_dec=objdec",
        )
        (root / "hats.properties").write_text("\n".join(lines))

    monkeypatch.setattr(module, "local_cluster", lambda workers: nullcontext())
    monkeypatch.setattr(module, "pipeline_with_client", lose)
    with pytest.raises(BulkError, match=r"2 light curves read from 1 files, 1 written .*rows were lost"):
        import_files([path], tmp_path / "out")
