"""Lists that every node has in an order of its own are sets; rankings and paths are lists."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import polars
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mao_shared.models.round import FileRule, VoteDefinition
from mao_shared.models.schema import Schema
from mao_vote import FileDecision, decide_file
from mao_vote.records.fields.types import FieldType
from mao_vote.records.nested import sets
from mao_vote.records.nested.sets import infer_set
from mao_vote.schema import describe_file

List = list[Any]
Change = Callable[[List, int, Random], List]
"""What a node has instead of a list: `(list, number of the node, random numbers)`."""
LIST = FieldType("list")


def reordered(items: List, _: int, random: Random) -> List:
    return random.sample(items, len(items))


def reordered_with_own(items: List, node: int, random: Random) -> List:
    return random.sample([*items, *(["own"] if node == 0 else [])], len(items) + (node == 0))


def reordered_with_wrong(items: List, node: int, random: Random) -> List:
    wrong = random.randrange(len(items)) if random.random() < 0.3 else None
    return [
        f"wrong{node}" if at == wrong else item for at, item in enumerate(random.sample(items, len(items)))
    ]


def reordered_at_two(items: List, node: int, random: Random) -> List:
    return random.sample(items, len(items)) if node < 2 else items


ARBITRARY = [reordered, reordered_with_own, reordered_with_wrong, reordered_at_two]


def as_it_is(items: List, _: int, __: Random) -> List:
    return items


def neighbours_swapped(items: List, _: int, random: Random) -> List:
    at = random.randrange(len(items) - 1)
    return [*items[:at], items[at + 1], items[at], *items[at + 2 :]]


def entry_moved(items: List, _: int, random: Random) -> List:
    own = [*items]
    own.insert(random.randrange(len(own)), own.pop(random.randrange(len(own))))
    return own


def entry_inserted(items: List, node: int, random: Random) -> List:
    at = random.randrange(len(items) + 1)
    return [*items[:at], f"new{node}", *items[at:]]


def entry_replaced(items: List, node: int, random: Random) -> List:
    at = random.randrange(len(items))
    return [*items[:at], f"new{node}", *items[at + 1 :]]


def entry_left_out(items: List, _: int, random: Random) -> List:
    at = random.randrange(len(items))
    return [*items[:at], *items[at + 1 :]]


def backwards_at_one(items: List, node: int, _: Random) -> List:
    return items[::-1] if node == 0 else items


def other_lists(items: List, node: int, random: Random) -> List:
    return [f"{node}:{random.randrange(100)}" for _ in items]


MEANINGFUL = [
    as_it_is,
    neighbours_swapped,
    entry_moved,
    entry_inserted,
    entry_replaced,
    entry_left_out,
    backwards_at_one,
    other_lists,
]


def words(count: int, random: Random) -> List:
    return [f"w{number}" for number in random.sample(range(100), count)]


def numbers(count: int, random: Random) -> List:
    return random.sample(range(1000), count)


def observe(
    change: Change, nodes: int, lists: Sequence[List], random: Random, *, is_json: bool = True
) -> list[polars.Series]:
    """Return each node's column of lists."""
    space = (",", ":") if is_json else None
    return [
        polars.Series([json.dumps(change(items, node, random), separators=space) for items in lists])
        for node in range(nodes)
    ]


def kind_of(columns: Sequence[polars.Series], *, is_json: bool = True) -> FieldType:
    return infer_set(LIST, columns, [1] * len(columns), is_json=is_json)


@pytest.mark.parametrize("change", ARBITRARY)
@pytest.mark.parametrize("made", [words, numbers])
@pytest.mark.parametrize(("nodes", "places", "sizes"), [(5, 1, (12, 12)), (3, 20, (3, 8)), (4, 40, (1, 5))])
def test_sets_are_inferred_where_nodes_have_orders_of_their_own(
    change: Change, made: Callable[[int, Random], List], nodes: int, places: int, sizes: tuple[int, int]
) -> None:
    random = Random(f"{change.__name__}{made.__name__}{nodes}")
    lists = [made(random.randint(*sizes), random) for _ in range(places)]
    assert kind_of(observe(change, nodes, lists, random)).kind == "set"


@pytest.mark.parametrize("change", MEANINGFUL)
@pytest.mark.parametrize("made", [words, numbers])
@pytest.mark.parametrize(("nodes", "places", "sizes"), [(5, 1, (12, 12)), (3, 20, (5, 8)), (2, 40, (6, 10))])
def test_sets_are_not_inferred_where_the_order_means_something(
    change: Change, made: Callable[[int, Random], List], nodes: int, places: int, sizes: tuple[int, int]
) -> None:
    random = Random(f"{change.__name__}{made.__name__}{nodes}")
    lists = [made(random.randint(*sizes), random) for _ in range(places)]
    assert kind_of(observe(change, nodes, lists, random)).kind == "list"


@pytest.mark.parametrize(
    "items",
    [
        ["a", "b", "a", "c", "d", "e"],
        [1.5, 2.25, 3.5, 4.75, 5.5, 6.25],
        [1e3, 2, 3, 4, 5, 6],
        [["a"], ["b"], ["c"], ["d"], ["e"], ["f"]],
        [{"a": 1}, {"b": 1}, {"c": 1}, {"d": 1}, {"e": 1}, {"f": 1}],
    ],
)
def test_sets_have_neither_repeated_members_nor_fractions_nor_lists(items: List) -> None:
    assert kind_of(observe(reordered, 5, [items] * 10, Random(1))).kind == "list"


def test_sets_may_have_a_few_odd_lists() -> None:
    random = Random(2)
    columns = observe(reordered, 4, [words(6, random) for _ in range(50)], random)
    odd = ['["a","a"]', "[[1]]", "", None]
    found = kind_of([polars.Series([*column, *odd]) for column in columns])
    assert (found.kind, found.unsure) == ("set", "")
    doubled = polars.Series([json.dumps([*json.loads(text), *json.loads(text)]) for text in columns[0]])
    assert kind_of([doubled, *columns[1:]]).kind == "set"
    assert kind_of([doubled, doubled, *columns[1:3]]).kind == "list"


def test_sets_of_which_there_is_little_evidence_are_unsure() -> None:
    random = Random(3)
    few = kind_of(observe(reordered, 2, [words(6, random)], random))
    assert (few.kind, few.unsure) == ("set", "declare list if the order of its members counts")
    swapped = kind_of(observe(neighbours_swapped, 5, [words(6, random)], random))
    assert (swapped.kind, "declare set" in swapped.unsure) == ("list", True)
    assert kind_of(observe(as_it_is, 5, [words(6, random)], random)) == LIST
    declared = FieldType("list", source="declared")
    assert (
        infer_set(declared, observe(reordered, 5, [words(9, random)], random), [1] * 5, is_json=True)
        == declared
    )


def test_sets_spellings_that_do_not_count_are_the_same_member() -> None:
    random = Random(4)
    lists = [words(6, random) for _ in range(9)]
    upper = [
        polars.Series([text.upper() for text in column]) for column in observe(reordered, 2, lists, random)
    ]
    columns = [*upper, *observe(reordered, 2, lists, random)]
    folded = infer_set(FieldType("list", fold=("case",)), columns, [1] * 4, is_json=True)
    assert (folded.kind, kind_of(columns).kind) == ("set", "list")


@settings(deadline=None, max_examples=20)
@given(
    st.randoms(use_true_random=False),
    st.sampled_from([*ARBITRARY, *MEANINGFUL]),
    st.integers(2, 5),
    st.integers(1, 9),
)
def test_sets_inference_depends_on_no_order_of_nodes_or_places(
    random: Random, change: Change, nodes: int, places: int
) -> None:
    columns = observe(change, nodes, [words(random.randint(2, 7), random) for _ in range(places)], random)
    before = kind_of(columns)
    order = random.sample(range(places), places)
    random.shuffle(columns)
    assert kind_of([column.gather(order) for column in columns]) == before


def test_sets_are_inferred_from_a_bounded_number_of_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    random = Random(5)
    columns = observe(reordered, 20, [numbers(400, random) for _ in range(60)], random)
    compared: list[Sequence[int]] = []
    count = sets._count_inverted

    def counted(numbers: Sequence[int]) -> int:
        compared.append(numbers)
        return count(numbers)

    monkeypatch.setattr(sets, "_count_inverted", counted)
    monkeypatch.setattr(sets, "MAX_COMPARISONS", 200)
    assert kind_of(columns).kind == "set"
    assert 0 < len(compared) <= 200
    assert max(map(len, compared)) <= sets.MAX_MEMBERS


# Through the vote on files


def in_csv(lists: Sequence[List]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(
        [["id", "tags"], *([f"r{number}", json.dumps(items)] for number, items in enumerate(lists))]
    )
    return out.getvalue()


def in_records(lists: Sequence[List]) -> str:
    return "".join(json.dumps({"id": f"r{n}", "tags": items}) + "\n" for n, items in enumerate(lists))


def in_objects(lists: Sequence[List]) -> str:
    return json.dumps([{"id": f"r{n}", "about": {"tags": items, "n": n}} for n, items in enumerate(lists)])


def in_document(lists: Sequence[List]) -> str:
    entries = [{"name": f"r{n}", "tags": items} for n, items in enumerate(lists)]
    return json.dumps({"entries": entries, "total": len(lists)}, indent=1)


def in_members(lists: Sequence[List]) -> str:
    return json.dumps(
        {"total": 1, "by": {f"r{n}": {"tags": items} for n, items in enumerate(lists)}}, indent=1
    )


def from_csv(text: str) -> list[Any]:
    return [json.loads(row[1]) if row[1] else None for row in list(csv.reader(io.StringIO(text)))[1:]]


Shape = tuple[str, Callable[[Sequence[List]], str], Callable[[str], list[Any]], str]
SHAPES: list[Shape] = [
    ("a.csv", in_csv, from_csv, "tags"),
    ("a.jsonl", in_records, lambda text: [json.loads(line)["tags"] for line in text.splitlines()], "tags"),
    ("a.json", in_objects, lambda text: [one["about"]["tags"] for one in json.loads(text)], "/about/tags"),
    (
        "a.json",
        in_document,
        lambda text: [one["tags"] for one in json.loads(text)["entries"]],
        "/entries/*/tags",
    ),
    ("a.json", in_members, lambda text: [one["tags"] for one in json.loads(text)["by"].values()], "tags"),
]
shapes = pytest.mark.parametrize(("path", "write", "read", "name"), SHAPES)


def decide(path: str, texts: Sequence[str], definition: VoteDefinition | None = None) -> FileDecision:
    versions = {node: text.encode() for node, text in zip("abcdefgh", texts, strict=False)}
    asked = definition or VoteDefinition()
    return decide_file(path, versions, incumbent=None, definition=asked, weights={})


@shapes
def test_sets_are_voted_in_every_kind_of_file(
    path: str, write: Callable[[Sequence[List]], str], read: Callable[[str], list[Any]], name: str
) -> None:
    random = Random(f"{path}{name}")
    truth = [words(random.randint(2, 7), random) for _ in range(25)]
    versions = [[reordered(items, node, random) for items in truth] for node in range(5)]
    versions[4][3] = ["wrong", *versions[4][3]]
    texts = [write(version) for version in versions]
    found = decide(path, texts)
    chosen = read((found.content or b"").decode())
    assert [set(items) for items in chosen] == [set(items) for items in truth]
    assert all(items in [version[n] for version in versions] for n, items in enumerate(chosen))
    assert [tally.differing for tally in found.votes.values()] == [0, 0, 0, 0, 1]
    assert (found.conflicts, len(found.cells)) == (0, 1)
    assert [(field.name, field.kind) for field in found.fields] == [(name, "set")]


@shapes
def test_sets_rankings_in_files_stay_lists(
    path: str, write: Callable[[Sequence[List]], str], read: Callable[[str], list[Any]], name: str
) -> None:
    random = Random(f"{path}{name}")
    truth = [words(random.randint(4, 8), random) for _ in range(25)]
    versions = [
        [neighbours_swapped(items, node, random) if random.random() < 0.2 else items for items in truth]
        for node in range(5)
    ]
    found = decide(path, [write(version) for version in versions])
    most = [n for n, items in enumerate(truth) if sum(version[n] == items for version in versions) > 2]
    chosen = read((found.content or b"").decode())
    assert [chosen[n] for n in most] == [truth[n] for n in most]
    assert [(field.name, field.kind) for field in found.fields] == [(name, "list")]
    assert sum(tally.differing for tally in found.votes.values())


@shapes
def test_sets_are_shown_and_pinned_as_they_are_voted(
    path: str, write: Callable[[Sequence[List]], str], read: Callable[[str], list[Any]], name: str
) -> None:
    random = Random(f"{path}{name}")
    truth = [words(random.randint(2, 7), random) for _ in range(25)]
    texts = [write([reordered(items, node, random) for items in truth]) for node in range(3)]
    versions = {node: text.encode() for node, text in zip("abc", texts, strict=True)}
    shown = describe_file(path, versions, VoteDefinition())
    assert [(field.kind, field.unsure) for field in shown.fields if field.name == name] == [("set", "")]
    pinned = Schema(commits={}, definition=VoteDefinition(), files=[shown], more=0).pinned()
    rule = pinned.rule_for(path)
    assert FileRule.model_validate(rule.model_dump()).fields[name].type == "set"
    assert decide(path, texts, pinned).content == decide(path, texts).content
