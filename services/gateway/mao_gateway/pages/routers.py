"""The routers of all pages, in the order in which they are tried."""

from __future__ import annotations

from . import agreement, alarms, audit_log, federation, public, today
from .site import missing_router, static_router

PAGE_ROUTERS = [
    static_router,
    today.router,
    agreement.router,
    alarms.router,
    federation.router,
    audit_log.router,
    public.router,
    missing_router,  # last
]
