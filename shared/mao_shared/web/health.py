"""Routes `/livez`, `/readyz`, `/conditions` and `/metrics` of every service."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from fastapi import APIRouter, FastAPI, Request, Response

from mao_shared import __version__, request_context
from mao_shared.conditions import conditions_of
from mao_shared.errors import MaoError
from mao_shared.logs import get_logger
from mao_shared.metrics import CONTENT_TYPE, metrics_of
from mao_shared.models.node import Condition, ConditionList, ServiceHealth
from mao_shared.problems import make_problem

from .error_handlers import ProblemResponse

log = get_logger(__name__)
Probe = Callable[[], Awaitable[None]]
Readiness = Mapping[str, Probe]
"""Probes by dependency; a probe raises if its dependency does not answer."""
PROBE_TIMEOUT = 2.0  # seconds
UNAUTHORISED_KEY = "mao.stranger"
"""Key in a request's scope: the caller is not authorised, and gets readiness without details."""


async def check(probes: Readiness, timeout: float) -> dict[str, str]:
    """Run all probes concurrently; return `ok` or the reason for each name."""

    async def one(name: str, probe: Probe) -> str:
        try:
            async with asyncio.timeout(timeout):
                await probe()
        except MaoError as error:
            return error.detail
        except TimeoutError:
            return f"no answer within {timeout:g} s"
        except Exception as error:
            log.warning("readyz.probe_failed", probe=name, exc_info=error)
            return f"does not work ({type(error).__name__})"
        return "ok"

    reasons = await asyncio.gather(*(one(name, probe) for name, probe in probes.items()))
    return dict(zip(probes, reasons, strict=True))


def failed_checks(checks: Mapping[str, str], conditions: Sequence[Condition]) -> dict[str, str]:
    """Return the checks together with the failed conditions, by name and subject. Pure."""
    merged = dict(checks)
    for condition in reversed(conditions):  # the first of several wins
        reported = merged.get(condition.subject, "ok") != "ok"  # a probe reports the same service
        if condition.state == "failed" and not reported:
            merged[f"{condition.name} {condition.subject}".rstrip()] = condition.detail
    return merged


def with_checks(checks: Mapping[str, str], conditions: Sequence[Condition], now: datetime) -> list[Condition]:
    """Return the conditions together with failed probes that no condition covers. Pure."""
    reported = {
        (condition.name, condition.subject) for condition in conditions if condition.state == "failed"
    }
    found = []
    for probe, reason in checks.items():
        if reason == "ok" or probe not in _PROBES:
            continue
        name, subject, advice = _PROBES[probe]
        if (name, subject) not in reported:
            found.append(
                Condition(name=name, subject=subject, state="failed", detail=reason, next=advice, since=now)
            )
    return [*found, *conditions]


_ENGINE = "'docker info' shows why; start Docker or correct its socket."
_PROBES = {
    "store": ("store", "", "Check etcd's log and MAO_ETCD_ENDPOINTS."),
    "engine": ("engine", "", _ENGINE),
    "docker": ("engine", "", _ENGINE),
    "data directory": ("engine", "data directory", "See MAO_DATA_DIR and MAO_HOSTDIR."),
}
"""By probe: name and subject of the equivalent condition, and the next step."""


async def conditions_now(app: FastAPI, readiness: Readiness) -> tuple[dict[str, str], list[Condition]]:
    """Return the checks of `/readyz` and the open conditions."""
    checks = await check(readiness, PROBE_TIMEOUT)
    reported = conditions_of(app).current()
    return failed_checks(checks, reported), with_checks(checks, reported, datetime.now(UTC))


AllConditions = Callable[[FastAPI], Awaitable[Sequence[Condition]]]


@dataclass(frozen=True)
class Health:
    """What the routes report of an app; they find it at `app.state.health`.

    Attributes:
        service: its name, for texts.
        readiness: returns the probes; called with each request, after the start of the lifespan.
        all_conditions: returns the conditions for `/conditions`, if not only this service's.
    """

    service: str
    readiness: Callable[[FastAPI], Readiness]
    all_conditions: AllConditions | None = None


router = APIRouter(tags=["health"])


@router.get("/livez", name="health.livez", summary="Check that the process responds")
async def livez() -> ServiceHealth:
    return ServiceHealth(version=__version__)


@router.get(
    "/readyz",
    name="health.readyz",
    summary="Check that all dependencies respond",
    response_model=ServiceHealth,
)
async def readyz(request: Request) -> ServiceHealth | ProblemResponse:
    about: Health = request.app.state.health
    checks, conditions = await conditions_now(request.app, about.readiness(request.app))
    failed = [probe for probe, reason in checks.items() if reason != "ok"]
    health = ServiceHealth(version=__version__)
    detail = f"The {about.service} service is not ready."
    if not request.scope.get(UNAUTHORISED_KEY):  # details name paths, datasets, runs and remotes
        health = ServiceHealth(version=__version__, checks=checks, conditions=conditions)
        if failed:
            detail = f"The {about.service} service is waiting for: {', '.join(failed)} ({checks[failed[0]]})"
    if not failed:
        return health
    facts = health.model_dump(mode="json", exclude={"status"})
    next_step = "Run 'maoctl doctor'; see the log of the service."
    problem = make_problem(503, "not-ready", detail, next_step, request_context.current_request_id(), **facts)
    return ProblemResponse(problem, {"Retry-After": "2"})


@router.get("/conditions", name="health.conditions", summary="List the open conditions")
async def conditions(request: Request) -> ConditionList:
    about: Health = request.app.state.health
    if about.all_conditions is not None:
        return ConditionList(items=list(await about.all_conditions(request.app)))
    return ConditionList(items=(await conditions_now(request.app, about.readiness(request.app)))[1])


@router.get(
    "/metrics",
    name="health.metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request) -> Response:
    return Response(metrics_of(request.app).render(), media_type=CONTENT_TYPE)
