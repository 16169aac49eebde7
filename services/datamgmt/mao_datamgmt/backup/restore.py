"""Restores a backup into a node that is stopped and empty. A restore killed at any point may be repeated.

    verify ─► [set existing data aside] ─► files ─► store ─► done

`restore.json` in the data directory records the progress; no node starts on the directory while it exists.
In the store, the keys that make a node run anything (enrolments, schedules) are written last.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from mao_git.errors import disk_full, is_full
from mao_shared import keys
from mao_shared.errors import Conflict, MaoError
from mao_shared.host.data_dir import RESTORING, process_lock
from mao_shared.host.files import replace_file, sync_folder
from mao_shared.logs import get_logger
from mao_shared.models import Run, Timestamp
from mao_shared.models.common import STORED
from mao_shared.models.node import Restored
from mao_shared.settings import SERVICES, ServiceSettings
from mao_shared.store import Delete, Put, Store
from mao_shared.store.backup import dump_keys, load_keys, read_groups
from mao_shared.store.records import dump

from .archive import (
    FOLDERS,
    HEADER,
    MANIFEST,
    SETTINGS,
    STORE,
    Header,
    Manifest,
    backup_invalid,
    read_files,
    verify_backup,
)
from .collect import IDENTITY_FILE, REPLACED, STAGED, NodePaths
from .runs import after_restore

_READ_SIZE = 1 << 20  # bytes
_CONNECT_TIMEOUT = 2.0  # seconds
_SETTINGS_FILE = "restored-settings.json"


log = get_logger(__name__)
Phase = Literal["aside", "files", "store"]


class RestoreProgress(BaseModel):
    """The file `restore.json`. `aside` names the folders for the existing data; None if there was none."""

    archive: str  # its SHA-256
    restored_at: Timestamp
    phase: Phase
    aside: str | None = None


@dataclass(frozen=True, slots=True)
class RestoreResult:
    """A finished restore. `files` and `keys` are counts; `aside` lists the folders with the previous data."""

    header: Header
    files: int
    keys: int
    aside: list[Path]


async def restore_backup(
    settings: ServiceSettings, store: Store, paths: NodePaths, archive: Path, *, replace: bool = False
) -> RestoreResult:
    """Restore a backup. With `replace`, existing data are set aside first.

    Raises NotFound and InvalidInput as `verify_backup`, Conflict (`node-running`, `other-node`,
    `node-not-empty`, `store-not-empty`, `restore-unfinished`), Unavailable (`disk-full`, and what the store
    raises), MaoError (`restore-failed`).
    """
    try:
        header, manifest = await asyncio.to_thread(verify_backup, archive)
        for name in (*manifest.files, *manifest.links):
            if not paths.may_restore(name):
                raise backup_invalid(f"it contains {name[:200]!a}, which does not belong in a backup")
        if header.node != settings.node:
            raise Conflict(
                f"The backup is of the node {header.node!r}, and this node is {settings.node!r}.",
                code="other-node",
                next=f"Set MAO_NODE={header.node} and restore again: its branches and keys have that name.",
            )
        refuse_running(settings)
        await asyncio.to_thread(_require_space, paths, manifest)
        with ExitStack() as held:
            for service in ("runner", "datamgmt"):
                try:
                    held.enter_context(process_lock(paths.data, service))
                except Conflict as error:
                    raise _node_running(f"its {service} holds {paths.data}/{service}.lock") from error
            return await _restore(settings.node, store, paths, archive, header, manifest, replace)
    except OSError as error:
        raise _restore_failed(error) from error


async def _restore(
    node: str,
    store: Store,
    paths: NodePaths,
    archive: Path,
    header: Header,
    manifest: Manifest,
    replace: bool,
) -> RestoreResult:
    digest = await asyncio.to_thread(_digest, archive)
    progress = _read_progress(paths.data / RESTORING)
    if progress is not None and progress.archive != digest and not replace:
        raise Conflict(
            f"A restore of another backup into {paths.data} was started and has not finished.",
            code="restore-unfinished",
            next="Finish it with that file, or give --replace: then the data already restored are set aside.",
        )
    if progress is None or progress.archive != digest:
        existing = await _existing_items(node, store, paths)
        if existing and not replace:
            more = f" and {len(existing) - 3} more" if len(existing) > 3 else ""
            examples = ", ".join(existing[:3]) + more
            raise Conflict(
                f"The node is not empty: {examples}.",
                code="node-not-empty",
                next="Restore into an empty data directory and store; or give --replace: existing data are "
                f"set aside in folders named {REPLACED!r}, nothing is deleted.",
            )
        now = datetime.now(UTC)
        aside = f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}" if existing else None
        progress = RestoreProgress(archive=digest, restored_at=now, phase="aside", aside=aside)
        _save_progress(paths, progress)
    if progress.phase == "aside":
        await _set_aside(node, store, paths, progress.aside)
        progress = progress.model_copy(update={"phase": "files"})
        _save_progress(paths, progress)
    staged = paths.data / STAGED
    files = await asyncio.to_thread(_put_files, paths, archive, manifest, staged)
    if progress.phase == "files":
        progress = progress.model_copy(update={"phase": "store"})
        _save_progress(paths, progress)
    written = await _put_store(node, store, staged / STORE, header, progress.restored_at)
    await asyncio.to_thread(shutil.rmtree, staged)
    (paths.data / RESTORING).unlink()
    sync_folder(paths.data)
    replaced = [folder / REPLACED / progress.aside for folder in paths.folders()] if progress.aside else []
    return RestoreResult(header, files, written, sorted(folder for folder in replaced if folder.is_dir()))


def _save_progress(paths: NodePaths, progress: RestoreProgress) -> None:
    replace_file(paths.data / RESTORING, progress.model_dump_json().encode())


def _read_progress(path: Path) -> RestoreProgress | None:
    try:
        return RestoreProgress.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise MaoError(
            f"The file {path}, which records the progress of a restore, is damaged.",
            code="restore-failed",
            next="Remove it, and restore again with --replace.",
        ) from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# checks


def refuse_running(settings: ServiceSettings) -> None:
    """Raise Conflict (`node-running`) if one of the node's services answers on its socket."""
    for service in SERVICES:
        path = settings.service_url(service).removeprefix("unix://")
        if path.startswith("/"):
            with socket.socket(socket.AF_UNIX) as caller, suppress(OSError):
                caller.settimeout(_CONNECT_TIMEOUT)
                caller.connect(path)
                raise _node_running(f"its {service} answers at {path}")


def _node_running(why: str) -> Conflict:
    return Conflict(
        f"The node is running: {why}.",
        code="node-running",
        next="Stop it first: Ctrl-C natively, 'docker compose stop' under compose.",
    )


async def _existing_items(node: str, store: Store, paths: NodePaths) -> list[str]:
    """Return a few items that a restore would overwrite, for a message."""
    found = [str(paths.data / name) for name in paths.data_names()]
    for folder, names in (
        (paths.agreements, paths.agreements_names()),
        (paths.federation, paths.federation_names()),
    ):
        found += [str(folder / name) for name in names]
    own = await store.list(keys.node_root(node), limit=1)
    return found + [f"the store's {entry.key}" for entry in own.entries]


def _require_space(paths: NodePaths, manifest: Manifest) -> None:
    """Raise Unavailable (`disk-full`) if the files do not fit."""
    needed = dict.fromkeys(FOLDERS, 0)
    for name, (_, size) in manifest.files.items():
        folder = name.partition("/")[0]
        needed[folder if folder in needed else "data"] += size
    for folder, size in needed.items():
        path = paths.folder(folder)
        while not path.exists():
            path = path.parent
        stats = os.statvfs(path)
        if size > stats.f_bavail * stats.f_frsize:
            free = stats.f_bavail * stats.f_frsize
            raise disk_full(f"the backup needs {size} bytes in {path}, and {free} are free")


# steps


async def _set_aside(node: str, store: Store, paths: NodePaths, aside: str | None) -> None:
    """Move all existing data into folders beside them, deleting nothing. May be repeated."""
    if aside is None:
        return
    groups = (
        (paths.data, [*paths.data_names(), *paths.rebuilt_names()]),
        (paths.agreements, list(paths.agreements_names())),
        (paths.federation, list(paths.federation_names())),
    )
    for folder, names in groups:
        for name in names:
            target = folder / REPLACED / aside / name
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            (folder / name).rename(target)
    identity = paths.federation / IDENTITY_FILE
    identity.unlink(missing_ok=True)  # it identified the store that is now set aside
    dump_path = paths.data / REPLACED / aside / STORE
    if not dump_path.exists():
        dump_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = dump_path.with_suffix(".partial")
        with temporary.open("wb") as file:
            await dump_keys(store, node, file.write)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(dump_path)
    await _clear(store, keys.node_root(node))
    if not (await store.list(keys.all_nodes(), limit=1)).entries:  # no other node uses this etcd
        await _clear(store, f"{keys.ROOT}/")


async def _clear(store: Store, prefix: str) -> None:
    while found := (await store.list(prefix, limit=100)).entries:
        await store.transact([], [Delete(entry.key) for entry in found])


def _put_files(paths: NodePaths, archive: Path, manifest: Manifest, staged: Path) -> int:
    """Write all files to their paths and the store's dump into `staged`; return the number of files."""
    targets = {STORE: staged / STORE, SETTINGS: paths.data / _SETTINGS_FILE}
    folders: set[Path] = set()
    count = 0
    with archive.open("rb") as file:
        for member in read_files(file):
            if member.name in (HEADER, MANIFEST):
                continue
            target = targets.get(member.name) or paths.target(member.name)
            _make_folders(target.parent, folders)
            pieces = iter(partial(member.stream.read, _READ_SIZE), b"")
            digest = _write(target, pieces, member.executable)
            if digest != manifest.files[member.name][0]:
                raise OSError(f"the backup changed while it was read: {member.name}")
            if target.name == "HEAD":
                for inner in ("refs/heads", "objects/info", "objects/pack"):  # git needs them even if empty
                    _make_folders(target.parent / inner, folders)
            count += 1
    for name, text in manifest.links.items():  # last, so that nothing is written through a link
        target = paths.target(name)
        _make_folders(target.parent, folders)
        target.unlink(missing_ok=True)
        target.symlink_to(text)
    for folder in folders:
        sync_folder(folder)
    return count


def _make_folders(folder: Path, known: set[Path]) -> None:
    """Make a folder with its parents. Raises OSError if one is a link: a restore follows none."""
    if folder in known:
        return
    if not folder.parent.exists():
        _make_folders(folder.parent, known)
    folder.mkdir(mode=0o700, exist_ok=True)
    if not stat.S_ISDIR(folder.lstat().st_mode):
        raise OSError(f"{folder} is a link")
    known.add(folder)


def _write(target: Path, pieces: Iterator[bytes], executable: bool) -> str:
    """Write a file atomically, replacing the one of an earlier attempt; return its SHA-256."""
    temporary = target.with_name(f".new-{secrets.token_hex(4)}")
    digest = hashlib.sha256()
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o700 if executable else 0o600)
        with os.fdopen(descriptor, "wb") as file:
            for piece in pieces:
                digest.update(piece)
                file.write(piece)
            file.flush()
            os.fsync(descriptor)
        temporary.rename(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return digest.hexdigest()


async def _put_store(node: str, store: Store, lines: Path, header: Header, restored_at: datetime) -> int:
    """Write the store's keys: records, then those that make the node act on them, then its identity.

    Returns the number of keys.
    """
    restored = Restored(
        backup_at=header.taken_at, restored_at=restored_at, tips=header.tips, open=sorted(header.tips)
    )
    activating = (keys.enrolments_prefix(node), keys.schedules_prefix(node), keys.link(node))
    identity = keys.store_identity(node)

    def groups(wanted: Callable[[str], bool]) -> Iterator[list[Put]]:
        with lines.open("rb") as file:
            for group in read_groups(file, lambda key: key != keys.restored(node) and wanted(key)):
                yield [_restored_entry(node, put, header.taken_at, restored_at) for put in group]

    inert = groups(lambda key: not key.startswith(activating) and key != identity)
    written = await load_keys(store, node, inert)
    written += await load_keys(store, node, [[Put(keys.restored(node), dump(restored))]])
    written += await load_keys(store, node, groups(lambda key: key.startswith(activating)))
    written += await load_keys(store, node, groups(lambda key: key == identity))
    log.info("restore.store", keys=written)
    return written


def _restored_entry(node: str, put: Put, backup_at: datetime, restored_at: datetime) -> Put:
    """Return a key as a restore writes it: a run that was in progress is ended."""
    if not put.key.startswith(keys.runs_prefix(node)):
        return put
    try:
        run = Run.model_validate_json(put.value, context=STORED)
    except ValidationError:  # the restored node reports it, as the old one did
        return put
    changed = after_restore(run, backup_at, restored_at)
    return put if changed is run else Put(put.key, dump(changed))


def _restore_failed(error: OSError) -> MaoError:
    if is_full(error):
        full = disk_full("the restore does not fit")
        full.next = "Free space, and restore again with the same file: it continues."
        return full
    return MaoError(
        f"The restore failed: {error.filename or ''} {error.strerror or error}.",
        code="restore-failed",
        next="Fix that, and restore again with the same file: it continues.",
    )
