"""Typed calls to the node's services for pages, and what a page has to say about their answers."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import quote

from pydantic import BaseModel
from starlette.types import Scope

from mao_gateway.proxy import Proxy
from mao_gateway.routing import find_route
from mao_shared.clients.responses import parse_record, read_json
from mao_shared.errors import MaoError, NotFound
from mao_shared.models import Listing
from mao_shared.request_context import AS_OF_HEADER, REMOVED_HEADER, parse_as_of
from mao_shared.web.envelope import FORWARDED_KEY
from mao_shared.web.operations import OPERATION_KEY, read_operation

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")
TIMEOUT_SECONDS = 10.0  # of a read; a page must not wait longer for a part of it


def path_of(*parts: str) -> str:
    """Return the path with these parts, each quoted."""
    return "".join(f"/{quote(part, safe='')}" for part in parts)


class NodeApi:
    """The node's API as one request sees it.

    `as_of`: the oldest copy that was answered from, while the federation is away. `problems`: errors of
    parts that a page can do without.
    """

    def __init__(self, proxy: Proxy, scope: Scope) -> None:
        self._proxy = proxy
        self._scope = scope
        self.as_of: datetime | None = None
        self.removed_from: str | None = None
        self.problems: list[MaoError] = []

    async def get(self, path: str, model: type[M], **query: Any) -> M:
        """Return the record at a path. Raises what the service's problem document describes."""
        response = await self._call("GET", path, query)
        return parse_record(response, read_json(response), model)

    async def get_slowly(self, path: str, model: type[M], **query: Any) -> M:
        """Return like `get` what takes long to compute, as an action's result."""
        response = await self._call("GET", path, query, timeout=find_route(path).timeout)
        return parse_record(response, read_json(response), model)

    async def listing(self, path: str, model: type[M], **query: Any) -> Listing[M]:
        """Return one page of a listing; `limit` and `cursor` are given in the query."""
        response = await self._call("GET", path, query)
        return parse_record(response, read_json(response), Listing[model])  # type: ignore[valid-type]

    async def text(self, path: str, **query: Any) -> str:
        """Return a text, such as a part of a log."""
        response = await self._call("GET", path, query)
        if not response.is_success:
            read_json(response)
        return str(response.text)

    async def send(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """Change something; return the answer's JSON document. The audit log names the operation."""
        self._scope[FORWARDED_KEY] = find_route(path).service
        response = await self._call(method, path, query, body, timeout=find_route(path).timeout)
        self._scope[OPERATION_KEY] = read_operation(response.headers)
        return read_json(response)

    async def optional(self, answer: Awaitable[T]) -> T | None:
        """Return the answer; None if there is no such thing, or, with a problem noted, if it failed."""
        try:
            return await answer
        except NotFound:
            return None
        except MaoError as error:
            self.problems.append(error)
            return None

    async def _call(
        self,
        method: str,
        path: str,
        query: dict[str, Any],
        body: Any = None,
        timeout: float = TIMEOUT_SECONDS,
    ) -> Any:
        sent = {name: value for name, value in query.items() if value is not None}
        service = find_route(path).service
        response = await self._proxy.call(service, method, path, query=sent, body=body, timeout=timeout)
        if (moment := parse_as_of(response.headers.get(AS_OF_HEADER))) is not None:
            self.as_of = moment if self.as_of is None else min(self.as_of, moment)
            self.removed_from = response.headers.get(REMOVED_HEADER) or self.removed_from
        return response
