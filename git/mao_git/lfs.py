"""Git LFS on this node: the pointers in git, and their content.

Content is stored in the clone as by git-lfs (`lfs/objects/ab/cd/<sha256>`). Content that the remote lacks
is marked in `lfs/waiting` before the commit with its pointer exists, and is pushed before any branch.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path

import pygit2

from mao_shared.errors import MaoError, NotFound
from mao_shared.host.files import sync_folder

from .errors import ContentMissing, ObjectBroken, git_errors
from .repository import Repository, tree_entry

READ_SIZE = 1 << 20  # bytes
MIN_POINTER_SIZE, MAX_POINTER_SIZE = 120, 200  # bytes; ours have about 130
ATTRIBUTES = ".gitattributes"
MARK = ".mao/lfs"  # see `attributes`
_POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (\d{1,18})\n"
)


@dataclass(frozen=True, slots=True)
class LfsPointer:
    """The pointer that git stores in place of a large file: SHA-256 of its content, and its size in bytes."""

    oid: str
    size: int

    def text(self) -> bytes:
        """Return the content of the pointer file."""
        return (
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.oid}\nsize {self.size}\n".encode()
        )


def parse_pointer(data: bytes) -> LfsPointer | None:
    """Parse a pointer; None for any other content."""
    match = _POINTER.fullmatch(data) if len(data) <= MAX_POINTER_SIZE else None
    return None if match is None else LfsPointer(match[1].decode(), int(match[2]))


def may_be_pointer(size: int) -> bool:
    """True if a file of `size` bytes can be a pointer."""
    return MIN_POINTER_SIZE <= size <= MAX_POINTER_SIZE


def uses_lfs(tree: pygit2.Tree) -> bool:
    """True if every blob in this tree that looks like a pointer is one."""
    if MARK in tree:
        return True
    attributes = tree_entry(tree, ATTRIBUTES)
    return isinstance(attributes, pygit2.Blob) and b"filter=lfs" in attributes.data


def content_path(repo: Repository, oid: str) -> Path:
    """Return where the content with this SHA-256 is stored, whether it is here or not."""
    return repo.path / "lfs" / "objects" / oid[:2] / oid[2:4] / oid


def has_any_lfs_content(repo: Repository) -> bool:
    """True if any LFS content is here."""
    return (repo.path / "lfs" / "objects").is_dir()


def has_lfs_content(repo: Repository, pointer: LfsPointer) -> bool:
    """True if the content of a pointer is here, by its name and size."""
    try:
        return content_path(repo, pointer.oid).stat().st_size == pointer.size
    except FileNotFoundError:
        return False


def content_pieces(repo: Repository, pointer: LfsPointer) -> Iterator[bytes]:
    """Yield the content. Raises ContentMissing, and at its end ObjectBroken if its digest is wrong."""
    digest = hashlib.sha256()
    try:
        file = content_path(repo, pointer.oid).open("rb")
    except FileNotFoundError:
        raise ContentMissing(pointer.oid) from None
    with git_errors(), file:
        while piece := file.read(READ_SIZE):
            digest.update(piece)
            yield piece
    if digest.hexdigest() != pointer.oid:
        raise ObjectBroken(f"the copy of the large file {pointer.oid[:12]} is broken: its digest is wrong")


def store(repo: Repository, stream: BufferedIOBase) -> LfsPointer:
    """Store content, which the next push uploads. It is on the disk when this returns."""
    folder = repo.path / "lfs"
    for name in ("tmp", "waiting"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    temporary, digest, size = folder / "tmp" / f"mao-{secrets.token_hex(8)}", hashlib.sha256(), 0
    try:
        with temporary.open("xb") as file:
            while piece := stream.read(READ_SIZE):
                digest.update(piece)
                size += file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        pointer = LfsPointer(digest.hexdigest(), size)
        target = content_path(repo, pointer.oid)
        target.parent.mkdir(parents=True, exist_ok=True)
        (folder / "waiting" / pointer.oid).touch()
        temporary.rename(target)
    finally:
        temporary.unlink(missing_ok=True)
    for parent in (folder / "waiting", *list(target.parents)[:3]):
        sync_folder(parent)
    return pointer


def content_missing(repo: Repository, missing: ContentMissing) -> MaoError:
    """Return the error to show when the content is not at the remote either."""
    return NotFound(
        f"The content {str(missing)[:12]}… of a large file of dataset {repo.path.stem!r} is neither here "
        f"nor at the remote {repo.url}.",
        code="lfs-content-missing",
        next="Push it from where it is: git lfs push --all origin; then try again.",
    )
