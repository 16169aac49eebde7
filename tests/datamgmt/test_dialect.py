"""CSV files are cut where their writer cut them, or are said to be unclear."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mao_datamgmt.records import Format, NotRecords, load
from mao_datamgmt.records.csv_text import without_blank_lines
from mao_datamgmt.records.dialect import SEPARATORS, UnclearDialect, separator_of

DECIMAL_COMMAS = "time;temp\n2026-01-01;2,50\n2026-01-02;2,51\n"


@pytest.mark.parametrize(
    ("text", "how", "names"),
    [
        (DECIMAL_COMMAS, Format.CSV, ["time", "temp"]),
        ('"lake, depth (m)";level\n"Como, 410";1\n', Format.CSV, ["lake, depth (m)", "level"]),
        ('id,"a;b;c;d"\n1,x\n', Format.CSV, ["id", "a;b;c;d"]),
        ("a, b, c, d\te\n1\t2\n", Format.TSV, ["a, b, c, d", "e"]),
        ('"a|b"|c\n1|2\n', Format.CSV, ["a|b", "c"]),
        ("value\n1\n2\n", Format.CSV, ["value"]),
        ("a,b,c\n1,2\n1,2,3\n", Format.CSV, ["a", "b", "c"]),
        ("tags,n\na;b,1\nc,2\n", Format.CSV, ["tags", "n"]),
    ],
)
def test_load_finds_the_columns(text: str, how: Format, names: list[str]) -> None:
    assert load(text.encode(), how).columns == names


@pytest.mark.parametrize("text", ["a;b,c\n1;2,3\n", "x,y;z\nRome, IT;1\n", "a,b\n1,2\n3,4,5\n"])
def test_load_refuses_an_unclear_separator(text: str) -> None:
    with pytest.raises(NotRecords):
        load(text.encode(), Format.CSV)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("a,b\n\n1,2\n\n", [("1", "2")]),
        ("\r\n\r\na,b\r\n1,2\r\n   \r\n3,4\r\n", [("1", "2"), ("3", "4")]),
        ('a,b\n1,"x\n\ny"\n\n3,""\n', [("1", "x\n\ny"), ("3", "")]),
        ("a,b\n,\n\n1,2\n", [("", ""), ("1", "2")]),
    ],
)
def test_load_takes_blank_lines_for_no_records(text: str, rows: list[tuple[str, str]]) -> None:
    assert load(text.encode(), Format.CSV).rows() == rows


@given(
    rows=st.lists(
        st.lists(st.text(st.sampled_from('ab1,;|\t"\n .'), max_size=6), min_size=3, max_size=3),
        min_size=2,
        max_size=12,
    ),
    separator=st.sampled_from(SEPARATORS),
)
def test_separator_of_is_the_writers_or_unclear(rows: list[list[str]], separator: str) -> None:
    written = io.StringIO()
    csv.writer(written, delimiter=separator, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(rows)
    try:
        found = separator_of(io.StringIO(written.getvalue(), newline=""))
    except UnclearDialect:
        return
    assert found == separator


@given(st.text(st.sampled_from('a,"\n\r '), max_size=30))
def test_without_blank_lines_keeps_every_record(text: str) -> None:
    def records(source: str) -> list[list[str]]:
        return [
            row for row in csv.reader(io.StringIO(source, newline="")) if row and row != [" " * len(row[0])]
        ]

    if text.count('"') % 2 == 0 and not any(f'{letter}"' in text for letter in "a "):
        assert records(without_blank_lines(text)) == records(text)
