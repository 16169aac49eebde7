"""Alarms are raised once, acknowledged, and reach every webhook, signed, whatever happens in between."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mao_datamgmt.monitoring.alarms import AlarmFilter
from mao_datamgmt.monitoring.webhooks import GIVE_UP_AFTER, after_failure
from mao_shared import keys
from mao_shared.errors import AlreadyExists, InvalidInput, MaoError, NotFound
from mao_shared.models import Alarm, Delivery, WebhookRequest
from mao_shared.store import Records
from mao_shared.store.memory import MemoryStore
from mao_shared.store.records import dump

from .world import NODE, World, working
from .world import PATIENCE as WAIT

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def alarm(name: str = "run-1.rows") -> Alarm:
    return Alarm(id=name, kind="spike", node=NODE, raised_at=NOW, value=9.0, detail="9 rows, 90 expected")


class Receiver:
    """An HTTP server that answers as told, and keeps what it got."""

    def __init__(self) -> None:
        self.answer = 204
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.arrived = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(receiver.answer)
                self.end_headers()
                receiver.arrived.set()

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/alarms"

    async def wait(self) -> None:
        assert await asyncio.to_thread(self.arrived.wait, WAIT)
        self.arrived.clear()


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.server.shutdown()
        thread.join()
        receiver.server.server_close()


async def settled(world: World, *, tries: int | None) -> None:
    """Waits until the one delivery was tried so often, or (None) is gone."""
    deliveries = world.manager.webhooks.deliveries
    async with asyncio.timeout(WAIT):
        page = await world.store.list(deliveries.prefix)
        watch = world.store.watch(deliveries.prefix, after=page.revision)
        while [delivery.record.tries for delivery in await deliveries.all()] != (
            [] if tries is None else [tries]
        ):
            await anext(watch)
        await watch.aclose()


async def test_alarms_alarm_is_raised_once_and_acknowledged_once(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        alarms = world.manager.alarms
        assert await alarms.raise_(alarm())
        assert not await alarms.raise_(alarm())
        seen = await alarms.acknowledge("run-1.rows", "Ada", "looked")
        assert (await alarms.acknowledge("run-1.rows", "Bob", "")).acknowledged == seen.acknowledged
        assert (await alarms.list_(True, 10, None)).items == []
        assert (await alarms.list_(False, 10, None)).items == [seen]
        with pytest.raises(NotFound):
            await alarms.acknowledge("other", "", "")


async def test_alarms_webhook_receives_valid_signature(tmp_path: Path) -> None:
    with receiving() as receiver:
        async with working(tmp_path) as world:
            secret = (await world.manager.webhooks.add(WebhookRequest(name="lab", url=receiver.url))).secret
            await world.manager.alarms.raise_(alarm())
            await receiver.wait()
            headers, body = receiver.got[0]
            assert secret is not None
            signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
            digest = hmac.new(
                base64.b64decode(secret.removeprefix("whsec_")), signed, hashlib.sha256
            ).digest()
            assert headers["webhook-signature"] == f"v1,{base64.b64encode(digest).decode()}"
            assert b'"type":"alarm.spike"' in body
            await settled(world, tries=None)
            assert secret.encode() not in b"".join(e.value for e in (await world.store.list("/")).entries)


async def test_alarms_undelivered_alarm_is_resent_after_restart(tmp_path: Path) -> None:
    store = MemoryStore()
    with receiving() as receiver:
        receiver.answer = 500
        async with working(tmp_path, store) as world:
            await world.manager.webhooks.add(WebhookRequest(name="lab", url=receiver.url))
            await world.manager.alarms.raise_(alarm())
            await receiver.wait()
            await settled(world, tries=1)
            assert (await world.manager.webhooks.state("lab")).last_error == "it answered 500"
        receiver.answer = 200
        async with working(tmp_path, store) as world:
            name = "run-1.rows~lab"
            due = await world.manager.webhooks.deliveries.get(name)
            assert due is not None
            now = due.record.model_copy(update={"not_before": None})
            await world.manager.webhooks.deliveries.replace(name, now, due.revision)
            await receiver.wait()
            await settled(world, tries=None)
            assert receiver.got[0][0]["webhook-id"] == receiver.got[-1][0]["webhook-id"]


async def test_alarms_names_are_taken_once_and_a_test_tells_why_not(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        hooks = world.manager.webhooks
        await hooks.add(WebhookRequest(name="lab", url="http://127.0.0.1:9/"))
        with pytest.raises(AlreadyExists):
            await hooks.add(WebhookRequest(name="lab", url="http://127.0.0.1:9/"))
        assert "cannot be reached" in str(await hooks.test("lab"))
        await hooks.remove("lab")
        with pytest.raises(NotFound):
            await hooks.state("lab")


def test_alarms_pauses_grow_and_end_in_giving_up() -> None:
    due = Delivery(alarm="a", webhook="lab", created_at=NOW)
    tried = [after_failure(due.model_copy(update={"tries": tries}), "no", NOW, 0.5) for tries in (0, 1, 2)]
    assert [delivery.not_before for delivery in tried] == [NOW + timedelta(seconds=s) for s in (15, 25, 45)]
    assert not after_failure(due, "no", NOW, 0.5).given_up
    assert after_failure(due, "no", NOW + GIVE_UP_AFTER + timedelta(seconds=1), 0.5).given_up


@pytest.mark.parametrize("url", ["ftp://a/", "file:///etc/passwd", "https://u:p@a/", "https://", "a"])
def test_alarms_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="address"):
        WebhookRequest(name="lab", url=url)


async def test_alarms_retention_removes_their_deliveries(tmp_path: Path) -> None:
    async with working(tmp_path) as world:
        await world.manager.webhooks.add(WebhookRequest(name="lab", url="http://127.0.0.1:9/"))
        alarms = world.manager.alarms
        for day in range(4):
            raised = alarm(f"run-{day}.rows").model_copy(update={"raised_at": NOW + timedelta(days=day)})
            assert await alarms.raise_(raised)
        assert await alarms.retain(NOW + timedelta(days=1), 2) == 2
        kept = [a.id for a in (await alarms.list_(False, 10, None)).items]
        assert kept == ["run-2.rows", "run-3.rows"]
        assert {delivery.record.alarm for delivery in await world.manager.webhooks.deliveries.all()} == set(
            kept
        )


# where they may go


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/", "http://localhost/", "http://[::ffff:169.254.1.1]/"])
async def test_alarms_webhook_to_this_machine_is_refused_at_once(tmp_path: Path, url: str) -> None:
    async with working(tmp_path, webhook_hosts="") as world:
        with pytest.raises(InvalidInput, match="nothing is sent to") as raised:
            await world.manager.webhooks.add(WebhookRequest(name="lab", url=url))
        assert raised.value.code == "webhook-address-refused"
        assert await world.manager.webhooks.states() == []


async def test_alarms_webhook_of_an_older_version_to_this_machine_fails_visibly(tmp_path: Path) -> None:
    store = MemoryStore()
    with receiving() as receiver:
        async with working(tmp_path, store) as world:
            await world.manager.webhooks.add(WebhookRequest(name="lab", url=receiver.url))
        async with working(tmp_path, store, webhook_hosts="") as world:
            await world.manager.alarms.raise_(alarm())
            await settled(world, tries=1)
            state = await world.manager.webhooks.state("lab")
            assert state.waiting == 1
            assert f"set MAO_WEBHOOK_HOSTS=127.0.0.1:{receiver.server.server_port}" in str(state.last_error)
            assert "nothing is sent" in str(await world.manager.webhooks.test("lab"))
        assert receiver.got == []


@pytest.mark.parametrize("content", [b"", b"\n", b"half a ke", b"\xff\xfe\x00", b"A" * 43 + b"!\n"])
async def test_alarms_truncated_webhook_key_names_next_step(tmp_path: Path, content: bytes) -> None:
    async with working(tmp_path) as world:
        await world.manager.webhooks.add(WebhookRequest(name="lab", url="http://127.0.0.1:9/"))
        key = tmp_path / "node" / "secret.key"
        whole = key.read_bytes()
        key.write_bytes(content)
        with pytest.raises(MaoError, match=r"secret\.key") as raised:
            await world.manager.webhooks.test("lab")
        assert raised.value.code == "secret-key-unusable"
        await world.manager.alarms.raise_(alarm())
        await settled(world, tries=1)
        key.write_bytes(whole)
        assert "cannot be reached" in str(await world.manager.webhooks.test("lab"))


async def about_the_node(world: World, *names: str) -> None:
    """Alarms about conditions, as the services write them."""
    records = Records(world.store, keys.condition_alarms_prefix(NODE), Alarm)
    for name in names:
        told = alarm(name).model_copy(update={"kind": "disk", "service": "runner", "over": NOW})
        await records.create(name, told)


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_alarms_both_kinds_are_listed_page_by_page_each_once(tmp_path: Path, limit: int) -> None:
    async with working(tmp_path) as world:
        await about_the_node(world, "c-1", "c-2", "c-3")
        for name in ("run-1.rows", "run-2.rows"):
            await world.manager.alarms.raise_(alarm(name))
        await world.manager.alarms.acknowledge("c-2", "Ada", "")
        await world.manager.alarms.acknowledge("run-1.rows", "Ada", "")
        for open_only in (False, True):
            found: list[str] = []
            cursor = None
            while True:
                page = await world.manager.alarms.list_(open_only, limit, cursor)
                found += [item.id for item in page.items]
                assert len(page.items) <= limit
                if (cursor := page.cursor) is None:
                    break
            wanted = ["c-1", "c-2", "c-3", "run-1.rows", "run-2.rows"]
            seen = {"c-2", "run-1.rows"} if open_only else set()
            assert found == [a for a in wanted if a not in seen]


@pytest.mark.parametrize("limit", [1, 2, 100])
@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (AlarmFilter(), ["run-3.rows", "run-2.rows", "run-1.rows", "c-1"]),
        (AlarmFilter(state="open"), ["run-3.rows", "run-1.rows"]),
        (AlarmFilter(state="closed"), ["run-2.rows", "c-1"]),
        (AlarmFilter(unacknowledged=True), ["run-3.rows", "run-1.rows", "c-1"]),
        (AlarmFilter(kind="disk"), ["c-1"]),
        (AlarmFilter(kind="none"), []),
        (AlarmFilter(about="crawl"), ["run-3.rows"]),
        (AlarmFilter(about="data", state="open"), ["run-1.rows"]),
    ],
)
async def test_alarms_newest_first_with_filters(
    tmp_path: Path, wanted: AlarmFilter, expected: list[str], limit: int
) -> None:
    async with working(tmp_path) as world:
        await about_the_node(world, "c-1")  # over
        about: dict[str, dict[str, str]] = {"1": {"dataset": "data"}, "2": {}, "3": {"pipeline": "crawl"}}
        for number, names in about.items():
            raised = NOW + timedelta(minutes=int(number))
            record = alarm(f"run-{number}.rows").model_copy(update={"raised_at": raised, **names})
            await world.manager.alarms.raise_(record)
        await world.manager.alarms.acknowledge("run-2.rows", "Ada", "")
        found: list[str] = []
        cursor = None
        while True:
            page = await world.manager.alarms.newest(wanted, limit, cursor)
            found += [item.id for item in page.items]
            if (cursor := page.cursor) is None:
                break
        assert found == expected
        with pytest.raises(InvalidInput):
            await world.manager.alarms.newest(wanted, 1, "0")


@pytest.mark.parametrize("cursor", ["x", "9.", "-1.a", "0", "1.not-a-cursor"])
async def test_alarms_foreign_cursor_is_refused(tmp_path: Path, cursor: str) -> None:
    async with working(tmp_path) as world:
        with pytest.raises(InvalidInput):
            await world.manager.alarms.list_(False, 10, cursor)


async def test_alarms_about_the_node_are_retained_and_delivered_like_all(tmp_path: Path) -> None:
    with receiving() as receiver:
        async with working(tmp_path) as world:
            await about_the_node(world, "c-1")
            await world.manager.webhooks.add(WebhookRequest(name="lab", url=receiver.url))
            due = Delivery(alarm="c-1", webhook="lab", created_at=NOW)
            await world.manager.webhooks.deliveries.create("c-1~lab", due)
            await receiver.wait()
            assert b'"type":"alarm.disk"' in receiver.got[0][1]
            await settled(world, tries=None)
            assert await world.manager.alarms.retain(NOW + timedelta(days=1), 100) == 1
            assert (await world.manager.alarms.list_(False, 10, None)).items == []


async def test_alarms_unreadable_record_blocks_neither_list_nor_retention(
    tmp_path: Path,
) -> None:
    async with working(tmp_path) as world:
        await about_the_node(world, "c-1")
        for key in (keys.alarm(NODE, "odd"), keys.condition_alarm(NODE, "odd")):
            await world.store.create(key, b'{"id": "odd", "novel": 1}')
        assert [alarm.id for alarm in (await world.manager.alarms.list_(False, 10, None)).items] == ["c-1"]
        assert await world.manager.alarms.retain(NOW + timedelta(days=1), 100) == 1


def test_alarms_stored_metric_has_fields_of_previous_version_only() -> None:
    assert set(json.loads(dump(alarm()))) == {
        "id",
        "kind",
        "node",
        "raised_at",
        "value",
        "provisional",
        "detail",
    }
