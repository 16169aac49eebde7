"""The command tree and its error boundary: every ending has its exit code."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from mao_shared.errors import MaoError

from .arguments import from_original
from .commands import (
    alarm,
    apply,
    consent,
    dataset,
    doctor,
    external,
    federation,
    job,
    meta,
    node,
    pipeline,
    run,
    tool,
    vote,
    webhook,
)
from .exits import CommandError, ExitCode, exit_code
from .output import Format, say
from .session import CliSession, OutputOption, example, session_of

PROGRAM = "maoctl"
_AS_TYPED = "Correct what is listed, and repeat the command; --help shows what it takes."
_HINTS = {  # of options whose values were not all given
    "--cell": "Give all three: --cell FILE KEY FIELD; of a file voted as a whole: --cell FILE '' ''"
}
_NOUNS = {
    "tool": tool.app,
    "dataset": dataset.app,
    "pipeline": pipeline.app,
    "run": run.app,
    "job": job.app,
    "node": node.app,
    "federation": federation.app,
    "alarm": alarm.app,
    "series": alarm.series_app,
    "vote": vote.app,
    "webhook": webhook.app,
}

app = typer.Typer(
    name=PROGRAM,
    help="Steers a node of the MAO Orchestrator.",
    epilog=example("maoctl doctor", "maoctl pipeline run system-performance --wait"),
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def root(
    context: typer.Context,
    url: Annotated[
        str | None,
        typer.Option(
            help="Gateway's address; else MAO_URL, else 127.0.0.1:MAO_GATEWAY_PORT.", show_default=False
        ),
    ] = None,
    output: OutputOption = None,
) -> None:
    session = session_of(context)
    session.url = url
    session.output = output or Format.TABLE


for _noun, _app in _NOUNS.items():
    app.add_typer(_app, name=_noun)
    if not _noun.endswith("s"):
        app.add_typer(_app, name=f"{_noun}s", hidden=True)
apply.add_to(app)
consent.add_to(pipeline.app, node.app)
doctor.add_to(app)
external.add_to(app, dataset.app)
meta.add_to(app)

_command_of = functools.cache(typer.main.get_command)  # makes the whole tree, which takes a tenth of a second


def run_command(args: Sequence[str], session: CliSession) -> int:
    """Runs one command line; the exit code. All output but data goes to stderr."""
    try:
        result = _command_of(app)(
            args=from_original(args), prog_name=PROGRAM, standalone_mode=False, obj=session
        )
        return result if isinstance(result, int) else ExitCode.OK
    except (CommandError, MaoError, TyperException, typer.Abort) as error:
        return _report(error)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    finally:
        session.close()


def _report(error: Exception) -> int:
    """Tells the person what failed and what to do next; the exit code. A bug of ours stays a traceback."""
    if isinstance(error, CommandError):
        _tell(error.detail, error.next)
        return error.code
    if isinstance(error, MaoError):
        fields = _field_lines(error.facts)
        next_step = _AS_TYPED if fields and error.code == "invalid-input" else error.next
        _tell(error.detail, next_step, [] if fields == [error.detail] else fields)
        return exit_code(error)
    if isinstance(error, TyperException):
        _tell_usage(error)
        return error.exit_code
    say("Nothing was changed.")
    return ExitCode.FAILED


def _tell(detail: str, next_step: str | None, more: Sequence[str] = ()) -> None:
    if detail:
        say(f"error: {detail}")
    for line in more:
        say(f"  {line}")
    if next_step:
        say(f"next: {next_step}")


def _field_lines(facts: Mapping[str, Any]) -> list[str]:
    """A line for each field that did not validate."""
    errors = facts.get("errors")
    if not isinstance(errors, list):
        return []
    return [f"{each.get('field')}: {each.get('message')}" for each in errors if isinstance(each, dict)]


def _tell_usage(error: TyperException) -> None:
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        say(error.format_message())
        return
    say(f"error: {error.format_message()}")
    if context is None and (hint := _HINTS.get(getattr(error, "option_name", ""))):
        say(f"next: {hint}")
    if context is not None:
        say(context.get_usage())
        say(f"next: {context.command_path} --help")


def main() -> None:
    """The console script."""
    sys.exit(run_command(sys.argv[1:], CliSession(os.environ)))
