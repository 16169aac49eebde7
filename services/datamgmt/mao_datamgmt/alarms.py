"""Alarms: raised once, kept until a person has seen them, and sent to every webhook."""

from __future__ import annotations

from datetime import datetime

from mao_shared import keys
from mao_shared.clock import Clock
from mao_shared.errors import Conflict, NotFound
from mao_shared.logs import get_logger
from mao_shared.models import Acknowledgement, Alarm, Delivery, Listing, Webhook
from mao_shared.models.page import UnreadableItem, unreadable_items
from mao_shared.store import Check, Put, Records, Store, Stored, Unreadable
from mao_shared.store.records import dump

log = get_logger(__name__)

ATTEMPTS = 5
MAX_WEBHOOKS = 100  # an alarm and its deliveries are one transaction


class Alarms:
    """The alarms of one node."""

    def __init__(self, node: str, store: Store, clock: Clock, unreadable: Unreadable | None = None) -> None:
        self._node = node
        self._store = store
        self._clock = clock
        self.records = Records(store, keys.alarms_prefix(node), Alarm, unreadable)
        self._deliveries = Records(store, keys.deliveries_prefix(node), Delivery, unreadable)
        self._webhooks = Records(store, keys.webhooks_prefix(node), Webhook, unreadable)

    async def raise_(self, alarm: Alarm) -> bool:
        """Writes an alarm and what is due at the webhooks, at once; False when it was raised before."""
        hooks = [each.record.name for each in await self._webhooks.all()]
        due = [Delivery(alarm=alarm.id, webhook=name, created_at=self._clock.now()) for name in hooks]
        key = keys.alarm(self._node, alarm.id)
        writes = [Put(key, dump(alarm))]
        writes += [Put(keys.delivery(self._node, each.alarm, each.webhook), dump(each)) for each in due]
        written = await self._store.transact([Check(key, 0)], writes)
        if written is None:
            return False
        log.warning("alarm.raised", alarm=alarm.id, kind=alarm.kind, detail=alarm.detail)
        return True

    async def retain(self, oldest: datetime, most: int) -> int:
        """Removes alarms raised before `oldest`, and the oldest beyond `most`, with what is due of them."""
        found = sorted(await self.records.all(), key=lambda each: each.record.raised_at, reverse=True)
        gone = [each for place, each in enumerate(found) if place >= most or each.record.raised_at < oldest]
        ids = {each.record.id for each in gone}
        for due in await self._deliveries.all() if ids else []:
            if due.record.alarm in ids:
                await self._deliveries.delete(f"{due.record.alarm}~{due.record.webhook}")
        for each in gone:
            await self.records.delete(each.record.id, each.revision)
        return len(gone)

    async def list_(self, open_only: bool, limit: int, cursor: str | None) -> Listing[Alarm]:
        """In the order of their ids; with `open_only` those that nobody has acknowledged."""
        found: list[Alarm] = []
        unreadable: list[UnreadableItem] = []
        while True:
            page = await self.records.page(limit - len(found), cursor)
            found += [each.record for each in page.items if not (open_only and each.record.acknowledged)]
            unreadable += unreadable_items(page.unreadable)
            cursor = page.cursor
            if cursor is None or len(found) >= limit:
                return Listing(items=found, cursor=cursor, unreadable=unreadable)

    async def get(self, alarm_id: str) -> Stored[Alarm]:
        """Raises NotFound."""
        stored = await self.records.get(alarm_id)
        if stored is None:
            raise NotFound(
                f"There is no alarm {alarm_id!r}.",
                code="alarm-not-found",
                next="List them: maoctl alarm get --all",
            )
        return stored

    async def acknowledge(self, alarm_id: str, by: str, note: str) -> Alarm:
        """Notes that a person has seen it; one that was seen before stays as it is. Raises NotFound."""
        for _ in range(ATTEMPTS):
            stored = await self.get(alarm_id)
            if stored.record.acknowledged is not None:
                return stored.record
            seen = Acknowledgement(at=self._clock.now(), by=by, note=note)
            alarm = stored.record.model_copy(update={"acknowledged": seen})
            if await self.records.replace(alarm_id, alarm, stored.revision) is not None:
                return alarm
        raise Conflict(f"Alarm {alarm_id} was changed by others meanwhile.", next="Try again.")
