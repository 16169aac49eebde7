"""Warnings of definitions that have no effect on a file, and of lines that need them to say more."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest

from mao_shared.models.round import VoteDefinition
from mao_vote import FileDecision, decide_file

RECORDS = [
    {"id": f"r{number}", "stars": {"total": number, "days": [1, 2]}, "at": number} for number in range(4)
]
DOCUMENT = {"host": "h", "l": [{"name": "a", "date": "2026-01-01"}, {"name": "b", "date": "2026-01-02"}]}


def vote(path: str, content: Any, **rule: Any) -> FileDecision:
    """Vote on a JSON file of three nodes, of which one differs."""
    if path.endswith("l"):
        text = "".join(f"{json.dumps(record)}\n" for record in content)
    else:
        text = json.dumps(content)
    versions = dict.fromkeys("ab", text.encode()) | {"c": text.replace("1", "5", 1).encode()}
    definition = VoteDefinition.model_validate({"files": [rule]})
    return decide_file(path, versions, incumbent=None, definition=definition, weights={})


def unknown(found: FileDecision) -> list[str]:
    return [warning.split("'")[1] for warning in found.warnings if "names the field" in warning]


@pytest.mark.parametrize("path", ["a.json", "a.jsonl"])
@pytest.mark.parametrize(
    "name", ["at", "/at", "stars", "/stars/total", "total", "/stars/days", "/stars/days/*", "/stars/days/0"]
)
@pytest.mark.parametrize("how", ["fields", "ignore", "volatile"])
def test_names_of_fields_in_json_records_have_an_effect(path: str, name: str, how: str) -> None:
    rule = {"key": ["id"], how: {name: {"missing": ["x"]}} if how == "fields" else [name]}
    assert unknown(vote(path, RECORDS, **rule)) == []


@pytest.mark.parametrize("name", ["host", "/host", "/l", "/l/*/date", "date", "/l/0/date"])
@pytest.mark.parametrize("how", ["fields", "ignore", "volatile"])
def test_names_of_fields_in_documents_have_an_effect(name: str, how: str) -> None:
    rule = {how: {name: {"missing": ["x"]}} if how == "fields" else [name]}
    assert unknown(vote("a.json", DOCUMENT, **rule)) == []


@pytest.mark.parametrize(
    ("path", "content"), [("a.json", RECORDS), ("a.jsonl", RECORDS), ("a.json", DOCUMENT)]
)
def test_names_of_no_field_in_json_are_warned_of(path: str, content: Any) -> None:
    found = vote(path, content, fields={"*": {}, "/l/*/dat": {}}, ignore=["hots"], volatile=["/stars/totl"])
    assert unknown(found) == ["/l/*/dat", "hots", "/stars/totl"]


@pytest.mark.parametrize("key", [[], ["number"]])
def test_lines_without_key_that_become_more_than_any_node_has_are_warned_of(key: list[str]) -> None:
    random = Random(1)
    kinds = [(random.choice(["info", "warning"]), f"job {random.randrange(5)} ended") for _ in range(30)]
    lines = [f"{number},{kind},{what},{number % 7}.5" for number, (kind, what) in enumerate(kinds)]
    versions = {}
    for node, lacking in zip("abc", (3, 9, 17), strict=True):
        own = [*lines[:lacking], *lines[lacking + 1 :]]
        own = own if key else [line.partition(",")[2] for line in own]
        heading = "number,level,message,load" if key else "level,message,load"
        versions[node] = ("\n".join([heading, *own]) + "\n").encode()
    definition = VoteDefinition.model_validate({"files": [{"key": key}]})
    found = decide_file("a.csv", versions, incumbent=None, definition=definition, weights={})
    assert (found.content or b"").count(b"\n") == 31
    warned = [warning for warning in found.warnings if "more than any node has (29)" in warning]
    assert [warning.startswith("30 records") and "volatile" in warning for warning in warned] == [True] * (
        not key
    )


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("inside", ["x", "x;y|", "x" * 200 + "\n"])
def test_csv_with_a_cell_that_is_too_long_says_so(separator: str, inside: str) -> None:
    long = inside * ((1 << 17) // len(inside) + 1)
    text = f'id{separator}v{separator}w\n1{separator}"{long}"{separator}2\n'
    versions = {
        "a": text.encode(),
        "b": text.replace("2", "3").encode(),
        "c": text.replace("2", "4").encode(),
    }
    found = decide_file("a.csv", versions, incumbent=None, definition=VoteDefinition(), weights={})
    assert found.kind == "opaque"
    assert any("it has a cell with more than 131 072 characters" in warning for warning in found.warnings)
