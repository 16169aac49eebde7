"""Channels with encrypted URLs, and the delivery of the messages to channels and heartbeats.

The messages of a channel are sent in order, the next one when the one before has arrived or is given up. A
message may arrive twice if the process is killed, not stopped, between the answer and the record of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime, timedelta

from mao_shared import keys
from mao_shared.clock import Clock
from mao_shared.conditions import Conditions
from mao_shared.errors import AlreadyExists, Conflict, InvalidInput, MaoError, NotFound
from mao_shared.host.sealed import SealedSecrets
from mao_shared.logs import get_logger
from mao_shared.models.common import Listing, unreadable_items
from mao_shared.models.notification import Channel, ChannelRequest, ChannelState, Message
from mao_shared.reconcile import Backoff, Controller, Mirror, every
from mao_shared.store import Records, Store, Stored, Unreadable

from .heartbeats import Heartbeats
from .sender import MessageKind, Senders, scheme_of

log = get_logger(__name__)

MAX_CHANNELS = 50  # an alarm's messages are one transaction
RETRY = Backoff(10.0, 3600.0)  # between attempts
GIVE_UP_AFTER = timedelta(days=3)
GIVE_UP_PING_AFTER = timedelta(hours=1)  # later, a ping would say that something was well which may not be
TRIES_BEFORE_CONDITION = 3
KEEP_DONE, KEEP_DONE_FOR = 1000, timedelta(days=30)
RETENTION_PERIOD = 3600.0  # seconds
REMOVED = "the channel was removed"
STOP_GRACE = 5.0  # seconds for a message that is being sent while the service stops


def after_failure(message: Message, error: str, now: datetime, chance: float | None = None) -> Message:
    """Return the message after a failed attempt. Pure if `chance` is given (see `Backoff.pause`)."""
    tries = message.tries + 1
    limit = GIVE_UP_PING_AFTER if message.is_ping else GIVE_UP_AFTER
    changes = {
        "tries": tries,
        "last_error": error,
        "not_before": now + timedelta(seconds=RETRY.pause(tries, chance)),
        "given_up": now - message.created_at > limit,
    }
    return message.model_copy(update=changes)


def seconds_until_due(message: Message, now: datetime) -> float:
    """Return how long a message still waits, 0 if it is due. Pure.

    A wait that is longer than any pause comes from a clock that was set back.
    """
    if message.not_before is None:
        return 0.0
    wait = (message.not_before - now).total_seconds()
    return wait if 0 < wait <= RETRY.maximum else 0.0


def next_message(messages: Iterable[Message]) -> Message | None:
    """Return the message of a channel to send next: the oldest that is not done. Pure."""
    waiting = (message for message in messages if not message.is_done)
    order = {"start": 0, "raised": 0}
    return min(
        waiting,
        key=lambda message: (message.created_at, order.get(message.event, 1), message.id),
        default=None,
    )


def expired_messages(messages: Iterable[Message], now: datetime) -> list[str]:
    """Return the ids of the messages to remove: those that are done and old, or too many. Pure."""
    done = sorted(
        (message for message in messages if message.is_done),
        key=lambda message: (message.created_at, message.id),
        reverse=True,
    )
    old = [message for message in done[:KEEP_DONE] if now - message.created_at > KEEP_DONE_FOR]
    return [message.id for message in [*old, *done[KEEP_DONE:]]]


class Channels:
    """Manages channels, and delivers messages in `run`."""

    def __init__(
        self,
        node: str,
        store: Store,
        clock: Clock,
        sealed: SealedSecrets,
        senders: Senders,
        heartbeats: Heartbeats,
        unreadable: Unreadable | None = None,
        conditions: Conditions | None = None,
    ) -> None:
        self._clock = clock
        self._sealed, self._senders, self._heartbeats = sealed, senders, heartbeats
        self._conditions = conditions
        self.records = Records(store, keys.channels_prefix(node), Channel, unreadable)
        self.messages = Records(store, keys.messages_prefix(node), Message, unreadable)
        self._mirror = Mirror(self.messages, lambda message: not message.is_done, conditions=conditions)
        self._controller = Controller(
            "channels", self._deliver_next, list_keys=self._waiting_queues, workers=8, conditions=conditions
        )
        self._controller.watches(self._mirror, self._queue_of_name)

    # operations for the API

    async def add(self, request: ChannelRequest) -> ChannelState:
        """Add a channel.

        Raises AlreadyExists, Conflict if there are MAX_CHANNELS, and InvalidInput (`channel-url-refused`).
        """
        channel = await self._make(request)
        if await self.records.create(channel.name, channel) is None:
            raise AlreadyExists(
                f"There is a channel {channel.name!r} already.",
                next=f"Remove it first: maoctl alarm channel remove {channel.name}",
            )
        return channel_state(channel, ())

    async def put(self, request: ChannelRequest) -> ChannelState:
        """Add a channel, or give one another URL; what waits for it is sent there. Raises as `add`."""
        channel = await self._make(request)
        if (present := await self.records.get(channel.name)) is not None:
            channel = channel.model_copy(update={"created_at": present.record.created_at})
        await self.records.put(channel.name, channel)
        return await self.state(channel.name)

    async def has_url(self, name: str, url: str) -> bool:
        """Return whether this is the channel's URL. Raises NotFound."""
        channel = (await self._get(name)).record
        return await asyncio.to_thread(self._sealed.open, channel.sealed) == url

    async def _make(self, request: ChannelRequest) -> Channel:
        if refusal := await self._senders.check(request.url):
            raise InvalidInput(
                f"url: {refusal}.",
                code="channel-url-refused",
                next="Write it as the service's page at https://appriseit.com/services/ says.",
            )
        others = [stored for stored in await self.records.all() if stored.record.name != request.name]
        if len(others) >= MAX_CHANNELS:
            raise Conflict(
                f"There are {MAX_CHANNELS} channels already.",
                next="Remove one: maoctl alarm channel remove NAME",
            )
        return Channel(
            name=request.name,
            service=scheme_of(request.url)[:63],
            sealed=await asyncio.to_thread(self._sealed.seal, request.url),
            created_at=self._clock.now(),
        )

    async def list_(self) -> Listing[ChannelState]:
        """Return all channels, and the unreadable records."""
        messages = [stored.record for stored in await self.messages.all()]
        page = await self.records.page()
        return Listing(
            items=[channel_state(stored.record, messages) for stored in page.items],
            unreadable=unreadable_items(page.unreadable),
        )

    async def state(self, name: str) -> ChannelState:
        """Return one channel. Raises NotFound."""
        channel = await self._get(name)
        return channel_state(channel.record, [stored.record for stored in await self.messages.all()])

    async def remove(self, name: str) -> None:
        """Remove a channel, even an unreadable one, and the messages that wait for it. Raises NotFound."""
        if not await self.records.delete(name):
            await self._get(name)
        for stored in await self.messages.all():
            if stored.record.channel == name and not stored.record.is_ping and not stored.record.is_done:
                await self.messages.delete(stored.record.id)
        self._clear_condition(name)

    async def test(self, name: str) -> str | None:
        """Send a test message; return why it was not accepted, or None. Raises NotFound."""
        channel = (await self._get(name)).record
        url = await asyncio.to_thread(self._sealed.open, channel.sealed)
        return await self._senders.send(
            url, "MAO: test message", f"This is a test of the channel {name}. Alarms will look like this."
        )

    async def _get(self, name: str) -> Stored[Channel]:
        stored = await self.records.get(name)
        if stored is None:
            raise NotFound(
                f"There is no channel {name!r}.",
                code="channel-not-found",
                next="List them: maoctl alarm channel get",
            )
        return stored

    async def list_messages(
        self,
        channel: str | None,
        about: str | None,
        limit: int,
        cursor: str | None,
        *,
        waiting: bool = False,
    ) -> Listing[Message]:
        """List the messages by id, those of a channel or about an alarm or run if given."""
        found = Listing[Message](items=[])
        while True:
            page = await self.messages.page(limit - len(found.items), cursor)
            found.items += [
                message
                for message in (stored.record for stored in page.items)
                if channel in (None, message.channel)
                and about in (None, message.about)
                and not (waiting and message.is_done)
            ]
            found.unreadable += unreadable_items(page.unreadable)
            cursor = page.cursor
            if cursor is None or len(found.items) >= limit:
                return found.model_copy(update={"cursor": cursor})

    # delivery

    async def run(self) -> None:
        """Deliver until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._mirror.run())
            group.create_task(self._controller.run())
            group.create_task(
                every(RETENTION_PERIOD, self._retain, name="messages", conditions=self._conditions)
            )

    async def _retain(self) -> None:
        messages = [stored.record async for stored in self.messages.iterate()]
        for name in expired_messages(messages, self._clock.now()):
            await self.messages.delete(name)

    def _queue_of_name(self, name: str) -> str | None:
        stored = self._mirror.get(name)
        return None if stored is None else _queue(stored.record)

    async def _waiting_queues(self) -> list[str]:
        return sorted({_queue(stored.record) for _, stored in self._mirror.items()})

    async def _deliver_next(self, queue: str) -> float | None:
        """Send the next message of a queue if it is due; return the seconds until the next attempt."""
        own = [stored.record for _, stored in self._mirror.items() if _queue(stored.record) == queue]
        message = next_message(own)
        if message is None:
            return None
        stored = await self.messages.find(message.id)
        if stored is None or stored.record.is_done:
            return 1.0  # the mirror follows
        message, now = stored.record, self._clock.now()
        if (wait := seconds_until_due(message, now)) > 0:
            self._report_condition(message)  # a service that was restarted has forgotten it
            return wait
        work = asyncio.ensure_future(self._deliver(stored))
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:  # a service that stops records what it has sent
            await asyncio.wait([work], timeout=STOP_GRACE)
            work.cancel()
            raise
        return 0.0

    async def _deliver(self, stored: Stored[Message]) -> None:
        """Send a message and record the outcome."""
        message = stored.record
        error = await self._attempt(message)
        now = self._clock.now()
        if error is None:
            after = message.model_copy(update={"delivered_at": now, "last_error": None})
            self._clear_condition(message.channel)
        else:
            after = after_failure(message, error, now)
            if error == REMOVED:  # while a message to it was written
                after = after.model_copy(update={"given_up": True})
            else:
                self._report_condition(after)
        revision = await self.messages.replace(message.id, after, stored.revision)
        if revision is not None:
            self._mirror.note(message.id, after, revision)
        if error is None:
            log.info("message.delivered", message=message.id)
        else:
            log.warning("message.failed", message=message.id, error=error)

    async def _attempt(self, message: Message) -> str | None:
        """Send a message; return why it did not arrive, or None."""
        try:
            if message.is_ping:
                return await self._heartbeats.ping(message)
            channel = await self.records.get(message.channel)
            if channel is None:
                return REMOVED
            url = await asyncio.to_thread(self._sealed.open, channel.record.sealed)
        except MaoError as error:
            return error.detail
        kind: MessageKind = "success" if message.event == "over" else "warning"
        return await self._senders.send(url, message.title, message.text, kind)

    def _report_condition(self, message: Message) -> None:
        if self._conditions is None or message.is_ping or message.tries < TRIES_BEFORE_CONDITION:
            return
        self._conditions.report(
            "channel",
            message.channel,
            detail=f"Messages do not reach the channel {message.channel}: {message.last_error}.",
            next_step=f"Try it: maoctl alarm channel test {message.channel}. Messages wait for three days.",
        )

    def _clear_condition(self, channel: str) -> None:
        if self._conditions is not None:
            self._conditions.clear("channel", channel)


def _queue(message: Message) -> str:
    return ("heartbeat/" if message.is_ping else "channel/") + message.channel


def channel_state(channel: Channel, messages: Iterable[Message]) -> ChannelState:
    own = [message for message in messages if message.channel == channel.name and not message.is_ping]
    failed = [message for message in own if message.last_error is not None]
    failed.sort(key=lambda message: (message.created_at, message.id))
    upcoming = next_message(own)
    return ChannelState(
        name=channel.name,
        service=channel.service,
        url=f"{channel.service}://…",
        created_at=channel.created_at,
        waiting=sum(not message.is_done for message in own),
        given_up=sum(message.given_up for message in own),
        last_error=failed[-1].last_error if failed else None,
        delivered_at=max((message.delivered_at for message in own if message.delivered_at), default=None),
        tries=upcoming.tries if upcoming else 0,
        next_try_at=upcoming.not_before if upcoming else None,
    )
