"""The routers of all pages, in the order in which they are tried."""

from __future__ import annotations

from . import catalogue, datasets, first_run, pipeline, pipeline_actions, pipelines, run, runs, today
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
    missing_router,  # last
]
