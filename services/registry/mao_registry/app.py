"""The registry's composition root."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from fastapi import FastAPI

from mao_shared import __version__
from mao_shared.agreements import AgreementFiles
from mao_shared.clients import DataClient, RunnerClient, SchedulerClient
from mao_shared.clock import Clock, SystemClock
from mao_shared.federation.replicator import Replicator
from mao_shared.host.files import remove_access
from mao_shared.models import Member
from mao_shared.service.app import Service, make_service
from mao_shared.store import Store, Unreadable, open_admin, open_store

from .consent.agreements import Agreements
from .federation.context import FederationContext, signal_supervisor
from .federation.files import RegistryFiles
from .federation.lifecycle import Lifecycle
from .federation.status import watch_quorum
from .node_services import HttpNodeServices, NodeServices
from .peers.presence import Presence
from .records.repositories import Repositories
from .registry import build
from .routes import routers
from .settings import RegistrySettings
from .store_identity import StoreIdentity

DESCRIPTION = "Tools, datasets and pipelines of the federation, and what this node takes part in."


def make_app(
    settings: RegistrySettings,
    *,
    store: Store | None = None,
    federation: Store | None = None,
    clients: NodeServices | None = None,
    clock: Clock = SystemClock(),  # noqa: B008 (it has no state)
) -> FastAPI:
    """The app; what is not given is made from the settings (and closed at the end).

    `federation` defaults to `store` when that is given.
    """

    async def start(service: Service) -> None:
        await asyncio.to_thread(remove_access, settings.federation_files())
        conditions = service.conditions
        shared = service.federation(given=federation if federation is not None else store)
        shelf = Repositories(settings.node, shared, service.store, Unreadable(conditions))
        peers = clients or await _connect(settings, service.stack)
        scheduler = await service.stack.enter_async_context(SchedulerClient(settings.scheduler_url))
        site = _site(settings, shelf.own, clock, shelf.unreadable)
        lifecycle = service.app.state.lifecycle = Lifecycle(site, shared, conditions)
        identity_file = settings.federation_files().resolve() / "store.json"
        identity = StoreIdentity(settings.node, shelf.own, identity_file, conditions)
        service.app.state.store_identity = identity
        registry = service.app.state.registry = build(
            shelf,
            peers,
            clock,
            Agreements(AgreementFiles(settings.agreement_files()), shelf, clock, conditions),
            scheduler=scheduler,
            share_logs=settings.share_logs,
            conditions=conditions,
        )
        presence = Presence(
            shelf,
            peers,
            _member(settings, clock),
            settings.member_ttl,
            lifecycle.versions.labels,
            conditions=conditions,
        )
        service.run(Replicator(shared, conditions=conditions).run(), presence.run(), *registry.loops())
        service.run(lifecycle.upkeep.run(), watch_quorum(shared, conditions))
        if settings.join_token_file is not None:
            service.run(lifecycle.join_by_file(settings.join_token_file))
        if store is None:  # one that is given is nobody's yet
            service.run(identity.run())

    return make_service("registry", DESCRIPTION, settings, start, routers=routers(), store=store)


def _member(settings: RegistrySettings, clock: Clock) -> Member:
    place = settings.place()
    return Member(
        name=settings.node,
        version=__version__,
        labels=settings.labels,
        logs_shared=settings.share_logs,
        core_address=place.client if place else None,
        started_at=clock.now(),
    )


def _site(settings: RegistrySettings, own: Store, clock: Clock, unreadable: Unreadable) -> FederationContext:
    return FederationContext(
        node=settings.node,
        own=own,
        folder=RegistryFiles(settings.federation_files().resolve()),
        place=settings.place(),
        clock=clock,
        tell_supervisor=signal_supervisor,
        open_store=lambda endpoints, tls: open_store(endpoints, tls=tls),
        open_admin=open_admin,
        pinned=settings.federation_endpoints is not None,
        unreadable=unreadable,
    )


async def _connect(settings: RegistrySettings, stack: AsyncExitStack) -> NodeServices:
    runner = await stack.enter_async_context(RunnerClient(settings.runner_url))
    data = await stack.enter_async_context(DataClient(settings.datamgmt_url))
    return HttpNodeServices(runner, data)
