"""The registry's composition root."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI

from mao_shared import __version__
from mao_shared.clients import DataClient, RunnerClient
from mao_shared.clock import Clock, SystemClock
from mao_shared.federation import federation_store
from mao_shared.federation.known import KnownCopy
from mao_shared.models import Member
from mao_shared.service import Readiness, background, make_service
from mao_shared.store import Store, open_store

from .peers import Peers, ServicePeers
from .presence import Presence
from .records import Shelf
from .registry import build
from .routes import routers
from .settings import RegistrySettings

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
            own = store or _closing(open_store(settings.etcd_endpoints), stack)
            shared = federation_store(settings, own, given=federation or store)
            stack.push_async_callback(shared.close)
            shelf = Shelf(settings.node, shared, own)
            peers = clients or await _connect(settings, stack)
            app.state.registry = build(shelf, peers, clock)
            member = Member(
                name=settings.node, version=__version__, labels=settings.labels, started_at=clock.now()
            )
            presence = Presence(shelf, peers, member, settings.member_ttl)
            parts = (shared.run(), KnownCopy(shared, clock=clock).run(), presence.run())
            await stack.enter_async_context(background(*parts))
            yield

    def readiness(app: FastAPI) -> Readiness:
        """A federation that is away holds nothing up: the registry answers from its copies."""
        shelf: Shelf = app.state.registry.shelf
        return {"store": shelf.own.ping}

    return make_service("registry", DESCRIPTION, routers=routers(), lifespan=lifespan, readiness=readiness)


def _closing(store: Store, stack: AsyncExitStack) -> Store:
    stack.push_async_callback(store.close)
    return store


async def _connect(settings: RegistrySettings, stack: AsyncExitStack) -> Peers:
    runner = await stack.enter_async_context(RunnerClient(settings.runner_url))
    data = await stack.enter_async_context(DataClient(settings.datamgmt_url))
    return ServicePeers(runner, data)
