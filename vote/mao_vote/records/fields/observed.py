"""A sample of a field's values in each version, and questions about it that the nodes answer by vote.

The sample is held in plain lists: most fields have few values, for which an expression over columns takes far
longer to set up than to compute. For the same reason Python searches for a pattern in few texts, and polars
in many; patterns must mean the same to both (`SPACE` instead of `\\s`).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import compress, count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polars import Series

SAMPLED_VALUES = 20_000  # of all versions together
MIN_SAMPLED_VALUES = 500  # of each version
MAX_ODD = 0.1  # the fraction of a version's values, distinct or all, that need not be of the field's kind
MIN_FOR_ONE_ODD = 5  # of so many distinct values, one may be of another kind
WHITE_SPACE = (
    "\t\n\x0b\x0c\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
)
WHITE_SPACE += "\u2028\u2029\u202f\u205f\u3000"
"""Unicode's White_Space, which polars strips; `str.strip` also strips control characters."""
SPACE, NO_SPACE = f"[{WHITE_SPACE}]", f"[^{WHITE_SPACE}]"
_FEW = 300  # texts, in which Python finds a pattern sooner
_FEW_CELLS = 3000  # of all versions, which Python counts sooner
_EMPTY = ("", "null")
_END = re.compile(r"\$(?=$|\||\))")
Flags = Sequence[bool]
"""One for each of the texts of `Observed`."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The texts of one version: their `places`, and the number of `rows` with each."""

    version: int
    votes: int
    places: Sequence[int]
    rows: Sequence[int]

    def fits(self, flags: Flags) -> bool:
        """True if nearly all texts have the flag."""
        count = len(self.places)
        odd = [index for index, place in enumerate(self.places) if not flags[place]]
        if len(odd) <= MAX_ODD * count or (count >= MIN_FOR_ONE_ODD and len(odd) <= 1):
            return True
        return 2 * len(odd) < count and sum(self.rows[index] for index in odd) <= MAX_ODD * sum(self.rows)

    def has(self, flags: Flags) -> bool:
        """True if a text has the flag."""
        return any(flags[place] for place in self.places)


class Observed:
    """The distinct `texts` of a field, and which of them each version has, if it has any."""

    def __init__(self, texts: Sequence[str], samples: Sequence[Sample]) -> None:
        self.texts, self._samples = texts, samples

    @cached_property
    def stripped(self) -> Observed:
        """The same without the white space around the texts."""
        texts = [text.strip(WHITE_SPACE) for text in self.texts]
        return self if texts == self.texts else Observed(texts, self._samples)

    @cached_property
    def series(self) -> Series:
        """The texts."""
        import polars

        return polars.Series(self.texts, dtype=polars.String)

    @cached_property
    def votes(self) -> int:
        """The number of nodes that have a value."""
        return sum(sample.votes for sample in self._samples)

    def matching(self, pattern: str) -> Flags:
        """Return which texts contain a pattern."""
        if len(self.texts) > _FEW:
            return self.series.str.contains(pattern).to_list()
        search = _compiled(pattern).search
        return [search(text) is not None for text in self.texts]

    def read(self, parse: Callable[[Series], Series], sieve: str, known: Flags | None = None) -> Flags:
        """Return for which texts `parse` returns a value.

        Args:
            sieve: a pattern that all texts with a value contain; other texts are not parsed.
            known: texts that certainly have a value, and are not parsed either.
        """
        import polars

        known = known or [False] * len(self.texts)
        if all(known):
            return known
        rest = [not is_known and may for is_known, may in zip(known, self.matching(sieve), strict=True)]
        chosen = list(compress(self.texts, rest))
        parsed = iter(parse(polars.Series(chosen, dtype=polars.String)).is_not_null() if chosen else ())
        return [
            next(parsed) if is_parsed else is_known for is_parsed, is_known in zip(rest, known, strict=True)
        ]

    def are_mostly_read(self, parse: Callable[[Series], Series], sieve: str) -> bool:
        """True if `parse` returns a value for nearly all texts of more than half of the nodes."""
        return self.is_mostly(self.matching(sieve)) and self.is_mostly(self.read(parse, sieve))

    def only(self, flags: Flags) -> Observed:
        """Return the texts that have the flag."""
        if all(flags):
            return self
        numbers = dict(zip(compress(count(), flags), count()))  # places → new places
        samples = []
        for sample in self._samples:
            kept = [flags[place] for place in sample.places]
            if any(kept):
                places = [numbers[place] for place in compress(sample.places, kept)]
                rows = list(compress(sample.rows, kept))
                samples.append(Sample(sample.version, sample.votes, places, rows))
        return Observed(list(compress(self.texts, flags)), samples)

    def mapped(self, texts: Sequence[str | None]) -> Observed:
        """Return the same with other texts; None drops a text."""
        kept = self.only([text is not None for text in texts])
        return Observed([text for text in texts if text is not None], kept._samples)

    def is_mostly(self, flags: Flags) -> bool:
        """True if nearly all texts of more than half of the nodes have the flag."""
        return 2 * self.votes_for(flags) > self.votes

    def votes_for(self, flags: Flags) -> int:
        """Return how many nodes have the flag for nearly all of their texts."""
        if all(flags) or not any(flags):
            return self.votes if any(flags) else 0
        return sum(sample.votes for sample in self._samples if sample.fits(flags))

    def votes_with(self, flags: Flags) -> int:
        """Return how many nodes have a text with the flag."""
        return self.votes_of(self.versions_with(flags))

    def most_have(self, flags: Flags) -> bool:
        """True if at least half of the nodes have a text with the flag."""
        return 2 * self.votes_with(flags) >= self.votes > 0

    def versions_with(self, flags: Flags) -> frozenset[int]:
        having = self._samples if any(flags) else ()
        return frozenset(sample.version for sample in having if sample.has(flags))

    def votes_of(self, versions: frozenset[int]) -> int:
        return sum(sample.votes for sample in self._samples if sample.version in versions)

    def are_repeated(self, most: int, times: int) -> bool:
        """True if most nodes have at most `most` different texts, each `times` times on average."""
        votes = sum(
            sample.votes
            for sample in self._samples
            if len(sample.places) <= most and sum(sample.rows) >= times * len(sample.places)
        )
        return 2 * votes > self.votes

    def votes_by(self, names: Sequence[str | None]) -> Counter[str]:
        """Return the votes of the nodes for each name; `names`: what each text counts for, None: nothing."""
        found: Counter[str] = Counter()
        for sample in self._samples:
            for name in map(names.__getitem__, sample.places):
                if name is not None:
                    found[name] += sample.votes
        return found


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """Compile a pattern of polars, in which `$` is the end of the text and not of its last line."""
    return re.compile(_END.sub(r"\\Z", pattern))


def observe(columns: Sequence[Series], votes: Sequence[int]) -> Observed:
    """Return evenly spaced values of each version, without those that are empty in any field.

    The result depends on no order but that of the records in each version.
    """
    size = max(MIN_SAMPLED_VALUES, SAMPLED_VALUES // max(len(columns), 1))
    is_small = sum(column.len() for column in columns) <= _FEW_CELLS
    counts: list[dict[str, int]] = []
    for column in columns:
        if is_small and column.len() <= size:
            filled = (text for text in column.to_list() if text is not None and text not in _EMPTY)
            counts.append(Counter(filled))
        else:
            counts.append(_count_texts(column, size))
    texts = sorted({text for found in counts for text in found})
    place_of = {text: place for place, text in enumerate(texts)}
    samples = [
        Sample(version, count, [place_of[text] for text in found], list(found.values()))
        for version, (found, count) in enumerate(zip(counts, votes, strict=True))
        if found
    ]
    return Observed(texts, samples)


def _count_texts(column: Series, size: int) -> dict[str, int]:
    """Return the texts of a sample, and how many of its rows have each."""
    sample = _filled(column.gather_every(-(-column.len() // size) or 1))
    if 2 * sample.len() < size < column.len():
        filled = _filled(column)
        sample = filled.gather_every(-(-filled.len() // size) or 1)
    counts: Iterable[tuple[str, int]] = sample.to_frame("text").group_by("text").len().iter_rows()
    return dict(counts)


def _filled(column: Series) -> Series:
    texts = column.drop_nulls()
    return texts.filter(~texts.is_in(_EMPTY))


def is_quoted(texts: Series) -> Series:
    """True for JSON strings."""
    return texts.str.starts_with('"').fill_null(value=False)


def contents(texts: Series) -> Series:
    """Return the contents of JSON strings; other JSON texts as they are.

    A string with half a letter (an unpaired surrogate), which no table can hold, stays as it is written.
    """
    import polars

    text, strings = polars.col("text"), is_quoted(texts)
    if not strings.any():
        return texts
    inner = texts.to_frame("text").select(
        polars.when(strings).then(text.str.head(-1).str.slice(1)).otherwise(text).alias("text")
    )["text"]
    escaped = (strings & texts.str.contains("\\", literal=True).fill_null(value=False)).arg_true()
    if not escaped.len():
        return inner
    decoded = [content_of(written) for written in texts.gather(escaped).to_list()]
    return inner.scatter(escaped, polars.Series(decoded, dtype=polars.String))


def content_of(text: str) -> str:
    """Return what `contents` returns for one text."""
    if not text.startswith('"'):
        return text
    if "\\" not in text:
        return text[1:-1]
    try:
        content: str = json.loads(text)
    except ValueError:  # not from a JSON file
        content = "\ud800"
    is_whole = not any("\ud800" <= letter <= "\udfff" for letter in content)
    return content if is_whole else "\0" + text
