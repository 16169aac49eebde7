"""Typed calls to the node's services for pages, and what a page has to say about their answers."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from typing import Any, TypeVar
from urllib.parse import quote

from pydantic import BaseModel
from starlette.types import Scope

from mao_gateway.audit_calls import subject_of
from mao_gateway.proxy import Proxy
from mao_gateway.routing import find_route
from mao_shared.clients.responses import read_json, read_record_body
from mao_shared.errors import MaoError, NotFound
from mao_shared.models import Listing
from mao_shared.request_context import AS_OF_HEADER, REMOVED_HEADER, parse_as_of
from mao_shared.web.envelope import CLIENT_LEFT, FORWARDED_KEY
from mao_shared.web.operations import OPERATION_KEY, SENT_KEY, read_operation

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")
MAX_RECENT = 64  # answers kept for a short time
TIMEOUT_SECONDS = 10.0  # of a read; a page must not wait longer for a part of it


def path_of(*parts: str) -> str:
    """Return the path with these parts, each quoted."""
    return "".join(f"/{quote(part, safe='')}" for part in parts)


@dataclass(frozen=True, slots=True)
class _Tagged:
    """An answer that is valid as long as its ETag."""

    tag: str
    found: Any


class AnswerCache:
    """Answers that several requests share: by ETag, and for a short time."""

    def __init__(self) -> None:
        self._tagged: dict[str, _Tagged] = {}
        self._recent: dict[str, tuple[float, Any]] = {}

    def tagged(self, path: str) -> _Tagged | None:
        return self._tagged.get(path)

    def put_tagged(self, path: str, tag: str, found: Any) -> None:
        self._tagged[path] = _Tagged(tag, found)

    async def recent(self, name: str, seconds: float, read: Callable[[], Awaitable[T]]) -> T:
        """Return what `read` returned at most so many seconds ago, or read again."""
        at, found = self._recent.get(name, (0.0, None))
        if not at or monotonic() - at > seconds:
            found = await read()
            self._recent.pop(name, None)
            self._recent[name] = monotonic(), found
            if len(self._recent) > MAX_RECENT:
                self._recent.pop(next(iter(self._recent)), None)  # the oldest
        return found  # type: ignore[no-any-return]

    def forget_recent(self) -> None:
        """Read everything again, since something has been changed."""
        self._recent.clear()


class NodeApi:
    """The node's API as one request sees it.

    `as_of`: the oldest copy that was answered from, while the federation is away. `problems`: errors of
    parts that a page can do without.
    """

    def __init__(self, proxy: Proxy, scope: Scope, cache: AnswerCache) -> None:
        self._proxy = proxy
        self._scope = scope
        self.cache = cache
        self.as_of: datetime | None = None
        self.removed_from: str | None = None
        self.problems: list[MaoError] = []

    async def get(self, path: str, model: type[M], /, **query: Any) -> M:
        """Return the record at a path. Raises what the service's problem document describes."""
        response = await self._call("GET", path, query)
        return read_record_body(response, model)

    async def get_slowly(self, path: str, model: type[M], **query: Any) -> M:
        """Return like `get` what takes long to compute, as an action's result."""
        response = await self._call("GET", path, query, timeout=find_route(path).timeout)
        return read_record_body(response, model)

    async def listing(self, path: str, model: type[M], /, **query: Any) -> Listing[M]:
        """Return one page of a listing; `limit` and `cursor` are given in the query."""
        response = await self._call("GET", path, query)
        return read_record_body(response, Listing[model])  # type: ignore[valid-type]

    async def tagged_listing(self, path: str, model: type[M]) -> Listing[M]:
        """Return a whole listing whose service answers 304 while it has not changed; it is parsed once."""
        known = self.cache.tagged(path)
        headers = {} if known is None else {"If-None-Match": known.tag}
        response = await self._call("GET", path, {}, headers=headers)
        if known is not None and response.status_code == 304:
            return known.found  # type: ignore[no-any-return]
        found = read_record_body(response, Listing[model])  # type: ignore[valid-type]
        self.cache.put_tagged(path, response.headers.get("etag", ""), found)
        return found

    async def text(self, path: str, /, **query: Any) -> str:
        """Return a text, such as a part of a log."""
        response = await self._call("GET", path, query)
        if not response.is_success:
            read_json(response)
        return str(response.text)

    async def send(
        self, method: str, path: str, /, body: Any = None, *, key: str | None = None, **query: Any
    ) -> Any:
        """Change something; return the answer's JSON document. The audit log names the operation.

        `key`: the Idempotency-Key of a call that creates something (`forms.key_of`).
        """
        self._scope[FORWARDED_KEY] = find_route(path).service
        headers = None if key is None else {"Idempotency-Key": key}
        try:
            response = await self._call(method, path, query, body, find_route(path).timeout, headers)
        except BaseException as error:  # the service may have carried it out
            status = error.status if isinstance(error, MaoError) else CLIENT_LEFT
            self._scope.setdefault(SENT_KEY, []).append((None, status))
            raise
        self.cache.forget_recent()
        operation = self._scope[OPERATION_KEY] = read_operation(response.headers)
        if operation is not None and operation[1] is None:  # a creation, whose body names the record
            operation = operation[0], subject_of(json.dumps(body).encode())
        self._scope.setdefault(SENT_KEY, []).append((operation, response.status_code))
        return read_json(response)

    async def optional(self, answer: Awaitable[T]) -> T | None:
        """Return the answer; None if there is no such thing, or, with a problem noted, if it failed."""
        try:
            return await answer
        except NotFound:
            return None
        except MaoError as error:
            said = (error.code, error.detail)
            if all(
                said != (known.code, known.detail) for known in self.problems
            ):  # a service fails each call
                self.problems.append(error)
            return None

    async def _call(
        self,
        method: str,
        path: str,
        query: dict[str, Any],
        body: Any = None,
        timeout: float = TIMEOUT_SECONDS,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        sent = {name: value for name, value in query.items() if value is not None}
        service = find_route(path).service
        response = await self._proxy.call(
            service, method, path, query=sent, body=body, timeout=timeout, headers=headers
        )
        if (moment := parse_as_of(response.headers.get(AS_OF_HEADER))) is not None:
            self.as_of = moment if self.as_of is None else min(self.as_of, moment)
            self.removed_from = response.headers.get(REMOVED_HEADER) or self.removed_from
        return response
