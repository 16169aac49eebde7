"""Webhooks with encrypted secrets, and deliveries, which are retried until they arrive or are given up.

A delivery is a record in the store, written together with its alarm, so none is lost. It may arrive twice,
with the same `webhook-id`, if the process is killed between the response and the removal of the record.
Secrets are encrypted with a key that is in the data directory, never in the store.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from datetime import datetime, timedelta

from mao_shared import keys
from mao_shared.clients.webhook import PREFIX, WebhookClient
from mao_shared.clock import Clock
from mao_shared.conditions import Conditions
from mao_shared.errors import AlreadyExists, Conflict, InvalidInput, MaoError, NotFound
from mao_shared.host.sealed import SealedSecrets
from mao_shared.logs import get_logger
from mao_shared.models import Delivery, Webhook, WebhookRequest, WebhookState, format_time
from mao_shared.models.common import Listing, unreadable_items
from mao_shared.reconcile import Backoff, Controller, Mirror
from mao_shared.store import Records, Store, Stored, Unreadable

from .alarms import MAX_WEBHOOKS, Alarms

log = get_logger(__name__)

MIN_RETRY_SECONDS, MAX_RETRY_SECONDS = 10.0, 6 * 3600.0  # between attempts, doubled each time

GIVE_UP_AFTER = timedelta(days=3)  # after the alarm

CONCURRENT_DELIVERIES = 8


class Webhooks:
    """Manages webhooks, and delivers alarms to them in `run`."""

    def __init__(
        self,
        node: str,
        store: Store,
        clock: Clock,
        alarms: Alarms,
        sealed: SealedSecrets,
        client: WebhookClient,
        unreadable: Unreadable | None = None,
        conditions: Conditions | None = None,
    ) -> None:
        self._clock = clock
        self._alarms = alarms
        self._sealed = sealed
        self._client = client
        self._hooks = Records(store, keys.webhooks_prefix(node), Webhook, unreadable)
        self.deliveries = Records(store, keys.deliveries_prefix(node), Delivery, unreadable)
        self.mirror = Mirror(self.deliveries, conditions=conditions)
        self.controller = Controller(
            "webhooks", self._deliver, workers=CONCURRENT_DELIVERIES, conditions=conditions
        )
        self.controller.watches(self.mirror)

    # operations for the API

    async def add(self, request: WebhookRequest) -> WebhookState:
        """Add a webhook. Only this result contains its secret.

        Raises AlreadyExists, and InvalidInput (`webhook-address-refused`) for an address on this machine.
        """
        if refusal := await self._client.check(request.url):
            raise InvalidInput(
                f"url: {refusal}.",
                code="webhook-address-refused",
                next="Give the address of a receiver on another machine, or set MAO_WEBHOOK_HOSTS.",
            )
        if len(await self._hooks.all()) >= MAX_WEBHOOKS:
            raise Conflict(
                f"There are {MAX_WEBHOOKS} webhooks already.", next="Remove one: maoctl webhook remove NAME"
            )
        secret = request.secret or PREFIX + base64.b64encode(secrets.token_bytes(24)).decode()
        sealed, now = await asyncio.to_thread(self._sealed.seal, secret), self._clock.now()
        hook = Webhook(name=request.name, url=request.url, sealed=sealed, created_at=now)
        if await self._hooks.create(hook.name, hook) is None:
            raise AlreadyExists(
                f"There is a webhook {hook.name!r} already.",
                next=f"Remove it first: maoctl webhook remove {hook.name}",
            )
        return WebhookState(name=hook.name, url=hook.url, created_at=now, secret=secret)

    async def states(self) -> list[WebhookState]:
        return (await self.list_()).items

    async def list_(self) -> Listing[WebhookState]:
        """Return all webhooks, and the unreadable records."""
        delivery = [stored.record for stored in await self.deliveries.all()]
        page = await self._hooks.page()
        return Listing(
            items=[_state(hook.record, delivery) for hook in page.items],
            unreadable=unreadable_items(page.unreadable),
        )

    async def state(self, name: str) -> WebhookState:
        """Return one webhook. Raises NotFound."""
        hook = await self._get(name)
        return _state(hook.record, [stored.record for stored in await self.deliveries.all()])

    async def remove(self, name: str) -> None:
        """Remove a webhook, even an unreadable one, and its deliveries. Raises NotFound."""
        if not await self._hooks.delete(name):
            await self._get(name)
        for stored in await self.deliveries.all():
            if stored.record.webhook == name:
                await self.deliveries.delete(_name(stored.record))

    async def test(self, name: str) -> str | None:
        """Send a test message; return why it was not accepted, or None."""
        hook = (await self._get(name)).record
        now = self._clock.now()
        body = f'{{"type":"test","timestamp":"{format_time(now)}","data":{{}}}}'.encode()
        secret = await asyncio.to_thread(self._sealed.open, hook.sealed)
        return await self._client.post(hook.url, secret, f"test-{secrets.token_hex(8)}", now, body)

    async def _get(self, name: str) -> Stored[Webhook]:
        stored = await self._hooks.get(name)
        if stored is None:
            raise NotFound(
                f"There is no webhook {name!r}.",
                code="webhook-not-found",
                next="List them: maoctl webhook get",
            )
        return stored

    # delivery

    async def run(self) -> None:
        """Deliver until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.mirror.run())
                group.create_task(self.controller.run())
        finally:
            await self._client.close()

    async def _deliver(self, name: str) -> float | None:
        """Attempt a delivery if it is due; return the seconds until then otherwise."""
        stored = self.mirror.get(name)
        if stored is None or stored.record.given_up:
            return None
        delivery, now = stored.record, self._clock.now()
        if delivery.not_before is not None and delivery.not_before > now:
            return (delivery.not_before - now).total_seconds()
        hook = await self._hooks.get(delivery.webhook)
        alarm = await self._alarms.find(delivery.alarm)
        if hook is None or alarm is None:
            await self.deliveries.delete(name)
            return None
        raised = format_time(alarm.record.raised_at)
        data = alarm.record.model_dump_json(exclude_none=True)
        body = f'{{"type":"alarm.{alarm.record.kind}","timestamp":"{raised}","data":{data}}}'.encode()
        try:
            secret = await asyncio.to_thread(self._sealed.open, hook.record.sealed)
        except MaoError as unreadable:
            error: str | None = unreadable.detail
        else:
            error = await self._client.post(hook.record.url, secret, _name(delivery), now, body)
        if error is None:
            await self.deliveries.delete(name)
            log.info("webhook.delivered", webhook=delivery.webhook, alarm=delivery.alarm)
            return None
        log.warning("webhook.failed", webhook=delivery.webhook, alarm=delivery.alarm, error=error)
        changed = after_failure(delivery, error, self._clock.now())
        await self.deliveries.replace(name, changed, stored.revision)
        return None  # the changed record comes back through the watch, with its time


def _name(delivery: Delivery) -> str:
    return f"{delivery.alarm}~{delivery.webhook}"


def _state(hook: Webhook, delivery: list[Delivery]) -> WebhookState:
    own = [delivery for delivery in delivery if delivery.webhook == hook.name]
    errors = [delivery.last_error for delivery in own if delivery.last_error is not None]
    return WebhookState(
        name=hook.name,
        url=hook.url,
        created_at=hook.created_at,
        waiting=sum(not delivery.given_up for delivery in own),
        given_up=sum(delivery.given_up for delivery in own),
        last_error=errors[-1] if errors else None,
    )


def after_failure(delivery: Delivery, error: str, now: datetime, chance: float | None = None) -> Delivery:
    """Return the delivery after a failed attempt. Pure if `chance` is given (see `Backoff.pause`)."""
    tries = delivery.tries + 1
    pause = Backoff(MIN_RETRY_SECONDS, MAX_RETRY_SECONDS).pause(tries, chance)
    changes = {
        "tries": tries,
        "last_error": error,
        "not_before": now + timedelta(seconds=pause),
        "given_up": now - delivery.created_at > GIVE_UP_AFTER,
    }
    return delivery.model_copy(update=changes)
