"""Which records are in the result where nodes see only some of all, or make some up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mao_shared.models.round import FileRule, VoteDefinition
from mao_vote import FileDecision, decide_file


def sparse(
    random: Random, nodes: str, records: int, seen: float, invented: int = 0, by: str = ""
) -> tuple[dict[str, list[str]], set[str]]:
    """Return the keys of each node, which sees a part of all records, and the keys of records that exist.

    Args:
        invented: how many records the nodes `by` add that no other has.
    """
    real = [f"r{number}" for number in range(records)]
    keys = {node: [key for key in real if random.random() < seen] for node in nodes}
    for node in by:
        keys[node] += [f"x{number}" for number in range(invented)]
    return keys, {key for found in keys.values() for key in found if key in real}


def kept_rows(keys: Mapping[str, Sequence[str]], **rule: Any) -> tuple[set[str], FileDecision]:
    definition = VoteDefinition(files=[FileRule.model_validate({"key": ["id"], **rule})])
    versions = {
        node: b"id,v\n" + b"".join(f"{key},1\n".encode() for key in found) for node, found in keys.items()
    }
    decided = decide_file("a.csv", versions, incumbent=None, definition=definition, weights={})
    lines = (decided.content or b"").decode().splitlines()[1:]
    return {line.split(",")[0] for line in lines}, decided


@pytest.mark.parametrize(
    ("nodes", "seen", "least"),
    [("abc", 0.6, 1), ("abc", 0.3, 1), ("abcde", 0.7, 0.99), ("abcde", 0.4, 0.99), ("abcdefghi", 0.2, 0.98)],
)
def test_rows_of_honest_sparse_nodes_are_nearly_all_kept(nodes: str, seen: float, least: float) -> None:
    for seed in range(2):
        keys, real = sparse(Random(f"{nodes}{seen}{seed}"), nodes, 400, seen)
        kept, found = kept_rows(keys)
        assert len(kept & real) >= least * len(real)
        assert any("nodes see about" in note for note in found.notes)
        assert not found.conflicts


@pytest.mark.parametrize(("nodes", "seen"), [("ab", 0.7), ("abc", 0.7), ("abc", 0.4), ("abcde", 0.4)])
def test_rows_of_honest_nodes_are_kept_where_few_records_tell_little(nodes: str, seen: float) -> None:
    lost = total = 0
    for seed in range(20):
        keys, real = sparse(Random(f"few {nodes}{seen}{seed}"), nodes, 60, seen)
        lost, total = lost + len(real - kept_rows(keys)[0]), total + len(real)
    assert lost <= 0.001 * total


@pytest.mark.parametrize("order", ["abc", "bca", "cab"])
def test_rows_of_a_node_that_shares_little_by_chance_are_kept(order: str) -> None:
    counts = {"abc": 25, "ab": 8, "ac": 13, "bc": 4, "a": 3, "b": 5, "c": 1}  # a draw at which nodes see 70 %
    keys: dict[str, list[str]] = {node: [] for node in order}
    for having, count in counts.items():
        for node in having:
            keys[node] += [f"{having}{number}" for number in range(count)]
    assert len(kept_rows(keys)[0]) == sum(counts.values())


@pytest.mark.parametrize(
    ("nodes", "seen"), [("abc", 0.7), ("abcde", 0.7), ("abcde", 0.4), ("abcdefghi", 0.3)]
)
def test_rows_that_one_node_makes_up_are_left_out_and_the_others_kept(nodes: str, seen: float) -> None:
    keys, real = sparse(Random(f"{nodes}{seen}"), nodes, 300, seen, 90, nodes[-1])
    kept, found = kept_rows(keys)
    assert kept <= real
    assert len(kept) >= 0.9 * len(real)
    assert any(note.startswith(f"{nodes[-1]} alone has") for note in found.warnings)


@pytest.mark.parametrize("nodes", ["abcde", "abcdefghi"])
def test_rows_of_sparse_nodes_are_kept_beside_two_that_share_records_of_their_own(nodes: str) -> None:
    keys, real = sparse(Random(nodes), nodes, 300, 0.4, 90, nodes[-2:])
    kept, _ = kept_rows(keys)
    assert len(kept & real) >= 0.9 * len(real)
    assert kept_rows(keys, rows="any")[0] == {key for own in keys.values() for key in own}


@pytest.mark.parametrize("lacking", [0, 1, 2])
@pytest.mark.parametrize("nodes", ["abc", "abcde", "abcdefghi"])
def test_rows_of_dense_nodes_need_most_of_them(nodes: str, lacking: int) -> None:
    every = [f"r{number}" for number in range(200)]
    keys = {node: every[: at * lacking] + every[(at + 1) * lacking :] for at, node in enumerate(nodes)}
    keys[nodes[-1]].append("x")
    kept, found = kept_rows(keys)
    assert kept == set(every)
    assert (found.notes, found.warnings) == ([], [])


@settings(deadline=None, max_examples=15)
@given(
    st.lists(st.sets(st.integers(0, 6)), min_size=3, max_size=5),
    st.randoms(use_true_random=False),
    st.booleans(),
)
def test_rows_do_not_depend_on_the_order_of_nodes_and_records(
    seen: list[set[int]], random: Random, doubled: bool
) -> None:
    keys = {f"n{number}": [str(key) for key in sorted(found)] for number, found in enumerate(seen)}
    if doubled:
        keys["n0"] = keys["n1"]
    kept, found = kept_rows(keys)
    order = random.sample(list(keys), len(keys))
    again, same = kept_rows({node: random.sample(keys[node], len(keys[node])) for node in order})
    assert (again, sorted(same.notes + same.warnings)) == (kept, sorted(found.notes + found.warnings))
    of_most = {
        key for own in keys.values() for key in own if 2 * sum(key in e for e in keys.values()) > len(keys)
    }
    assert of_most <= kept


@settings(deadline=None, max_examples=15)
@given(st.sets(st.integers(0, 5)), st.lists(st.sets(st.integers(0, 9)), min_size=2, max_size=2))
def test_rows_of_fewer_liars_than_equal_honest_nodes_are_never_kept(
    real: set[int], lies: list[set[int]]
) -> None:
    honest = [str(key) for key in sorted(real)]
    keys = dict.fromkeys("abc", honest) | {
        node: [str(key) for key in sorted(lie)] for node, lie in zip("de", lies, strict=True)
    }
    assert kept_rows(keys)[0] == set(honest)


def test_rows_of_many_nodes_of_which_only_two_share_anything() -> None:
    keys = {f"n{number:02}": [f"r{number}"] for number in range(60)}
    keys["n00"].append("r1")
    kept, found = kept_rows(keys)
    assert kept <= {key for own in keys.values() for key in own}
    assert found.content is not None


def test_rows_of_nodes_that_share_nothing_are_left_out_as_not_expected() -> None:
    kept, found = kept_rows({node: [f"{node}0", f"{node}1"] for node in "abc"})
    assert kept == set()
    assert found.warnings == [
        f"{node} alone has 2 records, which are left out: about 0 such records are expected" for node in "abc"
    ]
