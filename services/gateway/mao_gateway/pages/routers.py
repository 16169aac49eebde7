"""The routers of all pages, in the order in which they are tried."""

from __future__ import annotations

from . import (
    agreement,
    alarms,
    audit_log,
    catalogue,
    datasets,
    federation,
    first_run,
    pipeline,
    pipeline_actions,
    pipelines,
    public,
    run,
    runs,
    today,
)
from .site import missing_router, static_router

PAGE_ROUTERS = [
    static_router,
    today.router,
    first_run.router,
    catalogue.router,
    datasets.router,
    runs.router,
    run.router,
    pipelines.router,
    pipeline.router,
    pipeline_actions.router,
    agreement.router,
    alarms.router,
    federation.router,
    audit_log.router,
    public.router,
    missing_router,  # last
]
