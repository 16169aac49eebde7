"""From runs to messages, killed before and after each write: none is lost, each change of state is told once.

A message is sent twice only if the kill falls between the receiver's answer and the record of it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mao_datamgmt.monitoring.alarms import Alarms
from mao_datamgmt.notifications import service
from mao_datamgmt.notifications.channels import (
    GIVE_UP_AFTER,
    GIVE_UP_PING_AFTER,
    RETRY,
    after_failure,
    expired_messages,
    next_message,
    seconds_until_due,
)
from mao_datamgmt.notifications.service import Notifications
from mao_shared import keys
from mao_shared.clients.webhook import WebhookClient
from mao_shared.clock import SystemClock
from mao_shared.conditions import Conditions
from mao_shared.host.sealed import SealedSecrets
from mao_shared.models import Alarm, Run
from mao_shared.models.notification import ChannelRequest, Message, Notice, Rule
from mao_shared.reconcile import background
from mao_shared.service.alarms import INHERITED_SECONDS, alarm_writes
from mao_shared.states import RunPhase
from mao_shared.store import Check, Put, Records, Store, Write, dump
from mao_shared.store.memory import MemoryStore
from tests.datamgmt.world import NODE, settings_for
from tests.scheduler.harness import run_records, scheduler
from tests.scheduler.samples import run
from tests.support.waiting import eventually_answers

pytestmark = pytest.mark.virtual_time


class MortalStore(MemoryStore):
    """Stops answering before or after a write of the records that are under test, counted from 0."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0
        self.dies_at: tuple[int, str] | None = None
        self.died = asyncio.Event()

    async def transact(self, checks: Sequence[Check], writes: Sequence[Write]) -> int | None:
        if not any(part in write.key for write in writes for part in ("/notices/", "/messages/", "-health/")):
            return await super().transact(checks, writes)
        number, self.writes = self.writes, self.writes + 1
        if self.dies_at == (number, "before"):
            await self._die()
        revision = await super().transact(checks, writes)
        if self.dies_at == (number, "after"):
            await self._die()
        return revision

    async def _die(self) -> None:
        self.died.set()
        await asyncio.Event().wait()


@dataclass
class Outside:
    """The receivers of all messages and pings. `refuses`: the error of every attempt, if any."""

    sent: list[str] = field(default_factory=list)
    kinds: dict[str, str] = field(default_factory=dict)  # of the last message with a title
    refuses: str | None = None
    attempts: int = 0
    seconds: float = 0.0  # until the receiver answers

    async def send(self, url: str, title: str, text: str, kind: str = "info") -> str | None:
        self.kinds[title] = kind
        error = self._take(title)
        await asyncio.sleep(self.seconds)
        return error

    async def check(self, url: str) -> str | None:
        return None

    async def ping(self, url: str) -> str | None:
        return self._take(url.partition("?")[0])

    def _take(self, what: str) -> str | None:
        self.attempts += 1
        if self.refuses is None:
            self.sent.append(what)
        return self.refuses


class PingClient(WebhookClient):
    def __init__(self, outside: Outside) -> None:
        super().__init__()
        self._outside = outside

    async def check(self, url: str) -> str | None:
        return None

    async def ping(self, url: str) -> str | None:
        return await self._outside.ping(url)


@dataclass
class Node:
    """The parts of a node that alarms and messages pass through, on a store that outlives them."""

    root: Path
    store: Store
    outside: Outside
    conditions: Conditions = field(default_factory=Conditions)

    def notifications(self, patch: pytest.MonkeyPatch) -> Notifications:
        patch.setattr(service, "Senders", lambda *_: self.outside)
        self.root.joinpath("node").mkdir(exist_ok=True)
        return Notifications(
            settings_for(self.root),
            self.store,
            SystemClock(),
            Alarms(NODE, self.store, SystemClock()),
            SealedSecrets(self.root / "node"),
            PingClient(self.outside),
            conditions=self.conditions,
        )


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path, MortalStore(), Outside())


def ended(name: str, phase: RunPhase, at: datetime) -> Run:
    begun = at - timedelta(seconds=30)
    return run(name, trigger="schedule", scheduled_for=begun, started_at=begun, finished_at=at, phase=phase)


async def write_ended(store: Store, one: Run) -> None:
    if await run_records(store).get(one.id) is None:
        await run_records(store).create(one.id, one)


async def settled(store: Store) -> bool:
    """True if nothing is waiting: no notice about an ended alarm, no message to send."""
    messages = await Records(store, keys.messages_prefix(NODE), Message).all()
    notices = await Records(store, keys.notices_prefix(NODE), Notice).all()
    return not notices and all(stored.record.is_done for stored in messages) and len(messages) == 6


async def life(node: Node, patch: pytest.MonkeyPatch, runs: Sequence[Run]) -> bool:
    """Run the node until all is told, or until its store dies; return whether it survived."""
    assert isinstance(node.store, MortalStore)
    notifications = node.notifications(patch)
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(scheduler(node.store, SystemClock()))
        await stack.enter_async_context(background(made.health.run(), *notifications.loops()))

        async def acts() -> None:
            for one in runs:
                await write_ended(node.store, one)
            await eventually_answers(lambda: settled(node.store), 7200)

        tasks = [asyncio.create_task(acts()), asyncio.create_task(node.store.died.wait())]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()
        return not node.store.died.is_set()


EXPECTED = Counter(
    {
        "[node-1] crawler: run failed": 1,
        "[node-1] crawler: recovered": 1,
        "http://hc.example/uuid/start": 2,
        "http://hc.example/uuid/fail": 1,
        "http://hc.example/uuid": 1,
    }
)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_killed_at_each_write_every_change_is_told_once(
    node: Node, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    assert isinstance(node.store, MortalStore)
    made = node.notifications(monkeypatch)
    await made.channels.add(ChannelRequest(name="mail", url="mailto://lab.example"))
    heartbeat = await made.heartbeats.put("crawler", "http://hc.example/uuid")
    now = heartbeat.created_at + timedelta(seconds=60)
    runs = [
        ended("r1", RunPhase.FAILED, now),
        ended("r2", RunPhase.SUCCEEDED, now + timedelta(seconds=60)),
    ]
    lives, marks = 0, 0
    while True:
        node.store.died.clear()
        node.store.writes, node.store.dies_at = 0, (lives, when)
        lives += 1
        if await life(node, monkeypatch, runs):
            break
        marks += 1
        assert lives < 100, node.outside.sent
    sent = Counter(node.outside.sent)
    assert set(sent) == set(EXPECTED)
    assert all(sent[what] >= count for what, count in EXPECTED.items())
    assert sum(sent.values()) - sum(EXPECTED.values()) <= marks
    if when == "after":  # whatever was sent had been recorded
        assert sent == EXPECTED
    alarms = await Records(node.store, keys.alarms_prefix(NODE), Alarm).all()
    assert [stored.record.id for stored in alarms] == ["r1.run-failed"]
    assert marks > 3  # how many writes there are depends on what is written together


async def test_killed_never_each_change_is_told_once(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    made = node.notifications(monkeypatch)
    await made.channels.add(ChannelRequest(name="mail", url="mailto://lab.example"))
    heartbeat = await made.heartbeats.put("crawler", "http://hc.example/uuid")
    now = heartbeat.created_at + timedelta(seconds=60)
    runs = [
        ended("r1", RunPhase.FAILED, now),
        ended("r2", RunPhase.SUCCEEDED, now + timedelta(seconds=60)),
    ]
    for _ in range(3):
        assert await life(node, monkeypatch, runs)
    assert Counter(node.outside.sent) == EXPECTED
    kinds = {"[node-1] crawler: run failed": "warning", "[node-1] crawler: recovered": "success"}
    assert node.outside.kinds == kinds
    state = await made.heartbeats.state("crawler")
    assert (state.last, state.waiting, state.url) == ("success", 0, "http://hc.example/…")


# one alarm and its messages


async def raise_alarm(store: Store, **changes: Any) -> Alarm:
    fields: dict[str, Any] = {"kind": "disk", "detail": "It is full.", "raised_at": SystemClock().now()}
    alarm = Alarm(id="a1", node=NODE, **{**fields, **changes})
    key = keys.alarm(NODE, alarm.id)
    writes = await alarm_writes(store, NODE, key, alarm, SystemClock().now())
    assert await store.transact([Check(key, 0)], writes) is not None
    return alarm


async def test_messages_are_retried_with_growing_pauses_and_given_up(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = node.notifications(monkeypatch)
    await made.channels.add(ChannelRequest(name="mail", url="mailto://lab.example"))
    node.outside.refuses = "no"
    began = SystemClock().now()
    async with background(*made.loops()):
        await raise_alarm(node.store)

        async def given_up() -> bool:
            return (await made.channels.state("mail")).given_up == 1

        await eventually_answers(given_up, GIVE_UP_AFTER.total_seconds() * 2, interval=600)
        assert SystemClock().now() - began >= GIVE_UP_AFTER
        assert 3 * 24 <= node.outside.attempts <= 3 * 24 + 20  # at most once an hour, after the first ones
        assert [condition.name for condition in node.conditions.current()] == ["channel"]
        node.outside.refuses = None
        key = keys.alarm(NODE, "a1")
        entry = await node.store.get(key)
        assert entry is not None
        over = Alarm.model_validate_json(entry.value).model_copy(update={"over": SystemClock().now()})
        assert await node.store.transact([Check(key, entry.revision)], [Put(key, dump(over))])
        await eventually_answers(lambda: _is_sent(node, 1), 3600)
        await eventually_answers(lambda: _is_clear(node), 60)
    assert node.outside.sent == ["[node-1] over: disk is short of space"]
    assert RETRY.maximum == 3600


async def test_messages_that_fail_are_reported_again_after_a_restart(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the alarm about the channel would end, and be raised again by the next attempt."""
    made = node.notifications(monkeypatch)
    await made.channels.add(ChannelRequest(name="mail", url="mailto://lab.example"))
    node.outside.refuses = "no"

    async def is_reported() -> bool:
        return [condition.name for condition in node.conditions.current()] == ["channel"]

    async with background(*made.loops()):
        await raise_alarm(node.store)
        await eventually_answers(is_reported, 3600)
        await asyncio.sleep(86400)
    node.conditions = Conditions()
    attempts = node.outside.attempts
    async with background(*node.notifications(monkeypatch).loops()):
        await eventually_answers(is_reported, INHERITED_SECONDS / 2)
    assert node.outside.attempts == attempts


async def test_messages_to_a_channel_that_is_gone_are_given_up(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One may be written while its channel is removed."""
    late = Message(
        id="a1~gone~raised", channel="gone", event="raised", about="a1", created_at=SystemClock().now()
    )
    made = node.notifications(monkeypatch)
    async with background(*made.loops()):
        await made.channels.messages.create(late.id, late)
        await eventually_answers(lambda: _is_given_up(node.store, late.id), 60)
        await asyncio.sleep(86400)
    assert node.conditions.current() == []


async def _is_given_up(store: Store, name: str) -> bool:
    found = await Records(store, keys.messages_prefix(NODE), Message).get(name)
    return found is not None and found.record.given_up


async def _is_sent(node: Node, count: int) -> bool:
    return len(node.outside.sent) == count


async def _is_clear(node: Node) -> bool:
    return not node.conditions.current()


async def test_messages_reminders_follow_the_clock_until_somebody_acknowledges(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = node.notifications(monkeypatch)
    await made.channels.add(ChannelRequest(name="mail", url="mailto://lab.example"))
    await made.rules.add(Rule(name="r", channels=["mail"], reminder=86400))
    alarms = Alarms(NODE, node.store, SystemClock())
    async with background(*made.loops()):
        await raise_alarm(node.store)
        await eventually_answers(lambda: _is_sent(node, 3), 3 * 86400, interval=600)
        await alarms.acknowledge("a1", "Ada", "")
        await asyncio.sleep(5 * 86400)
    title = "[node-1] still: disk is short of space"
    assert node.outside.sent == ["[node-1] disk is short of space", title, title]
    assert await Records(node.store, keys.notices_prefix(NODE), Notice).all() == []


async def test_messages_that_are_being_sent_while_the_service_stops_are_recorded(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = node.notifications(monkeypatch)
    await made.channels.add(ChannelRequest(name="mail", url="mailto://lab.example"))
    node.outside.seconds = 3
    async with background(*made.loops()):
        await raise_alarm(node.store)
        await eventually_answers(lambda: _is_sent(node, 1))
    async with background(*node.notifications(monkeypatch).loops()):
        await asyncio.sleep(86400)
    assert node.outside.attempts == 1


async def test_messages_without_channel_alarms_write_no_notice(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    await raise_alarm(node.store)
    assert (await node.store.list(keys.notices_prefix(NODE))).entries == []


async def test_messages_of_a_removed_channel_are_removed(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    made = node.notifications(monkeypatch)
    await made.channels.add(ChannelRequest(name="mail", url="mailto://lab.example"))
    node.outside.refuses = "no"
    async with background(*made.loops()):
        await raise_alarm(node.store)

        async def tried() -> bool:
            return node.outside.attempts > 0

        await eventually_answers(tried)
        await made.channels.remove("mail")
        await asyncio.sleep(86400)
    assert await made.channels.messages.all() == []
    assert node.outside.attempts < 3


async def test_messages_secrets_are_stored_encrypted_and_never_shown(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = node.notifications(monkeypatch)
    state = await made.channels.add(
        ChannelRequest(name="mail", url="mailtos://ada:sesame-open@lab.example/secret-topic")
    )
    heartbeat = await made.heartbeats.put("crawler", "https://hc.example/sesame-open")
    stored = b"".join(entry.value for entry in (await node.store.list("/")).entries).decode()
    for text in (stored, state.model_dump_json(), heartbeat.model_dump_json()):
        assert "sesame-open" not in text
        assert "secret-topic" not in text
    assert state.url == "mailtos://…"


# pure


def message(name: str, second: int, **changes: Any) -> Message:
    at = datetime(2026, 1, 31, 12).astimezone() + timedelta(seconds=second)
    fields: dict[str, Any] = {"id": name, "channel": "mail", "event": "raised", "about": "a"}
    return Message(**{**fields, "created_at": at, **changes})


def test_next_message_is_the_oldest_that_is_not_done() -> None:
    done = message("a", 0, given_up=True)
    ping = message("z", 1, event="start")
    assert next_message([message("b", 1, event="success"), done, ping, message("c", 2)]) == ping
    assert next_message([done]) is None


def test_seconds_until_due_survives_a_clock_that_was_set_back() -> None:
    one = message("a", 0)
    waits = one.model_copy(update={"not_before": one.created_at + timedelta(seconds=90)})
    assert seconds_until_due(one, one.created_at) == 0
    assert seconds_until_due(waits, one.created_at) == 90
    assert seconds_until_due(waits, one.created_at + timedelta(seconds=90)) == 0
    assert seconds_until_due(waits, one.created_at - timedelta(days=1)) == 0


def test_after_failure_pauses_grow_to_an_hour_and_pings_are_given_up_sooner() -> None:
    one = message("a", 0)
    pauses = []
    for _ in range(12):
        one = after_failure(one, "no", one.created_at, 0.5)
        assert one.not_before is not None
        pauses.append((one.not_before - one.created_at).total_seconds())
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[1], pauses[-1]) == (15, 25, 3600)
    ping, text = message("p", 0, event="start"), message("t", 0)
    later = ping.created_at + GIVE_UP_PING_AFTER + timedelta(seconds=1)
    assert after_failure(ping, "no", later).given_up
    assert not after_failure(text, "no", later).given_up


def test_expired_messages_are_done_and_old_or_too_many() -> None:
    many = [message(f"m{n}", n, delivered_at=datetime(2026, 1, 31, 13).astimezone()) for n in range(1003)]
    waiting = message("waits", -5)
    assert sorted(expired_messages([waiting, *many], many[-1].created_at)) == ["m0", "m1", "m2"]
    later = many[-1].created_at + timedelta(days=31)
    assert len(expired_messages([waiting, *many], later)) == 1003
