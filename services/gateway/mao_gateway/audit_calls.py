"""ASGI middleware that records the calls that may have changed something (see `audit`)."""

from __future__ import annotations

import asyncio
import json
import pwd
import secrets
from collections.abc import Callable, MutableMapping
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mao_shared.clock import Clock, SystemClock
from mao_shared.host.sockets import find_socket
from mao_shared.logs import mask_value
from mao_shared.models.audit import ActorKind, AuditEntry
from mao_shared.request_context import current_request_id
from mao_shared.web.envelope import CLIENT_LEFT, FORWARDED_KEY
from mao_shared.web.operations import OPERATION_KEY, SENT_KEY

from .audit import AuditLog

ACTOR_KEY = "mao.actor"
"""Key in a request's scope: kind and name of the caller, if a token identifies it."""
READS = frozenset(
    {
        "catalogue.inspect",
        "catalogue.plan",
        "channels.compare",
        "cron.preview",
        "external.write",  # data, not a change of the node; each value gets a receipt of its own
        "git.lfs",
        "git.pack",
        "heartbeats.compare",
        "insights.list",
        "insights.read",
        "remotes.check",
        "tools.check",
    }
)
"""Operations that are no GET and yet are not recorded."""
Operation = tuple[str, str | None]
"""Operation id and subject."""
METHOD_NOT_ALLOWED = 405
_SAFE = ("GET", "HEAD", "OPTIONS")
_SUBJECTS = ("name", "tool", "node", "image")  # fields of bodies, the first that is there
MAX_TEXT = 200  # characters of a user agent, a subject
MAX_PATH = 1000
MAX_BODY = 64 << 10  # bytes of a body that is searched for a subject


class AuditMiddleware:
    """Records each call before its response is sent; `log_of` returns the log of the app, once it runs."""

    def __init__(
        self, app: ASGIApp, *, node: str, log_of: Callable[[Scope], AuditLog], clock: Clock | None = None
    ) -> None:
        self.app = app
        self._node = node
        self._log_of = log_of
        self._clock = clock or SystemClock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in _SAFE:
            await self.app(scope, receive, send)
            return
        call = _Call(scope, receive, self._clock)
        kind, actor = await call.actor()

        async def record(status: int) -> None:
            if call.recorded:
                return
            call.recorded = True
            for operation, outcome in call.changes(status):
                entry = call.entry(self._node, kind, actor, operation, outcome)
                await self._log_of(scope).record(entry)

        async def recording_send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                await record(message["status"])
            await send(message)

        try:
            await self.app(scope, call.receive, recording_send)
        except BaseException:
            await asyncio.shield(record(CLIENT_LEFT))
            raise


class _Call:
    """One call; keeps the beginning of its body, to find out what it is about."""

    def __init__(self, scope: Scope, receive: Receive, clock: Clock) -> None:
        self._scope, self._receive = scope, receive
        self._at = clock.now()
        self._body = bytearray()
        self.recorded = False
        self._entries = 0

    async def receive(self) -> Message:
        message = await self._receive()
        if len(self._body) <= MAX_BODY:
            self._body += message.get("body", b"")
        return message

    async def actor(self) -> tuple[ActorKind, str]:
        """Return who calls: the token's name, otherwise the user whose process holds the connection."""
        if (known := self._scope.get(ACTOR_KEY)) is not None:
            return known  # type: ignore[no-any-return]
        caller, called = self._scope.get("client"), self._scope.get("server")
        if caller and called and called[1] is not None:
            found = find_socket((caller[0], caller[1]), (called[0], called[1]))
            if found is not None:
                return "local-user", await asyncio.to_thread(_user_name, found.uid)
        return "unknown", "unknown"

    def changes(self, status: int) -> list[tuple[Operation | None, int]]:
        """Return operation and status of all that may have changed something.

        A form of a page may make several calls, each with its own status. Nothing has changed if no service
        got the call, it only reads, or the path has no such method.
        """
        if FORWARDED_KEY not in self._scope or status == METHOD_NOT_ALLOWED:
            return []
        sent: list[tuple[Operation | None, int]] = self._scope.get(SENT_KEY, [])
        called = sent or [(self._scope.get(OPERATION_KEY), status)]
        return [
            (operation, outcome)
            for operation, outcome in called
            if (operation[0] not in READS if operation else outcome >= CLIENT_LEFT)
        ]

    def entry(
        self, node: str, kind: ActorKind, actor: str, operation: Operation | None, status: int
    ) -> AuditEntry:
        """Return the entry of an operation, as the service that answered named it."""
        action, subject = operation or (None, None)
        self._entries += 1  # ids of one call's entries are in its order
        address = (self._scope.get("client") or [None])[0]
        agent = Headers(scope=self._scope).get("user-agent")
        return AuditEntry(
            id=f"{self._at:%Y%m%dT%H%M%S.%f}-{self._entries:02x}{secrets.token_hex(3)}",
            at=self._at,
            node=node,
            actor=actor,
            actor_kind=kind,
            address=address,
            user_agent=agent and mask_value(agent[:MAX_TEXT]),
            action=action,
            subject=mask_value(found[:MAX_TEXT]) if (found := subject or subject_of(self._body)) else None,
            method=self._scope["method"],
            path=mask_value(self._scope["path"][:MAX_PATH]),
            status=status,
            request_id=current_request_id() or "",
        )


def subject_of(body: bytes | bytearray) -> str | None:
    """Return the name in a body, such as that of a new record; None if it has none. Pure."""
    if not body or len(body) > MAX_BODY:
        return None
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    named = (document.get(field) for field in _SUBJECTS)
    return next((name for name in named if isinstance(name, str) and name), None)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
