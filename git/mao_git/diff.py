"""Differences between two trees, by path and line, or between several trees and a common base."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import pygit2

from .objects import top_tree
from .repository import Repository
from .trees import TreeEntry, to_tree_entry

MAX_ENTRIES = 5_000_000  # of all trees of a commit that differ from the base; a small pack can expand to more


@dataclass(frozen=True, slots=True)
class TreeDifference:
    """A path at which two trees differ in a file, link or submodule. `old`, `new`: None if it has none."""

    path: str
    old: pygit2.Object | None
    new: pygit2.Object | None


def entry_name(entry: pygit2.Object, _inside: str) -> str:
    """Return the name of an entry in its folder, unchecked."""
    return entry.name or ""


class TooManyEntries(Exception):
    """A tree has more entries than may be read."""


def diff_trees(
    old: pygit2.Tree | None,
    new: pygit2.Tree | None,
    nested_name: Callable[[pygit2.Object, str], str] = entry_name,
    max_entries: int | None = None,
) -> Iterator[TreeDifference]:
    """Yield where two trees differ. Folders that are equal in both are not read, as in libgit2's diff.

    `nested_name`: names an entry of `new`, from the entry and the folder that it is in; it may raise. Raises
    TooManyEntries after reading `max_entries` entries of `new`.
    """
    todo: list[tuple[str, pygit2.Tree | None, pygit2.Tree | None]] = [("", old, new)]
    read = 0
    while todo:
        inside, before, after = todo.pop()
        left = {entry_name(entry, inside): entry for entry in before or ()}
        read += len(after or ())
        if max_entries is not None and read > max_entries:
            raise TooManyEntries
        pairs = [(nested_name(entry, inside), entry) for entry in after or ()]
        found = [(name, left.pop(name, None), entry) for name, entry in pairs]
        for name, ours, theirs in [*found, *((name, entry, None) for name, entry in left.items())]:
            if ours and theirs and (ours.id, ours.filemode) == (theirs.id, theirs.filemode):
                continue
            path = inside + name
            if _file(ours) is not None or _file(theirs) is not None:
                yield TreeDifference(path, _file(ours), _file(theirs))
            if _folder(ours) is not None or _folder(theirs) is not None:
                todo.append((f"{path}/", _folder(ours), _folder(theirs)))


def _folder(entry: pygit2.Object | None) -> pygit2.Tree | None:
    return entry if isinstance(entry, pygit2.Tree) else None


def _file(entry: pygit2.Object | None) -> pygit2.Object | None:
    return None if isinstance(entry, pygit2.Tree) else entry


# between two commits


@dataclass(frozen=True, slots=True)
class ChangedFiles:
    """Changes between two trees. `files`: path → blob id of new and changed files and links."""

    files: dict[str, str] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)


def changed_files(repo: Repository, before: str | None, after: str) -> ChangedFiles:
    """Compare two trees or commits (None: the empty tree), reading only the folders that differ."""
    changed = ChangedFiles()
    old = None if before is None else top_tree(repo, before)
    for change in diff_trees(old, top_tree(repo, after)):
        if change.new is None:
            changed.removed.append(change.path)
        else:
            changed.files[change.path] = str(change.new.id)
    return changed


@dataclass(frozen=True, slots=True)
class FileChange:
    """A file that differs. `change`: added, removed or changed; `old`, `new`: blob ids, None if absent."""

    path: str
    change: str
    old: str | None
    new: str | None


def file_changes(repo: Repository, before: str, after: str, path: str = "") -> list[FileChange]:
    """List the files at or below `path` that differ between two commits, sorted by path."""
    inside = path.strip("/")
    changes = []
    for found in diff_trees(top_tree(repo, before), top_tree(repo, after)):
        if not inside or found.path == inside or found.path.startswith(f"{inside}/"):
            change = "added" if found.old is None else "removed" if found.new is None else "changed"
            old, new = (None if entry is None else str(entry.id) for entry in (found.old, found.new))
            changes.append(FileChange(found.path, change, old, new))
    return sorted(changes, key=lambda change: change.path)


def diff_lines(before: bytes, after: bytes, path: str) -> Iterator[str] | None:
    """Yield the lines of a unified diff without its heading; return None if git considers a side binary."""
    patch = pygit2.Patch.create_from(before, after, path, path)
    if patch is None or patch.delta.is_binary:
        return None
    return _lines(patch)


def _lines(patch: pygit2.Patch) -> Iterator[str]:
    for hunk in patch.hunks:
        yield hunk.header.rstrip("\n")
        for line in hunk.lines:
            yield line.origin + line.raw_content.decode(errors="replace").rstrip("\n")


# between several commits and a base


@dataclass(frozen=True, slots=True)
class PathVersions:
    """A path, with each node's entry (missing for a node that has none) and the base's."""

    path: str
    entries: Mapping[str, TreeEntry]
    base: TreeEntry | None


@dataclass(frozen=True, slots=True)
class CommitComparison:
    """Differing paths, sorted; `refused`: node → why its commit was not read."""

    paths: list[PathVersions]
    refused: dict[str, str]


def compare_commits(repo: Repository, base: str | None, commits: Mapping[str, str]) -> CommitComparison:
    """List where any of the commits (node → id) differs from `base` (None: the empty tree), by path.

    Folders that are the same as in the base are not read.
    """
    root = None if base is None else top_tree(repo, base)
    bases: dict[str, TreeEntry | None] = {}
    changed: dict[str, dict[str, TreeEntry | None]] = {}
    refused: dict[str, str] = {}
    for node, commit in sorted(commits.items()):
        try:
            differences = list(diff_trees(root, top_tree(repo, commit), max_entries=MAX_ENTRIES))
        except TooManyEntries:
            refused[node] = f"its trees have more than {MAX_ENTRIES // 1_000_000} million entries"
            continue
        for change in differences:
            bases[change.path] = to_tree_entry(change.old)
            changed.setdefault(change.path, {})[node] = to_tree_entry(change.new)
    nodes = [node for node in commits if node not in refused]
    paths = []
    for path in sorted(changed):
        found = ((node, changed[path].get(node, bases[path])) for node in nodes)
        entries = {node: entry for node, entry in found if entry is not None}
        paths.append(PathVersions(path, entries, bases[path]))
    return CommitComparison(paths, refused)
