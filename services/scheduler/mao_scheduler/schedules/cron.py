"""Parses cron strings, with errors that name the field, and turns them into UTC times.

cronsim finds the wall-clock times that match. Time zones are handled here, one span of constant UTC offset
at a time, because Debian's rules (cron(8), NOTES) depend on the change itself:

* A job whose hour or minute field starts with `*` follows the wall clock: times that a spring change skips
  are not run, and times that an autumn change repeats are run again.
* Any other job ("at a particular time") runs once: a time that a spring change skips is run right after the
  change, and a time that an autumn change repeats is run the first time only.
* A change of three hours or more is a correction of the clock, which every job follows.
"""

from __future__ import annotations

import copy
import difflib
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property, lru_cache
from itertools import islice, pairwise
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from mao_shared.errors import InvalidInput

EXAMPLE = "'*/15 * * * *' (every quarter of an hour) or '30 2 * * mon-fri'"
HORIZON_YEARS = 50  # years in which a cron string has to match at least once
_EPOCH = datetime(2000, 1, 1)  # noqa: DTZ001 (wall clock)

_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


@dataclass(frozen=True, slots=True)
class _CronField:
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()  # of the values from `low`

    @property
    def allowed(self) -> str:
        words = f" or {self.names[0]}-{self.names[-1]}" if self.names else ""
        return f"{self.low}-{self.high}{words}"


_FIELDS = (
    _CronField("second", 0, 59),
    _CronField("minute", 0, 59),
    _CronField("hour", 0, 23),
    _CronField("day of month", 1, 31),
    _CronField(
        "month", 1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
    ),
    _CronField("day of week", 0, 7, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)


class Cron:
    """A parsed cron string with its zone, made by `parse_cron`. All times are in UTC."""

    def __init__(self, fields: CronSim, zone: ZoneInfo, *, fixed: bool) -> None:
        self._fields = fields
        self._zone = zone
        self._fixed = fixed

    def next(self, after: datetime) -> datetime | None:
        """Return the first time later than `after`; None if there is none in the next HORIZON_YEARS."""
        return next(self.times(after), None)

    def times(self, after: datetime, until: datetime | None = None) -> Iterator[datetime]:
        """Yield the times in (after, until], strictly increasing, in whole seconds."""
        start = _naive_utc(after)
        if until is None:
            end = start.replace(year=min(start.year + HORIZON_YEARS, 9990), day=min(start.day, 28))
        else:
            end = _naive_utc(until)
        last: datetime | None = None
        for span in offset_spans(self._zone, start, end):
            if self._starts_with_skipped(span) and span.change is not None and span.change.at != last:
                last = span.change.at
                yield last.replace(tzinfo=UTC)
            wall_end = span.end + span.offset
            fields = copy.copy(self._fields)  # avoids parsing the string again
            fields.dt = self._wall_start(span)
            for wall in fields:
                if wall > wall_end:
                    break
                if wall - span.offset != last:
                    last = wall - span.offset
                    yield last.replace(tzinfo=UTC)

    def count(self, after: datetime, until: datetime) -> int:
        """Return the number of times in (after, until], without iterating over them."""
        count = 0
        for span in offset_spans(self._zone, _naive_utc(after), _naive_utc(until)):
            start, end = self._wall_start(span), span.end + span.offset
            if end > start:
                count += self._count_wall(start, end)
            if self._starts_with_skipped(span) and self._count_wall(start, start + SECOND) == 0:
                count += 1
        return count

    def newest(self, after: datetime, until: datetime, limit: int) -> list[datetime]:
        """Return the last `limit` times in (after, until], in ascending order."""
        # Counting first is cheaper: to find one more time may take a search through many days.
        if (count := self.count(after, until)) <= limit:
            return list(islice(self.times(after, until), count))
        low, high = _naive_utc(after), _naive_utc(until)
        while high - low > SECOND:  # the earliest start with at most `limit` times after it
            middle = low + (high - low) // 2
            middle = middle.replace(microsecond=0)
            if self.count(middle.replace(tzinfo=UTC), until) > limit:
                low = middle
            else:
                high = middle
        return list(self.times(high.replace(tzinfo=UTC), until))

    def _wall_start(self, span: OffsetSpan) -> datetime:
        """Return the wall-clock time after which the span's times start."""
        start = span.start + span.offset
        change = span.change
        if self._fixed and change is not None and not change.is_correction:
            start = max(start, change.at - SECOND + change.before)
        return start

    def _starts_with_skipped(self, span: OffsetSpan) -> bool:
        """Return True if the span starts with a change that skipped a time, which is then run at once."""
        change = span.change
        if not self._fixed or change is None or change.is_correction or span.start >= change.at:
            return False
        skipped_from, skipped_to = (change.at - SECOND + offset for offset in (change.before, change.after))
        return skipped_to > skipped_from and self._count_wall(skipped_from, skipped_to) > 0

    def _count_wall(self, after: datetime, until: datetime) -> int:
        """Return the number of matching wall-clock times in (after, until]."""
        days = (until.date() - after.date()).days
        whole = sum(self._matches(after.date() + timedelta(days=n)) for n in range(days))
        per_day = math.prod(map(len, self._sorted))
        return whole * per_day + self._count_until(until) - self._count_until(after)

    def _count_until(self, moment: datetime) -> int:
        """Return the number of matching times of the day up to and including the moment."""
        if not self._matches(moment.date()):
            return 0
        hours, minutes, seconds = self._sorted
        count = bisect_left(hours, moment.hour) * len(minutes) * len(seconds)
        if moment.hour in hours:
            count += bisect_left(minutes, moment.minute) * len(seconds)
            if moment.minute in minutes:
                count += bisect_right(seconds, moment.second)
        return count

    @cached_property
    def _sorted(self) -> tuple[list[int], list[int], list[int]]:
        return sorted(self._fields.hours), sorted(self._fields.minutes), sorted(self._fields.seconds)

    def _matches(self, day: date) -> bool:
        return day.month in self._fields.months and self._fields.match_day(day)


@lru_cache(maxsize=20_000)
def parse_cron(text: str, timezone: str = "UTC", *, seconds: bool = False) -> Cron:
    """Parse five fields (six with `seconds`) or a macro such as `@daily`.

    Raises:
        InvalidInput: code `cron-invalid`, `cron-seconds-not-declared`, `cron-never` or `timezone-unknown`;
            `detail` names the field, its value and the allowed range, `next` gives an example.
    """
    zone = _zone(timezone)
    parts = _split(text, seconds=seconds)
    fields = []
    for field, part in zip(_FIELDS, parts, strict=True):
        values = sorted({value for term in part.split(",") for value in _term(field, term)})
        fields.append(part if part.startswith("*") else ",".join(map(str, values)))
    try:
        parsed = CronSim(" ".join(fields), _EPOCH)
        next(copy.copy(parsed))
    except (CronSimError, StopIteration):
        raise InvalidInput(
            f"The cron string {text!r} never fires: month {parts[4]!r} has no day {parts[3]!r}.",
            code="cron-never",
            next="Choose a day that the month has, for example '0 0 28 2 *'.",
        ) from None
    return Cron(parsed, zone, fixed=not parts[1].startswith("*") and not parts[2].startswith("*"))


def _split(text: str, *, seconds: bool) -> list[str]:
    """Return the six fields of the string, with second 0 if seconds are not declared."""
    word = text.strip().lower()
    if word.startswith("@"):
        if word not in _MACROS:
            raise _cron_invalid(
                f"Unknown macro {text.strip()!r}; known are {', '.join(_MACROS)}.", "'@daily' or " + EXAMPLE
            )
        return ["0", *_MACROS[word].split()]
    parts = word.split()
    if len(parts) == 6 and not seconds:
        raise InvalidInput(
            f"The cron string {text!r} has six fields, but no seconds field was declared.",
            code="cron-seconds-not-declared",
            next=f'Add --seconds (in the API "seconds": true) to use the first field as seconds, '
            f"or give five fields like {EXAMPLE}.",
        )
    wanted = 6 if seconds else 5
    if len(parts) != wanted:
        names = ", ".join(field.name for field in _FIELDS[-wanted:])
        raise _cron_invalid(
            f"The cron string {text!r} has {len(parts)} fields instead of {wanted} ({names}).",
            "'0 */15 * * * *' (six fields, seconds first)" if seconds else EXAMPLE,
        )
    return parts if seconds else ["0", *parts]


def _term(field: _CronField, term: str) -> range:
    base, slash, step_text = term.partition("/")
    step = _number(field, term, step_text) if slash else 1
    highest_step = field.high if field.low == 0 else field.high - field.low
    if not 1 <= step <= highest_step:
        raise _field_invalid(field, term, f"a step is 1-{highest_step}")
    if base == "*":
        return range(field.low, field.high + 1, step)
    first_text, dash, last_text = base.partition("-")
    first = _value(field, term, first_text)
    last = _value(field, term, last_text) if dash else field.high if slash else first
    if dash and first > last == 0 and field.high == 7:
        last = 7  # fri-sun
    if last < first:
        raise _field_invalid(field, term, "the range ends before it starts")
    return range(first, last + 1, step)


def _value(field: _CronField, term: str, text: str) -> int:
    if text in field.names:
        return field.low + field.names.index(text)
    value = _number(field, term, text)
    if not field.low <= value <= field.high:
        raise _field_invalid(field, term, f"{value} is out of range")
    return value


def _number(field: _CronField, term: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise _field_invalid(field, term, f"{text!r} is not a number" if text else "a number is missing")
    if len(text) > 9:
        raise _field_invalid(field, term, f"a number of {len(text)} digits is out of range")
    return int(text)


def _field_invalid(field: _CronField, term: str, why: str) -> InvalidInput:
    return InvalidInput(
        f"The field '{field.name}' of the cron string is invalid: {term!r}: {why}; allowed is "
        f"{field.allowed}, '*', lists 'a,b', ranges 'a-b' and steps '*/n'.",
        code="cron-invalid",
        next=f"Correct the field, for example {EXAMPLE}.",
        field=field.name,
        value=term,
    )


def _cron_invalid(detail: str, example: str) -> InvalidInput:
    return InvalidInput(detail, code="cron-invalid", next=f"Write it like {example}.")


def _zone(name: str) -> ZoneInfo:
    known = available_zones()
    if name in known:
        return ZoneInfo(name)
    by_lower = {zone.lower(): zone for zone in known}
    by_lower |= {zone.lower().rsplit("/", 1)[-1]: zone for zone in known if "/" in zone}
    close = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.6)
    suggestions = list(dict.fromkeys(by_lower[match] for match in close))
    raise InvalidInput(
        f"There is no time zone {name!r}.",
        code="timezone-unknown",
        next=f"Did you mean {' or '.join(suggestions)}?"
        if suggestions
        else "Use a name like Europe/Zurich, or omit it for UTC.",
        suggestions=suggestions,
    )


@lru_cache(maxsize=1)
def available_zones() -> frozenset[str]:
    """Return the names of the time zones known to this machine."""
    return frozenset(available_timezones())


def _naive_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(microsecond=0, tzinfo=None)


SECOND = timedelta(seconds=1)
_CORRECTION = timedelta(hours=3)  # Debian's limit


@dataclass(frozen=True, slots=True)
class OffsetChange:
    """A change of the zone's UTC offset from `before` to `after`, at the instant `at` (naive UTC)."""

    at: datetime
    before: timedelta
    after: timedelta

    @property
    def is_correction(self) -> bool:
        return abs(self.after - self.before) >= _CORRECTION


@dataclass(frozen=True, slots=True)
class OffsetSpan:
    """A span (start, end] in naive UTC with one offset.

    `change` is the last change before or at the span's first second, None if that is long ago.
    """

    start: datetime
    end: datetime
    offset: timedelta
    change: OffsetChange | None = None


def offset_spans(zone: ZoneInfo, start: datetime, end: datetime) -> Iterator[OffsetSpan]:
    """Split (start, end] where the zone's offset changes, and at the turn of years."""
    offset = _offset(zone, start + SECOND)
    # A change shortly before `start` may still make the wall clock repeat itself.
    earliest = start - _CORRECTION
    recent = (change for year in {earliest.year, start.year} for change in _changes(zone, year))
    change = next((change for change in recent if earliest < change.at <= start), None)
    for year in range(start.year, end.year + 1):
        for coming in _changes(zone, year):
            if not start < coming.at <= end:
                continue
            cut = coming.at - SECOND
            if cut > start:
                yield OffsetSpan(start, cut, offset, change)
            start, offset, change = cut, coming.after, coming
        stop = min(end, datetime(year, 12, 31, 23, 59, 59))  # noqa: DTZ001 (UTC, naive)
        if stop > start:
            yield OffsetSpan(start, stop, offset, change)
            start = stop


@lru_cache(maxsize=4096)
def _changes(zone: ZoneInfo, year: int) -> tuple[OffsetChange, ...]:
    """Return the zone's offset changes in a year of UTC, in order."""
    days = [datetime(year, 1, 1) + timedelta(days=n) for n in range(-1, 367)]  # noqa: DTZ001 (UTC, naive)
    changes = []
    for low, high in pairwise(days):
        before, after = _offset(zone, low), _offset(zone, high)
        if before == after:
            continue
        while high - low > SECOND:
            middle = low + timedelta(seconds=(high - low) // SECOND // 2)
            low, high = (middle, high) if _offset(zone, middle) == before else (low, middle)
        changes.append(OffsetChange(high, before, after))
    return tuple(change for change in changes if change.at.year == year)


def _offset(zone: ZoneInfo, moment: datetime) -> timedelta:
    return moment.replace(tzinfo=UTC).astimezone(zone).utcoffset() or timedelta(0)
