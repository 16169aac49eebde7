"""Reading objects from the disk, checked; large ones in pieces.

libgit2 (seen in 1.9.7) never returns from reading a truncated loose object, say from a faulty disk: it
asks zlib for the rest in an endless loop. So loose objects are checked here before libgit2 reads them.

libgit2 reads an object at once. Large objects stay loose, one zlib stream a file (see `maintenance`), and are
read in pieces, so that memory does not grow with their size.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pygit2
from pygit2.enums import ObjectType

from . import lfs
from .errors import ContentMissing, ObjectBroken, git_errors
from .repository import Repository

READ_SIZE = 1 << 20  # bytes
LARGE_SIZE = 1 << 20  # bytes, packed or unpacked, above which a loose object is read in pieces
_ZLIB_FACTOR = 1032  # the most that zlib can compress anything
_INDEX_HEAD, _INDEX_TABLE, _ID_BYTES = 8, 256 * 4, 20  # bytes, of git's pack index version 2
_FAN_OUT = re.compile(r"[0-9a-f]{2}")
_RAW_ENTRY = re.compile(rb"(\d+) ([^\0]+)\0(.{20})", re.DOTALL)
_OBJECT_TYPES = {
    b"commit": ObjectType.COMMIT,
    b"tree": ObjectType.TREE,
    b"blob": ObjectType.BLOB,
    b"tag": ObjectType.TAG,
}


def blob_hash(size: int) -> hashlib._Hash:
    """Start the hash of a blob's id (and SWHID), to which `size` bytes of content are to be added."""
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


def loose_path(repository: Path, oid: str) -> Path:
    """Return the path of an object that is not packed."""
    return repository / "objects" / oid[:2] / oid[2:]


def is_whole(loose: Path) -> bool:
    """True if a loose object's content has the id that is its name. Raises FileNotFoundError."""
    digest, unpack = hashlib.sha1(usedforsecurity=False), zlib.decompressobj()
    try:
        with loose.open("rb") as file:
            while piece := file.read(READ_SIZE):
                digest.update(unpack.decompress(piece))
    except zlib.error:
        return False
    return unpack.eof and digest.hexdigest() == loose_id(loose)


def loose_content(repository: Path, oid: str) -> bytes | None:
    """Return a loose object's content without the head; None if packed or absent. Raises ObjectBroken."""
    path = loose_path(repository, oid)
    unpack = zlib.decompressobj()
    try:
        whole = unpack.decompress(path.read_bytes())
    except FileNotFoundError:
        return None
    except zlib.error as error:
        raise _broken(path) from error
    if not unpack.eof or hashlib.sha1(whole, usedforsecurity=False).hexdigest() != oid:
        raise _broken(path)
    return whole.partition(b"\0")[2]  # "blob <size>" comes first


def _broken(loose: Path) -> ObjectBroken:
    return ObjectBroken(f"the object {loose} is broken or truncated")


def check_object(repo: Repository, oid: str) -> None:
    """Raise ObjectBroken for a loose object that is broken or truncated; a packed one passes."""
    loose = loose_path(repo.path, oid)
    try:
        whole = is_whole(loose)
    except FileNotFoundError:
        return
    if not whole:
        raise _broken(loose)


def top_tree(repo: Repository, oid: str) -> pygit2.Tree:
    """Return the tree of a commit, or the tree of that id. Raises ObjectBroken, and KeyError if absent."""
    check_object(repo, oid)
    found = repo.git[oid]
    if found.type == ObjectType.COMMIT:
        check_object(repo, str(found.peel(pygit2.Commit).tree_id))
    return found.peel(pygit2.Tree)


@dataclass(frozen=True, slots=True)
class ContentStream:
    """A file's content: its size in bytes, and its bytes in pieces, which can be read once.

    Reading them raises RepositoryError, and ContentMissing.
    """

    size: int
    pieces: Iterator[bytes | memoryview]


def open_content(repo: Repository, oid: pygit2.Oid, *, with_lfs: bool) -> ContentStream:
    """Open the content of a blob; of a pointer, the content that it stands for.

    `with_lfs`: every blob that looks like a pointer is one. Otherwise only if its content is here: a
    tree may have lost its attributes.

    Raises ContentMissing if the content is not here, ObjectBroken, and KeyError if the blob is absent.
    """
    plain = open_raw_blob(repo, oid)
    if not lfs.may_be_pointer(plain.size):
        return plain
    whole = b"".join(plain.pieces)
    pointer = lfs.parse_pointer(whole)
    if pointer is None or not (with_lfs or lfs.has_lfs_content(repo, pointer)):
        return ContentStream(len(whole), iter((whole,)))
    if not lfs.content_path(repo, pointer.oid).exists():
        raise ContentMissing(pointer.oid)
    return ContentStream(pointer.size, lfs.content_pieces(repo, pointer))


def open_raw_blob(repo: Repository, oid: pygit2.Oid) -> ContentStream:
    """Open a blob as git stores it; of a large file, its pointer."""
    loose = large_loose(repo.path, oid)
    if loose is not None:
        return ContentStream(_declared_size(loose), _inflated(loose))
    content = loose_content(repo.path, str(oid))
    if content is not None:
        return ContentStream(len(content), iter((content,)))
    blob = repo.git[oid].peel(pygit2.Blob)
    return ContentStream(blob.size, iter((memoryview(blob),)))


def _declared_size(path: Path) -> int:
    with path.open("rb") as file:
        packed = file.read(512)
    try:
        return int(zlib.decompressobj().decompress(packed, 64).partition(b"\0")[0].split()[1])
    except (zlib.error, ValueError, IndexError) as error:
        raise ObjectBroken(f"{path} is broken: {error}") from error


def large_loose(repository: Path, oid: pygit2.Oid) -> Path | None:
    """Return the file of a large loose object; None if it is small or packed."""
    path = loose_path(repository, str(oid))
    try:
        return path if is_large(path) else None
    except FileNotFoundError:
        return None


def is_large(loose: Path) -> bool:
    """True if a loose object has to be read in pieces, by its size on the disk or unpacked."""
    stored = loose.stat().st_size
    return stored > LARGE_SIZE or (stored > LARGE_SIZE // _ZLIB_FACTOR and _declared_size(loose) > LARGE_SIZE)


def _inflated(path: Path) -> Iterator[bytes]:
    """Yield the content of a loose object. Raises ObjectBroken if it is broken or truncated."""
    stream = zlib.decompressobj()
    head = True
    with git_errors(), path.open("rb") as file:
        try:
            while piece := stream.unconsumed_tail or file.read(READ_SIZE):
                data = stream.decompress(piece, READ_SIZE)
                if head:
                    data, head = data.partition(b"\0")[2], False  # "blob <size>" comes first
                yield data
        except zlib.error as error:
            raise ObjectBroken(f"{path} is broken: {error}") from error
    if not stream.eof:
        raise ObjectBroken(f"{path} is truncated")


Target = Callable[[], AbstractContextManager[None]]
"""Enters a block in which only the target repository is used, so that its failures differ from ours."""


def copy_blob(source: pygit2.Repository, target: pygit2.Repository, oid: pygit2.Oid, at: Target) -> None:
    """Copy a blob into another repository on this machine, atomically."""
    loose = large_loose(Path(source.path), oid)
    if loose is None:
        content = loose_content(Path(source.path), str(oid))
        data = source[oid].read_raw() if content is None else content
        with at():
            target.write(ObjectType.BLOB, data)
        return
    with at():
        if oid in target:
            return
    path = loose_path(Path(target.path), str(oid))
    temporary = path.with_name(f"tmp_obj_{secrets.token_hex(8)}")  # git removes old files of such names
    with loose.open("rb") as reading:
        try:
            with at():
                path.parent.mkdir(exist_ok=True)
                temporary.touch(exist_ok=False)
            while piece := reading.read(READ_SIZE):
                with at(), temporary.open("ab") as writing:
                    writing.write(piece)
            with at():
                with temporary.open("ab") as writing:
                    os.fsync(writing.fileno())
                temporary.chmod(0o444)
                temporary.rename(path)
        finally:
            with suppress(OSError):
                temporary.unlink()


def packed_ids(pack: Path) -> set[str]:
    """Return the ids of the objects in a pack, from its index; empty for an index that is not version 2."""
    data = pack.with_suffix(".idx").read_bytes()
    if data[:_INDEX_HEAD] != b"\xfftOc\0\0\0\x02":
        return set()
    begin = _INDEX_HEAD + _INDEX_TABLE
    count = int.from_bytes(data[begin - 4 : begin], "big")
    ends = range(begin + _ID_BYTES, begin + (count + 1) * _ID_BYTES, _ID_BYTES)
    return {data[end - _ID_BYTES : end].hex() for end in ends}


def loose_objects(repository: Path) -> Iterator[Path]:
    """Yield the files of all loose objects."""
    folder = repository / "objects"
    for inner in folder.iterdir() if folder.is_dir() else ():
        if _FAN_OUT.fullmatch(inner.name) and inner.is_dir():
            yield from (path for path in inner.iterdir() if len(path.name) == 2 * _ID_BYTES - 2)


def loose_id(path: Path) -> str:
    """Return the id of the object that a loose object's file is named after."""
    return path.parent.name + path.name


def raw_entries(tree: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yield mode, name and id of each entry in a tree object's content."""
    return ((match[1], match[2], match[3]) for match in _RAW_ENTRY.finditer(tree))


class ObjectUnreadable(Exception):
    """An object is missing or damaged; the message says which one and how."""


@dataclass(frozen=True, slots=True)
class RawCommit:
    """A commit as parsed by `RawObjects`. `raw`: its content without git's object header."""

    id: str
    tree: str
    parents: list[str]
    message: str
    raw: bytes


class RawObjects:
    """The objects of a repository, even of one that libgit2 cannot open."""

    def __init__(self, repository: Path) -> None:
        self.repository = repository
        folder = repository / "objects"
        self._packs = pygit2.Odb()
        if (folder / "pack").is_dir():
            self._packs.add_backend(pygit2.OdbBackendPack(str(folder)), 1)

    def read(self, oid: str) -> tuple[ObjectType, bytes]:
        """Return an object's type and content. Raises ObjectUnreadable."""
        loose = loose_path(self.repository, oid)
        try:
            if loose.exists():
                if not is_whole(loose):
                    raise ObjectUnreadable(f"{oid} is damaged")
                head, _, content = zlib.decompress(loose.read_bytes()).partition(b"\0")
                return _OBJECT_TYPES[head.split()[0]], content
            kind, content = self._packs.read(pygit2.Oid(hex=oid))[:2]
            return ObjectType(kind), content
        except KeyError as error:
            raise ObjectUnreadable(f"{oid} is missing") from error
        except (OSError, pygit2.GitError, ValueError) as error:
            raise ObjectUnreadable(f"{oid} cannot be read ({error})") from error

    def check(self, oid: str) -> None:
        """Raise ObjectUnreadable unless an object is intact; a loose one is read in pieces."""
        loose = loose_path(self.repository, oid)
        try:
            if not loose.exists():
                self.read(oid)
            elif not is_whole(loose):
                raise ObjectUnreadable(f"{oid} is damaged")
        except OSError as error:
            raise ObjectUnreadable(f"{oid} cannot be read ({error.strerror})") from error

    def commit(self, oid: str) -> RawCommit:
        """Parse a commit. Raises ObjectUnreadable, also for another kind of object."""
        kind, raw = self.read(oid)
        if kind != ObjectType.COMMIT:
            raise ObjectUnreadable(f"{oid} is not a commit")
        head, _, message = raw.partition(b"\n\n")
        lines = [line.split(b" ", 1) for line in head.split(b"\n") if b" " in line]
        named = [(key, value.decode(errors="replace")) for key, value in lines]
        tree = next((value for key, value in named if key == b"tree"), "")
        parents = [value for key, value in named if key == b"parent"]
        return RawCommit(oid, tree, parents, message.decode(errors="replace"), raw)

    def entries(self, tree: str) -> list[tuple[int, str]]:
        """Return mode and id of a tree's entries. Raises ObjectUnreadable."""
        kind, raw = self.read(tree)
        if kind != ObjectType.TREE:
            raise ObjectUnreadable(f"{tree} is not a tree")
        return [(int(mode, 8), oid.hex()) for mode, _, oid in raw_entries(raw)]

    def below(self, tree: str, known: set[str]) -> Iterator[tuple[str, bool]]:
        """Yield (id, is a blob) of a tree and all below it that are not `known`, the tree last.

        Adds them to `known`. Raises ObjectUnreadable for a tree; blobs are not read.
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
        """Yield all readable commits, also those that no reference leads to."""
        packs = (self.repository / "objects" / "pack").glob("pack-*.pack")
        packed = (packed_ids(pack) for pack in packs if pack.with_suffix(".idx").exists())
        for oid in chain(map(loose_id, loose_objects(self.repository)), chain.from_iterable(packed)):
            with suppress(ObjectUnreadable):
                yield self.commit(oid)
