"""Convert exceptions from routes and from FastAPI to problem documents."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match

from mao_shared import request_context
from mao_shared.errors import MaoError, Unauthorized, Unavailable
from mao_shared.logs import get_logger
from mao_shared.problems import MEDIA_TYPE, Problem, field_errors, make_problem, to_problem

from .envelope import BODIES

log = get_logger(__name__)
SEND_JSON = "Send JSON, with the header 'content-type: application/json'; /docs shows an example body."
_DISK_TROUBLE = {errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EIO}
_SHOWN = 100  # invalid fields listed in a response
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")


class ProblemResponse(Response):
    """A response with a problem document."""

    media_type = MEDIA_TYPE

    def __init__(self, problem: Problem, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(problem.encode(), problem.status, dict(headers or {}))


def add_error_handlers(app: FastAPI) -> None:
    """Make the app respond to every error with a problem document."""
    app.add_exception_handler(MaoError, _mao_error)
    app.add_exception_handler(RequestValidationError, _wrong_input)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(OSError, _disk_error)


def problem_response(error: MaoError) -> ProblemResponse:
    """Return the response for an exception."""
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = 'Bearer realm="mao"'
    return ProblemResponse(to_problem(error, request_context.current_request_id()), headers)


async def _mao_error(_: Request, error: Exception) -> ProblemResponse:
    if not isinstance(error, MaoError):
        raise error
    if error.status >= 500:
        log.warning("http.problem", code=error.code, detail=error.detail)
    return problem_response(error)


async def _disk_error(_: Request, error: Exception) -> ProblemResponse:
    """Report a disk fault, which the operator has to fix; any other OSError is a bug."""
    if not isinstance(error, OSError) or error.errno not in _DISK_TROUBLE:
        raise error
    log.warning("http.disk", error=error.strerror, path=error.filename)
    path = f" {error.filename}" if error.filename else ""
    refused = Unavailable(
        f"The node cannot write{path}: {error.strerror}.",
        code="data-dir-unusable",
        next="Check that MAO_DATA_DIR has free space, is mounted writable and has the right owner.",
    )
    return problem_response(refused)


async def _wrong_input(request: Request, error: Exception) -> ProblemResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    if reason := _not_json(request, error.errors()):
        return _problem(400, "body-not-json", reason, SEND_JSON)
    fields = field_errors(error.errors()[:_SHOWN])
    more = f" (and {len(fields) - 1} more)" if len(fields) > 1 else ""
    detail = f"{fields[0]['field']}: {fields[0]['message']}{more}"
    path = getattr(request.scope.get("route"), "path", request.url.path)
    next_step = f"Correct what 'errors' lists; /docs shows the fields of {request.method} {path}."
    return _problem(422, "invalid-input", detail, next_step, errors=fields)


def _not_json(request: Request, found: Sequence[Mapping[str, Any]]) -> str | None:
    """Return why the body was not parsed as JSON; None if it was."""
    first = found[0] if found else {}
    if first.get("type") == "json_invalid":
        at, why = first.get("loc", ("body", 0))[-1], first.get("ctx", {}).get("error", "")
        return f"The body is not JSON: {why} at character {at}."
    if tuple(first.get("loc", ())) == ("body",) and first.get("type") == "missing":
        return "The request has no body; this call needs one."
    if not any(tuple(error.get("loc", ()))[:1] == ("body",) for error in found):
        return None
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json" and not content_type.endswith("+json"):
        return f"The body's content type is {content_type or 'not given'}, not JSON."
    return None


async def http_error(request: Request, error: Exception) -> ProblemResponse:
    if not isinstance(error, HTTPException):
        raise error
    call = f"{request.method} {request.url.path}"
    if error.status_code == 404:
        return _problem(404, "no-such-route", f"There is no {call} here.", "See /docs for all calls.")
    if error.status_code == 405:
        allowed = allowed_methods(request.app.routes, request)
        detail = f"There is no {call} here, only {' and '.join(allowed) or 'other methods'}."
        response = _problem(405, "method-not-allowed", detail, "See /docs for all calls.", allowed=allowed)
        response.headers["Allow"] = ", ".join(allowed)
        return response
    if error.status_code == 413:
        detail = "The request body is too large for this service."
        return _problem(413, "body-too-large", detail, "Send less at once; records are at most 1 MiB.")
    if error.status_code == BODIES.status and error.detail == BODIES.code:
        return ProblemResponse(BODIES.problem(request_context.current_request_id()), {"Retry-After": "2"})
    if error.status_code == 400:
        return _problem(400, "body-not-json", "The body cannot be read as JSON in UTF-8.", SEND_JSON)
    return _problem(error.status_code, "http-error", str(error.detail), "See /docs for all calls.")


def allowed_methods(routes: Sequence[BaseRoute], request: Request) -> list[str]:
    """Return the methods that the routes at the request's path accept."""

    def takes(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in routes)

    return [method for method in _METHODS if takes(method)]


def _problem(status: int, code: str, detail: str, next_step: str, **facts: Any) -> ProblemResponse:
    return ProblemResponse(
        make_problem(status, code, detail, next_step, request_context.current_request_id(), **facts)
    )
