"""Writing trees: only the folders that change are written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import BufferedIOBase, BytesIO

import pygit2
from pygit2.enums import FileMode

from . import lfs
from .errors import InvalidPath
from .maintenance import unsynced
from .objects import top_tree
from .paths import escaping_links, list_links
from .repository import Repository
from .trees import TreeEntry, tree_of

BULK = 500  # number of changes from which one sync for all objects is cheaper than one for each
READ_AT_ONCE = 1 << 20  # bytes; larger files are read in pieces


@dataclass(frozen=True, slots=True)
class Content:
    """New content of a path: a file that `open` returns, the target of a `link`, or an `existing` object."""

    open: Callable[[], BufferedIOBase] | None = None
    size: int = 0  # bytes; decides whether it is read at once
    executable: bool = False
    link: str | None = None
    lfs: bool = False  # git gets a pointer, and LFS the content
    existing: tuple[str, int] | None = None  # id and mode

    @classmethod
    def of(cls, data: bytes) -> Content:
        """Return the content of a regular file."""
        return cls(lambda: BytesIO(data), len(data))


def write_tree(repo: Repository, base: str, changes: Mapping[str, Content | None]) -> str:
    """Return the tree `base` with files replaced or added, or (None) removed; rewrites only changed folders.

    Raises InvalidPath for a name that git cannot store.
    """
    nested: _Changes = {}
    for path, content in changes.items():
        _nest(nested, path, content)
    if len(changes) >= BULK:
        with unsynced(repo):
            objects, odb = str(repo.path / "objects"), pygit2.Odb()
            odb.add_backend(pygit2.OdbBackendLoose(objects, -1, False), 2)  # without fsync
            odb.add_backend(pygit2.OdbBackendPack(objects), 1)
            git = pygit2.Repository(str(repo.path))
            git.set_odb(odb)
            tree = _rewrite(_Writer(repo, git), git[base].peel(pygit2.Tree), nested)
    else:
        tree = _rewrite(_Writer(repo, repo.git), top_tree(repo, base), nested)
    return base if tree is None and not nested else str(tree or repo.git.TreeBuilder().write())


def _nest(nested: _Changes, path: str, content: Content | None) -> None:
    """Add a change to nested folders; replacing a file or folder overrides its removal."""
    *folders, name = path.split("/")
    level = nested
    for folder in folders:
        inner = level.get(folder)
        if isinstance(inner, Content):
            if content is None:
                return  # it is removed with its folder, which a file replaces
            raise InvalidPath(f"{path} cannot be written: a folder of this path is a file")
        if inner is None:
            inner = level[folder] = {}
        level = inner
    if content is not None or not isinstance(level.get(name), dict):
        level[name] = content


@dataclass(frozen=True, slots=True)
class _Writer:
    """Where objects are written. `git`: the repository, opened with or without fsync."""

    repo: Repository
    git: pygit2.Repository


_Changes = dict[str, "Content | _Changes | None"]


def _rewrite(to: _Writer, tree: pygit2.Tree | None, changes: _Changes) -> pygit2.Oid | None:
    """Return the changed tree; None if nothing is left in it."""
    builder = to.git.TreeBuilder() if tree is None else to.git.TreeBuilder(tree)
    for name, change in changes.items():
        entry = tree[name] if tree is not None and name in tree else None
        if isinstance(change, dict):
            below = _rewrite(to, entry if isinstance(entry, pygit2.Tree) else None, change)
            new = (below, FileMode.TREE) if below else None
        else:
            new = None if change is None else _blob(to, change, entry)
        if new is not None:
            try:
                builder.insert(name, *new)
            except (pygit2.GitError, UnicodeEncodeError) as error:
                raise InvalidPath(f"git cannot hold the name {name!r}") from error
        elif entry is not None:
            builder.remove(name)
    return builder.write() if len(builder) else None


def _blob(to: _Writer, content: Content, before: pygit2.Object | None) -> tuple[pygit2.Oid, FileMode]:
    git = to.git
    if content.existing is not None:
        return pygit2.Oid(hex=content.existing[0]), FileMode(content.existing[1])
    if content.link is not None:
        return git.create_blob(content.link.encode()), FileMode.LINK
    if content.open is None:
        raise ValueError("a Content needs open, link or existing")
    with content.open() as stream:
        if content.lfs:
            blob = git.create_blob(lfs.store(to.repo, stream).text())
        elif content.size > READ_AT_ONCE:
            blob = git.create_blob_fromiobase(stream)
        else:
            blob = git.create_blob(stream.read())
    if before is not None and before.id == blob and before.filemode == FileMode.LINK:
        return blob, FileMode.LINK  # checked out as a file with its target as text, and unchanged
    return blob, FileMode.BLOB_EXECUTABLE if content.executable else FileMode.BLOB


def write_blob(repo: Repository, content: bytes) -> str:
    """Write a blob unless it exists; return its id."""
    return str(repo.git.create_blob(content))


def place_entries(repo: Repository, base: str | None, placed: Mapping[str, TreeEntry | None]) -> str:
    """Return the tree `base` with these entries added, or (None) removed. Entries must not conflict."""
    there = {path for path, entry in placed.items() if entry is not None}
    folders = {parent for path in there for parent in _parents(path)}
    changes = {
        path: None if entry is None else Content(existing=entry)
        for path, entry in placed.items()
        if entry is not None or (path not in folders and there.isdisjoint(_parents(path)))
    }
    start = tree_of(repo, base)
    return write_tree(repo, start, changes) if changes else start


def without_escaping_links(repo: Repository, tree: str) -> tuple[str, dict[str, str]]:
    """Remove the links that lead out of a tree. Returns the tree, the same on every node, and path → why.

    Links of several nodes may be harmless alone and lead out together, so the whole tree is judged. Without
    these links others may lead elsewhere, so the rest is judged again; after three passes no link stays.
    """
    gone: dict[str, str] = {}
    for last in (False, False, True):
        links = list_links(repo, tree)
        wrong = escaping_links(links)
        if not wrong:
            break
        if last:
            wrong = {path: wrong.get(path, "is a link among others that lead out") for path in links}
        gone |= wrong
        tree = write_tree(repo, tree, dict.fromkeys(wrong))
    return tree, gone


def _parents(path: str) -> Iterator[str]:
    return (path[:at] for at, letter in enumerate(path) if letter == "/")
