"""`maoctl alarm` and `maoctl series`: what looks wrong, and the numbers behind it."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer

from mao_shared.errors import InvalidInput
from maoctl import views
from maoctl.lookup import segment
from maoctl.output import say
from maoctl.session import OutputOption, example, session_of

app = typer.Typer(help="Alarms of this node.", no_args_is_help=True, rich_markup_mode=None)
series_app = typer.Typer(help="Control metrics of this node.", no_args_is_help=True, rich_markup_mode=None)

AlarmArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of the alarm.")]


@app.command("get", epilog=example("maoctl alarm get", "maoctl alarm get --all -o json"))
@app.command("list", hidden=True)
def get(
    context: typer.Context,
    alarm: Annotated[str | None, typer.Argument(metavar="[ID]", show_default=False)] = None,
    all_: Annotated[bool, typer.Option("--all", help="Those that were acknowledged as well.")] = False,
    output: OutputOption = None,
) -> None:
    """Show the alarms that nobody has acknowledged, or one."""
    session = session_of(context)
    if alarm is not None:
        session.describe(views.ALARM, session.client.alarm(segment(alarm)), output)
        return
    session.show(views.ALARM, session.client.alarms(open_only=not all_), output)


@app.command(epilog=example('maoctl alarm ack ID --note "the source changed its format"'))
def ack(
    context: typer.Context,
    alarm: AlarmArgument,
    note: Annotated[str, typer.Option(help="What you found.")] = "",
    by: Annotated[str | None, typer.Option(help="Else your login name.", show_default=False)] = None,
) -> None:
    """Say that you have seen an alarm."""
    session_of(context).client.acknowledge(segment(alarm), by or getpass.getuser(), note)
    say(f"alarm/{alarm} acknowledged")


@series_app.command("get", epilog=example("maoctl series get", "maoctl series get crawl collect images"))
@series_app.command("list", hidden=True)
def get_series(
    context: typer.Context,
    pipeline: Annotated[str | None, typer.Argument(show_default=False)] = None,
    step: Annotated[str | None, typer.Argument(show_default=False)] = None,
    metric: Annotated[str | None, typer.Argument(show_default=False)] = None,
    output: OutputOption = None,
) -> None:
    """Show the control metrics with their newest values, or the points of one."""
    session = session_of(context)
    if pipeline is None:
        session.show(views.SERIES, session.client.all_series(), output)
        return
    if step is None or metric is None:
        raise InvalidInput(
            "A series is named by three words.",
            code="usage",
            next="maoctl series get PIPELINE STEP METRIC; without any, all are listed.",
        )
    found = session.client.series(segment(pipeline), segment(step), segment(metric))
    session.show(views.POINT, found["points"], output)
