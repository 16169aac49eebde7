"""One OpenAPI document for the whole node, merged from those of the services."""

from __future__ import annotations

import asyncio
import copy
import json
import time
from collections.abc import Mapping
from typing import Any

from mao_shared.errors import PeerUnavailable

from .proxy import Proxy

Document = dict[str, Any]
KEEP = 60.0  # seconds that a complete document is good for
FETCH_TIMEOUT = 5.0  # seconds
_OWN_PATHS = frozenset({"/livez", "/readyz", "/conditions", "/metrics"})
_REF = "#/components/schemas/"


def merge(own: Document, services: Mapping[str, Document]) -> Document:
    """`own` with the paths and schemas of the services.

    A schema whose name stands for something else already becomes `<Service><Name>`.
    """
    merged = copy.deepcopy(own)
    merged["info"]["title"] = "MAO node"
    schemas = merged.setdefault("components", {}).setdefault("schemas", {})
    for service, document in services.items():
        theirs = document.get("components", {}).get("schemas", {})
        renames = clashes(service, theirs, schemas)
        document = rename(document, renames)
        schemas.update(document.get("components", {}).get("schemas", {}))
        for path, item in document.get("paths", {}).items():
            if path not in _OWN_PATHS:
                merged["paths"].setdefault(path, {}).update(item)
    return merged


def clashes(service: str, theirs: Document, taken: Document) -> dict[str, str]:
    """Old name → new name of the schemas that differ from one of the same name."""
    return {
        name: f"{service.capitalize()}{name}"
        for name, schema in theirs.items()
        if name in taken and taken[name] != schema
    }


def rename(document: Document, renames: Mapping[str, str]) -> Document:
    """The document with schemas under their new names, and all that refers to them."""
    if not renames:
        return document
    references = {_REF + old: _REF + new for old, new in renames.items()}
    renamed: Document = json.loads(json.dumps(document), object_hook=lambda item: _point(item, references))
    schemas = renamed.get("components", {}).get("schemas", {})
    renamed["components"]["schemas"] = {renames.get(name, name): each for name, each in schemas.items()}
    return renamed


def _point(item: Document, references: Mapping[str, str]) -> Document:
    target = item.get("$ref")
    known = isinstance(target, str) and target in references
    return {**item, "$ref": references[str(target)]} if known else item


class CombinedOpenApi:
    """Fetches and keeps the combined document; what is missing is named in `x-mao-missing`."""

    def __init__(self, proxy: Proxy, services: tuple[str, ...]) -> None:
        self._proxy = proxy
        self._services = services
        self._kept: Document | None = None
        self._until = 0.0

    async def get(self, own: Document) -> Document:
        if self._kept is not None and time.monotonic() < self._until:
            return self._kept
        found = dict(
            zip(self._services, await asyncio.gather(*map(self._fetch, self._services)), strict=True)
        )
        merged = merge(own, {service: each for service, each in found.items() if each is not None})
        missing = [service for service, each in found.items() if each is None]
        if missing:
            merged["x-mao-missing"] = missing
            note = f"Not answering now, so missing here: {', '.join(missing)}."
            merged["info"]["description"] = f"{merged['info'].get('description', '')}\n\n**{note}**"
        else:
            self._kept, self._until = merged, time.monotonic() + KEEP
        return merged

    async def _fetch(self, service: str) -> Document | None:
        try:
            status, document = await self._proxy.get_json(service, "/openapi.json", FETCH_TIMEOUT)
        except PeerUnavailable:
            return None
        return document if status == 200 and isinstance(document, dict) else None
