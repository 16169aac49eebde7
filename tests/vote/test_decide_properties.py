"""Properties of every vote, whatever the nodes' files."""

from __future__ import annotations

import csv
import io
import json
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from mao_shared.models.round import FieldRule, FileRule, VoteDefinition
from mao_vote import decide_file, decide_numbers

Rows = dict[str, tuple[str, str]]
EMPTY_COUNTS = {"*": FieldRule(missing_is_value=True)}
KEYED = VoteDefinition(files=[FileRule(key=["id"], fields=EMPTY_COUNTS)])
UNKEYED = VoteDefinition(files=[FileRule(fields=EMPTY_COUNTS)])
values = st.one_of(
    st.sampled_from(["", "a", "b", "c", "1", "1.0", "2", "2.05", "-2", "-2.05", "1e3", "x,y", 'q"', " s "]),
    st.integers(-50, 50).map(str),
)
rows = st.dictionaries(st.sampled_from("pqrstu"), st.tuples(values, values), max_size=6)
finite = st.floats(-1e9, 1e9, allow_nan=False).map(lambda value: value + 0.0)
numbers = st.lists(finite | st.integers(-3, 3).map(float), min_size=1, max_size=12)


def as_csv(table: Rows) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "x", "y"])
    writer.writerows([key, *fields] for key, fields in table.items())
    return text.getvalue().encode()


def as_rows(content: bytes) -> Rows:
    _, *records = csv.reader(io.StringIO(content.decode()))
    return {key: (x, y) for key, x, y in records}


def decided(contents: list[bytes], incumbent: bytes | None = None, path: str = "a.csv") -> bytes:
    versions = {f"n{number}": content for number, content in enumerate(contents)}
    found = decide_file(path, versions, incumbent=incumbent, definition=KEYED, weights={})
    assert found.content is not None
    return found.content


tables = st.lists(rows, min_size=1, max_size=6)


@settings(deadline=None)
@given(tables, st.none() | rows, st.randoms(use_true_random=False))
def test_decide_file_order_of_the_nodes_does_not_matter(
    brought: list[Rows], incumbent: Rows | None, random: Random
) -> None:
    before = None if incumbent is None else as_csv(incumbent)
    contents = [as_csv(table) for table in brought]
    first = decided(contents, before)
    random.shuffle(contents)
    assert decided(contents, before) == first


@settings(deadline=None)
@given(rows, st.lists(rows, min_size=1, max_size=3), st.none() | rows)
def test_decide_file_fewer_than_half_liars_never_win(
    honest: Rows, lies: list[Rows], incumbent: Rows | None
) -> None:
    truth = as_csv(honest)
    contents = [as_csv(lie) for lie in lies] + [truth] * (len(lies) + 1)
    assert decided(contents, None if incumbent is None else as_csv(incumbent)) == truth


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from("xyz"), st.text(max_size=4) | st.integers()), max_size=4))
def test_decide_file_liars_never_win_in_json_without_a_declared_key(
    honest: list[dict[str, str | int]],
) -> None:
    truth = json.dumps(honest).encode()
    contents = [truth, truth, b'[{"x": 1}, {"y": 2, "z": null}]', b'{"x": [1, {}]}', truth]
    versions = {f"n{number}": content for number, content in enumerate(contents)}
    found = decide_file("a.json", versions, incumbent=None, definition=UNKEYED, weights={})
    assert found.content == truth


@settings(deadline=None)
@given(rows, st.integers(1, 5), st.none() | rows)
def test_decide_file_what_all_say_comes_back_byte_for_byte(
    table: Rows, nodes: int, incumbent: Rows | None
) -> None:
    content = as_csv(table)
    assert decided([content] * nodes, None if incumbent is None else as_csv(incumbent)) == content


@settings(deadline=None)
@given(tables)
def test_decide_file_result_voted_again_is_itself(brought: list[Rows]) -> None:
    result = decided([as_csv(table) for table in brought])
    assert decided([result] * 3, result) == result


@settings(deadline=None)
@given(tables)
def test_decide_file_every_value_was_observed_or_is_the_null_of_a_conflict(brought: list[Rows]) -> None:
    versions = {f"n{number}": as_csv(table) for number, table in enumerate(brought)}
    found = decide_file("a.csv", versions, incumbent=None, definition=KEYED, weights={})
    undecided = {(*cell.key, cell.field) for cell in found.cells if cell.why == "undecided"}
    for key, fields in as_rows(found.content or b"").items():
        for number, (name, value) in enumerate(zip(("x", "y"), fields, strict=True)):
            observed = {table[key][number] for table in brought if key in table}
            assert value in observed or (value == "" and (key, name) in undecided)


@settings(deadline=None)
@given(numbers)
def test_decide_file_numbers_are_observed_ones_and_turn_with_their_signs(given_numbers: list[float]) -> None:
    found = decide_numbers(given_numbers)
    assert found.value in given_numbers
    turned = decide_numbers([-value for value in given_numbers][::-1])
    assert turned.why == found.why
    if found.why in ("majority", "plurality", "tolerance"):
        assert turned.value == -(found.value or 0.0)


@settings(deadline=None)
@given(st.lists(finite, min_size=3, max_size=9), st.data())
def test_decide_file_number_of_fewer_than_a_third_of_liars_lies_between_honest_ones(
    honest: list[float], data: st.DataObject
) -> None:
    most = (len(honest) - 1) // 2
    lies = data.draw(st.lists(st.sampled_from([1e300, -1e300, 5.5e11]), max_size=min(most, 2)))
    if 3 * len(lies) < len(honest) + len(lies) and len(set(lies)) == len(lies):
        value = decide_numbers([*lies, *honest]).value
        assert value is not None
        assert min(honest) <= value <= max(honest)
