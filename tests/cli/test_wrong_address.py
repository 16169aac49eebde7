"""Wrong gateway addresses: http for https or the reverse, untrusted certificates, unknown hosts."""

from __future__ import annotations

import http.server
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from mao_shared.clients.gateway_http import explain_failure
from maoctl.main import run_command
from maoctl.session import CliSession
from tests.support.ports import free_port

from .gateways import RememberingGateway

Told = Callable[[str], str]


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    """Return the errors of `maoctl tool get` with an unusable gateway."""

    def ask(url: str) -> str:
        assert run_command(["tool", "get"], CliSession({"MAO_URL": url})) == 6
        return capsys.readouterr().err

    return ask


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with a self-signed certificate for `localhost` and its key."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
            "-keyout",
            str(folder / "key"),
            "-out",
            str(folder / "cert"),
        ],
        check=True,
        capture_output=True,
    )
    both = folder / "both.pem"
    both.write_text((folder / "cert").read_text() + (folder / "key").read_text())
    return both


@contextmanager
def web_server(answer: tuple[int, dict[str, str], bytes], certificate: Path | None = None) -> Iterator[int]:
    """Run a server that gives the same response to every request; yields its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = answer
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass  # a handshake that was broken off

        def get_request(self) -> tuple[socket.socket, object]:
            connection, address = super().get_request()
            if certificate is None:
                return connection, address
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            try:
                return context.wrap_socket(connection, server_side=True), address
            except OSError:
                connection.close()
                raise

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_https_to_a_plain_http_node(told: Told, gateway: RememberingGateway, url: str) -> None:
    said = told(url.replace("http:", "https:"))
    assert "speaks plain HTTP, not HTTPS" in said
    assert f"next: Use {url} in --url or MAO_URL." in said
    assert [call.path for call in gateway.calls] == ["/livez"]  # one look, and no token with it
    assert "authorization" not in gateway.calls[0].headers


def test_https_to_a_plain_http_server_with_a_path(told: Told) -> None:
    with web_server((200, {}, b"{}")) as port:
        assert f"Use http://127.0.0.1:{port}/mao in --url" in told(f"https://127.0.0.1:{port}/mao/")


def test_https_to_another_protocol(told: Told) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(10)

        def greet() -> None:
            for _ in range(6):  # three tries, each with a look beside it
                try:
                    connection = silent.accept()[0]
                except OSError:
                    return
                with connection:
                    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        greeter = threading.Thread(target=greet)
        greeter.start()
        port = silent.getsockname()[1]
        said = told(f"https://127.0.0.1:{port}")
        greeter.join()
    assert "speaks" not in said
    assert f"https://127.0.0.1:{port}" in said


def test_http_to_a_tls_port(told: Told, certificate: Path) -> None:
    with web_server((200, {}, b"{}"), certificate) as port:
        said = told(f"http://127.0.0.1:{port}")
    assert "speaks HTTPS, not plain HTTP" in said
    assert f"next: Use https://127.0.0.1:{port} in --url or MAO_URL." in said


@pytest.mark.parametrize(
    "words",
    [
        b"<html>400 The plain HTTP request was sent to HTTPS port</html>",  # nginx
        b"You're speaking plain HTTP to an SSL-enabled server port.",  # Apache
        b"Client sent an HTTP request to an HTTPS server.\n",  # Go
    ],
)
def test_http_to_a_server_that_reports_it(told: Told, words: bytes) -> None:
    with web_server((400, {}, words)) as port:
        said = told(f"http://127.0.0.1:{port}")
    assert f"Use https://127.0.0.1:{port} in --url" in said


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_http_redirected_to_https(told: Told, status: int) -> None:
    target = "https://mao.example.org/registry/tools?limit=500"
    with web_server((status, {"Location": target}, b"")) as port:
        assert "Use https://mao.example.org in --url" in told(f"http://127.0.0.1:{port}")


def test_untrusted_certificate(told: Told, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with web_server((200, {}, b'{"items": []}'), certificate) as port:
        said = told(f"https://localhost:{port}")
        assert "is not trusted" in said
        assert "SSL_CERT_FILE" in said
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert run_command(["tool", "get"], CliSession({"MAO_URL": f"https://localhost:{port}"})) == 0
        assert "is not trusted" in told(f"https://127.0.0.1:{port}")  # it is another name


def test_unresolvable_host_name() -> None:
    """Return the resolver's error as httpx raises it, without network traffic."""
    error = httpx.ConnectError("Name or service not known")
    error.__cause__ = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    found = explain_failure("http://no-such-host.invalid:8080", error)
    assert found is not None
    assert "no-such-host.invalid cannot be resolved" in found[0]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_closed_port(told: Told, scheme: str) -> None:
    url = f"{scheme}://127.0.0.1:{free_port()}"
    assert f"nothing answers at {url}" in told(url)
