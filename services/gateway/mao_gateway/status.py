"""`GET /status`: what answers on this node, what does not, and what to do about it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, Field

from mao_shared import __version__
from mao_shared.errors import MaoError, PeerUnavailable
from mao_shared.models import Timestamp
from mao_shared.store import Store
from mao_shared.web.health import check

from .federation import FederationStatus, federation_status
from .proxy import Proxy

TIMEOUT = 4.0  # seconds; longer than the services' own probes take
_ADVICE = {
    "store": "etcd does not answer: look at its log, and at MAO_ETCD_ENDPOINTS.",
    "engine": "Docker does not answer the runner: 'docker info' shows why; start it or fix its socket.",
    "docker": "Docker does not answer the runner: 'docker info' shows why; start it or fix its socket.",
}


class ServiceStatus(BaseModel):
    """`checks`: name of what the service needs → `ok` or, in words, why not."""

    ready: bool
    version: str | None = None
    checks: dict[str, str] = Field(default_factory=dict)
    reason: str | None = None


class NodeStatus(BaseModel):
    """The node at a glance."""

    node: str
    version: str
    ready: bool
    store: str = Field(description="`ok`, or why the node store does not answer")
    services: dict[str, ServiceStatus]
    now: Timestamp = Field(description="The node's clock")
    disk: dict[str, int | bool | str | None] | None = Field(
        description="Bytes `free` and `total` under the data directory, whether it is `writable`, and the "
        "`shortage` in words that keeps steps waiting"
    )
    git: dict[str, str] | None = Field(description="`name` and `email` that sign this node's commits")
    federation: FederationStatus | None = Field(description="None for a node that stands alone")
    next: list[str] = Field(description="What to do, most pressing first; empty when all is well")


async def node_status(node: str, store: Store, proxy: Proxy, services: tuple[str, ...]) -> NodeStatus:
    """Asks the store and all services at once."""
    asked = asyncio.gather(*(service_status(proxy, service) for service in services))
    kept = asyncio.create_task(_storage(proxy))
    federation = asyncio.create_task(federation_status(store, node, TIMEOUT))
    store_says = (await check({"store": store.ping}, TIMEOUT))["store"]
    by_name = dict(zip(services, await asked, strict=True))
    steps = next_steps(store_says, by_name)
    joined = await federation
    return NodeStatus(
        node=node,
        version=__version__,
        ready=not steps,
        store=store_says,
        services=by_name,
        next=[*steps, *federation_step(joined)],
        now=datetime.now(UTC),
        federation=joined,
        **await kept,
    )


def federation_step(joined: FederationStatus | None) -> list[str]:
    """One that is away leaves the node ready: it collects, and answers from copies."""
    if joined is None or joined.reachable is not False or not joined.next:
        return []
    about = joined.reason if joined.removed else f"The federation {joined.name} does not answer."
    return [f"{about} {joined.next}"]


async def _storage(proxy: Proxy) -> dict[str, Any]:
    """`disk` and `git` as the data manager tells them; None while it does not."""
    try:
        status, document = await proxy.get_json("datamgmt", "/storage", TIMEOUT)
    except PeerUnavailable:
        status, document = 0, None
    told = document if status == 200 and isinstance(document, dict) else {}
    return {"disk": told.get("disk"), "git": told.get("git")}


async def service_status(proxy: Proxy, service: str) -> ServiceStatus:
    try:
        status, document = await proxy.get_json(service, "/readyz", TIMEOUT)
    except PeerUnavailable as error:
        return ServiceStatus(ready=False, reason=error.detail)
    return parse_readyz(status, document)


def parse_readyz(status: int, document: Any) -> ServiceStatus:
    """A service's answer to `/readyz`, whatever it is."""
    document = document if isinstance(document, dict) else {}
    checks = {str(key): str(value) for key, value in dict(document.get("checks") or {}).items()}
    reason = None if status == 200 else str(document.get("detail", f"it answered with status {status}"))
    version = document.get("version")
    return ServiceStatus(
        ready=status == 200, version=str(version) if version else None, checks=checks, reason=reason
    )


def next_steps(store: str, services: dict[str, ServiceStatus]) -> list[str]:
    """What a person should do, each thing once, most pressing first."""
    steps = [] if store == "ok" else [_ADVICE["store"]]
    for service, status in services.items():
        if not status.ready and not status.checks:
            steps.append(f"{service} does not answer: look at its log; its supervisor starts it again.")
        for name, reason in status.checks.items():
            if reason != "ok":
                steps.append(_ADVICE.get(name, f"{service} waits for {name}: {reason}"))
        if not steps and not status.ready:
            steps.append(f"{service} is not ready: {status.reason}")
    return list(dict.fromkeys(steps))


def readiness_probe(proxy: Proxy, service: str) -> Callable[[], Awaitable[None]]:
    """A probe for the gateway's own `/readyz`: the node is ready when all its services are."""

    async def probe() -> None:
        status = await service_status(proxy, service)
        if not status.ready:
            raise MaoError(status.reason or "not ready")

    return probe
