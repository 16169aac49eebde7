"""`maoctl job`: schedules of this node, their next times and missed ticks."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from maoctl import records, views
from maoctl.arguments import AnyJob, JobArgument, duration_option, parse_moment
from maoctl.lookup import did_you_mean, names_of, segment
from maoctl.output import facts_of, print_facts, say, write
from maoctl.session import OutputOption, YesOption, example, plain_record, session_of

app = typer.Typer(
    help="Schedules: when pipelines run on this node.", no_args_is_help=True, rich_markup_mode=None
)

CountOption = Annotated[int, typer.Option("--count", "-n", min=1, max=100, help="How many times to show.")]


@app.command("get", epilog=example("maoctl job get"))
@app.command("list", hidden=True)
def get(context: typer.Context, job: AnyJob = None, output: OutputOption = None) -> None:
    """Show one job, or all."""
    session = session_of(context)
    records.get(session, session.client.jobs, views.JOB, job, output)


@app.command(epilog=example("maoctl job show daily-3f2a1c"))
def show(
    context: typer.Context, job: JobArgument, count: CountOption = 5, output: OutputOption = None
) -> None:
    """Show a job and its next times."""
    session = session_of(context)
    record = plain_record(records.fetch(session.client.jobs, job, "id").record)
    times = [] if record.get("paused") else session.client.next_ticks(segment(job), count).get("times", [])
    how = output or session.output
    if how.for_people:
        print_facts(facts_of(record))
        say("Next times:" if times else "It is paused.")
        print_facts(views.time_facts(times, session.now))
    else:
        session.show_one(views.JOB, record | {"next_times": times}, how)


@app.command(epilog=example("maoctl job pause daily-3f2a1c"))
def pause(context: typer.Context, job: JobArgument, output: OutputOption = None) -> None:
    """Run no more ticks until it is resumed; they are recorded as missed."""
    session = session_of(context)
    with did_you_mean((job, names_of(session.client.jobs, "id"))):
        session.done(views.JOB, session.client.pause_job(segment(job)), "paused", output)


@app.command(epilog=example("maoctl job resume daily-3f2a1c"))
def resume(context: typer.Context, job: JobArgument, output: OutputOption = None) -> None:
    """Run ticks again, from the next one on."""
    session = session_of(context)
    with did_you_mean((job, names_of(session.client.jobs, "id"))):
        session.done(views.JOB, session.client.resume_job(segment(job)), "resumed", output)


@app.command(epilog=example("maoctl job remove daily-3f2a1c --yes"))
def remove(context: typer.Context, job: JobArgument, yes: YesOption = False) -> None:
    """Remove a job; its runs stay."""
    session = session_of(context)
    records.remove(session, session.client.jobs, views.JOB, job, yes)


@app.command(epilog=example("maoctl job backfill daily-3f2a1c --since 7d"))
def backfill(
    context: typer.Context,
    job: JobArgument,
    since: Annotated[str, typer.Option(help="A time with zone, or how long ago, like 12h.")],
    until: Annotated[str | None, typer.Option(help="The same; else now.", show_default=False)] = None,
    output: OutputOption = None,
) -> None:
    """Run the ticks that were missed."""
    session = session_of(context)
    now = session.now
    begin, end = parse_moment(since, now), parse_moment(until, now) if until else now
    if begin > end:
        raise typer.BadParameter("it is later than --until", param_hint="--since")
    with did_you_mean((job, names_of(session.client.jobs, "id"))):
        answer = session.client.backfill_job(segment(job), begin, end)
    say(f"job/{job}: {len(answer['queued'])} queued, {answer['present']} were run or are running")
    if answer.get("more_since"):  # the node's cap; who wants more is to say so
        say(f"next: maoctl job backfill {job} --since {answer['more_since']}")
    session.data(answer, output, lambda: write("".join(f"run/{run_id}\n" for run_id in answer["queued"])))


@app.command(epilog=example("maoctl job preview '30 2 * * mon-fri' --timezone Europe/Zurich"))
def preview(
    context: typer.Context,
    cron: Annotated[str, typer.Argument(help="Five fields, or @hourly, @daily …")],
    timezone: Annotated[str, typer.Option(help="Zone of the fields.")] = "UTC",
    seconds: Annotated[
        bool, typer.Option("--seconds", help="There is a field for seconds in front.")
    ] = False,
    count: CountOption = 5,
    output: OutputOption = None,
) -> None:
    """Show when a cron string would run something."""
    session = session_of(context)
    fields: dict[str, Any] = {"timezone": timezone, "seconds": seconds, "count": count}
    answer = session.client.preview_cron(cron, **fields)
    times = answer.get("times", [])
    session.data(answer, output, lambda: print_facts(views.time_facts(times, session.now)))


@app.command(epilog=example("maoctl job wait daily-3f2a1c --runs 2 --timeout 10m"))
def wait(
    context: typer.Context,
    job: JobArgument,
    runs: Annotated[int, typer.Option(min=1, help="So many runs of the job in all.")] = 1,
    timeout: Annotated[float | None, duration_option("Longest wait, like 10m.", "--timeout")] = None,
    output: OutputOption = None,
) -> None:
    """Wait until that many runs of a job have ended: 7 if one of them failed, 8 when the time is up."""
    from maoctl.follow import check_none_failed, wait_for_job_runs

    session = session_of(context)
    found = records.fetch(session.client.jobs, job, "id").record
    ended = wait_for_job_runs(session, found, runs, timeout)
    session.show(views.RUN, ended, output)
    check_none_failed(ended)
