"""Properties of every VDX vote, and the parts that the reference implementation lacks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mao_shared.models.round import VoteDefinition
from mao_vote.election import decide_numbers
from mao_vote.vdx import History, Outcome, Standing, Voter, vote_column, vote_text_column

unhurried = settings(deadline=None)  # other programs may keep the machine busy
VALUES = st.floats(-1e6, 1e6).map(lambda number: round(number, 3) + 0.0)
ANY_FLOAT = st.floats(allow_nan=False, allow_infinity=False)
DEFINITIONS = st.builds(
    VoteDefinition,
    history=st.sampled_from(["NONE", "STANDARD", "MODULE_ELIMINATION", "HYBRID"]),
    collation=st.sampled_from(["AGREEMENT", "MEAN", "MEAN_NEAREST_NEIGHBOR"]),
    exclusion=st.sampled_from(["NONE", "FURTHEST", "OUTSIDE_SIGMA"]),
    exclusion_threshold=st.just(1),
    bootstrapping=st.booleans(),
)
STANDINGS = st.integers(0, 9).flatmap(
    lambda rounds: st.builds(Standing, st.floats(0, rounds), st.just(rounds))
)


def of(**fields: Any) -> VoteDefinition:
    return VoteDefinition.model_validate({"collation": "MEAN", **fields})


def decide(values: Sequence[float | None], before: History = (), /, **fields: Any) -> Outcome[float]:
    return Voter(of(**fields)).decide(values, before)


# --- properties -------------------------------------------------------------------------------------------


@unhurried
@given(DEFINITIONS, st.lists(st.tuples(VALUES, STANDINGS), min_size=2, max_size=6), st.randoms())
def test_vdx_voter_order_of_the_voters_does_not_matter(
    definition: VoteDefinition, pairs: list[tuple[float, Standing]], random: Random
) -> None:
    shuffled = pairs.copy()
    random.shuffle(shuffled)
    one, other = (
        Voter(definition).decide([value for value, _ in order], tuple(standing for _, standing in order))
        for order in (pairs, shuffled)
    )
    assert one.output == other.output
    told = [sorted(zip(pairs, one.weights, one.history, strict=True), key=str)]
    assert told == [sorted(zip(shuffled, other.weights, other.history, strict=True), key=str)]


@unhurried
@given(DEFINITIONS, VALUES, st.integers(2, 6), st.data())
def test_vdx_voter_what_all_say_is_the_output(
    definition: VoteDefinition, value: float, voters: int, data: st.DataObject
) -> None:
    history = tuple(data.draw(STANDINGS) for _ in range(voters))
    outcome = Voter(definition).decide([value] * voters, history)
    assert outcome.output == pytest.approx(value, rel=1e-12)
    assert not outcome.excluded
    if definition.collation != "MEAN":
        assert outcome.observed == set(range(voters))


@unhurried
@given(DEFINITIONS, st.lists(st.one_of(st.none(), ANY_FLOAT), min_size=1, max_size=6))
def test_vdx_voter_output_lies_among_the_values_and_is_observed_unless_a_mean_is_asked_for(
    definition: VoteDefinition, values: list[float | None]
) -> None:
    outcome = Voter(definition).decide(values)
    given = [value for value in values if value is not None]
    if outcome.output is None:
        assert outcome.reason == "quorum"
        return
    slack = 1e-9 * max(abs(value) for value in given)
    assert min(given) - slack <= outcome.output <= max(given) + slack
    if definition.collation != "MEAN":
        assert outcome.observed
        assert {values[at] for at in outcome.observed} == {outcome.output}


@unhurried
@given(DEFINITIONS, st.lists(VALUES, min_size=2, max_size=6), st.data())
def test_vdx_voter_negating_all_values_negates_what_all_voters_are_judged_by(
    definition: VoteDefinition, values: list[float], data: st.DataObject
) -> None:
    history = tuple(data.draw(STANDINGS) for _ in values)
    one = Voter(definition).decide(values, history)
    other = Voter(definition).decide([-value for value in values], history)
    assert one.weights == other.weights
    assert one.excluded == other.excluded


@unhurried
@given(st.lists(VALUES, min_size=3, max_size=7), VALUES, st.sampled_from(["NONE", "STANDARD"]))
def test_vdx_voter_fewer_than_half_do_not_win_against_equal_values(
    liars: list[float], value: float, rule: str
) -> None:
    voters: list[float | None] = [*liars, *[value] * (len(liars) + 1)]
    outcome = decide(voters, collation="AGREEMENT", history=rule)
    assert outcome.output == value


# --- quorum, exclusion, bootstrapping ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "fields", "reached"),
    [
        ([1.0, 1.0, None, None], {}, False),
        ([1.0, 1.0, 1.0, None], {}, True),
        ([1.0], {}, True),
        ([1.0, 1.0, None, None], {"quorum": "UNTIL", "quorum_percentage": 50}, True),
        ([1.0, None, None, None], {"quorum": "UNTIL", "quorum_percentage": 50}, False),
        ([1.0, 1.0, 1.0, None], {"quorum": "ALL_BUT", "quorum_percentage": 25}, True),
        ([1.0, 1.0, None, None], {"quorum": "ALL_BUT", "quorum_percentage": 25}, False),
        ([1.0, float("nan"), float("inf")], {}, False),
        ([None, None], {"quorum": "UNTIL", "quorum_percentage": 0}, False),
    ],
)
def test_vdx_voter_quorum(values: list[float | None], fields: dict[str, object], reached: bool) -> None:
    outcome = decide(values, **fields)
    assert (outcome.output is not None, outcome.reason) == (reached, "decided" if reached else "quorum")


def test_vdx_voter_without_a_quorum_nobody_gains_or_loses_anything() -> None:
    before = (Standing(1, 2), Standing(2, 2), Standing(2, 3))
    assert decide([1.0, None, None], before, history="STANDARD").history == before


@pytest.mark.parametrize(
    ("values", "exclusion", "threshold", "out"),
    [
        ([1.0, 2.0, 3.0, 90.0, 50.0], "FURTHEST", 1, {3}),
        ([1.0, 2.0, 3.0, 90.0, 50.0], "FURTHEST", 2, {3, 4}),
        ([1.0, 2.0, 3.0], "FURTHEST", 1, set()),  # both ends are equally far
        ([1.0, 2.0, 3.0], "FURTHEST", 2, {0, 2}),
        ([1.0, 2.0], "FURTHEST", 9, set()),  # never all
        ([5.0, 5.0, 5.0], "FURTHEST", 2, set()),
        ([10.0, 10.0, 10.0, 10.0, -70.0], "OUTSIDE_SIGMA", 1, {4}),
        ([10.0, 10.0, 10.0, 10.0, -70.0], "OUTSIDE_SIGMA", 3, set()),
        ([1.0, 2.0], "OUTSIDE_SIGMA", 0, set()),
        ([1e-200, 1e-200, 5e-200], "OUTSIDE_SIGMA", 1, {2}),
        ([1e308, 1e308, -1e308], "OUTSIDE_SIGMA", 1, {2}),
    ],
)
def test_vdx_voter_exclusion(
    values: list[float | None], exclusion: str, threshold: float, out: set[int]
) -> None:
    outcome = decide(values, exclusion=exclusion, exclusion_threshold=threshold)
    assert outcome.excluded == out
    assert all(outcome.weights[place] == 0 for place in out)


def test_vdx_voter_who_was_excluded_is_judged_all_the_same() -> None:
    outcome = decide([10.0, 10.0, 50.0], history="STANDARD", exclusion="FURTHEST", exclusion_threshold=1)
    assert [standing.successes for standing in outcome.history] == [1, 1, 0]
    assert [standing.rounds for standing in outcome.history] == [1, 1, 1]


def test_vdx_voter_bootstrapping_takes_the_first_vote_from_the_largest_group_only() -> None:
    fields: dict[str, Any] = {"history": "STANDARD", "bootstrapping": True}
    first = decide([10.0, 10.2, 30.0, 50.0], **fields)
    assert first.output == pytest.approx(10.1)
    assert first.reason == "bootstrapped"
    assert decide([10.0, 10.2, 30.0, 50.0], first.history, **fields).reason == "decided"


def test_vdx_voter_groups_are_the_same_in_whatever_order() -> None:
    orders = permutations([1.0, 0.97, 0.93, 0.9])
    assert {decide(list(order), bootstrapping=True).output for order in orders} == {0.95}


# --- history ----------------------------------------------------------------------------------------------


def test_vdx_voter_who_joined_late_is_eliminated_for_failing_and_not_for_having_voted_less() -> None:
    history = (Standing(90, 100), Standing(95, 100), Standing(10, 10), Standing())
    outcome = decide([1.0, 1.0, 1.0, 1.0], history, history="MODULE_ELIMINATION")
    assert [weight > 0 for weight in outcome.weights] == [False, True, True, True]


def test_vdx_voter_hybrid_with_one_voter() -> None:
    first = decide([5.0], history="HYBRID")
    assert decide([5.0], first.history, history="HYBRID").output == 5


def test_vdx_voter_hybrid_without_weights_of_the_vote_before_goes_by_the_vote_at_hand() -> None:
    history = (Standing(9, 10), Standing(9, 10), Standing(9, 10))
    outcome = decide([10.0, 10.0, 20.0], history, history="HYBRID")
    assert list(outcome.weights) == [0.5, 0.5, 0]
    assert outcome.output == 10


def test_vdx_voter_shares_multiply_the_weights() -> None:
    assert Voter(of(), (1.0, 3.0)).decide([0.0, 4.0]).output == 3


def test_vdx_voter_lengths_that_differ_are_an_error() -> None:
    with pytest.raises(ValueError, match="history of 1"):
        decide([1.0, 2.0], (Standing(),))
    with pytest.raises(ValueError, match="shares of 1"):
        Voter(of(), (1.0,)).decide([1.0, 2.0])


# --- agreement --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "output"),
    [
        ([1.0, 1.0, 9.0, 9.5, 9.4], 1.0),  # equal values before near ones
        ([1.0, 9.0, 9.2, 9.4], 9.2),
        ([-1.0, -9.0, -9.2, -9.4], -9.2),
        ([1.0, 20.0, 300.0], 20.0),  # none agree: the median
        ([1.0, 20.0, 300.0, 4000.0], 20.0),  # the lower one
        ([2.0, 2.0, 8.0, 8.0, 9.0], 8.0),  # equally many: the more central
    ],
)
def test_vdx_voter_agreement(values: list[float | None], output: float) -> None:
    assert decide(values, collation="AGREEMENT").output == output


NEAR = st.sampled_from([-10.0, -10.4, 0.0, 1.0, 1.04, 1.08, 1.2, 9.0, 9.4, 9.8, 10.2, 300.0])


@unhurried
@given(st.lists(NEAR, min_size=2, max_size=6))
def test_vdx_voter_agreement_without_history_is_the_plain_vote_on_numbers(values: list[float]) -> None:
    assert decide(values, collation="AGREEMENT").output == decide_numbers(values, 0.05).value


# --- texts ------------------------------------------------------------------------------------------------


def say(values: Sequence[str | None], before: History = (), /, **fields: Any) -> Outcome[str]:
    return Voter(of(**fields)).decide_text(values, before)


@pytest.mark.parametrize("rule", ["NONE", "STANDARD", "MODULE_ELIMINATION", "HYBRID"])
def test_vdx_voter_texts_from_the_first_round_on(rule: str) -> None:
    history: History = ()
    for _ in range(4):
        outcome = say(["a", "a", "b"], history, history=rule)
        assert outcome.output == "a"
        assert outcome.observed == {0, 1}
        history = outcome.history
    assert [standing.successes for standing in history] == ([4, 4, 0] if rule != "NONE" else [0, 0, 0])


def test_vdx_voter_texts_of_equal_weight_tie_and_history_settles_it() -> None:
    assert say(["a", "b"], history="STANDARD").reason == "tie"
    known = (Standing(1, 2), Standing(2, 2))
    assert say(["a", "b"], known, history="STANDARD").output == "b"
    assert say(["a", None, None], history="STANDARD").reason == "quorum"


@unhurried
@given(
    st.lists(st.sampled_from("abc"), min_size=2, max_size=6),
    st.randoms(),
    st.sampled_from(["NONE", "HYBRID"]),
)
def test_vdx_voter_texts_in_whatever_order(texts: list[str], random: Random, rule: str) -> None:
    shuffled = texts.copy()
    random.shuffle(shuffled)
    assert say(texts, history=rule).output == say(shuffled, history=rule).output


# --- columns ----------------------------------------------------------------------------------------------


def test_vdx_voter_column_shows_which_nodes_gave_the_value_and_marks_what_nobody_gave() -> None:
    columns: dict[str, list[float | None]] = {
        "c": [1.0, 5.0, None],
        "a": [1.0, 7.0, None],
        "b": [4.0, 6.0, 2.0],
    }
    means = vote_column(columns, of())
    assert [(cell.value, cell.observed, cell.computed) for cell in means] == [
        (2.0, (), True),
        (6.0, ("b",), False),
        (None, (), False),
    ]
    nearest = vote_column(columns, of(collation="MEAN_NEAREST_NEIGHBOR"))
    assert [cell.observed for cell in nearest] == [("a", "c"), ("b",), ()]


def test_vdx_voter_column_is_judged_by_the_standings_before_the_round() -> None:
    standings = {"a": Standing(0, 5), "b": Standing(5, 5)}
    columns = {"a": [1.0, 1.0], "b": [2.0, 2.0]}
    assert [cell.value for cell in vote_column(columns, of(history="STANDARD"), standings)] == [2, 2]
    texts = vote_text_column({"a": ["x"], "b": ["y"]}, of(history="STANDARD"), standings)
    assert texts[0].observed == ("b",)


def test_vdx_voter_weights_of_the_definition_count_in_columns() -> None:
    assert vote_column({"a": [0.0], "b": [4.0]}, of(weights={"b": 3}))[0].value == 3
