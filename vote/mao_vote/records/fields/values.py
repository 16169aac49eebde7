"""Which kind of values a field has: declared by the vote's definition, or inferred from all nodes' values.

The kind decides what a text means (`parse_values`): which texts are no observation, which are compared as
numbers (numbers, times, dates, durations) and which as words.

    integer                12, 12.0; 1,234 where the column separates thousands. 007 and 1e3 are words
    number                 also 1.5, 1e3, 1,5, 12 km, 5 %, as the column spells them
    time, duration         9:05 PM; 1h30m, PT5M
    date, datetime         2026-01-05, 5.1.2026, Jan 5, 2026; with time and zone
    boolean                true, yes, on, t, y (and 1 if declared) are one word
    identifier             3.10, 08001, 7e2, 404: codes and ids, compared as words
    text, category         words
    list, object, set      JSON; the order and repetitions of a set (nested/sets.py) do not count
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mao_shared.json_text import parse_json, render_json
from mao_shared.models.round import FieldKind, FieldRule

from .folding import fold_texts
from .kinds import FALSE, TRUE, describe_kind, infer_kind
from .number_style import NumberStyle, parse_decimals, parse_integers
from .observed import WHITE_SPACE, Observed, content_of, contents, is_quoted, observe
from .time_values import DAY_SECONDS, parse_dates, parse_datetimes, parse_durations, parse_times
from .types import NO_OBSERVATION, FieldType, Quotes, find_missing

if TYPE_CHECKING:
    from polars import DataFrame, Series

__all__ = ["FieldType", "infer_field", "is_observed", "parse_values"]

_READ_DIRECTLY = frozenset({"integer", "number", "text", "identifier", "category"})
"""Kinds that are read as fast as the distinct texts are found."""
FEW_VALUES = 20  # of all versions together
_FEW_ROWS = 1000  # of a column, in which Python finds a character sooner than polars
MAX_LEVELS = 100  # of lists and objects in a cell; the interpreter's own limit varies
_BRACKETS, _STRING = re.compile(r"[\[\]{}]"), re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_ABSENT = "\0absent"  # the word of a field that is not there, where that is a value


def infer_field(
    name: str, columns: Sequence[Series], votes: Sequence[int], rule: FieldRule, *, is_json: bool
) -> FieldType:
    """Return the type of a field from the values of all versions.

    Args:
        columns: the field's texts in each version, which may have different lengths; null: no such field.
        votes: for each version, the number of nodes that have it.
        rule: what the definition declares.
        is_json: texts are JSON, in which `"7"` is a text and `7` a number.
    """
    observed = observe(columns, votes)
    quotes, doubts = _find_quotes(observed, rule, is_json=is_json)
    if is_json:
        if quotes != "ignored":
            observed = observed.only(
                [text.startswith('"') == (quotes == "required") for text in observed.texts]
            )
        observed = observed.mapped([content_of(text) for text in observed.texts])
    if not rule.missing_is_value:
        missing_texts = {*NO_OBSERVATION, *rule.missing}
        observed = observed.only([text not in missing_texts for text in observed.stripped.texts])
    found = infer_kind(name, observed) if rule.type is None else describe_kind(rule.type, observed)
    if rule.type is None and found.kind == "integer" and _have_fractions(columns, votes, found.style):
        found.kind = "number"
    missing, more_doubts = find_missing(found.kind, observed.stripped.texts, rule.missing)
    doubts += [*found.doubts, *(more_doubts if not rule.missing_is_value else [])]
    tolerance = rule.tolerance
    if tolerance is not None and found.kind == "date":
        tolerance /= DAY_SECONDS
    return FieldType(
        found.kind,
        source="inferred" if rule.type is None else "declared",
        unsure="; ".join(doubts),
        tolerance=tolerance,
        error=rule.error,
        decimal=found.style.decimal,
        thousands=found.style.thousands,
        unit=found.style.unit,
        order=found.order,
        is_zoned=found.is_zoned,
        quotes=quotes,
        missing=missing,
        missing_is_value=rule.missing_is_value,
        fold=tuple(sorted(set(rule.fold))),
    )


def _find_quotes(observed: Observed, rule: FieldRule, *, is_json: bool) -> tuple[Quotes, list[str]]:
    """Return how JSON strings are read: as anything if the type is declared, or by what most values are."""
    if not is_json or not observed.texts:
        return "", []
    if rule.type is not None:
        return "ignored", []
    is_string = [text.startswith('"') for text in observed.texts]
    if observed.is_mostly(is_string):
        return "required", []
    if observed.is_mostly([not is_quote for is_quote in is_string]):
        return "", []
    return "", ["some are JSON strings and others are not, which never agree: declare the type"]


def _have_fractions(columns: Sequence[Series], votes: Sequence[int], style: NumberStyle) -> bool:
    """True if half of the nodes have a number with a fraction, which a sample may not show.

    In a field with few values one is enough.
    """
    import polars

    if "." not in style.decimal:
        return False
    having = total = values = 0
    for column, count in zip(columns, votes, strict=True):
        total += count if column.count() else 0
        values += column.count()
        if column.len() <= _FEW_ROWS and not any("." in text for text in column.to_list() if text):
            continue
        marked = column.filter(column.str.contains(".", literal=True).fill_null(value=False))
        number = marked.cast(polars.Float64, strict=False)
        having += count if ((number != number.floor()) & number.is_finite()).any() else 0
    return 2 * having >= total > 0 or (having > 0 and values < FEW_VALUES)


def parse_values(texts: Series, field: FieldType, *, is_json: bool) -> DataFrame:
    """Return `number` and `word` of each text, of which one is set; both are null if it is no observation.

    `number` is set for texts that are compared as numbers; times, datetimes and durations in seconds, dates
    in days. Other texts have a `word`, which is equal for texts that count as the same value.
    """
    import polars

    if field.kind in _READ_DIRECTLY and not is_json:
        return _parse(texts, field, is_json=is_json)
    distinct = texts.unique()
    known = _parse(distinct, field, is_json=is_json).with_columns(text=distinct)
    found = texts.to_frame("text").join(known, on="text", how="left", nulls_equal=True, maintain_order="left")
    return found.select(polars.col("number"), polars.col("word"))


def is_observed(texts: Series, field: FieldType, *, is_json: bool) -> Series:
    """Return for each text whether it is an observation: whether `parse_values` gives it a number or word."""
    import polars

    if field.missing_is_value:
        return polars.repeat(value=True, n=texts.len(), eager=True)
    if texts.len() <= _FEW_ROWS:
        bare = (
            text and (content_of(text) if is_json else text).strip(WHITE_SPACE) for text in texts.to_list()
        )
        return polars.Series(
            [text is not None and text not in field.missing for text in bare], dtype=polars.Boolean
        )
    content = contents(texts) if is_json else texts
    return (~content.str.strip_chars().is_in(field.missing)).fill_null(value=False)


def _parse(texts: Series, field: FieldType, *, is_json: bool) -> DataFrame:
    import polars

    content, is_string = polars.col("content"), polars.col("is_string")
    frame = polars.DataFrame({"text": texts, "content": contents(texts) if is_json else texts})
    if not field.missing_is_value:
        is_missing = content.str.strip_chars().is_in(field.missing)
        frame = frame.with_columns(polars.when(~is_missing).then(content).alias("content"))
    readable = unread = frame["content"]
    if is_json:
        frame = frame.with_columns(is_string=is_quoted(texts))
        if field.quotes != "ignored":
            is_readable = is_string if field.quotes == "required" else ~is_string
            readable = frame.select(polars.when(is_readable).then(content).alias("content"))["content"]
    number = _read_numbers(readable, field)
    if field.is_measure:
        unread = frame.select(polars.when(number.is_null()).then(content).alias("content"))["content"]
    frame = frame.with_columns(number=number, word=_read_words(unread, field))
    word = polars.col("word")
    if is_json and field.quotes != "ignored":  # `7` and `"7"` are different words
        quoted = polars.lit('"') + word + polars.lit('"')
        frame = frame.with_columns(polars.when(is_string).then(quoted).otherwise(word).alias("word"))
    if field.missing_is_value:
        absent = polars.when(polars.col("text").is_null()).then(polars.lit(_ABSENT))
        frame = frame.with_columns(word.fill_null(absent))
    return frame.select("number", "word")


def _read_numbers(texts: Series, field: FieldType) -> Series:
    """Return the numbers of a measure's texts, null for other texts."""
    import polars

    style = NumberStyle(field.decimal, field.thousands, field.unit)
    is_declared = field.source == "declared"
    match field.kind:
        case "integer":
            found = parse_integers(texts, style)
            fractions = (found.is_null() & texts.str.contains(r"^\s*[+-]?[0-9]+\.[0-9]+\s*$")).arg_true()
            return found.scatter(fractions, parse_decimals(texts.gather(fractions), style))
        case "number":
            return parse_decimals(texts, style)
        case "time":
            return parse_times(texts)
        case "date":
            return parse_dates(texts, field.order)
        case "datetime":
            return parse_datetimes(texts, field.order, with_epochs=is_declared)
        case "duration":
            return parse_durations(texts, with_clock=is_declared)
        case _:
            return polars.repeat(None, texts.len(), dtype=polars.Float64, eager=True)


def _read_words(texts: Series, field: FieldType) -> Series:
    """Return texts in the form in which they are compared: one for all spellings that count as the same."""
    words = fold_texts(texts, field.fold)
    if field.kind in _CANONICAL:
        return _mapped(words, words.str.contains(r"^\s*[\[{]"), _CANONICAL[field.kind])
    return _truth_values(words, field) if field.kind == "boolean" else words


def _truth_values(words: Series, field: FieldType) -> Series:
    import polars

    digits = (["1"], ["0"]) if field.source == "declared" else ([], [])
    spelling = words.str.strip_chars().str.to_lowercase()
    is_true, is_false = spelling.is_in([*TRUE, *digits[0]]), spelling.is_in([*FALSE, *digits[1]])
    value = polars.when(is_true).then(polars.lit("true")).when(is_false).then(polars.lit("false"))
    return polars.select(value.otherwise(words).alias("word"))["word"]


def _canonical(text: str) -> str:
    """Return JSON text with sorted names and no space; other text as it is."""
    found = _parse_shallow(text)
    return text if found is None else _render(found)


def _canonical_set(text: str) -> str:
    """Return a JSON list with each of its entries once, sorted by their text; other text as it is."""
    entries = _parse_shallow(text)
    if isinstance(entries, list):
        return "[" + ",".join(sorted({_render(entry) for entry in entries})) + "]"
    return text if entries is None else _render(entries)


def _parse_shallow(text: str) -> Any:
    """Parse JSON; None for other text and for what may be too deep for the interpreter of some node."""
    depth = deepest = 0
    for bracket in _BRACKETS.finditer(_STRING.sub("", text)):
        depth += 1 if bracket[0] in "[{" else -1
        deepest = max(deepest, depth)
    if deepest > MAX_LEVELS:
        return None
    try:
        return parse_json(text)
    except ValueError:
        return None


def _render(value: Any) -> str:
    text = render_json(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    if any("\ud800" <= letter <= "\udfff" for letter in text):  # half a letter, which no table can hold
        return render_json(value, sort_keys=True, separators=(",", ":"))
    return unicodedata.normalize("NFC", text)


_CANONICAL: dict[FieldKind, Callable[[str], str]] = {
    "set": _canonical_set,
    "list": _canonical,
    "object": _canonical,
}


def _mapped(texts: Series, chosen: Series, function: Callable[[str], str]) -> Series:
    """Return texts with a function applied to the chosen ones, once for equal ones."""
    import polars

    places = chosen.fill_null(value=False).arg_true()
    if not places.len():
        return texts
    selected = texts.gather(places)
    before = selected.unique().to_list()
    after = polars.Series([function(text) for text in before], dtype=polars.String)
    replaced = selected.replace_strict(before, after, return_dtype=polars.String)
    return texts.scatter(places, replaced)
