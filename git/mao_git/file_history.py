"""The commits of a branch that changed a file, and when the entries of a folder were changed last.

Both follow first parents, as `git log --first-parent` does: what a branch had at each time. What a merge took
from its other side counts as changed by the merge.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import pygit2

from .commits import LogEntry, log_entry
from .errors import ObjectBroken
from .objects import check_object
from .repository import Repository, tree_entry
from .trees import TreeEntry, to_tree_entry

PAUSE_COMMITS = 1000  # unchanged commits after which a walk lets its caller do something else
MAX_WALKED = 5000  # commits to search for the last changes in a folder
MAX_COMPARED = 500_000  # entries of folders to compare for that
_SHALLOW = "older commits are not in this clone, which is shallow"


@dataclass(frozen=True, slots=True)
class FileVersion:
    """A commit that changed a path against its first parent. `entry`: what it left there, None for nothing.

    `unknown`: why older commits cannot be read, if the history goes on but this clone ends here; it is not
    known then whether this commit changed the path.
    """

    commit: LogEntry
    entry: TreeEntry | None
    unknown: str | None = None


def file_versions(repo: Repository, tip: str, path: str) -> Iterator[FileVersion | None]:
    """Yield the versions of a file from `tip` on, newest first; None after each `PAUSE_COMMITS` without one.

    A folder counts as an entry of its own kind. No file is read.
    """
    found = _read_snapshot(repo, tip)
    entry = to_tree_entry(tree_entry(found.top, path))
    unchanged = 0
    while True:
        parent, unknown = _first_parent(repo, found.commit)
        if parent is None:
            if entry is not None or unknown is not None:
                yield FileVersion(log_entry(found.commit), entry, unknown)
            return
        before = entry
        if parent.top.id != found.top.id:
            before = to_tree_entry(tree_entry(parent.top, path))
        if before != entry:
            yield FileVersion(log_entry(found.commit), entry)
            unchanged = 0
        else:
            unchanged += 1
            if unchanged % PAUSE_COMMITS == 0:
                yield None
        found, entry = parent, before


class _Snapshot(NamedTuple):
    """A commit and its tree."""

    commit: pygit2.Commit
    top: pygit2.Tree


def _read_snapshot(repo: Repository, commit: str) -> _Snapshot:
    check_object(repo, commit)
    found = repo.git[commit].peel(pygit2.Commit)
    check_object(repo, str(found.tree_id))
    return _Snapshot(found, found.tree)


def _first_parent(repo: Repository, commit: pygit2.Commit) -> tuple[_Snapshot | None, str | None]:
    """Return the first parent, or None and, unless the commit is a root, why it cannot be read."""
    if not commit.parent_ids:  # nor has a commit at which a shallow clone ends
        return None, _SHALLOW if str(commit.id) in _shallow_commits(repo) else None
    parent = str(commit.parent_ids[0])
    try:
        return _read_snapshot(repo, parent), None
    except KeyError:
        return None, _SHALLOW
    except (ObjectBroken, pygit2.GitError, ValueError) as error:
        return None, f"older commits cannot be read: {error}"


def _shallow_commits(repo: Repository) -> list[str]:
    try:
        return (repo.path / "shallow").read_text("ascii").split()
    except FileNotFoundError:
        return []


def last_changes(repo: Repository, tip: str, folder: str) -> dict[str, LogEntry]:
    """Return by name the commits that last changed the entries of a folder; of a folder, anything inside.

    Entries that older commits changed than `MAX_WALKED`, or than a shallow clone has, are left out.
    """
    inside = "/".join(filter(None, folder.split("/")))
    found = _read_snapshot(repo, tip)
    tree = _folder_of(found, inside)
    entries = _entries_of(repo, tree)
    searched, changes = set(entries), dict[str, LogEntry]()
    compared = len(entries)
    for _ in range(MAX_WALKED):
        parent, unknown = _first_parent(repo, found.commit)
        if unknown is not None or not searched or compared > MAX_COMPARED:
            return changes
        tree_before = None if parent is None else _folder_of(parent, inside)
        if tree is None or tree_before is None or tree.id != tree_before.id:
            before = _entries_of(repo, tree_before)
            compared += len(before)
            changed = [name for name in searched if before.get(name) != entries.get(name)]
            changes |= dict.fromkeys(changed, log_entry(found.commit))
            searched.difference_update(changed)
            entries = before
        if parent is None:
            return changes
        found, tree = parent, tree_before
    return changes


def _folder_of(snapshot: _Snapshot, folder: str) -> pygit2.Tree | None:
    found = tree_entry(snapshot.top, folder) if folder else snapshot.top
    return found if isinstance(found, pygit2.Tree) else None


def _entries_of(repo: Repository, tree: pygit2.Tree | None) -> dict[str, TreeEntry]:
    """Return the entries of a folder by name; none if there is no folder."""
    if tree is None:
        return {}
    check_object(repo, str(tree.id))
    return {entry.name or "": TreeEntry(str(entry.id), int(entry.filemode)) for entry in tree}
