"""The gateway's own routes; all other paths go through the proxy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.routing import BaseRoute
from starlette.routing import Route as PlainRoute
from starlette.types import Receive, Scope, Send

from mao_shared.conditions import conditions_of
from mao_shared.errors import Gone, NotFound
from mao_shared.models import Listing, Timestamp
from mao_shared.models.audit import AuditEntry
from mao_shared.models.node import NodeStatus
from mao_shared.models.progress import OngoingWork
from mao_shared.settings import SERVICES
from mao_shared.web.api_pages import docs_router, make_routes
from mao_shared.web.dependencies import Paging
from mao_shared.web.progress import RequestId

from .audit import AuditFilter
from .components import Gateway, GatewayDep
from .events import parse_last_event_id, revision_now, run_events
from .page_routes import PageRoutes
from .proxy import SANDBOX
from .routing import FORMER, QUICK, ROUTES, Route
from .status import node_status

PROGRESS_TIMEOUT = 2.0  # seconds
router = APIRouter()
pages = APIRouter(include_in_schema=False)


@router.get(
    "/status",
    name="node.status",
    tags=["node"],
    summary="State of the node's services, and next steps for problems",
)
async def status(request: Request, gateway: GatewayDep) -> NodeStatus:
    own = conditions_of(request.app)
    return await node_status(gateway.node, gateway.store, gateway.proxy, SERVICES, own)


async def _audit_filter(
    actor: Annotated[str | None, Query(max_length=200, description="Name of a token or a local user")] = None,
    action: Annotated[
        str | None,
        Query(
            max_length=200,
            description="Operation id, or its part before the dot",
            examples=["pipelines.approve", "pipelines"],
        ),
    ] = None,
    subject: Annotated[str | None, Query(max_length=200, description="Name or id of what changed")] = None,
    failed: Annotated[bool | None, Query(description="Only those refused, or only the others")] = None,
    since: Annotated[Timestamp | None, Query(description="Arrived at this time or later")] = None,
    until: Annotated[Timestamp | None, Query(description="Arrived at this time or before")] = None,
) -> AuditFilter:
    return AuditFilter(actor, action, subject, failed, since, until)


@router.get("/audit", name="audit.list", tags=["audit"], summary="Who changed what, newest first")
async def list_audit(
    gateway: GatewayDep, page: Paging, wanted: Annotated[AuditFilter, Depends(_audit_filter)]
) -> Listing[AuditEntry]:
    """Calls that changed something, or tried to. With a filter, a page may have fewer than `limit` entries
    although more follow. Kept are the newest (MAO_KEEP_AUDIT), for some time (MAO_KEEP_AUDIT_DAYS)."""
    return await gateway.audit.page(wanted, page.limit, page.cursor)


@router.get(
    "/progress/{request_id}",
    name="progress.get",
    tags=["node"],
    summary="What a request that has no response yet waits for",
)
async def get_progress(gateway: GatewayDep, request_id: RequestId) -> Listing[OngoingWork]:
    """Images that are pulled and datasets that are cloned for it. Empty if it waits for neither."""
    asked = [
        gateway.proxy.get_json(service, f"/progress/{request_id}", PROGRESS_TIMEOUT)
        for service in ("runner", "datamgmt")
    ]
    found = await asyncio.gather(*asked, return_exceptions=True)
    answers = [answer for answer in found if not isinstance(answer, BaseException)]
    return Listing(items=[item for status, body in answers if status == 200 for item in body["items"]])


async def _start_revision(
    gateway: GatewayDep,
    last_event_id: Annotated[
        str | None, Header(description="Id of the last event that was read; the stream resumes after it")
    ] = None,
) -> int:
    """Return the revision to start from. Runs before the stream, so that errors are problem documents."""
    after = parse_last_event_id(last_event_id)
    now = await revision_now(gateway.store, gateway.node)
    return now if after is None else min(after, now)


@router.get(
    "/events",
    name="node.events",
    tags=["node"],
    summary="Changes of all runs as server-sent events",
    response_class=EventSourceResponse,
)
async def events(
    gateway: GatewayDep, after: Annotated[int, Depends(_start_revision)]
) -> AsyncIterator[ServerSentEvent]:
    async for event in run_events(gateway.store, gateway.node, after):
        yield event


@pages.get("/openapi.json")
async def openapi(request: Request, gateway: GatewayDep) -> JSONResponse:
    return JSONResponse(await gateway.openapi.get(request.app.openapi()))


@pages.get("/dashboard")
@pages.get("/dashboard/")
async def former_dashboard() -> RedirectResponse:
    return RedirectResponse("/", 308)


@pages.get("/services/{service}/{page:path}")
async def service_page(request: Request, gateway: GatewayDep, service: str, page: str) -> Response:
    """Forward to the API pages and metrics of one service; other paths are refused."""
    allowed = page in ("docs", "openapi.json", "metrics") or page.startswith("docs/")
    if service not in SERVICES or not allowed:
        known = ", ".join(f"/services/{name}/docs" for name in SERVICES)
        raise NotFound(f"There is no {request.url.path} here.", code="no-such-route", next=f"See {known}.")
    return await gateway.proxy.forward(request, service, path=f"/{page}", timeout=QUICK)


class _Forward:
    """ASGI app that forwards requests with any method to a service."""

    def __init__(self, route: Route) -> None:
        self.path = route.path  # label of its metrics
        self._route = route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = self
        request = Request(scope, receive, send)
        gateway: Gateway = request.app.state.gateway
        answer = await gateway.proxy.forward(request, self._route.service, timeout=self._route.timeout)
        answer.headers["Content-Security-Policy"] = SANDBOX
        await answer(scope, receive, send)


def proxied_router() -> APIRouter:
    """Return the router for ROUTES."""
    proxied = APIRouter(include_in_schema=False)
    proxied.routes.extend(
        PlainRoute(route.path, _Forward(route), include_in_schema=False) for route in ROUTES
    )
    return proxied


class _RemovedRoute:
    """ASGI app for a call of the original's earlier versions; the error names its replacement."""

    def __init__(self, path: str, replacement: str) -> None:
        self.path = path
        self._replacement = replacement

    async def __call__(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        scope["route"] = self
        raise Gone(
            f"{scope['method']} {self.path} is a call of the original's earlier versions and not supported.",
            next=f"Send {self._replacement}",
        )


def former_router() -> APIRouter:
    """Return the router for calls that the original itself has removed."""
    former = APIRouter(include_in_schema=False)
    former.routes.extend(
        PlainRoute(path, _RemovedRoute(path, replacement), include_in_schema=False)
        for path, replacement in FORMER.items()
    )
    return former


def own_routes() -> list[BaseRoute]:
    """Return all routes, in the order in which they are tried."""
    routers = [router, docs_router("MAO node"), pages, proxied_router(), former_router()]
    return [*make_routes("gateway", routers), PageRoutes()]


SERVICE_ROUTES = own_routes()
