"""The routers of all pages, in the order in which they are tried."""

from __future__ import annotations

from . import today
from .site import missing_router, static_router

PAGE_ROUTERS = [
    static_router,
    today.router,
    missing_router,  # last
]
