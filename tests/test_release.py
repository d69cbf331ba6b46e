"""`catalogs/release.py`: releases in every layout and behind every protocol, in bounded batches, nothing lost."""

from __future__ import annotations

import functools
import http.server
import threading
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightmill.catalogs.lightcurves import LAYOUTS, LayoutError
from lightmill.catalogs.partitions import Cone, File, NotHats, Partition
from lightmill.catalogs.release import count_epochs, count_rows, open_release, read_batches

ALL = 10**9


def batches(release, max_epochs: int = ALL):
    for partition in release.table.partitions():
        yield from read_batches(partition, release.layout, max_epochs)


def content(release, max_epochs: int = ALL) -> dict[int, tuple]:
    """Everything of every light curve, by its first time (which no two share)."""
    found = {}
    for batch in batches(release, max_epochs):
        for i in range(len(batch)):
            one = batch.select(i, i + 1)
            found[one.t[0]] = (one.t.tolist(), one.mag.tolist(), one.magerr.tolist(), one.flags.tolist())
    return found


def expected(stars, flags: bool = True) -> dict[int, tuple]:
    columns = zip(stars.t, stars.mag, stars.magerr, stars.flags, strict=True)
    return {t[0]: (t, mag, magerr, f if flags else []) for t, mag, magerr, f in columns}


# Layouts and folders


@pytest.mark.parametrize(("folders", "parts"), [(True, 1), (True, 3), (False, 1)])
def test_every_layout_with_files_and_folders(tmp_path, make_stars, write_hats, shape, folders, parts):
    stars = make_stars()
    write_hats(tmp_path / "r", stars, shape=shape, folders=folders, parts=parts)
    release = open_release(str(tmp_path / "r"))
    assert content(release) == expected(stars, flags=shape != "labelled")
    assert sum(count_rows(partition) for partition in release.table.partitions()) == len(stars)


def test_irsas_layout(tiny_release):
    """Nested, a folder a pixel, float32 positions, no spatial index: it is computed from the positions."""
    release = open_release(str(tiny_release))
    assert release.layout.name == "irsa-hats"
    first = next(batches(release))
    assert first.ra.dtype == np.float64
    assert (first.healpix_29 >= 0).all()


def test_real_bulk_file(data_dir):
    """In IRSA's own schema: u2 flags, float32 times."""
    path = data_dir / "ztf_000250_zg_c01_q1_dr5.parquet"
    with pq.ParquetFile(path) as parquet:
        assert count_epochs(parquet, LAYOUTS["list"]) == 106_588
        assert parquet.metadata.num_rows == 5_449


def test_epochs_are_counted_from_the_footer(tmp_path, make_stars, stars_table, shape):
    stars = make_stars(9)
    pq.write_table(stars_table(stars, shape), tmp_path / "x.parquet", row_group_size=2)
    layout = open_layout(shape)
    with pq.ParquetFile(tmp_path / "x.parquet") as parquet:
        assert count_epochs(parquet, layout) == sum(map(len, stars.t))


def open_layout(shape: str):
    return LAYOUTS[{"list": "list", "labelled": "labelled"}.get(shape, "irsa-hats")]


# Batches


@pytest.mark.parametrize("bound", [1, 60, 137, 500, ALL])
@pytest.mark.parametrize("row_group_size", [3, None])
def test_batches_are_bounded_and_lose_nothing(tmp_path, make_stars, write_hats, bound, row_group_size):
    """Empty light curves, and one of 700 epochs that is larger than most bounds: it comes alone."""
    lengths = iter([0, 700, 1, 0, 5, 80, *[30] * 34])
    stars = make_stars(n_epochs=lambda rng: next(lengths), ra=np.full(40, 10.0), dec=np.full(40, 10.0))
    write_hats(tmp_path / "r", stars, parts=2, row_group_size=row_group_size)
    release = open_release(str(tmp_path / "r"))
    seen = list(batches(release, bound))
    assert [i for batch in seen for i in batch.objectid] == stars.objectid.tolist()
    assert sum(batch.n_epochs for batch in seen) == sum(map(len, stars.t))
    for batch in seen:
        assert batch.n_epochs <= bound or len(batch) == 1
        assert batch.offsets[0] == 0
    if bound >= 500:
        assert len(seen) <= 8  # two files, 1,800 epochs: not one a light curve


def test_only_the_columns_that_are_needed_are_read(tmp_path, make_stars, write_hats, monkeypatch, shape):
    """`clrcoeff` and `nepochs` stay on disk."""
    write_hats(tmp_path / "r", make_stars(), shape=shape)
    asked = []
    original = pq.ParquetFile.iter_batches

    def spy(self, *args, **options):
        for batch in original(self, *args, **options):
            asked.append(batch.schema)
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    list(batches(open_release(str(tmp_path / "r"))))
    for schema in asked:
        assert "clrcoeff" not in str(schema)
        assert "nepochs" not in schema.names


def test_a_partition_of_no_rows(tiny_release):
    path = next(tiny_release.rglob("*.parquet"))
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    release = open_release(str(tiny_release))
    assert sum(len(batch) for batch in batches(release)) < 40
    assert 0 in [count_rows(partition) for partition in release.table.partitions()]


def test_only_a_region(tmp_path, make_stars, write_hats):
    stars = make_stars(ra=[10.0, 200.0], dec=[0.0, 0.0])
    write_hats(tmp_path / "r", stars)
    release = open_release(str(tmp_path / "r"))
    (only,) = release.table.partitions(Cone(200.0, 0.0, 0.5))
    (batch,) = read_batches(only, release.layout, ALL)
    assert batch.objectid.tolist() == stars.objectid[1:].tolist()


# Remote: the same release behind each protocol gives the same


def test_memory(tmp_path, make_stars, write_hats):
    stars, memory = make_stars(), fsspec.filesystem("memory")
    write_hats(tmp_path / "r", stars)
    memory.put(str(tmp_path / "r"), "/bucket/r", recursive=True)
    try:
        release = open_release("memory://bucket/r")
        assert not release.table.partitions()[0].is_local
        assert content(release, 300) == expected(stars)
    finally:
        memory.rm("/bucket", recursive=True)


@pytest.fixture
def s3(monkeypatch):
    """A server that speaks S3's protocol on a free port; its address stands in fsspec's configuration."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": f"http://{host}:{port}"})
    filesystem = fsspec.filesystem("s3", key="test", secret="test")
    yield filesystem
    type(filesystem).clear_instance_cache()
    server.stop()


@pytest.mark.parametrize("how", ["environment", "configuration"])
def test_s3(tmp_path, make_stars, write_hats, monkeypatch, s3, how):
    stars = make_stars()
    write_hats(tmp_path / "r", stars, parts=2)
    s3.mkdir(how)
    s3.put(str(tmp_path / "r"), f"{how}/r", recursive=True)
    # nobody may read it without credentials
    with pytest.raises(NotHats, match=r"Forbidden|Access Denied"):
        open_release(f"s3://{how}/r")
    if how == "environment":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    else:
        monkeypatch.setitem(fsspec.config.conf["s3"], "key", "test")
        monkeypatch.setitem(fsspec.config.conf["s3"], "secret", "test")
    type(s3).clear_instance_cache()
    release = open_release(f"s3://{how}/r")
    partitions = release.table.partitions()
    assert content(release, 300) == expected(stars)
    assert all(
        len(file.stamp) > 30 for partition in partitions for file in partition.files
    )  # an ETag is an MD5
    assert all(url.startswith(f"s3://{how}/r/") for partition in partitions for url in partition.urls)
    assert "test" not in "".join(
        partition.options for partition in partitions
    )  # no secret goes to the workers
    before = [partition.identity() for partition in partitions]
    path = partitions[1].files[0].path
    s3.pipe(path, s3.cat(path) + b" ")
    type(s3).clear_instance_cache()
    after = [partition.identity() for partition in open_release(f"s3://{how}/r").table.partitions()]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True, True]


def test_a_public_bucket_needs_no_credentials(tmp_path, make_stars, write_hats, s3):
    stars = make_stars()
    write_hats(tmp_path / "r", stars)
    s3.mkdir("public", acl="public-read")
    s3.put(str(tmp_path / "r"), "public/r", recursive=True, ACL="public-read")
    type(s3).clear_instance_cache()
    assert content(open_release("s3://public/r"), 300) == expected(stars)


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Files of a folder; with ranges, as object stores have them."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = Path(self.translate_path(self.path))
        bounds = self.headers.get("Range")
        if not (bounds and path.is_file()):
            return super().do_GET()
        data = path.read_bytes()
        start, stop = bounds.removeprefix("bytes=").split("-")
        part = data[int(start) : int(stop or len(data)) + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{int(start) + len(part) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)
        return None

    def log_message(self, *args):
        pass


@pytest.fixture
def web(tmp_path):
    """The address of tmp_path on a web server of this machine."""
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path))
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("folders", [False, True])
def test_http(tmp_path, make_stars, write_hats, web, folders):
    stars = make_stars()
    write_hats(tmp_path / "r", stars, folders=folders)
    assert content(open_release(f"{web}/r"), 300) == expected(stars)


# Bad input


def test_a_missing_column_names_column_layouts_and_recipe(tmp_path, make_stars, write_hats):
    write_hats(tmp_path / "r", make_stars(), shape="list")
    for path in (tmp_path / "r").rglob("*.parquet"):
        pq.write_table(pq.read_table(path, partitioning=None).drop_columns(["magerr"]), path)
    with pytest.raises(LayoutError) as caught:
        open_release(str(tmp_path / "r"))
    for part in ("'magerr'", "irsa-hats, list, labelled", "[layout] name", str(tmp_path / "r")):
        assert part in str(caught.value)


def test_one_partition_without_a_column_names_its_file(tiny_release):
    release = open_release(str(tiny_release))
    partition = release.table.partitions()[1]
    path = Path(partition.urls[0])
    pq.write_table(pq.read_table(path, partitioning=None).drop_columns(["objra"]), path)
    with pytest.raises(LayoutError, match=f"{path.parent.name}/{path.name}.*no column 'objra'"):
        list(read_batches(partition, release.layout, ALL))


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty"])
def test_an_unreadable_file(tiny_release, damage):
    release = open_release(str(tiny_release))
    partition = release.table.partitions()[0]
    path = Path(partition.urls[0])
    data = path.read_bytes()
    path.write_bytes(
        {"truncated": data[: len(data) // 2], "garbage": b"not Parquet" * 20, "empty": b""}[damage]
    )
    with pytest.raises((OSError, pa.ArrowInvalid)):
        list(read_batches(partition, release.layout, ALL))
    # the others are as they were
    assert (
        sum(len(b) for p in release.table.partitions()[1:] for b in read_batches(p, release.layout, ALL)) > 0
    )


def test_damage_in_the_middle_of_a_file(tiny_release):
    """The footer is whole, the data is not."""
    release = open_release(str(tiny_release))
    partition = release.table.partitions()[0]
    path = Path(partition.urls[0])
    data = bytearray(path.read_bytes())
    data[8 : len(data) // 3] = b"\xff" * (len(data) // 3 - 8)
    path.write_bytes(data)
    with pytest.raises((OSError, pa.ArrowException)):
        list(read_batches(partition, release.layout, ALL))


def test_a_partition_that_lists_no_file(tiny_release):
    release = open_release(str(tiny_release))
    path = Path(release.table.partitions()[2].urls[0])
    path.unlink()
    partition = open_release(str(tiny_release)).table.partitions()[2]
    with pytest.raises(FileNotFoundError, match=f"{partition}: no Parquet file, though the catalogue lists"):
        list(read_batches(partition, release.layout, ALL))


def test_memory_follows_the_batch_and_not_the_file(tmp_path: Path) -> None:
    """Arrow keeps the pages of all row groups that one iterator has passed: they must not pile up."""
    rng = np.random.default_rng(1)
    n, m, groups = 60, 500, 40
    lists = {
        name: pa.ListArray.from_arrays(
            pa.array(np.arange(0, n * m + 1, m), pa.int32()), pa.array(rng.normal(18, 1, n * m)).cast(dtype)
        )
        for name, dtype in (("hmjd", pa.float64()), ("mag", pa.float32()), ("magerr", pa.float32()))
    }
    lists["catflags"] = pa.ListArray.from_arrays(lists["mag"].offsets, pa.array(np.zeros(n * m, np.int32)))
    rows = {
        "objectid": pa.array(np.arange(n)), "filterid": pa.array(np.ones(n), pa.int8()),
        "objra": pa.array(np.full(n, 10.0)), "objdec": pa.array(np.full(n, 10.0)),
    }  # fmt: skip
    table = pa.table(rows | lists)
    path = tmp_path / "part.parquet"
    with pq.ParquetWriter(path, table.schema) as writer:
        for _ in range(groups):
            writer.write_table(table)
    partition = Partition(0, 4, (File(str(path), path.stat().st_size, ""),), "", "{}")
    before, most, epochs = pa.total_allocated_bytes(), 0, 0
    for batch in read_batches(partition, LAYOUTS["list"], 2 * n * m):
        epochs += batch.n_epochs
        most = max(most, pa.total_allocated_bytes() - before)
    assert epochs == groups * n * m
    assert most < path.stat().st_size / 3
