"""Exit codes, which error becomes which, and how errors are reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any

import typer
from typer.exceptions import TyperException

from mao_shared import errors
from mao_shared.errors import MaoError

from .output import say


class ExitCode(IntEnum):
    OK = 0
    FAILED = 1
    USAGE = 2  # invalid usage, whether the CLI or the node detected it
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


_CORRECT = "Correct what is listed, and repeat the command; --help shows the arguments."
_HINTS = {  # of options whose values were not all given
    "--cell": "Give all three: --cell FILE KEY FIELD; of a file voted as a whole: --cell FILE '' ''"
}


def report_error(error: Exception) -> int:
    """Says on stderr what failed and what to do next; the exit code. A bug of ours stays a traceback."""
    if isinstance(error, CommandError):
        _say_error(error.detail, error.next)
        return error.code
    if isinstance(error, MaoError):
        fields = _field_errors(error.facts)
        next_step = _CORRECT if fields and error.code == "invalid-input" else error.next
        _say_error(error.detail, next_step, [] if fields == [error.detail] else fields)
        return exit_code(error)
    if isinstance(error, TyperException):
        _say_usage(error)
        return error.exit_code
    if isinstance(error, typer.Abort):
        say("Nothing was changed.")
        return ExitCode.FAILED
    raise error


def _say_error(detail: str, next_step: str | None, more: Sequence[str] = ()) -> None:
    if detail:
        say(f"error: {detail}")
    for line in more:
        say(f"  {line}")
    if next_step:
        say(f"next: {next_step}")


def _field_errors(facts: Mapping[str, Any]) -> list[str]:
    """A line for each field that did not validate."""
    errors = facts.get("errors")
    if not isinstance(errors, list):
        return []
    return [f"{each.get('field')}: {each.get('message')}" for each in errors if isinstance(each, dict)]


def _say_usage(error: TyperException) -> None:
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        say(error.format_message())
        return
    say(f"error: {error.format_message()}")
    if context is not None:
        say(context.get_usage())
        say(f"next: {context.command_path} --help")
    elif hint := _HINTS.get(getattr(error, "option_name", "")):
        say(f"next: {hint}")
