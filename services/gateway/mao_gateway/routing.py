"""The table of public paths and the services that answer them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from starlette.routing import compile_path

from mao_shared.web.dependencies import TITLE

QUICK = 60.0  # seconds without a byte; streams send a keep-alive every 15
SLOW = 930.0  # seconds without a byte, for calls that pull images or clone datasets


@dataclass(frozen=True, slots=True)
class Route:
    """A path template (Starlette's) and the service behind it.

    `timeout`: seconds without a byte after which the service counts as dead.
    """

    path: str
    service: str
    timeout: float = QUICK


ROUTES = (
    Route("/registry/{rest:path}", "registry"),
    Route("/federation", "registry", SLOW),
    Route("/federation/{rest:path}", "registry", SLOW),
    Route("/pipeline", "registry"),
    Route("/pipeline/init", "registry", SLOW),
    Route(f"/pipeline/{{name:{TITLE}}}/diff", "registry"),
    Route(f"/pipeline/{{name:{TITLE}}}/approve", "registry", SLOW),
    Route("/catalogue", "registry"),
    Route("/catalogue/{rest:path}", "registry", SLOW),
    Route("/store/accept", "registry"),
    Route("/trusted", "registry"),
    Route("/trusted/{node}", "registry"),
    Route("/enrolments", "registry"),
    Route("/enrolments/{rest:path}", "registry", SLOW),
    Route("/pipeline/run", "scheduler"),
    Route("/jobs", "scheduler"),
    Route("/jobs/{rest:path}", "scheduler"),
    Route("/cron/{rest:path}", "scheduler"),
    Route("/runs/{run_id}/logs", "runner"),  # before the scheduler's /runs/…
    Route("/runs/{run_id}/logs/lines", "runner"),
    Route("/runs/{run_id}/crate", "datamgmt", SLOW),
    Route("/runs/{run_id}/crate/metadata", "datamgmt", SLOW),
    Route("/runs/{run_id}/verify", "datamgmt", SLOW),
    Route("/runs", "scheduler"),
    Route("/ticks", "scheduler"),
    Route("/runs/{rest:path}", "scheduler"),
    Route("/images/{rest:path}", "runner", SLOW),
    Route("/tools/{rest:path}", "runner", SLOW),
    Route("/engine", "runner"),
    Route("/secrets", "runner"),
    Route("/secrets/{rest:path}", "runner"),
    Route("/bare-repo/{rest:path}", "datamgmt"),
    Route("/storage", "datamgmt"),
    Route("/signers", "datamgmt"),
    Route("/datasets", "datamgmt"),
    Route("/datasets/{rest:path}", "datamgmt", SLOW),
    Route("/git/{rest:path}", "datamgmt", SLOW),
    Route("/rounds", "datamgmt"),
    Route("/remotes/{rest:path}", "datamgmt"),
    Route("/alarms", "datamgmt"),
    Route("/alarms/{rest:path}", "datamgmt"),
    Route("/series", "datamgmt"),
    Route("/series/{rest:path}", "datamgmt"),
    Route("/webhooks", "datamgmt"),
    Route("/webhooks/{rest:path}", "datamgmt"),
    Route("/channels", "datamgmt"),
    Route("/channels/{rest:path}", "datamgmt", SLOW),
    Route("/rules", "datamgmt"),
    Route("/rules/{rest:path}", "datamgmt"),
    Route("/heartbeats", "datamgmt"),
    Route("/heartbeats/{rest:path}", "datamgmt"),
    Route("/messages", "datamgmt"),
    Route("/write", "datamgmt"),
    Route("/read", "datamgmt"),
    Route("/inspect", "datamgmt"),
)
"""Tried in this order."""

FORMER = {
    "/regtools": "GET /registry/tools",
    "/regtools/{name}": "GET /registry/tools/NAME",
    "/register": 'POST /registry/tools {"name", "author", "image", "data_repo", "code_repo", "artefact"}',
    "/regdata": 'POST /registry/datasets {"name", "body": {"master", "nodes"}}',
    "/retrieve": 'GET /registry/datasets/NAME; POST /pipeline/init {"tool", "dataset"} clones it to the node',
    "/tooldelete": "DELETE /registry/tools/NAME",
    "/datadelete": "DELETE /registry/datasets/NAME",
    "/localdelete": "DELETE /registry/datasets/NAME",
    "/locallist": "GET /datasets",
    "/jobslist": "GET /jobs",
    "/jobdelete": "DELETE /jobs/ID",
    "/run": 'POST /pipeline/init {"tool", "dataset"}, then POST /pipeline/run {"name"}',
    "/files": "GET /datasets",
    "/files/{rest:path}": "GET /datasets/NAME/files",
}
"""Call of earlier versions of the original → its replacement."""


_PATTERNS: list[tuple[re.Pattern[str], Route]] = [(compile_path(route.path)[0], route) for route in ROUTES]


@lru_cache(maxsize=256)
def find_route(path: str) -> Route:
    """Return the route of a path of the API. Raises LookupError if no service answers it."""
    for pattern, route in _PATTERNS:
        if pattern.match(path):
            return route
    raise LookupError(f"no service answers {path}")
