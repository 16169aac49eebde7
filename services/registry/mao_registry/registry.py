"""The components of the registry that the routes use."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Request

from mao_shared.clients import SchedulerClient
from mao_shared.clock import Clock
from mao_shared.conditions import Conditions
from mao_shared.models import Dataset, Pipeline, Tool
from mao_shared.models.pipeline import name_from_title
from mao_shared.reconcile import recheck_unreadable

from .catalogue.install import Installer
from .catalogue.sources import Sources
from .consent.agreements import Agreements
from .consent.approvals import Approvals
from .consent.enrolments import Enrolments
from .consent.trust import TrustController
from .node_services import NodeServices
from .peers.logs import LogRequests, LogResponder
from .peers.presence import LastSeenReporter, Members
from .peers.queries import PeerQueries
from .records.collection import Collection
from .records.endorsements import Endorser
from .records.references import References
from .records.rules import DatasetRules, PipelineRules, ToolRules, not_found
from .records.stores import Repositories


@dataclass(frozen=True)
class Registry:
    repositories: Repositories
    conditions: Conditions
    tools: Collection[Tool]
    datasets: Collection[Dataset]
    pipelines: Collection[Pipeline]
    agreements: Agreements
    enrolments: Enrolments
    members: Members
    approvals: Approvals
    installer: Installer
    trust: TrustController
    queries: PeerQueries
    last_seen: LastSeenReporter
    log_responder: LogResponder
    log_requests: LogRequests

    async def name_of_title(self, title: str) -> str:
        """Return the name of the registered or enrolled pipeline with this title. Raises NotFound."""
        name = name_from_title(title)
        for records in (self.repositories.enrolments, self.repositories.pipelines):
            stored = await records.find(name)
            if stored is not None and stored.record.title == title:
                return name
        raise not_found("pipeline", title)

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """Return the coroutines of the background tasks, except the node's presence."""
        return [
            self.agreements.run(),
            self.trust.run(),
            self.last_seen.run(),
            self.log_responder.run(),
            recheck_unreadable(self.repositories.unreadable),
        ]


def build(
    repositories: Repositories,
    services: NodeServices,
    clock: Clock,
    agreements: Agreements,
    *,
    scheduler: SchedulerClient | None = None,
    share_logs: bool = False,
    catalogues: Mapping[str, str] | None = None,
    conditions: Conditions | None = None,
) -> Registry:
    conditions = conditions or Conditions(clock)
    references = References(repositories)
    endorser = Endorser(repositories.node, clock)
    enrolments = Enrolments(repositories, agreements, references, services, endorser, clock)
    approvals = Approvals(repositories, enrolments)
    queries = PeerQueries(repositories, agreements, clock, scheduler)
    tools = Collection(repositories.tools, ToolRules(references), endorser)
    datasets = Collection(repositories.datasets, DatasetRules(references, unique_remote=True), endorser)
    pipelines = Collection(repositories.pipelines, PipelineRules(references), endorser)
    responder = LogResponder(repositories, services, shared=share_logs, conditions=conditions)
    return Registry(
        repositories=repositories,
        conditions=conditions,
        tools=tools,
        datasets=datasets,
        pipelines=pipelines,
        agreements=agreements,
        enrolments=enrolments,
        members=Members(repositories),
        approvals=approvals,
        installer=Installer(
            Sources(catalogues or {}, clock),
            repositories,
            tools,
            datasets,
            pipelines,
            enrolments,
            agreements,
            services,
        ),
        trust=TrustController(repositories, agreements, approvals, clock, conditions),
        queries=queries,
        last_seen=LastSeenReporter(repositories, clock, conditions),
        log_responder=responder,
        log_requests=LogRequests(repositories, queries, responder),
    )


async def get_registry(request: Request) -> Registry:
    """Return the registry built at startup; a FastAPI dependency."""
    registry: Registry = request.app.state.registry
    return registry
