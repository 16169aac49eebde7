"""Objects inside of records are voted by what is inside, and written with the bytes of the nodes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mao_shared.models.round import FileRule, VoteDefinition
from mao_vote import FileDecision, decide_file
from mao_vote.records.nested import object_fields
from tests.support.json_strategies import NUMBERS, STRINGS

Record = dict[str, Any]
ABSENT_COUNTS = {"*": {"missing_is_value": True}}


def vote(path: str, *contents: str, incumbent: str | None = None, **rule: Any) -> FileDecision:
    """Vote on the contents as those of nodes a, b, c …"""
    definition = VoteDefinition(files=[FileRule.model_validate({"key": ["id"], **rule})])
    versions = {node: content.encode() for node, content in zip("abcdefgh", contents, strict=False)}
    before = None if incumbent is None else incumbent.encode()
    return decide_file(path, versions, incumbent=before, definition=definition, weights={})


def lines(records: Sequence[Record]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def result(*versions: Sequence[Record], **rule: Any) -> list[Record]:
    content = vote("r.jsonl", *(lines(records) for records in versions), **rule).content or b""
    return [json.loads(line) for line in content.splitlines()]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("path", ["r.jsonl", "r.json"])
def test_object_fields_numbers_with_noise_have_an_observed_value(seed: int, path: str) -> None:
    random = Random(seed)

    def noisy() -> list[Record]:
        return [
            {"id": n, "size": {"bytes": 1000 * (n + 1) * random.gauss(1, 0.005), "unit": "B"}}
            for n in range(9)
        ]

    observed = [noisy() for _ in range(5)]
    texts = [lines(found) if path == "r.jsonl" else json.dumps(found) for found in observed]
    found = vote(path, *texts)
    content = (found.content or b"").decode()
    chosen = json.loads(content) if path == "r.json" else [json.loads(line) for line in content.splitlines()]
    assert found.conflicts == 0
    for number, record in enumerate(chosen):
        seen = [version[number]["size"]["bytes"] for version in observed]
        assert record["size"]["bytes"] in seen
        assert abs(record["size"]["bytes"] / (1000 * (number + 1)) - 1) < 0.01
    assert {cell.field for cell in found.cells} == {"/size/bytes"}


@settings(deadline=None)
@given(
    cells=st.lists(
        st.lists(st.sampled_from([*NUMBERS, *STRINGS]), min_size=3, max_size=3), min_size=3, max_size=6
    ),
    noise=st.permutations([(0, 0), (0, 1), (0, 2), (1, 1), (2, 0)]).map(lambda found: found[:3]),
    form=st.sampled_from(
        [
            '{"id": "r%s", "o": {"a/b": %s,"p":{"[0]": %s , "~" : %s}, "l": [ 1 ]}}',
            '{"o":{"\\u0061/b":%s,\t"p" : { "[0]":%s,"~":%s }},"id":"r%s","n": [ ]}',
        ]
    ),
    layout=st.sampled_from([("a.jsonl", "", "\n", "\n"), ("a.json", "[ ", " ,\n ", "]\n")]),
)
def test_object_fields_that_nobody_disputes_come_out_as_they_went_in(
    cells: list[list[str]], noise: list[tuple[int, int]], form: str, layout: tuple[str, str, str, str]
) -> None:
    path, begin, between, end = layout

    def write(rows: list[list[str]]) -> str:
        records = []
        for number, row in enumerate(rows):
            values = [str(number), *row] if form.startswith('{"id"') else [*row, str(number)]
            records.append(form % tuple(values))
        return begin + between.join(records) + end

    versions = []
    for at in noise:
        spoilt = [list(row) for row in cells]
        spoilt[at[0]][at[1]] = '"NOISE"'
        versions.append(write(spoilt))
    found = vote(path, *versions, fields=ABSENT_COUNTS)
    assert (found.content or b"").decode() == write(cells)


def test_object_fields_members_of_a_minority_are_cut_and_those_of_most_come_in() -> None:
    texts = [
        '{"id":1, "o": {"x" : 1.10, "extra": [1, 2],\t"y":2}}\n',
        '{"id":1, "o": {"x" : 1.10,\t"y":2, "z": 1e500}}\n',
        '{"id":1, "o": {"x" : 7,\t"y":2, "z": 1e500}}\n',
    ]
    found = vote("r.jsonl", *texts, fields=ABSENT_COUNTS)
    assert found.content == texts[1].encode()
    texts[1] = texts[1].replace('"y":2', '"y":3')
    assert json.loads(vote("r.jsonl", *texts, fields=ABSENT_COUNTS).content or b"") == json.loads(
        '{"id":1, "o": {"x" : 1.10, "y":2, "z": 1e500}}'
    )


@pytest.mark.parametrize(
    ("cells", "chosen"),
    [
        ([{"x": 1}, {"x": 1}, 5], {"x": 1}),
        ([5, {"x": 1}, 5], 5),
        ([{"x": 1}, {}, {}], {}),
        ([{"x": 1, "p": {"q": 1}}, {"x": 1, "p": 3}, {"x": 2, "p": 3}], {"x": 1, "p": 3}),
        ([{"x": 1, "p": {"q": 1}}, {"x": 1, "p": {"q": 1}}, {"x": 2, "p": 3}], {"x": 1, "p": {"q": 1}}),
    ],
)
def test_object_fields_that_are_something_else_for_some(cells: list[Any], chosen: Any) -> None:
    others = [{"id": f"k{number}", "o": {"x": number}} for number in range(4)]
    versions = [[{"id": "r", "o": cell}, *others] for cell in cells]
    assert result(*versions, fields=ABSENT_COUNTS) == [{"id": "r", "o": chosen}, *others]


def test_object_fields_that_are_objects_in_few_records_are_compared_as_a_whole() -> None:
    versions: list[list[Record]] = [
        [{"id": 1, "o": 5}, {"id": 2, "o": 6}, {"id": 3, "o": {"x": 1, "y": y}}] for y in (1, 1, 2)
    ]
    found = vote("r.jsonl", *map(lines, versions))
    assert [cell.field for cell in found.cells] == ["o"]
    assert (found.content or b"").decode() == lines(versions[0])


@pytest.mark.parametrize("declared", [{"o": {"type": "object"}}, {"/o": {"type": "text"}}])
def test_object_fields_with_a_declared_type_are_compared_as_a_whole(declared: dict[str, Any]) -> None:
    versions = [[{"id": 1, "o": {"x": x, "y": y}}] for x, y in ((1, 1), (1, 2), (2, 1), (1, 1))]
    found = vote("r.jsonl", *map(lines, versions), fields=declared)
    assert [cell.field for cell in found.cells] == ["o"]
    assert (found.content or b"").decode() == lines(versions[0])


def test_object_fields_of_names_like_pointers_are_compared_as_a_whole() -> None:
    versions = [[{"id": 1, "/o/x": 1, "o": {"x": x}}] for x in (1, 1, 2)]
    found = vote("r.jsonl", *map(lines, versions))
    assert [cell.field for cell in found.cells] == ["o"]
    assert (found.content or b"").decode() == lines(versions[0])


def test_object_fields_that_are_too_many_are_compared_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_fields, "MAX_COLUMNS", 5)
    versions = [[{"id": n, "o": {f"m{n}": v}, "p": {"x": 1}} for n in range(9)] for v in (1, 1, 2)]
    found = vote("r.jsonl", *map(lines, versions))
    assert {cell.field for cell in found.cells} == {"o"}
    assert "decided as a whole: the objects in 'o', which have too many fields" in found.warnings
    assert (found.content or b"").decode() == lines(versions[0])


@pytest.mark.parametrize("name", ["at", "/o/at"])
def test_object_fields_that_are_ignored_or_volatile_inside(name: str) -> None:
    versions = [[{"id": 1, "o": {"x": 1, "at": at, "p": {"at": 3}}}] for at in (5, 3, 4)]
    volatile = vote("r.jsonl", *map(lines, versions), volatile=[name])
    assert not volatile.cells
    assert json.loads(volatile.content or b"")["o"]["at"] == 4
    inner: Record = {} if name == "at" else {"p": {"at": 3}}
    assert result(*versions, ignore=[name]) == [{"id": 1, "o": {"x": 1, **inner}}]
    assert result(*versions, ignore=["o"]) == [{"id": 1}]


def test_object_fields_sets_and_lists_inside() -> None:
    observed = [(["a", "b"], [1, 2]), (["b", "a"], [1, 2]), (["c"], [2, 1])]
    versions = [[{"id": 1, "o": {"s": some, "l": listed}}] for some, listed in observed]
    found = vote("r.jsonl", *map(lines, versions), fields={"/o/s": {"type": "set"}})
    assert (found.content or b"").decode() in (lines(versions[0]), lines(versions[1]))
    assert [tally.differing for _, tally in sorted(found.votes.items())] == [0, 0, 2]


def test_object_fields_of_atomic_records_are_not_mixed() -> None:
    versions = [[{"id": 1, "o": {"x": x, "y": y}}] for x, y in ((1, 1), (1, 2), (2, 1))]
    found = vote("r.jsonl", *map(lines, versions), atomic="record")
    assert [json.loads(found.content or b"")] in versions
    assert found.warnings == ["tied: 1 cell of *, where other values have as many voices"]
    assert result(*versions, versions[1], atomic="record") == versions[1]


def test_object_fields_tied_are_as_in_ground_truth() -> None:
    versions = [[{"id": 1, "o": {"x": x, "y": 1}}] for x in ("p", "q")]
    found = vote("r.jsonl", *map(lines, versions), incumbent=lines([{"id": 1, "o": {"x": "q", "y": 0}}]))
    assert json.loads(found.content or b"") == {"id": 1, "o": {"x": "q", "y": 1}}
    assert {cell.why for cell in found.cells} == {"incumbent"}


def test_object_fields_may_be_the_key() -> None:
    versions = [[{"owner": {"id": n, "v": v}} for n in range(4)] for v in (1, 1, 2)]
    versions[2].reverse()
    assert result(*versions, key=["/owner/id"]) == versions[0]
    versions[2].append({"owner": {"id": 9, "v": 1}})
    versions[1].append({"owner": {"id": 9, "v": 1}})
    assert result(*versions, key=["/owner/id"]) == versions[1]


texts = st.sampled_from(["", "x", "a/b", "~", "[0]", "\0", '"'])
inner = st.recursive(
    st.none() | st.integers(0, 2) | texts | st.lists(st.integers(0, 1), max_size=2),
    lambda values: st.dictionaries(texts, values, max_size=3),
    max_leaves=6,
)
objects = st.lists(st.dictionaries(texts, inner, max_size=3), min_size=2, max_size=3)


@settings(deadline=None, max_examples=10)
@given(st.lists(objects, min_size=3, max_size=4))
def test_object_fields_of_fewer_than_half_liars_never_win(versions: list[list[Record]]) -> None:
    def write(found: list[Record]) -> str:
        return lines([{"id": number, "o": one} for number, one in enumerate(found)])

    truth, *lies = map(write, versions)
    found = vote("r.jsonl", truth, truth, truth, truth, *lies[:3], fields=ABSENT_COUNTS)
    if "null" not in truth:
        assert found.content == truth.encode()


def test_object_fields_absent_member_is_no_observation() -> None:
    versions = [[{"id": 1, "o": {"x": 1, "y": 2}}], [{"id": 1, "o": {"x": 1}}], [{"id": 1, "o": {"x": 7}}]]
    assert result(*versions) == [{"id": 1, "o": {"x": 1, "y": 2}}]


@settings(deadline=None, max_examples=10)
@given(st.lists(objects, min_size=3, max_size=4))
def test_object_fields_values_were_observed_there(versions: list[list[Record]]) -> None:
    observed = [[{"id": n, "o": one} for n, one in enumerate(found)] for found in versions]
    for record in result(*observed):
        seen = [other["o"] for version in observed for other in version if other["id"] == record["id"]]
        check_observed(record["o"], seen)


def check_observed(chosen: Any, seen: list[Any]) -> None:
    """Check that a value is one of those seen, or null, or an object whose members are."""
    if isinstance(chosen, dict) and chosen not in seen:
        objects = [value for value in seen if isinstance(value, dict)]
        assert objects
        for name, value in chosen.items():
            holders = [found[name] for found in objects if name in found]
            assert holders
            check_observed(value, holders)
    else:
        assert chosen in seen or chosen is None
