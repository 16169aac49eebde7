"""Parses the versions of a record file, equal ones once, and writes the result in the style of most."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mao_shared.models.round import FileRule

from .election import Cell, elect, fixed_point
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
    """Too few versions can be read as records; the message says why in words."""


@dataclass(frozen=True, slots=True)
class ParsedVersion:
    """A version and its content. `kinds`: for documents, JSON pointer → list or object."""

    content: bytes
    version: Version
    shape: Shape = "records"
    kinds: dict[str, Container] = field(default_factory=dict)


def parse_version(
    content: bytes, how: RecordFormat, rule: FileRule, nodes: tuple[str, ...] = (), weight: int = 0
) -> ParsedVersion:
    """Parse a file. Raises NotRecords."""
    document = _document(content) if how is RecordFormat.JSON else []
    if isinstance(document, list) and all(isinstance(item, dict) for item in document):
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
    """Return the versions, those of most nodes first, and node → why its version cannot be read."""
    nodes: dict[bytes, list[str]] = defaultdict(list)
    for node in sorted(versions):
        nodes[versions[node]].append(node)
    readings: list[ParsedVersion] = []
    abstained: dict[str, str] = {}
    for content, holders in nodes.items():
        weight = sum(fixed_point(weights.get(node, 1.0)) for node in holders)
        try:
            readings.append(parse_version(content, how, rule, tuple(holders), weight))
        except NotRecords as why:
            abstained |= dict.fromkeys(holders, str(why))
    readings.sort(key=lambda reading: (-reading.version.votes, -reading.version.weight, reading.content))
    return readings, abstained


@dataclass(slots=True)
class ColumnPlan:
    """The result's `columns` in order, and the `fields` to vote on.

    `cells`, `differing` and `conflicts` are of the vote on which columns a CSV file has.
    """

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
    """Decide the columns of the result.

    The heading is the one of most nodes. A CSV file has one heading for all records, so whether a column
    exists is voted once; in JSON each record has its own fields, which are voted with their values.

    Args:
        was: returns the columns of the previous ground truth; called only for a tie.
    """
    headings = {node: tuple(r.version.table.columns) for r in readings for node in r.version.nodes}
    heading, _ = elect(headings, incumbent=None, weights=weights)
    if heading is None:
        before = tuple(was() or ())
        heading = before if before in headings.values() else tuple(readings[0].version.table.columns)
    others = (name for reading in readings for name in reading.version.table.columns)

    plan = ColumnPlan([], [])
    for name in dict.fromkeys([*heading, *others]):
        if name in rule.ignore:
            continue
        having = tuple(i for i, reading in enumerate(readings) if name in reading.version.table.columns)
        if not how.tabular:
            having = tuple(range(len(readings)))
        elif len(having) < len(readings) and not _elect_column(plan, name, headings, was, weights):
            continue
        plan.columns.append(name)
        if name not in key.columns:
            is_volatile = readings[0].shape == "document" and name == "volatile"
            plan.fields.append(VotedField(name, having, is_volatile or name in rule.volatile))
    return plan


def _elect_column(
    plan: ColumnPlan,
    name: str,
    headings: Mapping[str, Sequence[str]],
    was: Columns,
    weights: Mapping[str, float],
) -> bool:
    """Return whether a CSV file has a column; the plan counts the vote as a cell."""
    ballots = {node: name in columns for node, columns in headings.items()}
    exists, why = elect(ballots, incumbent=None, weights={})
    if exists is None:
        before = was()
        exists, why = elect(ballots, incumbent=None if before is None else name in before, weights=weights)
    values = {node: name if has else None for node, has in ballots.items()}
    chosen = name if exists else None
    behind = sum(has == exists for has in ballots.values())
    plan.cells.append(Cell((), name, values, chosen, why, contested=2 * behind <= len(ballots)))
    plan.conflicts += exists is None
    plan.differing.update(node for node, has in ballots.items() if exists is not None and has != exists)
    return bool(exists)


def write_result(
    result: Table,
    readings: Sequence[ParsedVersion],
    how: RecordFormat,
    rule: FileRule,
    key: Key,
    was: Manner,
    weights: Mapping[str, float],
) -> bytes:
    """Return the result as bytes: those of a version with the same table, or else in the style of most.

    Args:
        was: returns the style of the previous ground truth; called only for a tie.
    """
    document = readings[0].shape == "document"
    if not (document and rule.ignore):
        for reading in readings:
            if _same(result, reading.version.table, how):
                return reading.content
    model = _model(readings, how, was, weights, result)
    ordered = [model, *(reading for reading in readings if reading is not model)]
    if not document:
        sources = [SourceFile(reading.content, reading.version.table) for reading in ordered]
        return write_like(result, sources, how, key)

    leaves = dict(iter_leaves(result))

    def rebuilt() -> Any:
        votes: Counter[tuple[str, Container]] = Counter()
        for reading in readings:
            for pointer, kind in reading.kinds.items():
                votes[pointer, kind] += reading.version.votes
        ranked = sorted(votes, key=lambda pointer_kind: (votes[pointer_kind], pointer_kind))
        return build_document(
            leaves.items(), dict(ranked)
        )  # of each pointer the last, which most have, stays

    return write_document(leaves, rebuilt, [reading.content for reading in ordered])


def rewrite_notes(result: Table, readings: Sequence[ParsedVersion], how: RecordFormat) -> list[str]:
    """Return a note if no version has all columns or leaves of the result, so that the text is generated."""
    if readings[0].shape == "document":
        had = [set(each.version.table["path"]) for each in readings]
        what, wanted = "values", set(result["path"])
    elif how.tabular:
        had = [set(each.version.table.columns) for each in readings]
        what, wanted = "columns", set(result.columns)
    else:
        return []
    if any(wanted <= names for names in had):
        return []
    return [f"written anew: no node has all the {what} that most nodes have"]


def _model(
    readings: Sequence[ParsedVersion],
    how: RecordFormat,
    was: Manner,
    weights: Mapping[str, float],
    result: Table,
) -> ParsedVersion:
    """Return a version in the style of most, preferably with the columns or leaves of the result."""
    styles = {r.content: text_style(r.content, how, r.version.table) for r in readings}
    votes = {node: styles[r.content] for r in readings for node in r.version.nodes}
    best, _ = elect(votes, incumbent=None, weights={})
    if best is None:
        best, _ = elect(votes, incumbent=was(), weights=weights)
    fitting = [reading for reading in readings if styles[reading.content] == best] or readings

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
