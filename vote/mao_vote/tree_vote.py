"""Decides all files of a dataset: whether they exist, and their contents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import mao_git
from mao_git import Clone, PathVersions, TreeEntry
from mao_shared.models.evidence import FieldEvidence, NodeGroup, Tally
from mao_shared.models.round import VoteDefinition

from . import records, rules3
from .election import Cell, elect
from .file_vote import decide_file
from .records import Key, Memory, PastCells, RecordFormat
from .vdx import Standing

RULES = 4
"""Version of the voting rules. Increase it if the same input would give other decisions or bytes."""
KNOWN_RULES = (3, RULES)  # by which rounds can be recomputed
OWN_FOLDER = ".mao"
"""The folder that rounds write into a dataset; a node's own `.mao` has no vote."""
MAX_RECORDS_BYTES = {
    RecordFormat.CSV: 128 << 20,
    RecordFormat.TSV: 128 << 20,
    RecordFormat.JSON: 16 << 20,
    RecordFormat.JSON_LINES: 64 << 20,
}
"""Maximum bytes of a version that is voted by records; must be the same on all nodes."""
How = Literal["unanimous", "records", "whole", "presence", "refused"]
WeightsOf = Callable[[str], Mapping[str, float]]
StandingsOf = Callable[[str], Mapping[str, Standing]]
MemoryOf = Callable[[str], Mapping[str, Memory]]
EntryShape = tuple[str, str]
"""File, link or submodule; links and submodules with their id, since they are voted as a whole."""


@dataclass(frozen=True, slots=True)
class FileVote:
    """The decision on a path. `placed` is None if the result has no such file.

    `how`: `unanimous` (all the same, not read), by `records`, as a `whole`, by its `presence` alone, or
    `refused` because of its name. `conflicts`: number of undecided cells. `abstained`: node → why its
    version could not be used.
    """

    path: str
    placed: TreeEntry | None
    how: How
    why: str
    entries: Mapping[str, TreeEntry]
    votes: dict[str, Tally] = field(default_factory=dict)
    key: Key | None = None
    cells: Sequence[Cell] = ()
    conflicts: int = 0
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    abstained: dict[str, str] = field(default_factory=dict)
    fields: list[FieldEvidence] = field(default_factory=list)
    groups: list[NodeGroup] = field(default_factory=list)
    samples: Mapping[str, PastCells] = field(default_factory=dict)
    contested_records: int = 0

    @property
    def contested(self) -> int:
        """Number of cells in which no value has a majority, as `contested` in the list of cells."""
        return self.contested_records if self.how == "records" else int(self.conflicts > 0)

    @property
    def differing_cells(self) -> int:
        """Number of cells in which nodes differ; a file that is not voted by records is one cell."""
        return len(self.cells) if self.how == "records" else 1


@dataclass(frozen=True, slots=True)
class Election:
    """The election's parameters. `weigh` and `known` return the nodes' weights and history for a path.

    `recall` returns what earlier rounds tell about the fields of a path.

    `rules`: version of the voting rules, one of KNOWN_RULES.
    """

    clone: Clone
    voters: Sequence[str]
    definition: VoteDefinition
    weigh: WeightsOf
    known: StandingsOf
    recall: MemoryOf
    has_base: bool
    rules: int = RULES


def is_own(path: str) -> bool:
    """True if a path belongs to rounds and not to tools."""
    return path == OWN_FOLDER or path.startswith(OWN_FOLDER + "/")


def decide_path(election: Election, ballot: PathVersions) -> FileVote:
    """Decide a path. Only contents of record files that differ are read."""
    if fault := mao_git.paths.path_fault(ballot.path):
        return FileVote(ballot.path, None, "refused", fault, ballot.entries, notes=[f"left out: {fault}"])
    rule = election.definition.rule_for(ballot.path)
    entries = set(ballot.entries.values())
    if not entries:
        return FileVote(ballot.path, None, "unanimous", "unanimous", {}, notes=["removed by all"])
    if len(ballot.entries) == len(election.voters) and len(entries) == 1 and not rule.ignore:
        return FileVote(ballot.path, next(iter(entries)), "unanimous", "unanimous", ballot.entries)
    weights = election.weigh(ballot.path)

    # Is the file in the result?
    has_file = {voter: voter in ballot.entries for voter in election.voters}
    incumbent = ballot.base is not None if election.has_base else None
    present, why = elect(has_file, incumbent=incumbent, weights=weights)
    if not present:
        undecided = present is None
        votes = {voter: Tally(1, int(has and not undecided)) for voter, has in has_file.items()}
        holders = ", ".join(sorted(ballot.entries)[:10])
        note = f"left out: only {len(ballot.entries)} of {len(has_file)} have it ({holders})"
        return FileVote(
            ballot.path, None, "presence", why, ballot.entries, votes, conflicts=int(undecided), notes=[note]
        )
    vote = _decide_shape(election, ballot, weights)
    missing = {voter: Tally(1, 1) for voter, has in has_file.items() if not has}
    return replace(vote, votes={**vote.votes, **missing})


def _decide_shape(election: Election, ballot: PathVersions, weights: Mapping[str, float]) -> FileVote:
    """Decide whether a path is a file, and then its content; a link or submodule is voted as a whole."""
    shapes = {voter: _shape(entry) for voter, entry in ballot.entries.items()}
    previous = None if ballot.base is None else _shape(ballot.base)
    shape, why = elect(shapes, incumbent=previous, weights=weights)
    if shape is not None and shape[0] == "file":
        files = {voter: entry for voter, entry in ballot.entries.items() if entry.is_file}
        others = {voter: Tally(1, 1) for voter in ballot.entries if voter not in files}
        base = ballot.base if ballot.base is not None and ballot.base.is_file else None
        vote = _decide_content(election, replace(ballot, entries=files, base=base), weights)
        return replace(vote, entries=ballot.entries, votes={**vote.votes, **others})
    votes = _tallies(shapes, shape)
    placed = None if shape is None else TreeEntry(shape[1], int(shape[0], 8))
    notes = [] if placed else ["left out: undecided whether it is a file or a link, or where the link leads"]
    return FileVote(
        ballot.path, placed, "whole", why, ballot.entries, votes, conflicts=int(not placed), notes=notes
    )


def _shape(entry: TreeEntry) -> EntryShape:
    return ("file", "") if entry.is_file else (f"{entry.mode:o}", entry.id)


def _decide_content(election: Election, ballot: PathVersions, weights: Mapping[str, float]) -> FileVote:
    """Decide a file's content by records if enough versions can be read, otherwise as a whole."""
    rule = election.definition.rule_for(ballot.path)
    how = None if rule.opaque else records.record_format(ballot.path)
    ids = {entry.id for entry in ballot.entries.values()}
    if how is None or (len(ids) == 1 and not rule.ignore):
        return _decide_whole(ballot, weights)
    obstacles = {blob: why for blob in ids if (why := find_obstacle(election.clone, blob, how))}
    unreadable = {
        voter: obstacles[entry.id] for voter, entry in ballot.entries.items() if entry.id in obstacles
    }
    if 2 * len(unreadable) >= len(ballot.entries):
        why = ", ".join(sorted(set(unreadable.values())))
        told = [f"voted as a whole: {why}"]
        if election.rules == 3:  # which has no warnings
            return _decide_whole(ballot, weights, told)
        return _decide_whole(ballot, weights, warnings=told)
    entries = {voter: entry for voter, entry in ballot.entries.items() if voter not in unreadable}
    vote = _decide_records(election, replace(ballot, entries=entries), how, weights)
    if vote.how != "records":
        return _decide_whole(ballot, weights, vote.notes, vote.warnings)
    return replace(vote, entries=ballot.entries, abstained={**vote.abstained, **unreadable})


def find_obstacle(clone: Clone, content: str, how: RecordFormat) -> str | None:
    """Return why a version is not read as records, or None if it is."""
    size = clone.blob_size(content)
    if size > MAX_RECORDS_BYTES[how]:
        return f"it is larger than {MAX_RECORDS_BYTES[how] >> 20} MiB"
    if mao_git.lfs.may_be_pointer(size) and mao_git.lfs.parse_pointer(clone.small_blob(content)):
        return "it is kept in Git LFS"
    return None


def _decide_whole(
    ballot: PathVersions,
    weights: Mapping[str, float],
    notes: Sequence[str] = (),
    warnings: Sequence[str] = (),
) -> FileVote:
    ids = {voter: entry.id for voter, entry in ballot.entries.items()}
    previous = None if ballot.base is None else ballot.base.id
    chosen, why = elect(ids, incumbent=previous, weights=weights)
    undecided = [] if chosen else ["left out: no content has more voices than any other"]
    placed = None if chosen is None else TreeEntry(chosen, _mode(ballot, weights))
    return FileVote(
        ballot.path,
        placed,
        "whole",
        why,
        ballot.entries,
        _tallies(ids, chosen),
        conflicts=int(placed is None),
        notes=[*notes, *undecided],
        warnings=list(warnings),
    )


def _tallies(votes: Mapping[str, object], chosen: object) -> dict[str, Tally]:
    """Count a file as one cell; an undecided one counts against no node."""
    return {voter: Tally(1, int(chosen is not None and vote != chosen)) for voter, vote in votes.items()}


def _mode(ballot: PathVersions, weights: Mapping[str, float]) -> int:
    """Elect a file's mode, whatever its content; if undecided, the file is not executable."""
    modes = {voter: entry.mode for voter, entry in ballot.entries.items()}
    previous = None if ballot.base is None else ballot.base.mode
    return elect(modes, incumbent=previous, weights=weights)[0] or min(modes.values())


def _decide_records(
    election: Election, ballot: PathVersions, how: RecordFormat, weights: Mapping[str, float]
) -> FileVote:
    clone = election.clone
    contents = {blob: clone.read_blob(blob) for blob in {entry.id for entry in ballot.entries.values()}}
    incumbent = None
    if ballot.base is not None and find_obstacle(clone, ballot.base.id, how) is None:
        incumbent = contents.get(ballot.base.id) or clone.read_blob(ballot.base.id)
    versions = {voter: contents[entry.id] for voter, entry in ballot.entries.items()}
    definition, standings = election.definition, election.known(ballot.path)
    if election.rules == 3:
        found = rules3.decide_file(
            ballot.path,
            versions,
            incumbent=incumbent,
            definition=definition,
            weights=weights,
            standings=standings,
        )
    else:
        found = decide_file(
            ballot.path,
            versions,
            incumbent=incumbent,
            definition=definition,
            weights=weights,
            standings=standings,
            memory=election.recall(ballot.path),
        )
    placed = None
    if found.content is not None:
        placed = TreeEntry(clone.write_blob(found.content), _mode(ballot, weights))
    by_records = found.kind == "records"
    return FileVote(
        ballot.path,
        placed,
        "records" if by_records else "whole",
        "by record and field" if by_records else next((cell.why for cell in found.cells), "majority"),
        ballot.entries,
        dict(found.votes),
        found.key,
        found.cells,
        found.conflicts,
        list(found.notes),
        list(found.warnings),
        dict(found.abstained),
        found.fields,
        found.groups,
        found.samples,
        found.contested,
    )


def decide_all(election: Election, ballots: Sequence[PathVersions]) -> Iterator[FileVote]:
    """Decide the files one after the other, so that only one file's contents are in memory."""
    return (decide_path(election, ballot) for ballot in ballots if not is_own(ballot.path))
