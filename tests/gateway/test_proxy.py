"""Forwarding by the gateway, also to services that are slow, unreachable or break off."""

from __future__ import annotations

import asyncio
import re

import httpx
import pytest

from mao_gateway.routes import own_routes
from mao_gateway.routing import ROUTES
from mao_shared.store.memory import MemoryStore
from tests.support.services import BreakingService, RecordingService, SlowService, StreamingService, serving
from tests.support.waiting import eventually

from .conftest import Open, gateway


@pytest.mark.parametrize(
    ("call", "service"),
    [
        ("POST /registry/tools", "registry"),
        ("GET /registry/nodes/n-1", "registry"),
        ("GET /pipeline", "registry"),
        ("POST /pipeline/init", "registry"),
        ("PUT /enrolments/p", "registry"),
        ("POST /pipeline/run", "scheduler"),
        ("GET /jobs", "scheduler"),
        ("DELETE /jobs/j", "scheduler"),
        ("POST /jobs/j/backfill", "scheduler"),
        ("POST /cron/preview", "scheduler"),
        ("GET /runs", "scheduler"),
        ("GET /runs/r/events", "scheduler"),
        ("POST /runs/r/cancel", "scheduler"),
        ("GET /runs/r/logs", "runner"),
        ("POST /images/resolve", "runner"),
        ("POST /tools/check", "runner"),
        ("GET /engine", "runner"),
        ("POST /bare-repo/init", "datamgmt"),
        ("GET /datasets", "datamgmt"),
        ("GET /datasets/d/log", "datamgmt"),
        ("PUT /datasets/d", "datamgmt"),
        ("POST /read", "datamgmt"),
    ],
)
async def test_routes_every_path_has_service(open_gateway: Open, call: str, service: str) -> None:
    double = RecordingService()
    method, path = call.split()
    async with open_gateway({service: double}) as client:
        answer = await client.request(method, path)
    assert answer.status_code == 200
    assert (double.seen[0]["method"], double.seen[0]["path"]) == (method, path)


async def test_proxy_unknown_path(open_gateway: Open) -> None:
    async with open_gateway() as client:
        answer = await client.get("/nowhere")
    assert (answer.status_code, answer.json()["code"]) == (404, "no-such-route")


async def test_proxy_query_body_headers_unchanged(open_gateway: Open) -> None:
    double = RecordingService(201, {"etag": '"7"', "location": "/runs/r"})
    async with open_gateway({"scheduler": double}) as client:
        answer = await client.post(
            "/pipeline/run?a=1&a=%2F%20",
            content=b'{"name": "p\xc3\xa4"}',
            headers={"content-type": "application/json", "if-match": '"6"', "idempotency-key": "k"},
        )
    seen, headers = double.seen[0], dict(double.seen[0]["headers"])
    assert (seen["query"], seen["body"]) == ("a=1&a=%2F%20", '{"name": "pä"}')
    assert (headers["if-match"], headers["idempotency-key"]) == ('"6"', "k")
    assert (answer.status_code, answer.headers["etag"], answer.headers["location"]) == (201, '"7"', "/runs/r")


async def test_proxy_replaces_caller_headers(open_gateway: Open) -> None:
    double = RecordingService()
    page = {"origin": "http://localhost:8080", "sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}
    async with open_gateway({"registry": double}) as client:
        await client.get("/registry/tools", headers={**page, "cookie": "a=b", "authorization": "Bearer x"})
    assert not {*page, "cookie", "authorization"} & dict(double.seen[0]["headers"]).keys()


async def test_proxy_keeps_escaped_slash(open_gateway: Open) -> None:
    double = RecordingService()
    async with open_gateway({"registry": double}) as client:
        await client.delete("/registry/tools/a%2F..%2Fb?x=%2e")
    assert (double.seen[0]["raw_path"], double.seen[0]["query"]) == ("/registry/tools/a%2F..%2Fb", "x=%2e")


async def test_proxy_rejects_dot_segments(open_gateway: Open) -> None:
    double = RecordingService()
    async with open_gateway({"registry": double}) as client:
        answer = await client.delete("/registry/tools/%2e%2e/datasets")
    assert (answer.status_code, double.seen) == (404, [])


async def test_proxy_drops_credentials_and_hop_headers(open_gateway: Open) -> None:
    double = RecordingService(
        headers={"connection": "x-hop", "x-hop": "1", "keep-alive": "5", "server": "old"}
    )
    sent = {
        "authorization": "Bearer t",
        "cookie": "a=b",
        "te": "trailers",
        "connection": "x-mine",
        "x-mine": "1",
    }
    async with open_gateway({"runner": double}) as client:
        answer = await client.get("/engine", headers=sent)
    assert not {name for name, _ in double.seen[0]["headers"]} & {"authorization", "cookie", "te", "x-mine"}
    assert not {"x-hop", "keep-alive", "server"} & set(answer.headers)


async def test_proxy_forwards_request_id(open_gateway: Open) -> None:
    double = RecordingService()
    async with open_gateway({"runner": double}) as client:
        answer = await client.get("/engine", headers={"x-request-id": "req-1"})
    assert [value for name, value in double.seen[0]["headers"] if name == "x-request-id"] == ["req-1"]
    assert answer.headers.get_list("x-request-id") == ["req-1"]


async def test_proxy_sandboxes_dataset_file(open_gateway: Open) -> None:
    async with open_gateway({"datamgmt": RecordingService(headers={"content-type": "text/html"})}) as client:
        answer = await client.get("/datasets/d/file?path=evil.html")
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_proxy_unreachable_service(open_gateway: Open) -> None:
    async with open_gateway() as client:
        answer = await client.post("/registry/tools", json={})
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["service"]) == (
        503,
        "service-unavailable",
        "registry",
    )
    assert "maoctl doctor" in problem["next"]
    assert answer.headers["retry-after"] == "2"


async def test_proxy_silent_service_times_out(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = SlowService()
    at = next(i for i, route in enumerate(ROUTES) if route.path == "/engine")
    impatient = [*ROUTES[:at], type(ROUTES[at])("/engine", "runner", 0.05), *ROUTES[at + 1 :]]
    monkeypatch.setattr("mao_gateway.routes.ROUTES", impatient)
    monkeypatch.setattr("mao_gateway.app.SERVICE_ROUTES", own_routes())
    async with serving(slow) as url, serving(gateway(store, {}, runner=url)) as front:
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"{front}/engine")
        slow.go.set()
    assert answer.status_code == 503
    assert "did not answer in time" in answer.json()["detail"]


async def test_proxy_caller_leaves_before_answer(
    store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    slow = SlowService()
    async with serving(slow) as url, serving(gateway(store, {}, runner=url)) as front:
        async with httpx.AsyncClient() as client:
            call = asyncio.create_task(client.get(f"{front}/engine"))
            await asyncio.wait_for(slow.reached.wait(), 60)
            call.cancel()
        await asyncio.wait_for(slow.left.wait(), 60)
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("sent", [b"", b'{"name": '])
async def test_proxy_caller_leaves_during_body(
    store: MemoryStore, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    double = RecordingService()
    async with serving(double) as url, serving(app := gateway(store, {}, registry=url)) as front:
        _, writer = await asyncio.open_connection("127.0.0.1", int(front.rpartition(":")[2]))
        head = b"POST /registry/tools HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n"
        writer.write(head + sent)
        await writer.drain()
        writer.transport.abort()
        await eventually(lambda: 'status="499"' in app.state.metrics.render().decode())
    assert double.seen == []
    assert [record for record in caplog.records if record.levelname == "ERROR" or record.exc_info] == []


@pytest.mark.parametrize(
    "headers",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Content-Length: 5\r\nConnection: content-length\r\nTransfer-Encoding: chunked\r\n",
    ],
)
async def test_proxy_rejects_ambiguous_length(store: MemoryStore, headers: bytes) -> None:
    double = RecordingService()
    async with serving(double) as url, serving(gateway(store, {}, registry=url)) as front:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(front.rpartition(":")[2]))
        second = b"GET /registry/tools HTTP/1.1\r\nHost: localhost\r\n\r\n"
        writer.write(b"POST /registry/tools HTTP/1.1\r\nHost: localhost\r\n" + headers)
        writer.write(b"\r\n0\r\n\r\n" + second)
        answer = await asyncio.wait_for(reader.read(), 60)
        writer.close()
        assert re.findall(rb"HTTP/1\.1 (\d\d\d) ", answer) in ([b"400"], [b"501"])
    assert double.seen == []


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (b"Transfer-Encoding: chunked\r\n", b"5;a=b\r\nhello\r\n0\r\nX-Trailer: y\r\n\r\n"),
        (b"Content-Length: 5\r\nX-Folded: a\r\n  b\r\n", b"hello"),
        (b"content-length: 5\nX-Bare: c\n", b"hello"),
    ],
)
async def test_proxy_rejects_unusual_form(store: MemoryStore, headers: bytes, body: bytes) -> None:
    """The request is rewritten: one length, no trailers, no folded lines."""
    double = RecordingService()
    async with serving(double) as url, serving(gateway(store, {}, registry=url)) as front:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(front.rpartition(":")[2]))
        writer.write(b"POST /registry/tools HTTP/1.1\r\nHost: localhost\r\n" + headers + b"\r\n" + body)
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
        writer.close()
    (seen,) = double.seen
    names = [name for name, _ in seen["headers"]]
    assert (seen["body"], names.count("content-length")) == ("hello", 1)
    assert not {"transfer-encoding", "x-trailer", "trailer"} & set(names)
    assert all("\n" not in value and "\r" not in value for _, value in seen["headers"])


async def test_proxy_streams_events(store: MemoryStore) -> None:
    double = StreamingService()
    async with serving(double) as url, serving(gateway(store, {}, scheduler=url)) as front:
        async with httpx.AsyncClient() as client, client.stream("GET", f"{front}/runs/r/events") as answer:
            pieces = answer.aiter_raw()
            for piece in (b"data: 1\n\n", b"data: 2\n\n"):
                double.pieces.put_nowait(piece)
                assert await asyncio.wait_for(anext(pieces), 60) == piece
            assert answer.headers["content-type"] == "text/event-stream"
        await asyncio.wait_for(double.left.wait(), 60)


async def test_proxy_open_streams_do_not_block_stop(store: MemoryStore) -> None:
    double = StreamingService()
    double.pieces.put_nowait(b"data: 1\n\n")
    async with serving(double) as url, httpx.AsyncClient() as client:
        front = serving(gateway(store, {}, scheduler=url))
        async with client.stream("GET", f"{await front.__aenter__()}/runs/r/events") as answer:
            pieces = answer.aiter_raw()
            await asyncio.wait_for(anext(pieces), 60)
            await asyncio.wait_for(front.__aexit__(None, None, None), 60)
            assert [piece async for piece in pieces] == []  # ended in order, not broken off


async def test_proxy_broken_answer_is_broken_off(store: MemoryStore) -> None:
    async with serving(BreakingService()) as url, serving(gateway(store, {}, runner=url)) as front:
        with pytest.raises(httpx.RemoteProtocolError):
            await _get(f"{front}/engine")


async def _get(url: str) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.get(url)


async def test_service_pages(open_gateway: Open) -> None:
    double = RecordingService()
    async with open_gateway({"runner": double}) as client:
        assert (await client.get("/services/runner/docs")).status_code == 200
        assert (await client.get("/services/runner/docs/swagger-ui.css")).status_code == 200
        assert (await client.get("/services/runner/openapi.json")).status_code == 200
        assert (await client.get("/services/runner/metrics")).status_code == 200
        refused = [
            await client.get(f"/services/{at}") for at in ("runner/engine", "etcd/metrics", "runner/docsx")
        ]
    assert [request["path"] for request in double.seen] == [
        "/docs",
        "/docs/swagger-ui.css",
        "/openapi.json",
        "/metrics",
    ]
    assert [answer.status_code for answer in refused] == [404, 404, 404]


async def test_proxy_request_is_logged_once(open_gateway: Open, capsys: pytest.CaptureFixture[str]) -> None:
    async with open_gateway({"registry": RecordingService()}) as client:
        await client.post("/registry/tools", json={})
        await client.post("/jobs", json={})  # nobody there: the gateway answers this itself
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition("path=")[2].split()[0] for line in lines if "http.request" in line] == ["/jobs"]
