"""Numbers as tables have them: with a decimal point, a decimal comma, and thousands in groups.

    2.50  1e3  -0.5           as programs write them
    2,50  1.234,5  1 234,5    the last mark is a comma: it is the decimal one
    1,234.5  1,234,567        a comma before a point, and one that comes twice, groups thousands
    1.234.567  1'234.5

1,234 alone is taken for 1.234: nobody can tell, and of several such numbers the order is the same either way.
What is no number in this sense is a text.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polars import Expr, Series

_DIGITS_THAT_FIT = 15  # longer whole numbers would be rounded, so they are compared as texts
_GAP = " '\u00a0\u2009\u202f\u2019"
_POWER = "(?:[eE][+-]?[0-9]+)?"
_COMMA = rf"^[+-]?(?:[0-9]+|[0-9]{{1,3}}(?:[.{_GAP}][0-9]{{3}})+),[0-9]+{_POWER}$"
_GROUPS = (
    rf"^[+-]?[0-9]{{1,3}}(?:(?:,[0-9]{{3}}){{2,}}|(?:\.[0-9]{{3}}){{2,}}|(?:[{_GAP}][0-9]{{3}})+)$"
    rf"|^[+-]?[0-9]{{1,3}}(?:[,{_GAP}][0-9]{{3}})+\.[0-9]+{_POWER}$"
)
_MAYBE = rf"^[+-]?[0-9]+[,.{_GAP}]"


def numbers(texts: Series) -> Series:
    """Of each text the finite number that it is; null where it is none, or would be rounded."""
    import polars

    value = texts.cast(polars.Float64, strict=False)
    spelt = texts
    places = (value.is_null() & texts.is_not_null()).arg_true()
    places = places.filter(texts.gather(places).str.contains(_MAYBE))
    if places.len():
        plain = texts.gather(places).to_frame("text").select(_plain(polars.col("text")))["text"]
        spelt = texts.scatter(places, plain)
        value = value.scatter(places, plain.cast(polars.Float64, strict=False))
    longer = (spelt.str.len_bytes() > _DIGITS_THAT_FIT).fill_null(value=False).arg_true()
    longer = longer.filter(spelt.gather(longer).str.contains(r"^[+-]?\d{16,}$"))
    found = value.scatter(longer, None) + 0.0  # makes -0.0 the 0.0 that it equals
    return found.set(~found.is_finite().fill_null(value=False), None)


def _plain(text: Expr) -> Expr:
    import polars

    comma = text.str.replace_all(rf"[.{_GAP}]", "").str.replace(",", ".", literal=True)
    last_point = text.str.replace_all(rf"[,{_GAP}]", "")
    no_mark = text.str.replace_all(rf"[,.{_GAP}]", "")
    points = text.str.count_matches(".", literal=True)
    return (
        polars.when(text.str.contains(_COMMA))
        .then(comma)
        .when(text.str.contains(_GROUPS))
        .then(polars.when(points == 1).then(last_point).otherwise(no_mark))
        .otherwise(None)
        .alias("text")
    )


def number_of(text: str) -> float:
    """The number that a cell's text is. Raises ValueError."""
    if "_" in text:  # Python's own way of writing numbers
        raise ValueError(text)
    if re.search(_COMMA, text):
        return float(re.sub(rf"[.{_GAP}]", "", text).replace(",", "."))
    if re.search(_GROUPS, text):
        return float(re.sub(rf"[,{_GAP}]" if text.count(".") == 1 else rf"[,.{_GAP}]", "", text))
    return float(text)
