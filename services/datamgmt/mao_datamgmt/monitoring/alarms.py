"""Alarms: raised once, kept until they are acknowledged or expire, and sent to every webhook.

Alarms about conditions of the node are written by the service that detected them
(`mao_shared.service.alarms`), under a separate prefix. Here both kinds are listed, shown, acknowledged
and removed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeVar

from mao_shared import keys
from mao_shared.clock import Clock
from mao_shared.errors import NotFound
from mao_shared.logs import get_logger
from mao_shared.models import Acknowledgement, Alarm, Delivery, Listing, Record
from mao_shared.models.common import UnreadableItem, unreadable_items
from mao_shared.service.alarms import alarm_writes
from mao_shared.store import Check, Records, Store, Stored, Unreadable
from mao_shared.store.protocol import cursor_invalid

log = get_logger(__name__)
R = TypeVar("R", bound=Record)
AlarmStateFilter = Literal["open", "closed"]
_CURSOR = re.compile(r"(\d{1,20})\.(.{1,300})")

MAX_WEBHOOKS = 100  # an alarm and its deliveries are one transaction


@dataclass(frozen=True, slots=True)
class AlarmFilter:
    """What a listing is about. `state`: open is neither acknowledged nor over; None: all.

    `about`: the pipeline, dataset or subject of the alarms.
    """

    state: AlarmStateFilter | None = None
    kind: str | None = None
    about: str | None = None
    unacknowledged: bool = False

    def matches(self, alarm: Alarm) -> bool:
        is_open = alarm.acknowledged is None and alarm.over is None
        return (
            self.state in (None, "open" if is_open else "closed")
            and not (self.unacknowledged and alarm.acknowledged is not None)
            and self.kind in (None, alarm.kind)
            and (self.about is None or self.about in (alarm.pipeline, alarm.dataset, alarm.subject))
        )


class Alarms:
    """The alarms of one node."""

    def __init__(self, node: str, store: Store, clock: Clock, unreadable: Unreadable | None = None) -> None:
        self._node = node
        self._store = store
        self._clock = clock
        self._record_sets = [
            Records(store, keys.condition_alarms_prefix(node), Alarm, unreadable),
            Records(store, keys.alarms_prefix(node), Alarm, unreadable),
        ]
        self._deliveries = Records(store, keys.deliveries_prefix(node), Delivery, unreadable)

    async def raise_(self, alarm: Alarm) -> bool:
        """Write an alarm and its deliveries in one transaction; return False if it was raised before."""
        key = keys.alarm(self._node, alarm.id)
        writes = await alarm_writes(self._store, self._node, key, alarm, self._clock.now())
        written = await self._store.transact([Check(key, 0)], writes)
        if written is None:
            return False
        log.warning("alarm.raised", alarm=alarm.id, kind=alarm.kind, detail=alarm.detail)
        return True

    async def retain(self, oldest: datetime, max_count: int) -> int:
        """Delete alarms raised before `oldest`, and the oldest ones beyond `max_count`, with deliveries."""
        listed = [(records, alarm) for records in self._record_sets for alarm in await _readable(records)]
        listed.sort(key=lambda pair: pair[1].record.raised_at, reverse=True)
        removed = [
            (records, alarm)
            for index, (records, alarm) in enumerate(listed)
            if index >= max_count or alarm.record.raised_at < oldest
        ]
        ids = {alarm.record.id for _, alarm in removed}
        for delivery in await _readable(self._deliveries) if ids else []:
            if delivery.record.alarm in ids:
                await self._deliveries.delete(f"{delivery.record.alarm}~{delivery.record.webhook}")
        for records, alarm in removed:
            await records.delete(alarm.record.id, alarm.revision)
        return len(removed)

    async def list_(self, open_only: bool, limit: int, cursor: str | None) -> Listing[Alarm]:
        """List the alarms about the node, then the others, both sorted by id.

        With `open_only`, only those that nobody has acknowledged.
        """
        index, inner_cursor = 0, None
        if cursor is not None:
            first, dot, rest = cursor.partition(".")
            if not dot or first not in map(str, range(len(self._record_sets))):
                raise cursor_invalid()
            index, inner_cursor = int(first), rest or None
        found: list[Alarm] = []
        unreadable: list[UnreadableItem] = []
        while index < len(self._record_sets) and len(found) < limit:
            page = await self._record_sets[index].page(limit - len(found), inner_cursor)
            found += [alarm.record for alarm in page.items if not (open_only and alarm.record.acknowledged)]
            unreadable += unreadable_items(page.unreadable)
            inner_cursor = page.cursor
            index += inner_cursor is None
        more = index < len(self._record_sets)
        return Listing(
            items=found, cursor=f"{index}.{inner_cursor or ''}" if more else None, unreadable=unreadable
        )

    async def newest(self, wanted: AlarmFilter, limit: int, cursor: str | None) -> Listing[Alarm]:
        """List the alarms that match, the last raised first. Reads all alarms, of which few are kept."""
        match = _CURSOR.fullmatch(cursor) if cursor is not None else None
        if cursor is not None and match is None:
            raise cursor_invalid()
        before = (int(match[1]), match[2]) if match else None
        found: list[Alarm] = []
        unreadable: list[UnreadableItem] = []
        for records in self._record_sets:
            page = await records.page()
            found += [stored.record for stored in page.items if wanted.matches(stored.record)]
            unreadable += unreadable_items(page.unreadable)
        found.sort(key=_position, reverse=True)
        if before is not None:
            found = [alarm for alarm in found if _position(alarm) < before]
            unreadable = []  # they are on the first page
        items = found[:limit]
        more = len(found) > limit
        last = "{}.{}".format(*_position(items[-1])) if more else None
        return Listing(items=items, cursor=last, unreadable=unreadable)

    async def find(self, alarm_id: str) -> Stored[Alarm] | None:
        """Return the alarm, or None if it was removed."""
        for records in self._record_sets:
            if (stored := await records.get(alarm_id)) is not None:
                return stored
        return None

    async def get(self, alarm_id: str) -> Stored[Alarm]:
        """Return the alarm. Raises NotFound."""
        stored = await self.find(alarm_id)
        if stored is None:
            raise NotFound(
                f"There is no alarm {alarm_id!r}.",
                code="alarm-not-found",
                next="List them: maoctl alarm get --all",
            )
        return stored

    async def acknowledge(self, alarm_id: str, by: str, note: str) -> Alarm:
        """Acknowledge an alarm; an earlier acknowledgement is kept. Raises NotFound."""

        def acknowledged(alarm: Alarm) -> Alarm | None:
            if alarm.acknowledged is not None:
                return None
            acknowledgement = Acknowledgement(at=self._clock.now(), by=by, note=note)
            return alarm.model_copy(update={"acknowledged": acknowledgement})

        for records in self._record_sets:
            if (stored := await records.update(alarm_id, acknowledged)) is not None:
                return stored.record
        return (await self.get(alarm_id)).record


def _position(alarm: Alarm) -> tuple[int, str]:
    return int(alarm.raised_at.timestamp() * 1000), alarm.id


async def _readable(records: Records[R]) -> list[Stored[R]]:
    return (await records.page()).items
