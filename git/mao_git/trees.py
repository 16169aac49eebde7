"""Reading a clone for people: log, listings, files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pygit2
from pygit2.enums import FileMode, ObjectType, SortMode

from mao_shared.errors import InvalidInput, NotFound

from . import lfs
from .branches import settle
from .clone import Clone
from .content import Opened, open_content
from .objects import require_whole, top_tree

_COMMIT = re.compile(r"[0-9a-f]{7,40}")
_BRANCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
_KINDS = {FileMode.TREE: "folder", FileMode.LINK: "link", FileMode.COMMIT: "submodule"}


@dataclass(frozen=True, slots=True)
class LogEntry:
    commit: str
    parents: list[str]
    author: str
    email: str
    time: datetime
    message: str


@dataclass(frozen=True, slots=True)
class FileEntry:
    """`kind`: file, folder, link or submodule; `size` in bytes, only for files and links."""

    name: str
    kind: str
    id: str
    size: int | None
    executable: bool


def resolve(clone: Clone, ref: str) -> str:
    """The commit that a branch name or commit id means; raises InvalidInput or NotFound."""
    if not _BRANCH.fullmatch(ref) or ".." in ref or ref.endswith(".lock"):
        raise InvalidInput(
            f"{ref!r} is neither a branch nor a commit id.",
            code="ref-invalid",
            next="Give a branch such as ground-truth or a node's name, or a commit's hexadecimal id.",
        )
    tip = settle(clone, ref)
    if tip is None and _COMMIT.fullmatch(ref):
        tip = _commit_named(clone, ref)
    if tip is None:
        raise NotFound(
            f"The dataset has no branch or commit {ref!r} on this node.",
            code="ref-not-found",
            next=f"See its branches: maoctl dataset branches {clone.path.stem}.",
        )
    return tip


def _commit_named(clone: Clone, prefix: str) -> str | None:
    try:
        found = clone.git[prefix]
    except (KeyError, ValueError):
        return None
    return str(found.id) if found.type == ObjectType.COMMIT else None


def list_log(clone: Clone, start: str, limit: int) -> tuple[list[LogEntry], str | None]:
    """Commits from `start` on, newest first, and the one where the next page begins."""
    entries: list[LogEntry] = []
    for commit in clone.git.walk(start, SortMode.TOPOLOGICAL | SortMode.TIME):
        if len(entries) == limit:
            return entries, str(commit.id)
        entries.append(_log_entry(commit))
    return entries, None


def log_since(clone: Clone, start: str, known: str | None, most: int) -> Iterator[LogEntry]:
    """Commits that `start` leads to and `known` does not, newest first, at most so many."""
    walker = clone.git.walk(start, SortMode.TOPOLOGICAL | SortMode.TIME)
    if known is not None and known in clone.git:
        walker.hide(known)
    for _, commit in zip(range(most), walker, strict=False):
        yield _log_entry(commit)


def time_of(clone: Clone, commit: str) -> datetime:
    """When a commit was made, by its committer's clock."""
    return datetime.fromtimestamp(clone.git[commit].peel(pygit2.Commit).commit_time, UTC)


def walk_line(clone: Clone, start: str) -> Iterator[LogEntry]:
    """A commit, its first parent, that one's first parent, and so on as far as the clone has them."""
    commit: str | None = start
    while commit is not None and commit in clone.git:
        found = clone.git[commit].peel(pygit2.Commit)
        yield _log_entry(found)
        commit = str(found.parent_ids[0]) if found.parent_ids else None


def _log_entry(commit: pygit2.Commit) -> LogEntry:
    parents = [str(parent) for parent in commit.parent_ids]
    moment = datetime.fromtimestamp(commit.commit_time, UTC)
    return LogEntry(str(commit.id), parents, commit.author.name, commit.author.email, moment, commit.message)


def list_files(clone: Clone, commit: str, path: str) -> list[FileEntry]:
    """The entries of a folder in git's order; raises NotFound."""
    found = _at(clone, commit, path)
    if not isinstance(found, pygit2.Tree):
        raise InvalidInput(
            f"{path!r} is a file.",
            code="path-not-a-folder",
            next=f"Read it: maoctl dataset cat {clone.path.stem} {shlex.quote(path)}",
        )
    with_lfs = lfs.uses_lfs(top_tree(clone, commit))
    return [_file_entry(clone, entry, with_lfs) for entry in found]


def _file_entry(clone: Clone, entry: pygit2.Object, with_lfs: bool) -> FileEntry:
    mode = FileMode(entry.filemode)
    size = entry.size if isinstance(entry, pygit2.Blob) else None
    if isinstance(entry, pygit2.Blob) and lfs.may_be_pointer(entry.size):
        pointer = lfs.parse(entry.data)
        if pointer is not None and (with_lfs or lfs.is_here(clone, pointer)):
            size = pointer.size
    kind = _KINDS.get(mode, "file")
    return FileEntry(entry.name or "", kind, str(entry.id), size, mode == FileMode.BLOB_EXECUTABLE)


def list_paths(clone: Clone, commit: str) -> list[str]:
    """Paths of all files and links in a commit."""
    paths: list[str] = []
    folders = [("", top_tree(clone, commit))]
    while folders:
        inside, tree = folders.pop()
        require_whole(clone, str(tree.id))
        for entry in tree:
            path = f"{inside}{entry.name}"
            if isinstance(entry, pygit2.Tree):
                folders.append((path + "/", entry))
            elif isinstance(entry, pygit2.Blob):
                paths.append(path)
    return paths


def parent_of(clone: Clone, commit: str) -> str | None:
    """The first parent of a commit."""
    parents = clone.git[commit].peel(pygit2.Commit).parent_ids
    return str(parents[0]) if parents else None


def read_file(clone: Clone, commit: str, path: str) -> bytes:
    """Content of a file (of a link: its target), whole; see `open_file`."""
    return b"".join(open_file(clone, commit, path).pieces)


def open_file(clone: Clone, commit: str, path: str) -> Opened:
    """A file (of a link: its target) to be read in pieces, also where git has only an LFS pointer.

    Raises NotFound, InvalidInput, and lfs.ContentMissing when the content must be fetched first.
    """
    found = _at(clone, commit, path)
    if not isinstance(found, pygit2.Blob):
        raise InvalidInput(
            f"{path!r} is a folder.",
            code="path-not-a-file",
            next=f"List it: maoctl dataset files {clone.path.stem} --path {shlex.quote(path)}",
        )
    return open_content(clone, found.id, with_lfs=lfs.uses_lfs(top_tree(clone, commit)))


def content_id(clone: Clone, commit: str, path: str) -> str:
    """The id that a commit has for a file or link; raises NotFound."""
    return str(_at(clone, commit, path).id)


def tree_uses_lfs(clone: Clone, tree: str) -> bool:
    """Whether pointers in a tree (or commit) stand for other content."""
    return lfs.uses_lfs(top_tree(clone, tree))


def text_at(clone: Clone, tree: str, name: str) -> str:
    """A file at the top of a tree (or commit) as text; empty when there is none."""
    top = top_tree(clone, tree)
    found = top[name] if name in top else None  # noqa: SIM401 (a tree has no 'get')
    return found.data.decode(errors="surrogateescape") if isinstance(found, pygit2.Blob) else ""


def _at(clone: Clone, commit: str, path: str) -> pygit2.Object:
    """Walks the tree by name only; '..' and the like are names that no tree has."""
    found: pygit2.Object = top_tree(clone, commit)
    for name in filter(None, path.split("/")):
        if not isinstance(found, pygit2.Tree) or name not in found:
            raise NotFound(
                f"There is no {path!r} in commit {commit[:10]}.",
                code="path-not-found",
                next=f"List what is there: maoctl dataset files {clone.path.stem}",
            )
        found = found[name]
        if isinstance(found, pygit2.Tree):
            require_whole(clone, str(found.id))
    return found
