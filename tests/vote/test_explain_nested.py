"""`vote show --cell` for values in nested data, by the paths that a user may type."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from mao_git import Clone
from mao_shared.errors import NotFound
from mao_shared.models.evidence import DecidedRound
from mao_shared.models.round import FileRule, VoteDefinition
from mao_vote.explain import explain_cell
from mao_vote.records import find_value

from .repo import new_repository, vote

DOCUMENT: dict[str, Any] = {
    "total": 2,
    "entries": [{"name": "x", "date": "mo", "tags": [1]}, {"name": "a/b", "date": "tu", "tags": [2]}],
    "log": [{"v": 1}, {"v": 1}],
}
Changes = dict[tuple[Any, ...], Any]
"""File and the steps to a value in it → another value."""
RECORDS: list[dict[str, Any]] = [{"id": 1, "stars": {"total": 5, "by": {"day": 1}}, "l": [1]}]


def decided(path: Path, *changes: Changes) -> tuple[Clone, DecidedRound]:
    """Vote three nodes' files, of which the last two differ from the first as the changes say."""
    clone = new_repository(path / "r.git")
    versions = {}
    for node, change in zip("abc", [{}, *changes], strict=True):
        files = {"d.json": copy.deepcopy(DOCUMENT), "r.jsonl": copy.deepcopy(RECORDS)}
        for (file, *steps), value in change.items():
            inner: Any = files[file]
            for step in steps[:-1]:
                inner = inner[step]
            inner[steps[-1]] = value
        lines = "".join(json.dumps(record) + "\n" for record in files["r.jsonl"])
        versions[node] = {"d.json": json.dumps(files["d.json"], indent=1), "r.jsonl": lines}
    definition = VoteDefinition(files=[FileRule(path="r.jsonl", key=["id"])])
    voted = vote(clone, versions, definition=definition)
    return clone, DecidedRound(commit=voted.commit, evidence=voted.evidence)


CHANGE: Changes = {
    ("d.json", "entries", 1, "date"): "we",
    ("d.json", "log"): [{"v": 2}],
    ("r.jsonl", 0, "stars", "total"): 7,
}


@pytest.mark.parametrize(
    ("typed", "field", "chosen", "differs"),
    [
        ('/entries/[name="a~1b"]/date', "value", '"tu"', True),
        ("/entries/[name=a~1b]/date", "value", '"tu"', True),
        ("/entries/1/date", "value", '"tu"', True),
        ("/entries/0/date", "value", '"mo"', False),
        ('/entries/[name="x"]/tags', "value", "[1]", False),
        ("/entries/0/tags/0", "value", "1", False),
        ("/entries/0", "value", '{"date":"mo","name":"x","tags":[1]}', False),
        ("/total", "value", "2", False),
        ("/log", "value", '[{"v":1},{"v":1}]', True),
        ("/log/0/v", "value", '[{"v":1},{"v":1}]', True),
    ],
)
def test_explain_nested_document(tmp_path: Path, typed: str, field: str, chosen: str, differs: bool) -> None:
    clone, voted = decided(tmp_path, CHANGE, {})
    told = explain_cell(clone, voted, "d.json", typed, field)
    assert told.chosen == chosen
    assert (told.why != "unanimous") == differs
    assert (len(set(told.values.values())) > 1) == differs


@pytest.mark.parametrize("typed", ["/entries", "/entries/1", '/entries/[name="a~1b"]'])
def test_explain_nested_document_what_was_decided_by_what_is_inside(tmp_path: Path, typed: str) -> None:
    clone, voted = decided(tmp_path, CHANGE, {})
    with pytest.raises(NotFound, match=r"nodes differ in /entries/\[name=\"a~1b\"\]/date"):
        explain_cell(clone, voted, "d.json", typed, "value")


@pytest.mark.parametrize(
    ("typed", "field"),
    [
        ("/entries/7/date", "value"),
        ('/entries/[name="z"]/date', "value"),
        ("total", "value"),
        ("/total", "x"),
    ],
)
def test_explain_nested_document_what_is_not_there(tmp_path: Path, typed: str, field: str) -> None:
    clone, voted = decided(tmp_path, CHANGE, {})
    with pytest.raises(NotFound):
        explain_cell(clone, voted, "d.json", typed, field)


def test_explain_nested_document_entry_that_only_one_node_has(tmp_path: Path) -> None:
    more = [{"name": "new", "date": "su"}, *DOCUMENT["entries"]]
    clone, voted = decided(tmp_path, {("d.json", "entries"): more}, {})
    for typed, field in (('/entries/[name="new"]', ""), ('/entries/[name="new"]/date', "value")):
        told = explain_cell(clone, voted, "d.json", typed, field)
        assert (told.why, told.chosen) == ("row", None)
        assert told.values == {"a": None, "b": "row", "c": None}


def test_explain_nested_records(tmp_path: Path) -> None:
    clone, voted = decided(tmp_path, CHANGE, {})
    told = explain_cell(clone, voted, "r.jsonl", "1", "/stars/total")
    assert (told.chosen, told.values) == ("5", {"a": "5", "b": "7", "c": "5"})
    assert explain_cell(clone, voted, "r.jsonl", "1", "/stars/by/day").chosen == "1"
    assert explain_cell(clone, voted, "r.jsonl", "1", "l").chosen == "[1]"
    with pytest.raises(NotFound, match="nodes differ in /stars/total"):
        explain_cell(clone, voted, "r.jsonl", "1", "stars")
    with pytest.raises(NotFound, match="has no field '/stars/none'"):
        explain_cell(clone, voted, "r.jsonl", "1", "/stars/none")


def test_explain_nested_records_objects_on_which_all_agree(tmp_path: Path) -> None:
    clone, voted = decided(tmp_path, {("r.jsonl", 0, "l"): [2]}, {})
    assert explain_cell(clone, voted, "r.jsonl", "1", "stars").chosen == '{"by":{"day":1},"total":5}'


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("", ("", True)),
        ("/a/0", ("/a/0", True)),
        ('/a/[k="x,y",n=1]', ("/a/1", True)),
        ("/a/[k=z]/v", ("/a/2/v", True)),
        ('/a/["odd name"=5]', ("/a/3", True)),
        ("/a/[k=none]", None),
        ("/a/[", None),
        ("/a/9", None),
        ("/~2b]", ("/[b]", True)),
        ("/[b]", ("/[b]", True)),
        ("/c~1d", ("/c~1d", True)),
        ("a", None),
    ],
)
def test_explain_nested_find_value(path: str, found: tuple[str, bool] | None) -> None:
    entries = [{"k": "x"}, {"k": "x,y", "n": 1}, {"k": "z", "v": 2}, {"odd name": 5}]
    located = find_value({"a": entries, "[b]": 1, "c/d": 2}, path)
    assert (None if located is None else (located[0], True)) == found
