"""SHA-256 of what a step wrote, taken while its files are read into git, so that nothing is read twice."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from mao_git import Changed, Content
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


@dataclass(frozen=True, slots=True)
class Written:
    """What a step wrote and removed, for its record."""

    files: Mapping[str, OutputFile] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """Every file where they are few, and always the manifest."""
        facts: dict[str, Any] = {"manifest": manifest(self.files)}
        if len(self.files) <= LISTED:
            facts["outputs"] = {path: file.model_dump() for path, file in sorted(self.files.items())}
        if len(self.removed) <= LISTED:
            facts["removed"] = sorted(self.removed)
        else:
            facts["removed_files"] = len(self.removed)
        return facts


class Digests:
    """Remembers the digest of every content that is read through it."""

    def __init__(self) -> None:
        self._readers: dict[str, HashingReader] = {}
        self._links: dict[str, OutputFile] = {}  # and what else is known without reading

    def watch(self, contents: Mapping[str, Content | None]) -> dict[str, Content | None]:
        """The same contents by path; whoever reads one leaves its digest here."""
        return {path: content and self._watched(path, content) for path, content in contents.items()}

    def _watched(self, path: str, content: Content) -> Content:
        if content.link is not None:  # a link's content is its target
            data = content.link.encode()
            self._links[path] = OutputFile(size=len(data), sha256=hashlib.sha256(data).hexdigest())
            return content
        if content.open is None:
            return content
        return replace(content, open=partial(self._open, path, content.open))

    def _open(self, path: str, opener: Callable[[], io.BufferedIOBase]) -> io.BufferedIOBase:
        reader = self._readers[path] = HashingReader(opener())
        return reader

    def note(self, path: str, text: bytes | None) -> None:
        """Takes in what a file holds that was not read through this."""
        self._readers.pop(path, None)
        self._links.pop(path, None)
        if text is not None:
            self._links[path] = OutputFile(size=len(text), sha256=hashlib.sha256(text).hexdigest())

    def written(self, touched: Set[str], changed: Changed) -> Written:
        """For the record: all that the tool wrote where it is little, otherwise what differs from before.

        `touched`: paths of files that the tool wrote, also those that have the same content again.
        """
        listed = touched if len(touched) <= LISTED else frozenset[str]()
        found = {path: self._of(path) for path in listed | changed.files.keys()}
        return Written({path: file for path, file in found.items() if file is not None}, changed.removed)

    def _of(self, path: str) -> OutputFile | None:
        reader = self._readers.get(path)
        if reader is None:
            return self._links.get(path)
        return OutputFile(size=reader.size, sha256=reader.sha256)


def manifest(files: Mapping[str, OutputFile]) -> dict[str, Any]:
    """Number of files, their bytes, and the SHA-256 of the sorted lines `<sha256>  <path>`.

    The same text as `sha256sum FILE… | LC_ALL=C sort` prints.
    """
    lines = sorted(f"{file.sha256}  {path}\n" for path, file in files.items())
    digest = hashlib.sha256("".join(lines).encode())
    size = sum(file.size for file in files.values())
    return {"files": len(files), "bytes": size, "sha256": digest.hexdigest()}
