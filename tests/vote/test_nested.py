"""Nested documents: what is in the result was observed, as such, at that place."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import polars
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mao_shared.json_text import parse_json
from mao_shared.models.round import FileRule, Fold, VoteDefinition
from mao_vote import FileDecision, decide_file
from mao_vote.records import NestedText, NotRecords, Reader, check_document, leaf_table, plan_layout
from mao_vote.records.fields.folding import fold_texts
from mao_vote.records.nested.documents import find_places
from mao_vote.records.nested.paths import leaf_pattern
from mao_vote.records.writing.write_nested import write_nested

Document = dict[str, Any]
SETS = {"/tags": {"type": "set"}, "/entries/*/tags": {"type": "set"}}
WORDS = [
    "",
    "x",
    "a/b",
    "~",
    "~0~1",
    "[0]",
    '[name="x"]',
    "=",
    ",",
    '"',
    "\\",
    "\0",
    "ä",
    "a\u0308",
    "0",
    "*",
]


def vote(*documents: object, **rule: object) -> FileDecision:
    """Vote on documents, or their texts, as those of nodes a, b, c …"""
    definition = VoteDefinition(files=[FileRule.model_validate(rule)])
    texts = [text if isinstance(text, str) else json.dumps(text, indent=2) for text in documents]
    versions = {node: text.encode() for node, text in zip("abcdefgh", texts, strict=False)}
    return decide_file("d.json", versions, incumbent=None, definition=definition, weights={})


def result(*documents: object, **rule: object) -> Any:
    return json.loads(vote(*documents, **rule).content or b"")


def entry(name: str, number: int) -> Document:
    return {
        "name": name,
        "date": f"2026-01-{number + 1:02}",
        "size": {
            "bytes": 1000 * (number + 1),
            "unit": "B",
            "files": [{"id": name, "n": 1}, {"id": "all", "n": 2}],
        },
        "tags": ["t", name, "u", "v"],
        "parts": [{"id": part, "sum": f"{name}{part}"} for part in range(3)],
    }


def document(entries: int = 6) -> Document:
    """A list of entries with identity, in each of which there is another; sets; and a list without."""
    return {
        "host": "h",
        "cpu": {"cores": [1, 2], "mhz": 2000},
        "tags": ["p", "q", "r", "s", "t"],
        "none": {"list": [], "object": {}},
        "entries": [entry(f"e{number}", number) for number in range(entries)],
        "log": [{"level": 1}, {"level": 1}, {"level": 2}],
    }


# What a random node makes of a document

Places = list[tuple[Any, Any]]  # an object or list, and a member or index in it


def places_of(value: Any, *kinds: type) -> Places:
    """Return where in a document there are values of some kinds."""
    found: Places = []
    for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(inner, kinds):
            found.append((value, name))
        if isinstance(inner, dict | list):
            found += places_of(inner, *kinds)
    return found


def lists_with_identity(value: Document) -> list[tuple[list[Any], str]]:
    """Return the lists of entries, in objects of entries too, with the member that identifies these."""
    found = [(where[name], name) for where, name in places_of(value, list) if isinstance(where, dict)]
    members = {"entries": "name", "parts": "id", "files": "id"}
    return [(items, members[name]) for items, name in found if name in members]


def add_entry(value: Document, random: Random) -> None:
    if lists := lists_with_identity(value):
        found, member = random.choice(lists)
        new = f"new{random.randrange(3)}" if member == "name" else 7 + random.randrange(3)
        if all(not isinstance(one, dict) or one.get(member) != new for one in found):
            made = entry(str(new), 9) if member == "name" else {"id": new, "sum": "new"}
            found.insert(random.choice([0, len(found)]), made)


def remove_entry(value: Document, random: Random) -> None:
    lists = [found for found, _ in lists_with_identity(value) if found]
    if lists:
        found = random.choice(lists)
        del found[random.randrange(len(found))]


def reorder_entries(value: Document, random: Random) -> None:
    for found, _ in lists_with_identity(value):
        random.shuffle(found)


def reorder_sets(value: Document, random: Random) -> None:
    for where, name in places_of(value, list):
        if name == "tags":
            random.shuffle(where[name])


def change_value(value: Document, random: Random) -> None:
    changeable = [(where, name) for where, name in places_of(value, int, str) if name not in ("name", "id")]
    where, name = random.choice(changeable)
    where[name] = random.choice([None, "other", 77, {"a": 1}, [], {}])


def remove_member(value: Document, random: Random) -> None:
    members = [
        (where, name)
        for where, name in places_of(value, object)
        if isinstance(where, dict) and name not in ("name", "id", "entries")
    ]
    where, name = random.choice(members)
    del where[name]


def add_member(value: Document, random: Random) -> None:
    where, name = random.choice(places_of(value, dict))
    where[name][f"m{random.randrange(2)}"] = random.randrange(2)


def replace_object(value: Document, random: Random) -> None:
    if objects := [(where, name) for where, name in places_of(value, dict) if isinstance(where, dict)]:
        where, name = random.choice(objects)
        where[name] = random.choice([None, 5, {}])


def change_list(value: Document, random: Random) -> None:
    if isinstance(value.get("log"), list):
        value["log"] = random.sample(value["log"], len(value["log"]))[: random.randrange(1, 4)]


def double_entry(value: Document, random: Random) -> None:
    if lists := [found for found, _ in lists_with_identity(value) if found]:
        found = random.choice(lists)
        found.append(copy.deepcopy(random.choice(found)))


def replace_entry(value: Document, random: Random) -> None:
    if lists := [found for found, _ in lists_with_identity(value) if found]:
        found = random.choice(lists)
        found[random.randrange(len(found))] = random.choice([None, 5, "x", [], {}, [1]])


def empty_container(value: Document, random: Random) -> None:
    if places := [(where, name) for where, name in places_of(value, dict, list)]:
        where, name = random.choice(places)
        where[name] = random.choice([[], {}])


def fill_container(value: Document, random: Random) -> None:
    if places := [(where, name) for where, name in places_of(value, dict, list) if not where[name]]:
        where, name = random.choice(places)
        where[name] = random.choice(
            [[1], {"a": 1}, [{"id": 1, "v": 1}], [{"id": 2, "v": [{"id": 1}]}], [[]], {"a": {}}]
        )


Change = Callable[[Document, Random], None]
CHANGES: list[Change] = [
    double_entry,
    replace_entry,
    empty_container,
    fill_container,
    add_entry,
    remove_entry,
    reorder_entries,
    reorder_sets,
    change_value,
    remove_member,
    add_member,
    replace_object,
    change_list,
]


@st.composite
def observed_documents(draw: st.DrawFn) -> list[Document]:
    random = draw(st.randoms(use_true_random=False))
    found = []
    for _ in range(draw(st.integers(3, 5))):
        observed = copy.deepcopy(document(4))
        for change in draw(st.lists(st.sampled_from(CHANGES), max_size=4)):
            change(observed, random)
        found.append(observed)
    return found


# What may be in the result


def identify(items: Any) -> str | None:
    """Return the member that identifies the entries of a list, by the names in `document`.

    Short logs may have entries of different levels, which then tell them apart.
    """
    if isinstance(items, list) and all(isinstance(item, dict) for item in items):
        for member in ("name", "id", "level"):
            names = [json.dumps(item[member]) for item in items if member in item]
            if len(names) == len(items) == len(set(names)):
                return member
    return None


Undecided = set[str]
"""The paths of values that are null since the vote on them was tied."""


def fault(chosen: Any, seen: Sequence[Any], path: str, undecided: Undecided) -> str | None:
    """Return why a value of the result is none that nodes observed at its place, None if it is one."""
    if chosen in seen or (chosen is None and path in undecided):
        return None
    if isinstance(chosen, dict):
        return fault_of_object(chosen, [value for value in seen if isinstance(value, dict)], path, undecided)
    if isinstance(chosen, list) and (member := identify(chosen)):
        lists = [value for value in seen if value == [] or identify(value) == member]
        return fault_of_list(chosen, lists, member, path, undecided)
    return f"{path}: {chosen!r} is not in {list(seen)!r}"


def fault_of_object(
    chosen: Document, objects: Sequence[Document], path: str, undecided: Undecided
) -> str | None:
    if not objects:
        return f"{path}: no node has an object"
    for name in {name for value in [*objects, chosen] for name in value}:
        holders = [value[name] for value in objects if name in value]
        if 2 * len(holders) > len(objects) and name not in chosen:
            return f"{path}: most have {name}"
        if name in chosen and 2 * len(holders) < len(objects):
            return f"{path}: most lack {name}"
        if name in chosen and (why := fault(chosen[name], holders, f"{path}/{name}", undecided)):
            return why
    return None


def fault_of_list(
    chosen: list[Document], lists: Sequence[list[Document]], member: str, path: str, undecided: Undecided
) -> str | None:
    """Return the fault of a list whose entries have identity; nodes whose lists have none do not count."""
    entries = {json.dumps(one[member]): one for one in chosen}
    for name in entries | {json.dumps(one[member]): None for found in lists for one in found}:
        here = f"{path}/[{member}={name}]"
        same = [other for found in lists for other in found if json.dumps(other[member]) == name]
        if name not in entries:
            if 2 * len(same) > len(lists):
                return f"{here}: most have it"
        elif 2 * len(same) < len(lists) or not same:
            return f"{here}: most lack it"
        elif why := fault(entries[name], same, here, undecided):
            return why
    return None


@settings(deadline=None, max_examples=20)
@given(observed_documents(), st.sampled_from([SETS, {}]))
def test_nested_whatever_is_in_the_result_was_observed_there(
    observed: list[Document], fields: Document
) -> None:
    found = vote(*observed, fields=fields)
    undecided = {cell.key[0] for cell in found.cells if cell.why == "undecided"}
    assert fault(json.loads(found.content or b""), observed, "", undecided) is None


@settings(deadline=None, max_examples=20)
@given(observed_documents(), st.randoms(use_true_random=False))
def test_nested_order_of_the_nodes_does_not_matter(observed: list[Document], random: Random) -> None:
    first = vote(*observed, fields=SETS)
    random.shuffle(observed)
    assert vote(*observed, fields=SETS).content == first.content


@settings(deadline=None, max_examples=20)
@given(observed_documents())
def test_nested_result_voted_again_is_itself(observed: list[Document]) -> None:
    content = (vote(*observed, fields=SETS).content or b"").decode()
    assert vote(content, content, content, fields=SETS).content == content.encode()
    if "null" not in content:  # a null is no observation, against which one that there is wins
        assert vote(content, content, observed[0], fields=SETS).content == content.encode()


@settings(deadline=None, max_examples=20)
@given(observed_documents())
def test_nested_fewer_than_half_liars_never_win(observed: list[Document]) -> None:
    truth = json.dumps(document(), indent=1)
    liars = observed[:2]
    assert vote(*liars, truth, truth, truth, fields=SETS).content == truth.encode()


def test_nested_entry_that_one_node_has_in_front_changes_nothing_else() -> None:
    usual, other = document(), document()
    other["entries"].insert(0, entry("new", 20))
    found = vote(usual, usual, other, usual, usual)
    assert json.loads(found.content or b"") == usual
    assert [(cell.key, cell.field) for cell in found.cells] == [(('/entries/[name="new"]',), "")]


def test_nested_entry_that_most_nodes_have_comes_in_where_they_have_it() -> None:
    usual, other = document(), document()
    other["entries"].insert(2, entry("new", 20))
    other["entries"][4]["date"] = "2027-01-01"
    third = copy.deepcopy(other)
    third["entries"][2]["date"] = "2027-01-02"
    third["entries"][4]["date"] = usual["entries"][3]["date"]
    expected = copy.deepcopy(other)
    expected["entries"][4]["date"] = usual["entries"][3]["date"]
    chosen = result(usual, other, third, other)
    assert [one["name"] for one in chosen["entries"]] == ["e0", "e1", "new", "e2", "e3", "e4", "e5"]
    assert chosen["entries"][2] == entry("new", 20)


@pytest.mark.parametrize("seed", range(5))
def test_nested_numbers_with_noise_have_an_observed_value(seed: int) -> None:
    random = Random(seed)

    def noisy() -> Document:
        made = document()
        made["cpu"]["mhz"] = 2000 * random.gauss(1, 0.005)
        for one in made["entries"]:
            one["size"]["bytes"] = one["size"]["bytes"] * random.gauss(1, 0.005)
        return made

    observed = [noisy() for _ in range(5)]
    found = vote(*observed)
    chosen = json.loads(found.content or b"")
    assert found.conflicts == 0
    assert fault(chosen, observed, "", set()) is None
    assert all(one["size"]["bytes"] is not None for one in chosen["entries"])


# Sets, lists, and where identity is unsure


@pytest.mark.parametrize(
    ("lists", "chosen"),
    [
        ((["b", "a"], ["a", "b"], ["c"]), {"a", "b"}),
        (([2, 1, 1], [1, 2], [1]), {1, 2}),
        (([{"a": 1}], [{"a": 1}, {"a": 1}], []), None),
    ],
)
def test_nested_sets_compare_as_sets_and_are_written_as_a_node_has_them(
    lists: Sequence[list[Any]], chosen: set[Any] | None
) -> None:
    found = vote(*({"tags": tags} for tags in lists), fields={"/tags": {"type": "set"}})
    tags = json.loads(found.content or b"")["tags"]
    assert tags in lists[:2]
    assert chosen is None or set(tags) == chosen
    assert [tally.differing for _, tally in sorted(found.votes.items())] == [0, 0, 1]


def test_nested_lists_of_values_are_taken_whole_from_a_node() -> None:
    lists = [[1, 2, 3], [1, 2, 4], [1, 2, 3, 4], [1, 2, 4]]
    assert result(*({"l": found} for found in lists)) == {"l": [1, 2, 4]}


@pytest.mark.parametrize(
    ("lists", "why"),
    [
        (([{"v": 1}, {"v": 1}], [{"v": 1}, {"v": 1}], [{"v": 2}]), "no member that tells them apart"),
        (([{"v": 1.5}, {"v": 2.5}], [{"v": 1.5}, {"v": 2.5}], [{"v": 2.5}]), "no member that tells"),
        (([{"id": 1}, 5], [{"id": 1}, 5], [{"id": 2}]), "not all objects"),
        (([{"t": "1"}, {"t": "2"}], [{"t": "3"}, {"t": "4"}], [{"t": "5"}]), "no member that tells"),
    ],
)
def test_nested_list_without_identity_is_decided_as_a_whole_and_says_so(
    lists: Sequence[list[Any]], why: str
) -> None:
    found = vote(*({"l": items, "x": 1} for items in lists))
    assert [
        note
        for note in found.warnings
        if note.startswith("decided as a whole: the entries of /l") and why in note
    ]
    assert json.loads(found.content or b"")["l"] in [*lists, None]
    assert [cell.key for cell in found.cells] == [("/l",)]


@pytest.mark.parametrize(
    ("entries", "key"),
    [
        ([{"n": 1, "name": "x"}, {"n": 2, "name": "y"}], "name"),
        ([{"text": "x", "ID": 5}, {"text": "y", "ID": 6}], "ID"),
        ([{"rank": 1, "who": "x"}, {"rank": 2, "who": "y"}], "who"),
        ([{"rank": 1, "share": 0.5}, {"rank": 2, "share": 0.25}], "rank"),
        ([{"day": "mo", "hour": 1}, {"day": "mo", "hour": 2}, {"day": "tu", "hour": 1}], "day,hour"),
        ([{"n": 1, "m": 1}, {"n": 2, "m": 1}], "n"),
        ([{"at": "2026-01-01T00:00Z", "v": 1}, {"at": "2026-01-01T01:00Z", "v": 1}], "at"),
    ],
)
def test_nested_identity_is_inferred(entries: list[Document], key: str) -> None:
    documents = [parse_json(json.dumps({"l": found})) for found in (entries, entries[::-1], entries)]
    layout = plan_layout(documents, [1, 1, 1], Reader(FileRule()))
    assert layout.keys == {"/l": tuple(key.split(","))}


def test_nested_identity_is_declared_by_pattern() -> None:
    inner = [{"a": 1, "b": 1.5}, {"a": 1, "b": 2.5}]
    usual = {"groups": [{"name": "g", "l": inner}]}
    other = {"groups": [{"name": "g", "l": [{"a": 7, "b": 3.5}, *inner]}]}
    third = {"groups": [{"name": "g", "l": [{"a": 9, "b": 1.5}, inner[1]]}]}
    assert result(usual, other, third, fields={"/groups/*/l": {"key": ["b"]}}) == usual
    assert result(usual, other, usual, fields={"/groups/*/l": {"type": "list"}}) == usual


@pytest.mark.parametrize(
    ("fold", "names"),
    [([], ("ä", "a\u0308")), (["case"], ("Straße", "STRASSE")), (["space"], ("a b", " a  b "))],
)
def test_nested_spellings_of_an_identity_that_do_not_count(fold: list[str], names: tuple[str, str]) -> None:
    first, second = ({"l": [{"name": name, "v": 1}, {"name": "z", "v": 2}]} for name in names)
    found = vote(first, first, second, fields={"/l": {"key": ["name"], "fold": fold}})
    assert json.loads(found.content or b"") == first
    assert not any(cell.why == "row" for cell in found.cells)


@pytest.mark.parametrize("fold", ["case", "space", "accents"])
@pytest.mark.parametrize(
    "names",
    [
        ("Straße", "STRASSE"),
        ("λόγος", "ΛΌΓΟΣ"),
        ("İstanbul", "i\u0307stanbul"),
        ("Zoë", "Zoe"),
        ("が", "か"),
        ("क्", "क"),
        ("a\u20dd", "a"),
        ("a\u200bb", "a b"),
        ("a\xa0b", "a  b"),
        ("\ufeffa", "a"),
        ("a\x1cb", "a b"),
    ],
)
def test_nested_identity_is_folded_as_the_key_of_records(fold: Fold, names: tuple[str, str]) -> None:
    first, second = ({"l": [{"name": name, "v": 1}, {"name": "z", "v": 2}]} for name in names)
    found = vote(first, first, second, fields={"/l": {"key": ["name"], "fold": [fold]}})
    alike = fold_texts(polars.Series(names), [fold]).n_unique() == 1
    assert any(cell.why == "row" for cell in found.cells) != alike


def test_nested_node_whose_entries_are_doubled_does_not_count_there() -> None:
    usual, doubled = document(), document()
    doubled["entries"].append(entry("e0", 9))
    doubled["host"] = "other"
    found = vote(usual, doubled, usual)
    assert json.loads(found.content or b"") == usual
    assert "/entries of b does not count: two entries have the same 'name'" in found.warnings


def test_nested_node_that_has_a_name_twice_in_an_object_abstains() -> None:
    usual = json.dumps(document())
    twice = usual.replace('"host": "h"', '"host": "x", "host": "y"')
    found = vote(usual, twice, usual)
    assert found.content == usual.encode()
    assert found.abstained == {"b": "it is not JSON: the name 'host' occurs twice in one object"}


def test_nested_object_that_some_have_as_null_is_what_the_others_observed() -> None:
    usual, none = {"a": {"x": 1, "y": [1]}, "b": 2}, {"a": None, "b": 2}
    assert result(none, usual, none) == usual
    assert result(none, none, none) == none
    assert result(none, usual, none, fields={"/a": {"missing_is_value": True}}) == none


def test_nested_kinds_of_which_none_has_most_are_decided_as_a_whole() -> None:
    found = vote({"a": {"x": 1}, "b": 1}, {"a": 5, "b": 1}, {"a": 5, "b": 1}, {"a": {"x": 1}, "b": 1})
    assert json.loads(found.content or b"")["a"] in ({"x": 1}, 5)
    assert [cell.why for cell in found.cells] == ["tie"]
    assert any(note.startswith("decided as a whole: /a") for note in found.warnings)
    nothing = vote({"a": {"x": 1}, "b": 1}, {"a": {"y": 1}, "b": 1}, {"a": {"z": 1}, "b": 1})
    assert json.loads(nothing.content or b"")["a"] in ({"x": 1}, {"y": 1}, {"z": 1}, None)


@pytest.mark.parametrize("name", ["date", "/entries/*/date"])
def test_nested_fields_that_are_ignored_or_volatile_in_entries(name: str) -> None:
    observed = [document() for _ in range(3)]
    for number, found in enumerate(observed):
        for one in found["entries"]:
            one["date"] = f"2026-02-0{number + 1}"
    volatile = vote(*observed, volatile=[name])
    assert not volatile.cells
    assert {one["date"] for one in json.loads(volatile.content or b"")["entries"]} == {"2026-02-02"}
    chosen = result(*observed, ignore=[name])
    assert all("date" not in one for one in chosen["entries"])
    assert [one["name"] for one in chosen["entries"]] == [f"e{number}" for number in range(6)]


def test_nested_volatile_members_do_not_tell_lists_without_identity_apart() -> None:
    observed = [{"l": [{"v": 1, "at": at}, {"v": 1, "at": at + 1}], "m": at} for at in (5, 3, 4)]
    found = vote(*observed, volatile=["at", "m"])
    assert not found.cells
    assert json.loads(found.content or b"")["l"] in [one["l"] for one in observed]
    assert all("at" not in one for one in result(*observed, ignore=["at", "m"])["l"])


@pytest.mark.parametrize("rows", ["any", 2])
def test_nested_rows_of_a_definition_are_entries(rows: str | int) -> None:
    observed = [
        {"l": [{"id": number, "v": 1} for number in numbers]} for numbers in ([1, 2], [2, 3], [3, 4], [2])
    ]
    chosen = [one["id"] for one in result(*observed, rows=rows)["l"]]
    assert sorted(chosen) == ([1, 2, 3, 4] if rows == "any" else [2, 3])


def vote_in_groups(groups: list[list[str]], **texts: Any) -> list[int]:
    """Return which entries are in the result of a vote on lists of numbered entries."""
    definition = VoteDefinition.model_validate(
        {"groups": groups, "files": [{"fields": {"/l": {"key": ["id"]}}}]}
    )
    versions = {node: json.dumps(found).encode() for node, found in texts.items()}
    found = decide_file("d.json", versions, incumbent=None, definition=definition, weights={})
    return [one["id"] for one in json.loads(found.content or b"").get("l", [])]


def numbered(*ids: int, size: int = 1) -> Document:
    return {"x": 1, "l": [{"id": number, "v": size} for number in ids]}


@pytest.mark.parametrize(
    ("groups", "present"),
    [
        ([], [1, 2, 3]),
        ([["c", "d", "e"]], [1, 2, 4]),
        ([["c", "d"], ["d", "e"]], [1, 2, 4]),  # a node in two groups makes them one
        ([["c", "e"]], [1, 2, 3]),  # tied: three nodes weigh more than two
        ([["a", "b"]], [1, 2, 3]),
        ([["a", "b"], ["c", "d", "e"]], [1, 2, 3]),
        ([["x", "y"], ["e", "z"]], [1, 2, 3]),
    ],
)
def test_nested_nodes_of_a_group_have_one_voice_on_what_is_there(
    groups: list[list[str]], present: list[int]
) -> None:
    honest, copied = numbered(1, 2, 4), numbered(1, 2, 3)
    found = vote_in_groups(groups, a=honest, b=honest, c=copied, d=copied, e=copied)
    assert found == present


@pytest.mark.parametrize(
    ("having", "is_there"),
    [("a", False), ("ab", True), ("ac", False), ("acd", True), ("cde", False), ("bde", True)],
)
def test_nested_nodes_of_a_group_that_differ_share_its_voice(having: str, is_there: bool) -> None:
    texts = {node: numbered(1, 2, *([3] if node in having else []), size=ord(node)) for node in "abcde"}
    assert (3 in vote_in_groups([["c", "d", "e"]], **texts)) == is_there


def test_nested_nodes_of_a_group_that_lack_what_is_around_do_not_count() -> None:
    usual, more, none = numbered(1, 2), numbered(1, 2, 3), {"x": 1}
    groups = [["c", "d", "e"]]
    assert vote_in_groups(groups, a=usual, b=more, c=more, d=none, e=none) == [1, 2, 3]
    assert vote_in_groups(groups, a=usual, b=usual, c=more, d=none, e=none) == [1, 2]
    assert vote_in_groups(groups, a=usual, b=usual, c=none, d=none, e=none) == [1, 2]


# Paths

names = st.sampled_from(WORDS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(WORDS) | st.just(1.5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(names, inner, max_size=3)
        | st.lists(
            st.tuples(names | st.integers(0, 99), inner).map(lambda pair: {"id": pair[0], "v": pair[1]}),
            max_size=4,
            unique_by=lambda one: json.dumps(one["id"]),
        )
    ),
    max_leaves=20,
)


def texts_of(value: Any, indent: int | None) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=indent is None)


@settings(deadline=None, max_examples=20)
@given(values, st.sampled_from([None, 1]))
def test_nested_document_is_the_same_after_it_was_a_table(value: Any, indent: int | None) -> None:
    text = texts_of(value, indent)
    reader = Reader(FileRule())
    layout = plan_layout([parse_json(text)], [1], reader)
    leaves = leaf_table(parse_json(text), layout, reader)
    assert leaves.table["path"].n_unique() == leaves.table.height
    rows = [(path, found) for path, found, _ in leaves.table.iter_rows()]
    assert write_nested(rows, [NestedText(text, reader, layout)]) == text


@settings(deadline=None, max_examples=20)
@given(values)
def test_nested_patterns_of_paths_are_pointers_with_any_entry(value: Any) -> None:
    reader, document = Reader(FileRule()), parse_json(json.dumps(value))
    layout = plan_layout([document], [1], reader)
    paths = leaf_table(document, layout, reader).table["path"]
    patterns = [place.pattern for place in find_places(document, layout, reader)]
    assert [leaf_pattern(path) for path in paths] == patterns


@settings(deadline=None, max_examples=20)
@given(values, values)
def test_nested_document_is_written_with_the_text_of_another(value: Any, other: Any) -> None:
    text, model = texts_of(value, None), texts_of(other, 2)
    reader = Reader(FileRule())
    layout = plan_layout([parse_json(text), parse_json(model)], [2, 1], reader)
    leaves = leaf_table(parse_json(text), layout, reader)
    assume(leaves.is_complete)
    rows = [(path, found) for path, found, _ in leaves.table.iter_rows()]
    sources = [NestedText(one, reader, layout) for one in (model, text)]
    assert json.loads(write_nested(rows, sources)) == value


@pytest.mark.parametrize("text", ['{"a": [{"id": "\\ud800", "v": 1}, {"id": "y"}]}', '{"a": "\\udfff"}'])
def test_nested_half_a_letter_in_an_identity_or_a_value_stays(text: str) -> None:
    found = vote(text, text.replace("}", ', "n": 2}'), text.replace("}", ', "m": 3}'))
    assert json.loads(found.content or b"") == json.loads(text)


def test_nested_document_that_is_too_deep_is_refused() -> None:
    deep = "[" * 102 + "]" * 102
    with pytest.raises(NotRecords):
        check_document(parse_json(deep))
    assert vote(deep, deep.replace("[]", "[1]")).kind == "opaque"
