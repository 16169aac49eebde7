"""The evidence that a round writes into the dataset, so that its decisions can be inspected and recomputed.

`.mao/rounds/<id>.json` (Evidence), `.mao/rounds/<id>.cells.jsonl` (a contested cell a line, with every node's
value) and `.mao/history.json` (how often nodes agreed with the result, see ledger.py).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mao_git import TreeEntry
from mao_shared.models.common import STORED
from mao_shared.models.evidence import ContestedCell, Evidence, FileEvidence, Tally

from .election import Cell
from .records import Memory, extend_memory, record_format
from .tree_vote import OWN_FOLDER, FileVote

ROUNDS_FOLDER = f"{OWN_FOLDER}/rounds"
TRAILER = "MAO-Round"  # commit trailer with the round's id
MAX_FILES = 10_000  # files described one by one
MAX_CELLS = 100_000
MAX_CELL_BYTES = 64 << 20  # of all cells together
MAX_VALUE_CHARACTERS = 4096  # longer values are truncated
MAX_REMEMBERED_FIELDS = 200  # whose cells the ledger has
_DIGITS = re.compile(r"[0-9]+")
_TALLIES_IN_RULES_3 = {"__all__": {"shared": True}}
_NOT_IN_RULES_3: dict[str, Any] = {
    "definition": True,
    "contested": True,
    "votes": _TALLIES_IN_RULES_3,
    "files": {
        "__all__": {
            "contested": True,
            "fields": True,
            "warnings": True,
            "groups": True,
            "votes": _TALLIES_IN_RULES_3,
        }
    },
}


def evidence_path(round_id: str) -> str:
    return f"{ROUNDS_FOLDER}/{round_id}.json"


def cells_path(round_id: str) -> str:
    return f"{ROUNDS_FOLDER}/{round_id}.cells.jsonl"


def round_of_file(name: str) -> str:
    """Return the id of the round to which a file in ROUNDS_FOLDER belongs."""
    return name.removesuffix(".json").removesuffix(".cells.jsonl")


def dump_evidence(evidence: Evidence) -> bytes:
    """Return evidence as JSON, the same bytes on every node, without defaults of the definition."""
    left_out = _NOT_IN_RULES_3 if evidence.rules == 3 else {"definition": True}
    data = evidence.model_dump(mode="json", exclude=left_out)
    data["definition"] = evidence.definition.model_dump(mode="json", exclude_defaults=True)
    return (json.dumps(data, ensure_ascii=False, sort_keys=True, indent=1) + "\n").encode()


def load_evidence(content: bytes) -> Evidence:
    """Parse evidence. Raises ValueError (pydantic's ValidationError) if the bytes are not evidence."""
    return Evidence.model_validate_json(content, context=STORED)


def printable_path(path: str) -> str:
    """Return a path as valid text: bytes that are not UTF-8 are written as `\\xe9`."""
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")


def file_kind(path: str) -> str:
    """Return what paths have in common that differ only in digits."""
    return _DIGITS.sub("#", printable_path(path))


def describe(vote: FileVote) -> FileEvidence:
    """Return a file's entry in the evidence."""
    return FileEvidence(
        path=printable_path(vote.path),
        how=vote.how,
        why=vote.why,
        result=None if vote.placed is None else vote.placed.id,
        contents={node: entry.id for node, entry in sorted(vote.entries.items())},
        key=None if vote.key is None else list(vote.key.columns),
        key_source=None if vote.key is None else vote.key.source,
        votes=dict(sorted(vote.votes.items())),
        conflicts=vote.conflicts,
        cells=vote.differing_cells,
        contested=vote.contested,
        notes=vote.notes,
        warnings=vote.warnings,
        abstained=dict(sorted(vote.abstained.items())),
        fields=vote.fields,
        groups=vote.groups,
    )


def cell_line(path: str, cell: Cell) -> bytes:
    """Return a contested cell as a line of JSON. Nodes without the record or file are not in `values`."""
    observed = {} if cell.observed is None else {"observed": cell.observed}
    return _json_line(
        {
            "file": printable_path(path),
            "key": list(cell.key),
            "field": cell.field,
            "values": {node: _truncate(value) for node, value in sorted(cell.values.items())},
            "chosen": _truncate(cell.chosen),
            "why": cell.why,
            "contested": cell.contested,
            **observed,
        }
    )


def file_line(vote: FileVote) -> bytes:
    """Return a line like a cell's for a file that was voted as a whole; its values are git blob ids."""
    return _json_line(
        {
            "file": printable_path(vote.path),
            "key": [],
            "field": "",
            "values": {node: entry.id for node, entry in sorted(vote.entries.items())},
            "chosen": None if vote.placed is None else vote.placed.id,
            "why": vote.why,
            "contested": vote.contested > 0,
        }
    )


def _json_line(data: dict[str, Any]) -> bytes:
    return (json.dumps(data, ensure_ascii=False) + "\n").encode(errors="backslashreplace")


def parse_cells(content: bytes) -> Iterator[ContestedCell]:
    """Parse lines written by `cell_line` and `file_line`. Raises ValueError."""
    lines = (line for line in content.splitlines() if line)
    return (ContestedCell.model_validate_json(line, context=STORED) for line in lines)


def _truncate(value: str | None) -> str | None:
    return (
        value if value is None or len(value) <= MAX_VALUE_CHARACTERS else value[:MAX_VALUE_CHARACTERS] + "…"
    )


@dataclass(slots=True)
class RoundTotals:
    """Totals of the decisions on all files, with the details that the evidence needs.

    `changes`: path → entry in the result, None if it has none. `lines`: contested cells as JSON lines, the
    first `listed` of all `cells`. For the ledger, `tallies`: of record files that are in the result or
    undecided; `removed`: files that are in neither; `samples`: what later rounds may learn from, by kind of
    file and field, of the first fields in this order.
    """

    votes: dict[str, Tally]
    changes: dict[str, TreeEntry | None] = field(default_factory=dict)
    lines: bytearray = field(default_factory=bytearray)
    tallies: dict[str, Mapping[str, Tally]] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    samples: dict[tuple[str, str], Memory] = field(default_factory=dict)
    decided: Counter[str] = field(default_factory=Counter)
    files: list[FileEvidence] = field(default_factory=list)
    conflicts: int = 0
    cells: int = 0
    contested: int = 0
    listed: int = 0

    def add(self, vote: FileVote) -> None:
        """Add the decision on a file. A unanimous file counts as one cell on which every voter agreed."""
        self.changes[vote.path] = vote.placed
        self.decided[vote.how] += 1
        self.conflicts += vote.conflicts
        self._add_samples(vote)
        unanimous = Tally(1, 0) if vote.how == "unanimous" else Tally()
        for voter, votes in self.votes.items():
            tally = vote.votes.get(voter, unanimous)
            self.votes[voter] = votes.plus(tally)
        if vote.placed is None and not vote.conflicts:
            self.removed.add(vote.path)
        elif record_format(vote.path) is not None:
            self.tallies[vote.path] = vote.votes or dict.fromkeys(vote.entries, Tally(1, 0))
        if vote.how == "unanimous":
            return
        if len(self.files) < MAX_FILES:
            self.files.append(describe(vote))
        self.cells += vote.differing_cells
        self.contested += vote.contested
        by_record = vote.how == "records"
        for line in (cell_line(vote.path, cell) for cell in vote.cells) if by_record else [file_line(vote)]:
            if self.listed >= MAX_CELLS or len(self.lines) + len(line) > MAX_CELL_BYTES:
                return
            self.lines += line
            self.listed += 1

    def _add_samples(self, vote: FileVote) -> None:
        """Add what is learnt from a file, without what the ledger would drop: a round may have many files."""
        kind = file_kind(vote.path)
        for name, sample in vote.samples.items():
            self.samples[kind, name] = extend_memory(self.samples.get((kind, name), ()), sample)
        if len(self.samples) > 2 * MAX_REMEMBERED_FIELDS:
            self.samples = {at: self.samples[at] for at in sorted(self.samples)[:MAX_REMEMBERED_FIELDS]}


def total_votes(votes: Iterable[FileVote], voters: Sequence[str]) -> RoundTotals:
    """Return the totals of the votes on all files, in one pass."""
    totals = RoundTotals({voter: Tally() for voter in sorted(voters)})
    for vote in votes:
        totals.add(vote)
    return totals
