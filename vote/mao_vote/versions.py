"""Parses the versions of a record file, and writes the result in the style of most versions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from mao_shared.models.round import FileRule, Ties, VoteDefinition

from .election import Cell, elect, elect_presence, fixed_point
from .records import (
    Key,
    Layout,
    NamedFields,
    NestedText,
    NotRecords,
    Reader,
    RecordFormat,
    Rows,
    RowVoter,
    SourceFile,
    Table,
    Version,
    VotedField,
    check_document,
    empty_leaves,
    is_record_list,
    leaf_table,
    load,
    load_json_document,
    plan_layout,
    plan_object_fields,
    text_style,
    vote_places,
    with_object_fields,
    without_contradictions,
    write_like,
    write_nested_file,
)

MAX_NOTES = 20  # on the layout of a document
_HEAD = 1000  # rows
Shape = Literal["records", "document"]
"""A JSON file contains a list of records, or a document that is voted leaf by leaf."""
Columns = Callable[[], list[str] | None]
Manner = Callable[[], Hashable | None]


class TooFewReadable(Exception):
    """Too few versions can be read as records; the message has the reasons."""


@dataclass(frozen=True, slots=True)
class ParsedVersion:
    """A version and its content.

    `layout`: shared by all versions. For documents: the `document` without what the definition leaves out,
    the paths at which it is null instead of an object or list (`blanks`), and whether its table has all
    values.
    """

    content: bytes
    version: Version
    shape: Shape = "records"
    document: Any = None
    layout: Layout = field(default_factory=Layout)
    blanks: Collection[str] = ()
    is_complete: bool = True

    def sharing_columns(self, other: ParsedVersion) -> ParsedVersion:
        """Return the same with the other's columns where they are equal, so that these are in memory once."""
        table, known = self.version.table, other.version.table
        if table.height != known.height:
            return self
        names = [name for name in table.columns if name in known.columns]
        heads = table.head(_HEAD), known.head(_HEAD)  # most columns that differ do so here
        alike = (name for name in names if heads[0][name].equals(heads[1][name]))
        shared = [name for name in alike if table[name].equals(known[name])]
        if not shared:
            return self
        return replace(self, version=replace(self.version, table=table.with_columns(known.select(shared))))

    def laid_out(self, layout: Layout, reader: Reader) -> ParsedVersion:
        """Return a document with its table, or records with columns for what is inside of objects."""
        if self.shape == "records":
            table = with_object_fields(self.version.table, layout.object_fields, reader)
            return replace(self, version=replace(self.version, table=table), layout=layout)
        leaves = leaf_table(self.document, layout, reader)
        version = replace(self.version, table=leaves.table)
        return replace(
            self, version=version, layout=layout, blanks=leaves.blanks, is_complete=leaves.is_complete
        )


def parse_version(
    content: bytes, file_format: RecordFormat, rule: FileRule, layout: Layout | None = None
) -> ParsedVersion:
    """Parse a file by itself, or with the layout of other versions. Raises NotRecords."""
    reading = _read(content, file_format, rule, (), 0)
    return reading.laid_out(layout or _plan([reading], file_format, rule), Reader(rule))


def _read(
    content: bytes, file_format: RecordFormat, rule: FileRule, nodes: tuple[str, ...], weight: int
) -> ParsedVersion:
    """Parse a file; the table of a document is made when all versions are known. Raises NotRecords."""
    document = load_json_document(content) if file_format is RecordFormat.JSON else []
    if is_record_list(document):
        table = load(content, file_format)
        if not file_format.tabular and not table.width and b"".join(content.split()) not in (b"", b"[]"):
            raise NotRecords("its records have no fields")
        return ParsedVersion(content, Version(table, nodes, weight))
    check_document(document)
    remaining = Reader(rule).ignored.without(document, "", "")
    return ParsedVersion(content, Version(empty_leaves(), nodes, weight), "document", remaining)


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
            reading = _read(content, file_format, rule, tuple(holders), weight)
        except NotRecords as reason:
            abstained |= dict.fromkeys(holders, str(reason))
        else:
            readings.append(reading.sharing_columns(readings[0]) if readings else reading)
    readings.sort(key=lambda reading: (-reading.version.votes, -reading.version.weight, reading.content))
    layouts = {
        shape: _plan([reading for reading in readings if reading.shape == shape], file_format, rule)
        for shape in {reading.shape for reading in readings}
    }
    reader = Reader(rule)
    return [reading.laid_out(layouts[reading.shape], reader) for reading in readings], abstained


def _plan(readings: Sequence[ParsedVersion], file_format: RecordFormat, rule: FileRule) -> Layout:
    """Decide how versions of one shape are matched."""
    votes = [max(reading.version.votes, 1) for reading in readings]
    if readings[0].shape == "document":
        names = [", ".join(reading.version.nodes) for reading in readings]
        return plan_layout([reading.document for reading in readings], votes, Reader(rule), names)
    if file_format.tabular:
        return Layout()
    return plan_object_fields([reading.version.table for reading in readings], votes, rule)


def row_voter(
    readings: Sequence[ParsedVersion], rule: FileRule, definition: VoteDefinition
) -> RowVoter | None:
    """Return what decides which places of a document are in the result; None for records."""
    if readings[0].shape != "document":
        return None
    blanks = [reading.blanks for reading in readings]
    return partial(
        vote_places, blanks=blanks, entries=rule.rows, groups=definition.groups, ties=definition.ties
    )


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
    ties: Ties,
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
    ignored, changing = NamedFields(rule.ignore), NamedFields(rule.volatile)
    for name in dict.fromkeys([*heading, *others]):
        is_inside = bool(readings[0].layout.object_fields) and name.startswith("/")
        if name in rule.ignore or (is_inside and name in ignored):
            continue
        holders = tuple(i for i, reading in enumerate(readings) if name in reading.version.table.columns)
        if not file_format.tabular:
            holders = tuple(range(len(readings)))
        elif len(holders) < len(readings) and not _elect_column(
            plan, name, headings, previous, weights, ties
        ):
            continue
        plan.columns.append(name)
        if name not in key.columns:
            is_volatile = readings[0].shape == "document" and name == "volatile"
            is_volatile |= name in rule.volatile or (is_inside and name in changing)
            plan.fields.append(VotedField(name, holders, is_volatile))
    return plan


def _elect_column(
    plan: ColumnPlan,
    name: str,
    headings: Mapping[str, Sequence[str]],
    previous: Columns,
    weights: Mapping[str, float],
    ties: Ties,
) -> bool:
    """Elect whether a CSV file has a column, and add the vote to the plan as a cell."""
    ballots = {node: name in columns for node, columns in headings.items()}
    exists, reason = elect(ballots, incumbent=None, weights={})
    if exists is None:
        before = previous()
        incumbent = None if before is None else name in before
        exists, reason = elect_presence(ballots, incumbent=incumbent, weights=weights, ties=ties)
    values = {node: name if has else None for node, has in ballots.items()}
    chosen = name if exists else None
    supporters = sum(has == exists for has in ballots.values())
    plan.cells.append(Cell((), name, values, chosen, reason, contested=2 * supporters <= len(ballots)))
    plan.conflicts += exists is None
    if reason not in ("undecided", "tie"):
        plan.differing.update(node for node, has in ballots.items() if has != exists)
    return bool(exists)


def write_result(
    result: Table,
    readings: Sequence[ParsedVersion],
    file_format: RecordFormat,
    rule: FileRule,
    key: Key,
    previous: Manner,
    weights: Mapping[str, float],
    rows: Sequence[Rows] | None = None,
) -> bytes:
    """Return the result as bytes: those of a version with the same table, otherwise in the style of most.

    Args:
        rows: of each version.
        previous: returns the style of the previous ground truth; called only for a tie.
    """
    is_document = readings[0].shape == "document"
    object_fields = readings[0].layout.object_fields
    if object_fields:
        result = without_contradictions(result, object_fields)
    if not (is_document and rule.ignore):
        for reading in readings:
            if reading.is_complete and _same(result, reading.version.table, file_format):
                return reading.content
    reader = Reader(rule)
    model = _model(readings, file_format, previous, weights, result)
    ordered = [model, *(reading for reading in readings if reading is not model)]
    if not is_document:
        by_content = {} if rows is None else dict(zip((r.content for r in readings), rows, strict=True))
        sources = [
            SourceFile(reading.content, reading.version.table, rows=by_content.get(reading.content))
            for reading in ordered
        ]
        return write_like(result, sources, file_format, key, reader if object_fields else None)
    texts = [
        NestedText(reading.content.decode("utf-8-sig"), reader, reading.layout, table=reading.version.table)
        for reading in ordered
        if reading.content.strip()
    ]
    return write_nested_file(result, texts, model.content)


def layout_warnings(layout: Layout) -> list[str]:
    """Return the notes on what is decided as a whole in documents, the first of many."""
    more = len(layout.notes) - MAX_NOTES
    return [*layout.notes[:MAX_NOTES], *([f"{more} more notes like these"] if more > 0 else [])]


def rewrite_notes(result: Table, readings: Sequence[ParsedVersion], file_format: RecordFormat) -> list[str]:
    """Return a note if no version has all that the result has."""
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
