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
    """Return all spikes of one metric, by tick. All series have one value or None per tick.

    `value` and `expected` are ground truth's. ValueError if the lengths differ.
    """
    if any(len(series) != len(truth) for series in nodes.values()):
        raise ValueError("the series of the nodes and of ground truth differ in length")
    agreed = judged(truth)
    own = {node: judged(series) for node, series in sorted(nodes.items())}
    return [
        spike
        for tick, judgement in enumerate(agreed)
        for spike in _at(
            tick, truth[tick], judgement, {node: judgements[tick] for node, judgements in own.items()}
        )
    ]


def judged(series: Sequence[float | None]) -> list[Judgement | None]:
    """Return the detector's judgement of each value in turn; None for a value that is not finite."""
    detector = Detector()
    return [None if value is None or not isfinite(value) else detector.see(value) for value in series]


def _at(
    tick: int, value: float | None, agreed: Judgement | None, own: Mapping[str, Judgement | None]
) -> list[Spike]:
    spiking = tuple(node for node, judgement in own.items() if judgement is not None and judgement.alarming)
    expected = None if agreed is None else agreed.expected
    if agreed is None or not agreed.alarming:
        return [Spike(tick, "node", spiking, value, expected)] if spiking else []
    found = [Spike(tick, "consensus", spiking, value, expected)]
    calm = tuple(
        node for node, judgement in own.items() if judgement is not None and judgement.verdict == "accepted"
    )
    return [*found, Spike(tick, "lagging", calm, value, expected)] if calm else found


def find_spikes(clone: Clone, tip: str, metrics: Sequence[ControlMetric], most: int) -> Spikes:
    """Return the spikes in the last `most` rounds up to `tip`; a missing metric is no spike."""
    rounds = sorted(latest_rounds(clone, tip, most), key=lambda decided: decided.evidence.tick)
    items = [spike for metric in metrics for spike in _find_metric_spikes(clone, rounds, metric)]
    items.sort(key=lambda spike: spike.tick, reverse=True)
    return Spikes(rounds=len(rounds), metrics=[metric.name for metric in metrics], items=items)


def _find_metric_spikes(
    clone: Clone, rounds: Sequence[DecidedRound], metric: ControlMetric
) -> list[RoundSpike]:
    def values(commits: Sequence[str | None]) -> list[float | None]:
        return [None if commit is None else read_metric(clone, commit, metric).value for commit in commits]

    names = sorted({node for decided in rounds for node in decided.evidence.commits})
    nodes = {node: values([decided.evidence.commits.get(node) for decided in rounds]) for node in names}
    found = spikes(nodes, values([decided.commit for decided in rounds]))
    return [
        RoundSpike(
            metric=metric.name,
            round=rounds[spike.tick].evidence.round,
            tick=rounds[spike.tick].evidence.tick,
            whose=spike.whose,
            nodes=list(spike.nodes),
            value=spike.value,
            expected=spike.expected,
            values={node: nodes[node][spike.tick] for node in spike.nodes},
        )
        for spike in found
    ]
