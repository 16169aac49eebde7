"""The records that the registry works on, and the two stores that hold them."""

from __future__ import annotations

from dataclasses import dataclass

from mao_shared import keys
from mao_shared.federation import FederationStore
from mao_shared.models import Dataset, Enrolment, Member, Pipeline, Run, Schedule, Tool
from mao_shared.store import Records, Store


@dataclass(frozen=True)
class Shelf:
    """`federation` holds what nodes share, `own` what only this `node` needs; both may be one store."""

    node: str
    federation: Store
    own: Store

    @property
    def one_store(self) -> bool:
        """Whether one transaction can reach the records of both; changes when the node joins or leaves."""
        if isinstance(self.federation, FederationStore):
            return self.federation.is_own
        return self.federation is self.own

    @property
    def tools(self) -> Records[Tool]:
        return Records(self.federation, keys.registry_prefix("tools"), Tool)

    @property
    def datasets(self) -> Records[Dataset]:
        return Records(self.federation, keys.registry_prefix("datasets"), Dataset)

    @property
    def pipelines(self) -> Records[Pipeline]:
        return Records(self.federation, keys.registry_prefix("pipelines"), Pipeline)

    @property
    def members(self) -> Records[Member]:
        return Records(self.federation, keys.members_prefix(), Member)

    @property
    def enrolments(self) -> Records[Enrolment]:
        return Records(self.own, keys.enrolments_prefix(self.node), Enrolment)

    @property
    def schedules(self) -> Records[Schedule]:
        return Records(self.own, keys.schedules_prefix(self.node), Schedule)

    @property
    def runs(self) -> Records[Run]:
        return Records(self.own, keys.runs_prefix(self.node), Run)
