"""Writing trees from files: only the folders that change are written.

Trees from files, commits from trees, and finding a commit again.

What several commits have at the paths where any differs from a common base, and trees made of that.
"""

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
from .paths import escaping_links, links_of
from .repository import Repository
from .trees import TreeEntry, tree_of

BULK = 500  # changes from which one sync for all is cheaper than one for each object

READ_AT_ONCE = 1 << 20  # bytes; larger files go through in pieces


@dataclass(frozen=True, slots=True)
class Content:
    """New content of a path. `open` gives the bytes; a link has its target as `link` instead.

    `existing`: id and mode of an object that is taken as it is.
    """

    open: Callable[[], BufferedIOBase] | None = None
    size: int = 0  # bytes, to decide whether it is read at once
    executable: bool = False
    link: str | None = None
    lfs: bool = False  # git gets a pointer, and LFS the content
    existing: tuple[str, int] | None = None

    @classmethod
    def of(cls, data: bytes) -> Content:
        return cls(lambda: BytesIO(data), len(data))


def write_tree(repo: Repository, base: str, changes: Mapping[str, Content | None]) -> str:
    """The tree `base` with files replaced or added, or (None) removed; only touched folders are rewritten.

    Raises InvalidPath for a name that git cannot hold.
    """
    nested: _Changes = {}
    for path, content in changes.items():
        _nest(nested, path, content)
    if len(changes) >= BULK:
        with unsynced(repo):
            git = _without_fsync(repo)
            tree = _rewrite(_Writer(repo, git), git[base].peel(pygit2.Tree), nested)
    else:
        tree = _rewrite(_Writer(repo, repo.git), top_tree(repo, base), nested)
    return base if tree is None and not nested else str(tree or repo.git.TreeBuilder().write())


def _nest(nested: _Changes, path: str, content: Content | None) -> None:
    """Puts a change where it belongs; what replaces a file or folder outweighs that it is removed."""
    *folders, name = path.split("/")
    level = nested
    for folder in folders:
        inner = level.get(folder)
        if isinstance(inner, Content):
            if content is None:
                return  # it went with its folder, in whose place a file is now
            raise InvalidPath(f"{path} lies below a file")
        if inner is None:
            inner = level[folder] = {}
        level = inner
    if content is not None or not isinstance(level.get(name), dict):
        level[name] = content


def _without_fsync(repo: Repository) -> pygit2.Repository:
    """The clone opened so that many objects are written fast; the caller syncs once at the end."""
    objects = str(repo.path / "objects")
    odb = pygit2.Odb()
    odb.add_backend(pygit2.OdbBackendLoose(objects, -1, False), 2)
    odb.add_backend(pygit2.OdbBackendPack(objects), 1)
    git = pygit2.Repository(str(repo.path))
    git.set_odb(odb)
    return git


@dataclass(frozen=True, slots=True)
class _Writer:
    """`git`: the clone as it is opened for these writes."""

    repo: Repository
    git: pygit2.Repository


_Changes = dict[str, "Content | _Changes | None"]


def _rewrite(to: _Writer, tree: pygit2.Tree | None, changes: _Changes) -> pygit2.Oid | None:
    """The changed tree, None when nothing is left in it."""
    builder = to.git.TreeBuilder() if tree is None else to.git.TreeBuilder(tree)
    for name, change in changes.items():
        entry = tree[name] if tree is not None and name in tree else None
        if isinstance(change, dict):
            below = _rewrite(to, entry if isinstance(entry, pygit2.Tree) else None, change)
            _put(builder, name, entry is not None, (below, FileMode.TREE) if below else None)
        else:
            _put(builder, name, entry is not None, None if change is None else _blob(to, change, entry))
    return builder.write() if len(builder) else None


def _put(
    builder: pygit2.TreeBuilder, name: str, there: bool, new: tuple[pygit2.Oid, FileMode] | None
) -> None:
    if new is not None:
        try:
            builder.insert(name, *new)
        except (pygit2.GitError, UnicodeEncodeError) as error:
            raise InvalidPath(f"git cannot hold the name {name!r}") from error
    elif there:
        builder.remove(name)


def _blob(to: _Writer, content: Content, before: pygit2.Object | None) -> tuple[pygit2.Oid, FileMode]:
    git = to.git
    if content.existing is not None:
        return pygit2.Oid(hex=content.existing[0]), FileMode(content.existing[1])
    if content.link is not None:
        return git.create_blob(content.link.encode()), FileMode.LINK
    if content.open is None:
        raise ValueError("a content is a file or a link")
    with content.open() as stream:
        if content.lfs:
            blob = git.create_blob(lfs.store(to.repo, stream).text())
        elif content.size > READ_AT_ONCE:
            blob = git.create_blob_fromiobase(stream)
        else:
            blob = git.create_blob(stream.read())
    if before is not None and before.id == blob and before.filemode == FileMode.LINK:
        return blob, FileMode.LINK  # it was laid as a file with its target as text, and still is one
    return blob, FileMode.BLOB_EXECUTABLE if content.executable else FileMode.BLOB


def write_blob(repo: Repository, content: bytes) -> str:
    """The id of a blob, which is written unless it is here."""
    return str(repo.git.create_blob(content))


def place_entries(repo: Repository, base: str | None, placed: Mapping[str, TreeEntry | None]) -> str:
    """The tree `base` with these entries in it, or (None) without them. The entries must fit each other."""
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
    """A tree without the links that lead out of it, and why each was left out; the same on every node.

    Nodes' links may be harmless each and lead out together, so that the whole is judged. When links are gone,
    others may lead elsewhere: what is left is judged again, and in the end no link stays.
    """
    gone: dict[str, str] = {}
    for last in (False, False, True):
        links = links_of(repo, tree)
        wrong = escaping_links(links)
        if not wrong:
            break
        if last:
            wrong = {path: wrong.get(path, "is a link among others that lead out") for path in links}
        gone |= wrong
        tree = write_tree(repo, tree, dict.fromkeys(wrong))
    return tree, gone


def _parents(path: str) -> Iterator[str]:
    end = path.find("/")
    while end != -1:
        yield path[:end]
        end = path.find("/", end + 1)
