"""The version reported by a member of a federation's etcd, and its access rules."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from mao_shared.clients.etcd_http import ask_version
from mao_shared.store import TlsFiles
from tests.support.etcd import version_of
from tests.support.federation_etcd import ADMIN, FederationEtcd, federation_etcd
from tests.support.ports import free_port

pytestmark = pytest.mark.etcd


@pytest.fixture(scope="module")
def federation() -> Iterator[FederationEtcd]:
    with federation_etcd() as running:
        yield running


async def test_version_is_told_to_core_member_and_invited_alike(federation: FederationEtcd) -> None:
    member, invited = await federation.join("node-2"), await federation.invite("node-3")
    for files in (federation.files(ADMIN), member, invited):
        assert await ask_version(federation.endpoints, files) == version_of("etcd")


async def test_version_is_not_believed_of_another_authoritys_server(federation: FederationEtcd) -> None:
    with federation_etcd() as other:
        assert await ask_version(other.endpoints, federation.files(ADMIN)) is None


async def test_version_of_what_does_not_answer_is_not_known(federation: FederationEtcd) -> None:
    files = federation.files(ADMIN)
    assert await ask_version(f"127.0.0.1:{free_port()}", files) is None
    assert await ask_version("127.0.0.1:1/x y", files) is None
    files.certificate.unlink()
    assert await ask_version(federation.endpoints, files) is None


@asynccontextmanager
async def answering(files: TlsFiles, status: str, body: bytes) -> AsyncIterator[str]:
    """Run a server with the federation's authority that gives the same answer to every request."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.certificate, files.key)
    port = free_port()
    async with await asyncio.start_server(answer, "127.0.0.1", port, ssl=context):
        yield f"127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        ("200 OK", b"no json"),
        ("200 OK", b'["3.5.30"]'),
        ("200 OK", b'{"etcdcluster": "3.5.0"}'),
        ("200 OK", b'{"etcdserver": 3}'),
        ("404 Not Found", b'{"etcdserver": "3.5.33"}'),
    ],
)
async def test_version_that_is_none_is_empty(federation: FederationEtcd, status: str, body: bytes) -> None:
    async with answering(federation.files("server@1", server=True), status, body) as endpoint:
        assert await ask_version(endpoint, federation.files(ADMIN)) == ""
