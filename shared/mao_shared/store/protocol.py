"""The contract of a store: a small part of etcd's data model, simple enough for an in-memory twin.

* A key has a value of bytes and the revision of its last change. Each transaction increments the revision of
  the whole store by one.
* A **lost race** is a result, not an error: `create`, `replace` and `transact` return None, `delete` False.
  Nothing was written. Read again, then decide.
* An **outage** raises `StoreUnavailable`: for reads always, for writes only when it is certain that
  nothing reached the server.
* A write without a response in time raises `StoreUnknown`: it may have been applied, or be applied a moment
  later, or not at all. Read again, then decide.
* A write that attaches a key to an expired lease raises `StoreUnavailable` (code `lease-ended`), one that is
  too large `InvalidInput` (code `record-too-large`). Nothing was written.
* A watch yields batches in revision order and survives outages of the server, resuming after the last
  revision received. `Compacted` ends it: the caller lists again.
* A store with access control (a federation's) raises `Forbidden` (`store-forbidden`) from calls and watches
  without permission, and `Unauthorized` (`store-identity-refused`) if it does not accept the caller at all:
  it was removed, or its certificate is invalid. Nothing was written; retrying soon does not help.

The limits are etcd's, checked before sending. A cursor contains the revision of the first page and the last
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
    """A key and its value. `revision`: of its last change, which guards the next write.

    `leased`: the key is deleted when its lease ends.
    """

    key: str
    value: bytes
    revision: int
    leased: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a listing in key order. `revision`: of the store at the time of the first page.

    `cursor`: position of the next page; None on the last page.
    """

    entries: list[Entry]
    revision: int
    cursor: str | None


@dataclass(frozen=True, slots=True)
class Event:
    """A change of one key. `entry`: None if the key was deleted or its lease ended."""

    key: str
    revision: int
    entry: Entry | None


@dataclass(frozen=True, slots=True)
class Check:
    """Condition of a transaction: the key has this revision; 0 means that the key is absent.

    With `until` it applies to every key in [`key`, `until`): with 0, none of them exists.
    """

    key: str
    revision: int
    until: str | None = None


@dataclass(frozen=True, slots=True)
class Put:
    """Write of a key. `lease`: id from `grant`; the key is deleted when the lease ends."""

    key: str
    value: bytes
    lease: int | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    key: str


@dataclass(frozen=True, slots=True)
class StoreHealth:
    """Health of a store. `size`: bytes of its database, of which `in_use` are used.

    `alarms`: etcd's alarms that prevent writes: NOSPACE, CORRUPT.
    """

    revision: int
    size: int = 0
    alarms: frozenset[str] = frozenset()
    in_use: int = 0


@runtime_checkable
class Examinable(Protocol):
    """A store that can report its health."""

    async def examine(self) -> StoreHealth:
        """Return the health of the store; raises StoreUnavailable."""
        ...

    async def defragment(self) -> None:
        """Release unused space of the database; the member does not answer meanwhile.

        Raises StoreUnavailable or StoreUnknown.
        """
        ...


Write = Put | Delete
Batch = list[Event]  # changes of one or more revisions, in order


class Store(Protocol):
    """A store; see the module's docstring for the results of lost races and outages."""

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

        With `newest_first`, etcd sorts the whole prefix for every page: do not use it for unbounded prefixes.
        Raises InvalidInput (code `cursor-invalid`) for a cursor that `list` did not return. All pages of a
        listing show the store at the first page's revision; raises Compacted once that is gone.
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
        """Apply all `writes` if all `checks` hold; return the new revision, otherwise None.

        Raises ValueError for more than 128 of each or a key written twice, InvalidInput above 1.5 MB in
        total.
        """
        ...

    def watch(self, prefix: str, *, after: int) -> AsyncGenerator[Batch, None]:
        """Yield batches of changes with revision > `after`, for ever; a batch contains whole revisions.

        Raises Compacted if the changes right after `after` are gone: list again. If the caller is removed
        meanwhile, raises Unauthorized within about ten seconds. Close it with `contextlib.aclosing`.
        """
        ...

    async def grant(self, ttl: int) -> int:
        """Return the id of a new lease of `ttl` seconds (etcd: at least 2)."""
        ...

    async def keep_alive(self, lease: int) -> bool:
        """Renew a lease once; return False if it has ended."""
        ...

    async def revoke(self, lease: int) -> None:
        """Revoke a lease and delete its keys; does nothing if it has expired."""
        ...

    async def ping(self) -> None:
        """Raise StoreUnavailable if the store does not answer a linearizable read."""
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


UNDECODABLE = "surrogateescape"  # represents bytes that are not UTF-8 in a str
_HEX = "\0"  # prefix of a name in hexadecimal
_CURSOR = re.compile(r"([1-9][0-9]{0,17}):(.+)", re.DOTALL)


def write_cursor(revision: int, prefix: str, last_key: str) -> str:
    """Return a cursor for the position after `last_key`; it omits the prefix, so cannot leave it."""
    name = last_key.removeprefix(prefix)
    if name.startswith(_HEX) or any("\ud800" <= letter <= "\udfff" for letter in name):
        # Not a name from MAO: it is not text, or starts with the hexadecimal prefix.
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
        next="Omit 'cursor' to start with the first page.",
    )
