"""What is known of a field: its kind, how its texts are spelled, and which of them are no observation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from mao_shared.models.round import FieldKind, Fold

MEASURES: frozenset[FieldKind] = frozenset({"integer", "number", "time", "date", "datetime", "duration"})
"""Kinds that are compared as numbers."""
DateOrder = Literal["", "dmy", "mdy"]
Quotes = Literal["", "required", "ignored"]

_MARKERS = (
    *("", "null", "NULL", "N/A", "n/a", "NaN", "nan", "-nan", "-NaN", "NaT", "<NA>", "(null)", "\\N"),
    *("#N/A", "#N/A N/A", "#NA", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
)
NO_OBSERVATION = frozenset(_MARKERS)
"""Texts that are no observation in any field: those of pandas' `na_values` that mean nothing else."""
DASHES = frozenset({"-", "--", "---", "\u2013", "\u2014", "?", "??", "???", ".", "..", "..."})
NOT_A_MEASURE = NO_OBSERVATION | DASHES | {"#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#NULL!", "NAN"}
_WORDS = ("na", "n.a.", "none", "nil", "null", "undefined", "missing", "unknown", "not available")
NOT_A_MEASURE |= {spelling for word in _WORDS for spelling in (word, word.upper(), word.capitalize())}
"""Texts that are no observation in fields of numbers, times, dates and booleans, where no word is a value."""


@dataclass(frozen=True, slots=True)
class FieldType:
    """How the values of a field are read and compared.

    `unsure`: why the inference may be wrong, in words; empty if it is not. `tolerance`: values that differ by
    at most this agree, in the unit of `number` (seconds for times, days for dates); `error`: the same as a
    fraction of the larger value; None if not declared.

    `decimal`: the marks that separate decimals (`.`, `,`, or both where neither separates thousands);
    `thousands`: the mark between groups of three digits, a blank for any space and apostrophe; `unit`: what
    stands before or after each number. `order` of day and month where both are numbers. `is_zoned`: some of
    the times name a zone; those that do not are read as UTC. `quotes`: whether JSON strings are never read as
    anything but words (empty), nothing else is (`required`), or it does not matter (`ignored`).

    `missing`: texts, without the space around them, that are no observation. `fold`: what does not count
    between words.
    """

    kind: FieldKind
    source: Literal["declared", "inferred"] = "inferred"
    unsure: str = ""
    tolerance: float | None = None
    error: float | None = None
    decimal: str = "."
    thousands: str = ""
    unit: str = ""
    order: DateOrder = ""
    is_zoned: bool = False
    quotes: Quotes = ""
    missing: tuple[str, ...] = tuple(sorted(NO_OBSERVATION))
    missing_is_value: bool = False
    fold: tuple[Fold, ...] = ()

    @property
    def is_measure(self) -> bool:
        """True if values are compared as numbers of which one can be between two others."""
        return self.kind in MEASURES


def may_be_observed(text: str, declared: Iterable[str]) -> bool:
    """True if a text is a value in some kind of field; a JSON string counts as what it contains."""
    content = text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text
    return content.strip() not in NOT_A_MEASURE | set(declared)


def find_missing(
    kind: FieldKind, seen: Iterable[str], declared: Iterable[str]
) -> tuple[tuple[str, ...], list[str]]:
    """Return the texts that are no observation in a field, and doubts about them.

    In a field of words `NA`, `None` and dashes are values where the other values are of their sort: codes,
    capitalised categories, symbols.

    Args:
        seen: the field's distinct texts, without the space around them.
        declared: further texts that the definition names.
    """
    if kind in MEASURES or kind == "boolean":
        return tuple(sorted({*NOT_A_MEASURE, *declared})), []
    distinct = set(seen) - NO_OBSERVATION
    others = sorted(distinct - DASHES - {"NA", "None"})
    missing, doubts = set(NO_OBSERVATION), []
    is_of_their_sort = {
        "NA": _is_most(others, lambda text: 2 <= len(text) <= 5 and _is_ascii_upper(text)),
        "None": len(others) <= 20 and _is_most(others, lambda text: text.isalpha() and text.istitle()),
    }
    for text, is_value in is_of_their_sort.items():
        if not is_value:
            missing.add(text)
        elif text in distinct:
            doubts.append(f"{text} is read as a value like {others[0][:40]}")
    symbols = sorted(distinct - {"NA", "None"} - {"-", "?", "."})
    if not _is_most(symbols, lambda text: len(text) <= 3 and not any(letter.isalnum() for letter in text)):
        missing |= DASHES
    return tuple(sorted({*missing, *declared})), doubts


def _is_ascii_upper(text: str) -> bool:
    return text.isascii() and text.isalpha() and text.isupper()


def _is_most(texts: list[str], fits: Callable[[str], bool]) -> bool:
    """True if at least four of five texts fit, and there are any."""
    return bool(texts) and 5 * sum(map(fits, texts)) >= 4 * len(texts)
