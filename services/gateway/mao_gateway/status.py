"""`GET /status`: the state of the node's services, store and federation, and next steps for problems.

The state of the federation is read from the node's own store; nothing here waits for the federation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import ValidationError

from mao_shared import __version__, keys
from mao_shared.conditions import Conditions
from mao_shared.errors import MaoError, PeerUnavailable
from mao_shared.models import Record
from mao_shared.models.common import STORED
from mao_shared.models.federation import Contact, Link
from mao_shared.models.node import (
    Condition,
    FederationStatus,
    NodeCondition,
    NodeStatus,
    ServiceStatus,
    Storage,
)
from mao_shared.reconcile import Guard, every
from mao_shared.store import Store
from mao_shared.web.health import check, failed_checks, with_checks

from .proxy import Proxy

R = TypeVar("R", bound=Record)
TIMEOUT = 4.0  # seconds; the services' own probes take less
WATCH_PERIOD = 60.0  # seconds


async def federation_status(store: Store, node: str, seconds: float) -> FederationStatus | None:
    """Return the federation's status; None outside one or if the store does not answer within `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            link = await _read_record(store, keys.link(node), Link)
            contact = await _read_record(store, keys.contact(node), Contact)
    except (MaoError, TimeoutError):
        return None
    return describe_federation(link, contact)


def describe_federation(link: Link | None, contact: Contact | None) -> FederationStatus | None:
    """Describe the federation; the contact of another federation than the link's is ignored. Pure."""
    if link is not None and (contact is None or contact.federation != link.id):
        return FederationStatus(name=link.federation)
    if contact is None:
        return None
    return FederationStatus(
        name=contact.federation if link is None else link.federation,
        reachable=contact.reachable,
        removed=contact.removed,
        # Since the last contact, which is also the replica's age; the outage was noticed later.
        since=None if contact.reachable else contact.as_of or contact.away_since,
        reason=contact.reason,
        next=contact.next,
        as_of=contact.as_of,
    )


async def _read_record(store: Store, key: str, model: type[R]) -> R | None:
    entry = await store.get(key)
    try:
        return None if entry is None else model.model_validate_json(entry.value, context=STORED)
    except ValidationError:  # written by another version
        return None


async def node_status(
    node: str, store: Store, proxy: Proxy, services: tuple[str, ...], own: Conditions
) -> NodeStatus:
    """Query the store and all services concurrently. `own`: the gateway's conditions."""
    storage_query = asyncio.create_task(_storage(proxy))
    federation_query = asyncio.create_task(federation_status(store, node, TIMEOUT))
    statuses, checks = await _ask_all(store, proxy, services, own)
    conditions = merge_conditions(own, checks, statuses)
    federation, storage = await federation_query, await storage_query
    steps = next_steps(conditions)
    if not any(condition.name == "quorum" for condition in conditions):
        steps += federation_step(federation)
    return NodeStatus(
        node=node,
        version=__version__,
        ready=all(status.ready for status in statuses.values())
        and not any(condition.state == "failed" for condition in conditions),
        store=failed_checks(checks, own.current())["store"],
        services=statuses,
        conditions=conditions,
        next=steps,
        now=datetime.now(UTC),
        federation=federation,
        disk=storage and storage.disk,
        git=storage and storage.git,
    )


async def node_conditions(
    store: Store, proxy: Proxy, services: tuple[str, ...], own: Conditions
) -> list[NodeCondition]:
    """Return the conditions of the gateway and all services."""
    statuses, checks = await _ask_all(store, proxy, services, own)
    return merge_conditions(own, checks, statuses)


async def _ask_all(
    store: Store, proxy: Proxy, services: tuple[str, ...], own: Conditions
) -> tuple[dict[str, ServiceStatus], dict[str, str]]:
    queries = asyncio.gather(*(service_status(proxy, service, own) for service in services))
    checks = await check({"store": store.ping}, TIMEOUT)
    return dict(zip(services, await queries, strict=True)), checks


def merge_conditions(
    own: Conditions, checks: Mapping[str, str], services: Mapping[str, ServiceStatus]
) -> list[NodeCondition]:
    """Merge conditions; one that several services report appears once, in its worst state."""
    by_service = {"gateway": with_checks(checks, own.current(), datetime.now(UTC))}
    by_service |= {name: status.conditions for name, status in services.items()}
    reports: dict[tuple[str, str], dict[str, Condition]] = {}
    for service, conditions in by_service.items():
        for condition in conditions:
            reports.setdefault((condition.name, condition.subject), {})[service] = condition
    merged = []
    for reported in reports.values():
        conditions = list(reported.values())
        worst = next((condition for condition in conditions if condition.state == "failed"), conditions[0])
        since = min(condition.since for condition in conditions)
        merged.append(NodeCondition(**worst.model_dump() | {"since": since, "services": list(reported)}))
    return sorted(merged, key=lambda condition: (condition.state != "failed", condition.since))


def federation_step(federation: FederationStatus | None) -> list[str]:
    """Return the next step if the federation does not answer. This is no condition: the node is ready."""
    if federation is None or federation.reachable is not False or not federation.next:
        return []
    no_answer = f"The federation {federation.name} does not answer."
    return [f"{federation.reason if federation.removed else no_answer} {federation.next}"]


async def _storage(proxy: Proxy) -> Storage | None:
    """Query the data manager's storage; return None if it does not answer."""
    try:
        status, document = await proxy.get_json("datamgmt", "/storage", TIMEOUT)
        return Storage.model_validate(document, context=STORED) if status == 200 else None
    except (PeerUnavailable, ValidationError):
        return None


async def service_status(proxy: Proxy, service: str, own: Conditions) -> ServiceStatus:
    """Query the service's `/readyz`; report a condition if it does not answer."""
    try:
        status, document = await proxy.get_json(service, "/readyz", TIMEOUT)
    except PeerUnavailable as error:
        _report_unreachable(own, service, error)
        return ServiceStatus(ready=False, reason=error.detail)
    own.clear("service", service)
    return parse_readyz(status, document)


def _report_unreachable(own: Conditions, service: str, error: PeerUnavailable) -> None:
    step = f"{service} does not answer: see its log; its supervisor restarts it."
    own.report("service", service, detail=error.detail, next_step=step, state="failed")


async def watch_services(proxy: Proxy, services: tuple[str, ...], own: Conditions) -> None:
    """Check the services until cancelled, and report a condition for those that do not answer."""
    guard = Guard("services", own)

    async def check_services() -> None:
        for service in services:
            try:
                with guard.item(service):
                    await proxy.get_json(service, "/livez", TIMEOUT)
                    own.clear("service", service)
            except PeerUnavailable as error:
                _report_unreachable(own, service, error)

    await every(WATCH_PERIOD, check_services, name="services", initial_delay=WATCH_PERIOD, conditions=own)


def parse_readyz(status: int, document: Any) -> ServiceStatus:
    """Parse any answer to `/readyz`; older versions report no conditions. Pure."""
    document = document if isinstance(document, dict) else {}
    checks = document.get("checks")
    checks = {str(key): str(value) for key, value in checks.items()} if isinstance(checks, dict) else {}
    reason = None if status == 200 else str(document.get("detail", f"it answered with status {status}"))
    version = document.get("version")
    if isinstance(listed := document.get("conditions"), list):
        conditions = []
        for item in listed:
            with suppress(ValidationError):  # written by another version
                conditions.append(Condition.model_validate(item))
    else:
        conditions = with_checks(checks, [], datetime.now(UTC))
    return ServiceStatus(
        ready=status == 200,
        version=str(version) if version else None,
        checks=checks,
        reason=reason,
        conditions=conditions,
    )


def next_steps(conditions: Sequence[Condition]) -> list[str]:
    """Return the next steps of the conditions, in order and without duplicates."""
    return list(dict.fromkeys(condition.next for condition in conditions if condition.next))


def readiness_probe(proxy: Proxy, service: str, own: Conditions) -> Callable[[], Awaitable[None]]:
    """Return a probe of a service for the gateway's `/readyz`: the node is ready when all services are."""

    async def probe() -> None:
        status = await service_status(proxy, service, own)
        if not status.ready:
            raise MaoError(status.reason or "not ready")

    return probe
