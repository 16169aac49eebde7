"""Pure: which service answers which public path."""

from __future__ import annotations

from dataclasses import dataclass

QUICK = 60.0  # seconds without a byte; streams send a keep-alive every 15
SLOW = 930.0  # seconds; calls that pull images or clone datasets


@dataclass(frozen=True, slots=True)
class Route:
    """A path template (Starlette's) and the service behind it; `silence` in seconds."""

    path: str
    service: str
    silence: float = QUICK


ROUTES = (
    Route("/registry/{rest:path}", "registry"),
    Route("/federation", "registry", SLOW),
    Route("/federation/{rest:path}", "registry", SLOW),
    Route("/pipeline", "registry"),
    Route("/pipeline/init", "registry", SLOW),
    Route("/pipeline/{name}/diff", "registry"),
    Route("/pipeline/{name}/approve", "registry", SLOW),
    Route("/federation", "registry", SLOW),
    Route("/federation/{rest:path}", "registry", SLOW),
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
    Route("/runs/{run_id}/crate", "datamgmt", SLOW),
    Route("/runs/{run_id}/crate/metadata", "datamgmt", SLOW),
    Route("/runs/{run_id}/verify", "datamgmt", SLOW),
    Route("/runs", "scheduler"),
    Route("/runs/{rest:path}", "scheduler"),
    Route("/images/{rest:path}", "runner", SLOW),
    Route("/tools/{rest:path}", "runner", SLOW),
    Route("/engine", "runner"),
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
    Route("/write", "datamgmt"),
    Route("/read", "datamgmt"),
    Route("/inspect", "datamgmt"),
)
"""In the order in which they are tried."""
