"""`catalogs/formats.py`: every format read back by another program, with units and descriptions where it has room."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.io.votable import parse, validate
from astropy.table import Table

from lightmill.catalogs.formats import BINARY, FORMATS, encode, plain
from lightmill.catalogs.rows import row_schema, rows_table

SCHEMA = row_schema(("EW", "RRab"))


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    """Four rows, one with a period; an identifier beyond 2⁵³, where a double has no odd numbers."""
    return rows_table(
        {
            "_healpix_29": [1, 2, 3, 4],
            "objectid": [2**53 + 1, 2, 3, 2**63 - 1],
            "ra": [0.1, 359.999999999, 10, 20],
            "dec": [-90, 90, 0, 1 / 3],
            "filterid": [1, 2, 3, 1],
            "best_class": ["EW", "RRab", "EW", None],
            "p_EW": [0.9, 0.25, 1, 0.1],
            "p_RRab": [0.1, 0.75, 0, 0.9],
            "period": pa.array([None, 0.5612345678901, None, None], pa.float64()),
            "period_score": pa.array([None, 12.5, None, None], pa.float32()),
            "flags": [1, 0, 2, 3],
        },
        SCHEMA,
    )


def same(found: dict[str, list], rows: pa.Table) -> None:
    expected = plain(rows).to_pydict()
    assert found.keys() == expected.keys()
    for name in (
        "objectid",
        "ra",
        "dec",
        "filterid",
        "period",
        "period_score",
        "flags",
        "p_EW",
        "_healpix_29",
    ):
        assert found[name] == expected[name], name


def by_astropy(table: Table) -> dict[str, list]:
    return {
        name: [None if value is np.ma.masked or value != value else value for value in table[name].tolist()]
        for name in table.colnames
    }


def test_the_formats_that_the_command_line_offers():
    assert FORMATS == ("table", "json", "csv", "parquet", "votable", "fits")
    assert set(BINARY) < set(FORMATS)


def test_json(rows):
    found = json.loads(encode(rows, "json"))
    same({name: [row[name] for row in found] for name in SCHEMA.names}, rows)
    assert [row["best_class"] for row in found] == ["EW", "RRab", "EW", None]


def test_csv(rows):
    types = {"objectid": pa.int64(), "period": pa.float64(), "period_score": pa.float64()}
    options = pa.csv.ConvertOptions(column_types=types)
    found = pa.csv.read_csv(io.BytesIO(encode(rows, "csv")), convert_options=options).to_pydict()
    same(found | {"p_EW": np.float32(found["p_EW"]).tolist()}, rows)


def test_parquet(rows):
    found = pq.read_table(io.BytesIO(encode(rows, "parquet")))
    assert found.equals(rows)
    assert found.schema.equals(SCHEMA, check_metadata=True)


def test_votable(rows):
    data = encode(rows, "votable")
    found = Table.read(io.BytesIO(data), format="votable")
    same(by_astropy(found), rows)
    assert found["ra"].unit == u.deg
    assert found["mag_mean"].unit == u.mag
    assert found["baseline"].unit == u.day
    assert found["period"].description == SCHEMA.field("period").metadata[b"description"].decode()
    assert found["best_class"].tolist()[:3] == ["EW", "RRab", "EW"]
    fields = parse(io.BytesIO(data)).get_first_table().fields
    ucds = {field.name: field.ucd for field in fields}
    for field in SCHEMA:
        assert ucds[field.name] == field.metadata[b"ucd"].decode(), field.name


def test_the_votable_is_valid(rows, tmp_path):
    path = tmp_path / "rows.xml"
    path.write_bytes(encode(rows, "votable"))
    report = io.StringIO()
    assert validate(path, output=report), report.getvalue()


def test_fits(rows):
    data = encode(rows, "fits")
    found = Table.read(io.BytesIO(data), format="fits")
    same(by_astropy(found), rows)
    assert found["dec"].unit == u.deg
    assert [str(name).strip() for name in found["best_class"].tolist()[:3]] == ["EW", "RRab", "EW"]
    with fits.open(io.BytesIO(data)) as file:
        file.verify("exception")
        assert file[1].columns["objectid"].format == "K"


@pytest.mark.parametrize("form", ["json", "csv", "parquet", "votable", "fits"])
def test_no_rows(form):
    data = encode(SCHEMA.empty_table(), form)
    if form == "json":
        assert json.loads(data) == []
    elif form in ("votable", "fits"):
        table = Table.read(io.BytesIO(data), format=form)
        assert (len(table), table.colnames) == (0, SCHEMA.names)
    elif form == "csv":
        assert data.decode().count("\n") == 1
    else:
        assert pq.read_table(io.BytesIO(data)).num_rows == 0


@pytest.mark.parametrize("form", ["json", "csv", "parquet", "votable", "fits"])
def test_what_sql_makes(form):
    """Columns that the catalogue does not have: counts, truths, decimals, times, all null, of text."""
    table = pa.table(
        {
            "n": pa.array([3, None], pa.int64()),
            "name": pa.array(["a", None]),
            "share": pa.array([0.5, None], pa.float64()),
            "yes": pa.array([True, False]),
            "maybe": pa.array([True, None]),
            "tiny": pa.array([1, -2], pa.int8()),
            "unsigned": pa.array([1, 2], pa.uint32()),
            "huge": pa.array([1, 2**100], pa.decimal128(38, 0)),
            "nothing": pa.nulls(2, pa.int32()),
            "when": pa.array([0, 1], pa.date32()),
        }
    )
    assert encode(table, form)
    if form in ("votable", "fits"):
        found = by_astropy(Table.read(io.BytesIO(encode(table, form)), format=form))
        assert found["n"] == [3, None]
        assert [bool(x) for x in found["yes"]] == [True, False]
        assert found["tiny"] == [1, -2]


def test_an_unknown_format():
    with pytest.raises(ValueError, match="unknown format 'excel'; known are table, json"):
        encode(SCHEMA.empty_table(), "excel")


def test_plain_keeps_the_metadata(rows):
    found = plain(rows)
    assert found.schema.field("best_class").type == pa.string()
    assert found.schema.field("best_class").metadata == SCHEMA.field("best_class").metadata
