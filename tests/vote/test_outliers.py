"""Detection of nodes that disagree unusually often, and of spikes of a single node."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import comb, isclose

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mao_datamgmt.monitoring.spikes import detect_spikes
from mao_shared.models.evidence import Tally
from mao_vote.outliers import binomial_tail, rank_by_disagreement, sum_tallies, wilson_interval

unhurried = settings(deadline=None)  # other programs may keep the machine busy
TALLIES = st.integers(0, 3000).flatmap(lambda n: st.builds(Tally, st.just(n), st.integers(0, n)))


def test_outliers_node_that_corrupts_five_percent_leads() -> None:
    rounds = [{"a": Tally(1000, 2), "b": Tally(1000, 50), "c": Tally(1000, 0)}] * 10
    first, *others = rank_by_disagreement(sum_tallies(rounds))
    assert (first.node, first.cells, first.differing, first.strange) == ("b", 10_000, 500, True)
    assert first.chance < 1e-12
    assert first.rate == 0.05
    assert not any(node.strange for node in others)


def test_outliers_node_with_few_cells_ranks_below_one_that_is_known_to_fail() -> None:
    ranked = rank_by_disagreement({"few": Tally(2, 1), "many": Tally(1000, 200), "good": Tally(1000, 1)})
    assert [tally.node for tally in ranked] == ["many", "few", "good"]
    assert not ranked[1].strange


@pytest.mark.parametrize(
    "tallies",
    [
        {},
        {"a": Tally(100, 100)},
        {"a": Tally(0, 0), "b": Tally(10, 5)},
        {"a": Tally(1000, 300), "b": Tally(1000, 310), "c": Tally(1000, 290)},
        {"a": Tally(100, 1), "b": Tally(100, 0), "c": Tally(100, 0)},
    ],
)
def test_outliers_no_outliers(tallies: dict[str, Tally]) -> None:
    assert not any(tally.strange for tally in rank_by_disagreement(tallies))
    assert {tally.node for tally in rank_by_disagreement(tallies)} == set(tallies)


@unhurried
@given(st.dictionaries(st.sampled_from("abcdef"), TALLIES, max_size=6))
def test_outliers_ranking_of_anything(tallies: dict[str, Tally]) -> None:
    ranked = rank_by_disagreement(tallies)
    assert ranked == rank_by_disagreement(dict(reversed(tallies.items())))
    assert all(0 <= tally.chance <= 1 and -1 <= tally.excess <= 1 for tally in ranked)
    assert sorted(tally.node for tally in ranked) == sorted(tallies)


@unhurried
@given(st.integers(1, 60), st.integers(0, 60), st.floats(0.01, 0.99))
def test_outliers_chance_is_the_tail_of_the_binomial_distribution(
    trials: int, successes: int, rate: float
) -> None:
    successes = min(successes, trials)
    exact = sum(comb(trials, k) * rate**k * (1 - rate) ** (trials - k) for k in range(successes, trials + 1))
    assert isclose(binomial_tail(successes, trials, rate), exact, rel_tol=1e-9, abs_tol=1e-12)


@unhurried
@given(st.integers(1, 10**6), st.floats(0, 1))
def test_outliers_interval_holds_the_rate_and_narrows(trials: int, share: float) -> None:
    successes = round(trials * share)
    low, high = wilson_interval(successes, trials)
    assert 0 <= low <= successes / trials + 1e-12
    assert successes / trials - 1e-12 <= high <= 1
    less, more = wilson_interval(100 * successes, 100 * trials)
    assert more - less < high - low


def test_outliers_millions_of_cells_take_no_time() -> None:
    ranked = rank_by_disagreement(
        {"a": Tally(10**9, 10**8), "b": Tally(10**9, 10**8 + 10**6), "c": Tally(10**9, 10**8)}
    )
    assert ranked[0].node == "b"
    assert ranked[0].strange


# --- spikes -----------------------------------------------------------------------------------------------

CALM = [100.0, 101.0, 99.0, 100.0, 100.5, 99.5, 100.0, 101.0, 100.0]


def ticks(count: int) -> list[datetime]:
    return [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=at) for at in range(count)]


def test_outliers_spike_of_one_node_is_told_from_one_in_the_consensus() -> None:
    mine, all_alike = [*CALM, 150.0, 100.0], [*CALM, 100.0, 100.0]
    (found,) = detect_spikes({"a": mine, "b": all_alike, "c": all_alike}, all_alike, ticks(11))
    assert (found.tick, found.whose, found.nodes, found.value) == (9, "node", ("a",), 100.0)


def test_outliers_spike_of_all_is_of_the_consensus_and_names_who_missed_it() -> None:
    spiking, still = [*CALM, 150.0], [*CALM, 100.0]
    everybody, lagging = detect_spikes(
        {"a": spiking, "b": still, "c": spiking, "d": [*CALM, None]}, spiking, ticks(10)
    )
    assert (everybody.whose, everybody.nodes, everybody.value) == ("consensus", ("a", "c"), 150.0)
    assert (lagging.whose, lagging.nodes) == ("lagging", ("b",))
    assert everybody.expected == pytest.approx(100, rel=0.01)


def test_outliers_series_without_spikes_without_values_and_of_different_lengths() -> None:
    assert detect_spikes({"a": CALM}, CALM, ticks(9)) == []
    assert detect_spikes({}, [], []) == []
    assert detect_spikes({"a": [None, float("nan")]}, [None, None], ticks(2)) == []
    with pytest.raises(ValueError, match="length"):
        detect_spikes({"a": [1.0]}, [], [])
