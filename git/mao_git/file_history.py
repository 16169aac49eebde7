"""The commits of a branch that changed a file, and when the entries of a folder were changed last.

Both follow first parents, as `git log --first-parent` does: what a branch had at each time. What a merge took
from its other side counts as changed by the merge.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pygit2

from .commits import LogEntry, log_entry
from .errors import ObjectBroken
from .objects import check_object, top_tree
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
    commit = _read_commit(repo, tip)
    entry = _entry_in(repo, commit, path)
    unchanged = 0
    while True:
        parent, unknown = _first_parent(repo, commit)
        if parent is None:
            if entry is not None or unknown is not None:
                yield FileVersion(log_entry(commit), entry, unknown)
            return
        before = entry if parent.tree_id == commit.tree_id else _entry_in(repo, parent, path)
        if before != entry:
            yield FileVersion(log_entry(commit), entry)
            unchanged = 0
        else:
            unchanged += 1
            if unchanged % PAUSE_COMMITS == 0:
                yield None
        commit, entry = parent, before


def _read_commit(repo: Repository, commit: str) -> pygit2.Commit:
    check_object(repo, commit)
    return repo.git[commit].peel(pygit2.Commit)


def _first_parent(repo: Repository, commit: pygit2.Commit) -> tuple[pygit2.Commit | None, str | None]:
    """Return the first parent, or None and, unless the commit is a root, why it cannot be read."""
    if not commit.parent_ids:  # nor has a commit at which a shallow clone ends
        return None, _SHALLOW if str(commit.id) in _shallow_commits(repo) else None
    parent = str(commit.parent_ids[0])
    try:
        found = _read_commit(repo, parent)
        top_tree(repo, parent)
    except KeyError:
        return None, _SHALLOW
    except (ObjectBroken, pygit2.GitError, ValueError) as error:
        return None, f"older commits cannot be read: {error}"
    return found, None


def _shallow_commits(repo: Repository) -> list[str]:
    try:
        return (repo.path / "shallow").read_text("ascii").split()
    except FileNotFoundError:
        return []


def _entry_in(repo: Repository, commit: pygit2.Commit, path: str) -> TreeEntry | None:
    return to_tree_entry(tree_entry(top_tree(repo, str(commit.id)), path))


def last_changes(repo: Repository, tip: str, folder: str) -> dict[str, LogEntry]:
    """Return by name the commits that last changed the entries of a folder; of a folder, anything inside.

    Entries that older commits changed than `MAX_WALKED`, or than a shallow clone has, are left out.
    """
    commit = _read_commit(repo, tip)
    inside = "/".join(filter(None, folder.split("/")))
    entries = _folder_entries(repo, commit, inside)
    searched, changes = set(entries), dict[str, LogEntry]()
    compared = len(entries)
    for _ in range(MAX_WALKED):
        parent, unknown = _first_parent(repo, commit)
        if unknown is not None or not searched or compared > MAX_COMPARED:
            return changes
        before: dict[str, TreeEntry] = {}
        if parent is not None and _folder_id(repo, parent, inside) == _folder_id(repo, commit, inside):
            before = entries
        elif parent is not None:
            before = _folder_entries(repo, parent, inside)
            compared += len(before)
        if before is not entries:
            changed = [name for name in searched if before.get(name) != entries.get(name)]
            if changed:
                changes |= dict.fromkeys(changed, log_entry(commit))
                searched.difference_update(changed)
        if parent is None:
            return changes
        commit, entries = parent, before
    return changes


def _folder_id(repo: Repository, commit: pygit2.Commit, folder: str) -> str | None:
    top = top_tree(repo, str(commit.id))
    found = tree_entry(top, folder) if folder else top
    return None if found is None else str(found.id)


def _folder_entries(repo: Repository, commit: pygit2.Commit, folder: str) -> dict[str, TreeEntry]:
    """Return the entries of a folder by name; none if there is no such folder."""
    top = top_tree(repo, str(commit.id))
    found = tree_entry(top, folder) if folder else top
    if not isinstance(found, pygit2.Tree):
        return {}
    check_object(repo, str(found.id))
    return {entry.name or "": TreeEntry(str(entry.id), int(entry.filemode)) for entry in found}
