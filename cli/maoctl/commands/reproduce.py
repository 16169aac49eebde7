"""`maoctl run reproduce`: run a step again on the same input and say what came out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from maoctl import views
from maoctl.arguments import RunArgument, duration_option
from maoctl.exits import CommandError, ExitCode
from maoctl.lookup import find_run
from maoctl.output import Format, say, write
from maoctl.session import CliSession, OutputOption, example, session_of
from maoctl.text import harmless_line

if TYPE_CHECKING:
    from mao_shared.models import Reproduced, Run


def add_to(app: typer.Typer) -> None:
    """Adds the verb to `maoctl run`."""
    app.command(epilog=example("maoctl run reproduce 1f3a5c7d --wait"))(reproduce)


def reproduce(
    context: typer.Context,
    run: RunArgument,
    step: Annotated[
        str | None, typer.Option(help="Which one, where the run has several.", show_default=False)
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Until it is compared.")] = False,
    timeout: Annotated[float | None, duration_option("Longest wait, like 10m.", "--timeout")] = None,
    output: OutputOption = None,
) -> None:
    """Run a step again: same image, same input, in a scratch workspace; then compare file by file.

    With --wait: 0 if every file is identical, 1 if not, 7 if it could not be run.
    """
    from maoctl.follow import check_succeeded, wait_for_run

    session = session_of(context)
    made = session.client.reproduce_run(find_run(session.client, run).id, step)
    if not wait:
        session.done(views.RUN, made, "started", output)
        return
    say(f"run/{made.id} started")
    ended = wait_for_run(session, made.id, timeout)
    check_succeeded(ended)
    _report(session, ended, output)


def _report(session: CliSession, run: Run, output: Format | None) -> None:
    """Prints the comparison. Raises Stop where anything differs."""
    how = output or session.output
    found = run.steps[0].reproduced
    if not how.for_people:
        session.show_one(views.RUN, run, how)
    elif found is not None:
        write("".join(f"{line}\n" for line in reproduced_lines(found)))
    if found is None or not found.same:
        raise CommandError(
            ExitCode.FAILED,
            "The step did not give the same files again.",
            "Its output is kept on the node for a while, in workspaces/"
            f"{run.id} of the data directory; what it said: maoctl run logs {run.id}",
        )


def reproduced_lines(found: Reproduced) -> list[str]:
    """A line for each file that is not identical, and the number of those that are."""
    kinds = {"different": found.different, "missing": found.missing, "extra": found.extra}
    lines = [f"{kind:<10} {harmless_line(path)}" for kind, paths in kinds.items() for path in paths]
    if found.unlisted:
        lines.append(f"           … and {found.unlisted} more")
    return [*lines, f"identical  {found.identical} file{'' if found.identical == 1 else 's'}"]
