"""Sends a message through Apprise in a child process, so that its memory is freed afterwards.

Run as a module, it is the child process: it reads a Task as JSON from stdin and writes a SendResult. URLs
with secrets are passed through the pipe only. The child connects to no address that webhooks may not be sent
to: an audit hook checks the address of each connection, so neither redirects nor DNS can lead around it.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import os
import re
import socket
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import Field, ValidationError

from mao_shared.clients.webhook import refused_kind
from mao_shared.models import Record
from mao_shared.models.notification import SendResult

MAX_SEND_SECONDS = 60.0
MAX_ERROR = 500  # characters
LOCAL_SERVICES = frozenset(
    {"dbus", "gio", "glib", "gnome", "gntp", "growl", "kde", "macosx", "qt", "syslog", "windows"}
)
"""Services of Apprise on this machine's desktop or log, not of a host."""
FILE_OPTIONS = frozenset(
    {"attach", "keyfile", "pgp_key", "pgpkey", "pgpprv", "pgppub", "subfile", "template"}
)
"""Options of Apprise's URLs that name a file on this machine."""
_ENVIRONMENT = ("PATH", "PYTHONPATH", "LANG", "TZ", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


MessageKind = Literal["info", "warning", "success"]
"""As Apprise has it; services show it by a colour or an icon."""


class Task(Record):
    """What to send. `url` is a secret; without `title` and `text` it is only checked.

    `hosts`: `host[:port]` that may be on this machine (`MAO_WEBHOOK_HOSTS`); `parts`: hosts of the node's own
    services.
    """

    url: str
    title: str = ""
    text: str = ""
    kind: MessageKind = "info"
    hosts: list[str] = Field(default_factory=list)
    parts: list[str] = Field(default_factory=list)


def scheme_of(url: str) -> str:
    return url.partition("://")[0].lower() if "://" in url else ""


def url_fault(url: str) -> str | None:
    """Return why a URL is refused before Apprise reads it, or None. Pure."""
    scheme = scheme_of(url)
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme):
        return "it is not a URL of Apprise, such as mailtos://user:password@smtp.example.org"
    if scheme in LOCAL_SERVICES:
        return f"{scheme}:// writes to this machine; give a service that is reached over the network"
    options = re.findall(r"[?&]([^=&#]+)=", url)
    named = sorted({unquote(option).lower().strip("+-: ") for option in options} & FILE_OPTIONS)
    if named:
        return f"the option {named[0]!r} names a file on this machine"
    return None


def redact(text: str, url: str) -> str:
    """Return `text` without any part of the URL that may be a secret. Pure."""
    rest = url.partition("://")[2]
    parts = {piece for whole in (rest, unquote(rest)) for piece in re.split(r"[/:@?&=#,;\s]+", whole)}
    for piece in sorted((piece for piece in parts if len(piece) > 3), key=lambda piece: (-len(piece), piece)):
        text = text.replace(piece, "…")
    return text


@dataclass(frozen=True)
class Senders:
    """Runs child processes that send. `hosts`, `parts`: see `Task`."""

    hosts: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))

    async def send(self, url: str, title: str, text: str, kind: MessageKind = "info") -> str | None:
        """Send a message; return why it was not accepted, or None. The reason contains no part of the URL."""
        hosts, parts = list(self.hosts), list(self.parts)
        task = Task(url=url, title=title, text=text, kind=kind, hosts=hosts, parts=parts)
        result = await self._run(task)
        return None if result.delivered else redact(result.error or "it was not accepted", url)[:MAX_ERROR]

    async def check(self, url: str) -> str | None:
        """Return why Apprise cannot use the URL, or None; nothing is sent."""
        if fault := url_fault(url):
            return redact(fault, url) if scheme_of(url) not in LOCAL_SERVICES else fault
        result = await self._run(Task(url=url))
        return None if result.delivered else redact(result.error or "it is not valid", url)[:MAX_ERROR]

    async def _run(self, task: Task) -> SendResult:
        async with self.slots:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "mao_datamgmt.notifications.sender",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=_child_environment(),
            )
            try:
                async with asyncio.timeout(MAX_SEND_SECONDS):
                    out, _ = await process.communicate(task.model_dump_json().encode())
            except TimeoutError:
                return SendResult(delivered=False, error=f"it took longer than {MAX_SEND_SECONDS:.0f} s")
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.communicate()  # closes its pipes
        try:
            return SendResult.model_validate_json(out)
        except ValidationError:
            return SendResult(delivered=False, error=f"the sender ended with code {process.returncode}")


def _child_environment() -> dict[str, str]:
    """Return the environment of the child, which has none of the node's secrets."""
    names = {*_ENVIRONMENT, *_PROXIES, *(name.upper() for name in _PROXIES)}
    return {name: value for name, value in os.environ.items() if name in names}


# The child process


def _addresses(hosts: Iterable[str]) -> set[tuple[str, int | None]]:
    """Return the addresses of `host[:port]`; the port is None if all ports are meant."""
    found: set[tuple[str, int | None]] = set()
    for host in hosts:
        parts = urlsplit(f"//{host.strip()}")
        with contextlib.suppress(OSError, UnicodeError, ValueError):
            if parts.hostname:
                infos = socket.getaddrinfo(parts.hostname, parts.port, type=socket.SOCK_STREAM)
                found |= {(str(address[0]), parts.port) for *_, address in infos}
    return found


def guard_connections(hosts: Iterable[str], parts: Iterable[str]) -> None:
    """Refuse connections to this machine, and programs, from now on; a hook cannot be removed.

    Allowed are `hosts`, and the proxies that the environment names.
    """
    proxies = [urlsplit(os.environ.get(name, "")).netloc for name in (*_PROXIES, *map(str.upper, _PROXIES))]
    allowed = _addresses([*hosts, *(proxy.rpartition("@")[2] for proxy in proxies if proxy)])
    own = {address for address, _ in _addresses(parts)}

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in _STARTS_PROGRAMS:
            raise PermissionError("no program is started here")
        if event not in _CONNECTS or args[1] is None:
            return
        name = args[1]
        if not isinstance(name, tuple):
            raise PermissionError("a local socket, where nothing is sent to")
        address, port = str(name[0]), int(name[1])
        if {(address, port), (address, None)} & allowed:
            return
        kind = "a service of this node" if address in own else refused_kind(address)
        if kind is not None:
            _refused.append(kind)
            raise PermissionError(f"{kind}, where nothing is sent to")

    sys.addaudithook(hook)


_CONNECTS = frozenset({"socket.connect", "socket.sendmsg", "socket.sendto"})
_STARTS_PROGRAMS = frozenset({"os.exec", "os.posix_spawn", "os.system", "subprocess.Popen"})
_refused: list[str] = []  # kinds of the addresses that were refused; Apprise hides the exceptions


def perform(task: Task) -> SendResult:
    """Check or send in this process. Blocking."""
    if fault := url_fault(task.url):
        return SendResult(delivered=False, error=fault)
    import apprise  # rarely used: 30 MB and 0.3 s

    asset = apprise.AppriseAsset(
        app_id="MAO Orchestrator", app_desc="", app_url="", http_redirects=False, allow_templates=False
    )
    logged = io.StringIO()
    apprise.logger.addHandler(logging.StreamHandler(logged))
    apprise.logger.setLevel(logging.WARNING)
    sender = apprise.Apprise(asset=asset)
    usable = sender.add(task.url)
    sent = usable and bool(
        not task.text
        or sender.notify(
            task.text,
            title=task.title,
            notify_type=apprise.NotifyType(task.kind),
            body_format=apprise.NotifyFormat.TEXT,
        )
    )
    lines = [line.strip() for line in logged.getvalue().splitlines() if line.strip()]
    if sent:
        return SendResult(delivered=True)
    if _refused:
        error = (
            f"its host is {_refused[0]}, where nothing is sent to; if that is intended, restart the node"
            " with MAO_WEBHOOK_HOSTS=HOST:PORT, as in its URL"
        )
    elif not usable:
        error = "Apprise does not know this URL, or it is incomplete"
    else:
        error = "; ".join(lines[-3:]) or "the service did not accept it"
    return SendResult(delivered=False, error=error)


if __name__ == "__main__":
    given = Task.model_validate_json(sys.stdin.read())
    guard_connections(given.hosts, given.parts)
    sys.stdout.write(perform(given).model_dump_json())
