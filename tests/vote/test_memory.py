"""What a vote learns from earlier rounds, and how it breaks ties."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

import pytest

from mao_git import Clone
from mao_shared.models.round import FileRule, VoteDefinition
from mao_vote.audit import audit_round
from mao_vote.explain import explain_ground_truth
from mao_vote.records import PastCells, extend_memory
from mao_vote.records.cells.memory import MAX_PAST_VALUES
from mao_vote.round_history import find_round

from .repo import new_repository
from .repo import vote as vote_round
from .test_voices import Column, as_csv, vote

KEYED = VoteDefinition(files=[FileRule(key=["id"])])
FORGETFUL = KEYED.model_copy(update={"memory": False})


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return new_repository(tmp_path / "r.git")


def in_sequence(
    clone: Clone,
    rounds: Sequence[Mapping[str, Column]],
    definition: VoteDefinition = KEYED,
    path: str = "a.csv",
) -> list[list[str]]:
    """Vote on the rounds one after the other; return the values of each result.

    `path`: with `{}` for the number of the round.
    """
    base, results = None, []
    for number, nodes in enumerate(rounds):
        name = path.format(number)
        files = {node: {name: as_csv(column)} for node, column in nodes.items()}
        base = vote_round(clone, files, base, definition, f"r{number:03}").commit
        lines = clone.read_file(base, name).decode().splitlines()[1:]
        results.append([line.split(",")[1] for line in lines])
    return results


def careless(
    random: Random, rates: Mapping[str, float], rounds: int, cells: int = 10
) -> tuple[list[Column], list[dict[str, Column]]]:
    """Return the truth of rounds, and what nodes with these rates of errors tell."""
    truth: list[Column] = []
    told: list[dict[str, Column]] = []
    for _ in range(rounds):
        column = [random.choice("pqrstuvw") for _ in range(cells)]
        truth.append(column)
        told.append(
            {
                node: [value if random.random() > rate else random.choice("pqrstuvw") for value in column]
                for node, rate in rates.items()
            }
        )
    return truth, told


def count_right(results: Sequence[Column], truth: Sequence[Column]) -> int:
    return sum(
        one == other
        for found, wanted in zip(results, truth, strict=True)
        for one, other in zip(found, wanted, strict=True)
    )


@pytest.mark.parametrize("path", ["a.csv", "day-{}/a.csv"])
def test_vote_learns_over_rounds_which_node_is_reliable(clone: Clone, path: str) -> None:
    truth, rounds = careless(Random(4), {"a": 0.02, "b": 0.5, "c": 0.5}, 30, 2)
    alone = in_sequence(clone, rounds, FORGETFUL, path)
    together = in_sequence(clone, rounds, KEYED, path)
    assert count_right(together[10:], truth[10:]) > count_right(alone[10:], truth[10:]) + 3


def test_vote_learns_over_rounds_how_large_the_noise_is(clone: Clone) -> None:
    random = Random(2)
    rounds: list[Mapping[str, Column]] = []
    for _ in range(12):
        value = random.uniform(100, 900)
        honest = {node: [f"{value * random.gauss(1, 0.03):.3f}"] for node in "abc"}
        rounds.append({**honest, "d": [f"{value * 1.5:.3f}"], "e": [f"{value * 1.5:.3f}"]})
    results = in_sequence(clone, rounds)
    assert not any(found == nodes["d"] for found, nodes in zip(results[4:], rounds[4:], strict=True))


def test_vote_that_learns_from_rounds_is_recomputed_by_audit(clone: Clone) -> None:
    _, rounds = careless(Random(3), {"a": 0.02, "b": 0.5, "c": 0.5}, 4)
    base = None
    for number, nodes in enumerate(rounds):
        files = {node: {"a.csv": as_csv(column)} for node, column in nodes.items()}
        base = vote_round(clone, files, base, KEYED, f"r{number:03}").commit
    assert base is not None
    remembered = json.loads(clone.read_file(base, ".mao/history.json"))["fields"]["a.csv"]["v"]
    assert len(remembered["rounds"]) == 4
    for number in range(4):
        found = audit_round(clone, find_round(clone, base, f"r{number:03}"))
        assert (found.ok, found.faults) == (True, [])


def test_vote_memory_is_dropped_where_the_definition_does_not_want_it(clone: Clone) -> None:
    _, rounds = careless(Random(4), {"a": 0.1, "b": 0.5, "c": 0.5}, 2)
    files = [{node: {"a.csv": as_csv(column)} for node, column in nodes.items()} for nodes in rounds]
    first = vote_round(clone, files[0], None, KEYED, "r1")
    second = vote_round(clone, files[1], first.commit, FORGETFUL, "r2")
    assert "v" in json.loads(clone.read_file(first.commit, ".mao/history.json"))["fields"]["a.csv"]
    assert json.loads(clone.read_file(second.commit, ".mao/history.json"))["fields"] == {}


def test_vote_past_of_a_minority_does_not_outvote_the_others(clone: Clone) -> None:
    """Two nodes that were right for long and now lie together against three careless ones."""
    random = Random(5)
    _, rounds = careless(random, {"a": 0.3, "b": 0.3, "c": 0.3, "d": 0.02, "e": 0.02}, 8)
    in_sequence(clone, rounds)
    told: dict[str, Column] = {node: ["p" if node in "abc" else "q"] * 10 for node in "abcde"}
    assert in_sequence(clone, [*rounds, told])[-1] == ["p"] * 10


def test_vote_new_node_counts_less_than_one_with_a_good_past(clone: Clone) -> None:
    _, rounds = careless(Random(6), {"a": 0.02, "b": 0.02, "c": 0.02}, 5)
    last: dict[str, Column] = {"a": ["t"], "b": [""], "c": [""], "new": ["s"]}
    assert in_sequence(clone, [*rounds, last])[-1] == ["t"]


LONG = ["z" * 101, "p" + " " * 100 + "q", "7." + "0" * 100 + "e9", '{"v": "' + "z" * 101]


@pytest.mark.parametrize("wrong", ["z", "7.1", *LONG])
def test_vote_node_cannot_hide_errors_by_their_length(clone: Clone, wrong: str) -> None:
    """A tie is not won by a node that had many wrong values, however long these were."""
    truth = ["7", "8", "9", "10", "11"]
    quoted = '"' + wrong.replace('"', '""') + '"'
    rounds: list[Mapping[str, Column]] = [
        {"a": truth, "b": truth, "c": [*truth[:4], "12"], "d": [*(quoted for _ in range(4)), "11"]}
    ] * 6
    tied: Mapping[str, Column] = {"a": [""], "b": [""], "c": ["p"], "d": ["b"]}
    assert in_sequence(clone, [*rounds, tied])[-1] == ["p"]


def test_remember_cuts_long_values_of_a_minority(clone: Clone) -> None:
    files = {
        "a": {"a.csv": "id,v,w\n1,x,x\n"},
        "b": {"a.csv": f"id,v,w\n1,x,{'l' * 200}\n"},
        "c": {"a.csv": f"id,v,w\n1,{'z' * 200},{'l' * 200}\n"},
    }
    commit = vote_round(clone, files, None, KEYED, "r1").commit
    fields = json.loads(clone.read_file(commit, ".mao/history.json"))["fields"]["a.csv"]
    assert list(fields) == ["v"]
    assert fields["v"]["rounds"][0]["cells"] == [{"a": "x", "b": "x", "c": "z" * 99 + "…"}]


@pytest.mark.parametrize("values", [["p", "q"], ["p", "q", "r"], ["p", "p", "q", "q"], ["10:00", "noon"]])
def test_vote_tie_of_which_nothing_is_known_takes_the_first_value(values: list[str]) -> None:
    for order in (values, values[::-1]):
        found, result = vote({node: [value] for node, value in zip("abcd", order, strict=False)})
        assert result == {"k0": values[0]}
        assert [cell.why for cell in found.cells] == ["tie"]
        assert found.conflicts == 0
        assert [tally.differing for tally in found.votes.values()] == [0] * len(values)
        assert found.warnings == ["tied: 1 cell of v, where other values have as many voices"]


def test_vote_tie_takes_the_value_of_nodes_that_are_right_elsewhere() -> None:
    told = {"a": ["a"] * 3 + ["p"], "b": ["b"] * 3 + ["q"], "c": ["b"] * 3 + [""]}
    found, result = vote(told)
    assert result["k3"] == "q"
    assert next(cell.why for cell in found.cells if cell.key == ("k3",)) == "tie"


def test_vote_tie_stays_open_where_asked() -> None:
    found, result = vote({"a": ["p"], "b": ["q"]}, ties="open")
    assert (result, found.conflicts) == ({"k0": ""}, 1)
    assert [cell.why for cell in found.cells] == ["undecided"]


def test_extend_memory_keeps_the_latest_round_whatever_its_size() -> None:
    small = PastCells({}, [{"a": "x", "b": "y"}], ["p"])
    others = [PastCells({}, [{"a": "x", "b": "y"}], [place]) for place in "rs"]
    large = PastCells({}, [{"a": "x", "b": "y"}] * MAX_PAST_VALUES, ["q"] * MAX_PAST_VALUES)
    assert extend_memory([small], large) == [large]
    assert extend_memory([large], small) == [small]
    assert extend_memory(others, small) == [*others, small]
    assert extend_memory([small, *others], small) == [*others, small]


def days(number: int, changed: Mapping[str, Column] | None = None) -> dict[str, dict[str, str]]:
    """Return the files of each node after some days: one a day, the earlier ones kept as they were."""
    _, rounds = careless(Random(8), dict.fromkeys("abc", 0.4), number)
    files = {
        node: {f"day-{day}.csv": as_csv(nodes[node]).decode() for day, nodes in enumerate(rounds)}
        for node in "abc"
    }
    for node, column in (changed or {}).items():
        files[node]["day-0.csv"] = as_csv(column).decode()
    return files


def test_vote_does_not_decide_again_what_no_node_has_changed(clone: Clone) -> None:
    base, first = None, None
    for number in range(1, 7):
        voted = vote_round(clone, days(number), base, KEYED, f"r{number:03}")
        base = voted.commit
        content = clone.read_file(base, "day-0.csv")
        first = first or content
        assert content == first
        assert [file.path for file in voted.evidence.files] == [f"day-{number - 1}.csv"]
        assert sum(tally.cells for tally in voted.evidence.votes.values()) == 30
        found = audit_round(clone, find_round(clone, base, f"r{number:03}"))
        assert (found.ok, found.faults) == (True, [])
    assert voted.evidence.notes == [
        "unchanged: 5 disputed files are as decided before, since no node has changed them"
    ]
    explained = explain_ground_truth(
        clone, base or "", find_round(clone, base or "", None), "day-0.csv", "k0", "v"
    )
    assert explained.round == "r001"


def test_vote_decides_again_when_a_node_or_the_definition_has_changed(clone: Clone) -> None:
    def decided(files: Mapping[str, Mapping[str, str]], base: str, definition: VoteDefinition = KEYED) -> int:
        return len(vote_round(clone, files, base, definition, "r9").evidence.files)

    base = vote_round(clone, days(3), None, KEYED, "r1").commit
    assert decided(days(3), base) == 0
    assert decided({node: files for node, files in days(3).items() if node != "c"}, base) == 0
    assert decided({**days(3), "d": days(3)["a"]}, base) == 3
    assert decided(days(3, {"a": ["z"] * 10}), base) == 1
    assert decided(days(3), base, KEYED.model_copy(update={"ties": "open"})) == 3
    assert decided(days(3), base, FORGETFUL) == 3


def test_vote_learns_once_from_cells_of_a_table_that_grows(clone: Clone) -> None:
    _, rounds = careless(Random(9), {"a": 0.05, "b": 0.5, "c": 0.5}, 1, 40)
    base = None
    for rows in (10, 20, 30, 40):
        files = {node: {"a.csv": as_csv(column[:rows])} for node, column in rounds[0].items()}
        base = vote_round(clone, files, base, KEYED, f"r{rows}").commit
    remembered = json.loads(clone.read_file(base or "", ".mao/history.json"))["fields"]["a.csv"]["v"][
        "rounds"
    ]
    places = [place for of_round in remembered for place in of_round["places"]]
    assert len(places) == len(set(places)) <= 40
