"""A clone that is broken: whether it is, and reading from it what still can be read.

Nothing here trusts libgit2 with the whole repository: references are read as text, loose objects by zlib (see
`objects`), and only packs through libgit2, which checks what it reads.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pygit2
from pygit2.enums import ObjectType, RepositoryOpenFlag

from mao_git.branches import HEADS
from mao_git.clone import REMOTE, TRACKED
from mao_git.known import KNOWN
from mao_git.objects import is_whole, loose_path
from mao_git.upkeep import ids_of

_ID = re.compile(r"(?!0{40})[0-9a-f]{40}")
_HEAD = re.compile(r"ref: refs/\S+|[0-9a-f]{40}")
_FAN_OUT = re.compile(r"[0-9a-f]{2}")
_ENTRY = re.compile(rb"(\d+) ([^\0]+)\0(.{20})", re.DOTALL)
_KINDS = {
    b"commit": ObjectType.COMMIT,
    b"tree": ObjectType.TREE,
    b"blob": ObjectType.BLOB,
    b"tag": ObjectType.TAG,
}


class Unreadable(Exception):
    """An object that is missing or spoilt; the message says which and how."""


@dataclass(frozen=True, slots=True)
class RawCommit:
    id: str
    tree: str
    parents: list[str]
    message: str
    raw: bytes


class Objects:
    """The objects of a repository, also of one that cannot be opened."""

    def __init__(self, repository: Path) -> None:
        self.repository = repository
        folder = repository / "objects"
        self._packs = pygit2.Odb()
        if (folder / "pack").is_dir():
            self._packs.add_backend(pygit2.OdbBackendPack(str(folder)), 1)

    def read(self, oid: str) -> tuple[ObjectType, bytes]:
        """Kind and content. Raises Unreadable."""
        loose = loose_path(self.repository, oid)
        try:
            if loose.exists():
                if not is_whole(loose):
                    raise Unreadable(f"{oid} is spoilt")
                head, _, content = zlib.decompress(loose.read_bytes()).partition(b"\0")
                return _KINDS[head.split()[0]], content
            kind, content = self._packs.read(pygit2.Oid(hex=oid))[:2]
            return ObjectType(kind), content
        except KeyError as error:
            raise Unreadable(f"{oid} is missing") from error
        except (OSError, pygit2.GitError, ValueError) as error:
            raise Unreadable(f"{oid} cannot be read ({error})") from error

    def check(self, oid: str) -> None:
        """Raises Unreadable unless an object is whole; a loose one is read in pieces."""
        loose = loose_path(self.repository, oid)
        try:
            if not loose.exists():
                self.read(oid)
            elif not is_whole(loose):
                raise Unreadable(f"{oid} is spoilt")
        except OSError as error:
            raise Unreadable(f"{oid} cannot be read ({error.strerror})") from error

    def commit(self, oid: str) -> RawCommit:
        """Raises Unreadable, also for what is no commit."""
        kind, raw = self.read(oid)
        if kind != ObjectType.COMMIT:
            raise Unreadable(f"{oid} is no commit")
        head, _, message = raw.partition(b"\n\n")
        lines = [line.split(b" ", 1) for line in head.split(b"\n") if b" " in line]
        named = [(key, value.decode(errors="replace")) for key, value in lines]
        tree = next((value for key, value in named if key == b"tree"), "")
        parents = [value for key, value in named if key == b"parent"]
        return RawCommit(oid, tree, parents, message.decode(errors="replace"), raw)

    def entries(self, tree: str) -> list[tuple[int, str]]:
        """Mode and id of what is in a tree. Raises Unreadable."""
        kind, raw = self.read(tree)
        if kind != ObjectType.TREE:
            raise Unreadable(f"{tree} is no tree")
        return [(int(m[1], 8), m[3].hex()) for m in _ENTRY.finditer(raw)]

    def below(self, tree: str, known: set[str]) -> Iterator[tuple[str, bool]]:
        """Ids of a tree and all below that are not `known`, the tree last; and whether each is a blob.

        Adds them to `known`. Raises Unreadable for a tree; blobs are not read.
        """
        todo: list[tuple[str, bool]] = [(tree, False)]
        while todo:
            oid, opened = todo.pop()
            if opened:
                yield oid, False
            elif oid not in known:
                known.add(oid)
                todo.append((oid, True))
                for mode, inner in self.entries(oid):
                    if mode == 0o40000:
                        todo.append((inner, False))
                    elif mode != 0o160000 and inner not in known:
                        known.add(inner)
                        yield inner, True

    def all_commits(self) -> Iterator[RawCommit]:
        """All commits that can be read, whether anything leads to them or not."""
        for oid in self._ids():
            try:
                yield self.commit(oid)
            except Unreadable:
                continue

    def _ids(self) -> Iterator[str]:
        folder = self.repository / "objects"
        for inner in folder.iterdir() if folder.is_dir() else ():
            if _FAN_OUT.fullmatch(inner.name) and inner.is_dir():
                yield from (inner.name + each.name for each in inner.iterdir() if len(each.name) == 38)
        for pack in (folder / "pack").glob("pack-*.pack"):
            if pack.with_suffix(".idx").exists():
                yield from ids_of(pack)


def read_references(repository: Path) -> dict[str, str | None]:
    """Name → id of all references; None for one whose file says none. Symbolic ones are left out."""
    found: dict[str, str | None] = {}
    packed = repository / "packed-refs"
    if packed.exists():
        lines = packed.read_text(errors="replace").splitlines()
        if not lines:
            found["packed-refs"] = None  # git never writes it without a heading
        for line in lines:
            if not line.startswith(("#", "^")):
                oid, _, name = line.partition(" ")
                found[name or "packed-refs"] = oid if name and _ID.fullmatch(oid) else None
    for path in (repository / "refs").rglob("*"):
        if path.is_file() and path.suffix != ".lock":
            text = path.read_text(errors="replace").strip()
            if not text.startswith("ref: "):
                found[str(path.relative_to(repository))] = text if _ID.fullmatch(text) else None
    return found


def shallow_ids(repository: Path) -> set[str]:
    """Commits whose parents the clone need not have."""
    path = repository / "shallow"
    return set(path.read_text(errors="replace").split()) if path.is_file() else set()


def fault_of(repository: Path, branch: str) -> str | None:
    """What is broken in a clone that is there; None when it is in order.

    All references, all commits, and all that the branches hold now or that was not pushed are looked at, so
    that it takes as long as reading the dataset. `branch`: this node's, which is there once the remote was
    seen to have it.
    """
    for name in ("objects", "refs"):
        if not (repository / name).is_dir():
            return f"its folder {name} is missing"
    try:
        fault = _fault_of_files(repository) or _fault_of_references(repository, branch)
    except OSError as error:
        return f"it cannot be read ({error})"
    if fault is not None:
        return fault
    references = {name: oid for name, oid in read_references(repository).items() if oid is not None}
    theirs = {oid for name, oid in references.items() if name.startswith(TRACKED)}
    try:
        _check_all(Objects(repository), set(references.values()), theirs, shallow_ids(repository))
    except Unreadable as error:
        return f"the object {error}"
    return None


def _fault_of_files(repository: Path) -> str | None:
    try:
        head = (repository / "HEAD").read_text(errors="replace").strip()
    except FileNotFoundError:
        return "its file HEAD is missing"
    if not _HEAD.fullmatch(head):
        return "its file HEAD is spoilt"
    try:
        flags = RepositoryOpenFlag.BARE | RepositoryOpenFlag.NO_SEARCH
        return None if pygit2.Repository(str(repository), flags).remotes[REMOTE].url else "it has no remote"
    except KeyError:
        return "its file config names no remote"
    except (pygit2.GitError, ValueError) as error:
        return f"it cannot be opened ({error})"


def _fault_of_references(repository: Path, branch: str) -> str | None:
    references = read_references(repository)
    for name, oid in references.items():
        if oid is None:
            return f"the file {name} is emptied or spoilt"
    if KNOWN + branch in references and HEADS + branch not in references:
        return f"its branch {branch} is missing"
    return None


def _check_all(objects: Objects, tips: set[str], theirs: set[str], shallow: set[str]) -> None:
    """`theirs`: tips that the remote has; of commits that only we have the content is looked at as well."""
    seen: set[str] = set()
    content: set[str] = set()
    for some, ours in ((theirs, False), (tips - theirs, True)):
        todo = list(some)
        while todo:
            oid = todo.pop()
            if oid in seen:
                continue
            seen.add(oid)
            commit = objects.commit(oid)
            todo += [] if oid in shallow else commit.parents
            if ours or oid in tips:
                _check_content(objects, commit.tree, content)


def _check_content(objects: Objects, tree: str, seen: set[str]) -> None:
    for oid, is_blob in objects.below(tree, seen):
        if is_blob:
            objects.check(oid)
