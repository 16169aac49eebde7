"""The registry's parts, put together; what the routes call."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from fastapi import Request

from mao_shared.clients import SchedulerClient
from mao_shared.clock import Clock
from mao_shared.conditions import Conditions
from mao_shared.models import Dataset, Pipeline, Tool
from mao_shared.models.pipeline import name_from_title
from mao_shared.reconcile import recheck_unreadable

from .consent.agreements import Agreements
from .consent.approvals import Approvals
from .consent.enrolments import Enrolments
from .consent.trust import TrustController
from .node_services import NodeServices
from .peers.logs import LogRequests, LogResponder
from .peers.presence import LastSeenReporter, Members
from .peers.queries import PeerQueries
from .records.catalogue import Catalogue
from .records.endorsements import Endorser
from .records.references import References
from .records.repositories import Repositories
from .records.rules import DatasetRules, PipelineRules, ToolRules


@dataclass(frozen=True)
class Registry:
    shelf: Repositories
    conditions: Conditions
    tools: Catalogue[Tool]
    datasets: Catalogue[Dataset]
    pipelines: Catalogue[Pipeline]
    agreements: Agreements
    enrolments: Enrolments
    members: Members
    consent: Approvals
    trusting: TrustController
    seeing: PeerQueries
    sightings: LastSeenReporter
    log_answers: LogResponder
    log_asks: LogRequests

    async def titled(self, title: str) -> str:
        """The name of the pipeline with this title, whether this node is enrolled or not; raises NotFound."""
        name = name_from_title(title)
        enrolled = await self.shelf.enrolments.find(name)
        if enrolled is not None and enrolled.record.title == title:
            return name
        registered = await self.shelf.pipelines.find(name)
        if registered is not None and registered.record.title == title:
            return name
        raise self.pipelines.not_found(title)

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """What has to run while the service serves, beside the node's presence."""
        return [
            self.agreements.run(),
            self.trusting.run(),
            self.sightings.run(),
            self.log_answers.run(),
            recheck_unreadable(self.shelf.unreadable),
        ]


def build(
    shelf: Repositories,
    peers: NodeServices,
    clock: Clock,
    agreements: Agreements,
    *,
    scheduler: SchedulerClient | None = None,
    share_logs: bool = False,
    conditions: Conditions | None = None,
) -> Registry:
    conditions = conditions or Conditions(clock)
    references = References(shelf)
    endorser = Endorser(shelf.node, clock)
    enrolments = Enrolments(shelf, agreements, references, peers, endorser, clock)
    consent = Approvals(shelf, enrolments)
    seeing = PeerQueries(shelf, agreements, clock, scheduler)
    answers = LogResponder(shelf, peers, shared=share_logs, conditions=conditions)
    return Registry(
        shelf=shelf,
        conditions=conditions,
        tools=Catalogue(shelf.tools, ToolRules(references), endorser),
        datasets=Catalogue(shelf.datasets, DatasetRules(references, one_remote=True), endorser),
        pipelines=Catalogue(shelf.pipelines, PipelineRules(references, shelf), endorser),
        agreements=agreements,
        enrolments=enrolments,
        members=Members(shelf),
        consent=consent,
        trusting=TrustController(shelf, agreements, consent, clock, conditions),
        seeing=seeing,
        log_answers=answers,
        log_asks=LogRequests(shelf, seeing, answers),
        sightings=LastSeenReporter(shelf, clock, conditions),
    )


def registry_of(request: Request) -> Registry:
    """Dependency: the registry that the lifespan built."""
    registry: Registry = request.app.state.registry
    return registry
