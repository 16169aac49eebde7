"""Creating, reading, updating and deleting records of one kind, by the rules of that kind."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from mao_shared import keys
from mao_shared.errors import AlreadyExists, InvalidInput
from mao_shared.models import Named
from mao_shared.models.common import carry_unknown_fields
from mao_shared.store import Check, Put, Records, Stored, retry_lost
from mao_shared.store.records import StoredPage, dump
from mao_shared.web.dependencies import check_if_match

from .endorsements import Endorser
from .references import Reference, delete_unreferenced, touch_guard
from .rules import keep_title, not_found, title_clash
from .stores import write_record

R = TypeVar("R", bound=Named)
Checked = TypeVar("Checked", bound=Named, contravariant=True)


class RecordRules(Protocol[Checked]):
    """The rules of one kind of record. `noun` names the kind in messages and in maoctl."""

    noun: str

    def check(self, record: Checked) -> None:
        """Validate a record. Raises InvalidInput. Pure."""
        ...

    async def reference_checks(self, record: Checked) -> list[Check]:
        """Return checks that the referenced records are unchanged. Raises InvalidInput if one is missing."""
        ...

    async def find_references(self, name: str) -> list[Reference]:
        """Return the records that refer to the one with this name."""
        ...


class Collection(Generic[R]):
    """The records of one kind. Outages raise StoreUnavailable or StoreUnknown."""

    def __init__(self, records: Records[R], rules: RecordRules[R], endorser: Endorser) -> None:
        self.records = records
        self.rules = rules
        self.endorser = endorser

    async def create(self, record: R, *, name_was_free: bool = False) -> Stored[R]:
        """Create a record. Raises AlreadyExists if the name is taken, InvalidInput by the kind's rules.

        `name_was_free`: the name was free when the command was first sent, so an equal record is its result.
        """
        self.rules.check(record)

        async def attempt() -> Stored[R] | None:
            if stored := await self.records.get(record.name):
                if name_was_free and stored.record == record:
                    return stored
                noun = self.rules.noun
                raise title_clash(record, stored.record) or AlreadyExists(
                    f"The {noun} {record.name!r} already exists.",
                    next=f"See it with 'maoctl {noun} get {record.name}', or choose another name.",
                )
            return await self._write(record, 0)

        return await retry_lost(attempt, self._subject(record.name), unknown_is_lost=False)

    async def read(self, name: str) -> Stored[R]:
        """Return the record. Raises NotFound."""
        stored = await self.records.get(name)
        if stored is None:
            raise not_found(self.rules.noun, name)
        return stored

    async def exists(self, name: str) -> bool:
        return await self.records.store.get(self.records.prefix + name) is not None

    async def page(self, limit: int, cursor: str | None) -> StoredPage[R]:
        """Return a page of records; unreadable ones are listed separately."""
        return await self.records.page(limit, cursor)

    async def update(self, name: str, record: R, if_match: int | None) -> Stored[R]:
        """Replace a record. Raises NotFound, PreconditionFailed, and InvalidInput by the kind's rules."""
        if record.name != name:
            raise InvalidInput(
                f"The path names {name!r}, the body {record.name!r}; a {self.rules.noun} keeps its name.",
                code="name-mismatch",
                next="Send the name of the path in the body.",
            )
        self.rules.check(record)

        async def attempt() -> Stored[R] | None:
            before = await self.read(name)
            check_if_match(if_match, before.revision)
            return await self._write(
                carry_unknown_fields(before.record, keep_title(before.record, record)), before.revision
            )

        return await retry_lost(attempt, self._subject(name), unknown_is_lost=False)

    async def delete(self, name: str, if_match: int | None) -> None:
        """Delete a record, even an unreadable one. Raises NotFound, PreconditionFailed, StillReferenced."""

        async def read() -> Check:
            entry = await self.records.store.get(self.records.prefix + name)
            if entry is None:
                raise not_found(self.rules.noun, name)
            check_if_match(if_match, entry.revision)
            return Check(entry.key, entry.revision)

        await delete_unreferenced(
            self.records.store, keys.references(), self.rules.noun, name, self.rules.find_references, read
        )
        self.records.note_absent(self.records.prefix + name)

    async def _write(self, record: R, revision: int) -> Stored[R] | None:
        """Write the record and its endorsement if its revision is still `revision` (0: it does not exist).

        Touches the guard if the record has references. Returns None for a lost race.
        """
        key = self.records.prefix + record.name
        checks = await self.rules.reference_checks(record)
        writes = [Put(key, dump(record)), self.endorser.put(record)]
        if checks:
            writes.append(touch_guard(keys.references()))
        written = await write_record(
            self.records, record.name, record, [Check(key, revision), *checks], writes
        )
        return None if written is None else Stored(record, written)

    def _subject(self, name: str) -> str:
        return f"{self.rules.noun} {name!r}"
