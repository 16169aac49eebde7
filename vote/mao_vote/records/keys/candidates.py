"""Lists the columns that may be the key of a table, the likeliest first, by their names and values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from polars import Series

ColumnKind = Literal["text", "integer", "measured", "empty"]
_IDENTITY_NAMES = (
    *("id", "key", "name", "path", "uuid", "url", "uri", "slug", "sku", "code", "symbol"),
    *("doi", "orcid", "isbn", "issn", "pmid", "email"),
)
_TIME_NAMES = ("date", "day", "time", "timestamp", "datetime", "ts", "epoch", "year", "month", "week", "hour")
_WORD = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])|[^\W_]+")
_NUMBER = (
    r"^[+-]?(?:\d{1,3}(?:[ ',.\u00a0\u2009\u202f\u2019]\d{3})+(?:[.,]\d+)?|\d+(?:[.,]\d*)?|[.,]\d+)"
    r"(?:[eE][+-]?\d+)?(?:\s?%|\s\D{1,8})?$"
)
_INTEGER = r"^[+-]?\d+$"
_WRITTEN_OUT = r"^[+-]?(?:0\d+|\d{16,})$"  # leading zeros, and more digits than numbers have, are texts
_NO_OBSERVATION = ("", '""', "null", "na", "n/a", "nan", "none", "-", "inf", "-inf")
_MIN_NUMBERS = 0.9  # the fraction of a column's values that are numbers, if it is one of numbers
_KIND_SAMPLE = 200  # values of a version that tell a column's kind
_KIND_VERSIONS = 20
_MAX_COMBINED_COLUMNS = 8  # leftmost columns that are tried in pairs


@dataclass(frozen=True, slots=True)
class Candidate:
    """Columns that may be the key.

    `trusted`: its name says that it identifies, so that values may change between nodes. `numbers`: it has
    integers without such a name. `sparse`: it is enough that one other version has the same records.
    """

    columns: tuple[str, ...]
    group: int
    trusted: bool = False
    numbers: bool = False
    sparse: bool = False


def list_candidates(kinds: Mapping[str, ColumnKind]) -> Iterator[Candidate]:
    """Yield possible keys, the likeliest first."""
    words = {name: [word.lower() for word in _WORD.findall(name)] for name in kinds}
    usable = [name for name, kind in kinds.items() if kind in ("text", "integer")]
    exact = [name for wanted in _IDENTITY_NAMES for name in usable if words[name] == [wanted]]
    ending = [name for name in usable if words[name] and words[name][-1] in _IDENTITY_NAMES]
    trusted = dict.fromkeys([*exact, *ending])
    times = [name for name in usable if len(words[name]) == 1 and words[name][0] in _TIME_NAMES]
    telling = {*trusted, *times}
    texts = [name for name in usable if kinds[name] == "text" and name not in telling]
    numbers = [name for name in usable if kinds[name] == "integer" and name not in telling]

    yield from (Candidate((name,), 0, trusted=True) for name in trusted)
    yield from (Candidate((name,), 1) for name in times)
    yield from (Candidate((name,), 2) for name in texts)
    yield from (Candidate((name,), 3, trusted=name in trusted, sparse=True) for name in [*trusted, *times])
    yield from (Candidate((name,), 4, numbers=True) for name in numbers)
    combined = usable[:_MAX_COMBINED_COLUMNS]
    pairs = list(combinations(combined, 2))
    with_number = [any(name in numbers for name in pair) for pair in pairs]
    yield from (Candidate(pair, 5) for pair, has in zip(pairs, with_number, strict=True) if not has)
    yield from (
        Candidate(three, 6)
        for three in combinations(combined, 3)
        if not any(name in numbers for name in three)
    )
    yield from (Candidate(pair, 7, numbers=True) for pair, has in zip(pairs, with_number, strict=True) if has)
    yield from (Candidate((name,), 8, sparse=True) for name in texts)


def column_kind(columns: Sequence[Series]) -> ColumnKind:
    """Return whether a column has texts, integers or measurements, by a sample of each version.

    Numbers with leading zeros or more digits than numbers have are texts.
    """
    import polars

    samples = [
        column.gather_every(max(column.len() // _KIND_SAMPLE, 1)) for column in columns[:_KIND_VERSIONS]
    ]
    texts = polars.concat(samples).drop_nulls().str.strip_chars() if samples else polars.Series([""])
    texts = texts.filter(~texts.str.to_lowercase().is_in(_NO_OBSERVATION))
    if not texts.len():
        return "empty"
    numbers = texts.filter(texts.str.contains(_NUMBER))
    if numbers.len() < _MIN_NUMBERS * texts.len() or numbers.str.contains(_WRITTEN_OUT).any():
        return "text"
    return "integer" if numbers.str.contains(_INTEGER).all() else "measured"


def has_fraction(column: Series) -> bool:
    """True if a value of a column of integers, all of which are read, has a decimal point or comma."""
    return bool(column.str.contains(r"^[+-]?\d*[.,]\d").any())
