"""Which columns the result has, in what order, and the result as a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from mao_shared.models.round import FileRule

from .elect import elect
from .election import Cell
from .records import (
    Container,
    Field,
    Format,
    Key,
    Source,
    Table,
    build,
    leaves,
    manner_of,
    write_document,
    write_like,
)
from .versions import Reading

Columns = Callable[[], list[str] | None]
Manner = Callable[[], Hashable | None]


@dataclass(slots=True)
class Plan:
    """`columns`: the result's, in order. `cells`, `lost`, `conflicts`: what is said of CSV columns."""

    columns: list[str]
    fields: list[Field]
    cells: list[Cell] = field(default_factory=list)
    lost: Counter[str] = field(default_factory=Counter)
    conflicts: int = 0


def plan(
    readings: Sequence[Reading],
    key: Key,
    rule: FileRule,
    how: Format,
    was: Columns,
    weights: Mapping[str, float],
) -> Plan:
    """`was`: the columns of the ground truth so far, read only when there is a tie.

    The heading is the one of most nodes. A CSV file has one heading for all its records, so whether a
    column is there is voted once; in JSON each record has its own fields, and the vote on each says.
    """
    names = _in_order(readings, rule, was, weights)
    made = Plan([], [])
    for name in names:
        having = tuple(i for i, reading in enumerate(readings) if name in reading.version.table.columns)
        everybody = len(having) == len(readings)
        if not how.tabular:
            having = tuple(range(len(readings)))
        elif not everybody and not _has_column(made, name, readings, was, weights):
            continue
        made.columns.append(name)
        if name not in key.columns:
            made.fields.append(Field(name, having, name in rule.volatile or _is_volatile(name, readings)))
    return made


def _is_volatile(name: str, readings: Sequence[Reading]) -> bool:
    return readings[0].shape == "document" and name == "volatile"


def _in_order(
    readings: Sequence[Reading], rule: FileRule, was: Columns, weights: Mapping[str, float]
) -> list[str]:
    headings = {node: tuple(each.version.table.columns) for each in readings for node in each.version.nodes}
    best, _ = elect(headings, incumbent=None, weights=weights)
    if best is None:
        before = tuple(was() or ())
        best = before if before in headings.values() else tuple(readings[0].version.table.columns)
    others = (name for each in readings for name in each.version.table.columns)
    return [name for name in dict.fromkeys([*best, *others]) if name not in rule.ignore]


def _has_column(
    made: Plan, name: str, readings: Sequence[Reading], was: Columns, weights: Mapping[str, float]
) -> bool:
    there = {node: name in each.version.table.columns for each in readings for node in each.version.nodes}
    has, why = elect(there, incumbent=None, weights={})
    if has is None:
        before = was()
        has, why = elect(there, incumbent=None if before is None else name in before, weights=weights)
    values = {node: name if holds else None for node, holds in there.items()}
    behind = sum(holds == has for holds in there.values())
    made.cells.append(Cell((), name, values, name if has else None, why, contested=2 * behind <= len(there)))
    made.conflicts += has is None
    made.lost.update(node for node, holds in there.items() if has is not None and holds != has)
    return bool(has)


def written(
    result: Table,
    readings: Sequence[Reading],
    how: Format,
    rule: FileRule,
    key: Key,
    was: Manner,
    weights: Mapping[str, float],
) -> bytes:
    """The result as bytes: those of a version that says just the same, else in the manner of most.

    `was`: the manner of the ground truth so far, asked for when there is a tie.
    """
    document = readings[0].shape == "document"
    if not (document and rule.ignore):
        for reading in readings:
            if _same(result, reading.version.table, how):
                return reading.content
    model = _model(readings, how, was, weights, result)
    ordered = [model, *(each for each in readings if each is not model)]
    if document:
        decided = dict(leaves(result))
        contents = [each.content for each in ordered]
        return write_document(decided, lambda: build(decided.items(), _kinds(readings)), contents)
    sources = [Source(each.content, each.version.table) for each in ordered]
    return write_like(result, sources, how, key)


def anew(result: Table, readings: Sequence[Reading], how: Format) -> list[str]:
    """What to note where no version has all that the result has, so that none can lend its text."""
    if readings[0].shape == "document":
        had = [set(each.version.table["path"]) for each in readings]
        what, wanted = "values", set(result["path"])
    elif how.tabular:
        had = [set(each.version.table.columns) for each in readings]
        what, wanted = "columns", set(result.columns)
    else:
        return []
    if any(wanted <= each for each in had):
        return []
    return [f"written anew: no node has all the {what} that most nodes have"]


def _model(
    readings: Sequence[Reading], how: Format, was: Manner, weights: Mapping[str, float], result: Table
) -> Reading:
    """Of those in the manner of most the first that has just the result's columns, or leaves, and records."""
    manners = {each.content: manner_of(each.content, how, each.version.table) for each in readings}
    votes = {node: manners[each.content] for each in readings for node in each.version.nodes}
    best, _ = elect(votes, incumbent=None, weights={})
    if best is None:
        best, _ = elect(votes, incumbent=was(), weights=weights)
    fitting = [each for each in readings if manners[each.content] == best] or readings
    return min(fitting, key=lambda each: _distance(each, result, how))


def _distance(reading: Reading, result: Table, how: Format) -> tuple[bool, bool]:
    table = reading.version.table
    if reading.shape == "document":
        return set(table["path"]) != set(result["path"]), False
    return how.tabular and table.columns != result.columns, not table.height


def _same(result: Table, table: Table, how: Format) -> bool:
    if set(result.columns) != set(table.columns):
        return False
    return result.equals(table if how.tabular else table.select(result.columns))


def _kinds(readings: Sequence[Reading]) -> dict[str, Container]:
    """What most say that each pointer is."""
    votes: Counter[tuple[str, Container]] = Counter()
    for reading in readings:
        for pointer, kind in reading.kinds.items():
            votes[pointer, kind] += reading.version.votes
    return {
        pointer: kind for (pointer, kind), _ in sorted(votes.items(), key=lambda each: (each[1], each[0]))
    }
