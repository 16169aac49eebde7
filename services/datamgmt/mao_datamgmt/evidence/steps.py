"""Sizes and digests of content while it is read once, in pieces."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator


def git_hash(size: int) -> hashlib._Hash:
    """What becomes a blob's id (and its SWHID) once `size` bytes of content are put in."""
    return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


class Measured:
    """Passes content on; `size`, `sha256` and `blob` (its id in git) are those of what was read so far.

    `declared`: how many bytes will come, which git's id begins with.
    """

    def __init__(self, declared: int) -> None:
        self._declared = declared
        self._sha256 = hashlib.sha256()
        self._git = git_hash(declared)
        self.size = 0

    def read(self, pieces: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
        """The pieces themselves. Raises OSError when they are more or fewer bytes than declared."""
        for piece in pieces:
            self.size += len(piece)
            self._sha256.update(piece)
            self._git.update(piece)
            yield piece
        if self.size != self._declared:
            raise OSError(f"{self.size} bytes came where {self._declared} were expected")

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    @property
    def blob(self) -> str:
        return self._git.hexdigest()


def measure(size: int, pieces: Iterable[bytes | memoryview]) -> Measured:
    """Reads all of it."""
    measured = Measured(size)
    for _ in measured.read(pieces):
        pass
    return measured
