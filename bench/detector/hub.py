"""False alarms and recall on the Docker Hub series: 209 daily snapshots of 11 control metrics.

A spike is put at every position from the 20th on. As in `voting-vectors/short_series_spikes.json`, the first
two values of a series count for nothing, and every flagged value counts as an alarm, also a repeated one.
"""

from __future__ import annotations

import copy
import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.support.evidence import find_shared_data

from bench.report import Measure
from mao_vote.detector import Detector

from . import former

FIRST = 20  # position of the first spike
ECHO = 5  # values after a spike that are looked at for alarms which it caused
CHANGES = (0.1, -0.1, 0.5, -0.5)
FORMER = "the former rule"


class _Judgement(Protocol):
    @property
    def verdict(self) -> str: ...


class _Detector(Protocol):
    def see(self, value: float, /) -> _Judgement: ...


@dataclass(frozen=True, slots=True)
class Score:
    """Flagged values of `values`, recall by relative change, and flagged values after each spike."""

    flagged: int
    values: int
    recall: dict[float, float]
    echo: float


def read(folder: Path) -> list[list[float]]:
    with (folder / "dockerhub-series" / "dockerhub_merged.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [[float(row[name]) for row in rows] for name in rows[0] if name != "date"]


def score(new: Callable[[], _Detector], series: Sequence[Sequence[float]]) -> Score:
    """Play each series as it is, and again with a spike at each position."""
    flagged: list[bool] = []
    hits: dict[float, list[bool]] = {change: [] for change in CHANGES}
    echoes: list[int] = []
    for values in series:
        before, quiet = _play(new(), values)
        flagged += quiet[2:]
        for place in range(FIRST, len(values)):
            for change in CHANGES:
                detector = copy.deepcopy(before[place])
                hits[change].append(_is_flagged(detector, values[place] * (1 + change)))
                later = range(place + 1, min(place + 1 + ECHO, len(values)))
                echoes.append(sum(_is_flagged(detector, values[at]) and not quiet[at] for at in later))
    recall = {change: sum(found) / len(found) for change, found in hits.items()}
    return Score(sum(flagged), len(flagged), recall, sum(echoes) / len(echoes))


def _play(detector: _Detector, values: Sequence[float]) -> tuple[list[_Detector], list[bool]]:
    before, flagged = [], []
    for value in values:
        before.append(copy.deepcopy(detector))
        flagged.append(_is_flagged(detector, value))
    return before, flagged


def _is_flagged(detector: _Detector, value: float) -> bool:
    return detector.see(value).verdict != "accepted"


def measure() -> list[Measure]:
    data = find_shared_data()
    if data is None:
        print("bench: the Docker Hub series is skipped: ../shared/data is absent")
        return []
    series = read(data)
    ours, theirs = score(Detector, series), score(former.Detector, series)
    figures = [
        Measure(
            name="detector, Docker Hub: flagged values per 1000",
            ours=1000 * ours.flagged / ours.values,
            unit="",
            judged="ours",
            goal=1000 * theirs.flagged / theirs.values,
            limit=1000 * theirs.flagged / theirs.values,
            note=f"{ours.flagged} and {theirs.flagged} of {ours.values}",
            beside={FORMER: 1000 * theirs.flagged / theirs.values},
        ),
        Measure(
            name="detector, Docker Hub: flagged values after a spike",
            ours=ours.echo,
            unit="",
            judged="ours",
            goal=theirs.echo,
            limit=theirs.echo,
            beside={FORMER: theirs.echo},
        ),
    ]
    for change in CHANGES:
        figures.append(
            Measure(
                name=f"detector, Docker Hub: recall at {100 * change:+.0f} %",
                ours=ours.recall[change],
                unit="",
                judged="ours",
                goal=theirs.recall[change],
                limit=theirs.recall[change],
                is_lower_bound=True,
                beside={FORMER: theirs.recall[change]},
            )
        )
    return figures
