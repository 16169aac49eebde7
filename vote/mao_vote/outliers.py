"""Which nodes disagree with ground truth significantly more often than the others.

Which nodes disagree with ground truth unusually often.

A share alone misleads: one cell out of two is nothing, fifty out of a thousand may be much, and where all
differ a lot nobody is strange. So a node is compared with all the others together, and ranked by how much
more often than they it differs at the least, given how few or many cells that is known from. Pure.

Which nodes disagree unusually often, from the evidence of the last rounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import erfc, exp, fsum, lgamma, log, log1p, sqrt

from pydantic import BaseModel

from mao_git import Clone
from mao_shared.models import Timestamp

from .ledger import Tallied
from .round_history import latest_rounds

SIGNIFICANT = 0.01  # the chance at which a node counts as strange, over all nodes together

_Z = 2.5758  # two-sided 99 % of a normal distribution: the width of the interval

_EXACT = 20_000  # disagreements up to which the binomial tail is added up term by term


@dataclass(frozen=True, slots=True)
class OutlierScore:
    """One node. `differing` of `cells`; `others`: the rate of all other nodes together (None without any).

    `excess`: by how much its rate exceeds theirs at the least (99 %); 0 or less when it may be chance.
    `chance`: how probable so many disagreements are if it were like the others (p-value, one-sided).
    """

    node: str
    cells: int
    differing: int
    others: float | None
    excess: float
    chance: float
    strange: bool

    @property
    def rate(self) -> float:
        """The part of its cells in which it differs; 0 without any."""
        return self.differing / self.cells if self.cells else 0.0


@dataclass(frozen=True, slots=True)
class NodeTotals:
    """In how many cells a node was judged, and in how many it differed."""

    cells: int = 0
    differing: int = 0


def sum_tallies(rounds: Iterable[Mapping[str, Tallied]]) -> dict[str, NodeTotals]:
    """Several rounds' (or files') tallies by node, added up."""
    sums: dict[str, NodeTotals] = {}
    for tallies in rounds:
        for node, each in tallies.items():
            before = sums.get(node, NodeTotals())
            sums[node] = NodeTotals(before.cells + each.cells, before.differing + each.differing)
    return sums


def rank_by_disagreement(tallies: Mapping[str, Tallied]) -> list[OutlierScore]:
    """All nodes, the strangest first; by name where nothing else tells them apart.

    A node is called strange when even among so many nodes chance would hardly bring forth one like it.
    """
    nodes = [_judge(node, tallies) for node in tallies]
    return sorted(nodes, key=lambda each: (-each.excess, each.chance, each.node))


def _judge(node: str, tallies: Mapping[str, Tallied]) -> OutlierScore:
    own = tallies[node]
    cells = sum(each.cells for other, each in tallies.items() if other != node)
    differing = sum(each.differing for other, each in tallies.items() if other != node)
    others = differing / cells if cells else None
    if others is None or not own.cells:
        return OutlierScore(node, own.cells, own.differing, others, 0.0, 1.0, strange=False)
    # half a disagreement is added, so that the rate of others who never differed is small but not zero
    expected = (differing + 0.5) / (cells + 1)
    chance = binomial_tail(own.differing, own.cells, expected)
    low, _ = wilson_interval(own.differing, own.cells)
    _, high = wilson_interval(differing, cells)
    excess = low - high
    strange = excess > 0 and chance * len(tallies) < SIGNIFICANT
    return OutlierScore(node, own.cells, own.differing, others, excess, chance, strange)


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 99 % interval of a rate."""
    rate, square = successes / trials, _Z**2 / trials
    centre = (rate + square / 2) / (1 + square)
    half = sqrt(rate * (1 - rate) * square + square**2 / 4) / (1 + square)
    return max(centre - half, 0.0), min(centre + half, 1.0)


def binomial_tail(successes: int, trials: int, rate: float) -> float:
    """How probable so many successes or more are; `rate` between 0 and 1, both excluded."""
    if successes <= trials * rate:
        return 1 - binomial_tail(trials - successes + 1, trials, 1 - rate) if successes else 1.0
    if trials - successes > _EXACT and successes > _EXACT:
        return _normal_tail(successes, trials, rate)
    return _tail(successes, trials, rate)


def _tail(successes: int, trials: int, rate: float) -> float:
    """Term by term from the largest, until they no longer count."""
    chosen = lgamma(trials + 1) - lgamma(successes + 1) - lgamma(trials - successes + 1)
    term = exp(chosen + successes * log(rate) + (trials - successes) * log1p(-rate))
    terms, odds = [term], rate / (1 - rate)
    for count in range(successes, trials):
        term *= (trials - count) / (count + 1) * odds
        if term < terms[0] * 1e-16:
            break
        terms.append(term)
    return min(fsum(terms), 1.0)


def _normal_tail(successes: int, trials: int, rate: float) -> float:
    deviation = (successes - 0.5 - trials * rate) / sqrt(trials * rate * (1 - rate))
    return erfc(deviation / sqrt(2)) / 2


class RankedNode(BaseModel):
    """A node. `rate`: the part of its cells that differ; `others`: the same of all other nodes together.

    `excess`: by how much its rate exceeds theirs at the least (99 %); `chance`: how probable that is if it
    were like the others. `strange`: even among so many nodes chance would hardly bring forth one like it.
    """

    node: str
    cells: int
    differing: int
    rate: float
    others: float | None
    excess: float
    chance: float
    strange: bool
    voted: int  # rounds
    abstained: int


class Ranking(BaseModel):
    """The strangest first. `rounds`: how many were looked at; `since`, `until`: their first and last tick."""

    rounds: int
    since: Timestamp | None = None
    until: Timestamp | None = None
    items: list[RankedNode]


def rank_nodes(clone: Clone, tip: str, most: int) -> Ranking:
    """Over the last `most` rounds that led to `tip`."""
    rounds = [each.evidence for each in latest_rounds(clone, tip, most)]
    voted = [each.votes for each in rounds]
    silent = [each.abstained for each in rounds]
    found = rank_by_disagreement(sum_tallies(voted))
    items = [
        _ranked(each, sum(each.node in one for one in voted), sum(each.node in one for one in silent))
        for each in found
    ]
    ticks = sorted(each.tick for each in rounds)
    return Ranking(
        rounds=len(rounds), since=ticks[0] if ticks else None, until=ticks[-1] if ticks else None, items=items
    )


def _ranked(found: OutlierScore, voted: int, abstained: int) -> RankedNode:
    return RankedNode(
        node=found.node,
        cells=found.cells,
        differing=found.differing,
        rate=found.rate,
        others=found.others,
        excess=found.excess,
        chance=found.chance,
        strange=found.strange,
        voted=voted,
        abstained=abstained,
    )
