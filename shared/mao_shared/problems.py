"""Errors to and from RFC 9457 problem documents (`application/problem+json`)."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from . import errors
from .errors import MaoError

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:mao:problem:"


class Problem(BaseModel):
    """A problem document. `code` is stable; `next` is the next command or step for a person."""

    model_config = ConfigDict(extra="allow")

    type: str = "about:blank"
    title: str = ""
    status: int
    detail: str = ""
    code: str = "internal"
    next: str | None = None
    request_id: str | None = None


def to_problem(error: MaoError, request_id: str | None = None) -> Problem:
    """The document for an exception of ours."""
    return Problem(
        type=TYPE_PREFIX + error.code,
        title=error.code.replace("-", " ").capitalize(),
        status=error.status,
        detail=error.detail,
        code=error.code,
        next=error.next,
        request_id=request_id,
        **error.facts,
    )


def _by_status() -> dict[int, type[MaoError]]:
    plain = (
        errors.InvalidInput,
        errors.Unauthorized,
        errors.Forbidden,
        errors.NotFound,
        errors.Conflict,
        errors.PreconditionFailed,
        errors.PeerUnavailable,
    )
    return {kind.status: kind for kind in plain}


def from_problem(status: int, document: Any) -> MaoError:
    """The exception for a peer's answer; an answer that is no problem document becomes a plain MaoError."""
    kind = _by_status().get(status, MaoError)
    if not isinstance(document, dict) or "code" not in document:
        return kind(f"The service answered with status {status}.", peer_status=status)
    known = {"type", "title", "status", "detail", "code", "next", "request_id"}
    facts = {key: value for key, value in document.items() if key not in known}
    return kind(
        str(document.get("detail", "")), code=str(document["code"]), next=document.get("next"), **facts
    )
