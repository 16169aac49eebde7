"""Explains how a value of the ground truth was decided, in words and with every node's value."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from mao_git import Clone
from mao_shared.errors import InvalidInput, NotFound
from mao_shared.json_text import parse_json, render_json, unmarked
from mao_shared.models.evidence import (
    CellPage,
    ContestedCell,
    DecidedRound,
    Evidence,
    Explanation,
    FileEvidence,
)
from mao_shared.store.protocol import cursor_invalid

from . import records
from .audit import find_unattested
from .election import WHOLE
from .evidence import cells_path, parse_cells
from .ledger import read_ledger
from .records import Key, NotRecords, RecordFormat
from .round_history import find_round
from .tree_vote import MAX_RECORDS_BYTES

_REASONS = {
    "unanimous": "all nodes that voted have the same value",
    "majority": "more than half of the nodes that voted have this value",
    "plurality": "this is the most frequent value, but not that of more than half of the nodes",
    "tolerance": "it is in the largest group of numbers that agree within the tolerance",
    "median": "no group of numbers agrees; it is the lower median of the observed values",
    "incumbent": "the vote was tied; this is the value of the previous ground truth",
    "weight": "the vote was tied; the nodes with this value have more weight",
    "reliability": "fewer nodes have this value, but it has most voices: nodes that err alike share one, and "
    "reliable nodes have more",
    "row": "the decision was whether the record exists",
    "vdx": "the algorithm in the vote definition chose it from the nodes' values",
    "computed": "it was computed from the nodes' values, as the vote definition requires",
    "tie": "the vote was tied; the nodes with this value are right more often elsewhere in this field, or it "
    "is the first of the tied values in alphabetical order",
    "undecided": "the vote is tied, also by weight: the value stays empty",
}


@dataclass(frozen=True, slots=True)
class _Question:
    """A cell to explain. `keys` are the possible readings of the key as typed."""

    clone: Clone
    decided: DecidedRound
    file: str
    keys: Sequence[Sequence[str]]
    field: str

    @property
    def evidence(self) -> Evidence:
        return self.decided.evidence

    @property
    def described(self) -> FileEvidence | None:
        """The file's entry in the evidence; None if all nodes have the same file."""
        return next((entry for entry in self.evidence.files if entry.path == self.file), None)

    def matches(self, key: Sequence[str]) -> bool:
        """True if a reading of the typed key is this key."""
        return any(len(key) == len(parts) and all(map(records.same_text, key, parts)) for parts in self.keys)

    def answers(self, cell: ContestedCell, document: Any) -> bool:
        """True if the decision on a cell is the one asked for, or was taken with what is around it.

        Args:
            document: ground truth's, if the file is one that was voted by path.
        """
        if document is not None:
            path, asked = _pointer(document, cell.key[0]), _pointer(document, self.keys[0][0])
            if cell.field == self.field and path == asked:
                return True
            return cell.field in ("", self.field) and records.is_inside(asked, path)
        is_whole_record = self.evidence.definition.rule_for(self.file).atomic == "record"
        fields = {self.field, WHOLE if is_whole_record and self.field else self.field}
        if self.field.startswith("/"):
            fields.add(records.top_field(self.field))
        return cell.field in fields and self.matches(cell.key)

    def is_around(self, cell: ContestedCell, document: Any) -> bool:
        """True if a cell is inside of what is asked for."""
        if document is not None:
            return records.is_inside(_pointer(document, cell.key[0]), _pointer(document, self.keys[0][0]))
        inside = cell.field.startswith("/") and records.top_field(cell.field) == self.field
        return inside and self.matches(cell.key)

    def document(self) -> Any:
        """Return the ground truth's JSON document, None for a file that was not voted by path."""
        described = self.described
        is_by_path = described is not None and described.how == "records" and described.key == ["path"]
        if not is_by_path or self.evidence.rules < 4 or not (self.keys[0] and self.field):
            return None
        entry = self.clone.entry(self.decided.commit, self.file)
        if entry is None or self.clone.blob_size(entry.id) > MAX_RECORDS_BYTES[RecordFormat.JSON]:
            return None
        try:
            document = records.load_json_document(self.clone.read_blob(entry.id))
        except NotRecords:
            return None
        return None if records.is_record_list(document) else document

    def value_at(self, commit: str) -> str | None:
        """Return the field's value in a commit; for a file that was voted as a whole, its blob id.

        Raises NotFound if there is none, InvalidInput if the file cannot be read as records.
        """
        entry = self.clone.entry(commit, self.file)
        if entry is None:
            raise self.not_found(f"ground truth has no file {self.file!r}, and no node submitted one")
        file_format = records.record_format(self.file)
        if file_format is None or not self.field:
            return entry.id
        key, row = self._record(commit, entry.id, file_format)
        if row is None and (found := self._value_inside(entry.id, file_format)) is not None:
            return found
        if row is None:
            columns = ", ".join(key.columns) or "its number, from 1"
            typed = ",".join(self.keys[-1])
            raise self.not_found(f"{self.file!r} has no record {typed!r}; the key is {columns}")
        if self.field not in row and self.field.startswith("/"):
            text = row.get(records.top_field(self.field))
            around = f"/{self.field.split('/')[1]}"
            value = None if text is None else records.find_value(parse_json(text), self.field[len(around) :])
            if value is not None:
                return records.cell_text(value[1])
        if self.field not in row:
            known = ", ".join(list(row)[:20])
            raise self.not_found(f"{self.file!r} has no field {self.field!r}; it has {known}")
        return row[self.field]

    def _value_inside(self, content: str, file_format: RecordFormat) -> str | None:
        """Return the JSON text of what is at the typed path of a document, None if there is nothing."""
        if file_format is not RecordFormat.JSON or not self.keys[0] or self.field != "value":
            return None
        document = records.load_json_document(self.clone.read_blob(content))
        found = None if records.is_record_list(document) else records.find_value(document, self.keys[0][0])
        return None if found is None else records.cell_text(found[1])

    def value_or_id(self, commit: str) -> str | None:
        """Return the value in a commit: a blob id if the file cannot be read, None if it is absent."""
        try:
            return self.value_at(commit)
        except NotFound:
            return None
        except InvalidInput:
            entry = self.clone.entry(commit, self.file)
            return None if entry is None else entry.id

    def _record(
        self, commit: str, content: str, file_format: RecordFormat
    ) -> tuple[Key, dict[str, str | None] | None]:
        """Return the key by which the file was or would be voted, and the record."""
        if self.clone.blob_size(content) > MAX_RECORDS_BYTES[file_format]:
            raise InvalidInput(
                f"{self.file!r} is too large to be read here. Nodes agree on all cells that are not listed.",
                code="file-too-large",
                next=f"Read it: git show {commit[:10]}:{self.file}",
            )
        try:
            table = records.load(self.clone.read_blob(content), file_format)
            voted_by = None if self.described is None else self.described.key
            rule = self.evidence.definition.rule_for(self.file)
            declared = voted_by or rule.key
            if any(name.startswith("/") for name in declared):
                layout = records.plan_object_fields([table], [1], rule)
                table = records.with_object_fields(table, layout.object_fields, records.Reader(rule))
            by_position = voted_by is not None and not voted_by
            key = Key((), "position") if by_position else records.choose_key([table], declared, rule.fold)
        except NotRecords as reason:
            raise InvalidInput(
                f"{self.file!r} was voted as a whole, since it cannot be read as records: {reason}.",
                code="not-records",
                next=f"Show the file as a whole: --cell {self.file} '' ''",
            ) from None
        # a node may spell the key in another case, which the evidence does not name
        manners = [key, replace(key, fold=("case", "space"), nfc=True)] if self.evidence.rules > 3 else [key]
        found = (records.find_record(table, manner, parts) for manner in manners for parts in self.keys)
        return key, next(filter(None, found), None)

    def not_found(self, why: str) -> NotFound:
        return NotFound(
            f"Round {self.evidence.round} has no such cell: {why}.",
            code="cell-not-found",
            next="List the cells in which nodes differ: maoctl vote show … --cells",
        )

    def silent(self) -> dict[str, str]:
        """Return by node why it did not vote on the cell."""
        silent = {
            node: f"abstained: {entry.reason}" + (f", {entry.detail}" if entry.detail else "")
            for node, entry in self.evidence.abstained.items()
        }
        if (described := self.described) is not None:
            absent = (node for node in self.evidence.votes if node not in described.contents)
            silent |= dict.fromkeys(absent, "has no such file")
            silent |= {node: f"its file does not count: {why}" for node, why in described.abstained.items()}
        return silent

    def is_observation(self, text: str | None) -> bool:
        """True if a value counts as an observation; the cell is known to have at most one other value."""
        declared = self.evidence.definition.rule_for(self.file).fields
        rule = records.field_rule(declared, self.field, declared.get("*"))
        return rule.missing_is_value or (text is not None and records.may_be_observed(text, rule.missing))

    def explanation(self, cell: ContestedCell, words: str, silent: dict[str, str]) -> Explanation:
        fields = {name: getattr(cell, name) for name in ContestedCell.model_fields}
        names = {self.field}
        if cell.key and cell.key[0].startswith("/"):  # a value of a document, voted with those like it
            pattern = records.leaf_pattern(cell.key[0])
            names |= {pattern, pattern.rpartition("/")[2]}
        described = self.described
        compared = (
            next((found for found in described.fields if found.name in names), None) if described else None
        )
        groups = [group for group in described.groups if names & set(group.fields)] if described else []
        return Explanation(
            round=self.evidence.round,
            commit=self.decided.commit,
            words=words,
            silent=silent,
            compared=compared,
            groups=groups,
            **fields,
        )

    def contested(self, cell: ContestedCell) -> Explanation:
        absent = (node for node in self.evidence.votes if node not in cell.values)
        words = _REASONS.get(cell.why, cell.why)
        if cell.why == "row" and cell.observed is not None:
            voters = len(self.evidence.votes) - len(self.described.abstained if self.described else ())
            outcome = "kept" if cell.chosen else "left out"
            words += f": {cell.observed} of {voters} nodes have it, and it is {outcome}"
        if not cell.key and not cell.field and cell.chosen is None and self.described is not None:
            words = "; ".join(
                [*self.described.warnings, *self.described.notes]
            )  # why a file voted as a whole is not in the result
        return self.explanation(cell, words, {**dict.fromkeys(absent, "has no such record"), **self.silent()})

    def agreed(self) -> Explanation:
        """Explain a cell that is not listed as contested."""
        value, evidence, silent = self.value_at(self.decided.commit), self.evidence, self.silent()
        words = _REASONS["unanimous"]
        voters = [node for node in evidence.votes if node not in silent]
        values, observed = dict.fromkeys(voters, value), None
        if self.described is not None and evidence.rules > 3:
            values |= {node: self.value_or_id(evidence.commits[node]) for node in voters}
            observed = sum(self.is_observation(text) for text in values.values())
            if observed < len(voters):
                words = f"all nodes that observed it ({observed} of {len(voters)}) have this value"
        if self.described is None:
            words = f"all {len(evidence.votes)} nodes that voted have the same file, which was not parsed"
        elif evidence.cells > evidence.cells_listed:
            words = (
                f"it is not among the first {evidence.cells_listed} of {evidence.cells} cells that differ, "
                "which are listed: either all nodes have this value, or the cell comes after those"
            )
        cell = ContestedCell(
            file=self.file,
            key=list(self.keys[-1]),
            field=self.field,
            values=values,
            chosen=value,
            why="unanimous",
            contested=False,
            observed=observed,
        )
        return self.explanation(cell, words, silent)


def contested_cells(clone: Clone, decided: DecidedRound) -> Iterator[ContestedCell]:
    """Iterate over the cells of a round in which nodes differ."""
    try:
        content = clone.read_file(decided.commit, cells_path(decided.evidence.round))
    except NotFound:
        return iter(())
    return parse_cells(content)


def page_of_cells(
    clone: Clone,
    decided: DecidedRound,
    file: str | None,
    limit: int,
    cursor: str | None,
    *,
    contested: bool = False,
) -> CellPage:
    """Return a page of the cells in which nodes differ, after the first `cursor` ones.

    Raises InvalidInput, and NotFound for a file that neither ground truth nor any node has.

    Args:
        file: only its cells.
        contested: only cells in which no value has a majority.
    """
    if cursor is not None and not re.fullmatch("[0-9]{1,18}", cursor):
        raise cursor_invalid()
    start = int(cursor or 0)
    if file is not None:
        _require_file(clone, decided, file)
    typed = (
        cell
        for cell in contested_cells(clone, decided)
        if file in (None, cell.file) and (cell.contested or not contested)
    )
    items = list(islice(typed, start, start + limit + 1))
    return CellPage(items=items[:limit], cursor=str(start + limit) if len(items) > limit else None)


def _require_file(clone: Clone, decided: DecidedRound, file: str) -> None:
    described = (entry.path for entry in decided.evidence.files)
    if file not in described and clone.entry(decided.commit, file) is None:
        raise NotFound(
            f"Round {decided.evidence.round} has no file {file!r}.",
            code="path-not-found",
            next="List the files over which nodes differ: maoctl vote show … (without --file)",
        )


def explain_cell(clone: Clone, decided: DecidedRound, file: str, key: str, field: str) -> Explanation:
    """Explain one cell of a round.

    Raises NotFound for a file, record or field that neither the result nor any node has.

    Args:
        key: the record's key, of several columns joined by commas or as a JSON list; its number where
            records are matched by position; empty, as `field`, for a file that was voted as a whole.
    """
    decided = _deciding_round(clone, decided, file)
    question = _Question(clone, decided, file, key_readings(key), field)
    document = question.document()
    inside: dict[str, None] = {}
    for cell in contested_cells(clone, decided) if question.described is not None else ():
        if cell.file != file:
            continue
        if question.answers(cell, document):
            return question.contested(cell)
        if question.is_around(cell, document):
            inside[cell.field if document is None else cell.key[0]] = None
    if inside:
        raise question.not_found(
            f"what is there was decided by what is inside; nodes differ in {', '.join(list(inside)[:10])}"
        )
    return question.agreed()


def _deciding_round(clone: Clone, decided: DecidedRound, file: str) -> DecidedRound:
    """Return the round that decided a file: an earlier one, if no node has changed the file since."""
    settled = read_ledger(clone, decided.commit, decided.evidence.rules).ledger.settled.get(file)
    if settled is None or settled.round == decided.evidence.round:
        return decided
    try:
        return find_round(clone, decided.commit, settled.round)
    except NotFound:  # the clone is shallow
        return decided


def _pointer(document: Any, path: str) -> str:
    """Return the JSON pointer of what a path leads to in a document; the path itself if there is nothing."""
    found = records.find_value(document, path)
    return path if found is None else found[0]


def explain_ground_truth(
    clone: Clone, tip: str, decided: DecidedRound, file: str, key: str, field: str
) -> Explanation:
    """Explain a cell like `explain_cell`, and compare it with the file at `tip`."""
    explanation = explain_cell(clone, decided, file, key, field)
    unattested = find_unattested(clone, tip)
    if unattested is None or not unattested.after or unattested.newest_round != decided.evidence.round:
        return explanation
    question = _Question(clone, decided, explanation.file, [explanation.key], field)
    decided_value, at_tip = (question.value_or_id(commit) for commit in (decided.commit, tip))
    explanation.tip, explanation.at_tip = tip, at_tip
    if at_tip != decided_value:
        statement = "has no value there" if at_tip is None else f"says {at_tip!r}"
        explanation.fault = (
            f"the file at the tip {tip[:10]} {statement}, which no round decided: {unattested.fault}"
        )
    return explanation


def key_readings(key: str) -> list[list[str]]:
    """Return the possible readings of a typed key: as a whole, split at commas, or a JSON list."""
    readings = [[key]] if key else [[]]
    if "," in key:
        readings.append(key.split(","))
    if key.startswith("["):
        try:
            readings.append(
                [
                    unmarked(part) if isinstance(part, str) else render_json(part, separators=(",", ":"))
                    for part in parse_json(key)
                ]
            )
        except (ValueError, TypeError, RecursionError):
            return readings
    return readings
