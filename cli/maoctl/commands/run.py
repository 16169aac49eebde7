"""`maoctl run`: look at runs, wait for them, stop them."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from mao_shared.states import RUN_ENDED
from maoctl import views
from maoctl.arguments import AnyRun, RunArgument, duration_option, nodes, parse_moment, pipelines
from maoctl.exits import CommandError, ExitCode
from maoctl.lookup import find_run, other_nodes_run
from maoctl.output import Format, print_facts, print_records, say, write
from maoctl.session import CliSession, OutputOption, example, plain_record, session_of

from . import evidence, reproduce

if TYPE_CHECKING:
    from mao_shared.models import Run

app = typer.Typer(help="Executions of pipelines on this node.", no_args_is_help=True, rich_markup_mode=None)

WaitOption = Annotated[bool, typer.Option("--wait", "-w", help="Until it has ended.")]
FollowOption = Annotated[bool, typer.Option("--follow", "-f", help="Wait, and show the logs.")]
TimeoutOption = Annotated[float | None, duration_option("Longest wait, like 10m.", "--timeout")]
LimitOption = Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many.")]
PipelineOption = Annotated[
    str | None, typer.Option(help="Only of this pipeline.", show_default=False, autocompletion=pipelines)
]
PhaseOption = Annotated[str | None, typer.Option(help="Only in this phase, like failed.", show_default=False)]


_TIME = "this: a time with zone, or how long ago, like 12h."


@app.command("list", epilog=example("maoctl run list --pipeline daily --phase failed --since 7d"))
def list_runs(
    context: typer.Context,
    pipeline: PipelineOption = None,
    phase: PhaseOption = None,
    trigger: Annotated[
        str | None, typer.Option(help="Only those that this asked for, like manual.", show_default=False)
    ] = None,
    since: Annotated[str | None, typer.Option(help=f"Not before {_TIME}", show_default=False)] = None,
    until: Annotated[str | None, typer.Option(help=f"Not after {_TIME}", show_default=False)] = None,
    limit: LimitOption = 20,
    output: OutputOption = None,
) -> None:
    """List runs, newest first; a run's time is its tick, or when it was asked for."""
    session = session_of(context)
    found = session.client.runs(
        pipeline=pipeline,
        phase=phase,
        trigger=trigger,
        since=None if since is None else parse_moment(since, session.now),
        until=None if until is None else parse_moment(until, session.now),
    )
    session.show(views.RUN, list(islice(found, limit)), output)


@app.command("get", hidden=True)
def get(
    context: typer.Context,
    run: AnyRun = None,
    limit: LimitOption = 20,
    output: OutputOption = None,
) -> None:
    """Show one run, or the newest."""
    if run is None:
        list_runs(context, limit=limit, output=output)
    else:
        session = session_of(context)
        session.show_one(views.RUN, find_run(session.client, run), output)


@app.command(epilog=example("maoctl run show 1f3a5c7d"))
def show(context: typer.Context, run: RunArgument, output: OutputOption = None) -> None:
    """Show a run with its steps, and why it failed."""
    session = session_of(context)
    show_run(session, find_run(session.client, run), output)


def show_run(session: CliSession, run: Run, output: Format | None) -> None:
    """Everything that a person asks about a run first; the whole document for programs."""
    how = output or session.output
    if not how.for_people:
        session.show_one(views.RUN, run, how)
        return
    record = plain_record(run)
    print_facts(views.run_facts(record, session.now))
    if run.steps:
        write("\n")
        print_records(views.STEP, record["steps"], how, session.now)


@app.command(
    epilog=example("maoctl run logs 1f3a5c7d -f", "maoctl run logs 1f3a5c7d --step crawler --attempt 1")
)
def logs(
    context: typer.Context,
    run: RunArgument,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="As they come, until the run has ended.")
    ] = False,
    step: Annotated[
        str | None, typer.Option(help="Only of this step; else of all.", show_default=False)
    ] = None,
    attempt: Annotated[
        int | None,
        typer.Option(min=1, help="Of a step that was tried again; else the last.", show_default=False),
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Control characters as they are, on a terminal too.")
    ] = False,
    node: Annotated[
        str | None,
        typer.Option(
            help="Of another node's run: the end of one log.", show_default=False, autocompletion=nodes
        ),
    ] = None,
) -> None:
    """Show what a run's tools have printed."""
    from maoctl.logs import TextWriter, follow_logs, print_logs, print_node_log

    session = session_of(context)
    if node is not None:
        other = "--follow" if follow else "--attempt" if attempt is not None else None
        if other is not None:
            why = f"--node and {other} cannot be combined: of another node there is the end of the last "
            raise CommandError(ExitCode.USAGE, f"{why}attempt's log, as it is now.", f"Leave {other} out.")
        print_node_log(session, node, run, step, raw=raw)
        return
    with other_nodes_run(session.client, run):
        found = find_run(session.client, run)
    steps = [each.spec.name for each in found.steps]
    if step is not None and step not in steps:
        raise CommandError(
            ExitCode.NOT_FOUND, f"The run has no step {step!r}.", f"Its steps: {', '.join(steps)}"
        )
    if follow:
        follow_logs(session, found.id, TextWriter(raw), step)
    else:
        print_logs(session, found, TextWriter(raw), step, attempt)


@app.command(epilog=example("maoctl run cancel 1f3a5c7d --reason 'wrong input' --wait"))
def cancel(
    context: typer.Context,
    run: RunArgument,
    reason: Annotated[str, typer.Option(help="Kept with the run.", show_default=False)] = "",
    wait: WaitOption = False,
    timeout: TimeoutOption = None,
    output: OutputOption = None,
) -> None:
    """End a run; what a step has committed already stays."""
    from maoctl.follow import wait_for_run

    session = session_of(context)
    found = find_run(session.client, run)
    if found.phase in RUN_ENDED:
        again = f"To run it again: maoctl run retry {found.id}"
        raise CommandError(ExitCode.CONFLICT, f"The run {found.id} has ended already: {found.phase}.", again)
    asked = session.client.cancel_run(found.id, reason)
    if wait:
        asked = wait_for_run(session, asked.id, timeout)
    what = asked.phase if asked.phase in RUN_ENDED else "is being cancelled"
    session.done(views.RUN, asked, what, output)


@app.command(epilog=example("maoctl run wait 1f3a5c7d --timeout 10m"))
def wait(
    context: typer.Context, run: RunArgument, timeout: TimeoutOption = None, output: OutputOption = None
) -> None:
    """Wait until a run has ended: 0 if it succeeded, 7 if not, 8 when the time is up."""
    from maoctl.follow import check_succeeded, wait_for_run

    session = session_of(context)
    ended = wait_for_run(session, find_run(session.client, run).id, timeout)
    show_run(session, ended, output)
    check_succeeded(ended)


@app.command(epilog=example("maoctl run retry 1f3a5c7d --wait"))
def retry(
    context: typer.Context,
    run: RunArgument,
    wait: WaitOption = False,
    follow: FollowOption = False,
    timeout: TimeoutOption = None,
    output: OutputOption = None,
) -> None:
    """Run it again: a new run that refers to this one."""
    session = session_of(context)
    started = session.client.retry_run(find_run(session.client, run).id)
    started_run(session, started, output, wait=wait, follow=follow, timeout=timeout)


def started_run(
    session: CliSession, run: Run, output: Format | None, *, wait: bool, follow: bool, timeout: float | None
) -> None:
    """Tells that a run was started and, where asked, waits for its end. Raises Stop when it fails."""
    from maoctl.follow import check_succeeded, limit_for_run, progress, wait_for_run

    if not (wait or follow):
        session.done(views.RUN, run, "started", output)
        return
    say(f"run/{run.id} started")
    if follow:
        from maoctl.logs import TextWriter, follow_logs

        with limit_for_run(run.id, timeout):
            ended = follow_logs(session, run.id, TextWriter())
        say(progress(ended))
    else:
        ended = wait_for_run(session, run.id, timeout)
        show_run(session, ended, output)
    check_succeeded(ended)


reproduce.add_to(app)
evidence.add_to(app)
