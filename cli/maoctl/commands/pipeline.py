"""`maoctl pipeline`: define, enrol, run, schedule."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maoctl import arguments, records, views, views_federation
from maoctl.arguments import AnyPipeline, PipelineArgument, datasets, duration_option, parse_moment, tools
from maoctl.lookup import did_you_mean, names_of
from maoctl.output import Format, say
from maoctl.session import CliSession, OutputOption, YesOption, example, session_of

from .run import FollowOption, LimitOption, TimeoutOption, WaitOption, list_runs, started_run

if TYPE_CHECKING:
    from mao_shared.models import Run

app = typer.Typer(
    help="Ordered steps: a tool that fills a dataset.", no_args_is_help=True, rich_markup_mode=None
)

AgreeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--agree", help="Grants what a tool asks for, in its words; may be repeated.", show_default=False
    ),
]
OverlapOption = Annotated[
    str | None,
    typer.Option(help="When the run before is not over: skip | queue | replace", show_default=False),
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
    tool: Annotated[str, typer.Argument(help="Name of the tool, and of the pipeline.", autocompletion=tools)],
    dataset: Annotated[str, typer.Argument(help="Dataset it fills.", autocompletion=datasets)],
    agree: AgreeOption = None,
    output: OutputOption = None,
) -> None:
    """Make a pipeline of one tool and enrol this node in it."""
    _create(session_of(context), {"tool": tool, "dataset": dataset, "agree": agree or []}, output)


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
    """Make a pipeline of several steps and enrol this node in it."""
    steps = arguments.with_metrics([parse_step(each) for each in step], metric or [])
    fields = {"name": name, "description": description, "steps": steps, "agree": agree or []}
    _create(session_of(context), fields | records.given(overlap=overlap), output)


def _create(session: CliSession, fields: dict[str, Any], output: Format | None) -> None:
    from mao_shared.models import PipelineInit

    wanted = records.build(PipelineInit, fields)
    steps = wanted.pipeline().steps
    for each in steps:
        if each.input_dataset == each.dataset:
            say(
                f"warning: {each.tool} reads the dataset {each.dataset} that it writes: it gets ground truth "
                "as it was before, and in a federation may wait for a round that waits for it"
            )
    used = [(step.tool, names_of(session.client.tools)) for step in steps]
    used += [(step.dataset, names_of(session.client.datasets)) for step in steps]
    with did_you_mean(*used):
        made = session.client.init_pipeline(wanted)
    session.done(views.PIPELINE, made, "created; this node is enrolled", output)


@app.command("get", epilog=example("maoctl pipeline get", "maoctl pipeline get daily -o yaml"))
@app.command("list", hidden=True)
def get(context: typer.Context, name: AnyPipeline = None, output: OutputOption = None) -> None:
    """Show one pipeline, or all, with this node's part in each."""
    session = session_of(context)
    if name is None:
        session.show(views.PIPELINE, session.client.node_pipelines(), output)
    else:
        session.show_one(views.PIPELINE, _state(session, name), output)


@app.command(epilog=example("maoctl pipeline show daily"))
def show(context: typer.Context, name: PipelineArgument, output: OutputOption = None) -> None:
    """Show everything about one pipeline."""
    session = session_of(context)
    session.describe(views.PIPELINE, _state(session, name), output)


def _state(session: CliSession, name: str) -> dict[str, Any]:
    states = (
        each for each in session.client.node_pipelines() if name in (each.get("name"), each.get("title"))
    )
    found = next(states, None)
    return found or records.fetch(session.client.pipelines, name).record.model_dump(mode="json")


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
        str | None, typer.Option(help="Schedules it: five fields, or @hourly, @daily …", show_default=False)
    ] = None,
    timezone: Annotated[str | None, typer.Option(help="Of --cron; else UTC.", show_default=False)] = None,
    seconds: Annotated[
        bool, typer.Option("--seconds", help="--cron has a field for seconds in front.")
    ] = False,
    catch_up: Annotated[
        str | None, typer.Option(help="Missed ticks to run: none | latest | all", show_default=False)
    ] = None,
    start_deadline: Annotated[
        float | None, duration_option("A tick that is later is missed.", "--start-deadline")
    ] = None,
    overlap: OverlapOption = None,
    scheduled_for: Annotated[
        str | None,
        typer.Option(help="The tick that the tools are told: a time with zone.", show_default=False),
    ] = None,
    wait: WaitOption = False,
    follow: FollowOption = False,
    timeout: TimeoutOption = None,
    output: OutputOption = None,
) -> None:
    """Run a pipeline now, or schedule it."""
    session = session_of(context)
    timing = records.given(
        timezone=timezone,
        catch_up=catch_up,
        start_deadline=start_deadline,
        overlap=overlap,
        seconds=seconds or None,
    )
    if cron is None:
        if timing:
            raise typer.BadParameter(f"--{next(iter(timing)).replace('_', '-')} needs --cron")
        started = _start(session, name, scheduled_for)
        started_run(session, started, output, wait=wait, follow=follow, timeout=timeout)
        return
    if wait or follow or scheduled_for:
        raise typer.BadParameter("--cron makes a job; wait for its runs with `maoctl job wait`")
    with did_you_mean((name, names_of(session.client.pipelines))):
        session.done(views.JOB, session.client.schedule(name, cron, **timing), "scheduled", output)


def _start(session: CliSession, name: str, scheduled_for: str | None) -> Run:
    moment = parse_moment(scheduled_for, session.now) if scheduled_for else None
    with did_you_mean((name, names_of(session.client.pipelines))):
        key = secrets.token_hex(16)
        return session.client.start_run(name, scheduled_for=moment, idempotency_key=key)


@app.command(epilog=example("maoctl pipeline runs daily --all-nodes"))
def runs(
    context: typer.Context,
    name: PipelineArgument,
    all_nodes: Annotated[
        bool, typer.Option("--all-nodes", help="The latest of each node, and who is late.")
    ] = False,
    limit: LimitOption = 20,
    output: OutputOption = None,
) -> None:
    """List a pipeline's runs, newest first, or how each node stands with it."""
    session = session_of(context)
    if not all_nodes:
        list_runs(context, pipeline=name, limit=limit, output=output)
        return
    with did_you_mean((name, names_of(session.client.pipelines))):
        session.show(views_federation.NODE_RUNS, session.client.node_runs(name), output)


@app.command(epilog=example("maoctl pipeline enrol daily --agree 'host network'"))
def enrol(
    context: typer.Context, name: PipelineArgument, agree: AgreeOption = None, output: OutputOption = None
) -> None:
    """Take part in a pipeline, or renew: pin its tools as they are now."""
    session = session_of(context)
    with did_you_mean((name, names_of(session.client.pipelines))):
        enrolment = session.client.enrol(name, agree or [])
    session.done(views.ENROLMENT, enrolment, "enrolled", output)


@app.command(epilog=example("maoctl pipeline withdraw daily --yes"))
def withdraw(context: typer.Context, name: PipelineArgument, yes: YesOption = False) -> None:
    """Take no more part in a pipeline; what was collected stays."""
    session = session_of(context)
    records.remove(session, session.client.enrolments, views.ENROLMENT, name, yes, "withdrawn")


@app.command(epilog=example("maoctl pipeline remove daily --yes"))
def remove(context: typer.Context, name: PipelineArgument, yes: YesOption = False) -> None:
    """Remove a pipeline in which no node is enrolled."""
    session = session_of(context)
    records.remove(session, session.client.pipelines, views.PIPELINE, name, yes)
