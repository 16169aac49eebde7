"""A sample of a field's values in each version, and questions about it that the nodes answer by vote."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from polars import DataFrame, Expr, Series

SAMPLED_VALUES = 20_000  # of all versions together
MIN_SAMPLED_VALUES = 500  # of each version
MAX_ODD = 0.1  # the fraction of a version's values, distinct or all, that need not be of the field's kind
MIN_FOR_ONE_ODD = 5  # of so many distinct values, one may be of another kind


@dataclass(frozen=True, slots=True)
class Observed:
    """The `distinct` texts of a field.

    `frame` has a row for each version and text: version, its votes, place (in `distinct`), and the number of
    rows of the sample with it.
    """

    distinct: Series
    frame: DataFrame

    @property
    def votes(self) -> int:
        """The number of nodes that have a value."""
        return int(self.frame.group_by("version").agg(votes=_votes())["votes"].sum())

    def only(self, flags: Series) -> Observed:
        """Return the texts for which `flags` (one for each of `distinct`) are true."""
        import polars

        flags = flags.fill_null(value=False)
        place = polars.select(polars.when(flags).then(flags.cast(polars.UInt32).cum_sum() - 1)).to_series()
        frame = self.frame.with_columns(place=place.gather(self.frame["place"])).drop_nulls("place")
        return Observed(self.distinct.filter(flags), frame)

    def mapped(self, texts: Series) -> Observed:
        """Return the same with other texts; null drops a text."""
        return Observed(texts, self.frame).only(texts.is_not_null())

    def is_mostly(self, flags: Series) -> bool:
        """True if nearly all texts of more than half of the nodes have the flag."""
        by_version = self._by_version(flags)
        return bool(2 * by_version.filter("fits")["votes"].sum() > by_version["votes"].sum())

    def votes_for(self, flags: Series) -> int:
        """Return how many nodes have the flag for nearly all of their texts."""
        return int(self._by_version(flags).filter("fits")["votes"].sum())

    def votes_with(self, flags: Series) -> int:
        """Return how many nodes have a text with the flag."""
        import polars

        return int(self._by_version(flags).filter(polars.col("some") > 0)["votes"].sum())

    def most_have(self, flags: Series) -> bool:
        """True if at least half of the nodes have a text with the flag."""
        return 2 * self.votes_with(flags) >= self.votes > 0

    def versions_with(self, flags: Series) -> frozenset[int]:
        import polars

        return frozenset(self._by_version(flags).filter(polars.col("some") > 0)["version"])

    def votes_of(self, versions: frozenset[int]) -> int:
        import polars

        chosen = self.frame.filter(polars.col("version").is_in(sorted(versions)))
        return int(chosen.group_by("version").agg(votes=_votes())["votes"].sum())

    def are_repeated(self, most: int, times: int) -> bool:
        """True if most nodes have at most `most` different texts, each `times` times on average."""
        import polars

        by_version = self.frame.group_by("version").agg(
            votes=_votes(), count=polars.len(), rows=polars.col("rows").sum()
        )
        few = (polars.col("count") <= most) & (polars.col("rows") >= times * polars.col("count"))
        return bool(2 * by_version.filter(few)["votes"].sum() > by_version["votes"].sum())

    def _by_version(self, flags: Series) -> DataFrame:
        """Return for each version votes, `some` texts with the flag, and whether it `fits` nearly all."""
        import polars

        flag, rows = polars.col("flag"), polars.col("rows")
        odd, count = (~flag).sum(), polars.len()
        is_rare = (rows.filter(~flag).sum() <= MAX_ODD * rows.sum()) & (2 * odd < count)
        fits = (odd <= MAX_ODD * count) | is_rare | ((count >= MIN_FOR_ONE_ODD) & (odd <= 1))
        marked = self.frame.with_columns(flag=flags.fill_null(value=False).gather(self.frame["place"]))
        return marked.group_by("version").agg(votes=_votes(), some=flag.sum(), fits=fits)


def _votes() -> Expr:
    import polars

    return polars.col("votes").first()


def observe(columns: Sequence[Series], votes: Sequence[int]) -> Observed:
    """Return evenly spaced values of each version, without those that are empty in any field.

    The result depends on no order but that of the records in each version.
    """
    import polars

    size = max(MIN_SAMPLED_VALUES, SAMPLED_VALUES // max(len(columns), 1))
    frames = []
    for version, (column, count) in enumerate(zip(columns, votes, strict=True)):
        sample = _filled(column.gather_every(-(-column.len() // size) or 1))
        if 2 * sample.len() < size < column.len():
            filled = _filled(column)
            sample = filled.gather_every(-(-filled.len() // size) or 1)
        frames.append(
            sample.to_frame("text")
            .group_by("text")
            .agg(rows=polars.len().cast(polars.Int64))
            .with_columns(version=polars.lit(version, polars.Int32), votes=polars.lit(count, polars.Int64))
        )
    if not frames:
        types = (polars.String, polars.Int64, polars.Int32, polars.Int64)
        names = ("text", "rows", "version", "votes")
        frames = [polars.DataFrame(schema=dict(zip(names, types, strict=True)))]
    found = polars.concat(frames)
    distinct = found["text"].unique().sort()
    places = distinct.to_frame("text").with_row_index("place")
    return Observed(distinct, found.join(places, on="text", how="left").drop("text"))


def _filled(column: Series) -> Series:
    texts = column.drop_nulls()
    return texts.filter(~texts.is_in(["", "null"]))


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
    decoded = []
    for written in texts.gather(escaped).to_list():
        try:
            content = json.loads(written)
        except ValueError:  # not from a JSON file
            content = "\ud800"
        is_whole = not any("\ud800" <= letter <= "\udfff" for letter in content)
        decoded.append(content if is_whole else "\0" + written)
    return inner.scatter(escaped, polars.Series(decoded, dtype=polars.String))
