"""`pipeline/dmdt.py`: counts equal to `numpy.histogram2d` on all pairs, exactly, on every kind of light curve."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator

import light_curve
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lightmill.pipeline import dmdt, dmdt_kernel
from lightmill.pipeline.dmdt import (
    GRIDS,
    NORMALISATIONS,
    Grid,
    counts_reference,
    dmdt_counts,
    dmdt_images,
    normalise,
)

EDGES = GRIDS | {
    "linear": Grid(tuple(np.linspace(0, 50, 101)), tuple(np.linspace(-2, 2, 201))),
    "one cell": Grid((0.0, 10.0), (-1.0, 1.0)),
    "one-sided": Grid((0.5, 1.0, 100.0), (0.25, 0.5, 4.0)),
    # cells far narrower than the table's, and 10¹² times narrower than the grid
    "unequal": Grid((0.0, 1e-9, 1e-6, 1e3), (-1e6, -1e-6, 0.0, 1e-6, 2e-6, 1e6)),
}


@pytest.fixture(params=EDGES)
def grid(request) -> Grid:
    return EDGES[request.param]


def oracle(t, mag, grid: Grid) -> np.ndarray:
    """All pairs of the finite points in time order (stable) in `numpy.histogram2d`; (n_dm, n_dt)."""
    t, mag = np.asarray(t, np.float64), np.asarray(mag, np.float64)
    good = np.isfinite(t) & np.isfinite(mag)
    t, mag = t[good], mag[good]
    order = np.argsort(t, kind="stable")
    t, mag = t[order], mag[order]
    dt = [t[j] - t[i] for i in range(len(t)) for j in range(i + 1, len(t))]
    dm = [mag[j] - mag[i] for i in range(len(t)) for j in range(i + 1, len(t))]
    bins = [np.array(grid.dm_edges), np.array(grid.dt_edges)]
    return np.histogram2d(np.array(dm, float), np.array(dt, float), bins=bins)[0]


T, OFFSETS = np.arange(4.0), np.array([0, 4])


def batch(curves) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A list of (t, mag) as one read-only ragged batch."""
    t = np.concatenate([np.empty(0), *(np.asarray(c[0], float) for c in curves)])
    mag = np.concatenate([np.empty(0), *(np.asarray(c[1], float) for c in curves)])
    offsets = np.concatenate([[0], np.cumsum([len(c[0]) for c in curves])]).astype(np.int64)
    for array in (t, mag, offsets):
        array.flags.writeable = False
    return t, mag, offsets


def count(curves, grid: Grid, **options) -> np.ndarray:
    return dmdt_counts(*batch(curves), grid.dt_edges, grid.dm_edges, **options)


def images(curves, grid: Grid, **options) -> np.ndarray:
    return dmdt_images(*batch(curves), grid.dt_edges, grid.dm_edges, **options)


def curve(n: int, seed: int = 0, spread: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """A ZTF-like cadence: nights of one to a few points over five seasons."""
    rng = np.random.default_rng(seed)
    nights = rng.choice(1800, max(n // 2, 1))
    t = np.sort(58000 + rng.choice(nights, n) + rng.uniform(0, 0.4, n))
    return t, 17 + spread * rng.standard_normal(n)


def check(curves, grid: Grid) -> None:
    found = count(curves, grid)
    assert found.dtype == np.uint32
    assert found.shape == (len(curves), *grid.shape)
    for image, (t, mag) in zip(found, curves, strict=True):
        np.testing.assert_array_equal(image, oracle(t, mag, grid))
    for how in NORMALISATIONS:
        np.testing.assert_array_equal(images(curves, grid, normalisation=how), normalise(found, how))


@pytest.fixture(autouse=True, scope="module", params=["as chosen", "for many epochs always"])
def kernel(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each test of this module with the kernels as they are chosen, and with the one for many epochs alone."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param != "as chosen":
            patch.setattr(dmdt_kernel, "FEW", 0)
        yield request.param


# The cases that every kernel must get right


@pytest.mark.parametrize("n", [0, 1, 2])
def test_hardly_any_points(n, grid):
    check([curve(n)], grid)


def test_no_light_curves(grid):
    assert count([], grid).shape == (0, *grid.shape)


@pytest.mark.parametrize("n", [31, 32, 33, 63, 64, 65, 79, 80, 81, 127, 128, 129, 255, 256, 257])
def test_word_borders(n, grid):
    check([curve(n, seed=n)], grid)


def test_pairs_exactly_on_every_edge(grid):
    """From a point at 0 to crossings of edges, to one ulp below and to one above."""
    thin = slice(None, None, 10 if len(grid.dm_edges) > 100 else 1)

    def around(edges):
        edges = np.array([*edges[thin], edges[-1]])
        return np.concatenate([edges, np.nextafter(edges, -np.inf), np.nextafter(edges, np.inf)])

    bins = [np.array(grid.dm_edges), np.array(grid.dt_edges)]
    dt = np.abs(around(grid.dt_edges))
    weight = 1.0 + np.arange(len(dt))  # so that two wrongs do not make a right
    for dm in around(grid.dm_edges):
        found = count([([0.0, x], [0.0, dm]) for x in dt], grid)
        expected = np.histogram2d(np.full(len(dt), dm), dt, bins=bins, weights=weight)[0]
        np.testing.assert_array_equal(np.tensordot(weight, found, 1), expected)


def test_the_last_cell_is_closed():
    grid = Grid((0.0, 1.0, 2.0), (-1.0, 0.0, 1.0))
    assert count([([0, 2], [15, 16])], grid)[0].tolist() == [[0, 0], [0, 1]]
    assert count([([0, 1], [15, 15])], grid)[0].tolist() == [[0, 0], [0, 1]]
    assert count([([0, 2], [15, 16.0000001])], grid).sum() == 0


def test_edges_hit_by_rounded_differences(grid):
    """Magnitudes on a lattice of hundredths, times of 1/145 d: differences fall on edges but for the last bit."""
    rng = np.random.default_rng(1)
    curves = [(58000 + rng.integers(0, 400, 70) / 145, rng.integers(1500, 1700, 70) / 100) for _ in range(5)]
    check(curves, grid)


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_zeros_of_either_sign(zero):
    """Differences and edges of −0 are 0."""
    t, mag = [0.0, -0.0, 0.0, -0.0, 1.0], [-0.0, 0.0, 0.0, -0.0, -0.0]
    check([(t, mag), (t[1:], mag[1:])], Grid((zero, 0.5, 2.0), (-1.0, zero, 1.0)))


def test_ties_in_time(grid):
    rng = np.random.default_rng(2)
    check(
        [
            (np.repeat(np.arange(20.0), 4), rng.normal(15, 1, 80)),
            (rng.integers(0, 5, 60), rng.normal(15, 1, 60)),
        ],
        grid,
    )


def test_all_times_equal(grid):
    check([(np.full(70, 58000.1), np.random.default_rng(3).normal(15, 1, 70))], grid)


def test_constant_magnitudes(grid):
    check([(curve(100)[0], np.full(100, 16.1))], grid)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_left_out(bad, grid):
    t, mag = curve(90)
    for array in (t, mag):
        array[[0, 7, 8, 89]] = bad
    mag[40:43] = bad
    check([(t, mag), (np.full(5, bad), np.ones(5)), (np.arange(5.0), np.full(5, bad))], grid)


def test_unsorted(grid):
    t, mag = curve(100)
    order = np.random.default_rng(4).permutation(100)
    np.testing.assert_array_equal(count([(t[order], mag[order])], grid), count([(t, mag)], grid))
    check([(t[::-1], mag[::-1])], grid)


def test_unsorted_ties_are_taken_in_the_order_given(grid):
    t = np.array([3.0, 1.0, 3.0, 1.0, 2.0] * 15)
    check([(t, np.random.default_rng(5).normal(15, 1, 75))], grid)


def test_views_and_widths(grid):
    t, mag = curve(120, seed=6)
    offsets, edges = np.array([0, 60, 120]), (grid.dt_edges, grid.dm_edges)
    expected = dmdt_counts(t, mag, offsets, *edges)
    wide = np.empty((120, 3))
    wide[:, 0], wide[:, 2] = t, mag
    np.testing.assert_array_equal(dmdt_counts(wide[:, 0], wide[:, 2], offsets, *edges), expected)
    padded = (
        np.concatenate([[np.nan] * 5, t, [np.nan] * 3]),
        np.concatenate([[np.nan] * 5, mag, [np.nan] * 3]),
    )
    np.testing.assert_array_equal(dmdt_counts(*padded, offsets + 5, *edges), expected)
    back = dmdt_counts(t[::-1][::-1], mag[::-1][::-1], offsets.astype(np.uint16)[::1], *map(np.array, edges))
    np.testing.assert_array_equal(back, expected)
    swapped = dmdt_counts(t.astype(">f8"), mag.astype(">f8"), offsets, *edges)
    np.testing.assert_array_equal(swapped, expected)


def test_float32_values_are_taken_as_they_are(grid):
    t, mag = curve(100, seed=7)
    t32, mag32 = (t - t[0]).astype(np.float32), mag.astype(np.float32)
    found = dmdt_counts(t32, mag32, np.array([0, 100]), grid.dt_edges, grid.dm_edges)
    np.testing.assert_array_equal(found[0], oracle(t32, mag32, grid))


def test_one_long_light_curve_among_thousands_of_short_ones():
    """10,000 points: 50 million pairs, by `counts_reference` in strips, as all at once would take gigabytes."""
    grid, n = GRIDS["mahabal2017"], 10_000
    t, mag = curve(n, seed=8)
    short = [curve(k % 7, seed=k) for k in range(3000)]
    found = count([*short[:1500], (t, mag), *short[1500:]], grid)
    expected = np.zeros(grid.shape)
    bins = [np.array(grid.dm_edges), np.array(grid.dt_edges)]
    for i in range(0, n, 500):
        a, b = np.triu_indices(500, 1)
        inner, outer = t[i : i + 500], mag[i : i + 500]
        expected += np.histogram2d(outer[b] - outer[a], inner[b] - inner[a], bins=bins)[0]
        if i + 500 < n:
            dt, dm = t[None, i + 500 :] - inner[:, None], mag[None, i + 500 :] - outer[:, None]
            expected += np.histogram2d(dm.ravel(), dt.ravel(), bins=bins)[0]
    np.testing.assert_array_equal(found[1500], expected)
    for at in range(0, 3000, 250):
        np.testing.assert_array_equal(found[at + (at >= 1500)], oracle(*short[at], grid))


@pytest.mark.parametrize("crowd", [5, 13, 31, 32, 33, 34, 64, 150])
def test_crowds_among_lonely_points(crowd, grid):
    """Many epochs: the partners of a lonely point are looked up or counted from afar, those in a night are a crowd."""
    rng = np.random.default_rng(crowd)
    lonely = np.sort(rng.uniform(0, 1500, 160))
    nights = np.concatenate([night + rng.uniform(0, 0.3, crowd) for night in lonely[[20, 80, 81]]])
    t = 58000 + np.sort(np.concatenate([lonely, nights]))
    # one with differences on edges, and one whose pairs are outside the grid in part
    check([(t, 15 + rng.integers(0, 40, len(t)) / 20), (t, rng.normal(15, 4, len(t)))], grid)


@pytest.mark.parametrize("name", GRIDS)
def test_the_published_grids_on_real_cadences(data_dir, name):
    """A hundred light curves of the survey that the paper used."""
    import pyarrow.parquet as pq

    table = pq.read_table(data_dir / "crts_css_labelled.parquet", columns=["mjd", "mag"]).slice(500, 100)
    t, mag = (table[name].combine_chunks() for name in ("mjd", "mag"))
    offsets = (t.offsets.to_numpy() - t.offsets[0].as_py()).astype(np.int64)
    grid = GRIDS[name]
    found = dmdt_counts(
        t.flatten().to_numpy(), mag.flatten().to_numpy(), offsets, grid.dt_edges, grid.dm_edges
    )
    for i, image in enumerate(found):
        expected = counts_reference(
            t[i].values.to_numpy(), mag[i].values.to_numpy(), grid.dt_edges, grid.dm_edges
        )
        np.testing.assert_array_equal(image, expected)


# Properties

# no grid narrower than 1e-290: 4,096 cells a grid would be more than a double can count in a unit
edges = (
    st.lists(st.floats(0, 100, allow_subnormal=False), min_size=2, max_size=8, unique=True)
    .map(sorted)
    .filter(lambda values: values[-1] - values[0] > 1e-290)
)
lattice = st.integers(0, 40).map(lambda k: k / 8)  # differences exactly on edges, and ties
point = st.tuples(
    st.one_of(lattice, st.floats(0, 200), st.sampled_from([np.nan, np.inf])),
    st.one_of(lattice, st.floats(-20, 20, width=32), st.sampled_from([np.nan, -np.inf])),
)


@settings(max_examples=200)
@given(st.lists(st.lists(point, max_size=25), min_size=1, max_size=4), edges, edges, st.booleans())
def test_any_light_curves_on_any_grid(points, dt_edges, dm_edges, mirror):
    if mirror:
        dm_edges = sorted({-x for x in dm_edges} | {x for x in dm_edges if x > 0})
    curves = [([p[0] for p in row], [p[1] for p in row]) for row in points]
    check(curves, Grid(tuple(dt_edges), tuple(dm_edges)))


@given(hnp.arrays(np.float64, 30, elements=lattice), hnp.arrays(np.float64, 30, elements=lattice))
def test_the_reference_is_the_oracle(t, mag):
    grid = EDGES["linear"]
    np.testing.assert_array_equal(
        counts_reference(t, mag, grid.dt_edges, grid.dm_edges), oracle(t, mag, grid)
    )


@given(st.permutations(range(40)), st.sampled_from(sorted(EDGES)))
def test_order_of_input_where_times_differ(order, name):
    t, mag = curve(40, seed=9)
    order = np.array(order)
    np.testing.assert_array_equal(
        count([(t[order], mag[order])], EDGES[name]), count([(t, mag)], EDGES[name])
    )


@given(st.integers(0, 150), st.integers(0, 10**6))
def test_totals(n, seed):
    """A grid that holds every pair counts each of them once; a smaller one counts the pairs inside."""
    t, mag = curve(n, seed)
    dt, dm = np.subtract.outer(t, t), np.subtract.outer(mag, mag)
    later = np.tri(n, k=-1, dtype=bool)
    assert count([(t, mag)], Grid((0.0, 1e4), (-1e3, 1e3))).sum() == n * (n - 1) // 2
    grid = GRIDS["mahabal2017"]
    inside = later & (dt >= grid.dt_edges[0]) & (dt <= grid.dt_edges[-1]) & (np.abs(dm) <= grid.dm_edges[-1])
    assert count([(t, mag)], grid).sum() == inside.sum()


@given(st.integers(2, 100), st.integers(0, 10**6))
def test_a_batch_is_its_light_curves(n, seed):
    curves = [curve(n, seed), curve(3, seed + 1), curve(n // 2, seed + 2)]
    together = count(curves, GRIDS["scope"])
    for image, one in zip(together, curves, strict=True):
        np.testing.assert_array_equal(image, count([one], GRIDS["scope"])[0])


@pytest.mark.parametrize("name", GRIDS)
def test_light_curve_counts_the_same(name):
    """The package's last bins are half open: no pair of these lies on them."""
    grid = GRIDS[name]
    peer = light_curve.DmDt(
        dt=np.array(grid.dt_edges), dm=np.array(grid.dm_edges), dt_type="asis", dm_type="asis", norm=[]
    )
    for seed in range(10):
        t, mag = curve(30 * (seed + 1), seed)
        np.testing.assert_array_equal(count([(t, mag)], grid)[0].T, peer.points(t, mag))


# Images into a buffer, and threads


@given(
    st.lists(st.integers(0, 130), max_size=12),
    st.integers(2, 5),
    st.sampled_from([1, 10_000, 2**18]),
    st.sampled_from(NORMALISATIONS),
    st.sampled_from(["mahabal2017", "unequal"]),
)
def test_threads_and_blocks_change_nothing(lengths, threads, scratch, how, name):
    curves, grid = [curve(n, seed) for seed, n in enumerate(lengths)], EDGES[name]
    expected = count(curves, grid)
    np.testing.assert_array_equal(count(curves, grid, threads=threads), expected)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dmdt, "SCRATCH", scratch)
        for n_threads in (1, threads):
            found = images(curves, grid, normalisation=how, threads=n_threads)
            np.testing.assert_array_equal(found, normalise(expected, how))


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=60), st.integers(1, 40))
def test_runs_cover_the_batch_once(lengths, pieces):
    runs = dmdt._runs(np.concatenate([[7], 7 + np.cumsum(lengths)]), pieces)
    assert [k for a, b in sorted(runs) for k in range(a, b)] == list(range(len(lengths)))
    assert len(runs) <= pieces


def test_runs_have_equal_work():
    """A thousand long light curves before ten thousand short ones: no run has all the pairs."""
    lengths = np.repeat([300, 30], [1000, 10_000])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    pairs = [(lengths[a:b] * (lengths[a:b] - 1) // 2).sum() for a, b in dmdt._runs(offsets, 16)]
    assert len(pairs) == 16
    assert max(pairs) < 1.1 * min(pairs)


@pytest.mark.parametrize("threads", [1, 2])
def test_images_are_written_into_the_buffer(threads):
    """All of it, also where there are no pairs; into part of a larger one as well."""
    curves, grid = [curve(n, n) for n in (0, 30, 1, 200, 2)], GRIDS["mahabal2017"]
    expected = normalise(count(curves, grid), "paper")
    for dtype, poison in ((np.float32, np.nan), (np.uint8, 99)):
        whole = np.full((9, *grid.shape), poison, dtype)
        part = whole[2:7]
        assert images(curves, grid, out=part, threads=threads) is part
        np.testing.assert_array_equal(part, expected)
        np.testing.assert_array_equal(whole[[0, 1, 7, 8]], np.full((4, *grid.shape), poison, dtype))


def test_images_without_the_counts_of_the_whole_batch():
    """4000 images: their counts would be 8 MB."""
    t, mag, offsets = batch([curve(3, seed) for seed in range(4000)])
    grid = GRIDS["mahabal2017"]
    out = np.empty((4000, *grid.shape), np.uint8)
    tracemalloc.start()
    try:
        dmdt_images(t, mag, offsets, grid.dt_edges, grid.dm_edges, out=out)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < dmdt.SCRATCH + 2**18


@given(st.integers(0, 10**6), st.integers(1, 32), st.sampled_from(NORMALISATIONS))
def test_the_kernel_scales_as_normalise_does(seed, bits, how):
    """Bit by bit, also where the sum of squares is past what a double holds exactly."""
    rng = np.random.default_rng(seed)
    counts = (rng.integers(0, 2**bits, (3, 22, 23)) * rng.integers(0, 2, (3, 22, 23))).astype(np.uint32)
    counts[2] = 0
    found, expected = np.empty(counts.shape, np.float32), normalise(counts, how)
    dmdt_kernel.scale(counts, NORMALISATIONS.index(how), found)
    np.testing.assert_array_equal(found, expected)
    if how == "paper":
        as_bytes = np.empty(counts.shape, np.uint8)
        dmdt_kernel.scale(counts, NORMALISATIONS.index(how), as_bytes)
        np.testing.assert_array_equal(as_bytes, expected)


def test_every_share_of_few_pairs():
    """255·k/n + 0.99999 for every k ≤ n ≤ 400: no operation may be fused with another, or this differs."""
    k, n = np.meshgrid(np.arange(401), np.arange(401), indexing="ij")
    counts = np.stack([k[k <= n], (n - k)[k <= n]], axis=1).astype(np.uint32)[:, None]
    found = np.empty(counts.shape, np.uint8)
    dmdt_kernel.scale(counts, NORMALISATIONS.index("paper"), found)
    np.testing.assert_array_equal(found, normalise(counts, "paper"))


def read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out": [[[0.0]]]}, "out must be a numpy array, got list"),
        ({"out": np.empty((1, 1, 2), np.float32)}, r"out must have shape \(1, 1, 1\).*, got \(1, 1, 2\)"),
        ({"out": np.empty((1, 1), np.float32)}, r"out must have shape \(1, 1, 1\).*, got \(1, 1\)"),
        ({"out": np.empty((1, 1, 1))}, "out must be float32 or uint8, got float64"),
        ({"out": np.empty((1, 1, 1), ">f4")}, "out must be float32 or uint8, got >f4"),
        (
            {"out": np.empty((1, 1, 1), np.uint8), "normalisation": "max"},
            "out must be float32 for normalisation 'max', got uint8",
        ),
        ({"out": read_only(np.empty((1, 1, 1), np.float32))}, "out must be writeable, got a read-only array"),
        ({"normalisation": "sum"}, "unknown normalisation 'sum'; known are count, max, l2, paper"),
        ({"threads": 0}, "threads must be a whole number from 1, got 0"),
        ({"threads": 1.5}, "threads must be a whole number from 1, got 1.5"),
    ],
)
def test_options_that_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        dmdt_images(T, T, OFFSETS, [0, 1], [0, 1], **options)


def test_a_buffer_in_another_order_is_refused():
    out = np.empty((2, 2, 1), np.float32).transpose(1, 2, 0)
    with pytest.raises(ValueError, match=r"out must be C-contiguous, got strides \(4, 4, 8\)"):
        dmdt_images(T, T, np.array([0, 4, 4]), [0, 1, 2], [0, 1], out=out)


@pytest.mark.parametrize("threads", [0, -1, 2.0])
def test_threads_that_are_refused(threads):
    with pytest.raises(ValueError, match=f"threads must be a whole number from 1, got {threads}"):
        dmdt_counts(T, T, OFFSETS, [0, 1], [0, 1], threads=threads)


# Grids, normalisation, errors


def test_a_grid_is_laid_out_once_and_cannot_be_spoilt():
    grid = GRIDS["mahabal2017"]
    first, again = (
        dmdt.search(edges, list(grid.dm_edges)) for edges in (grid.dt_edges, np.array(grid.dt_edges))
    )
    assert first is again
    assert not any(array.flags.writeable for array in first if isinstance(array, np.ndarray))
    assert dmdt.search(grid.dt_edges, grid.dm_edges[1:]) is not first


def test_the_published_edges():
    """As ../shared/DESIGN.md states them from the papers."""
    mahabal, scope = GRIDS["mahabal2017"], GRIDS["scope"]
    assert (len(mahabal.dm_edges), len(mahabal.dt_edges)) == (23, 24)
    assert (len(scope.dm_edges), len(scope.dt_edges)) == (27, 27)
    assert (mahabal.shape, scope.shape) == ((22, 23), (26, 26))
    np.testing.assert_allclose(scope.dt_edges[:5], [0, 0.02759, 0.04, 0.08, 0.12], atol=5e-6)
    for grid in GRIDS.values():
        assert grid.dm_edges == tuple(-x for x in reversed(grid.dm_edges))
        assert (np.diff(grid.dt_edges) > 0).all()


def test_normalisations_by_hand():
    counts = np.array([[[1, 0], [3, 4]], [[0, 0], [0, 0]]], np.uint32)
    counts.flags.writeable = False
    expected = {
        "count": [[1, 0], [3, 4]],
        "max": [[0.25, 0], [0.75, 1]],
        "l2": np.array([[1, 0], [3, 4]]) / np.sqrt(26),
        "paper": [[32, 0], [96, 128]],  # 255/8 = 31.875 and multiples, rounded up
    }
    assert set(expected) == set(NORMALISATIONS)
    for how, image in expected.items():
        found = normalise(counts, how)
        assert (found.dtype, found.shape) == (np.float32, counts.shape)
        # float32 has 24 bits: half an ulp is 6e-8 of the value
        np.testing.assert_allclose(found[0], image, rtol=6e-8)
        assert (found[1] == 0).all()


@given(hnp.arrays(np.uint32, (2, 3, 4), elements=st.integers(0, 10**6)))
def test_the_papers_formula(counts):
    found = normalise(counts, "paper")
    for image, own in zip(found, counts, strict=True):
        pairs = int(own.sum())
        for value, n in zip(image.ravel(), own.ravel(), strict=True):
            assert value == (np.floor(255 * (int(n) / pairs) + 0.99999) if pairs else 0)
    assert ((found >= 0) & (found <= 255)).all()


def test_unknown_normalisation():
    with pytest.raises(ValueError, match="unknown normalisation 'sum'; known are count, max, l2, paper"):
        normalise(np.zeros((1, 2, 2)), "sum")


@pytest.mark.parametrize(("n", "pairs"), [(92_682, 92_682 * 92_681 // 2), (92_683, 2**32 - 1)])
def test_a_cell_counts_no_more_than_it_holds(n, pairs):
    t = np.linspace(0, 1, n)
    found = dmdt_counts(t, np.zeros(n), np.array([0, n]), [0, 2, 3], [-1, 0, 1])
    assert found.tolist() == [[[0, 0], [pairs, 0]]]


def test_more_edges_than_16_bits_number():
    rng = np.random.default_rng(7)
    t, mag = np.sort(rng.uniform(0, 100, 150)), rng.uniform(0, 10, 150)
    grid = Grid((0.0, 30.0, 100.0), tuple(np.linspace(-10, 10, 70_001)))
    check([(t, mag)], grid)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "edges", [[0, 1.7976931348623157e308], [-1e308, 1e308], [-1.7e308, 0, 1.7e308], [-1e308, -1, 1, 1e308]]
)
def test_edges_as_far_apart_as_floats_go(edges):
    t, mag = np.array([0.0, 1.0, 3.0]), np.array([15.0, 15.5, 12.0])
    found = dmdt_counts(t, mag, np.array([0, 3]), [0, 2, 4], edges)[0]
    with np.errstate(over="ignore", invalid="ignore"):
        np.testing.assert_array_equal(found, counts_reference(t, mag, [0, 2, 4], edges))


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ({"dt_edges": [0.0]}, r"dt_edges must be a vector of at least two edges, got shape \(1,\)"),
        ({"dt_edges": [0.0, 1.0, 1.0]}, "dt_edges must increase, got 1.0 before 1.0 at 1"),
        ({"dt_edges": [2.0, 1.0]}, "dt_edges must increase, got 2.0 before 1.0 at 0"),
        ({"dm_edges": [-1.0, np.nan]}, "dm_edges must be finite, got nan at 1"),
        ({"dm_edges": [-np.inf, 0.0]}, "dm_edges must be finite, got -inf at 0"),
        ({"dm_edges": [[0.0, 1.0]]}, r"dm_edges must be a vector of at least two edges, got shape \(1, 2\)"),
        ({"dm_edges": ["a", "b"]}, "dm_edges must be real numbers, got dtype <U1"),
        ({"dm_edges": np.ma.array([0.0, 1.0, 2.0], mask=[0, 1, 0])}, "dm_edges has 1 masked values of 3"),
    ],
)
def test_edges_that_are_refused(edges, message):
    with pytest.raises(ValueError, match=message):
        dmdt_counts(T, T, OFFSETS, **({"dt_edges": [0, 1], "dm_edges": [0, 1]} | edges))


@pytest.mark.parametrize(
    ("t", "mag", "offsets", "message"),
    [
        (T, T[:3], OFFSETS, "mag has 3 epochs, t has 4"),
        (T[None], T, OFFSETS, "t must be a vector"),
        (T, T, np.array([0, 5]), "must lie in 0…4"),
        (T, T, np.array([3, 1]), "must not decrease"),
        (T, T, np.array([0.0, 4.0]), "integers"),
    ],
)
def test_batches_that_are_refused(t, mag, offsets, message):
    with pytest.raises(ValueError, match=message):
        dmdt_counts(t, mag, offsets, [0, 1], [0, 1])


LONG = """
import re
from pathlib import Path
import numpy as np
from lightmill.pipeline.dmdt import GRIDS, dmdt_counts

rng, n, grid = np.random.default_rng(1), 100_000, GRIDS["mahabal2017"]
t, mag = np.sort(rng.uniform(0, 2500, n)), rng.normal(18, 0.3, n)
counts = dmdt_counts(t, mag, np.array([0, n]), grid.dt_edges, grid.dm_edges)
before = [np.searchsorted(t, t + dt, side="left").sum() for dt in grid.dt_edges]
assert counts[0].sum(axis=0).tolist() == np.diff(before).tolist()
# getrusage would tell the highest of the parent too, from before exec
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024)
"""


def run_python(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_memory_of_a_very_long_light_curve_is_bounded(kernel):
    """10⁵ epochs, 5·10⁹ pairs, all with |dm| < 8; n²/8 bytes of bitmaps would be 1.2 GB."""
    if kernel == "as chosen":  # the same for both
        assert int(run_python(LONG)) < 500


GENERIC = """
import numpy as np
from lightmill.pipeline.dmdt import GRIDS, counts_reference, dmdt_counts

rng, grid = np.random.default_rng(1), GRIDS["scope"]
for n in (50, 500):
    t, mag = np.sort(rng.uniform(0, 2500, n)), rng.normal(18, 0.3, n)
    found = dmdt_counts(t, mag, np.array([0, n]), grid.dt_edges, grid.dm_edges)[0]
    assert (found == counts_reference(t, mag, grid.dt_edges, grid.dm_edges)).all()
"""


@pytest.mark.slow
@pytest.mark.parametrize("cpu", ["generic", "x86-64-v3"])
def test_hosts_without_wide_vectors(cpu, kernel, tmp_path):
    """Numba compiles for the host that it runs on: here for one with SSE2, and one with AVX2."""
    if kernel == "as chosen":  # both kernels are used
        run_python(GENERIC, NUMBA_CPU_NAME=cpu, NUMBA_CPU_FEATURES="", NUMBA_CACHE_DIR=str(tmp_path))
