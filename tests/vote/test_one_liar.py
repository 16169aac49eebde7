"""One malicious node cannot spoil a file on which the others agree."""

from __future__ import annotations

import pytest

from mao_shared.models.round import FileRule, VoteDefinition
from mao_vote import FileDecision, decide_file
from mao_vote.records.reading.load import MAX_OBJECTS

DOCUMENT = '{"a":{"b":1},"c":2}'


def vote(path: str, *contents: str, incumbent: str | None = None) -> FileDecision:
    return decide_file(
        path,
        {node: content.encode() for node, content in zip("abcde", contents, strict=False)},
        incumbent=None if incumbent is None else incumbent.encode(),
        definition=VoteDefinition(),
        weights={},
    )


def test_one_liar_records_of_its_own_do_not_take_the_inferred_key_from_the_others() -> None:
    one, other = "id,v\nk1,p\nk2,q\nk3,q\n", "id,v\nk3,q\nk2,q\nk1,p\n"
    found = vote("d.csv", one, other, "id,v\nz1,p\nz2,q\nz3,q\n")
    assert found.key is not None
    assert found.key.columns == ("id",)
    assert found.content in (one.encode(), other.encode())
    assert found.conflicts == 0


def test_one_liar_keys_that_no_two_nodes_share_are_none() -> None:
    found = vote("d.csv", "uid,v\n1,p\n2,q\n", "uid,v\n3,p\n4,q\n", "uid,v\n5,p\n6,q\n")
    assert found.key is not None
    assert found.key.columns == ("v",)


@pytest.mark.parametrize("rule", ["volatile", "ignore"])
def test_one_liar_what_may_differ_is_no_inferred_key(rule: str) -> None:
    texts = [f"at,v\n1:00,p\n1:01,q\n1:0{minute},r\n" for minute in (2, 3, 4)]
    definition = VoteDefinition(files=[FileRule.model_validate({rule: ["at"]})])
    versions = {node: text.encode() for node, text in zip("abc", texts, strict=True)}
    found = decide_file("d.csv", versions, incumbent=None, definition=definition, weights={})
    assert found.key is not None
    assert found.key.columns == ("v",)
    assert not found.cells


@pytest.mark.parametrize("path", ["d.json", "d.jsonl"])
def test_one_liar_half_a_letter_in_a_name(path: str) -> None:
    good = DOCUMENT if path == "d.json" else '{"id": 1, "v": 2}\n'
    found = vote(path, good, good + "\n", '{"\\ud800":1}')
    assert list(found.abstained) == ["c"]


@pytest.mark.parametrize("depth", [101, 300, 480, 900, 980])
def test_one_liar_nesting_is_bounded_wherever_the_reader_is_called_from(depth: int) -> None:
    deep = "[" * depth + "1" + "]" * depth
    for path, bad in (("d.json", deep), ("d.json", '{"a":' + deep + "}"), ("d.jsonl", '{"c":' + deep + "}")):
        found = vote(path, DOCUMENT, DOCUMENT + "\n", bad)
        assert found.abstained == {"c": "its JSON is nested too deeply"}
        assert vote(path, bad, bad + "\n", bad + " ").kind == "opaque"


def test_one_liar_nesting_that_people_use_is_read() -> None:
    deep = "[" * 60 + "{}" + "]" * 60
    assert vote("d.jsonl", *(f'{{"id":{n},"v":{deep}}}\n' for n in (1, 1, 2))).kind == "records"


def test_one_liar_digits_that_are_no_places_of_a_list() -> None:
    objects = ['{"a":{"²":1,"b":2}}', '{"a":{"²":1,"b":3}}']
    assert vote("d.json", *objects, '{"a":[1]}', '{"a":[2]}', incumbent=objects[0]).content is not None


@pytest.mark.parametrize(
    ("path", "bad"),
    [
        ("d.json", "[" + "{}," * MAX_OBJECTS + "{}]"),
        ("d.jsonl", '{"a":1}\n' * (MAX_OBJECTS + 1)),
        ("d.jsonl", "\n" * (MAX_OBJECTS + 1)),
    ],
)
def test_one_liar_short_texts_that_stand_for_many_objects_are_not_read(path: str, bad: str) -> None:
    good = '[{"id":1}]' if path == "d.json" else '{"id":1}\n'
    assert "more than 1 million" in vote(path, good, good + "\n", bad).abstained["c"]


def test_one_liar_two_columns_of_one_name_are_no_records() -> None:
    good = "id,v\na,1\nb,2\n"
    found = vote("d.csv", good, good.replace("b,2", "b,3"), 'id,v,"v"\na,1,2\n')
    assert found.abstained == {"c": "two of its columns are called 'v'"}
    alike = "v,v\n1,2\n"
    assert vote("d.csv", alike, alike, "v,v\n1,3\n").content == alike.encode()
