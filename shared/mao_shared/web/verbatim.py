"""Routes whose body has a value that is passed on as its sender spelt it."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Response
from fastapi.routing import APIRoute
from starlette.requests import Request

from mao_shared.json_text import RawJson, member_spans

FIELD = "value"


class _VerbatimRequest(Request):
    async def json(self) -> Any:
        """As `Request.json`, with the member `value` as RawJson. The body has passed `StrictJson`."""
        text = (await self.body()).decode()
        spans = member_spans(text) if text.lstrip().startswith("{") else {}
        if FIELD not in spans:
            return json.loads(text)
        begin, end = spans[FIELD]
        others = json.loads(text[:begin] + "null" + text[end:])
        return others | {FIELD: RawJson(text[begin:end])}


class VerbatimRoute(APIRoute):
    """Its model's field `value` is RawJson; `strict_json.VERBATIM` has to list its path."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def of_verbatim(request: Request) -> Response:
            return await handle(_VerbatimRequest(request.scope, request.receive))

        return of_verbatim
