"""Requests that are not even looked at, and why: refusals, faults of headers, room for large bodies."""

from __future__ import annotations

from dataclasses import dataclass

from mao_shared.problems import Problem, make_problem

MAX_HEADER = 32 << 10  # bytes of a request's first line and headers
MAX_HEADERS = 100
MAX_TARGET = 16 << 10  # bytes of path and query


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that is not even looked at; the connection is closed behind it."""

    status: int
    code: str
    detail: str
    next: str

    def problem(self, request_id: str | None = None) -> Problem:
        return make_problem(self.status, self.code, self.detail, self.next, request_id)


_TALK_HTTP = "Send the request as HTTP/1.1 (RFC 9112) has it; maoctl, curl and browsers do."
LATE = Refusal(408, "request-timeout", "The request did not come in time.", "Send it again, without pauses.")
TOO_MUCH = Refusal(
    413,
    "body-too-large",
    "The body is larger than this service takes.",
    "Send less at once, in larger chunks.",
)
CROWDED = Refusal(
    503, "too-many-connections", "Too many connections are open.", "Close some, or try again later."
)
MALFORMED = Refusal(400, "request-malformed", "This is no HTTP request that can be understood.", _TALK_HTTP)
TOO_LONG = Refusal(
    431,
    "header-too-large",
    f"The request's header is larger than {MAX_HEADER} bytes or has more than {MAX_HEADERS} lines.",
    "Send fewer or shorter headers; a browser sends all cookies of this host, clear them.",
)
NO_CODING = Refusal(
    501, "coding-not-supported", "Only 'Transfer-Encoding: chunked' is understood.", _TALK_HTTP
)
TARGET_TOO_LONG = Refusal(
    414, "target-too-long", f"Path and query are longer than {MAX_TARGET} bytes.", "Ask for less at once."
)
TWO_LENGTHS = Refusal(
    400, "length-ambiguous", "The request has both Content-Length and Transfer-Encoding.", _TALK_HTTP
)
OLD_CHUNKED = Refusal(400, "length-ambiguous", "HTTP/1.0 has no Transfer-Encoding.", _TALK_HTTP)
STREAMS = Refusal(
    503,
    "too-many-streams",
    "Too many event streams are open here.",
    "Close some (pages of the dashboard, 'logs -f'), or try again later.",
)
BODIES = Refusal(
    503, "too-many-bodies", "Too many large bodies are on their way at the same time.", "Try again later."
)


def header_fault(version: str, target: int, headers: list[tuple[bytes, bytes]]) -> Refusal | None:
    """What is wrong with a header that h11 has understood; `target` is the length of path and query."""
    if target > MAX_TARGET:
        return TARGET_TOO_LONG
    size = target + sum(len(name) + len(value) + 4 for name, value in headers)
    if len(headers) > MAX_HEADERS or size > MAX_HEADER:
        return TOO_LONG
    names = {name for name, _ in headers}
    if b"transfer-encoding" not in names:
        return None
    if b"content-length" in names:  # two readers may differ in where the request ends
        return TWO_LENGTHS
    return OLD_CHUNKED if version == "1.0" else None


class Room:
    """The memory that large bodies share; what every request may have anyhow is not counted. In bytes."""

    SMALL = 64 << 10

    def __init__(self, size: int) -> None:
        self._left = size

    def take(self, held: int, more: int) -> int:
        """What of `more` bytes was taken for a body of which `held` are there; -1 when there is no room."""
        large = max(0, held + more - self.SMALL) - max(0, held - self.SMALL)
        if large > self._left:
            return -1
        self._left -= large
        return large

    def give_back(self, size: int) -> None:
        self._left += size
