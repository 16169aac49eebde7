"""Spikes in the control metrics of the last rounds: one node's, or everybody's."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, Field

from mao_git import Clone
from mao_shared.models import ControlMetric, Timestamp
from mao_vote.round_history import Decided, latest_rounds

from .extract import read_metric
from .spikes import Whose, spikes


class Spiked(BaseModel):
    """A spike of a metric in a round; see `Spike`. `value` and `expected` are ground truth's, `values` those
    of `nodes`."""

    metric: str
    round: str
    tick: Timestamp
    whose: Whose
    nodes: list[str]
    value: float | None
    expected: float | None
    values: dict[str, float | None] = Field(default_factory=dict)


class Spikes(BaseModel):
    """The newest first. `rounds`: how many were looked at; `metrics`: which."""

    rounds: int
    metrics: list[str]
    items: list[Spiked]


def find_spikes(clone: Clone, tip: str, metrics: Sequence[ControlMetric], most: int) -> Spikes:
    """Over the last `most` rounds that led to `tip`; a metric that a commit does not have is no spike."""
    rounds = sorted(latest_rounds(clone, tip, most), key=lambda each: each.evidence.tick)
    items = [each for metric in metrics for each in _of(clone, rounds, metric)]
    items.sort(key=lambda each: each.tick, reverse=True)
    return Spikes(rounds=len(rounds), metrics=[metric.name for metric in metrics], items=items)


def _of(clone: Clone, rounds: Sequence[Decided], metric: ControlMetric) -> list[Spiked]:
    def values(commits: Sequence[str | None]) -> list[float | None]:
        return [None if each is None else read_metric(clone, each, metric).value for each in commits]

    names = sorted({node for each in rounds for node in each.evidence.commits})
    nodes = {node: values([each.evidence.commits.get(node) for each in rounds]) for node in names}
    found = spikes(nodes, values([each.commit for each in rounds]))
    return [
        Spiked(
            metric=metric.name,
            round=rounds[each.tick].evidence.round,
            tick=rounds[each.tick].evidence.tick,
            whose=each.whose,
            nodes=list(each.nodes),
            value=each.value,
            expected=each.expected,
            values={node: nodes[node][each.tick] for node in each.nodes},
        )
        for each in found
    ]
