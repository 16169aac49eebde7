"""Allowed addresses of webhooks: the address of the connection counts, however the URL is written."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mao_shared.clients.webhook import WebhookClient, refused_kind

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


class Receiver:
    """Server that answers every request with the same lines and records what it received."""

    def __init__(self) -> None:
        self.answer = b"HTTP/1.1 204 No Content\r\n\r\n"
        self.got: list[str] = []
        self.port = 0

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.got.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(self.answer)
        await writer.drain()
        writer.close()

    @asynccontextmanager
    async def serving(
        self, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
    ) -> AsyncIterator[Receiver]:
        async with await asyncio.start_server(self._take, host, 0, ssl=tls) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield self


async def send(url: str, *hosts: str) -> str | None:
    client = WebhookClient(timeout=10, hosts=hosts)
    try:
        return await client.post(url, "secret", "id-1", NOW, b"{}")
    finally:
        await client.close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def resolve(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Make names resolve to these addresses, one list per query, the last repeated; returns the queries."""
    asked: list[str] = []

    async def answer(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        found = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", answer)
    return asked


HERE = [
    "127.0.0.1", "localhost", "LOCALHOST", "localhost.", "127.0.0.53", "127.1", "2130706433", "0x7f000001",
"0x7f.1", "0.0.0.0", "0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]",
    "[::127.0.0.1]", "[64:ff9b::127.0.0.1]", "[2002:7f00:1::]", "[0:0:0:0:0:0:0:1]",
]  # fmt: skip


@pytest.mark.parametrize("host", HERE)
async def test_post_to_this_machine_is_refused(host: str) -> None:
    async with Receiver().serving(host="127.0.0.1") as receiver:
        error = await send(f"http://{host}:{receiver.port}/")
        assert error is not None
        assert "nothing is sent to" in error
        assert "MAO_WEBHOOK_HOSTS=" in error
        assert receiver.got == []


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("169.254.169.254", "link-local"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("::ffff:169.254.169.254", "link-local"),
        ("64:ff9b::a9fe:a9fe", "link-local"),
        ("2002:a9fe:a9fe::1", "link-local"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("255.255.255.255", "reserved"),
        ("240.0.0.1", "reserved"),
        ("0.1.2.3", "reserved"),
        ("64:ff9b:1::1", "reserved"),
        ("100.100.100.200", "metadata"),
        ("fd00:ec2::254", "metadata"),
        ("127.255.255.254", "this machine"),
        ("::ffff:0:0", "this machine"),
    ],
)
def test_webhook_client_refused_kind(address: str, kind: str) -> None:
    assert kind in str(refused_kind(address))


@pytest.mark.parametrize(
    "address", ["192.0.2.1", "10.20.30.40", "192.168.77.7", "172.20.0.99", "fd12::1", "2001:db8::1", "a-name"]
)
def test_webhook_client_refused_kind_none(address: str) -> None:
    assert refused_kind(address) is None


def test_webhook_client_refused_kind_of_an_address_of_an_interface() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9)) if _has_route() else probe.bind(("127.0.0.1", 0))
        own = probe.getsockname()[0]
    assert refused_kind(own) == "this machine"


def _has_route() -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return probe.connect_ex(("192.0.2.1", 9)) == 0


@pytest.mark.parametrize("answers", [["127.0.0.1"], ["192.0.2.1", "127.0.0.1"], ["169.254.1.1"]])
async def test_post_to_a_name_that_means_this_machine(
    monkeypatch: pytest.MonkeyPatch, answers: list[str]
) -> None:
    resolve(monkeypatch, answers)
    assert "nothing is sent to receiver.example (" in str(await send("http://receiver.example/"))


async def test_post_to_a_service_of_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under compose, services have private addresses."""
    resolve(monkeypatch, ["172.20.0.9"])
    client = WebhookClient(parts=["scheduler", "10.1.2.3"])
    assert "a service of this node" in str(await client.check("http://other-name:8082/runs/x/cancel"))
    await client.close()


async def test_post_goes_to_the_address_that_was_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Receiver().serving() as receiver:
        asked = resolve(monkeypatch, ["127.0.0.1"], ["192.0.2.1"])
        host = f"receiver.example:{receiver.port}"
        assert await send(f"http://{host}/alarms?a=b", host) is None
        assert asked == ["receiver.example"]
        assert receiver.got[0].startswith("POST /alarms?a=b HTTP/1.1\r\n")
        assert f"\r\nhost: {host}\r\n" in receiver.got[0].lower()


@pytest.mark.parametrize("allowed", ["127.0.0.1", "LOCALHOST", " localhost", "127.0.0.1:{port}"])
async def test_post_to_a_host_that_the_setting_names(allowed: str) -> None:
    async with Receiver().serving() as receiver:
        host = allowed.strip().lower().partition(":")[0]
        assert await send(f"http://{host}:{receiver.port}/", allowed.format(port=receiver.port)) is None
        assert len(receiver.got) == 1


@pytest.mark.parametrize("allowed", ["127.0.0.1:9", "127.0.0.2", "localhost", "*", ""])
async def test_post_to_another_host_than_the_setting_names(allowed: str) -> None:
    async with Receiver().serving() as receiver:
        assert "nothing is sent" in str(await send(f"http://127.0.0.1:{receiver.port}/", allowed))
        assert receiver.got == []


async def test_post_follows_no_redirect(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Receiver().serving() as target, Receiver().serving() as receiver:
        where = f"http://127.0.0.1:{target.port}/".encode()
        receiver.answer = b"HTTP/1.1 307 Elsewhere\r\nLocation: " + where + b"\r\nContent-Length: 0\r\n\r\n"
        resolve(monkeypatch, ["127.0.0.1"])
        host = f"receiver.example:{receiver.port}"
        assert await send(f"http://{host}/", host) == "it answered 307"
        assert target.got == []


@pytest.mark.parametrize(
    "url",
    ["http://no-such.invalid/", f"http://{'a' * 64}.example/", "http://127.0.0.1:1/", "http://0177.0.0.1/"],
)
async def test_post_to_where_nobody_is(url: str) -> None:
    assert "it cannot be reached" in str(await send(url, "127.0.0.1"))


async def test_post_by_a_proxy_names_no_host_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Receiver().serving() as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        assert await send("http://receiver.example/") is None
        assert proxy.got[0].startswith("POST http://receiver.example/ HTTP/1.1\r\n")
        for host in ("localhost", "x.localhost", "127.1", "[::ffff:127.0.0.1]", "169.254.169.254"):
            assert "nothing is sent" in str(await send(f"http://{host}/"))
        assert len(proxy.got) == 1


async def test_webhook_client_certificate_is_of_the_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    certificate, tls = certificate_for("receiver.example", tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with Receiver().serving(tls) as receiver:
        resolve(monkeypatch, ["127.0.0.1"])
        assert await send(f"https://receiver.example:{receiver.port}/", "receiver.example") is None
        error = await send(f"https://other.example:{receiver.port}/", "other.example")
        assert "certificate" in str(error).lower()


def certificate_for(name: str, folder: Path) -> tuple[Path, ssl.SSLContext]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path, key_path = folder / "certificate.pem", folder / "key.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    key_path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, key_path)
    return path, context
