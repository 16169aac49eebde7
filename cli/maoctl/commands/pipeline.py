"""`maoctl pipeline`: define, enrol, approve, run and schedule pipelines."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mao_shared.errors import MaoError
from maoctl import arguments, records
from maoctl.arguments import AnyPipeline, PipelineArgument
from maoctl.exits import CommandError, ExitCode
from maoctl.lookup import did_you_mean
from maoctl.output import say, write
from maoctl.progress import working
from maoctl.session import CliSession, OutputOption, YesOption, confirm, example, get_session
from maoctl.text import harmless, harmless_line
from maoctl.tree import App
from maoctl.views.federation import NODE_RUNS
from maoctl.views.registry import ENROLMENT, PIPELINE
from maoctl.views.runs import SCHEDULE

from .run import FollowOption, LimitOption, TimeoutOption, WaitOption, list_runs, report_started

if TYPE_CHECKING:
    from mao_shared.models import Pipeline, PipelineDiff

app = App(help="Ordered steps, each a tool that writes to a dataset.")

AgreeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--agree", help="Grant a privilege that a tool requires; may be repeated.", show_default=False
    ),
]
RevisionOption = Annotated[
    str | None,
    typer.Option(
        "--revision",
        help="Revision shown by 'maoctl pipeline diff'; refused if it has changed.",
        show_default=False,
    ),
]
OverlapOption = Annotated[
    str | None,
    typer.Option(help="If the previous run has not ended: skip | queue | replace", show_default=False),
]


def parse_step(text: str) -> dict[str, str]:
    """Parse `tool:dataset[:input_dataset]` into the fields of a step. Raises BadParameter."""
    parts = text.split(":")
    if len(parts) not in (2, 3) or not all(parts):
        raise typer.BadParameter(f"invalid value {text!r}; use TOOL:DATASET[:INPUT]", param_hint="--step")
    return dict(zip(("tool", "dataset", "input_dataset"), parts, strict=False))


@app.command(epilog=example("maoctl pipeline init crawler data"))
def init(
    context: typer.Context,
    tool: Annotated[
        str, typer.Argument(help="Name of the tool, and of the pipeline.", autocompletion=arguments.tools)
    ],
    dataset: Annotated[str, typer.Argument(help="Dataset to write to.", autocompletion=arguments.datasets)],
    agree: AgreeOption = None,
    output: OutputOption = None,
) -> None:
    """Create a pipeline of one step and enrol this node in it."""
    _create(get_session(context, output), {"tool": tool, "dataset": dataset, "agree": agree or []})


@app.command(
    epilog=example("maoctl pipeline create daily --step crawler:raw \\", "    --step summary:tables:raw")
)
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the pipeline.")],
    step: Annotated[
        list[str],
        typer.Option("--step", metavar="TOOL:DATASET[:INPUT]", help="A step; may be repeated, in order."),
    ],
    description: Annotated[str, typer.Option(help="Description of the pipeline.", show_default=False)] = "",
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric", metavar=arguments.METRIC_METAVAR, help=arguments.METRIC_HELP, show_default=False
        ),
    ] = None,
    check: Annotated[
        list[str] | None,
        typer.Option(
            "--check", metavar=arguments.CHECK_METAVAR, help=arguments.CHECK_HELP, show_default=False
        ),
    ] = None,
    overlap: OverlapOption = None,
    agree: AgreeOption = None,
    output: OutputOption = None,
) -> None:
    """Create a pipeline of several steps and enrol this node in it."""
    steps = arguments.with_metrics([parse_step(text) for text in step], metric or [])
    steps = arguments.with_checks(steps, check or [])
    fields = {"name": name, "description": description, "steps": steps, "agree": agree or []}
    _create(get_session(context, output), fields | records.given(overlap=overlap))


def _create(session: CliSession, fields: dict[str, Any]) -> None:
    from mao_shared.models import PipelineInit

    wanted = records.build(PipelineInit, fields)
    steps = wanted.pipeline().steps
    for step in steps:
        if step.input_dataset == step.dataset:
            say(
                f"warning: {step.tool} reads the dataset {step.dataset} that it writes: its input is the "
                "previous ground truth, and in a federation it may wait for a round that waits for it"
            )
    names: list[tuple[str, Any]] = [(step.tool, session.client.tools) for step in steps]
    names += [(step.dataset, session.client.datasets) for step in steps]
    with did_you_mean(*names), working("Pulling the images", session):
        made = session.client.pipelines.init(wanted)
    session.done(PIPELINE, made, "created; this node is enrolled")
    for step in steps:
        records.warn_of_secrets(f"step {step.name}", step.env)
        with suppress(MaoError):  # the pipeline was created; only the hint is missing
            tool = session.client.tools.get(step.tool).record
            records.warn_of_secrets(f"tool {step.tool}", tool.env)


@app.command("get", lists=True, epilog=example("maoctl pipeline get", "maoctl pipeline get daily -o yaml"))
def get(context: typer.Context, name: AnyPipeline = None, output: OutputOption = None) -> None:
    """Show one pipeline, or all, and whether this node is enrolled."""
    session = get_session(context, output)
    if name is None:
        session.show(PIPELINE, session.client.pipelines.states())
    else:
        session.show_one(PIPELINE, _find(session, name))


@app.command(epilog=example("maoctl pipeline show daily"))
def show(context: typer.Context, name: PipelineArgument, output: OutputOption = None) -> None:
    """Show the details of a pipeline."""
    session = get_session(context, output)
    session.describe(PIPELINE, _find(session, name))


def _find(session: CliSession, name: str) -> Pipeline:
    """Return a pipeline by name or title, with this node's enrolment if it has one."""
    states = (state for state in session.client.pipelines.states() if name in (state.name, state.title))
    return next(states, None) or records.fetch(session.client.pipelines, name).record


@app.command(
    epilog=example(
        "maoctl pipeline run daily --wait",
        "maoctl pipeline run daily --cron '30 2 * * *' --timezone Europe/Zurich",
    )
)
def run(
    context: typer.Context,
    name: PipelineArgument,
    cron: Annotated[
        str | None, typer.Option(help="Schedule: five fields, or @hourly, @daily …", show_default=False)
    ] = None,
    timezone: Annotated[
        str | None, typer.Option(help="Time zone of --cron [default: UTC].", show_default=False)
    ] = None,
    seconds: Annotated[
        bool, typer.Option("--seconds", help="The first of six fields of --cron is seconds.")
    ] = False,
    catch_up: Annotated[
        str | None, typer.Option(help="Missed ticks to run: none | latest | all", show_default=False)
    ] = None,
    start_deadline: Annotated[
        float | None, arguments.duration_option("A tick that starts later is missed.", "--start-deadline")
    ] = None,
    overlap: OverlapOption = None,
    scheduled_for: Annotated[
        str | None,
        typer.Option(help="Tick to pass to the tools: a time with a zone.", show_default=False),
    ] = None,
    wait: WaitOption = False,
    follow: FollowOption = False,
    timeout: TimeoutOption = None,
    output: OutputOption = None,
) -> None:
    """Run a pipeline now, or schedule it."""
    from mao_shared.models.schedule import ScheduleRequest

    session = get_session(context, output)
    timing = records.given(
        timezone=timezone,
        catch_up=catch_up,
        start_deadline=start_deadline,
        overlap=overlap,
        seconds=seconds or None,
    )
    if cron is None:
        if timing:
            raise typer.BadParameter(f"--{next(iter(timing)).replace('_', '-')} requires --cron")
        moment = arguments.parse_moment(scheduled_for, session.now) if scheduled_for else None
        with did_you_mean((name, session.client.pipelines)):
            key = secrets.token_hex(16)
            started = session.client.pipelines.run(name, scheduled_for=moment, idempotency_key=key)
        report_started(session, started, wait=wait, follow=follow, timeout=timeout)
        return
    if wait or follow or scheduled_for:
        raise typer.BadParameter("--cron creates a job; wait for its runs with 'maoctl job wait JOB'")
    request = records.build(ScheduleRequest, timing | {"name": name, "cron": cron})
    with did_you_mean((name, session.client.pipelines)):
        session.done(SCHEDULE, session.client.pipelines.schedule(request), "scheduled")


@app.command(lists=True, times=True, epilog=example("maoctl pipeline runs daily --all-nodes"))
def runs(
    context: typer.Context,
    name: PipelineArgument,
    all_nodes: Annotated[bool, typer.Option("--all-nodes", help="Show the latest run of each node.")] = False,
    limit: LimitOption = 20,
    output: OutputOption = None,
) -> None:
    """List a pipeline's runs, newest first, or the latest run of each node."""
    session = get_session(context, output)
    if not all_nodes:
        list_runs(context, pipeline=name, limit=limit, output=output)
        return
    with did_you_mean((name, session.client.pipelines)):
        session.show(NODE_RUNS, session.client.nodes.runs(name))


@app.command(epilog=example("maoctl pipeline enrol daily --agree 'host network'"))
def enrol(
    context: typer.Context, name: PipelineArgument, agree: AgreeOption = None, output: OutputOption = None
) -> None:
    """Enrol this node in a pipeline, or renew the enrolment; pins the tools as they are now."""
    session = get_session(context, output)
    with did_you_mean((name, session.client.pipelines)), working("Pulling the images", session):
        enrolment = session.client.enrolments.enrol(name, agree or [])
    session.done(ENROLMENT, enrolment, "enrolled")
    for step in enrolment.steps:
        records.warn_of_secrets(f"step {step.name}", step.env)


@app.command(epilog=example("maoctl pipeline diff daily"))
def diff(context: typer.Context, name: PipelineArgument, output: OutputOption = None) -> None:
    """Show the changes of a pipeline that this node has not approved."""
    session = get_session(context, output)
    found = _diff(session, name)
    session.data(found, lambda: _print_diff(found))


def _diff(session: CliSession, name: str) -> PipelineDiff:
    with did_you_mean((name, session.client.pipelines)):
        return session.client.pipelines.diff(name)


def _print_diff(found: PipelineDiff, write: Callable[[str], None] = write) -> None:
    for name, image in found.rebuilt.items():
        say(f"# image {harmless_line(name)} was rebuilt or pulled again: {harmless_line(image.here)}")
        say(f"#   runs use {harmless_line(image.pinned)}; to use the new one:")
        say(f"#   maoctl pipeline enrol {found.pipeline}")
    if not found.diff:
        say(f"pipeline/{found.pipeline}: no pending changes")
        return
    write(harmless(found.diff) + "\n")
    for label, nodes in found.endorsed.items():
        say(f"# {label}: {'changed by ' + ', '.join(nodes) if nodes else 'endorsed by no trusted node'}")
    from mao_shared.models.tool import asked_words

    for privilege in found.agree:
        description = harmless_line(asked_words([privilege]))
        say(f"# requires {description}: --agree '{harmless_line(privilege)}'")
    say(f"# maoctl pipeline approve {found.pipeline} --revision {found.definition}")


@app.command(epilog=example("maoctl pipeline approve daily --revision 1f3a5c7d9b2e4a60…"))
def approve(
    context: typer.Context,
    name: PipelineArgument,
    revision: RevisionOption = None,
    agree: AgreeOption = None,
    yes: YesOption = False,
    output: OutputOption = None,
) -> None:
    """Approve the changes of a pipeline that 'maoctl pipeline diff' shows."""
    session = get_session(context, output)
    if revision is None:
        found = _diff(session, name)
        _print_diff(found, write if session.output.for_people else lambda text: say(text.rstrip("\n")))
        if not found.diff:
            session.data(found, lambda: None)
            return
        confirm(f"Run pipeline {name} on this node as shown?", yes)
        revision = found.definition
    elif not re.fullmatch("[0-9a-f]{32}", revision):
        raise CommandError(
            ExitCode.USAGE,
            f"Invalid revision {revision!r}; use 32 hexadecimal digits.",
            f"See the revision: maoctl pipeline diff {name}",
        )
    with did_you_mean((name, session.client.pipelines)), working("Pulling the images", session):
        enrolment = session.client.pipelines.approve(name, revision, agree or [])
    session.done(ENROLMENT, enrolment, "approved")


@app.command(epilog=example("maoctl pipeline withdraw daily --yes"))
def withdraw(context: typer.Context, name: PipelineArgument, yes: YesOption = False) -> None:
    """Withdraw this node from a pipeline; collected data is kept."""
    session = get_session(context)
    records.remove(session, session.client.enrolments, ENROLMENT, name, yes, "withdrawn")


@app.command(epilog=example("maoctl pipeline remove daily --yes"))
def remove(context: typer.Context, name: PipelineArgument, yes: YesOption = False) -> None:
    """Remove a pipeline that no node is enrolled in."""
    session = get_session(context)
    records.remove(session, session.client.pipelines, PIPELINE, name, yes)
