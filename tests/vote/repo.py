"""Helpers that create repositories to vote on."""

from __future__ import annotations

import io
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from mao_git import Author, Clone, Content
from mao_shared.models.round import VoteDefinition
from mao_vote import Voted, vote_round
from tests.support.git import bare_repository

TICK = datetime(2026, 1, 31, 12, tzinfo=UTC)
Files = Mapping[str, "bytes | str"]


def new_repository(path: Path) -> Clone:
    return Clone.discover(bare_repository(path))


def commit(clone: Clone, files: Files, parent: str | None = None, branch: str | None = None) -> str:
    """Commit exactly these files; a text with the prefix `link:` makes a link."""
    tree = clone.write_tree(clone.tree(None), {p: _content(f) for p, f in files.items()})
    parents = [parent] if parent else []
    made = clone.commit(tree, parents, "data\n", Author("n", "n@example.org", TICK))
    if branch is not None:
        clone.move_branch(branch, made, clone.tip(branch))
    return made


def _content(file: bytes | str) -> Content:
    if isinstance(file, str) and file.startswith("link:"):
        return Content(link=file.removeprefix("link:"))
    data = file.encode() if isinstance(file, str) else file
    return Content(lambda: io.BytesIO(data), len(data))


def vote(
    clone: Clone,
    versions: Mapping[str, Files],
    base: str | None = None,
    definition: VoteDefinition | None = None,
    round_id: str = "20260131T120000Z-p-s",
    tick: datetime = TICK,
) -> Voted:
    """Vote a round in which each node's commit has exactly these files."""
    commits = {node: commit(clone, files) for node, files in versions.items()}
    return vote_round(
        clone,
        round_id=round_id,
        tick=tick,
        nodes=list(versions),
        commits=commits,
        abstained={},
        base=base,
        definition=definition or VoteDefinition(),
    )


def data_of(clone: Clone, voted: Voted) -> dict[str, str]:
    """Return the files of the result, without those of the rounds."""
    paths = clone.list_paths(voted.evidence.tree)
    return {path: clone.read_file(voted.evidence.tree, path).decode() for path in paths}
