"""The detector alone, and its results on a real series.

Spikes are put at every position from the 20th on, not at twelve that are drawn. Protocol and reference
figures: `voting-vectors/short_series_spikes.json`; as there, the first two values of a series count for
nothing, and every flagged value counts as an alarm, also a repeated one, which raises none.
"""

from __future__ import annotations

import copy
import csv
from pathlib import Path
from random import Random

import pytest

from mao_vote.detector import Detector

_PLACES = [parent / "shared/data/dockerhub-series/dockerhub_merged.csv" for parent in Path(__file__).parents]
HUB = next((place for place in _PLACES if place.exists()), None)
FIRST = 20  # position of the first spike
ECHO = 5  # values after a spike that are looked at for alarms which it caused
real = pytest.mark.skipif(
    HUB is None, reason="the Docker Hub series is not beside this checkout (../shared/data)"
)


def verdicts(*values: float) -> list[str]:
    detector = Detector()
    return [detector.see(value).verdict for value in values]


def test_detector_spike_alarms_once_and_leaves_no_echo() -> None:
    assert verdicts(*[100] * 10, 200, *[100] * 5) == ["accepted"] * 10 + ["spike"] + ["accepted"] * 5


def test_detector_new_level_is_told_twice_and_then_believed() -> None:
    assert verdicts(*[100] * 10, 200, 201, 199, 200)[10:] == ["spike", "repeated", "level-shift", "accepted"]


def test_detector_flagged_values_that_differ_are_spikes_each() -> None:
    assert verdicts(*[100] * 10, 200, 50, 400)[10:] == ["spike"] * 3


def test_detector_few_values_give_a_provisional_band() -> None:
    detector = Detector()
    first, second = detector.see(100), detector.see(124)
    assert (first.expected, first.provisional) == (None, True)
    assert (second.verdict, second.band, second.provisional) == ("accepted", 25, True)


@pytest.mark.parametrize("values", [[0.0] * 8, [-5.0] * 8, [1e308] * 8, [-1e-308] * 8])
def test_detector_constant_series_of_any_size_stay_quiet(values: list[float]) -> None:
    assert set(verdicts(*values)) == {"accepted"}


@pytest.mark.parametrize("zeros", [1, 5, 50])
@pytest.mark.parametrize("seed", range(20))
def test_detector_constant_zero_start_is_left_behind(zeros: int, seed: int) -> None:
    random = Random(seed)
    detector = Detector()
    seen = [detector.see(0.0) for _ in range(zeros)]
    seen += [detector.see(random.uniform(45, 55)) for _ in range(100)]
    assert sum(result.alarming for result in seen) == 2
    assert [result.verdict for result in seen[zeros : zeros + 3]] == ["spike", "repeated", "level-shift"]
    assert all(result.accepted for result in seen[zeros + 2 :])
    assert detector.see(100.0).verdict == "spike"  # the new level is one that spikes are told from


def test_detector_after_zeros_values_that_vary_widely_are_a_level_too() -> None:
    assert verdicts(*[0] * 5, 30, 70, 45)[5:] == ["spike", "spike", "level-shift"]
    assert verdicts(*[0] * 5, 50, 0, 50, 0, 50)[5:] == ["spike", "accepted"] * 2 + ["spike"]
    assert verdicts(*[0] * 5, 50, -50, 50)[5:] == ["spike"] * 3


def hub() -> list[list[float]]:
    assert HUB is not None
    with HUB.open() as file:
        rows = list(csv.DictReader(file))
    return [[float(row[name]) for row in rows] for name in rows[0] if name != "date"]


def played(series: list[float]) -> tuple[list[Detector], list[bool]]:
    """Return the detector before each value, and whether the value was flagged."""
    detector, before, alarms = Detector(), [], []
    for value in series:
        before.append(copy.deepcopy(detector))
        alarms.append(detector.see(value).verdict != "accepted")
    return before, alarms


@real
def test_detector_false_alarms_on_a_real_series() -> None:
    alarms = [alarm for series in hub() for alarm in played(series)[1][2:]]
    assert len(alarms) == 2277
    assert 1000 * sum(alarms) / len(alarms) <= 16


@real
def test_detector_recall_and_echo_on_a_real_series() -> None:
    plays = [(series, *played(series)) for series in hub()]
    recall, echoes = {}, []
    for change in (0.1, -0.1, 0.5, -0.5):
        hits = []
        for series, before, quiet in plays:
            for place in range(FIRST, len(series)):
                detector = copy.deepcopy(before[place])
                hits.append(detector.see(series[place] * (1 + change)).verdict != "accepted")
                later = range(place + 1, min(place + 1 + ECHO, len(series)))
                echoes.append(
                    sum(detector.see(series[at]).verdict != "accepted" and not quiet[at] for at in later)
                )
        recall[change] = sum(hits) / len(hits)
    print("recall", recall, "echo", sum(echoes) / len(echoes))
    assert min(recall[0.1], recall[-0.1]) >= 0.81
    assert min(recall[0.5], recall[-0.5]) >= 0.99
    assert sum(echoes) / len(echoes) <= 0.05
