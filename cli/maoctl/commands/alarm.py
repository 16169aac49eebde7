"""`maoctl alarm`, `series` and `webhook`: alarms, the control metrics behind them, where they are sent."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer

from mao_shared.errors import InvalidInput
from maoctl import records
from maoctl.exits import ExitCode
from maoctl.output import say, write
from maoctl.session import OutputOption, YesOption, confirm, example, get_session
from maoctl.views import registry

from . import notification

app = typer.Typer(help="Alarms of this node.", no_args_is_help=True, rich_markup_mode=None)
series_app = typer.Typer(help="Control metrics of this node.", no_args_is_help=True, rich_markup_mode=None)
webhook_app = typer.Typer(
    help="Addresses that alarms are sent to.", no_args_is_help=True, rich_markup_mode=None
)

AlarmArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of the alarm.")]


@app.command("get", epilog=example("maoctl alarm get", "maoctl alarm get --all -o json"))
@app.command("list", hidden=True)
def get(
    context: typer.Context,
    alarm: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Id of the alarm [default: all].", show_default=False)
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Include acknowledged alarms.")] = False,
    output: OutputOption = None,
) -> None:
    """Show the unacknowledged alarms, or one alarm."""
    session = get_session(context, output)
    if alarm is not None:
        session.describe(registry.ALARM, session.client.alarms.get(alarm))
        return
    session.show(registry.ALARM, session.client.alarms.list(open_only=not all_))


@app.command(epilog=example('maoctl alarm ack ID --note "the source changed its format"'))
def ack(
    context: typer.Context,
    alarm: AlarmArgument,
    note: Annotated[str, typer.Option(help="Note to keep with the alarm.")] = "",
    by: Annotated[
        str | None, typer.Option(help="Who acknowledges it [default: your login name].", show_default=False)
    ] = None,
) -> None:
    """Acknowledge an alarm."""
    get_session(context).client.alarms.acknowledge(alarm, by or getpass.getuser(), note)
    say(f"alarm/{alarm} acknowledged")


notification.add_to(app)


@series_app.command("get", epilog=example("maoctl series get", "maoctl series get crawl collect images"))
@series_app.command("list", hidden=True)
def get_series(
    context: typer.Context,
    pipeline: Annotated[
        str | None, typer.Argument(help="Pipeline [default: list all metrics].", show_default=False)
    ] = None,
    step: Annotated[str | None, typer.Argument(help="Step of the pipeline.", show_default=False)] = None,
    metric: Annotated[
        str | None, typer.Argument(help="Control metric of the step.", show_default=False)
    ] = None,
    output: OutputOption = None,
) -> None:
    """Show the control metrics with their latest values, or the points of one."""
    session = get_session(context, output)
    if pipeline is None:
        session.show(registry.SERIES, session.client.alarms.all_series())
        return
    if step is None or metric is None:
        raise InvalidInput(
            "A series is named by three arguments: PIPELINE STEP METRIC.",
            code="usage",
            next="List all series: maoctl series get",
        )
    series = session.client.alarms.series(pipeline, step, metric)
    session.show(registry.POINT, series.points)


# Webhooks

NameArgument = Annotated[str, typer.Argument(help="Name of the webhook.")]


@webhook_app.command("add", epilog=example("maoctl webhook add lab https://lab.example.org/alarms"))
def add_webhook(
    context: typer.Context,
    name: NameArgument,
    url: Annotated[str, typer.Argument(help="http:// or https:// address.")],
    secret_file: Annotated[
        typer.FileText | None,
        typer.Option(help="File with the secret [default: generate one].", show_default=False),
    ] = None,
) -> None:
    """Send all alarms to an address. Prints the secret that signs them, once."""
    from mao_shared.models import WebhookRequest

    secret = None if secret_file is None else secret_file.read().strip()
    request = records.build(WebhookRequest, records.given(name=name, url=url, secret=secret))
    made = get_session(context).client.webhooks.add(request)
    say(f"webhook/{name} added; its secret, which is not shown again:")
    write((made.secret or "") + "\n")


@webhook_app.command("get", epilog=example("maoctl webhook get"))
@webhook_app.command("list", hidden=True)
def get_webhook(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(help="Name of the webhook [default: all].", show_default=False)
    ] = None,
    output: OutputOption = None,
) -> None:
    """Show the webhooks and their pending deliveries."""
    session = get_session(context, output)
    if name is None:
        session.show(registry.WEBHOOK, session.client.webhooks.list())
    else:
        session.show_one(registry.WEBHOOK, session.client.webhooks.get(name))


@webhook_app.command("remove", epilog=example("maoctl webhook remove lab --yes"))
def remove_webhook(context: typer.Context, name: NameArgument, yes: YesOption = False) -> None:
    """Remove a webhook and its pending deliveries."""
    confirm(f"Remove webhook {name}?", yes)
    get_session(context).client.webhooks.remove(name)
    say(f"webhook/{name} removed")


@webhook_app.command("test", epilog=example("maoctl webhook test lab"))
def test_webhook(context: typer.Context, name: NameArgument) -> None:
    """Send a test message to a webhook; exit code 1 if it is not accepted."""
    result = get_session(context).client.webhooks.test(name)
    if not result.delivered:
        say(f"webhook/{name} did not accept the message: {result.error}")
        raise typer.Exit(ExitCode.FAILED)
    say(f"webhook/{name} accepted the message")
