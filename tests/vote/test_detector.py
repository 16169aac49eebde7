"""The detector alone, and its results on a real series.

Spikes are put at every position from the 20th on, not at twelve that are drawn. Protocol and reference
figures: `voting-vectors/short_series_spikes.json`; as there, the first two values of a series count for
nothing, and every flagged value counts as an alarm, also a repeated one, which raises none.
"""

from __future__ import annotations

import copy
import csv
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest
from bench.detector.made_up import points, poisson

from mao_vote.detector import MAX_VALUES, Detector

_PLACES = [parent / "shared/data/dockerhub-series/dockerhub_merged.csv" for parent in Path(__file__).parents]
HUB = next((place for place in _PLACES if place.exists()), None)
MONDAY = datetime(2024, 1, 1, tzinfo=UTC)
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
    assert (second.verdict, second.provisional) == ("accepted", True)
    detector = Detector()
    detector.see(100.5)
    assert detector.see(124.5).band == 0.25 * 100.5  # no count


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


def alarms(values: list[float], step: timedelta | None = None) -> int:
    detector = Detector()
    times = [None if step is None else MONDAY + step * at for at in range(len(values))]
    return sum(detector.see(value, time).alarming for value, time in zip(values, times, strict=True))


@pytest.mark.parametrize("factor", [1e-6, 0.5, 3.0, 1e9, -1.0, -7.5])
@pytest.mark.parametrize("seed", range(5))
def test_detector_verdicts_do_not_depend_on_the_unit(factor: float, seed: int) -> None:
    random = Random(seed)
    values = [100.25 + random.gauss(0, 10) + (80 if at in (60, 90, 91) else 0) for at in range(150)]
    assert verdicts(*(factor * value for value in values)) == verdicts(*values)


@pytest.mark.parametrize("offset", [-20.0, 5.0, 40.0])
def test_detector_verdicts_do_not_depend_on_the_zero_where_noise_is_large(offset: float) -> None:
    random = Random(1)
    values = [0.25 + random.gauss(0, 10) for _ in range(40)] + [200.25, 0.25, -150.25, 0.25]
    shifted = [value + offset for value in values]
    assert verdicts(*shifted)[-4:] == verdicts(*values)[-4:] == ["spike", "accepted"] * 2


@pytest.mark.parametrize("size", [0.5, 100.0, -3000.0])
@pytest.mark.parametrize("before", [20, 50, 300])
def test_detector_one_spike_of_any_size_leaves_no_echo_and_hides_none(size: float, before: int) -> None:
    random = Random(before)
    calm = [100.25 + random.uniform(-1, 1) for _ in range(before)]
    after = [100.25 + random.uniform(-1, 1) for _ in range(30)]
    found = verdicts(*calm, 100 + 100 * size, *after, 100 + 100 * size)
    assert found[before:] == ["spike"] + ["accepted"] * 30 + ["spike"]


@pytest.mark.parametrize("mean", [0.05, 0.3, 1, 2, 5, 12, 40])
def test_detector_counts_vary_by_chance(mean: float) -> None:
    series = [
        points(timedelta(hours=1), 500, lambda random, _: poisson(random, mean), s) for s in range(50, 60)
    ]
    assert sum(alarms([value for _, value in one]) for one in series) <= 10 * 5
    detector = Detector()
    for _, value in series[0]:
        detector.see(value)
    assert detector.see(10 * mean + 40).verdict == "spike"


@pytest.mark.parametrize("weekend", [0.0, 40.0, 300.0])
@pytest.mark.parametrize(("step", "count"), [(timedelta(days=1), 400), (timedelta(hours=1), 1500)])
def test_detector_weekends_are_expected_and_a_missing_one_is_not(
    weekend: float, step: timedelta, count: int
) -> None:
    random = Random(7)
    times = [MONDAY + step * at for at in range(count)]
    values = [(100 if time.weekday() < 5 else weekend) + random.gauss(0, 3) for time in times]
    assert alarms(values, step) <= count / 100
    detector = Detector()
    for time, value in zip(times, values, strict=True):
        detector.see(value, time)
    assert detector.see(2000.0, times[-1] + step).verdict == "spike"


def test_detector_series_wider_than_its_start_is_learnt() -> None:
    random = Random(3)
    values = [100 + random.gauss(0, 1) for _ in range(50)] + [100 + random.gauss(0, 30) for _ in range(500)]
    assert alarms(values) <= 15


def test_detector_says_what_it_expects_from_what() -> None:
    detector = Detector()
    seen = [detector.see(100.5, MONDAY + timedelta(hours=at)) for at in range(10)]
    assert seen[0].reason == ""
    assert seen[2].reason == "as the last 2 accepted values; the band is a guess from few values"
    spike = detector.see(200.0, MONDAY)
    assert spike.reason == "as the last 3 accepted values; the band is the smallest share of it"


@pytest.mark.parametrize("kind", ["daily", "hourly"])
def test_detector_remembers_no_more_than_the_points_that_are_kept(kind: str) -> None:
    step = timedelta(days=1) if kind == "daily" else timedelta(hours=1)
    random = Random(5)
    times = [MONDAY + step * at for at in range(MAX_VALUES + 300)]
    values = [(100 if time.weekday() < 5 else 40) + random.gauss(0, 3) for time in times]
    whole, kept = Detector(), Detector()
    for at, (time, value) in enumerate(zip(times, values, strict=True)):
        whole.see(value, time)
        if at >= 300:
            kept.see(value, time)
    next_time = times[-1] + step
    one, other = whole.see(101.0, next_time), kept.see(101.0, next_time)
    assert one.verdict == other.verdict == "accepted"


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
    assert 1000 * sum(alarms) / len(alarms) <= 13.2


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
    assert recall[0.1] >= 0.843
    assert recall[-0.1] >= 0.837
    assert recall[0.5] >= 0.996
    assert recall[-0.5] == 1
    assert sum(echoes) / len(echoes) <= 0.033
