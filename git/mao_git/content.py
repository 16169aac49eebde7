"""Content of files in pieces, so that memory stays flat however large they are.

libgit2 reads an object whole. Large objects of ours lie loose, one zlib stream a file (see `upkeep`), and are
read from there.
"""

from __future__ import annotations

import os
import secrets
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

import pygit2
from pygit2.enums import ObjectType

from . import lfs
from .clone import Clone
from .objects import loose_content, loose_path

LARGE = 1 << 20  # bytes, packed or unpacked, from which on a loose object is read in pieces
PIECE = 1 << 20
_MOST_PACKED = 1032  # times that zlib can make anything smaller


@dataclass(frozen=True, slots=True)
class Opened:
    """A file's content: its size in bytes, and the bytes in pieces, once."""

    size: int
    pieces: Iterator[bytes | memoryview]


def open_content(clone: Clone, oid: pygit2.Oid, *, with_lfs: bool) -> Opened:
    """The content of a blob; of a pointer what it stands for.

    `with_lfs`: whatever looks like a pointer is one. Without it one is where its content is here: a tree may
    have lost what told so.

    Raises lfs.ContentMissing when content is not here, OSError for a blob that is broken, KeyError for none.
    """
    plain = open_blob(clone, oid)
    if not lfs.may_be_pointer(plain.size):
        return plain
    whole = b"".join(plain.pieces)
    pointer = lfs.parse(whole)
    if pointer is None or not (with_lfs or lfs.is_here(clone, pointer)):
        return Opened(len(whole), iter((whole,)))
    if not lfs.content_path(clone, pointer.oid).exists():
        raise lfs.ContentMissing(pointer.oid)
    return Opened(pointer.size, lfs.content_pieces(clone, pointer))


def open_blob(clone: Clone, oid: pygit2.Oid) -> Opened:
    """What git holds. Loose objects never go through libgit2, see `objects`."""
    loose = large_loose(clone.path, oid)
    if loose is not None:
        return Opened(_declared_size(loose), _inflated(loose))
    content = loose_content(clone.path, str(oid))
    if content is not None:
        return Opened(len(content), iter((content,)))
    blob = clone.git[oid].peel(pygit2.Blob)
    return Opened(blob.size, iter((memoryview(blob),)))


def _declared_size(path: Path) -> int:
    with path.open("rb") as file:
        packed = file.read(512)
    try:
        return int(zlib.decompressobj().decompress(packed, 64).partition(b"\0")[0].split()[1])
    except (zlib.error, ValueError, IndexError) as error:
        raise OSError(f"{path} is broken: {error}") from error


def large_loose(repository: Path, oid: pygit2.Oid) -> Path | None:
    """The file of a large loose object; None when it is small or packed."""
    path = loose_path(repository, str(oid))
    try:
        return path if is_large(path) else None
    except FileNotFoundError:
        return None


def is_large(loose: Path) -> bool:
    """Whether a loose object is to be read in pieces, for its size on the disk or what it unpacks to."""
    stored = loose.stat().st_size
    return stored > LARGE or (stored > LARGE // _MOST_PACKED and _declared_size(loose) > LARGE)


def _inflated(path: Path) -> Iterator[bytes]:
    """Raises zlib.error (as OSError) for a file that is broken or cut short."""
    stream = zlib.decompressobj()
    head = True
    with path.open("rb") as file:
        try:
            while piece := stream.unconsumed_tail or file.read(PIECE):
                data = stream.decompress(piece, PIECE)
                if head:
                    data, head = data.partition(b"\0")[2], False  # "blob <size>" comes first
                yield data
        except zlib.error as error:
            raise OSError(f"{path} is broken: {error}") from error
    if not stream.eof:
        raise OSError(f"{path} is cut short")


Place = Callable[[], AbstractContextManager[None]]


def copy_blob(source: pygit2.Repository, target: pygit2.Repository, oid: pygit2.Oid, at: Place) -> None:
    """Puts a blob into another repository on this machine; it is whole there, or not there.

    `at`: makes the block in which only the target is used, so that its failures can be told from ours.
    """
    loose = large_loose(Path(source.path), oid)
    if loose is None:
        content = loose_content(Path(source.path), str(oid))
        data = source[oid].read_raw() if content is None else content
        with at():
            target.write(ObjectType.BLOB, data)
        return
    with at():
        there = oid in target
    if not there:
        _copy_file(loose, loose_path(Path(target.path), str(oid)), at)


def _copy_file(source: Path, target: Path, at: Place) -> None:
    temporary = target.with_name(f"tmp_obj_{secrets.token_hex(8)}")  # git sweeps files of such names
    with source.open("rb") as reading:
        try:
            with at():
                target.parent.mkdir(exist_ok=True)
                temporary.touch(exist_ok=False)
            while piece := reading.read(PIECE):
                with at(), temporary.open("ab") as writing:
                    writing.write(piece)
            with at():
                with temporary.open("ab") as writing:
                    os.fsync(writing.fileno())
                temporary.chmod(0o444)
                temporary.rename(target)
        finally:
            with suppress(OSError):
                temporary.unlink()
