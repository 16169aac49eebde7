"""Webhooks, whose secrets are sealed, and deliveries: each is tried until it arrives or is given up.

A delivery is a record of the store, written together with its alarm, so none is lost. It may arrive twice,
when the process is killed between the answer and the removal of the record, with the same `webhook-id`.
Secrets are encrypted with a key kept in the data directory, never in the store.
"""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from mao_shared import keys
from mao_shared.clients.webhook import PREFIX, WebhookClient
from mao_shared.clock import Clock
from mao_shared.conditions import Conditions
from mao_shared.errors import AlreadyExists, Conflict, InvalidInput, MaoError, NotFound
from mao_shared.logs import get_logger
from mao_shared.models import Delivery, Webhook, WebhookRequest, WebhookState, format_time
from mao_shared.models.common import Listing, unreadable_items
from mao_shared.reconcile import Backoff, Controller, Mirror
from mao_shared.store import Records, Store, Stored, Unreadable

from .alarms import MAX_WEBHOOKS, Alarms

log = get_logger(__name__)

MIN_PAUSE, MAX_PAUSE = 10.0, 6 * 3600.0  # seconds between tries, doubled

PATIENCE = timedelta(days=3)  # then it is given up

CONCURRENT_DELIVERIES = 8

KEY_FILE = "secret.key"


class Webhooks:
    """Stores webhooks and delivers alarms to them; `run` delivers."""

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

    # what people ask

    async def add(self, request: WebhookRequest) -> WebhookState:
        """Add a webhook; only this answer contains its secret.

        Raises AlreadyExists, and InvalidInput (`webhook-address-refused`) for an address on this machine.
        """
        if refused := await self._client.check(request.url):
            raise InvalidInput(
                f"url: {refused}.",
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
        """Return all webhooks, and those that cannot be read."""
        due = [stored.record for stored in await self.deliveries.all()]
        page = await self._hooks.page()
        return Listing(
            items=[_state(hook.record, due) for hook in page.items],
            unreadable=unreadable_items(page.unreadable),
        )

    async def state(self, name: str) -> WebhookState:
        """Return one webhook. Raises NotFound."""
        hook = await self._get(name)
        return _state(hook.record, [stored.record for stored in await self.deliveries.all()])

    async def remove(self, name: str) -> None:
        """Remove the webhook and its deliveries; also one that cannot be read. Raises NotFound."""
        if not await self._hooks.delete(name):
            await self._get(name)
        for stored in await self.deliveries.all():
            if stored.record.webhook == name:
                await self.deliveries.delete(_name(stored.record))

    async def test(self, name: str) -> str | None:
        """Send a test message now; return why it was not accepted, or None."""
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

    # what runs

    async def run(self) -> None:
        """Deliver until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.mirror.run())
                group.create_task(self.controller.run())
        finally:
            await self._client.close()

    async def _deliver(self, name: str) -> float | None:
        """Try a delivery that is due; return the seconds until the next try."""
        stored = self.mirror.get(name)
        if stored is None or stored.record.given_up:
            return None
        due, now = stored.record, self._clock.now()
        if due.not_before is not None and due.not_before > now:
            return (due.not_before - now).total_seconds()
        hook = await self._hooks.get(due.webhook)
        alarm = await self._alarms.find(due.alarm)
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
            error = await self._client.post(hook.record.url, secret, _name(due), now, body)
        if error is None:
            await self.deliveries.delete(name)
            log.info("webhook.delivered", webhook=due.webhook, alarm=due.alarm)
            return None
        log.warning("webhook.failed", webhook=due.webhook, alarm=due.alarm, error=error)
        changed = failed(due, error, self._clock.now())
        await self.deliveries.replace(name, changed, stored.revision)
        return None  # the watch delivers it again, with its time


def _name(delivery: Delivery) -> str:
    return f"{delivery.alarm}~{delivery.webhook}"


def _state(hook: Webhook, due: list[Delivery]) -> WebhookState:
    own = [delivery for delivery in due if delivery.webhook == hook.name]
    errors = [delivery.last_error for delivery in own if delivery.last_error is not None]
    return WebhookState(
        name=hook.name,
        url=hook.url,
        created_at=hook.created_at,
        waiting=sum(not delivery.given_up for delivery in own),
        given_up=sum(delivery.given_up for delivery in own),
        last_error=errors[-1] if errors else None,
    )


def failed(delivery: Delivery, error: str, now: datetime, chance: float | None = None) -> Delivery:
    """Return the delivery after a failed try. Pure when `chance` is given, see `Backoff.pause`."""
    tries = delivery.tries + 1
    pause = Backoff(MIN_PAUSE, MAX_PAUSE).pause(tries, chance)
    changes = {
        "tries": tries,
        "last_error": error,
        "not_before": now + timedelta(seconds=pause),
        "given_up": now - delivery.created_at > PATIENCE,
    }
    return delivery.model_copy(update=changes)


class SealedSecrets:
    """Encrypts with the first key of `<data_dir>/secret.key`, decrypts with any of them, one per line.

    To rotate, put a new key (`Fernet.generate_key`) above the others.
    """

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / KEY_FILE

    def seal(self, secret: str) -> str:
        """Encrypt a secret. Raises MaoError (`secret-key-unusable`) for a key file without a key."""
        return self._box().encrypt(secret.encode()).decode()

    def open(self, sealed: str) -> str:
        """Decrypt a secret. Raises MaoError (`secret-unreadable`) when no key fits, and as `seal`."""
        try:
            return self._box().decrypt(sealed.encode()).decode()
        except InvalidToken as error:
            raise MaoError(
                f"A secret cannot be decrypted with the keys in {self._path}.",
                code="secret-unreadable",
                next="Put the old key file back, or add the secret again.",
            ) from error

    def _box(self) -> MultiFernet:
        if not self._path.exists():
            _make_key(self._path)
        try:
            return MultiFernet([Fernet(line) for line in self._path.read_text().split()])
        except ValueError as error:  # empty, cut short, or not text
            raise MaoError(
                f"The file {self._path} holds no usable key.",
                code="secret-key-unusable",
                next="Put the old file back. Without it, move the file away, and add the webhooks again.",
            ) from error


def _make_key(path: Path) -> None:
    """Write a new key file, atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(Fernet.generate_key() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, path)  # does not replace one that another process has made meanwhile
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
