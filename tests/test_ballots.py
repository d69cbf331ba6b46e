"""Tables of votes: what is read, in which form, and what is refused."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightmill.pipeline.ballots import Ballot, Columns, VotesError, read_ids, read_votes


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def said(ballot: Ballot) -> list[tuple[str, str, str | None]]:
    """Votes as (object, annotator, class)."""
    return [
        (
            ballot.objects[int(o)].as_py(),
            ballot.annotators[b],
            ballot.classes[c] if c >= 0 else None,
        )
        for o, b, c in zip(ballot.obj, ballot.by, ballot.cls, strict=True)
    ]


LONG = "id,annotator,label\n007,ann,EW\n007,bob,EA\n8,ann, RRab \n"
VOTES = [("007", "ann", "EW"), ("007", "bob", "EA"), ("8", "ann", "RRab")]


def test_long_csv_keeps_identifiers_as_written(tmp_path: Path):
    ballot = read_votes([write(tmp_path / "v.csv", LONG)])
    assert said(ballot) == VOTES
    assert ballot.classes == ("EW", "EA", "RRab")  # in the taxonomy's order
    assert ballot.time is None


@pytest.mark.parametrize("number", [pa.int64(), pa.uint32()])
def test_long_parquet_with_integers(tmp_path: Path, number: pa.DataType):
    table = pa.table(
        {
            "subject_id": pa.array([7, 7, 8], number),
            "user_name": pa.array(["ann", "bob", "ann"]).dictionary_encode(),
            "CLASS": ["EW", "EA", "RRab"],
        }
    )
    pq.write_table(table, tmp_path / "v.parquet")
    assert said(read_votes([tmp_path / "v.parquet"])) == [(o.lstrip("0"), b, c) for o, b, c in VOTES]


def test_other_names_of_columns_quotes_and_a_byte_order_mark(tmp_path: Path):
    text = '﻿"star, name";who;"a ""quoted"" one"\n'.replace(";", ",")
    path = write(tmp_path / "v.csv", text + '"a\nb",x,EW\n')
    columns = Columns("star, name", "who", 'a "quoted" one')
    assert said(read_votes([path], columns)) == [("a\nb", "x", "EW")]


def test_several_files_are_one_ballot(tmp_path: Path):
    a = write(tmp_path / "a.csv", LONG)
    b = write(tmp_path / "b.csv", "label,id,user\nEA,8,bob\n")
    assert said(read_votes([a, b])) == [*VOTES, ("8", "bob", "EA")]


def test_labels_are_renamed_once_and_abstentions_are_no_class(tmp_path: Path):
    path = write(tmp_path / "v.csv", "id,annotator,label\n1,a,EA\n1,b,EW\n1,c,unsure\n1,d,\n")
    ballot = read_votes([path], aliases={"EA": "EW", "EW": "RRab"}, abstain=["unsure"])
    assert [cls for _, _, cls in said(ballot)] == ["EW", "RRab", None, None]


TIMES = [
    ["2026-01-02T03:04:05Z", "2026-01-02T03:04:06Z", "2025-12-31T23:00:00Z"],
    ["2026-01-02 03:04:05 UTC", "2026-01-02 03:04:06 UTC", "2025-12-31 23:00:00 UTC"],  # Zooniverse
    ["2026-01-02T03:04:05+02:00", "2026-01-02T01:04:06Z", "2025-12-31"],
    ["60000.5", "60001", "59999"],
]


@pytest.mark.parametrize("times", TIMES)
def test_times_are_ordered_as_they_passed(tmp_path: Path, times: list[str]):
    rows = "".join(f"1,u{i},EW,{time}\n" for i, time in enumerate(times))
    ballot = read_votes([write(tmp_path / "v.csv", "id,user,label,created_at\n" + rows)])
    assert ballot.time is not None
    assert np.argsort(ballot.time).tolist() == [2, 0, 1]


def test_times_of_parquet(tmp_path: Path):
    when = [datetime.datetime(2026, 1, day, tzinfo=datetime.UTC) for day in (3, 1, 2)]
    pq.write_table(
        pa.table({"id": ["1"] * 3, "user": list("abc"), "label": ["EW"] * 3, "date": when}), tmp_path / "v.pq"
    )
    ballot = read_votes([tmp_path / "v.pq"])
    assert ballot.time is not None
    assert np.argsort(ballot.time).tolist() == [1, 2, 0]


WIDE = "subject_id,workflow_id,data.EW,data.EA,data.unsure,reducer_key\n1,77,3,,1,q\n2,77,1,4.0,,q\n"


def test_wide_counts(tmp_path: Path):
    ballot = read_votes([write(tmp_path / "w.csv", WIDE)], abstain=["unsure"])
    assert ballot.objects.to_pylist() == ["1", "2"]
    assert ballot.classes == ("EW", "EA")
    assert ballot.counts is not None
    assert ballot.counts.tolist() == [[3, 0], [1, 4]]
    assert ballot.annotators == ()


def test_wide_tables_with_other_columns_add_up(tmp_path: Path):
    a = write(tmp_path / "a.csv", "id,EW,beta_lyrae\n1,3,2\n")
    b = write(tmp_path / "b.csv", "id,n_RRab\n2,5\n")
    ballot = read_votes([a, b], aliases={"beta_lyrae": "EW"})
    assert ballot.classes == ("EW", "RRab")
    assert ballot.counts is not None
    assert ballot.counts.tolist() == [[5, 0], [0, 5]]


REFUSED = [
    ("id,annotator,label\n1,a,RRb\n1,b,RRb\n", r"unknown class names 'RRb' \(2 votes\) Did you mean 'RRab'\?"),
    ("id,annotator,label\n1,a,EW\n1,,EW\n", "1 votes say no annotator"),
    ("id,annotator,label\n1,a,EW\n ,b,EW\n", "1 votes say no object"),
    ("id,annotator,label\n1,a,\n", "not one vote names a class"),
    ("name,annotator,label\n1,a,EW\n", "which column names the object.*--id COLUMN"),
    ("id,annotator\n1,a\n", "which column names the label"),
    ("id,label\n1,EW\n", "which column names the annotator"),
    ("id,annotator,label,time\n1,a,EW,soon\n", "neither a number nor a time"),
    ("id,annotator,label,time\n1,a,EW,\n", "1 votes have no 'time'"),
    ("id,annotator,label\n1,a\n", "cannot be read"),
    ("id,id,label\n1,1,EW\n", r"columns \['id'\] are there twice"),
    ("", "the file is empty"),
    ("id,EW,RRb\n1,3,2\n", "unknown class names 'RRb' Did you mean 'RRab'.*--ignore COLUMN"),
    ("id,EW\n1,2.5\n", "'EW' holds 2.5, which is no count"),
    ("id,EW\n1,-2\n", "'EW' holds -2.0, which is no count"),
    ("id,EW\n1,2\n1,3\n", "object 1 has several rows"),
    ("id,remark\n1,nice\n", "neither columns of an annotator and a label, nor a column of counts"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_what_is_refused(tmp_path: Path, text: str, message: str):
    with pytest.raises(VotesError, match=message):
        read_votes([write(tmp_path / "v.csv", text)])


def test_a_column_can_be_ignored_and_must_be_there(tmp_path: Path):
    path = write(tmp_path / "w.csv", "id,EW,RRb\n1,3,2\n")
    ballot = read_votes([path], Columns(ignore=("RRb",)))
    assert ballot.classes == ("EW",)
    with pytest.raises(VotesError, match="no column 'RRa' to ignore"):
        read_votes([path], Columns(ignore=("RRa",)))


def test_files_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(VotesError, match="no such file"):
        read_votes([tmp_path / "nothing.csv"])
    with pytest.raises(VotesError, match="not a Parquet file"):
        read_votes([write(tmp_path / "v.parquet", "id,annotator,label\n")])
    with pytest.raises(VotesError, match="no table of votes"):
        read_votes([])
    with pytest.raises(VotesError, match=r"b.csv has a row an object, .*a.csv a row a vote"):
        read_votes([write(tmp_path / "a.csv", LONG), write(tmp_path / "b.csv", WIDE)])
    with pytest.raises(VotesError, match=r"'idd'\. Did you mean 'id'"):
        read_votes([write(tmp_path / "a.csv", LONG)], Columns("idd"))
    pq.write_table(pa.table({"id": [1e18], "user": ["a"], "label": ["EW"]}), tmp_path / "f.parquet")
    with pytest.raises(VotesError, match="loses digits"):
        read_votes([tmp_path / "f.parquet"])


def test_identifiers_alone(tmp_path: Path):
    assert read_ids(write(tmp_path / "v.csv", LONG)).to_pylist() == ["007", "8"]
    pq.write_table(pa.table({"objectid": [5, None, 5, 6]}), tmp_path / "v.parquet")
    assert read_ids(tmp_path / "v.parquet").to_pylist() == ["5", "6"]
