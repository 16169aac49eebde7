"""The registry's composition root."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI

from mao_shared import __version__
from mao_shared.agreements import AgreementFiles
from mao_shared.clients import DataClient, RunnerClient, SchedulerClient
from mao_shared.clock import Clock, SystemClock
from mao_shared.federation import FederationStore, federation_store
from mao_shared.federation.known import KnownCopy
from mao_shared.models import Member
from mao_shared.private import take_rights
from mao_shared.service import Readiness, background, condition_loops, conditions_of, make_service
from mao_shared.store import Store, Unreadable, open_admin, open_store

from .agreements import Agreements
from .federation.folder import Folder
from .federation.lifecycle import Lifecycle
from .federation.site import Site, signal_supervisor
from .peers import Peers, ServicePeers
from .presence import Presence
from .quorum_watch import watch_quorum
from .records import Shelf
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
    clients: Peers | None = None,
    clock: Clock = SystemClock(),  # noqa: B008 (it has no state)
) -> FastAPI:
    """The app; what is not given is made from the settings (and closed at the end).

    `federation` defaults to `store` when that is given.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await asyncio.to_thread(take_rights, settings.federation_files())
            conditions = conditions_of(app)
            shelf, shared = await _open(settings, store, federation, stack, Unreadable(conditions))
            peers = clients or await _connect(settings, stack)
            scheduler = await stack.enter_async_context(SchedulerClient(settings.scheduler_url))
            lifecycle = app.state.lifecycle = Lifecycle(
                _site(settings, shelf.own, clock, shelf.unreadable), shared, conditions
            )
            identity = app.state.store_identity = StoreIdentity(
                settings.node, shelf.own, settings.federation_files().resolve() / "store.json", conditions
            )
            app.state.registry = build(
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
            await stack.enter_async_context(
                background(
                    shared.run(),
                    KnownCopy(shared, conditions=conditions).run(),
                    presence.run(),
                    *app.state.registry.loops(),
                    *_upkeep(settings, lifecycle),
                    *([identity.run()] if store is None else []),  # one that is given is nobody's yet
                    watch_quorum(shared, conditions),
                    *condition_loops("registry", settings, shelf.own, conditions),
                )
            )
            yield

    def readiness(app: FastAPI) -> Readiness:
        shelf: Shelf = app.state.registry.shelf
        return {"store": shelf.own.ping}  # while the federation is away, it answers from what is known

    return make_service("registry", DESCRIPTION, routers=routers(), lifespan=lifespan, readiness=readiness)


async def _open(
    settings: RegistrySettings,
    store: Store | None,
    federation: Store | None,
    stack: AsyncExitStack,
    unreadable: Unreadable,
) -> tuple[Shelf, FederationStore]:
    own = store or _closing(open_store(settings.etcd_endpoints), stack)
    given = federation if federation is not None else store
    shared = federation_store(settings, own, given=given)
    stack.push_async_callback(shared.close)
    return Shelf(settings.node, shared, own, unreadable), shared


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


def _site(settings: RegistrySettings, own: Store, clock: Clock, unreadable: Unreadable) -> Site:
    return Site(
        node=settings.node,
        own=own,
        folder=Folder(settings.federation_files().resolve()),
        place=settings.place(),
        clock=clock,
        tell_supervisor=signal_supervisor,
        open_store=lambda endpoints, tls: open_store(endpoints, tls=tls),
        open_admin=open_admin,
        pinned=settings.federation_endpoints is not None,
        unreadable=unreadable,
    )


def _upkeep(settings: RegistrySettings, lifecycle: Lifecycle) -> list[Coroutine[Any, Any, None]]:
    joining = [] if settings.join_token_file is None else [lifecycle.join_by_file(settings.join_token_file)]
    return [lifecycle.upkeep.run(), *joining]


def _closing(store: Store, stack: AsyncExitStack) -> Store:
    stack.push_async_callback(store.close)
    return store


async def _connect(settings: RegistrySettings, stack: AsyncExitStack) -> Peers:
    runner = await stack.enter_async_context(RunnerClient(settings.runner_url))
    data = await stack.enter_async_context(DataClient(settings.datamgmt_url))
    return ServicePeers(runner, data)
