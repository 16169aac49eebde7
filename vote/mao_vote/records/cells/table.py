"""Votes on a whole table: field by field, or with each record as one value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mao_vote.records.fields.numbers import numbers
from mao_vote.records.keys.align import Aligned, Version, row_order
from mao_vote.records.keys.key import Key
from mao_vote.records.keys.rows import RowVote, count_rows, vote_rows
from mao_vote.records.nested.documents import PATH
from mao_vote.records.nested.paths import leaf_pattern

from .field_vote import FieldDifferences, FieldVote, Incumbent, Rules, TableTally, VotedField

if TYPE_CHECKING:
    from polars import DataFrame, Series

_MATCH = "\0match:"
RowVoter = Callable[[Aligned, "Series | None"], RowVote]
"""Decides which records are in the result; the second argument is as of `vote_rows`."""
MIN_PATTERN_LEAVES = 20  # of a document, for its values to be voted by themselves
MAX_LEAF_GROUPS = 200  # voted by themselves
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

    by = [*(_MATCH + name for name in key.columns), RECORD]
    tables = []
    for table_of_version in (version.table for version in versions):
        if table_of_version.height:
            absent = [name for name in fields if name not in table_of_version.columns]
            filled = table_of_version.with_columns(
                polars.lit(None, polars.String).alias(name) for name in absent
            )
            texts = key.texts(table_of_version)
            tables.append(
                filled.select(RECORD, *fields).with_columns(
                    texts[name].alias(_MATCH + name) for name in key.columns
                )
            )
    if not tables:
        tables.append(polars.DataFrame(schema=dict.fromkeys([*by, *fields], polars.String)))
    known = polars.concat(tables).unique(by, keep="first", maintain_order=True)
    texts = key.texts(table)
    table = table.with_columns(texts[name].alias(_MATCH + name) for name in key.columns)
    found = table.join(known, on=by, how="left", maintain_order="left", nulls_equal=True)
    undecided = polars.col(RECORD) == blank
    return found.with_columns(
        polars.when(undecided).then(polars.lit(blank)).otherwise(polars.col(name)).alias(name)
        for name in fields
    )


def vote_table(
    aligned: Aligned,
    fields: Sequence[VotedField],
    truth: Incumbent,
    rules: Rules,
    row_voter: RowVoter | None = None,
) -> tuple[DataFrame, TableTally]:
    """Return the result's records (key columns first, then the fields), and the counts of the vote.

    Args:
        row_voter: decides which records are in the result, instead of `rules`.
    """
    count = len(aligned.versions)
    votes = TableTally([0] * count, [0] * count, [0] * count)
    is_same_keys = all(version_rows is None for version_rows in aligned.rows)
    previous_rows = None if is_same_keys else truth.rows()
    before = None if previous_rows is None else previous_rows.is_not_null()
    if row_voter is None:
        rows = vote_rows(aligned, before, rules.file.rows, rules.ties)
    else:
        rows = row_voter(aligned, before)
    votes.notes, votes.warnings = rows.notes, [*rows.warnings, *_warnings_on_ties(rows)]
    if rows.partial.any():
        votes.differences.append(
            FieldDifferences("", count_rows(aligned, rows, votes.cells, votes.differing, votes.shared))
        )
        votes.conflicts += int(rows.undecided.sum())

    result = {}
    for voted in fields:
        vote = FieldVote(aligned, voted, rows, rules)
        if rules.is_document and not voted.volatile:
            result[voted.name] = _decide_leaves(vote, truth, votes)
        else:
            result[voted.name] = vote.decide(vote.columns[0], truth, votes)
    table = aligned.keys.with_columns(result.values())
    votes.places = places = row_order(aligned, rows.kept)
    is_in_order = places.len() == table.height and places.is_sorted()
    return table if is_in_order else table[places], votes


def _warnings_on_ties(rows: RowVote) -> list[str]:
    tied = int(rows.tied.sum())
    records = "1 record is" if tied == 1 else f"{tied} records are"
    return [f"tied: {records} kept that as many nodes lack as have"] if tied else []


def leaf_names(paths: Sequence[str], declared: Container[str]) -> list[str]:
    """Return for each path of a document the name of the field to which its value belongs.

    That is its pattern if there are enough values of it or the definition names it, otherwise the last step:
    an object whose members are named by what they describe is like a list of records.
    """
    patterns = [leaf_pattern(path) for path in paths]
    counts = Counter(patterns)
    return [
        pattern
        if counts[pattern] >= MIN_PATTERN_LEAVES or pattern in declared
        else pattern.rpartition("/")[2]
        for pattern in patterns
    ]


def _decide_leaves(vote: FieldVote, truth: Incumbent, votes: TableTally) -> Series:
    """Return the values of a document, which is voted by what its values have in common (`leaf_names`)."""
    import polars

    column, differ = vote.columns[0], vote.differ()
    if not differ.any():
        return vote.decide(column, truth, votes)
    paths = vote.aligned.keys[PATH].to_list()
    names = polars.Series(leaf_names(paths, vote.rules.file.fields), dtype=polars.String)
    disputed = names.filter(differ).unique().sort().to_list()
    own = disputed[:MAX_LEAF_GROUPS]
    for name in own:
        column = vote.within(name, names == name).decide(column, truth, votes)
    rest = vote.within("", ~names.is_in(own))
    return rest.decide(column, truth, votes)
