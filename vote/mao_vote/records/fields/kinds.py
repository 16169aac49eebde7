"""Infers the kind of a field from a sample of its values in all versions.

The nodes vote: a field is of the first kind to which nearly all values of more than half of the nodes belong,
so that a few odd cells, or all cells of a minority, change nothing. What is not of that kind is a word.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mao_shared.models.round import FieldKind

from .number_style import NumberStyle, find_style, parse_decimals, parse_integers
from .observed import Observed
from .time_values import DATETIME_WITH_ZONE, parse_dates, parse_datetimes, parse_durations, parse_times
from .types import NOT_A_MEASURE, DateOrder

if TYPE_CHECKING:
    from polars import Series

TRUE, FALSE = ("true", "yes", "t", "y", "on"), ("false", "no", "f", "n", "off")
MAX_CATEGORIES = 50
_ROWS_PER_CATEGORY = 5
_CODE_NAMES = (
    "id uid uuid guid oid pid gid cid code status port zip zipcode postcode postal plz phone tel fax "
    "telephone isbn issn ean upc gtin sku doi asin iban bic ssn barcode serial sha sha1 sha256 sha512 md5 "
    "hash digest checksum commit rev revision ver version release tag build ref ip mac vin"
)
_CODE_ENDINGS = "no nr number"  # of longer names: flight_no, but not the column no beside yes
_NAME_PARTS = re.compile(r"[A-Z]+(?![a-z])[0-9]*|[A-Z]?[a-z]+[0-9]*|[0-9]+")
_VERSION = r"^[vV]?[0-9]+(?:\.[0-9]+){2,}(?:[-+.]?[0-9A-Za-z]+)*$"
_CONTAINERS: tuple[tuple[FieldKind, str], ...] = (("list", r"(?s)^\[.*\]$"), ("object", r"(?s)^\{.*\}$"))
_MIN_WIDTH_OF_IDS = 8
_DURATION_NAMES = frozenset({"duration", "elapsed", "length", "took", "runtime", "uptime"})
_DURATION_UNITS = re.compile(
    r"(?i)(ms|msecs?|milliseconds?|s|secs?|seconds?|mins?|minutes?|h|hrs?|hours?|days?|weeks?)"
)
_NUMERIC_DATE = r"^([0-9]{1,2})(?:[-/]|\. ?)([0-9]{1,2})(?:[-/]|\. ?)[0-9]{4}"


@dataclass(slots=True)
class Found:
    """A kind with the spelling of its values, and doubts about it."""

    kind: FieldKind
    style: NumberStyle = field(default_factory=NumberStyle)
    order: DateOrder = ""
    is_zoned: bool = False
    doubts: list[str] = field(default_factory=list)


def infer_kind(name: str, observed: Observed) -> Found:
    """Return the kind of a field.

    Args:
        observed: its texts without those that are never an observation.
    """
    measured = observed.only(~observed.distinct.str.strip_chars().is_in(sorted(NOT_A_MEASURE)))
    if measured.distinct.len():
        if _is_boolean(measured):
            return Found("boolean")
        for find in (_find_numbers, _find_times):
            if (found := find(name, measured)) is not None:
                return found
    if not observed.distinct.len():
        return Found("text")
    return Found(_kind_of_words(observed), doubts=_doubts_about_words(measured))


def describe_kind(kind: FieldKind, observed: Observed) -> Found:
    """Return a declared kind with the spelling that is inferred for it."""
    measured = observed.only(~observed.distinct.str.strip_chars().is_in(sorted(NOT_A_MEASURE)))
    found = Found(kind)
    if kind in ("integer", "number"):
        found.style, found.doubts = find_style(measured)
    elif kind in ("date", "datetime"):
        found.order, found.doubts = _find_order(measured)
    if kind == "datetime":
        _check_zones(measured, found)
    return found


def is_code_name(name: str) -> bool:
    """True for names of fields that hold codes: `id`, `status_code`, `repoId`, `flight_no`."""
    *parts, last = [part.lower() for part in _NAME_PARTS.findall(name)] or [""]
    if "of" in parts:  # lines_of_code
        return False
    return last in _CODE_NAMES.split() or (bool(parts) and last in _CODE_ENDINGS.split())


def _is_boolean(observed: Observed) -> bool:
    words = observed.distinct.str.strip_chars().str.to_lowercase()
    if observed.is_mostly(words.is_in(["true", "false", "yes", "no", "on", "off"])):
        return True
    seen = set(words)  # a single letter alone may be a code
    has_both = {"t", "f"} <= seen or {"y", "n"} <= seen
    return has_both and observed.is_mostly(words.is_in([*TRUE, *FALSE]))


def _find_numbers(name: str, observed: Observed) -> Found | None:
    style, doubts = find_style(observed)
    texts = observed.distinct.str.strip_chars()
    numbers, integers = parse_decimals(texts, style), parse_integers(texts, style)
    if not observed.is_mostly(numbers.is_not_null()) or _DURATION_UNITS.fullmatch(style.unit):
        return None
    if is_code_name(name) and not style.unit:
        return Found("identifier")
    if not style.unit and (reason := _code_reason(observed, texts, style, doubts)) is not None:
        return Found("identifier", doubts=[reason] if reason else [])
    is_whole = observed.is_mostly(integers.is_not_null()) and not observed.most_have(
        numbers.is_not_null() & integers.is_null()
    )
    if not is_whole or style.unit:
        return Found("number", style, doubts=doubts)
    if observed.is_mostly(parse_dates(texts, "").is_not_null()):
        return Found("date")
    if _is_of_one_width(observed, texts.set(~texts.str.contains(rf"^[0-9]{{{_MIN_WIDTH_OF_IDS},}}$"), None)):
        is_epoch = observed.is_mostly(texts.str.contains("^1[0-9]{9}(?:[0-9]{3})?$"))
        doubts = ["they may be seconds or milliseconds since 1970: declare datetime"] if is_epoch else []
        return Found("identifier", doubts=doubts)
    return Found("integer", style, doubts=doubts)


def _code_reason(observed: Observed, texts: Series, style: NumberStyle, doubts: list[str]) -> str | None:
    """Return why texts that look like numbers are codes: an empty text if that is sure, None if they are not.

    What only a minority of the nodes has is added to the doubts.
    """
    if observed.most_have(texts.str.contains(r"^0[0-9]+$|^\+[0-9]{8,}$")):  # postcodes, phone numbers
        return ""
    if "." not in style.thousands and observed.most_have(texts.str.contains(_VERSION)):
        return ""
    if observed.most_have(texts.str.contains("^[0-9]+[eE][0-9]+$")) and _is_of_one_width(observed, texts):
        return "they have one length and no decimals, as codes do: declare number if 7e2 is 700"
    untrimmed = observed.versions_with(texts.str.contains(r"^[0-9]{1,4}\.[1-9]0$"))
    untrimmed &= observed.versions_with(texts.str.contains(r"^[0-9]{1,4}\.[1-9]$"))
    untrimmed -= observed.versions_with(texts.str.contains(r"\.[0-9]{3}"))
    if not untrimmed:
        return None
    if 2 * observed.votes_of(untrimmed) >= observed.votes:
        return "some end in 0 as 3.10 does, as versions do: declare number if 3.10 is 3.1"
    doubts.append("some end in 0 as 3.10 does: declare identifier if they are versions")
    return None


def _is_of_one_width(observed: Observed, texts: Series) -> bool:
    lengths = texts.str.len_chars()
    mode = lengths.drop_nulls().mode()
    return bool(mode.len()) and observed.is_mostly(lengths == mode.min())


def _find_times(name: str, observed: Observed) -> Found | None:
    texts = observed.distinct.str.strip_chars()
    order, doubts = _find_order(observed)
    if observed.is_mostly(parse_dates(texts, order).is_not_null()):
        return Found("date", order=order, doubts=doubts)
    if observed.is_mostly(parse_datetimes(texts, order).is_not_null()):
        found = Found("datetime", order=order, doubts=doubts)
        _check_zones(observed, found)
        return found
    if observed.is_mostly(parse_times(texts).is_not_null()):
        parts = {part.lower() for part in _NAME_PARTS.findall(name)}
        is_span = bool(parts & _DURATION_NAMES)
        return Found("time", doubts=["by its name it may be a duration"] if is_span else [])
    one_letter = texts.str.contains(r"^[0-9.,]+\s*[mdwMDW]$")  # metres, seats …
    if observed.is_mostly(parse_durations(texts).is_not_null()) and not observed.is_mostly(one_letter):
        return Found("duration")
    return None


def _find_order(observed: Observed) -> tuple[DateOrder, list[str]]:
    """Return the order of day and month in dates with the year last, by the days after the 12th."""
    import polars

    groups = polars.col("text").str.extract_groups(_NUMERIC_DATE)
    found = (
        observed.distinct.str.strip_chars()
        .to_frame("text")
        .select(
            first=groups.struct.field("1").cast(polars.Int32),
            second=groups.struct.field("2").cast(polars.Int32),
        )
    )
    if not found["first"].count():
        return "", []
    day_first = observed.votes_with((found["first"] > 12) & (found["second"] <= 12))
    month_first = observed.votes_with((found["second"] > 12) & (found["first"] <= 12))
    if day_first and month_first:
        doubts = ["in some dates the day comes first and in others the month"]
    elif not day_first and not month_first and not observed.distinct.str.contains(r"^\s*[0-9]+\.").any():
        doubts = ["no date tells whether the day or the month comes first; it is read as the day"]
    else:
        doubts = []
    return ("mdy" if month_first > day_first else "dmy"), doubts


def _check_zones(observed: Observed, found: Found) -> None:
    texts = observed.distinct.str.strip_chars()
    zoned = texts.str.contains(DATETIME_WITH_ZONE)
    found.is_zoned = bool(zoned.any())
    is_read = parse_datetimes(texts, found.order).is_not_null()
    if found.is_zoned and (is_read & ~zoned).any():
        found.doubts.append("some name no time zone, and are read as UTC")


def _doubts_about_words(observed: Observed) -> list[str]:
    """Return why a field that was read as words may be one of numbers or dates."""
    texts = observed.distinct.str.strip_chars()
    style, doubts = find_style(observed)
    if doubts and observed.is_mostly(texts.str.contains(r"^[+-]?[0-9][0-9.,]*$")):
        return doubts
    if observed.is_mostly(texts.str.contains(_NUMERIC_DATE)):
        return _find_order(observed)[1]
    if 3 * observed.votes_for(parse_decimals(texts, style).is_not_null()) >= observed.votes > 0:
        return ["some nodes have numbers and others have not: declare the type"]
    return []


def _kind_of_words(observed: Observed) -> FieldKind:
    texts = observed.distinct.str.strip_chars()
    for kind, pattern in _CONTAINERS:
        if observed.is_mostly(texts.str.contains(pattern)):
            return kind
    if observed.is_mostly(texts.str.contains(r"^\S*[0-9]\S*$")):
        return "identifier"
    return "category" if observed.are_repeated(MAX_CATEGORIES, _ROWS_PER_CATEGORY) else "text"
