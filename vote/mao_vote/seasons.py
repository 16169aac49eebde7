"""Remembers what a series was at the same hour or weekday before. Pure.

A season is a property of a time at which values may resemble one another, such as its hour. The value expected
from a season is the median over earlier days, each with the mean of its values that share the property.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, NamedTuple

MAX_VALUES = 400  # values after which a day is forgotten
MAX_DAYS = 7  # days whose median is expected
MIN_DAYS = 2  # with fewer, nothing is expected

Season = Literal["hour", "weekday", "hour-of-week"]
SEASONS: dict[Season, Callable[[datetime], Hashable]] = {
    "hour": lambda time: time.hour,
    "weekday": lambda time: time.weekday(),
    "hour-of-week": lambda time: (time.weekday(), time.hour),
}


class Expectation(NamedTuple):
    """The value expected from a number of earlier days."""

    value: float
    days: int


class _Day(NamedTuple):
    """The values of one day that share the property. `first`: position of the first in the series."""

    date: int
    mean: float
    values: int
    first: int


@dataclass(slots=True)
class Seasons:
    """What was seen at each hour and weekday, as far as the last `MAX_VALUES` values show it."""

    _days: dict[tuple[Season, Hashable], list[_Day]] = field(default_factory=dict)

    def expect(self, time: datetime, position: int) -> Iterator[tuple[Season, Expectation]]:
        """Yield what earlier days lead to expect at `time`, for each season that was seen often enough."""
        for season, property_of in SEASONS.items():
            days = [
                day.mean
                for day in self._days.get((season, property_of(time)), ())
                if day.date != time.toordinal() and day.first > position - MAX_VALUES
            ][-MAX_DAYS:]
            if len(days) >= MIN_DAYS:
                yield season, Expectation(median(days), len(days))

    def add(self, time: datetime, value: float, position: int) -> None:
        """Remember the value at `position` of the series."""
        for season, property_of in SEASONS.items():
            days = self._days.setdefault((season, property_of(time)), [])
            date = time.toordinal()
            if days and days[-1].date == date:
                day = days.pop()
                count = day.values + 1
                mean = day.mean + (value / count - day.mean / count)
                days.append(_Day(date, mean, count, day.first))
            else:
                days.append(_Day(date, value, 1, position))
                del days[: -MAX_DAYS - 1]


def median(values: list[float]) -> float:
    """Return the median; unlike `statistics.median`, it is finite even if the sum of two values is not."""
    ranked = sorted(values)
    middle = len(ranked) // 2
    return ranked[middle] if len(ranked) % 2 else ranked[middle - 1] / 2 + ranked[middle] / 2
