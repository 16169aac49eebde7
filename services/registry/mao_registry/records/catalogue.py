"""Create, read, list, update and delete of one kind of record; the rules of each kind come from outside."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from mao_shared import keys
from mao_shared.errors import AlreadyExists, InvalidInput, NotFound
from mao_shared.models import Named
from mao_shared.models.common import carry_unknown_fields
from mao_shared.store import Check, Put, Records, Stored
from mao_shared.store.records import StoredPage, dump
from mao_shared.web.dependencies import check_if_match

from .endorsements import Endorser
from .references import Reference, delete_unreferenced, touch
from .rules import keeping_title, title_clash
from .writes import retry_lost_races, write_record

R = TypeVar("R", bound=Named)
Judged = TypeVar("Judged", bound=Named, contravariant=True)


class Rules(Protocol[Judged]):
    """What is peculiar to one kind. `noun` is its word in messages and in maoctl."""

    noun: str

    def check(self, record: Judged) -> None:
        """Raises InvalidInput for a record that must not be kept; pure."""
        ...

    async def referred(self, record: Judged) -> list[Check]:
        """The records it refers to, as read now; raises InvalidInput when one is missing."""
        ...

    async def find(self, name: str) -> list[Reference]:
        """Who refers to the record of this name."""
        ...


class Catalogue(Generic[R]):
    """The records of one kind. Outages raise StoreUnavailable or StoreUnknown."""

    def __init__(self, records: Records[R], rules: Rules[R], endorser: Endorser) -> None:
        self.records = records
        self.rules = rules
        self.endorser = endorser

    async def create(self, record: R, *, mine: bool = False) -> Stored[R]:
        """Raises AlreadyExists when the name is taken, InvalidInput by the kind's rules.

        `mine`: the name was free when this command first came, so a record that is as wanted is its own.
        """
        self.rules.check(record)

        async def attempt() -> Stored[R] | None:
            if there := await self.records.get(record.name):
                if mine and there.record == record:
                    return there
                raise title_clash(record, there.record) or self.already_exists(record.name)
            return await self._write(record, 0)

        return await retry_lost_races(attempt, self._what(record.name))

    async def read(self, name: str) -> Stored[R]:
        """Raises NotFound."""
        stored = await self.records.get(name)
        if stored is None:
            raise self.not_found(name)
        return stored

    async def taken(self, name: str) -> bool:
        return await self.records.store.get(self.records.prefix + name) is not None

    async def page(self, limit: int, cursor: str | None) -> StoredPage[R]:
        """With what cannot be read beside it: one member's broken record must not hide everybody's."""
        return await self.records.page(limit, cursor)

    async def update(self, name: str, record: R, if_match: int | None) -> Stored[R]:
        """Replaces a record; raises NotFound, PreconditionFailed, and InvalidInput by the kind's rules."""
        if record.name != name:
            raise InvalidInput(
                f"The path names {name!r}, the body {record.name!r}; a {self.rules.noun} keeps its name.",
                code="name-mismatch",
                next="Send the name of the path in the body.",
            )
        self.rules.check(record)

        async def attempt() -> Stored[R] | None:
            before = await self._matching(name, if_match)
            kept = carry_unknown_fields(before.record, keeping_title(before.record, record))
            return await self._write(kept, before.revision)

        return await retry_lost_races(attempt, self._what(name))

    async def delete(self, name: str, if_match: int | None) -> None:
        """Of one that cannot be read too. Raises NotFound, PreconditionFailed, StillReferenced."""

        async def read() -> Check:
            entry = await self.records.store.get(self.records.prefix + name)
            if entry is None:
                raise self.not_found(name)
            check_if_match(if_match, entry.revision)
            return Check(entry.key, entry.revision)

        await delete_unreferenced(
            self.records.store, keys.references(), self.rules.noun, name, self.rules.find, read
        )
        self.records.gone(self.records.prefix + name)

    async def _write(self, record: R, revision: int) -> Stored[R] | None:
        """Writes over `revision` (0: none), making the record's references known to deletes.

        The operator of this node has asked for it, so this node stands for it.
        """
        key = self.records.prefix + record.name
        referred = await self.rules.referred(record)
        writes = [Put(key, dump(record)), self.endorser.put(record)]
        writes += [touch(keys.references())] if referred else []
        written = await write_record(
            self.records, record.name, record, [Check(key, revision), *referred], writes
        )
        return None if written is None else Stored(record, written)

    async def _matching(self, name: str, if_match: int | None) -> Stored[R]:
        stored = await self.read(name)
        check_if_match(if_match, stored.revision)
        return stored

    def _what(self, name: str) -> str:
        return f"{self.rules.noun} {name!r}"

    def not_found(self, name: str) -> NotFound:
        noun = self.rules.noun
        return NotFound(f"There is no {noun} {name!r}.", next=f"See what there is with 'maoctl {noun} get'.")

    def already_exists(self, name: str) -> AlreadyExists:
        noun = self.rules.noun
        return AlreadyExists(
            f"There is a {noun} {name!r} already.",
            next=f"Look at it with 'maoctl {noun} get {name}', or choose another name.",
        )
