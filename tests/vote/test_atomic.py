"""`atomic: record`: a record is taken whole from one node, never combined."""

from __future__ import annotations

import json

import pytest

from mao_shared.models.round import FileRule, Ties, VoteDefinition
from mao_vote import FileDecision, decide_file


def vote(
    path: str,
    *contents: str,
    incumbent: str | None = None,
    weights: dict[str, float] | None = None,
    ties: Ties = "likeliest",
    **rule: object,
) -> FileDecision:
    definition = VoteDefinition(ties=ties, files=[FileRule.model_validate({"atomic": "record", **rule})])
    versions = {node: content.encode() for node, content in zip("abcde", contents, strict=False)}
    before = None if incumbent is None else incumbent.encode()
    found = decide_file(path, versions, incumbent=before, definition=definition, weights=weights or {})
    turned = dict(reversed(versions.items()))
    again = decide_file(path, turned, incumbent=before, definition=definition, weights=weights or {})
    assert again.content == found.content
    return found


ONE, TWO, THREE = ("id,v,w\nk,p,q\n", "id,v,w\nk,p,r\n", "id,v,w\nk,s,r\n")


def test_atomic_records_fields_of_several_nodes_are_not_mixed() -> None:
    found = vote("d.csv", ONE, TWO, THREE)  # field by field: p, r, which is what one node says
    assert (found.content, found.conflicts) == (ONE.encode(), 0)
    assert [(cell.key, cell.field, cell.why) for cell in found.cells] == [(("k",), "*", "tie")]
    assert vote("d.csv", ONE, THREE, TWO, ONE, THREE).content in (ONE.encode(), THREE.encode())


def test_atomic_records_ties_stay_open_where_asked() -> None:
    found = vote("d.csv", ONE, TWO, THREE, ties="open")
    assert (found.content, found.conflicts) == (b"id,v,w\nk,,\n", 1)
    assert [(cell.key, cell.field, cell.why) for cell in found.cells] == [(("k",), "*", "undecided")]
    assert vote("d.csv", ONE, THREE, TWO, ONE, THREE, ties="open").conflicts == 1


@pytest.mark.parametrize(
    ("contents", "incumbent", "weights", "why"),
    [
        ((ONE, ONE, THREE), None, {}, "majority"),
        ((ONE, ONE, TWO, THREE), None, {}, "plurality"),
        ((ONE, TWO, THREE), ONE, {}, "incumbent"),
        ((ONE, TWO, THREE), None, {"a": 2.0}, "weight"),
    ],
)
def test_atomic_records_what_decides(
    contents: tuple[str, ...], incumbent: str | None, weights: dict[str, float], why: str
) -> None:
    found = vote("d.csv", *contents, incumbent=incumbent, weights=weights)
    assert found.content == ONE.encode()
    assert [cell.why for cell in found.cells] == [why]
    assert found.votes["a"].differing == 0


def test_atomic_records_equal_numbers_are_the_same_record_and_spelt_as_observed() -> None:
    found = vote("d.csv", "id,v,w\nk,1,q\n", "id,v,w\nk,1.0,q\n", "id,v,w\nk,2,q\n")
    assert found.content in (b"id,v,w\nk,1,q\n", b"id,v,w\nk,1.0,q\n")
    assert found.cells[0].why == "majority"


def test_atomic_records_volatile_and_ignored_fields_do_not_tell_records_apart() -> None:
    texts = [f"id,v,at,pid\nk,p,12:0{at},{at}\nl,{v},12:00,1\n" for at, v in ((1, "q"), (3, "q"), (2, "x"))]
    found = vote("d.csv", *texts, volatile=["at"], ignore=["pid"])
    assert found.content == b"id,v,at\nk,p,12:02\nl,q,12:00\n"
    assert [cell.key for cell in found.cells] == [("l",)]


def test_atomic_records_json_shows_missing_from_null_and_takes_records_by_position() -> None:
    rows = [[{"v": 1, "w": None}, {"v": 1}], [{"v": 1, "w": None}, {"v": 1}], [{"v": 1}, {"v": 1, "w": None}]]
    found = vote("d.json", *(json.dumps(row) for row in rows))
    assert json.loads(found.content or b"") == rows[0]
    undecided = vote("d.json", *(json.dumps([{"id": 1, "v": v}]) for v in "xyz"), ties="open")
    assert json.loads(undecided.content or b"") == [{"id": 1, "v": None}]


def test_atomic_records_empty_files_missing_records_and_nothing_but_a_key() -> None:
    assert vote("d.csv", ONE, ONE + "l,x,y\n", "").content == ONE.encode()
    assert vote("d.csv", "id\na\n", "id\na\nb\n", "id\nb\na\n").content is not None
    assert vote("d.json", "[]", "[]", '[{"id": 1}]').content == b"[]"
