"""The OpenAPI document of the whole node, merged from those of the services."""

from __future__ import annotations

import asyncio
import copy
import json
import time
from collections.abc import Mapping
from typing import Any

from mao_shared.errors import PeerUnavailable
from mao_shared.web.api_document import document_problems, operations, used_tags
from mao_shared.web.callers import OPEN_PATHS

from .proxy import Proxy

Document = dict[str, Any]
CACHE_TIME = 60.0  # seconds
FETCH_TIMEOUT = 5.0  # seconds
_OWN_PATHS = frozenset({"/livez", "/readyz", "/conditions", "/metrics"})
_REF = "#/components/schemas/"
_SECURITY_SCHEMES = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "A token of the node, made by `python -m mao_gateway --new-token NAME`.",
    },
    "browser": {
        "type": "http",
        "scheme": "basic",
        "description": "The token as password, with any name, for browsers.",
    },
}
_SECURITY: list[dict[str, list[str]]] = [{"token": []}, {"browser": []}, {}]
"""`{}`: a gateway on loopback needs no token from the users that MAO_LOCAL_USERS admits."""


def merge(own: Document, services: Mapping[str, Document]) -> Document:
    """Add paths, schemas, responses and tags of the services to `own`, and how callers identify themselves.

    A schema whose name is already taken by a different one becomes `<Service><Name>`. Pure.
    """
    merged = copy.deepcopy(own)
    merged["info"]["title"] = "MAO node"
    components = merged.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for service, document in services.items():
        document = copy.deepcopy(document)
        document = rename(document, clashes(service, _schemas(document), schemas))
        schemas.update(_schemas(document))
        responses = document.get("components", {}).get("responses", {})
        components.setdefault("responses", {}).update(responses)
        for path, item in document.get("paths", {}).items():
            if path not in _OWN_PATHS:
                merged["paths"].setdefault(path, {}).update(item)
    _require_callers(merged)
    merged["tags"] = used_tags(merged)
    return merged


def _require_callers(merged: Document) -> None:
    """Add the security schemes, and the problem of unknown callers, to the document, in place."""
    merged["components"]["securitySchemes"] = _SECURITY_SCHEMES
    merged["security"] = _SECURITY
    for _, path, operation in operations(merged):
        if path in OPEN_PATHS:
            operation["security"] = []
        else:
            document_problems(merged, operation, [401])


def _schemas(document: Document) -> Document:
    schemas: Document = document.get("components", {}).get("schemas", {})
    return schemas


def clashes(service: str, schemas: Document, taken: Document) -> dict[str, str]:
    """Return old name → new name of the schemas that differ from the one in `taken` with the same name."""
    return {
        name: f"{service.capitalize()}{name}"
        for name, schema in schemas.items()
        if name in taken and taken[name] != schema
    }


def rename(document: Document, renames: Mapping[str, str]) -> Document:
    """Rename schemas in a document, including all references to them."""
    if not renames:
        return document
    references = {_REF + old: _REF + new for old, new in renames.items()}

    def rename_reference(item: Document) -> Document:
        target = item.get("$ref")
        known = isinstance(target, str) and target in references
        return {**item, "$ref": references[str(target)]} if known else item

    renamed: Document = json.loads(json.dumps(document), object_hook=rename_reference)
    renamed["components"]["schemas"] = {
        renames.get(name, name): schema for name, schema in _schemas(renamed).items()
    }
    return renamed


class CombinedOpenApi:
    """Fetches and caches the merged document; `x-mao-missing` lists the services that did not answer."""

    def __init__(self, proxy: Proxy, services: tuple[str, ...]) -> None:
        self._proxy = proxy
        self._services = services
        self._cached: Document | None = None
        self._expires_at = 0.0

    async def get(self, own: Document) -> Document:
        if self._cached is not None and time.monotonic() < self._expires_at:
            return self._cached
        fetched = await asyncio.gather(*map(self._fetch, self._services))
        documents = dict(zip(self._services, fetched, strict=True))
        merged = merge(own, {name: document for name, document in documents.items() if document is not None})
        missing = [name for name, document in documents.items() if document is None]
        if missing:
            merged["x-mao-missing"] = missing
            note = f"Not included, since they do not answer: {', '.join(missing)}."
            merged["info"]["description"] = f"{merged['info'].get('description', '')}\n\n**{note}**"
        else:
            self._cached, self._expires_at = merged, time.monotonic() + CACHE_TIME
        return merged

    async def _fetch(self, service: str) -> Document | None:
        try:
            status, document = await self._proxy.get_json(service, "/openapi.json", FETCH_TIMEOUT)
        except PeerUnavailable:
            return None
        return document if status == 200 and isinstance(document, dict) else None
