"""`maoctl run`: list, show, follow, cancel and retry runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mao_shared.states import RUN_ENDED
from maoctl.arguments import AnyRun, RunArgument, duration_option, nodes, pipelines, runs, strip_kind
from maoctl.exits import CommandError, ExitCode
from maoctl.lookup import find_run, newest_run, other_nodes_run
from maoctl.output import print_facts, print_records, say, write
from maoctl.session import CliSession, OutputOption, example, get_session
from maoctl.tree import App
from maoctl.views.runs import RUN, STEP, STEP_CHECK, run_facts, step_checks

from . import evidence

if TYPE_CHECKING:
    from mao_shared.models import Run

app = App(help="Executions of pipelines on this node.")

WaitOption = Annotated[bool, typer.Option("--wait", "-w", help="Wait until the run has ended.")]
FollowOption = Annotated[bool, typer.Option("--follow", "-f", help="Wait and follow the logs.")]
TimeoutOption = Annotated[float | None, duration_option("Longest wait, like 10m.", "--timeout")]
LimitOption = Annotated[int, typer.Option("--limit", "-n", min=1, help="Maximum number of runs.")]
PipelineOption = Annotated[
    str | None, typer.Option(help="Only runs of this pipeline.", show_default=False, autocompletion=pipelines)
]
NewestRun = Annotated[
    str | None,
    typer.Argument(
        help="Id of the run, or its beginning or end [default: the newest run].",
        autocompletion=runs,
        callback=strip_kind("run"),
        show_default=False,
    ),
]
PhaseOption = Annotated[
    str | None, typer.Option(help="Only runs in this phase, like failed.", show_default=False)
]


@app.command(
    "list",
    lists=True,
    times=True,
    epilog=example("maoctl run list --pipeline daily --phase failed --since 7d"),
)
def list_runs(
    context: typer.Context,
    run: AnyRun = None,
    pipeline: PipelineOption = None,
    phase: PhaseOption = None,
    trigger: Annotated[
        str | None, typer.Option(help="Only runs with this trigger, like manual.", show_default=False)
    ] = None,
    limit: LimitOption = 20,
    output: OutputOption = None,
) -> None:
    """List runs, newest first, or show one; a run's time is its tick, or when it was requested."""
    session = get_session(context, output)
    if run is not None:
        session.show_one(RUN, find_run(session.client, run))
        return
    period = session.listing
    found = session.client.runs.list(
        pipeline=pipeline, phase=phase, trigger=trigger, since=period.since, until=period.until
    )
    session.show(RUN, found, limit)


@app.command(epilog=example("maoctl run show 1f3a5c7d"))
def show(context: typer.Context, run: NewestRun = None, output: OutputOption = None) -> None:
    """Show a run with its steps, and why it failed; the newest run if none is named."""
    session = get_session(context, output)
    show_run(session, find_run(session.client, run) if run else newest_run(session.client, None))


def show_run(session: CliSession, run: Run) -> None:
    """Print a run and its steps."""
    if not session.output.for_people:
        session.show_one(RUN, run)
        return
    print_facts(run_facts(run, session.now))
    if run.steps:
        write("\n")
        print_records(STEP, run.steps, session.output, session.now)
    if checks := step_checks(run):
        write("\n")
        print_records(STEP_CHECK, checks, session.output, session.now)


@app.command(
    epilog=example(
        "maoctl run logs 1f3a5c7d -f",
        "maoctl run logs 1f3a5c7d --step crawler --attempt 1",
        "maoctl run logs --pipeline daily",
    )
)
def logs(
    context: typer.Context,
    run: NewestRun = None,
    pipeline: Annotated[
        str | None,
        typer.Option(
            help="Show the newest run of this pipeline.", show_default=False, autocompletion=pipelines
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Follow the logs until the run has ended.")
    ] = False,
    step: Annotated[str | None, typer.Option(help="Step [default: all].", show_default=False)] = None,
    attempt: Annotated[
        int | None,
        typer.Option(min=1, help="Attempt of a step that was retried [default: latest].", show_default=False),
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Do not escape control characters on a terminal.")
    ] = False,
    node: Annotated[
        str | None,
        typer.Option(help="Show the end of a log on this node.", show_default=False, autocompletion=nodes),
    ] = None,
) -> None:
    """Show the logs of a run's steps, of the newest run if none is named."""
    from maoctl.logs import TextWriter, follow_logs, print_logs, print_node_log

    session = get_session(context)
    if run is not None and pipeline is not None:
        raise CommandError(ExitCode.USAGE, "RUN and --pipeline cannot be combined.", "Omit one of them.")
    if run is None:
        run = newest_run(session.client, pipeline).id
        say(f"run/{run}")
    if node is not None:
        other = "--follow" if follow else "--attempt" if attempt is not None else None
        if other is not None:
            why = f"--node and {other} cannot be combined: another node sends only the end of a log."
            raise CommandError(ExitCode.USAGE, why, f"Omit {other}.")
        print_node_log(session, node, run, step, raw=raw)
        return
    with other_nodes_run(session.client, run):
        found = find_run(session.client, run)
    steps = [known.spec.name for known in found.steps]
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
    reason: Annotated[str, typer.Option(help="Reason, recorded with the run.", show_default=False)] = "",
    wait: WaitOption = False,
    timeout: TimeoutOption = None,
    output: OutputOption = None,
) -> None:
    """Cancel a run; snapshots that were already committed are kept."""
    from maoctl.follow import wait_for_run

    session = get_session(context, output)
    found = find_run(session.client, run)
    if found.phase in RUN_ENDED:
        again = f"To run it again: maoctl run retry {found.id}"
        raise CommandError(ExitCode.CONFLICT, f"The run {found.id} has already ended: {found.phase}.", again)
    cancelled = session.client.runs.cancel(found.id, reason)
    if wait:
        cancelled = wait_for_run(session, cancelled.id, timeout)
    what = cancelled.phase if cancelled.phase in RUN_ENDED else "is being cancelled"
    session.done(RUN, cancelled, what)


@app.command(epilog=example("maoctl run wait 1f3a5c7d --timeout 10m"))
def wait(
    context: typer.Context, run: RunArgument, timeout: TimeoutOption = None, output: OutputOption = None
) -> None:
    """Wait until a run has ended: exit code 0 if it succeeded, 7 if not, 8 on timeout."""
    from maoctl.follow import check_succeeded, wait_for_run

    session = get_session(context, output)
    ended = wait_for_run(session, find_run(session.client, run).id, timeout)
    show_run(session, ended)
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
    """Retry a run: start a new run that refers to this one."""
    session = get_session(context, output)
    started = session.client.runs.retry(find_run(session.client, run).id)
    report_started(session, started, wait=wait, follow=follow, timeout=timeout)


def report_started(session: CliSession, run: Run, *, wait: bool, follow: bool, timeout: float | None) -> None:
    """Report a started run; with `wait` or `follow`, wait for its end and raise CommandError if it fails."""
    from maoctl.follow import check_succeeded, limit_for_run, progress, wait_for_run

    if not (wait or follow):
        session.done(RUN, run, "started")
        return
    say(f"run/{run.id} started")
    if follow:
        from maoctl.logs import TextWriter, follow_logs

        with limit_for_run(run.id, timeout):
            ended = follow_logs(session, run.id, TextWriter())
        say(progress(ended))
    else:
        ended = wait_for_run(session, run.id, timeout)
        show_run(session, ended)
    check_succeeded(ended)


evidence.add_to(app)
