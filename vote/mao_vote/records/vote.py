"""Votes on a whole table: field by field, or with each record as one value.

Records and fields that are equal in all versions are found by comparing whole columns; ballots (ballots.py)
are made only for cells in which versions differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

from .align import Aligned, RowVote, Version, ordered_places, row_order, vote_rows
from .ballots import COMPUTED, Judge, apply_judge, decide_cells, with_candidates
from .keys import Key
from .numbers import agrees, numbers

if TYPE_CHECKING:
    from polars import DataFrame, Series

RowVoter = Callable[[Aligned, "Series | None"], RowVote]
"""Decides which records are in the result; the second argument is as of `vote_rows`."""
RECORD = "\0record"  # `load` lets no NUL through


def pack_records(table: DataFrame, fields: Sequence[str]) -> DataFrame:
    """Add a column RECORD: the JSON text of the `fields`, in which equal numbers have the same spelling.

    A field that the record lacks is null there, which differs from the text `null` and the empty text.
    """
    import polars

    if not fields or not table.height:
        return table.with_columns(polars.lit(None, polars.String).alias(RECORD))
    packed = polars.struct(_comparable(table, name) for name in fields)
    return table.with_columns(packed.struct.json_encode().alias(RECORD))


def _comparable(table: DataFrame, name: str) -> Series:
    import polars

    if name not in table.columns:
        return polars.repeat(None, table.height, dtype=polars.String, eager=True).alias(name)
    value = numbers(table[name]).cast(polars.String)
    return polars.select(polars.coalesce(value, table[name])).to_series().alias(name)


def pack_versions(versions: Sequence[Version], fields: Sequence[str]) -> list[Version]:
    return [replace(version, table=pack_records(version.table, fields)) for version in versions]


def unpack_records(
    table: DataFrame, versions: Sequence[Version], key: Key, fields: Sequence[str], blank: str
) -> DataFrame:
    """Return the fields of each RECORD as the first version spells them; `blank` if it is undecided."""
    import polars

    by = [*key.columns, RECORD]
    tables = []
    for table_of_version in (version.table for version in versions):
        if table_of_version.height:
            absent = [name for name in fields if name not in table_of_version.columns]
            filled = table_of_version.with_columns(
                polars.lit(None, polars.String).alias(name) for name in absent
            )
            tables.append(filled.select(*by, *fields))
    if not tables:
        tables.append(polars.DataFrame(schema=dict.fromkeys([*by, *fields], polars.String)))
    known = polars.concat(tables).unique(by, keep="first", maintain_order=True)
    found = table.join(known, on=by, how="left", maintain_order="left", nulls_equal=True)
    undecided = polars.col(RECORD) == blank
    return found.with_columns(
        polars.when(undecided).then(polars.lit(blank)).otherwise(polars.col(name)).alias(name)
        for name in fields
    )


@dataclass(frozen=True, slots=True)
class VotedField:
    """A field to vote on. `versions`: indices of the versions that have a vote."""

    name: str
    versions: tuple[int, ...]
    volatile: bool = False


@dataclass(slots=True)
class Incumbent:
    """The previous ground truth, read only to break a tie."""

    read: Callable[[], DataFrame | None]
    aligned: Aligned
    key: Key
    _rows: Series | None = None
    _table: DataFrame | None = None
    _is_read: bool = False

    def rows(self) -> Series | None:
        """Return the row in the previous ground truth for each place, or None if there is no ground truth."""
        import polars

        if not self._is_read:
            self._is_read, self._table = True, self.read()
            if self._table is not None:
                frame = polars.DataFrame({"place": ordered_places(self._table, self.aligned, self.key)})
                frame = frame.with_row_index("row").drop_nulls("place")
                every = self.aligned.keys.select(place=polars.int_range(polars.len(), dtype=polars.UInt32))
                self._rows = every.join(frame, on="place", how="left", maintain_order="left")["row"]
        return self._rows

    def texts(self, name: str, places: Series) -> Series:
        import polars

        rows = self.rows()
        if rows is None or self._table is None or name not in self._table.columns:
            return polars.repeat(None, places.len(), dtype=polars.String, eager=True)
        return self._table[name].gather(rows.gather(places))


@dataclass(frozen=True, slots=True)
class Differences:
    """The cells of a field in which versions differ. An empty name means the presence of the record.

    `cells`: cell (its place), chosen, why, contested.
    """

    field: str
    cells: DataFrame


@dataclass(slots=True)
class TableTally:
    """For each version, the number of `cells` in which it voted and of those `differing` from the result."""

    cells: list[int]
    differing: list[int]
    differences: list[Differences] = field(default_factory=list)
    conflicts: int = 0


def vote_table(
    aligned: Aligned,
    fields: Sequence[VotedField],
    truth: Incumbent,
    *,
    error: float,
    blank: str,
    judge: Judge | None = None,
    row_voter: RowVoter = vote_rows,
) -> tuple[DataFrame, TableTally]:
    """Return the result's records (key columns first, then the fields), and the counts of the vote.

    Args:
        error: the relative tolerance for numbers.
        blank: the text of an undecided cell.
        judge: decides the cells in which versions differ, instead of the default rules.
        row_voter: decides which records are in the result.
    """
    count = len(aligned.versions)
    votes = TableTally([0] * count, [0] * count)
    is_same_keys = all(version_rows is None for version_rows in aligned.rows)
    previous_rows = None if is_same_keys else truth.rows()
    rows = row_voter(aligned, None if previous_rows is None else previous_rows.is_not_null())
    kept = None
    if rows.partial.any():
        kept = rows.kept.arg_true()
        _count_rows(aligned, rows, votes)

    result = {}
    for voted in fields:
        column, ballots = _find_ballots(aligned, voted, rows)
        if not ballots.is_empty():
            column = _decide_field(
                voted, column, ballots, truth, votes, error=error, blank=blank, judge=judge
            )
        result[voted.name] = column
        if not voted.volatile:
            for version in voted.versions:
                votes.cells[version] += (
                    aligned.keys.height if kept is None else int(aligned.has(version, kept).sum())
                )

    table = aligned.keys.with_columns(result.values())
    places = row_order(aligned, rows.kept)
    is_in_order = places.len() == table.height and places.is_sorted()
    return table if is_in_order else table[places], votes


def _count_rows(aligned: Aligned, rows: RowVote, votes: TableTally) -> None:
    """Count each record that only some versions have as one cell."""
    import polars

    places = rows.partial.arg_true()
    kept, undecided = rows.kept.gather(places), rows.undecided.gather(places)
    for version in range(len(aligned.versions)):
        votes.cells[version] += places.len()
        votes.differing[version] += int(((aligned.has(version, places) != kept) & ~undecided).sum())
    votes.conflicts += int(undecided.sum())
    cells = polars.DataFrame({"cell": places, "kept": kept, "contested": rows.contested.gather(places)})
    cells = cells.select(
        "cell",
        polars.when("kept").then(polars.lit("row")).alias("chosen"),
        polars.lit("row").alias("why"),
        "contested",
    )
    votes.differences.append(Differences("", cells))


def _find_ballots(aligned: Aligned, voted: VotedField, rows: RowVote) -> tuple[Series, DataFrame]:
    """Return the column of the first version, and ballots for the places where versions may differ."""
    import polars

    columns = [aligned.column(version, voted.name) for version in voted.versions]
    differ = reduce(or_, (other.ne_missing(columns[0]) for other in columns[1:]), rows.partial)
    places = (differ & rows.kept).arg_true()
    ballots = [
        polars.DataFrame({"cell": places, "text": column.gather(places)})
        .filter(aligned.has(version, places))
        .with_columns(
            version=polars.lit(version, polars.UInt32),
            votes=polars.lit(aligned.versions[version].votes, polars.Int64),
            weight=polars.lit(aligned.versions[version].weight, polars.Int64),
        )
        for version, column in zip(voted.versions, columns, strict=True)
    ]
    return columns[0].alias(voted.name), polars.concat(ballots)


def _decide_field(
    voted: VotedField,
    column: Series,
    ballots: DataFrame,
    truth: Incumbent,
    votes: TableTally,
    *,
    error: float,
    blank: str,
    judge: Judge | None,
) -> Series:
    import polars

    ballots = with_candidates(ballots)
    if voted.volatile:  # the lower median is one of the reported values and independent of their order
        count = polars.col("votes")
        ordered = ballots.sort("cell", "number", "text", nulls_last=True)
        medians = ordered.group_by("cell", maintain_order=True).agg(
            polars.col("text").filter(2 * count.cum_sum() >= count.sum()).first()
        )
        return column.scatter(medians["cell"], medians["text"])
    default_vote = decide_cells(ballots, error, lambda places: truth.texts(voted.name, places))
    decided = (default_vote if judge is None else apply_judge(default_vote, ballots, judge)).sort("cell")
    _count_differing(ballots, decided, default_vote, votes, error)
    votes.conflicts += int((decided["why"] == "undecided").sum())
    differing = decided.filter("several").select(
        "cell", "chosen", "why", contested=2 * polars.col("behind") <= polars.col("total")
    )
    if not differing.is_empty():
        votes.differences.append(Differences(voted.name, differing))
    value = polars.when(polars.col("why") == "undecided").then(polars.lit(blank)).otherwise("chosen")
    return column.scatter(decided["cell"], decided.select(value.alias("value"))["value"])


def _count_differing(
    ballots: DataFrame, decided: DataFrame, default_vote: DataFrame, votes: TableTally, error: float
) -> None:
    """Count for each version the cells in which it differs from the decision.

    A computed number may agree with no ballot; versions are then compared with the default vote.
    """
    import polars

    computed = decided.filter(polars.col("why") == COMPUTED).select("cell")
    if not computed.is_empty():
        others = decided.join(computed, on="cell", how="anti")
        decided = polars.concat([others, default_vote.join(computed, on="cell")])
    decided_cells = decided.filter(polars.col("several") & (polars.col("why") != "undecided"))
    decided_cells = decided_cells.select("cell", chosen_number="number", chosen_word="word")
    number, chosen = polars.col("number"), polars.col("chosen_number")
    same = number.eq_missing(chosen) & polars.col("word").eq_missing(polars.col("chosen_word"))
    differing = ballots.join(decided_cells, on="cell").filter(
        ~(same | agrees(number, chosen, error).fill_null(value=False))
    )
    for version, count in differing.group_by("version").len().iter_rows():
        votes.differing[version] += count
