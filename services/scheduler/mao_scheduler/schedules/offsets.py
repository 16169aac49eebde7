"""The zone's side of cron: stretches of time at one UTC offset, and the changes between them.

All moments here are in UTC but without a zone, since the arithmetic is on both sides of the offset.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from zoneinfo import ZoneInfo

SECOND = timedelta(seconds=1)
_CORRECTION = timedelta(hours=3)  # Debian's limit


@dataclass(frozen=True, slots=True)
class Change:
    """The zone's offset changes at the instant `at` from `before` to `after`."""

    at: datetime
    before: timedelta
    after: timedelta

    @property
    def is_correction(self) -> bool:
        return abs(self.after - self.before) >= _CORRECTION


@dataclass(frozen=True, slots=True)
class Span:
    """Instants after `start` up to and with `end` (UTC, without zone) at one offset.

    `change` is the last change before or at the span's first instant, None where that is long ago.
    """

    start: datetime
    end: datetime
    offset: timedelta
    change: Change | None = None


def spans(zone: ZoneInfo, start: datetime, end: datetime) -> Iterator[Span]:
    """(start, end] cut where the zone's offset changes, and at the turn of the years."""
    offset = _offset(zone, start + SECOND)
    change = _last_change(zone, start)
    for year in range(start.year, end.year + 1):
        for coming in _changes(zone, year):
            if not start < coming.at <= end:
                continue
            cut = coming.at - SECOND
            if cut > start:
                yield Span(start, cut, offset, change)
            start, offset, change = cut, coming.after, coming
        stop = min(end, datetime(year, 12, 31, 23, 59, 59))  # noqa: DTZ001 (UTC, naive)
        if stop > start:
            yield Span(start, stop, offset, change)
            start = stop


def _last_change(zone: ZoneInfo, moment: datetime) -> Change | None:
    """The change that may still make the wall clock repeat itself at `moment`."""
    earliest = moment - _CORRECTION
    changes = [change for year in {earliest.year, moment.year} for change in _changes(zone, year)]
    return next((change for change in changes if earliest < change.at <= moment), None)


@lru_cache(maxsize=4096)
def _changes(zone: ZoneInfo, year: int) -> tuple[Change, ...]:
    """The zone's changes of offset in a year of UTC, in order."""
    days = [datetime(year, 1, 1) + timedelta(days=n) for n in range(-1, 367)]  # noqa: DTZ001 (UTC, naive)
    found = []
    for low, high in pairwise(days):
        before, after = _offset(zone, low), _offset(zone, high)
        if before != after:
            at = _bisect_change(zone, low, high)
            found.append(Change(at, before, after))
    return tuple(change for change in found if change.at.year == year)


def _bisect_change(zone: ZoneInfo, low: datetime, high: datetime) -> datetime:
    before = _offset(zone, low)
    while high - low > SECOND:
        middle = low + timedelta(seconds=(high - low) // SECOND // 2)
        low, high = (middle, high) if _offset(zone, middle) == before else (low, middle)
    return high


def _offset(zone: ZoneInfo, moment: datetime) -> timedelta:
    return moment.replace(tzinfo=UTC).astimezone(zone).utcoffset() or timedelta(0)
