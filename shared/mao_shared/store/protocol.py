"""The contract of a store: a small part of etcd's data model, so that a memory twin can keep it.

* A key holds bytes and carries the revision of its last change. Revisions grow by one a transaction
  over the whole store.
* A **lost race** is an answer, not an error: `create`, `replace` return None, `delete` False,
  `transact` None. Nothing was written. Read again, then decide.
* An **outage** raises `StoreUnavailable`: for reads always, for writes only when it is certain that
  nothing reached the server.
* A write whose answer did not arrive in time raises `StoreUnknown`: it may have been applied or
  not, or may be a moment later. Read again, then decide.
* A write that hangs a key on a lease that has ended raises `StoreUnavailable` (code `lease-ended`), one that
  is too large `InvalidInput` (code `record-too-large`). Nothing was written.
* A watch yields batches in revision order and survives outages of the server by itself, resuming
  after the last revision it has seen. `Compacted` ends it: the caller lists again.
* A store that knows its callers (a federation's) raises `Forbidden` (`store-forbidden`) from calls and
  watches for what this caller may not do, `Unauthorized` (`store-identity-refused`) when it does not accept
  the caller at all: it was removed, or its certificate is not valid. Nothing was written; trying again soon
  does not help.

The limits are etcd's own, checked before sending. A cursor holds the revision of the first page and the last
name.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from mao_shared.errors import InvalidInput, StoreUnavailable


@dataclass(frozen=True, slots=True)
class Entry:
    """A key as it was read: `revision` is that of its last change, the guard for the next write.

    `leased`: it goes by itself when its lease ends.
    """

    key: str
    value: bytes
    revision: int
    leased: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a listing in key order. `revision`: the store's at the time of the first page.

    `cursor` names where the next page begins; None on the last page.
    """

    entries: list[Entry]
    revision: int
    cursor: str | None


@dataclass(frozen=True, slots=True)
class Event:
    """A change of one key; `entry` is None when the key was deleted (or its lease ended)."""

    key: str
    revision: int
    entry: Entry | None


@dataclass(frozen=True, slots=True)
class Check:
    """Condition of a transaction: the key's revision is this one; 0 means the key is absent.

    With `until` it is a condition on each key from `key` on and before that: with 0 none of them is there.
    """

    key: str
    revision: int
    until: str | None = None


@dataclass(frozen=True, slots=True)
class Put:
    """`lease`: id from `grant`; the key goes when the lease ends."""

    key: str
    value: bytes
    lease: int | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    key: str


@dataclass(frozen=True, slots=True)
class StoreHealth:
    """`size`: bytes of its database, `in_use` of these. `alarms`: why it accepts no writes, as etcd names it:
    NOSPACE, CORRUPT.
    """

    revision: int
    size: int = 0
    alarms: frozenset[str] = frozenset()
    in_use: int = 0


@runtime_checkable
class Examinable(Protocol):
    """A store that can say how it is, beyond answering."""

    async def examine(self) -> StoreHealth:
        """Return the health of the store; raises StoreUnavailable."""
        ...

    async def defragment(self) -> None:
        """Shrink the database to what is in use; the member does not answer meanwhile.

        Raises StoreUnavailable or StoreUnknown.
        """
        ...


Write = Put | Delete
Batch = list[Event]  # changes of one or more revisions, in order


class Store(Protocol):
    """See the module's docstring for what a lost race returns and what an outage raises."""

    async def get(self, key: str) -> Entry | None: ...

    async def list(
        self,
        prefix: str,
        *,
        limit: int | None = None,
        cursor: str | None = None,
        newest_first: bool = False,
    ) -> Page:
        """Return entries under `prefix` in key order (reversed with `newest_first`), at most `limit`.

        With `newest_first` etcd sorts the whole prefix for every page: not for prefixes without bound.
        Raises InvalidInput (code `cursor-invalid`) for a cursor that is not one of ours.
        All pages of one listing show the store at the first page's revision; Compacted when that is gone.
        """
        ...

    async def create(self, key: str, value: bytes, *, lease: int | None = None) -> int | None:
        """Return the new revision, or None if the key exists."""
        ...

    async def replace(self, key: str, value: bytes, revision: int, *, lease: int | None = None) -> int | None:
        """Return the new revision, or None if the key is gone or has another revision."""
        ...

    async def delete(self, key: str, revision: int | None = None) -> bool:
        """Delete a key; False if it is absent or (with `revision`) has another revision."""
        ...

    async def transact(self, checks: Sequence[Check], writes: Sequence[Write]) -> int | None:
        """Return the new revision after all of `writes` if all of `checks` hold, else None.

        At most 128 of each and no key written twice (ValueError), 1.5 MB in all (InvalidInput).
        """
        ...

    def watch(self, prefix: str, *, after: int) -> AsyncGenerator[Batch, None]:
        """Yield batches of changes with revision > `after`, for ever; a batch holds whole revisions.

        Raises Compacted when the changes right after `after` are gone: list again. A caller that is removed
        meanwhile gets Unauthorized within about ten seconds. Close it with `contextlib.aclosing`.
        """
        ...

    async def grant(self, ttl: int) -> int:
        """Return the id of a new lease of `ttl` seconds (etcd: at least 2)."""
        ...

    async def keep_alive(self, lease: int) -> bool:
        """Renew a lease once; False when it has ended."""
        ...

    async def revoke(self, lease: int) -> None:
        """Revoke a lease and delete its keys; does nothing if it has expired."""
        ...

    async def ping(self) -> None:
        """Raise StoreUnavailable when the store does not answer a linearizable read now."""
        ...

    async def close(self) -> None: ...


MAX_OPERATIONS = 128  # etcd --max-txn-ops
MAX_BYTES = 1_500_000  # of keys and values; etcd --max-request-bytes is 1.5 MiB with its wrapping


def check_limits(checks: Sequence[Check], writes: Sequence[Write]) -> None:
    """Raise ValueError for an invalid transaction, InvalidInput for one that is too large."""
    if max(len(checks), len(writes)) > MAX_OPERATIONS:
        raise ValueError(f"a transaction has at most {MAX_OPERATIONS} checks and as many writes")
    if len({write.key for write in writes}) < len(writes):
        raise ValueError("a transaction writes each key at most once")
    puts = [write for write in writes if isinstance(write, Put)]
    size = sum(len(put.key.encode()) + len(put.value) for put in puts)
    if size > MAX_BYTES:
        largest = max(puts, key=lambda put: len(put.value))
        raise InvalidInput(
            f"The record {largest.key!r} is too large: {size} bytes in one write; "
            f"the store accepts at most {MAX_BYTES}.",
            code="record-too-large",
            next="Shorten the record: descriptions, commands, environment, number of steps.",
        )


def lease_ended() -> StoreUnavailable:
    return StoreUnavailable(
        "The lease of this write has ended, so nothing was written.",
        code="lease-ended",
        next="Try again; a new lease is taken as soon as the store answers.",
    )


UNDECODABLE = "surrogateescape"  # how bytes that are no text go through a str
_HEX = "\0"  # begins a name in hexadecimals
_CURSOR = re.compile(r"([1-9][0-9]{0,17}):(.+)", re.DOTALL)


def write_cursor(revision: int, prefix: str, last_key: str) -> str:
    """Return a cursor for the place after `last_key`, without the prefix, which it cannot leave."""
    name = last_key.removeprefix(prefix)
    if name.startswith(_HEX) or any("\ud800" <= letter <= "\udfff" for letter in name):
        # Not a name of MAO's: it is not text, or would be taken for our hexadecimals.
        name = _HEX + name.encode(errors=UNDECODABLE).hex()
    return f"{revision}:{name}"


def read_cursor(cursor: str, prefix: str) -> tuple[int, str]:
    """Return the revision and the last key; raises InvalidInput (`cursor-invalid`)."""
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise cursor_invalid()
    name = match[2]
    if name.startswith(_HEX):
        try:
            name = bytes.fromhex(name.removeprefix(_HEX)).decode(errors=UNDECODABLE)
        except ValueError:
            raise cursor_invalid() from None
    return int(match[1]), prefix + name


def cursor_invalid() -> InvalidInput:
    return InvalidInput(
        "The cursor was not returned by a list call.",
        code="cursor-invalid",
        next="Leave 'cursor' out to start with the first page.",
    )
