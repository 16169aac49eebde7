"""False alarms and windows hit on the Numenta Anomaly Benchmark (github.com/numenta/NAB, AGPL-3.0).

An alarm outside every labelled window is false; the rate is per 1000 values outside the windows. A window is
hit if it holds at least one alarm.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tests.support.evidence import find_shared_data

from bench.report import Measure

from .rules import OTHERS, Point, Rule, present

NAB_FOLDER = "MAO_BENCH_NAB"  # environment variable with the folder of a clone of NAB
TUNED = ("realKnownCause", "realAWSCloudwatch")
HELD_BACK = ("realAdExchange", "realTraffic", "realTweets")
MAX_FALSE_PER_1000, MIN_HIT = 15.0, 47


@dataclass(frozen=True, slots=True)
class LabelledSeries:
    """A series and the windows in which something was wrong."""

    name: str
    points: list[Point]
    windows: list[tuple[datetime, datetime]]


@dataclass(frozen=True, slots=True)
class Score:
    """Alarms outside all windows, the values there, and the windows with and without an alarm."""

    false: int
    quiet: int
    hit: int
    windows: int

    @property
    def per_1000(self) -> float:
        return 1000 * self.false / self.quiet


def nab_folder() -> Path | None:
    """Return the folder of NAB, or None."""
    data = find_shared_data()
    places = [os.environ.get(NAB_FOLDER), data and data / "nab"]
    return next((Path(place) for place in places if place and (Path(place) / "labels").is_dir()), None)


def read(folder: Path, groups: Sequence[str]) -> list[LabelledSeries]:
    """Return the series of some groups, by name."""
    labels = json.loads((folder / "labels" / "combined_windows.json").read_text())
    found = []
    for name in sorted(labels):
        if name.partition("/")[0] not in groups:
            continue
        with (folder / "data" / name).open(newline="") as file:
            points = [
                (datetime.fromisoformat(row["timestamp"]), float(row["value"]))
                for row in csv.DictReader(file)
            ]
        windows = [
            (datetime.fromisoformat(begin), datetime.fromisoformat(end)) for begin, end in labels[name]
        ]
        found.append(LabelledSeries(name, points, windows))
    return found


def score(rule: Rule, series: Sequence[LabelledSeries]) -> Score:
    """Apply a rule to each series on its own and add up."""
    false = quiet = hit = 0
    for one in series:
        alarms = [time for (time, _), alarm in zip(one.points, rule(one.points), strict=True) if alarm]
        false += sum(not _inside(time, one.windows) for time in alarms)
        quiet += sum(not _inside(time, one.windows) for time, _ in one.points)
        hit += sum(any(begin <= time <= end for time in alarms) for begin, end in one.windows)
    return Score(false, quiet, hit, sum(len(one.windows) for one in series))


def _inside(time: datetime, windows: Sequence[tuple[datetime, datetime]]) -> bool:
    return any(begin <= time <= end for begin, end in windows)


def measure(*, quick: bool) -> list[Measure]:
    folder = nab_folder()
    if folder is None:
        print(f"bench: NAB is skipped: neither ../shared/data/nab nor {NAB_FOLDER} has a clone of it")
        return []
    tuned = _measures("the 24 series tuned on", read(folder, TUNED), is_goal=True)
    return tuned if quick else tuned + _measures("held back", read(folder, HELD_BACK), is_goal=False)


def _measures(name: str, series: list[LabelledSeries], *, is_goal: bool) -> list[Measure]:
    ours = score(present, series)
    others = {other: score(rule, series) for other, rule in OTHERS.items()}
    note = f"{len(series)} series, {sum(len(one.points) for one in series)} values, {ours.windows} windows"
    return [
        Measure(
            name=f"detector, NAB, {name}: false alarms per 1000 values",
            ours=ours.per_1000,
            unit="",
            judged="ours" if is_goal else None,
            goal=MAX_FALSE_PER_1000 if is_goal else None,
            limit=MAX_FALSE_PER_1000 if is_goal else None,
            note=note,
            beside={other: found.per_1000 for other, found in others.items()},
        ),
        Measure(
            name=f"detector, NAB, {name}: windows hit",
            ours=ours.hit,
            unit="",
            judged="ours" if is_goal else None,
            goal=MIN_HIT if is_goal else None,
            limit=MIN_HIT if is_goal else None,
            is_lower_bound=True,
            note=f"of {ours.windows}",
            beside={other: found.hit for other, found in others.items()},
        ),
    ]
