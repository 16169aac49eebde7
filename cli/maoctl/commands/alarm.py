"""`maoctl alarm`, `series` and `webhook`: alarms, the control metrics behind them, where they are sent."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING, Annotated

import typer

from mao_shared.errors import InvalidInput
from maoctl import records
from maoctl.arguments import alarms, strip_kind, webhooks
from maoctl.lookup import did_you_mean, uncut
from maoctl.output import say, write
from maoctl.receivers import Receivers
from maoctl.session import CliSession, OutputOption, YesOption, example, get_session
from maoctl.tree import App
from maoctl.views import registry

from . import notification

if TYPE_CHECKING:
    from mao_shared.models import Alarm, WebhookState

app = App(help="Alarms of this node.")
series_app = App(help="Control metrics of this node.")
webhook_app = App(help="Addresses that alarms are sent to.")

AlarmArgument = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="Id of the alarm.", autocompletion=alarms, callback=strip_kind("alarm")
    ),
]


@app.command(
    "get", lists=True, times=True, epilog=example("maoctl alarm get", "maoctl alarm get --all -o json")
)
def get(
    context: typer.Context,
    alarm: Annotated[
        str | None,
        typer.Argument(
            metavar="[ID]",
            help="Id of the alarm [default: all].",
            show_default=False,
            autocompletion=alarms,
            callback=strip_kind("alarm"),
        ),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Include acknowledged alarms.")] = False,
    output: OutputOption = None,
) -> None:
    """Show the unacknowledged alarms, or one alarm."""
    session = get_session(context, output)
    if alarm is not None:
        session.describe(registry.ALARM, _alarm(session, alarm))
        return
    session.show(registry.ALARM, session.client.alarms.list(open_only=not all_))


@app.command(epilog=example("maoctl alarm show ID"))
def show(context: typer.Context, alarm: AlarmArgument, output: OutputOption = None) -> None:
    """Show the details of an alarm."""
    session = get_session(context, output)
    session.describe(registry.ALARM, _alarm(session, alarm))


def _alarm(session: CliSession, typed: str) -> Alarm:
    """Return an alarm by its id, also as a table shows it cut. Raises NotFound that suggests similar ids."""

    def ids() -> list[str]:
        return [known.id for known in session.client.alarms.list(open_only=False)]

    whole = uncut(typed, ids)
    with did_you_mean((whole, ids)):
        return session.client.alarms.get(whole)


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
    session = get_session(context)
    found = _alarm(session, alarm)
    session.client.alarms.acknowledge(found.id, by or getpass.getuser(), note)
    say(f"alarm/{found.id} acknowledged")


notification.add_to(app)


@series_app.command(
    "get",
    lists=True,
    times=True,
    epilog=example("maoctl series get", "maoctl series get crawl collect images --since 7d"),
)
def get_series(
    context: typer.Context,
    pipeline: Annotated[
        str | None,
        typer.Argument(
            help="Pipeline, or PIPELINE/STEP/METRIC [default: list all metrics].", show_default=False
        ),
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
    names = [*pipeline.removeprefix("series/").split("/"), *filter(None, (step, metric))]
    if len(names) != 3:
        raise InvalidInput(
            "A series is named by three arguments: PIPELINE STEP METRIC.",
            code="usage",
            next="List all series: maoctl series get",
        )
    series = session.client.alarms.series(*names)
    session.show(registry.POINT, series.points)


@series_app.command("show", epilog=example("maoctl series show crawl/collect/images"))
def show_series(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="PIPELINE/STEP/METRIC.", callback=strip_kind("series"))],
    output: OutputOption = None,
) -> None:
    """Show a control metric with its details and points."""
    session = get_session(context, output)
    names = name.split("/")
    if len(names) != 3:
        raise InvalidInput(
            f"{name!r} does not name a series; write PIPELINE/STEP/METRIC.",
            code="usage",
            next="List all series: maoctl series get",
        )
    session.describe(registry.SERIES, session.client.alarms.series(*names))


# Webhooks

WebhookArgument = Annotated[
    str,
    typer.Argument(help="Name of the webhook.", autocompletion=webhooks, callback=strip_kind("webhook")),
]


def _webhooks(context: typer.Context, output: OutputOption = None) -> Receivers[WebhookState]:
    session = get_session(context, output)
    calls = session.client.webhooks
    return Receivers(session, registry.WEBHOOK, calls.list, calls.get, calls.remove)


@webhook_app.command("add", epilog=example("maoctl webhook add lab https://lab.example.org/alarms"))
def add_webhook(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the webhook.")],
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


@webhook_app.command("get", lists=True, epilog=example("maoctl webhook get"))
def get_webhook(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            help="Name of the webhook [default: all].",
            show_default=False,
            autocompletion=webhooks,
            callback=strip_kind("webhook"),
        ),
    ] = None,
    output: OutputOption = None,
) -> None:
    """Show the webhooks and their pending deliveries."""
    _webhooks(context, output).get(name)


@webhook_app.command("show", epilog=example("maoctl webhook show lab"))
def show_webhook(context: typer.Context, name: WebhookArgument, output: OutputOption = None) -> None:
    """Show the details of a webhook."""
    _webhooks(context, output).show(name)


@webhook_app.command("remove", epilog=example("maoctl webhook remove lab --yes"))
def remove_webhook(context: typer.Context, name: WebhookArgument, yes: YesOption = False) -> None:
    """Remove a webhook and its pending deliveries."""
    _webhooks(context).remove(name, yes)


@webhook_app.command("test", epilog=example("maoctl webhook test lab"))
def test_webhook(context: typer.Context, name: WebhookArgument) -> None:
    """Send a test message to a webhook; exit code 1 if it is not accepted."""
    known = _webhooks(context)
    known.test(name, known.session.client.webhooks.test)
