"""Cron strings: what is refused and how, and which UTC times come out, with Debian's rules at DST changes.

The expected times of the days of change are derived by hand from Debian's cron(8): Zurich goes from 02:00 CET
to 03:00 CEST at 01:00 UTC (2026-03-29, 2027-03-28) and from 03:00 CEST back to 02:00 CET at 01:00 UTC
(2026-10-25, 2027-10-31).
"""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mao_scheduler.schedules.cron import parse_cron
from mao_shared.errors import InvalidInput

ZURICH = "Europe/Zurich"


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def times(cron: str, since: str, until: str, zone: str = ZURICH, *, seconds: bool = False) -> list[str]:
    found = parse_cron(cron, zone, seconds=seconds).times(utc(since), utc(until))
    return [f"{moment:%Y-%m-%dT%H:%M:%S}".removesuffix(":00") for moment in found]


def local_day(date: str) -> tuple[str, str]:
    """Return the second before the local day, and its last second, in UTC."""
    start = datetime.fromisoformat(date).replace(tzinfo=ZoneInfo(ZURICH))
    end = start + timedelta(days=1)
    before = [(moment.astimezone(UTC) - timedelta(seconds=1)).isoformat()[:19] for moment in (start, end)]
    return before[0], before[1]


DAYS_OF_CHANGE = [
    # skipped by the change: run at once after it
    ("30 2 * * *", "2026-03-29", ["2026-03-29T01:00"]),
    ("30 2 * * *", "2027-03-28", ["2027-03-28T01:00"]),
    # repeated: the first time only
    ("30 2 * * *", "2026-10-25", ["2026-10-25T00:30"]),
    ("30 2 * * *", "2027-10-31", ["2027-10-31T00:30"]),
    # a wildcard hour follows the wall clock: 02:15 is skipped in spring, run twice in autumn
    (
        "15 */2 * * *",
        "2026-03-29",
        ["2026-03-28T23:15"] + [f"2026-03-29T{h:02}:15" for h in (2, 4, 6, 8, 10, 12, 14, 16, 18, 20)],
    ),
    (
        "15 */2 * * *",
        "2027-03-28",
        ["2027-03-27T23:15"] + [f"2027-03-28T{h:02}:15" for h in (2, 4, 6, 8, 10, 12, 14, 16, 18, 20)],
    ),
    (
        "15 */2 * * *",
        "2026-10-25",
        ["2026-10-24T22:15"] + [f"2026-10-25T{h:02}:15" for h in (0, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21)],
    ),
    (
        "15 */2 * * *",
        "2027-10-31",
        ["2027-10-30T22:15"] + [f"2027-10-31T{h:02}:15" for h in (0, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21)],
    ),
    # every hour of real time: a day of 23 and one of 25
    ("0 * * * *", "2026-03-29", ["2026-03-28T23:00"] + [f"2026-03-29T{h:02}:00" for h in range(22)]),
    ("0 * * * *", "2027-03-28", ["2027-03-27T23:00"] + [f"2027-03-28T{h:02}:00" for h in range(22)]),
    (
        "0 * * * *",
        "2026-10-25",
        ["2026-10-24T22:00", "2026-10-24T23:00"] + [f"2026-10-25T{h:02}:00" for h in range(23)],
    ),
    (
        "0 * * * *",
        "2027-10-31",
        ["2027-10-30T22:00", "2027-10-30T23:00"] + [f"2027-10-31T{h:02}:00" for h in range(23)],
    ),
    ("0 0 * * *", "2026-03-29", ["2026-03-28T23:00"]),
    ("0 0 * * *", "2027-03-28", ["2027-03-27T23:00"]),
    ("0 0 * * *", "2026-10-25", ["2026-10-24T22:00"]),
    ("0 0 * * *", "2027-10-31", ["2027-10-30T22:00"]),
    ("@hourly", "2026-03-29", ["2026-03-28T23:00"] + [f"2026-03-29T{h:02}:00" for h in range(22)]),
    # several that are skipped, or skipped onto one that is there, are one
    ("0,30 2,3 * * *", "2026-03-29", ["2026-03-29T01:00", "2026-03-29T01:30"]),
    ("0,30 2 * * *", "2026-10-25", ["2026-10-25T00:00", "2026-10-25T00:30"]),
    ("30 1-3 * * *", "2026-10-25", ["2026-10-24T23:30", "2026-10-25T00:30", "2026-10-25T02:30"]),
    ("* 2 * * *", "2026-03-29", []),
]


@pytest.mark.parametrize(("cron", "day", "expected"), DAYS_OF_CHANGE)
def test_cron_dst_changes_in_zurich(cron: str, day: str, expected: list[str]) -> None:
    assert times(cron, *local_day(day)) == expected


def test_cron_seconds_field_follows_dst_rules() -> None:
    assert times("20 30 2 * * *", *local_day("2026-03-29"), seconds=True) == ["2026-03-29T01:00"]
    assert times("20 30 2 * * *", *local_day("2026-10-25"), seconds=True) == ["2026-10-25T00:30:20"]


@pytest.mark.parametrize(
    "after", ["2026-10-25T00:30", "2026-10-25T01:00", "2026-10-25T01:15", "2026-10-25T01:59"]
)
def test_cron_repeated_hour_runs_fixed_job_once(after: str) -> None:
    assert parse_cron("30 2 * * *", ZURICH).next(utc(after)) == utc("2026-10-26T01:30")


@pytest.mark.parametrize("after", ["2026-03-29T01:00", "2026-03-29T01:00:01", "2026-03-29T02:00"])
def test_cron_skipped_hour_runs_fixed_job_once(after: str) -> None:
    assert parse_cron("30 2 * * *", ZURICH).next(utc(after)) == utc("2026-03-30T00:30")


@pytest.mark.parametrize(
    ("zone", "cron", "since", "until", "expected"),
    [
        # half an hour at 02:00 (2026-04-05 back at 15:00 UTC, 2026-10-04 on at 15:30 UTC)
        ("Australia/Lord_Howe", "*/15 2 * * *", "2026-10-03T12:00", "2026-10-04T12:00", ["15:30", "15:45"]),
        ("Australia/Lord_Howe", "45 1 * * *", "2026-04-04T12:00", "2026-04-05T12:00", ["14:45"]),
        ("Australia/Lord_Howe", "*/15 1 * * *", "2026-04-04T12:00", "2026-04-05T12:00",
         ["14:00", "14:15", "14:30", "14:45", "15:00", "15:15"]),
        # the day begins at 01:00
        ("Africa/Cairo", "0 0 * * *", "2026-04-23T12:00", "2026-04-24T12:00", ["22:00"]),
        ("Africa/Cairo", "*/20 0 * * *", "2026-04-23T12:00", "2026-04-24T12:00", []),
        # a whole day left out (2011-12-30) is a correction of the clock
        ("Pacific/Apia", "0 12 * * *", "2011-12-29T23:00", "2011-12-31T00:00", ["22:00"]),
    ],
)  # fmt: skip
def test_cron_unusual_zones(zone: str, cron: str, since: str, until: str, expected: list[str]) -> None:
    assert [moment[11:] for moment in times(cron, since, until, zone)] == expected


@pytest.mark.parametrize(
    ("cron", "first"),
    [
        ("@hourly", "2026-11-24T08:00"),
        ("@daily", "2026-11-25T00:00"),
        ("@midnight", "2026-11-25T00:00"),
        ("@weekly", "2026-11-29T00:00"),
        ("@monthly", "2026-12-01T00:00"),
        ("@yearly", "2027-01-01T00:00"),
        ("@ANNUALLY", "2027-01-01T00:00"),
        ("0 0 * * 0", "2026-11-29T00:00"),
        ("0 0 * * 7", "2026-11-29T00:00"),
        ("0 0 * * sun", "2026-11-29T00:00"),
        ("0 0 * * FRI-SUN", "2026-11-27T00:00"),
        ("5,35 8-10/2 * JAN,dec *", "2026-12-01T08:05"),
        ("0 12 1 * mon", "2026-11-30T12:00"),  # day of month or of week when both are given
        ("0 12 */2 * mon", "2026-12-07T12:00"),  # and when one begins with a star
        ("0 0 29 2 *", "2028-02-29T00:00"),
        ("10/20 * * * *", "2026-11-24T07:30"),
    ],
)
def test_cron_next_times_in_utc(cron: str, first: str) -> None:
    assert parse_cron(cron).next(utc("2026-11-24T07:17:04.5")) == utc(first)


def test_cron_weekday_0_and_7_are_sunday() -> None:
    spans = [times(f"0 6 * * {day}", "2026-11-01", "2026-12-01") for day in ("0", "7", "0,7")]
    assert spans[0] == spans[1] == spans[2]
    assert all(utc(moment).isoweekday() == 7 for moment in spans[0])
    assert len(spans[0]) == 5


REFUSED = [
    ("60 * * * *", "cron-invalid", "field 'minute' of the cron string is invalid: '60': 60 is out of range; "
     "allowed is 0-59"),
    ("* 24 * * *", "cron-invalid", "field 'hour' of the cron string is invalid: '24': 24 is out of range; "
     "allowed is 0-23"),
    ("* * 0 * *", "cron-invalid", "'day of month' of the cron string is invalid: '0': 0 is out of range"),
    ("* * * foo *", "cron-invalid", "'month' of the cron string is invalid: 'foo': 'foo' is not a number; "
     "allowed is 1-12 or jan-dec"),
    ("* * * * 8", "cron-invalid", "'day of week' of the cron string is invalid: '8'"),
    ("* * * * sun-l", "cron-invalid", "'day of week' of the cron string is invalid: 'sun-l'"),
    ("*/0 * * * *", "cron-invalid", "'minute' of the cron string is invalid: '*/0': a step is 1-59"),
    ("*/90 * * * *", "cron-invalid", "'minute' of the cron string is invalid: '*/90': a step is 1-59"),
    ("5-1 * * * *", "cron-invalid", "'5-1': the range ends before it starts"),
    ("1,,2 * * * *", "cron-invalid", "'minute' of the cron string is invalid: '': a number is missing"),
    ("*/ * * * *", "cron-invalid", "'*/': a number is missing"),
    ("-5 * * * *", "cron-invalid", "'minute'"),
    ("\N{ARABIC-INDIC DIGIT ONE} * * * *", "cron-invalid", "'minute'"),
    ("", "cron-invalid", "has 0 fields instead of 5 (minute, hour, day of month, month, day of week)"),
    ("* * * *", "cron-invalid", "has 4 fields instead of 5"),
    ("* * * * * * *", "cron-invalid", "has 7 fields instead of 5"),
    ("@reboot", "cron-invalid", "Unknown macro '@reboot'; known are @yearly"),
    ("* * * * * *", "cron-seconds-not-declared", "six fields, but no seconds field was declared"),
    ("0 0 31 2 *", "cron-never", "month '2' has no day '31'"),
    ("0 0 30,31 feb *", "cron-never", "never fires"),
    ("0 0 31 4,6,9,11 *", "cron-never", "never fires"),
]  # fmt: skip


@pytest.mark.parametrize(("cron", "code", "detail"), REFUSED)
def test_cron_error_names_field_and_example(cron: str, code: str, detail: str) -> None:
    started = time.process_time()
    with pytest.raises(InvalidInput) as caught:
        parse_cron(cron)
    assert caught.value.code == code
    assert detail in caught.value.detail
    assert caught.value.next
    assert "'" in caught.value.next  # an example
    assert time.process_time() - started < 1


def test_cron_error_five_fields_with_seconds() -> None:
    with pytest.raises(InvalidInput, match="5 fields instead of 6"):
        parse_cron("*/5 * * * *", seconds=True)


@pytest.mark.parametrize(
    ("zone", "suggestion"),
    [("Europe/Zürich", "Europe/Zurich"), ("europe/zurich", "Europe/Zurich"), ("Zurich", "Europe/Zurich"),
     ("America/NewYork", "America/New_York")],
)  # fmt: skip
def test_cron_unknown_zone_error_suggests_names(zone: str, suggestion: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_cron("@daily", zone)
    assert caught.value.code == "timezone-unknown"
    assert suggestion in (caught.value.next or "")


@pytest.mark.parametrize("zone", ["../etc/passwd", "/etc/localtime", "", "qwxz" * 20])
def test_cron_zone_is_never_a_path(zone: str) -> None:
    with pytest.raises(InvalidInput, match="no time zone"):
        parse_cron("@daily", zone)


# Properties, with a walk over every minute as the other opinion.

WILDCARDS = st.sampled_from(["*", "*/2", "*/7", "*/15", "*/20"])


def numbers(low: int, high: int) -> st.SearchStrategy[str]:
    one = st.integers(low, high)
    a_range = st.tuples(one, one).map(lambda pair: f"{min(pair)}-{max(pair)}")
    a_list = st.lists(one, min_size=1, max_size=4).map(lambda values: ",".join(map(str, values)))
    return st.one_of(a_list, a_range)


CRONS = st.tuples(
    st.one_of(WILDCARDS, numbers(0, 59)),
    st.one_of(st.sampled_from(["*", "*/2", "*/5"]), numbers(0, 23)),
    st.one_of(st.just("*"), numbers(1, 28)),
    st.just("*"),
    st.one_of(st.just("*"), numbers(0, 7)),
).map(" ".join)
ZONES = st.sampled_from(
    ["UTC", ZURICH, "America/New_York", "Australia/Lord_Howe", "Africa/Cairo", "Asia/Tokyo"]
)
MOMENTS = st.one_of(
    st.datetimes(datetime.fromisoformat("2026-01-01"), datetime.fromisoformat("2027-12-31")),
    st.sampled_from(["2026-03-28", "2026-10-24", "2026-04-04", "2026-10-03", "2026-04-23", "2026-11-01"])
    .map(datetime.fromisoformat)
    .flatmap(lambda day: st.integers(0, 48 * 60).map(lambda minutes: day + timedelta(minutes=minutes))),
).map(lambda moment: moment.replace(tzinfo=UTC))


@lru_cache
def field_values(text: str, low: int, high: int) -> set[int]:
    values: set[int] = set()
    for term in text.split(","):
        base, _, step = term.partition("/")
        first, _, last = (f"{low}-{high}" if base == "*" else base).partition("-")
        values |= set(range(int(first), int(last or first) + 1, int(step or 1)))
    return values


def matches(cron: str, wall: datetime) -> bool:
    minute, hour, day, month, weekday = cron.split()
    in_month = wall.day in field_values(day, 1, 31)
    in_week = bool({wall.isoweekday(), wall.isoweekday() % 7} & field_values(weekday, 0, 7))
    either = not day.startswith("*") and not weekday.startswith("*")
    return (
        wall.minute in field_values(minute, 0, 59)
        and wall.hour in field_values(hour, 0, 23)
        and wall.month in field_values(month, 1, 12)
        and (in_month or in_week if either else in_month and in_week)
    )


@settings(max_examples=200, deadline=None)
@given(CRONS, ZONES, MOMENTS)
def test_cron_times_increase_and_agree_with_count_and_newest(cron: str, zone: str, since: datetime) -> None:
    until = since + timedelta(days=3)
    parsed = parse_cron(cron, zone)
    found = list(parsed.times(since, until))
    assert all(since < moment <= until for moment in found)
    assert all(a < b for a, b in pairwise(found))
    assert parsed.count(since, until) == len(found)
    assert parsed.newest(since, until, 5) == found[-5:]
    middle = since + timedelta(hours=29)
    assert [*parsed.times(since, middle), *parsed.times(middle, until)] == found


@settings(max_examples=40, deadline=None)
@given(CRONS, ZONES, MOMENTS)
def test_cron_times_match_fields_and_are_complete(cron: str, zone: str, since: datetime) -> None:
    start = since.replace(second=0, microsecond=0)
    minutes = [start + timedelta(minutes=n) for n in range(1, 26 * 60)]
    walls = {moment: moment.astimezone(ZoneInfo(zone)) for moment in minutes}
    expected = {moment for moment, wall in walls.items() if matches(cron, wall)}
    found = set(parse_cron(cron, zone).times(start, minutes[-1]))
    if cron.split()[0].startswith("*") or cron.split()[1].startswith("*"):
        assert found == expected
        return
    assert all(walls[moment].fold for moment in expected - found)  # repeated: run the first time only
    jumps = {b for a, b in pairwise(minutes) if walls[b].utcoffset() != walls[a].utcoffset()}
    assert found - expected <= jumps  # skipped: run at once after the change


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40), st.booleans())
def test_cron_any_text_is_parsed_or_refused(text: str, seconds: bool) -> None:
    with contextlib.suppress(InvalidInput):
        assert parse_cron(text, seconds=seconds).next(utc("2026-01-01")) is not None
