"""`maoctl pipeline`: define, enrol, approve, run, schedule."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maoctl import arguments, records
from maoctl.arguments import AnyPipeline, PipelineArgument
from maoctl.exits import CommandError, ExitCode
from maoctl.lookup import did_you_mean
from maoctl.output import say, write
from maoctl.session import CliSession, OutputOption, YesOption, confirm, example, get_session
from maoctl.text import harmless, harmless_line
from maoctl.views.federation import NODE_RUNS
from maoctl.views.registry import ENROLMENT, PIPELINE
from maoctl.views.runs import SCHEDULE

from .run import FollowOption, LimitOption, TimeoutOption, WaitOption, list_runs, started_run

if TYPE_CHECKING:
    from mao_shared.models import Pipeline, PipelineDiff

app = typer.Typer(
    help="Ordered steps: a tool that fills a dataset.", no_args_is_help=True, rich_markup_mode=None
)

AgreeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--agree", help="Grant what a tool asks for, in its words; may be repeated.", show_default=False
    ),
]
RevisionOption = Annotated[
    str | None,
    typer.Option(
        "--revision",
        help="The revision that `diff` has shown; refused if it has changed.",
        show_default=False,
    ),
]
OverlapOption = Annotated[
    str | None,
    typer.Option(help="When the run before has not ended: skip | queue | replace", show_default=False),
]


def parse_step(text: str) -> dict[str, str]:
    """`tool:dataset[:input_dataset]` as the fields of a step; raises BadParameter for anything else."""
    parts = text.split(":")
    if len(parts) not in (2, 3) or not all(parts):
        raise typer.BadParameter(f"{text!r} is not TOOL:DATASET or TOOL:DATASET:INPUT", param_hint="--step")
    return dict(zip(("tool", "dataset", "input_dataset"), parts, strict=False))


@app.command(epilog=example("maoctl pipeline init crawler data"))
def init(
    context: typer.Context,
    tool: Annotated[
        str, typer.Argument(help="Name of the tool, and of the pipeline.", autocompletion=arguments.tools)
    ],
    dataset: Annotated[str, typer.Argument(help="Dataset it fills.", autocompletion=arguments.datasets)],
    agree: AgreeOption = None,
    output: OutputOption = None,
) -> None:
    """Create a pipeline of one tool and enrol this node in it."""
    _create(get_session(context, output), {"tool": tool, "dataset": dataset, "agree": agree or []})


@app.command(
    epilog=example("maoctl pipeline create daily --step crawler:raw \\", "    --step summary:tables:raw")
)
def create(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the pipeline.")],
    step: Annotated[
        list[str], typer.Option("--step", metavar="TOOL:DATASET[:INPUT]", help="In order; may be repeated.")
    ],
    description: Annotated[str, typer.Option(help="What it is for.", show_default=False)] = "",
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric", metavar=arguments.METRIC_METAVAR, help=arguments.METRIC_HELP, show_default=False
        ),
    ] = None,
    overlap: OverlapOption = None,
    agree: AgreeOption = None,
    output: OutputOption = None,
) -> None:
    """Create a pipeline of several steps and enrol this node in it."""
    steps = arguments.with_metrics([parse_step(each) for each in step], metric or [])
    fields = {"name": name, "description": description, "steps": steps, "agree": agree or []}
    _create(get_session(context, output), fields | records.given(overlap=overlap))


def _create(session: CliSession, fields: dict[str, Any]) -> None:
    from mao_shared.models import PipelineInit

    wanted = records.build(PipelineInit, fields)
    steps = wanted.pipeline().steps
    for each in steps:
        if each.input_dataset == each.dataset:
            say(
                f"warning: {each.tool} reads the dataset {each.dataset} that it writes: it gets ground truth "
                "as it was before, and in a federation may wait for a round that waits for it"
            )
    used: list[tuple[str, Any]] = [(step.tool, session.client.tools) for step in steps]
    used += [(step.dataset, session.client.datasets) for step in steps]
    with did_you_mean(*used):
        made = session.client.pipelines.init(wanted)
    session.done(PIPELINE, made, "created; this node is enrolled")


@app.command("get", epilog=example("maoctl pipeline get", "maoctl pipeline get daily -o yaml"))
@app.command("list", hidden=True)
def get(context: typer.Context, name: AnyPipeline = None, output: OutputOption = None) -> None:
    """Show one pipeline, or all, and whether this node is enrolled."""
    session = get_session(context, output)
    if name is None:
        session.show(PIPELINE, session.client.pipelines.states())
    else:
        session.show_one(PIPELINE, _find(session, name))


@app.command(epilog=example("maoctl pipeline show daily"))
def show(context: typer.Context, name: PipelineArgument, output: OutputOption = None) -> None:
    """Show everything about one pipeline."""
    session = get_session(context, output)
    session.describe(PIPELINE, _find(session, name))


def _find(session: CliSession, name: str) -> Pipeline:
    """With this node's part in it, if it has one."""
    states = (each for each in session.client.pipelines.states() if name in (each.name, each.title))
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
        str | None, typer.Option(help="Schedule it: five fields, or @hourly, @daily …", show_default=False)
    ] = None,
    timezone: Annotated[str | None, typer.Option(help="Of --cron; else UTC.", show_default=False)] = None,
    seconds: Annotated[
        bool, typer.Option("--seconds", help="The first field of --cron is for seconds.")
    ] = False,
    catch_up: Annotated[
        str | None, typer.Option(help="Missed ticks to run: none | latest | all", show_default=False)
    ] = None,
    start_deadline: Annotated[
        float | None, arguments.duration_option("A tick later than this is missed.", "--start-deadline")
    ] = None,
    overlap: OverlapOption = None,
    scheduled_for: Annotated[
        str | None,
        typer.Option(help="The tick passed to the tools: a time with a zone.", show_default=False),
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
        started_run(session, started, wait=wait, follow=follow, timeout=timeout)
        return
    if wait or follow or scheduled_for:
        raise typer.BadParameter("--cron creates a job; wait for its runs with `maoctl job wait`")
    request = records.build(ScheduleRequest, timing | {"name": name, "cron": cron})
    with did_you_mean((name, session.client.pipelines)):
        session.done(SCHEDULE, session.client.pipelines.schedule(request), "scheduled")


@app.command(epilog=example("maoctl pipeline runs daily --all-nodes"))
def runs(
    context: typer.Context,
    name: PipelineArgument,
    all_nodes: Annotated[
        bool, typer.Option("--all-nodes", help="The latest run of each node, and who is late.")
    ] = False,
    limit: LimitOption = 20,
    output: OutputOption = None,
) -> None:
    """List a pipeline's runs, newest first, or the latest of each node."""
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
    """Enrol this node in a pipeline, or renew: pin its tools as they are now."""
    session = get_session(context, output)
    with did_you_mean((name, session.client.pipelines)):
        enrolment = session.client.enrolments.enrol(name, agree or [])
    session.done(ENROLMENT, enrolment, "enrolled")


@app.command(epilog=example("maoctl pipeline diff daily"))
def diff(context: typer.Context, name: PipelineArgument, output: OutputOption = None) -> None:
    """Show what has changed in a pipeline since this node agreed to it."""
    session = get_session(context, output)
    found = _diff(session, name)
    session.data(found, lambda: _print_diff(found))


def _diff(session: CliSession, name: str) -> PipelineDiff:
    with did_you_mean((name, session.client.pipelines)):
        return session.client.pipelines.diff(name)


def _print_diff(found: PipelineDiff) -> None:
    for name, image in found.rebuilt.items():
        say(f"# image {harmless_line(name)} was rebuilt or pulled again; here: {harmless_line(image.here)}")
        say(f"#   runs use {harmless_line(image.pinned)}; to use the new one:")
        say(f"#   maoctl pipeline enrol {found.pipeline}")
    if not found.diff:
        say(f"pipeline/{found.pipeline}: nothing is pending; it runs here as it is registered")
        return
    write(harmless(found.diff) + "\n")
    for label, nodes in found.endorsed.items():
        say(f"# {label}: {'changed by ' + ', '.join(nodes) if nodes else 'endorsed by no trusted node'}")
    from mao_shared.models.tool import asked_words

    for word in found.agree:
        said = harmless_line(asked_words([word]))
        say(f"# asks for {said}: --agree '{harmless_line(word)}'")
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
    """Approve a changed pipeline: this node runs it as it was shown."""
    session = get_session(context, output)
    if revision is None:
        found = _diff(session, name)
        _print_diff(found)
        if not found.diff:
            return
        confirm(f"Run pipeline {name} on this node as shown?", yes)
        revision = found.definition
    elif not re.fullmatch("[0-9a-f]{32}", revision):
        raise CommandError(
            ExitCode.USAGE,
            f"Invalid revision {revision!r}: a pipeline's has 32 hexadecimal digits.",
            f"Use the one that is shown: maoctl pipeline diff {name}",
        )
    with did_you_mean((name, session.client.pipelines)):
        enrolment = session.client.pipelines.approve(name, revision, agree or [])
    session.done(ENROLMENT, enrolment, "approved")


@app.command(epilog=example("maoctl pipeline withdraw daily --yes"))
def withdraw(context: typer.Context, name: PipelineArgument, yes: YesOption = False) -> None:
    """Withdraw this node from a pipeline; what was collected stays."""
    session = get_session(context)
    records.remove(session, session.client.enrolments, ENROLMENT, name, yes, "withdrawn")


@app.command(epilog=example("maoctl pipeline remove daily --yes"))
def remove(context: typer.Context, name: PipelineArgument, yes: YesOption = False) -> None:
    """Remove a pipeline in which no node is enrolled."""
    session = get_session(context)
    records.remove(session, session.client.pipelines, PIPELINE, name, yes)
