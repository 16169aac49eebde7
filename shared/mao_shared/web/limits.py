"""Limits on connections that uvicorn lacks: timeouts, bytes and number of connections.

uvicorn closes idle connections and h11 limits the size of headers. This module adds timeouts for headers and
bodies that do not arrive and for responses that are not read, and limits the number of connections in total
and per client. A refused client gets a problem document; then the connection is closed, but incoming data is
read and discarded for a moment, since a reset would discard the response on the client's side.

    connected ─► header ─► body ─► (response) ─► idle ─► header …
                   │408     │408                 │
                   └────────┴──── closing ◄──────┘ keep-alive

If all slots are taken, the connection is closed that has waited longest for its client to send or read; a new
connection is refused only if no connection waits for its client.
"""

from __future__ import annotations

import asyncio
import ipaddress
import sys
from collections import Counter
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar, Literal

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from mao_shared.logs import get_logger
from mao_shared.problems import MEDIA_TYPE

from .envelope import (
    LATE,
    MALFORMED,
    MAX_HEADER,
    NO_CODING,
    TOO_LONG,
    TOO_MANY_CONNECTIONS,
    TOO_MUCH,
    Refusal,
)

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of a server's connections. Times in seconds, `rate` in bytes per second."""

    header: float = 10  # to receive a request's header
    silence: float = 30  # without data while a body is incomplete
    rate: float = 1024  # average rate of a body, once `silence` has passed
    wire: int = 8 << 20  # bytes of a body on the wire, including chunk framing
    idle: int = 5  # between two requests; the gateway's own pool is below it
    stalled: float = 600  # while a response is not read; a pager may pause for a while
    linger: float = 2  # how long to discard data after the last response
    connections: int = 400  # the gateway may open another for each; twice that is below 1024 files
    of_client: int = 200  # per remote address; not applied to loopback
    lingering: int = 64  # connections in the discarding state


class ConnectionSlots:
    """The connections of one server; `_pending`: those that wait for their client, longest first."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self.lingering = 0
        self._taken: set[LimitedProtocol] = set()
        self._pending: dict[LimitedProtocol, None] = {}
        self._of: Counter[str] = Counter()
        self._warned: float | None = None

    def enter(self, connection: LimitedProtocol, client: str | None) -> bool:
        """Take a slot, if necessary by closing another connection; False if there is none."""
        is_counted = client is not None and not _is_loopback(client)
        if is_counted and self._of[str(client)] >= self.limits.of_client:
            return self._refuse(connection, client)
        if len(self._taken) >= self.limits.connections:
            if not self._pending:
                return self._refuse(connection, client)
            next(iter(self._pending)).make_room()
        self._taken.add(connection)
        if is_counted:
            self._of[str(client)] += 1
        return True

    def leave(self, connection: LimitedProtocol, client: str | None) -> None:
        self.done(connection)
        if connection not in self._taken:
            return
        self._taken.discard(connection)
        if client is not None and client in self._of:
            self._of[client] -= 1
            self._of += Counter()  # removes entries that are zero

    def note_pending(self, connection: LimitedProtocol) -> None:
        """Record that the connection waits for its client to send or read."""
        self._pending.pop(connection, None)
        self._pending[connection] = None

    def done(self, connection: LimitedProtocol) -> None:
        self._pending.pop(connection, None)

    def _refuse(self, connection: LimitedProtocol, client: str | None) -> bool:
        now = connection.loop.time()
        if self._warned is None or now - self._warned > 60:
            self._warned = now
            log.warning("http.crowded", open=len(self._taken), client=client)
        return False


def _is_loopback(client: str) -> bool:
    """Return True for a loopback address, which many clients share."""
    try:
        return ipaddress.ip_address(client).is_loopback
    except ValueError:
        return True


class _GentleTransport:
    """uvicorn's transport with a graceful close: a reset would discard the response."""

    def __init__(self, transport: asyncio.Transport, owner: LimitedProtocol) -> None:
        self.real = transport
        self._owner = owner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def close(self) -> None:
        self._owner.end()

    def is_closing(self) -> bool:
        return self._owner.ending or self.real.is_closing()


Phase = Literal["header", "body", "rest", "busy"]


class LimitedProtocol(H11Protocol):
    """One connection. Phase `rest`: the response was sent before the request's body was complete."""

    slots: ClassVar[ConnectionSlots]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.ending = False
        self._phase: Phase = "busy"
        self._timer: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._began = self._last = self.loop.time()
        self._received = self._unread = 0
        super().connection_made(_GentleTransport(transport, self))  # type: ignore[arg-type]
        self._real = transport
        if self.slots.enter(self, self._address):
            self._begin("header")
        else:
            self.refuse(TOO_MANY_CONNECTIONS)

    @property
    def _address(self) -> str | None:
        return self.client[0] if self.client else None

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        self._watch_reader(False)
        self._unset_keepalive_if_required()  # uvicorn does not stop it after a reset
        self.slots.leave(self, self._address)
        if self.ending:
            self.slots.lingering -= 1
        self.ending = True
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.ending:
            return
        self._received += len(data)
        self._last = self.loop.time()
        super().data_received(data)
        self._update_phase()
        if self._phase == "body" and self._received > self.slots.limits.wire:
            self.refuse(TOO_MUCH)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.ending:
            self._update_phase(answered=True)

    def _update_phase(self, answered: bool = False) -> None:
        """Update the phase from the state of the HTTP exchange."""
        their_state = self.conn.their_state
        if self.ending:
            return
        if their_state is h11.SEND_BODY:
            if answered or self.conn.our_state is h11.DONE:
                self._begin("rest")
            elif self._phase != "body":
                self._begin("body")
        elif their_state is not h11.IDLE:
            self._begin("busy")
            if their_state is h11.DONE and len(self.conn.trailing_data[0]) > MAX_HEADER:
                self._drop()  # too many pipelined requests
        elif not answered or self.conn.trailing_data[0]:
            if self._phase != "header":
                self._begin("header")
        else:  # uvicorn's keep-alive runs
            self._begin("busy")
            self.slots.note_pending(self)

    def _begin(self, phase: Phase) -> None:
        if phase == self._phase == "rest":
            return
        self._stop()
        self._phase = phase
        self._began, self._received = self.loop.time(), 0
        limits = self.slots.limits
        if phase != "busy" or self._stall is not None:
            self.slots.note_pending(self)
        if phase != "busy":
            wait = {"header": limits.header, "body": limits.silence, "rest": limits.linger}[phase]
            self._timer = self.loop.call_later(wait, self._expire)

    def _stop(self) -> None:
        self.slots.done(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        limits, now = self.slots.limits, self.loop.time()
        if self._phase == "body":
            due = min(
                self._last + limits.silence, self._began + limits.silence + self._received / limits.rate
            )
            if self.flow.read_paused:  # the service is slow, not the client
                self._last = now
                due = now + limits.silence
            if due > now:
                self._timer = self.loop.call_at(due, self._expire)
                return
        if self._phase == "rest" or (self._phase == "header" and not self.conn.trailing_data[0]):
            self._drop()
        else:
            self.refuse(LATE)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 (uvicorn's signature)
        """Refuse a request that h11 cannot parse; called by uvicorn in the exception's handler."""
        error = sys.exc_info()[1]
        hint = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        self.refuse({431: TOO_LONG, 501: NO_CODING}.get(hint, MALFORMED))

    def refuse(self, refusal: Refusal) -> None:
        """Send the refusal, unless a response has started, and close the connection."""
        log.debug("http.refused", code=refusal.code, client=self._address)
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # as if the client had disconnected
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._write(refusal.status, refusal.problem().encode())
        self.end(refused=True)

    def _write(self, status: int, body: bytes) -> None:
        headers = [
            ("content-type", MEDIA_TYPE),
            ("content-length", str(len(body))),
            ("connection", "close"),
            *([("retry-after", "2")] if status == 503 else []),
        ]
        head = self.conn.our_state is h11.SEND_RESPONSE and self.scope["method"] == "HEAD"
        reason = HTTPStatus(status).phrase
        parts: list[Any] = [h11.Response(status_code=status, headers=headers, reason=reason)]
        parts += [] if head else [h11.Data(data=body)]
        for part in (*parts, h11.EndOfMessage()):
            self._real.write(self.conn.send(part) or b"")

    def make_room(self) -> None:
        """Close this connection so that a new one gets its slot."""
        if self._phase == "busy":
            self._drop()
        else:
            self.refuse(LATE)

    def _drop(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self._stop()
        if self._stall is None:
            self._real.close()
        else:
            self._real.abort()  # unsent data would keep it open

    def end(self, *, refused: bool = False) -> None:
        """Close after the last response, at once if the client has sent its whole request."""
        if self.ending or self._real.is_closing():
            self._real.close()
            return
        self._stop()
        self._unset_keepalive_if_required()
        idle = self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0] and not refused
        complete = idle or self.conn.their_state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED)
        if complete or self.slots.lingering >= self.slots.limits.lingering:
            self._real.close()
            return
        self.ending = True
        self.slots.lingering += 1
        self.slots.leave(self, self._address)
        self._real.resume_reading()
        self._real.write_eof()
        self._timer = self.loop.call_later(self.slots.limits.linger, self._real.abort)

    # Responses that are not read

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader(True)
        if self._phase == "busy":
            self.slots.note_pending(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._watch_reader(False)
        if self._phase == "busy":
            self.slots.done(self)

    def _watch_reader(self, on: bool) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        if on:
            self._unread = self._real.get_write_buffer_size()
            self._stall = self.loop.call_later(self.slots.limits.stalled, self._stalled)

    def _stalled(self) -> None:
        unsent = self._real.get_write_buffer_size()
        if unsent < self._unread:  # the client reads, if slowly
            self._watch_reader(True)
        else:
            log.info("http.not_read", client=self._address, waiting=unsent)
            self._real.abort()


def limited(limits: ConnectionLimits | None = None) -> type[H11Protocol]:
    """Return a protocol class for one server, to pass as `uvicorn.Config(http=…)`."""
    return type("_Limited", (LimitedProtocol,), {"slots": ConnectionSlots(limits or ConnectionLimits())})
