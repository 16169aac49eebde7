"""What differs between two commits or trees, by path and id; and what an id stands for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import pygit2
from pygit2.enums import ObjectType

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
    old = None if before is None else top_tree(clone, before)
    for each in differing(old, top_tree(clone, after)):
        if each.new is None:
            changed.removed.append(each.path)
        else:
            changed.files[each.path] = str(each.new.id)
    return changed


@dataclass(frozen=True, slots=True)
class Difference:
    """A path at which two trees differ in a file, link or submodule; None where one has none of these."""

    path: str
    old: pygit2.Object | None
    new: pygit2.Object | None


def plain_name(entry: pygit2.Object, _inside: str) -> str:
    return entry.name or ""


def differing(
    old: pygit2.Tree | None,
    new: pygit2.Tree | None,
    name_of: Callable[[pygit2.Object, str], str] = plain_name,
) -> Iterator[Difference]:
    """Where two trees differ; folders that both have alike are not looked into, as libgit2's diff does.

    `name_of` gives the name of an entry of `new`, told the folder it is in; it may raise.
    """
    todo: list[tuple[str, pygit2.Tree | None, pygit2.Tree | None]] = [("", old, new)]
    while todo:
        inside, before, after = todo.pop()
        left = {plain_name(entry, inside): entry for entry in before or ()}
        pairs = [(name_of(entry, inside), entry) for entry in after or ()]
        found = [(name, left.pop(name, None), entry) for name, entry in pairs]
        for name, ours, theirs in [*found, *((name, entry, None) for name, entry in left.items())]:
            if ours is not None and theirs is not None and _same(ours, theirs):
                continue
            path = inside + name
            if _file(ours) is not None or _file(theirs) is not None:
                yield Difference(path, _file(ours), _file(theirs))
            if _folder(ours) is not None or _folder(theirs) is not None:
                todo.append((f"{path}/", _folder(ours), _folder(theirs)))


def _folder(entry: pygit2.Object | None) -> pygit2.Tree | None:
    return entry if isinstance(entry, pygit2.Tree) else None


def _file(entry: pygit2.Object | None) -> pygit2.Object | None:
    return None if isinstance(entry, pygit2.Tree) else entry


def _same(one: pygit2.Object, two: pygit2.Object) -> bool:
    return one.id == two.id and one.filemode == two.filemode


def has_commit(clone: Clone, commit: str) -> bool:
    """Whether a commit is here with its tree; a shallow clone may lack it."""
    try:
        top_tree(clone, commit)
    except (KeyError, ValueError, pygit2.GitError):
        return False
    return True


def is_commit(clone: Clone, text: str) -> bool:
    """Whether a text of a stranger is the full id of a commit that is here with its tree."""
    if re.fullmatch("[0-9a-f]{40}", text) is None or not has_commit(clone, text):
        return False
    return bool(clone.git[text].type == ObjectType.COMMIT)


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
