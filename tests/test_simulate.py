"""`pipeline/simulate.py`: a valid release, the same for the same seed, with the fitted statistics."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightmill.pipeline import sky
from lightmill.pipeline.observe import Epochs
from lightmill.pipeline.simulate import LAYOUTS, plan, simulate
from lightmill.pipeline.stars import FEW_FRACTION
from lightmill.pipeline.survey import BAD, FILTERS, NIGHTS, START, survey
from lightmill.pipeline.variables import LABELS

N = 6_000


def digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


def files(root: Path) -> list[Path]:
    """The partitions, in the order of the sky."""

    def first(path: Path) -> int:
        order, pixel = int(path.parts[-3].split("=")[1]), int(path.stem.split("=")[1])
        return pixel << (2 * (29 - order))

    return sorted((root / "dataset").rglob("Npix=*.parquet"), key=first)


def read(root: Path) -> pa.Table:
    """All rows, with the epochs as top-level list columns."""
    table = pa.concat_tables([pq.read_table(path) for path in files(root)]).combine_chunks()
    if "lightcurve" in table.column_names:
        nested = table["lightcurve"].combine_chunks()
        for name in Epochs._fields:
            table = table.append_column(name, nested.field(name))
    return table


def flat(table: pa.Table, name: str) -> np.ndarray:
    return table[name].combine_chunks().flatten().to_numpy()


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("nested") / "release"
    simulate(out, N, seed=5, processes=1, variable_fraction=0.1)
    return out


@pytest.fixture(scope="module")
def table(release) -> pa.Table:
    return read(release)


@pytest.fixture(scope="module")
def truth(release):
    return pq.read_table(release / "truth.parquet").to_pandas()


@pytest.fixture(scope="module")
def stars(table) -> dict[str, np.ndarray]:
    """The columns of all epochs, flat, and the row that each belongs to."""
    return {name: flat(table, name) for name in Epochs._fields} | {
        "row": np.repeat(np.arange(len(table)), table["nepochs"].to_numpy())
    }


def test_same_seed_same_bytes_whatever_the_processes(release, tmp_path):
    simulate(tmp_path / "other", N, seed=5, processes=2, variable_fraction=0.1)
    assert digests(tmp_path / "other") == digests(release)


def test_another_seed_another_release(tmp_path):
    for seed in (1, 2):
        simulate(tmp_path / str(seed), 200, seed=seed, processes=1)
    one, two = (pq.read_table(tmp_path / str(seed) / "truth.parquet") for seed in (1, 2))
    assert not one.equals(two)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_hats_and_lsdb_accept_it(tmp_path, layout):
    import lsdb
    from hats.io.validation import is_valid_catalog

    out = tmp_path / "release"
    simulate(out, 600, seed=8, layout=layout, processes=1)
    assert is_valid_catalog(out, strict=True)
    catalog = lsdb.open_catalog(out)
    assert len(catalog) == 600
    rows = read(out)
    ra, dec = rows["objra"][0].as_py(), rows["objdec"][0].as_py()
    found = catalog.cone_search(ra, dec, 2).compute()
    assert rows["objectid"][0].as_py() in found["objectid"].to_numpy()
    if layout == "nested":
        assert "lightcurve" in catalog.nested_columns


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("n", [1, 7, 331])
def test_exactly_n_light_curves(tmp_path, layout, n):
    seen = []
    result = simulate(
        tmp_path / "out",
        n,
        seed=2,
        layout=layout,
        processes=1,
        progress=lambda done, of: seen.append((done, of)),
    )
    rows = read(tmp_path / "out")
    assert len(rows) == result.light_curves == n
    assert len(flat(rows, "mag")) == result.epochs
    assert seen[-1] == (n, n)
    assert len(seen) == result.partitions


def test_both_layouts_hold_the_same_light_curves(tmp_path):
    for layout in LAYOUTS:
        simulate(tmp_path / layout, 300, seed=4, layout=layout, processes=1)
    nested, lists = (read(tmp_path / layout) for layout in LAYOUTS)
    for name in ("objectid", "_healpix_29", *Epochs._fields):
        assert nested[name].equals(lists[name].cast(nested[name].type)), name


def test_sorted_within_its_pixel_and_in_unequal_partitions(release):
    sizes = []
    for path in files(release):
        index = pq.read_table(path, columns=["_healpix_29"])["_healpix_29"].to_numpy()
        order, pixel = int(path.parts[-3].split("=")[1]), int(path.stem.split("=")[1])
        assert (np.diff(index) >= 0).all()
        assert (index >> (2 * (29 - order)) == pixel).all()
        sizes.append(len(index))
    assert len(sizes) >= 8
    assert max(sizes) > 3 * min(sizes)


def test_the_plan_names_each_partition_once():
    tasks = plan(Path("out"), 50_000, 1, "list", 0.0)
    assert sum(task.patch.rows for task in tasks) == 50_000
    for names in ({task.path for task in tasks}, {task.truth for task in tasks}):
        assert len(names) == len(tasks)
    assert {task.path.parts[:2] for task in tasks} == {("out", "dataset")}


def test_truth_joins_one_to_one(table, truth):
    assert truth["objectid"].is_unique
    assert (truth["objectid"].to_numpy() == table["objectid"].to_numpy()).all()
    assert set(truth["label"]) == set(LABELS)
    aperiodic = truth["label"].isin(["nonvar", "SN_Ia"])
    assert (truth["period"].isna() == aperiodic).all()
    assert ((truth["amplitude"] > 0) == (truth["label"] != "nonvar")).all()


def test_objectid_names_field_filter_and_channel(table):
    ids = table["objectid"].to_numpy()
    assert (ids // 10**12 == table["fieldid"].to_numpy()).all()
    assert (ids // 10**11 % 10 == table["filterid"].to_numpy()).all()
    channel = (ids // 10**9 % 100 - 1) * 4 + ids // 10**8 % 10 - 1
    assert (channel == table["rcid"].to_numpy()).all()


def test_fraction_of_variables(truth, tmp_path):
    # Light curves of one star share their label: on average 1.6 of them, hence the wider binomial.
    share = (truth["label"] != "nonvar").mean()
    assert abs(share - 0.1) < 4 * np.sqrt(1.6 * 0.1 * 0.9 / N)
    for fraction in (0.0, 1.0):
        out = tmp_path / str(fraction)
        simulate(out, 100, seed=1, variable_fraction=fraction, processes=1)
        labels = pq.read_table(out / "truth.parquet")["label"].to_pylist()
        assert [label != "nonvar" for label in labels] == [bool(fraction)] * 100


def test_times_are_nights_at_palomar(table):
    """Sorted, within the survey, and in the hours (UT) in which the real epochs lie: 1 h 30 to 13 h 30."""
    t, n = flat(table, "hmjd"), table["nepochs"].to_numpy()
    steps = np.diff(t)
    steps[np.cumsum(n)[:-1] - 1] = 1
    assert (steps >= 0).all()
    assert t.min() >= START
    assert t.max() < START + NIGHTS + 1
    # A light curve that would have no epoch gets one at an arbitrary time: fewer than one in a thousand.
    assert ((t % 1 > 1 / 24) & (t % 1 < 14 / 24)).mean() > 0.999


def test_length_of_the_light_curves(table, stars):
    good = np.bincount(stars["row"], (stars["catflags"] & BAD) == 0, len(table))
    assert 160 < np.median(good) < 260
    few = (good < 20).mean()
    # Those made to hardly recur, and faint ones in rarely visited fields.
    assert FEW_FRACTION - 0.02 < few < FEW_FRACTION + 0.08
    assert table["nepochs"].to_numpy().min() >= 1


def test_errors_follow_the_fitted_curve(table, stars):
    """The median of ln(magerr) in g at each knot; by construction but for the exposures' share of 0.5 %."""
    fit = survey()["errors"]
    g = table["filterid"].to_numpy()[stars["row"]] == 1
    for knot, expected in zip(fit["mag_knots"], fit["log_error_by_mag"]["g"], strict=True):
        near = g & (np.abs(stars["mag"] - knot) < 0.05)
        if near.sum() > 300:
            assert np.log(np.median(stars["magerr"][near])) == pytest.approx(expected, abs=0.03), knot


def test_scatter_of_constant_stars(table, truth, stars):
    """Residuals over errors of constant stars that last: the fitted 0.94 to 1.07 at 14 to 19 mag."""
    mag, row = stars["mag"].astype(float), stars["row"]
    good = (stars["catflags"] & BAD) == 0
    constant = ((truth["label"] == "nonvar") & (table["nepochs"].to_numpy() > 100)).to_numpy()
    keep = good & constant[row]
    mean = np.bincount(row, mag * keep, len(table)) / np.maximum(np.bincount(row, keep, len(table)), 1)
    use = keep & (mean[row] > 14) & (mean[row] < 19)
    ratio = ((mag - mean[row]) / stars["magerr"])[use]
    spread = 1.4826 * np.median(np.abs(ratio - np.median(ratio)))
    assert 0.9 < spread < 1.15
    beyond = (np.abs(ratio) > 5 * spread).mean()
    assert 0.3 < beyond / survey()["errors"]["outlier_rate"] < 2


def test_flags(stars):
    """Whole exposures are flagged, some 10⁵ of them; busy fields weigh more, hence a tenth and not 1 %."""
    expected = survey()["exposures"]["flagged"]
    assert ((stars["catflags"] & BAD) > 0).mean() == pytest.approx(expected, rel=0.1)
    other = (stars["catflags"] > 0) & (stars["catflags"] != BAD)
    assert other.mean() == pytest.approx(sum(survey()["exposures"]["other_flags_rate"]), rel=0.2)


def test_colour_coefficients_by_filter(table, stars):
    filterid = table["filterid"].to_numpy()[stars["row"]]
    for number, name in enumerate(FILTERS, start=1):
        measured = stars["clrcoeff"][filterid == number].mean()
        assert measured == pytest.approx(survey()["exposures"]["clrcoeff_mean"][name], abs=0.003)


def test_the_plane_is_denser_than_the_pole(table):
    """The belt |b| < 10° is 0.17 of the sky, the caps |b| > 50° are 0.23: seen in numbers, three to one."""
    ra, dec = (np.radians(table[name].to_numpy().astype(float)) for name in ("objra", "objdec"))
    pole = np.radians([192.86, 27.13])
    b = np.arcsin(np.sin(dec) * np.sin(pole[1]) + np.cos(dec) * np.cos(pole[1]) * np.cos(ra - pole[0]))
    assert (np.abs(b) < np.radians(10)).sum() > 3 * (np.abs(b) > np.radians(50)).sum()
    assert np.degrees(dec).min() > sky.SOUTH - 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 0}, "n = 0 light curves, at least 1"),
        ({"layout": "csv"}, "layout 'csv' is unknown: use one of nested, list"),
        ({"variable_fraction": 1.5}, "variable_fraction = 1.5 is outside 0 to 1"),
        ({"variable_fraction": float("nan")}, "variable_fraction = nan is outside 0 to 1"),
        ({"processes": 0}, "processes = 0, at least 1"),
        ({"seed": -1}, "seed = -1 is negative"),
    ],
)
def test_bad_arguments(tmp_path, change, message):
    arguments = {"n": 10, "seed": 1, "layout": "nested", "variable_fraction": 0.1, "processes": 1} | change
    with pytest.raises(ValueError, match=message):
        simulate(tmp_path / "out", arguments.pop("n"), **arguments)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="not an empty folder"):
        simulate(tmp_path, 10, seed=1, processes=1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
