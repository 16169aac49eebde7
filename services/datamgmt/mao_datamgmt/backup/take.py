"""Takes one backup. It is written under a temporary name and renamed when complete."""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import re
import secrets
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from mao_git.errors import disk_full, is_full
from mao_shared import __version__, keys
from mao_shared.clock import Clock, SystemClock
from mao_shared.errors import (
    AlreadyExists,
    Compacted,
    InvalidInput,
    MaoError,
    NotFound,
    RecordUnreadable,
    Unavailable,
)
from mao_shared.host.files import sync_folder
from mao_shared.models import Run
from mao_shared.settings import SEED_NAMES, SEED_PORT
from mao_shared.store import Entry, Records, Store
from mao_shared.store.backup import dump_keys

from .archive import ArchiveWriter, FileShrunk, Header
from .collect import NodePaths, SourceChanged, collect, read_tips, waiting_outputs

MAX_ATTEMPTS = 3
PARTIAL = ".mao-backup-partial-"
PARTIAL_MAX_AGE_SECONDS = 86400  # no backup takes so long to be written
_STAMP = "%Y%m%dT%H%M%SZ"
_UNPUBLISHED_MARKERS = (b'"phase":"exited"', b'"phase":"publishing"')  # a run without them is not parsed


@dataclass(frozen=True, slots=True)
class BackupResult:
    """A backup that was taken. `path` is None for a stream; `size` is in bytes."""

    path: Path | None
    size: int
    header: Header


def backup_name(node: str, at: datetime) -> str:
    return f"mao-{node}-{at.astimezone(UTC):{_STAMP}}.tar.gz"


def backups_in(folder: Path, node: str) -> list[tuple[datetime, Path]]:
    """List a node's backups in a folder, found by their names, oldest first. Blocking. Raises OSError."""
    pattern = re.compile(rf"mao-{re.escape(node)}-(\d{{8}}T\d{{6}}Z)\.tar\.gz")
    found = []
    for path in folder.iterdir():
        if match := pattern.fullmatch(path.name):
            with suppress(ValueError):
                found.append((datetime.strptime(match[1], _STAMP).replace(tzinfo=UTC), path))
    return sorted(found)


def current_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of the node that the environment contains."""
    known = {*SEED_NAMES, SEED_PORT}
    return {name: value for name, value in environ.items() if name.startswith("MAO_") or name in known}


async def take_backup(
    node: str,
    store: Store,
    paths: NodePaths,
    target: Path,
    environ: Mapping[str, str],
    clock: Clock | None = None,
) -> BackupResult:
    """Back up a node to a file, or into a folder under a name that contains the time.

    Raises AlreadyExists (`backup-exists`), InvalidInput (`backup-inside`), NotFound (`backup-folder-missing`,
    `node-unknown`), Unavailable (`disk-full`, `backup-restless`, and what the store raises), MaoError
    (`backup-failed`).
    """
    now = (clock or SystemClock()).now()
    path = target
    try:
        path = await asyncio.to_thread(_prepare_target, target, backup_name(node, now), paths)
        partial = path.with_name(f"{PARTIAL}{secrets.token_hex(4)}-{path.name}")
        try:
            descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "r+b") as file:
                write = functools.partial(_write, node, store, paths, file, environ, path.parent, now)
                header = await _write_with_retries(file, write)
                size = await asyncio.to_thread(_sync, file)
            await asyncio.to_thread(_publish, partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise _backup_failed(path, error) from error
    return BackupResult(path, size, header)


def _prepare_target(target: Path, name: str, paths: NodePaths) -> Path:
    """Return the path of the new backup, and remove partial files that killed backups left beside it."""
    path = (target / name if target.is_dir() else target).absolute()
    if os.path.lexists(path):
        raise _backup_exists(path)
    folders = (paths.data, paths.agreements, paths.federation)
    if any(path.resolve().is_relative_to(place) for place in folders):
        raise InvalidInput(
            f"{path} is inside the data that are backed up: the backup would be lost with them.",
            code="backup-inside",
            next="Give a folder outside of the node's data directory, best on another disk.",
        )
    if not path.parent.is_dir():
        raise folder_missing(path.parent)
    for partial in path.parent.glob(f"{PARTIAL}*-*"):
        with suppress(OSError):
            if datetime.now(UTC).timestamp() - partial.stat().st_mtime > PARTIAL_MAX_AGE_SECONDS:
                partial.unlink()
    return path


async def write_to_stream(
    node: str, store: Store, paths: NodePaths, stream: IO[bytes], environ: Mapping[str, str]
) -> BackupResult:
    """Back up a node to a stream. Raises the errors of `take_backup`."""
    try:
        now = SystemClock().now()
        write = functools.partial(_write, node, store, paths, stream, environ, paths.data, now)
        header = await _write_with_retries(stream, write)
        stream.flush()
    except OSError as error:
        raise _backup_failed(Path("-"), error) from error
    return BackupResult(None, 0, header)


async def _write_with_retries(stream: IO[bytes], write: Callable[[], Awaitable[Header]]) -> Header:
    """Write a backup to a stream; restart it if the node changes meanwhile and the stream is seekable.

    Raises Unavailable (`backup-restless`), OSError.
    """
    for attempt in range(MAX_ATTEMPTS if stream.seekable() else 1):
        if attempt:
            stream.seek(0)
            stream.truncate()
        try:
            return await write()
        except (SourceChanged, FileShrunk, Compacted) as error:
            last: Exception = error
    raise Unavailable(
        f"The node changed too much while it was read: {last}.", code="backup-restless", next="Try again."
    ) from last


async def _write(
    node: str,
    store: Store,
    paths: NodePaths,
    stream: IO[bytes],
    environ: Mapping[str, str],
    scratch: Path,
    now: datetime,
) -> Header:
    """Write a backup once. `scratch` is the folder for the temporary dump of the store."""
    tips = await asyncio.to_thread(read_tips, paths.data, node)
    with tempfile.TemporaryFile(dir=scratch) as dump:
        waiting: list[tuple[str, int, int]] = []
        runs = Records(store, keys.runs_prefix(node), Run)

        def note_waiting(entry: Entry) -> None:
            if entry.key.startswith(runs.prefix) and any(
                word in entry.value for word in _UNPUBLISHED_MARKERS
            ):
                with suppress(RecordUnreadable):
                    waiting.extend(waiting_outputs(runs.parse(entry).record))

        revision = await dump_keys(store, node, dump.write, note_waiting)
        await _check_name(node, store)
        size = dump.tell()
        dump.seek(0)
        header = Header(node=node, mao=__version__, taken_at=now, revision=revision, tips=tips)
        writer = ArchiveWriter(stream)
        settings = current_settings(environ)
        await asyncio.to_thread(collect, writer, paths, header, (dump, size), waiting, settings)
        await asyncio.to_thread(writer.close)
    return header


async def _check_name(node: str, store: Store) -> None:
    """Raise NotFound (`node-unknown`) if the store holds other nodes and not this one."""
    found = (await store.list(keys.all_nodes(), limit=1)).entries
    if not found or (await store.list(keys.node_root(node), limit=1)).entries:
        return
    other = found[0].key.removeprefix(keys.all_nodes()).partition("/")[0]
    raise NotFound(
        f"The store has no node {node!r}; it has a node {other!r}.",
        code="node-unknown",
        next=f"Use the node's own settings: MAO_NODE={other}, and its MAO_DATA_DIR.",
    )


def _sync(file: IO[bytes]) -> int:
    file.flush()
    os.fsync(file.fileno())
    return file.seek(0, os.SEEK_END)


def _publish(partial: Path, path: Path) -> None:
    """Rename the complete backup to its final path. Raises AlreadyExists if that exists."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise _backup_exists(path) from None
    except OSError:  # a file system without hard links
        if os.path.lexists(path):
            raise _backup_exists(path) from None
        partial.rename(path)
    sync_folder(path.parent)


def prune(folder: Path, node: str, keep: int, now: datetime) -> list[Path]:
    """Remove all but the newest `keep` backups of a node; return their paths. Blocking. Raises OSError.

    Backups dated in the future, from a clock that was ahead, are kept until then and not counted.
    """
    outdated = [path for at, path in backups_in(folder, node) if at <= now][:-keep]
    for path in outdated:
        path.unlink(missing_ok=True)
    return outdated


def folder_missing(folder: Path) -> NotFound:
    return NotFound(
        f"There is no folder {folder}.",
        code="backup-folder-missing",
        next=f"Create it (mkdir -m 700 {folder}), best on another disk, or give another target.",
    )


def _backup_exists(path: Path) -> AlreadyExists:
    return AlreadyExists(
        f"{path} exists already, and a backup never replaces a file.",
        code="backup-exists",
        next="Give another name, or a folder: the file is then named after the node and the time.",
    )


def _backup_failed(path: Path, error: OSError) -> MaoError:
    if is_full(error):
        full = disk_full(f"the backup {path} does not fit")
        place = "the output's file" if path == Path("-") else str(path.parent)
        full.next = f"Free space on the disk of {place}, keep fewer backups (MAO_BACKUP_KEEP) or move them."
        return full
    where = Path(error.filename or path)
    next_step = "Try again; check the disk (dmesg)."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        next_step = f"Let user {os.geteuid()}, as which this runs, read it."
        if where == path or where.parent == path.parent or where == path.parent:
            next_step = f"Give a folder to which user {os.geteuid()}, as which this runs, can write."
    return MaoError(
        f"The backup failed: {where}: {error.strerror or error}.", code="backup-failed", next=next_step
    )
