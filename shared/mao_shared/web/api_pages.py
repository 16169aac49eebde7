"""Swagger UI without the internet, and OpenAPI documents with stable operation ids.

The page's script and style come from the package fastapi-offline (maintained, MIT, depends only on fastapi):
FastAPI's own page loads them from a CDN, which is unreachable behind many firewalls. Only the package's files
are used; they are read when the page is opened.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from mao_shared.problems import MEDIA_TYPE

from .api_document import complete

ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}
PROBLEM_REF = {"$ref": "#/components/schemas/Problem"}


def problem_described(text: str) -> dict[str, Any]:
    """Return the OpenAPI description of a response with a problem document."""
    return {"description": text, "content": {MEDIA_TYPE: {"schema": PROBLEM_REF}}}


_ANY_PROBLEM = "A problem document (RFC 9457): what failed, and in `next` what to do about it"
RESPONSES: dict[int | str, dict[str, Any]] = {"default": problem_described(_ANY_PROBLEM)}
"""Responses that every operation may return besides its success."""


def operation_id(service: str) -> Callable[[APIRoute], str]:
    """Return a function for operation ids: the dotted name of a route, or its tag (or service) and name."""

    def make(route: APIRoute) -> str:
        if "." in route.name:
            return route.name
        return f"{route.tags[0] if route.tags else service}.{route.name}"

    return make


def make_routes(service: str, routers: Iterable[APIRouter]) -> list[BaseRoute]:
    """Return the routes of a service's apps, with RESPONSES and the service's operation ids.

    FastAPI analyses a handler again for each inclusion of its router, so all apps share what is made here.
    """
    parent = APIRouter(responses=RESPONSES, generate_unique_id_function=operation_id(service))
    for router in routers:
        parent.include_router(router)
    return parent.routes


def complete_openapi(app: FastAPI) -> None:
    """Make the app's OpenAPI document what `api_document.complete` says."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        made = app.openapi_schema
        return plain() if made is not None else complete(plain())

    app.openapi = openapi  # type: ignore[method-assign]  # documented by FastAPI


def docs_router(title: str, openapi_path: str = "openapi.json") -> APIRouter:
    """Return the routes of `/docs` and its files. URLs are relative, to work behind a path prefix."""
    router = APIRouter(include_in_schema=False)

    @router.get("/docs")
    async def page() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url=openapi_path,
            title=title,
            swagger_js_url="docs/swagger-ui-bundle.js",
            swagger_css_url="docs/swagger-ui.css",
            swagger_favicon_url="docs/favicon.png",
            swagger_ui_parameters={"deepLinking": True, "docExpansion": "none", "tryItOutEnabled": True},
        )

    for name, media_type in ASSETS.items():
        router.add_api_route(f"/docs/{name}", _asset(name, media_type), name=name)
    return router


def _asset(name: str, media_type: str) -> Callable[[], FileResponse]:
    def answer() -> FileResponse:
        headers = {"Cache-Control": "public, max-age=86400"}
        return FileResponse(_folder() / name, media_type=media_type, headers=headers)

    return answer


def _folder() -> Path:
    spec = importlib.util.find_spec("fastapi_offline")  # finds the files without importing the package
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("the package fastapi-offline is not installed")
    return Path(spec.origin).parent / "static"
