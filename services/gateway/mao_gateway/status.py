"""How this node stands with its federation, as its own store has it; never waits for the federation.

`GET /status`: what answers on this node, what does not, and what to do about it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from mao_shared import __version__, keys
from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError, PeerUnavailable
from mao_shared.models import Record, Timestamp
from mao_shared.models.common import STORED
from mao_shared.models.federation import Contact, Link
from mao_shared.models.node import Condition, NodeCondition
from mao_shared.reconcile import Guard, every
from mao_shared.store import Store
from mao_shared.web.health import check, failed_checks, with_checks

from .proxy import Proxy

R = TypeVar("R", bound=Record)


class FederationStatus(BaseModel):
    """`reachable` is None until the registry has tried. A federation that is away leaves the node ready."""

    name: str
    reachable: bool | None = None
    removed: bool = Field(default=False, description="It has struck this node off; it will not come back")
    since: Timestamp | None = Field(default=None, description="When it last answered, if it does not now")
    reason: str = Field(default="", description="Why it does not answer")
    next: str = Field(default="", description="What to do about that")
    as_of: Timestamp | None = Field(default=None, description="When what is known of it was last true")


async def federation_status(store: Store, node: str, seconds: float) -> FederationStatus | None:
    """None for a node that stands alone, and where its store does not answer within so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            link = await _read_record(store, keys.link(node), Link)
            contact = await _read_record(store, keys.contact(node), Contact)
    except (MaoError, TimeoutError):
        return None
    return describe_federation(link, contact)


def describe_federation(link: Link | None, contact: Contact | None) -> FederationStatus | None:
    """Pure: a contact with another federation than the link's tells nothing of this one."""
    if link is not None and (contact is None or contact.federation != link.id):
        return FederationStatus(name=link.federation)
    if contact is None:
        return None
    return FederationStatus(
        name=contact.federation if link is None else link.federation,
        reachable=contact.reachable,
        removed=contact.removed,
        # Not when this was noticed, which is later: what is read from copies is told to be as old as this.
        since=None if contact.reachable else contact.as_of or contact.away_since,
        reason=contact.reason,
        next=contact.next,
        as_of=contact.as_of,
    )


async def _read_record(store: Store, key: str, model: type[R]) -> R | None:
    entry = await store.get(key)
    try:
        return None if entry is None else model.model_validate_json(entry.value, context=STORED)
    except ValidationError:  # another version's
        return None


TIMEOUT = 4.0  # seconds; longer than the services' own probes take

LOOK_EVERY = 60.0  # seconds between two looks whether the services answer


class ServiceStatus(BaseModel):
    """`checks`: what the service needs, or a condition that failed → `ok` or, in words, why not."""

    ready: bool
    version: str | None = None
    checks: dict[str, str] = Field(default_factory=dict)
    reason: str | None = None
    conditions: list[Condition] = Field(default_factory=list, exclude=True)


class NodeStatus(BaseModel):
    """The node at a glance."""

    node: str
    version: str
    ready: bool
    store: str = Field(description="`ok`, or why the node store does not answer")
    services: dict[str, ServiceStatus]
    conditions: list[NodeCondition] = Field(
        description="What does not hold on any service, the failed first: empty when all is well"
    )
    now: Timestamp = Field(description="The node's clock")
    disk: dict[str, int | bool | str | None] | None = Field(
        description="Bytes `free` and `total` under the data directory, whether it is `writable`, and the "
        "`shortage` in words that keeps steps waiting"
    )
    git: dict[str, str] | None = Field(description="`name` and `email` that sign this node's commits")
    federation: FederationStatus | None = Field(description="None for a node that stands alone")
    next: list[str] = Field(description="What to do, most pressing first; empty when all is well")


async def node_status(
    node: str, store: Store, proxy: Proxy, services: tuple[str, ...], own: Conditions
) -> NodeStatus:
    """Asks the store and all services at once. `own`: the gateway's conditions."""
    kept = asyncio.create_task(_storage(proxy))
    federation = asyncio.create_task(federation_status(store, node, TIMEOUT))
    by_name, checks = await _ask_all(store, proxy, services, own)
    conditions = merge_conditions(own, checks, by_name)
    joined = await federation
    steps = next_steps(conditions)
    if not any(each.name == "quorum" for each in conditions):
        steps += federation_step(joined)
    return NodeStatus(
        node=node,
        version=__version__,
        ready=not any(each.state == "failed" for each in conditions)
        and all(each.ready for each in by_name.values()),
        store=failed_checks(checks, own.current())["store"],
        services=by_name,
        conditions=conditions,
        next=steps,
        now=datetime.now(UTC),
        federation=joined,
        **await kept,
    )


async def node_conditions(
    store: Store, proxy: Proxy, services: tuple[str, ...], own: Conditions
) -> list[NodeCondition]:
    """What does not hold on the gateway or any service."""
    by_name, checks = await _ask_all(store, proxy, services, own)
    return merge_conditions(own, checks, by_name)


async def _ask_all(
    store: Store, proxy: Proxy, services: tuple[str, ...], own: Conditions
) -> tuple[dict[str, ServiceStatus], dict[str, str]]:
    asked = asyncio.gather(*(service_status(proxy, service, own) for service in services))
    checks = await check({"store": store.ping}, TIMEOUT)
    return dict(zip(services, await asked, strict=True)), checks


def merge_conditions(
    own: Conditions, checks: Mapping[str, str], services: Mapping[str, ServiceStatus]
) -> list[NodeCondition]:
    """One list of all: what several services report is told once, as the one that has it worst tells it."""
    told = {"gateway": with_checks(checks, own.current(), datetime.now(UTC))}
    told |= {name: status.conditions for name, status in services.items()}
    found: dict[tuple[str, str], list[tuple[str, Condition]]] = {}
    for service, conditions in told.items():
        for condition in conditions:
            found.setdefault((condition.name, condition.subject), []).append((service, condition))
    rows = []
    for each in found.values():
        worst = next((one for _, one in each if one.state == "failed"), each[0][1])
        since = min(one.since for _, one in each)
        facts = worst.model_dump() | {"since": since, "services": [service for service, _ in each]}
        rows.append(NodeCondition(**facts))
    return sorted(rows, key=lambda each: (each.state != "failed", each.since))


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


async def service_status(proxy: Proxy, service: str, own: Conditions) -> ServiceStatus:
    """How a service is; one that does not answer is a condition of the gateway's."""
    try:
        status, document = await proxy.get_json(service, "/readyz", TIMEOUT)
    except PeerUnavailable as error:
        _away(own, service, error)
        return ServiceStatus(ready=False, reason=error.detail)
    own.clear("service", service)
    return parse_readyz(status, document)


def _away(own: Conditions, service: str, error: PeerUnavailable) -> None:
    advice = f"{service} does not answer: look at its log; its supervisor starts it again."
    own.report("service", service, detail=error.detail, next_step=advice, state="failed")


async def watch_services(proxy: Proxy, services: tuple[str, ...], own: Conditions) -> None:
    """Notices by itself when a service goes, so that it becomes an alarm though nobody asks; for ever."""
    guard = Guard("services", own)

    async def look() -> None:
        for service in services:
            try:
                with guard.item(service):
                    await proxy.get_json(service, "/livez", TIMEOUT)
                    own.clear("service", service)
            except PeerUnavailable as error:
                _away(own, service, error)

    await asyncio.sleep(LOOK_EVERY)  # they start beside the gateway
    await every(LOOK_EVERY, look, name="services", conditions=own)


def parse_readyz(status: int, document: Any) -> ServiceStatus:
    """A service's answer to `/readyz`, whatever it is; one of an older version tells no conditions."""
    document = document if isinstance(document, dict) else {}
    told = document.get("checks")
    checks = {str(key): str(value) for key, value in (told if isinstance(told, dict) else {}).items()}
    reason = None if status == 200 else str(document.get("detail", f"it answered with status {status}"))
    version = document.get("version")
    if isinstance(listed := document.get("conditions"), list):
        conditions = [each for each in map(_condition, listed) if each is not None]
    else:
        conditions = with_checks(checks, [], datetime.now(UTC))
    return ServiceStatus(
        ready=status == 200,
        version=str(version) if version else None,
        checks=checks,
        reason=reason,
        conditions=conditions,
    )


def _condition(document: Any) -> Condition | None:
    try:
        return Condition.model_validate(document)
    except ValidationError:  # another version's
        return None


def next_steps(conditions: Sequence[Condition]) -> list[str]:
    """What a person should do, each thing once, most pressing first."""
    return list(dict.fromkeys(each.next for each in conditions if each.next))


def readiness_probe(proxy: Proxy, service: str, own: Conditions) -> Callable[[], Awaitable[None]]:
    """A probe for the gateway's own `/readyz`: the node is ready when all its services are."""

    async def probe() -> None:
        status = await service_status(proxy, service, own)
        if not status.ready:
            raise MaoError(status.reason or "not ready")

    return probe
