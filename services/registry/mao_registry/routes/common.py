"""Parameters and responses that the routes share."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from fastapi import Depends, Path, Response

from mao_registry.registry import Registry, get_registry
from mao_shared.models import Listing, Name, NameOrTitle, Record, is_name
from mao_shared.models.common import unreadable_items
from mao_shared.store import Stored
from mao_shared.store.records import StoredPage
from mao_shared.web.dependencies import etag

R = TypeVar("R", bound=Record)
RegistryDep = Annotated[Registry, Depends(get_registry)]
PathName = Annotated[Name, Path(description="Name of the record")]
NodeInPath = Annotated[Name, Path(description="Name of the node", examples=["node-1"])]


async def pipeline_name(
    registry: RegistryDep,
    name: Annotated[NameOrTitle, Path(description="Name or title of the pipeline")],
) -> str:
    """Return the name of the pipeline given in the path by name or title. Raises NotFound."""
    return name if is_name(name) else await registry.name_of_title(name)


PipelineName = Annotated[str, Depends(pipeline_name)]
_TEXT = {"schema": {"type": "string"}}
_ETAG = {"ETag": {"description": "The record's revision", **_TEXT}}
_LOCATION = {"Location": {"description": "Where the record is now", **_TEXT}}
ETAG_HEADER: dict[int | str, dict[str, Any]] = {200: {"headers": _ETAG}}
CREATED_HEADERS: dict[int | str, dict[str, Any]] = {201: {"headers": _ETAG | _LOCATION}}


def answer(response: Response, stored: Stored[R], location: str | None = None) -> R:
    """Return the record; set the headers ETag to its revision and Location if one is given."""
    response.headers["ETag"] = etag(stored.revision)
    if location is not None:
        response.headers["Location"] = location
    return stored.record


def listing(page: StoredPage[R]) -> Listing[R]:
    return Listing(
        items=[item.record for item in page.items],
        cursor=page.cursor,
        unreadable=unreadable_items(page.unreadable),
    )
