"""Parses numbers as tables spell them.

A number may have a decimal point or comma, and thousands separators; anything else is text:

    2.50  1e3  -0.5           as programs write them
    2,50  1.234,5  1 234,5    the last mark is a comma: it is the decimal comma
    1,234.5  1,234,567        a comma before a point, or a repeated one, separates thousands
    1.234.567  1'234.5
    1,234                     read as 1.234: it is ambiguous, and several such numbers keep their order
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polars import Expr, Series

_MAX_DIGITS = 15  # longer integers would be rounded, so they are compared as texts
_GROUP_MARKS = " '\u00a0\u2009\u202f\u2019"
_POWER = "(?:[eE][+-]?[0-9]+)?"
_COMMA = rf"^[+-]?(?:[0-9]+|[0-9]{{1,3}}(?:[.{_GROUP_MARKS}][0-9]{{3}})+),[0-9]+{_POWER}$"
_GROUPS = (
    rf"^[+-]?[0-9]{{1,3}}(?:(?:,[0-9]{{3}}){{2,}}|(?:\.[0-9]{{3}}){{2,}}|(?:[{_GROUP_MARKS}][0-9]{{3}})+)$"
    rf"|^[+-]?[0-9]{{1,3}}(?:[,{_GROUP_MARKS}][0-9]{{3}})+\.[0-9]+{_POWER}$"
)
_MAYBE_NUMBER = rf"^[+-]?[0-9]+[,.{_GROUP_MARKS}]"


def numbers(texts: Series) -> Series:
    """Parse texts as finite numbers; null for other texts and for integers too long for a float."""
    import polars

    value = texts.cast(polars.Float64, strict=False)
    spelling = texts
    places = (value.is_null() & texts.is_not_null()).arg_true()
    places = places.filter(texts.gather(places).str.contains(_MAYBE_NUMBER))
    if places.len():
        plain = texts.gather(places).to_frame("text").select(_plain(polars.col("text")))["text"]
        spelling = texts.scatter(places, plain)
        value = value.scatter(places, plain.cast(polars.Float64, strict=False))
    longer = (spelling.str.len_bytes() > _MAX_DIGITS).fill_null(value=False).arg_true()
    longer = longer.filter(spelling.gather(longer).str.contains(r"^[+-]?\d{16,}$"))
    found = value.scatter(longer, None) + 0.0  # turns -0.0 into 0.0
    return found.set(~found.is_finite().fill_null(value=False), None)


def _plain(text: Expr) -> Expr:
    import polars

    comma = text.str.replace_all(rf"[.{_GROUP_MARKS}]", "").str.replace(",", ".", literal=True)
    last_point = text.str.replace_all(rf"[,{_GROUP_MARKS}]", "")
    no_mark = text.str.replace_all(rf"[,.{_GROUP_MARKS}]", "")
    points = text.str.count_matches(".", literal=True)
    return (
        polars.when(text.str.contains(_COMMA))
        .then(comma)
        .when(text.str.contains(_GROUPS))
        .then(polars.when(points == 1).then(last_point).otherwise(no_mark))
        .otherwise(None)
        .alias("text")
    )


def parse_number(text: str) -> float:
    """Parse a cell's text as a number, by the same rules as `numbers`. Raises ValueError."""
    if "_" in text:  # allowed by Python only
        raise ValueError(text)
    if re.search(_COMMA, text):
        return float(re.sub(rf"[.{_GROUP_MARKS}]", "", text).replace(",", "."))
    if re.search(_GROUPS, text):
        return float(
            re.sub(rf"[,{_GROUP_MARKS}]" if text.count(".") == 1 else rf"[,.{_GROUP_MARKS}]", "", text)
        )
    return float(text)
