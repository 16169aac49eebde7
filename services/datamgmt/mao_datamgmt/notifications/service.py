"""The parts of notifications, connected."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from mao_datamgmt.monitoring.alarms import Alarms
from mao_datamgmt.settings import DataSettings
from mao_shared.clients.webhook import WebhookClient
from mao_shared.clock import Clock
from mao_shared.conditions import Conditions
from mao_shared.host.sealed import SealedSecrets
from mao_shared.store import Store, Unreadable

from .channels import Channels
from .heartbeats import Heartbeats
from .notifier import Notifier, Rules
from .sender import Senders


class Notifications:
    """Channels, rules and heartbeats of a node; `client` sends pings, and is closed by the webhooks."""

    def __init__(
        self,
        settings: DataSettings,
        store: Store,
        clock: Clock,
        alarms: Alarms,
        sealed: SealedSecrets,
        client: WebhookClient,
        unreadable: Unreadable | None = None,
        conditions: Conditions | None = None,
    ) -> None:
        node = settings.node
        senders = Senders(tuple(settings.webhook_hosts.split(",")), tuple(sorted(settings.own_hosts())))
        self.heartbeats = Heartbeats(node, store, clock, sealed, client, unreadable)
        self.channels = Channels(node, store, clock, sealed, senders, self.heartbeats, unreadable, conditions)
        self.rules = Rules(node, store, unreadable)
        self._notifier = Notifier(
            node, store, clock, alarms, self.rules, self.channels.records, unreadable, conditions
        )

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """Return the coroutines to run while the app is up."""
        return [self.channels.run(), self._notifier.run()]
