"""Request bodies, responses as values and exceptions, server-sent events: shared by all clients."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import stamina
from pydantic import BaseModel, ValidationError

from mao_shared import request_context
from mao_shared.errors import InvalidInput, MaoError, PeerUnavailable
from mao_shared.json_text import parse_json
from mao_shared.models.common import STORED
from mao_shared.problems import field_errors, from_problem
from mao_shared.tracing import TRACEPARENT_HEADER

stamina.instrumentation.set_on_retry_hooks([])  # the caller logs the final failure

M = TypeVar("M", bound=BaseModel)

WRONG_ADDRESS = "gateway-address"
"""Code of a PeerUnavailable that no retry fixes."""
REPEATABLE = frozenset({"GET", "HEAD", "PUT", "DELETE"})
"""Idempotent methods, the only ones that are retried."""
KEEPALIVE_SECONDS = 3
"""How long a client keeps an idle connection. Services close theirs after `ConnectionLimits.idle`; a client
that waits as long could send a request on a connection that is being closed; a POST is not sent again."""


def request_body(model: type[BaseModel], **fields: Any) -> dict[str, Any]:
    """Return the JSON object of a request body; fields that are None are omitted.

    Raises InvalidInput that lists the invalid fields, as the service would.
    """
    try:
        return dump_body(
            model.model_validate({name: value for name, value in fields.items() if value is not None})
        )
    except ValidationError as error:
        wrong = field_errors(error.errors())
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        detail = f"{wrong[0]['field']}: {wrong[0]['message']}{more}"
        raise InvalidInput(detail, next="Correct the fields listed in 'errors'.", errors=wrong) from error


def dump_body(record: BaseModel) -> dict[str, Any]:
    """Return a record's JSON object with only the fields that were set: an older version knows no others."""
    return record.model_dump(mode="json", exclude_unset=True)


def retry_attempts(method: str, max_attempts: int) -> Any:
    """Return stamina's attempts for one call; for a loop with or without async."""
    return stamina.retry_context(
        on=_is_temporary,
        attempts=max_attempts if method in REPEATABLE else 1,
        timeout=None,
        wait_initial=0.1,
        wait_jitter=0.1,
        wait_max=1.0,
    )


def _is_temporary(error: Exception) -> bool:
    return isinstance(error, PeerUnavailable) and error.code != WRONG_ADDRESS


def outgoing_headers(token: str | None = None) -> dict[str, str]:
    """Return the headers of a request: the current request's id and trace, and the bearer token."""
    headers = {"Accept": "application/json"}
    if current := request_context.current_request_id():
        headers[request_context.REQUEST_ID_HEADER] = current
    if traceparent := request_context.current_traceparent():
        headers[TRACEPARENT_HEADER] = traceparent
    if token:
        headers["Authorization"] = f"Bearer {token}"
    return headers


def check(response: httpx.Response) -> None:
    """Raise the exception that a problem document describes; the body must have been read."""
    if response.is_success:
        return
    try:
        document = json.loads(response.content)
    except ValueError:
        document = None
    error = from_problem(response.status_code, document)
    if error.next is None:
        error.next = f"Check what answers at {response.request.url}; it may not be MAO."
    raise error


def read_json(response: httpx.Response) -> Any:
    """Return the response's JSON, None for an empty body.

    Raises MaoError (`answer-unreadable`) for anything else.
    """
    check(response)
    if not response.content:
        return None
    try:
        return response.json()
    except ValueError:
        raise _unexpected_response(response) from None


def read_verbatim_json(response: httpx.Response) -> Any:
    """Like `read_json`, but keep numbers as they are spelt (see `json_text.parse_json`)."""
    check(response)
    try:
        return parse_json(response.text)
    except ValueError:
        raise _unexpected_response(response) from None


def read_record_body(response: httpx.Response, model: type[M]) -> M:
    """Return the response as a record; unknown fields are kept.

    Raises MaoError (`answer-unreadable`) for anything else. Validates the text itself: parsed first, a long
    listing would take twice the memory.
    """
    check(response)
    try:
        return model.model_validate_json(response.content, context=STORED)
    except ValidationError as error:
        raise _unexpected_response(response, error.errors()[0]["msg"]) from error


def parse_record(response: httpx.Response, document: Any, model: type[M]) -> M:
    """Return a part of the response as a record; unknown fields are kept.

    Raises MaoError (`answer-unreadable`).
    """
    try:
        return model.model_validate(document, context=STORED)
    except ValidationError as error:
        raise _unexpected_response(response, error.errors()[0]["msg"]) from error


def read_etag_revision(response: httpx.Response) -> int | None:
    """Return the revision in the response's ETag, None without one."""
    digits = response.headers.get("etag", "").strip('W/"')
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 19 else None


def _unexpected_response(response: httpx.Response, why: str = "it is not JSON") -> MaoError:
    return MaoError(
        f"Invalid response to {response.request.method} {response.request.url}: {why}.",
        code="answer-unreadable",
        next="Check that all services and the client have the same version: maoctl version",
    )


def unreachable(service: str, url: str, error: httpx.TransportError, next_step: str) -> PeerUnavailable:
    """Return the PeerUnavailable for a failed connection to a service, or a timeout."""
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
    """One event; `id` is the last event id of the stream, to resume after it."""

    event: str
    data: str
    id: str | None


class EventParser:
    """Parser of a stream, fed line by line (without line ends); an empty line completes an event."""

    def __init__(self) -> None:
        self.last_id: str | None = None
        self._event = "message"
        self._data: list[str] = []

    def feed(self, line: str) -> ServerEvent | None:
        """Return the event that the line completes, if it completes one."""
        if not line:
            event = ServerEvent(self._event, "\n".join(self._data), self.last_id) if self._data else None
            self._event, self._data = "message", []
            return event
        name, _, value = line.partition(":")  # a comment has an empty name and is dropped
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self.last_id = value
        return None


def read_events(lines: Iterable[str]) -> Iterator[ServerEvent]:
    """Yield the events in a stream's lines."""
    parser = EventParser()
    for line in lines:
        if event := parser.feed(line.rstrip("\r\n")):
            yield event


async def read_events_async(lines: AsyncIterator[str]) -> AsyncIterator[ServerEvent]:
    """Yield the events in a stream's lines."""
    parser = EventParser()
    async for line in lines:
        if event := parser.feed(line.rstrip("\r\n")):
            yield event
