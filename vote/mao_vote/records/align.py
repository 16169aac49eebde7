"""Versions of a table aligned by key; which records are in the result, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .keys import POSITION, Key

if TYPE_CHECKING:
    from polars import DataFrame, Series

_PLACE, _ROW = "\0place", "\0row"  # `load` lets no NUL through


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a file, and who has it. `weight` is a sum of whole numbers, so it is exact."""

    table: DataFrame
    nodes: tuple[str, ...]
    weight: int

    @property
    def votes(self) -> int:
        return len(self.nodes)


@dataclass(frozen=True, slots=True)
class Aligned:
    """The versions over the places of all their records.

    `keys` has a row a place. `rows`: of each version, at each place the number of its record, null where it
    has none; None in place of all of them when the version's records lie just as the places do.
    """

    versions: Sequence[Version]
    keys: DataFrame
    rows: Sequence[Series | None]

    def has(self, version: int, places: Series) -> Series:
        """Whether the version has records at the places."""
        import polars

        rows = self.rows[version]
        if rows is None:
            return polars.repeat(value=True, n=places.len(), eager=True)
        return rows.gather(places).is_not_null()

    def value(self, version: int, name: str, place: int) -> tuple[bool, str | None]:
        """Whether the version has the record, and what it says."""
        table, rows = self.versions[version].table, self.rows[version]
        row = place if rows is None else rows[place]
        if row is None or name not in table.columns:
            return row is not None, None
        return True, table[name][row]

    def column(self, version: int, name: str, places: Series | None = None) -> Series:
        """The values at all places or at those given; null where there is no such record or field."""
        import polars

        table, rows = self.versions[version].table, self.rows[version]
        if name not in table.columns:
            height = self.keys.height if places is None else places.len()
            return polars.repeat(None, height, dtype=polars.String, eager=True)
        if places is None:
            return table[name] if rows is None else table[name].gather(rows)
        return table[name].gather(places if rows is None else rows.gather(places))


def align(versions: Sequence[Version], key: Key) -> Aligned:
    """Places are those of the first version, then what only others have, in the order of the versions."""
    if not key.columns:
        return _by_position(versions)
    frames = [_keys(version.table, key) for version in versions]
    if all(frame.equals(frames[0]) for frame in frames[1:]):
        return Aligned(versions, frames[0], [None] * len(versions))
    return _by_key(versions, frames, key)


def ordered_places(table: DataFrame, aligned: Aligned, key: Key) -> Series:
    """The places of another table's records; null for those that no version has."""
    import polars

    if not key.columns:
        place = polars.int_range(polars.len(), dtype=polars.UInt32)
        return table.select(polars.when(place < aligned.keys.height).then(place).alias(_PLACE)).to_series()
    return _found(_keys(table, key), aligned.keys.with_row_index(_PLACE), key)


def _keys(table: DataFrame, key: Key) -> DataFrame:
    import polars

    if table.height == 0:
        return polars.DataFrame(schema=dict.fromkeys(key.columns, polars.String))
    return table.select(key.columns)


def _by_position(versions: Sequence[Version]) -> Aligned:
    import polars

    height = max(version.table.height for version in versions)
    place = polars.int_range(height, dtype=polars.UInt32, eager=True)
    rows = [
        None if version.table.height == height else place.set(place >= version.table.height, None)
        for version in versions
    ]
    return Aligned(versions, polars.DataFrame({POSITION: (place + 1).cast(polars.String)}), rows)


def _by_key(versions: Sequence[Version], frames: Sequence[DataFrame], key: Key) -> Aligned:
    import polars

    known = frames[0].with_row_index(_PLACE)
    places = [known[_PLACE]]
    for frame in frames[1:]:
        place = _found(frame, known, key)
        new = frame.filter(place.is_null()).with_row_index(_PLACE, offset=known.height)
        known = polars.concat([known, new])
        places.append(place.scatter(place.is_null().arg_true(), new[_PLACE]))
    return Aligned(versions, known.drop(_PLACE), [_inverse(place, known.height) for place in places])


def _found(frame: DataFrame, known: DataFrame, key: Key) -> Series:
    return frame.join(known, on=list(key.columns), how="left", maintain_order="left")[_PLACE]


def _inverse(places: Series, height: int) -> Series:
    """From row → place to place → row."""
    import polars

    rows = polars.DataFrame({_PLACE: places}).with_row_index(_ROW)
    everywhere = polars.DataFrame({_PLACE: polars.int_range(height, dtype=polars.UInt32, eager=True)})
    return everywhere.join(rows, on=_PLACE, how="left", maintain_order="left")[_ROW]


@dataclass(frozen=True, slots=True)
class RowVote:
    """Over all places: is the record in the result, do only some have it, is it out because of a tie."""

    kept: Series
    partial: Series
    undecided: Series
    contested: Series


def vote_rows(aligned: Aligned, incumbent: Series | None) -> RowVote:
    """A record that most have is in. Tied: as the ground truth has it (`incumbent`), else the heavier side.

    `incumbent`: over all places, whether the ground truth has the record; None without a ground truth.
    """
    import polars

    votes = weight = polars.repeat(0, aligned.keys.height, dtype=polars.Int64, eager=True)
    for version, rows in zip(aligned.versions, aligned.rows, strict=True):
        has = polars.lit(1) if rows is None else rows.is_not_null().cast(polars.Int64)
        votes = polars.select(votes + version.votes * has).to_series()
        weight = polars.select(weight + version.weight * has).to_series()
    total = sum(version.votes for version in aligned.versions)
    heavy = sum(version.weight for version in aligned.versions)
    tied = 2 * votes == total
    wins = 2 * weight > heavy if incumbent is None else incumbent
    undecided = tied & (2 * weight == heavy) if incumbent is None else tied & ~tied
    return RowVote((2 * votes > total) | (tied & wins), votes < total, undecided, tied)


def row_order(aligned: Aligned, kept: Series) -> Series:
    """The kept places as most versions order them; what those lack follows what it follows elsewhere."""
    import polars

    if all(rows is None for rows in aligned.rows):
        return kept.arg_true()
    best, *others = _ranked(aligned, kept)
    frame = (
        polars.DataFrame({"anchor": _row_positions(aligned, best).cast(polars.Int64)})
        .with_row_index("place")
        .with_columns(
            rank=polars.when(polars.col("anchor").is_not_null()).then(0), row=polars.lit(0, polars.UInt32)
        )
    )
    for rank, version in enumerate(others, 1):
        frame = _anchored(frame, _row_positions(aligned, version), rank)
    return frame.filter(kept).sort("anchor", "rank", "row")["place"]


def _anchored(frame: DataFrame, rows: Series, rank: int) -> DataFrame:
    """Gives places that have none yet an anchor: the last record before it that the best version has."""
    import polars

    there = frame.with_columns(at=rows).filter(polars.col("at").is_not_null()).sort("at")
    known = polars.when(polars.col("rank") == 0).then("anchor")
    there = there.with_columns(follows=known.forward_fill().fill_null(-1)).filter(
        polars.col("rank").is_null()
    )
    found = there.select("place", "follows", "at")
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


def _ranked(aligned: Aligned, kept: Series) -> list[int]:
    """The versions, first whose order most nodes share, of those whose has most of the kept records."""
    every = range(len(aligned.versions))
    rows = [_row_positions(aligned, version) for version in every]

    def merit(version: int) -> tuple[int, int]:
        alike = (other for other in every if rows[other].equals(rows[version], null_equal=True))
        return sum(aligned.versions[other].votes for other in alike), rows[version].filter(kept).count()

    return sorted(every, key=merit, reverse=True)
