"""Ranks nodes by whether they disagree with ground truth significantly more often than the others.

A rate alone misleads: one cell out of two says nothing, fifty out of a thousand may say much, and where all
nodes differ often none stands out. So each node is compared with all others together, and ranked by the
difference of the rates that is certain given the number of cells.

Whether a minority or a colluding majority is right cannot be seen from the votes. So a node is called an
outlier only if most of what it differs in is its alone: nodes that differ together are a camp.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import erfc, exp, fsum, lgamma, log, log1p, sqrt

from mao_git import Clone
from mao_shared.models.evidence import OutlierScore, RankedNode, Ranking, Tally

from .round_history import latest_rounds

MAX_P_VALUE = 0.01  # p-value below which a node is an outlier, over all nodes together
_Z = 2.5758  # two-sided 99 % of a normal distribution: the width of the interval
_MAX_EXACT_TERMS = 20_000  # disagreements up to which the binomial tail is added up term by term


def sum_tallies(rounds: Iterable[Mapping[str, Tally]]) -> dict[str, Tally]:
    """Return the sums of the tallies of several rounds or files by node."""
    sums: dict[str, Tally] = {}
    for tallies in rounds:
        for node, tally in tallies.items():
            sums[node] = sums.get(node, Tally()).plus(tally)
    return sums


def rank_by_disagreement(tallies: Mapping[str, Tally]) -> list[OutlierScore]:
    """Score all nodes, the most deviating first; ties are ordered by name. Pure."""
    all_cells = sum(tally.cells for tally in tallies.values())
    all_differing = sum(tally.differing for tally in tallies.values())
    scores = []
    for node, tally in tallies.items():
        cells, differing = all_cells - tally.cells, all_differing - tally.differing
        chance, excess = 1.0, 0.0
        if cells and tally.cells:
            # half a disagreement is added, so that the rate of nodes that never differ is not zero
            chance = binomial_tail(tally.differing, tally.cells, (differing + 0.5) / (cells + 1))
            excess = wilson_interval(tally.differing, tally.cells)[0] - wilson_interval(differing, cells)[1]
        scores.append(
            OutlierScore(
                node=node,
                cells=tally.cells,
                differing=tally.differing,
                rate=tally.differing / tally.cells if tally.cells else 0.0,
                others=differing / cells if cells else None,
                excess=excess,
                chance=chance,
                shared=tally.shared / tally.differing if tally.differing else 0.0,
                strange=excess > 0
                and chance * len(tallies) < MAX_P_VALUE
                and 2 * tally.shared < tally.differing,
            )
        )
    return sorted(scores, key=lambda score: (-score.excess, score.chance, score.node))


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return Wilson's 99 % confidence interval of a rate."""
    rate, square = successes / trials, _Z**2 / trials
    centre = (rate + square / 2) / (1 + square)
    half = sqrt(rate * (1 - rate) * square + square**2 / 4) / (1 + square)
    return max(centre - half, 0.0), min(centre + half, 1.0)


def binomial_tail(successes: int, trials: int, rate: float) -> float:
    """Return the probability of at least this many successes; `rate` is above 0 and below 1."""
    if successes <= trials * rate:
        return 1 - binomial_tail(trials - successes + 1, trials, 1 - rate) if successes else 1.0
    if trials - successes > _MAX_EXACT_TERMS and successes > _MAX_EXACT_TERMS:
        deviation = (successes - 0.5 - trials * rate) / sqrt(trials * rate * (1 - rate))
        return erfc(deviation / sqrt(2)) / 2  # the tail of a normal distribution
    # sum the terms from the largest until they are negligible
    chosen = lgamma(trials + 1) - lgamma(successes + 1) - lgamma(trials - successes + 1)
    term = exp(chosen + successes * log(rate) + (trials - successes) * log1p(-rate))
    terms, odds = [term], rate / (1 - rate)
    for count in range(successes, trials):
        term *= (trials - count) / (count + 1) * odds
        if term < terms[0] * 1e-16:
            break
        terms.append(term)
    return min(fsum(terms), 1.0)


def rank_nodes(clone: Clone, tip: str, max_rounds: int) -> Ranking:
    """Rank the nodes by their votes in the last `max_rounds` rounds up to `tip`."""
    rounds = [decided.evidence for decided in latest_rounds(clone, tip, max_rounds)]
    votes = [evidence.votes for evidence in rounds]
    abstentions = [evidence.abstained for evidence in rounds]
    items = [
        RankedNode(
            **dict(score),
            voted=sum(score.node in voters for voters in votes),
            abstained=sum(score.node in silent for silent in abstentions),
        )
        for score in rank_by_disagreement(sum_tallies(votes))
    ]
    ticks = sorted(evidence.tick for evidence in rounds)
    return Ranking(
        rounds=len(rounds), since=ticks[0] if ticks else None, until=ticks[-1] if ticks else None, items=items
    )
