"""Parses times of day, dates, datetimes and durations, as programs and people spell them in English.

Each function takes texts and returns numbers, null where a text is not of that kind:

    times       9:05, 09:05:30, 9:05 PM, 9 p.m.                                           seconds of the day
    dates       2026-01-05, 20260105, 05.01.2026, 1/5/2026, 5 Jan 2026, January 5, 2026   days since 1970
    datetimes   a date and a time, with or without zone: 2026-01-05T09:05:30.5+02:00      seconds since 1970
    durations   1h30m, 90 s, 1.5 hours, PT5M                                              seconds
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce
from operator import add
from typing import TYPE_CHECKING

from .observed import SPACE
from .types import DateOrder

if TYPE_CHECKING:
    from polars import DataFrame, Expr, Series

DAY_SECONDS = 86400
HALF_DAY = 43_200.0  # seconds
MAX_EPOCH_SECONDS = 10**11  # larger numbers count milliseconds
_CLOCK = r"([0-9]{1,2}):([0-5][0-9])(?::([0-5][0-9](?:[.,][0-9]{1,9})?))?(?:\s*([ap])\.?m\.?)?"
_TIME = rf"(?i)^{_CLOCK}$"
_HOUR = r"(?i)^([0-9]{1,2})\s*([ap])\.?m\.?$"
_YEAR_FIRST = r"^([0-9]{4})(?:-([0-9]{1,2})-|/([0-9]{1,2})/|\.([0-9]{1,2})\.)([0-9]{1,2})$"
_YEAR_LAST = r"^([0-9]{1,2})(?:-([0-9]{1,2})-|/([0-9]{1,2})/|\. ?([0-9]{1,2})\. ?)([0-9]{4})$"
_COMPACT = r"^(19[0-9]{2}|20[0-9]{2}|2100)([0-9]{2})([0-9]{2})$"
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = (
    r"(jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?"
    r"|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
)
_WEEKDAY = r"(?:(?:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?\.?,?\s+)?"
_DAY_MONTH = rf"(?i)^{_WEEKDAY}([0-9]{{1,2}})(?:st|nd|rd|th|\.)?[ -]+{_MONTH},?[ -]+([0-9]{{4}})$"
_MONTH_DAY = rf"(?i)^{_WEEKDAY}{_MONTH} +([0-9]{{1,2}})(?:st|nd|rd|th)?,? +([0-9]{{4}})$"
_ZONE = r"\s*(Z|UTC|GMT|[+-][0-9]{2}(?::?[0-9]{2})?)"
_DATETIME = rf"(?i)^([^:]+?)(?:T|,?\s+at\s+|,?\s+){_CLOCK}(?:{_ZONE})?$"
_BASIC = r"(?i)^([0-9]{8}T[0-9]{2})([0-9]{2})([0-9]{2})"
_MIDNIGHT = r"(?i)(?:T|\s+)00:00(?::00(?:[.,]0+)?)?$"
_AMOUNT = r"([0-9]+(?:[.,][0-9]+)?)"
_UNITS = {
    r"w|wks?|weeks?": 7.0 * DAY_SECONDS,
    r"d|days?": 1.0 * DAY_SECONDS,
    r"h|hrs?|hours?": 3600.0,
    r"m|mins?|minutes?": 60.0,
    r"s|secs?|seconds?": 1.0,
    r"ms|msecs?|milliseconds?": 0.001,
}
_IN_UNITS = r"(?i)^(-)?\s*" + "".join(rf"(?:{_AMOUNT}\s*(?:{unit})[\s,]*)?" for unit in _UNITS) + "$"
_ISO_DURATION = (
    rf"(?i)^(-)?P(?:{_AMOUNT}W)?(?:{_AMOUNT}D)?(?:T(?:{_AMOUNT}H)?(?:{_AMOUNT}M)?(?:{_AMOUNT}S)?)?$"
)
_CLOCK_DURATION = r"^(-)?(?:([0-9]+) days?,? +)?([0-9]+):([0-5][0-9])(?::([0-5][0-9](?:[.,][0-9]+)?))?$"
DATETIME_WITH_ZONE = rf"(?i)[:T][0-9]{{2,6}}(?:[.,][0-9]+)?(?:\s*[ap]\.?m\.?)?{_ZONE}$"

_EPOCH = r"^(-?[0-9]{1,15}(?:\.[0-9]+)?)$"
_SECONDS = r"^(-?[0-9]+(?:\.[0-9]+)?)$"
_Way = tuple[str, "Callable[..., Expr]"]
"""A pattern, and the number that its groups give."""

# Patterns that all texts contain which a parser reads, to be found faster than by the parser.
# Texts that are not ASCII pass: some of their letters are other cases of ASCII letters.
_NOT_ASCII = r"[^\x00-\x7f]"
_ANY_MONTH = "|".join("".join(f"[{letter}{letter.upper()}]" for letter in month) for month in _MONTHS)
DATE_SIEVE = (
    r"^[0-9]{4}[-/.][0-9]{1,2}[-/.][0-9]|^[12][0-9]{7}"
    r"|^[0-9]{1,2}(?:[-/]|\. ?)[0-9]{1,2}(?:[-/]|\. ?)[0-9]{4}"
    rf"|(?:{_ANY_MONTH}).*[0-9]{{4}}|{_NOT_ASCII}"
)
TIME_SIEVE = rf"^[0-9]{{1,2}}{SPACE}*[:aApP]|{_NOT_ASCII}"
DURATION_SIEVE = rf"^-?{SPACE}*[0-9]+(?:[.,][0-9]+)?{SPACE}*[wWdDhHmMsS]|^-?[pP]|{_NOT_ASCII}"


def parse_times(texts: Series) -> Series:
    """Parse times of day as seconds since midnight; 24:00 is the end of the day."""
    import polars

    def on_the_hour(hour: Expr, midday: Expr) -> Expr:
        return _seconds_of_day(hour, polars.lit("0"), polars.lit("0"), midday)

    return _rounded(_read(texts.str.strip_chars(), (_TIME, _seconds_of_day), (_HOUR, on_the_hour)))


def parse_dates(texts: Series, order: DateOrder) -> Series:
    """Parse dates as days since 1970-01-01; a datetime at midnight is its date.

    Args:
        order: of day and month where both are numbers and the year is last; empty: such texts are no dates.
    """
    return _rounded(_days(texts.str.strip_chars().str.replace(_MIDNIGHT, ""), order))


def parse_datetimes(texts: Series, order: DateOrder, *, with_epochs: bool = False) -> Series:
    """Parse datetimes as seconds since 1970-01-01 UTC. Without a zone they are in UTC; dates are at midnight.

    Args:
        with_epochs: numbers are seconds since 1970, or milliseconds if they are too large for that.
    """
    import polars

    text = texts.str.strip_chars().str.replace(_BASIC, "$1:$2:$3")
    parts = text.str.extract_groups(_DATETIME).struct.unnest()
    date, *clock, zone = parts.columns
    moment = DAY_SECONDS * polars.col("days") + _seconds_of_day(*map(polars.col, clock)) - _offset(zone)
    found = parts.with_columns(days=_days(parts[date], order)).select(moment.alias("number"))["number"]
    rest = found.is_null().arg_true()
    found = found.scatter(rest, DAY_SECONDS * _days(text.gather(rest), order))
    if with_epochs:
        epochs = _read(text, (_EPOCH, _seconds_of_epoch))
        found = epochs.zip_with(epochs.is_not_null(), found)
    return _rounded(found)


def parse_durations(texts: Series, *, with_clock: bool = False) -> Series:
    """Parse durations as seconds.

    Args:
        with_clock: 1:30 and 1:30:00 are hours and minutes, and plain numbers are seconds.
    """
    import polars

    def by_clock(negative: Expr, days: Expr, *amounts: Expr) -> Expr:
        total = _total([1.0 * DAY_SECONDS, 3600.0, 60.0, 1.0], negative, days, *amounts)
        return total if with_clock else polars.when(days.is_not_null()).then(total)

    seconds = list(_UNITS.values())
    ways: list[_Way] = [
        (_IN_UNITS, partial(_total, seconds)),
        (_ISO_DURATION, partial(_total, seconds[:5])),
        (_CLOCK_DURATION, by_clock),
    ]
    return _rounded(_read(texts.str.strip_chars(), *ways, *([(_SECONDS, _number)] if with_clock else [])))


def _read(texts: Series, *ways: _Way) -> Series:
    """Return the number that the first pattern gives which matches a text and gives one.

    Each pattern by itself, since polars takes long to plan one expression of all.
    """
    import polars

    found = polars.repeat(None, texts.len(), dtype=polars.Float64, eager=True)
    places = texts.is_not_null().arg_true()
    for pattern, number in ways:
        parts = texts.gather(places).str.extract_groups(pattern).struct.unnest()
        if all(column.null_count() == places.len() for column in parts):
            continue
        groups = map(polars.col, parts.columns)
        read = parts.select(number(*groups).cast(polars.Float64).alias("number"))["number"]
        found = found.scatter(places, read)
        places = places.filter(read.is_null())
    return found


def _rounded(number: Series) -> Series:
    """Return finite numbers in whole microseconds, so that 1.1 h is 66 min."""
    import polars

    rounded = number.round(6) + 0.0  # turns -0.0 into 0.0
    return rounded.to_frame("number").select(polars.when(polars.col("number").is_finite()).then("number"))[
        "number"
    ]


def _number(text: Expr) -> Expr:
    import polars

    return text.str.replace(",", ".", literal=True).cast(polars.Float64, strict=False)


def _seconds_of_day(hour: Expr, minute: Expr, second: Expr, midday: Expr) -> Expr:
    import polars

    hours, rest = _number(hour), 60 * _number(minute) + _number(second).fill_null(0.0)
    afternoon = polars.when(midday.str.to_lowercase() == "p").then(12.0).otherwise(0.0)
    within_half = polars.when(hours.is_between(1, 12)).then(hours % 12 + afternoon)
    within_day = polars.when((hours < 24) | ((hours == 24) & (rest == 0))).then(hours)
    return 3600 * polars.when(midday.is_not_null()).then(within_half).otherwise(within_day) + rest


def _offset(zone: str) -> Expr:
    """Return the seconds by which a zone is ahead of UTC."""
    import polars

    parts = polars.col(zone).str.extract_groups(r"^([+-])([0-9]{2}):?([0-9]{2})?$")
    sign, hours, minutes = (parts.struct.field(name) for name in "123")
    offset = 3600 * _number(hours) + 60 * _number(minutes).fill_null(0.0)
    return polars.when(sign == "-").then(-offset).otherwise(offset).fill_null(0.0)


def _seconds_of_epoch(text: Expr) -> Expr:
    import polars

    epoch = _number(text)
    return polars.when(epoch.abs() < MAX_EPOCH_SECONDS).then(epoch).otherwise(epoch / 1000)


def _days(texts: Series, order: DateOrder) -> Series:
    import polars

    def year_first(year: Expr, dash: Expr, slash: Expr, point: Expr, day: Expr) -> Expr:
        return _date(year, polars.coalesce(dash, slash, point), day)

    def year_last(first: Expr, dash: Expr, slash: Expr, point: Expr, year: Expr) -> Expr:
        second = polars.coalesce(dash, slash, point)
        return _date(year, second, first) if order == "dmy" else _date(year, first, second)

    return _read(
        texts,
        (_YEAR_FIRST, year_first),
        (_COMPACT, _date),
        *([(_YEAR_LAST, year_last)] if order else []),
        (_DAY_MONTH, lambda day, name, year: _date(year, _month(name), day)),
        (_MONTH_DAY, lambda name, day, year: _date(year, _month(name), day)),
    )


def _month(name: Expr) -> Expr:
    import polars

    numbers = [f"{number:02}" for number in range(1, 13)]
    short = name.str.to_lowercase().str.slice(0, 3)
    return short.replace_strict(_MONTHS, numbers, default=None, return_dtype=polars.String)


def _date(year: Expr, month: Expr, day: Expr) -> Expr:
    """Return days since 1970, null for a day that does not exist."""
    import polars

    text = polars.concat_str(year, month.str.zfill(2), day.str.zfill(2), separator="-")
    return text.str.to_date("%Y-%m-%d", strict=False).cast(polars.Int32).cast(polars.Float64)


def _total(units: Sequence[float], negative: Expr, *amounts: Expr) -> Expr:
    import polars

    total = reduce(
        add, (_number(amount).fill_null(0.0) * unit for amount, unit in zip(amounts, units, strict=True))
    )
    is_any = polars.any_horizontal(amount.is_not_null() for amount in amounts)
    return polars.when(is_any).then(polars.when(negative.is_not_null()).then(-total).otherwise(total))


def unwrapped(ballots: DataFrame) -> DataFrame:
    """Move times of the day after midnight to the next day in cells that span more than half a day."""
    import polars

    number = polars.col("number")
    spans = (number.max() - number.min()).over("cell") > HALF_DAY
    return ballots.with_columns(
        number=polars.when(spans & (number < HALF_DAY)).then(number + 2 * HALF_DAY).otherwise(number)
    )
