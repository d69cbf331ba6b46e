"""`catalogs/lightcurves.py`: Arrow tables as flat arrays and offsets, without a copy, and what does not fit."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hats.pixel_math.spatial_index import compute_spatial_index
from hypothesis import given
from hypothesis import strategies as st

from lightmill.catalogs.lightcurves import (
    LAYOUTS,
    Layout,
    LayoutError,
    LightCurves,
    choose_layout,
    from_arrow,
    spatial_index,
)

NESTED, LIST, LABELLED = (LAYOUTS[name] for name in ("irsa-hats", "list", "labelled"))


def epochs(curves: LightCurves, name: str) -> list[list[float]]:
    """One Python list a light curve."""
    values = getattr(curves, name).tolist()
    return [values[a:b] for a, b in zip(curves.offsets[:-1], curves.offsets[1:], strict=True)]


def same(curves: LightCurves, stars) -> None:
    """A batch holds what the stars do."""
    assert len(curves) == len(stars)
    for name in ("t", "mag", "magerr"):
        assert epochs(curves, name) == getattr(stars, name)
    assert curves.n_epochs == sum(map(len, stars.t))
    assert curves.offsets.dtype == np.int64
    if len(curves.flags):
        assert epochs(curves, "flags") == stars.flags
        assert curves.objectid.tolist() == stars.objectid.tolist()
        assert curves.filterid.tolist() == stars.filterid.tolist()
    # float32 degrees: half an ulp at 360 is 1.5e-5
    np.testing.assert_allclose(curves.ra, stars.ra, atol=1.6e-5)
    np.testing.assert_allclose(curves.dec, stars.dec, atol=1.6e-5)
    np.testing.assert_array_equal(curves.healpix_29, compute_spatial_index(curves.ra, curves.dec))


def buffers(array: pa.Array) -> list[np.ndarray]:
    """The memory that an Arrow array owns, with that of its children."""
    return [
        np.frombuffer(buffer, np.uint8) for buffer in array.buffers() if buffer is not None and buffer.size
    ]


def column_of(table: pa.Table, layout: Layout, name: str) -> pa.Array:
    return table.column(layout.nested or name).chunk(0)


# What is read


def test_every_shape(make_stars, stars_table, shape):
    stars = make_stars(12)
    table = stars_table(stars, shape)
    same(from_arrow(table, choose_layout(table.schema)), stars)


def test_a_record_batch(make_stars, stars_table, shape):
    stars = make_stars(5)
    batch = stars_table(stars, shape).to_batches()[0]
    same(from_arrow(batch, choose_layout(batch.schema)), stars)


def test_epochs_are_views_of_arrows_memory(make_stars, stars_table, shape):
    table = stars_table(make_stars(12), shape)
    layout = choose_layout(table.schema)
    for part in (table, table.slice(3, 6), table.to_batches()[0].slice(3, 6)):
        curves = from_arrow(part, layout)
        for field, name in (
            ("t", layout.t),
            ("mag", layout.mag),
            ("magerr", layout.magerr),
            ("flags", layout.flags),
        ):
            if name is None:
                continue
            values = getattr(curves, field)
            assert any(np.shares_memory(values, memory) for memory in buffers(column_of(table, layout, name)))
            assert not values.flags.writeable


@pytest.mark.parametrize(("start", "length"), [(0, 4), (3, 6), (11, 1), (5, 0), (12, 0)])
def test_slices(make_stars, stars_table, shape, start, length):
    stars = make_stars(12)
    table = stars_table(stars, shape)
    index = list(range(start, start + length))
    curves = from_arrow(table.slice(start, length), choose_layout(table.schema))
    same(curves, stars.take(index))
    assert curves.offsets[0] == 0


@pytest.mark.parametrize("cuts", [(3, 4), (0, 12), (1, 1)])
def test_several_chunks(make_stars, stars_table, shape, cuts):
    stars = make_stars(12)
    table = stars_table(stars, shape)
    a, b = cuts
    pieces = pa.concat_tables([table.slice(0, a), table.slice(a, b), table.slice(a + b)])
    assert pieces.column(0).num_chunks > 1 or a == 0
    same(from_arrow(pieces, choose_layout(table.schema)), stars)


def test_large_lists_have_int64_offsets(make_stars, stars_table):
    stars = make_stars(6)
    table = stars_table(stars, "list")
    for name in ("hmjd", "mag", "magerr", "catflags"):
        at = table.schema.get_field_index(name)
        column = table.column(name)
        table = table.set_column(at, name, column.cast(pa.large_list(column.type.value_type)))
    same(from_arrow(table, LIST), stars)
    same(from_arrow(table.slice(2), LIST), stars.take(range(2, 6)))


def test_large_lists_within_a_struct(make_stars, stars_table):
    stars = make_stars(6)
    table = stars_table(stars, "struct<list>")
    nested = table.column("lightcurve").combine_chunks()
    large = [nested.field(i).cast(pa.large_list(nested.field(i).type.value_type)) for i in range(5)]
    names = [nested.type.field(i).name for i in range(5)]
    same(
        from_arrow(table.set_column(5, "lightcurve", pa.StructArray.from_arrays(large, names)), NESTED), stars
    )


def list_table(**epochs) -> pa.Table:
    n = len(next(iter(epochs.values())))
    rows = {
        "objectid": np.arange(n),
        "objra": np.full(n, 10.0),
        "objdec": np.zeros(n),
        "filterid": np.ones(n, int),
    }
    types = {"hmjd": pa.float64(), "mag": pa.float32(), "magerr": pa.float32(), "catflags": pa.int32()}
    lists = {name: pa.array(epochs[name], pa.list_(dtype)) for name, dtype in types.items()}
    return pa.table(rows | lists)


def test_a_null_list_is_a_light_curve_without_epochs():
    lists = [[1.0, 2.0], None, [], [3.0]]
    flags = [[0, 1], None, [], [2]]
    table = list_table(hmjd=lists, mag=lists, magerr=lists, catflags=flags)
    curves = from_arrow(table, LIST)
    assert epochs(curves, "t") == [[1, 2], [], [], [3]]
    assert epochs(curves, "flags") == [[0, 1], [], [], [2]]
    assert epochs(from_arrow(table.slice(1, 2), LIST), "t") == [[], []]


def test_a_null_list_that_still_owns_values():
    """Arrow allows it: what lies under a null is nobody's."""

    def column(dtype):
        values, mask = pa.array([1, 2, 98, 99, 3], dtype), pa.array([False, True, False])
        return pa.ListArray.from_arrays(pa.array([0, 2, 4, 5], pa.int32()), values, mask=mask)

    rows = {"objectid": [1, 2, 3], "objra": [1.0] * 3, "objdec": [1.0] * 3, "filterid": [1] * 3}
    table = pa.table(
        rows
        | {name: column(pa.float64()) for name in ("hmjd", "mag", "magerr")}
        | {"catflags": column(pa.int32())}
    )
    for part, expected in (
        (table, [[1, 2], [], [3]]),
        (table.slice(1), [[], [3]]),
        (table.slice(0, 2), [[1, 2], []]),
    ):
        curves = from_arrow(part, LIST)
        for name in ("t", "mag", "flags"):
            assert epochs(curves, name) == expected


@pytest.mark.parametrize("nested", ["struct<list>", "list<struct>"])
def test_null_rows_of_the_nested_column(make_stars, stars_table, nested):
    stars = make_stars(5)
    table = stars_table(stars, nested)
    column, mask = table.column("lightcurve").combine_chunks(), pa.array([False, True, False, False, True])
    if nested == "struct<list>":
        names = [field.name for field in column.type]
        holed = pa.StructArray.from_arrays([column.field(name) for name in names], names, mask=mask)
    else:
        holed = pa.ListArray.from_arrays(column.offsets, column.values, mask=mask)
    table = table.set_column(table.schema.get_field_index("lightcurve"), "lightcurve", holed)
    expected = [[] if null else t for t, null in zip(stars.t, mask.to_pylist(), strict=True)]
    assert epochs(from_arrow(table, NESTED), "t") == expected
    assert epochs(from_arrow(table.slice(1, 3), NESTED), "t") == expected[1:4]


def test_null_values():
    """Of a float: NaN, which cleaning drops; of flags: none set; of a position: no place on the sky."""
    table = list_table(
        hmjd=[[1.0, None]], mag=[[None, 2.0]], magerr=[[1.0, 1.0]], catflags=[[None, 32768]]
    ).set_column(1, "objra", pa.array([None], pa.float64()))
    curves = from_arrow(table, LIST)
    assert np.isnan(curves.t).tolist() == [False, True]
    assert np.isnan(curves.mag).tolist() == [True, False]
    assert curves.flags.dtype.kind in "iu"
    assert curves.flags.tolist() == [0, 32768]
    assert curves.healpix_29.tolist() == [-1]


def test_null_epochs_of_a_list_of_structs():
    epoch = {"hmjd": 1.0, "mag": 2.0, "magerr": 3.0, "catflags": 4}
    kind = pa.struct([(name, pa.int32() if name == "catflags" else pa.float64()) for name in epoch])
    values = pa.StructArray.from_arrays(
        [pa.array([1, 99, 2], kind.field(i).type) for i in range(4)],
        list(epoch),
        mask=pa.array([False, True, False]),
    )
    rows = {"objectid": [1], "objra": [1.0], "objdec": [1.0], "filterid": [1]}
    table = pa.table(rows | {"lightcurve": pa.ListArray.from_arrays(pa.array([0, 3], pa.int32()), values)})
    assert np.isnan(from_arrow(table, NESTED).mag).tolist() == [False, True, False]


def test_times_as_they_are_stored(make_stars, stars_table):
    """Bulk files have float32 times: they are not widened, as that would copy them."""
    table = stars_table(make_stars(3), "list")
    narrow = table.set_column(5, "hmjd", table["hmjd"].cast(pa.list_(pa.float32())))
    assert from_arrow(narrow, LIST).t.dtype == np.float32


def test_integer_epochs_become_floats_and_flags_integers():
    table = list_table(hmjd=[[1, 2]], mag=[[3, 4]], magerr=[[1, 1]], catflags=[[0, 0]])
    whole = table.set_column(4, "hmjd", pa.array([[1, None]], pa.list_(pa.int16())))
    curves = from_arrow(whole.set_column(7, "catflags", pa.array([[0.0, 64.0]])), LIST)
    assert curves.t.dtype == np.float64
    assert np.isnan(curves.t).tolist() == [False, True]
    assert curves.flags.tolist() == [0, 64]


def test_the_index_that_a_release_has_is_taken(make_stars, stars_table):
    stars = make_stars(4)
    table = stars_table(stars, "list").append_column("_healpix_29", pa.array([5, 6, 7, 8]))
    assert from_arrow(table, LIST).healpix_29.tolist() == [5, 6, 7, 8]


def test_text_identifiers_do_not_depend_on_the_batch(make_stars, stars_table):
    table = stars_table(make_stars(8), "labelled")
    whole = from_arrow(table, LABELLED).objectid
    parts = [from_arrow(table.slice(i, 3), LABELLED).objectid for i in range(0, 8, 3)]
    assert len(set(whole.tolist())) == 8
    assert (whole >= 0).all()
    assert np.concatenate(parts).tolist() == whole.tolist()


def test_spatial_index_everywhere():
    ra = np.array([0.0, 360.0, -1.0, 359.0, 10.0, 10.0, 5.0, np.nan, 5.0, np.inf, 725.0])
    dec = np.array([0.0, 0.0, 5.0, 5.0, 90.0, -90.0, 90.1, 5.0, np.nan, 0.0, 1.0])
    found = spatial_index(ra, dec)
    assert found[0] == found[1]
    assert found[2] == found[3]
    assert (found[[4, 5]] >= 0).all()
    assert (found[[6, 7, 8, 9]] == -1).all()
    assert found[10] == compute_spatial_index(5.0, 1.0)
    assert spatial_index(np.empty(0), np.empty(0)).shape == (0,)


# Pieces of a batch

lengths = st.lists(st.integers(0, 9), min_size=0, max_size=12)


def batch_of(sizes: list[int]) -> LightCurves:
    n = len(sizes)
    offsets = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)
    values = np.arange(float(offsets[-1]))
    row = np.arange(n)
    batch = LightCurves(
        values,
        values + 0.1,
        values + 0.2,
        values.astype(np.int32),
        offsets,
        row,
        row * 1.0,
        row * 1.0,
        row,
        row,
    )
    for name in ("t", "mag", "magerr", "flags", "offsets", "objectid"):
        getattr(batch, name).flags.writeable = False
    return batch


@given(lengths, st.integers(1, 25))
def test_split_keeps_everything_in_bounded_pieces(sizes, bound):
    batch = batch_of(sizes)
    pieces = batch.split(bound)
    assert [i for piece in pieces for i in piece.objectid] == list(range(len(sizes)))
    assert [curve for piece in pieces for curve in epochs(piece, "t")] == epochs(batch, "t")
    for piece in pieces:
        assert piece.n_epochs <= bound or len(piece) == 1
        assert piece.offsets[0] == 0
        assert np.shares_memory(piece.t, batch.t) or piece.n_epochs == 0
    for one, two in itertools.pairwise(pieces):
        assert one.n_epochs + np.diff(two.offsets)[0] > bound  # no piece could have been larger


@given(lengths, st.data())
def test_take(sizes, data):
    batch = batch_of(sizes)
    index = np.array(
        data.draw(st.lists(st.integers(0, max(len(sizes) - 1, 0)), max_size=8 if sizes else 0)), int
    )
    found = batch.take(index)
    assert found.objectid.tolist() == index.tolist()
    for name in ("t", "mag", "magerr", "flags"):
        own = epochs(batch, name)
        assert epochs(found, name) == [own[i] for i in index]


def test_take_of_a_piece_that_starts_in_the_middle():
    batch = batch_of([2, 3, 4]).select(1, 3)
    assert epochs(batch.take(np.array([1, 0])), "t") == [[5, 6, 7, 8], [2, 3, 4]]


# What does not fit


def test_the_first_layout_that_fits(make_stars, stars_table, shape):
    name = {"struct<list>": "irsa-hats", "list<struct>": "irsa-hats"}.get(shape, shape)
    assert choose_layout(stars_table(make_stars(2), shape).schema).name == name


@pytest.mark.parametrize("column", ["objectid", "objra", "filterid", "magerr"])
def test_a_missing_column_is_named_with_the_layouts_and_the_line_to_change(make_stars, stars_table, column):
    schema = stars_table(make_stars(2), "list").drop_columns([column]).schema
    with pytest.raises(LayoutError) as caught:
        choose_layout(schema, where="s3://release")
    message = str(caught.value)
    for part in (
        f"no column {column!r}",
        "s3://release",
        "'list'",
        "irsa-hats, list, labelled",
        "[layout] name",
    ):
        assert part in message


def test_a_missing_child_is_named(make_stars, stars_table):
    table = stars_table(make_stars(2), "struct<list>")
    nested = table.column("lightcurve").combine_chunks()
    some = pa.StructArray.from_arrays([nested.field("hmjd"), nested.field("mag")], ["hmjd", "mag"])
    table = table.set_column(table.schema.get_field_index("lightcurve"), "lightcurve", some)
    with pytest.raises(LayoutError, match=r"no column 'lightcurve\.magerr', 'lightcurve\.catflags'"):
        from_arrow(table, NESTED)


def test_no_columns_at_all():
    with pytest.raises(LayoutError, match="the table has no columns"):
        choose_layout(pa.schema([]))


@pytest.mark.parametrize("column", ["mag", "magerr", "catflags"])
@pytest.mark.parametrize("short", [[2.0], [], None, [1.0] * 5])
def test_uneven_lengths_cost_one_light_curve_alone(column, short):
    """Which value belongs to which time cannot be known: no magnitude of that light curve is one."""
    lists = {"hmjd": [[1.0], [1.0, 2.0], [3.0]], "mag": [[15.0], [16.0, 16.5], [17.0]],
             "magerr": [[0.1], [0.2, 0.2], [0.3]], "catflags": [[0], [0, 0], [0]]}  # fmt: skip
    lists[column][1] = short if column != "catflags" or short is None else [0] * len(short)
    curves = from_arrow(list_table(**lists), LIST)
    assert curves.offsets.tolist() == [0, 1, 3, 4]
    np.testing.assert_array_equal(curves.mag, [15, np.nan, np.nan, 17])
    assert curves.magerr[[0, 3]].tolist() == pytest.approx([0.1, 0.3])
    assert curves.t.tolist() == [1, 1, 2, 3]


def test_a_column_that_is_no_list(make_stars, stars_table):
    table = stars_table(make_stars(2), "list")
    table = table.set_column(table.schema.get_field_index("mag"), "mag", pa.array([1.0, 2.0]))
    with pytest.raises(LayoutError, match="column 'mag' is double, not a list"):
        from_arrow(table, LIST)


def test_a_layout_of_your_own(make_stars, stars_table):
    """Names in the recipe, not new code; no filter, no flags."""
    stars = make_stars(4)
    table = stars_table(stars, "list").rename_columns(
        ["source", "band", "x", "y", "n", "time", "m", "dm", "quality", "cc"]
    )
    own = Layout("mine", None, "time", "m", "dm", None, objectid="source", ra="x", dec="y", filterid=None)
    curves = from_arrow(table, choose_layout(table.schema, LAYOUTS | {"mine": own}))
    assert epochs(curves, "mag") == stars.mag
    assert len(curves.flags) == 0
    assert curves.filterid.tolist() == [0] * 4
    assert curves.take(np.array([2])).flags.shape == (0,)
