"""`/livez`, `/readyz` and `/metrics` of every service."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response

from mao_shared import __version__, request_id
from mao_shared.errors import MaoError
from mao_shared.logs import get_logger
from mao_shared.metrics import CONTENT_TYPE, metrics_of
from mao_shared.problems import make_problem

from .error_handlers import ProblemResponse

log = get_logger(__name__)

Probe = Callable[[], Awaitable[None]]
Readiness = Mapping[str, Probe]
"""Name of a thing that is needed → a probe that raises while it does not answer."""

PROBE_TIMEOUT = 2.0  # seconds


async def check(probes: Readiness, timeout: float) -> dict[str, str]:
    """Runs all probes at once; each name with `ok` or, in words, why not."""

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


def health_router(name: str, readiness: Callable[[FastAPI], Readiness]) -> APIRouter:
    """The routes; `readiness` is asked at every request, when the lifespan has begun."""
    router = APIRouter(tags=["health"])

    @router.get("/livez", name="health.livez", summary="Whether the process answers")
    async def livez() -> dict[str, str]:
        return {"status": "ok", "version": __version__}

    @router.get("/readyz", name="health.readyz", summary="Whether all that is needed answers")
    async def readyz(request: Request) -> Any:
        checks = await check(readiness(request.app), PROBE_TIMEOUT)
        failed = [each for each, reason in checks.items() if reason != "ok"]
        if not failed:
            return {"status": "ok", "version": __version__, "checks": checks}
        detail = f"The {name} service waits for: {', '.join(failed)} ({checks[failed[0]]})"
        next_step = "Run 'maoctl doctor'; the log of the service says more."
        facts = {"version": __version__, "checks": checks}
        problem = make_problem(503, "not-ready", detail, next_step, request_id.current(), **facts)
        return ProblemResponse(problem, {"Retry-After": "2"})

    @router.get("/metrics", name="health.metrics", summary="Metrics for Prometheus", response_class=Response)
    async def metrics(request: Request) -> Response:
        return Response(metrics_of(request.app).render(), media_type=CONTENT_TYPE)

    return router
