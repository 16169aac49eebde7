"""Two versions of a document as tables in which what is the same thing has the same path."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mao_shared.models.round import FieldRule, FileRule
from mao_vote.records import load_documents

from .test_nested import CHANGES, Document, change_value, document, values

RULE = FileRule()


def tables(before: Any, after: Any, rule: FileRule = RULE) -> tuple[dict[str, str], dict[str, str]]:
    contents = [json.dumps(found).encode() if found is not None else b"" for found in (before, after)]
    found = load_documents(contents[0], contents[1], rule)
    assert found is not None
    assert all(table["path"].n_unique() == table.height for table in found)
    return dict(found[0].iter_rows()), dict(found[1].iter_rows())


def changes(before: Any, after: Any, rule: FileRule = RULE) -> dict[str, tuple[str | None, str | None]]:
    old, new = tables(before, after, rule)
    return {path: (old.get(path), new.get(path)) for path in {**old, **new} if old.get(path) != new.get(path)}


def without_order(value: Any) -> Any:
    """Return a document in which the order of lists, whose entries may have an identity, does not count."""
    if isinstance(value, dict):
        return {name: without_order(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return sorted(
            (without_order(inner) for inner in value), key=lambda one: json.dumps(one, sort_keys=True)
        )
    return value


@settings(deadline=None, max_examples=30)
@given(values, values)
def test_document_changes_are_none_only_if_nothing_but_order_differs(before: Any, after: Any) -> None:
    for one, other in ((before, after), (before, before)):
        pair = {"x": one}, {"x": other}
        if not changes(*pair):
            assert without_order(one) == without_order(other)
        if one == other:
            assert not changes(*pair)


@settings(deadline=None, max_examples=20)
@given(st.randoms(use_true_random=False), st.lists(st.sampled_from(CHANGES), min_size=1, max_size=3))
def test_document_changes_are_few_where_little_was_changed(random: Any, made: list[Any]) -> None:
    before, after = document(8), document(8)
    for change in made:
        change(after, random)
    found = changes(before, after)
    count = len(tables(before, None)[0])
    assert all(old is None or new is None or old != new for old, new in found.values())
    if all(change is change_value for change in made):
        assert len(found) < count // 2


@pytest.mark.parametrize("where", [0, 3, 6])
def test_document_changes_of_a_new_entry_are_of_this_entry(where: int) -> None:
    before, after = document(6), document(6)
    after["entries"].insert(where, {"name": "new", "date": "2026-02-01", "tags": []})
    after["entries"][0 if where else 1]["parts"].insert(0, {"id": 99, "sum": "z"})
    first = after["entries"][0 if where else 1]["name"]
    assert changes(before, after) == {
        '/entries/[name="new"]/name': (None, '"new"'),
        '/entries/[name="new"]/date': (None, '"2026-02-01"'),
        '/entries/[name="new"]/tags': (None, "[]"),
        f'/entries/[name="{first}"]/parts/[id=99]/id': (None, "99"),
        f'/entries/[name="{first}"]/parts/[id=99]/sum': (None, '"z"'),
    }


def of(value: Any) -> Document:
    return {"a": value, "b": 1}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([1, 2, 3], [1, 5, 3, 4], {"/a/1": ("2", "5"), "/a/3": (None, "4")}),
        ([{"v": 1}, {"v": 1}], [{"v": 1}, {"v": 2}], {"/a/1/v": ("1", "2")}),
        ({"x": 1}, {"y": [2]}, {"/a/x": ("1", None), "/a/y/0": (None, "2")}),
        ([5], {"0": 5}, {"/a": ("[5]", '{"0":5}')}),
        ([[5]], [{"0": 5}], {"/a/0": ("[5]", '{"0":5}')}),
        ({"x": 1}, 7, {"/a": ('{"x":1}', "7")}),
        ({"x": 1}, None, {"/a": (None, "null"), "/a/x": ("1", None)}),
        ({}, [], {"/a": ("{}", "[]")}),
        ([], [1], {"/a": ("[]", "[1]")}),
        ({"[x": 1}, {"[x": 2}, {"/a/~2x": ("1", "2")}),
    ],
)
def test_document_changes_of_what_is_of_another_kind_or_has_no_identity(
    before: Any, after: Any, expected: dict[str, tuple[str | None, str | None]]
) -> None:
    assert changes(of(before), of(after)) == expected
    swapped = {path: (new, old) for path, (old, new) in expected.items()}
    assert changes(of(after), of(before)) == swapped


def test_document_changes_by_a_declared_key() -> None:
    before, after = ({"l": [{"n": one, "v": 1.5}, {"n": other, "v": 2.5}]} for one, other in ("xy", "yx"))
    assert set(changes(before, after)) == {'/l/[n="x"]/v', '/l/[n="y"]/v'}
    declared = FileRule(fields={"/l": FieldRule(key=["v"])}, ignore=["n"])
    assert set(changes(before, after, declared)) == {"/l/[v=1.5]/n", "/l/[v=2.5]/n"}


def test_document_changes_of_a_file_that_is_new_or_gone() -> None:
    nothing, everything = tables(None, document(2))
    assert not nothing
    assert everything["/host"] == '"h"'
    assert tables(document(2), None) == (everything, {})
    assert load_documents(b"[]", b'[{"a": 1}]', RULE) is None
