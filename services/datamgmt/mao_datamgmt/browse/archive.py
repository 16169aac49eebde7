"""Packs a folder of a commit as .tar.gz or .zip, streaming. Blocking."""

from __future__ import annotations

import io
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from mao_datamgmt.context import Context
from mao_datamgmt.datasets import clones
from mao_git import ArchiveEntry, Clone
from mao_shared.errors import InvalidInput, NotFound
from mao_shared.models import GROUND_TRUTH

MEDIA_TYPES: dict[Packing, str] = {"tar.gz": "application/gzip", "zip": "application/zip"}
_GZIP = 31  # zlib's window size for gzip with the largest window
_COMPRESSION_LEVEL = 6
_RECORD = tarfile.BLOCKSIZE
_MIN_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


Packing = Literal["tar.gz", "zip"]


@dataclass(frozen=True)
class ArchiveSource:
    """The files to pack; in the archive they are below the folder `root`."""

    clone: Clone
    commit: str
    members: list[ArchiveEntry]
    root: str
    time: datetime

    def pieces(self, member: ArchiveEntry) -> Iterator[bytes | memoryview]:
        """Yield a member's content. Raises OSError if it is shorter than expected."""
        missing = member.size
        for piece in self.clone.open_blob(self.commit, member.id).pieces:
            missing -= len(piece)
            yield piece
        if missing:
            raise OSError(f"{member.path} is broken in the clone: {missing} bytes are missing")

    def name(self, member: ArchiveEntry) -> str:
        return f"{self.root}/{member.path}"


def open_archive(context: Context, name: str, ref: str | None, path: str) -> ArchiveSource:
    """List the files of a folder of a commit. Raises NotFound, and InvalidInput when `path` is a file."""
    clone = Clone.open(context.data.clone(name))
    commit = clone.resolve(ref or GROUND_TRUTH)
    kind = clone.kind(commit, path)
    if kind is None:
        raise NotFound(
            f"There is no {path!r} in commit {commit[:10]}.",
            code="path-not-found",
            next=f"List its files: maoctl dataset files {name} --ref {commit[:10]}",
        )
    if kind == "file":
        raise InvalidInput(
            f"{path!r} is a file.",
            code="path-not-a-folder",
            next=f"Request the file itself: /datasets/{name}/file",
        )
    members = clones.with_lfs_content(context, clone, commit, lambda: clone.archive_entries(commit, path))
    time = clone.log(commit, 1)[0][0].time
    return ArchiveSource(clone, commit, members, f"{name}-{commit[:10]}", time)


def write_archive(source: ArchiveSource, packing: Packing) -> Iterator[bytes]:
    """Yield the archive in pieces. Raises OSError if a file's content is broken."""
    if packing == "zip":
        yield from _zip(source)
        return
    packer = zlib.compressobj(_COMPRESSION_LEVEL, zlib.DEFLATED, _GZIP)
    for piece in _tar(source):
        if packed := packer.compress(piece):
            yield packed
    yield packer.flush()


def _tar(source: ArchiveSource) -> Iterator[bytes | memoryview]:
    for member in source.members:
        info = tarfile.TarInfo(source.name(member))
        info.mtime = int(source.time.timestamp())
        info.mode = 0o755 if member.executable else 0o644
        if member.link:
            info.type = tarfile.SYMTYPE
            info.linkname = b"".join(source.pieces(member)).decode(errors="surrogateescape")
        else:
            info.size = member.size
        yield info.tobuf(tarfile.PAX_FORMAT)
        if not member.link:
            yield from source.pieces(member)
            yield b"\0" * (-member.size % _RECORD)
    yield b"\0" * (2 * _RECORD)


class ZipSink(io.RawIOBase):
    """Buffers what zipfile writes. It is not seekable, so that zipfile writes sequentially."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]  # ReadableBuffer exists only in typeshed
        self._pieces.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        """Return what was written since the last call."""
        taken, self._pieces = b"".join(self._pieces), []
        return taken


def _zip(source: ArchiveSource) -> Iterator[bytes]:
    sink = ZipSink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED, compresslevel=_COMPRESSION_LEVEL) as archive:
        for member in source.members:
            info = zipfile.ZipInfo(source.name(member), max(_MIN_ZIP_TIME, source.time.timetuple()[:6]))
            mode = 0o120777 if member.link else 0o100755 if member.executable else 0o100644
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(info, "w", force_zip64=True) as file:
                for piece in source.pieces(member):
                    file.write(piece)
                    yield sink.take()
    yield sink.take()
