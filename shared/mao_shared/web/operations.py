"""Which operation a service carried out, told to the gateway in headers of the response."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote, unquote

from starlette.types import Scope

OPERATION_HEADER = "X-MAO-Operation"
SUBJECT_HEADER = "X-MAO-Subject"
"""The first parameter of the path, percent-encoded."""
OPERATION_KEY = "mao.operation"
"""Key in a request's scope: what `read_operation` returned for its response."""
SENT_KEY = "mao.operations-sent"
"""Key in the scope of a request that makes several calls: `(read_operation(…), status)` of each."""
MAX_SUBJECT = 200  # characters
_SAFE = ("GET", "HEAD", "OPTIONS")


def operation_headers(scope: Scope) -> dict[str, str]:
    """Return the headers for a request that may change something; empty for others."""
    operation = getattr(scope.get("route"), "name", "")  # the operation id, see `api_pages.operation_id`
    if "." not in operation or scope["method"] in _SAFE:
        return {}
    subject = next(iter(scope.get("path_params", {}).values()), None)
    named = {} if subject is None else {SUBJECT_HEADER: quote(str(subject)[:MAX_SUBJECT], safe="")}
    return {OPERATION_HEADER: operation, **named}


def read_operation(headers: Mapping[str, str]) -> tuple[str, str | None] | None:
    """Return operation id and subject from a service's response; None if it reached no operation."""
    operation = headers.get(OPERATION_HEADER)
    subject = headers.get(SUBJECT_HEADER)
    return None if operation is None else (operation, None if subject is None else unquote(subject))
