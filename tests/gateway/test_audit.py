"""The audit log: every change is recorded with its caller, no secret is, and it stays small."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from mao_gateway.audit import MAX_WAITING, AuditFilter, AuditLog
from mao_gateway.audit_calls import READS, subject_of
from mao_shared import keys
from mao_shared.errors import StoreUnavailable
from mao_shared.models.audit import AuditEntry
from mao_shared.store.memory import MemoryStore
from tests.support.memory_node import MemoryNode, memory_node

from .conftest import Open, gateway, settings

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
SECRET = "correct-horse-battery-staple-0123456789"


def entry(number: int = 0, **changes: Any) -> AuditEntry:
    at = NOW + timedelta(minutes=number)
    fields = {
        "id": f"{at:%Y%m%dT%H%M%S.%f}-{number:08x}",
        "at": at,
        "node": "node-1",
        "actor": "ada",
        "actor_kind": "token",
        "action": "tools.create",
        "subject": f"tool-{number}",
        "method": "POST",
        "path": "/registry/tools",
        "status": 201,
        "request_id": "r",
    }
    return AuditEntry.model_validate(fields | changes)


class ManualClock:
    def __init__(self) -> None:
        self.moment = NOW

    def now(self) -> datetime:
        return self.moment


class AwayStore(MemoryStore):
    """A store that does not take writes while `away` is set."""

    away = False

    async def create(self, key: str, value: bytes, *, lease: int | None = None) -> int | None:
        if self.away:
            raise StoreUnavailable("away")
        return await super().create(key, value, lease=lease)


def log_on(store: MemoryStore, *, keep: int = 100, days: float = 365) -> AuditLog:
    return AuditLog("node-1", store, keep=keep, keep_for=timedelta(days=days), clock=ManualClock())


async def listed(audit: AuditLog, limit: int = 100, **wanted: Any) -> list[str | None]:
    page = await audit.page(AuditFilter(**wanted), limit, None)
    return [found.subject for found in page.items]


# what is recorded


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[MemoryNode]:
    async with memory_node(tmp_path) as node:
        yield node


async def audited(node: MemoryNode, **parameters: Any) -> list[dict[str, Any]]:
    answer = await node.client.get("/audit", params=parameters)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def test_audit_changes_and_refusals_with_their_subject(node: MemoryNode) -> None:
    tool = {"name": "crawler", "image": "busybox"}
    for method, path, body in (
        ("POST", "/registry/tools", tool),
        ("POST", "/registry/tools", tool | {"image": "other"}),
        ("PUT", "/registry/tools/crawler", tool | {"author": "lab"}),
        ("DELETE", "/registry/tools/crawler", None),
        ("POST", "/runs/none/cancel", None),
    ):
        await node.client.request(
            method, path, json=body, headers={"user-agent": "curl/8", "x-request-id": "r1"}
        )
    found = await audited(node)
    assert [(item["action"], item["subject"], item["status"]) for item in reversed(found)] == [
        ("tools.create", "crawler", 201),
        ("tools.create", "crawler", 409),
        ("tools.update", "crawler", 200),
        ("tools.delete", "crawler", 200),
        ("runs.cancel", "none", 404),
    ]
    assert {(item["user_agent"], item["request_id"], item["node"]) for item in found} == {
        ("curl/8", "r1", "node-1")
    }


async def test_audit_no_reads_and_no_calls_that_reach_nothing(node: MemoryNode) -> None:
    calls = [("GET", path) for path in ("/registry/tools", "/runs", "/status", "/audit")]
    calls += [
        ("POST", "/cron/preview"),
        ("POST", "/inspect"),
        ("POST", "/registry/nothing"),
        ("PATCH", "/jobs"),
    ]
    for method, path in calls:
        await node.client.request(method, path, json={} if method != "GET" else None)
    assert await audited(node) == []


async def test_audit_every_operation_that_is_no_get_is_recorded_or_read(node: MemoryNode) -> None:
    """Operations that are added are recorded without being named anywhere."""
    known = {operation["operationId"] for _, _, operation in node.operations()}
    assert known >= READS
    expected = set()
    for method, path, operation in node.operations():
        if method != "GET" and not path.startswith("/federation"):
            filled = path.replace("{", "").replace("}", "")
            await node.client.request(method, filled, json={})
            expected.add(operation["operationId"])
    found = {item["action"] for item in await audited(node, limit=1000)}
    assert found == expected - READS


async def test_audit_holds_no_secret(node: MemoryNode) -> None:
    token = "ghp_" + "a1B2" * 10
    await node.client.post("/webhooks", json={"name": "chat", "url": "https://127.0.0.1/x", "secret": SECRET})
    await node.client.post("/federation/join", json={"token": SECRET})
    await node.client.post("/registry/tools", json={"name": token, "image": "b", "env": {"PASSWORD": SECRET}})
    await node.client.put(f"/registry/tools/{token}", json={"name": token, "image": "busybox"})
    await node.client.post(
        f"/runs/x/cancel?password={SECRET}",
        headers={"authorization": f"Bearer {SECRET}", "user-agent": token},
    )
    await node.client.post(
        "/registry/datasets", json={"name": "d", "master": f"https://u:{SECRET}@127.0.0.1/x"}
    )
    found = await audited(node)
    assert len(found) == 6
    assert SECRET not in json.dumps(found)
    assert token not in json.dumps(found)
    stored = (await node.store.list(keys.audit_prefix("node-1"))).entries
    assert not any(SECRET.encode() in record.value or token.encode() in record.value for record in stored)


async def test_audit_names_token_and_hides_operation_headers(store: MemoryStore, tmp_path: Path) -> None:
    async def service(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"x-mao-operation", b"jobs.delete"), (b"x-mao-subject", b"a%2Fb")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    from mao_gateway.app import make_app
    from mao_gateway.auth import new_token

    token, line = new_token("ada")
    (tmp_path / "tokens").write_text(f"{line}\n")
    with_tokens = settings().model_copy(update={"tokens_file": tmp_path / "tokens"})
    app = make_app(with_tokens, store=store, transports={"scheduler": httpx.ASGITransport(service)})
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost:8080")
    async with app.router.lifespan_context(app), client:
        assert (await client.delete("/jobs/x")).status_code == 401
        mine = {"authorization": f"Bearer {token}"}
        answer = await client.delete("/jobs/x", headers=mine)
        found = (await client.get("/audit", headers=mine)).json()["items"]
    assert not [name for name in answer.headers if name.startswith("x-mao-")]
    assert [(item["actor"], item["actor_kind"], item["subject"]) for item in found] == [
        ("ada", "token", "a/b")
    ]


async def test_audit_call_without_answer_of_the_service(open_gateway: Open) -> None:
    async with open_gateway() as client:
        assert (await client.post("/runs/x/cancel")).status_code == 503
        (item,) = (await client.get("/audit")).json()["items"]
    assert (item["status"], item["path"], item.get("action")) == (503, "/runs/x/cancel", None)


@pytest.mark.parametrize("action", ["pipelines/daily/run", "pipelines/daily/withdraw", "datasets/raw/push"])
async def test_audit_form_without_answer_of_the_service(open_gateway: Open, action: str) -> None:
    """The page that the form leads to tells the error; the service may have carried it out."""
    async with open_gateway() as client:
        assert (await client.post(f"/ui/{action}")).status_code == 303
        (item,) = (await client.get("/audit")).json()["items"]
    assert (item["status"], item["path"], item.get("action")) == (503, f"/ui/{action}", None)


async def test_audit_call_whose_caller_leaves(store: MemoryStore) -> None:
    """The service may have carried it out."""
    left = asyncio.Event()

    async def service(scope: Scope, receive: Receive, send: Send) -> None:
        left.set()
        await asyncio.Event().wait()

    async def receive() -> dict[str, Any]:
        if not asked:
            asked.append(True)
            return {"type": "http.request", "body": b"", "more_body": False}
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        raise AssertionError(message)

    asked: list[bool] = []
    app = gateway(store, {"scheduler": service})
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost:8080")
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/runs/x/cancel",
        "raw_path": b"/runs/x/cancel",
        "query_string": b"",
        "headers": [(b"host", b"localhost:8080")],
        "client": None,
        "server": None,
        "scheme": "http",
        "http_version": "1.1",
    }
    async with app.router.lifespan_context(app), client:
        await app(scope, receive, send)
        (item,) = (await client.get("/audit")).json()["items"]
    assert (item["status"], item["path"]) == (499, "/runs/x/cancel")


# the log itself


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        ({}, [3, 2, 1, 0]),
        ({"actor": "bob"}, [1]),
        ({"action": "runs.cancel"}, [2]),
        ({"action": "runs"}, [2]),
        ({"action": "run"}, []),
        ({"subject": "tool-3"}, [3]),
        ({"failed": True}, [3]),
        ({"failed": False}, [2, 1, 0]),
        ({"since": NOW + timedelta(minutes=2)}, [3, 2]),
        ({"until": NOW + timedelta(minutes=1)}, [1, 0]),
    ],
)
async def test_audit_filters(wanted: dict[str, Any], numbers: list[int]) -> None:
    audit = log_on(MemoryStore())
    for changed in (
        entry(0),
        entry(1, actor="bob"),
        entry(2, action="runs.cancel"),
        entry(3, status=409),
    ):
        await audit.record(changed)
    assert await listed(audit, **wanted) == [f"tool-{number}" for number in numbers]


async def test_audit_pages_cover_all_once() -> None:
    audit = log_on(MemoryStore())
    for number in range(25):
        await audit.record(entry(number, actor="bob" if number % 5 == 0 else "ada"))
    for wanted, count in ((AuditFilter(), 25), (AuditFilter(actor="bob"), 5)):
        seen: list[str] = []
        cursor: str | None = None
        while True:
            page = await audit.page(wanted, 3, cursor)
            seen += [found.id for found in page.items]
            cursor = page.cursor
            if cursor is None:
                break
        assert seen == sorted(set(seen), reverse=True)
        assert len(seen) == count


@pytest.mark.parametrize(("keep", "days", "left"), [(3, 365, 3), (100, 1, 0), (100, 3, 5), (1000, 365, 300)])
async def test_audit_prune_by_number_and_age(keep: int, days: float, left: int) -> None:
    store = MemoryStore()
    audit = log_on(store, keep=keep, days=days)
    for number in range(300 if keep == 1000 else 5):
        await audit.record(entry(number, at=NOW - timedelta(days=2), id=f"20260129T120000.{number:06}-0"))
    await audit.prune()
    subjects = await listed(audit, 1000)
    assert len(subjects) == left
    assert subjects[:1] == ([f"tool-{299 if keep == 1000 else 4}"] if left else [])


async def test_audit_prune_more_than_a_transaction() -> None:
    audit = log_on(MemoryStore(), keep=10)
    for number in range(300):
        await audit.record(entry(number))
    assert await audit.prune() == 290
    assert len(await listed(audit)) == 10


async def test_audit_entries_wait_while_the_store_is_away() -> None:
    store = AwayStore()
    audit = log_on(store)
    store.away = True
    for number in range(MAX_WAITING + 2):
        await audit.record(entry(number))
    await audit.flush()
    assert await listed(audit) == []
    store.away = False
    await audit.flush()
    page = await audit.page(AuditFilter(), 2000, None)
    assert [found.subject for found in page.items][-1] == "tool-2"  # the oldest are dropped
    assert len(page.items) == MAX_WAITING


@pytest.mark.parametrize(
    ("body", "subject"),
    [
        (b'{"name": "a"}', "a"),
        (b'{"tool": "t", "dataset": "d"}', "t"),
        (b'{"name": 1, "node": "n"}', "n"),
        (b"[1]", None),
        (b"", None),
        (b"{", None),
        (b"\xff", None),
        (b"[" * 60_000, None),
        (b'{"name": "' + b"x" * (64 << 10) + b'"}', None),
    ],
)
def test_audit_subject_of_body(body: bytes, subject: str | None) -> None:
    assert subject_of(body) == subject
