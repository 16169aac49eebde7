"""The data manager's HTTP API."""

from __future__ import annotations

from mao_shared.web.api_pages import make_routes

from . import alarms, contents, datasets, evidence, external, git, notifications, quarantine, rounds

ROUTES = make_routes(
    "datamgmt",
    (
        datasets.router,
        quarantine.router,
        contents.router,
        alarms.router,
        notifications.router,
        external.router,
        external.verbatim,
        git.router,
        evidence.router,
        rounds.router,
    ),
)
