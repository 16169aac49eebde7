"""Heartbeats: addresses that are pinged when a pipeline's run starts, succeeds or fails.

As Healthchecks takes them: the URL itself for success, `URL/start` and `URL/fail` for the others. `rid` is
derived from the run, so that a repeated ping counts once.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable
from urllib.parse import urlencode, urlsplit, urlunsplit

from mao_shared import keys
from mao_shared.clients.webhook import WebhookClient
from mao_shared.clock import Clock
from mao_shared.errors import InvalidInput, NotFound
from mao_shared.host.sealed import SealedSecrets
from mao_shared.models.common import Listing, unreadable_items
from mao_shared.models.notification import Heartbeat, HeartbeatState, Message
from mao_shared.store import Records, Store, Stored, Unreadable

_RUNS = uuid.UUID("6f6c3a8e-6d55-4b6e-9d0a-0d9d4b1c7a52")  # namespace of `rid`


def ping_url(url: str, event: str, run: str) -> str:
    """Return the address to ping about an event of a run. Pure."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/") + f"/{event}" if event != "success" else parts.path
    run_id = urlencode({"rid": str(uuid.uuid5(_RUNS, run))})
    query = f"{parts.query}&{run_id}" if parts.query else run_id
    return urlunsplit((parts.scheme, parts.netloc, path, query, ""))


class Heartbeats:
    """Manages heartbeats and sends pings."""

    def __init__(
        self,
        node: str,
        store: Store,
        clock: Clock,
        sealed: SealedSecrets,
        client: WebhookClient,
        unreadable: Unreadable | None = None,
    ) -> None:
        self._clock, self._sealed, self._client = clock, sealed, client
        self._records = Records(store, keys.heartbeats_prefix(node), Heartbeat, unreadable)
        self._messages = Records(store, keys.messages_prefix(node), Message, unreadable)

    async def put(self, pipeline: str, url: str) -> HeartbeatState:
        """Set the address for a pipeline. Raises InvalidInput (`webhook-address-refused`)."""
        if refusal := await self._client.check(url):
            raise InvalidInput(
                f"url: {refusal}.",
                code="webhook-address-refused",
                next="Give the address of a receiver on another machine, or set MAO_WEBHOOK_HOSTS.",
            )
        parts = urlsplit(url)
        heartbeat = Heartbeat(
            pipeline=pipeline,
            shown=f"{parts.scheme}://{parts.netloc}/…",
            sealed=await asyncio.to_thread(self._sealed.seal, url),
            created_at=self._clock.now(),
        )
        await self._records.put(pipeline, heartbeat)
        return heartbeat_state(heartbeat, ())

    async def has_url(self, pipeline: str, url: str) -> bool:
        """Return whether this is the heartbeat's address. Raises NotFound."""
        heartbeat = (await self._get(pipeline)).record
        return await asyncio.to_thread(self._sealed.open, heartbeat.sealed) == url

    async def list_(self) -> Listing[HeartbeatState]:
        messages = [stored.record for stored in await self._messages.all()]
        page = await self._records.page()
        return Listing(
            items=[heartbeat_state(stored.record, messages) for stored in page.items],
            unreadable=unreadable_items(page.unreadable),
        )

    async def state(self, pipeline: str) -> HeartbeatState:
        """Return a heartbeat. Raises NotFound."""
        stored = await self._get(pipeline)
        return heartbeat_state(stored.record, [stored.record for stored in await self._messages.all()])

    async def remove(self, pipeline: str) -> None:
        """Remove a heartbeat, even an unreadable one. Raises NotFound."""
        if not await self._records.delete(pipeline):
            await self._get(pipeline)

    async def test(self, pipeline: str) -> str | None:
        """Ping the address itself; return why it was not accepted, or None. Raises NotFound."""
        heartbeat = (await self._get(pipeline)).record
        url = await asyncio.to_thread(self._sealed.open, heartbeat.sealed)
        return await self._client.ping(url)

    async def ping(self, message: Message) -> str | None:
        """Send a ping; return why it was not accepted, or None. One without a heartbeat is dropped."""
        stored = await self._records.get(message.channel)
        if stored is None:
            return None
        url = await asyncio.to_thread(self._sealed.open, stored.record.sealed)
        return await self._client.ping(ping_url(url, message.event, message.about))

    async def _get(self, pipeline: str) -> Stored[Heartbeat]:
        stored = await self._records.get(pipeline)
        if stored is None:
            raise NotFound(
                f"There is no heartbeat for the pipeline {pipeline!r}.",
                code="heartbeat-not-found",
                next="List them: maoctl alarm heartbeat get",
            )
        return stored


def heartbeat_state(heartbeat: Heartbeat, messages: Iterable[Message]) -> HeartbeatState:
    own = [message for message in messages if message.channel == heartbeat.pipeline and message.is_ping]
    own.sort(key=lambda message: (message.created_at, message.id))
    accepted = [message for message in own if message.delivered_at is not None]
    failed = [message for message in own if message.last_error is not None]
    return HeartbeatState(
        pipeline=heartbeat.pipeline,
        url=heartbeat.shown,
        created_at=heartbeat.created_at,
        waiting=sum(not message.is_done for message in own),
        last=accepted[-1].event if accepted else None,
        last_at=accepted[-1].delivered_at if accepted else None,
        last_error=failed[-1].last_error if failed else None,
    )
