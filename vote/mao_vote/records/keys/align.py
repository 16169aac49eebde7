"""Aligns the versions of a table, and decides which records are in the result and in which order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

from .key import POSITION, Key
from .lines import align_lines, line_frame, match_lines

if TYPE_CHECKING:
    from polars import DataFrame, Series

_PLACE, _ROW = "\0place", "\0row"  # `load` refuses NUL


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a file and the nodes that have it. `weight` is a sum of integers, and so exact."""

    table: DataFrame
    nodes: tuple[str, ...]
    weight: int

    @property
    def votes(self) -> int:
        return len(self.nodes)


@dataclass(frozen=True, slots=True)
class Aligned:
    """Versions of a table, aligned: records with the same key have the same place.

    `keys` has one row per place. `rows`: for each version, place → row in its table, null if it has no such
    record; None instead of a series if its rows are in the order of the places. `compared`: the columns by
    which lines without a key were matched.
    """

    versions: Sequence[Version]
    keys: DataFrame
    rows: Sequence[Series | None]
    compared: Sequence[str] = ()

    def has(self, version: int, places: Series) -> Series:
        """Return for each place whether the version has a record there."""
        import polars

        rows = self.rows[version]
        if rows is None:
            return polars.repeat(value=True, n=places.len(), eager=True)
        return rows.gather(places).is_not_null()

    def rows_at(self, version: int, places: Series) -> Series:
        """Return the version's rows at the given places, null where it has no such record."""
        rows = self.rows[version]
        return places if rows is None else rows.gather(places)

    def value(self, version: int, name: str, place: int) -> tuple[bool, str | None]:
        """Return whether the version has the record at a place, and its value of a field."""
        table, rows = self.versions[version].table, self.rows[version]
        row = place if rows is None else rows[place]
        if row is None or name not in table.columns:
            return row is not None, None
        return True, table[name][row]

    def column(self, version: int, name: str, places: Series | None = None) -> Series:
        """Return the values at all or the given places; null where there is no such record or field."""
        import polars

        table, rows = self.versions[version].table, self.rows[version]
        if name not in table.columns:
            height = self.keys.height if places is None else places.len()
            return polars.repeat(None, height, dtype=polars.String, eager=True)
        if places is None:
            return table[name] if rows is None else table[name].gather(rows)
        return table[name].gather(places if rows is None else rows.gather(places))


def align(
    versions: Sequence[Version],
    key: Key,
    previous: Callable[[], DataFrame | None] = lambda: None,
    compared: Sequence[str] | None = None,
) -> Aligned:
    """Align versions by key. Places follow the first version, then the order of the others.

    A key has the spelling of most nodes; if tied, that of the previous ground truth, or the first as text.
    Without a key, equal lines have the same place, and lines between these by position; places then follow
    the order of all versions, and `number_records` gives them their keys.

    Args:
        previous: returns the previous ground truth; called only for a tie.
        compared: the columns that make lines equal, by default all.
    """
    import polars

    if not key.columns:
        return _align_lines(versions, compared)
    frames = [key.texts(version.table) for version in versions]
    if all(frame.equals(frames[0]) for frame in frames[1:]):
        aligned = Aligned(versions, frames[0], [None] * len(versions))
        return aligned if key.is_exact else _with_spelling(aligned, key, previous)
    known = frames[0].with_row_index(_PLACE)
    places = [known[_PLACE]]
    for frame in frames[1:]:
        place = _find_places(frame, known, key)
        new = frame.filter(place.is_null()).with_row_index(_PLACE, offset=known.height)
        known = polars.concat([known, new])
        places.append(place.scatter(place.is_null().arg_true(), new[_PLACE]))

    everywhere = polars.DataFrame({_PLACE: polars.int_range(known.height, dtype=polars.UInt32, eager=True)})
    by_place = [polars.DataFrame({_PLACE: place}).with_row_index(_ROW) for place in places]
    rows = [everywhere.join(frame, on=_PLACE, how="left", maintain_order="left")[_ROW] for frame in by_place]
    aligned = Aligned(versions, known.drop(_PLACE), rows)
    return aligned if key.is_exact else _with_spelling(aligned, key, previous)


def _align_lines(versions: Sequence[Version], compared: Sequence[str] | None) -> Aligned:
    import polars

    tables = [version.table for version in versions]
    if compared is None:
        compared = list(dict.fromkeys(name for table in tables for name in table.columns))
    places, count = align_lines(tables, compared, [version.votes for version in versions])
    nowhere = polars.repeat(None, count, dtype=polars.UInt32, eager=True)
    rows = [
        None
        if place.len() == count
        else nowhere.clone().scatter(place, polars.int_range(place.len(), dtype=polars.UInt32, eager=True))
        for place in places
    ]
    every = polars.int_range(count, dtype=polars.UInt32, eager=True)
    return number_records(Aligned(versions, polars.DataFrame(), rows, compared), every)


def number_records(aligned: Aligned, places: Series) -> Aligned:
    """Give lines without a key their number in the result as key.

    A line that is not in the result is `3+1`, `3+2` … after the third that is.

    Args:
        places: those of the result's records, in order.
    """
    import polars

    count = next((rows.len() for rows in aligned.rows if rows is not None), aligned.versions[0].table.height)
    kept = polars.repeat(value=False, n=count, eager=True).scatter(places, values=True)
    number, nth = polars.col("number"), polars.int_range(1, polars.len() + 1)
    numbered = (
        polars.DataFrame({"kept": kept, "number": kept.cast(polars.Int64).cum_sum()})
        .with_columns(nth.over("number", "kept").alias("nth"))
        .select(
            polars.when("kept")
            .then(number.cast(polars.String))
            .otherwise(polars.format("{}+{}", "number", "nth"))
            .alias(POSITION)
        )
    )
    return replace(aligned, keys=numbered)


def _with_spelling(aligned: Aligned, key: Key, previous: Callable[[], DataFrame | None]) -> Aligned:
    """Replace folded keys by their spelling in most versions."""
    import polars

    count = range(len(aligned.versions))
    spelled = {}
    for name in key.columns:
        texts = [aligned.column(version, name) for version in count]
        common = _any_text(aligned, name)
        differ = reduce(or_, ((text != common).fill_null(value=False) for text in texts))
        places = differ.arg_true()
        if places.len():
            ballots = [
                polars.DataFrame({_PLACE: places, "text": text.gather(places)}).with_columns(
                    votes=polars.lit(aligned.versions[version].votes, polars.Int64)
                )
                for version, text in zip(count, texts, strict=True)
            ]
            elected = _elect_spelling(polars.concat(ballots), name, aligned, key, previous)
            common = common.scatter(elected[_PLACE], elected["text"])
        spelled[name] = common.alias(name)
    return replace(aligned, keys=polars.DataFrame(spelled))


def _any_text(aligned: Aligned, name: str) -> Series:
    """Return the text of each place in the first version that has it."""
    texts = (aligned.column(version, name) for version in range(len(aligned.versions)))
    return reduce(lambda known, other: known.zip_with(known.is_not_null(), other), texts).alias(name)


def _elect_spelling(
    ballots: DataFrame, name: str, aligned: Aligned, key: Key, previous: Callable[[], DataFrame | None]
) -> DataFrame:
    """Return the text of each place that most votes have; if tied, the previous one, or the first as text."""
    import polars

    votes = polars.col("votes")
    counted = ballots.drop_nulls().group_by(_PLACE, "text").agg(votes.sum())
    leaders = counted.filter(votes == votes.max().over(_PLACE)).with_columns(was=polars.lit(value=False))
    table = previous() if leaders[_PLACE].is_duplicated().any() else None
    if table is not None and table.height:
        before = polars.DataFrame({_PLACE: ordered_places(table, aligned, key), "text": table[name]})
        is_before = leaders.join(before.with_columns(known=True), on=[_PLACE, "text"], how="left")
        leaders = is_before.select(_PLACE, "text", was=polars.col("known").fill_null(value=False))
    return leaders.sort(_PLACE, ~polars.col("was"), "text").unique(_PLACE, keep="first", maintain_order=True)


def ordered_places(table: DataFrame, aligned: Aligned, key: Key) -> Series:
    """Return the places of another table's records, null for records that no version has."""
    import polars

    if not key.columns:
        lines = polars.DataFrame([_any_text(aligned, name) for name in aligned.compared])
        known, other = (line_frame(frame, aligned.compared) for frame in (lines, table))
        return match_lines(known, other).cast(polars.UInt32).rename(_PLACE)
    known = key.texts(aligned.keys).with_row_index(_PLACE)
    return _find_places(key.texts(table), known, key)


def _find_places(frame: DataFrame, known: DataFrame, key: Key) -> Series:
    return frame.join(known, on=list(key.columns), how="left", maintain_order="left")[_PLACE]


def row_order(aligned: Aligned, kept: Series) -> Series:
    """Return the kept places in the order that most nodes have.

    A record that the preferred version lacks comes after the record that it follows in another version.
    """
    import polars

    if all(rows is None or rows.drop_nulls().is_sorted() for rows in aligned.rows):
        return kept.arg_true()
    all_versions = range(len(aligned.versions))
    rows = [_row_positions(aligned, version) for version in all_versions]

    def preference(version: int) -> tuple[int, int]:
        alike = (other for other in all_versions if rows[other].equals(rows[version], null_equal=True))
        return sum(aligned.versions[other].votes for other in alike), rows[version].filter(kept).count()

    best, *others = sorted(all_versions, key=preference, reverse=True)
    frame = (
        polars.DataFrame({"anchor": rows[best].cast(polars.Int64)})
        .with_row_index("place")
        .with_columns(
            rank=polars.when(polars.col("anchor").is_not_null()).then(0), row=polars.lit(0, polars.UInt32)
        )
    )
    for rank, version in enumerate(others, 1):
        frame = _set_anchors(frame, rows[version], rank)
    return frame.filter(kept).sort("anchor", "rank", "row")["place"]


def _set_anchors(frame: DataFrame, rows: Series, rank: int) -> DataFrame:
    """Give places without an anchor the last record before them that the preferred version has."""
    import polars

    present = frame.with_columns(at=rows).filter(polars.col("at").is_not_null()).sort("at")
    known = polars.when(polars.col("rank") == 0).then("anchor")
    present = present.with_columns(follows=known.forward_fill().fill_null(-1)).filter(
        polars.col("rank").is_null()
    )
    found = present.select("place", "follows", "at")
    return frame.join(found, on="place", how="left", maintain_order="left").select(
        "place",
        polars.coalesce("anchor", "follows").alias("anchor"),
        polars.coalesce("rank", polars.when(polars.col("at").is_not_null()).then(rank)).alias("rank"),
        polars.when(polars.col("rank").is_null() & polars.col("at").is_not_null())
        .then("at")
        .otherwise("row")
        .alias("row"),
    )


def _row_positions(aligned: Aligned, version: int) -> Series:
    import polars

    rows = aligned.rows[version]
    return polars.int_range(aligned.keys.height, dtype=polars.UInt32, eager=True) if rows is None else rows
