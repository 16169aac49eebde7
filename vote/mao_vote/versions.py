"""A record file's versions read from bytes, equal ones once, and the result written as most of them are."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mao_shared.models.round import FileRule

from .election import Cell, elect, fixed
from .records import (
    Container,
    Key,
    NotRecords,
    RecordFormat,
    SourceFile,
    Table,
    Version,
    VotedField,
    build_document,
    containers,
    iter_leaves,
    load,
    load_document,
    parse_json,
    text_style,
    write_document,
    write_like,
)

Shape = Literal["records", "document"]
"""A JSON file holds a list of records, or a document that is voted leaf by leaf."""
Columns = Callable[[], list[str] | None]
Manner = Callable[[], Hashable | None]


class TooFewReadable(Exception):
    """Not more than half of the versions can be read as records; the message says why, for a person."""


@dataclass(frozen=True, slots=True)
class ParsedVersion:
    """`kinds`: of a document, what is a list and what an object."""

    content: bytes
    version: Version
    shape: Shape = "records"
    kinds: dict[str, Container] = field(default_factory=dict)


def parse_version(
    content: bytes, how: RecordFormat, rule: FileRule, nodes: tuple[str, ...] = (), weight: int = 0
) -> ParsedVersion:
    """Raises NotRecords."""
    document = _document(content) if how is RecordFormat.JSON else []
    if isinstance(document, list) and all(isinstance(each, dict) for each in document):
        table = load(content, how)
        if not how.tabular and not table.width and b"".join(content.split()) not in (b"", b"[]"):
            raise NotRecords("its records have no fields")
        return ParsedVersion(content, Version(table, nodes, weight))
    table = load_document(document, rule.ignore, rule.volatile)
    return ParsedVersion(content, Version(table, nodes, weight), "document", dict(containers(document)))


def _document(content: bytes) -> Any:
    try:
        text = content.decode("utf-8-sig")
        return parse_json(text, names_once=True) if text.strip() else []
    except RecursionError:
        raise NotRecords("its JSON is nested too deeply") from None
    except ValueError as error:
        raise NotRecords(f"it is not JSON: {error}") from None


def parse_versions(
    versions: Mapping[str, bytes], how: RecordFormat, rule: FileRule, weights: Mapping[str, float]
) -> tuple[list[ParsedVersion], dict[str, str]]:
    """The versions, those of most nodes first; and node → why its version cannot be read."""
    nodes: dict[bytes, list[str]] = defaultdict(list)
    for node in sorted(versions):
        nodes[versions[node]].append(node)
    readings: list[ParsedVersion] = []
    abstained: dict[str, str] = {}
    for content, holders in nodes.items():
        weight = sum(fixed(weights.get(node, 1.0)) for node in holders)
        try:
            readings.append(parse_version(content, how, rule, tuple(holders), weight))
        except NotRecords as why:
            abstained |= dict.fromkeys(holders, str(why))
    readings.sort(key=lambda each: (-each.version.votes, -each.version.weight, each.content))
    return readings, abstained


@dataclass(slots=True)
class ColumnPlan:
    """`columns`: the result's, in order. `cells`, `differing`, `conflicts`: of the vote on CSV columns."""

    columns: list[str]
    fields: list[VotedField]
    cells: list[Cell] = field(default_factory=list)
    differing: Counter[str] = field(default_factory=Counter)
    conflicts: int = 0


def plan_columns(
    readings: Sequence[ParsedVersion],
    key: Key,
    rule: FileRule,
    how: RecordFormat,
    was: Columns,
    weights: Mapping[str, float],
) -> ColumnPlan:
    """`was`: the columns of the ground truth so far, read only when there is a tie.

    The heading is the one of most nodes. A CSV file has one heading for all its records, so whether a
    column is there is voted once; in JSON each record has its own fields, and the vote on each says.
    """
    names = _in_order(readings, rule, was, weights)
    made = ColumnPlan([], [])
    for name in names:
        having = tuple(i for i, reading in enumerate(readings) if name in reading.version.table.columns)
        everybody = len(having) == len(readings)
        if not how.tabular:
            having = tuple(range(len(readings)))
        elif not everybody and not _has_column(made, name, readings, was, weights):
            continue
        made.columns.append(name)
        if name not in key.columns:
            is_volatile = readings[0].shape == "document" and name == "volatile"
            made.fields.append(VotedField(name, having, is_volatile or name in rule.volatile))
    return made


def _in_order(
    readings: Sequence[ParsedVersion], rule: FileRule, was: Columns, weights: Mapping[str, float]
) -> list[str]:
    headings = {node: tuple(each.version.table.columns) for each in readings for node in each.version.nodes}
    best, _ = elect(headings, incumbent=None, weights=weights)
    if best is None:
        before = tuple(was() or ())
        best = before if before in headings.values() else tuple(readings[0].version.table.columns)
    others = (name for each in readings for name in each.version.table.columns)
    return [name for name in dict.fromkeys([*best, *others]) if name not in rule.ignore]


def _has_column(
    made: ColumnPlan, name: str, readings: Sequence[ParsedVersion], was: Columns, weights: Mapping[str, float]
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
    made.differing.update(node for node, holds in there.items() if has is not None and holds != has)
    return bool(has)


def write_result(
    result: Table,
    readings: Sequence[ParsedVersion],
    how: RecordFormat,
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
        decided = dict(iter_leaves(result))
        contents = [each.content for each in ordered]
        return write_document(decided, lambda: build_document(decided.items(), _kinds(readings)), contents)
    sources = [SourceFile(each.content, each.version.table) for each in ordered]
    return write_like(result, sources, how, key)


def rewrite_notes(result: Table, readings: Sequence[ParsedVersion], how: RecordFormat) -> list[str]:
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
    readings: Sequence[ParsedVersion],
    how: RecordFormat,
    was: Manner,
    weights: Mapping[str, float],
    result: Table,
) -> ParsedVersion:
    """Of those in the manner of most the first that has just the result's columns, or leaves, and records."""
    manners = {each.content: text_style(each.content, how, each.version.table) for each in readings}
    votes = {node: manners[each.content] for each in readings for node in each.version.nodes}
    best, _ = elect(votes, incumbent=None, weights={})
    if best is None:
        best, _ = elect(votes, incumbent=was(), weights=weights)
    fitting = [each for each in readings if manners[each.content] == best] or readings

    def distance(reading: ParsedVersion) -> tuple[bool, bool]:
        table = reading.version.table
        if reading.shape == "document":
            return set(table["path"]) != set(result["path"]), False
        return how.tabular and table.columns != result.columns, not table.height

    return min(fitting, key=distance)


def _same(result: Table, table: Table, how: RecordFormat) -> bool:
    if set(result.columns) != set(table.columns):
        return False
    return result.equals(table if how.tabular else table.select(result.columns))


def _kinds(readings: Sequence[ParsedVersion]) -> dict[str, Container]:
    """What most say that each pointer is."""
    votes: Counter[tuple[str, Container]] = Counter()
    for reading in readings:
        for pointer, kind in reading.kinds.items():
            votes[pointer, kind] += reading.version.votes
    return {
        pointer: kind for (pointer, kind), _ in sorted(votes.items(), key=lambda each: (each[1], each[0]))
    }
