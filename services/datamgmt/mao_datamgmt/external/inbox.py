"""Values that were accepted and are not committed yet: a file each, on the disk before it is acknowledged.

<data_dir>/inbox/<dataset>/<id>.json

Everything here blocks. An entry goes only once its commit is on the disk, so that a kill at any moment loses
nothing; that nothing is committed twice is for `commit` to see to.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from mao_shared.errors import InvalidInput, Unavailable
from mao_shared.models import format_time

_TEMPORARY = ".new-"
_SUFFIX = ".json"


@dataclass(frozen=True, slots=True)
class Entry:
    """A value as it was received. Ids sort by time; `line` is its JSON on one line, without the newline."""

    id: str
    key: str
    received_at: datetime
    line: bytes

    @property
    def day(self) -> str:
        return self.received_at.date().isoformat()


def make_entry(key: str, value: Any, at: datetime, token: str, limit: int) -> Entry:
    """Raises InvalidInput for a value that JSON cannot hold or that takes more than `limit` bytes."""
    entry_id = f"{at:%Y%m%dT%H%M%S.%fZ}-{token}"
    fields = {"id": entry_id, "key": key, "received_at": format_time(at), "value": value}
    try:
        size = len(_dump(value))
        line = _dump(fields)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            f"The value cannot be written as JSON: {error}.",
            code="value-invalid",
            next="Send numbers that are finite, and text that is valid Unicode.",
        ) from error
    if size > limit:
        raise InvalidInput(
            f"The value has {size} bytes, the limit is {limit}.",
            code="value-too-large",
            next="Send less at once, or raise MAO_MAX_EXTERNAL_VALUE in the data manager's settings.",
        )
    return Entry(entry_id, key, at, line)


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


class Inbox:
    """`limit`: how many entries may wait for one dataset."""

    def __init__(self, root: Path, limit: int) -> None:
        self._root = root
        self._limit = limit
        self._lock = threading.Lock()
        self._counts = {name: len(self._names(name)) for name in self._folders()}

    def put(self, dataset: str, entry: Entry) -> None:
        """Returns when the entry is on the disk. The same entry again changes nothing.

        Raises Unavailable (`inbox-full`), and OSError for trouble with the disk.
        """
        with self._lock:
            if self._counts.get(dataset, 0) >= self._limit:
                raise _full(dataset, self._limit)
            self._counts[dataset] = self._counts.get(dataset, 0) + 1
        fresh = False
        try:
            fresh = self._write(self._folder(dataset), entry)
        finally:
            if not fresh:
                self._count(dataset, -1)

    def _write(self, folder: Path, entry: Entry) -> bool:
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

    def _folder(self, dataset: str) -> Path:
        folder = self._root / dataset
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for above in (self._root, self._root.parent):
                _sync(above)
        return folder

    def waiting(self) -> dict[str, int]:
        """Datasets with entries, and how many."""
        with self._lock:
            return {name: count for name, count in sorted(self._counts.items()) if count}

    def oldest(self, dataset: str) -> datetime | None:
        """When the first entry that waits was received."""
        names = self._names(dataset)
        return _read(names[0]).received_at if names else None

    def take(self, dataset: str, count: int, size: int) -> list[Entry]:
        """The oldest entries, at most `count` and about `size` bytes of them; they stay where they are."""
        taken: list[Entry] = []
        room = size
        for path in self._names(dataset)[:count]:
            entry = _read(path)
            room -= len(entry.line)
            if taken and room < 0:
                break
            taken.append(entry)
        return taken

    def remove(self, dataset: str, entries: Iterable[Entry]) -> None:
        """The entries are committed."""
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

    def _names(self, dataset: str) -> list[Path]:
        """In the order of their ids; a half-written one was never acknowledged."""
        folder = self._root / dataset
        if not folder.is_dir():
            return []
        return sorted(path for path in folder.iterdir() if path.suffix == _SUFFIX)


def _read(path: Path) -> Entry:
    line = path.read_bytes()
    fields = json.loads(line)
    return Entry(fields["id"], fields["key"], datetime.fromisoformat(fields["received_at"]), line)


def _sync(folder: Path) -> None:
    """Names are on the disk as well."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _full(dataset: str, limit: int) -> Unavailable:
    return Unavailable(
        f"{limit} values wait to be committed to dataset {dataset!r}; no more are taken.",
        code="inbox-full",
        next=f"See why they wait: maoctl dataset external {dataset}. Then send it again.",
    )
