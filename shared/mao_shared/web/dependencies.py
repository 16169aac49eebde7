"""Common parts of routes: titles in paths, ETags and If-Match, paging, Idempotency-Key.

`{name:title}` in a path matches slashes too, but not an empty string; `{id:job_title}` does not match the
verbs of a job, such as `/jobs/x/pause`. Import this module wherever such a route is defined, to register the
convertors.

Dependencies are async functions, also those that wait for nothing: FastAPI calls others in a thread.

`Idempotency-Key`: a repeated command that creates something is executed once, and both requests get the same
response. No lock is held while `make` runs. It names what it creates after `Attempt`, which is stored before
`make` is called and is equal for all requests with the key. After a crash, or with two concurrent requests,
the result is therefore the same record: the second creation is a lost race.
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
"""`If-Match: *`: matches any revision of an existing record."""


def etag(revision: int) -> str:
    """Return the ETag of a record: its revision in the store, in quotes."""
    return f'"{revision}"'


async def if_match(
    if_match: Annotated[
        str | None,
        Header(
            description='The ETag from the last GET, such as `"123"`, or `*`',
            examples=['"123"'],
            max_length=200,
        ),
    ] = None,
) -> int | None:
    """Return the revision in If-Match, ANY_REVISION for `*`, None without the header."""
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


async def paging(
    limit: Annotated[int, Query(ge=1, le=1000, description="Maximum number of items")] = 100,
    cursor: Annotated[str | None, Query(max_length=1000, description="`cursor` of the previous page")] = None,
) -> PageQuery:
    """Return the query parameters of a list call (a dependency). Raises InvalidInput (`cursor-invalid`).

    An empty cursor is rejected: a client that continues with it would start over without end.
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
        description="A repeated request with the same key and body within 24 hours is executed only once",
    ),
]
R = TypeVar("R", bound=Record)
IDEMPOTENCY_LEASE = 24 * 3600  # seconds


@dataclass(frozen=True, slots=True)
class Attempt:
    """Values that do not change when a command with an Idempotency-Key is repeated.

    `name_was_free`: no record had the name when the key was first received. If a record equal to the
    requested one has it now, an earlier attempt created it.
    """

    at: Timestamp
    token: str  # 8 hexadecimal digits
    name_was_free: bool = False


class _StoredAnswer(Record):
    """The state of a command with an Idempotency-Key, stored under `keys.idempotency`."""

    body: str  # digest of the request's body
    at: Timestamp
    token: str
    mine: bool  # `Attempt.name_was_free`
    lease: int
    answer: str | None = None  # JSON of the record; None: started, maybe not finished
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

    Without a key, `make` is simply called. `scope`: the operation, such as `tools.create`. `taken`: returns
    True if the name is in use already; not needed by commands that are named after the attempt. Raises
    InvalidInput (`idempotency-key-reused`) if the key was used with another body. If `make` raises, a
    repeated request tries again.
    """
    now = (clock or SystemClock()).now()
    if key is None:
        return await make(Attempt(now, secrets.token_hex(4)))
    where = idempotency(node, scope, key)
    digest = _digest(body)
    stored, revision = await _begin(store, where, digest, now, taken)
    if stored.body != digest:
        raise InvalidInput(
            "This Idempotency-Key was sent before with another body.",
            code="idempotency-key-reused",
            next="Send a fresh key with a new command, or the same body with this key.",
        )
    if stored.answer is not None:
        return Stored(_read(where, answer, stored.answer.encode()), stored.revision)
    created = await make(Attempt(stored.at, stored.token, stored.mine))
    done = stored.model_copy(update={"answer": dump(created.record).decode(), "revision": created.revision})
    await store.replace(
        where, dump(done), revision, lease=done.lease
    )  # the winner of a race has stored the same
    return created


def _digest(body: Record) -> str:
    try:
        text = body.model_dump_json()
    except ValueError:  # nested too deeply for pydantic, or lone surrogates; validated later
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
