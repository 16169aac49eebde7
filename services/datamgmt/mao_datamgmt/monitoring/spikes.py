"""Finds spikes in the control metrics of a dataset's rounds: of single nodes, or of ground truth.

The series of each node and of ground truth are judged separately. A spike in ground truth is a real event, or
affects most nodes; a spike in one node only is a fault of that node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from typing import Literal

from mao_git import Clone
from mao_shared.models import ControlMetric
from mao_shared.models.alarm import RoundSpike, Spikes
from mao_shared.models.evidence import DecidedRound
from mao_vote import latest_rounds
from mao_vote.detector import Detector, Judgement

from .extract import read_metric

SpikeOrigin = Literal["node", "consensus", "lagging"]


@dataclass(frozen=True, slots=True)
class Spike:
    """A spike at one tick (an index into the series). `nodes`: the nodes it concerns, sorted.

    `whose` is `node` if these nodes spike and ground truth does not, `consensus` if ground truth spikes (with
    the nodes that spike too), `lagging` if ground truth spikes and these nodes have a value that does not.
    `reason`: what the expected value and the band of ground truth come from, or of the node if only one spikes.
    """

    tick: int
    whose: SpikeOrigin
    nodes: tuple[str, ...]
    value: float | None
    expected: float | None
    reason: str


def detect_spikes(
    nodes: Mapping[str, Sequence[float | None]],
    truth: Sequence[float | None],
    ticks: Sequence[datetime],
) -> list[Spike]:
    """Return all spikes of one metric, by tick. Each series has one value or None per tick.

    `value` and `expected` are those of ground truth. Raises ValueError if the lengths differ.
    """
    if any(len(series) != len(ticks) for series in (truth, *nodes.values())):
        raise ValueError("the series of the nodes and of ground truth differ in length from the ticks")
    truth_judgements = judge_series(truth, ticks)
    node_judgements = {node: judge_series(series, ticks) for node, series in sorted(nodes.items())}
    return [
        spike
        for tick, judgement in enumerate(truth_judgements)
        for spike in _spikes_at(
            tick,
            truth[tick],
            judgement,
            {node: judgements[tick] for node, judgements in node_judgements.items()},
        )
    ]


def judge_series(series: Sequence[float | None], ticks: Sequence[datetime]) -> list[Judgement | None]:
    """Return the detector's judgement of each value, None for a missing or non-finite value."""
    detector = Detector()
    return [
        None if value is None or not isfinite(value) else detector.see(value, tick)
        for value, tick in zip(series, ticks, strict=True)
    ]


def _spikes_at(
    tick: int,
    value: float | None,
    truth_judgements: Judgement | None,
    node_judgements: Mapping[str, Judgement | None],
) -> list[Spike]:
    spiking = tuple(
        node for node, judgement in node_judgements.items() if judgement is not None and judgement.alarming
    )
    expected = None if truth_judgements is None else truth_judgements.expected
    if truth_judgements is None or not truth_judgements.alarming:
        reasons = [judgement.reason for node in spiking if (judgement := node_judgements[node]) is not None]
        reason = reasons[0] if len(reasons) == 1 else ""
        return [Spike(tick, "node", spiking, value, expected, reason)] if spiking else []
    reason = truth_judgements.reason
    found = [Spike(tick, "consensus", spiking, value, expected, reason)]
    quiet = tuple(
        node
        for node, judgement in node_judgements.items()
        if judgement is not None and judgement.verdict == "accepted"
    )
    return [*found, Spike(tick, "lagging", quiet, value, expected, reason)] if quiet else found


def find_spikes(clone: Clone, tip: str, metrics: Sequence[ControlMetric], max_rounds: int) -> Spikes:
    """Return the spikes in the last `max_rounds` rounds up to `tip`; a missing metric is no spike."""
    rounds = sorted(latest_rounds(clone, tip, max_rounds), key=lambda decided: decided.evidence.tick)
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
    ticks = [decided.evidence.tick for decided in rounds]
    found = detect_spikes(nodes, values([decided.commit for decided in rounds]), ticks)
    return [
        RoundSpike(
            metric=metric.name,
            round=rounds[spike.tick].evidence.round,
            tick=rounds[spike.tick].evidence.tick,
            whose=spike.whose,
            nodes=list(spike.nodes),
            value=spike.value,
            expected=spike.expected,
            reason=spike.reason or None,
            values={node: nodes[node][spike.tick] for node in spike.nodes},
        )
        for spike in found
    ]
