"""The data manager's HTTP API."""

from __future__ import annotations

from . import alarms, datasets, evidence, external, git, rounds

ROUTERS = (
    datasets.router,
    alarms.router,
    external.router,
    external.verbatim,
    git.router,
    evidence.router,
    rounds.router,
)
