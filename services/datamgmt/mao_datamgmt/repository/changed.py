"""What differs between two commits or trees, by path and id; and what an id stands for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import pygit2
from pygit2.enums import DeltaStatus

from .clone import Clone
from .objects import top_tree


@dataclass(frozen=True, slots=True)
class Changed:
    """`files`: path → id of the content of files and links that are new or different; `removed`: paths."""

    files: dict[str, str] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)


def changed_files(clone: Clone, before: str | None, after: str) -> Changed:
    """From one tree or commit (None: the empty tree) to another. Work is proportional to what differs."""
    changed = Changed()
    for delta in _diff(clone, before, after).deltas:
        if delta.status == DeltaStatus.DELETED:
            changed.removed.append(delta.old_file.path)
        else:
            changed.files[delta.new_file.path] = str(delta.new_file.id)
    return changed


def _diff(clone: Clone, before: str | None, after: str) -> pygit2.Diff:
    new = top_tree(clone, after)
    if before is None:
        return new.diff_to_tree(swap=True)
    return top_tree(clone, before).diff_to_tree(new)


def has_commit(clone: Clone, commit: str) -> bool:
    """Whether a commit is here with its tree; a shallow clone may lack it."""
    try:
        top_tree(clone, commit)
    except (KeyError, ValueError, pygit2.GitError):
        return False
    return True


def content_ids(clone: Clone, commit: str, paths: Iterable[str]) -> dict[str, str]:
    """The id of the content at each path that a commit has a file or link at."""
    tree = top_tree(clone, commit)
    found = ((path, _entry(tree, path)) for path in paths)
    return {path: str(entry.id) for path, entry in found if isinstance(entry, pygit2.Blob)}


def head_of(clone: Clone, content: str, most: int = 200) -> bytes:
    """The beginning of a small content; empty for a larger one, which is not loaded."""
    blob = clone.git[content]
    return blob.data if isinstance(blob, pygit2.Blob) and blob.size <= most else b""


def _entry(tree: pygit2.Tree, path: str) -> pygit2.Object | None:
    try:
        return tree[path]
    except KeyError:
        return None
