"""Deciding the content of one file from several nodes' versions of it: by records, or as a whole. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

from mao_shared.models.evidence import Tally
from mao_shared.models.round import FileRule, VoteDefinition

from .election import WHOLE, Cell, FileDecision, elect
from .records import (
    RECORD,
    Aligned,
    Differences,
    Incumbent,
    Key,
    NotRecords,
    RecordFormat,
    Table,
    TableTally,
    VotedField,
    align,
    has_key,
    pack_records,
    pack_versions,
    record_format,
    text_style,
    unpack_records,
    vote_key,
    vote_table,
)
from .vdx import Standing
from .vdx.columns import uses_vdx, vdx_judge
from .versions import (
    ColumnPlan,
    ParsedVersion,
    TooFewReadable,
    parse_version,
    parse_versions,
    plan_columns,
    rewrite_notes,
    write_result,
)

_A = {"records": "a list of records", "document": "a document that is no list of records"}


class DisputedCells(Sequence[Cell]):
    """The cells in which nodes differ, first those about columns, then by record and field; made lazily."""

    def __init__(self, aligned: Aligned, differences: Sequence[Differences], columns: Sequence[Cell]) -> None:
        self._aligned, self._differences, self._columns = aligned, differences, columns
        places = [
            (cell, field, row)
            for field, each in enumerate(differences)
            for row, cell in enumerate(each.cells["cell"])
        ]
        self._order = sorted(places)

    def __len__(self) -> int:
        return len(self._columns) + len(self._order)

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
        return self._cell(*self._order[number - len(self._columns)])

    def _cell(self, place: int, field: int, row: int) -> Cell:
        found = self._differences[field]
        chosen, why, contested = found.cells.row(row)[1:]
        values: dict[str, str | None] = {}
        for number, version in enumerate(self._aligned.versions):
            there, value = self._aligned.value(number, found.field, place)
            if why == "row":
                values |= dict.fromkeys(version.nodes, "row" if there else None)
            elif there:
                values |= dict.fromkeys(version.nodes, value)
        name = WHOLE if found.field == RECORD else found.field
        return Cell(self._aligned.keys.row(place), name, values, chosen, why, contested)


@dataclass(frozen=True, slots=True)
class RecordVote:
    """What `decide_file` was asked about a record file."""

    how: RecordFormat
    rule: FileRule
    versions: Mapping[str, bytes]
    incumbent: bytes | None
    weights: Mapping[str, float]
    error: float
    definition: VoteDefinition
    standings: Mapping[str, Standing]

    @property
    def blank(self) -> str:
        """What an undecided cell says."""
        return "" if self.how.tabular else "null"


def decide_records(ask: RecordVote) -> FileDecision:
    """Raises TooFewReadable."""
    readings, abstained = parse_versions(ask.versions, ask.how, ask.rule, ask.weights)
    _check_majority(abstained, ask)
    readings = _of_one_shape(readings, abstained, ask)
    readings, key = _keyed(readings, abstained, ask)
    _check_majority(abstained, ask)
    return _decided(readings, key, abstained, ask)


def _check_majority(abstained: Mapping[str, str], ask: RecordVote) -> None:
    if 2 * len(abstained) > len(ask.versions):
        raise TooFewReadable("; ".join(f"{node}: {why}" for node, why in sorted(abstained.items())))


def _of_one_shape(
    readings: list[ParsedVersion], abstained: dict[str, str], ask: RecordVote
) -> list[ParsedVersion]:
    shapes = {node: reading.shape for reading in readings for node in reading.version.nodes}
    if len(set(shapes.values())) < 2:
        return readings
    before = None if ask.incumbent is None else _parse(ask.incumbent, ask)
    shape, _ = elect(shapes, incumbent=None if before is None else before.shape, weights=ask.weights)
    if shape is None:
        raise TooFewReadable("as many have a list of records as have another document")
    for node, other in shapes.items():
        if other != shape:
            abstained[node] = f"most have {_A[shape]}, and it has {_A[other]}"
    return [reading for reading in readings if reading.shape == shape]


def _keyed(
    readings: list[ParsedVersion], abstained: dict[str, str], ask: RecordVote
) -> tuple[list[ParsedVersion], Key]:
    """The key, and the readings in which it holds."""
    if readings and readings[0].shape == "document":
        return readings, Key(("path",), "inferred")
    tables, votes = [each.version.table for each in readings], [each.version.votes for each in readings]
    if not ask.rule.key:  # what is expected to differ, or does not count, cannot identify records
        tables = [each.drop(*ask.rule.ignore, *ask.rule.volatile, strict=False) for each in tables]
    try:
        key, bad = vote_key(tables, votes, ask.rule.key)
    except NotRecords as why:
        raise TooFewReadable(str(why)) from None
    for number, fault in bad.items():
        abstained |= dict.fromkeys(readings[number].version.nodes, fault)
    return [reading for number, reading in enumerate(readings) if number not in bad], key


def _parse(content: bytes, ask: RecordVote) -> ParsedVersion | None:
    try:
        return parse_version(content, ask.how, ask.rule)
    except NotRecords:
        return None


@dataclass(slots=True)
class PreviousTruth:
    """The ground truth so far, parsed when it is first asked for, and only used if it has the key."""

    ask: RecordVote
    key: Key
    like: ParsedVersion
    table: Table | None = None
    done: bool = False

    def read(self) -> Table | None:
        if not self.done:
            self.done = True
            found = None if self.ask.incumbent is None else _parse(self.ask.incumbent, self.ask)
            if (
                found is not None
                and found.shape == self.like.shape
                and has_key(found.version.table, self.key)
            ):
                self.table = found.version.table
        return self.table

    def columns(self) -> list[str] | None:
        table = self.read()
        return None if table is None else table.columns

    def manner(self) -> Hashable | None:
        table = self.read()
        if table is None or self.ask.incumbent is None:
            return None
        return text_style(self.ask.incumbent, self.ask.how, table)


def _decided(
    readings: list[ParsedVersion], key: Key, abstained: dict[str, str], ask: RecordVote
) -> FileDecision:
    before = PreviousTruth(ask, key, readings[0])
    made = plan_columns(readings, key, ask.rule, ask.how, before.columns, ask.weights)
    vote = _vote_whole if ask.rule.atomic == "record" and readings[0].shape == "records" else _vote_fields
    table, votes, aligned = vote(readings, key, made, before, ask)
    result = _with_columns(table, made, ask.how, document=readings[0].shape == "document")
    content = write_result(result, readings, ask.how, ask.rule, key, before.manner, ask.weights)
    return FileDecision(
        content,
        "records",
        key,
        DisputedCells(aligned, votes.differences, made.cells),
        _tallies(readings, votes, made),
        votes.conflicts + made.conflicts,
        [*_notes(key, ask), *rewrite_notes(result, readings, ask.how)],
        abstained,
    )


def _vote_fields(
    readings: Sequence[ParsedVersion], key: Key, made: ColumnPlan, before: PreviousTruth, ask: RecordVote
) -> tuple[Table, TableTally, Aligned]:
    aligned = align([reading.version for reading in readings], key)
    return *_vote(aligned, made.fields, Incumbent(before.read, aligned, key), readings, ask), aligned


def _vote_whole(
    readings: Sequence[ParsedVersion], key: Key, made: ColumnPlan, before: PreviousTruth, ask: RecordVote
) -> tuple[Table, TableTally, Aligned]:
    """Each record as one value; volatile fields are decided beside it."""
    names = [each.name for each in made.fields if not each.volatile]
    versions = pack_versions([reading.version for reading in readings], names)
    aligned = align(versions, key)

    def packed() -> Table | None:
        table = before.read()
        return None if table is None else pack_records(table, names)

    record = VotedField(RECORD, tuple(range(len(versions))))
    fields = [record, *(each for each in made.fields if each.volatile)]
    table, votes = _vote(aligned, fields, Incumbent(packed, aligned, key), readings, ask)
    return unpack_records(table, versions, key, names, ask.blank), votes, aligned


def _vote(
    aligned: Aligned,
    fields: Sequence[VotedField],
    truth: Incumbent,
    readings: Sequence[ParsedVersion],
    ask: RecordVote,
) -> tuple[Table, TableTally]:
    nodes = [each.version.nodes for each in readings]
    judge = vdx_judge(ask.definition, nodes, ask.standings, ask.error) if uses_vdx(ask.definition) else None
    return vote_table(aligned, fields, truth, error=ask.error, blank=ask.blank, judge=judge)


def _with_columns(table: Table, made: ColumnPlan, how: RecordFormat, *, document: bool) -> Table:
    """The columns in the order of the heading; of JSON without fields that no record has."""
    if how.tabular or document or not table.height:
        return table.select(made.columns)
    filled = [name for name in made.columns if table[name].null_count() < table.height]
    return table.select(filled)


def _tallies(readings: Sequence[ParsedVersion], votes: TableTally, made: ColumnPlan) -> dict[str, Tally]:
    tallies = {
        node: Tally(votes.cells[number] + len(made.cells), votes.differing[number] + made.differing[node])
        for number, reading in enumerate(readings)
        for node in reading.version.nodes
    }
    return dict(sorted(tallies.items()))


def _notes(key: Key, ask: RecordVote) -> list[str]:
    notes = []
    if key.source == "position":
        notes.append("no column tells the records apart, so they were matched by their place in the file")
    if ask.rule.ignore:
        notes.append(f"left out: {', '.join(ask.rule.ignore)}")
    return notes


def decide_opaque(
    versions: Mapping[str, bytes], *, incumbent: bytes | None, weights: Mapping[str, float]
) -> FileDecision:
    """Elects one of the versions as it is; the evidence has their SHA-256."""
    chosen, why = elect(versions, incumbent=incumbent, weights=weights)
    votes = {
        node: Tally(1, int(chosen is not None and content != chosen)) for node, content in versions.items()
    }
    cells: list[Cell] = []
    if any(content != chosen for content in versions.values()):
        values: dict[str, str | None] = {node: _digest(content) for node, content in versions.items()}
        named = None if chosen is None else _digest(chosen)
        behind = sum(content == chosen for content in versions.values())
        cells.append(Cell((), "", values, named, why, contested=2 * behind <= len(versions)))
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
) -> FileDecision:
    """The file's content in ground truth, and how it was decided. The order of the nodes does not matter.

    A record file of which most versions cannot be read as records is decided as a whole, like any other file.

    Args:
        versions: node → content, of the nodes that have the file; at least one.
        incumbent: the content in ground truth so far, which settles ties.
        weights: settle the ties that are left; a node without one has weight 1.
        standings: the nodes' history with this file, for definitions that use VDX.
    """
    rule, how = definition.rule_for(path), record_format(path)
    if how is None or rule.opaque:
        return decide_opaque(versions, incumbent=incumbent, weights=weights)
    error = definition.params.error if rule.error is None else rule.error
    try:
        return decide_records(
            RecordVote(how, rule, versions, incumbent, weights, error, definition, standings or {})
        )
    except TooFewReadable as why:
        whole = decide_opaque(versions, incumbent=incumbent, weights=weights)
        whole.notes.append(f"decided as a whole: {why}")
        return whole
