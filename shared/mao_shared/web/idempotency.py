"""`Idempotency-Key`: a command that creates, sent twice, is done once and answered twice.

No lock is held while `make` runs. What it creates it names after `Attempt`, which is stored before
`make` begins and is the same for every request with that key. A process that dies in between, or two
requests at once, therefore end in the same record: the second creation is a lost race with itself.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from mao_shared.clock import Clock, SystemClock
from mao_shared.errors import InvalidInput, RecordUnreadable
from mao_shared.keys import idempotency
from mao_shared.models.common import STORED, Record, Timestamp
from mao_shared.store import Entry, Store, Stored
from mao_shared.store.records import dump
from mao_shared.store.unreadable import why_unreadable

R = TypeVar("R", bound=Record)
LEASE = 24 * 3600  # seconds


@dataclass(frozen=True, slots=True)
class Attempt:
    """What stays the same when a command with an Idempotency-Key is repeated.

    `mine`: nothing bore the name that the command wants when its key first came. What bears it by now and
    is as wanted, `make` takes for its own.
    """

    at: Timestamp
    token: str  # 8 hexadecimal digits
    mine: bool = False


class _Kept(Record):
    """Stored under `keys.idempotency`."""

    body: str  # digest of the request's body
    at: Timestamp
    token: str
    mine: bool
    lease: int
    answer: str | None = None  # JSON of the record; None: begun, not known to have ended
    revision: int = 0


async def _never() -> bool:
    return False


async def once(
    store: Store,
    node: str,
    scope: str,
    key: str | None,
    body: Record,
    answer: type[R],
    make: Callable[[Attempt], Awaitable[Stored[R]]],
    clock: Clock | None = None,
    *,
    taken: Callable[[], Awaitable[bool]] = _never,
) -> Stored[R]:
    """The answer of `make`, or of the earlier request with the same key and body.

    Without a key `make` is simply called. `scope` is the operation, such as `tools.create`. `taken` tells
    whether something bears the command's name already; commands named after the attempt need none. Raises
    InvalidInput (`idempotency-key-reused`) when the key came with another body before. When `make`
    raises, nothing is remembered as done, and a repeat tries again.
    """
    now = (clock or SystemClock()).now()
    if key is None:
        return await make(Attempt(now, secrets.token_hex(4)))
    where = idempotency(node, scope, key)
    digest = _digest(body)
    kept, revision = await _begin(store, where, digest, now, taken)
    if kept.body != digest:
        raise InvalidInput(
            "This Idempotency-Key was sent before with another body.",
            code="idempotency-key-reused",
            next="Send a fresh key with a new command, or the same body with this key.",
        )
    if kept.answer is not None:
        return Stored(_read(where, answer, kept.answer.encode()), kept.revision)
    made = await make(Attempt(kept.at, kept.token, kept.mine))
    done = kept.model_copy(update={"answer": dump(made.record).decode(), "revision": made.revision})
    await _finish(store, where, done, revision)
    return made


def _digest(body: Record) -> str:
    try:
        text = body.model_dump_json()
    except ValueError:  # nested deeper than pydantic writes, or with half a letter: refused later, or taken
        text = repr(body)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


async def _begin(
    store: Store, where: str, body: str, now: datetime, taken: Callable[[], Awaitable[bool]]
) -> tuple[_Kept, int]:
    """What is kept under the key from now on, and its revision."""
    entry = await store.get(where)
    if entry is not None:
        return _parse(entry), entry.revision
    mine = not await taken()
    lease = await store.grant(LEASE)
    fresh = _Kept(body=body, at=now, token=secrets.token_hex(4), mine=mine, lease=lease)
    revision = await store.create(where, dump(fresh), lease=lease)
    if revision is not None:
        return fresh, revision
    await store.revoke(lease)
    return await _begin(store, where, body, now, taken)


async def _finish(store: Store, where: str, done: _Kept, revision: int) -> None:
    """Losing this race is fine: whoever won it has stored the same answer."""
    await store.replace(where, dump(done), revision, lease=done.lease)


def _parse(entry: Entry) -> _Kept:
    return _read(entry.key, _Kept, entry.value)


def _read(key: str, model: type[R], value: bytes) -> R:
    """Raises RecordUnreadable: whether the command was carried out cannot be told, so it is not repeated."""
    try:
        return model.model_validate_json(value, context=STORED)
    except Exception as error:
        why = why_unreadable(error, value)
        next_step = "Look whether the command was carried out; if not, send it with a fresh Idempotency-Key."
        raise RecordUnreadable.of(key, why, next_step) from error
