"""Local receivers of notifications: an SMTP server, and an HTTP server as ntfy or Healthchecks would be."""

from __future__ import annotations

import email
import email.policy
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class _Inbox:
    """What a server has received; `wait` blocks until it is enough."""

    port: int = 0
    changed: threading.Condition = field(default_factory=threading.Condition)

    def count(self) -> int:
        raise NotImplementedError

    def wait(self, count: int, timeout: float = 30.0) -> None:
        """Wait until `count` messages have arrived. Raises TimeoutError."""
        with self.changed:
            if not self.changed.wait_for(lambda: self.count() >= count, timeout):
                raise TimeoutError(f"{self.count()} of {count} messages have arrived")


@dataclass
class Mailbox(_Inbox):
    mails: list[EmailMessage] = field(default_factory=list)

    def count(self) -> int:
        return len(self.mails)

    @property
    def subjects(self) -> list[str]:
        return [str(mail["Subject"]) for mail in self.mails]


@dataclass
class Requests(_Inbox):
    """`answer`: the status of the responses; `paths`, `bodies`: of the requests that got a 2xx."""

    answer: int = 200
    location: str | None = None
    paths: list[str] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def count(self) -> int:
        return len(self.paths)

    def events(self) -> list[str]:
        """The paths without their query."""
        return [path.partition("?")[0] for path in self.paths]


@contextmanager
def smtp_server() -> Iterator[Mailbox]:
    """Serve SMTP on a free port of 127.0.0.1; accepts every mail."""
    box = Mailbox()

    class Handler(socketserver.StreamRequestHandler):
        def say(self, text: str) -> None:
            self.wfile.write(f"{text}\r\n".encode())

        def handle(self) -> None:
            self.say("220 test ESMTP")
            while line := self.rfile.readline():
                verb = line[:4].upper()
                if verb == b"DATA":
                    self.say("354 go on")
                    self.take()
                elif verb == b"QUIT":
                    self.say("221 bye")
                    return
                else:
                    self.say("250 ok")

        def take(self) -> None:
            lines: list[bytes] = []
            while (line := self.rfile.readline()) not in (b".\r\n", b""):
                lines.append(line.removeprefix(b"."))
            mail = email.message_from_bytes(b"".join(lines), policy=email.policy.default)
            assert isinstance(mail, EmailMessage)
            self.say("250 queued")
            with box.changed:
                box.mails.append(mail)
                box.changed.notify_all()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        box.port = server.server_address[1]
        with _serving(server):
            yield box


@contextmanager
def http_server() -> Iterator[Requests]:
    """Serve HTTP on a free port of 127.0.0.1; answers as `Requests.answer` says."""
    got = Requests()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
            with got.changed:
                if got.answer < 300:
                    got.paths.append(self.path)
                    got.bodies.append(body)
                else:
                    got.refused.append(self.path)
                got.changed.notify_all()
            self.send_response(got.answer)
            if got.location is not None:
                self.send_header("location", got.location)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        got.port = server.server_port
        with _serving(server):
            yield got


@contextmanager
def _serving(server: socketserver.TCPServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
