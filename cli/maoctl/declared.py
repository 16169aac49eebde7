"""Records that files declare for `apply` and `diff`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mao_shared.models import Dataset, Pipeline, Tool
from mao_shared.models.common import Record

from . import records
from .kinds import DeclaredKind, EnrolmentKind, JobKind, Present, RegistryKind, WebhookKind
from .notification_kinds import MASK, ChannelKind, HeartbeatKind, RuleKind
from .output import APPLIED, Document

if TYPE_CHECKING:
    from mao_shared.clients.gateway import MaoClient

KIND = "kind"
SECRET_URLS = ("channel", "heartbeat")
MAINTAINED = {"dataset": frozenset({"nodes"})}
"""Fields by kind that change without the operator: a node that enrols is added to its datasets."""


@dataclass(frozen=True)
class Wanted:
    """A record that a file declares."""

    kind: str
    name: str
    record: Record

    @property
    def fields(self) -> Document:
        return self.record.model_dump(mode="json")

    def shown(self) -> Document:
        """Return the fields without what is secret, which a diff in the log of a CI job must not have."""
        fields = {key: value for key, value in self.fields.items() if key != "secret"}
        if self.kind in SECRET_URLS and MASK not in fields["url"]:
            fields["url"] = f"{fields['url'].partition('://')[0]}://{MASK} (another one)"
        return fields

    def settled(self, client: MaoClient, present: Present | None) -> Wanted:
        """Return the record as it compares to the present one.

        It gets the fields that the node maintains, unless the file gives them. Raises InvalidInput if it has
        a URL that is masked, and the node has none for it.
        """
        record = KINDS[self.kind].settle(client, self.record, present)
        if present is not None:
            maintained = MAINTAINED.get(self.kind, frozenset()) - record.model_fields_set
            record = record.model_copy(update={name: present.fields[name] for name in sorted(maintained)})
        return replace(self, record=record)

    def is_met_by(self, present: Present) -> bool:
        """True if the node has all that is declared; agreements beyond those declared do not matter."""
        if self.kind == "enrolment":
            return set(self.fields["agree"]) <= set(present.fields["agree"])
        return {key: value for key, value in self.fields.items() if key in present.fields} == present.fields


_STATE = frozenset({"status", "enrolled", "outdated", "pending", "enrolment"})
KINDS: dict[str, DeclaredKind] = {
    "tool": RegistryKind(Tool, lambda client: client.tools),
    "dataset": RegistryKind(Dataset, lambda client: client.datasets, _STATE),
    "pipeline": RegistryKind(Pipeline, lambda client: client.pipelines, _STATE),
    "enrolment": EnrolmentKind(),
    "job": JobKind(),
    "webhook": WebhookKind(),
    "channel": ChannelKind(),
    "rule": RuleKind(),
    "heartbeat": HeartbeatKind(),
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
