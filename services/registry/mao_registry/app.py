"""The registry's composition root."""

from __future__ import annotations

import asyncio

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
from .federation.expiry import watch_certificates
from .federation.files import RegistryFiles
from .federation.lifecycle import Lifecycle
from .federation.status import watch_quorum
from .node_services import HttpNodeServices, NodeServices
from .peers.presence import Presence
from .peers.silent import SilentNodes
from .records.stores import Repositories
from .registry import build
from .routes import ROUTES
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
    """Make the app. Arguments that are not given are created from the settings and closed at shutdown.

    Args:
        store: the node's own store.
        federation: the federation's store; defaults to `store` if that is given.
        clients: clients of this node's runner and data manager.
    """

    async def start(service: Service) -> None:
        await asyncio.to_thread(remove_access, settings.federation_files())
        conditions = service.conditions
        shared = service.federation(given=federation if federation is not None else store)
        repositories = Repositories(settings.node, shared, service.store, Unreadable(conditions))
        enter = service.stack.enter_async_context
        services = clients or HttpNodeServices(
            await enter(RunnerClient(settings.runner_url)), await enter(DataClient(settings.datamgmt_url))
        )
        scheduler = await enter(SchedulerClient(settings.scheduler_url))
        context = FederationContext(
            node=settings.node,
            own=repositories.own,
            files=RegistryFiles(settings.federation_files().resolve()),
            address=settings.etcd_address(),
            clock=clock,
            notify_supervisor=signal_supervisor,
            open_store=lambda endpoints, tls: open_store(endpoints, tls=tls),
            open_admin=open_admin,
            pinned=settings.federation_endpoints is not None,
            unreadable=repositories.unreadable,
        )
        lifecycle = service.app.state.lifecycle = Lifecycle(context, shared, conditions)
        identity_file = settings.federation_files().resolve() / "store.json"
        identity = StoreIdentity(settings.node, repositories.own, identity_file, conditions)
        service.app.state.store_identity = identity
        registry = service.app.state.registry = build(
            repositories,
            services,
            clock,
            Agreements(AgreementFiles(settings.agreement_files()), repositories, clock, conditions),
            scheduler=scheduler,
            share_logs=settings.share_logs,
            catalogues=settings.catalogues,
            conditions=conditions,
        )
        presence = Presence(
            repositories,
            services,
            _member(settings, clock),
            settings.member_ttl,
            lifecycle.versions.labels,
            conditions=conditions,
        )
        service.run(Replicator(shared, conditions=conditions).run(), presence.run(), *registry.loops())
        service.run(lifecycle.controller.run(), watch_quorum(shared, conditions))
        silent = SilentNodes(repositories, clock, settings.silent_after, conditions)
        service.run(silent.run(), watch_certificates(context, conditions))
        if settings.join_token_file is not None:
            service.run(lifecycle.join_by_file(settings.join_token_file))
        if store is None:  # a store that is passed in is new
            service.run(identity.run())

    return make_service("registry", DESCRIPTION, settings, start, routes=ROUTES, store=store)


def _member(settings: RegistrySettings, clock: Clock) -> Member:
    address = settings.etcd_address()
    return Member(
        name=settings.node,
        version=__version__,
        labels=settings.labels,
        logs_shared=settings.share_logs,
        core_address=address.client if address else None,
        started_at=clock.now(),
    )
