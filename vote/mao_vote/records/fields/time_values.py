"""Parses times of day, dates, datetimes and durations, as programs and people spell them in English.

Each function takes texts and returns numbers, null where a text is not of that kind:

    times       9:05, 09:05:30, 9:05 PM, 9 p.m.                                           seconds of the day
    dates       2026-01-05, 20260105, 05.01.2026, 1/5/2026, 5 Jan 2026, January 5, 2026   days since 1970
    datetimes   a date and a time, with or without zone: 2026-01-05T09:05:30.5+02:00      seconds since 1970
    durations   1h30m, 90 s, 1.5 hours, PT5M                                              seconds
"""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import TYPE_CHECKING

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


def parse_times(texts: Series) -> Series:
    """Parse times of day as seconds since midnight; 24:00 is the end of the day."""
    import polars

    text = polars.col("text").str.strip_chars()
    hour, midday = _groups(text, _HOUR, 2)
    on_the_hour = _seconds_of_day(hour, polars.lit("0"), polars.lit("0"), midday)
    return _evaluate(texts, polars.coalesce(_seconds_of_day(*_groups(text, _TIME, 4)), on_the_hour))


def parse_dates(texts: Series, order: DateOrder) -> Series:
    """Parse dates as days since 1970-01-01; a datetime at midnight is its date.

    Args:
        order: of day and month where both are numbers and the year is last; empty: such texts are no dates.
    """
    import polars

    return _evaluate(texts, _days(polars.col("text").str.strip_chars().str.replace(_MIDNIGHT, ""), order))


def parse_datetimes(texts: Series, order: DateOrder, *, with_epochs: bool = False) -> Series:
    """Parse datetimes as seconds since 1970-01-01 UTC. Without a zone they are in UTC; dates are at midnight.

    Args:
        with_epochs: numbers are seconds since 1970, or milliseconds if they are too large for that.
    """
    import polars

    text = polars.col("text").str.strip_chars().str.replace(_BASIC, "$1:$2:$3")
    date, *clock, zone = _groups(text, _DATETIME, 6)
    in_zone = zone.str.extract_groups(r"^([+-])([0-9]{2}):?([0-9]{2})?$")
    offset = 3600 * _number(in_zone.struct.field("2")) + 60 * _number(in_zone.struct.field("3")).fill_null(
        0.0
    )
    offset = polars.when(in_zone.struct.field("1") == "-").then(-offset).otherwise(offset).fill_null(0.0)
    moment = DAY_SECONDS * _days(date, order) + _seconds_of_day(*clock) - offset
    found = polars.coalesce(moment, DAY_SECONDS * _days(text, order))
    if with_epochs:
        epoch = polars.when(text.str.contains(r"^-?[0-9]{1,15}(?:\.[0-9]+)?$")).then(_number(text))
        seconds = polars.when(epoch.abs() < MAX_EPOCH_SECONDS).then(epoch).otherwise(epoch / 1000)
        found = polars.coalesce(seconds, found)
    return _evaluate(texts, found)


def parse_durations(texts: Series, *, with_clock: bool = False) -> Series:
    """Parse durations as seconds.

    Args:
        with_clock: 1:30 and 1:30:00 are hours and minutes, and plain numbers are seconds.
    """
    import polars

    text = polars.col("text").str.strip_chars()
    negative, *amounts = _groups(text, _IN_UNITS, 1 + len(_UNITS))
    found = [_total(negative, amounts, list(_UNITS.values()))]
    negative, *amounts = _groups(text, _ISO_DURATION, 6)
    found.append(_total(negative, amounts, list(_UNITS.values())[:5]))
    negative, *amounts = _groups(text, _CLOCK_DURATION, 5)
    clock = _total(negative, amounts, [1.0 * DAY_SECONDS, 3600.0, 60.0, 1.0])
    found.append(clock if with_clock else polars.when(amounts[0].is_not_null()).then(clock))
    if with_clock:
        found.append(polars.when(text.str.contains(r"^-?[0-9]+(?:\.[0-9]+)?$")).then(_number(text)))
    return _evaluate(texts, polars.coalesce(found))


def _evaluate(texts: Series, number: Expr) -> Series:
    """Return finite numbers in whole microseconds, so that 1.1 h is 66 min."""
    import polars

    rounded = number.cast(polars.Float64).round(6) + 0.0  # turns -0.0 into 0.0
    found = texts.to_frame("text").select(rounded.alias("number"))
    return found.select(polars.when(polars.col("number").is_finite()).then("number"))["number"]


def _groups(text: Expr, pattern: str, count: int) -> list[Expr]:
    found = text.str.extract_groups(pattern)
    return [found.struct.field(str(number)) for number in range(1, count + 1)]


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


def _days(text: Expr, order: DateOrder) -> Expr:
    import polars

    year, dash, slash, point, day = _groups(text, _YEAR_FIRST, 5)
    found = [_date(year, polars.coalesce(dash, slash, point), day), _date(*_groups(text, _COMPACT, 3))]
    if order:
        first, dash, slash, point, year = _groups(text, _YEAR_LAST, 5)
        second = polars.coalesce(dash, slash, point)
        found.append(_date(year, second, first) if order == "dmy" else _date(year, first, second))
    day, name, year = _groups(text, _DAY_MONTH, 3)
    found.append(_date(year, _month(name), day))
    name, day, year = _groups(text, _MONTH_DAY, 3)
    found.append(_date(year, _month(name), day))
    return polars.coalesce(found)


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


def _total(negative: Expr, amounts: list[Expr], units: list[float]) -> Expr:
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
