"""Kinds of `apply`: channels, rules and heartbeats.

The node shows the URLs of channels and heartbeats masked, since they are secrets. A file with a masked URL,
as `get` prints it, keeps the URL that the node has; another URL is compared by the node itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mao_shared.errors import InvalidInput, NotFound
from mao_shared.models.common import Name, Record, drop_unknown_fields
from mao_shared.models.notification import (
    ChannelRequest,
    ChannelState,
    HeartbeatRequest,
    HeartbeatState,
    Rule,
)

from .kinds import PlainKind, Present

if TYPE_CHECKING:
    from mao_shared.clients.gateway import MaoClient

MASK = "…"


def settle_url(record: Any, present: Present | None, what: str, same: bool, next_step: str) -> Any:
    """Return the record with the URL as the node shows it, if it has that URL.

    `same`: whether the node says so. Raises InvalidInput for a masked URL that the node has not.
    """
    shown = None if present is None else present.fields["url"]
    if same or record.url == shown:
        return record.model_copy(update={"url": shown})
    if MASK in record.url:
        has = (
            "which the node does not have" if shown is None else f"and the node's begins otherwise ({shown})"
        )
        raise InvalidInput(
            f"The URL of {what} is masked, as 'get' prints it, {has}.", code="url-masked", next=next_step
        )
    return record


@dataclass(frozen=True)
class ChannelKind:
    """Channels."""

    model: type[Record] = ChannelRequest
    read_only: frozenset[str] = frozenset(ChannelState.model_fields) - frozenset(ChannelRequest.model_fields)

    def name(self, record: Any) -> str:
        return str(record.name)

    def find(self, client: MaoClient, name: str) -> Present | None:
        try:
            found = client.notifications.channel(name)
        except NotFound:
            return None
        return Present({"name": found.name, "url": found.url})

    def settle(self, client: MaoClient, record: Any, present: Present | None) -> Any:
        same = (
            present is not None
            and MASK not in record.url
            and client.notifications.is_url_of_channel(record.name, record.url)
        )
        by_file = f"Write the URL itself, or: maoctl alarm channel add {record.name} --url-file FILE"
        return settle_url(record, present, f"channel/{record.name}", same, by_file)

    def create(self, client: MaoClient, record: Any) -> None:
        client.notifications.add_channel(record)

    def update(self, client: MaoClient, record: Any, present: Present) -> None:  # noqa: ARG002
        client.notifications.put_channel(record)

    def names(self, client: MaoClient) -> Iterator[str]:
        return (channel.name for channel in client.notifications.channels())

    def remove(self, client: MaoClient, name: str) -> None:
        client.notifications.remove_channel(name)


@dataclass(frozen=True)
class RuleKind(PlainKind):
    """Rules: which alarms go to which channels."""

    model: type[Record] = Rule
    read_only: frozenset[str] = frozenset()

    def name(self, record: Any) -> str:
        return str(record.name)

    def find(self, client: MaoClient, name: str) -> Present | None:
        try:
            found = client.notifications.rule(name)
        except NotFound:
            return None
        return Present(drop_unknown_fields(found).model_dump(mode="json"))

    def create(self, client: MaoClient, record: Any) -> None:
        client.notifications.set_rule(record)

    def update(self, client: MaoClient, record: Any, present: Present) -> None:  # noqa: ARG002
        client.notifications.set_rule(record)

    def names(self, client: MaoClient) -> Iterator[str]:
        return (rule.name for rule in client.notifications.rules())

    def remove(self, client: MaoClient, name: str) -> None:
        client.notifications.remove_rule(name)


class HeartbeatDeclaration(HeartbeatRequest):
    """The address that is pinged about the runs of a pipeline."""

    pipeline: Name


@dataclass(frozen=True)
class HeartbeatKind:
    """Heartbeats, which have the names of their pipelines."""

    model: type[Record] = HeartbeatDeclaration
    read_only: frozenset[str] = frozenset(HeartbeatState.model_fields) - {"pipeline", "url"}

    def name(self, record: Any) -> str:
        return str(record.pipeline)

    def find(self, client: MaoClient, name: str) -> Present | None:
        try:
            found = client.notifications.heartbeat(name)
        except NotFound:
            return None
        return Present({"pipeline": found.pipeline, "url": found.url})

    def settle(self, client: MaoClient, record: Any, present: Present | None) -> Any:
        same = (
            present is not None
            and MASK not in record.url
            and client.notifications.is_url_of_heartbeat(record.pipeline, record.url)
        )
        by_file = f"Write the URL itself, or: maoctl alarm heartbeat set {record.pipeline} --url-file FILE"
        return settle_url(record, present, f"heartbeat/{record.pipeline}", same, by_file)

    def create(self, client: MaoClient, record: Any) -> None:
        client.notifications.set_heartbeat(record.pipeline, record.url)

    def update(self, client: MaoClient, record: Any, present: Present) -> None:  # noqa: ARG002
        client.notifications.set_heartbeat(record.pipeline, record.url)

    def names(self, client: MaoClient) -> Iterable[str]:
        return (heartbeat.pipeline for heartbeat in client.notifications.heartbeats())

    def remove(self, client: MaoClient, name: str) -> None:
        client.notifications.remove_heartbeat(name)
