"""`maoctl job`: schedules of this node, their next times and missed ticks."""

from __future__ import annotations

from typing import Annotated

import typer

from maoctl import records
from maoctl.arguments import AnyJob, JobArgument, duration_option, parse_moment
from maoctl.lookup import did_you_mean
from maoctl.output import Format, flatten_facts, print_data, print_facts, say, to_document, with_kind, write
from maoctl.session import OutputOption, YesOption, example, get_session
from maoctl.text import plain
from maoctl.tree import App
from maoctl.views.runs import JOB, RUN, time_facts

app = App(help="Schedules: when pipelines run on this node.")

CountOption = Annotated[int, typer.Option("--count", "-n", min=1, max=100, help="Number of times to show.")]


@app.command("get", lists=True, times=True, epilog=example("maoctl job get"))
def get(context: typer.Context, job: AnyJob = None, output: OutputOption = None) -> None:
    """Show one job, or all."""
    session = get_session(context, output)
    records.get(session, session.client.jobs, JOB, job)


@app.command(epilog=example("maoctl job show daily-3f2a1c"))
def show(
    context: typer.Context, job: JobArgument, count: CountOption = 5, output: OutputOption = None
) -> None:
    """Show a job and its next times."""
    session = get_session(context, output)
    found = records.fetch(session.client.jobs, job).record
    times = [] if found.paused else session.client.jobs.next_times(job, count).times
    if session.output.for_people:
        print_facts(flatten_facts(to_document(found)))
        say("Next times:" if times else f"job/{job} is paused")
        print_facts(time_facts(times, session.now, found.timezone))
    elif session.output is Format.NAME:
        session.show_one(JOB, found)
    else:
        document = to_document(found) | {"next_times": [plain(time) for time in times]}
        print_data(with_kind(JOB.kind, document), session.output)


@app.command(epilog=example("maoctl job pause daily-3f2a1c"))
def pause(context: typer.Context, job: JobArgument, output: OutputOption = None) -> None:
    """Pause a job: no ticks run; they are recorded as missed when it is resumed."""
    session = get_session(context, output)
    with did_you_mean((job, session.client.jobs)):
        session.done(JOB, session.client.jobs.pause(job), "paused")


@app.command(epilog=example("maoctl job resume daily-3f2a1c"))
def resume(context: typer.Context, job: JobArgument, output: OutputOption = None) -> None:
    """Resume a paused job, from the next tick on."""
    session = get_session(context, output)
    with did_you_mean((job, session.client.jobs)):
        session.done(JOB, session.client.jobs.resume(job), "resumed")


@app.command(epilog=example("maoctl job remove daily-3f2a1c --yes"))
def remove(context: typer.Context, job: JobArgument, yes: YesOption = False) -> None:
    """Remove a job; its runs stay, and the ticks of a pause are recorded as missed."""
    session = get_session(context)
    records.remove(session, session.client.jobs, JOB, job, yes)


@app.command(epilog=example("maoctl job backfill daily-3f2a1c --since 7d"))
def backfill(
    context: typer.Context,
    job: JobArgument,
    since: Annotated[str, typer.Option(help="Time with a zone, or how long ago, like 12h.")],
    until: Annotated[
        str | None, typer.Option(help="Like --since [default: now].", show_default=False)
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print which ticks would run.")] = False,
    output: OutputOption = None,
) -> None:
    """Run the ticks of a time that have no run, also those before the job was created.

    A tool is told the tick, but what it finds at its source is of today: look with --dry-run first.
    """
    session = get_session(context, output)
    now = session.now
    begin, end = parse_moment(since, now), parse_moment(until, now) if until else now
    if begin > end:
        raise typer.BadParameter("later than --until", param_hint="--since")
    with did_you_mean((job, session.client.jobs)):
        answer = session.client.jobs.backfill(job, begin, end, dry_run=dry_run)
    runs = [tick.run for tick in answer.ticks] if dry_run else answer.queued
    done = "would be queued (dry run)" if dry_run else "queued"
    say(f"job/{job}: {len(runs)} {done}, {answer.present} already run or running")
    if answer.more_since:  # the node's cap
        say(f"next: maoctl job backfill {job} --since {plain(answer.more_since)}")
    session.data(answer, lambda: write("".join(f"run/{run_id}\n" for run_id in runs)))


@app.command(epilog=example("maoctl job preview '30 2 * * mon-fri' --timezone Europe/Zurich"))
def preview(
    context: typer.Context,
    cron: Annotated[str, typer.Argument(help="Five fields, or @hourly, @daily …")],
    timezone: Annotated[str, typer.Option(help="Time zone.")] = "UTC",
    seconds: Annotated[bool, typer.Option("--seconds", help="The first of six fields is seconds.")] = False,
    count: CountOption = 5,
    output: OutputOption = None,
) -> None:
    """Show the next times of a cron string, on the clock of its zone."""
    from mao_shared.models.schedule import CronPreview

    session = get_session(context, output)
    fields = {"cron": cron, "timezone": timezone, "seconds": seconds, "count": count}
    found = session.client.jobs.preview(records.build(CronPreview, fields))
    session.data(found, lambda: print_facts(time_facts(found.times, session.now, timezone)))


@app.command(epilog=example("maoctl job wait daily-3f2a1c --runs 2 --timeout 10m"))
def wait(
    context: typer.Context,
    job: JobArgument,
    runs: Annotated[int, typer.Option(min=1, help="Total number of runs of the job.")] = 1,
    timeout: Annotated[float | None, duration_option("Longest wait, like 10m.", "--timeout")] = None,
    output: OutputOption = None,
) -> None:
    """Wait until runs of a job have ended: exit code 7 if one of them failed, 8 on timeout."""
    from maoctl.follow import check_none_failed, wait_for_job_runs

    session = get_session(context, output)
    found = records.fetch(session.client.jobs, job).record
    ended = wait_for_job_runs(session, found, runs, timeout)
    session.show(RUN, ended)
    check_none_failed(ended)
