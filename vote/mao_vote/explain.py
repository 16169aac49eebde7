"""How one value of the ground truth was decided, in words and with every node's value."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

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
from .evidence import cells_in, cells_path
from .records import Key, NotRecords, RecordFormat
from .tree_vote import RECORDS_MAX

_REASONS = {
    "unanimous": "all nodes that voted say the same",
    "majority": "more than half of the nodes that voted say so",
    "plurality": "more nodes say so than anything else, though no more than half",
    "tolerance": "it is in the largest group of numbers that agree within the tolerance",
    "median": "the numbers agree in no group; it is the lower median of what was observed",
    "incumbent": "as many nodes say so as something else; it was the ground truth before",
    "weight": "as many nodes say so as something else; the nodes that say so weigh more",
    "row": "whether the record is there at all was decided",
    "vdx": "the algorithm that the vote's definition names chose it among the nodes' values",
    "computed": "it was computed from the nodes' values, as the vote's definition asks",
    "undecided": "no value has more voices or weight than any other: it stays empty",
}


@dataclass(frozen=True, slots=True)
class _Question:
    """A cell as asked for. `keys`: what the typed key may mean. `described`: the file's evidence, if any."""

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
        return next((each for each in self.evidence.files if each.path == self.file), None)

    def means(self, key: Sequence[str]) -> bool:
        """Whether the typed key may mean this one."""
        return any(len(key) == len(parts) and all(map(records.same_text, key, parts)) for parts in self.keys)

    def value_at(self, commit: str) -> str | None:
        """The field's value in a commit; of a file voted as a whole git's id of it.

        Raises NotFound where there is none, InvalidInput where the file cannot be read as records.
        """
        entry = self.clone.entry(commit, self.file)
        if entry is None:
            raise self._not_found(f"ground truth has no file {self.file!r}, and no node submitted one")
        how = records.record_format(self.file)
        if how is None or not self.field:
            return entry.id
        key, row = self._record(commit, entry.id, how)
        if row is None:
            columns = ", ".join(key.columns) or "its number, from 1"
            wanted = ",".join(self.keys[-1])
            raise self._not_found(f"{self.file!r} has no record {wanted!r}; the key is {columns}")
        if self.field not in row:
            known = ", ".join(list(row)[:20])
            raise self._not_found(f"{self.file!r} has no field {self.field!r}; it has {known}")
        return row[self.field]

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
        self, commit: str, content: str, how: RecordFormat
    ) -> tuple[Key, dict[str, str | None] | None]:
        """The record, by the key by which the file was voted or would have been."""
        if self.clone.blob_size(content) > RECORDS_MAX[how]:
            raise InvalidInput(
                f"{self.file!r} is too large to look into. Nodes agree on all cells that are not listed.",
                code="file-too-large",
                next=f"Read it: git show {commit[:10]}:{self.file}",
            )
        try:
            table = records.load(self.clone.read_blob(content), how)
            voted_by = None if self.described is None else self.described.key
            declared = voted_by or self.evidence.definition.rule_for(self.file).key
            by_position = voted_by is not None and not voted_by
            key = Key((), "position") if by_position else records.choose_key([table], declared)
        except NotRecords as reason:
            raise InvalidInput(
                f"{self.file!r} was voted as a whole, since it cannot be read as records: {reason}.",
                code="not-records",
                next=f"Ask for the file as a whole: --cell {self.file} '' ''",
            ) from None
        found = (records.find_record(table, key, parts) for parts in self.keys)
        return key, next(filter(None, found), None)

    def _not_found(self, why: str) -> NotFound:
        return NotFound(
            f"In round {self.evidence.round} there is no such cell: {why}.",
            code="cell-not-found",
            next="See what the nodes differ in: maoctl vote show … --cells",
        )

    def silent(self) -> dict[str, str]:
        """Node → why it did not vote on the cell."""
        silent = {
            node: f"abstained: {each.reason}" + (f", {each.detail}" if each.detail else "")
            for node, each in self.evidence.abstained.items()
        }
        if (described := self.described) is not None:
            absent = (node for node in self.evidence.votes if node not in described.contents)
            silent |= dict.fromkeys(absent, "has no such file")
            silent |= {node: f"its file does not count: {why}" for node, why in described.abstained.items()}
        return silent

    def explanation(self, cell: ContestedCell, words: str, silent: dict[str, str]) -> Explanation:
        facts = {name: getattr(cell, name) for name in ContestedCell.model_fields}
        return Explanation(
            round=self.evidence.round, commit=self.decided.commit, words=words, silent=silent, **facts
        )

    def contested(self, cell: ContestedCell) -> Explanation:
        absent = (node for node in self.evidence.votes if node not in cell.values)
        words = _REASONS.get(cell.why, cell.why)
        if not cell.key and not cell.field and cell.chosen is None and self.described is not None:
            words = "; ".join(self.described.notes)  # why a file that was voted whole is not in the result
        return self.explanation(cell, words, {**dict.fromkeys(absent, "has no such record"), **self.silent()})

    def agreed(self) -> Explanation:
        """Of a cell that is not listed as contested: what the result has there."""
        value, evidence, silent = self.value_at(self.decided.commit), self.evidence, self.silent()
        words = _REASONS["unanimous"]
        if self.described is None:
            words = f"all {len(evidence.votes)} nodes that voted have the same file, which was taken unread"
        elif evidence.cells > evidence.cells_listed:
            words = (
                f"it is not among the first {evidence.cells_listed} of {evidence.cells} cells that differ, "
                "which are written down: either all say so, or it comes after those"
            )
        cell = ContestedCell(
            file=self.file,
            key=list(self.keys[-1]),
            field=self.field,
            values={node: value for node in evidence.votes if node not in silent},
            chosen=value,
            why="unanimous",
            contested=False,
        )
        return self.explanation(cell, words, silent)


def contested_cells(clone: Clone, decided: DecidedRound) -> Iterator[ContestedCell]:
    """The cells of a round over which nodes differ; empty where none differed."""
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
    wanted = (each for each in contested_cells(clone, decided) if file is None or each.file == file)
    items = list(islice(wanted, begin, begin + limit + 1))
    return CellPage(items=items[:limit], cursor=str(begin + limit) if len(items) > limit else None)


def explain_cell(clone: Clone, decided: DecidedRound, file: str, key: str, field: str) -> Explanation:
    """One cell of a round.

    Raises NotFound for a file, record or field that the result does not have and nobody had.

    Args:
        key: the record's key, of several columns joined by commas or as a JSON list; its number where
            records are matched by position; empty, as `field`, for a file that was voted as a whole.
    """
    asked = _Question(clone, decided, file, key_readings(key), field)
    is_whole_record = decided.evidence.definition.rule_for(file).atomic == "record"
    fields = (field, WHOLE) if is_whole_record and field else (field,)
    for cell in contested_cells(clone, decided) if asked.described is not None else ():
        if cell.file == file and cell.field in fields and asked.means(cell.key):
            return asked.contested(cell)
    return asked.agreed()


def explain_ground_truth(
    clone: Clone, tip: str, decided: DecidedRound, file: str, key: str, field: str
) -> Explanation:
    """As `explain_cell`; also compares with what the file says now at `tip`."""
    explanation = explain_cell(clone, decided, file, key, field)
    unattested = find_unattested(clone, tip)
    if unattested is None or not unattested.after or unattested.newest_round != decided.evidence.round:
        return explanation
    asked = _Question(clone, decided, explanation.file, [explanation.key], field)
    voted, at_tip = (asked.value_or_id(commit) for commit in (decided.commit, tip))
    explanation.tip, explanation.at_tip = tip, at_tip
    if at_tip != voted:
        says = "has no such value" if at_tip is None else f"says {at_tip!r}"
        explanation.fault = (
            f"the file at the tip {tip[:10]} {says}, which no round decided: {unattested.fault}"
        )
    return explanation


def key_readings(key: str) -> list[list[str]]:
    """What a typed key may mean: it as a whole, split at commas, or a JSON list."""
    readings = [[key]] if key else [[]]
    if "," in key:
        readings.append(key.split(","))
    if key.startswith("["):
        try:
            readings.append(
                [
                    unmarked(each) if isinstance(each, str) else render_json(each, separators=(",", ":"))
                    for each in parse_json(key)
                ]
            )
        except (ValueError, TypeError, RecursionError):
            return readings
    return readings
