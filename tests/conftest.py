"""What several test modules share: the folder of real data, tiny releases written with plain pyarrow, tiny bundles."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import settings

# modules beside this one that tests share; processes that tests start get this path too
sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from lightmill.catalogs.runfolder import RunFolder
    from lightmill.pipeline.curves import Curves
    from lightmill.pipeline.recipe import Recipe

# no deadline: the first call compiles a kernel, and the machine may be busy. The same examples each time, so that a
# run tells of the code alone; HYPOTHESIS_PROFILE=explore looks for new ones.
settings.register_profile("fixed", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, derandomize=False, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

COMMON_WARNINGS = (
    # lsdb 0.11 on pandas 3: it still sets an option, and passes keywords, that pandas has begun to retire.
    "ignore:The 'mode.chained_assignment' option is deprecated",
    "ignore:The inplace keyword in NestedFrame",
    # Keras 3 on NumPy 2: `ops.convert_to_numpy` of a variable, whose `__array__` knows no `copy`.
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
)


LONGEST = (
    "train", "dmdt", "run", "execute", "versions", "explain", "torture", "inventory", "cli", "bands", "demo",
    "publish_store", "bundle", "period", "evaluate", "margin", "audit", "dmdt_cuda", "features", "fitting",
    "fit_experts", "period_cuda", "report", "bulk", "simulate", "cli_runs", "kernels", "answer",
)  # fmt: skip
"""Modules that take longest: they come first, so that no process has one of them left when the others are done."""


def pytest_configure(config: pytest.Config) -> None:
    for line in COMMON_WARNINGS:
        config.addinivalue_line("filterwarnings", line)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two processes more than cores: tests wait for leases, servers and other processes as often as they compute."""
    return len(os.sched_getaffinity(0)) + 2 if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1) + 2


@pytest.fixture(autouse=True, scope="session")
def no_promoted_models(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What someone has promoted on this machine must not change what a name means in the tests."""
    os.environ["LIGHTMILL_MODELS"] = str(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real light curves: LIGHTMILL_TEST_DATA, or shared/data beside the repository."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("LIGHTMILL_TEST_DATA") or default)
    if not folder.is_dir():
        reason = f"no real light curves in {folder}: set LIGHTMILL_TEST_DATA to their folder"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@dataclass(frozen=True)
class Stars:
    """Light curves to write, one Python list of epochs a star: the oracle for what is read."""

    objectid: np.ndarray  #: (n,) int64
    filterid: np.ndarray  #: (n,) int
    ra: np.ndarray  #: (n,) float64 [deg]
    dec: np.ndarray  #: (n,) float64 [deg]
    t: list[list[float]]
    mag: list[list[float]]
    magerr: list[list[float]]
    flags: list[list[int]]

    def __len__(self) -> int:
        return len(self.objectid)

    def take(self, index: Sequence[int] | np.ndarray) -> Stars:
        """Some of the stars, in that order."""
        rows = {
            name: getattr(self, name)[np.asarray(index, int)]
            for name in ("objectid", "filterid", "ra", "dec")
        }
        epochs = {name: [getattr(self, name)[i] for i in index] for name in ("t", "mag", "magerr", "flags")}
        return replace(self, **rows, **epochs)


def make_stars(
    n: int = 40, seed: int = 1, *, n_epochs: Callable[[np.random.Generator], int] | int | None = None,
    ra: Sequence[float] | None = None, dec: Sequence[float] | None = None,
) -> Stars:  # fmt: skip
    """Good light curves (default: 25–60 epochs) in 10° × 10° across ra = 0, or at the positions given."""
    rng = np.random.default_rng(seed)
    if ra is not None and dec is not None:
        n = len(ra)
    lengths = [
        int(rng.integers(25, 60))
        if n_epochs is None
        else n_epochs
        if isinstance(n_epochs, int)
        else n_epochs(rng)
        for _ in range(n)
    ]
    t, mag, magerr = [], [], []
    for i, length in enumerate(lengths):
        t.append(np.sort(rng.uniform(58200, 59000, length)).tolist())
        # float32, so that the layouts that store magnitudes so hold the same numbers
        wave = 0.4 * (i % 3) * np.sin(2 * np.pi * np.array(t[-1]) / (0.3 + i % 7))
        mag.append((rng.uniform(14, 19) + wave + rng.normal(0, 0.03, length)).astype(np.float32).tolist())
        magerr.append(rng.uniform(0.01, 0.05, length).astype(np.float32).tolist())
    return Stars(
        objectid=10**15 + np.arange(n, dtype=np.int64) * 7,
        filterid=1 + np.arange(n) % 2,
        ra=rng.uniform(-5, 5, n) % 360 if ra is None else np.asarray(ra, np.float64),
        dec=rng.uniform(-5, 5, n) if dec is None else np.asarray(dec, np.float64),
        t=t, mag=mag, magerr=magerr, flags=[[0] * length for length in lengths],
    )  # fmt: skip


EPOCHS = {"t": ("hmjd", pa.float64()), "mag": ("mag", pa.float32()), "magerr": ("magerr", pa.float32()),
          "flags": ("catflags", pa.int32())}  # fmt: skip
SHAPES = ("struct<list>", "list<struct>", "list", "labelled")


def stars_table(stars: Stars, shape: str = "struct<list>", positions: pa.DataType = pa.float32()) -> pa.Table:
    """Stars in one of the shapes that releases have: nested (two ways), top-level lists, or a labelled table."""
    lists = {
        name: pa.array(getattr(stars, field), pa.list_(dtype)) for field, (name, dtype) in EPOCHS.items()
    } | {"clrcoeff": pa.array([[0.0] * len(t) for t in stars.t], pa.list_(pa.float32()))}
    if shape == "labelled":
        return pa.table(
            {
                "id": [f"star-{i}" for i in stars.objectid],
                "group": stars.objectid,
                "label": ["RRab", "EW"] * (len(stars) // 2) + ["EA"] * (len(stars) % 2),
                "ra": stars.ra,
                "dec": stars.dec,
                "period": np.full(len(stars), 0.5),
                "mjd": lists["hmjd"],
                "mag": lists["mag"],
                "magerr": lists["magerr"],
            }
        )
    rows = {
        "objectid": pa.array(stars.objectid),
        "filterid": pa.array(stars.filterid, pa.int8()),
        "objra": pa.array(stars.ra, pa.float64()).cast(positions),
        "objdec": pa.array(stars.dec, pa.float64()).cast(positions),
        "nepochs": pa.array([len(t) for t in stars.t], pa.int32()),
    }
    if shape == "list":
        return pa.table(rows | lists)
    if shape == "struct<list>":
        return pa.table(rows | {"lightcurve": pa.StructArray.from_arrays(list(lists.values()), list(lists))})
    if shape == "list<struct>":
        first = lists["hmjd"]
        epochs = pa.StructArray.from_arrays([column.values for column in lists.values()], list(lists))
        return pa.table(rows | {"lightcurve": pa.ListArray.from_arrays(first.offsets, epochs)})
    raise ValueError(f"unknown shape {shape!r}; known are {SHAPES}")


PROPERTIES = """#HATS catalog
obs_collection={name}
dataproduct_type=object
hats_nrows={rows}
hats_col_ra={ra}
hats_col_dec={dec}
hats_npix_suffix={suffix}
hats_order={order}
hats_version=v1.0
"""


def write_hats(
    root: Path,
    stars: Stars,
    *,
    shape: str = "struct<list>",
    order: int = 3,
    folders: bool = True,
    parts: int = 1,
    positions: pa.DataType = pa.float32(),
    row_group_size: int | None = None,
) -> dict[int, np.ndarray]:
    """Write a HATS release as IRSA serves it, with pyarrow alone; which stars are in which pixel.

    `folders`: `Npix=N/part0.snappy.parquet` (IRSA) or `Npix=N.parquet`. Without `_healpix_29`, as IRSA's; without
    `_common_metadata`. `parts` files a pixel. Positions are float32 as IRSA's, the pixel is that of the float64 ones.
    """
    from hats.pixel_math.spatial_index import compute_spatial_index

    pixels = compute_spatial_index(stars.ra, stars.dec) >> (2 * (29 - order))
    inside = {int(pixel): np.flatnonzero(pixels == pixel) for pixel in np.unique(pixels)}
    for pixel, index in inside.items():
        table = stars_table(stars.take(index), shape, positions)
        folder = root / "dataset" / f"Norder={order}" / f"Dir={pixel // 10_000 * 10_000}"
        options = {"compression": "snappy", "row_group_size": row_group_size or max(len(index), 1)}
        if folders:
            (folder / f"Npix={pixel}").mkdir(parents=True)
            for part, rows in enumerate(np.array_split(np.arange(len(index)), parts)):
                pq.write_table(
                    table.take(pa.array(rows)),
                    folder / f"Npix={pixel}" / f"part{part}.snappy.parquet",
                    **options,
                )
        else:
            folder.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, folder / f"Npix={pixel}.parquet", **options)
    ra, dec = ("ra", "dec") if shape == "labelled" else ("objra", "objdec")
    text = PROPERTIES.format(
        name=root.name, rows=len(stars), ra=ra, dec=dec, order=order, suffix="/" if folders else ".parquet"
    )
    (root / "hats.properties").write_text(text)
    (root / "partition_info.csv").write_text(
        "Norder,Npix\n" + "".join(f"{order},{pixel}\n" for pixel in inside)
    )
    return inside


LEAVES = ("nonvar", "EW", "RRab", "SN_Ia")


RUN = "20260101T000000-000001"


def write_run(
    out: Path, table: pa.Table, *, order: int = 2, run_id: str = RUN, fingerprint: str = "f" * 64,
    record: Mapping[str, Any] = {}, sealed: bool = True,
) -> RunFolder:  # fmt: skip
    """A run of a catalogue that wrote these rows, a partition a pixel, with receipts; its folder.

    `record`: what its run.json says otherwise.
    """
    from lightmill.catalogs.receipts import Receipt, write_json, write_receipt
    from lightmill.catalogs.rows import commit
    from lightmill.catalogs.runfolder import CatalogueFolder

    folder = CatalogueFolder.at(out).run(run_id)
    facts = {
        "run_id": run_id, "release": "ztf", "recipe": {}, "science": {},
        "models": {"bundle": "0123abcd" * 8}, "versions": {"algorithm": 1, "schema": 1}, "code": "0", "environment": {},
    }  # fmt: skip
    write_json(folder.record, facts | dict(record))
    pixels = table["_healpix_29"].to_numpy() >> (2 * (29 - order))
    for pixel in np.unique(pixels).tolist():
        mine = table.filter(pa.array(pixels == pixel))
        size, sha256 = commit(mine, folder.rows(order, pixel), folder.scratch)
        receipt = Receipt(
            order, pixel, fingerprint, len(mine), len(mine), {}, size, 0.1, run_id=run_id, sha256=sha256
        )
        write_receipt(folder.receipts, receipt)
    if sealed:
        folder.seal()
    return folder


def make_rows(
    ra: np.ndarray, dec: np.ndarray, *, seed: int = 1, objectid: np.ndarray | None = None
) -> pa.Table:
    """Rows of a classification catalogue, one a position, in the order of the spatial index."""
    from hats.pixel_math.spatial_index import compute_spatial_index

    from lightmill.catalogs.rows import probability_columns, row_schema, rows_table

    rng, n = np.random.default_rng(seed), len(ra)
    p = rng.dirichlet(np.full(len(LEAVES), 0.3), n).astype(np.float32)
    ordered = np.sort(p, axis=1)
    columns = {
        "_healpix_29": compute_spatial_index(ra, dec),
        "objectid": np.arange(n) if objectid is None else objectid,
        "ra": ra,
        "dec": dec,
        "filterid": 1 + np.arange(n) % 3,
        "n_good": rng.integers(20, 900, n),
        "baseline": rng.uniform(10, 2000, n),
        "mag_mean": rng.uniform(13, 21, n),
        "amplitude": rng.exponential(0.1, n),
        "p_variable": 1 - p[:, 0],
        "best_class": np.array(LEAVES, object)[p.argmax(axis=1)],
        "best_prob": ordered[:, -1],
        "margin": ordered[:, -1] - ordered[:, -2],
        "flags": np.zeros(n, int),
        "bundle": ["0123abcd"] * n,
        "run_id": ["run"] * n,
    } | dict(zip(probability_columns(LEAVES), p.T, strict=True))
    return rows_table(columns, row_schema(LEAVES))


def write_catalogue(
    out: Path, ra: np.ndarray, dec: np.ndarray, *, order: int = 2, seed: int = 1, record: Mapping[str, Any] = {},
) -> pa.Table:  # fmt: skip
    """A catalogue of one run, published, with one row a position; its rows, by `objectid` (0, 1, 2, …)."""
    from lightmill.catalogs.publish import publish

    table = make_rows(ra, dec, seed=seed)
    folder = write_run(out, table, order=order, record=record)
    publish(folder.catalogue, [folder], catalogue_name="tiny", provenance={"lightmill_recipe": "ztf-dr"})
    return table.sort_by("objectid")


# Test modules cannot import one another (--import-mode=importlib): they get the functions above as fixtures.


@pytest.fixture(scope="session", name="make_stars")
def _make_stars() -> Callable[..., Stars]:
    """`make_stars(n, seed, n_epochs=, ra=, dec=)`: good light curves."""
    return make_stars


@pytest.fixture(scope="session", name="stars_table")
def _stars_table() -> Callable[..., pa.Table]:
    """`stars_table(stars, shape)`: a table as releases have it."""
    return stars_table


@pytest.fixture(scope="session", name="write_hats")
def _write_hats() -> Callable[..., dict[int, np.ndarray]]:
    """`write_hats(root, stars, shape=, order=, folders=, parts=)`: a release, by plain pyarrow."""
    return write_hats


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest) -> str:
    """Each of the shapes in which releases store epochs."""
    return request.param


@pytest.fixture
def tiny_release(tmp_path: Path) -> Path:
    """40 stars in IRSA's layout: nested, a folder a pixel, float32 positions, no `_healpix_29`."""
    root = tmp_path / "ztf_tiny"
    write_hats(root, make_stars())
    return root


@pytest.fixture(scope="session", name="write_catalogue")
def _write_catalogue() -> Callable[..., pa.Table]:
    """`write_catalogue(out, ra, dec, order=, seed=)`: a published classification catalogue."""
    return write_catalogue


@pytest.fixture(scope="session", name="write_run")
def _write_run() -> Callable[..., RunFolder]:
    """`write_run(out, table, order=, run_id=, fingerprint=, record=)`: a run of a catalogue, unpublished."""
    return write_run


@pytest.fixture(scope="session", name="make_rows")
def _make_rows() -> Callable[..., pa.Table]:
    """`make_rows(ra, dec, seed=, objectid=)`: rows of a classification catalogue."""
    return make_rows


SEVEN = ("EW", "EA", "RRab", "RRc", "RRd", "RS_CVn", "LPV")


def waves(n: int, classes: Sequence[str], seed: int = 1) -> tuple[Curves, np.ndarray]:
    """n clean light curves whose period and amplitude tell the class, 30 to 70 epochs at night; (n,) class of each."""
    from lightmill.pipeline.curves import Curves

    rng, y = np.random.default_rng(seed), np.arange(n) % len(classes)
    parts = []
    for k in y:
        m = int(rng.integers(30, 70))
        t = np.sort(rng.choice(400, m, replace=False) + rng.uniform(0.2, 0.5, m))
        wave = (0.15 + 0.1 * k) * np.sin(2 * np.pi * t / (0.31 * 1.7**k * rng.uniform(0.95, 1.05)))
        parts.append((t - t[0], rng.uniform(14, 19) + wave + rng.normal(0, 0.03, m), np.full(m, 0.03)))
    return Curves.of(parts), y


def make_bundle(folder: Path, recipe_name: str, classes: Sequence[str], *, gate: bool) -> Path:
    """A real bundle of trees and two networks, small and badly trained, for a shipped recipe; its folder."""
    from lightmill.models import bundle as bundles
    from lightmill.models import choice as choices
    from lightmill.models import trees
    from lightmill.models.experts import NetworkExpert, TreesExpert
    from lightmill.models.manifest import (
        CombinerPart,
        GatePart,
        Manifest,
        NetworkPart,
        PeriodPart,
        TreesPart,
        pool_name,
    )
    from lightmill.models.networks import keras
    from lightmill.models.novelty import fit_novelty
    from lightmill.pipeline.asking import finder_of
    from lightmill.pipeline.curves import Curves
    from lightmill.pipeline.features import index_of
    from lightmill.pipeline.recipe import load_recipe
    from lightmill.pipeline.represent import REPRESENTATION, shape_of
    from lightmill.pipeline.samples import Sample
    from lightmill.pipeline.tasks import COLUMNS_OF_TREES

    recipe = load_recipe(recipe_name)
    grid, finder = recipe.dmdt.edges(), finder_of(recipe)
    assert finder is not None
    curves, y = waves(12 * len(classes), classes)
    known = curves.statistics()
    chosen = finder(curves.t, curves.mag, curves.magerr, curves.offsets, known)
    sample = Sample(curves, known, chosen, grid, COLUMNS_OF_TREES)
    keras().utils.set_random_seed(1)
    image, fold = "image:count", ("folded", "scalars")
    parts = (
        TreesPart(name="trees"),
        NetworkPart(
            name="folded", architecture="folded", parameters={"dense": 8}, inputs=dict(zip(fold, fold, strict=True)),
            shapes={one: shape_of(one, *grid.shape) for one in fold},
        ),
        NetworkPart(
            name="dmdt", architecture="dmdt", parameters={"filters": [4, 4, 4], "dense": 8}, inputs={"image": image},
            shapes={"image": shape_of(image, *grid.shape)},
        ),
    )  # fmt: skip
    fitted = trees.fit_classes(sample.views(["features"])["features"], y, len(classes), rounds=15, leaves=6)
    experts = (
        TreesExpert(parts[0], fitted),
        *(NetworkExpert.fresh(part, len(classes)) for part in parts[1:]),
    )
    said = {expert.part.name: expert.answers(sample.views(expert.part.needs)) for expert in experts}
    told = ("folded", "dmdt")
    sets = [names for size in (1, 2, 3) for names in combinations(("trees", *told), size)]
    # fixed weights: what is fitted to light curves that the trees have seen would hear the trees alone
    combiners = {
        pool_name(names): CombinerPart(
            weights=tuple({"trees": 0.5}.get(name, 2.0) for name in names), temperatures={"periodic": 1.2}
        )
        for names in sets
    }
    gate_part = gate_trees = golden_statistics = None
    if gate:
        columns = ("mad_over_err", "stetson_k", "eta")
        rng = np.random.default_rng(3)
        still = Curves(curves.t, 16 + rng.normal(0, 0.03, len(curves.t)), curves.magerr, curves.offsets)
        table = np.concatenate([known, still.statistics()])[:, [index_of(name) for name in columns]]
        gate_trees = trees.fit(table, np.arange(len(table)) < len(y), rounds=20, depth=3)
        gate_part = GatePart(statistics=columns, slope=1.0, intercept=0.0, threshold=0.5)
        golden_statistics = table[:: len(y) // 4]
    manifest = Manifest(
        name="tiny", classes=tuple(classes), dt_edges=grid.dt_edges, dm_edges=grid.dm_edges,
        representation=REPRESENTATION, features=COLUMNS_OF_TREES,
        period=PeriodPart(
            choice=choices.read_manifest(recipe.period.choice).digest, limits=recipe.period.limits()
        ),
        experts=parts, combiners=combiners, novelty=told,
        gate=gate_part, priors=tuple(np.arange(1, len(classes) + 1) / np.arange(1, len(classes) + 1).sum()),
        training={
            "recipe": recipe.name, "science": recipe.science(), "train": recipe.train.model_dump(mode="json"),
            "labels": {"file": "none.parquet", "sha256": "0" * 64},
        },
    )  # fmt: skip
    bundles.save(
        folder, manifest,
        bundles.Parts(experts, gate_trees, fit_novelty(np.concatenate([said[name][1] for name in told], axis=1), y)),
        card="# tiny\n",
        golden_inputs={name: view[::20] for name, view in sample.views(manifest.needs()).items()},
        golden_statistics=golden_statistics,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="session", name="waves")
def _waves() -> Callable[..., tuple[Curves, np.ndarray]]:
    """`waves(n, classes, seed)`: clean light curves and the class of each."""
    return waves


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the recipe crts-7: seven classes, no gate."""
    return make_bundle(tmp_path_factory.mktemp("tiny") / "bundle", "crts-7", SEVEN, gate=False)


@pytest.fixture(scope="session")
def tiny_gated_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the recipe ztf-dr: a gate and five classes."""
    return make_bundle(
        tmp_path_factory.mktemp("gated") / "bundle", "ztf-dr", ("EW", "EA", "RRab", "LPV", "SN_Ia"), gate=True
    )


@pytest.fixture(scope="session")
def tiny_ztf(tiny_gated_bundle: Path) -> Recipe:
    """The recipe ztf-dr with the small bundle in place of its own."""
    from lightmill.pipeline.recipe import load_recipe

    recipe = load_recipe("ztf-dr")
    return recipe.model_copy(
        update={"model": recipe.model.model_copy(update={"bundle": str(tiny_gated_bundle)})}
    )


# The ledger is tested on both of its databases; PostgreSQL is a server of our own, started here.


def _binaries() -> Path | None:
    """Folder of PostgreSQL's server programs: on the path, or where Debian puts them."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((f for f in folders if (f / "initdb").exists() and (f / "pg_ctl").exists()), None)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """Folder of the socket of a PostgreSQL server that ends with the tests; user postgres, no password."""
    binaries = _binaries()
    if binaries is None:
        reason = "no PostgreSQL server here (initdb): apt-get install postgresql"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    user: dict[str, Any] = {}
    if os.getuid() == 0:  # it refuses to run as root
        known = {entry.pw_name for entry in pwd.getpwall()}
        name = "postgres" if "postgres" in known else "nobody"
        user = {"user": name, "group": pwd.getpwnam(name).pw_gid, "extra_groups": []}
    # not pytest's folder: the path of a socket has at most 107 bytes, and the user must be let in
    folder = Path(tempfile.mkdtemp(prefix="lightmill-pg-", dir="/tmp"))
    if user:
        shutil.chown(folder, user["user"])

    def call(program: str, *arguments: str) -> None:
        command = [str(binaries / program), "-D", str(folder / "data"), *arguments]
        with (folder / "out").open("ab") as out:
            done = subprocess.run(command, cwd=folder, stdout=out, stderr=out, check=False, **user)
        if done.returncode:
            log = "".join(
                p.read_text(errors="replace") for p in (folder / "out", folder / "log") if p.exists()
            )
            pytest.fail(f"{program} ended with {done.returncode}:\n{log}")

    try:
        call("initdb", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync")
        options = f"-k {folder} -c listen_addresses='' -c fsync=off"
        call("pg_ctl", "-w", "-t", "60", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield str(folder)
        finally:
            call("pg_ctl", "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """URL of an empty PostgreSQL database."""
    import psycopg

    name = f"t{uuid.uuid4().hex}"
    with psycopg.connect(host=postgres_server, user="postgres", dbname="postgres", autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}")
        yield f"postgresql://postgres@/{name}?host={postgres_server}"
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_at(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a ledger that is not there yet, in each of the two databases."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'state' / 'ledger.sqlite'}"
    return request.getfixturevalue("postgres_url")


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """Address of an empty bucket behind a real S3 protocol server, which the environment leads to."""
    import boto3
    import s3fs
    from moto.server import DomainDispatcherApplication, ThreadedMotoServer

    # this server looks whether an object is there, and then writes it: S3 does both in one step
    answer, one_by_one = DomainDispatcherApplication.__call__, threading.Lock()

    def in_turn(*request: Any) -> Any:
        with one_by_one:
            return answer(*request)

    patch = pytest.MonkeyPatch()
    patch.setattr(DomainDispatcherApplication, "__call__", in_turn)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    before = dict(os.environ)
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }  # fmt: skip
    s3fs.S3FileSystem.clear_instance_cache()  # those of an earlier server
    boto3.client("s3").create_bucket(Bucket="archive")
    yield "s3://archive"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()
    patch.undo()
    os.environ.clear()
    os.environ |= before
