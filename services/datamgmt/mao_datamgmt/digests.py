"""Digests of content that are computed while it is read, so that nothing is read twice."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from typing import IO

from mao_git import blob_hash


class HashingReader(io.BufferedIOBase):
    """A stream that hashes what is read from another. `size` (bytes) and `sha256` cover what was read so far.

    Closing it closes the other stream.
    """

    def __init__(self, stream: IO[bytes] | io.BufferedIOBase) -> None:
        super().__init__()
        self._stream = stream
        self._digest = hashlib.sha256()
        self.size = 0

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        data = self._stream.read(-1 if size is None else size)
        self._digest.update(data)
        self.size += len(data)
        return data

    def close(self) -> None:
        self._stream.close()
        super().close()


class ContentDigest:
    """Computes `size` in bytes, `sha256` and `blob` (the git id) of content while it is read.

    `declared` is the expected size in bytes.
    """

    def __init__(self, declared: int) -> None:
        self._declared = declared
        self._sha256 = hashlib.sha256()
        self._git = blob_hash(declared)
        self.size = 0

    def read(self, pieces: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
        """Yield the pieces unchanged. Raises OSError at the end if their size is not the declared one."""
        for piece in pieces:
            self.size += len(piece)
            self._sha256.update(piece)
            self._git.update(piece)
            yield piece
        if self.size != self._declared:
            raise OSError(f"it has {self.size} bytes; {self._declared} were expected")

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    @property
    def blob(self) -> str:
        return self._git.hexdigest()


def content_digest(size: int, pieces: Iterable[bytes | memoryview]) -> ContentDigest:
    """Read all pieces and return their digest. Raises OSError if their size is not `size`."""
    digest = ContentDigest(size)
    for _ in digest.read(pieces):
        pass
    return digest
