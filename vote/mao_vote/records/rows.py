"""Which records are in the result, and in what order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .align import Aligned

if TYPE_CHECKING:
    from polars import DataFrame, Series


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


def order(aligned: Aligned, kept: Series) -> Series:
    """The kept places as most versions order them; what those lack follows what it follows elsewhere."""
    import polars

    if all(rows is None for rows in aligned.rows):
        return kept.arg_true()
    best, *others = _ranked(aligned, kept)
    frame = (
        polars.DataFrame({"anchor": _rows(aligned, best).cast(polars.Int64)})
        .with_row_index("place")
        .with_columns(
            rank=polars.when(polars.col("anchor").is_not_null()).then(0), row=polars.lit(0, polars.UInt32)
        )
    )
    for rank, version in enumerate(others, 1):
        frame = _with_those_of(frame, _rows(aligned, version), rank)
    return frame.filter(kept).sort("anchor", "rank", "row")["place"]


def _with_those_of(frame: DataFrame, rows: Series, rank: int) -> DataFrame:
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


def _rows(aligned: Aligned, version: int) -> Series:
    import polars

    rows = aligned.rows[version]
    return polars.int_range(aligned.keys.height, dtype=polars.UInt32, eager=True) if rows is None else rows


def _ranked(aligned: Aligned, kept: Series) -> list[int]:
    """The versions, first whose order most nodes share, of those whose has most of the kept records."""
    every = range(len(aligned.versions))
    rows = [_rows(aligned, version) for version in every]

    def merit(version: int) -> tuple[int, int]:
        alike = (other for other in every if rows[other].equals(rows[version], null_equal=True))
        return sum(aligned.versions[other].votes for other in alike), rows[version].filter(kept).count()

    return sorted(every, key=merit, reverse=True)
