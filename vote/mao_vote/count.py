"""Adding up what was decided file by file, within bounds. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

from mao_git import Entry

from .election import Tally
from .evidence import (
    MAX_CELL_BYTES,
    MAX_CELLS,
    MAX_FILES,
    FileEvidence,
    Votes,
    cell_line,
    describe,
    whole_line,
)
from .records import format_of
from .tree_vote import FileVote


class Sums(TypedDict):
    """The part of Evidence that is counted."""

    decided: dict[str, int]
    conflicts: int
    cells: int
    cells_listed: int
    votes: dict[str, Votes]
    files: list[FileEvidence]


@dataclass(slots=True)
class Count:
    """`changes`: what becomes of each path; `lines`: contested cells as they are written down.

    For the ledger: `tallies` of record files that are in the result or undecided, `gone`: those that are not.
    """

    changes: dict[str, Entry | None] = field(default_factory=dict)
    lines: bytes = b""
    tallies: dict[str, Mapping[str, Tally]] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    decided: Counter[str] = field(default_factory=Counter)
    votes: dict[str, Votes] = field(default_factory=dict)
    files: list[FileEvidence] = field(default_factory=list)
    conflicts: int = 0
    cells: int = 0
    listed: int = 0

    def as_fields(self) -> Sums:
        return {
            "decided": dict(sorted(self.decided.items())),
            "conflicts": self.conflicts,
            "cells": self.cells,
            "cells_listed": self.listed,
            "votes": self.votes,
            "files": self.files,
        }


def count_all(votes: Iterable[FileVote], voters: Sequence[str]) -> Count:
    """Goes through the votes once, and keeps of each file no more than goes into the evidence."""
    count, lines = Count(votes={voter: Votes() for voter in sorted(voters)}), bytearray()
    for vote in votes:
        count.changes[vote.path] = vote.placed
        count.decided[vote.how] += 1
        count.conflicts += vote.conflicts
        _add_votes(count, vote)
        _add_standing(count, vote)
        if vote.how != "unanimous":
            _add_lines(count, vote, lines)
            if len(count.files) < MAX_FILES:
                count.files.append(describe(vote))
    count.lines = bytes(lines)
    return count


def _add_votes(count: Count, vote: FileVote) -> None:
    """A file that all have alike counts as one cell of each."""
    for voter, votes in count.votes.items():
        tally = vote.votes.get(voter)
        if tally is not None:
            count.votes[voter] = votes.plus(tally.cells, tally.differing)
        elif vote.how == "unanimous":
            count.votes[voter] = votes.plus(1, 0)


def _add_standing(count: Count, vote: FileVote) -> None:
    """A record file that all have alike is a success of each."""
    if vote.placed is None and not vote.conflicts:
        count.gone.add(vote.path)
    elif format_of(vote.path) is not None:
        count.tallies[vote.path] = vote.votes or dict.fromkeys(vote.entries, Tally(1, 0))


def _add_lines(count: Count, vote: FileVote, lines: bytearray) -> None:
    count.cells += vote.differing_cells
    full = count.listed >= MAX_CELLS
    for line in () if full else _lines(vote):
        if count.listed >= MAX_CELLS or len(lines) + len(line) > MAX_CELL_BYTES:
            return
        lines += line
        count.listed += 1


def _lines(vote: FileVote) -> Iterable[bytes]:
    if vote.how == "records":
        return (cell_line(vote.path, cell) for cell in vote.cells)
    return (whole_line(vote),)
