"""Typed access to the records under one key prefix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import ValidationError

from mao_shared.errors import MaoError
from mao_shared.models.common import STORED, Record

from .protocol import Entry, Store

R = TypeVar("R", bound=Record)
UNREADABLE = "record-unreadable"


@dataclass(frozen=True, slots=True)
class Stored(Generic[R]):
    """A record with the revision it was read at, the guard of the next write and the API's ETag."""

    record: R
    revision: int


@dataclass(frozen=True, slots=True)
class StoredPage(Generic[R]):
    items: list[Stored[R]]
    cursor: str | None


class Records(Generic[R]):
    """The records of one type under one prefix; names are the last part of their keys.

    Lost races return None or False and outages raise, as the store's contract says. A record that another
    version has written, or nobody sane, raises MaoError (`record-unreadable`).
    """

    def __init__(self, store: Store, prefix: str, model: type[R]) -> None:
        self.store = store
        self.prefix = prefix
        self.model = model

    def parse(self, entry: Entry) -> Stored[R]:
        """The record in an entry of a listing or watch; raises pydantic.ValidationError."""
        return Stored(self.model.model_validate_json(entry.value, context=STORED), entry.revision)

    def _read(self, entry: Entry) -> Stored[R]:
        try:
            return self.parse(entry)
        except ValidationError as error:
            raise MaoError(
                f"The record {entry.key} cannot be read: {fault(error)}.",
                code=UNREADABLE,
                next="Run the same version of MAO on all nodes, or restore etcd from a backup.",
            ) from error

    async def get(self, name: str) -> Stored[R] | None:
        entry = await self.store.get(self.prefix + name)
        return None if entry is None else self._read(entry)

    async def page(
        self,
        limit: int | None = None,
        cursor: str | None = None,
        *,
        newest_first: bool = False,
        skip_unreadable: bool = False,
    ) -> StoredPage[R]:
        """`skip_unreadable`: leaves out what cannot be read, say a record of a newer version."""
        page = await self.store.list(self.prefix, limit=limit, cursor=cursor, newest_first=newest_first)
        parse = self._try_to_parse if skip_unreadable else self._read
        parsed = (parse(entry) for entry in page.entries)
        return StoredPage([each for each in parsed if each is not None], page.cursor)

    def _try_to_parse(self, entry: Entry) -> Stored[R] | None:
        try:
            return self.parse(entry)
        except ValidationError:
            return None

    async def all(self) -> list[Stored[R]]:
        return (await self.page()).items

    async def by_name(self) -> dict[str, R]:
        """All that can be read, by the names in their keys: where etcd's roles say who may write which key,
        the key alone tells whose word a record is, whatever name it gives itself.
        """
        entries = (await self.store.list(self.prefix)).entries
        parsed = ((entry.key.removeprefix(self.prefix), self._try_to_parse(entry)) for entry in entries)
        return {name: stored.record for name, stored in parsed if stored is not None}

    async def create(self, name: str, record: R, *, lease: int | None = None) -> int | None:
        return await self.store.create(self.prefix + name, dump(record), lease=lease)

    async def replace(self, name: str, record: R, revision: int) -> int | None:
        return await self.store.replace(self.prefix + name, dump(record), revision)

    async def delete(self, name: str, revision: int | None = None) -> bool:
        return await self.store.delete(self.prefix + name, revision)


def fault(error: ValidationError) -> str:
    """What is wrong with a record, without its values: there may be secrets among them."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def dump(record: Record) -> bytes:
    """The stored form of a record: compact JSON without what is unset by default."""
    return record.model_dump_json(exclude_none=True).encode()
