"""Infers the kind of a field from a sample of its values in all versions.

The nodes vote: a field is of the first kind to which nearly all values of more than half of the nodes belong,
so that a few odd cells, or all cells of a minority, change nothing. What is not of that kind is a word.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from functools import partial

from mao_shared.models.round import FieldKind

from .number_style import NumberStyle, are_decimals, are_integers, find_style
from .observed import NO_SPACE, SPACE, Observed
from .time_values import (
    DATE_SIEVE,
    DATETIME_WITH_ZONE,
    DURATION_SIEVE,
    TIME_SIEVE,
    parse_dates,
    parse_datetimes,
    parse_durations,
    parse_times,
)
from .types import NOT_A_MEASURE, DateOrder

TRUE, FALSE = ("true", "yes", "t", "y", "on"), ("false", "no", "f", "n", "off")
_BOTH_TRUTHS = frozenset({"true", "false", "yes", "no", "on", "off"})
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
    measured = _measured(observed)
    if measured.texts:
        if _is_boolean(measured):
            return Found("boolean")
        for find in (_find_numbers, _find_times):
            if (found := find(name, measured)) is not None:
                return found
    if not observed.texts:
        return Found("text")
    return Found(_kind_of_words(observed), doubts=_doubts_about_words(measured))


def _measured(observed: Observed) -> Observed:
    return observed.only([text not in NOT_A_MEASURE for text in observed.stripped.texts])


def describe_kind(kind: FieldKind, observed: Observed) -> Found:
    """Return a declared kind with the spelling that is inferred for it."""
    measured = _measured(observed)
    found = Found(kind)
    if kind in ("integer", "number"):
        found.style, found.doubts = find_style(measured)
    elif kind in ("date", "datetime"):
        found.order, found.doubts = _find_order(measured.stripped)
    if kind == "datetime":
        _check_zones(measured.stripped, found)
    return found


def is_code_name(name: str) -> bool:
    """True for names of fields that hold codes: `id`, `status_code`, `repoId`, `flight_no`."""
    *parts, last = [part.lower() for part in _NAME_PARTS.findall(name)] or [""]
    if "of" in parts:  # lines_of_code
        return False
    return last in _CODE_NAMES.split() or (bool(parts) and last in _CODE_ENDINGS.split())


def _is_boolean(observed: Observed) -> bool:
    words = [text.lower() if len(text) < 6 else "" for text in observed.stripped.texts]
    seen = set(words)
    if seen.isdisjoint((*TRUE, *FALSE)):
        return False
    if observed.is_mostly([word in _BOTH_TRUTHS for word in words]):
        return True
    # a single letter alone may be a code
    has_both = {"t", "f"} <= seen or {"y", "n"} <= seen
    return has_both and observed.is_mostly([word in TRUE or word in FALSE for word in words])


def _find_numbers(name: str, observed: Observed) -> Found | None:
    style, doubts = find_style(observed)
    bare = observed.stripped
    numbers = are_decimals(bare, style)
    if not observed.is_mostly(numbers) or _DURATION_UNITS.fullmatch(style.unit):
        return None
    if is_code_name(name) and not style.unit:
        return Found("identifier")
    if not style.unit and (reason := _code_reason(bare, style, doubts)) is not None:
        return Found("identifier", doubts=[reason] if reason else [])
    integers = are_integers(bare, style)
    fractions = [
        is_number and not is_integer for is_number, is_integer in zip(numbers, integers, strict=True)
    ]
    if style.unit or not observed.is_mostly(integers) or observed.most_have(fractions):
        return Found("number", style, doubts=doubts)
    if bare.are_mostly_read(partial(parse_dates, order=""), DATE_SIEVE):
        return Found("date")
    if _is_of_one_width(bare, rf"^[0-9]{{{_MIN_WIDTH_OF_IDS},}}$"):
        is_epoch = bare.is_mostly(bare.matching("^1[0-9]{9}(?:[0-9]{3})?$"))
        doubts = ["they may be seconds or milliseconds since 1970: declare datetime"] if is_epoch else []
        return Found("identifier", doubts=doubts)
    return Found("integer", style, doubts=doubts)


def _code_reason(observed: Observed, style: NumberStyle, doubts: list[str]) -> str | None:
    """Return why texts that look like numbers are codes: an empty text if that is sure, None if they are not.

    What only a minority of the nodes has is added to the doubts.
    """
    if observed.most_have(observed.matching(r"^0[0-9]+$|^\+[0-9]{8,}$")):  # postcodes, phone numbers
        return ""
    if "." not in style.thousands and observed.most_have(observed.matching(_VERSION)):
        return ""
    if observed.most_have(observed.matching("^[0-9]+[eE][0-9]+$")) and _is_of_one_width(observed):
        return "they have one length and no decimals, as codes do: declare number if 7e2 is 700"
    untrimmed = observed.versions_with(observed.matching(r"^[0-9]{1,4}\.[1-9]0$"))
    if untrimmed:
        untrimmed &= observed.versions_with(observed.matching(r"^[0-9]{1,4}\.[1-9]$"))
        untrimmed -= observed.versions_with(observed.matching(r"\.[0-9]{3}"))
    if not untrimmed:
        return None
    if 2 * observed.votes_of(untrimmed) >= observed.votes:
        return "some end in 0 as 3.10 does, as versions do: declare number if 3.10 is 3.1"
    doubts.append("some end in 0 as 3.10 does: declare identifier if they are versions")
    return None


def _is_of_one_width(observed: Observed, pattern: str = "") -> bool:
    """True if nearly all texts match a pattern and have the most frequent length of those that do."""
    flags = observed.matching(pattern)
    lengths = [len(text) if is_like else None for text, is_like in zip(observed.texts, flags, strict=True)]
    counts = Counter(length for length in lengths if length is not None)
    if not counts:
        return False
    width = min(counts, key=lambda length: (-counts[length], length))
    return observed.is_mostly([length == width for length in lengths])


def _find_times(name: str, observed: Observed) -> Found | None:
    bare = observed.stripped
    if bare.is_mostly(bare.matching(DATE_SIEVE)):
        order, doubts = _find_order(bare)
        if bare.are_mostly_read(partial(parse_dates, order=order), DATE_SIEVE):
            return Found("date", order=order, doubts=doubts)
        if bare.are_mostly_read(partial(parse_datetimes, order=order), DATE_SIEVE):
            found = Found("datetime", order=order, doubts=doubts)
            _check_zones(bare, found)
            return found
    if bare.are_mostly_read(parse_times, TIME_SIEVE):
        parts = {part.lower() for part in _NAME_PARTS.findall(name)}
        is_span = bool(parts & _DURATION_NAMES)
        return Found("time", doubts=["by its name it may be a duration"] if is_span else [])
    if bare.are_mostly_read(parse_durations, DURATION_SIEVE):
        one_letter = bare.matching(rf"^[0-9.,]+{SPACE}*[mdwMDW]$")  # metres, seats …
        return None if bare.is_mostly(one_letter) else Found("duration")
    return None


def _find_order(observed: Observed) -> tuple[DateOrder, list[str]]:
    """Return the order of day and month in dates with the year last, by the days after the 12th."""
    if not any(observed.matching(_NUMERIC_DATE)):
        return "", []
    dates = [re.search(_NUMERIC_DATE, text) for text in observed.texts]
    numbers = [(int(date[1]), int(date[2])) if date else (0, 0) for date in dates]
    day_first = observed.votes_with([first > 12 >= second for first, second in numbers])
    month_first = observed.votes_with([second > 12 >= first for first, second in numbers])
    if day_first and month_first:
        doubts = ["in some dates the day comes first and in others the month"]
    elif not day_first and not month_first and not any(observed.matching(r"^[0-9]+\.")):
        doubts = ["no date tells whether the day or the month comes first; it is read as the day"]
    else:
        doubts = []
    return ("mdy" if month_first > day_first else "dmy"), doubts


def _check_zones(observed: Observed, found: Found) -> None:
    zoned = observed.series.str.contains(DATETIME_WITH_ZONE)
    found.is_zoned = bool(zoned.any())
    if found.is_zoned and (parse_datetimes(observed.series, found.order).is_not_null() & ~zoned).any():
        found.doubts.append("some name no time zone, and are read as UTC")


def _doubts_about_words(observed: Observed) -> list[str]:
    """Return why a field that was read as words may be one of numbers or dates."""
    bare = observed.stripped
    style, doubts = find_style(observed)
    if doubts and bare.is_mostly(bare.matching(r"^[+-]?[0-9][0-9.,]*$")):
        return doubts
    if bare.is_mostly(bare.matching(_NUMERIC_DATE)):
        return _find_order(bare)[1]
    if 3 * bare.votes_for(are_decimals(bare, style)) >= bare.votes > 0:
        return ["some nodes have numbers and others have not: declare the type"]
    return []


def _kind_of_words(observed: Observed) -> FieldKind:
    bare = observed.stripped
    for kind, pattern in _CONTAINERS:
        if bare.is_mostly(bare.matching(pattern)):
            return kind
    if bare.is_mostly(bare.matching(rf"^{NO_SPACE}*[0-9]{NO_SPACE}*$")):
        return "identifier"
    return "category" if observed.are_repeated(MAX_CATEGORIES, _ROWS_PER_CATEGORY) else "text"
