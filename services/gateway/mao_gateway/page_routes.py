"""The routes of the dashboard, loaded with the first request for a page.

Pages, templates and their engine take 13 MB, which a node that is only called by programs does without
(docs/decisions/0006-forked-services.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from starlette.routing import BaseRoute, Match, Router
from starlette.types import Receive, Scope, Send

PAGE_PREFIXES = ("/ui/", "/public/")


class PageRoutes(BaseRoute):
    """All pages as one route, which knows only their prefixes until the first of them is opened."""

    def __init__(self) -> None:
        self._router: Router | None = None

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match paths of pages; once the pages are loaded, also by method."""
        if scope["type"] != "http" or not is_page_path(scope["path"]):
            return Match.NONE, {}
        if self._router is None:
            return Match.FULL, {}
        found = {route.matches(scope)[0] for route in self._router.routes}
        best = next((match for match in (Match.FULL, Match.PARTIAL) if match in found), Match.NONE)
        return best, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request to its page; load the pages first, in a thread, since that takes half a second."""
        if self._router is None:
            self._router = Router(await asyncio.to_thread(_load), redirect_slashes=False)
        await self._router(scope, receive, send)


def is_page_path(path: str) -> bool:
    """Tell whether a path belongs to the dashboard."""
    return path == "/" or path.startswith(PAGE_PREFIXES)


def _load() -> Sequence[BaseRoute]:
    from .pages.routers import PAGE_ROUTES
    from .pages.site import environment

    environment()
    return PAGE_ROUTES
