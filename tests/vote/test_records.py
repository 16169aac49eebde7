"""Record files: loaded as text, matched by key, compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from mao_vote.records import (
    NotRecords,
    RecordFormat,
    TableDiff,
    choose_key,
    compare,
    load,
    load_json_document,
    record_format,
)


def compared(before: str, after: str, how: RecordFormat, *key: str, limit: int = 100) -> TableDiff:
    tables = [load(text.encode(), how) for text in (before, after)]
    return compare(tables[0], tables[1], choose_key(tables, key), limit)


def counts(found: TableDiff) -> tuple[int, int, int, int]:
    return found.added, found.removed, found.changed, found.same


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a.csv", "csv"),
        ("d/A.TSV", "tsv"),
        ("x.json", "json"),
        ("x.ndjson", "jsonl"),
        ("x", None),
        ("csv/x", None),
    ],
)
def test_records_format_by_name(path: str, expected: str | None) -> None:
    assert record_format(path) == expected


def test_records_csv_rows_by_an_inferred_key_whatever_their_order() -> None:
    found = compared("value,id\n1.0,a\n2,b\n3,c\n", "id,value,new\nd,9,\nb,2,\na,1.00,x\n", RecordFormat.CSV)
    assert (found.key.columns, found.key.source) == (("id",), "inferred")
    assert (found.columns_added, found.columns_removed) == (["new"], [])
    assert counts(found) == (1, 1, 2, 0)
    by_key = {row.key["id"]: row for row in found.rows}
    assert by_key["a"].fields == {"value": ("1.0", "1.00"), "new": (None, "x")}
    assert by_key["c"].change == "removed"
    assert by_key["d"].fields["value"] == (None, "9")


def test_records_pairs_of_columns_and_positions_as_keys() -> None:
    pair = compared("d,h,v\n1,1,x\n1,2,x\n2,1,x\n", "d,h,v\n1,1,x\n1,2,y\n2,1,x\n", RecordFormat.CSV)
    assert pair.key.columns == ("d", "h")
    assert counts(pair) == (0, 0, 1, 2)
    place = compared("v\nx\nx\n", "v\nx\ny\nz\n", RecordFormat.CSV)
    assert place.key.source == "position"
    assert [(row.change, row.key) for row in place.rows] == [("changed", {"#": "2"}), ("added", {"#": "3"})]


def test_records_json_documents_by_pointer_and_lists_by_record() -> None:
    document = compared('{"a": {"b/c": 1, "d": [1, 2]}}', '{"a": {"b/c": 1.5, "d": [1]}}', RecordFormat.JSON)
    assert [(row.key["path"], row.change) for row in document.rows] == [
        ("/a/b~1c", "changed"),
        ("/a/d/1", "removed"),
    ]
    records = compared(
        '[{"id": 1, "t": {"x": 1, "y": 2}}]', '[{"t": {"y": 2, "x": 1}, "id": 1}]', RecordFormat.JSON
    )
    assert counts(records) == (0, 0, 0, 1)


def test_records_json_lines_tell_null_from_absent() -> None:
    found = compared('{"id":1,"v":null}\n', '{"id":1}\n', RecordFormat.JSON_LINES)
    assert found.rows[0].fields == {"v": ("null", None)}


def test_records_declared_key_must_hold() -> None:
    with pytest.raises(NotRecords, match="no column 'x'"):
        compared("a\n1\n", "a\n1\n", RecordFormat.CSV, "x")
    with pytest.raises(NotRecords, match="not unique"):
        compared("a\n1\n1\n", "a\n1\n", RecordFormat.CSV, "a")


def test_records_empty_files_and_limits() -> None:
    found = compared("", "id,v\n1,2\n3,4\n", RecordFormat.CSV, limit=1)
    assert counts(found) == (2, 0, 0, 0)
    assert len(found.rows) == 1
    assert counts(compared("", "", RecordFormat.CSV)) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("content", "how", "why"),
    [
        (b"a,b\n1,2,3\n\xff", RecordFormat.CSV, "UTF-8"),
        (b"a,b\n1,2,3\n", RecordFormat.CSV, "more fields"),
        (b"[" * 100_000, RecordFormat.JSON, "nested"),
        (b'{"a":', RecordFormat.JSON, "not JSON"),
        (b"[1]\n", RecordFormat.JSON_LINES, "line 1"),
        (b",".join([b"c"] * 3000), RecordFormat.CSV, "columns"),
        (
            b",".join(b"c%d" % n for n in range(1500)) + b"\n" + b"," * 1499 + b"\n0" * 1_000_000,
            RecordFormat.CSV,
            "cells",
        ),
        (b"[" + b"1," * 600_000 + b"1]", RecordFormat.JSON, "values"),
        (b"\0before,b\n1,2\n", RecordFormat.CSV, "NUL"),
        (b'[{"\\u0000after": 1}]', RecordFormat.JSON, "NUL"),
    ],
)
def test_records_what_is_no_record_file(content: bytes, how: RecordFormat, why: str) -> None:
    with pytest.raises(NotRecords, match=why):
        load(content, how)


@pytest.mark.parametrize(
    ("content", "how", "why"),
    [
        (b'[{"a": 1},]', RecordFormat.JSON, "it is not JSON"),  # other words in Python 3.13
        (b'{"a": 1,}', RecordFormat.JSON, "it is not JSON"),
        (b'{"a" 1}', RecordFormat.JSON, "it is not JSON"),
        (b'{"a": "\n"}', RecordFormat.JSON, "it is not JSON"),
        (b'{"a": 1}\n{"a": 1,}\n', RecordFormat.JSON_LINES, "line 2 is not JSON"),
        (b'[{"\\ud800": 1}]', RecordFormat.JSON, "it is not JSON"),
        (b'[{"a": 1, "a": 2}]', RecordFormat.JSON, "it is not JSON: the name 'a' occurs twice in one object"),
        (b"a,b\n1,2\n" + b'"x"y,1\n', RecordFormat.CSV, "its quotes do not fit together"),
    ],
)
def test_records_reason_has_no_words_of_a_parser(content: bytes, how: RecordFormat, why: str) -> None:
    """It becomes evidence, and evidence is the same with any version of Python and polars."""
    with pytest.raises(NotRecords) as caught:
        load(content, how)
    assert str(caught.value) == why


@pytest.mark.parametrize("content", [b"[1,]", b'{"a": 1,}', b'{"a"'])
def test_records_reason_of_a_document_has_no_words_of_a_parser(content: bytes) -> None:
    with pytest.raises(NotRecords, match=r"^it is not JSON$"):
        load_json_document(content)


def test_records_half_a_letter_in_json() -> None:
    assert load(b'[{"a": "\\ud800"}]', RecordFormat.JSON).row(0) == ('"\\ud800"',)


def test_records_column_may_be_called_like_the_position() -> None:
    found = compared("#,v\nx,1\nx,1\n", "#,v\ny,1\nx,1\n", RecordFormat.CSV)
    assert [(row.key, row.fields) for row in found.rows] == [({"#": "1"}, {"#": ("x", "y")})]


def test_records_real_series_with_one_wrong_value(shared_series: str) -> None:
    wrong = shared_series.splitlines()
    cells = wrong[100].split(",")
    cells[-1] = "1"
    wrong[100] = ",".join(cells)
    found = compared(
        shared_series, "\n".join(reversed(wrong[1:])).join([wrong[0] + "\n", "\n"]), RecordFormat.CSV
    )
    assert (found.key.source, counts(found)) == ("inferred", (0, 0, 1, len(wrong) - 2))


@pytest.fixture
def shared_series() -> str:
    above = list(Path(__file__).resolve().parents)[3:5]  # of a worktree one folder further
    places = (parent / "shared/data/dockerhub-series/dockerhub_merged.csv" for parent in above)
    path = next((place for place in places if place.exists()), None)
    if path is None:
        pytest.skip("the Docker Hub series is not beside this checkout (../shared/data)")
    return path.read_text()
