"""Parses the versions of a record file, and writes the result in the style of most versions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mao_shared.models.round import FileRule
from mao_vote.election import Cell, elect, fixed_point
from mao_vote.records import (
    Key,
    NotRecords,
    RecordFormat,
    SourceFile,
    Table,
    load,
    parse_json,
    text_style,
    write_document,
    write_like,
)

from .align import Version
from .documents import Container, build_document, containers, iter_leaves, load_document
from .vote import VotedField

Shape = Literal["records", "document"]
"""A JSON file contains a list of records, or a document that is voted leaf by leaf."""
Columns = Callable[[], list[str] | None]
Manner = Callable[[], Hashable | None]


class TooFewReadable(Exception):
    """Too few versions can be read as records; the message has the reasons."""


@dataclass(frozen=True, slots=True)
class ParsedVersion:
    """A version and its content. For documents, `kinds` maps JSON pointers to list or object."""

    content: bytes
    version: Version
    shape: Shape = "records"
    kinds: dict[str, Container] = field(default_factory=dict)


def parse_version(
    content: bytes, file_format: RecordFormat, rule: FileRule, nodes: tuple[str, ...] = (), weight: int = 0
) -> ParsedVersion:
    """Parse a file. Raises NotRecords."""
    is_document = _document(content) if file_format is RecordFormat.JSON else []
    if isinstance(is_document, list) and all(isinstance(item, dict) for item in is_document):
        table = load(content, file_format)
        if not file_format.tabular and not table.width and b"".join(content.split()) not in (b"", b"[]"):
            raise NotRecords("its records have no fields")
        return ParsedVersion(content, Version(table, nodes, weight))
    table = load_document(is_document, rule.ignore, rule.volatile)
    return ParsedVersion(content, Version(table, nodes, weight), "document", dict(containers(is_document)))


def _document(content: bytes) -> Any:
    try:
        text = content.decode("utf-8-sig")
        return parse_json(text, names_once=True) if text.strip() else []
    except RecursionError:
        raise NotRecords("its JSON is nested too deeply") from None
    except ValueError as error:
        raise NotRecords(f"it is not JSON: {error}") from None


def parse_versions(
    versions: Mapping[str, bytes], file_format: RecordFormat, rule: FileRule, weights: Mapping[str, float]
) -> tuple[list[ParsedVersion], dict[str, str]]:
    """Return the versions, those of most nodes first, and the reasons by node for unreadable ones."""
    nodes: dict[bytes, list[str]] = defaultdict(list)
    for node in sorted(versions):
        nodes[versions[node]].append(node)
    readings: list[ParsedVersion] = []
    abstained: dict[str, str] = {}
    for content, holders in nodes.items():
        weight = sum(fixed_point(weights.get(node, 1.0)) for node in holders)
        try:
            readings.append(parse_version(content, file_format, rule, tuple(holders), weight))
        except NotRecords as reason:
            abstained |= dict.fromkeys(holders, reason.former)
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
    file_format: RecordFormat,
    previous: Columns,
    weights: Mapping[str, float],
) -> ColumnPlan:
    """Decide the columns of the result.

    The heading is the one of most nodes. A CSV file has one heading for all records, so whether a column
    exists is voted once; in JSON each record has its own fields, which are voted with their values.

    Args:
        previous: returns the columns of the previous ground truth; called only for a tie.
    """
    headings = {node: tuple(r.version.table.columns) for r in readings for node in r.version.nodes}
    heading, _ = elect(headings, incumbent=None, weights=weights)
    if heading is None:
        before = tuple(previous() or ())
        heading = before if before in headings.values() else tuple(readings[0].version.table.columns)
    others = (name for reading in readings for name in reading.version.table.columns)

    plan = ColumnPlan([], [])
    for name in dict.fromkeys([*heading, *others]):
        if name in rule.ignore:
            continue
        holders = tuple(i for i, reading in enumerate(readings) if name in reading.version.table.columns)
        if not file_format.tabular:
            holders = tuple(range(len(readings)))
        elif len(holders) < len(readings) and not _elect_column(plan, name, headings, previous, weights):
            continue
        plan.columns.append(name)
        if name not in key.columns:
            is_volatile = readings[0].shape == "document" and name == "volatile"
            plan.fields.append(VotedField(name, holders, is_volatile or name in rule.volatile))
    return plan


def _elect_column(
    plan: ColumnPlan,
    name: str,
    headings: Mapping[str, Sequence[str]],
    previous: Columns,
    weights: Mapping[str, float],
) -> bool:
    """Elect whether a CSV file has a column, and add the vote to the plan as a cell."""
    ballots = {node: name in columns for node, columns in headings.items()}
    exists, reason = elect(ballots, incumbent=None, weights={})
    if exists is None:
        before = previous()
        exists, reason = elect(ballots, incumbent=None if before is None else name in before, weights=weights)
    values = {node: name if has else None for node, has in ballots.items()}
    chosen = name if exists else None
    supporters = sum(has == exists for has in ballots.values())
    plan.cells.append(Cell((), name, values, chosen, reason, contested=2 * supporters <= len(ballots)))
    plan.conflicts += exists is None
    plan.differing.update(node for node, has in ballots.items() if exists is not None and has != exists)
    return bool(exists)


def write_result(
    result: Table,
    readings: Sequence[ParsedVersion],
    file_format: RecordFormat,
    rule: FileRule,
    key: Key,
    previous: Manner,
    weights: Mapping[str, float],
) -> bytes:
    """Return the result as bytes: those of a version with the same table, otherwise in the style of most.

    Args:
        previous: returns the style of the previous ground truth; called only for a tie.
    """
    is_document = readings[0].shape == "document"
    if not (is_document and rule.ignore):
        for reading in readings:
            if _same(result, reading.version.table, file_format):
                return reading.content
    model = _model(readings, file_format, previous, weights, result)
    ordered = [model, *(reading for reading in readings if reading is not model)]
    if not is_document:
        sources = [SourceFile(reading.content, reading.version.table) for reading in ordered]
        return write_like(result, sources, file_format, key)

    leaves = dict(iter_leaves(result))

    def rebuilt() -> Any:
        votes: Counter[tuple[str, Container]] = Counter()
        for reading in readings:
            for pointer, kind in reading.kinds.items():
                votes[pointer, kind] += reading.version.votes
        ranked = sorted(votes, key=lambda pointer_kind: (votes[pointer_kind], pointer_kind))
        return build_document(
            leaves.items(), dict(ranked)
        )  # the last entry of a pointer, the most frequent, wins

    return write_document(leaves, rebuilt, [reading.content for reading in ordered])


def rewrite_notes(result: Table, readings: Sequence[ParsedVersion], file_format: RecordFormat) -> list[str]:
    """Return a note if no version has all columns or leaves of the result, so that the text is generated."""
    if readings[0].shape == "document":
        had = [set(reading.version.table["path"]) for reading in readings]
        parts, needed = "values", set(result["path"])
    elif file_format.tabular:
        had = [set(reading.version.table.columns) for reading in readings]
        parts, needed = "columns", set(result.columns)
    else:
        return []
    if any(needed <= names for names in had):
        return []
    return [f"written anew: no node has all the {parts} that most nodes have"]


def _model(
    readings: Sequence[ParsedVersion],
    file_format: RecordFormat,
    previous: Manner,
    weights: Mapping[str, float],
    result: Table,
) -> ParsedVersion:
    """Return a version in the style of most, preferably with the columns or leaves of the result."""
    styles = {r.content: text_style(r.content, file_format, r.version.table) for r in readings}
    votes = {node: styles[r.content] for r in readings for node in r.version.nodes}
    elected_style, _ = elect(votes, incumbent=None, weights={})
    if elected_style is None:
        elected_style, _ = elect(votes, incumbent=previous(), weights=weights)
    fitting = [reading for reading in readings if styles[reading.content] == elected_style] or readings

    def distance(reading: ParsedVersion) -> tuple[bool, bool]:
        table = reading.version.table
        if reading.shape == "document":
            return set(table["path"]) != set(result["path"]), False
        return file_format.tabular and table.columns != result.columns, not table.height

    return min(fitting, key=distance)


def _same(result: Table, table: Table, file_format: RecordFormat) -> bool:
    if set(result.columns) != set(table.columns):
        return False
    return result.equals(table if file_format.tabular else table.select(result.columns))
