"""Labelled tables: what is read, what may be missing, and what is said when too much is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightmill.catalogs.lightcurves import LAYOUTS, LayoutError
from lightmill.pipeline.labelled import LabelledError, read_labelled, rename


def table(**changes: object) -> pa.Table:
    columns = {
        "id": ["a", "b", "c"], "label": ["EW", None, "RRab"], "ra": [1.0, 2.0, 3.0], "dec": [0.0, 1.0, 2.0],
        "group": [7, 7, None], "period": [0.3, None, 0.5],
        "mjd": [[1.0, 2.0], [], [3.0]], "mag": [[15.0, 15.1], [], [16.0]], "magerr": [[0.1, 0.1], [], [0.2]],
    }  # fmt: skip
    return pa.table({name: value for name, value in (columns | changes).items() if value is not None})


def write(path: Path, content: pa.Table) -> Path:
    pq.write_table(content, path / "labels.parquet")
    return path / "labels.parquet"


def test_everything_that_is_there_is_read(tmp_path: Path):
    data = read_labelled(write(tmp_path, table()), LAYOUTS)
    assert data.label.tolist() == ["EW", "", "RRab"]
    assert data.curves.offsets.tolist() == [0, 2, 2, 3]
    assert data.group[0] == data.group[1] != data.group[2]
    np.testing.assert_array_equal(data.period, [0.3, np.nan, 0.5])
    taken = data.take(np.array([2]))
    assert (taken.label.tolist(), taken.curves.mag.tolist(), len(taken)) == (["RRab"], [16.0], 1)


def test_group_and_period_may_be_missing(tmp_path: Path):
    data = read_labelled(write(tmp_path, table(group=None, period=None)), LAYOUTS)
    assert len(set(data.group)) == 3
    assert np.isnan(data.period).all()


def test_bands_are_read_where_they_are_numbers(tmp_path: Path):
    plain = read_labelled(write(tmp_path, table()), LAYOUTS)
    assert plain.curves.filterid.tolist() == [0, 0, 0]
    some = table().append_column("filterid", pa.array([2, 1, 3], pa.int64()))
    assert read_labelled(write(tmp_path, some), LAYOUTS).curves.filterid.tolist() == [2, 1, 3]
    floats = table().append_column("filterid", pa.array([2.0, None, 3.0]))
    assert read_labelled(write(tmp_path, floats), LAYOUTS).curves.filterid.tolist() == [2, 0, 3]
    # nobody said that this is the column: it may be anything
    text = table().append_column("filterid", pa.array([None, "zr", "zi"]))
    assert read_labelled(write(tmp_path, text), LAYOUTS).curves.filterid.tolist() == [0, 0, 0]
    named = {"labelled": replace(LAYOUTS["labelled"], filterid="filterid")}
    with pytest.raises(
        LayoutError, match=r"parquet: column 'filterid' is string, for example 'zr': passbands are"
    ):
        read_labelled(write(tmp_path, text), named)


def test_colours_go_with_their_rows(tmp_path: Path):
    data = replace(read_labelled(write(tmp_path, table()), LAYOUTS), colours=np.arange(6.0).reshape(3, 2))
    assert data.take(np.array([2, 0])).colours.tolist() == [[4, 5], [0, 1]]


def test_groups_may_be_text(tmp_path: Path):
    data = read_labelled(write(tmp_path, table(group=["x", "y", "x"])), LAYOUTS)
    assert data.group[0] == data.group[2] != data.group[1]


def test_a_release_layout_with_labels(tmp_path: Path):
    content = pa.table(
        {
            "objectid": [1], "filterid": [1], "objra": [1.0], "objdec": [2.0], "label": ["EA"],
            "hmjd": [[1.0]], "mag": [[15.0]], "magerr": [[0.1]], "catflags": [[0]],
        }
    )  # fmt: skip
    assert read_labelled(write(tmp_path, content), LAYOUTS).label.tolist() == ["EA"]


def test_what_is_missing_is_named(tmp_path: Path):
    with pytest.raises(LayoutError, match="no column 'magerr'"):
        read_labelled(write(tmp_path, table(magerr=None)), LAYOUTS)
    with pytest.raises(LayoutError, match="no column 'label'"):
        read_labelled(write(tmp_path, table(label=None)), LAYOUTS)
    with pytest.raises(LabelledError, match="no such file"):
        read_labelled(tmp_path / "none.parquet", LAYOUTS)
    with pytest.raises(LabelledError, match="the table has no rows"):
        read_labelled(write(tmp_path, table().slice(0, 0)), LAYOUTS)
    (tmp_path / "text.parquet").write_text("no")
    with pytest.raises(LabelledError, match="not a Parquet file"):
        read_labelled(tmp_path / "text.parquet", LAYOUTS)


def test_labels_are_renamed_once():
    assert rename(np.array(["A", "B", "C"]), {"A": "B", "B": "C"}).tolist() == ["B", "C", "C"]
