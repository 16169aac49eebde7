"""Exit codes, and which error becomes which."""

from __future__ import annotations

from enum import IntEnum

from mao_shared import errors
from mao_shared.errors import MaoError


class ExitCode(IntEnum):
    OK = 0
    FAILED = 1
    USAGE = 2  # what was typed cannot be used, whoever found it out
    NOT_FOUND = 3
    AUTH = 4
    CONFLICT = 5
    UNREACHABLE = 6  # the gateway, or something behind it that is needed
    RUN_FAILED = 7
    WAIT_TIMED_OUT = 8
    INTERRUPTED = 130


_BY_ERROR: tuple[tuple[type[MaoError], ExitCode], ...] = (
    (errors.InvalidInput, ExitCode.USAGE),
    (errors.Unauthorized, ExitCode.AUTH),
    (errors.Forbidden, ExitCode.AUTH),
    (errors.NotFound, ExitCode.NOT_FOUND),
    (errors.Conflict, ExitCode.CONFLICT),
    (errors.PreconditionFailed, ExitCode.CONFLICT),
    (errors.Unavailable, ExitCode.UNREACHABLE),
)


def exit_code(error: MaoError) -> ExitCode:
    """The exit code for an error of ours."""
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), ExitCode.FAILED)


class CommandError(Exception):
    """Ends the command with an exit code and, where there is something to say, a detail and a next step."""

    def __init__(self, code: ExitCode, detail: str = "", next: str | None = None) -> None:  # noqa: A002 (the word of problem documents)
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.next = next
