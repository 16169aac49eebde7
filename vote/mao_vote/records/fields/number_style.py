"""How a column spells its numbers: decimal mark, thousands separators, unit; and parsing in that style.

The style is decided for the whole column, since one text does not tell: 1,234 is a thousand in a column with
1,234.5 or 12,345,678, and little more than one in a column with 0,5. Numbers in any other style are words.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .observed import SPACE, WHITE_SPACE, Flags, Observed

if TYPE_CHECKING:
    from polars import Expr, Series

MAX_DIGITS = 15  # longer integers would be rounded, so they are compared as words
GROUP_MARKS = " '\u00a0\u2009\u202f\u2019"
_POWER = r"(?:[eE][+-]?[0-9]+)?"
_HEAD = r"[1-9][0-9]{0,2}"
_NUMERAL = rf"[0-9.](?:[0-9.,{GROUP_MARKS}]*[0-9])?{_POWER}"
_SYMBOLS = "%\u2030\u00b0$\u20ac\u00a3\u00a5"
_LETTERS = r"\u00b0?[A-Za-z\u00b5\u03bc\u03a9]{1,12}[\u00b2\u00b323]?"
_SUFFIX = re.compile(rf"[+-]?{_NUMERAL}({SPACE}?)([{_SYMBOLS}]|{_LETTERS}(?:/{_LETTERS})?)")
_PREFIX = re.compile(
    rf"[+-]?(?:([$\u20ac\u00a3\u00a5])|(USD|EUR|GBP|CHF|JPY|CNY|INR|AUD|CAD) ){SPACE}?[+-]?{_NUMERAL}"
)
_WITH_UNIT = rf"^[+-]?[0-9.][^a-zA-Z]*[{_SYMBOLS}\u00b5\u03bc\u03a9A-Za-z]|^[+-]?[$\u20ac\u00a3\u00a5A-Z]"
_MARKED = rf"[,{GROUP_MARKS}]|\..*\."
_MARKED_NUMERAL = rf"^[+\-\u2212]?[0-9.,{GROUP_MARKS}]+(?:[eE][+-]?[0-9]+)?$"
_SIGN, _EXPONENT = re.compile("^[+\\-\u2212]"), re.compile(r"[eE][+-]?[0-9]+\Z")
_DECIMAL = r"^-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]+)?$"
_INTEGER = r"^-?(?:0|[1-9][0-9]{0,14})(?:\.0+)?$"
_NUMERIC = rf"^[0-9.,eE+\-\u2212{WHITE_SPACE}{GROUP_MARKS}]+$"
_UNITS = (
    "nm um \u00b5m mm cm dm km mi ft in yd mg \u00b5g kg lb lbs oz ml cl dl gal "
    "B kB KB MB GB TB PB KiB MiB GiB TiB bytes bit kbit Mbit kbps Mbps Gbps bps "
    "Hz kHz MHz GHz rpm mV kV mA mW kW MW GW Wh kWh MWh kJ MJ kcal cal "
    "Pa hPa kPa MPa bar mbar psi atm dB dBm dBA lx lux lm cd ppm ppb px pt "
    "km/h m/s mph kn kt ms us \u00b5s ns sec min hr hrs m2 m3 km2 m\u00b2 m\u00b3 km\u00b2 "
    "\u00b0C \u00b0F USD EUR GBP CHF JPY CNY INR AUD CAD"
)
_SHORT_UNITS = "mglshdKCFVAWNJBx"  # seats and gates also end in a letter


@dataclass(frozen=True, slots=True)
class NumberStyle:
    """The marks and the unit of a column's numbers; see `FieldType`."""

    decimal: str = "."
    thousands: str = ""
    unit: str = ""


def parse_decimals(texts: Series, style: NumberStyle) -> Series:
    """Parse numbers in a style; null for other texts, for 007, and for integers too long for a float."""
    form = rf"^[+-]?(?:[0-9]{{1,{MAX_DIGITS}}}|[0-9]*\.[0-9]*|[0-9.]+[eE].*)$"
    if style != NumberStyle():
        return _parse(texts, style, form)
    import polars

    text = polars.col("text")
    is_long = (text.str.len_bytes() > MAX_DIGITS) & ~text.str.contains(".", literal=True)
    return _cast(texts, text.cast(polars.Float64, strict=False) + 0.0, is_long, form)


def parse_integers(texts: Series, style: NumberStyle) -> Series:
    """Parse integers in a style, 12.0 included; null for all others, such as 1e3 and 007."""
    form = rf"^[+-]?[0-9]{{1,{MAX_DIGITS}}}(?:\.0+)?$"
    if style != NumberStyle():
        return _parse(texts, style, form)
    import polars

    text = polars.col("text")
    number = text.cast(polars.Int64, strict=False).cast(polars.Float64)
    return _cast(texts, number, text.str.len_bytes() > MAX_DIGITS, form)


def _cast(texts: Series, number: Expr, is_odd: Expr, form: str) -> Series:
    """Return numbers that a cast finds; texts that may be something else are parsed by their form."""
    import polars

    found = texts.to_frame("text").select(
        "text", number=number, is_odd=is_odd | polars.col("text").str.contains(r"(?s)^[+-]?0[^.]")
    )
    is_odd = polars.col("is_odd") | ~polars.col("number").is_finite().fill_null(value=False)
    places = found.select((is_odd & polars.col("text").is_not_null()).arg_true())["is_odd"]
    if not places.len():
        return found["number"]
    return found["number"].scatter(places, _parse(texts.gather(places), NumberStyle(), form))


def _parse(texts: Series, style: NumberStyle, form: str) -> Series:
    import polars

    text = polars.col("text").str.strip_chars().str.replace("\u2212", "-", literal=True)
    if style.unit:
        text = _without_unit(text, style.unit)
    whole = "[0-9]+"
    if style.thousands:
        marks = _character_class(style.thousands.replace(" ", GROUP_MARKS))
        whole = rf"(?:[0-9]+|{_HEAD}(?:{marks}[0-9]{{3}})+)"
    decimal = _character_class(style.decimal)
    numeral = rf"^[+-]?(?:{whole}(?:{decimal}[0-9]*)?|{decimal}[0-9]+){_POWER}$"
    text = polars.when(text.str.contains(numeral)).then(text)
    if style.thousands:
        text = text.str.replace_all(marks, "")
    if style.decimal != ".":
        text = text.str.replace(decimal, ".")
    is_padded = text.str.contains(r"^[+-]?0[0-9]+$")
    number = polars.when(text.str.contains(form) & ~is_padded).then(text.cast(polars.Float64, strict=False))
    found = texts.to_frame("text").select((number + 0.0).alias("number"))  # turns -0.0 into 0.0
    return found.select(polars.when(polars.col("number").is_finite()).then("number"))["number"]


def _character_class(marks: str) -> str:
    return "[" + "".join(re.escape(mark) for mark in marks) + "]"


def _without_unit(text: Expr, unit: str) -> Expr:
    """Return a text without its unit, null if it has none."""
    import polars

    found = [polars.when(text.str.ends_with(unit)).then(text.str.strip_suffix(unit).str.strip_chars_end())]
    for sign in ("", "-", "+"):
        number = text.str.strip_prefix(sign + unit).str.strip_chars_start()
        found.append(polars.when(text.str.starts_with(sign + unit)).then(polars.lit(sign) + number))
    return polars.coalesce(found)


def are_decimals(observed: Observed, style: NumberStyle) -> Flags:
    """Return which texts `parse_decimals` reads."""
    return _are_read(observed, style, parse_decimals, _DECIMAL)


def are_integers(observed: Observed, style: NumberStyle) -> Flags:
    """Return which texts `parse_integers` reads."""
    return _are_read(observed, style, parse_integers, _INTEGER)


def _are_read(
    observed: Observed, style: NumberStyle, parse: Callable[[Series, NumberStyle], Series], plain: str
) -> Flags:
    """Return which texts are read. `plain`: a pattern of such texts, in the usual style."""
    known = observed.matching(plain) if style == NumberStyle() else None
    return observed.read(lambda texts: parse(texts, style), "" if style.unit else _NUMERIC, known)


def find_style(observed: Observed) -> tuple[NumberStyle, list[str]]:
    """Return the style of a column's numbers, and doubts about it."""
    unit = _find_unit(observed)
    if unit:
        import polars

        bare = observed.series.to_frame("text").select(_without_unit(polars.col("text"), unit))["text"]
        observed = observed.mapped(bare.to_list())
    if any(observed.matching(_MARKED)):
        numerals = observed.only(observed.matching(_MARKED_NUMERAL))
        observed = numerals.mapped([_EXPONENT.sub("", _SIGN.sub("", text)) for text in numerals.texts])
        if any(observed.matching(_MARKED)):
            decimal, thousands, doubts = _find_marks(observed)
            return NumberStyle(decimal, thousands, unit), doubts
    return NumberStyle(unit=unit), []


def _find_marks(observed: Observed) -> tuple[str, str, list[str]]:
    """Return decimal marks, thousands marks, and doubts, by a vote of the versions for what each mark is.

    A mark that both a decimal and a thousands mark could be has the meaning that fits its version's others.
    """

    def having(pattern: str) -> frozenset[int]:
        return observed.versions_with(observed.matching(pattern))

    def votes(versions: frozenset[int]) -> int:
        return observed.votes_of(versions)

    spaced = having(rf"^{_HEAD}(?:[{GROUP_MARKS}][0-9]{{3}})+(?:[.,][0-9]*)?$")
    decimal_comma = having(r"^(?:[0-9]*,(?:[0-9]{1,2}|[0-9]{4,})|0[0-9]*,[0-9]+|[0-9]{4,},[0-9]+)$")
    decimal_comma |= having(rf"^{_HEAD}(?:[.{GROUP_MARKS}][0-9]{{3}})+,[0-9]+$")
    either_comma = having(rf"^{_HEAD},[0-9]{{3}}$")
    long = having(r"^[1-9][0-9]{3,}(?:\.[0-9]*)?$")
    comma_groups = having(rf"^{_HEAD}(?:(?:,[0-9]{{3}}){{2,}}(?:\.[0-9]*)?|(?:,[0-9]{{3}})+\.[0-9]+)$")
    comma_groups |= either_comma - long - decimal_comma
    either_point = having(rf"^{_HEAD}\.[0-9]{{3}}$")
    point_groups = having(rf"^{_HEAD}(?:(?:\.[0-9]{{3}}){{2,}}(?:,[0-9]+)?|(?:\.[0-9]{{3}})+,[0-9]+)$")
    point_groups |= either_point & decimal_comma
    decimal_point = having(r"^(?:[0-9]*\.(?:[0-9]{1,2}|[0-9]{4,})|0[0-9]*\.[0-9]+|[0-9]{4,}\.[0-9]+)$")
    decimal_point |= either_point - decimal_comma

    doubts = []
    groups, decimals = votes(comma_groups), votes(decimal_comma)
    if (groups and decimals) or (either_comma and not groups and not decimals):
        doubts.append("the comma separates decimals in some numbers and thousands in others")
    elif groups and not any(observed.matching(r"^[0-9]{1,3}$|,.*[,.]")):
        doubts.append("the comma is read as a thousands separator")
    if decimals > groups:
        if votes(point_groups) > votes(decimal_point):
            return ",", "." + (" " if spaced else ""), doubts
        return (".," if decimal_point else ","), (" " if spaced else ""), doubts
    thousands = ("," if groups > decimals else "") + (" " if spaced else "")
    if point_groups and not decimal_point and not groups:
        return ",", "." + thousands, doubts
    return ".", thousands, doubts


def _find_unit(observed: Observed) -> str:
    """Return the unit that nearly all texts of most nodes have, or an empty text."""
    if not observed.is_mostly(observed.matching(_WITH_UNIT)):
        return ""
    spellings = [_split_unit(text) for text in observed.texts]
    units = [unit for _, unit in spellings]
    votes = observed.votes_by(units)
    if not votes:
        return ""
    unit = min(votes, key=lambda name: (-votes[name], name))
    if not observed.is_mostly([name == unit for name in units]):
        return ""
    chosen = [
        (gap, text) for (gap, name), text in zip(spellings, observed.texts, strict=True) if name == unit
    ]
    is_known = unit in _UNITS.split() or unit[0] in _SYMBOLS
    is_apart = 2 * sum(gap != "" for gap, _ in chosen) > len(chosen)
    is_measured = unit in _SHORT_UNITS and any(re.search("[.,][0-9]", text) for _, text in chosen)
    return unit if is_known or is_apart or is_measured else ""


def _split_unit(text: str) -> tuple[str, str | None]:
    """Return the space between a number and the unit after it, and the unit; None if it has none."""
    if after := _SUFFIX.fullmatch(text):
        return after[1], after[2]
    before = _PREFIX.fullmatch(text)
    return "", None if before is None else before[1] or before[2]
