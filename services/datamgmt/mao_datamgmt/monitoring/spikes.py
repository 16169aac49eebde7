"""Spikes in the control metrics of a dataset's rounds: of one node, or of all.

A node's series is judged by itself, and so is that of ground truth. What spikes in both happened in the
world, or to most nodes alike; what spikes in one node alone is that node's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Literal

from mao_git import Clone
from mao_shared.models import ControlMetric
from mao_shared.models.alarm import RoundSpike, Spikes
from mao_shared.models.evidence import DecidedRound
from mao_vote import latest_rounds
from mao_vote.detector import Detector, Judgement

from .extract import read_metric

Whose = Literal["node", "consensus", "lagging"]


@dataclass(frozen=True, slots=True)
class Spike:
    """A spike at one tick (its place in the series). `nodes`: those whose own series spikes there, sorted.

    `node`: these nodes spike and ground truth does not. `consensus`: ground truth spikes. `lagging`: ground
    truth spikes, and only these nodes, which have a value, do not.
    """

    tick: int
    whose: Whose
    nodes: tuple[str, ...]
    value: float | None
    expected: float | None


def spikes(nodes: Mapping[str, Sequence[float | None]], truth: Sequence[float | None]) -> list[Spike]:
    """All spikes of one metric, by tick. The series are of one length, a value a tick or None.

    `value` and `expected` are ground truth's. ValueError if the lengths differ.
    """
    if any(len(each) != len(truth) for each in nodes.values()):
        raise ValueError("the series of the nodes and of ground truth differ in length")
    agreed = judged(truth)
    own = {node: judged(series) for node, series in sorted(nodes.items())}
    return [
        spike
        for tick, judgement in enumerate(agreed)
        for spike in _at(tick, truth[tick], judgement, {node: each[tick] for node, each in own.items()})
    ]


def judged(series: Sequence[float | None]) -> list[Judgement | None]:
    """The detector's judgement of each value, in turn; None where there is no finite one."""
    detector = Detector()
    return [None if each is None or not isfinite(each) else detector.see(each) for each in series]


def _at(
    tick: int, value: float | None, agreed: Judgement | None, own: Mapping[str, Judgement | None]
) -> list[Spike]:
    spiking = tuple(node for node, each in own.items() if each is not None and each.alarming)
    expected = None if agreed is None else agreed.expected
    if agreed is None or not agreed.alarming:
        return [Spike(tick, "node", spiking, value, expected)] if spiking else []
    found = [Spike(tick, "consensus", spiking, value, expected)]
    calm = tuple(node for node, each in own.items() if each is not None and each.verdict == "accepted")
    return [*found, Spike(tick, "lagging", calm, value, expected)] if calm else found


def find_spikes(clone: Clone, tip: str, metrics: Sequence[ControlMetric], most: int) -> Spikes:
    """Spikes in the last `most` rounds that led to `tip`; a metric that a commit lacks is no spike."""
    rounds = sorted(latest_rounds(clone, tip, most), key=lambda each: each.evidence.tick)
    items = [each for metric in metrics for each in _of(clone, rounds, metric)]
    items.sort(key=lambda each: each.tick, reverse=True)
    return Spikes(rounds=len(rounds), metrics=[metric.name for metric in metrics], items=items)


def _of(clone: Clone, rounds: Sequence[DecidedRound], metric: ControlMetric) -> list[RoundSpike]:
    def values(commits: Sequence[str | None]) -> list[float | None]:
        return [None if each is None else read_metric(clone, each, metric).value for each in commits]

    names = sorted({node for each in rounds for node in each.evidence.commits})
    nodes = {node: values([each.evidence.commits.get(node) for each in rounds]) for node in names}
    found = spikes(nodes, values([each.commit for each in rounds]))
    return [
        RoundSpike(
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
