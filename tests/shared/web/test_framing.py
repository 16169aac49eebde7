"""Requests with ambiguous framing, over real sockets."""

from __future__ import annotations

import pytest

from mao_shared.web.envelope import MAX_HEADER
from tests.support.raw_http import CHUNKED, HOST, serve

TOO_MANY = [
    (b"GET /livez HTTP/1.1\r\nX: " + b"y" * MAX_HEADER, 431, "header-too-large"),
    (b"GET /livez HTTP/1.1\r\nHost: a\r\nX: " + b"y" * MAX_HEADER + b"\r\n\r\n", 431, "header-too-large"),
    (b"GET /livez HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 101 + b"\r\n", 431, "header-too-large"),
    (b"GET /livez?" + b"y" * 17_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414, "target-too-long"),
]


@pytest.mark.parametrize(("sent", "status", "code"), TOO_MANY)
async def test_framing_header_that_is_too_large(sent: bytes, status: int, code: str) -> None:
    async with serve() as site:
        assert await (await (await site.connect()).send(sent)).refused() == (status, code)


AMBIGUOUS = {
    "both": (b"Content-Length: 5\r\n" + CHUNKED, 400),
    "both, the other way round": (CHUNKED + b"Content-Length: 0\r\n", 400),
    "different lengths": (b"Content-Length: 5\r\nContent-Length: 6\r\n", 400),
    "different lengths in one": (b"Content-Length: 5, 6\r\n", 400),
    "plus": (b"Content-Length: +5\r\n", 400),
    "minus": (b"Content-Length: -5\r\n", 400),
    "space inside": (b"Content-Length: 1 0\r\n", 400),
    "hexadecimal": (b"Content-Length: 0x5\r\n", 400),
    "huge": (b"Content-Length: " + b"9" * 5000 + b"\r\n", 400),
    "space before the colon": (b"Content-Length : 5\r\n", 400),
    "NUL": (b"X: a\0b\r\n", 400),
    "bare CR": (b"X: a\rContent-Length: 5\r\n", 400),
    "two codings": (b"Transfer-Encoding: gzip, chunked\r\n", 501),
    "chunked twice": (b"Transfer-Encoding: chunked, chunked\r\n", 501),
    "chunked in two lines": (CHUNKED + CHUNKED, 501),
    "identity": (b"Transfer-Encoding: identity\r\n", 501),
    "vertical tab": (b"Transfer-Encoding: \x0bchunked\r\n", 400),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
async def test_framing_ambiguous_request_end_is_refused(case: str) -> None:
    headers, status = AMBIGUOUS[case]
    async with serve() as site:
        client = await site.connect()
        await client.send(
            b"POST /raw HTTP/1.1\r\n", HOST, headers, b"\r\n0\r\n\r\nGET /slow HTTP/1.1\r\n", HOST, b"\r\n"
        )
        assert (await client.refused())[0] == status
        assert site.toolbox.seen == []


async def test_framing_chunked_is_not_of_http_1_0() -> None:
    async with serve() as site:
        client = await site.connect()
        await client.send(b"POST /raw HTTP/1.0\r\n", CHUNKED, b"\r\n0\r\n\r\n")
        assert await client.refused() == (400, "length-ambiguous")


@pytest.mark.parametrize(
    "body",
    [
        b"5\r\nhelloXX0\r\n\r\n",
        b"-5\r\nhello\r\n",
        b"0x5\r\nhello\r\n",
        b"f" * 30 + b"\r\n",
    ],
)
async def test_framing_chunk_that_is_malformed(body: bytes) -> None:
    async with serve() as site:
        client = await (await site.connect()).send(b"POST /raw HTTP/1.1\r\n", HOST, CHUNKED, b"\r\n", body)
        assert await client.refused() == (400, "request-malformed")
        assert site.toolbox.seen == []


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (CHUNKED, b"5;name=value\r\nhello\r\n0\r\n\r\n"),
        (b"transfer-ENCODING: Chunked\r\n", b"5\r\nhello\r\n0\r\nTrailer: x\r\n\r\n"),
        (b"Content-Length: 5\r\nContent-Length: 5\r\n", b"hello"),
        (b"X: one\r\n two\r\nContent-Length: 5\r\n", b"hello"),
    ],
)
async def test_framing_unusual_request_whose_end_is_clear(headers: bytes, body: bytes) -> None:
    async with serve() as site:
        client = await (await site.connect()).send(b"POST /raw HTTP/1.1\r\n", HOST, headers, b"\r\n", body)
        assert (await client.answer())[2] == b"5"
        assert site.toolbox.seen == [b"hello"]
