"""Records that files declare for `apply` and `diff`: how each kind is read, compared, written and removed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from mao_shared.errors import Conflict, MaoError, NotFound
from mao_shared.models import Dataset, Pipeline, Tool, WebhookRequest
from mao_shared.models.common import Record, drop_unknown_fields
from mao_shared.models.enrolment import EnrolmentRequest
from mao_shared.models.pipeline import NameOrTitle
from mao_shared.models.schedule import ScheduleRequest, ScheduleSpec, schedule_id

from . import records
from .output import APPLIED, Document, say

if TYPE_CHECKING:
    from mao_shared.clients.gateway import MaoClient
    from mao_shared.clients.gateway_http import Resource

KIND = "kind"
MAINTAINED = {"dataset": frozenset({"nodes"})}
"""Fields by kind that change without the operator: a node that enrols is added to its datasets."""


class DeclaredKind(Protocol):
    """A kind of record that a file can declare.

    `model` is what a file may say; `read_only` are the fields that only `get` shows, and that are ignored.
    """

    @property
    def model(self) -> type[Record]: ...
    @property
    def read_only(self) -> frozenset[str]: ...
    def name(self, record: Any) -> str: ...
    def find(self, client: MaoClient, name: str) -> Present | None: ...
    def create(self, client: MaoClient, record: Any) -> None: ...
    def update(self, client: MaoClient, record: Any, present: Present) -> None: ...
    def names(self, client: MaoClient) -> Iterable[str]: ...
    def remove(self, client: MaoClient, name: str) -> None: ...


@dataclass(frozen=True)
class Present:
    """What the node has: the fields that a file can declare, and the revision to guard a write with."""

    fields: Document
    revision: int | None = None


@dataclass(frozen=True)
class Wanted:
    """A record that a file declares."""

    kind: str
    name: str
    record: Record

    @property
    def fields(self) -> Document:
        return self.record.model_dump(mode="json")

    def completed(self, present: Present) -> Wanted:
        """Return the record with the fields that the node maintains, unless the file gives them."""
        maintained = MAINTAINED.get(self.kind, frozenset()) - self.record.model_fields_set
        kept = {name: present.fields[name] for name in sorted(maintained)}
        return replace(self, record=self.record.model_copy(update=kept)) if kept else self

    def is_met_by(self, present: Present) -> bool:
        """True if the node has all that is declared; agreements beyond those declared do not matter."""
        if self.kind == "enrolment":
            return set(self.fields["agree"]) <= set(present.fields["agree"])
        return {key: value for key, value in self.fields.items() if key in present.fields} == present.fields


@dataclass(frozen=True)
class RegistryKind:
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
class EnrolmentKind:
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
class JobKind:
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
class WebhookKind:
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


_STATE = frozenset({"status", "enrolled", "outdated", "pending", "enrolment"})
KINDS: dict[str, DeclaredKind] = {
    "tool": RegistryKind(Tool, lambda client: client.tools),
    "dataset": RegistryKind(Dataset, lambda client: client.datasets, _STATE),
    "pipeline": RegistryKind(Pipeline, lambda client: client.pipelines, _STATE),
    "enrolment": EnrolmentKind(),
    "job": JobKind(),
    "webhook": WebhookKind(),
}


def plan(documents: Iterable[Document]) -> list[Wanted]:
    """Validate all records and return them in the order to write them. Raises CommandError, InvalidInput."""
    from .documents import find_kind
    from .exits import CommandError, ExitCode

    wanted: dict[tuple[str, str], Wanted] = {}
    for document in documents:
        kind = find_kind(document, APPLIED)
        declared = KINDS[kind]
        fields = {key: value for key, value in document.items() if key not in {KIND, *declared.read_only}}
        if kind == "enrolment" and "agreed" in fields:  # as the node shows it
            fields["agree"] = fields.pop("agreed")
        record = records.build(declared.model, fields)
        name = declared.name(record)
        if (kind, name) in wanted:
            raise CommandError(ExitCode.USAGE, f"{kind}/{name} appears twice.", "Remove one of them.")
        wanted[kind, name] = Wanted(kind, name, record)
    return sorted(wanted.values(), key=lambda item: APPLIED.index(item.kind))
