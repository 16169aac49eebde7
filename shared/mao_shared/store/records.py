"""Typed access to the records under one key prefix."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from mao_shared.errors import Conflict, RecordUnreadable, StoreUnknown, Unavailable
from mao_shared.models.common import STORED, Record

from .protocol import Entry, Store
from .unreadable import Misplaced, Unreadable, recovery_step, why_unreadable

R = TypeVar("R", bound=Record)
T = TypeVar("T")
ATTEMPTS = 10  # of a write that keeps losing the race


class Paged(Protocol):
    """A page of a listing and the cursor of the next one."""

    @property
    def cursor(self) -> str | None: ...


P = TypeVar("P", bound=Paged)


async def pages(fetch: Callable[[str | None], Awaitable[P]]) -> AsyncGenerator[P, None]:
    """Yield all pages of a listing; `fetch` gets the cursor of the previous page."""
    cursor = None
    while True:
        page = await fetch(cursor)
        yield page
        cursor = page.cursor
        if cursor is None:
            return


async def retry_lost(
    attempt: Callable[[], Awaitable[T | None]], what: str, *, unknown_is_lost: bool = True
) -> T:
    """Repeat `attempt` while it returns None (a lost race); return its first other result.

    An attempt reads, decides, and writes guarded by the revision that it read. A write that timed out
    (StoreUnknown) may have been applied: the next attempt reads its result. `unknown_is_lost`: False raises
    StoreUnknown at once, for callers that cannot distinguish their own write from others'. Raises Conflict
    (`busy`) after ATTEMPTS.
    """
    unknown: StoreUnknown | None = None
    for _ in range(ATTEMPTS):
        try:
            answer = await attempt()
        except StoreUnknown as error:
            if not unknown_is_lost:
                raise
            unknown = error
            continue
        except Unavailable as error:
            if unknown is not None:
                raise unknown from error
            raise
        if answer is not None:
            return answer
        unknown = None
    if unknown is not None:
        raise unknown
    raise Conflict(
        f"Other writers changed {what} during each of {ATTEMPTS} attempts in a row.",
        code="busy",
        next="Try again in a moment.",
    )


@dataclass(frozen=True, slots=True)
class Stored(Generic[R]):
    """A record and its revision, which guards the next write and is the API's ETag."""

    record: R
    revision: int


@dataclass(frozen=True, slots=True)
class StoredPage(Generic[R]):
    """A page of a listing. `unreadable`: errors of the items that cannot be read."""

    items: list[Stored[R]]
    cursor: str | None
    unreadable: list[RecordUnreadable] = field(default_factory=list)


class Records(Generic[R]):
    """The records of one type under one prefix; names are the last part of their keys.

    As in the store's contract, lost races return None or False and outages raise. Reading a damaged record,
    or one of a newer version, by name raises RecordUnreadable; lists omit it. `unreadable` collects such
    records.
    """

    def __init__(
        self, store: Store, prefix: str, model: type[R], unreadable: Unreadable | None = None
    ) -> None:
        self.store = store
        self.prefix = prefix
        self.model = model
        self.unreadable = unreadable or Unreadable()

    def parse(self, entry: Entry) -> Stored[R]:
        """Return the record in an entry of a listing or watch, including unknown fields.

        Raises RecordUnreadable.
        """
        try:
            record = self.model.model_validate_json(entry.value, context=STORED)
            self.check(entry, record)
        except Exception as error:  # validators may raise any exception for unexpected data
            raise self.refuse(entry, error) from error
        self.unreadable.clear(entry.key)
        return Stored(record, entry.revision)

    def check(self, entry: Entry, record: R) -> None:
        """Raise Misplaced for a record that does not belong under its key."""
        own = self.model.key_field
        name = entry.key.removeprefix(self.prefix)
        if own is not None and getattr(record, own) != name:
            raise Misplaced(f"its {own} is not the name in its key")

    def refuse(self, entry: Entry, error: Exception) -> RecordUnreadable:
        """Note an unreadable entry and return the error to raise."""
        why = why_unreadable(error, entry.value)
        found = RecordUnreadable.of(entry.key, why, recovery_step(entry.key))
        self.unreadable.note(self.store, self.parse, found)
        return found

    def note_absent(self, key: str) -> None:
        """Note that the key does not exist."""
        self.unreadable.clear(key)

    async def get(self, name: str) -> Stored[R] | None:
        entry = await self.store.get(self.prefix + name)
        if entry is None:
            self.note_absent(self.prefix + name)
            return None
        return self.parse(entry)

    async def find(self, name: str) -> Stored[R] | None:
        """Like `get`, but return None for an unreadable record too."""
        try:
            return await self.get(name)
        except RecordUnreadable:
            return None

    async def page(
        self, limit: int | None = None, cursor: str | None = None, *, newest_first: bool = False
    ) -> StoredPage[R]:
        page = await self.store.list(self.prefix, limit=limit, cursor=cursor, newest_first=newest_first)
        items: list[Stored[R]] = []
        unreadable: list[RecordUnreadable] = []
        for entry in page.entries:
            try:
                items.append(self.parse(entry))
            except RecordUnreadable as error:
                unreadable.append(error)
        return StoredPage(items, page.cursor, unreadable)

    async def iterate(self, limit: int = 500) -> AsyncGenerator[Stored[R], None]:
        """Yield all readable records, fetched `limit` at a time so that other calls get their turn."""
        async for page in pages(lambda cursor: self.page(limit, cursor)):
            for stored in page.items:
                yield stored

    async def all(self) -> list[Stored[R]]:
        """Return all readable records, in one request."""
        return (await self.page()).items

    async def by_name(self) -> dict[str, R]:
        """Return all readable records by the name in their key.

        Where etcd's roles restrict who may write a key, only the key proves who wrote the record.
        """
        found: dict[str, R] = {}
        for entry in (await self.store.list(self.prefix)).entries:
            try:
                found[entry.key.removeprefix(self.prefix)] = self.parse(entry).record
            except RecordUnreadable:
                continue
        return found

    async def create(self, name: str, record: R, *, lease: int | None = None) -> int | None:
        return await self.store.create(self.prefix + name, dump(record), lease=lease)

    async def replace(self, name: str, record: R, revision: int) -> int | None:
        return await self.store.replace(self.prefix + name, dump(record), revision)

    async def update(self, name: str, change: Callable[[R], R | None]) -> Stored[R] | None:
        """Change a record despite concurrent writers; return the new record, or None if there is none.

        `change` gets the record and returns its new version; None or an equal one means no write.
        It is called again after a lost race. Raises what it raises, RecordUnreadable, outages, and Conflict
        (`busy`).
        """

        def existing(record: R | None) -> R | None:
            return None if record is None else change(record)

        return await self.create_or_update(name, existing)

    async def create_or_update(self, name: str, change: Callable[[R | None], R | None]) -> Stored[R] | None:
        """Like `update`, but call `change` with None if there is no record; it may create one."""
        wanted: R | None = None

        async def attempt() -> list[Stored[R]] | None:
            nonlocal wanted
            stored = await self.get(name)
            record = None if stored is None else stored.record
            if wanted is not None and record == wanted:  # an earlier write with unknown outcome was applied
                return [stored] if stored is not None else None
            wanted = change(record)
            if wanted is None or wanted == record:
                return [] if stored is None else [stored]
            if stored is None:
                revision = await self.create(name, wanted)
            else:
                revision = await self.replace(name, wanted, stored.revision)
            return None if revision is None else [Stored(wanted, revision)]

        found = await retry_lost(attempt, self.prefix + name)
        return found[0] if found else None

    async def put(self, name: str, record: R, *, lease: int | None = None) -> int:
        """Overwrite a record, even an unreadable one, as its only writer; return the revision.

        Raises outages, and Conflict (`busy`).
        """
        key = self.prefix + name

        async def attempt() -> int | None:
            existing = await self.store.get(key)
            if existing is None:
                return await self.create(name, record, lease=lease)
            return await self.store.replace(key, dump(record), existing.revision, lease=lease)

        return await retry_lost(attempt, key)

    async def delete(self, name: str, revision: int | None = None) -> bool:
        deleted = await self.store.delete(self.prefix + name, revision)
        if deleted:
            self.note_absent(self.prefix + name)
        return deleted


def dump(record: Record) -> bytes:
    """Return the stored form of a record: compact JSON without fields that are None."""
    return record.model_dump_json(exclude_none=True).encode()
