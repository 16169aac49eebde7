"""No command brings the federation's etcd below its quorum."""

from __future__ import annotations

from itertools import product

import pytest

from mao_registry.federation.etcd_members import (
    EtcdMemberState,
    advice,
    check_addition,
    check_removal,
    quorum,
)
from mao_shared.errors import Conflict


def seats(*healthy: bool) -> list[EtcdMemberState]:
    return [EtcdMemberState(f"n{i}", True, is_healthy) for i, is_healthy in enumerate(healthy)]


def refusal(check: object, there: list[EtcdMemberState], node: str) -> Conflict | None:
    assert callable(check)
    try:
        check(there, node)
    except Conflict as error:
        return error
    return None


@pytest.mark.parametrize(
    "there", [list(states) for n in (2, 3, 4, 5) for states in product([True, False], repeat=n)]
)
def test_removal_needs_healthy_quorum(there: list[bool]) -> None:
    rest = there[1:]
    refused = refusal(check_removal, seats(*there), "n0")
    assert (refused is not None) == (sum(rest) < quorum(len(rest)))
    if refused is not None:
        assert refused.code == "quorum-at-risk"
        assert refused.next is not None
        assert f"n{there.index(False, 1)}" in refused.next


def test_removal_of_last_voter_is_refused() -> None:
    refused = refusal(check_removal, seats(True), "n0")
    assert refused is not None
    assert refused.code == "last-core"


def test_removal_of_learner_or_unknown_is_allowed() -> None:
    there = [*seats(True, False), EtcdMemberState("new", False, False)]
    check_removal(there, "new")
    check_removal(there, "stranger")


def test_addition_is_allowed_and_repeatable() -> None:
    check_addition(seats(True), "n1")
    check_addition([*seats(True), EtcdMemberState("n1", False, False)], "n1")


@pytest.mark.parametrize(
    ("there", "code"),
    [
        (seats(True, False), "quorum-at-risk"),
        ([*seats(True), EtcdMemberState("other", False, True)], "promotion-under-way"),
        (seats(*[True] * 7), "too-many-cores"),
    ],
)
def test_addition_refused_when_unsafe(there: list[EtcdMemberState], code: str) -> None:
    refused = refusal(check_addition, there, "n9")
    assert refused is not None
    assert refused.code == code


def test_advice_against_even_number() -> None:
    assert advice(3) is None
    assert "Promote two more" in (advice(1) or "")
    assert "no more failures than 3" in (advice(4) or "")
