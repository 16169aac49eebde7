"""The format of a backup: a gzipped tar of plain files with a manifest at its end. Blocking.

    mao-backup.json     the format's version, the node, the time, and the store's revision
    store.jsonl         the store's keys (mao_shared/store/backup.py)
    settings.json       the settings of the node, for people to read
    data/…              files of the data directory
    agreements/…        files of MAO_AGREEMENTS_DIR
    federation/…        files of MAO_FEDERATION_DIR
    manifest.json       SHA-256 and size of each of the above, and the symbolic links among tools' output

`tar -xzf` unpacks it, but a restore accepts only what is described here: regular files with plain names in
these folders. It restores nothing until all files were compared with the manifest. That detects a
truncated or damaged backup, not a forged one: whoever can write the backup can write its manifest.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import stat
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Literal, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from mao_datamgmt.digests import HashingReader
from mao_shared.errors import InvalidInput, NotFound
from mao_shared.models import NodeName, Timestamp

FORMAT = 1
HEADER, STORE, SETTINGS, MANIFEST = "mao-backup.json", "store.jsonl", "settings.json", "manifest.json"
FOLDERS = ("data", "agreements", "federation")
MAX_HEADER_BYTES = 16 << 20  # it lists the datasets' tips
MAX_MANIFEST_BYTES = 1 << 30  # a file takes about 150 bytes
MAX_NAME_BYTES = 4096
_BLOCK = tarfile.BLOCKSIZE
_READ_SIZE = 1 << 20  # bytes
M = TypeVar("M", bound=BaseModel)


class Header(BaseModel):
    """The file `mao-backup.json`. `tips` is as in `Restored`; `revision` is the store's when it was read."""

    format: Literal[1] = 1
    node: NodeName
    mao: str
    taken_at: Timestamp
    revision: int
    tips: dict[str, str | None] = {}


class Manifest(BaseModel):
    """The file `manifest.json`. `files`: name → SHA-256, size; `links`: name → target, in tools' output."""

    files: dict[str, tuple[str, int]]
    links: dict[str, str] = {}


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class BackupFile:
    """A file in the archive. Its `stream` must be read before the next file."""

    name: str
    size: int
    executable: bool
    stream: Readable


class FileShrunk(OSError):
    """A file became shorter while it was copied."""


class ArchiveWriter:
    """Writes an archive to a stream, without seeking. `close` completes it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._zipped = gzip.GzipFile(filename="", fileobj=stream, mode="wb", compresslevel=1, mtime=0)
        self._tar = tarfile.TarFile(fileobj=self._zipped, mode="w", format=tarfile.GNU_FORMAT)
        self.manifest = Manifest(files={})

    def add_bytes(self, name: str, content: bytes) -> None:
        self._add(name, io.BytesIO(content), len(content), 0o600)

    def add_stream(self, name: str, stream: IO[bytes], size: int) -> None:
        """Add `size` bytes of a stream, and close it."""
        self._add(name, stream, size, 0o600)

    def add_file(self, name: str, path: Path) -> bool:
        """Add a file at its current size. False if it is gone or not a regular file.

        Raises FileShrunk, OSError.
        """
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):  # a link, and a socket
                return False
            raise
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return False
            self._add(name, file, status.st_size, 0o700 if status.st_mode & stat.S_IXUSR else 0o600)
        return True

    def add_link(self, name: str, target: str) -> None:
        """Add a symbolic link, which is recorded in the manifest only."""
        self.manifest.links[name] = target

    def _add(self, name: str, stream: IO[bytes], size: int, mode: int) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode = size, mode
        with HashingReader(stream) as hashed:
            try:
                self._tar.addfile(info, hashed)
            except OSError as error:
                if "unexpected end of data" in str(error):
                    raise FileShrunk(f"{name} became shorter while it was copied") from error
                raise
            self.manifest.files[name] = (hashed.sha256, size)

    def close(self) -> None:
        """Add the manifest and complete the archive."""
        self.add_bytes(MANIFEST, json.dumps(self.manifest.model_dump()).encode())
        self._tar.close()
        self._zipped.close()


def read_files(source: IO[bytes]) -> Iterator[BackupFile]:
    """Yield the files of an archive in order. Raises InvalidInput (`backup-invalid`) for anything else.

    `tarfile`'s own reader is not used: it trusts the sizes in headers and accepts links and devices.
    """
    with gzip.GzipFile(fileobj=source, mode="rb") as zipped:
        long_name: str | None = None
        while True:
            block = _read_exactly(zipped, _BLOCK)
            if block == bytes(_BLOCK):
                _check_end(zipped)
                return
            try:
                info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except tarfile.TarError as error:
                raise backup_invalid(f"it is not a tar archive: {error}") from error
            if info.size < 0:
                raise backup_invalid(f"it contains a file of {info.size} bytes")
            if info.type == tarfile.GNUTYPE_LONGNAME and info.size <= MAX_NAME_BYTES:
                text = _read_exactly(zipped, _padded(info.size))[: info.size]
                long_name = text.rstrip(b"\0").decode("utf-8", "surrogateescape")
                continue
            name, long_name = long_name or info.name, None
            if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
                raise backup_invalid(f"it contains {name!a}, which is not a regular file")
            stream = _BoundedReader(zipped, info.size)
            yield BackupFile(check_name(name), info.size, bool(info.mode & stat.S_IXUSR), stream)
            stream.skip()
            _read_exactly(zipped, _padded(info.size) - info.size)


def _check_end(zipped: Readable) -> None:
    """Check that only padding is left and that gzip's own checksum is right."""
    try:
        rest = zipped.read(tarfile.RECORDSIZE + 1)
        more = zipped.read(1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise backup_invalid(f"its end is truncated or damaged: {error}") from error
    if more or rest.strip(b"\0"):
        raise backup_invalid("there is data after its end")


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _read_exactly(stream: Readable, size: int) -> bytes:
    """Read `size` bytes. Raises InvalidInput if fewer are left or they cannot be unzipped."""
    try:
        data = stream.read(size)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise backup_invalid(f"it is truncated, damaged, or not gzip: {error}") from error
    if len(data) < size:
        raise backup_invalid("it is truncated")
    return data


class _BoundedReader:
    """The next `size` bytes of a stream; reading raises InvalidInput if the stream has fewer."""

    def __init__(self, stream: Readable, size: int) -> None:
        self._stream = stream
        self._remaining = size

    def read(self, size: int, /) -> bytes:
        wanted = min(self._remaining, size)
        data = _read_exactly(self._stream, wanted)
        self._remaining -= len(data)
        return data

    def skip(self) -> None:
        while self.read(_READ_SIZE):
            pass


def check_name(name: str) -> str:
    """Return the name if a file in a backup may have it. Raises InvalidInput."""
    parts = name.split("/")
    known = name in (HEADER, STORE, SETTINGS, MANIFEST) or (len(parts) > 1 and parts[0] in FOLDERS)
    plain = all(part not in ("", ".", "..") for part in parts) and "\0" not in name
    if not known or not plain or len(os.fsencode(name)) > MAX_NAME_BYTES:
        raise backup_invalid(f"it contains a file {name[:200]!a}")
    return name


def verify_backup(path: Path) -> tuple[Header, Manifest]:
    """Compare every file of a backup with the manifest, and return its header and manifest.

    Raises InvalidInput (`backup-invalid`, `backup-version` for a later format, `backup-unreadable`),
    NotFound (`backup-missing`).
    """
    seen: dict[str, tuple[str, int]] = {}
    header: Header | None = None
    manifest: Manifest | None = None
    with _open(path) as file:
        for member in read_files(file):
            if header is None:
                header = _read_header(member, seen)
                continue
            if manifest is not None:
                raise backup_invalid("there are files after its manifest")
            if member.name in seen:
                raise backup_invalid(f"it contains {member.name!a} twice")
            if member.name == MANIFEST:
                manifest = _parse(Manifest, _small_content(member, MAX_MANIFEST_BYTES))
                continue
            digest = hashlib.sha256()
            while piece := member.stream.read(_READ_SIZE):
                digest.update(piece)
            seen[member.name] = (digest.hexdigest(), member.size)
    if header is None or manifest is None:
        raise backup_invalid("it is empty" if header is None else "it is truncated: its manifest is missing")
    _compare_with_manifest(seen, manifest)
    return header, manifest


def _open(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        raise NotFound(
            f"There is no file {path}.", code="backup-missing", next="Give the backup to restore."
        ) from error
    except OSError as error:
        raise InvalidInput(
            f"The backup {path} cannot be read by user {os.geteuid()}: {error.strerror or error}.",
            code="backup-unreadable",
            next="Give a file that this user can read, or its content on the standard input: - < FILE.",
        ) from error


def _read_header(member: BackupFile, seen: dict[str, tuple[str, int]]) -> Header:
    if member.name != HEADER:
        raise backup_invalid(f"its first file is {member.name!a}, not {HEADER!a}")
    content = _small_content(member, MAX_HEADER_BYTES)
    seen[HEADER] = (hashlib.sha256(content).hexdigest(), len(content))
    try:
        version = json.loads(content).get("format")
    except (ValueError, AttributeError, RecursionError) as error:
        raise backup_invalid("its header is not JSON") from error
    if isinstance(version, int) and version > FORMAT:
        raise InvalidInput(
            f"The backup has format {version}; this version of MAO reads formats up to {FORMAT}.",
            code="backup-version",
            next="Restore it with the version of MAO that made it, or a later one.",
        )
    return _parse(Header, content)


def _small_content(member: BackupFile, max_size: int) -> bytes:
    if member.size > max_size:
        raise backup_invalid(f"its {member.name} has {member.size} bytes")
    return b"".join(iter(lambda: member.stream.read(_READ_SIZE), b""))


def _parse(model: type[M], content: bytes) -> M:
    try:
        return model.model_validate(json.loads(content))
    except (ValueError, ValidationError, RecursionError) as error:
        raise backup_invalid(f"its {model.__name__.lower()} cannot be read") from error


def _compare_with_manifest(seen: dict[str, tuple[str, int]], manifest: Manifest) -> None:
    for name in seen.keys() ^ manifest.files.keys():
        raise backup_invalid(f"{name!a} is {'not in its manifest' if name in seen else 'missing'}")
    for name, found in seen.items():
        if found != manifest.files[name]:
            raise backup_invalid(f"{name!a} was changed after the backup: its SHA-256 differs")
    if STORE not in seen:
        raise backup_invalid("it has no store")
    # No name may be a file, a link and a folder at once, so that nothing is written through a link.
    files, links = set(seen), set(manifest.links)
    inner = {name.rpartition("/")[0] for name in files | links}
    folders = inner | {str(above) for folder in inner for above in PurePosixPath(folder).parents}
    for name in links:
        if not check_name(name).startswith("data/workspaces/"):
            raise backup_invalid(f"the link {name!a} is not in a tool's output")
    for name in (files & links) | ((files | links) & folders):
        raise backup_invalid(f"{name!a} is listed as more than one of file, link and folder")


def backup_invalid(why: str) -> InvalidInput:
    return InvalidInput(
        f"The backup cannot be restored: {why}.",
        code="backup-invalid",
        next="Nothing was changed. Take another backup, or copy this one again from where it was made.",
    )
