"""Cells in which several values have as many voices: numbers are decided, opened and counted like texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from mao_shared.models.evidence import Tally
from mao_shared.models.round import VoteDefinition
from mao_vote import Cell, FileDecision, decide_file

KINDS = [["404", "500"], ["8:05", "9:10"], ["2026-01-05", "2026-01-07"], ["10", "90.5"], ["red", "blue"]]
"""Integers, times, dates, numbers and texts."""


def vote(values: Sequence[str], *, before: str | None = None, **definition: Any) -> FileDecision:
    """Vote on one record, whose value each node has in turn."""
    versions = {node: f"id,v\nx,{value}\n".encode() for node, value in zip("abcdef", values, strict=False)}
    incumbent = None if before is None else f"id,v\nx,{before}\n".encode()
    rules = VoteDefinition.model_validate({"files": [{"key": ["id"]}], **definition})
    return decide_file("a.csv", versions, incumbent=incumbent, definition=rules, weights=rules.weights)


def cell(found: FileDecision) -> Cell:
    (only,) = found.cells
    return only


@pytest.mark.parametrize("values", KINDS)
@pytest.mark.parametrize("each", [1, 2, 3])
def test_ties_of_every_kind_get_a_value_and_count_against_nobody(values: list[str], each: int) -> None:
    found = vote(values * each)
    assert (cell(found).why, cell(found).chosen in values, cell(found).contested) == ("tie", True, True)
    assert set(found.votes.values()) == {Tally(1, 0)}
    assert vote(values[::-1] * each).content == found.content
    assert any(warning.startswith("tied: 1 cell of v") for warning in found.warnings)


@pytest.mark.parametrize("values", KINDS)
@pytest.mark.parametrize("each", [1, 2, 3])
def test_ties_of_every_kind_stay_open_if_the_definition_says_so(values: list[str], each: int) -> None:
    found = vote(values * each, ties="open")
    assert (cell(found).why, found.content, found.conflicts) == ("undecided", b"id,v\nx,\n", 1)
    assert set(found.votes.values()) == {Tally(1, 0)}


@pytest.mark.parametrize("values", KINDS)
@pytest.mark.parametrize("each", [1, 2])
@pytest.mark.parametrize("chosen", [0, 1])
def test_ties_of_every_kind_go_to_what_was_before_then_to_weight(
    values: list[str], each: int, chosen: int
) -> None:
    kept = vote(values * each, before=values[chosen])
    assert (cell(kept).why, cell(kept).chosen) == ("incumbent", values[chosen])
    heavier = vote(values * each, weights={"ab"[chosen]: 2.0})
    assert (cell(heavier).why, cell(heavier).chosen) == ("weight", values[chosen])


def test_ties_of_exact_numbers_leave_out_what_one_node_has() -> None:
    assert cell(vote(["404", "404", "500", "500", "403"])).why == "tie"
    assert cell(vote(["404", "404", "500", "500", "403"])).chosen == "404"
    assert cell(vote(["404", "404", "500", "500", "403"], ties="open")).chosen is None


@pytest.mark.parametrize(
    ("values", "chosen"),
    [
        (["1", "5", "9"], "5"),  # all differ, as if measured
        (["10.0", "10.0", "11.0", "90.5", "90.5"], "11.0"),  # 11 is nearer to most
        (["1", "5", "9", "10"], "5"),
    ],
)
def test_ties_are_not_of_numbers_between_which_others_are(values: list[str], chosen: str) -> None:
    found = cell(vote(values, ties="open"))
    assert (found.why, found.chosen) == ("median", chosen)
