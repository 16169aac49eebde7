"""Values that were accepted and are not committed yet: a file each, on the disk before it is acknowledged.

<data_dir>/inbox/<dataset>/<id>.json
<data_dir>/inbox/<dataset>/.aside/<file>, <file>.reason

Everything here blocks. An entry goes only once its commit is on the disk, so that a kill at any moment loses
nothing; that nothing is committed twice is for `commit` to see to.

What cannot be read as an entry was not written by us, or a disk has spoilt it. It is moved aside with the
reason, so that later ones are processed, and is never deleted: it may hold a value that was acknowledged. Put
back into the dataset's folder, as `<id>.json`, it is looked at again.
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
MAX_ENTRY_BYTES = 4 << 20  # bytes of an entry; a body has at most 1 MiB
_OF_THE_FILE = {errno.EACCES, errno.EPERM, errno.EIO, errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.ENOTDIR}


@dataclass(frozen=True, slots=True)
class InboxEntry:
    """A value as it was received. Ids sort by time; `line` is its JSON on one line, without the newline."""

    id: str
    key: str
    received_at: datetime
    line: bytes

    @property
    def day(self) -> str:
        return self.received_at.date().isoformat()


def make_entry(key: str, value: Any, at: datetime, token: str, limit: int) -> InboxEntry:
    """Make an entry; a RawJson `value` keeps its spelling.

    Raises InvalidInput for one that JSON cannot hold or that takes more than `limit` bytes.
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
            next="Send numbers that are finite, and text that is valid Unicode.",
        ) from error
    if len(text) > limit:
        raise InvalidInput(
            f"The value has {len(text)} bytes, the limit is {limit}.",
            code="value-too-large",
            next="Send less at once, or raise MAO_MAX_EXTERNAL_VALUE in the data manager's settings.",
        )
    others = _dump({"id": entry_id, "key": key, "received_at": format_time(at)}).encode()
    return InboxEntry(entry_id, key, at, others.removesuffix(b"}") + b',"value":' + text + b"}")


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class InvalidEntry(ValueError):
    """A file of the inbox is not an entry; the message says why."""


class Inbox:
    """The values waiting on the disk. `limit`: how many may wait for one dataset."""

    def __init__(self, root: Path, limit: int) -> None:
        self._root = root
        self._limit = limit
        self._lock = threading.Lock()
        self._made: set[str] = set()  # datasets whose folder is known to be on the disk
        self._counts = {name: self._present(name) for name in self._folders()}

    def put(self, dataset: str, entry: InboxEntry) -> None:
        """Write an entry to the disk, durably. Writing the same entry again changes nothing.

        Raises Unavailable (`inbox-full`), and OSError for failures of the disk.
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
        fresh = False
        try:
            fresh = self._write(dataset, entry)
        finally:
            if not fresh:
                self._count(dataset, -1)

    def _write(self, dataset: str, entry: InboxEntry) -> bool:
        folder = self._root / dataset
        if dataset not in self._made:
            # A process that was killed may have made it, without its name having reached the disk.
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for above in (self._root, self._root.parent):
                _sync(above)
            self._made.add(dataset)
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
        """Return the datasets with entries, and how many each has."""
        with self._lock:
            return {name: count for name, count in sorted(self._counts.items()) if count}

    def to_do(self) -> list[str]:
        """Return the datasets whose folders are not empty, including files that people put there."""
        return [name for name in sorted(self._folders()) if self._present(name) or self.aside(name)]

    def oldest(self, dataset: str) -> datetime | None:
        """Return when the first waiting entry was received, or None."""
        for path in self._names(dataset):
            with suppress(InvalidEntry, FileNotFoundError):
                return _read(path).received_at
        return None

    def take(self, dataset: str, count: int, size: int, without: Collection[str] = ()) -> list[InboxEntry]:
        """Return the oldest entries, at most `count` and about `size` bytes of them; they stay on the disk.

        Those of the keys in `without` are skipped. What is not an entry is set aside; where that fails, it is
        skipped. Raises OSError.
        """
        taken: list[InboxEntry] = []
        room = size
        for path in self._names(dataset):
            try:
                entry = _read(path)
            except FileNotFoundError:
                continue
            except InvalidEntry as error:
                self._set_aside(dataset, path, str(error))
                continue
            if entry.key in without:
                continue
            room -= len(entry.line)
            if taken and room < 0:
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
        """Return the entries that were set aside and are still there, with the reasons."""
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

    def _present(self, dataset: str) -> int:
        """Return how many entries wait; 1 if the folder cannot be read, so that `take` reports it."""
        try:
            return len(self._names(dataset))
        except OSError:
            return 1

    def _names(self, dataset: str) -> list[Path]:
        """Return the entries' files by id, leaving out half-written ones. Raises OSError."""
        folder = self._root / dataset
        if not folder.is_dir():
            return []
        return sorted(path for path in folder.iterdir() if path.suffix == _SUFFIX)


def _read(path: Path) -> InboxEntry:
    """Read an entry. Raises InvalidEntry, FileNotFoundError, and OSError for failures of the machine."""
    line = _line(path)
    try:
        fields = json.loads(line.decode())
        entry = InboxEntry(fields["id"], fields["key"], datetime.fromisoformat(fields["received_at"]), line)
    except UnicodeDecodeError as error:
        raise InvalidEntry(f"it is not UTF-8 at byte {error.start}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidEntry(f"it is not an entry ({type(error).__name__}: {error})") from error
    whole = set(fields) == {"id", "key", "received_at", "value"} and b"\n" not in line
    if not whole or entry.id != path.stem or entry.received_at.tzinfo is None:
        raise InvalidEntry("it has other fields, another id or another form than an entry")
    if not isinstance(entry.key, str) or key_fault(entry.key):
        raise InvalidEntry("its key is invalid")
    return entry


def _line(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise InvalidEntry("it is not a regular file")
            if facts.st_size > MAX_ENTRY_BYTES:
                raise InvalidEntry(f"it has {facts.st_size} bytes, more than any entry")
            return file.read(MAX_ENTRY_BYTES)
    except OSError as error:
        if error.errno not in _OF_THE_FILE:
            raise
        raise InvalidEntry(f"it cannot be read: {error.strerror}") from error


def _sync(folder: Path) -> None:
    """Flush the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
