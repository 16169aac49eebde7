"""Which files keep their decision: those that no node has changed since they were voted.

A vote learns from earlier rounds too, so that a second vote on the same contents may give other values. What
ground truth has published stays until a node publishes something else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from mao_git import PathVersions, TreeEntry
from mao_shared.models.round import VoteDefinition

MAX_SETTLED_FILES = 20_000  # that are not voted again; of more, the first in the order of paths


@dataclass(frozen=True, slots=True)
class Settled:
    """The decision on a file over which nodes differ.

    `round`: the one that made it. `result`: its entry in ground truth; `contents`: that of each voter. An
    entry is a mode and the beginning of git's id, or empty if there is no such file.
    """

    round: str
    result: str
    contents: Mapping[str, str]

    def holds(self, ballot: PathVersions, voters: Collection[str]) -> bool:
        """True if ground truth is as it was decided, and no voter has changed the file since.

        A node that was not there then is a change, one that is missing now is none.
        """
        return self.result == _text(ballot.base) and all(
            self.contents.get(voter) == _text(ballot.entries.get(voter)) for voter in voters
        )


def settle(
    round_id: str,
    voted: Iterable[PathVersions],
    placed: Mapping[str, TreeEntry | None],
    voters: Sequence[str],
) -> dict[str, Settled]:
    """Return a round's decisions on the files over which the voters differ, by path."""
    decisions = {}
    for ballot in voted:
        contents = {voter: _text(ballot.entries.get(voter)) for voter in sorted(voters)}
        if ballot.path in placed and len(set(contents.values())) > 1:
            decisions[ballot.path] = Settled(round_id, _text(placed[ballot.path]), contents)
    return decisions


def rules_digest(definition: VoteDefinition, rules: int) -> str:
    """Return what changes if decisions have to be made anew for another reason than the files."""
    declared = definition.model_dump(mode="json", exclude_defaults=True)
    return hashlib.sha256(json.dumps([rules, declared], sort_keys=True).encode()).hexdigest()[:16]


def _text(entry: TreeEntry | None) -> str:
    return "" if entry is None else f"{entry.mode:o} {entry.id[:16]}"
