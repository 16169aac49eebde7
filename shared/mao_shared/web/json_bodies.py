"""Reject JSON bodies that parsers could interpret differently, or that no record can hold.

Python's parser accepts duplicate keys, NaN, lone surrogates and encodings other than UTF-8, and raises
ValueError for very long integers. This middleware checks every JSON body before any route does, so that new
routes are covered. A `VerbatimRoute` passes one value on exactly as it was sent.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import Response
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mao_shared import json_text, request_context
from mao_shared.json_text import RawJson, member_spans
from mao_shared.problems import Problem, make_problem

from .envelope import CallerLeft
from .error_handlers import SEND_JSON, ProblemResponse, http_error

MAX_DEPTH = 100
MAX_DIGITS = 400  # a number that a float can hold has at most 309 before its point
VERBATIM_PATHS = frozenset({"/write"})
"""Paths whose bodies are kept verbatim, so that no number is too large for them."""
_IN_THREAD = 64 << 10  # bodies of more bytes are parsed in a thread
_TOO_DEEP = f"it is nested deeper than {MAX_DEPTH} levels"


@dataclass(frozen=True, slots=True)
class JsonFault:
    """Why a body is rejected. `field`: empty if the reason concerns the body as a whole."""

    field: str
    message: str

    def problem(self) -> Problem:
        request = request_context.current_request_id()
        if not self.field:
            detail = f"The body is not acceptable JSON: {self.message}."
            return make_problem(400, "body-not-json", detail, SEND_JSON, request)
        errors = [{"field": self.field, "message": self.message}]
        detail = f"{self.field}: {self.message}"
        next_step = "Correct what 'errors' lists and send it again."
        return make_problem(422, "invalid-input", detail, next_step, request, errors=errors)


class _RefusedValue:
    """Placeholder in the parsed document for an invalid value."""

    def __init__(self, message: str) -> None:
        self.message = message


def _integer(text: str, most: int = MAX_DIGITS) -> Any:
    digits = len(text.lstrip("-"))
    return 0 if digits <= most else _RefusedValue(f"has {digits} digits; at most {most} are accepted")


def _fraction(text: str) -> Any:
    number = float(text)
    return _RefusedValue("is too large a number") if math.isinf(number) else number


def _object(pairs: list[tuple[str, Any]]) -> Any:
    members = dict(pairs)
    if len(members) == len(pairs):
        return members
    seen: set[str] = set()
    twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
    return {twice: _RefusedValue("occurs twice")}


def find_fault(body: bytes, *, verbatim: bool = False) -> JsonFault | None:
    """Return the first reason to reject a body, or None. Pure. `verbatim`: numbers stay text."""
    if body.startswith(b"\xef\xbb\xbf"):
        return JsonFault("", "it begins with a byte order mark")
    try:
        document = json.loads(
            body.decode(),
            object_pairs_hook=_object,
            parse_int=partial(_integer, most=json_text.MAX_DIGITS) if verbatim else _integer,
            parse_float=str if verbatim else _fraction,
            parse_constant=lambda word: _RefusedValue(f"is {word}, which JSON does not have"),
        )
    except UnicodeDecodeError as error:
        return JsonFault("", f"it is not UTF-8 at byte {error.start}")
    except json.JSONDecodeError as error:
        return JsonFault("", f"{error.msg} at character {error.pos}")
    except RecursionError:
        return JsonFault("", _TOO_DEEP)
    return next(_faults(document), None)


Place = tuple[Any, str | int] | None
"""A location in a document: the enclosing location, and the name or index within it."""


def _faults(document: Any) -> Iterator[JsonFault]:
    level: list[tuple[Place, Any]] = [(None, document)]
    for _ in range(MAX_DEPTH + 1):
        for place, value in level:
            if message := _message(value):
                yield JsonFault(_path(place) or "body", message)
        level = [inner for place, value in level for inner in _inside(place, value)]
        if not level:
            return
    yield JsonFault("", _TOO_DEEP)


def _inside(place: Place, value: Any) -> list[tuple[Place, Any]]:
    if isinstance(value, dict):
        return [((place, name), item) for name, item in value.items()]
    return [((place, index), item) for index, item in enumerate(value)] if isinstance(value, list) else []


def _message(value: Any) -> str | None:
    if isinstance(value, _RefusedValue):
        return value.message
    if isinstance(value, str):
        return _text_fault(value)
    wrong = next(filter(None, map(_text_fault, value)), None) if isinstance(value, dict) else None
    return wrong and f"a name in it {wrong}"


def _text_fault(text: str) -> str | None:
    if text.isascii():
        return "has a NUL character" if "\0" in text else None
    if "\0" in text:
        return "has a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "has a lone surrogate, which no text can hold"
    return None


def _path(place: Place) -> str:
    parts: list[str] = []
    while place is not None:
        place, name = place
        parts.append(f"[{name}]" if isinstance(name, int) else f".{name[:80]}")
    return "".join(reversed(parts)).removeprefix(".")


class StrictJson:
    """ASGI middleware of the services; the envelope's limits apply to the bodies read here."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        declared = Headers(scope=scope).get("content-type", "") if scope["type"] == "http" else ""
        kind = declared.partition(";")[0].strip().lower()
        if kind != "application/json" and not kind.endswith("+json"):
            await self.app(scope, receive, send)
            return
        parts: list[bytes] = []
        more = True
        try:
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise CallerLeft
                parts.append(message.get("body", b""))
                more = message.get("more_body", False)
        except HTTPException as error:
            await (await http_error(Request(scope), error))(scope, receive, send)
            return
        if body := b"".join(parts):
            find = partial(find_fault, body, verbatim=scope["path"] in VERBATIM_PATHS)
            fault = await asyncio.to_thread(find) if len(body) > _IN_THREAD else find()
            if fault is not None:
                await ProblemResponse(fault.problem())(scope, receive, send)
                return
        read = False

        async def again() -> Message:
            nonlocal read
            if read:
                return await receive()
            read = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, again, send)


VERBATIM_FIELD = "value"


class _VerbatimRequest(Request):
    async def json(self) -> Any:
        """Like `Request.json`, with the member `value` as RawJson. The body has passed `StrictJson`."""
        text = (await self.body()).decode()
        spans = member_spans(text) if text.lstrip().startswith("{") else {}
        if VERBATIM_FIELD not in spans:
            return json.loads(text)
        begin, end = spans[VERBATIM_FIELD]
        others = json.loads(text[:begin] + "null" + text[end:])
        return others | {VERBATIM_FIELD: RawJson(text[begin:end])}


class VerbatimRoute(APIRoute):
    """A route with a field `value` of type RawJson; its path must be in VERBATIM_PATHS."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def of_verbatim(request: Request) -> Response:
            return await handle(_VerbatimRequest(request.scope, request.receive))

        return of_verbatim
