"""How one value of the ground truth was decided, in words and with every node's value.

A value that the nodes do not differ in, read from the result itself.

How one value of the ground truth came about, in words and with what every node said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, Field

from mao_git import Clone
from mao_shared.errors import InvalidInput, NotFound
from mao_shared.json_text import parse_json, render_json, unmarked
from mao_shared.store.protocol import cursor_invalid

from . import records
from .audit import find_unattested
from .election import WHOLE
from .evidence import Evidence, FileEvidence, cells_in, cells_path
from .records import Key, NotRecords, RecordFormat
from .round_history import DecidedRound
from .tree_vote import RECORDS_MAX


def value_in_result(
    clone: Clone,
    decided: DecidedRound,
    described: FileEvidence | None,
    file: str,
    meant: Sequence[Sequence[str]],
    field: str,
) -> str | None:
    """The value of a field of a record, whose key is one of those `meant`; of a whole file git's id of it.

    Raises NotFound where there is none, InvalidInput where the file is not one of records.
    """
    entry = clone.entry(decided.commit, file)
    if entry is None:
        raise _nothing(decided, f"ground truth has no file {file!r}, and no node brought one")
    how = records.format_of(file)
    if how is None or not field:
        return entry.id
    key, row = _record(clone, decided, described, file, entry.id, how, meant)
    if row is None:
        columns = ", ".join(key.columns) or "its number, from 1"
        raise _nothing(decided, f"{file!r} has no record {','.join(meant[-1])!r}; the key is {columns}")
    if field not in row:
        raise _nothing(decided, f"{file!r} has no field {field!r}; it has {', '.join(list(row)[:20])}")
    return row[field]


def _record(
    clone: Clone,
    decided: DecidedRound,
    described: FileEvidence | None,
    file: str,
    content: str,
    how: RecordFormat,
    meant: Sequence[Sequence[str]],
) -> tuple[Key, dict[str, str | None] | None]:
    """The record, by the key by which the file was voted or would have been."""
    if clone.blob_size(content) > RECORDS_MAX[how]:
        raise InvalidInput(
            f"{file!r} is too large to look into. Nodes agree on all cells that are not listed.",
            code="file-too-large",
            next=f"Read it: git show {decided.commit[:10]}:{file}",
        )
    try:
        table = records.load(clone.read_blob(content), how)
        voted_by = None if described is None else described.key
        declared = voted_by or decided.evidence.definition.rule_for(file).key
        by_position = voted_by is not None and not voted_by
        key = Key((), "position") if by_position else records.choose_key([table], declared)
    except NotRecords as reason:
        raise InvalidInput(
            f"{file!r} was voted as a whole, since it cannot be read as records: {reason}.",
            code="not-records",
            next=f"Ask for the file as a whole: --cell {file} '' ''",
        ) from None
    return key, next((row for parts in meant if (row := records.find_record(table, key, parts))), None)


def _nothing(decided: DecidedRound, why: str) -> NotFound:
    return NotFound(
        f"In round {decided.evidence.round} there is no such cell: {why}.",
        code="cell-not-found",
        next="See what the nodes differ in: maoctl vote show … --cells",
    )


_REASONS = {
    "unanimous": "all nodes that voted say the same",
    "majority": "more than half of the nodes that voted say so",
    "plurality": "more nodes say so than anything else, though no more than half",
    "tolerance": "it lies in the largest group of numbers that agree within the tolerance",
    "median": "the numbers agree in no group; it is the lower median of what was observed",
    "incumbent": "as many nodes say so as something else; it was the ground truth before",
    "weight": "as many nodes say so as something else; the nodes that say so weigh more",
    "row": "whether the record is there at all was decided",
    "vdx": "the algorithm that the vote's definition names chose it among the nodes' values",
    "computed": "it was computed from the nodes' values, as the vote's definition asks",
    "undecided": "no value has more voices or weight than any other: it stays empty",
}


class Explanation(BaseModel):
    """`values`: node → what it says (none: its record has no such field); `silent`: node → why nothing.

    Of the newest round, where commits that no round made follow it: `tip`, the value there, and `fault`, when
    it is another than was voted.
    """

    round: str
    commit: str
    file: str
    key: list[str]
    field: str
    values: dict[str, str | None]
    chosen: str | None
    why: str
    contested: bool
    words: str
    silent: dict[str, str] = Field(default_factory=dict)
    tip: str | None = None
    at_tip: str | None = None
    fault: str | None = None


class CellPage(BaseModel):
    """Cells over which nodes differ, as they were written down."""

    items: list[dict[str, Any]]
    cursor: str | None = None


def cells_of(clone: Clone, decided: DecidedRound) -> Iterator[dict[str, Any]]:
    """The cells of a round over which nodes differ; none where nobody differed."""
    try:
        content = clone.read_file(decided.commit, cells_path(decided.evidence.round))
    except NotFound:
        return iter(())
    return cells_in(content)


def page_of_cells(
    clone: Clone, decided: DecidedRound, file: str | None, limit: int, cursor: str | None
) -> CellPage:
    """`cursor`: how many cells come before the page. Raises InvalidInput (`cursor-invalid`)."""
    if cursor is not None and not re.fullmatch("[0-9]{1,18}", cursor):
        raise cursor_invalid()
    begin = int(cursor or 0)
    wanted = (each for each in cells_of(clone, decided) if file is None or each["file"] == file)
    items = [each for place, each in enumerate(wanted) if begin <= place <= begin + limit]
    more = len(items) > limit
    return CellPage(items=items[:limit], cursor=str(begin + limit) if more else None)


def explain_cell(clone: Clone, decided: DecidedRound, file: str, key: str, field: str) -> Explanation:
    """One cell. `key`: the record's key, of several columns joined by commas or as a JSON list; its number
    where records are matched by position; empty, with an empty field, for a file that was voted as a whole.

    Raises NotFound for a file, record or field that the result does not have and nobody had.
    """
    parts = _key_readings(key)
    described = next((each for each in decided.evidence.files if each.path == file), None)
    whole = decided.evidence.definition.rule_for(file).atomic == "record"
    fields = (field, WHOLE) if whole and field else (field,)
    for cell in cells_of(clone, decided) if described is not None else ():
        if cell["file"] == file and cell["field"] in fields and _is_key(cell["key"], parts):
            return _contested(decided, described, cell)
    return _agreed(clone, decided, described, file, parts, field)


def explain_ground_truth(
    clone: Clone, tip: str, decided: DecidedRound, file: str, key: str, field: str
) -> Explanation:
    """See `explain`; compares with what the file says now at `tip`."""
    told = explain_cell(clone, decided, file, key, field)
    strays = find_unattested(clone, tip)
    if strays is None or not strays.after or strays.newest_round != decided.evidence.round:
        return told
    told.tip = tip
    voted, told.at_tip = (_value_at(clone, each, decided, told, field) for each in (decided.commit, tip))
    if told.at_tip != voted:
        said = "has nothing there" if told.at_tip is None else f"says {told.at_tip!r}"
        told.fault = f"the file at the tip {tip[:10]} {said}, which no round decided: {strays.fault}"
    return told


def _value_at(clone: Clone, commit: str, decided: DecidedRound, told: Explanation, field: str) -> str | None:
    """What a commit of ground truth has there; git's id of a file that is not looked into."""
    described = next((each for each in decided.evidence.files if each.path == told.file), None)
    there = DecidedRound(commit=commit, evidence=decided.evidence)
    try:
        return value_in_result(clone, there, described, told.file, [told.key], field)
    except NotFound:
        return None
    except InvalidInput:
        entry = clone.entry(commit, told.file)
        return None if entry is None else entry.id


def _key_readings(key: str) -> list[list[str]]:
    """What a typed key may mean: it as a whole, split at commas, or a JSON list."""
    meant = [[key]] if key else [[]]
    if "," in key:
        meant.append(key.split(","))
    if key.startswith("["):
        try:
            meant.append(
                [
                    unmarked(each) if isinstance(each, str) else render_json(each, separators=(",", ":"))
                    for each in parse_json(key)
                ]
            )
        except (ValueError, TypeError, RecursionError):
            return meant
    return meant


def _is_key(observed: Sequence[str], meant: Sequence[Sequence[str]]) -> bool:
    return any(
        len(observed) == len(parts) and all(map(records.same_text, observed, parts)) for parts in meant
    )


def _silent(evidence: Evidence, described: FileEvidence | None) -> dict[str, str]:
    """Node → why it has no voice here."""
    silent = {
        node: f"abstained: {each.reason}" + (f", {each.detail}" if each.detail else "")
        for node, each in evidence.abstained.items()
    }
    if described is not None:
        voters = evidence.votes
        silent |= {node: "has no such file" for node in voters if node not in described.contents}
        silent |= {node: f"its file has no voice: {why}" for node, why in described.abstained.items()}
    return silent


def _contested(decided: DecidedRound, described: FileEvidence | None, cell: dict[str, Any]) -> Explanation:
    silent = _silent(decided.evidence, described)
    nobody = (each for each in decided.evidence.votes if each not in cell["values"])
    return Explanation(
        round=decided.evidence.round,
        commit=decided.commit,
        file=cell["file"],
        key=cell["key"],
        field=cell["field"],
        values=cell["values"],
        chosen=cell["chosen"],
        why=cell["why"],
        contested=cell["contested"],
        words=_left_out(described, cell) or _REASONS.get(cell["why"], cell["why"]),
        silent={**dict.fromkeys(nobody, "has no such record"), **silent},
    )


def _left_out(described: FileEvidence | None, cell: dict[str, Any]) -> str | None:
    """Why a file that was voted whole is not in the result."""
    whole = not cell["key"] and not cell["field"] and cell["chosen"] is None
    return "; ".join(described.notes) if whole and described is not None else None


def _agreed(
    clone: Clone,
    decided: DecidedRound,
    described: FileEvidence | None,
    file: str,
    meant: Sequence[Sequence[str]],
    field: str,
) -> Explanation:
    """A cell that is not among those that differ: what the result has there, if anything."""
    evidence = decided.evidence
    value = value_in_result(clone, decided, described, file, meant, field)
    words = _REASONS["unanimous"]
    if described is None:
        words = f"all {len(evidence.votes)} nodes that voted have the same file, which was taken unread"
    elif evidence.cells > evidence.cells_listed:
        words = (
            f"it is not among the first {evidence.cells_listed} of {evidence.cells} cells that differ, which "
            "are written down: either all say so, or it comes after those"
        )
    silent = _silent(evidence, described)
    return Explanation(
        round=evidence.round,
        commit=decided.commit,
        file=file,
        key=list(meant[-1]),
        field=field,
        values={node: value for node in evidence.votes if node not in silent},
        chosen=value,
        why="unanimous",
        contested=False,
        words=words,
        silent=silent,
    )
