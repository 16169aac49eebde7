"""Limits of connections to a real server, over real sockets with short deadlines."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress

import pytest

from mao_shared.web import envelope
from mao_shared.web.limits import ConnectionLimits
from tests.support.raw_http import CHUNKED, HOST, serve
from tests.support.waiting import eventually

NEVER = 600.0  # seconds that no test reaches
PATIENT = {"header": NEVER, "silence": NEVER, "stalled": NEVER}
POST = b"POST /raw HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"


@pytest.mark.parametrize(
    "sent", [b"GET", b"GET / HTTP/1.1\r\nHost: local", b"POST /raw HTTP/1.1\r\nHost: a\r\n"]
)
async def test_limits_header_that_stops_half_way(sent: bytes) -> None:
    async with serve(header=0.05) as site:
        client = await (await site.connect()).send(sent)
        assert await client.refused() == (408, "request-timeout")
        assert await site.lives()


async def test_limits_header_of_which_nothing_comes() -> None:
    async with serve(header=0.05) as site:
        await (await site.connect()).ended()
        assert await site.lives()


async def test_limits_header_that_drips_is_late_all_the_same() -> None:
    """The deadline covers the whole header, however steadily its bytes arrive."""
    async with serve(header=0.2) as site:
        client = await site.connect()

        async def drip() -> None:
            for _ in range(100_000):
                await client.send(b"G")
                await asyncio.sleep(0.01)

        dripping = asyncio.create_task(drip())
        assert await client.refused() == (408, "request-timeout")
        dripping.cancel()


@pytest.mark.parametrize("body", [b"", b"x" * 999])
async def test_limits_body_that_stops_half_way(body: bytes) -> None:
    async with serve(silence=0.05) as site:
        client = await (await site.connect()).send(POST, body)
        assert await client.refused() == (408, "request-timeout")
        assert site.toolbox.seen == []


@pytest.mark.parametrize("begun", [b"", b"5", b"5\r\nhel", b"5\r\nhello\r\n", b"5\nhello\n0\n\n"])
async def test_limits_chunked_body_that_stops_half_way(begun: bytes) -> None:
    """Chunk lines end in CR LF; a line without it is incomplete."""
    async with serve(silence=0.05) as site:
        head = b"POST /raw HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        client = await (await site.connect()).send(head, begun)
        assert await client.refused() == (408, "request-timeout")
        assert site.toolbox.seen == []


async def test_limits_chunks_that_are_all_extension() -> None:
    async with serve(wire=1 << 20) as site:
        client = await (await site.connect()).send(b"POST /raw HTTP/1.1\r\n", HOST, CHUNKED, b"\r\n")
        with suppress(ConnectionError):
            for _ in range(200):
                await client.send(b"1;" + b"x" * 20_000 + b"\r\nh\r\n")
        assert await client.refused() == (413, "body-too-large")


async def test_limits_body_below_the_least_rate() -> None:
    async with serve(silence=0.2, rate=1 << 20) as site:
        client = await (await site.connect()).send(POST)

        async def drip() -> None:
            for _ in range(900):
                await client.send(b"x")
                await asyncio.sleep(0.01)

        dripping = asyncio.create_task(drip())
        assert await client.refused() == (408, "request-timeout")
        dripping.cancel()


async def test_limits_idle_connection_and_answer_before_the_body() -> None:
    async with serve(idle=0, linger=0.05, **PATIENT) as site:
        client = await (await site.connect()).send(b"GET /livez HTTP/1.1\r\n", HOST, b"\r\n")
        assert (await client.answer())[0] == 200
        await client.ended()
        client = await (await site.connect()).send(
            b"GET /livez HTTP/1.1\r\n", HOST, b"Content-Length: 9\r\n\r\n123"
        )
        assert (await client.answer())[0] == 200
        await client.ended()


async def test_limits_longest_waiting_makes_room_for_a_newcomer() -> None:
    async with serve(connections=20, **PATIENT) as site:
        half = [await (await site.connect()).send(b"GET / HTTP/1.1\r\n") for _ in range(20)]
        bodies = [await (await site.connect()).send(POST) for _ in range(20)]
        assert [await client.refused() for client in half] == [(408, "request-timeout")] * 20
        assert await site.lives()
        assert await bodies[0].refused() == (408, "request-timeout")


async def test_limits_newcomer_is_refused_where_all_are_at_work() -> None:
    async with serve(connections=3) as site:
        working = [
            await (await site.connect()).send(b"GET /slow HTTP/1.1\r\n", HOST, b"\r\n") for _ in range(3)
        ]
        await eventually(lambda: not site.slots._pending)
        newcomer = await site.connect()
        assert await newcomer.refused() == (503, "too-many-connections")
        site.toolbox.go.set()
        assert [(await client.answer())[0] for client in working] == [200, 200, 200]
        assert await site.lives()


@pytest.mark.parametrize("more", [b"", b"GET /livez HTTP/1.1\r\n"])
async def test_limits_client_without_reads_is_evicted_for_a_new_one(more: bytes) -> None:
    """Otherwise a few hundred stalled clients would block the server for everyone."""
    async with serve(connections=3, **PATIENT) as site:
        for _ in range(3):
            client = await (await site.connect()).send(b"GET /flood HTTP/1.1\r\n", HOST, b"\r\n")
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await eventually(lambda: len(site.slots._pending) == 3)
        for client in site.clients:
            await client.send(more)
        for _ in range(5):
            assert await site.lives()
        assert len(site.slots._taken) <= 3


async def test_limits_connections_of_one_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mao_shared.web.limits._is_loopback", lambda _: False)
    async with serve(of_client=2) as site:
        first, _ = await site.connect(), await site.connect()
        await eventually(lambda: site.slots._of == {"127.0.0.1": 2})
        assert await (await site.connect()).refused() == (503, "too-many-connections")
        await first.close()
        await eventually(lambda: site.slots._of == {"127.0.0.1": 1})
        assert await site.lives()


async def test_limits_many_incomplete_requests_leave_room() -> None:
    """Memory for open requests is bounded, and other clients are served."""
    async with serve() as site:
        for _ in range(1000):
            await (await site.connect()).send(b"GET / HTTP/1.1\r\nX: ", b"y" * 1000)
        head = b"POST /raw HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048576\r\n\r\n"
        for _ in range(300):
            await (await site.connect()).send(head, b"z" * 100)
        assert await site.lives()
        assert len(site.slots._taken) <= ConnectionLimits().connections


async def test_limits_large_bodies_share_their_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelope, "_BODIES_AT_ONCE", 1 << 20)
    head = b"POST /raw HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
    async with serve() as site:
        first = await (await site.connect()).send(head, b"x" * 900_000)
        second = await (await site.connect()).send(head, b"x" * 900_000)
        done = {asyncio.create_task(client.head()): client for client in (first, second)}
        (answered, *_), _ = await asyncio.wait(done, return_when=asyncio.FIRST_COMPLETED)
        assert (await answered)[0] == 503
        small = await (await site.connect()).send(POST, b"x" * 1000)
        assert (await small.answer())[0] == 200
        other = second if done[answered] is first else first
        for task in done:
            task.cancel()
        await other.send(b"x" * 100_000)
        await eventually(lambda: [len(body) for body in site.toolbox.seen] == [1000, 1_000_000])


async def test_limits_body_over_the_limit_is_answered_while_it_is_still_sent() -> None:
    async with serve() as site:
        for length in (b"Content-Length: 99999999\r\n", b"Transfer-Encoding: chunked\r\n"):
            client = await site.connect()
            await client.send(b"POST /raw HTTP/1.1\r\n", HOST, length, b"\r\n")
            piece = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
            try:
                for _ in range(200):
                    await client.send(piece)
            except ConnectionError:
                pass
            assert await client.refused() == (413, "body-too-large")


async def test_limits_event_streams_beyond_their_number_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve() as site:
        monkeypatch.setattr(site.toolbox.app.state.streams, "_most", 2)
        ask = b"GET /ticks HTTP/1.1\r\n" + HOST + b"\r\n"
        first, second, third = [await (await site.connect()).send(ask) for _ in range(3)]
        statuses = [(await client.head())[0] for client in (first, second)]
        status, headers, body = await third.answer()
        assert (statuses, status, headers["retry-after"]) == ([200, 200], 503, "2")
        assert json.loads(body)["code"] == "too-many-streams"
        await first.close()
        await eventually(lambda: not site.toolbox.app.state.streams.full)
        again = await (await site.connect()).send(ask)
        assert (await again.head())[0] == 200


async def test_limits_unread_response_is_not_buffered() -> None:
    async with serve(stalled=0.2) as site:
        client = await (await site.connect()).send(b"GET /flood HTTP/1.1\r\n", HOST, b"\r\n")
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await eventually(lambda: site.toolbox.sent > 0)
        await eventually(lambda: not site.slots._taken)  # given up
        assert site.toolbox.sent < 32 << 20  # what the kernel's buffers hold


async def test_limits_requests_sent_far_ahead_end_the_connection() -> None:
    async with serve() as site:
        client = await (await site.connect()).send(b"GET /slow HTTP/1.1\r\n", HOST, b"\r\n")
        await client.send((b"GET /livez HTTP/1.1\r\n" + HOST + b"\r\n") * 3000)
        await client.ended()
        site.toolbox.go.set()
        assert await site.lives()


@pytest.mark.parametrize("path", [b"/raw", b"/model"])
@pytest.mark.parametrize("way", ["close", "reset"])
async def test_limits_client_that_leaves_is_no_error(
    path: bytes, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    json_body = b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
    begun = [
        b"GET /li",
        b"POST " + path + b" HTTP/1.1\r\n" + HOST + json_body,
        b"GET /slow HTTP/1.1\r\n" + HOST + b"\r\n",
    ]
    async with serve() as site:
        for sent in begun:
            client = await (await site.connect()).send(sent)
            await eventually(lambda: len(site.slots._taken) == 1)
            if way == "reset":
                client.writer.transport.abort()
            await client.close()
            site.toolbox.go.set()
            await eventually(lambda: not site.slots._taken)
        assert await site.lives()
    assert [record for record in caplog.records if record.levelno >= logging.ERROR or record.exc_info] == []
