"""What routes share: titles in paths, ETags and If-Match, paging, Idempotency-Key.

`{name:title}` in a path takes slashes too, but not nothing; `{id:job_title}` leaves the verbs of a job, such
as `/jobs/x/pause`, to their own routes. Import this module where such a route is made: a converter has to be
known then.

`Idempotency-Key`: a command that creates, sent twice, is done once and answered twice. No lock is held while
`make` runs. What it creates it names after `Attempt`, which is stored before `make` begins and is the same
for every request with that key. A process that dies in between, or two requests at once, therefore end in the
same record: the second creation is a lost race with itself.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final, TypeVar

from fastapi import Depends, Header, Query
from starlette.convertors import Convertor, register_url_convertor

from mao_shared.clock import Clock, SystemClock
from mao_shared.errors import InvalidInput, PreconditionFailed, RecordUnreadable
from mao_shared.keys import idempotency
from mao_shared.models.common import STORED, Record, Timestamp
from mao_shared.store import Store, Stored, dump
from mao_shared.store.protocol import cursor_invalid
from mao_shared.store.unreadable import why_unreadable

TITLE: Final = "title"
JOB_TITLE: Final = "job_title"


class _TitleConvertor(Convertor[str]):
    regex = ".+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


class _JobTitleConvertor(_TitleConvertor):
    regex = "(?!.*/(?:pause|resume|backfill|next)$).+"


register_url_convertor(TITLE, _TitleConvertor())
register_url_convertor(JOB_TITLE, _JobTitleConvertor())

_ETAG = re.compile(r'(?:W/)?"([0-9]{1,18})"')
ANY_REVISION: Final = -1
"""`If-Match: *`: any revision will do, but the record has to be there."""


def etag(revision: int) -> str:
    """Return the ETag of a record: its revision in the store, in quotes."""
    return f'"{revision}"'


def if_match(
    if_match: Annotated[
        str | None,
        Header(
            description='The ETag that was read, like `"123"`, or `*`', examples=['"123"'], max_length=200
        ),
    ] = None,
) -> int | None:
    """Return the revision that If-Match names, ANY_REVISION for `*`, None without the header."""
    if if_match is None:
        return None
    if if_match.strip() == "*":
        return ANY_REVISION
    match = _ETAG.fullmatch(if_match.strip())
    if match is None:
        raise InvalidInput(
            f"The header If-Match is {if_match!r}, which is not an ETag of this API.",
            code="if-match-invalid",
            next='Send the ETag of the last GET unchanged, with its quotes, like "123"; or *.',
        )
    return int(match[1])


IfMatch = Annotated[int | None, Depends(if_match)]


def check_if_match(expected: int | None, revision: int) -> None:
    """Raise PreconditionFailed if If-Match names another revision than the record has."""
    if expected is None or expected in (ANY_REVISION, revision):
        return
    raise PreconditionFailed(
        f"The record has changed: it is at {etag(revision)}, If-Match names {etag(expected)}.",
        next="GET it again, check what changed, then repeat the call with its new ETag.",
        revision=revision,
    )


@dataclass(frozen=True, slots=True)
class PageQuery:
    """The requested part of a listing."""

    limit: int
    cursor: str | None


def paging(
    limit: Annotated[int, Query(ge=1, le=1000, description="At most so many items")] = 100,
    cursor: Annotated[
        str | None, Query(max_length=1000, description="`cursor` of the page before this one")
    ] = None,
) -> PageQuery:
    """Dependency: the query parameters of every list call. Raises InvalidInput (`cursor-invalid`).

    An empty cursor is refused: a client that pages on with it would start over without end.
    """
    if cursor == "":
        raise cursor_invalid()
    return PageQuery(limit, cursor)


Paging = Annotated[PageQuery, Depends(paging)]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        max_length=200,
        description="The same key with the same body within 24 hours gives the same answer, done once",
    ),
]
R = TypeVar("R", bound=Record)
IDEMPOTENCY_LEASE = 24 * 3600  # seconds


@dataclass(frozen=True, slots=True)
class Attempt:
    """Values that do not change when a command with an Idempotency-Key is repeated.

    `name_was_free`: no record had the name when the key first came. If one has it now and equals the one
    requested, an earlier attempt made it.
    """

    at: Timestamp
    token: str  # 8 hexadecimal digits
    name_was_free: bool = False


class _StoredAnswer(Record):
    """Stored under `keys.idempotency`."""

    body: str  # digest of the request's body
    at: Timestamp
    token: str
    mine: bool  # `Attempt.name_was_free`
    lease: int
    answer: str | None = None  # JSON of the record; None: started, not known to have finished
    revision: int = 0


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
    taken: Callable[[], Awaitable[bool]] | None = None,
) -> Stored[R]:
    """Return the result of `make`, or of the earlier request with the same key and body.

    Without a key `make` is simply called. `scope` is the operation, such as `tools.create`. `taken` answers
    whether something has the command's name already; commands named after the attempt need none. Raises
    InvalidInput (`idempotency-key-reused`) when the key came with another body before. When `make` raises,
    nothing is remembered as done, and a repeat tries again.
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
    await store.replace(
        where, dump(done), revision, lease=done.lease
    )  # who wins the race has stored the same
    return made


def _digest(body: Record) -> str:
    try:
        text = body.model_dump_json()
    except ValueError:  # nested deeper than pydantic writes, or with half a letter: refused later, or taken
        text = repr(body)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


async def _begin(
    store: Store, where: str, body: str, now: datetime, taken: Callable[[], Awaitable[bool]] | None
) -> tuple[_StoredAnswer, int]:
    """Return the answer stored under the key, created if absent, and its revision."""
    entry = await store.get(where)
    if entry is not None:
        return _read(where, _StoredAnswer, entry.value), entry.revision
    name_was_free = taken is None or not await taken()
    lease = await store.grant(IDEMPOTENCY_LEASE)
    fresh = _StoredAnswer(body=body, at=now, token=secrets.token_hex(4), mine=name_was_free, lease=lease)
    revision = await store.create(where, dump(fresh), lease=lease)
    if revision is not None:
        return fresh, revision
    await store.revoke(lease)
    return await _begin(store, where, body, now, taken)


def _read(key: str, model: type[R], value: bytes) -> R:
    """Parse a stored answer; RecordUnreadable means that the command's outcome is unknown."""
    try:
        return model.model_validate_json(value, context=STORED)
    except Exception as error:
        why = why_unreadable(error, value)
        next_step = "Check whether the command was carried out; if not, send it with a fresh Idempotency-Key."
        raise RecordUnreadable.of(key, why, next_step) from error
