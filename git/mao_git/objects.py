"""Objects as they lie on the disk: whether a loose one is whole, and trees opened only when they are.

libgit2 (seen in 1.9.7) never returns from reading a loose object that was cut short, say by a faulty disk: it
asks zlib for the rest for ever. So objects that people ask to see or to check are looked at before.
"""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path

import pygit2
from pygit2.enums import ObjectType

from .clone import Clone

_PIECE = 1 << 20


def loose_path(repository: Path, oid: str) -> Path:
    """Where an object lies when it is not packed."""
    return repository / "objects" / oid[:2] / oid[2:]


def is_whole(loose: Path) -> bool:
    """Whether a loose object's content is what its name says. Raises FileNotFoundError."""
    digest, unpack = hashlib.sha1(usedforsecurity=False), zlib.decompressobj()
    try:
        with loose.open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(unpack.decompress(piece))
    except zlib.error:
        return False
    return unpack.eof and digest.hexdigest() == loose.parent.name + loose.name


def loose_content(repository: Path, oid: str) -> bytes | None:
    """Content of a loose object, without the head; None when it is packed or absent. Raises OSError."""
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


def _broken(loose: Path) -> OSError:
    return OSError(f"the object {loose} is broken or cut short")


def require_whole(clone: Clone, oid: str) -> None:
    """Raises OSError for a loose object that is broken or cut short; one that is packed passes."""
    loose = loose_path(clone.path, oid)
    try:
        whole = is_whole(loose)
    except FileNotFoundError:
        return
    if not whole:
        raise _broken(loose)


def top_tree(clone: Clone, oid: str) -> pygit2.Tree:
    """The tree of a commit, or the tree of that id. Raises KeyError for none, OSError for a broken one."""
    require_whole(clone, oid)
    found = clone.git[oid]
    if found.type == ObjectType.COMMIT:
        require_whole(clone, str(found.peel(pygit2.Commit).tree_id))
    return found.peel(pygit2.Tree)
