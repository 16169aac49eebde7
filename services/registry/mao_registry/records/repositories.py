"""The registry's two stores and the typed records in them."""

from __future__ import annotations

from dataclasses import dataclass, field

from mao_shared import keys
from mao_shared.federation import FederationStore
from mao_shared.models import Dataset, Enrolment, Member, Pipeline, Schedule, Tool, Trust
from mao_shared.runs.records import RunRecords
from mao_shared.store import Records, Store, Unreadable


@dataclass(frozen=True)
class Repositories:
    """`federation` is the store of all nodes, `own` that of this `node`; both may be the same."""

    node: str
    federation: Store
    own: Store
    unreadable: Unreadable = field(default_factory=Unreadable)

    @property
    def one_store(self) -> bool:
        """Whether one transaction can span the records of both."""
        shared = self.federation
        return shared.is_own if isinstance(shared, FederationStore) else shared is self.own

    @property
    def tools(self) -> Records[Tool]:
        return Records(self.federation, keys.registry_prefix("tools"), Tool, self.unreadable)

    @property
    def datasets(self) -> Records[Dataset]:
        return Records(self.federation, keys.registry_prefix("datasets"), Dataset, self.unreadable)

    @property
    def pipelines(self) -> Records[Pipeline]:
        return Records(self.federation, keys.registry_prefix("pipelines"), Pipeline, self.unreadable)

    @property
    def members(self) -> Records[Member]:
        return Records(self.federation, keys.members_prefix(), Member, self.unreadable)

    @property
    def enrolments(self) -> Records[Enrolment]:
        return Records(self.own, keys.enrolments_prefix(self.node), Enrolment, self.unreadable)

    @property
    def schedules(self) -> Records[Schedule]:
        return Records(self.own, keys.schedules_prefix(self.node), Schedule, self.unreadable)

    @property
    def runs(self) -> RunRecords:
        return RunRecords(self.own, self.node, self.unreadable)

    @property
    def trusts(self) -> Records[Trust]:
        return Records(self.own, keys.trusted_prefix(self.node), Trust, self.unreadable)
