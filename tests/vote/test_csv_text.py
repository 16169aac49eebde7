"""CSV files are split like by their writer, or reported as ambiguous."""

from __future__ import annotations

import csv
import io
from itertools import cycle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mao_datamgmt.monitoring.extract import UnreadableMetric, iter_lines
from mao_shared.models.round import VoteDefinition
from mao_vote import decide_file
from mao_vote.records import NotRecords, RecordFormat, load
from mao_vote.records.reading.csv_text import (
    SEPARATORS,
    UnclearDialect,
    find_separator,
    read_rows,
    split_pieces,
    uses_quotes,
    without_blank_lines,
)
from mao_vote.records.reading.load import separator_in
from tests.datamgmt.test_series import opened

DECIMAL_COMMAS = "time;temp\n2026-01-01;2,50\n2026-01-02;2,51\n"


@pytest.mark.parametrize(
    ("text", "how", "names"),
    [
        (DECIMAL_COMMAS, RecordFormat.CSV, ["time", "temp"]),
        ('"lake, depth (m)";level\n"Como, 410";1\n', RecordFormat.CSV, ["lake, depth (m)", "level"]),
        ('id,"a;b;c;d"\n1,x\n', RecordFormat.CSV, ["id", "a;b;c;d"]),
        ("a, b, c, d\te\n1\t2\n", RecordFormat.TSV, ["a, b, c, d", "e"]),
        ('"a|b"|c\n1|2\n', RecordFormat.CSV, ["a|b", "c"]),
        ("value\n1\n2\n", RecordFormat.CSV, ["value"]),
        ("a,b,c\n1,2\n1,2,3\n", RecordFormat.CSV, ["a", "b", "c"]),
        ("tags,n\na;b,1\nc,2\n", RecordFormat.CSV, ["tags", "n"]),
        ("v\n2,50\n2,51\n", RecordFormat.CSV, ["v"]),
        ("#chrom\tstart\nx\t1\n", RecordFormat.TSV, ["#chrom", "start"]),
        (",a\n0,1\n", RecordFormat.CSV, ["", "a"]),
        ("\ufeffa|b\r\n1|2", RecordFormat.CSV, ["a", "b"]),
        ('size,n\n5" disk,1\n3.5" disk,2\n', RecordFormat.CSV, ["size", "n"]),
        ('"q""n",b\r\n1,2\r\n', RecordFormat.CSV, ['q"n', "b"]),
        ('a;"""all""";"x; 5"""\n1;2;3\n', RecordFormat.CSV, ["a", '"all"', 'x; 5"']),
        ("country,2019,2020\nCH,1,2\n", RecordFormat.CSV, ["country", "2019", "2020"]),
        ("time\n2026-01-01 12:00:00\n", RecordFormat.CSV, ["time"]),
    ],
)
def test_csv_text_load_finds_the_columns(text: str, how: RecordFormat, names: list[str]) -> None:
    assert load(text.encode(), how).columns == names


UNCLEAR = {
    "two separators": "a;b,c\n1;2,3\n",
    "a place with a comma": "x,y;z\nRome, IT;1\n",
    "too many fields": "a,b\n1,2\n3,4,5\n",
    "title": "Report of 2026\na,b\n1,2\n3,4\n",
    "title with commas": "Report, 2026, A\na,b\n1,2\n3,4\n",
    "comment before": "# made by x\na,b\n1,2\n",
    "comment between": "a,b\n1,2\n# pause\n3,4\n",
    "comment far below": "a,b\n" + "1,2\n" * 5000 + "  # end\n",
    "another byte order mark": "\ufeff\ufeffa,b\n1,2\n",
    "a byte order mark below blank lines": "\n\ufeffa,b\n1,2\n",
    "hint for Excel": "sep=;\na;b\n1;2\n",
    "no heading": "1,2.50\n3,4\n",
    "no heading, with times": "2026-01-01T00:00:00Z,2.5\n2026-01-02T00:00:00Z,2.6\n",
    "one number": "5\n",
    "backslashes": 'a,b\n"x\\"y",2\n',
    "an escaped separator": "a,b,c\nx\\,y,2\n5,z\n",
    "an escaped separator beside quotes": 'a,b,c\n"x",y\\,2\n5,"z",2\n',
    "an escaped separator far below": "a,b,c\n" + "5,2,1\n" * 5000 + "x\\,2\n",
    "a short comma and a longer semicolon": "name;value, in m\na;2,5\nb;2;3\nc;5\n",
    "a tab in the heading and a longer comma": "id,c\td,x\na,2,5\t1\nb,2,5,3\n",
    "a quote that is not closed": 'a,b\n"x,2\ny,3\n',
    "quotes of both kinds": 'a,b\n"x, y",2\n5" disk,3\n',
    "blanks before quotes": 'a, b\n1, "x, y"\n',
    "single quotes": "'a,b','c'\n'1,2','3'\n",
    "carriage returns": "a,b\r1,2\r3,4\r",
    "a carriage return": "a,b\r\n1,2\r3,4\r\n",
    "colons": "a:b\n1:2\n",
    "blanks": "a b\n1 2\n",
    "NUL": "a\0,b\n1,2\n",
}


@pytest.mark.parametrize("what", UNCLEAR)
def test_csv_text_nobody_reads_a_file_of_unclear_dialect(what: str) -> None:
    content = UNCLEAR[what].encode()
    with pytest.raises(NotRecords) as raised:
        load(content, RecordFormat.CSV)
    assert str(raised.value)
    with pytest.raises(UnclearDialect):
        list(read_rows(iter_lines(opened(content))))
    vote = decide_file(
        "a.csv",
        {
            f"n{n}": content.replace(b"2", digit).replace(b"5", digit)
            for n, digit in enumerate((b"2", b"7", b"8"))
        },
        incumbent=content,
        definition=VoteDefinition(),
        weights={},
    )
    assert vote.kind == "opaque"
    assert "decided as a whole" in vote.warnings[0]


@pytest.mark.parametrize("text", ['a,b\n"C:\\data\\",1\n', 'a,b\n"x\\,y",1\n', "a;b\nC:\\data,1;2\n"])
def test_csv_text_backslashes_that_escape_no_separator_are_letters(text: str) -> None:
    assert load(text.encode(), RecordFormat.CSV).shape == (1, 2)


@pytest.mark.parametrize("text", ["a,b\n1,2\n3,4\n", "x;y;z\n1;2;3\n", "a|b\n"])
def test_csv_text_tsv_file_without_tabs_is_unclear(text: str) -> None:
    with pytest.raises(NotRecords, match="no tabs"):
        load(text.encode(), RecordFormat.TSV)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "latin-1"])
def test_csv_text_nobody_reads_other_text_than_utf_8(encoding: str) -> None:
    content = "näme,b\n1,2\n".encode(encoding)
    with pytest.raises(NotRecords):
        load(content, RecordFormat.CSV)
    with pytest.raises((UnclearDialect, UnreadableMetric)):
        list(read_rows(iter_lines(opened(content))))


cells = st.text(st.sampled_from('ab1,;|\t"\n\r .#'), max_size=5)


@given(
    rows=st.lists(st.lists(cells, min_size=1, max_size=3), max_size=6),
    quoted=st.lists(st.booleans(), min_size=1, max_size=5),
    separator=st.sampled_from(SEPARATORS),
    ends=st.lists(
        st.sampled_from(["\n", "\n", "\r\n", "\n\n", "\n \n", "\n\t\r\n", "\r"]), min_size=1, max_size=3
    ),
    how=st.sampled_from([RecordFormat.CSV, RecordFormat.TSV]),
)
def test_csv_text_votes_and_metrics_read_the_same_records(
    rows: list[list[str]], quoted: list[bool], separator: str, ends: list[str], how: RecordFormat
) -> None:
    marks, line_ends = cycle(quoted), cycle(ends)

    def written(cell: str) -> str:
        return '"' + cell.replace('"', '""') + '"' if next(marks) else cell.replace(separator, "")

    lines = [separator.join(["id", "x y", "z"]), *(separator.join(map(written, row)) for row in rows)]
    content = "".join(line + next(line_ends) for line in lines).encode()
    only = "\t" if how is RecordFormat.TSV else None
    try:
        heading, *others = read_rows(iter_lines(opened(content)), only)
    except UnclearDialect:
        with pytest.raises(NotRecords):
            load(content, how)
        return
    table = load(content, how)
    assert table.columns == heading
    assert [list(row) for row in table.rows()] == [row + [""] * (len(heading) - len(row)) for row in others]
    text = content.decode()
    cut = separator_in(content, how)
    pieces = split_pieces(text, cut, quoted=uses_quotes(text, cut))
    assert pieces.heading + "".join(pieces.records) + pieces.tail == text
    assert len(pieces.records) == len(others)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("a,b\n\n1,2\n\n", [("1", "2")]),
        ("\r\n\r\na,b\r\n1,2\r\n   \r\n3,4\r\n", [("1", "2"), ("3", "4")]),
        ('a,b\n1,"x\n\ny"\n\n3,""\n', [("1", "x\n\ny"), ("3", "")]),
        ("a,b\n,\n\n1,2\n", [("", ""), ("1", "2")]),
    ],
)
def test_csv_text_load_takes_blank_lines_for_no_records(text: str, rows: list[tuple[str, str]]) -> None:
    assert load(text.encode(), RecordFormat.CSV).rows() == rows


@given(
    rows=st.lists(
        st.lists(st.text(st.sampled_from('ab1,;|\t"\n .'), max_size=6), min_size=3, max_size=3),
        min_size=2,
        max_size=12,
    ),
    separator=st.sampled_from(SEPARATORS),
)
def test_csv_text_separator_of_is_the_writers_or_unclear(rows: list[list[str]], separator: str) -> None:
    written = io.StringIO()
    csv.writer(written, delimiter=separator, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(rows)
    try:
        found = find_separator(io.StringIO(written.getvalue(), newline=""))
    except UnclearDialect:
        return
    assert found == separator


@given(st.text(st.sampled_from('a,"\n\r '), max_size=30))
def test_csv_text_without_blank_lines_keeps_every_record(text: str) -> None:
    def records(source: str) -> list[list[str]]:
        return [
            row for row in csv.reader(io.StringIO(source, newline="")) if row and row != [" " * len(row[0])]
        ]

    if text.count('"') % 2 == 0 and not any(f'{letter}"' in text for letter in "a "):
        assert records(without_blank_lines(text)) == records(text)
