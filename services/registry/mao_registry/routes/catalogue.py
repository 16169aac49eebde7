"""`/catalogue`: entries of catalogues, what this node lacks for them, and their installation."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Annotated

from fastapi import APIRouter, Body, Path, Query
from fastapi.openapi.models import Example

from mao_registry.catalogue.entries import Catalogue, read_catalogue
from mao_registry.catalogue.install import SENT, Found
from mao_shared.errors import MaoError
from mao_shared.models import Listing, NameOrTitle
from mao_shared.models.catalogue import (
    CatalogueEntry,
    CatalogueKind,
    CatalogueSearch,
    CatalogueSource,
    InstallChoices,
    InstallRequest,
)
from mao_shared.models.common import Name, UnreadableItem
from mao_shared.store.protocol import cursor_invalid
from mao_shared.web.dependencies import TITLE, PageQuery, Paging

from .common import RegistryDep

MAX_CURSOR = 8  # digits
router = APIRouter(prefix="/catalogue", tags=["catalogue"])

_CONTENT = {
    "pipelines": [
        {
            "name": "System performance",
            "description": "Measures the machine.",
            "steps": [{"tool": "system-performance", "output_dataset": "performance"}],
        }
    ],
    "tools": [{"name": "system-performance", "image": "mao-example/system-performance:1.0.0"}],
}
INSTALL: dict[str, Example] = {
    "sent": {
        "summary": "An entry that is sent along, with its dataset made on this node",
        "value": {"name": "System performance", "catalogue": _CONTENT, "local": True},
    },
}
SEARCH: dict[str, Example] = {
    "sent": {"summary": "Pipelines about performance", "value": {"catalogue": _CONTENT, "q": "performance"}},
}

Kind = Annotated[CatalogueKind | None, Query(description="Only entries of this kind", examples=["pipelines"])]
Words = Annotated[str, Query(max_length=200, description="Words that an entry has, in any case and order")]
Source = Annotated[Name | None, Query(description="Name of a configured catalogue; all without it")]
Local = Annotated[
    bool, Query(description="As if datasets that are missing were made on this node at the installation")
]


@router.get("", name="catalogue.list", summary="List entries of the configured catalogues")
async def list_entries(
    registry: RegistryDep,
    page: Paging,
    source: Source = None,
    kind: Kind = None,
    q: Words = "",
    local: Local = False,
) -> Listing[CatalogueEntry]:
    """Each with what this node lacks for it. Catalogues that cannot be read are in `unreadable`."""
    sources = registry.installer.sources
    errors: dict[str, MaoError] = {}
    if source is not None:
        catalogues = [await sources.read(source)]
    else:
        catalogues, errors = await sources.read_all()
    listing = await _list(registry, catalogues, kind, q, local, page)
    unreadable = [_unreadable(name, sources.location(name), error) for name, error in errors.items()]
    return listing.model_copy(update={"unreadable": unreadable})


@router.post("/inspect", name="catalogue.inspect", summary="List entries that are sent along")
async def inspect(
    registry: RegistryDep,
    page: Paging,
    body: Annotated[CatalogueSearch, Body(openapi_examples=SEARCH)],
) -> Listing[CatalogueEntry]:
    """As the list of configured catalogues, for a catalogue that the caller has. Nothing is kept."""
    catalogue = await asyncio.to_thread(read_catalogue, SENT, body.catalogue)
    return await _list(registry, [catalogue], body.kind, body.q, body.local, page)


@router.get("/sources", name="catalogue.sources", summary="List the configured catalogues")
async def list_sources(registry: RegistryDep) -> Listing[CatalogueSource]:
    return Listing(items=await registry.installer.sources.states())


@router.post("/plan", name="catalogue.plan", summary="Show what an installation would do, without doing it")
async def plan(
    registry: RegistryDep, body: Annotated[InstallRequest, Body(openapi_examples=INSTALL)]
) -> CatalogueEntry:
    found = await registry.installer.find(body.kind, body.name, body.source, body.catalogue)
    return await registry.installer.show(found, body)


@router.post("/install", name="catalogue.install", summary="Install an entry on this node")
async def install(
    registry: RegistryDep, body: Annotated[InstallRequest, Body(openapi_examples=INSTALL)]
) -> CatalogueEntry:
    """Registers the tools and datasets that are missing, and the pipeline, and enrols this node.

    Nothing is written if something is missing (`catalogue-incomplete`, with the `items`). A record that is
    registered and differs is kept or replaced only if `existing` says so. May be repeated.
    """
    return await registry.installer.install(body)


@router.get(
    f"/{{kind}}/{{name:{TITLE}}}",
    name="catalogue.get",
    summary="Show an entry of the configured catalogues",
)
async def show(
    registry: RegistryDep,
    kind: Annotated[CatalogueKind, Path(description="Kind of the entry")],
    name: Annotated[NameOrTitle, Path(description="Name or title of the entry")],
    source: Source = None,
    local: Local = False,
) -> CatalogueEntry:
    found = await registry.installer.find(kind, name, source)
    return await registry.installer.show(found, InstallChoices(local=local))


async def _list(
    registry: RegistryDep,
    catalogues: Iterable[Catalogue],
    kind: CatalogueKind | None,
    q: str,
    local: bool,
    page: PageQuery,
) -> Listing[CatalogueEntry]:
    words = q.casefold().split()
    found = [
        Found(entry, catalogue)
        for catalogue in catalogues
        for entry in catalogue.entries
        if kind in (None, entry.kind) and all(word in entry.words for word in words)
    ]
    start = _start(page.cursor)
    chosen = found[start : start + page.limit]
    end = start + len(chosen)
    items = await registry.installer.show_all(chosen, InstallChoices(local=local))
    return Listing(items=items, cursor=str(end) if end < len(found) else None)


def _start(cursor: str | None) -> int:
    """Return the position that a cursor names. Raises InvalidInput (`cursor-invalid`)."""
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) < MAX_CURSOR):
        raise cursor_invalid()
    return int(cursor)


def _unreadable(name: str, location: str, error: MaoError) -> UnreadableItem:
    why = str(error.facts.get("why", error.detail))
    return UnreadableItem(name=name, key=location, unreadable=why, next=error.next or "")
