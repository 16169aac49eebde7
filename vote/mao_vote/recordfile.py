"""A record file: its versions read, brought together by key, voted, and written as it was observed."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from mao_shared.models.round import FileRule, VoteDefinition

from .elect import elect
from .election import FileDecision, Tally
from .file_vote import Cells
from .layout import Plan, anew, plan, written
from .records import (
    RECORD,
    Aligned,
    Field,
    Format,
    Judge,
    Key,
    NotRecords,
    Table,
    Truth,
    Votes,
    align,
    bind,
    bind_all,
    has_key,
    loosen,
    manner_of,
    vote_key,
    vote_table,
)
from .vdx import Standing
from .vdx.judging import asks_for_vdx, judge_of
from .versions import Reading, TooFewReadable, read, read_all


@dataclass(frozen=True, slots=True)
class Ballot:
    """What `decide_file` was asked, of a record file."""

    how: Format
    rule: FileRule
    versions: Mapping[str, bytes]
    incumbent: bytes | None
    weights: Mapping[str, float]
    error: float
    definition: VoteDefinition
    standings: Mapping[str, Standing]


def decide_records(ask: Ballot) -> FileDecision:
    """Raises TooFewReadable."""
    readings, abstained = read_all(ask.versions, ask.how, ask.rule, ask.weights)
    _enough(abstained, ask)
    readings = _of_one_shape(readings, abstained, ask)
    readings, key = _keyed(readings, abstained, ask)
    _enough(abstained, ask)
    return _decided(readings, key, abstained, ask)


def _enough(abstained: Mapping[str, str], ask: Ballot) -> None:
    if 2 * len(abstained) > len(ask.versions):
        raise TooFewReadable("; ".join(f"{node}: {why}" for node, why in sorted(abstained.items())))


def _of_one_shape(readings: list[Reading], abstained: dict[str, str], ask: Ballot) -> list[Reading]:
    shapes = {node: reading.shape for reading in readings for node in reading.version.nodes}
    if len(set(shapes.values())) < 2:
        return readings
    before = None if ask.incumbent is None else _reading(ask.incumbent, ask)
    shape, _ = elect(shapes, incumbent=None if before is None else before.shape, weights=ask.weights)
    if shape is None:
        raise TooFewReadable("as many have a list of records as have another document")
    for node, other in shapes.items():
        if other != shape:
            abstained[node] = f"most have {_A[shape]}, and it has {_A[other]}"
    return [reading for reading in readings if reading.shape == shape]


_A = {"records": "a list of records", "document": "a document that is no list of records"}


def _keyed(readings: list[Reading], abstained: dict[str, str], ask: Ballot) -> tuple[list[Reading], Key]:
    """The key, and the readings in which it holds."""
    if readings and readings[0].shape == "document":
        return readings, Key(("path",), "inferred")
    tables, votes = [each.version.table for each in readings], [each.version.votes for each in readings]
    if not ask.rule.key:  # what is expected to differ, or does not count, tells no records apart
        tables = [each.drop(*ask.rule.ignore, *ask.rule.volatile, strict=False) for each in tables]
    try:
        key, bad = vote_key(tables, votes, ask.rule.key)
    except NotRecords as why:
        raise TooFewReadable(str(why)) from None
    for number, fault in bad.items():
        abstained |= dict.fromkeys(readings[number].version.nodes, fault)
    return [reading for number, reading in enumerate(readings) if number not in bad], key


def _reading(content: bytes, ask: Ballot) -> Reading | None:
    try:
        return read(content, ask.how, ask.rule)
    except NotRecords:
        return None


@dataclass(slots=True)
class Before:
    """The ground truth so far, read once it is asked for and only if it has the key."""

    ask: Ballot
    key: Key
    like: Reading
    table: Table | None = None
    done: bool = False

    def read(self) -> Table | None:
        if not self.done:
            self.done = True
            found = None if self.ask.incumbent is None else _reading(self.ask.incumbent, self.ask)
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
        return manner_of(self.ask.incumbent, self.ask.how, table)


def _decided(readings: list[Reading], key: Key, abstained: dict[str, str], ask: Ballot) -> FileDecision:
    before = Before(ask, key, readings[0])
    made = plan(readings, key, ask.rule, ask.how, before.columns, ask.weights)
    vote = _vote_whole if ask.rule.atomic == "record" and readings[0].shape == "records" else _vote_fields
    table, votes, aligned = vote(readings, key, made, before, ask)
    result = _with_columns(table, made, ask.how, document=readings[0].shape == "document")
    content = written(
        result,
        readings,
        ask.how,
        ask.rule,
        key,
        before.manner,
        ask.weights,
    )
    return FileDecision(
        content,
        "records",
        key,
        Cells(aligned, votes.differences, made.cells),
        _tallies(readings, votes, made),
        votes.conflicts + made.conflicts,
        [*_notes(key, ask), *anew(result, readings, ask.how)],
        abstained,
    )


def _vote_fields(
    readings: Sequence[Reading], key: Key, made: Plan, before: Before, ask: Ballot
) -> tuple[Table, Votes, Aligned]:
    aligned = align([reading.version for reading in readings], key)
    return *_vote(aligned, made.fields, Truth(before.read, aligned, key), readings, ask), aligned


def _vote_whole(
    readings: Sequence[Reading], key: Key, made: Plan, before: Before, ask: Ballot
) -> tuple[Table, Votes, Aligned]:
    """Each record as one value; what is volatile is taken over beside it."""
    names = [each.name for each in made.fields if not each.volatile]
    versions = bind_all([reading.version for reading in readings], names)
    aligned = align(versions, key)

    def bound() -> Table | None:
        table = before.read()
        return None if table is None else bind(table, names)

    record = Field(RECORD, tuple(range(len(versions))))
    fields = [record, *(each for each in made.fields if each.volatile)]
    table, votes = _vote(aligned, fields, Truth(bound, aligned, key), readings, ask)
    return loosen(table, versions, key, names, _blank(ask)), votes, aligned


def _vote(
    aligned: Aligned, fields: Sequence[Field], truth: Truth, readings: Sequence[Reading], ask: Ballot
) -> tuple[Table, Votes]:
    judge = _judge(readings, ask)
    return vote_table(aligned, fields, truth, error=ask.error, blank=_blank(ask), judge=judge)


def _blank(ask: Ballot) -> str:
    return "" if ask.how.tabular else "null"


def _judge(readings: Sequence[Reading], ask: Ballot) -> Judge | None:
    if not asks_for_vdx(ask.definition):
        return None
    return judge_of(ask.definition, [each.version.nodes for each in readings], ask.standings, ask.error)


def _with_columns(table: Table, made: Plan, how: Format, *, document: bool) -> Table:
    """In the order of the heading; without fields that no record has."""
    if how.tabular or document or not table.height:
        return table.select(made.columns)
    filled = [name for name in made.columns if table[name].null_count() < table.height]
    return table.select(filled)


def _tallies(readings: Sequence[Reading], votes: Votes, made: Plan) -> dict[str, Tally]:
    tallies = {
        node: Tally(votes.said[number] + len(made.cells), votes.lost[number] + made.lost[node])
        for number, reading in enumerate(readings)
        for node in reading.version.nodes
    }
    return dict(sorted(tallies.items()))


def _notes(key: Key, ask: Ballot) -> list[str]:
    notes = []
    if key.source == "position":
        notes.append("no column tells the records apart, so they were matched by their place in the file")
    if ask.rule.ignore:
        notes.append(f"left out: {', '.join(ask.rule.ignore)}")
    return notes
