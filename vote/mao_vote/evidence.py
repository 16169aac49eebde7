"""Evidence: what a round writes into the dataset, so that every decision can be inspected and recomputed.

`.mao/rounds/<id>.json` (Evidence), `.mao/rounds/<id>.cells.jsonl` (a contested cell a line, with every node's
value) and `.mao/history.json` (how often nodes agreed with the result, see ledger.py).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mao_git import TreeEntry
from mao_shared.models.common import STORED
from mao_shared.models.evidence import ContestedCell, Evidence, FileEvidence, Tally

from .election import Cell
from .records import record_format
from .tree_vote import OWN_FOLDER, FileVote

RULES = 3
"""Version of the voting rules. Increase it when the same input would give other decisions or other bytes."""
ROUNDS_FOLDER = f"{OWN_FOLDER}/rounds"
TRAILER = "MAO-Round"  # commit trailer that holds the round's id
MAX_FILES = 10_000  # files described one by one
MAX_CELLS = 100_000
MAX_CELL_BYTES = 64 << 20  # of all cells together
MAX_VALUE = 4096  # characters after which a value is cut


def evidence_path(round_id: str) -> str:
    return f"{ROUNDS_FOLDER}/{round_id}.json"


def cells_path(round_id: str) -> str:
    return f"{ROUNDS_FOLDER}/{round_id}.cells.jsonl"


def round_of_file(name: str) -> str:
    """Return the id of the round that a file in ROUNDS_FOLDER belongs to."""
    return name.removesuffix(".json").removesuffix(".cells.jsonl")


def dump_evidence(evidence: Evidence) -> bytes:
    """Return evidence as JSON, the same bytes on every node; defaults of the definition are left out."""
    data = evidence.model_dump(mode="json", exclude={"definition"})
    data["definition"] = evidence.definition.model_dump(mode="json", exclude_defaults=True)
    return (json.dumps(data, ensure_ascii=False, sort_keys=True, indent=1) + "\n").encode()


def load_evidence(content: bytes) -> Evidence:
    """Parse evidence. Raises ValueError (pydantic's ValidationError) if the bytes are not evidence."""
    return Evidence.model_validate_json(content, context=STORED)


def shown_path(path: str) -> str:
    """Return a path that JSON can hold: bytes that are not UTF-8 are written as `\\xe9`."""
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")


def describe(vote: FileVote) -> FileEvidence:
    """Return a file's entry in the evidence."""
    return FileEvidence(
        path=shown_path(vote.path),
        how=vote.how,
        why=vote.why,
        result=None if vote.placed is None else vote.placed.id,
        contents={node: entry.id for node, entry in sorted(vote.entries.items())},
        key=None if vote.key is None else list(vote.key.columns),
        key_source=None if vote.key is None else vote.key.source,
        votes=dict(sorted(vote.votes.items())),
        conflicts=vote.conflicts,
        cells=vote.differing_cells,
        notes=vote.notes,
        abstained=dict(sorted(vote.abstained.items())),
    )


def cell_line(path: str, cell: Cell) -> bytes:
    """Return a contested cell as a line of JSON. Nodes without the record or file are not in `values`."""
    return _json_line(
        {
            "file": shown_path(path),
            "key": list(cell.key),
            "field": cell.field,
            "values": {node: _cut(value) for node, value in sorted(cell.values.items())},
            "chosen": _cut(cell.chosen),
            "why": cell.why,
            "contested": cell.contested,
        }
    )


def whole_line(vote: FileVote) -> bytes:
    """Return a file that was voted as a whole as a line like a cell's; its values are git blob ids."""
    return _json_line(
        {
            "file": shown_path(vote.path),
            "key": [],
            "field": "",
            "values": {node: entry.id for node, entry in sorted(vote.entries.items())},
            "chosen": None if vote.placed is None else vote.placed.id,
            "why": vote.why,
            "contested": vote.conflicts > 0,
        }
    )


def _json_line(data: dict[str, Any]) -> bytes:
    return (json.dumps(data, ensure_ascii=False) + "\n").encode(errors="backslashreplace")


def cells_in(content: bytes) -> Iterator[ContestedCell]:
    """Parse lines written by `cell_line` and `whole_line`. Raises ValueError."""
    lines = (line for line in content.splitlines() if line)
    return (ContestedCell.model_validate_json(line, context=STORED) for line in lines)


def _cut(value: str | None) -> str | None:
    return value if value is None or len(value) <= MAX_VALUE else value[:MAX_VALUE] + "…"


@dataclass(slots=True)
class RoundTotals:
    """Totals of the decisions on all files; of each file only what the evidence needs is kept.

    `changes`: path → entry in the result, None if it has none. `lines`: contested cells as JSON lines, the
    first `listed` of all `cells`. For the ledger, `tallies`: of record files that are in the result or
    undecided; `gone`: files that are in neither.
    """

    votes: dict[str, Tally]
    changes: dict[str, TreeEntry | None] = field(default_factory=dict)
    lines: bytearray = field(default_factory=bytearray)
    tallies: dict[str, Mapping[str, Tally]] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    decided: Counter[str] = field(default_factory=Counter)
    files: list[FileEvidence] = field(default_factory=list)
    conflicts: int = 0
    cells: int = 0
    listed: int = 0

    def add(self, vote: FileVote) -> None:
        """Add the decision on one file. A unanimous file counts as one cell in which every voter agreed."""
        self.changes[vote.path] = vote.placed
        self.decided[vote.how] += 1
        self.conflicts += vote.conflicts
        unanimous = Tally(1, 0) if vote.how == "unanimous" else Tally()
        for voter, votes in self.votes.items():
            tally = vote.votes.get(voter, unanimous)
            self.votes[voter] = votes.plus(tally.cells, tally.differing)
        if vote.placed is None and not vote.conflicts:
            self.gone.add(vote.path)
        elif record_format(vote.path) is not None:
            self.tallies[vote.path] = vote.votes or dict.fromkeys(vote.entries, Tally(1, 0))
        if vote.how == "unanimous":
            return
        if len(self.files) < MAX_FILES:
            self.files.append(describe(vote))
        self.cells += vote.differing_cells
        by_record = vote.how == "records"
        for line in (cell_line(vote.path, cell) for cell in vote.cells) if by_record else [whole_line(vote)]:
            if self.listed >= MAX_CELLS or len(self.lines) + len(line) > MAX_CELL_BYTES:
                return
            self.lines += line
            self.listed += 1


def total_votes(votes: Iterable[FileVote], voters: Sequence[str]) -> RoundTotals:
    """Add up the votes on all files in one pass."""
    totals = RoundTotals({voter: Tally() for voter in sorted(voters)})
    for vote in votes:
        totals.add(vote)
    return totals
