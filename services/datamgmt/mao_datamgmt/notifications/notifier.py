"""Writes the messages that are due about alarms, each in one transaction with what has been sent.

An alarm is written together with its notice, a message together with the notice that counts it, under an id
that names alarm, channel and event. So each change of an alarm's state leads to one message per channel,
whenever this process is killed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from mao_datamgmt.monitoring.alarms import Alarms
from mao_shared import keys
from mao_shared.clock import Clock
from mao_shared.conditions import Conditions
from mao_shared.errors import AlreadyExists, Conflict, NotFound
from mao_shared.logs import get_logger
from mao_shared.models import Alarm
from mao_shared.models.common import Listing, unreadable_items
from mao_shared.models.notification import Channel, Message, Notice, Rule, message_id
from mao_shared.reconcile import Controller, Mirror, follow
from mao_shared.store import Batch, Check, Delete, Put, Records, Store, Stored, Unreadable, Write, dump

from .decide import Due, decide
from .texts import message_text, message_title

log = get_logger(__name__)

MAX_RULES = 200
MAX_WAIT_SECONDS = 600.0  # until the time is looked at again, since the clock may be set
LOST_RETRY_SECONDS = 1.0


class Rules:
    """The rules, which say who is told about which alarms."""

    def __init__(self, node: str, store: Store, unreadable: Unreadable | None = None) -> None:
        self.records = Records(store, keys.rules_prefix(node), Rule, unreadable)

    async def list_(self) -> Listing[Rule]:
        page = await self.records.page()
        return Listing(
            items=[stored.record for stored in page.items], unreadable=unreadable_items(page.unreadable)
        )

    async def get(self, name: str) -> Rule:
        """Return a rule. Raises NotFound."""
        stored = await self.records.get(name)
        if stored is None:
            raise NotFound(
                f"There is no rule {name!r}.",
                code="rule-not-found",
                next="List them: maoctl alarm rule get",
            )
        return stored.record

    async def add(self, rule: Rule) -> Rule:
        """Add a rule. Raises AlreadyExists, and Conflict if there are MAX_RULES."""
        if len(await self.records.all()) >= MAX_RULES:
            raise Conflict(
                f"There are {MAX_RULES} rules already.", next="Remove one: maoctl alarm rule remove NAME"
            )
        if await self.records.create(rule.name, rule) is None:
            raise AlreadyExists(
                f"There is a rule {rule.name!r} already.",
                next=f"Replace it: maoctl alarm rule set {rule.name} …",
            )
        return rule

    async def put(self, rule: Rule) -> Rule:
        """Add or replace a rule. Raises Conflict if there are MAX_RULES others."""
        others = [stored for stored in await self.records.all() if stored.record.name != rule.name]
        if len(others) >= MAX_RULES:
            raise Conflict(
                f"There are {MAX_RULES} rules already.", next="Remove one: maoctl alarm rule remove NAME"
            )
        await self.records.put(rule.name, rule)
        return rule

    async def remove(self, name: str) -> None:
        """Remove a rule, even an unreadable one. Raises NotFound."""
        if not await self.records.delete(name):
            await self.get(name)


class Notifier:
    """Decides what is due about the open alarms while `run` runs."""

    def __init__(
        self,
        node: str,
        store: Store,
        clock: Clock,
        alarms: Alarms,
        rules: Rules,
        channels: Records[Channel],
        unreadable: Unreadable | None = None,
        conditions: Conditions | None = None,
    ) -> None:
        self._node, self._store, self._clock = node, store, clock
        self._alarms, self._rules, self._channels = alarms, rules, channels
        self._notices = Records(store, keys.notices_prefix(node), Notice, unreadable)
        self._mirror = Mirror(self._notices, conditions=conditions)
        self._conditions = conditions
        self._controller = Controller("notices", self._reconcile, workers=4, conditions=conditions)
        self._controller.watches(self._mirror)

    async def run(self) -> None:
        """Decide until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._mirror.run())
            group.create_task(self._controller.run())
            for prefix in (keys.alarms_prefix, keys.condition_alarms_prefix):
                loop = follow(
                    self._store,
                    prefix(self._node),
                    self._alarms_changed,
                    name="changed alarms",
                    conditions=self._conditions,
                )
                group.create_task(loop)

    def _alarms_changed(self, batch: Batch) -> None:
        """Process the notices of alarms that have changed; after a gap, that may be any."""
        names = [keys.last_part(event.key) for event in batch]
        for name in names or [name for name, _ in self._mirror.items()]:
            if self._mirror.get(name) is not None:
                self._controller.add(name)

    async def _reconcile(self, name: str) -> float | None:
        """Write what is due about an alarm; return the seconds until the next decision."""
        notice = self._mirror.get(name)
        if notice is None:
            return None
        alarm = await self._alarms.find(name)
        if alarm is None:
            await self._notices.delete(name, notice.revision)
            return None
        rules = [stored.record for stored in await self._rules.records.all()]
        channels = [
            stored.record.name
            for stored in await self._channels.all()
            if notice.record.recipients is not None or stored.record.created_at <= notice.record.created_at
        ]
        now = self._clock.now()
        decision = decide(alarm.record, notice.record, rules, channels, now)
        if decision.due or decision.notice != notice.record:
            if not await self._write(notice, alarm, decision.due, decision.notice):
                return LOST_RETRY_SECONDS
            for due in decision.due:
                log.info("notice.due", alarm=name, channel=due.channel, about=due.event)
        if decision.again is None:
            return None
        return min(MAX_WAIT_SECONDS, max(0.0, (decision.again - now).total_seconds()))

    async def _write(
        self, before: Stored[Notice], alarm: Stored[Alarm], due: Sequence[Due], after: Notice | None
    ) -> bool:
        """Write messages and notice in one transaction; return False if the alarm or notice has changed."""
        key = self._notices.prefix + before.record.alarm
        checks = [Check(key, before.revision)]
        writes: list[Write] = [Delete(key) if after is None else Put(key, dump(after))]
        for one in due:
            message = Message(
                id=message_id(alarm.record.id, one.channel, one.event, one.number),
                channel=one.channel,
                event=one.event,
                about=alarm.record.id,
                title=message_title(alarm.record, one.event),
                text=message_text(alarm.record, one.event),
                created_at=self._clock.now(),
            )
            place = keys.message(self._node, message.id)
            checks.append(Check(place, 0))
            writes.append(Put(place, dump(message)))
        revision = await self._store.transact(checks, writes)
        if revision is not None and after is not None:
            self._mirror.note(before.record.alarm, after, revision)
        return revision is not None
