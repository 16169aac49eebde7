"""False alarms on made-up series in which nothing is wrong: counts, weekends and offices."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from math import exp
from random import Random

from bench.report import Measure

from .rules import OTHERS, Point, Rule, present

SEEDS = range(1000, 1020)  # the constants were tuned with seeds below 10
BEGIN = datetime(2024, 1, 1, tzinfo=UTC)  # a Monday
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
MAX_FALSE_PER_1000 = 10.0

Value = Callable[[Random, datetime], float]


def poisson(random: Random, mean: float) -> int:
    """Draw from a Poisson distribution (Knuth, The Art of Computer Programming, 3.4.1)."""
    product, count = random.random(), 0
    while product > exp(-mean):
        product *= random.random()
        count += 1
    return count


def is_weekday(time: datetime) -> bool:
    return time.weekday() < 5


SERIES: dict[str, tuple[timedelta, int, float | None, Value]] = {
    "counts with mean 2": (HOUR, 1000, MAX_FALSE_PER_1000, lambda random, _: poisson(random, 2)),
    "counts with mean 0.2": (HOUR, 1000, MAX_FALSE_PER_1000, lambda random, _: poisson(random, 0.2)),
    "counts with mean 20": (HOUR, 1000, MAX_FALSE_PER_1000, lambda random, _: poisson(random, 20)),
    "days and weekends": (
        DAY,
        400,
        MAX_FALSE_PER_1000,
        lambda random, time: (100 if is_weekday(time) else 40) + random.gauss(0, 3),
    ),
    "counts on days and weekends": (
        DAY,
        400,
        MAX_FALSE_PER_1000,
        lambda random, time: poisson(random, 50 if is_weekday(time) else 15),
    ),
    "hours of days and weekends": (
        HOUR,
        1500,
        MAX_FALSE_PER_1000,
        lambda random, time: (100 if is_weekday(time) else 40) + random.gauss(0, 3),
    ),
    "office hours": (
        HOUR,
        1500,
        None,
        lambda random, time: (
            (100 if is_weekday(time) and 8 <= time.hour < 18 else 20) * (1 + random.gauss(0, 0.05))
        ),
    ),
    "heavy tails": (HOUR, 1000, None, lambda random, _: exp(random.gauss(0, 1))),
}


def points(step: timedelta, count: int, value: Value, seed: int) -> list[Point]:
    random = Random(seed)
    return [(BEGIN + i * step, float(value(random, BEGIN + i * step))) for i in range(count)]


def measure(*, quick: bool) -> list[Measure]:
    seeds = SEEDS[:3] if quick else SEEDS
    found = []
    for name, (step, count, goal, value) in SERIES.items():
        series = [points(step, count, value, seed) for seed in seeds]
        found.append(
            Measure(
                name=f"detector, {name}: false alarms per 1000 values",
                ours=per_1000(present, series),
                unit="",
                judged=None if goal is None else "ours",
                goal=goal,
                limit=goal,
                note=f"{len(series)} series of {count} values, seeds that were not tuned with",
                beside={other: per_1000(rule, series) for other, rule in OTHERS.items()},
            )
        )
    return found


def per_1000(rule: Rule, series: list[list[Point]]) -> float:
    alarms = [alarm for one in series for alarm in rule(one)]
    return 1000 * sum(alarms) / len(alarms)
