"""Kinds of records that `apply` and `diff` know: how each is read, compared, written and removed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mao_shared.errors import Conflict, MaoError, NotFound
from mao_shared.models import WebhookRequest
from mao_shared.models.common import Record, drop_unknown_fields
from mao_shared.models.enrolment import EnrolmentRequest
from mao_shared.models.pipeline import NameOrTitle
from mao_shared.models.schedule import ScheduleRequest, ScheduleSpec, schedule_id

from .output import Document, say

if TYPE_CHECKING:
    from mao_shared.clients.gateway import MaoClient
    from mao_shared.clients.gateway_http import Resource


class DeclaredKind(Protocol):
    """A kind of record that a file can declare.

    `model` is what a file may say; `read_only` are the fields that only `get` shows, and that are ignored.
    `settle` returns the record as it compares to the one that is `present`.
    """

    @property
    def model(self) -> type[Record]: ...
    @property
    def read_only(self) -> frozenset[str]: ...
    def name(self, record: Any) -> str: ...
    def find(self, client: MaoClient, name: str) -> Present | None: ...
    def settle(self, client: MaoClient, record: Any, present: Present | None) -> Any: ...
    def create(self, client: MaoClient, record: Any) -> None: ...
    def update(self, client: MaoClient, record: Any, present: Present) -> None: ...
    def names(self, client: MaoClient) -> Iterable[str]: ...
    def remove(self, client: MaoClient, name: str) -> None: ...


class PlainKind:
    """A kind whose fields the node shows as they are."""

    def settle(self, client: MaoClient, record: Any, present: Present | None) -> Any:  # noqa: ARG002
        return record


@dataclass(frozen=True)
class Present:
    """What the node has: the fields that a file can declare, and the revision to guard a write with."""

    fields: Document
    revision: int | None = None


@dataclass(frozen=True)
class RegistryKind(PlainKind):
    """Tools, datasets and pipelines."""

    model: type[Record]
    pick: Callable[[MaoClient], Resource[Any]]
    read_only: frozenset[str] = frozenset()

    def name(self, record: Any) -> str:
        return str(record.name)

    def find(self, client: MaoClient, name: str) -> Present | None:
        try:
            found = self.pick(client).get(name)
        except NotFound:
            return None
        return Present(drop_unknown_fields(found.record).model_dump(mode="json"), found.revision)

    def create(self, client: MaoClient, record: Any) -> None:
        self.pick(client).create(record)

    def update(self, client: MaoClient, record: Any, present: Present) -> None:
        self.pick(client).replace(record.name, record, present.revision)

    def names(self, client: MaoClient) -> Iterator[str]:
        return (record.name for record in self.pick(client).list())

    def remove(self, client: MaoClient, name: str) -> None:
        self.pick(client).delete(name, self.pick(client).get(name).revision)


class EnrolmentDeclaration(EnrolmentRequest):
    """This node's enrolment in a pipeline. `agree`: privileges that its tools require."""

    pipeline: NameOrTitle


@dataclass(frozen=True)
class EnrolmentKind(PlainKind):
    """Enrolments of this node. One that exists is not renewed, since that would approve others' changes."""

    model: type[Record] = EnrolmentDeclaration
    read_only: frozenset[str] = frozenset(
        {"title", "node", "steps", "overlap", "pipeline_revision", "enrolled_at", "records", "approved_by"}
    )

    def name(self, record: Any) -> str:
        return str(record.pipeline)

    def find(self, client: MaoClient, name: str) -> Present | None:
        try:
            found = client.enrolments.get(name).record
        except NotFound:
            return None
        declared = EnrolmentDeclaration(pipeline=found.pipeline, agree=found.agreed)
        return Present(declared.model_dump(mode="json"))

    def create(self, client: MaoClient, record: Any) -> None:
        client.enrolments.enrol(record.pipeline, record.agree)

    def update(self, client: MaoClient, record: Any, present: Present) -> None:
        client.enrolments.enrol(record.pipeline, sorted({*record.agree, *present.fields["agree"]}))

    def names(self, client: MaoClient) -> Iterator[str]:
        return (enrolment.pipeline for enrolment in client.enrolments.list())

    def remove(self, client: MaoClient, name: str) -> None:
        client.enrolments.delete(name, client.enrolments.get(name).revision)


class JobDeclaration(ScheduleSpec):
    """A schedule of a pipeline on this node."""

    pipeline: NameOrTitle


@dataclass(frozen=True)
class JobKind(PlainKind):
    """Jobs. The node derives the id of a job from its pipeline, cron string and time zone."""

    model: type[Record] = JobDeclaration
    read_only: frozenset[str] = frozenset(
        {"id", "created_at", "paused_at", "resumed_at", "next", "last", "next_times"}
    )

    def name(self, record: Any) -> str:
        return schedule_id(record.pipeline, record)

    def find(self, client: MaoClient, name: str) -> Present | None:
        try:
            found = client.jobs.get(name)
        except NotFound:
            return None
        fields = {key: getattr(found.record, key) for key in JobDeclaration.model_fields}
        return Present(JobDeclaration(**fields).model_dump(mode="json"), found.revision)

    def create(self, client: MaoClient, record: Any) -> None:
        client.pipelines.schedule(_schedule_request(record))

    def update(self, client: MaoClient, record: Any, present: Present) -> None:
        """Pause or resume the job if nothing else differs; otherwise replace it, from the next tick on."""
        name, wanted = self.name(record), record.model_dump(mode="json")
        if wanted | {"paused": None} == present.fields | {"paused": None}:
            (client.jobs.pause if record.paused else client.jobs.resume)(name)
            return
        client.jobs.delete(name, present.revision)
        try:
            self.create(client, record)
        except MaoError:
            self.create(client, JobDeclaration(**present.fields))  # as it was
            raise

    def names(self, client: MaoClient) -> Iterator[str]:
        return (job.id for job in client.jobs.list())

    def remove(self, client: MaoClient, name: str) -> None:
        client.jobs.delete(name, client.jobs.get(name).revision)


def _schedule_request(record: Any) -> ScheduleRequest:
    fields = record.model_dump(mode="json")
    return ScheduleRequest(name=fields.pop("pipeline"), **fields)


@dataclass(frozen=True)
class WebhookKind(PlainKind):
    """Webhooks. The node keeps the secret, so it is not compared, and the address cannot be changed."""

    model: type[Record] = WebhookRequest
    read_only: frozenset[str] = frozenset({"created_at", "waiting", "given_up", "last_error"})

    def name(self, record: Any) -> str:
        return str(record.name)

    def find(self, client: MaoClient, name: str) -> Present | None:
        try:
            found = client.webhooks.get(name)
        except NotFound:
            return None
        return Present({"name": found.name, "url": found.url})

    def create(self, client: MaoClient, record: Any) -> None:
        made = client.webhooks.add(record)
        if record.secret is None:
            say(f"webhook/{made.name}: its secret, which is not shown again: {made.secret}")

    def update(self, client: MaoClient, record: Any, present: Present) -> None:  # noqa: ARG002
        raise Conflict(
            f"The webhook {record.name} sends to {present.fields['url']}; its address cannot be changed.",
            next=f"Remove it first: maoctl webhook remove {record.name}",
        )

    def names(self, client: MaoClient) -> Iterator[str]:
        return (webhook.name for webhook in client.webhooks.list())

    def remove(self, client: MaoClient, name: str) -> None:
        client.webhooks.remove(name)
