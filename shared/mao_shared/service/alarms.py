"""Alarms about a service's conditions, each written in one transaction with its deliveries to webhooks.

A lasting condition raises one alarm, however many services report it and however often they restart. If the
condition ends and returns, a new alarm is raised. During an outage of the store, alarms are queued in memory.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import ValidationError

from mao_shared import keys
from mao_shared.clock import Clock, SystemClock
from mao_shared.conditions import Conditions
from mao_shared.errors import Conflict, MaoError, Unavailable
from mao_shared.logs import get_logger
from mao_shared.models import Alarm, Delivery, Webhook, is_name
from mao_shared.models.node import Condition, OpenCondition
from mao_shared.models.notification import Notice
from mao_shared.reconcile import Backoff, every
from mao_shared.store import Check, Delete, Put, Records, Store, Stored, dump, retry_lost

log = get_logger(__name__)
RAISE_SECONDS = 10.0  # duration of a condition before its alarm is raised
CLEAR_SECONDS = 30.0  # duration without the condition before its alarm ends
INHERITED_SECONDS = 120.0  # after a start, how long alarms stay open without a new report
WRITE_BACKOFF = Backoff(2.0, 30.0)
MAX_WAITING_WRITES = 1000  # queued writes; the oldest ones beyond that are dropped


async def alarm_writes(store: Store, node: str, key: str, alarm: Alarm, now: datetime) -> list[Put]:
    """Return the writes that raise an alarm.

    They are its record, a delivery for each webhook, and if there are channels, the notice from which the
    data manager decides who is told.
    """
    hooks = await Records(store, keys.webhooks_prefix(node), Webhook).page()
    names = [stored.record.name for stored in hooks.items]
    due = [Delivery(alarm=alarm.id, webhook=name, created_at=now) for name in names]
    deliveries = [
        Put(keys.delivery(node, delivery.alarm, delivery.webhook), dump(delivery)) for delivery in due
    ]
    channels = await store.list(keys.channels_prefix(node), limit=1)
    if channels.entries:
        notice = Notice(alarm=alarm.id, created_at=now)
        deliveries.append(Put(keys.notice(node, alarm.id), dump(notice)))
    return [Put(key, dump(alarm)), *deliveries]


def to_alarm(condition: Condition, node: str, service: str) -> Alarm:
    """Return the alarm about a condition; its id contains `since`, so a new occurrence differs. Pure.

    Run, step and dataset are parsed from the subjects of the conditions named here; add new conditions.
    """
    plain = is_name(condition.subject)
    tail = condition.subject if plain else hashlib.sha256(condition.subject.encode()).hexdigest()[:10]
    about = [condition.name, tail] if condition.subject else [condition.name]
    run, _, step = condition.subject.partition("/")
    of_step = condition.name in ("step-stuck", "not-agreed", "log") and is_name(step)
    of_dataset = condition.name in ("remote", "unpushed", "clone", "inbox") and plain
    return Alarm(
        id=".".join([f"{condition.since:%Y%m%dT%H%M%S}{condition.since.microsecond // 1000:03}Z", *about]),
        kind=condition.name,
        node=node,
        raised_at=condition.since,
        run=run if of_step else None,
        step=step if of_step else None,
        dataset=condition.subject if of_dataset else None,
        detail=condition.detail,
        service=service,
        subject=condition.subject or None,
        next=condition.next or None,
    )


@dataclass(slots=True)
class _Episode:
    """A condition from its report to its end. `due`: the loop's time of the next stage; None: no change."""

    condition: Condition
    stage: Literal["settling", "open", "calming"]
    due: float | None
    over: datetime | None = None


@dataclass(frozen=True, slots=True)
class _AlarmWrite:
    condition: Condition
    over: datetime | None = None  # None: raise the alarm


class ConditionAlarms:
    """Raises alarms about one service's conditions while `run` runs. Times in seconds."""

    def __init__(
        self,
        service: str,
        node: str,
        store: Store,
        conditions: Conditions,
        clock: Clock | None = None,
        *,
        settle: float = RAISE_SECONDS,
        calm: float = CLEAR_SECONDS,
        inherited: float = INHERITED_SECONDS,
    ) -> None:
        self._service, self._node, self._store = service, node, store
        self._clock = clock or SystemClock()
        self._settle, self._calm, self._inherited = settle, calm, inherited
        self._episodes: dict[tuple[str, str], _Episode] = {}
        self._writes: deque[_AlarmWrite] = deque(maxlen=MAX_WAITING_WRITES)
        self._wake = asyncio.Event()
        self._has_inherited = False
        for condition in conditions.current():
            self._note(condition)
        conditions.subscribe(self._note)

    def _note(self, condition: Condition) -> None:
        now = asyncio.get_running_loop().time()
        key = (condition.name, condition.subject)
        episode = self._episodes.get(key)
        if condition.state != "ok":
            if episode is None:
                self._episodes[key] = _Episode(condition, "settling", now + self._settle)
            elif episode.stage != "settling" and (episode.condition.state, condition.state) == (
                "degraded",
                "failed",
            ):
                since = self._clock.now()  # a separate alarm for the worse state
                self._writes.append(_AlarmWrite(episode.condition, since))
                worse = condition.model_copy(update={"since": since})
                self._writes.append(_AlarmWrite(worse))
                self._episodes[key] = _Episode(worse, "open", None)
            else:
                episode.condition = condition.model_copy(update={"since": episode.condition.since})
                if episode.stage == "calming":
                    episode.stage, episode.due, episode.over = "open", None, None
        elif episode is not None and episode.stage == "settling":
            del self._episodes[key]
            if episode.due is not None and episode.due <= now:  # it has lasted, though no step has run since
                self._writes.append(_AlarmWrite(episode.condition))
                self._writes.append(_AlarmWrite(episode.condition, condition.since))
        elif episode is not None and episode.stage == "open":
            episode.stage, episode.due, episode.over = "calming", now + self._calm, condition.since
        self._wake.set()

    async def run(self) -> None:
        """Write alarms until cancelled; idle while nothing changes."""
        await every(
            None, self._step, name="alarms", wake=self._wake, away=WRITE_BACKOFF, failing=WRITE_BACKOFF
        )

    async def _step(self) -> float | None:
        """Write what is due; return the seconds until the next due time, or None."""
        if not self._has_inherited:
            await self._inherit()
            self._has_inherited = True
        self._advance()
        await self._write_waiting()
        due = [episode.due for episode in self._episodes.values() if episode.due is not None]
        return max(0.0, min(due) - asyncio.get_running_loop().time()) if due else None

    async def _inherit(self) -> None:
        """Load the alarms that an earlier process of this service left open."""
        prefix = keys.open_conditions_prefix(self._node)
        found = await Records(self._store, prefix, OpenCondition).page()
        now, loop_time = self._clock.now(), asyncio.get_running_loop().time()
        for opened in (stored.record for stored in found.items):
            key = (opened.name, opened.subject)
            if self._service not in opened.services:
                continue
            if (episode := self._episodes.get(key)) is not None:
                if episode.stage == "settling":
                    episode.stage, episode.due = "open", None
                continue
            condition = Condition(name=opened.name, subject=opened.subject, state=opened.state, since=now)
            self._episodes[key] = _Episode(condition, "calming", loop_time + self._inherited, now)

    def _advance(self) -> None:
        now = asyncio.get_running_loop().time()
        for key, episode in list(self._episodes.items()):
            if episode.due is None or episode.due > now:
                continue
            if episode.stage == "settling":
                episode.stage, episode.due = "open", None
                self._writes.append(_AlarmWrite(episode.condition))
            elif episode.over is not None:
                del self._episodes[key]
                self._writes.append(_AlarmWrite(episode.condition, episode.over))

    async def _write_waiting(self) -> None:
        while self._writes:
            write = self._writes[0]
            try:
                if write.over is None:
                    await self._raise(write.condition)
                else:
                    await self._end(write.condition, write.over)
            except Unavailable:
                raise
            except Exception as error:  # a failure of one alarm must not stop the others
                if isinstance(error, Conflict) and error.code == "busy":
                    raise Unavailable(error.detail) from error  # it is written later
                log.exception("alarm.dropped", condition=write.condition.name)
            if self._writes and self._writes[0] is write:
                self._writes.popleft()

    async def _raise(self, condition: Condition) -> None:
        """Write the alarm, or add this service to its reporters."""
        key = keys.open_condition(self._node, condition.name, condition.subject)
        alarm = to_alarm(condition, self._node, self._service)

        async def attempt() -> bool | None:
            stored, revision = await self._read(key)
            if stored is not None and self._service in stored.services:
                return False
            if stored is not None:
                reported = stored.model_copy(update={"services": [*stored.services, self._service]})
                writes = [Put(key, dump(reported))]
            else:
                reported = OpenCondition(
                    alarm=alarm.id,
                    name=condition.name,
                    subject=condition.subject,
                    state=condition.state,
                    services=[self._service],
                )
                place = keys.condition_alarm(self._node, alarm.id)
                due = await alarm_writes(self._store, self._node, place, alarm, self._clock.now())
                writes = [Put(key, dump(reported)), *due]
            if await self._store.transact([Check(key, revision)], writes) is None:
                return None
            return stored is None

        if await retry_lost(attempt, f"the alarm {alarm.id}"):
            log.warning("alarm.raised", alarm=alarm.id, kind=alarm.kind, detail=alarm.detail)

    async def _end(self, condition: Condition, over: datetime) -> None:
        """Remove this service from the alarm's reporters; without reporters the alarm ends."""
        key = keys.open_condition(self._node, condition.name, condition.subject)
        alarms = Records(self._store, keys.condition_alarms_prefix(self._node), Alarm)

        async def attempt() -> bool | None:
            opened, revision = await self._read(key)
            if opened is None or self._service not in opened.services:
                return True
            others = [service for service in opened.services if service != self._service]
            checks: list[Check] = [Check(key, revision)]
            writes: list[Put | Delete] = [Put(key, dump(opened.model_copy(update={"services": others})))]
            if not others:
                writes = [Delete(key)]
                if (stored := await self._alarm(alarms, opened.alarm)) is not None:
                    ended = stored.record.model_copy(update={"over": over})
                    checks.append(Check(alarms.prefix + opened.alarm, stored.revision))
                    writes.append(Put(alarms.prefix + opened.alarm, dump(ended)))
            if await self._store.transact(checks, writes) is None:
                return None
            log.info("alarm.over" if not others else "alarm.left", alarm=opened.alarm)
            return True

        await retry_lost(attempt, f"the alarm about {condition.name} {condition.subject}")

    async def _alarm(self, alarms: Records[Alarm], alarm_id: str) -> Stored[Alarm] | None:
        """Return the alarm; None if it is gone or cannot be read."""
        try:
            return await alarms.get(alarm_id)
        except Unavailable:
            raise
        except MaoError as error:
            log.warning("alarm.unreadable", alarm=alarm_id, error=error.detail)
            return None

    async def _read(self, key: str) -> tuple[OpenCondition | None, int]:
        """Return the record and its revision; None for an unreadable record, to be overwritten."""
        entry = await self._store.get(key)
        if entry is None:
            return None, 0
        try:
            return OpenCondition.model_validate_json(entry.value), entry.revision
        except ValidationError:
            return None, entry.revision
