"""What the routes share."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from fastapi import Depends, Path, Response

from mao_registry.registry import Registry, registry_of
from mao_shared.models import Listing, Name, Record
from mao_shared.store import Stored
from mao_shared.store.records import StoredPage
from mao_shared.web.http import etag

R = TypeVar("R", bound=Record)
TheRegistry = Annotated[Registry, Depends(registry_of)]
PathName = Annotated[Name, Path(description="Name of the record")]
ETAG_HEADER: dict[int | str, dict[str, Any]] = {
    200: {"headers": {"ETag": {"description": "The record's revision", "schema": {"type": "string"}}}}
}


def answer(response: Response, stored: Stored[R], location: str | None = None) -> R:
    """The record, its revision as ETag, and where it is when it was just made."""
    response.headers["ETag"] = etag(stored.revision)
    if location is not None:
        response.headers["Location"] = location
    return stored.record


def listing(page: StoredPage[R]) -> Listing[R]:
    return Listing(items=[item.record for item in page.items], cursor=page.cursor)
