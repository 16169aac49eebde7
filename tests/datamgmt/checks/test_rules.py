"""Each kind of check on trees in a real clone: what passes, what fails, and what it says."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mao_datamgmt.checks.rules import Output, allowed_change, evaluate, file_pattern
from mao_git import Clone, Content
from mao_shared.models import ControlMetric, Point
from mao_shared.models.check import Check, CheckResult
from mao_shared.models.common import STORED
from tests.datamgmt.world import BEGIN, context_for
from tests.support.git import bare_repository

Checked = Callable[..., CheckResult]
METRIC = ControlMetric(name="total", file="summary.json", pointer="/total", unit="images")
ROWS = (
    "id,size,seen,ok,note\n"
    "1,2.5,2026-01-31,true,a\n"
    "2,1e3,2026-01-31T12:00:00Z,FALSE,\n"
    "-3,,2026-W05-6,true,c\n"
)
LINES = '{"id":1,"size":2.5,"seen":"2026-01-31","ok":true,"note":"a"}\n\n{"id":2,"size":null}\n'


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    context_for(tmp_path)
    with Clone.create(tmp_path / "clone.git", str(bare_repository(tmp_path / "remote.git"))):
        pass
    return Clone.open(tmp_path / "clone.git")


@pytest.fixture
def checked(clone: Clone) -> Checked:
    """Check files against those of the last snapshot."""

    def check(
        fields: dict[str, Any],
        files: dict[str, str],
        before: dict[str, str] | None = None,
        points: Sequence[Point] = (),
    ) -> CheckResult:
        output = Output(
            clone,
            tree_of(clone, files),
            tree_of(clone, before or {}),
            {"total": METRIC},
            {"total": points},
            BEGIN,
        )
        return evaluate(Check(name="one", **fields), output)

    return check


def tree_of(clone: Clone, files: dict[str, str]) -> str:
    return clone.write_tree(
        clone.tree(None), {path: Content.of(text.encode()) for path, text in files.items()}
    )


def points(*values: float) -> list[Point]:
    return [
        Point(run=f"run-{number}", time=BEGIN - timedelta(hours=len(values) - number), value=value)
        for number, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("results.csv", "results.csv", True),
        ("results.csv", "resultsXcsv", False),
        ("*.csv", "results.csv", True),
        ("*.csv", "deep/results.csv", False),
        ("**/*.csv", "results.csv", True),
        ("**/*.csv", "a/b/results.csv", True),
        ("a/**", "a/b/c", True),
        ("a/**", "b/a/c", False),
        ("day-?.csv", "day-1.csv", True),
        ("day-?.csv", "day-.csv", False),
        ("day-?.csv", "day-/.csv", False),
        ("[x].csv", "[x].csv", True),
        ("[x].csv", "x.csv", False),
        ("*", "line\nbreak", True),
    ],
)
def test_file_pattern_matches_within_names_and_across_folders(pattern: str, path: str, matches: bool) -> None:
    assert (file_pattern(pattern).fullmatch(path) is not None) is matches


@pytest.mark.parametrize(
    ("file", "files", "passes"),
    [
        ("a.csv", {"a.csv": "x"}, True),
        ("a.csv", {"b.csv": "x"}, False),
        ("out/*.json", {"out/1.json": "{}", "out/2.json": "{}"}, True),
        ("out/*.json", {"out/deep/1.json": "{}"}, False),
        ("**/*.json", {".mao/rounds/1.json": "{}"}, False),
        ("*.csv", {"*.csv": "its very name"}, True),
    ],
)
def test_present_needs_a_file_of_the_tool(
    checked: Checked, file: str, files: dict[str, str], passes: bool
) -> None:
    result = checked({"file": file}, files)
    assert (result.kind, result.passed) == ("present", passes)
    assert passes or repr(file) in result.detail


COLUMNS = {"id": "integer", "size": "number", "seen": "time", "ok": "boolean", "note": "text"}


@pytest.mark.parametrize(
    ("fields", "files"),
    [
        ({"file": "a.csv"}, {"a.csv": ROWS}),
        ({"file": "a.csv"}, {"a.csv": ROWS.replace(",", ";").replace("2.5", "2,5")}),
        ({"file": "a.tsv"}, {"a.tsv": ROWS.replace(",", "\t")}),
        ({"file": "*.csv"}, {"a.csv": ROWS, "b.csv": ROWS}),
        (
            {"file": "a.jsonl"},
            {"a.jsonl": LINES},
        ),
        (
            {"file": "a.json"},
            {"a.json": '[{"id":1,"size":2,"seen":"2026-01-31","ok":false,"note":""},{"note":"x"}]'},
        ),
        ({"file": "a.csv", "not_empty": ["id", "seen"]}, {"a.csv": ROWS}),
    ],
)
def test_columns_pass(checked: Checked, fields: dict[str, Any], files: dict[str, str]) -> None:
    result = checked({**fields, "columns": COLUMNS}, files)
    assert result.passed, result.detail


@pytest.mark.parametrize(
    ("columns", "file", "text", "why"),
    [
        ({"id": "integer"}, "a.csv", "id,x\n1,a\n2.5,b\n", "line 3: 'id' is '2.5', which is not an integer"),
        ({"id": "number"}, "a.csv", "id,x\nn/a,a\n", "'id' is 'n/a', which is not a number"),
        ({"id": "number"}, "a.csv", "id,x\nnan,a\n", "not a number"),
        ({"id": "boolean"}, "a.csv", "id,x\n1,a\n", "not true or false"),
        ({"id": "time"}, "a.csv", "id,x\n31.1.2026,a\n", "not a date or time"),
        ({"no": "text"}, "a.csv", "id,x\n1,a\n", "no column 'no'; it has 'id', 'x'"),
        ({"x": "text"}, "a.csv", "x,x\n1,a\n", "several column 'x'"),
        ({"id": "text"}, "a.csv", "", "no column 'id'; it has none"),
        ({"id": "text"}, "a.csv", "id;x,y\n1;2,3\n", "cannot be checked"),
        ({"id": "integer"}, "a.jsonl", '{"id":1}\n{"id":"2x"}\n', "line 2: 'id' is '2x'"),
        ({"id": "integer"}, "a.jsonl", '{"id":true}\n', "'id' is true"),
        ({"id": "text"}, "a.jsonl", '{"id":1}\n', "'id' is 1, which is not text"),
        ({"id": "text"}, "a.jsonl", "[1]\n", "is not an object"),
        ({"id": "text"}, "a.jsonl", "{\n", "not valid JSON"),
        ({"id": "text"}, "a.jsonl", "", "no column 'id'"),
        ({"id": "text"}, "a.json", '{"id":1}', "not a list of objects"),
        ({"id": "text"}, "a.txt", "id\n", "is not a table"),
        ({"id": "text"}, "b.csv", "", "no file 'a.csv'"),
    ],
)
def test_columns_fail_and_say_where(
    checked: Checked, columns: dict[str, str], file: str, text: str, why: str
) -> None:
    declared = "a.csv" if file == "b.csv" else file
    result = checked({"file": declared, "columns": columns}, {file: text, "more": "x"})
    assert not result.passed
    assert why in result.detail


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "id,x\n1,a\n ,b\n"),
        ("a.csv", "x,id\na,1\nb\n"),
        ("a.jsonl", '{"id":1}\n{"x":1}\n'),
        ("a.json", '[{"id":""}]'),
    ],
)
def test_columns_not_empty_refuses_empty_and_missing(checked: Checked, name: str, text: str) -> None:
    kind = "integer" if name != "a.json" else "text"
    result = checked({"file": name, "columns": {"id": kind}, "not_empty": ["id"]}, {name: text})
    assert "'id' is empty" in result.detail or "no column 'id'" in result.detail
    assert not result.passed


@pytest.mark.parametrize(
    ("fields", "passes"),
    [
        ({"file": "a.csv", "at_least": 3}, True),
        ({"file": "a.csv", "at_least": 4}, False),
        ({"file": "a.csv", "at_most": 3}, True),
        ({"file": "a.csv", "at_most": 2}, False),
        ({"file": "a.csv", "at_least": 1, "at_most": 5}, True),
        ({"file": "*", "at_least": 1}, False),  # some of the files are no tables
        ({"file": "*.*", "at_least": 5, "at_most": 5}, True),  # all together
        ({"at_least": 5, "at_most": 5}, True),
        ({"file": "none.csv", "at_most": 9}, False),
        ({"file": "a.csv", "at_least": 0}, True),
    ],
)
def test_rows_at_least_and_at_most(checked: Checked, fields: dict[str, Any], passes: bool) -> None:
    files = {"a.csv": ROWS, "b.jsonl": '{"x":1}\n{"x":2}\n', "readme": "x"}
    result = checked(fields, files)
    assert result.passed is passes, result.detail
    assert result.kind == "rows"


def table(rows: int) -> dict[str, str]:
    return {"a.csv": "id,x\n" + "".join(f"{number},y\n" for number in range(rows))}


@pytest.mark.parametrize(
    ("fields", "before", "now", "passes"),
    [
        ({"max_decrease": "10%"}, 100, 90, True),
        ({"max_decrease": "10%"}, 100, 89, False),
        ({"max_decrease": "10%"}, 100, 500, True),
        ({"max_increase": "10%"}, 100, 110, True),
        ({"max_increase": "10%"}, 100, 111, False),
        ({"max_increase": "10%"}, 100, 1, True),
        ({"max_decrease": 5}, 100, 95, True),
        ({"max_decrease": 5}, 100, 94, False),
        ({"max_increase": "5"}, 100, 106, False),
        ({"max_increase": "0.1%"}, 1000, 1001, True),
        ({"max_increase": "0.1%"}, 1000, 1002, False),
        ({"max_increase": "50%", "max_decrease": 0}, 10, 10, True),
        ({"max_increase": "50%", "max_decrease": 0}, 10, 9, False),
        ({"max_increase": "10%"}, 0, 5, True),  # nothing to compare with
    ],
)
@pytest.mark.parametrize("file", [None, "a.csv"])
def test_rows_change_against_the_last_snapshot(
    checked: Checked, file: str | None, fields: dict[str, Any], before: int, now: int, passes: bool
) -> None:
    result = checked(fields | ({"file": file} if file else {}), table(now), table(before))
    assert result.passed is passes, result.detail
    assert result.value == now
    assert passes or f"the {before} of the last snapshot" in result.detail


@pytest.mark.parametrize("before", [{}, {"a.csv": "id;x,y\n1;2,3\n"}, {"other.csv": "x\n1\n"}])
def test_rows_change_passes_without_rows_to_compare_with(checked: Checked, before: dict[str, str]) -> None:
    result = checked({"file": "a.csv", "max_increase": "1%", "max_decrease": "1%"}, table(5), before)
    assert result.passed
    assert "last snapshot" in result.detail


def test_allowed_change_is_exact() -> None:
    assert allowed_change("0.1%", 3000) == 3
    assert allowed_change("33.3%", 10**12) * 1000 == 333 * 10**12
    assert allowed_change("7", 10) == 7


@pytest.mark.parametrize(
    ("value", "known", "passes", "says"),
    [
        (100, [], True, "the first value"),
        (101, [100, 101, 99, 100, 100, 101, 99], True, "total is 101 images, expected 100"),
        (300, [100, 101, 99, 100, 100, 101, 99], False, "total is 300 images, expected 100"),
        (-5, [100, 101, 99, 100, 100, 101, 99], False, "as the last"),
        ('"x"', [], False, "is text, not a number"),
    ],
)
def test_metric_is_inside_its_band(
    checked: Checked, value: object, known: list[float], passes: bool, says: str
) -> None:
    result = checked({"metric": "total"}, {"summary.json": f'{{"total": {value}}}'}, points=points(*known))
    assert result.passed is passes
    assert says in result.detail


def test_metric_that_cannot_be_read_or_is_not_declared_fails(checked: Checked) -> None:
    assert "cannot be read" in checked({"metric": "total"}, {"other": "x"}).detail
    assert not checked({"metric": "absent"}, {"other": "x"}).passed


SCHEMA = {
    "type": "object",
    "required": ["total"],
    "properties": {"total": {"$ref": "#/$defs/count"}, "tags": {"items": {"enum": ["a", None]}}},
    "$defs": {"count": {"type": "integer", "minimum": 1}},
}


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("s.json", '{"total": 3, "tags": ["a", null]}', None),
        ("s.json", '{"total": 0}', "/total: 0 is less than the minimum of 1"),
        ("s.json", "{}", "(top): 'total' is a required property"),
        ("s.json", '{"total": 1, "tags": ["b"]}', "/tags/0"),
        ("s.json", "[1", "cannot be checked"),
        ("s.json", '{"total": NaN}', "NaN is not a number in JSON"),
        ("s.json", "[" * 100_000, "nested too deeply"),
        ("s.jsonl", '{"total": 1}\n\n{"total": 2}\n', None),
        ("s.jsonl", '{"total": 1}\n{"total": "x"}\n', "line 2 /total"),
        ("s.jsonl", '{"total": 1}\nx\n', "line 2: "),
        ("t.json", "{}", "no file"),
    ],
)
def test_schema_of_json_and_json_lines(checked: Checked, name: str, text: str, says: str | None) -> None:
    file = "s.json" if name == "t.json" else name
    result = checked({"file": file, "json_schema": SCHEMA}, {name: text})
    assert result.passed is (says is None), result.detail
    assert (says or "") in result.detail


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "nonsense"}, "the schema is not valid"),
        ({"$ref": "#/$defs/none"}, "'/$defs/none', which is not in it"),
        ({"$ref": "#"}, "nested too deeply"),
        ({"pattern": "("}, "the schema"),
    ],
)
def test_schema_that_is_unusable_fails_and_says_why(
    checked: Checked, schema: dict[str, Any], says: str
) -> None:
    result = checked({"file": "s.json", "json_schema": schema}, {"s.json": '"x"'})
    assert not result.passed
    assert says in result.detail


def test_schema_retrieves_nothing(clone: Clone) -> None:
    stored = {"name": "one", "file": "s.json", "json_schema": {"$ref": "http://127.0.0.1:9/schema.json"}}
    check = Check.model_validate(stored, context=STORED)  # as one that an attacker wrote into the store
    tree = tree_of(clone, {"s.json": "1"})
    result = evaluate(check, Output(clone, tree, tree, {}, {}, BEGIN))
    assert not result.passed
    assert "which is not in it" in result.detail


def test_check_of_a_newer_version_fails(clone: Clone) -> None:
    stored = {"name": "one", "file": "s.json", "signed_by": "ada", "on_failure": "ask"}
    check = Check.model_validate(stored, context=STORED)
    tree = tree_of(clone, {"s.json": "1"})
    result = evaluate(check, Output(clone, tree, tree, {}, {}, BEGIN))
    assert (result.passed, result.on_failure) == (False, "ask")
    assert "does not know 'signed_by'" in result.detail


def test_detail_is_bounded_whatever_the_file_contains(checked: Checked) -> None:
    long = json.dumps({"total": "x" * 100_000})
    result = checked({"file": "s.json", "json_schema": SCHEMA}, {"s.json": long})
    assert not result.passed
    assert len(result.detail) <= 500
