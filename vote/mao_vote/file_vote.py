"""Decides the content of one file from the nodes' versions of it: by records, or as a whole. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

from mao_shared.models.evidence import Tally
from mao_shared.models.round import FileRule, VoteDefinition

from .election import WHOLE, Cell, FileDecision, elect
from .field_evidence import describe_fields, describe_groups, warnings_on_fields
from .records import (
    RECORD,
    Aligned,
    FieldDifferences,
    Incumbent,
    Key,
    Memory,
    NotRecords,
    RecordFormat,
    Rules,
    Table,
    TableTally,
    VotedField,
    align,
    has_key,
    number_records,
    pack_records,
    pack_versions,
    record_format,
    sort_differences,
    text_style,
    unpack_records,
    vote_key,
    vote_table,
)
from .rule_effects import warnings_on_lines, warnings_on_rule
from .vdx import Standing
from .vdx.columns import uses_vdx, vdx_judge
from .versions import (
    ColumnPlan,
    ParsedVersion,
    TooFewReadable,
    layout_warnings,
    parse_version,
    parse_versions,
    plan_columns,
    rewrite_notes,
    row_voter,
    write_result,
)

_SHAPE_NAMES = {"records": "a list of records", "document": "a document that is no list of records"}


class DisputedCells(Sequence[Cell]):
    """The cells in which nodes differ, built on access: CSV columns first, then by record and field."""

    def __init__(
        self, aligned: Aligned, differences: Sequence[FieldDifferences], columns: Sequence[Cell]
    ) -> None:
        self._aligned, self._differences, self._columns = aligned, differences, columns
        self._order = sort_differences(differences)

    @property
    def contested(self) -> int:
        """The number of cells in which no more than half of the voters have the chosen value."""
        columns = sum(cell.contested for cell in self._columns)
        return columns + sum(int(found.cells["contested"].sum()) for found in self._differences)

    def __len__(self) -> int:
        return len(self._columns) + self._order.height

    @overload
    def __getitem__(self, index: int) -> Cell: ...
    @overload
    def __getitem__(self, index: slice) -> list[Cell]: ...
    def __getitem__(self, index: int | slice) -> Cell | list[Cell]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        if number < len(self._columns):
            return self._columns[number]
        place, field, row = self._order.row(number - len(self._columns))
        found = self._differences[field]
        chosen, why, contested, observed = found.cells.row(row)[1:]
        values: dict[str, str | None] = {}
        for index, version in enumerate(self._aligned.versions):
            has_record, value = self._aligned.value(index, found.field, place)
            if why == "row":
                values |= dict.fromkeys(version.nodes, "row" if has_record else None)
            elif has_record:
                values |= dict.fromkeys(version.nodes, value)
        name = WHOLE if found.field == RECORD else found.field
        return Cell(self._aligned.keys.row(place), name, values, chosen, why, contested, observed)


@dataclass(frozen=True, slots=True)
class RecordVote:
    """The arguments of `decide_file` for a record file."""

    path: str
    file_format: RecordFormat
    rule: FileRule
    versions: Mapping[str, bytes]
    incumbent: bytes | None
    weights: Mapping[str, float]
    error: float | None
    definition: VoteDefinition
    standings: Mapping[str, Standing]
    memory: Mapping[str, Memory]

    @property
    def blank(self) -> str:
        """The text of an undecided cell."""
        return "" if self.file_format.tabular else "null"


def decide_records(request: RecordVote) -> FileDecision:
    """Decide a file record by record. Raises TooFewReadable."""
    readings, key, abstained = read_versions(request)
    is_document = readings[0].shape == "document"
    previous = PreviousTruth(request, key, readings[0])
    plan = plan_columns(
        readings,
        key,
        request.rule,
        request.file_format,
        previous.columns,
        request.weights,
        request.definition.ties,
    )
    compared = [voted.name for voted in plan.fields if not voted.volatile]
    if request.rule.atomic == "record" and not is_document:
        table, votes, aligned = _vote_records(readings, key, plan, previous, request)
    else:
        aligned = align([reading.version for reading in readings], key, previous.read, compared)
        table, votes = _vote(aligned, plan.fields, Incumbent(previous.read, aligned, key), readings, request)

    columns = plan.columns
    if (
        not (request.file_format.tabular or is_document) and table.height
    ):  # in JSON, fields that no record has are omitted
        columns = [name for name in columns if table[name].null_count() < table.height]
    result = table.select(columns)
    left_out = [f"left out: {', '.join(request.rule.ignore)}"] if request.rule.ignore else []
    tallies = {
        node: Tally(
            votes.cells[number] + len(plan.cells),
            votes.differing[number] + plan.differing[node],
            votes.shared[number],
        )
        for number, reading in enumerate(readings)
        for node in reading.version.nodes
    }
    style = previous.manner
    groups = describe_groups(votes.fields)
    places = votes.places
    rows = None if places is None else [aligned.rows_at(index, places) for index in range(len(readings))]
    if places is not None and key.source == "position":
        aligned = number_records(aligned, places)
    cells = DisputedCells(aligned, votes.differences, plan.cells)
    return FileDecision(
        write_result(result, readings, request.file_format, request.rule, key, style, request.weights, rows),
        "records",
        key,
        cells,
        dict(sorted(tallies.items())),
        votes.conflicts + plan.conflicts,
        notes=[*left_out, *votes.notes, *rewrite_notes(result, readings, request.file_format)],
        warnings=[
            *warnings_on_rule(request.rule, request.file_format, readings),
            *warnings_on_lines(result.height, key, readings),
            *([key.unsure] if key.unsure else []),
            *votes.warnings,
            *warnings_on_fields(votes.fields, groups),
            *layout_warnings(readings[0].layout),
        ],
        abstained=abstained,
        fields=describe_fields(votes.fields),
        groups=groups,
        samples={report.name: report.sample for report in votes.fields if report.sample is not None},
        contested=cells.contested,
    )


def read_versions(request: RecordVote) -> tuple[list[ParsedVersion], Key, dict[str, str]]:
    """Return the versions that are voted on, their key, and by node why its version is not.

    Raises TooFewReadable.
    """
    readings, abstained = parse_versions(request.versions, request.file_format, request.rule, request.weights)
    _check_majority(abstained, request)
    readings = _with_elected_shape(readings, abstained, request)
    readings, key = _with_elected_key(readings, abstained, request)
    _check_majority(abstained, request)
    return readings, key, abstained


def _check_majority(abstained: Mapping[str, str], request: RecordVote) -> None:
    if 2 * len(abstained) > len(request.versions):
        raise TooFewReadable("; ".join(f"{node}: {why}" for node, why in sorted(abstained.items())))


def _with_elected_shape(
    readings: list[ParsedVersion], abstained: dict[str, str], request: RecordVote
) -> list[ParsedVersion]:
    """Return the readings with the most common shape; the others abstain. Raises TooFewReadable."""
    shapes = {node: reading.shape for reading in readings for node in reading.version.nodes}
    if len(set(shapes.values())) < 2:
        return readings
    previous = None if request.incumbent is None else _parse(request.incumbent, request)
    shape, _ = elect(shapes, incumbent=None if previous is None else previous.shape, weights=request.weights)
    if shape is None:
        raise TooFewReadable("as many have a list of records as have another document")
    for node, other in shapes.items():
        if other != shape:
            abstained[node] = f"most have {_SHAPE_NAMES[shape]}, and it has {_SHAPE_NAMES[other]}"
    return [reading for reading in readings if reading.shape == shape]


def _with_elected_key(
    readings: list[ParsedVersion], abstained: dict[str, str], request: RecordVote
) -> tuple[list[ParsedVersion], Key]:
    """Return the readings in which the key is unique, and the key; the others abstain.

    Raises TooFewReadable.
    """
    if readings and readings[0].shape == "document":
        return readings, Key(("path",), "inferred")
    versions = [reading.version for reading in readings]
    tables, votes = [version.table for version in versions], [version.votes for version in versions]
    if not request.rule.key:  # volatile and ignored fields cannot identify records
        tables = [table.drop(*request.rule.ignore, *request.rule.volatile, strict=False) for table in tables]
    try:
        key, faults = vote_key(tables, votes, request.rule.key, request.rule.fold)
    except NotRecords as why:
        raise TooFewReadable(str(why)) from None
    for number, fault in faults.items():
        abstained |= dict.fromkeys(readings[number].version.nodes, fault)
    return [reading for number, reading in enumerate(readings) if number not in faults], key


def _parse(content: bytes, request: RecordVote, model: ParsedVersion | None = None) -> ParsedVersion | None:
    """Parse a file, a document as the `model` was; None if it cannot be read as records."""
    try:
        layout = None if model is None else model.layout
        return parse_version(content, request.file_format, request.rule, layout)
    except NotRecords:
        return None


@dataclass(slots=True)
class PreviousTruth:
    """The previous ground truth, parsed on first use; ignored if its shape or key differs."""

    request: RecordVote
    key: Key
    model: ParsedVersion
    table: Table | None = None
    is_parsed: bool = False

    def read(self) -> Table | None:
        if not self.is_parsed:
            self.is_parsed = True
            before = self.request.incumbent
            found = None if before is None else _parse(before, self.request, self.model)
            if (
                found is not None
                and found.shape == self.model.shape
                and has_key(found.version.table, self.key)
            ):
                self.table = found.version.table
        return self.table

    def columns(self) -> list[str] | None:
        table = self.read()
        return None if table is None else table.columns

    def manner(self) -> Hashable | None:
        table = self.read()
        if table is None or self.request.incumbent is None:
            return None
        return text_style(self.request.incumbent, self.request.file_format, table)


def _vote_records(
    readings: Sequence[ParsedVersion],
    key: Key,
    plan: ColumnPlan,
    previous: PreviousTruth,
    request: RecordVote,
) -> tuple[Table, TableTally, Aligned]:
    """Vote on each record as one value (`atomic: record`); volatile fields are decided separately."""
    names = [voted.name for voted in plan.fields if not voted.volatile]
    versions = pack_versions([reading.version for reading in readings], names)
    aligned = align(versions, key, previous.read, names)

    def packed() -> Table | None:
        table = previous.read()
        return None if table is None else pack_records(table, names)

    record = VotedField(RECORD, tuple(range(len(versions))))
    fields = [record, *(voted for voted in plan.fields if voted.volatile)]
    table, votes = _vote(aligned, fields, Incumbent(packed, aligned, key), readings, request)
    return unpack_records(table, versions, key, names, request.blank), votes, aligned


def _vote(
    aligned: Aligned,
    fields: Sequence[VotedField],
    truth: Incumbent,
    readings: Sequence[ParsedVersion],
    request: RecordVote,
) -> tuple[Table, TableTally]:
    nodes = [reading.version.nodes for reading in readings]
    definition, judge = request.definition, None
    if uses_vdx(definition):
        error = definition.params.vdx_error if request.error is None else request.error
        judge = vdx_judge(definition, nodes, request.standings, error)
    rules = Rules(
        request.rule,
        request.blank,
        not request.file_format.tabular,
        request.error,
        judge,
        definition.history != "NONE",
        definition.history != "NONE" and definition.collation == "AGREEMENT",
        definition.groups,
        readings[0].shape == "document",
        definition.ties,
        request.memory,
        request.path,
    )
    return vote_table(aligned, fields, truth, rules, row_voter(readings, request.rule, definition))


def decide_opaque(
    versions: Mapping[str, bytes], *, incumbent: bytes | None, weights: Mapping[str, float]
) -> FileDecision:
    """Elect one version as a whole. Its cell shows the SHA-256 of each version."""
    chosen, why = elect(versions, incumbent=incumbent, weights=weights)
    votes = {
        node: Tally(1, int(chosen is not None and content != chosen)) for node, content in versions.items()
    }
    cells: list[Cell] = []
    if any(content != chosen for content in versions.values()):
        values: dict[str, str | None] = {node: _digest(content) for node, content in versions.items()}
        chosen_digest = None if chosen is None else _digest(chosen)
        supporters = sum(content == chosen for content in versions.values())
        cells.append(Cell((), "", values, chosen_digest, why, contested=2 * supporters <= len(versions)))
    return FileDecision(chosen, "opaque", cells=cells, votes=votes, conflicts=int(why == "undecided"))


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def decide_file(
    path: str,
    versions: Mapping[str, bytes],
    *,
    incumbent: bytes | None,
    definition: VoteDefinition,
    weights: Mapping[str, float],
    standings: Mapping[str, Standing] | None = None,
    memory: Mapping[str, Memory] | None = None,
) -> FileDecision:
    """Decide the content of one file from the nodes' versions. The order of the nodes does not matter.

    A record file is decided as a whole, like any other file, if most versions cannot be read as records.

    Args:
        versions: node → content, for the nodes that have the file; not empty.
        incumbent: the content in the previous ground truth, which breaks ties.
        weights: break the remaining ties; a node without an entry has weight 1.
        standings: the nodes' history with this file, for definitions that use VDX.
        memory: field → cells of earlier rounds, to learn from.
    """
    rule, file_format = definition.rule_for(path), record_format(path)
    if file_format is None or rule.opaque:
        return decide_opaque(versions, incumbent=incumbent, weights=weights)
    error = definition.params.error if rule.error is None else rule.error
    try:
        return decide_records(
            RecordVote(
                path,
                file_format,
                rule,
                versions,
                incumbent,
                weights,
                error,
                definition,
                standings or {},
                memory or {},
            )
        )
    except TooFewReadable as why:
        decision = decide_opaque(versions, incumbent=incumbent, weights=weights)
        decision.warnings.append(f"decided as a whole: {why}")
        return decision
