"""HTTP responses as values and exceptions, and server-sent events; shared by all clients."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import stamina
from pydantic import BaseModel, ValidationError

from mao_shared import request_context
from mao_shared.errors import MaoError, PeerUnavailable
from mao_shared.json_text import parse_json
from mao_shared.models.common import STORED
from mao_shared.problems import from_problem

stamina.instrumentation.set_on_retry_hooks([])  # what fails in the end is logged by who wanted it

M = TypeVar("M", bound=BaseModel)

WRONG_ADDRESS = "gateway-address"
"""Code of a PeerUnavailable that a retry does not fix."""
REPEATABLE = frozenset({"GET", "HEAD", "PUT", "DELETE"})
"""Methods whose calls have the same effect once or twice; only these are tried again."""


def retry_attempts(method: str, most: int) -> Any:
    """The attempts of one call while the service does not answer, for a loop with or without async."""
    return stamina.retry_context(
        on=_is_temporary,
        attempts=most if method in REPEATABLE else 1,
        timeout=None,
        wait_initial=0.1,
        wait_jitter=0.1,
        wait_max=1.0,
    )


def _is_temporary(error: Exception) -> bool:
    return isinstance(error, PeerUnavailable) and error.code != WRONG_ADDRESS


def outgoing_headers(token: str | None = None) -> dict[str, str]:
    """The request id of the request that is worked on, and the caller's token."""
    headers = {"Accept": "application/json"}
    if current := request_context.current_request_id():
        headers[request_context.REQUEST_ID_HEADER] = current
    if token:
        headers["Authorization"] = f"Bearer {token}"
    return headers


def check(response: httpx.Response) -> None:
    """Raises the exception that a problem document describes; the body must have been read."""
    if response.is_success:
        return
    try:
        document = json.loads(response.content)
    except ValueError:
        document = None
    error = from_problem(response.status_code, document)
    if error.next is None:
        error.next = f"See what answers at {response.request.url}; it may not be MAO."
    raise error


def read_json(response: httpx.Response) -> Any:
    """The answer's JSON, None for an empty one; raises MaoError (`answer-unreadable`) for anything else."""
    check(response)
    if not response.content:
        return None
    try:
        return response.json()
    except ValueError:
        raise _unexpected_response(response) from None


def read_verbatim_json(response: httpx.Response) -> Any:
    """As `read_json`, with numbers as `json_text.parse_json` keeps them."""
    check(response)
    try:
        return parse_json(response.text)
    except ValueError:
        raise _unexpected_response(response) from None


def read_record_body(response: httpx.Response, model: type[M]) -> M:
    """The answer as a record; raises MaoError when it is something else."""
    return parse_record(response, read_json(response), model)


def parse_record(response: httpx.Response, document: Any, model: type[M]) -> M:
    """A part of the answer as a record. Fields that this version does not know are kept.

    Raises MaoError (`answer-unreadable`).
    """
    try:
        return model.model_validate(document, context=STORED)
    except ValidationError as error:
        raise _unexpected_response(response, error.errors()[0]["msg"]) from error


def read_etag_revision(response: httpx.Response) -> int | None:
    """The revision in the answer's ETag, None without one."""
    digits = response.headers.get("etag", "").strip('W/"')
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 19 else None


def _unexpected_response(response: httpx.Response, why: str = "it is not JSON") -> MaoError:
    return MaoError(
        f"The answer of {response.request.method} {response.request.url} cannot be read: {why}.",
        code="answer-unreadable",
        next="Check that all services and the client have the same version: maoctl version.",
    )


def unreachable(service: str, url: str, error: httpx.TransportError, next_step: str) -> PeerUnavailable:
    """What a failed connection or a time-out to one of our services becomes."""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        why = f"nothing answers at {url}"
    elif isinstance(error, httpx.TimeoutException):
        why = f"{url} did not answer in time; the request may have been carried out"
    else:
        why = f"the connection to {url} broke off; the request may have been carried out"
    return PeerUnavailable(f"The {service} service is not reachable: {why}.", next=next_step, service=service)


# Server-sent events: lines in, events out (the reading half of the WHATWG format)


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event; `id` is the last one the stream has named, to resume after it."""

    event: str
    data: str
    id: str | None


class EventParser:
    """Takes the lines of a stream, without their ends; an empty one completes an event."""

    def __init__(self) -> None:
        self.last_id: str | None = None
        self._event = "message"
        self._data: list[str] = []

    def feed(self, line: str) -> ServerEvent | None:
        if line:
            name, _, value = line.partition(":")  # a comment has an empty name and is dropped
            self._field(name, value.removeprefix(" "))
            return None
        event = ServerEvent(self._event, "\n".join(self._data), self.last_id) if self._data else None
        self._event, self._data = "message", []
        return event

    def _field(self, name: str, value: str) -> None:
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self.last_id = value


def read_events(lines: Iterable[str]) -> Iterator[ServerEvent]:
    """The events of a stream's lines."""
    parser = EventParser()
    for line in lines:
        if event := parser.feed(line.rstrip("\r\n")):
            yield event


async def read_events_async(lines: AsyncIterator[str]) -> AsyncIterator[ServerEvent]:
    """The events of a stream's lines."""
    parser = EventParser()
    async for line in lines:
        if event := parser.feed(line.rstrip("\r\n")):
            yield event
