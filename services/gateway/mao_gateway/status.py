"""`GET /status`: what answers on this node, what does not, and what to do about it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from mao_shared import __version__, keys
from mao_shared.errors import MaoError, PeerUnavailable
from mao_shared.federation.copies import Copies
from mao_shared.models import Link, Timestamp
from mao_shared.store import Store
from mao_shared.web.health import check

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


class FederationStatus(BaseModel):
    """The federation as this node's registry sees it; a node runs on without it.

    `as_of`: what is known of its records was true then. `reason`: why it is not `reachable`.
    """

    name: str
    reachable: bool
    since: Timestamp | None = Field(default=None, description="When it went away")
    as_of: Timestamp | None = None
    reason: str = ""


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
    federation: FederationStatus | None = Field(description="None: the node is its own federation")
    next: list[str] = Field(description="What to do, most pressing first; empty when all is well")


async def node_status(node: str, store: Store, proxy: Proxy, services: tuple[str, ...]) -> NodeStatus:
    """Asks the store and all services at once."""
    asked = asyncio.gather(*(service_status(proxy, service) for service in services))
    kept = asyncio.create_task(_storage(proxy))
    store_says = (await check({"store": store.ping}, TIMEOUT))["store"]
    by_name = dict(zip(services, await asked, strict=True))
    steps = next_steps(store_says, by_name)
    federation = await _federation(node, store) if store_says == "ok" else None
    return NodeStatus(
        node=node,
        version=__version__,
        ready=not steps,
        store=store_says,
        services=by_name,
        federation=federation,
        next=[*steps, *_federation_steps(federation)],
        now=datetime.now(UTC),
        **await kept,
    )


async def _federation(node: str, store: Store) -> FederationStatus | None:
    """As the registry has written it down; None as well while the store does not tell."""
    try:
        contact, _ = await Copies(store, node).read_contact()
        entry = await store.get(keys.link(node))
        name = Link.model_validate_json(entry.value).federation if entry else None
    except (MaoError, ValidationError):
        return None
    if contact is None:
        return FederationStatus(name=name, reachable=False, reason="not asked yet") if name else None
    return FederationStatus(
        name=name or contact.federation,
        reachable=contact.reachable,
        since=contact.away_since,
        as_of=contact.as_of,
        reason=contact.reason,
    )


def _federation_steps(federation: FederationStatus | None) -> list[str]:
    if federation is None or federation.reachable:
        return []
    since = f" since {federation.since:%Y-%m-%d %H:%M:%S} UTC" if federation.since else ""
    return [
        f"The federation {federation.name} is unreachable{since}: {federation.reason}. Runs go on, what is "
        "to be shared waits, and this node reconnects by itself."
    ]


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
