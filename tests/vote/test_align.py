"""Records without a key are aligned by content, like the lines of logs."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import polars
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mao_shared.models.round import FileRule, VoteDefinition
from mao_vote import FileDecision, decide_file
from mao_vote.records import Key, Version, align, compare, number_records, ordered_places
from mao_vote.records.keys import lines

BY_CONTENT = Key((), "position")
LOG = ["start", "load", "load", "end", "load", "end", "stop"]  # a line is not unique, so there is no key


def vote(*logs: Sequence[str], incumbent: Sequence[str] | None = None, **rule: object) -> FileDecision:
    definition = VoteDefinition(files=[FileRule.model_validate(rule)] if rule else [])
    return decide_file(
        "log.csv",
        {f"n{number}": as_csv(log) for number, log in enumerate(logs)},
        incumbent=None if incumbent is None else as_csv(incumbent),
        definition=definition,
        weights={},
    )


def as_csv(log: Sequence[str], heading: str = "line") -> bytes:
    return "".join(f"{line}\n" for line in [heading, *log]).encode()


def cells(found: FileDecision) -> dict[tuple[str, str], str | None]:
    return {(cell.key[0], cell.field): cell.chosen for cell in found.cells}


def table(log: Sequence[str], *names: str) -> polars.DataFrame:
    columns = names or ("line",)
    rows = [line.split(",") if names else [line] for line in log]
    return polars.DataFrame(rows, schema=dict.fromkeys(columns, polars.String), orient="row")


def version(log: Sequence[str], *names: str) -> Version:
    return Version(table(log, *names), ("n",), 1)


def places(logs: Sequence[Sequence[str]]) -> tuple[list[list[int]], int]:
    found, count = lines.align_lines([table(log) for log in logs], ["line"], [1] * len(logs))
    return [place.to_list() for place in found], count


# what nodes do to a log


@pytest.mark.parametrize(
    ("other", "differing"),
    [
        (["hello", *LOG], {("0+1", ""): None}),
        (["hello", "again", *LOG], {("0+1", ""): None, ("0+2", ""): None}),
        ([*LOG, "bye"], {("7+1", ""): None}),
        ([*LOG[:3], "hello", *LOG[3:]], {("3+1", ""): None}),
        (LOG[1:], {("1", ""): "row"}),
        (LOG[:-1], {("7", ""): "row"}),
        ([*LOG[:3], *LOG[4:]], {("4", ""): "row"}),
        ([*LOG[:2], "LOAD", *LOG[3:]], {("3", "line"): "load"}),
        (["START", *LOG[1:-1], "STOP"], {("1", "line"): "start", ("7", "line"): "stop"}),
        (["hello", *LOG[:2], "LOAD", *LOG[3:]], {("0+1", ""): None, ("3", "line"): "load"}),
        (["hello", *LOG[:-1]], {("0+1", ""): None, ("7", ""): "row"}),
        ([], {(str(number), ""): "row" for number in range(1, 8)}),
    ],
)
@pytest.mark.parametrize("node", [0, 1, 2])
def test_align_one_nodes_lines_more_less_or_changed_do_not_shift_the_others(
    other: Sequence[str], differing: dict[tuple[str, str], str | None], node: int
) -> None:
    logs = [LOG, LOG, LOG]
    logs[node] = list(other)
    found = vote(*logs)
    assert found.key is not None
    assert found.key.source == "position"
    assert found.content == as_csv(LOG)
    assert cells(found) == differing
    assert any("matched by their content and order" in note for note in found.warnings)


def test_align_lines_of_each_node_alone_and_swapped_lines() -> None:
    own = [["a", *LOG], [*LOG[:3], "b", *LOG[3:]], [*LOG, "c"]]
    assert vote(*own).content == as_csv(LOG)
    swapped = vote(LOG, LOG, ["load", "start", *LOG[2:]])
    assert swapped.content == as_csv(LOG)
    assert set(cells(swapped)) <= {("0+1", ""), ("1", ""), ("1+1", ""), ("2", ""), ("2+1", "")}


def test_align_a_line_that_most_have_comes_in_where_they_have_it() -> None:
    longer = [*LOG[:3], "new", *LOG[3:]]
    found = vote(LOG, longer, longer)
    assert found.content == as_csv(longer)
    assert cells(found) == {("4", ""): "row"}


def test_align_lines_that_a_tie_leaves_to_the_previous_ground_truth() -> None:
    longer = ["new", *LOG]
    assert vote(LOG, longer, incumbent=LOG).content == as_csv(longer)
    assert vote(LOG, longer, incumbent=longer).content == as_csv(longer)
    old = ["older", "lines", *longer]  # a log of which the beginning is gone
    assert vote(LOG, longer, incumbent=old).content == as_csv(longer)
    changed = [*LOG[:2], "LOAD", *LOG[3:]]
    assert vote(LOG, changed, incumbent=["older", *changed]).content == as_csv(changed)


def test_align_measured_times_anchor_lines_whose_values_all_differ() -> None:
    times = [f"{number / 10:.1f}" for number in range(40)]
    logs = [[f"{time},{20 + node + at * 0.017:.3f}" for at, time in enumerate(times)] for node in range(3)]
    logs[2] = logs[2][:5] + logs[2][6:]
    found = decide_file(
        "d.csv",
        {f"n{node}": as_csv(log, "time,value") for node, log in enumerate(logs)},
        incumbent=None,
        definition=VoteDefinition(),
        weights={},
    )
    assert found.key is not None
    assert "declare key: [time]" in found.key.unsure
    assert [line.split(",")[0] for line in (found.content or b"").decode().splitlines()[1:]] == times
    assert not [cell for cell in found.cells if cell.field == "time"]


def test_align_volatile_columns_do_not_make_lines_differ() -> None:
    logs = [[f"{line},{node}{at}" for at, line in enumerate(LOG)] for node in range(3)]
    logs[1].insert(0, "hello,99")
    for atomic in ("field", "record"):
        found = decide_file(
            "log.csv",
            {f"n{node}": as_csv(log, "line,pid") for node, log in enumerate(logs)},
            incumbent=None,
            definition=VoteDefinition(
                files=[FileRule.model_validate({"volatile": ["pid"], "atomic": atomic})]
            ),
            weights={},
        )
        chosen = [line.split(",")[0] for line in (found.content or b"").decode().splitlines()]
        assert chosen == ["line", *LOG]
        assert cells(found) == {("0+1", ""): None}


def test_align_comparison_of_commits_shows_the_added_line_alone() -> None:
    found = compare(table(LOG), table(["hello", *LOG[:3], *LOG[4:]]), BY_CONTENT)
    assert (found.added, found.removed, found.changed, found.same) == (1, 1, 0, 6)
    assert [(row.change, row.key) for row in found.rows] == [("added", {"#": "1"}), ("removed", {"#": "4"})]


def test_align_undisputed_lines_keep_their_bytes() -> None:
    spelled = b'line\n"start"\nload\n"load"\nend\nload\n"end"\nstop\n'
    found = decide_file(
        "log.csv",
        {"a": spelled, "b": spelled, "c": spelled.replace(b"line\n", b"line\nhello\n")},
        incumbent=None,
        definition=VoteDefinition(),
        weights={},
    )
    assert found.content == spelled


def test_align_columns_that_a_version_lacks_and_empty_tables() -> None:
    wide = version(["a,1", "a,1", "b,2"], "v", "w")
    narrow, empty = version(["a", "b"], "v"), Version(polars.DataFrame(), ("n",), 1)
    found = align([wide, narrow, empty], BY_CONTENT)
    assert found.keys["#"].to_list() == ["1", "2", "3"]
    assert found.has(2, polars.Series([0, 1, 2], dtype=polars.UInt32)).to_list() == [False] * 3
    assert align([empty, empty], BY_CONTENT).keys.height == 0


def test_align_cells_that_contain_the_separator_or_look_like_null_are_no_equal_lines() -> None:
    tricky = [["a", None], ["a", ""], ["", "a"], [None, "a"], ["=", "a"], ["a=", ""], [None, None]]
    tables = [
        polars.DataFrame([row], schema={"v": polars.String, "w": polars.String}, orient="row")
        for row in tricky
    ]
    texts = {lines.line_frame(part, ["v", "w"]).row(0)[0] for part in tables}
    assert len(texts) == len(tricky)


def test_align_numbers_of_lines_that_are_not_in_the_result() -> None:
    aligned = align([version("abcd"), version("xabycdz")], BY_CONTENT)
    kept = polars.Series([1, 2, 4, 5], dtype=polars.UInt32)
    assert number_records(aligned, kept).keys["#"].to_list() == ["0+1", "1", "2", "2+1", "3", "4", "4+1"]
    assert number_records(aligned, kept[:0]).keys["#"].to_list() == [f"0+{nth}" for nth in range(1, 8)]


def test_align_many_lines_in_other_order_all_alike_or_all_different() -> None:
    random, count = Random(5), 20_000
    base = [f"line {number} {random.randrange(30)}" for number in range(count)]
    noisy = [line for line in base if random.random() > 0.01]
    noisy.insert(0, "one more")
    found, height = places(
        [base, noisy, noisy[::-1], [str(number % 7) for number in range(count)], ["x"] * count]
    )
    for place in found:
        assert place == sorted(set(place))
    assert height < 5 * count
    where = dict(zip(base, found[0], strict=True))
    assert all(where[line] == place for line, place in zip(noisy[1:], found[1][1:], strict=True))


def test_align_too_many_lines_match_by_beginning_end_and_position(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINES", 10)
    found, count = places([LOG, ["hello", *LOG], [*LOG[:2], "LOAD", *LOG[3:]]])
    assert count == 8
    assert found == [list(range(1, 8)), list(range(8)), list(range(1, 8))]


# properties

logs = st.lists(st.sampled_from("aaabcdefgh"), max_size=12)


@settings(deadline=None)
@given(logs, st.integers(1, 4))
def test_align_equal_versions_are_aligned_line_by_line(log: list[str], count: int) -> None:
    assert places([log] * count) == ([list(range(len(log)))] * count, len(log))


@settings(deadline=None)
@given(st.lists(logs, min_size=1, max_size=5))
def test_align_each_line_has_one_place_and_order_is_kept(versions: list[list[str]]) -> None:
    found, count = places(versions)
    for log, place in zip(versions, found, strict=True):
        assert len(place) == len(log)
        assert place == sorted(set(place))
    assert sorted({at for place in found for at in place}) == list(range(count))


@settings(deadline=None)
@given(
    st.lists(st.sampled_from("abcdefghijklmnop"), unique=True, max_size=12),
    st.sets(st.integers(0, 11)),
    st.integers(0, 12),
)
def test_align_what_two_versions_have_in_one_order_has_one_place(
    log: list[str], gone: set[int], at: int
) -> None:
    other = [line for number, line in enumerate(log) if number not in gone]
    other.insert(at, "new")
    (first, second), _ = places([log, other])
    where = dict(zip(log, first, strict=True))
    assert all(where[line] == place for line, place in zip(other, second, strict=True) if line != "new")


@settings(deadline=None, max_examples=25)
@given(st.lists(logs, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_align_order_of_the_nodes_does_not_matter(versions: list[list[str]], random: Random) -> None:
    first = vote(*versions)
    random.shuffle(versions)
    again = vote(*versions)
    assert (again.content, again.key) == (first.content, first.key)
    assert cells(again) == cells(first)


@settings(deadline=None)
@given(st.lists(logs, min_size=1, max_size=4), logs)
def test_align_another_tables_places_increase_and_are_known(
    versions: list[list[str]], other: list[str]
) -> None:
    aligned = align([version(log) for log in versions], BY_CONTENT)
    found = ordered_places(table(other), aligned, BY_CONTENT)
    known = found.drop_nulls().to_list()
    assert known == sorted(set(known))
    assert all(place < aligned.keys.height for place in known)
    assert len(found) == len(other)


@given(st.lists(st.integers(0, 30), unique=True, max_size=9))
def test_align_longest_increasing_subsequence_is_the_longest(values: list[int]) -> None:
    found = [values[index] for index in lines._longest_increasing(values)]
    longest = [0] * (len(values) + 1)
    for end, value in enumerate(values):
        longest[end] = 1 + max((longest[at] for at in range(end) if values[at] < value), default=0)
    assert found == sorted(found)
    assert len(found) == max(longest)
