"""Exit codes, their errors, and how errors are reported."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import typer
from typer.exceptions import TyperException

from mao_shared import errors
from mao_shared.errors import MaoError

from .output import say, write


class ExitCode(IntEnum):
    OK = 0
    FAILED = 1
    USAGE = 2  # invalid usage, whether the CLI or the node detected it
    NOT_FOUND = 3
    AUTH = 4
    CONFLICT = 5
    UNREACHABLE = 6  # the gateway, or something it depends on
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
    """Return the exit code for an error."""
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), ExitCode.FAILED)


class CommandError(Exception):
    """Ends the command with an exit code and optionally a message and a next step."""

    def __init__(self, code: ExitCode, detail: str = "", next: str | None = None) -> None:  # noqa: A002 (the word of problem documents)
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.next = next


_CORRECT = "Correct the fields above and try again; --help shows the arguments."
_HINTS = {  # for options with too few values
    "--cell": "Give all three: --cell FILE KEY FIELD; of a file voted as a whole: --cell FILE '' ''"
}


def report_error(error: Exception) -> int:
    """Report an error and the next step on stderr; return the exit code. Unexpected errors are raised."""
    if isinstance(error, CommandError):
        _say_error(error.detail, error.next)
        return error.code
    if isinstance(error, MaoError):
        listed = error.facts.get("errors")
        items = [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
        fields = [f"{item.get('field')}: {item.get('message')}" for item in items]
        next_step = _CORRECT if fields and error.code == "invalid-input" else error.next
        _say_error(error.detail, next_step, [] if fields == [error.detail] else fields)
        return exit_code(error)
    if isinstance(error, TyperException):
        context = getattr(error, "ctx", None)
        if type(error).__name__ == "NoArgsIsHelpError":
            write(error.format_message() + "\n")
            return ExitCode.OK
        if context is not None:
            _say_error(_usage_detail(error), None)
            say(context.get_usage())
            say(f"next: {context.command_path} --help")
        else:
            _say_error(error.format_message(), _HINTS.get(getattr(error, "option_name", "")))
        return error.exit_code
    if isinstance(error, typer.Abort):
        say("Nothing was changed.")
        return ExitCode.FAILED
    raise error


def _usage_detail(error: TyperException) -> str:
    """Return what is wrong with a command line; for an unknown option, the visible options like it."""
    option, context = getattr(error, "option_name", ""), getattr(error, "ctx", None)
    if type(error).__name__ != "NoSuchOption" or context is None:
        return error.format_message()
    known = {name: getattr(p, "hidden", False) for p in context.command.params for name in p.opts}
    near = [name for name in getattr(error, "possibilities", None) or () if not known.get(name, False)]
    globals_ = [name for p in context.find_root().command.params for name in p.opts]
    if option in globals_:
        return f"No such option: {option}. It goes before the command: maoctl {option} …"
    return f"No such option: {option}." + (f" Did you mean {' or '.join(near)}?" if near else "")


def _say_error(detail: str, next_step: str | None, more: Sequence[str] = ()) -> None:
    if detail:
        say(f"error: {detail}")
    for line in more:
        say(f"  {line}")
    if next_step:
        say(f"next: {next_step}")
