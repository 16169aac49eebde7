"""The skeleton of every service: errors as problems, health, metrics, request ids, API pages.

First cut by the lead; the signatures of `make_service` and `serve` are the contract.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager

import uvicorn
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse

from . import __version__
from .errors import MaoError
from .logs import configure_logs
from .problems import MEDIA_TYPE, to_problem
from .settings import ServiceSettings

Readiness = Mapping[str, Callable[[], Awaitable[None]]]
"""Name of a thing that is needed → a probe that raises while it does not answer."""


def make_service(
    name: str,
    description: str,
    *,
    routers: Sequence[APIRouter],
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]],
    readiness: Callable[[FastAPI], Readiness],
) -> FastAPI:
    """A FastAPI app with what all services have: health, metrics, docs, problems, request ids, logs."""
    app = FastAPI(title=f"MAO {name}", version=__version__, description=description, lifespan=lifespan)
    for router in routers:
        app.include_router(router)

    @app.exception_handler(MaoError)
    async def _problem(_: Request, error: MaoError) -> JSONResponse:
        return JSONResponse(
            to_problem(error).model_dump(exclude_none=True), error.status, media_type=MEDIA_TYPE
        )

    @app.get("/livez")
    async def livez() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> dict[str, str]:
        for probe in readiness(app).values():
            await probe()
        return {"status": "ok"}

    return app


def serve(app: FastAPI, name: str, settings: ServiceSettings) -> None:
    """Serves the app in the foreground until SIGTERM or SIGINT."""
    configure_logs(name, settings.log_level, settings.log_format)
    uvicorn.run(app, host=settings.host, port=settings.port, log_config=None, access_log=False)
