"""The routes of all pages, in the order in which they are tried."""

from __future__ import annotations

from mao_shared.web.api_pages import make_routes

from . import today
from .agreement import rounds
from .alarms import alarms
from .datasets import commit, dataset, quarantine
from .federation import audit_log, members, public
from .first_run import catalogue, steps
from .pipelines import actions, pipeline
from .pipelines import listing as pipelines_listing
from .runs import listing, run
from .site import missing_router, static_router

PAGE_ROUTERS = [
    static_router,
    today.router,
    steps.router,
    catalogue.router,
    dataset.router,
    commit.router,
    quarantine.router,
    listing.router,
    run.router,
    pipelines_listing.router,
    pipeline.router,
    actions.router,
    rounds.router,
    alarms.router,
    members.router,
    audit_log.router,
    public.router,
    missing_router,  # last
]
PAGE_ROUTES = make_routes("gateway", PAGE_ROUTERS)
