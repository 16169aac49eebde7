"""The values that were accepted and are not committed yet, one durable file for each. Blocking.

<data_dir>/inbox/<dataset>/<id>.json
<data_dir>/inbox/<dataset>/.aside/<file>, <file>.reason

An entry is removed only after its commit is on the disk, so that a kill at any moment loses nothing. `commit`
ensures that no entry is committed twice.

A file that is not an entry was not written by MAO or was damaged by the disk. It is set aside with the
reason, so that later entries are processed, and never deleted: it may contain an acknowledged value. Once
repaired, it can be moved back into the dataset's folder as `<id>.json`.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from mao_shared.errors import InvalidInput, Unavailable
from mao_shared.json_text import RawJson, check_json, on_one_line
from mao_shared.logs import get_logger
from mao_shared.models import format_time
from mao_shared.models.external import key_fault

log = get_logger(__name__)
_TEMPORARY = ".new-"
_SUFFIX = ".json"
ASIDE = ".aside"
_REASON = ".reason"
MAX_ENTRY_BYTES = 4 << 20  # a request body has at most 1 MiB
_FILE_ERRNOS = {errno.EACCES, errno.EPERM, errno.EIO, errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.ENOTDIR}


@dataclass(frozen=True, slots=True)
class InboxEntry:
    """A received value. Ids sort by time; `line` is the JSON text of the entry, without a newline."""

    id: str
    key: str
    received_at: datetime
    line: bytes

    @property
    def day(self) -> str:
        return self.received_at.date().isoformat()


def make_entry(key: str, value: Any, at: datetime, token: str, limit: int) -> InboxEntry:
    """Return an entry for a value; the text of a RawJson is kept unchanged.

    Raises InvalidInput for a value that JSON cannot represent or that has more than `limit` bytes.
    """
    entry_id = f"{at:%Y%m%dT%H%M%S.%fZ}-{token}"
    try:
        if isinstance(value, RawJson):
            check_json(value)
            text = on_one_line(value).encode()
        else:
            text = _dump(value).encode()
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            f"The value cannot be written as JSON: {error}.",
            code="value-invalid",
            next="Send finite numbers and valid Unicode text.",
        ) from error
    if len(text) > limit:
        raise InvalidInput(
            f"The value has {len(text)} bytes, the limit is {limit}.",
            code="value-too-large",
            next="Send smaller values, or raise MAO_MAX_EXTERNAL_VALUE in the data manager's settings.",
        )
    fields = _dump({"id": entry_id, "key": key, "received_at": format_time(at)}).encode()
    return InboxEntry(entry_id, key, at, fields.removesuffix(b"}") + b',"value":' + text + b"}")


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class InvalidEntry(ValueError):
    """A file in the inbox is not a valid entry; the message is the reason."""


class Inbox:
    """The entries on the disk. At most `limit` may wait for one dataset."""

    def __init__(self, root: Path, limit: int) -> None:
        self._root = root
        self._limit = limit
        self._lock = threading.Lock()
        self._durable_folders: set[str] = set()  # datasets whose folders have been flushed to the disk
        self._counts = {name: self._count_entries(name) for name in self._folders()}

    def put(self, dataset: str, entry: InboxEntry) -> None:
        """Write an entry durably. Writing the same entry again changes nothing.

        Raises Unavailable (`inbox-full`), and OSError if the disk fails.
        """
        with self._lock:
            if self._counts.get(dataset, 0) >= self._limit:
                raise Unavailable(
                    f"{self._limit} values wait to be committed to dataset {dataset!r}; "
                    "no more are accepted.",
                    code="inbox-full",
                    next=f"See why they wait: maoctl dataset external {dataset}. Then send it again.",
                )
            self._counts[dataset] = self._counts.get(dataset, 0) + 1
        is_new = False
        try:
            is_new = self._write(dataset, entry)
        finally:
            if not is_new:
                self._count(dataset, -1)

    def _write(self, dataset: str, entry: InboxEntry) -> bool:
        folder = self._root / dataset
        if dataset not in self._durable_folders:
            # A killed process may have created it without flushing its name to the disk.
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for parent in (self._root, self._root.parent):
                _sync(parent)
            self._durable_folders.add(dataset)
        target = folder / (entry.id + _SUFFIX)
        if target.exists():
            return False
        temporary = folder / f"{_TEMPORARY}{entry.id}"
        try:
            with temporary.open("wb") as file:
                file.write(entry.line)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(target)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        _sync(folder)
        return True

    def waiting(self) -> dict[str, int]:
        """Return the number of entries of each dataset that has any."""
        with self._lock:
            return {name: count for name, count in sorted(self._counts.items()) if count}

    def datasets_to_process(self) -> list[str]:
        """Return the datasets whose folders are not empty, including files that people put there."""
        return [name for name in sorted(self._folders()) if self._count_entries(name) or self.aside(name)]

    def oldest(self, dataset: str) -> datetime | None:
        """Return the time at which the oldest entry was received, or None."""
        for path in self._entry_files(dataset):
            with suppress(InvalidEntry, FileNotFoundError):
                return _read(path).received_at
        return None

    def take(
        self, dataset: str, count: int, size: int, excluded_keys: Collection[str] = ()
    ) -> list[InboxEntry]:
        """Return the oldest entries, at most `count` and about `size` bytes; they stay on the disk.

        Those with `excluded_keys` are skipped. A file that is not an entry is set aside; if that fails, it is
        skipped. Raises OSError.
        """
        taken: list[InboxEntry] = []
        remaining = size
        for path in self._entry_files(dataset):
            try:
                entry = _read(path)
            except FileNotFoundError:
                continue
            except InvalidEntry as error:
                self._set_aside(dataset, path, str(error))
                continue
            if entry.key in excluded_keys:
                continue
            remaining -= len(entry.line)
            if taken and remaining < 0:
                break
            taken.append(entry)
            if len(taken) == count:
                break
        return taken

    def _set_aside(self, dataset: str, path: Path, reason: str) -> None:
        folder = path.parent / ASIDE
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            target = folder / path.name
            number = 1
            while os.path.lexists(target):
                number += 1
                target = folder / f"{path.stem}.{number}{_SUFFIX}"
            with target.with_name(target.name + _REASON).open("w") as file:
                file.write(reason + "\n")
                file.flush()
                os.fsync(file.fileno())
            path.rename(target)
            _sync(folder)
            _sync(path.parent)
        except OSError as error:
            log.error(
                "external.not_set_aside", dataset=dataset, path=str(path), reason=reason, error=str(error)
            )
            return
        self._count(dataset, -1)
        log.error("external.set_aside", dataset=dataset, path=str(target), reason=reason)

    def aside(self, dataset: str) -> dict[Path, str]:
        """Return the files that are set aside, with the reasons."""
        folder = self._root / dataset / ASIDE
        try:
            paths = sorted(path for path in folder.iterdir() if path.suffix == _SUFFIX)
        except OSError:
            return {}
        reasons = {}
        for path in paths:
            try:
                with path.with_name(path.name + _REASON).open(errors="replace") as file:
                    reasons[path] = file.read(1000).strip()
            except OSError:
                reasons[path] = "no reason recorded"
        return reasons

    def remove(self, dataset: str, entries: Iterable[InboxEntry]) -> None:
        """Remove entries that are committed."""
        folder = self._root / dataset
        for entry in entries:
            (folder / (entry.id + _SUFFIX)).unlink(missing_ok=True)
            self._count(dataset, -1)
        _sync(folder)

    def _count(self, dataset: str, change: int) -> None:
        with self._lock:
            self._counts[dataset] = max(0, self._counts.get(dataset, 0) + change)

    def _folders(self) -> list[str]:
        return [path.name for path in self._root.iterdir()] if self._root.is_dir() else []

    def _count_entries(self, dataset: str) -> int:
        """Return the number of entries; 1 if the folder cannot be read, so that `take` reports it."""
        try:
            return len(self._entry_files(dataset))
        except OSError:
            return 1

    def _entry_files(self, dataset: str) -> list[Path]:
        """Return the files of the entries by id, without partial ones. Raises OSError."""
        folder = self._root / dataset
        if not folder.is_dir():
            return []
        return sorted(path for path in folder.iterdir() if path.suffix == _SUFFIX)


def _read(path: Path) -> InboxEntry:
    """Read an entry. Raises InvalidEntry, FileNotFoundError, and OSError if the disk fails."""
    line = _read_line(path)
    try:
        fields = json.loads(line.decode())
        entry = InboxEntry(fields["id"], fields["key"], datetime.fromisoformat(fields["received_at"]), line)
    except UnicodeDecodeError as error:
        raise InvalidEntry(f"it is not UTF-8 at byte {error.start}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidEntry(f"it is not an entry ({type(error).__name__}: {error})") from error
    is_complete = set(fields) == {"id", "key", "received_at", "value"} and b"\n" not in line
    if not is_complete or entry.id != path.stem or entry.received_at.tzinfo is None:
        raise InvalidEntry("its fields, id or format are not those of an entry")
    if not isinstance(entry.key, str) or key_fault(entry.key):
        raise InvalidEntry("its key is invalid")
    return entry


def _read_line(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InvalidEntry("it is not a regular file")
            if status.st_size > MAX_ENTRY_BYTES:
                raise InvalidEntry(f"it has {status.st_size} bytes, more than any entry")
            return file.read(MAX_ENTRY_BYTES)
    except OSError as error:
        if error.errno not in _FILE_ERRNOS:
            raise
        raise InvalidEntry(f"it cannot be read: {error.strerror}") from error


def _sync(folder: Path) -> None:
    """Flush the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
