"""What routes share: ETags and If-Match, paging, the Idempotency-Key header."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import Depends, Header, Query

from mao_shared.errors import InvalidInput, PreconditionFailed
from mao_shared.store.cursor import cursor_invalid

_ETAG = re.compile(r'(?:W/)?"([0-9]{1,18})"')
ANY_REVISION: Final = -1
"""`If-Match: *`: any revision will do, but the record has to be there."""


def etag(revision: int) -> str:
    """The ETag of a record: its revision in the store, in quotes."""
    return f'"{revision}"'


def if_match(
    if_match: Annotated[
        str | None,
        Header(
            description='The ETag that was read, like `"123"`, or `*`', examples=['"123"'], max_length=200
        ),
    ] = None,
) -> int | None:
    """The revision that If-Match names, ANY_REVISION for `*`, None without the header."""
    if if_match is None:
        return None
    if if_match.strip() == "*":
        return ANY_REVISION
    match = _ETAG.fullmatch(if_match.strip())
    if match is None:
        raise InvalidInput(
            f"The header If-Match is {if_match!r}, which is no ETag of ours.",
            code="if-match-invalid",
            next='Send the ETag of the last GET as it was, with its quotes, like "123"; or *.',
        )
    return int(match[1])


IfMatch = Annotated[int | None, Depends(if_match)]


def check_if_match(expected: int | None, revision: int) -> None:
    """Raises PreconditionFailed when If-Match named another revision than the record has."""
    if expected is None or expected in (ANY_REVISION, revision):
        return
    raise PreconditionFailed(
        f"The record has been changed since: it is at {etag(revision)}, If-Match named {etag(expected)}.",
        next="GET it again, look at what changed, and repeat the call with its new ETag.",
        revision=revision,
    )


@dataclass(frozen=True, slots=True)
class PageQuery:
    """Which part of a listing is asked for."""

    limit: int
    cursor: str | None


def paging(
    limit: Annotated[int, Query(ge=1, le=1000, description="At most so many items")] = 100,
    cursor: Annotated[
        str | None, Query(max_length=1000, description="`cursor` of the page before this one")
    ] = None,
) -> PageQuery:
    """Dependency: the query parameters of every list call. Raises InvalidInput (`cursor-invalid`).

    An empty cursor is refused: whoever pages on with it would begin anew for ever.
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
