"""SHA-256 of what a step wrote, taken while its files are read into git, so that nothing is read twice."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mao_shared.models import OutputFile

LISTED = 500  # files up to which the record of a step lists each


class HashingReader(io.BufferedIOBase):
    """Passes a stream on; `size` and `sha256` are those of what was read so far."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
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
        data = self._stream.read(size)
        self._digest.update(data)
        self.size += len(data)
        return data

    def close(self) -> None:
        self._stream.close()
        super().close()


class Digests:
    """Remembers the digest of every file that is opened through it."""

    def __init__(self) -> None:
        self._readers: dict[str, HashingReader] = {}
        self._links: dict[str, OutputFile] = {}

    def watched(self, path: str, opener: Callable[[], io.BufferedIOBase]) -> Callable[[], io.BufferedIOBase]:
        """The same opener; what is read through it counts as the content of `path`."""

        def open_watched() -> io.BufferedIOBase:
            reader = self._readers[path] = HashingReader(opener())
            return reader

        return open_watched

    def note_link(self, path: str, target: str) -> None:
        """A link's content is its target."""
        data = target.encode()
        self._links[path] = OutputFile(size=len(data), sha256=hashlib.sha256(data).hexdigest())

    def of(self, path: str) -> OutputFile | None:
        """None for what was not read."""
        reader = self._readers.get(path)
        if reader is None:
            return self._links.get(path)
        return OutputFile(size=reader.size, sha256=reader.sha256)


@dataclass(frozen=True, slots=True)
class Written:
    """What a step wrote and removed, for its record."""

    files: Mapping[str, OutputFile] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """Every file where they are few, and always the manifest; see docs of `manifest`."""
        facts: dict[str, Any] = {"manifest": manifest(self.files)}
        if len(self.files) <= LISTED:
            facts["outputs"] = {path: file.model_dump() for path, file in sorted(self.files.items())}
        if len(self.removed) <= LISTED:
            facts["removed"] = sorted(self.removed)
        else:
            facts["removed_files"] = len(self.removed)
        return facts


def manifest(files: Mapping[str, OutputFile]) -> dict[str, Any]:
    """Number of files, their bytes, and the SHA-256 of the sorted lines `<sha256>  <path>`.

    The same text as `sha256sum FILE… | LC_ALL=C sort` prints.
    """
    lines = sorted(f"{file.sha256}  {path}\n" for path, file in files.items())
    digest = hashlib.sha256("".join(lines).encode())
    size = sum(file.size for file in files.values())
    return {"files": len(files), "bytes": size, "sha256": digest.hexdigest()}
