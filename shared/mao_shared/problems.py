"""Convert errors to and from RFC 9457 problem documents (`application/problem+json`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from . import errors
from .errors import MaoError

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:mao:problem:"


class Problem(BaseModel):
    """A problem document. `code`: stable identifier; `next`: the next command or step for a person."""

    model_config = ConfigDict(extra="allow")

    type: str = "about:blank"
    title: str = ""
    status: int
    detail: str = ""
    code: str = "internal"
    next: str | None = None
    request_id: str | None = None

    def encode(self) -> bytes:
        """Return the document as UTF-8 JSON, with lone surrogates escaped."""
        document = self.model_dump(exclude_none=True)
        return json.dumps(document, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace")


def to_problem(error: MaoError, request_id: str | None = None) -> Problem:
    """Return the problem document of an exception."""
    own = set(Problem.model_fields)
    return Problem(
        type=TYPE_PREFIX + error.code,
        title=_title(error.code),
        status=error.status,
        detail=error.detail,
        code=error.code,
        next=error.next,
        request_id=request_id,
        **{key: value for key, value in error.facts.items() if key not in own},
    )


def make_problem(
    status: int, code: str, detail: str, next_step: str, request_id: str | None = None, **facts: Any
) -> Problem:
    """Return a problem document from its parts, for errors without a MaoError."""
    return Problem(
        type=TYPE_PREFIX + code,
        title=_title(code),
        status=status,
        detail=detail,
        code=code,
        next=next_step,
        request_id=request_id,
        **facts,
    )


def _title(code: str) -> str:
    return code.replace("-", " ").capitalize()


_PLAIN_WORDS = {"missing": "is missing", "extra_forbidden": "is not a known field"}
_PLACES = ("body", "query", "path", "header", "cookie")


def field_errors(found: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return pydantic's errors as `{"field": "steps[0].tool", "message": "is missing"}`, in their order."""
    return [{"field": _field(error.get("loc", ())), "message": _message(error)} for error in found]


def _field(loc: Sequence[int | str]) -> str:
    parts = loc[1:] if loc and loc[0] in _PLACES else loc
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return path.removeprefix(".") or str(loc[0] if loc else "body")


def _message(error: Mapping[str, Any]) -> str:
    kind, text = str(error.get("type", "")), str(error.get("msg", ""))
    text = text.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return _PLAIN_WORDS.get(kind) or (text[:1].lower() + text[1:] if text.startswith("Input ") else text)


_BY_STATUS: dict[int, type[MaoError]] = {
    kind.status: kind
    for kind in (
        errors.InvalidInput,
        errors.Unauthorized,
        errors.Forbidden,
        errors.NotFound,
        errors.Conflict,
        errors.PreconditionFailed,
        errors.Unavailable,
    )
}
_BY_CODE: dict[str, type[MaoError]] = {
    kind.default_code: kind
    for kind in (
        errors.AlreadyExists,
        errors.StillReferenced,
        errors.StoreUnavailable,
        errors.FederationUnavailable,
        errors.NodeRemoved,
        errors.StoreUnknown,
        errors.EngineUnavailable,
        errors.RemoteUnavailable,
        errors.PeerUnavailable,
    )
}


def from_problem(status: int, document: Any) -> MaoError:
    """Return the exception for an error response; its `facts` hold the document's other members.

    The class is that with the document's code as default, otherwise that for the status. A response without a
    problem document becomes the exception for its status, with the default code.
    """
    plain = _BY_STATUS.get(status) or (errors.InvalidInput if 400 <= status < 500 else MaoError)
    if not isinstance(document, dict) or "code" not in document:
        return plain(f"The service answered with status {status}.", peer_status=status)
    kind = _BY_CODE.get(str(document["code"]), plain)
    standard = set(Problem.model_fields) - {"request_id"}
    facts = {str(key): value for key, value in document.items() if key not in standard}
    error = kind(str(document.get("detail", "")), code=str(document["code"]), next=document.get("next"))
    error.facts = facts
    return error
