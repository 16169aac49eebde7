"""Missing values, noise, families, reliability and missing records, through the vote on a file."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from mao_shared.models.round import FileRule, VoteDefinition
from mao_vote import FileDecision, decide_file
from mao_vote.explain import explain_ground_truth
from mao_vote.records.keys.rows import FULL_COVERAGE, absence_weight
from mao_vote.round_history import find_round

from .repo import new_repository
from .repo import vote as vote_round

Column = Sequence[str | None]


def as_csv(column: Column, keys: Sequence[str] | None = None) -> bytes:
    """Return a file with the key `id` and the field `v`; None: no such record."""
    names = keys or [f"k{number}" for number in range(len(column))]
    return b"id,v\n" + b"".join(
        f"{name},{value}\n".encode() for name, value in zip(names, column, strict=True) if value is not None
    )


def vote(nodes: Mapping[str, Column], **definition: Any) -> tuple[FileDecision, dict[str, str]]:
    """Vote on the nodes' columns; return the decision and the values of its result by key."""
    rule = FileRule.model_validate({"key": ["id"], **definition.pop("rule", {})})
    asked = VoteDefinition.model_validate({"files": [rule], **definition})
    versions = {node: as_csv(column) for node, column in nodes.items()}
    found = decide_file("a.csv", versions, incumbent=None, definition=asked, weights={})
    rows = list(csv.reader(io.StringIO((found.content or b"").decode())))[1:]
    return found, dict(rows)


def right(values: Mapping[str, str], truth: Sequence[str]) -> float:
    return sum(values.get(f"k{number}") == value for number, value in enumerate(truth)) / len(truth)


@pytest.mark.parametrize("nothing", ["", "NA", "n/a", "null", "NaN", " "])
def test_vote_missing_value_is_no_vote_and_no_difference(nothing: str) -> None:
    found, values = vote({"a": ["7", "1"], "b": [nothing, "1"], "c": [nothing, "1"], "d": [nothing, "1"]})
    assert values == {"k0": "7", "k1": "1"}
    assert [tally.differing for tally in found.votes.values()] == [0, 0, 0, 0]
    assert found.votes["b"].cells == 1
    assert not found.cells
    assert found.fields[0].observed == {1: 1, 4: 1}


def test_vote_missing_value_declared_as_value_votes() -> None:
    rule = {"fields": {"v": {"missing_is_value": True}}}
    _, values = vote({"a": ["7"], "b": [""], "c": [""]}, rule=rule)
    assert values == {"k0": ""}


def test_vote_sparse_nodes_are_complete_together() -> None:
    random = Random(1)
    truth = [str(random.randrange(10**6)) for _ in range(200)]
    nodes = {node: [value if random.random() > 0.6 else "" for value in truth] for node in "abcde"}
    _, values = vote(nodes)
    seen = [any(column[number] for column in nodes.values()) for number in range(200)]
    assert all(values[f"k{number}"] == (value if seen[number] else "") for number, value in enumerate(truth))


@pytest.mark.parametrize("noise", [0.001, 0.01, 0.02, 0.05, 0.1])
def test_vote_two_liars_with_one_number_do_not_outvote_three_noisy_nodes(noise: float) -> None:
    random = Random(2)
    truth = [random.uniform(10, 1000) for _ in range(100)]
    nodes: dict[str, Column] = {
        node: [f"{value * random.gauss(1, noise):.6g}" for value in truth] for node in "abc"
    }
    lie = [f"{value * 1.5:.6g}" for value in truth]
    found, values = vote({**nodes, "d": lie, "e": lie})
    assert sum(values[f"k{number}"] == text for number, text in enumerate(lie)) == 0
    assert found.fields[0].measured
    assert found.fields[0].noise == "estimated"


@pytest.mark.parametrize(("nodes", "liars"), [("abcde", "de"), ("abcdefg", "efg"), ("abcdefghi", "fghi")])
@pytest.mark.parametrize("rows", [4, 8, 20])
@pytest.mark.parametrize("spread", [0, 0.02])
def test_vote_liars_do_not_win_where_rounded_noise_makes_numbers_equal(
    nodes: str, liars: str, rows: int, spread: float
) -> None:
    """Numbers around zero with two decimals, too few to tell the noise by what no two nodes share."""
    random = Random(3)
    truth = [random.uniform(-1, 1) for _ in range(rows)]
    told = {
        node: [
            f"{value + 2 + random.gauss(0, spread):.2f}"
            if node in liars
            else f"{value + random.gauss(0, 0.02):.2f}"
            for value in truth
        ]
        for node in nodes
    }
    _, values = vote(told)
    found = [float(value) for value in values.values()]
    assert [round(value - wanted) for value, wanted in zip(found, truth, strict=True)] == [0] * rows


@pytest.mark.parametrize(("nodes", "liars"), [("abcde", "de"), ("abcdefg", "efg")])
@pytest.mark.parametrize(
    ("low", "high", "noise"), [(1000, 100_000, 0.02), (100, 1000, 0.02), (1000, 2000, 0.002)]
)
@pytest.mark.parametrize("rows", [8, 20, 200])
def test_vote_liars_do_not_win_in_counters(
    nodes: str, liars: str, low: int, high: int, noise: float, rows: int
) -> None:
    random = Random(5)
    truth = [random.randint(low, high) for _ in range(rows)]
    told: dict[str, Column] = {
        node: [str(round(value * (1.5 if node in liars else random.gauss(1, noise)))) for value in truth]
        for node in nodes
    }
    _, values = vote(told)
    found = [int(value) for value in values.values()]
    assert sum(one > 1.25 * wanted for one, wanted in zip(found, truth, strict=True)) == 0


@pytest.mark.parametrize("errors", [0.2, 0.5, 0.7])
@pytest.mark.parametrize(
    "codes", [("200", "301", "403", "404", "500", "503"), ("22", "80", "443", "8080", "8443")]
)
def test_vote_codes_stay_exact_whatever_part_is_wrong(codes: Sequence[str], errors: float) -> None:
    random = Random(6)
    truth = [random.choice(codes) for _ in range(100)]
    told: dict[str, Column] = {
        node: [value if random.random() > errors else random.choice(codes) for value in truth]
        for node in "abcde"
    }
    found, values = vote(told)
    assert (found.fields[0].kind, found.fields[0].noise) == ("integer", "exact")
    clear = [Counter(column[number] for column in told.values()).most_common(2) for number in range(100)]
    wins = [best[0][0] for best in clear if len(best) == 1 or best[0][1] > best[1][1]]
    own = [
        values[f"k{number}"] for number, best in enumerate(clear) if len(best) == 1 or best[0][1] > best[1][1]
    ]
    assert own == wins


@pytest.mark.parametrize(
    ("told", "chosen"),
    [
        ("10.25 10.25 47.1 80.55 63.2", "10.25"),  # the others agree on nothing
        ("10.25 10.25 47.1 47.13 47.16", "47.13"),
        ("-1.5 -1.5 0.01 0.02 0.04", "0.02"),
        ("10.25 10.25 10.5 10.75 11", "10.25"),
        ("10.25 10.25 47.1 47.13 80.55", "10.25"),  # two of five are not most
    ],
)
def test_vote_frequent_number_wins_unless_far_from_most(told: str, chosen: str) -> None:
    _, values = vote({node: [text] for node, text in zip("abcde", told.split(), strict=True)})
    assert list(values.values()) == [chosen]


def test_vote_field_is_exact_where_most_share_their_numbers() -> None:
    truth = [f"{number}.5" for number in range(60)]
    liar = [f"{number}.51" for number in range(60)]
    found, values = vote({"a": truth, "b": truth, "c": truth, "d": liar})
    assert right(values, truth) == 1
    assert not found.fields[0].measured
    assert found.votes["d"].differing == 60


@pytest.mark.parametrize(
    "values",
    [
        ("404", "403", "400"),
        ("8080", "8081", "8443"),
        ("2019", "2020", "2021"),
        ("20260105", "20260330", "20260301"),
        ("100231", "100232", "100235"),
    ],
)
def test_vote_integers_that_are_close_differ(values: Sequence[str]) -> None:
    found, _ = vote({node: [value] for node, value in zip("abc", values, strict=True)})
    assert [cell.values for cell in found.cells] == [dict(zip("abc", values, strict=True))]
    assert sum(tally.differing for tally in found.votes.values()) == 2


def copied(random: Random, cells: int, errors: float) -> tuple[list[str], dict[str, Column]]:
    """Return the truth, and columns of three copies of a bad source and four others, each with gaps."""
    truth = [random.choice("pqrstuvw") for _ in range(cells)]

    def observed(rate: float, gaps: set[int]) -> Column:
        return [
            "" if place in gaps else value if random.random() > rate else random.choice("pqrstuvw")
            for place, value in enumerate(truth)
        ]

    def some_gaps() -> set[int]:
        return set(random.sample(range(cells), cells // 2))

    source = observed(errors, some_gaps())
    others: dict[str, Column] = {node: observed(0.1, some_gaps()) for node in ("w", "x", "y", "z")}
    return truth, {"a": source, "b": source, "c": source, **others}


def test_vote_copies_share_one_voice_and_are_named() -> None:
    truth, nodes = copied(Random(3), 300, 0.5)
    found, values = vote(nodes)
    assert [group.nodes for group in found.groups] == [["a", "b", "c"]]
    assert not found.groups[0].declared
    declared, values_declared = vote(nodes, groups=[["a", "b", "c"]])
    assert right(values, truth) > 0.75
    assert abs(right(values, truth) - right(values_declared, truth)) < 0.05
    assert declared.groups[0].nodes == ["a", "b", "c"]
    assert any("a, b, c have one voice" in note for note in found.warnings)


def test_vote_honest_nodes_that_answer_different_cells_are_no_family() -> None:
    random = Random(4)
    truth = [random.choice("pqrstuvw") for _ in range(300)]
    nodes = {
        node: [
            ("" if random.random() < 0.4 else value if random.random() > 0.2 else random.choice("pqrstuvw"))
            for value in truth
        ]
        for node in "abcdef"
    }
    found, _ = vote(nodes)
    assert not found.groups


def test_vote_reliable_node_outweighs_two_careless_ones() -> None:
    random = Random(5)
    truth = [random.choice("pqrstuvw") for _ in range(400)]

    def observed(rate: float) -> Column:
        return [value if random.random() > rate else random.choice("pqrstuvw") for value in truth]

    nodes = {"a": observed(0.02), "b": observed(0.5), "c": observed(0.5)}
    found, values = vote(nodes)
    plurality = sum(
        max(set(cells), key=cells.count) == value
        for value, *cells in zip(truth, *nodes.values(), strict=True)
        if len(set(cells)) < 3
    ) / len(truth)
    assert right(values, truth) > plurality + 0.1
    assert "reliability" in {cell.why for cell in found.cells}


def test_vote_two_camps_are_named_and_neither_is_blamed() -> None:
    truth, lie = ["p"] * 30, ["q"] * 30
    found, values = vote({"a": truth, "b": truth, "c": lie, "d": lie, "e": lie})
    assert set(values.values()) == {"q"}
    assert "two camps: a, b and c, d, e, in 30 of 30 disputed cells" in found.warnings
    assert not any("one voice" in note for note in found.warnings)
    assert (found.votes["a"].differing, found.votes["a"].shared) == (30, 30)


@pytest.mark.parametrize("history", ["STANDARD", "MODULE_ELIMINATION", "HYBRID"])
def test_vote_history_does_not_help_a_colluding_minority(history: str) -> None:
    random = Random(6)
    truth = [random.uniform(10, 1000) for _ in range(50)]
    nodes: dict[str, Column] = {
        node: [f"{value * random.gauss(1, 0.03):.6g}" for value in truth] for node in "abc"
    }
    lie = [f"{value * 1.5:.6g}" for value in truth]
    definition = {"history": history, "collation": "MEAN_NEAREST_NEIGHBOR"}
    _, values = vote({**nodes, "d": lie, "e": lie}, **definition)
    assert sum(values[f"k{number}"] == text for number, text in enumerate(lie)) <= 2


def test_absence_weight_grows_with_coverage() -> None:
    weights = [absence_weight(share * FULL_COVERAGE // 10) for share in range(11)]
    assert weights == sorted(weights)
    assert (weights[0], weights[10]) == (0, FULL_COVERAGE)
    assert weights[4] < FULL_COVERAGE // 3


def test_vote_record_of_two_sparse_nodes_is_kept_and_one_of_a_dense_liar_is_not() -> None:
    random = Random(7)
    sparse = {node: [str(n) if random.random() < 0.5 else None for n in range(100)] for node in "abcde"}
    sparse["a"][0], sparse["b"][0] = "0", "0"
    for node in "cde":
        sparse[node][0] = None
    _, values = vote(sparse)
    assert values["k0"] == "0"
    dense: dict[str, Column] = {node: [str(n) for n in range(100)] + [None] for node in "abcd"}
    _, values = vote({**dense, "e": [str(n) for n in range(101)]})
    assert "k100" not in values


def test_vote_records_of_a_minority_beside_empty_files_are_not_kept() -> None:
    empty: dict[str, Column] = {node: [None, None] for node in "abc"}
    _, values = vote({**empty, "d": ["1", "2"], "e": ["1", "2"]})
    assert values == {}
    _, values = vote({**empty, "d": ["1", "2"], "e": ["1", "2"]}, rule={"rows": "any"})
    assert values == {"k0": "1", "k1": "2"}
    _, values = vote({**empty, "d": ["1", "2"], "e": [None, "2"]}, rule={"rows": 2})
    assert values == {"k1": "2"}


def test_explain_cell_counts_observers_and_names_kind_and_groups(tmp_path: Path) -> None:
    clone = new_repository(tmp_path / "r.git")
    _, nodes = copied(Random(3), 300, 0.5)
    definition = VoteDefinition(files=[FileRule(key=["id"])])
    files = {node: {"a.csv": as_csv(column)} for node, column in nodes.items()}
    made = vote_round(clone, files, None, definition)
    decided = find_round(clone, made.commit, made.evidence.round)
    alike = next(n for n in range(300) if len({column[n] for column in nodes.values()} - {""}) == 1)
    disputed = next(n for n in range(300) if len({column[n] for column in nodes.values()} - {""}) > 1)
    for number in (alike, disputed):
        found = explain_ground_truth(clone, made.commit, decided, "a.csv", f"k{number}", "v")
        assert found.observed == sum(bool(column[number]) for column in nodes.values())
        assert found.values == {node: column[number] for node, column in nodes.items()}
        assert found.compared is not None
        assert found.compared.kind == "category"
        assert [group.nodes for group in found.groups] == [["a", "b", "c"]]


def test_explain_cell_of_a_record_that_nodes_spell_in_different_cases(tmp_path: Path) -> None:
    clone = new_repository(tmp_path / "r.git")
    files = {
        node: {"a.csv": as_csv(column, keys)}
        for node, column, keys in (
            ("a", ["NA", "7", "1"], ["X-1", "X-2", "X-3"]),
            ("b", ["4", "7", "1"], ["X-1", "X-2", "X-3"]),
            ("c", ["4", "7", "2"], ["x-1", "x-2", "x-3"]),
        )
    }
    made = vote_round(clone, files)
    decided = find_round(clone, made.commit, made.evidence.round)
    found = explain_ground_truth(clone, made.commit, decided, "a.csv", "X-1", "v")
    assert (found.chosen, found.observed) == ("4", 2)
    assert found.values == {"a": "NA", "b": "4", "c": "4"}
