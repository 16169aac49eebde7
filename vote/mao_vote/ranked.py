"""Which nodes disagree unusually often, from the evidence of the last rounds."""

from __future__ import annotations

from pydantic import BaseModel

from mao_git import Clone
from mao_shared.models import Timestamp

from .outliers import Strangeness, ranking, total
from .round_history import latest_rounds


class Ranked(BaseModel):
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
    items: list[Ranked]


def rank(clone: Clone, tip: str, most: int) -> Ranking:
    """Over the last `most` rounds that led to `tip`."""
    rounds = [each.evidence for each in latest_rounds(clone, tip, most)]
    voted = [each.votes for each in rounds]
    silent = [each.abstained for each in rounds]
    found = ranking(total(voted))
    items = [
        _ranked(each, sum(each.node in one for one in voted), sum(each.node in one for one in silent))
        for each in found
    ]
    ticks = sorted(each.tick for each in rounds)
    return Ranking(
        rounds=len(rounds), since=ticks[0] if ticks else None, until=ticks[-1] if ticks else None, items=items
    )


def _ranked(found: Strangeness, voted: int, abstained: int) -> Ranked:
    return Ranked(
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
