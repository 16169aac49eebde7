"""The vote on a whole table: field by field, or with each record as one value.

Records and fields that are equal in all versions are found by comparing columns, never one by one; only where
versions differ are there ballots (ballots.py).
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

RECORD = "\0record"  # `load` lets no NUL through


def pack_records(table: DataFrame, fields: Sequence[str]) -> DataFrame:
    """With a column RECORD: the JSON text of the `fields`, with equal numbers spelt alike.

    A field that the record does not have is null there, unlike the texts `null` and empty.
    """
    import polars

    if not fields or not table.height:
        return table.with_columns(polars.lit(None, polars.String).alias(RECORD))
    one = polars.struct(_comparable(table, name) for name in fields)
    return table.with_columns(one.struct.json_encode().alias(RECORD))


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
    """The fields of each RECORD, as the first of the versions has them; `blank` where none was decided."""
    import polars

    by = [*key.columns, RECORD]
    known = polars.concat(_with_spelling(version.table, by, fields) for version in versions)
    known = known.unique(by, keep="first", maintain_order=True)
    found = table.join(known, on=by, how="left", maintain_order="left", nulls_equal=True)
    undecided = polars.col(RECORD) == blank
    return found.with_columns(
        polars.when(undecided).then(polars.lit(blank)).otherwise(polars.col(name)).alias(name)
        for name in fields
    )


def _with_spelling(table: DataFrame, by: Sequence[str], fields: Sequence[str]) -> DataFrame:
    import polars

    if not table.height:
        return polars.DataFrame(schema=dict.fromkeys([*by, *fields], polars.String))
    absent = (name for name in fields if name not in table.columns)
    filled = table.with_columns(polars.lit(None, polars.String).alias(name) for name in absent)
    return filled.select(*by, *fields)


@dataclass(frozen=True, slots=True)
class VotedField:
    """A field to be decided: `versions` are the numbers of those that have a say in it."""

    name: str
    versions: tuple[int, ...]
    volatile: bool = False


@dataclass(slots=True)
class Incumbent:
    """The ground truth so far, which is read only when a tie asks for it."""

    read: Callable[[], DataFrame | None]
    aligned: Aligned
    key: Key
    _rows: Series | None = None
    _table: DataFrame | None = None
    _done: bool = False

    def rows(self) -> Series | None:
        """Over all places, the number of the record there; None without a ground truth."""
        import polars

        if not self._done:
            self._done, self._table = True, self.read()
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
    """Where versions differ in a field (no name: in the record as a whole, or in whether there is one).

    `cells`: cell (its place), chosen, why, contested.
    """

    field: str
    cells: DataFrame


@dataclass(slots=True)
class TableTally:
    """Of each version, in how many `cells` it voted, and in how many it is `differing` from the result."""

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
) -> tuple[DataFrame, TableTally]:
    """The result's records (key columns first, then the fields), and how it came about.

    `blank` is what an undecided cell says: the format's null. `judge` decides the cells in which versions
    differ in place of a plain vote.
    """
    count = len(aligned.versions)
    votes = TableTally([0] * count, [0] * count)
    rows = vote_rows(aligned, _tied_rows(aligned, truth))
    _count_rows(aligned, rows, votes)
    result = {}
    for each in fields:
        column, ballots, places = _contested(aligned, each, rows)
        if places.len():
            column = _decide_field(each, column, ballots, truth, votes, error=error, blank=blank, judge=judge)
        result[each.name] = column
        if not each.volatile:
            kept = rows.kept.arg_true() if rows.partial.any() else None
            for version in each.versions:
                votes.cells[version] += (
                    aligned.keys.height if kept is None else int(aligned.has(version, kept).sum())
                )
    table = aligned.keys.with_columns(result.values())
    places = row_order(aligned, rows.kept)
    as_is = places.len() == table.height and places.is_sorted()
    return table if as_is else table[places], votes


def _tied_rows(aligned: Aligned, truth: Incumbent) -> Series | None:
    if all(rows is None for rows in aligned.rows):
        return None
    rows = truth.rows()
    return None if rows is None else rows.is_not_null()


def _count_rows(aligned: Aligned, rows: RowVote, votes: TableTally) -> None:
    import polars

    if not rows.partial.any():
        return
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


def _contested(aligned: Aligned, each: VotedField, rows: RowVote) -> tuple[Series, DataFrame, Series]:
    """The field's column as the first version has it, and ballots for the places where that may be wrong."""
    import polars

    columns = [aligned.column(version, each.name) for version in each.versions]
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
        for version, column in zip(each.versions, columns, strict=True)
    ]
    return columns[0].alias(each.name), polars.concat(ballots), places


def _decide_field(
    each: VotedField,
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
    if each.volatile:
        taken = _lower_median(ballots)
        return column.scatter(taken["cell"], taken["text"])
    plain = decide_cells(ballots, error, lambda places: truth.texts(each.name, places))
    decided = (plain if judge is None else apply_judge(plain, ballots, judge)).sort("cell")
    for version, count in _differing_by_version(ballots, _version_reference(decided, plain), error):
        votes.differing[version] += count
    votes.conflicts += int((decided["why"] == "undecided").sum())
    differing = decided.filter("several").select(
        "cell", "chosen", "why", contested=2 * polars.col("behind") <= polars.col("total")
    )
    if not differing.is_empty():
        votes.differences.append(Differences(each.name, differing))
    said = polars.when(polars.col("why") == "undecided").then(polars.lit(blank)).otherwise("chosen")
    return column.scatter(decided["cell"], decided.select(said.alias("said"))["said"])


def _lower_median(ballots: DataFrame) -> DataFrame:
    """The lower median of a volatile field: independent of any order, and between what the nodes report."""
    import polars

    votes = polars.col("votes")
    ordered = ballots.sort("cell", "number", "text", nulls_last=True)
    return ordered.group_by("cell", maintain_order=True).agg(
        polars.col("text").filter(2 * votes.cum_sum() >= votes.sum()).first()
    )


def _version_reference(decided: DataFrame, plain: DataFrame) -> DataFrame:
    """What versions are compared with: the decision, but not a computed number, which may be near to no vote;
    there it is what the plain vote says."""
    import polars

    computed = decided.filter(polars.col("why") == COMPUTED).select("cell")
    if computed.is_empty():
        return decided
    return polars.concat([decided.join(computed, on="cell", how="anti"), plain.join(computed, on="cell")])


def _differing_by_version(ballots: DataFrame, decided: DataFrame, error: float) -> list[tuple[int, int]]:
    import polars

    asked = decided.filter(polars.col("several") & (polars.col("why") != "undecided"))
    asked = asked.select("cell", chosen_number="number", chosen_word="word")
    number, chosen = polars.col("number"), polars.col("chosen_number")
    same = number.eq_missing(chosen) & polars.col("word").eq_missing(polars.col("chosen_word"))
    lost = ballots.join(asked, on="cell").filter(
        ~(same | agrees(number, chosen, error).fill_null(value=False))
    )
    return list(lost.group_by("version").len().iter_rows())
